-- name: head
-- The newest row.
SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1;

-- name: known
-- Which of a JSON array of ids are there.
SELECT id FROM audit WHERE id IN (SELECT value FROM json_each(?));

-- name: append
-- A row at the end.
INSERT INTO audit (number, id, at, actor, action, subject, details, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- name: after
-- Rows after a number, in order.
SELECT number, id, at, actor, action, subject, details, hash FROM audit WHERE number > ? ORDER BY number LIMIT ?;

-- name: one
-- The row of a number.
SELECT number, id, at, actor, action, subject, details, hash FROM audit WHERE number = ?;

-- name: newest
-- The newest rows that fit, newest first. `action`: a whole one, or the part before its dot.
SELECT number, id, at, actor, action, subject, details, hash FROM audit
WHERE at >= :since AND (:actor IS NULL OR actor = :actor) AND (:action IS NULL OR action = :action OR substr(action, 1, length(:action) + 1) = :action || '.')
ORDER BY number DESC LIMIT :limit;

-- name: newest_lines
-- The newest lines of the change log that fit, newest first, as far as an audit shows them.
SELECT revision, seq, op, kind, namespace, name, actor, message, at FROM changes
WHERE at >= :since AND (:actor IS NULL OR actor = :actor) AND (:action IS NULL OR :action IN ('record', 'record.' || op))
ORDER BY position DESC LIMIT :limit;
