//! Pages that came with an `ETag`, so that the same page needn't be sent again.

use std::collections::HashMap;
use std::sync::Mutex;

use http::HeaderValue;
use url::Url;

use crate::provider::api::Answer;

/// How many bytes of pages are kept. What comes beyond is asked for anew each time.
const KEPT: usize = 8 << 20;

#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    pages: HashMap<Url, (HeaderValue, Answer)>,
    bytes: usize,
}

impl Cache {
    pub(super) fn get(&self, url: &Url) -> Option<(HeaderValue, Answer)> {
        self.0.lock().ok()?.pages.get(url).cloned()
    }

    pub(super) fn put(&self, url: &Url, etag: HeaderValue, answer: &Answer) {
        let Ok(mut kept) = self.0.lock() else { return };
        if let Some((_, before)) = kept.pages.remove(url) {
            kept.bytes -= before.body.len();
        }
        if kept.bytes + answer.body.len() <= KEPT {
            kept.bytes += answer.body.len();
            kept.pages.insert(url.clone(), (etag, answer.clone()));
        }
    }
}
