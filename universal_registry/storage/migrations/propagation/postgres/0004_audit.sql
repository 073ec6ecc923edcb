-- What was done or refused that is no line of the change log, each row hashed over the one before (log/audit.py).
-- Written in the transaction of what it tells of, by one transaction at a time.
CREATE TABLE propagation.audit (
    number  bigint PRIMARY KEY,
    id      text COLLATE "C" NOT NULL UNIQUE,
    at      text COLLATE "C" NOT NULL,
    actor   text COLLATE "C" NOT NULL,
    action  text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    details text COLLATE "C" NOT NULL,
    hash    bytea NOT NULL
);

CREATE FUNCTION propagation.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only';
END $$;

CREATE TRIGGER audit_guard BEFORE UPDATE OR DELETE OR TRUNCATE ON propagation.audit
FOR EACH STATEMENT EXECUTE FUNCTION propagation.refuse_audit_change();
