//! Drata's stand-in.
