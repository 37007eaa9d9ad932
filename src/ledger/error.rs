//! What can go wrong with the ledger, and what each error calls for.

use std::time::Duration;

use sqlx::migrate::MigrateError;

/// The ledger can't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database failed.
    #[error("the ledger's database: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables can't be brought up to date.
    #[error("the ledger's migrations: {0}")]
    Migration(#[from] MigrateError),
    /// A row holds what this version can't read.
    #[error("the ledger holds {0} that this version can't read")]
    Unreadable(String),
    /// PostgreSQL's address can't be used; says nothing of its content.
    #[error("ledger.url isn't a PostgreSQL address; write postgres://user:password@host:5432/database")]
    Address,
    /// PostgreSQL can't be reached.
    #[error("can't reach PostgreSQL at {place} (ledger.url): {why}")]
    Unreachable {
        /// Host, port and database.
        place: String,
        /// Why.
        why: sqlx::Error,
    },
    /// PostgreSQL lets nobody write.
    #[error("PostgreSQL at {place} (ledger.url) is read-only: it is a standby, or default_transaction_read_only is on")]
    ReadOnly {
        /// Host, port and database.
        place: String,
    },
    /// No answer came in time: the database, or the way to it, has gone silent.
    #[error("the ledger's database didn't answer within {} seconds", .after.as_secs_f64())]
    Silent {
        /// How long it was waited for.
        after: Duration,
    },
    /// A commit that several shared failed for one of the others.
    #[error("the ledger's database failed in a commit that was shared with others")]
    Together,
    /// Tables are missing, or this process may not write to them.
    #[error("the ledger's tables: {0}")]
    Tables(String),
    /// The tables aren't up to date, and this process isn't to change them.
    #[error(
        "the ledger's tables aren't up to date ({pending} migrations are pending), and ledger.migrate is false; \
         run `rollcall migrate` as their owner"
    )]
    Pending {
        /// How many migrations are pending.
        pending: usize,
    },
}

impl LedgerError {
    /// Whether another transaction got in the way of this one, so that the same call is likely to succeed at once:
    /// PostgreSQL's [serialization failure and deadlock](https://www.postgresql.org/docs/current/errcodes-appendix.html).
    pub(super) fn is_conflict(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else { return false };
        matches!(error.code().as_deref(), Some("40001" | "40P01"))
    }

    /// Whether the same call may succeed later, without anybody doing anything about it. Permanent unless it is known not
    /// to be.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Silent { .. } | Self::Together | Self::ReadOnly { .. } => true,
            _ => self.cause().is_some_and(|error| class(error) == Class::Transient),
        }
    }

    /// Whether the ledger refuses whatever comes, until time or an operator has put that right: a database that is away or
    /// full, a password, a missing grant or table. It says nothing against what was to be written.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Tables(_) | Self::Pending { .. } => true,
            _ => self.is_transient() || self.cause().is_some_and(|error| class(error) == Class::Operator),
        }
    }

    /// Whether a smaller call may succeed where this one took too long.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Database(sqlx::Error::Database(error)) => error.code().as_deref() == Some(TIMEOUT),
            _ => false,
        }
    }

    const fn cause(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) | Self::Unreachable { why: error, .. } => Some(error),
            Self::Migration(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => Some(error),
            _ => None,
        }
    }
}

/// PostgreSQL's `query_canceled`: a statement took longer than `statement_timeout`.
const TIMEOUT: &str = "57014";

/// What an error of the database's calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Patience.
    Transient,
    /// An operator: nothing can be written as things are.
    Operator,
    /// A look at the code, or at what was to be written: it is about this call alone.
    Permanent,
}

fn class(error: &sqlx::Error) -> Class {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            // SQLite's codes are numbers of at most four digits.
            if code.len() == 5 { postgresql(&code) } else { sqlite(&code, error.message()) }
        }
        // The way to the database, TLS among it, which may break in the middle of an answer; a pool without a free
        // connection; a connection in a state that nobody expects, which is closed.
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => Class::Transient,
        sqlx::Error::Configuration(_) => Class::Operator,
        _ => Class::Permanent,
    }
}

