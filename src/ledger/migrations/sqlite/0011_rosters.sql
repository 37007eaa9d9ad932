-- The last reading of each root's roster, whether it came to its end or broke off.
CREATE TABLE roster_readings (
    source    TEXT NOT NULL,
    -- As the configuration names it, or by its id where it names none.
    root      TEXT NOT NULL,
    -- When the last whole reading began, and how many accounts it found.
    read_at   BIGINT,
    members   BIGINT,
    -- Since when no reading has come to its end, and why.
    failed_at BIGINT,
    failure   TEXT,
    PRIMARY KEY (source, root)
);

-- What a roster contradicts the ledger in, as of the last whole reading. It counts when a later reading shows it again and
-- nothing was recorded of that account and scope in between.
CREATE TABLE roster_differences (
    source   TEXT NOT NULL,
    root     TEXT NOT NULL,
    scope    TEXT NOT NULL,
    account  TEXT NOT NULL,
    access   TEXT NOT NULL,
    -- The end of the reading that showed it first, and the latest change of that account and scope by then; 0 for none.
    first_at BIGINT NOT NULL,
    basis    BIGINT NOT NULL,
    PRIMARY KEY (source, root, scope, account)
);
