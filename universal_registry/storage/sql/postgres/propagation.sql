-- name: begin
-- The birth of a store that is new: neither has it one, nor did the daemon of an older program leave anything.
INSERT INTO propagation.meta (key, value) SELECT 'born', $1
WHERE NOT EXISTS (SELECT FROM propagation.meta AS m WHERE m.key IN ('born', 'max_retries'))
ON CONFLICT DO NOTHING RETURNING value;

-- name: birth
-- When the store was made, as JSON.
SELECT value FROM propagation.meta WHERE key = 'born';

-- name: lanes
-- Every lane, in the order in which they were made.
SELECT lane_id, target_uid, target_namespace, target_name, transport, owner, generation, incarnation,
       position_revision, position_seq, hash8, backfill_route, backfill_upto, backfill_at, breaker, failures, trips,
       open_until, pause_until, paused, held, delivered, last_success_at, last_failure_at, last_error, "rows", dead,
       guard, ordering
FROM propagation.lanes ORDER BY place;

-- name: claim
-- Renew the lease of owner $1, and take its share of the lanes; the function says how.
SELECT share, changed FROM propagation.claim($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: lanes_of
-- The lanes of owner $1, in the order in which they were made.
SELECT lane_id, target_uid, target_namespace, target_name, transport, owner, generation, incarnation,
       position_revision, position_seq, hash8, backfill_route, backfill_upto, backfill_at, breaker, failures, trips,
       open_until, pause_until, paused, held, delivered, last_success_at, last_failure_at, last_error, "rows", dead,
       guard, ordering
FROM propagation.lanes WHERE owner = $1 ORDER BY place;

-- name: settle
-- Everything one tick decided, in one call; the function says what the document holds.
SELECT propagation.settle_tick($1::text::jsonb);

-- name: give_command
-- Something that somebody wants of a lane.
INSERT INTO propagation.lane_commands (lane_id, action, actor, at, until, delivery_id, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: commands
-- What is still to be done, in order.
SELECT number, lane_id, action, actor, at, until, delivery_id, reason FROM propagation.lane_commands ORDER BY number;

-- name: rebase
-- The clock of owner $1 has gone back to $2.
SELECT propagation.rebase($1, $2);

-- name: hasten
-- What waits in lane $1, if it is owner $2's, for a later moment than $3 is due then.
UPDATE propagation.deliveries SET next_at = $3
WHERE lane_id = $1 AND state = 'waiting' AND next_at > $3
  AND EXISTS (SELECT FROM propagation.lanes AS l WHERE l.lane_id = $1 AND l.owner = $2);

-- name: due
-- Rows of a lane that may be tried now, at most as many again as are wanted; in no order.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.due($1, $2, $3);

-- name: due_untried
-- Rows of a lane that were never tried and may be now, in order.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.deliveries
WHERE head = 1 AND state = 'pending' AND held = '' AND lane_id = $1 AND attempts = 0 ORDER BY revision, seq LIMIT $2;

-- name: next_due
-- The earliest time at which a row that nothing stands before may be tried again, in the lanes of owner $1: what others
-- are to try is no reason to wake up. NULL: in all lanes.
SELECT min(first.next_at) FROM propagation.lanes AS l CROSS JOIN LATERAL (
    SELECT d.next_at FROM propagation.deliveries AS d
    WHERE d.lane_id = l.lane_id AND d.head = 1 AND d.state = 'waiting' AND d.held = '' ORDER BY d.next_at LIMIT 1
) AS first
WHERE ($1::text IS NULL OR l.owner = $1) AND l.waiting > 0;

-- name: blocked_keys
-- Those of the keys ($2 kinds, $3 namespaces, $4 names) that have a live row in the lane.
SELECT kind, namespace, name FROM propagation.blocked($1, $2, $3, $4);

-- name: depth
-- Live rows, those of webhooks never tried, those waiting after a failure, the dead: from the lanes' counts; and the
-- totals since the store was made, as a JSON object. One statement: one state.
SELECT coalesce(sum("rows"), 0)::bigint, coalesce(sum("rows" - waiting) FILTER (WHERE transport = 'webhook'), 0)::bigint,
       coalesce(sum(waiting), 0)::bigint, coalesce(sum(dead), 0)::bigint,
       (SELECT json_object_agg(name, value) FROM propagation.counters)::text
FROM propagation.lanes;

-- name: deliveries_by_key
-- The rows of one record, over all lanes. In all five: $1 lane, $2 session, $3 states, $4 limit, $5 since.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.deliveries
WHERE name = $8 AND kind = $6 AND namespace = $7
  AND ($1::text IS NULL OR lane_id = $1) AND ($2::text IS NULL OR session_id = $2)
  AND ($3::text[] IS NULL OR state = ANY ($3))
  AND ($5::text IS NULL OR updated_at >= $5)
ORDER BY lane_id, revision, seq, delivery_id LIMIT $4;

-- name: deliveries_by_session
-- The rows of one session.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.deliveries
WHERE session_id = $2 AND ($1::text IS NULL OR lane_id = $1) AND ($3::text[] IS NULL OR state = ANY ($3))
  AND ($5::text IS NULL OR updated_at >= $5)
ORDER BY lane_id, revision, seq, delivery_id LIMIT $4;

-- name: deliveries_by_lane
-- The rows of one lane.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.deliveries
WHERE lane_id = $1 AND $2::text IS NULL AND ($3::text[] IS NULL OR state = ANY ($3))
  AND ($5::text IS NULL OR updated_at >= $5)
ORDER BY revision, seq, delivery_id LIMIT $4;

-- name: deliveries_dead
-- The dead letters, of one lane or all.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.deliveries
WHERE state = 'dead' AND ($1::text IS NULL OR lane_id = $1) AND $2::text IS NULL AND $3::text[] IS NOT NULL
  AND ($5::text IS NULL OR updated_at >= $5)
ORDER BY lane_id, revision, seq, delivery_id LIMIT $4;

-- name: deliveries_all
-- Rows of all lanes.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.deliveries
WHERE $1::text IS NULL AND $2::text IS NULL AND ($3::text[] IS NULL OR state = ANY ($3))
  AND ($5::text IS NULL OR updated_at >= $5)
ORDER BY lane_id, revision, seq, delivery_id LIMIT $4;

-- name: delivery
-- The row of one delivery.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.deliveries WHERE delivery_id = $1;

-- name: attempts
-- What was tried for one delivery, in order.
SELECT delivery_id, lane_id, number, at, outcome, status, milliseconds, reason
FROM propagation.attempts WHERE delivery_id = $1 ORDER BY id;

-- name: sessions
-- Every session, oldest first, with its targets as a JSON array.
SELECT s.session_id, s.mode, s.source,
       coalesce((SELECT json_agg(t.target_namespace || '/' || t.target_name ORDER BY t.place)
                 FROM propagation.session_targets AS t WHERE t.session_id = s.session_id), '[]')::text,
       s.standing, s.state, s.revision, s.created_at, s.last_activity, s.reason, s.deadline,
       coalesce((SELECT json_agg(t.target_namespace || '/' || t.target_name) FROM propagation.session_targets AS t
                 WHERE t.session_id = s.session_id AND t.gone = 1), '[]')::text
FROM propagation.sessions AS s ORDER BY s.created_at, s.session_id;

-- name: session
-- One session, with its targets as a JSON array.
SELECT s.session_id, s.mode, s.source,
       coalesce((SELECT json_agg(t.target_namespace || '/' || t.target_name ORDER BY t.place)
                 FROM propagation.session_targets AS t WHERE t.session_id = s.session_id), '[]')::text,
       s.standing, s.state, s.revision, s.created_at, s.last_activity, s.reason, s.deadline,
       coalesce((SELECT json_agg(t.target_namespace || '/' || t.target_name) FROM propagation.session_targets AS t
                 WHERE t.session_id = s.session_id AND t.gone = 1), '[]')::text
FROM propagation.sessions AS s WHERE s.session_id = $1;

-- name: put_arrival
-- A session has arrived at a target, unless something newer of it has.
UPDATE propagation.session_targets SET delivery = $1, began_at = $2, arrived_at = $3
WHERE session_id = $4 AND target_namespace = $5 AND target_name = $6
  AND (arrived_at IS NULL OR arrived_at <= $3);

-- name: arrivals
-- Where a session has arrived, and when.
SELECT session_id, target_namespace, target_name, delivery, began_at, arrived_at
FROM propagation.session_targets WHERE session_id = $1 AND arrived_at IS NOT NULL ORDER BY place;

-- name: oldest
-- When the oldest delivery that has not ended was planned, of each lane that has one. The earliest live row of a lane is
-- the earliest of its record, so it is the first of one of these indexes, whatever else the lane holds.
SELECT l.lane_id, least(
    (SELECT d.created_at FROM propagation.deliveries AS d WHERE d.lane_id = l.lane_id AND d.head = 1 AND d.state = 'pending'
       AND d.held = ''
     ORDER BY d.revision, d.seq LIMIT 1),
    (SELECT d.created_at FROM propagation.deliveries AS d WHERE d.lane_id = l.lane_id AND d.head = 1 AND d.state = 'waiting'
       AND d.held = ''
     ORDER BY d.revision, d.seq LIMIT 1),
    (SELECT d.created_at FROM propagation.deliveries AS d WHERE d.lane_id = l.lane_id AND d.held <> ''
     ORDER BY d.revision, d.seq LIMIT 1),
    (SELECT min(d.created_at) FROM propagation.deliveries AS d WHERE d.lane_id = l.lane_id AND d.state = 'sending')
) FROM propagation.lanes AS l WHERE l."rows" > 0;

-- name: unsent
-- The lowest revision of the rows of each lane that are still to be sent, and of those that were given up.
SELECT lane_id, min(CASE WHEN state IN ('pending', 'sending', 'waiting') THEN revision END),
       min(CASE WHEN state = 'dead' THEN revision END)
FROM propagation.deliveries WHERE state <> 'cancelled' GROUP BY lane_id;

-- name: transitions
-- The steps of a session, in order.
SELECT session_id, before, state, reason, at FROM propagation.session_transitions WHERE session_id = $1 ORDER BY id;

-- name: open_sessions
-- One-shot sessions that have not ended, after session id $1, at most $2, each with the states of its targets as a JSON
-- array.
SELECT s.session_id, s.mode, s.source,
       coalesce((SELECT json_agg(t.target_namespace || '/' || t.target_name ORDER BY t.place)
                 FROM propagation.session_targets AS t WHERE t.session_id = s.session_id), '[]')::text,
       s.standing, s.state, s.revision, s.created_at, s.last_activity, s.reason, s.deadline,
       coalesce((SELECT json_agg(t.target_namespace || '/' || t.target_name) FROM propagation.session_targets AS t
                 WHERE t.session_id = s.session_id AND t.gone = 1), '[]')::text,
       coalesce((SELECT json_agg(p.status) FROM propagation.session_progress AS p
                 WHERE p.session_id = s.session_id), '[]')::text
FROM propagation.sessions AS s
WHERE s.standing = 0 AND s.state IN ('planned', 'running', 'paused', 'draining') AND s.session_id > $1
ORDER BY s.session_id LIMIT $2;

-- name: undone_of_session
-- Live rows of session $1 that nobody has under way, behind ($2, $3, $4, $5).
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.deliveries
WHERE session_id = $1 AND state IN ('pending', 'waiting')
  AND lane_id >= $2 AND (lane_id, revision, seq, delivery_id) > ($2, $3::bigint, $4::bigint, $5)
ORDER BY lane_id, revision, seq, delivery_id LIMIT $6;

-- name: undone_of_lane
-- Live rows of lane $1 that nobody has under way, behind ($2, $3, $4, $5).
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM propagation.deliveries
WHERE lane_id = $1 AND state IN ('pending', 'waiting')
  AND (revision, seq) >= ($3::bigint, $4::bigint)
  AND (lane_id, revision, seq, delivery_id) > ($2, $3::bigint, $4::bigint, $5)
ORDER BY revision, seq, delivery_id LIMIT $6;

-- name: missed_event
-- The newest event of a record before a place that the lane will not get.
SELECT revision, seq FROM propagation.deliveries
WHERE name = $2 AND kind = $3 AND namespace = $4 AND lane_id = $1 AND live = 0
  AND (revision, seq) < ($5::bigint, $6::bigint) AND op = 'event' AND state IN ('dead', 'cancelled')
ORDER BY revision DESC, seq DESC LIMIT 1;

-- name: release
-- Of the deliveries kept back after others, those of owner $1 from ($2, $3) on, at most $4; at $5.
SELECT lane_id, revision, seq, released FROM propagation.release($1, $2, $3, $4, $5) ORDER BY revision, seq;
