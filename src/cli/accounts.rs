//! `rollcall accounts`: what is so and what should be so for each account.

use std::io::Write;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use tokio_util::sync::CancellationToken;

use super::table::{Table, Width, json, time};
use super::watch::{Style, watch};
use super::words::key_text;
use crate::access::AccountPattern;
use crate::ledger::Ledger;
use crate::ledger::show::accounts::{AccountCursor, AccountFilter, AccountRow, State};
use crate::provider::REGISTRY;
use crate::target::{ConnectionRef, LinkStatus};

const EXAMPLES: &str = "\
Examples:
  rollcall accounts                        what needs an operator first
  rollcall accounts --state waiting        whose person or identity nobody knows yet
  rollcall accounts --drifted              whose link somebody has changed at Drata
  rollcall accounts --connection 12 --json
  rollcall accounts --watch                until Ctrl-C
  rollcall explain github:octocat          why one of them is what it is

With --json: an array of objects with account, login, connection, desired, actual, state, reason, drifted_at, \
waiting_since, attempts, due_at and after (its place, for --after); with --watch one object a line. desired and actual are {\"status\": \"linked\" | \"unlinked\" | \"unknown\", \"person\": 518 | null}.";

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
    /// Only this account: octocat, github:octocat, github:#583231
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<AccountPattern>,
    /// Only accounts of this provider
    #[arg(long, value_parser = PossibleValuesParser::new(REGISTRY.iter().map(|provider| provider.name)), hide_possible_values = true)]
    provider: Option<String>,
    /// Only accounts whose link somebody has changed at the platform, and that are left so
    #[arg(long)]
    drifted: bool,
    /// Only accounts with this text in the reason of their state
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How many to show at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Go on behind this place, which the page before has given out
    #[arg(long, value_name = "PLACE", conflicts_with = "watch")]
    after: Option<AccountCursor>,
    /// Go on looking until Ctrl-C: drawn anew on a terminal, else what is new or has changed is added
    #[arg(long)]
    watch: bool,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

fn states() -> impl TypedValueParser<Value = State> {
    PossibleValuesParser::new(State::ALL.map(State::as_str)).try_map(|text| text.parse::<State>())
}

impl Args {
    /// Whether to go on until Ctrl-C.
    pub(super) const fn watches(&self) -> bool {
        self.watch
    }

    fn filter(&self) -> AccountFilter {
        AccountFilter {
            state: self.state,
            connection: self.connection.clone(),
            account: self.account.clone(),
            provider: self.provider.clone(),
            drifted: self.drifted,
            reason: self.reason.clone(),
        }
    }
}

/// Lists accounts.
///
/// # Errors
/// If the ledger or `out` fails.
pub async fn run(args: &Args, ledger: &Ledger, out: &mut dyn Write) -> anyhow::Result<()> {
    let rows = ledger.accounts(&args.filter(), args.after, args.limit).await?;
    if args.json {
        return json(out, &rows);
    }
    table(&rows, true, args.width, out)?;
    if let Some(last) = rows.last().filter(|_| i64::try_from(rows.len()).is_ok_and(|count| count == args.limit)) {
        writeln!(out, "\n{} shown; --after {} goes on, --limit shows more at once.", rows.len(), last.place)?;
    }
    Ok(())
}

/// Lists accounts until the token is cancelled.
///
/// # Errors
/// If the ledger or `out` fails.
pub(super) async fn keep_listing(
    args: &Args,
    ledger: &Ledger,
    live: bool,
    token: &CancellationToken,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let style = Style::of(args.json, live);
    let list = async || Ok(ledger.accounts(&args.filter(), None, args.limit).await?);
    let key = |row: &AccountRow| format!("{} {:?}", row.account.key, row.connection);
    let rows = |rows: &[AccountRow], header: bool, out: &mut dyn Write| table(rows, header, args.width, out);
    watch(style, token, out, list, key, rows).await
}

fn table(rows: &[AccountRow], header: bool, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    if rows.is_empty() && header {
        return Ok(writeln!(out, "No such accounts.")?);
    }
    let mut table = Table::new(&["ACCOUNT", "LOGIN", "CONNECTION", "SHOULD BE", "IS", "STATE"]);
    for row in rows {
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
    let written = if header { table.write(out, 0, width) } else { table.write_more(out, width) };
    Ok(written?)
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
