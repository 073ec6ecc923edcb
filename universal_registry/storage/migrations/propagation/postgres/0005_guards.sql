-- What protects a target (propagation/lanes/lane.py, Guard, as JSON), the order of a lane's rows, and what people tell a lane.

ALTER TABLE propagation.lanes ADD COLUMN guard TEXT NOT NULL DEFAULT '{}';
ALTER TABLE propagation.lanes ADD COLUMN ordering TEXT COLLATE "C" NOT NULL DEFAULT 'per-key'
    CHECK (ordering IN ('none', 'per-key', 'strict'));

UPDATE propagation.lanes SET guard = '{"hold":"gone"}' WHERE held <> '';

-- What somebody wants of a lane, until its owner has done it. The lane may not have been made yet.
CREATE TABLE propagation.lane_commands (
    number      BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    lane_id     TEXT COLLATE "C" NOT NULL,
    action      TEXT NOT NULL,
    actor       TEXT NOT NULL,
    at          TEXT NOT NULL,
    until       TEXT,
    delivery_id TEXT NOT NULL,
    reason      TEXT NOT NULL
);

CREATE FUNCTION propagation.lane_went() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM propagation.lane_commands AS c USING went AS o WHERE c.lane_id = o.lane_id;
    RETURN NULL;
END $$;

CREATE TRIGGER lanes_commands_end AFTER DELETE ON propagation.lanes
REFERENCING OLD TABLE AS went FOR EACH STATEMENT EXECUTE FUNCTION propagation.lane_went();

-- Which rows may be tried depends on the lane's order from here on. `head`: per-key, the earliest live row of its record
-- in its lane; strict, the earliest live row of its lane; none, every live row. A record may then have several.
DROP INDEX propagation.deliveries_heads;
CREATE INDEX deliveries_heads ON propagation.deliveries (name, kind, namespace, lane_id) WHERE head = 1;

-- Of each of these records, make heads of the rows that the order of their lanes allows to be tried, and of no other.
CREATE OR REPLACE FUNCTION propagation.set_heads(lane_ids TEXT[], kinds TEXT[], namespaces TEXT[], names TEXT[])
RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off
SET enable_sort = off SET enable_incremental_sort = off AS $$
DECLARE
    leaving TEXT[];
    coming TEXT[];
    others TEXT[];
BEGIN
    others := ARRAY(SELECT l.lane_id FROM propagation.lanes AS l
                    WHERE l.lane_id = ANY (lane_ids) AND l.ordering <> 'per-key');
    IF cardinality(others) > 0 THEN
        PERFORM propagation.set_heads_without_keys(others, lane_ids, kinds, namespaces, names);
    END IF;
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
          FROM unnest(lane_ids, kinds, namespaces, names) AS k (lane_id, kind, namespace, name)
          WHERE k.lane_id <> ALL (others) OFFSET 0) AS r;
    IF leaving IS NOT NULL THEN
        UPDATE propagation.deliveries AS d SET head = 0 WHERE d.delivery_id = ANY (leaving);
    END IF;
    IF coming IS NOT NULL THEN
        UPDATE propagation.deliveries AS d SET head = 1 WHERE d.delivery_id = ANY (coming);
    END IF;
END $$;

-- The same for lanes of no order and of strict order. In a strict lane a head may stand at any of the records given, or
-- at the row after the earliest, which was the first until now.
CREATE FUNCTION propagation.set_heads_without_keys(
    others TEXT[], lane_ids TEXT[], kinds TEXT[], namespaces TEXT[], names TEXT[]
) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    in_line TEXT[];
    firsts TEXT[];
