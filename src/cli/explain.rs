//! `rollcall explain`: why an account's status is what it is, in plain sentences.

use std::io::Write;

use super::deliveries::why;
use super::named::NameError;
use super::table::{Table, Width, json, sentence, time};
use super::words::{calls, key_text};
use crate::access::{Access, AccessKind, AccountKind, AccountPattern};
use crate::delivery::Timestamp;
use crate::ledger::Ledger;
use crate::ledger::show::accounts::State;
use crate::ledger::show::dossier::{By, Dossier, GrantRow, Known, StatusDossier};
use crate::ledger::view::RootsOf;
use crate::target::LinkStatus;

const EXAMPLES: &str = "\
Examples:
  rollcall explain octocat                          a login, if only one account was ever seen with it
  rollcall explain github:octocat
  rollcall explain 'github:#583231'                 the stable id, which no other account ever has
  rollcall explain github@git.acme.example:octocat  the account of that login on that host
  rollcall explain octocat --json

It shows what the ledger holds and asks neither the provider nor the platform.";

/// Explain one account: what its status is, what it should be and why, and how it came about
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The account: octocat, github:octocat, github:#583231, github@git.acme.example:octocat
    #[arg(value_name = "ACCOUNT")]
    account: AccountPattern,
    /// Write one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

/// Explains one account. `roots` tells the configured roots of a connection.
///
/// # Errors
/// [`NameError`] if the pattern names no account or several, and whatever the ledger or `out` fails with.
pub async fn run(args: &Args, ledger: &Ledger, roots: RootsOf<'_>, out: &mut dyn Write) -> anyhow::Result<()> {
    let matches = ledger.accounts_named(&args.account).await?;
    let name = args.account.to_string();
    if matches.len() > 1 {
        let candidates = matches.iter().map(|one| {
            let login = one.label.login.as_ref().map_or_else(String::new, |login| format!("now {login}"));
            (format!("'{}'", one.label.key), login)
        });
        return Err(NameError::Ambiguous { what: "account", name, candidates: candidates.collect() }.into());
    }
    let hint = "`rollcall accounts` lists who is; no delivery has spoken of this one yet";
    let not_found = || NameError::NotFound { what: "account", name: name.clone(), hint };
    let row = matches.first().ok_or_else(not_found)?.row;
    let dossier = ledger.dossier(row, roots).await?.ok_or_else(not_found)?;
    if args.json {
        return json(out, &dossier);
    }
    who(&dossier, args.width, out)?;
    if dossier.connections.is_empty() {
        writeln!(out)?;
        let text =
            "The platform has no connection for what it has access to: it is recorded, and nothing is to be done.";
        sentence(out, 0, args.width, text)?;
    }
    for status in &dossier.connections {
        connection(status, &dossier, args.width, out)?;
    }
    deliveries(&dossier, args.width, out)
}

fn who(dossier: &Dossier, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    let key = &dossier.account.key;
    let login = dossier.account.login.as_deref();
    let what = match dossier.kind {
        AccountKind::Person => "an account",
        AccountKind::Bot => "a bot or service account, which is never linked to a person,",
    };
    let name = login.map_or_else(|| key_text(key), ToOwned::to_owned);
    sentence(out, 0, width, &format!("{name} is {what} at {} ({}).", key.host, key_text(key)))?;
    let logins: Vec<String> = dossier
        .logins
        .iter()
        .map(|seen| {
            let shared = if seen.shared { ", as another account was too" } else { "" };
            format!("{} (first on {}{shared})", seen.login, time(seen.seen_at))
        })
        .collect();
    if !logins.is_empty() {
        sentence(out, 0, width, &format!("It was seen with the login {}.", logins.join(" and ")))?;
    }
    Ok(())
}

fn connection(status: &StatusDossier, dossier: &Dossier, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "\nConnection {}", status.connection)?;
    sentence(out, 2, width, &actual(status))?;
    sentence(out, 2, width, &desired(status, dossier.kind))?;
    if let Some(whose) = whose(status, dossier) {
        sentence(out, 2, width, &whose)?;
    }
    sentence(out, 2, width, &work(status, dossier.now))?;
    if !status.roots.is_empty() {
        let roots: Vec<String> =
            status.roots.iter().map(|root| format!("{} is {}", root.root, standing(root.standing))).collect();
        sentence(out, 2, width, &format!("Towards the roots: {}.", roots.join(", ")))?;
    }
    if !status.grants.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(&["ACCESS TO", "NOW", "LATEST CHANGE", "WHEN", "BY DELIVERY"]);
        for grant in &status.grants {
            let now = if grant.held { "held" } else { "not held" };
            let by = format!("{} ({})", grant.by.delivery, grant.by.source);
            let change = grant.change.as_str().to_owned();
            table.row([grant.scope.to_string(), now.into(), change, time(grant.by.event_time), by], &end(grant));
        }
        table.write(out, 2, width)?;
    }
    if !status.calls.is_empty() {
        writeln!(out)?;
        calls(&status.calls).write(out, 2, width)?;
    }
    Ok(())
}

/// Whose it is, and from where that is known.
fn whose(status: &StatusDossier, dossier: &Dossier) -> Option<String> {
    if let Some(said) = &dossier.said {
        let whose = match &said.person {
            Some(person) => format!("It is {person}'s"),
            None => "It is nobody's".to_owned(),
        };
        return Some(format!("{whose}: {} has said so on {}.", said.operator, time(said.said_at)));
    }
    status.person_from.map(|from| format!("Whose it is: {}.", from.meaning()))
}

