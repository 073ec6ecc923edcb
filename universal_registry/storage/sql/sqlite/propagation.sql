-- name: begun
-- A row for a store that is not new: its birth, or what the first daemon of an older program left.
SELECT 1 FROM meta WHERE key IN ('born', 'max_retries');

-- name: birth
-- When the store was made, as JSON.
SELECT value FROM meta WHERE key = 'born';

-- name: lanes
-- Every lane, oldest target first.
SELECT lane_id, target_uid, target_namespace, target_name, transport, owner, generation, incarnation,
       position_revision, position_seq, hash8, backfill_route, backfill_upto, backfill_at, breaker, failures, trips,
       open_until, pause_until, paused, held, delivered, last_success_at, last_failure_at, last_error, "rows", dead,
       guard, ordering
FROM lanes ORDER BY rowid;

-- name: lane_owners
-- Who owns the lanes of a JSON array of lane ids.
SELECT lane_id, owner, generation FROM lanes WHERE lane_id IN (SELECT value FROM json_each(?));

-- name: put_lane
-- Make a lane or bring it up to date; never its counts of rows, which the triggers keep, nor its owner.
INSERT INTO lanes (lane_id, target_uid, target_namespace, target_name, transport, owner, generation,
                   incarnation, position_revision, position_seq, hash8, backfill_route, backfill_upto, backfill_at,
                   breaker, failures, trips, open_until, pause_until, paused, held, delivered, last_success_at,
                   last_failure_at, last_error, guard, ordering)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (lane_id) DO UPDATE SET
    target_uid = excluded.target_uid, target_namespace = excluded.target_namespace,
    target_name = excluded.target_name, transport = excluded.transport,
    incarnation = excluded.incarnation, position_revision = excluded.position_revision,
    position_seq = excluded.position_seq, hash8 = excluded.hash8, backfill_route = excluded.backfill_route,
    backfill_upto = excluded.backfill_upto, backfill_at = excluded.backfill_at, breaker = excluded.breaker,
    failures = excluded.failures, trips = excluded.trips, open_until = excluded.open_until,
    pause_until = excluded.pause_until, paused = excluded.paused, held = excluded.held,
    delivered = excluded.delivered, last_success_at = excluded.last_success_at,
    last_failure_at = excluded.last_failure_at, last_error = excluded.last_error, guard = excluded.guard,
    ordering = excluded.ordering;

-- name: lose_target
-- A lane is dropped: what one-shot sessions still had for it will never arrive, be it a row or not yet planned.
UPDATE session_targets SET gone = 1
WHERE EXISTS (
    SELECT 1 FROM lanes AS l WHERE l.lane_id = :lane
      AND l.target_namespace = session_targets.target_namespace AND l.target_name = session_targets.target_name
) AND session_id IN (
    SELECT s.session_id FROM deliveries AS d JOIN sessions AS s ON s.session_id = d.session_id
    WHERE d.lane_id = :lane AND d.live = 1 AND s.standing = 0
    UNION
    SELECT s.session_id FROM sessions AS s INDEXED BY sessions_open, lanes AS l
    WHERE s.standing = 0 AND s.state IN ('planned', 'running', 'paused', 'draining') AND l.lane_id = :lane
      AND ((l.position_revision, l.position_seq) < (s.revision, 0) OR l.backfill_route = s.session_id)
);

-- name: drop_lane
-- A lane; its rows and attempts go with it by their foreign keys.
DELETE FROM lanes WHERE lane_id = ?;

-- name: put_delivery
-- Make a row or bring it up to date. What identifies it and its place in the order stay as they were.
INSERT INTO deliveries (delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state,
                        attempts, crashes, next_at, reason, created_at, updated_at, held, waits_for, replay_of)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (delivery_id) DO UPDATE SET
    session_id = excluded.session_id, route_uid = excluded.route_uid, state = excluded.state,
    attempts = excluded.attempts, crashes = excluded.crashes, next_at = excluded.next_at, reason = excluded.reason,
    updated_at = excluded.updated_at, held = excluded.held, waits_for = excluded.waits_for
WHERE lane_id = excluded.lane_id;

