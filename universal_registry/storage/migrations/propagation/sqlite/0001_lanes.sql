-- The propagation store. Times are RFC 3339, UTC, with milliseconds and Z: they compare as text.
-- Nothing here is newer than SQLite 3.38: the system's sqlite3 reads this file while the daemon writes.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name) VALUES ('executed'), ('delivered'), ('retried'), ('failed'), ('messages');

-- One reader of the log with a destination. "rows", waiting and dead are kept by the triggers below, by nobody else.
CREATE TABLE lanes (
    lane_id           TEXT PRIMARY KEY,
    target_uid        TEXT NOT NULL,
    target_namespace  TEXT NOT NULL,
    target_name       TEXT NOT NULL,
    transport         TEXT NOT NULL,
    owner             TEXT NOT NULL,
    generation        INTEGER NOT NULL,
    lease_until       TEXT,
    incarnation       TEXT NOT NULL,
    position_revision INTEGER NOT NULL,
    position_seq      INTEGER NOT NULL,
    hash8             TEXT NOT NULL,
    backfill_route    TEXT,
    backfill_upto     INTEGER,
    backfill_at       INTEGER,
    breaker           TEXT NOT NULL CHECK (breaker IN ('closed', 'open', 'half-open')),
    failures          INTEGER NOT NULL,
    trips             INTEGER NOT NULL,
    open_until        TEXT,
    pause_until       TEXT,
    paused            INTEGER NOT NULL CHECK (paused IN (0, 1)),
    held              TEXT NOT NULL,
    delivered         INTEGER NOT NULL,
    last_success_at   TEXT,
    last_failure_at   TEXT,
    last_error        TEXT NOT NULL,
    "rows"            INTEGER NOT NULL DEFAULT 0,
    waiting           INTEGER NOT NULL DEFAULT 0,
    dead              INTEGER NOT NULL DEFAULT 0,
    CHECK ((backfill_route IS NULL) = (backfill_upto IS NULL) AND (backfill_route IS NULL) = (backfill_at IS NULL))
) STRICT;

CREATE INDEX lanes_by_target ON lanes (target_namespace, target_name, position_revision);

-- What a lane has not delivered below its position. `head`: the earliest live row of its record in its lane, the only
-- one that may be tried; kept by the triggers, so that finding what is due never walks past those behind it.
CREATE TABLE deliveries (
    id          INTEGER PRIMARY KEY,
    delivery_id TEXT NOT NULL UNIQUE,
    lane_id     TEXT NOT NULL REFERENCES lanes (lane_id) ON DELETE CASCADE,
    session_id  TEXT NOT NULL,
    route_uid   TEXT NOT NULL,
    op          TEXT NOT NULL CHECK (op IN ('put', 'delete', 'event')),
    kind        TEXT NOT NULL,
    namespace   TEXT NOT NULL,
    name        TEXT NOT NULL,
    revision    INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('pending', 'sending', 'waiting', 'dead', 'cancelled')),
    attempts    INTEGER NOT NULL CHECK (attempts >= 0),
    crashes     INTEGER NOT NULL CHECK (crashes >= 0),
    next_at     TEXT,
    reason      TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    head        INTEGER NOT NULL DEFAULT 0,
    live        INTEGER NOT NULL GENERATED ALWAYS AS (state IN ('pending', 'sending', 'waiting')) VIRTUAL,
    CHECK (state <> 'waiting' OR next_at IS NOT NULL)
) STRICT;

CREATE INDEX deliveries_by_lane ON deliveries (lane_id, revision, seq);
CREATE INDEX deliveries_by_key ON deliveries (name, kind, namespace, lane_id, live, revision, seq, delivery_id);
CREATE INDEX deliveries_by_session ON deliveries (session_id, lane_id, state);
CREATE INDEX deliveries_dead ON deliveries (lane_id, revision, seq) WHERE state = 'dead';
CREATE INDEX deliveries_sending ON deliveries (lane_id) WHERE state = 'sending';
CREATE INDEX deliveries_pending_heads ON deliveries (lane_id, revision, seq) WHERE head = 1 AND state = 'pending';
CREATE INDEX deliveries_waiting_heads ON deliveries (lane_id, revision, seq, next_at) WHERE head = 1 AND state = 'waiting';
CREATE INDEX deliveries_waiting_by_time ON deliveries (lane_id, next_at, revision, seq) WHERE head = 1 AND state = 'waiting';
CREATE INDEX deliveries_next ON deliveries (next_at) WHERE head = 1 AND state = 'waiting';

