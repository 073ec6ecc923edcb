-- name: add
-- One row. What is pending already is there once.
INSERT INTO propagation.studio_syncs (studio, entry, component, direction, way, revision, status, reason, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT DO NOTHING;

-- name: forget
-- All but the newest.
DELETE FROM propagation.studio_syncs
WHERE id <= (SELECT id FROM propagation.studio_syncs ORDER BY id DESC LIMIT 1 OFFSET $1);

-- name: acknowledged
-- What the studio was told up to a revision.
UPDATE propagation.studio_syncs SET status = 'executed', updated_at = $1
WHERE studio = $2 AND revision <= $3 AND status = 'pending';

-- name: exchanged
-- The newest first; an empty entry or studio stands for all.
SELECT studio, entry, component, direction, way, revision, status, reason, created_at, updated_at
FROM propagation.studio_syncs
WHERE ($1::text = '' OR entry = $1) AND ($2::text = '' OR studio = $2)
ORDER BY id DESC LIMIT $3;