-- name: remove_delivery
-- A row that was delivered, or is not wanted any more.
DELETE FROM deliveries WHERE lane_id = ? AND delivery_id = ?;

-- name: add_attempt
-- One attempt that did not succeed.
INSERT INTO attempts (delivery_id, lane_id, number, at, outcome, status, milliseconds, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: put_session
-- Make a session or bring it up to date; it keeps when it was made. What has ended has ended, and what is begun again
-- after a restart goes on where it was.
INSERT INTO sessions (session_id, mode, source, standing, state, revision, created_at, last_activity, reason, deadline)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (session_id) DO UPDATE SET
    mode = excluded.mode, source = excluded.source, standing = excluded.standing, state = excluded.state,
    revision = excluded.revision, last_activity = excluded.last_activity, reason = excluded.reason,
    deadline = excluded.deadline
WHERE standing = 1 OR (excluded.state <> 'planned' AND state NOT IN ('succeeded', 'cancelled', 'expired'));

-- name: put_session_target
-- One target of a session, at its place among them.
INSERT INTO session_targets (session_id, target_namespace, target_name, place) VALUES (?, ?, ?, ?)
ON CONFLICT (session_id, target_namespace, target_name) DO UPDATE SET place = excluded.place
WHERE place <> excluded.place;

-- name: trim_session_targets
-- Take away the targets that a session no longer has: all but those of a JSON array of "namespace/name".
DELETE FROM session_targets
WHERE session_id = ? AND target_namespace || '/' || target_name NOT IN (SELECT value FROM json_each(?));

-- name: give_command
-- Something that somebody wants of a lane.
INSERT INTO lane_commands (lane_id, action, actor, at, until, delivery_id, reason) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: commands
-- What is still to be done, in order.
SELECT number, lane_id, action, actor, at, until, delivery_id, reason FROM lane_commands ORDER BY number;

-- name: drop_command
-- It is done, or there is nothing to do it to.
DELETE FROM lane_commands WHERE number = ?;

-- name: rebase
-- The clock has gone back to :now: what waits since a later moment waits as long as it was to, from now.
UPDATE deliveries SET
    next_at = strftime('%Y-%m-%dT%H:%M:%fZ', julianday(:now) + max(julianday(next_at) - julianday(updated_at), 0)),
    updated_at = :now
WHERE state = 'waiting' AND updated_at > :now AND lane_id IN (SELECT lane_id FROM lanes WHERE waiting > 0);

-- name: hasten
-- What waits in a lane for a later moment than :now is due now.
UPDATE deliveries SET next_at = :now WHERE lane_id = :lane AND state = 'waiting' AND next_at > :now;

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
UPDATE lanes SET generation = generation + (owner <> :owner), owner = :owner;

-- name: due_pending
-- Heads never tried, or to be tried again at once, in order.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_pending_heads
WHERE head = 1 AND state = 'pending' AND held = '' AND lane_id = :lane ORDER BY revision, seq LIMIT :limit;

-- name: due_untried
-- Heads never tried, in order.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_pending_heads
WHERE head = 1 AND state = 'pending' AND held = '' AND lane_id = :lane AND attempts = 0 ORDER BY revision, seq LIMIT :limit;

-- name: due_waiting_reach
-- Whether many heads are past their time: which of the next two reads little.
SELECT count(*) FROM (
    SELECT 1 FROM deliveries INDEXED BY deliveries_waiting_by_time
    WHERE head = 1 AND state = 'waiting' AND held = '' AND lane_id = :lane AND next_at <= :now LIMIT :reach
);

-- name: due_waiting_few
-- Heads past their time, found by time and put in order.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_waiting_by_time
WHERE head = 1 AND state = 'waiting' AND held = '' AND lane_id = :lane AND next_at <= :now ORDER BY revision, seq LIMIT :limit;

-- name: due_waiting_many
-- Heads past their time, found by walking them in order.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_waiting_heads
WHERE head = 1 AND state = 'waiting' AND held = '' AND lane_id = :lane AND next_at <= :now ORDER BY revision, seq LIMIT :limit;

-- name: next_due
-- The earliest time at which a row that nothing stands before may be tried again.
SELECT next_at FROM deliveries INDEXED BY deliveries_next
WHERE head = 1 AND state = 'waiting' AND held = '' ORDER BY next_at LIMIT 1;

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
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_by_key
WHERE name = :name AND kind = :kind AND namespace = :namespace
  AND (:lane IS NULL OR lane_id = :lane) AND (:session IS NULL OR session_id = :session)
  AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:since IS NULL OR updated_at >= :since)
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: deliveries_by_session
-- The rows of one session.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_by_session
WHERE session_id = :session AND (:lane IS NULL OR lane_id = :lane)
  AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:since IS NULL OR updated_at >= :since)
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: deliveries_by_lane
-- The rows of one lane.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_by_lane
WHERE lane_id = :lane AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:since IS NULL OR updated_at >= :since)
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: deliveries_dead
-- The dead letters, of one lane or all.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_dead
WHERE state = 'dead' AND (:lane IS NULL OR lane_id = :lane)
  AND (:since IS NULL OR updated_at >= :since)
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: deliveries_all
-- Rows of all lanes.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_by_lane
WHERE (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:since IS NULL OR updated_at >= :since)
ORDER BY lane_id, revision, seq, id LIMIT :limit;

