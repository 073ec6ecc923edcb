-- name: tokens
-- All of them.
SELECT name, hash, scopes, created_at, created_by, expires_at FROM tokens ORDER BY name;

-- name: add
-- A new one.
INSERT INTO tokens (name, hash, scopes, created_at, created_by, expires_at) VALUES ($1, $2, $3, $4, $5, $6);

-- name: remove
-- Revoke one.
DELETE FROM tokens WHERE name = $1 RETURNING name;
