-- Whose accounts are, as operators say it: that wins over people.csv. The name is `provider@host:#id`, or
-- `provider@host:login` in lower case for an account that nobody knew; such a row is bound to the first account seen
-- with that login.
CREATE TABLE people (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    account  BIGINT REFERENCES accounts (id),
    -- `user:518` or an e-mail address; null for nobody.
    person   TEXT,
    operator TEXT NOT NULL,
    said_at  BIGINT NOT NULL
);
CREATE INDEX people_by_account ON people (account);

-- Where it is known from whose the account is, as of the last look.
ALTER TABLE statuses ADD COLUMN person_from TEXT;
-- Since when it waits; kept when it is parked because that took too long.
ALTER TABLE statuses ADD COLUMN waiting_since BIGINT;
UPDATE statuses SET waiting_since = (SELECT now_us FROM clock) WHERE state = 'waiting';
-- Since when it is known that somebody has set `actual` at the platform, where `desired` had been applied.
ALTER TABLE statuses ADD COLUMN drifted_at BIGINT;
CREATE INDEX statuses_drifted ON statuses (drifted_at) WHERE drifted_at IS NOT NULL;
CREATE INDEX statuses_by_connection ON statuses (connection, id);
