//! The one integration binary: real services, and the contracts between rollcall's parts.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod broker;
mod check;
mod docs;
mod harness;
mod replay;
mod serve;
mod topology;
