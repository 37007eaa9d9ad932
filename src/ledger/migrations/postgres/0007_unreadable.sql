-- A message that can't be read is one row however often it comes: foreign publishers repeat themselves, and a broker
-- hands out again what wasn't acked. The digest is over its id, the reason and its bytes.
ALTER TABLE unreadable ADD COLUMN digest BYTEA;
ALTER TABLE unreadable ADD COLUMN copies BIGINT NOT NULL DEFAULT 1;
ALTER TABLE unreadable ADD COLUMN seen_at BIGINT;
CREATE UNIQUE INDEX unreadable_by_digest ON unreadable (digest);
