-- What this registry shares with its peers: who it is to them, what it keeps of each, and, beside the tables of the
-- kinds, the versions of the records in their scopes (sync/version.py). `body`, `state`: JSON.
CREATE TABLE sync_identity (
    one  integer PRIMARY KEY CHECK (one = 1),
    body text COLLATE "C" NOT NULL
);

CREATE TABLE sync_peers (
    node text COLLATE "C" PRIMARY KEY,
    body text COLLATE "C" NOT NULL
);

-- `digest`: 32 hex digits. `tombs`: registers that hold only removals. `reviews`: conflicts to settle. `held`: why the
-- merged record does not fit its kind here, empty when it does.
CREATE TABLE sync_records (
    kind      text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    name      text COLLATE "C" NOT NULL,
    position  bigint NOT NULL,
    digest    text COLLATE "C" NOT NULL,
    tombs     bigint NOT NULL,
    reviews   bigint NOT NULL,
    held      text COLLATE "C" NOT NULL,
    state     text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, namespace, name)
);

CREATE UNIQUE INDEX sync_records_by_position ON sync_records (position);
CREATE INDEX sync_records_with_tombs ON sync_records (position) WHERE tombs > 0;
CREATE INDEX sync_records_to_review ON sync_records (kind, namespace, name) WHERE reviews > 0 OR held <> '';

-- In the row that every writer locks, so that a daemon learns in its next transaction that another one has made this
-- registry a node, and keeps versions, too.
ALTER TABLE head ADD COLUMN synced boolean NOT NULL DEFAULT false;

CREATE FUNCTION ureg_keep_versions() RETURNS void LANGUAGE sql SET "ureg.write" = 'on' AS $$
    UPDATE registry.head SET synced = true;
$$;
