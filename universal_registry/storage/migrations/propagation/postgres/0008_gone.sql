-- How a one-shot session ends is decided by the daemon, from what its targets got, and not by a trigger as well. What it must
-- know of a target that is removed is kept with the session's targets.

-- gone: the target was removed before it got what the session had for it. Who gets its name next does not get that.
ALTER TABLE propagation.session_targets ADD COLUMN gone INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1));
UPDATE propagation.session_targets SET gone = 1
WHERE session_id IN (SELECT session_id FROM propagation.sessions
                     WHERE standing = 0 AND state = 'cancelled' AND reason = 'a target was removed');

DROP TRIGGER sessions_dropped ON propagation.sessions;
DROP FUNCTION propagation.session_dropped();

-- As before, but for the sessions of lanes that are dropped.
CREATE OR REPLACE FUNCTION propagation.settle(given JSONB) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_material = off AS $$
DECLARE
    this BIGINT := given->>'number';
    stored BIGINT;
    wanted TEXT[] := ARRAY(SELECT g.lane_id FROM jsonb_populate_recordset(NULL::propagation.lanes, given->'lanes') AS g);
    dropped TEXT[] := ARRAY(SELECT jsonb_array_elements_text(given->'dropped'));
    ours TEXT[];
    kept TEXT[];
    made TEXT[];
