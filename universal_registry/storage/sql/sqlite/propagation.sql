-- name: lanes
-- Every lane, oldest target first.
SELECT lane_id, target_uid, target_namespace, target_name, transport, owner, generation, lease_until, incarnation,
       position_revision, position_seq, hash8, backfill_route, backfill_upto, backfill_at, breaker, failures, trips,
       open_until, pause_until, paused, held, delivered, last_success_at, last_failure_at, last_error, "rows", dead
FROM lanes ORDER BY rowid;

-- name: lane_owners
-- Who owns the lanes of a JSON array of lane ids.
SELECT lane_id, owner, generation FROM lanes WHERE lane_id IN (SELECT value FROM json_each(?));

-- name: put_lane
-- Make a lane or bring it up to date; never its counts of rows, which the triggers keep, nor its owner.
INSERT INTO lanes (lane_id, target_uid, target_namespace, target_name, transport, owner, generation, lease_until,
                   incarnation, position_revision, position_seq, hash8, backfill_route, backfill_upto, backfill_at,
                   breaker, failures, trips, open_until, pause_until, paused, held, delivered, last_success_at,
                   last_failure_at, last_error)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (lane_id) DO UPDATE SET
    target_uid = excluded.target_uid, target_namespace = excluded.target_namespace,
    target_name = excluded.target_name, transport = excluded.transport, lease_until = excluded.lease_until,
    incarnation = excluded.incarnation, position_revision = excluded.position_revision,
    position_seq = excluded.position_seq, hash8 = excluded.hash8, backfill_route = excluded.backfill_route,
    backfill_upto = excluded.backfill_upto, backfill_at = excluded.backfill_at, breaker = excluded.breaker,
    failures = excluded.failures, trips = excluded.trips, open_until = excluded.open_until,
    pause_until = excluded.pause_until, paused = excluded.paused, held = excluded.held,
    delivered = excluded.delivered, last_success_at = excluded.last_success_at,
    last_failure_at = excluded.last_failure_at, last_error = excluded.last_error;

-- name: cancel_sessions_of_lane
-- One-shot sessions of which something was still to go to a lane that is dropped: that will never arrive.
UPDATE sessions SET state = 'cancelled'
WHERE standing = 0 AND session_id IN (SELECT session_id FROM deliveries WHERE lane_id = ? AND live = 1);

-- name: drop_lane
-- A lane; its rows and attempts go with it by their foreign keys.
DELETE FROM lanes WHERE lane_id = ?;

