//! The configuration: one TOML file, over it the environment, under it the embedded defaults. It is read and validated
//! as a whole before any port is bound, and everything that is wrong is told at once.
//!
//! One file per section; each says what it checks. It fills the settings structs of the modules below and knows nothing
//! of what those do. Nothing else in rollcall reads the environment.

mod admin;
mod balance;
mod broker;
mod checks;
mod drata;
mod evidence;
mod ingress;
mod keys;
mod layers;
mod ledger;
mod log;
mod people;
mod problem;
mod recover;
mod retry;
mod roster;
mod secret;
mod source;
mod spool;
mod sweep;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use admin::Admin;
pub use balance::Balance;
pub use broker::Broker;
pub use drata::Drata;
pub use evidence::Evidence;
pub use ingress::Ingress;
pub use keys::{DEFAULTS, KeyDoc, keys};
pub use ledger::Ledger;
pub use people::People;
pub use problem::{ConfigError, Problem};
pub use recover::Recover;
pub use retry::Retry;
pub use roster::Roster;
pub use secret::{SecretRef, UrlRef, shown, suspicions, webhook_suspicions};
pub use source::Source;
pub use spool::Spool;
pub use sweep::Sweep;

use crate::provider::Description;
use crate::telemetry::logs;
use layers::Layers;

/// The file that is read if none is named and it is there.
pub const DEFAULT_FILE: &str = "./rollcall.toml";

/// What the configuration is made from.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    /// The file, if there is one; see [`default_file`].
    pub file: Option<PathBuf>,
    /// The environment; see [`environment`].
    pub env: BTreeMap<String, String>,
    /// The providers that a source may name: [`crate::provider::REGISTRY`].
    pub registry: &'a [&'static Description],
}

/// The whole configuration, valid in itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the embedded stores keep their files.
    pub data_dir: PathBuf,
    /// `[ingress]`
    pub ingress: Ingress,
    /// `[admin]`
    pub admin: Admin,
    /// `[broker]`
    pub broker: Broker,
    /// `[spool]`
    pub spool: Spool,
    /// `[ledger]`
    pub ledger: Ledger,
    /// `[drata]`
    pub drata: Drata,
    /// `[retry]`
    pub retry: Retry,
    /// `[sweep]`
    pub sweep: Sweep,
    /// `[balance]`
    pub balance: Balance,
    /// `[recover]`
    pub recover: Recover,
    /// `[roster]`
    pub roster: Roster,
    /// `[evidence]`
    pub evidence: Evidence,
    /// `[people]`
    pub people: People,
    /// `[log]`
    pub log: logs::Settings,
    /// The `[[source]]` tables, in the order of the file.
    pub sources: Vec<Source>,
    origin: String,
}

impl Settings {
    /// The folder of the spool.
    #[must_use]
    pub fn spool_folder(&self) -> PathBuf {
        self.data_dir.join("spool")
    }

    /// Whether an ingress has a spool: with RabbitMQ, if it is switched on, or if nothing is said and all roles are one
    /// process, which has a disk of its own anyway. The embedded broker is on that disk itself.
    #[must_use]
    pub fn has_spool(&self, all_roles: bool) -> bool {
        self.broker.url.is_some() && self.spool.enabled.unwrap_or(all_roles)
    }

    /// Refuses a configuration without sources, for the commands that need one.
    ///
    /// # Errors
    /// If there is none.
    pub fn require_sources(&self) -> Result<(), ConfigError> {
        if self.sources.is_empty() {
            let fix = "there is no [[source]]; add one for each webhook (`rollcall providers` lists the kinds)";
            return Err(Problem::new(&self.origin, keys::SOURCE, fix).into());
        }
        Ok(())
    }

    /// Says what is wrong with a key that is only needed sometimes.
    #[must_use]
    pub fn wrong(&self, key: &str, message: &str) -> ConfigError {
        Problem::new(&self.origin, key, message).into()
    }

    /// Says for which key a secret can't be read: a reference knows only where the secret should be.
    #[must_use]
    pub fn needed_for(&self, key: &str, error: ConfigError) -> ConfigError {
        let told =
            |problem: Problem| Problem::new(&self.origin, key, format!("{}: {}", problem.origin, problem.message));
        ConfigError { problems: error.problems.into_iter().map(told).collect() }
    }
}

/// [`DEFAULT_FILE`], if it is there.
#[must_use]
pub fn default_file() -> Option<PathBuf> {
    Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file())
}

/// The process's environment. Variables that aren't Unicode are left out.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads and validates the configuration.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(sources: Sources<'_>) -> Result<Settings, ConfigError> {
    let mut layers = Layers::new(sources.file.as_deref().map(Path::new), &sources.env);
    let settings = read(&mut layers, sources.registry);
    if let Some(settings) = &settings {
        checks::cross_check(settings, &mut layers);
    }
    match settings {
        Some(settings) if layers.problems.is_empty() => Ok(settings),
        _ => Err(ConfigError { problems: layers.problems }),
    }
}

/// Every section is read before any is missed, so that all problems are found.
fn read(layers: &mut Layers, registry: &[&'static Description]) -> Option<Settings> {
    let data_dir = layers.required("data_dir");
    let ingress = Ingress::read(layers);
    let admin = Admin::read(layers);
    let broker = Broker::read(layers);
    let spool = Spool::read(layers);
    let ledger = Ledger::read(layers);
    let drata = Drata::read(layers);
    let retry = Retry::read(layers);
    let sweep = Sweep::read(layers);
    let balance = Balance::read(layers);
    let recover = Recover::read(layers);
    let roster = Roster::read(layers);
    let evidence = Evidence::read(layers);
    let people = People::read(layers);
    let log = log::read(layers);
    let tables = layers.take_sources();
    let sources =
        tables.into_iter().zip(1..).filter_map(|(table, n)| Source::read(layers, registry, n, table)).collect();
    Some(Settings {
        data_dir: data_dir?,
        ingress: ingress?,
        admin: admin?,
        broker: broker?,
        spool: spool?,
        ledger: ledger?,
        drata: drata?,
        retry: retry?,
        sweep: sweep?,
        balance: balance?,
        recover: recover?,
        roster: roster?,
        evidence: evidence?,
        people: people?,
        log: log?,
        sources,
        origin: layers.origin.clone(),
    })
}

#[cfg(test)]
mod tests;
