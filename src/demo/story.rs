//! The stories of `tests/decisions.toml`: what happens to an account, and the status that it should have in the end.
//!
//! One truth for the demo, the property tests and the documentation's table. A story knows what happens and when; it
//! knows nothing of how it is sent, recorded or reconciled.

use serde::Deserialize;
use uuid::Uuid;

use crate::delivery::Timestamp;
use crate::provider::Invention;
use crate::reconcile::OnAccessLost;

const TEXT: &str = include_str!("../../tests/decisions.toml");

/// A story can't be read.
#[derive(Debug, thiserror::Error)]
pub enum StoryError {
    /// It isn't TOML, or not of the right shape.
    #[error("the stories: {0}")]
    Shape(#[from] toml::de::Error),
    /// A story contradicts itself.
    #[error("the story {story}: {message}")]
    Contradiction {
        /// The story's name.
        story: String,
        /// What is wrong with it.
        message: &'static str,
    },
}

/// What happens to one account, and the status that it should have in the end.
#[derive(Clone, Debug)]
pub struct Story {
    /// Its place in the file, from 0.
    pub number: u16,
    /// A short name that never changes.
    pub name: String,
    /// What happens, for people.
    pub title: String,
    /// Whose story it is.
    pub account: Labelled,
    /// The organisation in which it happens.
    pub organization: Labelled,
    /// What the source says about lost access.
    pub on_access_lost: OnAccessLost,
    /// How the platform misbehaves meanwhile, in the words of `rollcall sandbox --fault`.
    pub fault: Option<String>,
    /// What happens, in the order of arrival.
    pub steps: Vec<Step>,
    /// The status in the end.
    pub expect: Expected,
    /// Why, for people.
    pub because: String,
}

/// A login or name, and the provider's stable id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labelled {
    /// The label.
    pub login: String,
    /// The stable id.
    pub id: String,
}

/// The status that an account should have in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Linked to its person.
    Linked,
    /// Linked to nobody.
    Unlinked,
    /// As it was before.
    Kept,
    /// Not asked about, not changed.
    Untouched,
    /// The delivery isn't taken at all.
    Refused,
}

impl Expected {
    /// The word used in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Linked => "linked",
            Self::Unlinked => "unlinked",
            Self::Kept => "kept",
            Self::Untouched => "untouched",
            Self::Refused => "refused",
        }
    }
}

/// One delivery of a story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The event and its action.
    pub event: String,
    /// When it happens, in minutes.
    pub at: u16,
    /// When it arrives, in minutes; never before `at`.
    pub received: u16,
    /// The step whose delivery this is: itself, or the earlier one that is delivered again.
    pub original: usize,
    /// The account's login at that time.
    pub login: String,
    /// The name of the team or repository, where the event has one.
    pub part: Option<String>,
    /// Its stable id.
    pub part_id: Option<String>,
    /// Whether it is signed with another secret than the source's.
    pub wrong_signature: bool,
}

impl Step {
    /// Whether it delivers an earlier step again.
    #[must_use]
    pub fn is_copy_in(&self, story: &Story) -> bool {
        story.steps.get(self.original).is_some_and(|original| original != self)
    }

    /// When its delivery arrives, if minute 0 is `base`.
    #[must_use]
    pub fn received_at(&self, base: Timestamp) -> Timestamp {
        // A delivery takes a moment from the provider to us.
        minutes(base, self.received).plus_micros(200_000)
    }
}

fn minutes(base: Timestamp, minutes: u16) -> Timestamp {
    base.plus_micros(i64::from(minutes) * 60_000_000)
}

impl Story {
    /// Every story, in the order of the file.
    ///
    /// # Errors
    /// If the file contradicts itself; a test holds that it doesn't.
    pub fn all() -> Result<Vec<Self>, StoryError> {
        let file: File = toml::from_str(TEXT)?;
        file.story.into_iter().zip(0..).map(|(story, number)| story.resolve(number)).collect()
    }

    /// What a signer needs to invent the delivery of a step, if minute 0 is `base`. Copies get the id of their original,
    /// and the id tells when the event happened, as GitHub's do: rollcall believes it up to five minutes ahead of its
    /// arrival and thirty days behind, so that a story that is told live needs a `base` in the past.
    #[must_use]
    pub fn invention(&self, step: &Step, base: Timestamp) -> Invention {
        Invention {
            id: Some(self.delivery_id(step, base).to_string()),
            event: step.event.clone(),
            login: step.login.clone(),
            account_id: self.account.id.clone(),
            root: self.organization.login.clone(),
            root_id: self.organization.id.clone(),
            part: step.part.clone(),
            part_id: step.part_id.clone(),
        }
    }

