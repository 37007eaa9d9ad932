-- What isn't done is counted every few seconds, so it has indexes of its own.
CREATE INDEX effects_unapplied ON effects (effect, row) WHERE effect IN ('pending', 'waiting');
CREATE INDEX deliveries_open ON deliveries (source, outcome) WHERE outcome IN ('parked', 'held', 'waiting', 'pending');

-- Up to which number a run has told that each was accepted or is void, and when it was first and last heard of.
ALTER TABLE stamps ADD COLUMN told BIGINT NOT NULL DEFAULT 0;
ALTER TABLE stamps ADD COLUMN since BIGINT NOT NULL DEFAULT 0;
ALTER TABLE stamps ADD COLUMN seen_at BIGINT NOT NULL DEFAULT 0;
-- The delivery with the highest number: its receipt and its id.
ALTER TABLE stamps ADD COLUMN high_at BIGINT;
ALTER TABLE stamps ADD COLUMN high_delivery TEXT;

-- The deliveries around a gap: what is missing was received between them.
ALTER TABLE gaps ADD COLUMN before_at BIGINT;
ALTER TABLE gaps ADD COLUMN before_delivery TEXT;
ALTER TABLE gaps ADD COLUMN after_at BIGINT;
ALTER TABLE gaps ADD COLUMN after_delivery TEXT;
