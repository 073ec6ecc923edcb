-- name: head
-- The end of the log.
SELECT revision, hash, incarnation FROM head;

-- name: lock_head
-- The end of the log, which nobody else moves until this transaction ends.
SELECT revision, hash, incarnation, synced FROM head FOR UPDATE;

-- name: first_head
-- The head of a new store: its incarnation. One that has a head keeps it.
INSERT INTO head (revision, hash, incarnation) SELECT 0, $1, $2 WHERE NOT EXISTS (SELECT 1 FROM head);

-- name: hash_at
-- The chain hash at a revision.
SELECT hash FROM changes WHERE position = $1::bigint << 20;

-- name: horizon
-- How far back the log is whole.
SELECT values_upto, lines_upto, hash, living FROM log_horizon;

-- name: first_horizon
-- The log of a new store is whole. A store that has a horizon keeps it.
INSERT INTO log_horizon SELECT true, 0, 0, decode(repeat('00', 32), 'hex'), 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM log_horizon);

-- name: meta
-- What identifies the store.
SELECT key, value FROM meta UNION ALL SELECT 'incarnation', incarnation FROM head;

-- name: set_meta
-- Record facts about the store.
INSERT INTO meta (key, value) SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: claim_meta
-- Record facts about the store that nobody has recorded yet.
INSERT INTO meta (key, value) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT (key) DO NOTHING;

-- name: lines
-- Lines between two positions, in order; without a limit when it is NULL.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE position > $1 AND position < $2 ORDER BY position LIMIT $3;

-- name: passages
-- Lines between two positions, in order, each with the body of the line before about the same record, if it changed a
-- record that was there; without a limit when it is NULL.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body,
       CASE WHEN op = 'put' AND prev_commitment IS NOT NULL THEN
           (SELECT b.body FROM changes AS b
            WHERE b.kind = c.kind AND b.namespace = c.namespace AND b.name = c.name AND b.position < c.position
                  AND b.op <> 'event'
            ORDER BY b.position DESC LIMIT 1)
       END
FROM changes AS c WHERE position > $1 AND position < $2 ORDER BY position LIMIT $3;

-- name: line
-- One line.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE position = $1;

-- name: newest_places
-- Where the lines behind a place stand, newest first.
SELECT revision, seq FROM changes WHERE position > $1 ORDER BY position DESC LIMIT $2;

-- name: history
-- The newest lines about one record, newest first.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE kind = $1 AND namespace = $2 AND name = $3 AND position < $4 ORDER BY position DESC LIMIT $5;

-- name: history_of_state
-- The newest lines that changed one record, newest first: without the events it sent.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE kind = $1 AND namespace = $2 AND name = $3 AND position < $4 AND op <> 'event'
ORDER BY position DESC LIMIT $5;

-- name: lines_of_kind
-- All lines about the records of one kind in one namespace, oldest first.
SELECT revision, seq, op, kind, namespace, name, uid, generation, commitment, prev_commitment, changed_fields, actor,
       txn_id, message, at, hash, body
FROM changes WHERE kind = $1 AND namespace = $2 ORDER BY position;

-- name: kept
-- What was answered to requests of actors that bore keys.
SELECT i.key, i.actor, i.fingerprint, i.revision, i.at, i.answer
FROM unnest($1::text[], $2::text[]) AS n (actor, key) JOIN idempotency AS i ON i.actor = n.actor AND i.key = n.key;

-- name: keep
-- Keep answers, each in place of an older one.
INSERT INTO idempotency (key, actor, fingerprint, revision, at, answer)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[])
ON CONFLICT (actor, key) DO UPDATE SET fingerprint = excluded.fingerprint, revision = excluded.revision,
                                       at = excluded.at, answer = excluded.answer;

-- name: forget
-- Drop some of the answers that are out of date, the oldest first.
DELETE FROM idempotency WHERE (actor, key) IN (SELECT actor, key FROM idempotency WHERE at < $1 ORDER BY at LIMIT $2);

-- name: columns
-- The columns of all tables of the store.
SELECT c.table_name::text, c.column_name::text FROM information_schema.columns AS c WHERE c.table_schema = 'registry';

-- name: commit
-- A whole batch.
SELECT ureg_commit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                   $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42,
                   $43, $44, $45);
