//! What became of a delivery, and what it waits for.

use super::page::{Grid, Page, Section, happened};
use crate::cli::deliveries::why;
use crate::cli::table::time;
use crate::cli::words::account_text;
use crate::delivery::Timestamp;
use crate::ledger::show::accounts::State;
use crate::ledger::show::timeline::{Explanation, Wait};

pub(super) fn page(explanation: &Explanation, now: Timestamp) -> Page {
    let story = &explanation.story;
    let row = &story.delivery;
    let mut sentences = vec![
        format!(
            "{} (#{}) is a delivery of {} ({}) that told of {}.",
            row.delivery, row.row, row.source, row.provider, row.event
        ),
        format!(
            "It was received on {} and recorded on {}; the secret {} verified it.",
            time(row.received_at),
            time(story.recorded_at),
            story.secret
        ),
    ];
    let reason = row.reason.as_ref().map(|reason| format!(" ({})", reason.trim_end_matches('.'))).unwrap_or_default();
    sentences.push(format!("It is {}{reason}: {}.", row.outcome, row.outcome.meaning()));
    sentences.extend(explanation.waits_for.iter().map(|wait| waits(wait, now)));
    let mut sections = vec![Section { sentences, ..Section::default() }];
    if !story.changes.is_empty() {
        let rows = story.changes.iter().map(|change| {
            let account = change.account.as_ref().map_or_else(|| "-".to_owned(), account_text);
            let scope = change.scope.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            (vec![change.change.clone(), account, scope, time(change.event_time)], String::new())
        });
        let grid = Grid { header: vec!["CHANGE", "ACCOUNT", "SCOPE", "HAPPENED"], rows: rows.collect() };
        sections.push(Section { heading: "What it told".to_owned(), sentences: Vec::new(), grid });
    }
    if !story.effects.is_empty() {
        let rows = story.effects.iter().map(|effect| {
            let connection = effect.connection.clone().unwrap_or_else(|| "-".to_owned());
            (vec![account_text(&effect.account), connection, effect.effect.to_string()], why(effect))
        });
        let grid = Grid { header: vec!["ACCOUNT", "CONNECTION", "EFFECT"], rows: rows.collect() };
        sections.push(Section { heading: "What it did".to_owned(), sentences: Vec::new(), grid });
    }
    sections.push(happened(&explanation.happened));
    Page { title: format!("Delivery {}", row.delivery), sections }
}

fn waits(wait: &Wait, now: Timestamp) -> String {
    let account = account_text(&wait.account);
    let reason = wait.reason.as_ref().map(|reason| format!(": {}", reason.trim_end_matches('.'))).unwrap_or_default();
    let until = match wait.due_at {
        Some(due) if due <= now => format!("due since {}", time(due)),
        Some(due) => format!("looked at again on {}", time(due)),
        None => "nobody tries again by itself".to_owned(),
    };
    let given_up = wait.gives_up_at.map(|at| format!(", given up on after {}", time(at))).unwrap_or_default();
    let state = match wait.state {
        State::Parked => "is parked",
        State::Waiting => "waits",
        State::Pending | State::Settled => "is still to be brought up to date",
    };
    format!("{account} {state} in connection {}, {until}{given_up}{reason}.", wait.connection)
}
