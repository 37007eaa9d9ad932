-- What the role that serves may do in the ledger, and no more: it changes no table. Run as the tables' owner, after
-- `rollcall migrate`, and again after each migration that adds a table:
--
--   psql -v role=rollcall_service -v schema=public -f deploy/postgres/role.sql "$OWNER_URL"
--
-- The role must exist (CREATE ROLE rollcall_service LOGIN PASSWORD …), and what serves with it has ledger.migrate = false.

GRANT USAGE ON SCHEMA :"schema" TO :"role";
GRANT SELECT ON ALL TABLES IN SCHEMA :"schema" TO :"role";
GRANT INSERT ON ALL TABLES IN SCHEMA :"schema" TO :"role";
GRANT UPDATE ON ALL TABLES IN SCHEMA :"schema" TO :"role";
-- What is history is only added to.
REVOKE UPDATE ON :"schema".outcomes, :"schema".attempts, :"schema".unreadable, :"schema".actions, :"schema".receipts,
    :"schema".seals FROM :"role";
REVOKE INSERT, UPDATE ON :"schema"._sqlx_migrations, :"schema".clock FROM :"role";
-- How often a message came that can't be read, when it last did, and the replay that published it again.
GRANT UPDATE (copies, seen_at, replay) ON :"schema".unreadable TO :"role";
-- What passes may be forgotten.
GRANT DELETE ON :"schema".gaps, :"schema".begun, :"schema".halts, :"schema".workers, :"schema".refusals,
    :"schema".people, :"schema".unsealed, :"schema".undelivered, :"schema".roster_readings,
    :"schema".roster_differences TO :"role";
