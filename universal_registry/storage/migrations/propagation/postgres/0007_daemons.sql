-- The daemons that are at work here. A lane is held by its owner as long as that one stands here, so that renewing is one
-- row, whatever the number of lanes. (lanes.lease_until, of each lane before, is no longer read.)
CREATE TABLE propagation.daemons (
    owner       TEXT COLLATE "C" PRIMARY KEY,
    lease_until TEXT COLLATE "C" NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100);
CREATE INDEX lanes_by_owner ON propagation.lanes (owner);

-- Renew the lease of `me` until `until`, give up the lanes `leaving`, and take lanes that nobody holds at `now_at`, up to
-- a fair share. Answers how many lanes `me` should have at most (`share`), and whether it has others than the `holding`
-- that it knows of (`changed`). A lease that ends at `now_at` gives up all lanes. One that ends after `latest` was written
-- before the clock went back, and is none.
--
-- Everybody may have up to n lanes / d daemons, rounded up. Lanes that one below that, rounded down, will come for are
-- left to it, and as long as there are not enough of them the others have at most so many too. Who has not been heard of
-- since its lease was last `recent` may be dead: nothing is left to it.
--
-- Claims wait for each other. One that its owner writes at this moment is held. What a dead owner left SENDING is tried
-- again, or dead at its `crash_limit`th crash.
DROP FUNCTION propagation.claim(TEXT, TEXT, TEXT, BIGINT, BIGINT);
CREATE FUNCTION propagation.claim(
    me TEXT, now_at TEXT, until TEXT, recent TEXT, latest TEXT, leaving TEXT[], holding BIGINT, crash_limit BIGINT,
    retries BIGINT, OUT share BIGINT, OUT changed BOOLEAN)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    renewed BOOLEAN;
    lanes BIGINT;
    daemons BIGINT;
    mine BIGINT;
    free BIGINT;
    wanted BIGINT;
    taken TEXT[];
    lost BIGINT;
BEGIN
    LOCK TABLE propagation.daemons IN SHARE ROW EXCLUSIVE MODE;
    UPDATE propagation.daemons AS d SET lease_until = until WHERE d.owner = me;
    renewed := FOUND;
    IF NOT renewed THEN
        INSERT INTO propagation.daemons (owner, lease_until) VALUES (me, until);
    END IF;
    DELETE FROM propagation.daemons AS d WHERE d.lease_until <= now_at OR d.lease_until > latest;
    UPDATE propagation.lanes AS l SET owner = '' WHERE l.lane_id = ANY (leaving) AND l.owner = me;

    SELECT count(*) INTO lanes FROM propagation.lanes;
    SELECT greatest(count(*), 1) INTO daemons FROM propagation.daemons;
    SELECT coalesce(sum(h.has) FILTER (WHERE h.owner = me), 0), lanes - coalesce(sum(h.has), 0),
           coalesce(sum(greatest(lanes / daemons - h.has, 0)) FILTER (WHERE h.owner <> me AND h.lease_until >= recent), 0)
    INTO mine, free, wanted
    FROM (SELECT d.*, (SELECT count(*) FROM propagation.lanes AS l WHERE l.owner = d.owner) AS has
          FROM propagation.daemons AS d) AS h;
    share := (lanes + daemons - 1) / daemons;
    taken := ARRAY(
        SELECT l.lane_id FROM propagation.lanes AS l
        WHERE until > now_at AND NOT EXISTS (SELECT FROM propagation.daemons AS d WHERE d.owner = l.owner)
        ORDER BY l.lane_id
        LIMIT greatest(least(share - mine, free - wanted), lanes / daemons - mine, 0) FOR UPDATE SKIP LOCKED);
    IF wanted > free - cardinality(taken) THEN
        share := lanes / daemons;
    END IF;
    changed := NOT renewed OR mine + cardinality(taken) <> holding;

    UPDATE propagation.lanes AS l SET owner = me, generation = l.generation + 1 WHERE l.lane_id = ANY (taken);
    WITH ended AS (
        UPDATE propagation.deliveries AS d SET
            state = CASE WHEN d.crashes + 1 >= crash_limit THEN 'dead' ELSE 'pending' END,
            crashes = d.crashes + 1,
            next_at = NULL,
            reason = CASE WHEN d.crashes + 1 >= crash_limit THEN 'quarantined: the daemon ended ' || (d.crashes + 1)
                          || ' times while it was sending this' ELSE 'the daemon ended while it was sending this' END,
            updated_at = now_at
        WHERE d.state = 'sending' AND d.lane_id = ANY (taken) RETURNING d.state
    )
    SELECT count(*) FILTER (WHERE state = 'dead') INTO lost FROM ended;
    IF lost > 0 THEN
        UPDATE propagation.counters SET value = value + lost WHERE name = 'failed';
    END IF;
    INSERT INTO propagation.meta AS m (key, value) VALUES ('max_retries', retries::text)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE m.value <> excluded.value;
    DELETE FROM propagation.writers AS w WHERE w.at < clock_timestamp() - INTERVAL '7 days';
END $$;
