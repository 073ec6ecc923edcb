-- name: consumers
-- All of them.
SELECT name, selector, cursor, created_at, created_by, acked_at FROM consumers ORDER BY name;

-- name: consumer
-- One.
SELECT name, selector, cursor, created_at, created_by, acked_at FROM consumers WHERE name = ?;

-- name: keep
-- A new one, or what it is now.
INSERT INTO consumers (name, selector, cursor, incarnation, revision, created_at, created_by, acked_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET selector = excluded.selector, cursor = excluded.cursor,
                                 incarnation = excluded.incarnation, revision = excluded.revision;

-- name: acknowledge
-- Move its cursor forward, or into another history. The row comes back also when it stays where it is.
UPDATE consumers SET
    cursor = CASE WHEN incarnation <> :incarnation OR revision <= :revision THEN :cursor ELSE cursor END,
    acked_at = CASE WHEN incarnation <> :incarnation OR revision <= :revision THEN :at ELSE acked_at END,
    revision = CASE WHEN incarnation <> :incarnation OR revision <= :revision THEN :revision ELSE revision END,
    incarnation = :incarnation
WHERE name = :name RETURNING name;

-- name: remove
-- Forget one.
DELETE FROM consumers WHERE name = ? RETURNING name;
