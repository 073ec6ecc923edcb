-- The answers to requests that bore an Idempotency-Key, for a day. Written in the transaction of what they did.
-- `answer` is sealed: that to a new target shows its signing secret.
CREATE TABLE idempotency (
    actor       text COLLATE "C" NOT NULL,
    key         text COLLATE "C" NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    revision    bigint NOT NULL,
    at          text COLLATE "C" NOT NULL,
    answer      text COLLATE "C" NOT NULL,
    PRIMARY KEY (actor, key)
);

CREATE INDEX idempotency_by_time ON idempotency (at);
