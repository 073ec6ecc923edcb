-- name: follow_restored
-- After a restore the log is one that was rolled back. Each lane goes on from its place in it, with the rows that it had.
-- What its target got since the backup nobody knows here: so the current state is sent again first.
UPDATE lanes SET
    incarnation = :now,
    backfill_route = CASE WHEN position_revision > 0 THEN coalesce(backfill_route, '') ELSE backfill_route END,
    backfill_upto = CASE WHEN position_revision > 0 THEN coalesce(backfill_upto, position_revision) ELSE backfill_upto END,
    backfill_at = CASE WHEN position_revision > 0 THEN 0 ELSE backfill_at END
WHERE incarnation = :before;
