-- The names and columns that scripts use.

-- Filled once streams and the studio are connected.
CREATE TABLE propagation.stream_metrics (
    stream_id     TEXT COLLATE "C" NOT NULL,
    direction     TEXT COLLATE "C" NOT NULL,
    message_count BIGINT NOT NULL DEFAULT 0,
    byte_count    BIGINT NOT NULL DEFAULT 0,
    latency_ms    DOUBLE PRECISION,
    last_update   TEXT NOT NULL,
    PRIMARY KEY (stream_id, direction)
);

CREATE TABLE propagation.nexus_sync_log (
    registry_entry_id  TEXT NOT NULL,
    nexus_component_id TEXT NOT NULL,
    sync_direction     TEXT NOT NULL,
    payload            TEXT,
    status             TEXT NOT NULL,
    created_at         TEXT NOT NULL
);

-- How far each session is at each of its targets, in the words pending, retry, executed, failed (and cancelled).
-- No row and a position past the session's line means: delivered.
CREATE VIEW propagation.session_progress AS
SELECT t.session_id, s.mode, s.source, s.standing, s.revision, t.target_namespace, t.target_name, l.transport,
       s.created_at, s.last_activity,
       CASE
         WHEN EXISTS (SELECT FROM propagation.deliveries AS d WHERE d.session_id = t.session_id
                      AND d.lane_id = l.lane_id AND d.state = 'dead') THEN 'failed'
         WHEN EXISTS (SELECT FROM propagation.deliveries AS d WHERE d.session_id = t.session_id
                      AND d.lane_id = l.lane_id AND d.state = 'waiting') THEN 'retry'
         WHEN EXISTS (SELECT FROM propagation.deliveries AS d WHERE d.session_id = t.session_id
                      AND d.lane_id = l.lane_id AND d.state IN ('pending', 'sending')) THEN 'pending'
         WHEN s.state = 'cancelled'
           OR EXISTS (SELECT FROM propagation.deliveries AS d WHERE d.session_id = t.session_id
                      AND d.lane_id = l.lane_id AND d.state = 'cancelled') THEN 'cancelled'
         WHEN s.state = 'succeeded' THEN 'executed'
         WHEN l.lane_id IS NULL AND s.standing = 0 THEN 'cancelled' -- the target is gone
         WHEN (l.position_revision, l.position_seq) >= (s.revision, 0)
          AND (l.backfill_route IS NULL OR l.backfill_route NOT IN ('', s.session_id)) THEN 'executed'
         ELSE 'pending'
       END AS status
FROM propagation.session_targets AS t
JOIN propagation.sessions AS s ON s.session_id = t.session_id
LEFT JOIN LATERAL (
    SELECT x.* FROM propagation.lanes AS x
    WHERE x.target_namespace = t.target_namespace AND x.target_name = t.target_name
    ORDER BY x.position_revision DESC LIMIT 1
) AS l ON true;

-- Payloads stay sealed in the log; here stands where.
-- A one-shot session is as far as its targets are; the engine only begins it.
CREATE VIEW propagation.propagation_sessions AS
SELECT s.session_id, s.source AS source_id, s.mode,
       CASE WHEN s.standing = 1 OR s.state = 'cancelled' THEN s.state ELSE (
         SELECT CASE WHEN count(*) FILTER (WHERE p.status IN ('pending', 'retry')) > 0 THEN 'running'
                     WHEN count(*) FILTER (WHERE p.status = 'executed') = count(*) THEN 'succeeded'
                     WHEN count(*) FILTER (WHERE p.status = 'executed') > 0 THEN 'partial'
                     WHEN count(*) FILTER (WHERE p.status = 'failed') > 0 THEN 'failed'
                     ELSE 'cancelled' END
         FROM propagation.session_progress AS p WHERE p.session_id = s.session_id) END AS status,
       s.created_at, s.last_activity
FROM propagation.sessions AS s;

-- endpoint: the record that holds the address, which may itself hold a token.
CREATE VIEW propagation.propagation_targets AS
SELECT session_id, target_namespace || '/' || target_name AS target_id, 'endpoint' AS target_type,
       transport AS protocol, 'endpoint/' || target_namespace || '/' || target_name AS endpoint, status, created_at
FROM propagation.session_progress;

CREATE VIEW propagation.propagation_events AS
SELECT d.session_id, d.op AS event_type, d.kind || '/' || d.namespace || '/' || d.name AS source_id,
       (SELECT l.target_namespace || '/' || l.target_name FROM propagation.lanes AS l
        WHERE l.lane_id = d.lane_id) AS target_id,
       'sealed:log:' || d.revision || '.' || d.seq AS payload,
       CASE d.state WHEN 'waiting' THEN 'retry' WHEN 'dead' THEN 'failed' WHEN 'cancelled' THEN 'cancelled'
                    ELSE 'pending' END AS status,
       d.created_at
FROM propagation.deliveries AS d
UNION ALL
SELECT session_id, 'event', source, target_namespace || '/' || target_name, 'sealed:log:' || revision, 'executed',
       created_at
FROM propagation.session_progress WHERE standing = 0 AND status = 'executed';

CREATE VIEW propagation.webhook_queue AS
SELECT d.delivery_id AS webhook_id, 'sealed:log:' || d.revision || '.' || d.seq AS payload,
       greatest(d.attempts - 1, 0) AS retry_count,
       (SELECT m.value::bigint FROM propagation.meta AS m WHERE m.key = 'max_retries') AS max_retries,
       CASE d.state WHEN 'waiting' THEN 'retry' WHEN 'dead' THEN 'failed' WHEN 'cancelled' THEN 'cancelled'
                    ELSE 'pending' END AS status,
       d.created_at, d.updated_at
FROM propagation.deliveries AS d JOIN propagation.lanes AS l ON l.lane_id = d.lane_id
WHERE l.transport = 'webhook';

CREATE VIEW propagation.execution_log AS
SELECT l.target_namespace || '/' || l.target_name AS component_id, 'deliver' AS action, 'failed' AS status,
       a.outcome || ': ' || a.reason AS details, a.at AS created_at
FROM propagation.attempts AS a JOIN propagation.lanes AS l ON l.lane_id = a.lane_id
UNION ALL
SELECT target_namespace || '/' || target_name, 'deliver', 'executed', mode || ' from ' || source, last_activity
FROM propagation.session_progress WHERE standing = 0 AND status = 'executed';

CREATE VIEW propagation.propagation_metrics AS
SELECT CASE name WHEN 'executed' THEN 'propagation.executed' WHEN 'messages' THEN 'stream.messages'
                 WHEN 'retried' THEN 'webhook.retry' ELSE 'webhook.' || name END AS metric, value
FROM propagation.counters
UNION ALL SELECT 'health.queue_depth', coalesce(sum("rows"), 0)::bigint FROM propagation.lanes
UNION ALL SELECT 'health.webhooks_pending', coalesce(sum("rows" - waiting), 0)::bigint
FROM propagation.lanes WHERE transport = 'webhook';

CREATE VIEW propagation.propagation_logs AS
SELECT (SELECT d.session_id FROM propagation.deliveries AS d WHERE d.delivery_id = a.delivery_id) AS session_id,
       l.target_namespace || '/' || l.target_name AS target_id, 'warning' AS level,
       a.outcome || ': ' || a.reason AS message, a.at AS created_at
FROM propagation.attempts AS a JOIN propagation.lanes AS l ON l.lane_id = a.lane_id;

-- So that these names resolve for whoever comes in as this role with a client of their own.
DO $$
BEGIN
    EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = registry, propagation, public',
                   current_user, current_database());
END $$;
