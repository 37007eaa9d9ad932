//! The command line: one file per command. Parsing a flag never does work.

pub mod accounts;
mod approve;
mod ask;
pub mod balance;
mod check;
mod choice;
pub mod deliveries;
mod exit;
pub mod explain;
mod gaps;
mod migrate;
pub mod named;
mod operator;
mod people;
pub mod providers;
mod ready;
mod recover;
mod replay;
mod report;
mod roster;
mod sandbox;
pub mod secrets;
mod send;
mod serve;
mod sweep;
pub mod table;
mod topology;
mod watch;
mod words;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::exit::Exit;
use self::exit::Misuse;
pub(crate) use self::exit::OutOfReach;

use crate::app;
use crate::broker::rabbitmq;
use crate::config::{self, ConfigError, Settings};
use crate::demo;
use crate::ledger::{self, Ledger};
use crate::provider::{REGISTRY, Secret};
use crate::shutdown::signal;
use crate::target::{ConnectionRef, Failure};

/// Keeps a compliance platform's record of who has version-control access in step with the Git providers.
///
/// Git providers announce joins and leaves by signed webhooks. Rollcall verifies them, carries them through RabbitMQ (or
/// a queue of its own), and brings each account's connection status at Drata to what it should be.
#[derive(Debug, Parser)]
#[command(
    name = "rollcall",
    version,
    after_help = "Start with `rollcall demo`: it needs nothing and shows everything.\n\n\
                  Exit codes: 0 done, 1 ran but something failed or didn't add up, 2 usage or configuration, \
                  3 a dependency can't be reached, 130 interrupted."
)]
pub struct Cli {
    /// The configuration file [default: ./rollcall.toml if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole job on this machine, with no services and no configuration
    Demo(demo::Args),
    /// Take webhooks, record them and bring Drata up to date, until stopped
    Serve(serve::Args),
    /// Ask a process that serves whether it can do its job
    Ready(ready::Args),
    /// Check the configuration on everything that it names, and show what to enter at the providers
    Check(check::Args),
    /// Examine RabbitMQ, or print what has to exist in it
    Topology(topology::Args),
    /// List deliveries and what became of them
    Deliveries(Box<deliveries::Args>),
    /// List accounts: what should be so at Drata, and what is so
    Accounts(accounts::Args),
    /// Say whose accounts are, and see from where that is known
    People(people::Args),
    /// Compare all accounts with Drata: what has come that is waited for, what somebody has changed there
    Sweep(sweep::Args),
    /// Say yes to a delivery that is held because it concerns many accounts at once
    Approve(approve::Args),
    /// Show whether everything that was accepted has arrived, and what is missing
    Balance(balance::Args),
    /// Have a provider deliver again what it failed to deliver
    Recover(recover::Args),
    /// Show for which periods nothing is missing, what is, and what nobody has looked at
    Gaps(gaps::Args),
    /// Bring the ledger's tables up to date, or say what is pending
    Migrate(migrate::Args),
    /// Publish deliveries again: after a repair, from an export, or to another deployment
    Replay(Box<replay::Args>),
    /// Show who really has access, beside what the ledger knows, and let the ledger know it
    Roster(roster::Args),
    /// Write the evidence for an auditor, or prove that the history wasn't changed
    Report(Box<report::Args>),
    /// Show which secrets are in use, and what was refused lately
    Secrets(secrets::Args),
    /// Explain in plain sentences why an account's status is what it is
    Explain(explain::Args),
    /// List the providers: what is verified, which events are understood, what they do
    Providers(providers::Args),
    /// Sign a delivery as a provider would, and post it
    Send(Box<send::Args>),
    /// Run a stand-in for Drata's API
    Sandbox(sandbox::Args),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// Runs the command.
    pub async fn run(self) -> Exit {
        let place = Place { config: self.config, env: config::environment() };
        let ended = match self.command {
            Command::Demo(args) => Box::pin(demo::run(args)).await,
            Command::Serve(args) => Box::pin(serve::run(args, &place)).await,
            Command::Ready(args) => Box::pin(ready::run(args, &place)).await,
            Command::Check(args) => Box::pin(check::run(args, &place, &mut std::io::stdout())).await,
            Command::Topology(args) => Box::pin(topology::run(args, &place, &mut std::io::stdout())).await,
            Command::Deliveries(args) => Box::pin(place.deliveries(&args)).await,
            Command::Accounts(args) => Box::pin(place.accounts(&args)).await,
            Command::People(args) => Box::pin(people::run(args, &place, &mut std::io::stdout())).await,
            Command::Sweep(args) => Box::pin(sweep::run(args, &place, &mut std::io::stdout())).await,
            Command::Approve(args) => Box::pin(approve::run(args, &place, &mut std::io::stdout())).await,
            Command::Balance(args) => Box::pin(place.balance(&args)).await,
            Command::Recover(args) => Box::pin(recover::run(args, &place, &mut std::io::stdout())).await,
            Command::Gaps(args) => Box::pin(place.gaps(&args)).await,
            Command::Migrate(args) => Box::pin(place.migrate(args)).await,
            Command::Replay(args) => Box::pin(replay::run(*args, &place, &mut std::io::stdout())).await,
            Command::Roster(args) => Box::pin(roster::run(args, &place, &mut std::io::stdout())).await,
            Command::Report(args) => Box::pin(report::run(&args, &place)).await,
            Command::Secrets(args) => Box::pin(place.secrets(&args)).await,
            Command::Explain(args) => Box::pin(place.explain(&args)).await,
            Command::Providers(args) => providers::run(&args, &mut std::io::stdout()).map(|()| Exit::Done),
            Command::Send(args) => Box::pin(send::run(*args, &place)).await,
            Command::Sandbox(args) => Box::pin(sandbox::run(args, &place)).await,
            Command::Completions { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "rollcall", &mut std::io::stdout());
                Ok(Exit::Done)
            }
        };
        Exit::of(ended)
    }
}

