-- What a daemon calls: each is one round trip and one commit.
--
-- A plan made while a table was empty is kept until the server next counts its rows, which may be a minute into a burst.
-- So nothing here is left to such a plan: where two indexes would do, it is made anew each time (force_custom_plan); where
-- one is right whatever the numbers, everything else is switched off.

-- Renew the lanes of `new_owner` until `until`, and take those that nobody holds at `now`. One that its owner writes at
-- this moment is held. What a dead owner left SENDING is tried again, or dead at its `crash_limit`th crash.
CREATE FUNCTION propagation.claim(new_owner TEXT, now_at TEXT, until TEXT, crash_limit BIGINT, retries BIGINT)
RETURNS SETOF propagation.lanes LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    taken TEXT[];
    lost BIGINT;
BEGIN
    PERFORM FROM propagation.lanes AS l WHERE l.owner = new_owner ORDER BY l.lane_id FOR UPDATE;
    taken := ARRAY(
        SELECT l.lane_id FROM propagation.lanes AS l
        WHERE l.owner <> new_owner AND (l.owner = '' OR l.lease_until IS NULL OR l.lease_until <= now_at)
        ORDER BY l.lane_id FOR UPDATE SKIP LOCKED);
    UPDATE propagation.lanes AS l SET owner = new_owner, generation = l.generation + 1, lease_until = until
    WHERE l.lane_id = ANY (taken);
    UPDATE propagation.lanes AS l SET lease_until = until
    WHERE l.owner = new_owner AND l.lease_until IS DISTINCT FROM until;
    WITH ended AS (
        UPDATE propagation.deliveries AS d SET
            state = CASE WHEN d.crashes + 1 >= crash_limit THEN 'dead' ELSE 'pending' END,
            crashes = d.crashes + 1,
            next_at = NULL,
            reason = CASE WHEN d.crashes + 1 >= crash_limit THEN 'quarantined: the daemon ended ' || (d.crashes + 1)
                          || ' times while it was sending this' ELSE 'the daemon ended while it was sending this' END,
            updated_at = now_at
        WHERE d.state = 'sending' AND d.lane_id = ANY (taken) RETURNING d.state
    )
    SELECT count(*) FILTER (WHERE state = 'dead') INTO lost FROM ended;
    IF lost > 0 THEN
        UPDATE propagation.counters SET value = value + lost WHERE name = 'failed';
    END IF;
    INSERT INTO propagation.meta AS m (key, value) VALUES ('max_retries', retries::text)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE m.value <> excluded.value;
    DELETE FROM propagation.writers AS w WHERE w.at < clock_timestamp() - INTERVAL '7 days';
    RETURN QUERY SELECT l.* FROM propagation.lanes AS l WHERE l.owner = new_owner;
END $$;

-- Everything one tick decided, as one document: writer, number, lanes, dropped, rows, removed, attempts, sessions,
-- targets, counters. A lane whose stored owner or generation is another is left out with all its rows. Lanes are dropped
-- first. Attempts and counters, which must not be added twice, bear the number of the first settlement that held them:
-- those not above the last one stored of this writer are there already. A settlement that is stored is not stored again.
-- Locks are taken in one order by everyone: the writer, lanes, new lanes, rows, sessions, counters; in each by key.
CREATE FUNCTION propagation.settle(given JSONB) RETURNS void
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
    -- One-shot sessions of which something was still to go to a lane that is dropped: that will never arrive.
    UPDATE propagation.sessions AS s SET state = 'cancelled'
    WHERE s.standing = 0 AND s.session_id IN (
        SELECT d.session_id FROM propagation.deliveries AS d JOIN propagation.lanes AS l ON l.lane_id = d.lane_id
        WHERE d.lane_id = ANY (dropped) AND d.state IN ('pending', 'sending', 'waiting')
          AND (d.lane_id = ANY (ours) OR d.lane_id <> ALL (wanted)));
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

-- The rows of the lanes `ours`. What identifies a row and its place in the order stay as they were. A new row that
-- nothing stands before is the head from the start, which saves its second version; the triggers see to all else.
CREATE FUNCTION propagation.settle_rows(given JSONB, ours TEXT[]) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    gone TEXT[];
BEGIN
    IF jsonb_array_length(given->'rows') > 0 THEN
        INSERT INTO propagation.deliveries AS d (
            delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts,
            crashes, next_at, reason, created_at, updated_at, head)
        SELECT g.delivery_id, g.lane_id, g.session_id, g.route_uid, g.op, g.kind, g.namespace, g.name, g.revision,
               g.seq, g.state, g.attempts, g.crashes, g.next_at, g.reason, g.created_at, g.updated_at,
               CASE WHEN g.nth = 1 AND NOT EXISTS (
                   SELECT FROM propagation.deliveries AS o
                   WHERE o.name = g.name AND o.kind = g.kind AND o.namespace = g.namespace AND o.lane_id = g.lane_id
                     AND o.head = 1) THEN g.alive ELSE 0 END
        FROM (SELECT n.*, a.alive, row_number() OVER (
                         PARTITION BY n.lane_id, n.name, n.kind, n.namespace
                         ORDER BY a.alive DESC, n.revision, n.seq, n.delivery_id COLLATE "C") AS nth
              FROM jsonb_populate_recordset(NULL::propagation.deliveries, given->'rows') AS n,
                   LATERAL (SELECT (n.state IN ('pending', 'sending', 'waiting'))::integer AS alive) AS a) AS g
        WHERE g.lane_id = ANY (ours)
        ON CONFLICT (delivery_id) DO UPDATE SET
            session_id = excluded.session_id, route_uid = excluded.route_uid, state = excluded.state,
            attempts = excluded.attempts, crashes = excluded.crashes, next_at = excluded.next_at,
            reason = excluded.reason, updated_at = excluded.updated_at
        WHERE d.lane_id = excluded.lane_id;
    END IF;
    IF jsonb_array_length(given->'removed') > 0 THEN
        gone := ARRAY(
            SELECT g.delivery_id FROM jsonb_to_recordset(given->'removed') AS g (lane_id TEXT, delivery_id TEXT)
            WHERE g.lane_id = ANY (ours) AND g.lane_id = (
                SELECT d.lane_id FROM propagation.deliveries AS d WHERE d.delivery_id = g.delivery_id));
        DELETE FROM propagation.deliveries AS d WHERE d.delivery_id = ANY (gone);
    END IF;
