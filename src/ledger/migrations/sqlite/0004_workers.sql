-- The workers that are at work: they share the platform's rate limit.
CREATE TABLE workers (
    run     TEXT PRIMARY KEY,
    seen_at BIGINT NOT NULL
);