/// Where a command runs: which configuration file, which environment.
#[derive(Debug)]
struct Place {
    config: Option<PathBuf>,
    env: BTreeMap<String, String>,
}

impl Place {
    fn settings(&self) -> anyhow::Result<Settings> {
        let file = self.config.clone().or_else(config::default_file);
        Ok(config::load(config::Sources { file, env: self.env.clone(), registry: REGISTRY })?)
    }
}

/// PostgreSQL's address with the certificates to trust besides. Every other client of ours honours `SSL_CERT_FILE` by
/// itself; this one only knows what its address says.
fn trusting(mut url: Url, certificates: Option<&str>) -> Url {
    let says = |names: &[&str]| url.query_pairs().any(|(name, _)| names.contains(&name.as_ref()));
    if let Some(file) = certificates.filter(|_| !says(&["sslrootcert", "ssl-root-cert", "ssl-ca"])) {
        url.query_pairs_mut().append_pair("sslrootcert", file);
    }
    url
}

/// What a command says when the platform couldn't be asked: out of reach, or refused.
fn asked_in_vain(failure: &Failure) -> anyhow::Error {
    if failure.is_transient() { OutOfReach(failure.to_string()).into() } else { anyhow::anyhow!("{failure}") }
}

/// The commands that look at the ledger, or write to it, beside a process that serves.
impl Place {
    /// The ledger that the configuration names, with its tables as they should be.
    async fn ledger(&self, settings: &Settings) -> anyhow::Result<Ledger> {
        if let Some(url) = self.ledger_url(settings)? {
            return Ok(Ledger::connect(&url, false).await?);
        }
        Self::file_there(settings)?;
        Ok(Ledger::open(&settings.data_dir).await?)
    }

    /// Who runs the command, as far as the environment tells.
    fn operator(&self) -> String {
        operator::of(&self.env)
    }

    /// PostgreSQL's address, if the ledger is there.
    fn ledger_url(&self, settings: &Settings) -> Result<Option<SecretString>, ConfigError> {
        let url = settings.ledger.url.as_ref().map(|url| url.resolve(&self.env)).transpose();
        let url = url.map_err(|error| settings.needed_for("ledger.url", error))?;
        let set = |name| self.env.get(name).map(String::as_str).filter(|value| !value.is_empty());
        // Its driver has a variable of its own, which goes first.
        let trusted = set("SSL_CERT_FILE").filter(|_| set("PGSSLROOTCERT").is_none());
        Ok(url.map(|url| SecretString::from(trusting(url, trusted).to_string())))
    }

    /// RabbitMQ's address, if it is the broker.
    fn broker_url(&self, settings: &Settings) -> Result<Option<SecretString>, ConfigError> {
        let url = settings.broker.url.as_ref().map(|url| url.resolve(&self.env)).transpose();
        let url = url.map_err(|error| settings.needed_for("broker.url", error))?;
        Ok(url.map(|url| SecretString::from(url.to_string())))
    }

    /// How RabbitMQ is spoken to, if it is the broker.
    fn rabbitmq(&self, settings: &Settings) -> Result<Option<rabbitmq::Settings>, ConfigError> {
        let broker = &settings.broker;
        Ok(self.broker_url(settings)?.map(|url| rabbitmq::Settings {
            prefix: broker.prefix.clone(),
            max_message: max_message(settings),
            confirm_timeout: broker.confirm_timeout,
            publish_timeout: broker.publish_timeout,
            declare: broker.declare,
            compression: broker.compression,
            ..rabbitmq::Settings::new(url)
        }))
    }

    async fn migrate(&self, args: migrate::Args) -> anyhow::Result<Exit> {
        let settings = self.settings()?;
        let ledger = match self.ledger_url(&settings)? {
            Some(url) => Ledger::postgresql(&url).await?,
            None => {
                Self::file_there(&settings)?;
                Ledger::sqlite(&settings.data_dir).await?
            }
        };
        migrate::run(args, &ledger, &mut std::io::stdout()).await
    }