-- name: put_delivery
-- Make a row or bring it up to date. What identifies it and its place in the order stay as they were.
INSERT INTO deliveries (delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state,
                        attempts, crashes, next_at, reason, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (delivery_id) DO UPDATE SET
    session_id = excluded.session_id, route_uid = excluded.route_uid, state = excluded.state,
    attempts = excluded.attempts, crashes = excluded.crashes, next_at = excluded.next_at, reason = excluded.reason,
    updated_at = excluded.updated_at
WHERE lane_id = excluded.lane_id;

-- name: remove_delivery
-- A row that was delivered, or is not wanted any more.
DELETE FROM deliveries WHERE lane_id = ? AND delivery_id = ?;

-- name: add_attempt
-- One attempt that did not succeed.
INSERT INTO attempts (delivery_id, lane_id, number, at, outcome, status, milliseconds, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: put_session
-- Make a session or bring it up to date; it keeps when it was made.
INSERT INTO sessions (session_id, mode, source, standing, state, revision, created_at, last_activity)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (session_id) DO UPDATE SET
    mode = excluded.mode, source = excluded.source, standing = excluded.standing, state = excluded.state,
    revision = excluded.revision, last_activity = excluded.last_activity;

-- name: put_session_target
-- One target of a session, at its place among them.
INSERT INTO session_targets (session_id, target_namespace, target_name, place) VALUES (?, ?, ?, ?)
ON CONFLICT (session_id, target_namespace, target_name) DO UPDATE SET place = excluded.place
WHERE place <> excluded.place;

-- name: trim_session_targets
-- Take away the targets that a session no longer has: all but those of a JSON array of "namespace/name".
DELETE FROM session_targets
WHERE session_id = ? AND target_namespace || '/' || target_name NOT IN (SELECT value FROM json_each(?));

-- name: add_to_counter
-- Totals only ever rise.
UPDATE counters SET value = value + ? WHERE name = ?;

-- name: counters
-- The totals since the store was made.
SELECT name, value FROM counters;

-- name: set_meta
-- Record one fact about the store.
INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: recover_sending
-- What another owner was sending when it ended: it may or may not have arrived. Once more, but not for ever.
UPDATE deliveries SET
    state = CASE WHEN crashes + 1 >= :limit THEN 'dead' ELSE 'pending' END,
    crashes = crashes + 1,
    next_at = NULL,
    reason = CASE WHEN crashes + 1 >= :limit THEN 'quarantined: the daemon ended ' || (crashes + 1)
                  || ' times while it was sending this' ELSE 'the daemon ended while it was sending this' END,
    updated_at = :now
WHERE state = 'sending' AND lane_id IN (SELECT lane_id FROM lanes WHERE owner <> :owner)
RETURNING state;

-- name: take_lanes
-- On SQLite the store has one daemon, held to that by the lock file: every lane is ours.
UPDATE lanes SET generation = generation + (owner <> :owner), owner = :owner, lease_until = :lease_until;

-- name: due_pending
-- Heads never tried, or to be tried again at once, in order.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at
FROM deliveries INDEXED BY deliveries_pending_heads
WHERE head = 1 AND state = 'pending' AND lane_id = :lane ORDER BY revision, seq LIMIT :limit;

-- name: due_waiting_reach
-- Whether many heads are past their time: which of the next two reads little.
SELECT count(*) FROM (
    SELECT 1 FROM deliveries INDEXED BY deliveries_waiting_by_time
    WHERE head = 1 AND state = 'waiting' AND lane_id = :lane AND next_at <= :now LIMIT :reach
);

-- name: due_waiting_few
-- Heads past their time, found by time and put in order.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at
FROM deliveries INDEXED BY deliveries_waiting_by_time
WHERE head = 1 AND state = 'waiting' AND lane_id = :lane AND next_at <= :now ORDER BY revision, seq LIMIT :limit;

-- name: due_waiting_many
-- Heads past their time, found by walking them in order.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at
FROM deliveries INDEXED BY deliveries_waiting_heads
WHERE head = 1 AND state = 'waiting' AND lane_id = :lane AND next_at <= :now ORDER BY revision, seq LIMIT :limit;

-- name: next_due
-- The earliest time at which a row that nothing stands before may be tried again.
SELECT next_at FROM deliveries INDEXED BY deliveries_next
WHERE head = 1 AND state = 'waiting' ORDER BY next_at LIMIT 1;

-- name: blocked_keys
-- Those keys of a JSON array of [kind, namespace, name] that have a live row in the lane. A live row has a head.
SELECT k.kind, k.namespace, k.name FROM (
    SELECT json_extract(value, '$[0]') AS kind, json_extract(value, '$[1]') AS namespace,
           json_extract(value, '$[2]') AS name
    FROM json_each(:keys)
) AS k
WHERE EXISTS (
    SELECT 1 FROM deliveries AS d INDEXED BY deliveries_by_key
    WHERE d.name = k.name AND d.kind = k.kind AND d.namespace = k.namespace AND d.lane_id = :lane AND d.live = 1
);

-- name: depth
-- Live rows, those of webhooks never tried, those waiting after a failure, the dead: from the lanes' counts.
SELECT coalesce(sum("rows"), 0), coalesce(sum(("rows" - waiting) * (transport = 'webhook')), 0),
       coalesce(sum(waiting), 0), coalesce(sum(dead), 0)
FROM lanes;

-- name: deliveries_by_key
-- The rows of one record, over all lanes.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at
FROM deliveries INDEXED BY deliveries_by_key
WHERE name = :name AND kind = :kind AND namespace = :namespace
  AND (:lane IS NULL OR lane_id = :lane) AND (:session IS NULL OR session_id = :session)
  AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: deliveries_by_session
-- The rows of one session.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at
FROM deliveries INDEXED BY deliveries_by_session
WHERE session_id = :session AND (:lane IS NULL OR lane_id = :lane)
  AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: deliveries_by_lane
-- The rows of one lane.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at
FROM deliveries INDEXED BY deliveries_by_lane
WHERE lane_id = :lane AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: deliveries_dead
-- The dead letters, of one lane or all.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at
FROM deliveries INDEXED BY deliveries_dead
WHERE state = 'dead' AND (:lane IS NULL OR lane_id = :lane)
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: deliveries_all
-- Rows of all lanes.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at
FROM deliveries INDEXED BY deliveries_by_lane
WHERE (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: attempts
-- What was tried for one delivery, in order.
SELECT delivery_id, lane_id, number, at, outcome, status, milliseconds, reason
FROM attempts WHERE delivery_id = ? ORDER BY id;

-- name: sessions
-- Every session, oldest first, with its targets as a JSON array.
SELECT s.session_id, s.mode, s.source,
       (SELECT json_group_array(target) FROM (
           SELECT t.target_namespace || '/' || t.target_name AS target FROM session_targets AS t
           WHERE t.session_id = s.session_id ORDER BY t.place)) AS targets,
       s.standing, s.state, s.revision, s.created_at, s.last_activity
FROM sessions AS s ORDER BY s.created_at, s.session_id;

-- name: session
-- One session, with its targets as a JSON array.
SELECT s.session_id, s.mode, s.source,
       (SELECT json_group_array(target) FROM (
           SELECT t.target_namespace || '/' || t.target_name AS target FROM session_targets AS t
           WHERE t.session_id = s.session_id ORDER BY t.place)) AS targets,
       s.standing, s.state, s.revision, s.created_at, s.last_activity
FROM sessions AS s WHERE s.session_id = ?;
