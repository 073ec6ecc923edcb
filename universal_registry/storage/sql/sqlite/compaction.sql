-- name: horizon
-- How far back the log is whole.
SELECT values_upto, lines_upto, hash, living FROM log_horizon;

-- name: progress
-- How far back it is whole, and up to which positions what may go is gone.
SELECT values_upto, lines_upto, dropped_to, removed_to FROM log_horizon;

-- name: declare
-- Move the horizon.
UPDATE log_horizon SET values_upto = ?, lines_upto = ?, hash = ?, living = ?;

-- name: dropped_to
-- Values are gone up to there.
UPDATE log_horizon SET dropped_to = ?;

-- name: removed_to
-- Lines are gone up to there.
UPDATE log_horizon SET removed_to = ?;

-- name: open_guard
-- Allow writes until the guard is closed in the same transaction.
INSERT INTO write_guard (open) VALUES (1);

-- name: close_guard
-- Refuse writes again.
DELETE FROM write_guard;

-- name: born
-- How many records more there are after some lines than before them.
SELECT coalesce(sum((op = 'put' AND prev_commitment IS NULL) - (op = 'delete')), 0)
FROM changes WHERE position > ? AND position < ?;

-- name: last
-- The last of so many positions between two, and how many there are.
SELECT max(position), count(*)
FROM (SELECT position FROM changes WHERE position > ? AND position < ? ORDER BY position LIMIT ?);

-- name: drop_values
-- Of the records that lines between two positions are about: the values that these lines made out of date. And events.
UPDATE changes SET body = NULL
WHERE body IS NOT NULL AND position IN (
    SELECT CASE WHEN c.op = 'event' THEN c.position ELSE (
        SELECT b.position FROM changes AS b
        WHERE b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.revision <= c.revision
              AND b.position < c.position AND b.op <> 'event'
        ORDER BY b.revision DESC, b.position DESC LIMIT 1) END
    FROM changes AS c WHERE c.position > :after AND c.position <= :upto AND c.namespace <> 'system')
RETURNING position;

-- name: remove_lines
-- The same of whole lines; also of deletions, which nobody has to be told of any more.
DELETE FROM changes
WHERE position IN (
    SELECT b.position FROM changes AS c JOIN changes AS b
           ON b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.revision <= c.revision
              AND b.position < c.position AND b.op <> 'event'
    WHERE c.position > :after AND c.position <= :upto AND c.namespace <> 'system' AND c.op <> 'event'
    UNION ALL
    SELECT c.position FROM changes AS c
    WHERE c.position > :after AND c.position <= :upto AND c.namespace <> 'system' AND c.op <> 'put')
RETURNING position;

-- name: values_foreseen
-- How many values the lines between two positions made out of date, and their bytes.
SELECT count(*), coalesce(sum(length(CAST(body AS BLOB))), 0) FROM changes
WHERE body IS NOT NULL AND position IN (
    SELECT CASE WHEN c.op = 'event' THEN c.position ELSE (
        SELECT b.position FROM changes AS b
        WHERE b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.revision <= c.revision
              AND b.position < c.position AND b.op <> 'event'
        ORDER BY b.revision DESC, b.position DESC LIMIT 1) END
    FROM changes AS c WHERE c.position > :after AND c.position < :upto AND c.namespace <> 'system');

-- name: lines_foreseen
-- How many lines those between two positions made out of date: each that a later one there follows, of an older line the
-- newest of its record; deletions and events.
SELECT count(*) FROM changes
WHERE position IN (
    SELECT (SELECT b.position FROM changes AS b
            WHERE b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.revision <= c.revision
                  AND b.position < c.position AND b.op <> 'event'
            ORDER BY b.revision DESC, b.position DESC LIMIT 1)
    FROM changes AS c WHERE c.position > :after AND c.position < :upto AND c.namespace <> 'system' AND c.op <> 'event'
    UNION ALL
    SELECT c.position FROM changes AS c
    WHERE c.position > :after AND c.position < :upto AND c.namespace <> 'system' AND c.op <> 'put');

-- name: lines
-- How many lines there are.
SELECT count(*) FROM changes;