-- name: delivery
-- The row of one delivery.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries WHERE delivery_id = ?;

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
       s.standing, s.state, s.revision, s.created_at, s.last_activity, s.reason, s.deadline,
       (SELECT json_group_array(t.target_namespace || '/' || t.target_name) FROM session_targets AS t
        WHERE t.session_id = s.session_id AND t.gone = 1) AS gone
FROM sessions AS s ORDER BY s.created_at, s.session_id;

-- name: session
-- One session, with its targets as a JSON array.
SELECT s.session_id, s.mode, s.source,
       (SELECT json_group_array(target) FROM (
           SELECT t.target_namespace || '/' || t.target_name AS target FROM session_targets AS t
           WHERE t.session_id = s.session_id ORDER BY t.place)) AS targets,
       s.standing, s.state, s.revision, s.created_at, s.last_activity, s.reason, s.deadline,
       (SELECT json_group_array(t.target_namespace || '/' || t.target_name) FROM session_targets AS t
        WHERE t.session_id = s.session_id AND t.gone = 1) AS gone
FROM sessions AS s WHERE s.session_id = ?;

-- name: put_arrival
-- A session has arrived at a target, unless something newer of it has.
UPDATE session_targets SET delivery = ?1, began_at = ?2, arrived_at = ?3
WHERE session_id = ?4 AND target_namespace = ?5 AND target_name = ?6
  AND (arrived_at IS NULL OR arrived_at <= ?3);

-- name: arrivals
-- Where a session has arrived, and when.
SELECT session_id, target_namespace, target_name, delivery, began_at, arrived_at
FROM session_targets WHERE session_id = ?1 AND arrived_at IS NOT NULL ORDER BY place;

-- name: oldest
-- When the oldest delivery that has not ended was planned, of each lane that has one. The earliest live row of a lane is
-- the earliest of its record, so it is the first of one of these indexes, whatever else the lane holds.
SELECT l.lane_id, min(
    coalesce((SELECT d.created_at FROM deliveries AS d WHERE d.lane_id = l.lane_id AND d.head = 1 AND d.state = 'pending' AND d.held = ''
     ORDER BY d.revision, d.seq LIMIT 1), '~'),
    coalesce((SELECT d.created_at FROM deliveries AS d WHERE d.lane_id = l.lane_id AND d.head = 1 AND d.state = 'waiting' AND d.held = ''
     ORDER BY d.revision, d.seq LIMIT 1), '~'),
    coalesce((SELECT d.created_at FROM deliveries AS d WHERE d.lane_id = l.lane_id AND d.held <> ''
     ORDER BY d.revision, d.seq LIMIT 1), '~'),
    coalesce((SELECT min(d.created_at) FROM deliveries AS d WHERE d.lane_id = l.lane_id AND d.state = 'sending'), '~')
) FROM lanes AS l WHERE l."rows" > 0;

-- name: unsent
-- The lowest revision of the rows of each lane that are still to be sent, and of those that were given up.
SELECT lane_id, min(CASE WHEN state IN ('pending', 'sending', 'waiting') THEN revision END),
       min(CASE WHEN state = 'dead' THEN revision END)
