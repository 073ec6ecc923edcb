-- Named readers of the log. Everything up to `cursor` is acknowledged; `incarnation` and `revision` are parts of it.
-- `selector`: JSON.
CREATE TABLE registry.consumers (
    name        text COLLATE "C" PRIMARY KEY,
    selector    text COLLATE "C" NOT NULL,
    cursor      text COLLATE "C" NOT NULL,
    incarnation text COLLATE "C" NOT NULL,
    revision    bigint NOT NULL,
    created_at  text COLLATE "C" NOT NULL,
    created_by  text COLLATE "C" NOT NULL,
    acked_at    text COLLATE "C"
);
