-- name: head
-- The newest line: its revision and the chain hash there.
SELECT revision, hash FROM changes ORDER BY position DESC LIMIT 1;

-- name: hash_at
-- The chain hash at a revision.
SELECT hash FROM changes WHERE position = :revision << 20;

-- name: horizon
-- How far back the log is whole.
SELECT values_upto, lines_upto, hash, living FROM log_horizon;

-- name: first_horizon
-- The log of a new store is whole. A store that has a horizon keeps it.
INSERT INTO log_horizon SELECT 1, 0, 0, zeroblob(32), 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM log_horizon);

-- name: meta
-- What identifies the store.
SELECT key, value FROM meta;

-- name: set_meta
-- Record one fact about the store.
INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: open_guard
-- Allow writes until the guard is closed in the same transaction.
INSERT INTO write_guard (open) VALUES (1);

-- name: close_guard
-- Refuse writes again.
DELETE FROM write_guard;

-- name: append
-- One line of the log.
INSERT INTO changes (position, revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment,
                     changed_fields, actor, txn_id, message, at, hash, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: lines
-- Lines between two positions, in order.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE position > ? AND position < ? ORDER BY position LIMIT ?;

-- name: passages
-- Lines between two positions, in order, each with the body of the line before about the same record, if it changed a
-- record that was there.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body,
       CASE WHEN op = 'put' AND prev_commitment IS NOT NULL THEN
           (SELECT b.body FROM changes AS b
            WHERE b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.revision <= c.revision
                  AND b.position < c.position AND b.op <> 'event'
            ORDER BY b.revision DESC, b.position DESC LIMIT 1)
       END
FROM changes AS c WHERE position > ? AND position < ? ORDER BY position LIMIT ?;

-- name: line
-- One line.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE position = ?;

-- name: newest_places
-- Where the lines behind a place stand, newest first.
SELECT revision, seq FROM changes WHERE position > ? ORDER BY position DESC LIMIT ?;

-- name: history
-- The newest lines about one record, newest first.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE kind = ? AND namespace = ? AND name = ? AND revision < ?
ORDER BY revision DESC, position DESC LIMIT ?;

-- name: history_of_state
-- The newest lines that changed one record, newest first: without the events it sent.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE kind = ? AND namespace = ? AND name = ? AND revision < ? AND op <> 'event'
ORDER BY revision DESC, position DESC LIMIT ?;

-- name: lines_of_kind
-- All lines about the records of one kind in one namespace, oldest first.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE kind = ? AND namespace = ? ORDER BY position;

-- name: kept
-- What was answered to the request of an actor that bore a key.
SELECT key, actor, fingerprint, revision, at, answer FROM idempotency WHERE actor = ? AND key = ?;

-- name: keep
-- Keep an answer, in place of an older one.
INSERT INTO idempotency (key, actor, fingerprint, revision, at, answer) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (actor, key) DO UPDATE SET fingerprint = excluded.fingerprint, revision = excluded.revision,
                                       at = excluded.at, answer = excluded.answer;

-- name: forget
-- Drop some of the answers that are out of date, the oldest first.
DELETE FROM idempotency WHERE (actor, key) IN (SELECT actor, key FROM idempotency WHERE at < ? ORDER BY at LIMIT ?);
