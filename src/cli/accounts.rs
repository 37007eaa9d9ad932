//! `rollcall accounts`: what is so and what should be so for each account.

use std::io::Write;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::table::{Table, Width, json, time};
use super::words::key_text;
use crate::ledger::Ledger;
use crate::ledger::show::accounts::{AccountFilter, AccountRow, State};
use crate::target::{ConnectionRef, LinkStatus};

const EXAMPLES: &str = "\
Examples:
  rollcall accounts                        what needs an operator first
  rollcall accounts --state waiting        whose person or identity nobody knows yet
  rollcall accounts --connection 12 --json
  rollcall explain github:octocat          why one of them is what it is

With --json: an array of objects with account, login, connection, desired, actual, state, reason, attempts and
due_at. desired and actual are {\"status\": \"linked\" | \"unlinked\" | \"unknown\", \"person\": 518 | null}.";

/// List accounts: what should be so at the platform, what is so, and what is being done about it
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only accounts in this state
    #[arg(long, value_parser = states())]
    state: Option<State>,
    /// Only accounts of this connection: its id, or its client type where the configuration names no id
    #[arg(long, value_name = "CONNECTION")]
    connection: Option<ConnectionRef>,
    /// How many to show at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

fn states() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(State::ALL.map(State::as_str)).try_map(|text| text.parse::<State>())
}

/// Lists accounts.
///
/// # Errors
/// If the ledger or `out` fails.
pub async fn run(args: &Args, ledger: &Ledger, out: &mut dyn Write) -> anyhow::Result<()> {
    let filter = AccountFilter { state: args.state, connection: args.connection.clone(), limit: args.limit };
    let rows = ledger.accounts(&filter).await?;
    if args.json {
        return json(out, &rows);
    }
    if rows.is_empty() {
        return Ok(writeln!(out, "No such accounts.")?);
    }
    let mut table = Table::new(&["ACCOUNT", "LOGIN", "CONNECTION", "SHOULD BE", "IS", "STATE"]);
    for row in &rows {
        let cells = [
            key_text(&row.account.key),
            row.account.login.clone().unwrap_or_else(|| "-".to_owned()),
            row.connection.clone().unwrap_or_else(|| "-".to_owned()),
            status(row.desired),
            status(row.actual),
            row.state.map_or_else(|| "-".to_owned(), |state| state.to_string()),
        ];
        table.row(cells, &note(row));
    }
    table.write(out, 0, args.width)?;
    if i64::try_from(rows.len()).is_ok_and(|count| count == args.limit) {
        writeln!(out, "\nThe first {}; --limit shows more.", args.limit)?;
    }
    Ok(())
}

fn status(status: Option<LinkStatus>) -> String {
    status.map_or_else(|| "unknown".to_owned(), |status| status.to_string())
}

/// Why it is so, how often it was tried in vain, and when it is looked at next.
fn note(row: &AccountRow) -> String {
    let attempts = match row.attempts {
        0 => None,
        1 => Some("1 failed try".to_owned()),
        attempts => Some(format!("{attempts} failed tries")),
    };
    let due = row.due_at.map(|due| format!("due {}", time(due)));
    [due, attempts, row.reason.clone()].into_iter().flatten().collect::<Vec<_>>().join(" · ")
}
