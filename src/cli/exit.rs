//! Exit codes: they are an interface.

use std::process::ExitCode;

use super::named::NameError;
use crate::app::StartError;
use crate::config::ConfigError;
use crate::telemetry::logs;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: it ran, but something failed or didn't add up.
    Failed,
    /// 2: wrong usage or configuration.
    Usage,
    /// 3: something that it depends on can't be reached.
    Unreachable,
    /// 130: interrupted.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Interrupted => 130,
        })
    }
}

/// A wrong use of a command that clap can't see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

/// Something that a command needs can't be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct OutOfReach(pub(crate) String);

impl Exit {
    /// Says on standard error why a command failed, and finds the code.
    pub(super) fn of(ended: anyhow::Result<Self>) -> Self {
        let error = match ended {
            Ok(exit) => return exit,
            Err(error) => error,
        };
        if error.chain().any(is_broken_pipe) {
            return Self::Done;
        }
        logs::last_line(format_args!("rollcall: {error:#}"));
        let causes = || error.chain();
        if causes().any(|cause| cause.is::<ConfigError>() || cause.is::<Misuse>() || cause.is::<NameError>()) {
            return Self::Usage;
        }
        match causes().find_map(|cause| cause.downcast_ref::<StartError>()) {
            Some(start) if start.is_configuration() => Self::Usage,
            Some(_) => Self::Unreachable,
            None if causes().any(|cause| cause.is::<OutOfReach>() || cause.is::<crate::ledger::LedgerError>()) => {
                Self::Unreachable
            }
            None => Self::Failed,
        }
    }
}

/// A reader that has gone away, whoever wrote to it.
fn is_broken_pipe(cause: &(dyn std::error::Error + 'static)) -> bool {
    let kind = cause
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind)
        .or_else(|| cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind));
    kind == Some(std::io::ErrorKind::BrokenPipe)
}
