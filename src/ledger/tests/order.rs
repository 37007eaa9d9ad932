//! Changes are a set: whatever the order, the copies and the batches in which they come, and however those are split
//! over workers, the grants are the same, and so is what they mean. And nobody is forgotten: whose access changes is
//! looked at.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::access::{ChangeKey, Grant, Root, Turn};
use crate::delivery::event_time;
use crate::ledger::work::text_of;

/// What a case's deliveries tell, before they are told.
#[derive(Clone, Debug)]
struct Story {
    change: Change,
    /// The time inside the delivery's id, if it has one.
    happened: Option<i64>,
    /// When each copy was received.
    received: Vec<i64>,
}

const WORKERS: usize = 3;
const WHO: &[&str] = &["1", "2"];

fn scopes() -> Vec<Scope> {
    let labs = Scope::top(ScopeKind::Org, "1002", Some("labs".into()));
    vec![
        org(),
        labs.clone(),
        repo("7"),
        repo("8"),
        labs.part(ScopeKind::Repo, "9", None),
        org().part(ScopeKind::Team, "4", None),
    ]
}

fn roots() -> Vec<RootPattern> {
    vec!["org:#1001".parse().unwrap(), "org:#1002".parse().unwrap()]
}

fn change() -> impl Strategy<Value = Change> {
    let whose = select(WHO);
    let kind = prop_oneof![4 => Just(0), 6 => Just(1), 2 => Just(2), 4 => Just(3), 1 => Just(4)];
    (kind, whose, select(scopes())).prop_map(|(kind, whose, scope)| match kind {
        0 => gained(whose, scope),
        1 => lost(whose, scope),
        2 => seen(whose, scope),
        3 => Change::ScopeLost { scope },
        _ => Change::ScopeMoved { scope: repo("7") },
    })
}

fn story() -> impl Strategy<Value = Story> {
    // Few different times, so that ties are common.
    (change(), proptest::option::of(0_i64..12), proptest::collection::vec(0_i64..12, 1..4))
        .prop_map(|(change, happened, received)| Story { change, happened, received })
}

/// One case: what is told, in which order its copies arrive, and how they are split over batches and workers.
#[derive(Clone, Debug)]
struct Case {
    stories: Vec<Story>,
    order: Vec<Index>,
    batches: Vec<usize>,
    /// Which worker has each batch.
    workers: Vec<usize>,
}

fn case() -> impl Strategy<Value = Case> {
    (
        proptest::collection::vec(story(), 1..12),
        proptest::collection::vec(any::<Index>(), 40),
        proptest::collection::vec(1_usize..5, 40),
        proptest::collection::vec(0..WORKERS, 40),
    )
        .prop_map(|(stories, order, batches, workers)| Case { stories, order, batches, workers })
}

impl Case {
    /// The copies of delivery `n`.
    fn copies(&self, n: usize) -> Vec<Entry> {
        let story = &self.stories[n];
        let id = match story.happened {
            Some(minute) => {
                let seconds = u64::try_from(1_790_000_000 + minute * 60).unwrap();
                let time = uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0);
                Uuid::new_v1(time, &[3, 0, 0, 0, 0, u8::try_from(n).unwrap()]).to_string()
            }
            None => format!("delivery-{n}"),
        };
        let changes = placed(&roots(), story.change.clone()).into_iter().collect();
        let entry = |minute: &i64| Entry {
            delivery: delivery(&id, minute * 60),
            reading: Reading::Told { changes: Vec::clone(&changes), note: None, when: When::default() },
            approved: false,
        };
        story.received.iter().map(entry).collect()
    }

    /// Every copy of every delivery, in the case's order and batches.
    fn arrivals(&self) -> Vec<Vec<Entry>> {
        let mut waiting: Vec<Entry> = (0..self.stories.len()).flat_map(|n| self.copies(n)).collect();
        let mut shuffled = Vec::new();
        for index in self.order.iter().cycle() {
            if waiting.is_empty() {
                break;
            }
            shuffled.push(waiting.swap_remove(index.index(waiting.len())));
        }
        let mut batches = Vec::new();
        for size in self.batches.iter().cycle() {
            if shuffled.is_empty() {
                break;
            }
            let rest = shuffled.split_off((*size).min(shuffled.len()));
            batches.push(std::mem::replace(&mut shuffled, rest));
        }
        batches
    }

    /// Every change with its place in the order: the least receipt of its copies counts.
    fn changes(&self) -> Vec<(&Change, ChangeKey)> {
        let mut changes = Vec::new();
        for (n, Story { change, .. }) in self.stories.iter().enumerate() {
            let first = self.copies(n).into_iter().map(|copy| copy.delivery).min_by_key(|d| d.received_at).unwrap();
            let event_time = event_time(&first.id, first.received_at);
            let Delivery { source, id: delivery, received_at, .. } = first;
            changes.push((
                change,
                ChangeKey {
                    turn: Turn::at(event_time),
                    event_time,
                    received_at,
                    loss: change.is_loss(),
                    source,
                    delivery,
                },
            ));
        }
        changes
    }

    /// The model: a grant is the greatest of its changes, joins and leaves before sightings, and a whole scope was lost
    /// or moved by the greatest of its losses or moves.
    fn grants(&self, whose: &str) -> Vec<Grant> {
        let mut greatest: BTreeMap<_, (bool, ChangeKey, AccessKind, &Scope)> = BTreeMap::new();
        for (change, key) in self.changes() {
            if let Change::Access { account, scope, kind } = change
                && account.key.id == whose
            {
                let candidate = (*kind != AccessKind::Seen, key, *kind, scope);
                let best = greatest.entry(&scope.id).or_insert_with(|| candidate.clone());
                if (candidate.0, &candidate.1) > (best.0, &best.1) {
                    *best = candidate;
                }
            }
        }
        let grant = |(_, key, kind, scope): (bool, ChangeKey, AccessKind, &Scope)| Grant {
            scope: scope.id.clone(),
            root: scope.root.as_ref().map(|(id, _)| id.clone()),
            kind,
            key,
            scope_lost: self.whole("scope_lost", scope),
            scope_moved: self.whole("scope_moved", scope),
        };
        greatest.into_values().map(grant).collect()
    }

    fn whole(&self, word: &str, scope: &Scope) -> Option<ChangeKey> {
        let concerns = |change: &Change| change.as_str() == word && change.scope().is_some_and(|s| s.id == scope.id);
        self.changes().into_iter().filter(|(change, _)| concerns(change)).map(|(_, key)| key).max()
    }

    fn roots(&self) -> Vec<Root> {
        scopes()
            .into_iter()
            .filter(|scope| scope.root.is_none())
            .map(|scope| {
                let spoken_of = self.stories.iter().any(|s| s.change.scope().is_some_and(|s| s.top_id() == &scope.id));
                let lost = self.whole("scope_lost", &scope);
                Root { name: scope.id.id.clone(), scope: spoken_of.then_some(scope.id), lost }
            })
            .collect()
    }
}

