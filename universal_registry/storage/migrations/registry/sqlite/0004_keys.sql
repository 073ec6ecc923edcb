-- The keys that values were sealed with. `wrapped`: the key, sealed with the one before it, until that is retired.
CREATE TABLE sealing_keys (
    kid         TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL,
    state       TEXT NOT NULL,
    created_at  TEXT NOT NULL,
    retired_at  TEXT,
    wrapped     TEXT
) WITHOUT ROWID;

-- The rotation under way, if there is one.
CREATE TABLE key_rotation (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    kid      TEXT NOT NULL,
    began_at TEXT NOT NULL,
    worker   TEXT NOT NULL,
    at       TEXT NOT NULL,
    place    TEXT NOT NULL,
    reached  TEXT NOT NULL,
    resealed INTEGER NOT NULL,
    changed  INTEGER NOT NULL
);