/// By [SQLSTATE](https://www.postgresql.org/docs/current/errcodes-appendix.html).
fn postgresql(code: &str) -> Class {
    match code {
        // A lock or a statement took too long, sessions were ended, the server is read-only.
        "55P03" | TIMEOUT | "25006" | "25P03" => Class::Transient,
        // Privileges; tables, columns, functions and schemas that should be there; the database.
        "42501" | "42P01" | "42703" | "42883" | "3F000" | "3D000" => Class::Operator,
        _ => match code.get(..2) {
            // The connection, a conflict with others, resources (a full disk among them), the server's own system.
            Some("08" | "40" | "53" | "58") => Class::Transient,
            _ if code.starts_with("57P0") => Class::Transient,
            // Who logs in, and a server whose files are damaged.
            Some("28" | "XX") if code != "XX000" => Class::Operator,
            _ => Class::Permanent,
        },
    }
}

/// By [result code](https://www.sqlite.org/rescode.html); the lowest byte of an extended one is the primary one.
fn sqlite(code: &str, message: &str) -> Class {
    match code.parse::<u32>().unwrap_or_default() & 0xff {
        // BUSY, LOCKED, NOMEM, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL (of locking), SCHEMA.
        5..=8 | 10 | 13..=15 | 17 => Class::Transient,
        // PERM, CORRUPT, AUTH, NOTADB.
        3 | 11 | 23 | 26 => Class::Operator,
        1 if message.starts_with("no such table") || message.starts_with("no such column") => Class::Operator,
        _ => Class::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_is_permanent_unless_it_is_known_not_to_be() {
        for code in [
            "08000", "08006", "08P01", "40001", "40P01", "53100", "53200", "53300", "55P03", "57P01", "57P02", "57P03",
            "57P05", "25006", "57014", "58030",
        ] {
            assert_eq!(postgresql(code), Class::Transient, "{code}");
        }
        for code in ["42501", "42P01", "42703", "3F000", "3D000", "28P01", "28000", "XX001"] {
            assert_eq!(postgresql(code), Class::Operator, "{code}");
        }
        for code in ["22001", "22021", "23505", "23514", "54000", "42601", "42804", "XX000", "P0001", "0A000", "25P02"]
        {
            assert_eq!(postgresql(code), Class::Permanent, "{code}");
        }
    }

    #[test]
    fn a_result_code_of_sqlite_is_permanent_unless_it_is_known_not_to_be() {
        // BUSY_SNAPSHOT, LOCKED, NOMEM, READONLY_DBMOVED, IOERR_WRITE, FULL, CANTOPEN.
        for code in ["5", "517", "6", "7", "1032", "778", "13", "14"] {
            assert_eq!(sqlite(code, ""), Class::Transient, "{code}");
        }
        for code in ["3", "11", "26"] {
            assert_eq!(sqlite(code, ""), Class::Operator, "{code}");
        }
        assert_eq!(sqlite("1", "no such table: changes"), Class::Operator);
        // A logic error, TOOBIG, CONSTRAINT_CHECK, MISMATCH, MISUSE.
        for code in ["1", "18", "275", "20", "21", ""] {
            assert_eq!(sqlite(code, "near \"SELEKT\": syntax error"), Class::Permanent, "{code}");
        }
    }

    #[test]
    fn errors_without_a_code_are_known_by_their_kind() {
        let io = || sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into());
        let cut = sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".into());
        for error in [io(), cut, sqlx::Error::Tls("no".into()), sqlx::Error::PoolTimedOut, sqlx::Error::WorkerCrashed] {
            assert!(LedgerError::from(error).is_transient());
        }
        assert!(LedgerError::from(MigrateError::Execute(io())).is_transient());
        for error in
            [sqlx::Error::RowNotFound, sqlx::Error::Decode("no".into()), sqlx::Error::ColumnNotFound("no".into())]
        {
            let error = LedgerError::from(error);
            assert!(!error.is_transient() && !error.is_outage(), "{error}");
        }
        for error in [LedgerError::ReadOnly { place: String::new() }, LedgerError::Silent { after: Duration::ZERO }] {
            assert!(error.is_transient() && error.is_outage(), "{error}");
        }
        let tables = LedgerError::Tables(String::new());
        assert!(!tables.is_transient() && tables.is_outage());
    }
}
