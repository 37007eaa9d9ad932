//! Why an account's status is what it is.

use super::page::{Grid, Page, Section, happened};
use crate::access::{Access, AccessKind, AccountKind};
use crate::cli::table::time;
use crate::cli::words::key_text;
use crate::delivery::Timestamp;
use crate::ledger::show::accounts::State;
use crate::ledger::show::dossier::{By, Dossier, GrantRow, Known, StatusDossier};
use crate::target::LinkStatus;

pub(super) fn page(dossier: &Dossier) -> Page {
    let mut sections = vec![who(dossier)];
    if dossier.connections.is_empty() {
        let text =
            "The platform has no connection for what it has access to: it is recorded, and nothing is to be done.";
        sections.push(Section { sentences: vec![text.to_owned()], ..Section::default() });
    }
    sections.extend(dossier.connections.iter().map(|status| connection(status, dossier)));
    if !dossier.happened.is_empty() {
        sections.push(happened(&dossier.happened));
    }
    Page { title: name(dossier), sections }
}

fn name(dossier: &Dossier) -> String {
    dossier.account.login.clone().unwrap_or_else(|| key_text(&dossier.account.key))
}

fn who(dossier: &Dossier) -> Section {
    let key = &dossier.account.key;
    let what = match dossier.kind {
        AccountKind::Person => "an account",
        AccountKind::Bot => "a bot or service account, which is never linked to a person,",
    };
    let mut sentences = vec![format!("{} is {what} at {} ({}).", name(dossier), key.host, key_text(key))];
    let logins: Vec<String> = dossier
        .logins
        .iter()
        .map(|seen| {
            let shared = if seen.shared { ", as another account was too" } else { "" };
            format!("{} (first on {}{shared})", seen.login, time(seen.seen_at))
        })
        .collect();
    if !logins.is_empty() {
        sentences.push(format!("It was seen with the login {}.", logins.join(" and ")));
    }
    Section { sentences, ..Section::default() }
}

fn connection(status: &StatusDossier, dossier: &Dossier) -> Section {
    let mut sentences = vec![actual(status), desired(status, dossier.kind)];
    sentences.extend(whose(status, dossier));
    sentences.push(work(status, dossier.now));
    if !status.roots.is_empty() {
        let roots: Vec<String> =
            status.roots.iter().map(|root| format!("{} is {}", root.root, standing(root.standing))).collect();
        sentences.push(format!("Towards the roots: {}.", roots.join(", ")));
    }
    let row = |grant: &GrantRow| {
        let now = if grant.held { "held" } else { "not held" };
        let by = format!("{} ({})", grant.by.delivery, grant.by.source);
        let change = grant.change.as_str().to_owned();
        (vec![grant.scope.to_string(), now.into(), change, time(grant.by.event_time), by], end(grant))
    };
    let header = vec!["ACCESS TO", "NOW", "LATEST CHANGE", "WHEN", "BY DELIVERY"];
    let grid = Grid { header, rows: status.grants.iter().map(row).collect() };
    Section { heading: format!("Connection {}", status.connection), sentences, grid }
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
            let given_up = status.gives_up_at.map(|at| format!(", given up on after {}", time(at))).unwrap_or_default();
            format!("It is waiting{since}{next}{given_up}{reason}.")
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