/// An access without the names of roots, which the model doesn't know.
fn sort_of(access: &Access) -> String {
    match access {
        Access::Held { through, seen_only } => format!("held through {through}, seen only: {seen_only}"),
        Access::Gone => "gone".to_owned(),
        Access::Unknown { roots } => format!("{} roots unknown", roots.len()),
    }
}

async fn holds(on: Database, case: &Case) -> Result<(), TestCaseError> {
    let site = Site::open(on).await;
    let mut shares = vec![Vec::new(); WORKERS];
    let mut sequence = 0;
    for (mut batch, worker) in case.arrivals().into_iter().zip(case.workers.iter().cycle()) {
        for entry in &mut batch {
            sequence += 1;
            entry.delivery.stamp = Some(Stamp { run: site.run, sequence });
        }
        shares[*worker].push(batch);
    }
    let roots = roots();
    join_all((0..).zip(shares).map(|(worker, share)| work(&site.ledger, worker, share, &roots))).await;
    site.reconcile(&roots).await;
    prop_assert_eq!(site.ledger.next_due().await.unwrap(), None);
    let statuses =
        sqlx::query("SELECT id, desired FROM statuses ORDER BY id").fetch_all(&site.ledger.read).await.unwrap();
    let told_of = |id: &str| {
        case.stories.iter().any(|s| matches!(&s.change, Change::Access { account, .. } if account.key.id == id))
    };
    prop_assert_eq!(statuses.len(), WHO.iter().filter(|id| told_of(id)).count());
    for row in statuses {
        let lease = Lease { status: row.get(0), owner: String::new(), probe: false };
        let view = site.ledger.view(&lease, &|_| roots.clone()).await.unwrap();
        let whose = &view.account.key.id;
        let mut grants = view.grants.clone();
        grants.sort_by(|a, b| a.scope.cmp(&b.scope));
        let expected = case.grants(whose);
        prop_assert_eq!(&grants, &expected, "the grants of {}", whose);
        let (access_now, access_expected) = (access(&view.grants, &view.roots), access(&expected, &case.roots()));
        prop_assert_eq!(sort_of(&access_now), sort_of(&access_expected), "the access of {}", whose);
        // Whoever looked last saw all of it.
        let desired = settlement_of(&access_expected).desired.map(|status| text_of(Some(status)));
        prop_assert_eq!(row.get::<Option<String>, _>(1), desired, "the last look at {}", whose);
    }
    let balance = site.ledger.balance().await.unwrap();
    prop_assert!(balance.adds_up() && balance.missing() == 0, "{}", balance);
    prop_assert!(!balance.outcomes.contains_key("pending"), "something is left pending: {}", balance);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_order_and_the_split_the_grants_are_the_greatest_of_the_set_and_nobody_is_forgotten(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(holds(Sqlite, &case))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_order_and_the_split_the_same_holds_on_postgresql(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(holds(PostgreSql, &case))?;
    }
}
