-- `live` is in it so that it serves this alone: what is due is asked for without, and has better indexes.
CREATE INDEX deliveries_live_heads ON propagation.deliveries (lane_id) WHERE head = 1 AND live = 1;

-- As before, for lanes of strict order too: a head that is not the first row leaves wherever it stands. It was looked for at
-- the rows given and at the second place; several rows that came before it at once left it a head beside the first.
CREATE OR REPLACE FUNCTION propagation.set_heads_without_keys(
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
        SELECT s.delivery_id FROM propagation.deliveries AS s
        WHERE s.lane_id = ANY (in_line) AND s.head = 1 AND s.live = 1
        UNION ALL
        SELECT d.delivery_id FROM unnest(lane_ids, kinds, namespaces, names) AS k (lane_id, kind, namespace, name)
        JOIN propagation.deliveries AS d ON d.name = k.name AND d.kind = k.kind AND d.namespace = k.namespace
                                        AND d.lane_id = k.lane_id AND d.head = 1
        WHERE k.lane_id = ANY (in_line)));
    UPDATE propagation.deliveries AS d SET head = 1 WHERE d.delivery_id = ANY (firsts) AND d.head = 0;
END $$;
