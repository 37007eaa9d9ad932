//! Rollcall keeps a compliance platform's record of who has version-control access in step with the Git providers.
//!
//! A provider's signed webhook comes in over HTTP; the delivery goes through a broker; a worker works out what it means
//! and records it; from there the work belongs to the *account*, which is brought to its latest desired status at Drata.
//!
//! ```text
//! provider ──▶ ingress ──▶ broker ──▶ worker ──▶ ledger ──▶ reconcile ──▶ Drata
//! ```
//!
//! # Where everything is
//!
//! Data goes down this list, and nothing imports from further down than it must.
//!
//! | module | what it owns |
//! |---|---|
//! | [`delivery`], [`access`], [`target`] | the vocabulary: deliveries and times; accounts, scopes, changes and the two rules about them; the platform's words. Uses nothing of ours. |
//! | [`provider`] | the registry: how each provider signs, what its events mean. Pure. **A new provider is one folder and one line there.** |
//! | [`broker`] | the port, RabbitMQ and the embedded queue: at least once, durable before the answer |
//! | [`ledger`] | deliveries, changes, grants, due accounts, attempts, the balance |
//! | [`drata`] | the client: the only place that knows Drata's words |
//! | [`sandbox`] | Drata's stand-in; imports nothing from [`drata`], so that a shared mistake can't hide |
//! | [`people`] | which person an account belongs to |
//! | [`reconcile`] | one account to its desired status: lease, intent, look-up, call; retries and halts |
//! | [`sweep`] | all accounts compared with the platform at once: what waits, what has drifted |
//! | [`roster`] | who really has access, as the providers' own APIs list it; what differs enters the ledger |
//! | [`worker`] | one delivery → its changes, committed, acked |
//! | [`ingress`] | the HTTP edge and the admin listener |
//! | [`evidence`] | the report for auditors |
//! | [`replay`] | deliveries published again, from the ledger or an export |
//! | [`recover`] | what a provider failed to deliver: found in its own list, asked for again, waited for |
//! | [`spreadsheet`] | cells of CSV files that no spreadsheet takes for a formula |
//! | [`files`] | what rollcall writes on this machine: private, and never behind a symbolic link |
//! | [`config`], [`telemetry`] | settings, validated whole; logs, which never stop whoever writes them, and metrics |
//! | [`app`], [`shutdown`], [`jobs`], [`outbound`], [`api`], [`backoff`] | settings → ports → tasks; how every task is started, ends, and is missed if it ends otherwise; what is done on a schedule, and how that stands; how requests of ours go out, to providers' APIs too, and when again |
//! | [`cli`], [`demo`] | one file a command; the stories |
//!
//! # What always holds
//!
//! 1. No 2xx before the delivery is durable, and every accepted delivery gets an outcome in the ledger.
//! 2. When all is quiet, every account's status is what the *set* of its changes implies, however they were duplicated,
//!    reordered, redelivered or interrupted. Changes are an append-only set, a grant is its maximum
//!    ([`access::ChangeKey`]), and what the grants mean is one pure function ([`access::access`]).
//! 3. Nobody begins to send a status older than the newest that the ledger knows: work is settled only under a lease and
//!    at the version that it looked at, and an intent is committed before each call ([`ledger::work`]).
//! 4. Nothing unverified passes the ingress ([`delivery::Verified`] is the only way to a [`delivery::Delivery`]), and no
//!    secret, token or body is in any log, error, metric or header.
//! 5. A message that can't be understood is parked and harms nobody else's; one account's trouble never halts the others.

pub mod access;
pub mod api;
pub mod app;
pub mod backoff;
pub mod broker;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod demo;
pub mod drata;
pub mod evidence;
pub mod files;
pub mod ingress;
pub mod jobs;
pub mod ledger;
pub mod outbound;
pub mod people;
pub mod provider;
pub mod reconcile;
pub mod recover;
pub mod replay;
pub mod roster;
pub mod sandbox;
pub mod shutdown;
pub mod spreadsheet;
pub mod sweep;
pub mod target;
pub mod telemetry;
pub mod worker;
