-- What was exchanged with studios: the newest rows. Payloads stay sealed in the log; the view says where.
DROP TABLE nexus_sync_log;

CREATE TABLE studio_syncs (
    id         INTEGER PRIMARY KEY,
    studio     TEXT NOT NULL,
    entry      TEXT NOT NULL,
    component  TEXT NOT NULL,
    direction  TEXT NOT NULL,
    way        TEXT NOT NULL CHECK (way IN ('pull', 'push')),
    revision   INTEGER NOT NULL,
    status     TEXT NOT NULL CHECK (status IN ('pending', 'executed', 'failed')),
    reason     TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX studio_syncs_pending ON studio_syncs (studio, revision, component, entry) WHERE status = 'pending';
CREATE INDEX studio_syncs_by_entry ON studio_syncs (entry, id);

CREATE VIEW nexus_sync_log AS
SELECT entry AS registry_entry_id, component AS nexus_component_id, direction AS sync_direction,
       'sealed:log:' || revision AS payload, status, created_at
FROM studio_syncs;
