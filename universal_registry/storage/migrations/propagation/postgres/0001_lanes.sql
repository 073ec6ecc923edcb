-- The propagation store. Times are RFC 3339, UTC, with milliseconds and Z: they compare as text, which is why what is
-- compared has the collation "C". Every name is qualified, so that it means the same whatever the search path is.

CREATE TABLE propagation.meta (
    key   TEXT COLLATE "C" PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE propagation.counters (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value BIGINT NOT NULL DEFAULT 0
);

INSERT INTO propagation.counters (name) VALUES ('executed'), ('delivered'), ('retried'), ('failed'), ('messages');

-- The last settlement of each daemon that is stored: one whose answer was lost is known again when it is repeated.
CREATE TABLE propagation.writers (
    writer TEXT COLLATE "C" PRIMARY KEY,
    number BIGINT NOT NULL,
    at     TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50);

-- One reader of the log with a destination. "rows", waiting and dead are kept by the triggers below, by nobody else.
-- `place`: the order in which lanes were made. No index holds what changes with each delivery.
CREATE TABLE propagation.lanes (
    lane_id           TEXT COLLATE "C" PRIMARY KEY,
    target_uid        TEXT NOT NULL,
    target_namespace  TEXT COLLATE "C" NOT NULL,
    target_name       TEXT COLLATE "C" NOT NULL,
    transport         TEXT NOT NULL,
    owner             TEXT COLLATE "C" NOT NULL,
    generation        BIGINT NOT NULL,
    lease_until       TEXT COLLATE "C",
    incarnation       TEXT NOT NULL,
    position_revision BIGINT NOT NULL,
    position_seq      BIGINT NOT NULL,
    hash8             TEXT NOT NULL,
    backfill_route    TEXT,
    backfill_upto     BIGINT,
    backfill_at       BIGINT,
    breaker           TEXT NOT NULL CHECK (breaker IN ('closed', 'open', 'half-open')),
    failures          BIGINT NOT NULL,
    trips             BIGINT NOT NULL,
    open_until        TEXT COLLATE "C",
    pause_until       TEXT COLLATE "C",
    paused            INTEGER NOT NULL CHECK (paused IN (0, 1)),
    held              TEXT NOT NULL,
    delivered         BIGINT NOT NULL,
    last_success_at   TEXT COLLATE "C",
    last_failure_at   TEXT COLLATE "C",
    last_error        TEXT NOT NULL,
    "rows"            BIGINT NOT NULL DEFAULT 0,
    waiting           BIGINT NOT NULL DEFAULT 0,
    dead              BIGINT NOT NULL DEFAULT 0,
    place             BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY,
    CHECK ((backfill_route IS NULL) = (backfill_upto IS NULL) AND (backfill_route IS NULL) = (backfill_at IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE INDEX lanes_by_target ON propagation.lanes (target_namespace, target_name);
CREATE INDEX lanes_waiting ON propagation.lanes (owner) WHERE waiting > 0;

-- What a lane has not delivered below its position. `head`: the earliest live row of its record in its lane, the only
-- one that may be tried; kept by the triggers, so that finding what is due never walks past those behind it.
CREATE TABLE propagation.deliveries (
    delivery_id TEXT COLLATE "C" PRIMARY KEY,
    lane_id     TEXT COLLATE "C" NOT NULL REFERENCES propagation.lanes (lane_id) ON DELETE CASCADE,
    session_id  TEXT COLLATE "C" NOT NULL,
    route_uid   TEXT NOT NULL,
    op          TEXT NOT NULL CHECK (op IN ('put', 'delete', 'event')),
    kind        TEXT COLLATE "C" NOT NULL,
    namespace   TEXT COLLATE "C" NOT NULL,
    name        TEXT COLLATE "C" NOT NULL,
    revision    BIGINT NOT NULL,
    seq         BIGINT NOT NULL,
    state       TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'sending', 'waiting', 'dead', 'cancelled')),
    attempts    BIGINT NOT NULL CHECK (attempts >= 0),
    crashes     BIGINT NOT NULL CHECK (crashes >= 0),
    next_at     TEXT COLLATE "C",
    reason      TEXT NOT NULL,
    created_at  TEXT COLLATE "C" NOT NULL,
    updated_at  TEXT COLLATE "C" NOT NULL,
    head        INTEGER NOT NULL DEFAULT 0 CHECK (head IN (0, 1)),
    live        INTEGER NOT NULL GENERATED ALWAYS AS (
                    CASE WHEN state IN ('pending', 'sending', 'waiting') THEN 1 ELSE 0 END) STORED,
    CHECK (state <> 'waiting' OR next_at IS NOT NULL)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.02);

CREATE INDEX deliveries_by_lane ON propagation.deliveries (lane_id, revision, seq);
CREATE INDEX deliveries_by_key ON propagation.deliveries (name, kind, namespace, lane_id, live, revision, seq, delivery_id);
CREATE UNIQUE INDEX deliveries_heads ON propagation.deliveries (name, kind, namespace, lane_id) WHERE head = 1;
CREATE INDEX deliveries_by_session ON propagation.deliveries (session_id, lane_id, state);
CREATE INDEX deliveries_dead ON propagation.deliveries (lane_id, revision, seq) WHERE state = 'dead';
CREATE INDEX deliveries_sending ON propagation.deliveries (lane_id) WHERE state = 'sending';
CREATE INDEX deliveries_pending_heads ON propagation.deliveries (lane_id, revision, seq)
    WHERE head = 1 AND state = 'pending';
CREATE INDEX deliveries_waiting_heads ON propagation.deliveries (lane_id, revision, seq, next_at)
    WHERE head = 1 AND state = 'waiting';
CREATE INDEX deliveries_waiting_by_time ON propagation.deliveries (lane_id, next_at, revision, seq)
    WHERE head = 1 AND state = 'waiting';

-- Attempts that did not succeed, append only. They outlive their delivery's row, not its lane.
CREATE TABLE propagation.attempts (
    id           BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    delivery_id  TEXT COLLATE "C" NOT NULL,
    lane_id      TEXT COLLATE "C" NOT NULL REFERENCES propagation.lanes (lane_id) ON DELETE CASCADE,
    number       BIGINT NOT NULL CHECK (number >= 0),
    at           TEXT COLLATE "C" NOT NULL,
    outcome      TEXT NOT NULL,
    status       BIGINT,
    milliseconds DOUBLE PRECISION NOT NULL,
    reason       TEXT NOT NULL
);

CREATE INDEX attempts_by_delivery ON propagation.attempts (delivery_id, id);
CREATE INDEX attempts_by_lane ON propagation.attempts (lane_id);

CREATE TABLE propagation.sessions (
    session_id    TEXT COLLATE "C" PRIMARY KEY,
    mode          TEXT NOT NULL,
    source        TEXT NOT NULL,
    standing      INTEGER NOT NULL CHECK (standing IN (0, 1)),
    state         TEXT NOT NULL,
    revision      BIGINT NOT NULL,
    created_at    TEXT COLLATE "C" NOT NULL,
    last_activity TEXT COLLATE "C" NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE propagation.session_targets (
    session_id       TEXT COLLATE "C" NOT NULL REFERENCES propagation.sessions (session_id) ON DELETE CASCADE,
    target_namespace TEXT COLLATE "C" NOT NULL,
    target_name      TEXT COLLATE "C" NOT NULL,
    place            BIGINT NOT NULL,
    PRIMARY KEY (session_id, target_namespace, target_name)
);

-- --- rules that hold whoever writes ---------------------------------------------------------------------------------

CREATE FUNCTION propagation.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER attempts_append_only BEFORE UPDATE ON propagation.attempts
FOR EACH ROW EXECUTE FUNCTION propagation.refuse('attempts are append-only');

-- What identifies a row and its place in the order never changes, so the other triggers need not follow it.
CREATE TRIGGER deliveries_fixed
BEFORE UPDATE OF delivery_id, lane_id, kind, namespace, name, revision, seq ON propagation.deliveries
FOR EACH ROW EXECUTE FUNCTION propagation.refuse('a delivery keeps its lane, record and place');

-- Of each of these records, make the earliest live row the head and no other. First the old head goes, then the new one
-- comes: a record never has two.
CREATE FUNCTION propagation.set_heads(lane_ids TEXT[], kinds TEXT[], namespaces TEXT[], names TEXT[]) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off SET enable_incremental_sort = off AS $$
DECLARE
    leaving TEXT[];
    coming TEXT[];
BEGIN
    SELECT array_agg(r.before) FILTER (WHERE r.before IS DISTINCT FROM r.earliest AND r.before IS NOT NULL),
           array_agg(r.earliest) FILTER (WHERE r.earliest IS DISTINCT FROM r.before AND r.earliest IS NOT NULL)
    INTO leaving, coming
    FROM (SELECT (SELECT d.delivery_id FROM propagation.deliveries AS d
                  WHERE d.name = k.name AND d.kind = k.kind AND d.namespace = k.namespace AND d.lane_id = k.lane_id
                    AND d.head = 1) AS before,
                 (SELECT d.delivery_id FROM propagation.deliveries AS d
                  WHERE d.name = k.name AND d.kind = k.kind AND d.namespace = k.namespace AND d.lane_id = k.lane_id
                    AND d.live = 1
                  ORDER BY d.revision, d.seq, d.delivery_id LIMIT 1) AS earliest
          FROM unnest(lane_ids, kinds, namespaces, names) AS k (lane_id, kind, namespace, name) OFFSET 0) AS r;
    IF leaving IS NOT NULL THEN
        UPDATE propagation.deliveries AS d SET head = 0 WHERE d.delivery_id = ANY (leaving);
    END IF;
    IF coming IS NOT NULL THEN
        UPDATE propagation.deliveries AS d SET head = 1 WHERE d.delivery_id = ANY (coming);
    END IF;
END $$;

-- Counts of a lane, exact whoever writes, so that no total ever needs a walk over the rows; and the heads. Once for a
-- statement and not for each row: a lane that is updated a thousand times in a transaction is a thousand versions long.
CREATE FUNCTION propagation.deliveries_came() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE propagation.lanes AS l
    SET "rows" = l."rows" + c.live, waiting = l.waiting + c.waiting, dead = l.dead + c.dead
    FROM (SELECT n.lane_id, sum(n.live) AS live, count(*) FILTER (WHERE n.state = 'waiting') AS waiting,
                 count(*) FILTER (WHERE n.state = 'dead') AS dead
          FROM came AS n GROUP BY n.lane_id) AS c
    WHERE l.lane_id = c.lane_id AND (c.live > 0 OR c.dead > 0);
    PERFORM propagation.set_heads(array_agg(k.lane_id), array_agg(k.kind), array_agg(k.namespace), array_agg(k.name))
    FROM (SELECT DISTINCT n.lane_id, n.kind, n.namespace, n.name FROM came AS n WHERE n.live = 1) AS k
    HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE FUNCTION propagation.deliveries_went() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE propagation.lanes AS l
    SET "rows" = l."rows" - c.live, waiting = l.waiting - c.waiting, dead = l.dead - c.dead
    FROM (SELECT o.lane_id, sum(o.live) AS live, count(*) FILTER (WHERE o.state = 'waiting') AS waiting,
                 count(*) FILTER (WHERE o.state = 'dead') AS dead
          FROM went AS o GROUP BY o.lane_id) AS c
    WHERE l.lane_id = c.lane_id AND (c.live > 0 OR c.dead > 0);
    PERFORM propagation.set_heads(array_agg(k.lane_id), array_agg(k.kind), array_agg(k.namespace), array_agg(k.name))
    FROM (SELECT o.lane_id, o.kind, o.namespace, o.name FROM went AS o
          WHERE o.head = 1 AND EXISTS (SELECT FROM propagation.lanes AS l WHERE l.lane_id = o.lane_id)) AS k
    HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE FUNCTION propagation.deliveries_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE propagation.lanes AS l
    SET "rows" = l."rows" + c.live, waiting = l.waiting + c.waiting, dead = l.dead + c.dead
    FROM (SELECT b.lane_id, sum(b.sign * b.live) AS live, sum(b.sign * (b.state = 'waiting')::integer) AS waiting,
                 sum(b.sign * (b.state = 'dead')::integer) AS dead
          FROM (SELECT n.lane_id, n.live, n.state, 1 AS sign FROM came AS n
                UNION ALL SELECT o.lane_id, o.live, o.state, -1 FROM went AS o) AS b
          GROUP BY b.lane_id) AS c
    WHERE l.lane_id = c.lane_id AND (c.live <> 0 OR c.waiting <> 0 OR c.dead <> 0);
    PERFORM propagation.set_heads(array_agg(k.lane_id), array_agg(k.kind), array_agg(k.namespace), array_agg(k.name))
    FROM (SELECT DISTINCT x.lane_id, x.kind, x.namespace, x.name
          FROM (SELECT n.delivery_id, n.live, n.lane_id, n.kind, n.namespace, n.name FROM came AS n
                EXCEPT SELECT o.delivery_id, o.live, o.lane_id, o.kind, o.namespace, o.name FROM went AS o) AS x) AS k
    HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE TRIGGER deliveries_insert AFTER INSERT ON propagation.deliveries
REFERENCING NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION propagation.deliveries_came();

CREATE TRIGGER deliveries_delete AFTER DELETE ON propagation.deliveries
REFERENCING OLD TABLE AS went FOR EACH STATEMENT EXECUTE FUNCTION propagation.deliveries_went();

CREATE TRIGGER deliveries_update AFTER UPDATE ON propagation.deliveries
REFERENCING OLD TABLE AS went NEW TABLE AS came FOR EACH STATEMENT EXECUTE FUNCTION propagation.deliveries_changed();
