-- Named readers of the log. Everything up to `cursor` is acknowledged; `incarnation` and `revision` are parts of it.
-- `selector`: JSON.
CREATE TABLE consumers (
    name        TEXT PRIMARY KEY,
    selector    TEXT NOT NULL,
    cursor      TEXT NOT NULL,
    incarnation TEXT NOT NULL,
    revision    INTEGER NOT NULL,
    created_at  TEXT NOT NULL,
    created_by  TEXT NOT NULL,
    acked_at    TEXT
) WITHOUT ROWID;
