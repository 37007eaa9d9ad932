//! `rollcall serve` as a user runs it: the built binary in a process of its own, between GitHub and Drata's stand-in.

mod connections;
mod drata;
mod dry_run;
mod ending;
mod files;
mod full_disk;
mod limits;
mod log;
mod meaning;
mod memory;
mod missing;
mod outage;
mod poison;
mod postgresql;
mod providers;
mod refused_writes;
mod roles;
mod several;
mod spool;
mod startup;
mod status;
mod users;
mod waiting;
