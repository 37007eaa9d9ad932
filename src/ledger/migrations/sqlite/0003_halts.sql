-- While calls to a platform stand still: one row for all workers, and the lease of the one that probes.
CREATE TABLE halts (
    target      TEXT PRIMARY KEY,
    kind        TEXT NOT NULL,
    -- What was refused: a success of another operation proves nothing.
    operation   TEXT NOT NULL,
    reason      TEXT NOT NULL,
    since       BIGINT NOT NULL,
    probes      BIGINT NOT NULL,
    -- How long the wait before the next probe is, and until when it lasts.
    wait_us     BIGINT NOT NULL,
    probe_at    BIGINT NOT NULL,
    prober      TEXT,
    probe_until BIGINT
);

-- In how many halts that others' success ended an account was refused, and since when the latest of them.
ALTER TABLE statuses ADD COLUMN refusals BIGINT NOT NULL DEFAULT 0;
ALTER TABLE statuses ADD COLUMN refused_in BIGINT;
