-- name: identity
-- Who this registry is to its peers.
SELECT body FROM sync_identity;

-- name: put_identity
-- Be this from now on.
INSERT INTO sync_identity (one, body) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET body = excluded.body;

-- name: switch_on
-- Nothing: a file has one owner, who looks at the identity in each transaction.
SELECT 1;

-- name: peers
-- What is kept of all peers.
SELECT node, body FROM sync_peers ORDER BY node;

-- name: put_peer
-- Keep this of a peer.
INSERT INTO sync_peers (node, body) VALUES (?, ?) ON CONFLICT (node) DO UPDATE SET body = excluded.body;

-- name: drop_peer
-- Forget a peer.
DELETE FROM sync_peers WHERE node = ?;

-- name: record
-- The state of one record.
SELECT kind, namespace, name, position, state, held FROM sync_records WHERE kind = ? AND namespace = ? AND name = ?;

-- name: put_record
-- The state of one record is this now.
INSERT INTO sync_records (kind, namespace, name, position, digest, tombs, reviews, held, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (kind, namespace, name) DO UPDATE SET
    position = excluded.position, digest = excluded.digest, tombs = excluded.tombs, reviews = excluded.reviews,
    held = excluded.held, state = excluded.state;

-- name: drop_record
-- Nothing is known of a record any more.
DELETE FROM sync_records WHERE kind = ? AND namespace = ? AND name = ?;

-- name: feed
-- What changed behind a position, in order.
SELECT kind, namespace, name, position, state, held FROM sync_records WHERE position > ? ORDER BY position LIMIT ?;

-- name: digests
-- The digests of what changed behind a position, in order.
SELECT kind, namespace, name, position, digest FROM sync_records WHERE position > ? ORDER BY position LIMIT ?;

-- name: with_tombs
-- Records with tombstones behind a position, in order.
SELECT kind, namespace, name, position, state, held FROM sync_records
WHERE tombs > 0 AND position > ? ORDER BY position LIMIT ?;

-- name: to_review
-- Records that somebody should look at, in order, behind one of them.
SELECT kind, namespace, name, position, state, held FROM sync_records
WHERE (reviews > 0 OR held <> '') AND (kind, namespace, name) > (?, ?, ?) ORDER BY kind, namespace, name LIMIT ?;

-- name: keys_to_review
-- Which those are, in order.
SELECT kind, namespace, name FROM sync_records WHERE reviews > 0 OR held <> '' ORDER BY kind, namespace, name LIMIT ?;