FROM deliveries WHERE state <> 'cancelled' GROUP BY lane_id;

-- name: transitions
-- The steps of a session, in order.
SELECT session_id, before, state, reason, at FROM session_transitions WHERE session_id = ? ORDER BY id;

-- name: open_sessions
-- One-shot sessions that have not ended, after a session id, each with the states of its targets as a JSON array.
SELECT s.session_id, s.mode, s.source,
       (SELECT json_group_array(target) FROM (
           SELECT t.target_namespace || '/' || t.target_name AS target FROM session_targets AS t
           WHERE t.session_id = s.session_id ORDER BY t.place)) AS targets,
       s.standing, s.state, s.revision, s.created_at, s.last_activity, s.reason, s.deadline,
       (SELECT json_group_array(t.target_namespace || '/' || t.target_name) FROM session_targets AS t
        WHERE t.session_id = s.session_id AND t.gone = 1) AS gone,
       (SELECT json_group_array(p.status) FROM session_progress AS p WHERE p.session_id = s.session_id) AS statuses
FROM sessions AS s INDEXED BY sessions_open
WHERE s.standing = 0 AND s.state IN ('planned', 'running', 'paused', 'draining') AND s.session_id > :after
ORDER BY s.session_id LIMIT :limit;

-- name: undone_of_session
-- Live rows of a session that nobody has under way, behind one of them.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_by_session
WHERE session_id = :whose AND state IN ('pending', 'waiting')
  AND lane_id >= :lane AND (lane_id, revision, seq, delivery_id) > (:lane, :revision, :seq, :id)
ORDER BY lane_id, revision, seq, delivery_id LIMIT :limit;

-- name: undone_of_lane
-- Live rows of a lane that nobody has under way, behind one of them.
SELECT delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts, crashes,
       next_at, reason, created_at, updated_at, held, waits_for, replay_of
FROM deliveries INDEXED BY deliveries_by_lane
WHERE lane_id = :whose AND state IN ('pending', 'waiting')
  AND (revision, seq) >= (:revision, :seq) AND (lane_id, revision, seq, delivery_id) > (:lane, :revision, :seq, :id)
ORDER BY revision, seq, delivery_id LIMIT :limit;

-- name: missed_event
-- The newest event of a record before a place that the lane will not get.
SELECT revision, seq FROM deliveries INDEXED BY deliveries_by_key
WHERE name = :name AND kind = :kind AND namespace = :namespace AND lane_id = :lane AND live = 0
  AND (revision, seq) < (:revision, :seq) AND op = 'event' AND state IN ('dead', 'cancelled')
ORDER BY revision DESC, seq DESC LIMIT 1;

-- name: look_after
-- Of the deliveries kept back after others, those from a place on; and whether all lanes that each waits for are past the
-- place and hold no row of its line any more (skip: but a dead one). A lane that is gone was taken out by its trigger.
SELECT d.delivery_id, d.lane_id, d.revision, d.seq, NOT EXISTS (
    SELECT 1 FROM json_each(d.waits_for, '$.lanes') AS w LEFT JOIN lanes AS p ON p.lane_id = w.value
    WHERE p.lane_id IS NULL
       OR (p.position_revision << 20) + p.position_seq < json_extract(d.waits_for, '$.at')
       OR (p.backfill_route IN ('', d.route_uid) AND d.revision < p.backfill_upto
           AND p.backfill_at < (d.revision << 20) + d.seq)
       OR EXISTS (SELECT 1 FROM deliveries AS q
                  WHERE q.lane_id = p.lane_id AND q.revision = d.revision AND q.seq = d.seq
                    AND (q.live = 1 OR coalesce(json_extract(d.waits_for, '$.skip'), 0) = 0))
)
FROM deliveries AS d INDEXED BY deliveries_after
WHERE d.held = 'after' AND (d.revision, d.seq) > (:revision, :seq) ORDER BY d.revision, d.seq LIMIT :most;

-- name: release
-- One that waits for nothing any more.
UPDATE deliveries SET held = '', waits_for = '', reason = '', updated_at = ? WHERE delivery_id = ? AND held = 'after';
