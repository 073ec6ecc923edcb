-- name: head
-- The newest line: its revision and the chain hash there.
SELECT revision, hash FROM changes ORDER BY position DESC LIMIT 1;

-- name: hash_at
-- The chain hash at a revision.
SELECT hash FROM changes WHERE position = :revision << 20;

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

-- name: line
-- One line.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE position = ?;

-- name: history
-- The newest lines about one record, newest first.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE kind = ? AND namespace = ? AND name = ? ORDER BY revision DESC LIMIT ?;

-- name: lines_of_kind
-- All lines about the records of one kind in one namespace, oldest first.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE kind = ? AND namespace = ? ORDER BY position;
