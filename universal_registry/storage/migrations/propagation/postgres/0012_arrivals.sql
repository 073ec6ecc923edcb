-- When a one-shot session has arrived at a target, and by which delivery; NULL: it has not, or before this was kept.
ALTER TABLE propagation.session_targets
    ADD COLUMN delivery   TEXT COLLATE "C",
    ADD COLUMN began_at   TEXT COLLATE "C",
    ADD COLUMN arrived_at TEXT COLLATE "C";
