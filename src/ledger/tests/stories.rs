//! The stories of `tests/decisions.toml`, from the signed request to the grants, in every order of arrival.

use std::collections::BTreeMap;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::delivery::{Encodings, Unverified, Verified};
use crate::demo::story::{Expected, Story};
use crate::provider::{self, Interpreter, Secret, Signer, SourceSettings, Verifier};
use crate::reconcile::OnAccessLost;

const BASE: Timestamp = Timestamp(1_790_000_000_000_000);

/// A GitHub source whose only root is acme.
struct Source {
    settings: SourceSettings,
    verifier: Box<dyn Verifier>,
    interpreter: Box<dyn Interpreter>,
    signer: Box<dyn Signer>,
    forger: Box<dyn Signer>,
}

impl Source {
    fn new() -> Self {
        let settings = SourceSettings {
            name: "acme-github".parse().unwrap(),
            host: "github.com".into(),
            roots: vec!["org:acme".parse().unwrap()],
            sightings: false,
            verify: None,
            header: None,
            own: toml::Table::new(),
        };
        let secret = |value: &str| Secret { name: SecretName("env:HOOK".into()), value: value.to_owned().into() };
        let github = provider::find("github").unwrap();
        Self {
            verifier: (github.verifier)(&settings, vec![secret("right")]).unwrap(),
            interpreter: (github.interpreter)(&settings).unwrap(),
            signer: (github.signer)(&settings, secret("right")).unwrap(),
            forger: (github.signer)(&settings, secret("wrong")).unwrap(),
            settings,
        }
    }

    fn verified(&self, headers: &HeaderMap, body: Vec<u8>, now: Timestamp) -> Option<Verified> {
        let body = Bytes::from(body);
        self.verifier.precheck(headers).ok()?;
        self.verifier.verify(Unverified::new(headers, &body, Encodings::JsonOrForm), now).ok()
    }

    /// The steps of a story as the worker would record them; those that ingress refuses are not among them.
    fn entries(&self, story: &Story) -> Vec<Entry> {
        story
            .steps
            .iter()
            .filter_map(|step| {
                let now = step.received_at(BASE);
                let draft = self.signer.invent(&story.invention(step, BASE)).unwrap();
                let signer = if step.wrong_signature { &self.forger } else { &self.signer };
                let request = signer.sign(&draft, now).unwrap();
                let verified = self.verified(&request.headers, request.body, now)?;
                let named = self.verifier.name(&request.headers, &verified).unwrap();
                let delivery = verified.into_delivery(self.settings.name.clone(), "github", named, now);
                Some(Entry { reading: self.reading(&delivery), delivery, approved: false })
            })
            .collect()
    }

    fn reading(&self, delivery: &Delivery) -> Reading {
        let meaning = self.interpreter.interpret(delivery).unwrap();
        let changes: Vec<Placed> =
            meaning.changes.into_iter().filter_map(|change| placed(&self.settings.roots, change)).collect();
        if changes.is_empty() {
            return Reading::Ignored(meaning.note.unwrap_or_else(|| "outside the source's scopes".to_owned()));
        }
        Reading::Told { changes, note: meaning.note, when: meaning.when }
    }
}

/// What the ledger's view of an account comes to under a story's policy.
fn verdict(story: &Story, looked_at: Option<&(Account, Access)>) -> Expected {
    match looked_at {
        None => Expected::Untouched,
        Some((account, _)) if account.kind == AccountKind::Bot => Expected::Untouched,
        Some((_, Access::Held { .. })) => Expected::Linked,
        Some((_, Access::Gone)) if story.on_access_lost == OnAccessLost::Unlink => Expected::Unlinked,
        Some((_, Access::Gone | Access::Unknown { .. })) => Expected::Kept,
    }
}

/// Records the deliveries of all stories in the order that `shuffled` makes, looking at what is due after each batch,
/// and holds the last look at each account to its story.
async fn tell(on: Database, shuffled: impl FnOnce(Vec<Entry>) -> Vec<Vec<Entry>>) -> Result<(), TestCaseError> {
    let (source, stories) = (Source::new(), Story::all().unwrap());
    let mut entries = Vec::new();
    for story in &stories {
        let of_story = source.entries(story);
        prop_assert_eq!(of_story.is_empty(), story.expect == Expected::Refused, "{}", story.name);
        entries.extend(of_story);
    }
    let mut site = Site::open(on).await;
    let mut last: BTreeMap<String, (Account, Access)> = BTreeMap::new();
    for batch in shuffled(entries) {
        site.record(batch).await;
        for (account, access) in site.reconcile(&source.settings.roots).await {
            last.insert(account.key.id.clone(), (account, access));
        }
    }
    for story in stories.iter().filter(|story| story.expect != Expected::Refused) {
        prop_assert_eq!(verdict(story, last.get(&story.account.id)), story.expect, "{}", story.name);
    }
    for word in ["pending", "waiting", "parked", "held"] {
        prop_assert!(!site.ledger.balance().await.unwrap().outcomes.contains_key(word), "something is left {}", word);
    }
    Ok(())
}

#[rstest]
#[tokio::test]
async fn every_story_ends_as_it_says(#[values(Sqlite, PostgreSql)] on: Database) {
    tell(on, |entries| entries.into_iter().map(|entry| vec![entry]).collect()).await.unwrap();
}

#[rstest]
#[tokio::test]
async fn a_renamed_account_is_known_by_its_new_login(#[values(Sqlite, PostgreSql)] on: Database) {
    let (source, stories) = (Source::new(), Story::all().unwrap());
    let story = stories.iter().find(|story| story.name == "rename").unwrap();
    let mut site = Site::open(on).await;
    site.record(source.entries(story)).await;
    let (_, view) = site.take_one().await;
    assert_eq!(view.account.login.as_deref(), Some("hana-nakamura"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_story_ends_the_same_in_any_order_of_arrival(
        seeds in proptest::collection::vec(any::<u64>(), 64),
        size in 1_usize..12,
        on in proptest::sample::select(vec![Sqlite, PostgreSql]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tell(on, |entries| {
            let mut keyed: Vec<(u64, Entry)> = seeds.iter().copied().cycle().zip(entries).collect();
            keyed.sort_by_key(|(seed, _)| *seed);
            let shuffled: Vec<Entry> = keyed.into_iter().map(|(_, entry)| entry).collect();
            shuffled.chunks(size).map(<[Entry]>::to_vec).collect()
        }))?;
    }
}
