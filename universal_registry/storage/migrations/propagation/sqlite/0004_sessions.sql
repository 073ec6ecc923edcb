-- Sessions as they go on: why, until when, and each step they took; and what keeps single deliveries back.

-- held: after (a chain: `waits_for` says which lanes must have passed which place, as JSON), or paused (its session is).
-- replay_of: the delivery that is sent again under a new id.
ALTER TABLE deliveries ADD COLUMN held TEXT NOT NULL DEFAULT '' CHECK (held IN ('', 'after', 'paused'));
ALTER TABLE deliveries ADD COLUMN waits_for TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN replay_of TEXT NOT NULL DEFAULT '';

DROP INDEX deliveries_pending_heads;
DROP INDEX deliveries_waiting_heads;
DROP INDEX deliveries_waiting_by_time;
DROP INDEX deliveries_next;
CREATE INDEX deliveries_pending_heads ON deliveries (lane_id, revision, seq)
    WHERE head = 1 AND state = 'pending' AND held = '';
CREATE INDEX deliveries_waiting_heads ON deliveries (lane_id, revision, seq, next_at)
    WHERE head = 1 AND state = 'waiting' AND held = '';
CREATE INDEX deliveries_waiting_by_time ON deliveries (lane_id, next_at, revision, seq)
    WHERE head = 1 AND state = 'waiting' AND held = '';
CREATE INDEX deliveries_next ON deliveries (next_at) WHERE head = 1 AND state = 'waiting' AND held = '';
CREATE INDEX deliveries_after ON deliveries (revision, seq, id) WHERE held = 'after';
CREATE INDEX deliveries_held ON deliveries (lane_id, revision, seq) WHERE held <> '';

ALTER TABLE sessions ADD COLUMN reason TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN deadline TEXT;

CREATE INDEX sessions_open ON sessions (session_id)
    WHERE standing = 0 AND state IN ('planned', 'running', 'paused', 'draining');

-- Each step of each session, kept by the triggers, whoever writes. Of one session the newest hundred.
CREATE TABLE session_transitions (
    id         INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
    before     TEXT NOT NULL,
    state      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    at         TEXT NOT NULL
) STRICT;

CREATE INDEX session_transitions_by_session ON session_transitions (session_id, id);

CREATE TRIGGER sessions_begin AFTER INSERT ON sessions BEGIN
    INSERT INTO session_transitions (session_id, before, state, reason, at)
    VALUES (NEW.session_id, '', NEW.state, NEW.reason, NEW.last_activity);
END;

CREATE TRIGGER sessions_move AFTER UPDATE OF state ON sessions WHEN NEW.state <> OLD.state BEGIN
    INSERT INTO session_transitions (session_id, before, state, reason, at)
    VALUES (NEW.session_id, OLD.state, NEW.state, NEW.reason, NEW.last_activity);
    DELETE FROM session_transitions WHERE session_id = NEW.session_id AND id <= (
        SELECT id FROM session_transitions WHERE session_id = NEW.session_id ORDER BY id DESC LIMIT 1 OFFSET 100
    );
END;

-- A delivery that was given up is sent again: its session, which had ended without it, goes on.
CREATE TRIGGER deliveries_revive_session AFTER UPDATE OF state ON deliveries WHEN OLD.state = 'dead' AND NEW.live BEGIN
    UPDATE sessions SET state = 'running', reason = NEW.reason, last_activity = NEW.updated_at
    WHERE session_id = NEW.session_id AND standing = 0 AND state IN ('partial', 'failed');
END;

-- What waits for a lane that is gone, waits for the others only.
CREATE TRIGGER lanes_no_hop AFTER DELETE ON lanes BEGIN
    UPDATE deliveries SET waits_for = json_set(waits_for, '$.lanes', json((
        SELECT json_group_array(w.value) FROM json_each(waits_for, '$.lanes') AS w WHERE w.value <> OLD.lane_id)))
    WHERE held <> '' AND waits_for <> '' AND instr(waits_for, OLD.lane_id) > 0;
END;

DROP VIEW execution_log;
DROP VIEW propagation_events;
DROP VIEW propagation_targets;
DROP VIEW propagation_sessions;
DROP VIEW session_progress;

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
         WHEN (s.state = 'cancelled' AND s.reason IN ('', 'a target was removed'))
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

-- A one-shot session is as far as its targets are, unless somebody has stopped it.
CREATE VIEW propagation_sessions AS
SELECT s.session_id, s.source AS source_id, s.mode,
       CASE WHEN s.standing = 1 OR s.state IN ('paused', 'draining', 'succeeded', 'cancelled', 'expired') THEN s.state
            ELSE (
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

CREATE VIEW execution_log AS
SELECT l.target_namespace || '/' || l.target_name AS component_id, 'deliver' AS action, 'failed' AS status,
       a.outcome || ': ' || a.reason AS details, a.at AS created_at
FROM attempts AS a JOIN lanes AS l ON l.lane_id = a.lane_id
UNION ALL
SELECT target_namespace || '/' || target_name, 'deliver', 'executed', mode || ' from ' || source, last_activity
FROM session_progress WHERE standing = 0 AND status = 'executed';
