//! GitLab's events, from the body to the grants, in every order of arrival: a removal bears no time of its own, and what
//! tells the order is the membership's row.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::json;

use super::*;
use crate::provider::{self, Interpreter, SourceSettings};

const HOST: &str = "git.larkspur.example";

/// One membership's row: made, changed so many times, and perhaps removed.
#[derive(Clone, Debug)]
struct Row {
    changes: usize,
    removed: bool,
}

#[derive(Clone, Debug)]
struct Case {
    /// The rows of each group, one after the other; all but the last end before the next begins.
    groups: [Vec<Row>; 2],
    /// Whether the account is deleted in the end.
    destroyed: bool,
    /// How far GitLab's clock is ahead, in seconds.
    ahead: i64,
    /// When each event is received, in seconds, and in which order.
    received: Vec<i64>,
    order: Vec<Index>,
}

const GROUPS: [u64; 2] = [42, 43];

fn case() -> impl Strategy<Value = Case> {
    let row = (0_usize..3, any::<bool>()).prop_map(|(changes, removed)| Row { changes, removed });
    let rows = || proptest::collection::vec(row.clone(), 0..4);
    (
        rows(),
        rows(),
        prop::bool::weighted(0.3),
        prop_oneof![Just(0_i64), Just(2_000_000)],
        proptest::collection::vec(0_i64..500, 40),
        proptest::collection::vec(any::<Index>(), 40),
    )
        .prop_map(|(first, second, destroyed, ahead, received, order)| Case {
            groups: [first, second],
            destroyed,
            ahead,
            received,
            order,
        })
}

impl Case {
    /// Every event in the order in which it happens. Times of a row never tie with another's; within a row they may, since
    /// a removal bears the time of the last change before it.
    fn bodies(&self) -> Vec<serde_json::Value> {
        let mut clock = 0;
        let mut tick = || {
            clock += 1;
            let time = Timestamp((1_789_000_000 + self.ahead + clock) * 1_000_000);
            // GitLab's times are of whole seconds.
            time.to_string()
        };
        let mut bodies = vec![json!({ "event_name": "user_create", "user_id": 71, "created_at": tick() })];
        for (group, rows) in GROUPS.iter().zip(&self.groups) {
            let last = rows.len();
            for (number, row) in rows.iter().enumerate() {
                let created = tick();
                let mut updated = created.clone();
                let mut event = |event: &str, updated: &str| {
                    bodies.push(json!({
                        "event_name": event, "user_id": 71, "user_username": "rosalind", "group_id": group,
                        "group_path": "garden", "created_at": created, "updated_at": updated, "expires_at": null,
                    }));
                };
                event("user_add_to_group", &updated);
                for _ in 0..row.changes {
                    updated = tick();
                    event("user_update_for_group", &updated);
                }
                if row.removed || number + 1 < last {
                    event("user_remove_from_group", &updated);
                }
            }
        }
        if self.destroyed {
            bodies.push(json!({ "event_name": "user_destroy", "user_id": 71, "username": "rosalind" }));
        }
        bodies
    }

    fn is_held(&self, group: usize) -> bool {
        self.groups[group].last().is_some_and(|row| !row.removed)
    }

    /// What the account has in the end.
    fn expected(&self, root: &str) -> &'static str {
        let any = self.is_held(0) || self.is_held(1);
        match root {
            _ if self.destroyed => "gone",
            // An account of the instance is held through it.
            "instance" => "held",
            _ if any => "held",
            _ if !self.groups[0].is_empty() => "gone",
            _ if !self.groups[1].is_empty() => "unknown",
            _ => "nothing",
        }
    }
}

fn interpreter(root: &str) -> (Box<dyn Interpreter>, Vec<RootPattern>) {
    let settings = SourceSettings {
        name: "acme".parse().unwrap(),
        host: HOST.into(),
        roots: vec![root.parse().unwrap()],
        sightings: true,
        verify: Some("token".into()),
        header: None,
        own: toml::Table::new(),
    };
    ((provider::find("gitlab").unwrap().interpreter)(&settings).unwrap(), settings.roots)
}

/// Records the case's events in its order, one batch each, and looks at the account after each.
async fn holds(on: Database, case: &Case, root: &str) -> Result<(), TestCaseError> {
    let (interpreter, roots) = interpreter(root);
    let mut waiting: Vec<Entry> = Vec::new();
    for (number, body) in case.bodies().iter().enumerate() {
        let mut delivery = delivery(&format!("d-{number}"), case.received[number % case.received.len()]);
        (delivery.provider, delivery.body) = ("gitlab".to_owned(), body.to_string().into());
        let meaning = interpreter.interpret(&delivery).unwrap();
        let changes: Vec<Placed> = meaning.changes.into_iter().filter_map(|change| placed(&roots, change)).collect();
        if !changes.is_empty() {
            let reading = Reading::Told { changes, note: meaning.note, when: meaning.when };
            waiting.push(Entry { delivery, reading, approved: false });
        }
    }
    let mut site = Site::open(on).await;
    let mut last: BTreeMap<String, &'static str> = BTreeMap::new();
    for index in case.order.iter().cycle() {
        if waiting.is_empty() {
            break;
        }
        site.record([waiting.swap_remove(index.index(waiting.len()))]).await;
        for (account, access) in site.reconcile(&roots).await {
            let now = match access {
                Access::Held { .. } => "held",
                Access::Gone => "gone",
                Access::Unknown { .. } => "unknown",
            };
            last.insert(account.key.id, now);
        }
    }
    prop_assert_eq!(last.get("71").copied().unwrap_or("nothing"), case.expected(root), "{}", root);
    Ok(())
}

fn told(on: Database, case: &Case) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        holds(on, case, "instance").await?;
        holds(on, case, "group:#42").await
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn memberships_end_as_their_rows_did_whatever_the_order_of_arrival(case in case()) {
        told(Sqlite, &case)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn memberships_end_the_same_on_postgresql(case in case()) {
        told(PostgreSql, &case)?;
    }
}

/// Times are for people too: what is shown is when a thing happened, not its place in the order.
#[tokio::test]
async fn a_removal_is_shown_at_its_receipt_and_ends_what_was_only_seen_before() {
    let (interpreter, roots) = interpreter("group:#42");
    let mut site = Site::open(Sqlite).await;
    let body = |event: &str| {
        json!({
            "event_name": event, "user_id": 71, "group_id": 42, "project_id": 9,
            "created_at": "2020-03-01T10:00:00Z", "updated_at": "2020-03-01T10:00:00Z",
        })
    };
    for (second, event) in [(10, "user_add_to_group"), (20, "push"), (30, "user_remove_from_group")] {
        let mut delivery = delivery(event, second);
        (delivery.provider, delivery.body) = ("gitlab".to_owned(), body(event).to_string().into());
        let meaning = interpreter.interpret(&delivery).unwrap();
        let changes = meaning.changes.into_iter().filter_map(|change| placed(&roots, change)).collect();
        let reading = Reading::Told { changes, note: None, when: meaning.when };
        site.record([Entry { delivery, reading, approved: false }]).await;
    }
    let (_, view) = site.take_one().await;
    assert_eq!(access(&view.grants, &view.roots), Access::Gone);
    let removal = view.grants.iter().find(|grant| grant.kind == AccessKind::Lost).unwrap();
    assert_eq!(removal.key.event_time, removal.key.received_at);
}
