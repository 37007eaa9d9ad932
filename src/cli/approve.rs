//! `rollcall approve`: an operator's yes to a delivery that is held.

use std::io::Write;

use serde::Serialize;

use super::deliveries::one;
use super::named::NameError;
use super::table::{Table, Width, json, sentence};
use super::words::account_text;
use super::{Exit, Place, ask};
use crate::access::Access;
use crate::app;
use crate::ledger::approve::Concerned;
use crate::ledger::outcome::Outcome;
use crate::ledger::record::Entry;
use crate::ledger::show::deliveries::{DeliveryName, DeliveryRow};
use crate::reconcile::{OnAccessLost, Policies};
use crate::target::ConnectionRef;

const EXAMPLES: &str = "\
A deleted organisation, group or repository takes access from everybody who held it; above mass_change_limit of its source \
such a delivery is held until an operator says yes. The accounts are shown first, with what becomes of each.

Examples:
  rollcall deliveries --outcome held        what is held
  rollcall approve '#812' --dry-run         whom it concerns
  rollcall approve '#812' --yes             without the question

With --json: an object with row, delivery, source, event, approved, and concerned: an array of objects with account, login, \
connection, actual, access and then (what becomes of it).";

/// How many accounts are listed at most.
const LISTED: usize = 50;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The provider's delivery id, or # and the row number that the listing shows
    #[arg(value_name = "DELIVERY")]
    id: DeliveryName,
    /// The one of this source: providers give all hooks of one event the same id
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only show whom it concerns
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
    /// Write a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    row: i64,
    delivery: &'a str,
    source: &'a str,
    event: &'a str,
    approved: bool,
    concerned: Vec<Line<'a>>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    concerned: &'a Concerned,
    then: String,
}

pub(super) async fn run(args: Args, place: &Place, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    let ledger = place.ledger(&settings).await?;
    let found = one(&ledger, &args.id, args.source.as_deref()).await?;
    let lacks = |lacks| NameError::Lacking { what: "delivery", name: args.id.to_string(), lacks };
    let not_held =
        || lacks("isn't held, so there is nothing to say yes to; `rollcall deliveries --outcome held` lists what is");
    if found.outcome != Outcome::Held {
        return Err(not_held().into());
    }
    let delivery = ledger.kept(found.row).await?.ok_or_else(|| lacks("keeps no body"))?;
    let reading = app::reader(&settings.sources)?.read(&delivery);
    let entry = Entry { delivery, reading, approved: true };
    let policies = app::policies(&settings.sources);
    let roots = |connection: &ConnectionRef| policies.roots(connection);
    let concerned = ledger.concerned(found.row, &entry, &roots).await?;
    let mut approved = false;
    if !args.dry_run {
        let count = concerned.len();
        let show = |err: &mut dyn Write| preview(&found, &concerned, &policies, args.width, err);
        let unasked =
            format!("it concerns {count} accounts; add --yes to approve it, or --dry-run to see whom it concerns");
        if !args.yes && !ask::confirmed(&unasked, &format!("Say yes to this for {count} accounts?"), show)? {
            writeln!(out, "Nothing was done.")?;
            return Ok(Exit::Done);
        }
        let detail = format!("{} of {}: {count} accounts", found.event, found.source);
        if !ledger.approve(found.row, &entry, &place.operator(), &detail).await? {
            return Err(not_held().into());
        }
        approved = true;
    }
    if args.json {
        let lines = concerned.iter().map(|concerned| Line { concerned, then: then(concerned, &policies) });
        let DeliveryRow { row, delivery, source, event, .. } = &found;
        json(out, &Report { row: *row, delivery, source, event, approved, concerned: lines.collect() })?;
    } else if args.dry_run {
        preview(&found, &concerned, &policies, args.width, out)?;
    } else {
        let count = concerned.len();
        writeln!(out, "#{} is approved: {count} accounts are due, and a worker reconciles them at once.", found.row)?;
    }
    Ok(Exit::Done)
}

/// What becomes of an account.
fn then(concerned: &Concerned, policies: &Policies) -> String {
    let connection = concerned.connection.parse::<ConnectionRef>();
    let policy = connection.ok().and_then(|connection| policies.of(&connection).map(|policy| policy.on_access_lost));
    match (&concerned.access, policy) {
        (Access::Held { .. }, _) => "still has access otherwise".to_owned(),
        (Access::Gone, Some(OnAccessLost::Unlink)) => "is unlinked".to_owned(),
        (Access::Gone, Some(OnAccessLost::Keep)) => "keeps its link (on_access_lost)".to_owned(),
        (Access::Gone, None) => "waits: no source is configured".to_owned(),
        (Access::Unknown { .. }, _) => "keeps its link: may still have access".to_owned(),
    }
}

fn preview(
    found: &DeliveryRow,
    concerned: &[Concerned],
    policies: &Policies,
    width: Width,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let reason = found.reason.as_deref().and_then(|reason| reason.split(';').next()).unwrap_or_default();
    let what = format!("#{} ({} of {}, {}) is held: {reason}.", found.row, found.event, found.source, found.delivery);
    sentence(out, 0, width, &what)?;
    let mut table = Table::new(&["ACCOUNT", "CONNECTION", "IS", "THEN"]);
    for one in concerned.iter().take(LISTED) {
        let actual = one.actual.map_or_else(|| "unknown".to_owned(), |actual| actual.to_string());
        table.row([account_text(&one.account), one.connection.clone(), actual, then(one, policies)], "");
    }
    table.write(out, 2, width)?;
    if concerned.len() > LISTED {
        writeln!(out, "  and {} more; --dry-run --json lists all.", concerned.len() - LISTED)?;
    }
    Ok(())
}
