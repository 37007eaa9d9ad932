//! The one integration binary: real services, and the contracts between rollcall's parts.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod approve;
mod broker;
mod check;
mod docs;
#[expect(dead_code, reason = "the chaos harness uses what these tests do not")]
mod harness;
mod people;
mod recover;
mod replay;
mod serve;
mod sweep;
mod topology;
