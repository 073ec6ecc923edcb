-- When a one-shot session has arrived at a target, and by which delivery; NULL: it has not, or before this was kept.
ALTER TABLE session_targets ADD COLUMN delivery TEXT;
ALTER TABLE session_targets ADD COLUMN began_at TEXT;
ALTER TABLE session_targets ADD COLUMN arrived_at TEXT;
