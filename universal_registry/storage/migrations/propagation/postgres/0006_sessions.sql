-- Sessions as they go on: why, until when, and each step they took; and what keeps single deliveries back.

-- held: after (a chain: `waits_for` says which lanes must have passed which place, as JSON), or paused (its session is).
-- replay_of: the delivery that is sent again under a new id.
ALTER TABLE propagation.deliveries
    ADD COLUMN held      TEXT COLLATE "C" NOT NULL DEFAULT '' CHECK (held IN ('', 'after', 'paused')),
    ADD COLUMN waits_for TEXT NOT NULL DEFAULT '',
    ADD COLUMN replay_of TEXT NOT NULL DEFAULT '';

DROP INDEX propagation.deliveries_pending_heads;
DROP INDEX propagation.deliveries_waiting_heads;
DROP INDEX propagation.deliveries_waiting_by_time;
CREATE INDEX deliveries_pending_heads ON propagation.deliveries (lane_id, revision, seq)
    WHERE head = 1 AND state = 'pending' AND held = '';
CREATE INDEX deliveries_waiting_heads ON propagation.deliveries (lane_id, revision, seq, next_at)
    WHERE head = 1 AND state = 'waiting' AND held = '';
CREATE INDEX deliveries_waiting_by_time ON propagation.deliveries (lane_id, next_at, revision, seq)
    WHERE head = 1 AND state = 'waiting' AND held = '';
CREATE INDEX deliveries_after ON propagation.deliveries (revision, seq, delivery_id) WHERE held = 'after';
CREATE INDEX deliveries_held ON propagation.deliveries (lane_id, revision, seq) WHERE held <> '';

ALTER TABLE propagation.sessions ADD COLUMN reason TEXT NOT NULL DEFAULT '', ADD COLUMN deadline TEXT;

CREATE INDEX sessions_open ON propagation.sessions (session_id)
    WHERE standing = 0 AND state IN ('planned', 'running', 'paused', 'draining');

-- Each step of each session, kept by the trigger, whoever writes. Of one session the newest hundred.
CREATE TABLE propagation.session_transitions (
    id         BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    session_id TEXT COLLATE "C" NOT NULL REFERENCES propagation.sessions (session_id) ON DELETE CASCADE,
    before     TEXT NOT NULL,
    state      TEXT NOT NULL,
    reason     TEXT NOT NULL,
    at         TEXT NOT NULL
);

CREATE INDEX session_transitions_by_session ON propagation.session_transitions (session_id, id);

CREATE FUNCTION propagation.session_moved() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO propagation.session_transitions (session_id, before, state, reason, at)
    VALUES (NEW.session_id, CASE WHEN TG_OP = 'INSERT' THEN '' ELSE OLD.state END, NEW.state, NEW.reason,
            NEW.last_activity);
    DELETE FROM propagation.session_transitions AS t WHERE t.session_id = NEW.session_id AND t.id <= (
        SELECT o.id FROM propagation.session_transitions AS o WHERE o.session_id = NEW.session_id
        ORDER BY o.id DESC LIMIT 1 OFFSET 100);
    RETURN NULL;
END $$;

CREATE TRIGGER sessions_begin AFTER INSERT ON propagation.sessions
FOR EACH ROW EXECUTE FUNCTION propagation.session_moved();

CREATE TRIGGER sessions_move AFTER UPDATE OF state ON propagation.sessions
FOR EACH ROW WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION propagation.session_moved();

-- `settle` cancels the sessions of a lane that is dropped, and says no more of it: this says why, and that what has ended
-- has ended.
CREATE FUNCTION propagation.session_dropped() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state IN ('succeeded', 'expired') THEN
        RETURN OLD;
    END IF;
    NEW.reason := 'a target was removed';
    RETURN NEW;
END $$;

CREATE TRIGGER sessions_dropped BEFORE UPDATE OF state ON propagation.sessions
FOR EACH ROW WHEN (NEW.standing = 0 AND NEW.state = 'cancelled' AND OLD.state <> 'cancelled' AND NEW.reason = OLD.reason)
EXECUTE FUNCTION propagation.session_dropped();

-- A delivery that was given up is sent again: its session, which had ended without it, goes on.
CREATE FUNCTION propagation.session_revived() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE propagation.sessions AS s SET state = 'running', reason = NEW.reason, last_activity = NEW.updated_at
    WHERE s.session_id = NEW.session_id AND s.standing = 0 AND s.state IN ('partial', 'failed');
    RETURN NULL;
END $$;

CREATE TRIGGER deliveries_revive_session AFTER UPDATE OF state ON propagation.deliveries
FOR EACH ROW WHEN (OLD.state = 'dead' AND NEW.state IN ('pending', 'sending', 'waiting'))
EXECUTE FUNCTION propagation.session_revived();

-- --- calls, as before but for the new columns -------------------------------------------------------------------------

