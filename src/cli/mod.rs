//! The command line.

pub mod accounts;
pub mod deliveries;
pub mod explain;
pub mod named;
pub mod providers;
pub mod table;
mod words;

#[cfg(test)]
mod tests;
