-- The history is sealed: each seal holds the digests of some rows and the hash of the seal before it, so that nothing
-- before it can be changed, left out or put in without being seen. What is in it is told in `ledger::seal`.
CREATE TABLE seals (
    number   BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL,
    previous TEXT NOT NULL,
    -- One line a row: its table, its id and its digest.
    entries  TEXT NOT NULL,
    -- One line for each of those: what its labels are hashed with; empty if it has none, or it was erased.
    salts    TEXT NOT NULL,
    hash     TEXT NOT NULL
);

-- Which ids of each table aren't sealed: all from some id on, and some below, whose rows may be committed late.
CREATE TABLE unsealed (
    facts TEXT NOT NULL,
    first BIGINT NOT NULL,
    last  BIGINT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (facts, first)
);

-- An earlier copy of a delivery turned up: its receipt from then on, and the place of its changes. Append-only.
CREATE TABLE receipts (
    id          INTEGER PRIMARY KEY,
    delivery    BIGINT NOT NULL REFERENCES deliveries (id),
    at          BIGINT NOT NULL,
    received_at BIGINT NOT NULL,
    event_time  BIGINT NOT NULL,
    began       BIGINT NOT NULL,
    step        BIGINT NOT NULL
);
CREATE INDEX receipts_by_delivery ON receipts (delivery, id);

-- What a receipt or a place was before it was moved for the first time; null if it never was.
ALTER TABLE deliveries ADD COLUMN first_received_at BIGINT;
ALTER TABLE changes ADD COLUMN first_event_time BIGINT;
ALTER TABLE changes ADD COLUMN first_began BIGINT;
ALTER TABLE changes ADD COLUMN first_step BIGINT;
