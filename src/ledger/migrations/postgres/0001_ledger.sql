-- The ledger. Times are microseconds since 1970 (UTC) and flags are 0 or 1, all as BIGINT, so that one text of SQL
-- serves SQLite and PostgreSQL. Names are compared by their bytes, hence COLLATE "C".

-- The database's clock: leases and schedules use no other.
CREATE VIEW clock AS SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now_us;

-- One row a delivery: (source, the provider's id, the bytes). The same id with other bytes is another row.
CREATE TABLE deliveries (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source      TEXT COLLATE "C" NOT NULL,
    provider    TEXT COLLATE "C" NOT NULL,
    delivery    TEXT COLLATE "C" NOT NULL,
    digest      BYTEA NOT NULL,
    event       TEXT COLLATE "C" NOT NULL,
    encoding    TEXT COLLATE "C" NOT NULL,
    body        BYTEA,
    secret      TEXT COLLATE "C" NOT NULL,
    received_at BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL,
    -- How many accepted messages brought it; replays aren't accepted anew.
    copies      BIGINT NOT NULL,
    replays     BIGINT NOT NULL,
    -- The same bytes came before under another id.
    repeated    BIGINT NOT NULL,
    -- The same id came before with other bytes.
    conflicting BIGINT NOT NULL,
    outcome     TEXT COLLATE "C" NOT NULL,
    reason      TEXT COLLATE "C",
    UNIQUE (source, delivery, digest)
);
CREATE INDEX deliveries_by_digest ON deliveries (source, digest);
CREATE INDEX deliveries_by_outcome ON deliveries (outcome, id);

-- What the outcome of a delivery was before: append-only.
CREATE TABLE outcomes (
    id       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery BIGINT NOT NULL REFERENCES deliveries (id),
    at       BIGINT NOT NULL,
    outcome  TEXT COLLATE "C" NOT NULL,
    reason   TEXT COLLATE "C"
);
CREATE INDEX outcomes_by_delivery ON outcomes (delivery, id);

CREATE TABLE accounts (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider   TEXT COLLATE "C" NOT NULL,
    host       TEXT COLLATE "C" NOT NULL,
    stable     TEXT COLLATE "C" NOT NULL,
    node_id    TEXT COLLATE "C",
    login      TEXT COLLATE "C",
    email      TEXT COLLATE "C",
    kind       TEXT COLLATE "C" NOT NULL,
    -- The event time of the labels above: older news don't overwrite newer.
    labels_at  BIGINT NOT NULL,
    UNIQUE (provider, host, stable)
);

-- Every login that an account was ever seen with, in lower case: a login is no proof once two accounts have held it.
CREATE TABLE logins (
    provider TEXT COLLATE "C" NOT NULL,
    host     TEXT COLLATE "C" NOT NULL,
    login    TEXT COLLATE "C" NOT NULL,
    account  BIGINT NOT NULL REFERENCES accounts (id),
    seen_at  BIGINT NOT NULL,
    PRIMARY KEY (provider, host, login, account)
);

CREATE TABLE scopes (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider  TEXT COLLATE "C" NOT NULL,
    host      TEXT COLLATE "C" NOT NULL,
    kind      TEXT COLLATE "C" NOT NULL,
    stable    TEXT COLLATE "C" NOT NULL,
    name      TEXT COLLATE "C",
    named_at  BIGINT NOT NULL,
    root      BIGINT REFERENCES scopes (id),
    UNIQUE (provider, host, kind, stable)
);

-- The roots of a connection that some event has spoken of.
CREATE TABLE roots (
    connection TEXT COLLATE "C" NOT NULL,
    scope      BIGINT NOT NULL REFERENCES scopes (id),
    PRIMARY KEY (connection, scope)
);

-- What deliveries told: an append-only set. `account` is null for what befell a scope as a whole.
CREATE TABLE changes (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    row         BIGINT NOT NULL REFERENCES deliveries (id),
    ordinal     BIGINT NOT NULL,
    account     BIGINT REFERENCES accounts (id),
    scope       BIGINT REFERENCES scopes (id),
    connection  TEXT COLLATE "C",
    kind        TEXT COLLATE "C" NOT NULL,
    event_time  BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    loss        BIGINT NOT NULL,
    source      TEXT COLLATE "C" NOT NULL,
    delivery    TEXT COLLATE "C" NOT NULL,
    UNIQUE (row, ordinal)
);
CREATE INDEX changes_by_account ON changes (account, scope);
CREATE INDEX changes_by_scope ON changes (scope, account);

-- One row an (account, scope): the latest of its changes, in the order of `access::ChangeKey`, joins and leaves before
-- sightings (a sighting never beats a recorded loss).
CREATE TABLE grants (
    account BIGINT NOT NULL REFERENCES accounts (id),
    scope   BIGINT NOT NULL REFERENCES scopes (id),
    change  BIGINT NOT NULL REFERENCES changes (id),
    PRIMARY KEY (account, scope)
);
CREATE INDEX grants_by_scope ON grants (scope);

-- When a scope was lost or moved as a whole: the latest of its changes, by kind.
CREATE TABLE marks (
    scope  BIGINT NOT NULL REFERENCES scopes (id),
    kind   TEXT COLLATE "C" NOT NULL,
    change BIGINT NOT NULL REFERENCES changes (id),
    PRIMARY KEY (scope, kind)
);

-- The work: one row an (account, connection). `due_at` is the one schedule of retrying, waiting and looking again.
CREATE TABLE statuses (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account       BIGINT NOT NULL REFERENCES accounts (id),
    connection    TEXT COLLATE "C" NOT NULL,
    -- Bumped by every transaction that changes what the account's status should be.
    version       BIGINT NOT NULL,
    state         TEXT COLLATE "C" NOT NULL,
    reason        TEXT COLLATE "C",
    due_at        BIGINT,
    -- When the oldest change that isn't settled yet was received.
    owed_since    BIGINT,
    attempts      BIGINT NOT NULL,
    -- Whether the newest change that is owed takes access away: those go first.
    losing        BIGINT NOT NULL,
    desired       TEXT COLLATE "C",
    actual        TEXT COLLATE "C" NOT NULL,
    identity      BIGINT,
    -- What was sent and not answered, and when.
    intent        TEXT COLLATE "C",
    intent_at     BIGINT,
    lease_owner   TEXT COLLATE "C",
    lease_until   BIGINT,
    UNIQUE (account, connection)
);
CREATE INDEX statuses_due ON statuses (due_at);
CREATE INDEX statuses_by_state ON statuses (state);

-- What each delivery did to each account.
CREATE TABLE effects (
    row     BIGINT NOT NULL REFERENCES deliveries (id),
    account BIGINT NOT NULL REFERENCES accounts (id),
    scope   BIGINT REFERENCES scopes (id),
    status  BIGINT REFERENCES statuses (id),
    kind    TEXT COLLATE "C" NOT NULL,
    effect  TEXT COLLATE "C" NOT NULL,
    reason  TEXT COLLATE "C",
    PRIMARY KEY (row, account)
);
CREATE INDEX effects_by_status ON effects (status, effect);
CREATE INDEX effects_by_account ON effects (account, scope);

-- Every call that was to change a status, and every look-up that failed.
CREATE TABLE attempts (
    id          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status      BIGINT NOT NULL REFERENCES statuses (id),
    at          BIGINT NOT NULL,
    operation   TEXT COLLATE "C" NOT NULL,
    wanted      TEXT COLLATE "C",
    answer      BIGINT,
    result      TEXT COLLATE "C" NOT NULL,
    duration_us BIGINT NOT NULL,
    message     TEXT COLLATE "C"
);
CREATE INDEX attempts_by_status ON attempts (status, id);

-- Which form the platform's identity ids have, by connection, once an exact match has shown it.
CREATE TABLE identity_forms (
    connection TEXT COLLATE "C" PRIMARY KEY,
    form       TEXT COLLATE "C" NOT NULL
);

-- Which account a row of the people map that names a login is bound to: the first one seen with it.
CREATE TABLE bindings (
    login   TEXT COLLATE "C" PRIMARY KEY,
    account BIGINT NOT NULL REFERENCES accounts (id)
);

-- Sources that went blind or came back.
CREATE TABLE source_states (
    source     TEXT COLLATE "C" PRIMARY KEY,
    blind      BIGINT NOT NULL,
    why        TEXT COLLATE "C",
    event_time BIGINT NOT NULL
);

-- The balance: the highest sequence seen of each run and source, and what is missing below it.
CREATE TABLE stamps (
    run    TEXT COLLATE "C" NOT NULL,
    source TEXT COLLATE "C" NOT NULL,
    high   BIGINT NOT NULL,
    voids  BIGINT NOT NULL,
    PRIMARY KEY (run, source)
);
CREATE TABLE gaps (
    run      TEXT COLLATE "C" NOT NULL,
    source   TEXT COLLATE "C" NOT NULL,
    first    BIGINT NOT NULL,
    last     BIGINT NOT NULL,
    since    BIGINT NOT NULL,
    PRIMARY KEY (run, source, first)
);

-- Messages that were begun and not finished: how often, so that one that kills its worker is parked.
CREATE TABLE begun (
    source   TEXT COLLATE "C" NOT NULL,
    delivery TEXT COLLATE "C" NOT NULL,
    digest   BYTEA NOT NULL,
    tries    BIGINT NOT NULL,
    PRIMARY KEY (source, delivery, digest)
);

-- Messages that aren't ours or can't be read: kept for whoever looks, never tried again.
CREATE TABLE unreadable (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    message TEXT COLLATE "C",
    why     TEXT COLLATE "C" NOT NULL,
    body    BYTEA NOT NULL
);
