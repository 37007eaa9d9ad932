-- The workers that are at work: they share the platform's rate limit.
CREATE TABLE workers (
    run     TEXT COLLATE "C" PRIMARY KEY,
    seen_at BIGINT NOT NULL
);
