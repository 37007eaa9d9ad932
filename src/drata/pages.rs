//! Reading a whole list, page by page.

use std::collections::HashSet;
use std::hash::Hash;

use reqwest::Method;
use serde_json::value::RawValue;

use super::call::Operation;
use super::client::Client;
use super::wire::Page;
use crate::target::{Failure, FailureClass};

/// The largest page that Drata gives.
const PAGE: usize = 50;

/// More pages than any list should have.
const MAX_PAGES: usize = 1000;

impl Client {
    /// All rows of a list. `read` makes a row and its id of the JSON; rows that can't be read are skipped and counted.
    ///
    /// A list that can't be read to its end is a failure and never a shorter list: what is missing would pass for gone.
    pub(super) async fn list<T, K: Eq + Hash>(
        &self,
        operation: Operation,
        path: &[&str],
        query: &[(&str, String)],
        read: impl Fn(&RawValue) -> Option<(K, T)>,
    ) -> Result<Vec<T>, Failure> {
        let mut rows = Vec::new();
        let mut ids = HashSet::new();
        let mut skipped = 0_usize;
        for page in 1..=MAX_PAGES {
            let request = self.request(Method::GET, path).query(query).query(&[("page", page), ("limit", PAGE)]);
            let body = self.send(operation, request, None).await?;
            let Some(Page { data, limit, total }) = body.as_deref().and_then(Page::parse) else {
                return Err(unreadable("Drata's list can't be read"));
            };
            let (before, unread) = (rows.len(), skipped);
            for row in &data {
                match read(row) {
                    Some((id, row)) => {
                        if ids.insert(id) {
                            rows.push(row);
                        }
                    }
                    None => skipped += 1,
                }
            }
            let complete = match total {
                Some(total) => rows.len() + skipped >= total,
                None => data.len() < limit.map_or(PAGE, |limit| limit.min(PAGE)),
            };
            if complete || data.is_empty() {
                report(operation, skipped);
                return Ok(rows);
            }
            // Some servers give the first page whatever page they are asked for.
            if rows.len() == before && skipped == unread {
                return Err(unreadable("Drata's list repeats itself"));
            }
        }
        Err(unreadable("Drata's list has no end"))
    }
}

fn report(operation: Operation, skipped: usize) {
    if skipped > 0 {
        tracing::warn!(?operation, skipped, "rows of Drata's list can't be read");
        metrics::counter!("rollcall_target_rows_skipped_total", "target" => "drata").increment(skipped as u64);
    }
}

fn unreadable(message: &str) -> Failure {
    let message = message.to_owned();
    Failure { class: FailureClass::Transient, status: Some(200), retry_after: None, message }
}
