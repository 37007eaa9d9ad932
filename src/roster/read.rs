//! Reading a roster: one question after the other, until it is whole. A reading that breaks off is none.

use std::collections::VecDeque;

use crate::access::RootPattern;
use crate::api::{Api, ApiError};
use crate::ledger::LedgerError;
use crate::provider::api::{To, UnreadableAnswer};
use crate::provider::roster::{About, Found, Question, Roster, Whole};

/// After so many questions a reading is given up: an API whose pages never end has lost its way.
const MOST: usize = 100_000;

/// A roster can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// The provider has no such roster.
    #[error("{0}")]
    None(String),
    /// A question wasn't answered.
    #[error("{error}{}", need(.error, .needs))]
    Unanswered {
        /// Why.
        error: ApiError,
        /// What the token needs for it.
        needs: &'static str,
    },
    /// An answer isn't what it should be.
    #[error("{place}: {error}")]
    Unreadable {
        /// What was asked for.
        place: String,
        /// What is wrong with it.
        error: UnreadableAnswer,
    },
    /// It didn't end.
    #[error("it didn't end after {MOST} requests")]
    Endless,
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl RosterError {
    /// Whether reading it again later may help without anybody doing anything about it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unanswered { error, .. } => error.is_transient(),
            Self::Ledger(error) => error.is_transient(),
            Self::None(_) | Self::Unreadable { .. } | Self::Endless => false,
        }
    }
}

/// What the token needs, where that may be the reason.
fn need(error: &ApiError, needs: &str) -> String {
    if error.is_transient() { String::new() } else { format!("; it takes {needs}") }
}

/// Reads a root's roster to the end.
///
/// # Errors
/// If any question isn't answered: then nothing is known.
pub async fn read(api: &Api, roster: &dyn Roster, root: &RootPattern) -> Result<Whole, RosterError> {
    let mut found = Found::default();
    let mut questions = VecDeque::from([roster.begin(root).map_err(RosterError::None)?]);
    let mut asked = 0;
    while let Some(question) = questions.pop_front() {
        asked += 1;
        if asked > MOST {
            return Err(RosterError::Endless);
        }
        questions.extend(ask(api, roster, &question, &mut found).await?);
    }
    found.whole().map_err(|error| unreadable(root, error))
}

/// Asks no more than what shows whether the token can do it: about the root, and for one page of each list.
///
/// # Errors
/// If a question isn't answered.
pub async fn probe(api: &Api, roster: &dyn Roster, root: &RootPattern) -> Result<(), RosterError> {
    let mut found = Found::default();
    let first = roster.begin(root).map_err(RosterError::None)?;
    for question in ask(api, roster, &first, &mut found).await? {
        let further = ask(api, roster, &question, &mut found).await?;
        if let Some(sight) = further.iter().find(|further| further.about == About::Sight) {
            ask(api, roster, sight, &mut found).await?;
        }
    }
    found.whole().map(|_| ()).map_err(|error| unreadable(root, error))
}

async fn ask(
    api: &Api,
    roster: &dyn Roster,
    question: &Question,
    found: &mut Found,
) -> Result<Vec<Question>, RosterError> {
    let answer =
        api.ask(&question.ask).await.map_err(|error| RosterError::Unanswered { error, needs: question.needs })?;
    roster.read(question, &answer, found).map_err(|error| RosterError::Unreadable { place: place(question), error })
}

fn unreadable(root: &RootPattern, error: UnreadableAnswer) -> RosterError {
    RosterError::Unreadable { place: root.to_string(), error }
}

/// What a question asked for, without its query.
fn place(question: &Question) -> String {
    match &question.ask.to {
        To::Below { path, .. } => path.join("/"),
        To::Named(url) => url.path().trim_start_matches('/').to_owned(),
    }
}
