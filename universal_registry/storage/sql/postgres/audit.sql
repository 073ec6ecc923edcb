-- name: turn
-- One transaction at a time appends to the trail of a store.
SELECT pg_advisory_xact_lock(1970431327, hashtext($1));

-- name: head
-- The newest row.
SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1;

-- name: known
-- Which of the ids are there.
SELECT id FROM audit WHERE id = ANY ($1::text[]);

-- name: append
-- Rows at the end.
INSERT INTO audit (number, id, at, actor, action, subject, details, hash)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[]);

-- name: after
-- Rows after a number, in order.
SELECT number, id, at, actor, action, subject, details, hash FROM audit WHERE number > $1 ORDER BY number LIMIT $2;

-- name: one
-- The row of a number.
SELECT number, id, at, actor, action, subject, details, hash FROM audit WHERE number = $1;

-- name: newest
-- The newest rows that fit, newest first. $3: a whole action, or the part before its dot.
SELECT number, id, at, actor, action, subject, details, hash FROM audit
WHERE at >= $1 AND ($2::text IS NULL OR actor = $2) AND ($3::text IS NULL OR action = $3 OR starts_with(action, $3 || '.'))
ORDER BY number DESC LIMIT $4;

-- name: newest_lines
-- The newest lines of the change log that fit, newest first, as far as an audit shows them.
SELECT revision, seq, op, kind, namespace, name, actor, message, at FROM changes
WHERE at >= $1 AND ($2::text IS NULL OR actor = $2) AND ($3::text IS NULL OR $3 IN ('record', 'record.' || op))
ORDER BY position DESC LIMIT $4;
