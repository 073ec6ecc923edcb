-- What of the change log is not kept whole any more (log/horizon.py), in one row. `dropped_to` and `removed_to`: the
-- positions up to which the values and lines that may go are gone.
CREATE TABLE log_horizon (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    values_upto bigint NOT NULL,
    lines_upto  bigint NOT NULL,
    hash        bytea NOT NULL,
    living      bigint NOT NULL,
    dropped_to  bigint NOT NULL,
    removed_to  bigint NOT NULL
);
