//! The command line: one file per command. Parsing a flag never does work.

mod exit;
mod sandbox;
mod send;
mod serve;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};

pub use self::exit::Exit;
pub(crate) use self::exit::OutOfReach;

use crate::config::{self, Settings};
use crate::demo;
use crate::provider::REGISTRY;

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
    /// Sign a delivery as a provider would, and post it
    Send(send::Args),
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
            Command::Send(args) => Box::pin(send::run(args, &place)).await,
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
    fn settings(&self) -> Result<Settings, config::ConfigError> {
        let file = self.config.clone().or_else(config::default_file);
        config::load(config::Sources { file, env: self.env.clone(), registry: REGISTRY })
    }
}

/// Writes a line to standard output. A reader that has gone away is no fault of ours.
fn say(line: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("writing to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
