//! `GET /events`: what was changed through this API.

use axum::extract::{RawQuery, State};

use super::super::query::{Page, Query};
use super::super::{Sandbox, wire};
use super::{Answer, answer};

/// The last page that Drata documents for events.
const LAST_PAGE: i64 = 1000;

pub(super) async fn list(State(sandbox): State<Sandbox>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let page = Page::read(&query, Some(LAST_PAGE))?;
    let user_id = query.number("userId")?;
    let from_api = query.text("source").is_none_or(|source| source == "PUBLIC_API");
    let kind = query.text("type");
    let (from, to) = (query.day("createdAtStartDate")?, query.day("createdAtEndDate")?);
    answer(&sandbox, |state| {
        let rows: Vec<_> = state
            .events()
            .filter(|event| from_api && kind.is_none_or(|kind| kind == event.kind))
            .filter(|event| from.is_none_or(|from| from <= event.at) && to.is_none_or(|to| event.at <= to))
            .filter(|event| user_id.is_none() || event.user_id == user_id)
            .collect();
        Ok(page.of(&rows, |event| wire::event(state, event)))
    })
}
