-- name: columns
-- The columns of all tables of both schemas that are stored, not computed, and their types.
SELECT c.table_schema || '.' || c.table_name, c.column_name, c.data_type
FROM information_schema.columns AS c
JOIN information_schema.tables AS t USING (table_schema, table_name)
WHERE c.table_schema = ANY ($1::text[]) AND t.table_type = 'BASE TABLE' AND c.is_generated = 'NEVER'
ORDER BY c.table_schema, c.table_name, c.ordinal_position;

-- name: identities
-- The columns that number themselves.
SELECT c.table_schema || '.' || c.table_name, c.column_name
FROM information_schema.columns AS c
WHERE c.table_schema = ANY ($1::text[]) AND c.is_identity = 'YES';

-- name: point
-- Where the log ends, what it is called, and the key that it was sealed with.
SELECT h.revision, h.hash, h.incarnation, (SELECT m.value FROM registry.meta AS m WHERE m.key = 'key_fingerprint')
FROM registry.head AS h;

-- name: keys
-- The keys that something may be sealed with.
SELECT kid FROM registry.sealing_keys WHERE state <> 'retired' ORDER BY kid;

-- name: version
-- The newest migration.
SELECT coalesce(max(number), 0) FROM registry.migrations;

-- name: schemas
-- Those of the schemas that are there.
SELECT nspname::text FROM pg_namespace WHERE nspname = ANY ($1::text[]);

-- name: others
-- The other connections of registries to this database.
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'universal-registry %';

-- name: set_head
-- The end of the log, as its lines say.
INSERT INTO registry.head (revision, hash, incarnation, synced)
VALUES ($1, $2, $3, EXISTS (SELECT FROM registry.sync_identity));

-- name: fill_namespaces
-- Every namespace that ever held a record.
INSERT INTO registry.namespaces
SELECT namespace FROM registry.changes UNION SELECT namespace FROM registry.records;

-- name: free_lanes
-- No daemon holds a lane here yet.
UPDATE propagation.lanes SET owner = '', lease_until = NULL;

-- name: follow_restored
-- After a restore the log is one that was rolled back. Each lane goes on from its place in it, with the rows that it had.
-- What its target got since the backup nobody knows here: so the current state is sent again first.
UPDATE propagation.lanes SET
    incarnation = $2,
    backfill_route = CASE WHEN position_revision > 0 THEN coalesce(backfill_route, '') ELSE backfill_route END,
    backfill_upto = CASE WHEN position_revision > 0 THEN coalesce(backfill_upto, position_revision) ELSE backfill_upto END,
    backfill_at = CASE WHEN position_revision > 0 THEN 0 ELSE backfill_at END
WHERE incarnation = $1;
