-- The change log and what identifies the store. The tables of the kinds are made from the catalogue (ddl.py).
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- Holds a row only inside the writer's own transactions: plain SQL writes are refused, by mistake at least.
CREATE TABLE write_guard (open INTEGER NOT NULL);

-- position = revision * 2^20 + seq: appending is one insert at the right edge of one b-tree.
CREATE TABLE changes (
    position        INTEGER PRIMARY KEY,
    revision        INTEGER NOT NULL,
    seq             INTEGER NOT NULL,
    op              TEXT NOT NULL,
    kind            TEXT NOT NULL,
    namespace       TEXT NOT NULL,
    name            TEXT NOT NULL,
    uid             TEXT NOT NULL,
    generation      INTEGER NOT NULL,
    commitment      TEXT NOT NULL,
    prev_commitment TEXT,
    changed_fields  TEXT NOT NULL,
    actor           TEXT NOT NULL,
    txn_id          TEXT NOT NULL,
    message         TEXT NOT NULL,
    at              TEXT NOT NULL,
    hash            BLOB NOT NULL,
    body            TEXT
);

CREATE INDEX changes_by_record ON changes (kind, namespace, name, revision);

CREATE TRIGGER changes_guard_insert BEFORE INSERT ON changes
WHEN NOT EXISTS (SELECT 1 FROM write_guard)
BEGIN SELECT RAISE(ABORT, 'write through a front: ureg set, apply or delete'); END;

CREATE TRIGGER changes_guard_update BEFORE UPDATE ON changes
WHEN NOT EXISTS (SELECT 1 FROM write_guard)
BEGIN SELECT RAISE(ABORT, 'the change log is append-only'); END;

CREATE TRIGGER changes_guard_delete BEFORE DELETE ON changes
WHEN NOT EXISTS (SELECT 1 FROM write_guard)
BEGIN SELECT RAISE(ABORT, 'the change log is append-only'); END;
