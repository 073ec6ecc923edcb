-- name: keys
-- The keys of the store.
SELECT kid, fingerprint, state, created_at, retired_at, wrapped FROM sealing_keys;

-- name: rotation
-- The rotation under way.
SELECT kid, began_at, worker, at, place, reached, resealed, changed FROM key_rotation;

-- name: save_key
-- Record what a key is.
INSERT INTO sealing_keys (kid, fingerprint, state, created_at, retired_at, wrapped) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (kid) DO UPDATE SET state = excluded.state, retired_at = excluded.retired_at, wrapped = excluded.wrapped;

-- name: drop_wrapped
-- Forget the keys that were wrapped with this one.
UPDATE sealing_keys SET wrapped = NULL WHERE left(wrapped, 9) = $1::text || ':';

-- name: begin_rotation
-- Record a rotation, unless there is one.
INSERT INTO key_rotation (one, kid, began_at, worker, at, place, reached, resealed, changed)
VALUES (1, $1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (one) DO NOTHING RETURNING kid;

-- name: save_rotation
-- Record how far a rotation is, unless another daemon has taken it over.
UPDATE key_rotation SET at = $4, place = $5, reached = $6, resealed = $7, changed = $8, began_at = $2
WHERE kid = $1 AND worker = $3 RETURNING kid;

-- name: claim
-- Work at the rotation from now on, if it is one's own or was left alone.
UPDATE key_rotation SET worker = $1, at = $2 WHERE worker = $1 OR at < $3 OR at > $4 RETURNING kid;

-- name: end_rotation
-- No rotation is under way.
DELETE FROM key_rotation;

-- name: last_of_lines
-- The last position of so many lines after one.
SELECT max(position), count(*) FROM (SELECT position FROM changes WHERE position > $1 ORDER BY position LIMIT $2) AS l;

-- name: lines
-- Lines that hold something sealed, between two positions.
SELECT position, op, body FROM changes
WHERE position > $1 AND position <= $2
  AND strpos(body, CASE op WHEN 'event' THEN '"payload":"' ELSE '"$sealed":"' END) > 0;

-- name: save_line
-- The body of a line with other seals.
UPDATE changes SET body = $1 WHERE position = $2 AND body = $3;

-- name: answers
-- Kept answers after one of them.
SELECT actor, key, answer FROM idempotency WHERE (actor, key) > ($1, $2) ORDER BY actor, key LIMIT $3;

-- name: save_answer
-- An answer with another seal.
UPDATE idempotency SET answer = $1 WHERE actor = $2 AND key = $3 AND answer = $4;

-- name: facts
-- All facts about the store.
SELECT key, value FROM meta;

-- name: save_fact
-- A fact with another seal.
UPDATE meta SET value = $1 WHERE key = $2 AND value = $3;

-- name: set_fact
-- A fact.
INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: uses_in_lines
-- How many lines hold a value sealed with this key.
SELECT count(*) FROM changes
WHERE strpos(body, CASE op WHEN 'event' THEN '"payload":"' ELSE '"$sealed":"' END || $1::text || ':') > 0;

-- name: uses_in_answers
-- How many answers are sealed with this key.
SELECT count(*) FROM idempotency WHERE left(answer, 9) = $1::text || ':';

-- name: uses_in_facts
-- How many facts are sealed with this key.
SELECT count(*) FROM meta WHERE left(value, 9) = $1::text || ':';

-- name: lock_head
-- No line is added until this transaction ends.
SELECT revision FROM head FOR UPDATE;

-- name: write
-- Allow writes in this transaction.
SELECT set_config('ureg.write', 'on', true);