CREATE OR REPLACE FUNCTION propagation.settle_rows(given JSONB, ours TEXT[]) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    gone TEXT[];
BEGIN
    IF jsonb_array_length(given->'rows') > 0 THEN
        INSERT INTO propagation.deliveries AS d (
            delivery_id, lane_id, session_id, route_uid, op, kind, namespace, name, revision, seq, state, attempts,
            crashes, next_at, reason, created_at, updated_at, held, waits_for, replay_of, head)
        SELECT g.delivery_id, g.lane_id, g.session_id, g.route_uid, g.op, g.kind, g.namespace, g.name, g.revision,
               g.seq, g.state, g.attempts, g.crashes, g.next_at, g.reason, g.created_at, g.updated_at,
               g.held, g.waits_for, g.replay_of,
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
            reason = excluded.reason, updated_at = excluded.updated_at, held = excluded.held,
            waits_for = excluded.waits_for
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

-- As before; and what has ended has ended, and what is begun again after a restart goes on where it was.
CREATE OR REPLACE FUNCTION propagation.settle_sessions(given JSONB) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF jsonb_array_length(given->'sessions') = 0 THEN
        RETURN;
    END IF;
    INSERT INTO propagation.sessions AS s (session_id, mode, source, standing, state, revision, created_at, last_activity,
                                           reason, deadline)
    SELECT g.session_id, g.mode, g.source, g.standing, g.state, g.revision, g.created_at, g.last_activity, g.reason,
           g.deadline
    FROM jsonb_populate_recordset(NULL::propagation.sessions, given->'sessions') AS g ORDER BY g.session_id
    ON CONFLICT (session_id) DO UPDATE SET
        mode = excluded.mode, source = excluded.source, standing = excluded.standing, state = excluded.state,
        revision = excluded.revision, last_activity = excluded.last_activity, reason = excluded.reason,
        deadline = excluded.deadline
    WHERE s.standing = 1
       OR (excluded.state <> 'planned' AND s.state NOT IN ('succeeded', 'cancelled', 'expired'));
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

CREATE OR REPLACE FUNCTION propagation.due(lane TEXT, now_at TEXT, most BIGINT) RETURNS SETOF propagation.deliveries
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE
    many CONSTANT BIGINT := 1000;
BEGIN
    RETURN QUERY
        SELECT d.* FROM propagation.deliveries AS d
        WHERE d.head = 1 AND d.state = 'pending' AND d.held = '' AND d.lane_id = lane ORDER BY d.revision, d.seq LIMIT most;
    IF (SELECT count(*) FROM (
            SELECT FROM propagation.deliveries AS d
            WHERE d.head = 1 AND d.state = 'waiting' AND d.held = '' AND d.lane_id = lane AND d.next_at <= now_at
            ORDER BY d.next_at LIMIT many) AS past) < many THEN
        RETURN QUERY
            SELECT few.* FROM (
                SELECT d.* FROM propagation.deliveries AS d
                WHERE d.head = 1 AND d.state = 'waiting' AND d.held = '' AND d.lane_id = lane AND d.next_at <= now_at
                ORDER BY d.next_at LIMIT many) AS few
            ORDER BY few.revision, few.seq LIMIT most;
    ELSE
        RETURN QUERY
            SELECT d.* FROM propagation.deliveries AS d
            WHERE d.head = 1 AND d.state = 'waiting' AND d.held = '' AND d.lane_id = lane AND d.next_at <= now_at
            ORDER BY d.revision, d.seq LIMIT most;
    END IF;
END $$;

-- A word on a session, done once, whichever daemon hears it first: its undone deliveries are held, released, cancelled.
-- `mark` is "incarnation:place" of its line, the newest that was done stands in meta. Locks: the mark, lanes,
-- rows, as everywhere.
CREATE FUNCTION propagation.control(verb TEXT, session TEXT, mark TEXT, why TEXT, now_at TEXT) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    known TEXT;
BEGIN
    INSERT INTO propagation.meta (key, value) VALUES ('controls', '') ON CONFLICT DO NOTHING;
    SELECT m.value INTO STRICT known FROM propagation.meta AS m WHERE m.key = 'controls' FOR UPDATE;
    IF mark <> '' AND split_part(known, ':', 1) = split_part(mark, ':', 1)
       AND split_part(known, ':', 2)::bigint >= split_part(mark, ':', 2)::bigint THEN
        RETURN;
    END IF;
    PERFORM FROM propagation.lanes AS l WHERE l.lane_id IN (
        SELECT d.lane_id FROM propagation.deliveries AS d WHERE d.session_id = session)
    ORDER BY l.lane_id FOR UPDATE;
    IF verb = 'pause' THEN
        UPDATE propagation.deliveries AS d SET held = 'paused', reason = why, updated_at = now_at
        WHERE d.session_id = session AND d.state IN ('pending', 'waiting');
    ELSIF verb = 'resume' THEN
        UPDATE propagation.deliveries AS d SET held = CASE WHEN d.waits_for = '' THEN '' ELSE 'after' END, reason = why,
               updated_at = now_at
        WHERE d.session_id = session AND d.held = 'paused';
    ELSE
        UPDATE propagation.deliveries AS d SET state = 'cancelled', held = '', next_at = NULL, reason = why,
               updated_at = now_at
        WHERE d.session_id = session AND d.state IN ('pending', 'waiting');
    END IF;
    IF mark <> '' THEN
        UPDATE propagation.meta AS m SET value = mark WHERE m.key = 'controls';
    END IF;
