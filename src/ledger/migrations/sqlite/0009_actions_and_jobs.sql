-- What operators did: append-only.
CREATE TABLE actions (
    id       INTEGER PRIMARY KEY,
    at       BIGINT NOT NULL,
    operator TEXT NOT NULL,
    action   TEXT NOT NULL,
    account  BIGINT REFERENCES accounts (id),
    delivery BIGINT REFERENCES deliveries (id),
    detail   TEXT
);
CREATE INDEX actions_by_account ON actions (account, id);
CREATE INDEX actions_by_delivery ON actions (delivery, id);

-- What is done on a schedule, by one worker at a time: when next, and whose it is until when.
CREATE TABLE jobs (
    name     TEXT PRIMARY KEY,
    due_at   BIGINT NOT NULL,
    owner    TEXT,
    until    BIGINT,
    began_at BIGINT,
    ended_at BIGINT,
    result   TEXT
);
