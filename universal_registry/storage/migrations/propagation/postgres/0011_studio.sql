-- What was exchanged with studios: the newest rows. Payloads stay sealed in the log; the view says where.
DROP TABLE propagation.nexus_sync_log;

CREATE TABLE propagation.studio_syncs (
    id         BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    studio     TEXT COLLATE "C" NOT NULL,
    entry      TEXT COLLATE "C" NOT NULL,
    component  TEXT COLLATE "C" NOT NULL,
    direction  TEXT NOT NULL,
    way        TEXT NOT NULL CHECK (way IN ('pull', 'push')),
    revision   BIGINT NOT NULL,
    status     TEXT NOT NULL CHECK (status IN ('pending', 'executed', 'failed')),
    reason     TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);

CREATE UNIQUE INDEX studio_syncs_pending ON propagation.studio_syncs (studio, revision, component, entry)
    WHERE status = 'pending';
CREATE INDEX studio_syncs_by_entry ON propagation.studio_syncs (entry, id);

CREATE VIEW propagation.nexus_sync_log AS
SELECT entry AS registry_entry_id, component AS nexus_component_id, direction AS sync_direction,
       'sealed:log:' || revision AS payload, status, created_at
FROM propagation.studio_syncs;
