-- name: consumers
-- All of them.
SELECT name, selector, cursor, created_at, created_by, acked_at FROM consumers ORDER BY name;

-- name: consumer
-- One.
SELECT name, selector, cursor, created_at, created_by, acked_at FROM consumers WHERE name = $1;

-- name: keep
-- A new one, or what it is now.
INSERT INTO consumers (name, selector, cursor, incarnation, revision, created_at, created_by, acked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (name) DO UPDATE SET selector = excluded.selector, cursor = excluded.cursor,
                                 incarnation = excluded.incarnation, revision = excluded.revision;

-- name: acknowledge
-- Move its cursor forward, or into another history. The row comes back also when it stays where it is.
UPDATE consumers SET
    cursor = CASE WHEN incarnation <> $2 OR revision <= $3 THEN $4 ELSE cursor END,
    acked_at = CASE WHEN incarnation <> $2 OR revision <= $3 THEN $5 ELSE acked_at END,
    revision = CASE WHEN incarnation <> $2 OR revision <= $3 THEN $3 ELSE revision END,
    incarnation = $2
WHERE name = $1 RETURNING name;

-- name: remove
-- Forget one.
DELETE FROM consumers WHERE name = $1 RETURNING name;
