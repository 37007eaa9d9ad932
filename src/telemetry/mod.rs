//! Logs and metrics: how the process tells people and machines what it does.
//!
//! The parts write through `tracing` and `metrics` and know nothing of where it goes.

pub mod logs;
pub mod metrics;
mod panics;
mod repeat;
pub mod writer;