END $$;

-- Of the deliveries kept back after others, those of `holder` from a place on, at most `most`: released where all lanes
-- they wait for are past the place and hold no row of the line any more (skip: but a dead one). A lane that is gone is
-- waited for no longer: its trigger takes it out. Answers with each one looked at, and whether it was released.
CREATE FUNCTION propagation.release(holder TEXT, from_revision BIGINT, from_seq BIGINT, most BIGINT, now_at TEXT)
RETURNS TABLE (lane_id TEXT, revision BIGINT, seq BIGINT, released INTEGER)
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH looked AS (
        SELECT d.delivery_id, d.lane_id, d.revision, d.seq, d.route_uid, d.waits_for::jsonb AS wants
        FROM propagation.deliveries AS d JOIN propagation.lanes AS l ON l.lane_id = d.lane_id
        WHERE d.held = 'after' AND (d.revision, d.seq) > (from_revision, from_seq)
          AND (holder IS NULL OR l.owner = holder)
        ORDER BY d.revision, d.seq LIMIT most
    ), free AS (
        SELECT k.delivery_id FROM looked AS k WHERE NOT EXISTS (
            SELECT FROM jsonb_array_elements_text(k.wants->'lanes') AS w (lane)
            LEFT JOIN propagation.lanes AS p ON p.lane_id = w.lane
            WHERE p.lane_id IS NULL
               OR (p.position_revision << 20) + p.position_seq < (k.wants->>'at')::bigint
               OR (p.backfill_route IN ('', k.route_uid) AND k.revision < p.backfill_upto
                   AND p.backfill_at < (k.revision << 20) + k.seq)
               OR EXISTS (SELECT FROM propagation.deliveries AS q
                          WHERE q.lane_id = p.lane_id AND q.revision = k.revision AND q.seq = k.seq
                            AND (q.live = 1 OR NOT coalesce((k.wants->>'skip')::boolean, false))))
    ), done AS (
        UPDATE propagation.deliveries AS d SET held = '', waits_for = '', reason = '', updated_at = now_at
        FROM free AS f WHERE d.delivery_id = f.delivery_id RETURNING d.delivery_id
    )
    SELECT k.lane_id, k.revision, k.seq, (EXISTS (SELECT FROM done AS n WHERE n.delivery_id = k.delivery_id))::integer
    FROM looked AS k;
END $$;

-- What waits for a lane that is gone, waits for the others only. For each row: every settlement deletes no lane at all.
CREATE FUNCTION propagation.lane_no_hop() RETURNS trigger LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    UPDATE propagation.deliveries AS d
    SET waits_for = jsonb_set(d.waits_for::jsonb, '{lanes}', (d.waits_for::jsonb->'lanes') - OLD.lane_id)::text
    WHERE d.held <> '' AND d.waits_for <> '' AND d.waits_for::jsonb->'lanes' ? OLD.lane_id;
    RETURN NULL;
END $$;

CREATE TRIGGER lanes_no_hop AFTER DELETE ON propagation.lanes
FOR EACH ROW EXECUTE FUNCTION propagation.lane_no_hop();

-- --- names ------------------------------------------------------------------------------------------------------------

DROP VIEW propagation.execution_log;
DROP VIEW propagation.propagation_events;
DROP VIEW propagation.propagation_targets;
DROP VIEW propagation.propagation_sessions;
DROP VIEW propagation.session_progress;

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
         WHEN (s.state = 'cancelled' AND s.reason IN ('', 'a target was removed'))
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

-- A one-shot session is as far as its targets are, unless somebody has stopped it.
CREATE VIEW propagation.propagation_sessions AS
SELECT s.session_id, s.source AS source_id, s.mode,
       CASE WHEN s.standing = 1 OR s.state IN ('paused', 'draining', 'succeeded', 'cancelled', 'expired') THEN s.state
            ELSE (
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

CREATE VIEW propagation.execution_log AS
SELECT l.target_namespace || '/' || l.target_name AS component_id, 'deliver' AS action, 'failed' AS status,
       a.outcome || ': ' || a.reason AS details, a.at AS created_at
FROM propagation.attempts AS a JOIN propagation.lanes AS l ON l.lane_id = a.lane_id
UNION ALL
SELECT target_namespace || '/' || target_name, 'deliver', 'executed', mode || ' from ' || source, last_activity
FROM propagation.session_progress WHERE standing = 0 AND status = 'executed';
