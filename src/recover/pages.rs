//! The provider's lists, page by page.

use url::Url;

use super::{RecoverError, Recovery};
use crate::api::ApiError;
use crate::delivery::Timestamp;
use crate::provider::api::{Ask, UnreadableAnswer};
use crate::provider::recover::{Attempt, HookPath, Page};

/// The pages of a hook's list of attempts, the latest first, as far back as a time.
pub(super) struct Pages<'a> {
    recovery: &'a Recovery,
    hook: &'a HookPath,
    from: Timestamp,
    next: Option<Ask>,
    /// Whether it goes on where somebody else was.
    resumed: bool,
}

impl<'a> Pages<'a> {
    pub(super) fn new(recovery: &'a Recovery, hook: &'a HookPath, cursor: Option<&str>, from: Timestamp) -> Self {
        let cursor = cursor.and_then(|cursor| Url::parse(cursor).ok()).map(Ask::named);
        let resumed = cursor.is_some();
        let next = Some(cursor.unwrap_or_else(|| recovery.recover.list_attempts(hook)));
        Self { recovery, hook, from, next, resumed }
    }

    pub(super) async fn next(&mut self) -> Result<Option<Page<Attempt>>, RecoverError> {
        let Some(mut ask) = self.next.take() else { return Ok(None) };
        let failed = |why| RecoverError::Attempts {
            hook: self.hook.to_string(),
            why,
            permission: self.recovery.recover.permission(),
        };
        let mut answer = self.recovery.api.ask(&ask).await;
        // A place to go on doesn't last for ever.
        if self.resumed
            && matches!(answer, Err(ApiError::Missing { .. } | ApiError::Unexpected { .. } | ApiError::Elsewhere(_)))
        {
            ask = self.recovery.recover.list_attempts(self.hook);
            answer = self.recovery.api.ask(&ask).await;
        }
        self.resumed = false;
        let mut page =
            self.recovery.recover.read_attempts(&answer.map_err(failed)?).map_err(|why| failed(why.into()))?;
        if page.rows.iter().any(|attempt| attempt.at.is_some_and(|at| at < self.from)) {
            page.next = None;
        }
        self.next = following(&ask, page.next.clone()).map_err(|why| failed(why.into()))?;
        Ok(Some(page))
    }
}

/// The request for the next page. A list that goes round in a circle has no end.
pub(super) fn following(ask: &Ask, next: Option<Url>) -> Result<Option<Ask>, UnreadableAnswer> {
    match next.map(Ask::named) {
        Some(next) if next == *ask => Err(UnreadableAnswer("its next page is itself".to_owned())),
        next => Ok(next),
    }
}