-- Attempts that did not succeed, append only. They outlive their delivery's row, not its lane.
CREATE TABLE attempts (
    id           INTEGER PRIMARY KEY,
    delivery_id  TEXT NOT NULL,
    lane_id      TEXT NOT NULL REFERENCES lanes (lane_id) ON DELETE CASCADE,
    number       INTEGER NOT NULL CHECK (number >= 0),
    at           TEXT NOT NULL,
    outcome      TEXT NOT NULL,
    status       INTEGER,
    milliseconds REAL NOT NULL,
    reason       TEXT NOT NULL
) STRICT;

CREATE INDEX attempts_by_delivery ON attempts (delivery_id);
CREATE INDEX attempts_by_lane ON attempts (lane_id);

CREATE TRIGGER attempts_append_only BEFORE UPDATE ON attempts
BEGIN SELECT RAISE(ABORT, 'attempts are append-only'); END;

CREATE TABLE sessions (
    session_id    TEXT PRIMARY KEY,
    mode          TEXT NOT NULL,
    source        TEXT NOT NULL,
    standing      INTEGER NOT NULL CHECK (standing IN (0, 1)),
    state         TEXT NOT NULL,
    revision      INTEGER NOT NULL,
    created_at    TEXT NOT NULL,
    last_activity TEXT NOT NULL
) STRICT;

CREATE TABLE session_targets (
    session_id       TEXT NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
    target_namespace TEXT NOT NULL,
    target_name      TEXT NOT NULL,
    place            INTEGER NOT NULL,
    PRIMARY KEY (session_id, target_namespace, target_name)
) STRICT, WITHOUT ROWID;

-- Counts of a lane, exact whoever writes, so that no total ever needs a walk over the rows.
CREATE TRIGGER deliveries_count_insert AFTER INSERT ON deliveries BEGIN
    UPDATE lanes SET "rows" = "rows" + NEW.live, waiting = waiting + (NEW.state = 'waiting'),
                     dead = dead + (NEW.state = 'dead')
    WHERE lane_id = NEW.lane_id;
END;

CREATE TRIGGER deliveries_count_delete AFTER DELETE ON deliveries BEGIN
    UPDATE lanes SET "rows" = "rows" - OLD.live, waiting = waiting - (OLD.state = 'waiting'),
                     dead = dead - (OLD.state = 'dead')
    WHERE lane_id = OLD.lane_id;
END;

CREATE TRIGGER deliveries_count_update AFTER UPDATE OF state ON deliveries WHEN NEW.state <> OLD.state BEGIN
    UPDATE lanes SET "rows" = "rows" + NEW.live - OLD.live,
                     waiting = waiting + (NEW.state = 'waiting') - (OLD.state = 'waiting'),
                     dead = dead + (NEW.state = 'dead') - (OLD.state = 'dead')
    WHERE lane_id = NEW.lane_id;
END;

-- What identifies a row and its place in the order never changes, so the triggers need not follow it.
CREATE TRIGGER deliveries_fixed BEFORE UPDATE OF delivery_id, lane_id, kind, namespace, name, revision, seq ON deliveries
BEGIN SELECT RAISE(ABORT, 'a delivery keeps its lane, record and place'); END;

-- A row that comes to life before all others of its record takes the head from the one that had it.
CREATE TRIGGER deliveries_head_insert AFTER INSERT ON deliveries WHEN NEW.live AND NEW.id = (
    SELECT id FROM deliveries
    WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
    ORDER BY revision, seq, delivery_id LIMIT 1
) BEGIN
    UPDATE deliveries SET head = 0 WHERE head = 1 AND id = (
        SELECT id FROM deliveries
        WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1 OFFSET 1
    );
    UPDATE deliveries SET head = 1 WHERE id = NEW.id;
END;

