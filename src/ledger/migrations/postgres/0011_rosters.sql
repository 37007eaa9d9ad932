-- The last reading of each root's roster, whether it came to its end or broke off.
CREATE TABLE roster_readings (
    source    TEXT COLLATE "C" NOT NULL,
    -- As the configuration names it, or by its id where it names none.
    root      TEXT COLLATE "C" NOT NULL,
    -- When the last whole reading began, and how many accounts it found.
    read_at   BIGINT,
    members   BIGINT,
    -- Since when no reading has come to its end, and why.
    failed_at BIGINT,
    failure   TEXT COLLATE "C",
    PRIMARY KEY (source, root)
);

-- What a roster contradicts the ledger in, as of the last whole reading. It counts when a later reading shows it again and
-- nothing was recorded of that account and scope in between.
CREATE TABLE roster_differences (
    source   TEXT COLLATE "C" NOT NULL,
    root     TEXT COLLATE "C" NOT NULL,
    scope    TEXT COLLATE "C" NOT NULL,
    account  TEXT COLLATE "C" NOT NULL,
    access   TEXT COLLATE "C" NOT NULL,
    -- The end of the reading that showed it first, and the latest change of that account and scope by then; 0 for none.
    first_at BIGINT NOT NULL,
    basis    BIGINT NOT NULL,
    PRIMARY KEY (source, root, scope, account)
);
