-- The change log and what identifies the store. The tables of the kinds are made from the catalogue (ddl.py).
-- Text is compared byte by byte, as SQLite does. JSON is kept as the canonical text that was written.
CREATE TABLE meta (
    key   text COLLATE "C" PRIMARY KEY,
    value text COLLATE "C" NOT NULL
);

-- The end of the log, in one row. Every writer locks it first: so revisions are gapless, in the order of the commits,
-- and several daemons never wait for one another in a circle.
CREATE TABLE head (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    revision    bigint NOT NULL,
    hash        bytea NOT NULL,
    incarnation text COLLATE "C" NOT NULL
) WITH (fillfactor = 10);

-- position = revision * 2^20 + seq.
CREATE TABLE changes (
    position        bigint PRIMARY KEY,
    revision        bigint NOT NULL,
    seq             integer NOT NULL,
    op              text COLLATE "C" NOT NULL,
    kind            text COLLATE "C" NOT NULL,
    namespace       text COLLATE "C" NOT NULL,
    name            text COLLATE "C" NOT NULL,
    uid             text COLLATE "C" NOT NULL,
    generation      bigint NOT NULL,
    commitment      text COLLATE "C" NOT NULL,
    prev_commitment text COLLATE "C",
    changed_fields  text COLLATE "C" NOT NULL,
    actor           text COLLATE "C" NOT NULL,
    txn_id          text COLLATE "C" NOT NULL,
    message         text COLLATE "C" NOT NULL,
    at              text COLLATE "C" NOT NULL,
    hash            bytea NOT NULL,
    body            text COLLATE "C"
);

CREATE INDEX changes_by_record ON changes (kind, namespace, name, position);

-- Every namespace that ever held a record: a name is looked for in each, by the key.
CREATE TABLE namespaces (
    namespace text COLLATE "C" PRIMARY KEY
);

-- Plain SQL writes are refused, by mistake at least: ureg_commit alone sets this variable, for as long as it runs.
CREATE FUNCTION refuse_writes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('ureg.write', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION USING MESSAGE = TG_ARGV[0];
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER changes_guard_append BEFORE INSERT ON changes
FOR EACH STATEMENT EXECUTE FUNCTION refuse_writes('write through a front: ureg set, apply or delete');

CREATE TRIGGER changes_guard_alter BEFORE UPDATE OR DELETE OR TRUNCATE ON changes
FOR EACH STATEMENT EXECUTE FUNCTION refuse_writes('the change log is append-only');

CREATE TRIGGER head_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON head
FOR EACH STATEMENT EXECUTE FUNCTION refuse_writes('the head of the log moves with the log alone');

-- A whole batch in one call: append the lines, make the records what they are now, move the head, wake the others.
-- The caller holds the head's row and has read `before` from it. Records come in order of table, namespace and name.
CREATE FUNCTION ureg_commit(
    before bigint, after bigint, after_hash bytea,
    l_revision bigint[], l_seq integer[], l_op text[], l_kind text[], l_namespace text[], l_name text[], l_uid text[],
    l_generation bigint[], l_commitment text[], l_prev_commitment text[], l_changed_fields text[], l_actor text[],
    l_txn_id text[], l_message text[], l_at text[], l_hash bytea[], l_body text[],
    r_table text[], r_uid text[], r_namespace text[], r_name text[], r_classification text[], r_title text[],
    r_description text[], r_labels text[], r_annotations text[], r_spec text[], r_managers text[],
    r_generation bigint[], r_revision bigint[], r_created_revision bigint[], r_created_at text[], r_updated_at text[],
    r_created_by text[], r_updated_by text[], r_lifecycle text[], r_health text[], r_expires_at text[],
    r_fingerprint text[],
    d_table text[], d_namespace text[], d_name text[]
) RETURNS void LANGUAGE plpgsql SET "ureg.write" = 'on' AS $$
DECLARE
    each text;
BEGIN
    UPDATE registry.head SET revision = after, hash = after_hash WHERE revision = before;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the head of the log is no longer at revision %', before USING ERRCODE = 'serialization_failure';
    END IF;
    INSERT INTO registry.changes
    SELECT (revision << 20) + seq, line.*
    FROM unnest(l_revision, l_seq, l_op, l_kind, l_namespace, l_name, l_uid, l_generation, l_commitment,
                l_prev_commitment, l_changed_fields, l_actor, l_txn_id, l_message, l_at, l_hash, l_body)
         AS line (revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment,
                  changed_fields, actor, txn_id, message, at, hash, body);
    FOR each IN SELECT DISTINCT t FROM unnest(d_table) AS t ORDER BY t LOOP
        EXECUTE format(
            'DELETE FROM registry.%I AS r USING unnest($1, $2, $3) AS d (tbl, namespace, name)
             WHERE d.tbl = $4 AND r.namespace = d.namespace AND r.name = d.name', each)
        USING d_table, d_namespace, d_name, each;
    END LOOP;
    FOR each IN SELECT DISTINCT t FROM unnest(r_table) AS t ORDER BY t LOOP
        -- Made with the kind's table, so that its plan is kept.
        EXECUTE format('SELECT registry.%I($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
                                           $19, $20, $21, $22)', 'ureg_put_' || each)
        USING r_table, r_uid, r_namespace, r_name, r_classification, r_title, r_description, r_labels,
              r_annotations, r_spec, r_managers, r_generation, r_revision, r_created_revision, r_created_at,
              r_updated_at, r_created_by, r_updated_by, r_lifecycle, r_health, r_expires_at, r_fingerprint;
    END LOOP;
    INSERT INTO registry.namespaces SELECT DISTINCT n FROM unnest(r_namespace) AS n
    WHERE NOT EXISTS (SELECT 1 FROM registry.namespaces AS known WHERE known.namespace = n)
    ON CONFLICT DO NOTHING;
    PERFORM pg_notify('ureg', '');
END $$;
