//! The binary: parses the command line and maps the outcome to an exit code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rollcall::cli::{Cli, Exit};
use rollcall::telemetry::logs;
use tokio::runtime::Builder;

/// How long the end may take of what blocks a thread: a disk that doesn't answer doesn't keep the process from ending.
const BLOCKED: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    rollcall::files::make_new_files_private();
    // One TLS provider for every client of ours. Failing means that somebody has installed one already.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = match Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            logs::last_line(format_args!("rollcall: can't start: {error}"));
            return Exit::Failed.into();
        }
    };
    // What panics here was told by the panic itself.
    let exit = catch_unwind(AssertUnwindSafe(|| runtime.block_on(cli.run()))).unwrap_or(Exit::Failed);
    runtime.shutdown_timeout(BLOCKED);
    logs::flush();
    exit.into()
}
