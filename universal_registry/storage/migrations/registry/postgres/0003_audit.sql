-- What was done or refused that is no line of the change log, each row hashed over the one before (log/audit.py).
-- Written in the transaction of what it tells of, by one transaction at a time.
CREATE TABLE registry.audit (
    number  bigint PRIMARY KEY,
    id      text COLLATE "C" NOT NULL UNIQUE,
    at      text COLLATE "C" NOT NULL,
    actor   text COLLATE "C" NOT NULL,
    action  text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    details text COLLATE "C" NOT NULL,
    hash    bytea NOT NULL
);

CREATE FUNCTION registry.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only';
END $$;

CREATE TRIGGER audit_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON registry.audit
FOR EACH STATEMENT EXECUTE FUNCTION registry.refuse_audit_change();

-- Access tokens: a hash each, never the token. `scopes`: words with commas between them.
CREATE TABLE registry.tokens (
    name       text COLLATE "C" PRIMARY KEY,
    hash       text COLLATE "C" NOT NULL UNIQUE,
    scopes     text COLLATE "C" NOT NULL,
    created_at text COLLATE "C" NOT NULL,
    created_by text COLLATE "C" NOT NULL,
    expires_at text COLLATE "C"
);