END $$;

-- Sessions keep when they were made. Of their targets only what differs is touched.
CREATE FUNCTION propagation.settle_sessions(given JSONB) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_array_length(given->'sessions') = 0 THEN
        RETURN;
    END IF;
    INSERT INTO propagation.sessions AS s (session_id, mode, source, standing, state, revision, created_at, last_activity)
    SELECT g.session_id, g.mode, g.source, g.standing, g.state, g.revision, g.created_at, g.last_activity
    FROM jsonb_populate_recordset(NULL::propagation.sessions, given->'sessions') AS g ORDER BY g.session_id
    ON CONFLICT (session_id) DO UPDATE SET
        mode = excluded.mode, source = excluded.source, standing = excluded.standing, state = excluded.state,
        revision = excluded.revision, last_activity = excluded.last_activity;
    DELETE FROM propagation.session_targets AS t
    USING jsonb_populate_recordset(NULL::propagation.sessions, given->'sessions') AS s
    WHERE t.session_id = s.session_id AND NOT EXISTS (
        SELECT FROM jsonb_populate_recordset(NULL::propagation.session_targets, given->'targets') AS g
        WHERE g.session_id = t.session_id AND g.target_namespace = t.target_namespace
          AND g.target_name = t.target_name);
    INSERT INTO propagation.session_targets (session_id, target_namespace, target_name, place)
    SELECT g.session_id, g.target_namespace, g.target_name, g.place
    FROM jsonb_populate_recordset(NULL::propagation.session_targets, given->'targets') AS g
    LEFT JOIN propagation.session_targets AS t
           ON t.session_id = g.session_id AND t.target_namespace = g.target_namespace AND t.target_name = g.target_name
    WHERE t.place IS DISTINCT FROM g.place ORDER BY g.session_id, g.place
    ON CONFLICT (session_id, target_namespace, target_name) DO UPDATE SET place = excluded.place;
END $$;

-- At most `most` rows of each kind that may be tried at `now_at`: heads never tried, or to be tried again at once; and
-- heads past their time. While these are few they are found by time and put in order; of many, the first are found by
-- walking them in order.
CREATE FUNCTION propagation.due(lane TEXT, now_at TEXT, most BIGINT) RETURNS SETOF propagation.deliveries
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
    many CONSTANT BIGINT := 1000;
BEGIN
    RETURN QUERY
        SELECT d.* FROM propagation.deliveries AS d
        WHERE d.head = 1 AND d.state = 'pending' AND d.lane_id = lane ORDER BY d.revision, d.seq LIMIT most;
    IF (SELECT count(*) FROM (
            SELECT FROM propagation.deliveries AS d
            WHERE d.head = 1 AND d.state = 'waiting' AND d.lane_id = lane AND d.next_at <= now_at
            ORDER BY d.next_at LIMIT many) AS past) < many THEN
        RETURN QUERY
            SELECT few.* FROM (
                SELECT d.* FROM propagation.deliveries AS d
                WHERE d.head = 1 AND d.state = 'waiting' AND d.lane_id = lane AND d.next_at <= now_at
                ORDER BY d.next_at LIMIT many) AS few
            ORDER BY few.revision, few.seq LIMIT most;
    ELSE
        RETURN QUERY
            SELECT d.* FROM propagation.deliveries AS d
            WHERE d.head = 1 AND d.state = 'waiting' AND d.lane_id = lane AND d.next_at <= now_at
            ORDER BY d.revision, d.seq LIMIT most;
    END IF;
END $$;

-- Those of the keys that have a live row in the lane. A live row has a head; there is at most one, so that this asks the
-- index once for each key, and never reads all heads to compare them.
CREATE FUNCTION propagation.blocked(lane TEXT, kinds TEXT[], namespaces TEXT[], names TEXT[])
RETURNS TABLE (kind TEXT, namespace TEXT, name TEXT)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT k.kind, k.namespace, k.name FROM unnest(kinds, namespaces, names) AS k (kind, namespace, name)
        WHERE (SELECT d.head FROM propagation.deliveries AS d
               WHERE d.name = k.name AND d.kind = k.kind AND d.namespace = k.namespace AND d.lane_id = lane
                 AND d.head = 1) = 1;
END $$;
