//! `GET /connections`

use axum::extract::{RawQuery, State};

use super::super::query::{Page, Query};
use super::super::{Sandbox, wire};
use super::{Answer, answer};

const STATES: &[&str] = &["ACTIVE", "MISCONFIGURED", "CONFIGURED_PENDING_CONFIRMATION", "IN_PROGRESS"];

pub(super) async fn list(State(sandbox): State<Sandbox>, RawQuery(query): RawQuery) -> Answer {
    let query = Query::read(query.as_deref());
    let page = Page::read(&query, None)?;
    let active = query.word("state", STATES)?.is_none_or(|state| state == "ACTIVE");
    let types = query.all("providerTypes");
    answer(&sandbox, |state| {
        let rows: Vec<_> = state
            .connections()
            .filter(|row| active && (types.is_empty() || types.contains(&row.provider_type())))
            .collect();
        Ok(page.of(&rows, |row| wire::connection(row)))
    })
}