    /// A UUID of version 1: the time of the event, made unique by the story and the step.
    fn delivery_id(&self, step: &Step, base: Timestamp) -> Uuid {
        let micros = u64::try_from(minutes(base, step.at).micros()).unwrap_or_default();
        let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or_default();
        let time = uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos);
        let [high, low] = self.number.to_be_bytes();
        let step = u8::try_from(step.original).unwrap_or(u8::MAX);
        // The first byte marks an address that belongs to no network card.
        Uuid::new_v1(time, &[0x03, 0, 0, high, low, step])
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    story: Vec<WrittenStory>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStory {
    name: String,
    title: String,
    account: Labelled,
    organization: Option<Labelled>,
    on_access_lost: Option<String>,
    fault: Option<String>,
    steps: Vec<WrittenStep>,
    expect: Expected,
    because: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    event: Option<String>,
    at: Option<u16>,
    received: Option<u16>,
    copy_of: Option<usize>,
    login: Option<String>,
    part: Option<String>,
    part_id: Option<String>,
    #[serde(default)]
    wrong_signature: bool,
}

impl WrittenStory {
    fn resolve(self, number: u16) -> Result<Story, StoryError> {
        let wrong = |message| StoryError::Contradiction { story: self.name.clone(), message };
        let on_access_lost = match self.on_access_lost.as_deref() {
            None | Some("unlink") => OnAccessLost::Unlink,
            Some("keep") => OnAccessLost::Keep,
            Some(_) => return Err(wrong("on_access_lost must be unlink or keep")),
        };
        let mut login = self.account.login.clone();
        let mut steps: Vec<Step> = Vec::with_capacity(self.steps.len());
        for (index, written) in self.steps.into_iter().enumerate() {
            let step = match written {
                WrittenStep { copy_of: Some(original), received: Some(received), event: None, at: None, .. } => {
                    let copied = steps.get(original).ok_or_else(|| wrong("copy_of must name an earlier step"))?;
                    Step { received, original, wrong_signature: written.wrong_signature, ..copied.clone() }
                }
                WrittenStep { copy_of: None, event: Some(event), at: Some(at), received, .. } => {
                    login = written.login.unwrap_or(login);
                    Step {
                        event,
                        at,
                        received: received.unwrap_or(at),
                        original: index,
                        login: login.clone(),
                        part: written.part,
                        part_id: written.part_id,
                        wrong_signature: written.wrong_signature,
                    }
                }
                _ => return Err(wrong("a step has either event and at, or copy_of and received")),
            };
            if step.received < step.at {
                return Err(wrong("a step arrives before it happens"));
            }
            steps.push(step);
        }
        Ok(Story {
            number,
            name: self.name,
            title: self.title,
            account: self.account,
            organization: self
                .organization
                .unwrap_or_else(|| Labelled { login: "acme".to_owned(), id: "1001".to_owned() }),
            on_access_lost,
            fault: self.fault,
            steps,
            expect: self.expect,
            because: self.because,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_story_can_be_read_and_has_a_name_and_an_account_of_its_own() {
        let stories = Story::all().unwrap();
        let names: BTreeSet<&str> = stories.iter().map(|story| story.name.as_str()).collect();
        let accounts: BTreeSet<&str> = stories.iter().map(|story| story.account.id.as_str()).collect();
        assert_eq!((names.len(), accounts.len()), (stories.len(), stories.len()));
        assert!(stories.iter().all(|story| !story.steps.is_empty() && story.because.ends_with('.')));
    }

    #[test]
    fn a_copy_has_the_id_of_its_original_and_nothing_else_has() {
        let base = Timestamp(1_790_000_000_000_000);
        let mut ids = BTreeSet::new();
        for story in Story::all().unwrap() {
            for (index, step) in story.steps.iter().enumerate() {
                let is_new = ids.insert(story.invention(step, base).id);
                assert_eq!(is_new, step.original == index, "{} {index}", story.name);
                assert_eq!(step.is_copy_in(&story), step.original != index);
            }
        }
    }

    #[test]
    fn the_id_tells_when_it_happened() {
        let base = Timestamp(1_790_000_000_123_456);
        for story in Story::all().unwrap() {
            for step in &story.steps {
                let id: crate::delivery::DeliveryId = story.invention(step, base).id.unwrap().parse().unwrap();
                assert_eq!(id.time(), Some(minutes(base, step.at)));
            }
        }
    }
}
