-- name: horizon
-- How far back the log is whole.
SELECT values_upto, lines_upto, hash, living FROM log_horizon;

-- name: progress
-- How far back it is whole, and up to which positions what may go is gone.
-- Nobody else moves it until this transaction ends.
SELECT values_upto, lines_upto, dropped_to, removed_to FROM log_horizon FOR UPDATE;

-- name: declare
-- Move the horizon.
UPDATE log_horizon SET values_upto = $1, lines_upto = $2, hash = $3, living = $4;

-- name: dropped_to
-- Values are gone up to there.
UPDATE log_horizon SET dropped_to = $1;

-- name: removed_to
-- Lines are gone up to there.
UPDATE log_horizon SET removed_to = $1;

-- name: write
-- Allow writes in this transaction.
SELECT set_config('ureg.write', 'on', true);

-- name: born
-- How many records more there are after some lines than before them.
SELECT coalesce(sum((op = 'put' AND prev_commitment IS NULL)::int - (op = 'delete')::int), 0)::bigint
FROM changes WHERE position > $1 AND position < $2;

-- name: last
-- The last of so many positions between two, and how many there are.
SELECT max(position), count(*)
FROM (SELECT position FROM changes WHERE position > $1 AND position < $2 ORDER BY position LIMIT $3) AS l;

-- name: drop_values
-- Of the records that lines between two positions are about: the values that these lines made out of date. And events.
WITH dropped AS (
    UPDATE changes SET body = NULL
    WHERE body IS NOT NULL AND position = ANY (ARRAY(
        SELECT CASE WHEN c.op = 'event' THEN c.position ELSE (
            SELECT b.position FROM changes AS b
            WHERE b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.position < c.position
                  AND b.op <> 'event'
            ORDER BY b.position DESC LIMIT 1) END
        FROM changes AS c WHERE c.position > $1 AND c.position <= $2 AND c.namespace <> 'system'))
    RETURNING 1)
SELECT count(*) FROM dropped;

-- name: remove_lines
-- The same of whole lines; also of deletions, which nobody has to be told of any more.
WITH removed AS (
    DELETE FROM changes
    WHERE position = ANY (ARRAY(
        SELECT b.position FROM changes AS c JOIN changes AS b
               ON b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.position < c.position
                  AND b.op <> 'event'
        WHERE c.position > $1 AND c.position <= $2 AND c.namespace <> 'system' AND c.op <> 'event'
        UNION ALL
        SELECT c.position FROM changes AS c
        WHERE c.position > $1 AND c.position <= $2 AND c.namespace <> 'system' AND c.op <> 'put'))
    RETURNING 1)
SELECT count(*) FROM removed;

-- name: values_foreseen
-- How many values the lines between two positions made out of date, and their bytes.
SELECT count(*), coalesce(sum(octet_length(body)), 0)::bigint FROM changes
WHERE body IS NOT NULL AND position IN (
    SELECT CASE WHEN c.op = 'event' THEN c.position ELSE (
        SELECT b.position FROM changes AS b
        WHERE b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.position < c.position
              AND b.op <> 'event'
        ORDER BY b.position DESC LIMIT 1) END
    FROM changes AS c WHERE c.position > $1 AND c.position < $2 AND c.namespace <> 'system');

-- name: lines_foreseen
-- How many lines those between two positions made out of date: each that a later one there follows, of an older line the
-- newest of its record; deletions and events.
SELECT count(*) FROM changes
WHERE position IN (
    SELECT (SELECT b.position FROM changes AS b
            WHERE b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.position < c.position
                  AND b.op <> 'event'
            ORDER BY b.position DESC LIMIT 1)
    FROM changes AS c WHERE c.position > $1 AND c.position < $2 AND c.namespace <> 'system' AND c.op <> 'event'
    UNION ALL
    SELECT c.position FROM changes AS c
    WHERE c.position > $1 AND c.position < $2 AND c.namespace <> 'system' AND c.op <> 'put');

-- name: size
-- How many lines there are, and the bytes of the log with its indexes.
SELECT count(*), pg_total_relation_size('changes') FROM changes;