CREATE TRIGGER deliveries_head_revive AFTER UPDATE OF state ON deliveries WHEN NEW.live > OLD.live AND NEW.id = (
    SELECT id FROM deliveries
    WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
    ORDER BY revision, seq, delivery_id LIMIT 1
) BEGIN
    UPDATE deliveries SET head = 0 WHERE head = 1 AND id = (
        SELECT id FROM deliveries
        WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1 OFFSET 1
    );
    UPDATE deliveries SET head = 1 WHERE id = NEW.id;
END;

-- A head that ends hands over to the next of its record.
CREATE TRIGGER deliveries_head_end AFTER UPDATE OF state ON deliveries WHEN NEW.live < OLD.live AND OLD.head = 1 BEGIN
    UPDATE deliveries SET head = 0 WHERE id = NEW.id;
    UPDATE deliveries SET head = 1 WHERE id = (
        SELECT id FROM deliveries
        WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1
    );
END;

CREATE TRIGGER deliveries_head_delete AFTER DELETE ON deliveries WHEN OLD.head = 1 BEGIN
    UPDATE deliveries SET head = 1 WHERE id = (
        SELECT id FROM deliveries
        WHERE name = OLD.name AND kind = OLD.kind AND namespace = OLD.namespace AND lane_id = OLD.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1
    );
END;

-- Filled once streams and the studio are connected.
CREATE TABLE stream_metrics (
    stream_id     TEXT NOT NULL,
    direction     TEXT NOT NULL,
    message_count INTEGER NOT NULL DEFAULT 0,
    byte_count    INTEGER NOT NULL DEFAULT 0,
    latency_ms    REAL,
    last_update   TEXT NOT NULL,
    PRIMARY KEY (stream_id, direction)
) STRICT, WITHOUT ROWID;

CREATE TABLE nexus_sync_log (
    registry_entry_id  TEXT NOT NULL,
    nexus_component_id TEXT NOT NULL,
    sync_direction     TEXT NOT NULL,
    payload            TEXT,
    status             TEXT NOT NULL,
    created_at         TEXT NOT NULL
) STRICT;

-- How far each session is at each of its targets, in the words pending, retry, executed, failed (and cancelled).
-- No row and a position past the session's line means: delivered.
CREATE VIEW session_progress AS
SELECT t.session_id, s.mode, s.source, s.standing, s.revision, t.target_namespace, t.target_name, l.transport,
       s.created_at, s.last_activity,
       CASE
         WHEN EXISTS (SELECT 1 FROM deliveries AS d WHERE d.session_id = t.session_id AND d.lane_id = l.lane_id
                      AND d.state = 'dead') THEN 'failed'
         WHEN EXISTS (SELECT 1 FROM deliveries AS d WHERE d.session_id = t.session_id AND d.lane_id = l.lane_id
                      AND d.state = 'waiting') THEN 'retry'
         WHEN EXISTS (SELECT 1 FROM deliveries AS d WHERE d.session_id = t.session_id AND d.lane_id = l.lane_id
                      AND d.state IN ('pending', 'sending')) THEN 'pending'
         WHEN s.state = 'cancelled'
           OR EXISTS (SELECT 1 FROM deliveries AS d WHERE d.session_id = t.session_id AND d.lane_id = l.lane_id
                      AND d.state = 'cancelled') THEN 'cancelled'
         WHEN s.state = 'succeeded' THEN 'executed'
         WHEN l.lane_id IS NULL AND s.standing = 0 THEN 'cancelled' -- the target is gone
         WHEN (l.position_revision, l.position_seq) >= (s.revision, 0)
          AND (l.backfill_route IS NULL OR l.backfill_route NOT IN ('', s.session_id)) THEN 'executed'
         ELSE 'pending'
       END AS status
FROM session_targets AS t
JOIN sessions AS s ON s.session_id = t.session_id
LEFT JOIN lanes AS l ON l.lane_id = (
    SELECT x.lane_id FROM lanes AS x WHERE x.target_namespace = t.target_namespace AND x.target_name = t.target_name
    ORDER BY x.position_revision DESC LIMIT 1
);

