-- A change's place among those of the same grant (`access::Turn`), where the provider knows more of that than a time. So
-- far it was its event time. Within one statement each, so that a large ledger is written once.
ALTER TABLE changes ADD COLUMN began BIGINT NOT NULL DEFAULT 0;
ALTER TABLE changes ADD COLUMN step BIGINT NOT NULL DEFAULT 0;
UPDATE changes SET began = event_time;
