-- What protects a target (propagation/lanes/lane.py, Guard, as JSON), the order of a lane's rows, and what people tell a lane.

ALTER TABLE lanes ADD COLUMN guard TEXT NOT NULL DEFAULT '{}';
ALTER TABLE lanes ADD COLUMN ordering TEXT NOT NULL DEFAULT 'per-key'
    CHECK (ordering IN ('none', 'per-key', 'strict'));

UPDATE lanes SET guard = '{"hold":"gone"}' WHERE held <> '';

-- What somebody wants of a lane, until its owner has done it. The lane may not have been made yet.
CREATE TABLE lane_commands (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    lane_id     TEXT NOT NULL,
    action      TEXT NOT NULL,
    actor       TEXT NOT NULL,
    at          TEXT NOT NULL,
    until       TEXT,
    delivery_id TEXT NOT NULL,
    reason      TEXT NOT NULL
) STRICT;

CREATE TRIGGER lanes_commands_end AFTER DELETE ON lanes BEGIN
    DELETE FROM lane_commands WHERE lane_id = OLD.lane_id;
END;

-- Which rows may be tried depends on the lane's order from here on. `head`: per-key, the earliest live row of its record
-- in its lane; strict, the earliest live row of its lane; none, every live row.
DROP TRIGGER deliveries_head_insert;
DROP TRIGGER deliveries_head_revive;
DROP TRIGGER deliveries_head_end;
DROP TRIGGER deliveries_head_delete;

-- A row that comes to life before all others of its record takes the head from the one that had it.
CREATE TRIGGER deliveries_head_insert AFTER INSERT ON deliveries WHEN NEW.live AND NEW.id = (
    SELECT id FROM deliveries
    WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
    ORDER BY revision, seq, delivery_id LIMIT 1
) AND (SELECT ordering FROM lanes WHERE lane_id = NEW.lane_id) = 'per-key' BEGIN
    UPDATE deliveries SET head = 0 WHERE head = 1 AND id = (
        SELECT id FROM deliveries
        WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1 OFFSET 1
    );
    UPDATE deliveries SET head = 1 WHERE id = NEW.id;
END;

CREATE TRIGGER deliveries_head_revive AFTER UPDATE OF state ON deliveries WHEN NEW.live > OLD.live AND NEW.id = (
    SELECT id FROM deliveries
    WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
    ORDER BY revision, seq, delivery_id LIMIT 1
) AND (SELECT ordering FROM lanes WHERE lane_id = NEW.lane_id) = 'per-key' BEGIN
    UPDATE deliveries SET head = 0 WHERE head = 1 AND id = (
        SELECT id FROM deliveries
        WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1 OFFSET 1
    );
    UPDATE deliveries SET head = 1 WHERE id = NEW.id;
END;

-- A head that ends hands over to the next of its record.
CREATE TRIGGER deliveries_head_end AFTER UPDATE OF state ON deliveries WHEN NEW.live < OLD.live AND OLD.head = 1 BEGIN
    UPDATE deliveries SET head = 0 WHERE id = NEW.id;
    UPDATE deliveries SET head = 1 WHERE id = (
        SELECT id FROM deliveries
        WHERE name = NEW.name AND kind = NEW.kind AND namespace = NEW.namespace AND lane_id = NEW.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1
    ) AND (SELECT ordering FROM lanes WHERE lane_id = NEW.lane_id) = 'per-key';
END;

CREATE TRIGGER deliveries_head_delete AFTER DELETE ON deliveries WHEN OLD.head = 1 BEGIN
    UPDATE deliveries SET head = 1 WHERE id = (
        SELECT id FROM deliveries
        WHERE name = OLD.name AND kind = OLD.kind AND namespace = OLD.namespace AND lane_id = OLD.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1
    ) AND (SELECT ordering FROM lanes WHERE lane_id = OLD.lane_id) = 'per-key';
END;

