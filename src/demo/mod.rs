//! The demo.

pub mod story;