fn standing(standing: &str) -> &str {
    match standing {
        "held" => "held",
        "gone" => "left or lost",
        _ => "unknown: nothing was heard that would settle it",
    }
}

/// What is so, and how that is known.
fn actual(status: &StatusDossier) -> String {
    let identity = status.identity.map(|identity| format!(" (identity {identity})")).unwrap_or_default();
    let is = match status.actual {
        Some(LinkStatus::Linked(person)) => format!("At the platform it is linked to person {person}{identity}"),
        Some(LinkStatus::Unlinked) => format!("At the platform it is linked to nobody{identity}"),
        None => format!("What it is at the platform{identity} isn't known"),
    };
    match status.known {
        Known::Confirmed { at } => format!("{is}: the platform was told, and confirmed it on {}.", time(at)),
        Known::Read => format!("{is}: so it was read there."),
        Known::Unanswered { since, wanted } => {
            let wanted = match wanted {
                Some(LinkStatus::Linked(person)) => format!("link it to person {person}"),
                _ => "unlink it".to_owned(),
            };
            format!("{is}: a call that was to {wanted} was sent on {} and never confirmed.", time(since))
        }
        Known::Not if status.state == State::Pending && status.attempts == 0 => format!("{is}: nobody has looked yet."),
        Known::Not => format!("{is}: the last look didn't find it out."),
    }
}

/// What should be so, and why.
fn desired(status: &StatusDossier, kind: AccountKind) -> String {
    if kind == AccountKind::Bot {
        return "Nothing is to be done: bots and service accounts are never linked.".to_owned();
    }
    let unlinked = status.desired == Some(LinkStatus::Unlinked);
    match &status.access {
        Access::Held { .. } | Access::Unknown { .. } if unlinked && status.person_from.is_some() => {
            "It should be unlinked, whatever access it has, because it is nobody's.".to_owned()
        }
        Access::Held { through, seen_only } => {
            let named =
                status.grants.iter().find(|grant| grant.scope.id == *through).map(|grant| grant.scope.to_string());
            let through = named.unwrap_or_else(|| through.to_string());
            let person = match status.desired {
                Some(LinkStatus::Linked(person)) => format!("person {person}"),
                _ => "the person it belongs to".to_owned(),
            };
            let only = if *seen_only { ", though activity is all that speaks for it" } else { "" };
            format!("It should be linked to {person}, because it has access through {through}{only}.")
        }
        Access::Gone => {
            let why = "because it holds nothing any more and is gone from every root";
            match (status.desired, status.state) {
                (Some(LinkStatus::Unlinked), _) | (_, State::Pending) => format!("It should be unlinked, {why}."),
                _ => format!("It has no access left, {why}; its link stays as it is."),
            }
        }
        Access::Unknown { roots } if roots.is_empty() => {
            "Its link stays as it is: it holds nothing, but no root of the connection is known yet.".to_owned()
        }
        Access::Unknown { roots } => format!(
            "Its link stays as it is: it holds nothing that rollcall knows of, but whether it is gone from {} isn't known.",
            roots.join(", ")
        ),
    }
}

/// What is being done about it.
fn work(status: &StatusDossier, now: Timestamp) -> String {
    let reason = status.reason.as_ref().map(|reason| format!(": {}", reason.trim_end_matches('.'))).unwrap_or_default();
    let tries = match status.attempts {
        0 => String::new(),
        1 => " after 1 failed try".to_owned(),
        tries => format!(" after {tries} failed tries"),
    };
    if let Some(until) = status.lease_until.filter(|until| *until > now) {
        return format!("A worker is on it and has until {}{reason}.", time(until));
    }
    let next = match status.due_at {
        Some(due) if due <= now => format!(", due since {}", time(due)),
        Some(due) => format!(", looked at again on {}", time(due)),
        None => String::new(),
    };
    match status.state {
        State::Pending => format!("It is pending{tries}{next}{reason}."),
        State::Waiting => {
            let since = status.waiting_since.map(|since| format!(" since {}", time(since))).unwrap_or_default();
            format!("It is waiting{since}{next}{reason}.")
        }
        State::Parked => format!("It is parked{tries}: nobody tries again by itself{reason}."),
        State::Settled => format!("It is settled{next}{reason}."),
    }
}

/// What ended an access besides its own loss.
fn end(grant: &GrantRow) -> String {
    let Some(ended) = &grant.ended else {
        let seen = "activity: no join was ever recorded";
        return if grant.change == AccessKind::Seen { seen.to_owned() } else { String::new() };
    };
    let what = match ended.why {
        "scope_lost" => "was lost as a whole",
        "scope_moved" => "went to another owner",
        "instance_lost" => "ended with the account",
        _ => "ended with the root that it is in",
    };
    let By { event_time, source, delivery } = &ended.by;
    format!("{what} on {} by {delivery} ({source})", time(*event_time))
}

fn deliveries(dossier: &Dossier, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    if dossier.deliveries.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nDeliveries, the last recorded first")?;
    let mut table = Table::new(&["ROW", "RECEIVED", "EVENT", "CHANGE", "EFFECT"]);
    for concern in &dossier.deliveries {
        let effect = &concern.effect;
        let change = match &effect.scope {
            Some(scope) => format!("{} {scope}", effect.change),
            None => effect.change.clone(),
        };
        let row = format!("#{}", concern.row);
        let cells = [row, time(concern.received_at), concern.event.clone(), change, effect.effect.to_string()];
        let why = why(effect);
        let id = format!("{} of {}", concern.delivery, concern.source);
        table.row(cells, &if why.is_empty() { id } else { format!("{id} · {why}") });
    }
    Ok(table.write(out, 2, width)?)
}
