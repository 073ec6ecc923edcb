-- What this registry shares with its peers: who it is to them, what it keeps of each, and, beside the tables of the
-- kinds, the versions of the records in their scopes (sync/version.py). `body`, `state`: JSON.
CREATE TABLE sync_identity (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    body TEXT NOT NULL
);

CREATE TABLE sync_peers (
    node TEXT PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;

-- `digest`: 32 hex digits. `tombs`: registers that hold only removals. `reviews`: conflicts to settle. `held`: why the
-- merged record does not fit its kind here, empty when it does.
CREATE TABLE sync_records (
    kind      TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    position  INTEGER NOT NULL,
    digest    TEXT NOT NULL,
    tombs     INTEGER NOT NULL,
    reviews   INTEGER NOT NULL,
    held      TEXT NOT NULL,
    state     TEXT NOT NULL,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;

CREATE UNIQUE INDEX sync_records_by_position ON sync_records (position);
CREATE INDEX sync_records_with_tombs ON sync_records (position) WHERE tombs > 0;
CREATE INDEX sync_records_to_review ON sync_records (kind, namespace, name) WHERE reviews > 0 OR held <> '';
