-- What of the change log is not kept whole any more (log/horizon.py), in one row. `dropped_to` and `removed_to`: the
-- positions up to which the values and lines that may go are gone.
CREATE TABLE log_horizon (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    values_upto INTEGER NOT NULL,
    lines_upto  INTEGER NOT NULL,
    hash        BLOB NOT NULL,
    living      INTEGER NOT NULL,
    dropped_to  INTEGER NOT NULL,
    removed_to  INTEGER NOT NULL
);
