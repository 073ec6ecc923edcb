-- name: keys
-- The keys of the store.
SELECT kid, fingerprint, state, created_at, retired_at, wrapped FROM sealing_keys;

-- name: rotation
-- The rotation under way.
SELECT kid, began_at, worker, at, place, reached, resealed, changed FROM key_rotation;

-- name: save_key
-- Record what a key is.
INSERT INTO sealing_keys (kid, fingerprint, state, created_at, retired_at, wrapped) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (kid) DO UPDATE SET state = excluded.state, retired_at = excluded.retired_at, wrapped = excluded.wrapped;

-- name: drop_wrapped
-- Forget the keys that were wrapped with this one.
UPDATE sealing_keys SET wrapped = NULL WHERE substr(wrapped, 1, 9) = ? || ':';

-- name: save_rotation
-- Record how far a rotation is.
INSERT OR REPLACE INTO key_rotation (one, kid, began_at, worker, at, place, reached, resealed, changed)
VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: end_rotation
-- No rotation is under way.
DELETE FROM key_rotation;

-- name: last_of_lines
-- The last position of so many lines after one.
SELECT MAX(position), COUNT(*) FROM (SELECT position FROM changes WHERE position > ? ORDER BY position LIMIT ?);

-- name: lines
-- Lines that hold something sealed, between two positions.
SELECT position, op, body FROM changes
WHERE position > ? AND position <= ? AND instr(body, CASE op WHEN 'event' THEN '"payload":"' ELSE '"$sealed":"' END);

-- name: save_line
-- The body of a line with other seals.
UPDATE changes SET body = ? WHERE position = ? AND body = ?;

-- name: answers
-- Kept answers after one of them.
SELECT actor, key, answer FROM idempotency WHERE (actor, key) > (?, ?) ORDER BY actor, key LIMIT ?;

-- name: save_answer
-- An answer with another seal.
UPDATE idempotency SET answer = ? WHERE actor = ? AND key = ? AND answer = ?;

-- name: facts
-- All facts about the store.
SELECT key, value FROM meta;

-- name: save_fact
-- A fact with another seal.
UPDATE meta SET value = ? WHERE key = ? AND value = ?;

-- name: set_fact
-- A fact.
INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: uses_in_lines
-- How many lines after a position hold a value sealed with this key.
SELECT COUNT(*) FROM changes
WHERE position > ?1
  AND instr(body, CASE op WHEN 'event' THEN '"payload":"' ELSE '"$sealed":"' END || ?2 || ':');

-- name: uses_in_answers
-- How many answers are sealed with this key.
SELECT COUNT(*) FROM idempotency WHERE substr(answer, 1, 9) = ? || ':';

-- name: uses_in_facts
-- How many facts are sealed with this key.
SELECT COUNT(*) FROM meta WHERE substr(value, 1, 9) = ? || ':';

-- name: end_of_log
-- The newest position.
SELECT COALESCE(MAX(position), 0) FROM changes;

-- name: open_guard
-- Allow writes until the guard is closed in the same transaction.
INSERT INTO write_guard (open) VALUES (1);

-- name: close_guard
-- Refuse writes again.
DELETE FROM write_guard;
