-- name: identity
-- Who this registry is to its peers.
SELECT body FROM sync_identity;

-- name: put_identity
-- Be this from now on.
INSERT INTO sync_identity (one, body) SELECT 1, b FROM unnest($1::text[]) AS b
ON CONFLICT (one) DO UPDATE SET body = excluded.body;

-- name: switch_on
-- All daemons keep versions from their next transaction on.
SELECT ureg_keep_versions();

-- name: peers
-- What is kept of all peers.
SELECT node, body FROM sync_peers ORDER BY node;

-- name: put_peer
-- Keep this of a peer.
INSERT INTO sync_peers (node, body) SELECT * FROM unnest($1::text[], $2::text[])
ON CONFLICT (node) DO UPDATE SET body = excluded.body;

-- name: drop_peer
-- Forget a peer.
DELETE FROM sync_peers WHERE node = ANY ($1::text[]);

-- name: record
-- The states of some records.
SELECT r.kind, r.namespace, r.name, r.position, r.state, r.held
FROM unnest($1::text[], $2::text[], $3::text[]) AS k (kind, namespace, name) CROSS JOIN LATERAL (
    SELECT * FROM sync_records AS s WHERE s.kind = k.kind AND s.namespace = k.namespace AND s.name = k.name LIMIT 1) AS r;

-- name: put_record
-- The states of some records are these now.
INSERT INTO sync_records (kind, namespace, name, position, digest, tombs, reviews, held, state)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[], $7::bigint[],
                     $8::text[], $9::text[])
ON CONFLICT (kind, namespace, name) DO UPDATE SET
    position = excluded.position, digest = excluded.digest, tombs = excluded.tombs, reviews = excluded.reviews,
    held = excluded.held, state = excluded.state;

-- name: drop_record
-- Nothing is known of some records any more.
DELETE FROM sync_records AS r USING unnest($1::text[], $2::text[], $3::text[]) AS k (kind, namespace, name)
WHERE r.kind = k.kind AND r.namespace = k.namespace AND r.name = k.name;

-- name: feed
-- What changed behind a position, in order.
SELECT kind, namespace, name, position, state, held FROM sync_records WHERE position > $1 ORDER BY position LIMIT $2;

-- name: digests
-- The digests of what changed behind a position, in order.
SELECT kind, namespace, name, position, digest FROM sync_records WHERE position > $1 ORDER BY position LIMIT $2;

-- name: with_tombs
-- Records with tombstones behind a position, in order.
SELECT kind, namespace, name, position, state, held FROM sync_records
WHERE tombs > 0 AND position > $1 ORDER BY position LIMIT $2;

-- name: to_review
-- Records that somebody should look at, in order, behind one of them.
SELECT kind, namespace, name, position, state, held FROM sync_records
WHERE (reviews > 0 OR held <> '') AND (kind, namespace, name) > ($1, $2, $3) ORDER BY kind, namespace, name LIMIT $4;

-- name: keys_to_review
-- Which those are, in order.
SELECT kind, namespace, name FROM sync_records WHERE reviews > 0 OR held <> '' ORDER BY kind, namespace, name LIMIT $1;
