//! `/users`

use axum::extract::{Path, RawQuery, State};

use super::super::problem::Problem;
use super::super::query::{Page, Query};
use super::super::state::Person;
use super::super::{Sandbox, wire};
use super::{Answer, answer, numeric_id};

pub(super) async fn list(State(sandbox): State<Sandbox>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let page = Page::read(&query, None)?;
    answer(&sandbox, |state| {
        let rows: Vec<_> = state.people().filter(|person| finds(person, &query)).collect();
        Ok(page.of(&rows, |person| wire::user(person)))
    })
}

pub(super) async fn by_id(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let id = numeric_id(&id)?;
    answer(&sandbox, |state| state.person(id).map(wire::user).ok_or_else(Problem::not_found))
}

pub(super) async fn by_email(State(sandbox): State<Sandbox>, Path(email): Path<String>) -> Answer {
    answer(&sandbox, |state| {
        let unknown = Problem::unknown_email(state.undocumented.unknown_email);
        state.person_by_email(&email).map(wire::user).ok_or(unknown)
    })
}

/// Whether the `q` of a list is found in a person's names or e-mail address.
pub(super) fn finds(person: &Person, query: &Query) -> bool {
    let wanted = query.text("q").unwrap_or_default().to_lowercase();
    let Person { email, first_name, last_name, .. } = person;
    [email.clone(), format!("{first_name} {last_name}")].iter().any(|value| value.to_lowercase().contains(&wanted))
}
