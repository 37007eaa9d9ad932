//! `/personnel`: people with their employment status, under ids of their own.

use axum::extract::{Path, RawQuery, State};

use super::super::problem::Problem;
use super::super::query::{Page, Query};
use super::super::{Sandbox, wire};
use super::users::finds;
use super::{Answer, answer, numeric_id};

pub(super) async fn list(State(sandbox): State<Sandbox>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let page = Page::read(&query, None)?;
    let mut wanted = query.all("employmentStatuses");
    wanted.extend(query.text("employmentStatus"));
    answer(&sandbox, |state| {
        let rows: Vec<_> = state
            .people()
            .filter(|person| finds(person, &query))
            .filter(|person| wanted.is_empty() || wanted.contains(&person.employment_status.as_str()))
            .collect();
        Ok(page.of(&rows, |person| wire::personnel(person)))
    })
}

pub(super) async fn by_id(State(sandbox): State<Sandbox>, Path(id): Path<String>) -> Answer {
    let id = numeric_id(&id)?;
    answer(&sandbox, |state| {
        let person = state.people().find(|person| person.personnel_id() == id);
        person.map(wire::personnel).ok_or_else(Problem::not_found)
    })
}

pub(super) async fn by_email(State(sandbox): State<Sandbox>, Path(email): Path<String>) -> Answer {
    answer(&sandbox, |state| {
        let unknown = Problem::unknown_email(state.undocumented.unknown_email);
        state.person_by_email(&email).map(wire::personnel).ok_or(unknown)
    })
}