BEGIN
    INSERT INTO propagation.writers (writer, number) VALUES (given->>'writer', 0) ON CONFLICT DO NOTHING;
    SELECT w.number INTO STRICT stored FROM propagation.writers AS w WHERE w.writer = given->>'writer' FOR UPDATE;
    IF stored >= this THEN
        RETURN;
    END IF;
    UPDATE propagation.writers AS w SET number = this, at = clock_timestamp() WHERE w.writer = given->>'writer';

    PERFORM FROM propagation.lanes AS l WHERE l.lane_id = ANY (wanted || dropped) ORDER BY l.lane_id FOR UPDATE;
    ours := ARRAY(
        SELECT g.lane_id FROM jsonb_populate_recordset(NULL::propagation.lanes, given->'lanes') AS g
        LEFT JOIN propagation.lanes AS l ON l.lane_id = g.lane_id
        WHERE l.lane_id IS NULL
           OR (l.owner = g.owner AND (l.generation = g.generation OR g.lane_id = ANY (dropped))));
    -- What one-shot sessions still had for a lane that is dropped will never arrive, be it a row or not yet planned.
    UPDATE propagation.session_targets AS t SET gone = 1
    FROM propagation.lanes AS l
    WHERE l.lane_id = ANY (dropped) AND (l.lane_id = ANY (ours) OR l.lane_id <> ALL (wanted))
      AND t.target_namespace = l.target_namespace AND t.target_name = l.target_name
      AND t.session_id IN (
        SELECT s.session_id FROM propagation.deliveries AS d
        JOIN propagation.sessions AS s ON s.session_id = d.session_id
        WHERE d.lane_id = l.lane_id AND d.state IN ('pending', 'sending', 'waiting') AND s.standing = 0
        UNION ALL
        SELECT s.session_id FROM propagation.sessions AS s
        WHERE s.standing = 0 AND s.state IN ('planned', 'running', 'paused', 'draining')
          AND ((l.position_revision, l.position_seq) < (s.revision, 0) OR l.backfill_route = s.session_id));
    DELETE FROM propagation.lanes AS l
    WHERE l.lane_id = ANY (dropped) AND (l.lane_id = ANY (ours) OR l.lane_id <> ALL (wanted));

    -- A lease is only ever lengthened here, since what is written may be older than the last claim; NULL gives it up.
    WITH updated AS (
        UPDATE propagation.lanes AS l SET
            target_uid = g.target_uid, target_namespace = g.target_namespace, target_name = g.target_name,
            transport = g.transport, incarnation = g.incarnation, position_revision = g.position_revision,
            lease_until = CASE WHEN g.lease_until IS NOT NULL THEN greatest(l.lease_until, g.lease_until) END,
            position_seq = g.position_seq, hash8 = g.hash8, backfill_route = g.backfill_route,
            backfill_upto = g.backfill_upto, backfill_at = g.backfill_at, breaker = g.breaker, failures = g.failures,
            trips = g.trips, open_until = g.open_until, pause_until = g.pause_until, paused = g.paused, held = g.held,
            delivered = g.delivered, last_success_at = g.last_success_at, last_failure_at = g.last_failure_at,
            last_error = g.last_error
        FROM jsonb_populate_recordset(NULL::propagation.lanes, given->'lanes') AS g
        -- Once more by owner: what was not there a moment ago, another daemon may have made meanwhile.
        WHERE l.lane_id = g.lane_id AND g.lane_id = ANY (ours) AND l.owner = g.owner AND l.generation = g.generation
        RETURNING l.lane_id
    )
    SELECT coalesce(array_agg(u.lane_id), '{}') INTO kept FROM updated AS u;
    WITH inserted AS (
        INSERT INTO propagation.lanes (
            lane_id, target_uid, target_namespace, target_name, transport, owner, generation, lease_until, incarnation,
            position_revision, position_seq, hash8, backfill_route, backfill_upto, backfill_at, breaker, failures,
            trips, open_until, pause_until, paused, held, delivered, last_success_at, last_failure_at, last_error)
        SELECT g.lane_id, g.target_uid, g.target_namespace, g.target_name, g.transport, g.owner, g.generation,
               g.lease_until, g.incarnation, g.position_revision, g.position_seq, g.hash8, g.backfill_route,
               g.backfill_upto, g.backfill_at, g.breaker, g.failures, g.trips, g.open_until, g.pause_until, g.paused,
               g.held, g.delivered, g.last_success_at, g.last_failure_at, g.last_error
        FROM jsonb_populate_recordset(NULL::propagation.lanes, given->'lanes') AS g
        WHERE g.lane_id = ANY (ours) AND g.lane_id <> ALL (kept) ORDER BY g.lane_id
        ON CONFLICT (lane_id) DO NOTHING  -- another daemon has made it meanwhile, and holds it
        RETURNING lane_id
    )
    SELECT coalesce(array_agg(i.lane_id), '{}') INTO made FROM inserted AS i;
    ours := kept || made;

    PERFORM propagation.settle_rows(given, ours);
    INSERT INTO propagation.attempts (delivery_id, lane_id, number, at, outcome, status, milliseconds, reason)
    SELECT g.delivery_id, g.lane_id, g.number, g.at, g.outcome, g.status, g.milliseconds, g.reason
    FROM ROWS FROM (jsonb_to_recordset(given->'attempts') AS (
             since BIGINT, delivery_id TEXT, lane_id TEXT, number BIGINT, at TEXT, outcome TEXT, status BIGINT,
             milliseconds DOUBLE PRECISION, reason TEXT)) WITH ORDINALITY AS g
    WHERE g.lane_id = ANY (ours) AND (g.since > stored OR g.lane_id = ANY (made)) ORDER BY g.ordinality;
    PERFORM propagation.settle_sessions(given);

    IF jsonb_array_length(given->'counters') > 0 THEN
        PERFORM FROM propagation.counters AS c ORDER BY c.name FOR UPDATE;
        UPDATE propagation.counters AS c SET value = c.value + a.added
        FROM (SELECT g.name, sum(g.added) AS added
              FROM jsonb_to_recordset(given->'counters') AS g (since BIGINT, name TEXT, added BIGINT)
              WHERE g.since > stored GROUP BY g.name) AS a
        WHERE c.name = a.name AND a.added <> 0;
    END IF;
END $$;

CREATE OR REPLACE VIEW propagation.session_progress AS
SELECT t.session_id, s.mode, s.source, s.standing, s.revision, t.target_namespace, t.target_name, l.transport,
       s.created_at, s.last_activity,
       CASE
         WHEN t.gone = 1 THEN 'cancelled'
         WHEN EXISTS (SELECT FROM propagation.deliveries AS d WHERE d.session_id = t.session_id
                      AND d.lane_id = l.lane_id AND d.state = 'dead') THEN 'failed'
         WHEN EXISTS (SELECT FROM propagation.deliveries AS d WHERE d.session_id = t.session_id
                      AND d.lane_id = l.lane_id AND d.state = 'waiting') THEN 'retry'
         WHEN EXISTS (SELECT FROM propagation.deliveries AS d WHERE d.session_id = t.session_id
                      AND d.lane_id = l.lane_id AND d.state IN ('pending', 'sending')) THEN 'pending'
         WHEN EXISTS (SELECT FROM propagation.deliveries AS d WHERE d.session_id = t.session_id
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
