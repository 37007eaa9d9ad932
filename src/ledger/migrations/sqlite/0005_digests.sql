-- Covers the question whether the same bytes came before under another id. SQLite answered it from the unique index, all of
-- a source's deliveries one after the other.
DROP INDEX deliveries_by_digest;
CREATE INDEX deliveries_by_digest ON deliveries (source, digest, delivery);
