-- The answers to requests that bore an Idempotency-Key, for a day. Written in the transaction of what they did.
-- `answer` is sealed: that to a new target shows its signing secret.
CREATE TABLE idempotency (
    actor       TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    revision    INTEGER NOT NULL,
    at          TEXT NOT NULL,
    answer      TEXT NOT NULL,
    PRIMARY KEY (actor, key)
);

CREATE INDEX idempotency_by_time ON idempotency (at);
