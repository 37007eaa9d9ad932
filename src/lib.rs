//! Rollcall keeps a compliance platform's record of who has version-control access in step with the Git providers.

pub mod access;
pub mod app;
pub mod broker;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod drata;
pub mod ingress;
pub mod ledger;
pub mod outbound;
pub mod people;
pub mod provider;
pub mod reconcile;
pub mod sandbox;
pub mod shutdown;
pub mod target;
pub mod telemetry;
pub mod worker;
