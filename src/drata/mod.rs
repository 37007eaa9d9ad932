//! Drata's public API: the only place that knows Drata's words.
//!
//! [`Client`] turns the vocabulary of [`crate::target`] into requests, and answers back into it; what happens after a
//! failure is not its business. It knows neither ledger nor provider, and it decides nothing about accounts.
//!
//! What it promises:
//! * One call of [`Client::set_status`] sends at most one request: attempts are the caller's, and are never hidden here.
//! * Any 2xx is a success, whatever its body: trying again because an answer can't be read would go on for ever.
//! * No body, e-mail address or key is ever logged or put into an error; a failure carries Drata's own short message.
//! * All clones share one rate limit, and the pause that a 429 asks for.
//!
//! The API: <https://developers.drata.com/openapi/reference/v1/overview/>. It is loosely specified (sample and declared
//! type disagree here and there), so answers are read leniently: only the fields used, numbers also as text, and a
//! row of a list that can't be read is skipped and counted.

mod answer;
mod call;
mod client;
mod connections;
mod events;
mod identities;
mod memory;
mod pace;
mod pages;
mod people;
mod transport;
mod wire;

#[cfg(test)]
mod tests;

pub use self::client::{Client, Settings};
pub use self::events::LinkEvent;
pub use self::identities::Filter;
pub use self::people::Person;
pub use self::transport::BuildError;