-- The names and columns that scripts use. Payloads stay sealed in the log; here stands where.
-- A one-shot session is as far as its targets are; the engine only begins it.
CREATE VIEW propagation_sessions AS
SELECT s.session_id, s.source AS source_id, s.mode,
       CASE WHEN s.standing = 1 OR s.state = 'cancelled' THEN s.state ELSE (
         SELECT CASE WHEN sum(p.status IN ('pending', 'retry')) > 0 THEN 'running'
                     WHEN sum(p.status = 'executed') = count(*) THEN 'succeeded'
                     WHEN sum(p.status = 'executed') > 0 THEN 'partial'
                     WHEN sum(p.status = 'failed') > 0 THEN 'failed'
                     ELSE 'cancelled' END
         FROM session_progress AS p WHERE p.session_id = s.session_id) END AS status,
       s.created_at, s.last_activity
FROM sessions AS s;

-- endpoint: the record that holds the address, which may itself hold a token.
CREATE VIEW propagation_targets AS
SELECT session_id, target_namespace || '/' || target_name AS target_id, 'endpoint' AS target_type,
       transport AS protocol, 'endpoint/' || target_namespace || '/' || target_name AS endpoint, status, created_at
FROM session_progress;

CREATE VIEW propagation_events AS
SELECT d.session_id, d.op AS event_type, d.kind || '/' || d.namespace || '/' || d.name AS source_id,
       (SELECT l.target_namespace || '/' || l.target_name FROM lanes AS l WHERE l.lane_id = d.lane_id) AS target_id,
       'sealed:log:' || d.revision || '.' || d.seq AS payload,
       CASE d.state WHEN 'waiting' THEN 'retry' WHEN 'dead' THEN 'failed' WHEN 'cancelled' THEN 'cancelled'
                    ELSE 'pending' END AS status,
       d.created_at
FROM deliveries AS d
UNION ALL
SELECT session_id, 'event', source, target_namespace || '/' || target_name, 'sealed:log:' || revision, 'executed',
       created_at
FROM session_progress WHERE standing = 0 AND status = 'executed';

CREATE VIEW webhook_queue AS
SELECT d.delivery_id AS webhook_id, 'sealed:log:' || d.revision || '.' || d.seq AS payload,
       max(d.attempts - 1, 0) AS retry_count,
       (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'max_retries') AS max_retries,
       CASE d.state WHEN 'waiting' THEN 'retry' WHEN 'dead' THEN 'failed' WHEN 'cancelled' THEN 'cancelled'
                    ELSE 'pending' END AS status,
       d.created_at, d.updated_at
FROM deliveries AS d JOIN lanes AS l ON l.lane_id = d.lane_id
WHERE l.transport = 'webhook';

CREATE VIEW execution_log AS
SELECT l.target_namespace || '/' || l.target_name AS component_id, 'deliver' AS action, 'failed' AS status,
       a.outcome || ': ' || a.reason AS details, a.at AS created_at
FROM attempts AS a JOIN lanes AS l ON l.lane_id = a.lane_id
UNION ALL
SELECT target_namespace || '/' || target_name, 'deliver', 'executed', mode || ' from ' || source, last_activity
FROM session_progress WHERE standing = 0 AND status = 'executed';

CREATE VIEW propagation_metrics AS
SELECT CASE name WHEN 'executed' THEN 'propagation.executed' WHEN 'messages' THEN 'stream.messages'
                 WHEN 'retried' THEN 'webhook.retry' ELSE 'webhook.' || name END AS metric, value
FROM counters
UNION ALL SELECT 'health.queue_depth', coalesce(sum("rows"), 0) FROM lanes
UNION ALL SELECT 'health.webhooks_pending', coalesce(sum("rows" - waiting), 0) FROM lanes WHERE transport = 'webhook';

CREATE VIEW propagation_logs AS
SELECT (SELECT d.session_id FROM deliveries AS d WHERE d.delivery_id = a.delivery_id) AS session_id,
       l.target_namespace || '/' || l.target_name AS target_id, 'warning' AS level,
       a.outcome || ': ' || a.reason AS message, a.at AS created_at
FROM attempts AS a JOIN lanes AS l ON l.lane_id = a.lane_id;
