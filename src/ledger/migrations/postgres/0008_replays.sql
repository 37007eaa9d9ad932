-- Listings choose deliveries by these columns without reading a row, whose body may be long.
DROP INDEX deliveries_by_outcome;
CREATE INDEX deliveries_by_outcome ON deliveries (outcome, id, received_at, source, provider, event);
CREATE INDEX deliveries_by_source ON deliveries (source, id);
CREATE INDEX deliveries_by_receipt ON deliveries (received_at, id);
CREATE INDEX deliveries_without_body ON deliveries (id) WHERE body IS NULL;
CREATE INDEX deliveries_by_name ON deliveries (delivery);
CREATE INDEX logins_by_login ON logins (login, account);

-- Runs that published deliveries again.
CREATE TABLE replays (
    id          TEXT COLLATE "C" PRIMARY KEY,
    started_at  BIGINT NOT NULL,
    started_by  TEXT COLLATE "C" NOT NULL,
    -- What was chosen, for people, and how to go on with it, for the program.
    choice      TEXT COLLATE "C" NOT NULL,
    job         TEXT COLLATE "C" NOT NULL,
    total       BIGINT NOT NULL,
    -- Everything up to here is done: a row of `deliveries`, or a line of a file.
    cursor      BIGINT NOT NULL,
    published   BIGINT NOT NULL,
    failed      BIGINT NOT NULL,
    seen_at     BIGINT NOT NULL,
    finished_at BIGINT
);

-- What each of them chose, what the outcome was then, and when it was recorded again.
CREATE TABLE replay_deliveries (
    replay      TEXT COLLATE "C" NOT NULL,
    delivery    BIGINT NOT NULL REFERENCES deliveries (id),
    before      TEXT COLLATE "C",
    recorded_at BIGINT,
    PRIMARY KEY (replay, delivery)
);
CREATE INDEX replay_deliveries_by_delivery ON replay_deliveries (delivery);

-- How many accepted deliveries each secret of a source has verified, by the secret's name.
CREATE TABLE secrets (
    source     TEXT COLLATE "C" NOT NULL,
    secret     TEXT COLLATE "C" NOT NULL,
    deliveries BIGINT NOT NULL,
    first_at   BIGINT NOT NULL,
    last_at    BIGINT NOT NULL,
    PRIMARY KEY (source, secret)
);
INSERT INTO secrets (source, secret, deliveries, first_at, last_at)
    SELECT source, secret, CAST(SUM(copies) AS BIGINT), MIN(received_at), MAX(received_at) FROM deliveries
    WHERE copies > 0 GROUP BY source, secret;

-- What each ingress has refused so far, by source, reason and sender, which is a fingerprint.
CREATE TABLE refusals (
    run     TEXT COLLATE "C" NOT NULL,
    source  TEXT COLLATE "C" NOT NULL,
    reason  TEXT COLLATE "C" NOT NULL,
    sender  TEXT COLLATE "C" NOT NULL,
    count   BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    PRIMARY KEY (run, source, reason, sender)
);
CREATE INDEX refusals_by_time ON refusals (last_at);