BEGIN
    in_line := ARRAY(SELECT l.lane_id FROM propagation.lanes AS l
                    WHERE l.lane_id = ANY (others) AND l.ordering = 'strict');
    UPDATE propagation.deliveries AS d SET head = d.live
    FROM unnest(lane_ids, kinds, namespaces, names) AS k (lane_id, kind, namespace, name)
    WHERE d.name = k.name AND d.kind = k.kind AND d.namespace = k.namespace AND d.lane_id = k.lane_id
      AND k.lane_id = ANY (others) AND k.lane_id <> ALL (in_line) AND d.head <> d.live;
    IF cardinality(in_line) = 0 THEN
        RETURN;
    END IF;
    firsts := ARRAY(
        SELECT f.delivery_id FROM unnest(in_line) AS s (lane_id) CROSS JOIN LATERAL (
            SELECT d.delivery_id FROM propagation.deliveries AS d WHERE d.lane_id = s.lane_id AND d.live = 1
            ORDER BY d.revision, d.seq, d.delivery_id LIMIT 1) AS f);
    UPDATE propagation.deliveries AS d SET head = 0
    WHERE d.head = 1 AND d.delivery_id <> ALL (firsts) AND d.delivery_id = ANY (ARRAY(
        SELECT s.delivery_id FROM unnest(in_line) AS l (lane_id) CROSS JOIN LATERAL (
            SELECT d.delivery_id FROM propagation.deliveries AS d WHERE d.lane_id = l.lane_id AND d.live = 1
            ORDER BY d.revision, d.seq, d.delivery_id LIMIT 1 OFFSET 1) AS s
        UNION ALL
        SELECT d.delivery_id FROM unnest(lane_ids, kinds, namespaces, names) AS k (lane_id, kind, namespace, name)
        JOIN propagation.deliveries AS d ON d.name = k.name AND d.kind = k.kind AND d.namespace = k.namespace
                                        AND d.lane_id = k.lane_id AND d.head = 1
        WHERE k.lane_id = ANY (in_line)));
    UPDATE propagation.deliveries AS d SET head = 1 WHERE d.delivery_id = ANY (firsts) AND d.head = 0;
END $$;

-- Another order: who is a head is found anew. All leave before any comes: what the triggers then find is what is wanted.
CREATE FUNCTION propagation.lanes_reordered() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE propagation.deliveries AS d SET head = 0 WHERE d.lane_id = NEW.lane_id AND d.head = 1;
    PERFORM propagation.set_heads(array_agg(k.lane_id), array_agg(k.kind), array_agg(k.namespace), array_agg(k.name))
    FROM (SELECT DISTINCT d.lane_id, d.kind, d.namespace, d.name FROM propagation.deliveries AS d
          WHERE d.lane_id = NEW.lane_id AND d.live = 1) AS k
    HAVING count(*) > 0;
    RETURN NULL;
END $$;

CREATE TRIGGER lanes_reordered AFTER UPDATE OF ordering ON propagation.lanes
FOR EACH ROW WHEN (NEW.ordering <> OLD.ordering) EXECUTE FUNCTION propagation.lanes_reordered();

-- As before, where a record may have several heads.
CREATE OR REPLACE FUNCTION propagation.blocked(lane TEXT, kinds TEXT[], namespaces TEXT[], names TEXT[])
RETURNS TABLE (kind TEXT, namespace TEXT, name TEXT)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        SELECT k.kind, k.namespace, k.name FROM unnest(kinds, namespaces, names) AS k (kind, namespace, name)
        WHERE (SELECT d.live FROM propagation.deliveries AS d
               WHERE d.name = k.name AND d.kind = k.kind AND d.namespace = k.namespace AND d.lane_id = lane
                 AND d.live = 1 LIMIT 1) = 1;
END $$;

-- What a tick decided, all of it: `settle`, and after it what lanes have beyond that. Of the lanes that were left out
-- there, owner or generation is another here too. Guards seldom change, and are seldom written.
CREATE FUNCTION propagation.settle_tick(given JSONB) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM propagation.settle(given);
    UPDATE propagation.lanes AS l SET ordering = g.ordering, guard = g.guard
    FROM jsonb_populate_recordset(NULL::propagation.lanes, given->'lanes') AS g
    WHERE l.lane_id = g.lane_id AND l.owner = g.owner AND l.generation = g.generation
      AND (l.guard <> g.guard OR l.ordering <> g.ordering);
    IF jsonb_array_length(given->'obeyed') > 0 THEN
        DELETE FROM propagation.lane_commands AS c
        USING jsonb_populate_recordset(NULL::propagation.lane_commands, given->'obeyed') AS g,
              jsonb_populate_recordset(NULL::propagation.lanes, given->'lanes') AS n, propagation.lanes AS l
        WHERE c.number = g.number AND n.lane_id = c.lane_id AND l.lane_id = c.lane_id
          AND l.owner = n.owner AND l.generation = n.generation;
    END IF;
END $$;

-- The clock of `holder` has gone back to `now_at`: what waits since a later moment waits as long as it was to, from now.
CREATE FUNCTION propagation.rebase(holder TEXT, now_at TEXT) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE propagation.deliveries AS d SET
        next_at = to_char((now_at::timestamptz + greatest(d.next_at::timestamptz - d.updated_at::timestamptz, INTERVAL '0'))
                          AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        updated_at = now_at
    WHERE d.state = 'waiting' AND d.updated_at > now_at
      AND d.lane_id IN (SELECT l.lane_id FROM propagation.lanes AS l WHERE l.owner = holder AND l.waiting > 0);
END $$;
