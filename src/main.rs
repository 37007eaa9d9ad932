//! The binary: parses the command line and maps the outcome to an exit code.

use std::process::ExitCode;

use clap::Parser;
use rollcall::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    rollcall::files::make_new_files_private();
    // One TLS provider for every client of ours. Failing means that somebody has installed one already.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Cli::parse().run().await.into()
}
