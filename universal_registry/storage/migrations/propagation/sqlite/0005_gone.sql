-- How a one-shot session ends is decided by the daemon, from what its targets got. What it must know of a target that is
-- removed is kept with the session's targets.

-- gone: the target was removed before it got what the session had for it. Who gets its name next does not get that.
ALTER TABLE session_targets ADD COLUMN gone INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1));
UPDATE session_targets SET gone = 1
WHERE session_id IN (SELECT session_id FROM sessions
                     WHERE standing = 0 AND state = 'cancelled' AND reason = 'a target was removed');

DROP VIEW session_progress;

CREATE VIEW session_progress AS
SELECT t.session_id, s.mode, s.source, s.standing, s.revision, t.target_namespace, t.target_name, l.transport,
       s.created_at, s.last_activity,
       CASE
         WHEN t.gone = 1 THEN 'cancelled'
         WHEN EXISTS (SELECT 1 FROM deliveries AS d WHERE d.session_id = t.session_id AND d.lane_id = l.lane_id
                      AND d.state = 'dead') THEN 'failed'
         WHEN EXISTS (SELECT 1 FROM deliveries AS d WHERE d.session_id = t.session_id AND d.lane_id = l.lane_id
                      AND d.state = 'waiting') THEN 'retry'
         WHEN EXISTS (SELECT 1 FROM deliveries AS d WHERE d.session_id = t.session_id AND d.lane_id = l.lane_id
                      AND d.state IN ('pending', 'sending')) THEN 'pending'
         WHEN EXISTS (SELECT 1 FROM deliveries AS d WHERE d.session_id = t.session_id AND d.lane_id = l.lane_id
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