    fn file_there(settings: &Settings) -> anyhow::Result<()> {
        let folder = &settings.data_dir;
        if !folder.join(ledger::FILE).is_file() {
            let how = "`rollcall serve` makes it, and data_dir in the configuration says where it is";
            return Err(OutOfReach(format!("there is no ledger in {}; {how}", folder.display())).into());
        }
        Ok(())
    }

    async fn deliveries(&self, args: &deliveries::Args) -> anyhow::Result<Exit> {
        let settings = self.settings()?;
        let ledger = self.ledger(&settings).await?;
        let out = &mut std::io::stdout();
        if args.watches() {
            let live = live(&self.env);
            return until_interrupted(|token| async move {
                deliveries::keep_listing(args, &ledger, live, &token, &mut std::io::stdout()).await
            })
            .await;
        }
        if let Some((choice, unsealed)) = args.export() {
            let secret_of = |source: &str| self.secret_of(&settings, source);
            let secret_of: Option<deliveries::SecretOf<'_>> = if unsealed { None } else { Some(&secret_of) };
            let (written, left_out) = deliveries::export(choice, secret_of, &ledger, out).await?;
            let mut err = std::io::stderr();
            writeln!(err, "{written} deliveries written, {left_out} left out: they were ignored and keep no body")?;
            return Ok(Exit::Done);
        }
        deliveries::run(args, &ledger, out).await?;
        Ok(Exit::Done)
    }

    async fn accounts(&self, args: &accounts::Args) -> anyhow::Result<Exit> {
        let ledger = self.ledger(&self.settings()?).await?;
        if args.watches() {
            let live = live(&self.env);
            return until_interrupted(|token| async move {
                accounts::keep_listing(args, &ledger, live, &token, &mut std::io::stdout()).await
            })
            .await;
        }
        accounts::run(args, &ledger, &mut std::io::stdout()).await?;
        Ok(Exit::Done)
    }

    /// The first secret of a source: the one to seal with.
    fn secret_of(&self, settings: &Settings, source: &str) -> anyhow::Result<Secret> {
        let unsealed = "with --unsealed it is exported without a seal, and can only be imported with --trusted";
        let found = settings.sources.iter().find(|known| known.settings.name.as_str() == source);
        let found = found.ok_or_else(|| {
            Misuse(format!("no source {source} is configured, so nothing can seal its deliveries; {unsealed}"))
        })?;
        let secret =
            found.secrets.first().ok_or_else(|| Misuse(format!("source {source} has no secret; {unsealed}")))?;
        let key = format!("source[{source}].secrets[0]");
        secret.resolve(&self.env).map_err(|error| settings.needed_for(&key, error)).context(unsealed)
    }

    async fn secrets(&self, args: &secrets::Args) -> anyhow::Result<Exit> {
        let settings = self.settings()?;
        let ledger = self.ledger(&settings).await?;
        secrets::run(args, &settings.sources, &ledger, &mut std::io::stdout()).await?;
        Ok(Exit::Done)
    }

    async fn balance(&self, args: &balance::Args) -> anyhow::Result<Exit> {
        let settings = self.settings()?;
        let ledger = self.ledger(&settings).await?;
        balance::run(args, &ledger, settings.balance.after, &mut std::io::stdout()).await
    }

    async fn gaps(&self, args: &gaps::Args) -> anyhow::Result<Exit> {
        let settings = self.settings()?;
        let ledger = self.ledger(&settings).await?;
        gaps::run(args, &settings, &ledger, &mut std::io::stdout()).await
    }

    async fn explain(&self, args: &explain::Args) -> anyhow::Result<Exit> {
        let settings = self.settings()?;
        let ledger = self.ledger(&settings).await?;
        let policies = app::policies(&settings.sources);
        let roots = |connection: &ConnectionRef| policies.roots(connection);
        explain::run(args, &ledger, &roots, settings.sweep.waiting, &mut std::io::stdout()).await?;
        Ok(Exit::Done)
    }
}

/// Whether a listing may be drawn anew.
fn live(env: &BTreeMap<String, String>) -> bool {
    std::io::stdout().is_terminal() && env.get("TERM").is_some_and(|term| term != "dumb")
}

/// Does something that goes on until Ctrl-C or SIGTERM.
async fn until_interrupted<F>(work: impl FnOnce(CancellationToken) -> F) -> anyhow::Result<Exit>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let token = CancellationToken::new();
    let mut work = std::pin::pin!(work(token.clone()));
    tokio::select! {
        ended = &mut work => return ended.map(|()| Exit::Interrupted),
        signal = signal() => { signal?; }
    }
    token.cancel();
    work.await.map(|()| Exit::Interrupted)
}

/// The largest message that the broker takes, in bytes.
fn max_message(settings: &Settings) -> usize {
    usize::try_from(settings.broker.max_message.as_u64()).unwrap_or(usize::MAX)
}

/// Writes a line to standard output. A reader that has gone away is no fault of ours.
fn say(line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing to standard output")
}

#[cfg(test)]
mod tests;
