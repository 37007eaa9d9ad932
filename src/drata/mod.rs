//! Drata.