-- No order: whatever lives may be tried.
CREATE TRIGGER deliveries_free_insert AFTER INSERT ON deliveries WHEN NEW.live
AND (SELECT ordering FROM lanes WHERE lane_id = NEW.lane_id) = 'none' BEGIN
    UPDATE deliveries SET head = 1 WHERE id = NEW.id;
END;

CREATE TRIGGER deliveries_free_revive AFTER UPDATE OF state ON deliveries WHEN NEW.live > OLD.live
AND (SELECT ordering FROM lanes WHERE lane_id = NEW.lane_id) = 'none' BEGIN
    UPDATE deliveries SET head = 1 WHERE id = NEW.id;
END;

-- Strict order: the earliest of the lane, and no other.
CREATE TRIGGER deliveries_strict_insert AFTER INSERT ON deliveries WHEN NEW.live
AND (SELECT ordering FROM lanes WHERE lane_id = NEW.lane_id) = 'strict' AND NEW.id = (
    SELECT id FROM deliveries WHERE lane_id = NEW.lane_id AND live = 1 ORDER BY revision, seq, delivery_id LIMIT 1
) BEGIN
    UPDATE deliveries SET head = 0 WHERE head = 1 AND id = (
        SELECT id FROM deliveries WHERE lane_id = NEW.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1 OFFSET 1
    );
    UPDATE deliveries SET head = 1 WHERE id = NEW.id;
END;

CREATE TRIGGER deliveries_strict_revive AFTER UPDATE OF state ON deliveries WHEN NEW.live > OLD.live
AND (SELECT ordering FROM lanes WHERE lane_id = NEW.lane_id) = 'strict' AND NEW.id = (
    SELECT id FROM deliveries WHERE lane_id = NEW.lane_id AND live = 1 ORDER BY revision, seq, delivery_id LIMIT 1
) BEGIN
    UPDATE deliveries SET head = 0 WHERE head = 1 AND id = (
        SELECT id FROM deliveries WHERE lane_id = NEW.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1 OFFSET 1
    );
    UPDATE deliveries SET head = 1 WHERE id = NEW.id;
END;

CREATE TRIGGER deliveries_strict_end AFTER UPDATE OF state ON deliveries WHEN NEW.live < OLD.live AND OLD.head = 1
AND (SELECT ordering FROM lanes WHERE lane_id = NEW.lane_id) = 'strict' BEGIN
    UPDATE deliveries SET head = 1 WHERE id = (
        SELECT id FROM deliveries WHERE lane_id = NEW.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1
    );
END;

CREATE TRIGGER deliveries_strict_delete AFTER DELETE ON deliveries WHEN OLD.head = 1
AND (SELECT ordering FROM lanes WHERE lane_id = OLD.lane_id) = 'strict' BEGIN
    UPDATE deliveries SET head = 1 WHERE id = (
        SELECT id FROM deliveries WHERE lane_id = OLD.lane_id AND live = 1
        ORDER BY revision, seq, delivery_id LIMIT 1
    );
END;

-- Another order: who is a head is found anew.
CREATE TRIGGER lanes_reordered AFTER UPDATE OF ordering ON lanes WHEN NEW.ordering <> OLD.ordering BEGIN
    UPDATE deliveries SET head = live WHERE lane_id = NEW.lane_id AND NEW.ordering = 'none';
    UPDATE deliveries SET head = (live = 1 AND id = (
        SELECT e.id FROM deliveries AS e
        WHERE e.name = deliveries.name AND e.kind = deliveries.kind AND e.namespace = deliveries.namespace
          AND e.lane_id = NEW.lane_id AND e.live = 1
        ORDER BY e.revision, e.seq, e.delivery_id LIMIT 1
    )) WHERE lane_id = NEW.lane_id AND NEW.ordering = 'per-key';
    UPDATE deliveries SET head = (live = 1 AND id = (
        SELECT e.id FROM deliveries AS e WHERE e.lane_id = NEW.lane_id AND e.live = 1
        ORDER BY e.revision, e.seq, e.delivery_id LIMIT 1
    )) WHERE lane_id = NEW.lane_id AND NEW.ordering = 'strict';
END;
