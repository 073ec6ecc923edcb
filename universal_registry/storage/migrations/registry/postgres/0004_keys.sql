-- The keys that values were sealed with. `wrapped`: the key, sealed with the one before it, until that is retired: so
-- the other daemons of this database get it.
CREATE TABLE sealing_keys (
    kid         text COLLATE "C" PRIMARY KEY,
    fingerprint text COLLATE "C" NOT NULL,
    state       text COLLATE "C" NOT NULL,
    created_at  text COLLATE "C" NOT NULL,
    retired_at  text COLLATE "C",
    wrapped     text COLLATE "C"
);

-- The rotation under way, if there is one.
CREATE TABLE key_rotation (
    one      integer PRIMARY KEY CHECK (one = 1),
    kid      text COLLATE "C" NOT NULL,
    began_at text COLLATE "C" NOT NULL,
    worker   text COLLATE "C" NOT NULL,
    at       text COLLATE "C" NOT NULL,
    place    text COLLATE "C" NOT NULL,
    reached  text COLLATE "C" NOT NULL,
    resealed bigint NOT NULL,
    changed  bigint NOT NULL
);

-- A daemon that was asleep for long may still seal with a key that has been retired meanwhile: nobody could open that.
CREATE FUNCTION refuse_retired_keys() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    gone text;
BEGIN
    SELECT k.kid INTO gone FROM registry.sealing_keys AS k, lines AS l
    WHERE k.state = 'retired'
      AND strpos(l.body, CASE l.op WHEN 'event' THEN '"payload":"' ELSE '"$sealed":"' END || k.kid || ':') > 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'sealed with key %, which was retired meanwhile: try again', gone;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER changes_guard_keys AFTER INSERT ON changes REFERENCING NEW TABLE AS lines
FOR EACH STATEMENT EXECUTE FUNCTION refuse_retired_keys();
