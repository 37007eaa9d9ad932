-- Each look at what the provider says of one hook's deliveries: which period it covers, and how far it has come.
CREATE TABLE recoveries (
    id          TEXT COLLATE "C" PRIMARY KEY,
    source      TEXT COLLATE "C" NOT NULL,
    hook        TEXT COLLATE "C" NOT NULL,
    started_at  BIGINT NOT NULL,
    started_by  TEXT COLLATE "C" NOT NULL,
    begin_at    BIGINT NOT NULL,
    end_at      BIGINT NOT NULL,
    -- The end of what was looked at before, if the provider no longer tells of what came right after it.
    lapsed_from BIGINT,
    -- Where in the provider's list it goes on.
    cursor      TEXT COLLATE "C",
    -- How many attempts were read, and how many of the latest ones failed in a row.
    attempts    BIGINT NOT NULL,
    failing     BIGINT NOT NULL,
    -- Why the provider's list may not be the whole truth.
    doubt       TEXT COLLATE "C",
    -- When the whole period had been read; null if it hasn't.
    listed_at   BIGINT
);
CREATE INDEX recoveries_by_hook ON recoveries (source, hook, begin_at);
CREATE INDEX recoveries_lapsed ON recoveries (started_at) WHERE lapsed_from IS NOT NULL;

-- What matters and wasn't delivered when it should have been, and what became of it: open (to be asked for, or asked for),
-- arrived, lost (beyond recovery), or delivered (by the provider's own word; only while a look goes on).
CREATE TABLE undelivered (
    source     TEXT COLLATE "C" NOT NULL,
    delivery   TEXT COLLATE "C" NOT NULL,
    hook       TEXT COLLATE "C" NOT NULL,
    event      TEXT COLLATE "C" NOT NULL,
    -- When it failed first, as far as the provider tells, and how the latest attempt went.
    failed_at  BIGINT,
    attempt    TEXT COLLATE "C" NOT NULL,
    attempt_at BIGINT NOT NULL,
    status     TEXT COLLATE "C" NOT NULL,
    noticed_at BIGINT NOT NULL,
    state      TEXT COLLATE "C" NOT NULL,
    asks       BIGINT NOT NULL,
    asked_at   BIGINT,
    -- Whether it is expected to come, since the provider was asked and didn't refuse.
    expected   BIGINT NOT NULL,
    settled_at BIGINT,
    reason     TEXT COLLATE "C",
    PRIMARY KEY (source, delivery)
);
CREATE INDEX undelivered_by_state ON undelivered (source, state, hook);
