//! What rosters showed: in the order of the changes, whichever comes first, and from one reading to the next.

use serde_json::json;

use super::*;
use crate::access::observation::{Observation, Observed};
use crate::access::{ScopeId, Step, Turn};
use crate::ledger::outcome::Outcome::{Applied, Held as HeldBack, Pending, Superseded};
use crate::ledger::rosters::{Shown, ShownBefore};
use crate::provider::{self, Interpreter, SourceSettings};
use crate::worker::{Connections, Reader, WorkerSource};

const SECOND: i64 = 1_000_000;

fn time(second: i64) -> Timestamp {
    Timestamp(1_790_000_000_000_000 + second * SECOND)
}

fn settings(provider: &str, root: &str) -> SourceSettings {
    SourceSettings {
        name: "acme-github".parse().unwrap(),
        host: "github.com".into(),
        roots: vec![root.parse().unwrap()],
        sightings: false,
        verify: (provider == "gitlab").then(|| "token".into()),
        header: None,
        own: toml::Table::new(),
    }
}

fn interpreter(provider: &str, root: &str) -> Box<dyn Interpreter> {
    (provider::find(provider).unwrap().interpreter)(&settings(provider, root)).unwrap()
}

/// Reads deliveries as the worker does.
fn reader(provider: &'static str, root: &str) -> Reader {
    let source = WorkerSource {
        provider,
        host: "github.com".into(),
        interpreter: interpreter(provider, root),
        roots: vec![root.parse().unwrap()],
        connections: Connections::One(ConnectionRef::Only("GITHUB".into())),
        mass_change_limit: 2,
    };
    Reader::new([("acme-github".parse().unwrap(), source)].into())
}

/// What was observed, as it is recorded.
fn observed(
    provider: &'static str,
    root: &str,
    number: u128,
    at: i64,
    observations: impl IntoIterator<Item = (String, Scope, AccessKind, Turn)>,
) -> Entry {
    let observations = observations.into_iter().map(|(id, scope, access, turn)| {
        let mut account = account(&id);
        account.key.provider = provider.into();
        Observation { account, scope, access, role: None, turn }
    });
    let observed =
        Observed { at: time(at), roster: root.into(), first_seen_at: None, observations: observations.collect() };
    let delivery =
        observed.delivery("acme-github".parse().unwrap(), provider, Uuid::from_u128(number), time(at + 300)).unwrap();
    let reading = reader(provider, root).read(&delivery);
    Entry { delivery, reading, approved: false }
}

/// An event, as it is recorded.
fn event(provider: &'static str, root: &str, id: &str, received: i64, name: &str, body: &serde_json::Value) -> Entry {
    let mut delivery = delivery(id, received);
    (delivery.provider, delivery.body) = (provider.to_owned(), body.to_string().into());
    delivery.event = name.parse().unwrap();
    let reading = reader(provider, root).read(&delivery);
    Entry { delivery, reading, approved: false }
}

/// What a test does to some user, again and again with other users.
type Told = Box<dyn Fn(u64) -> Entry>;

fn github_event(id: &'static str, received: i64, joined: bool) -> Told {
    let (action, name) = if joined {
        ("member_added", "organization.member_added")
    } else {
        ("member_removed", "organization.member_removed")
    };
    Box::new(move |user| {
        let sender = json!({ "id": 9, "login": "x", "type": "User" });
        let body = json!({
            "action": action, "organization": { "id": 1, "login": "acme" }, "sender": sender,
            "membership": { "user": { "id": user, "login": format!("u{user}"), "type": "User" }, "role": "member" },
        });
        event("github", "org:acme", &format!("{id}-{user}"), received, name, &body)
    })
}

fn gitlab_event(id: &'static str, received: i64, name: &'static str, row: i64) -> Told {
    Box::new(move |user| {
        let body = json!({
            "event_name": name, "user_id": user, "user_username": format!("u{user}"), "group_id": 42, "group_path": "acme",
            "created_at": time(row).to_string(), "updated_at": time(row).to_string(), "group_access": "Developer",
        });
        event("gitlab", "group:#42", &format!("{id}-{user}"), received, name, &body)
    })
}

fn github_observation(number: u128, at: i64, access: AccessKind) -> Told {
    Box::new(move |user| {
        let root = Scope::top(ScopeKind::Org, "1", Some("acme".into()));
        let number = number << 64 | u128::from(user);
        observed("github", "org:acme", number, at, [(user.to_string(), root, access, Turn::at(time(at)))])
    })
}

fn gitlab_observation(number: u128, at: i64, access: AccessKind, row: i64, step: Step) -> Told {
    Box::new(move |user| {
        let root = Scope::top(ScopeKind::Group, "42", Some("acme".into()));
        let (number, turn) = (number << 64 | u128::from(user), Turn::Of { began: time(row), step });
        observed("gitlab", "group:#42", number, at, [(user.to_string(), root, access, turn)])
    })
}

/// Records these in every order, each time of another user, one transaction each. They always come to the same.
async fn in_any_order(site: &mut Site, root: &str, told: &[Told], held: bool) {
    let mut orders: Vec<Vec<usize>> = vec![vec![]];
    for n in 0..told.len() {
        let grown = orders
            .iter()
            .flat_map(|order| (0..=order.len()).map(move |at| [&order[..at], &[n], &order[at..]].concat()));
        orders = grown.collect();
    }
    for order in orders {
        let user = 10_000 + fastrand::u64(..1_000_000_000);
        let mut last = None;
        for &n in &order {
            site.record([told[n](user)]).await;
            let looked_at = site.reconcile(&[root.parse().unwrap()]).await;
            last = looked_at.into_iter().next_back().map(|(_, access)| access).or(last);
        }
        let is_held = matches!(last, Some(Access::Held { .. }));
        assert_eq!(is_held, held, "{order:?}: {last:?}");
        assert!(is_held || last == Some(Access::Gone), "{order:?}: {last:?}");
    }
}

#[rstest]
#[tokio::test]
async fn by_time_the_later_of_an_observation_and_an_event_counts_in_any_order_of_arrival(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let site = &mut Site::open(on).await;
    let joined = || github_event("join", 10, true);
    let left = |at| github_event("leave", at, false);
    // The observation came before the leave.
    in_any_order(site, "org:acme", &[joined(), left(50), github_observation(1, 40, AccessKind::Gained)], false).await;
    // And after it: the re-join was missed.
    in_any_order(site, "org:acme", &[joined(), left(50), github_observation(1, 60, AccessKind::Gained)], true).await;
    // The leave was missed, and a join is told later.
    let gone = || github_observation(1, 40, AccessKind::Lost);
    in_any_order(site, "org:acme", &[joined(), gone()], false).await;
    in_any_order(site, "org:acme", &[joined(), gone(), github_event("again", 50, true)], true).await;
}

#[rstest]
#[tokio::test]
async fn by_turn_a_later_removal_of_the_observed_record_counts_and_a_new_record_beats_an_observed_loss(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let site = &mut Site::open(on).await;
    let added = || gitlab_event("add", 110, "user_add_to_group", 100);
    let removed = |received| gitlab_event("remove", received, "user_remove_from_group", 100);
    let in_roster = |at| gitlab_observation(1, at, AccessKind::Gained, 100, Step::Made);
    // However early or late the removal of that record is told.
    in_any_order(site, "group:#42", &[in_roster(500), removed(900)], false).await;
    in_any_order(site, "group:#42", &[added(), in_roster(500), removed(120)], false).await;
    in_any_order(site, "group:#42", &[added(), in_roster(500)], true).await;
    // The removal was missed; the account is added anew, and that is told late or early.
    let gone = || gitlab_observation(2, 500, AccessKind::Lost, 100, Step::Ended);
    in_any_order(site, "group:#42", &[added(), gone()], false).await;
    let anew = gitlab_event("anew", 1000, "user_add_to_group", 600);
    in_any_order(site, "group:#42", &[added(), gone(), anew], true).await;
    // An update of the old record that comes late changes nothing about its end.
    let update = gitlab_event("update", 1000, "user_update_for_group", 100);
    in_any_order(site, "group:#42", &[added(), gone(), update], false).await;
    // Blocked, let in again, and removed in the end.
    let blocked = || gitlab_observation(3, 500, AccessKind::Lost, 100, Step::Changed);
    let let_in = || gitlab_observation(4, 2000, AccessKind::Gained, 100, Step::Changed);
    in_any_order(site, "group:#42", &[added(), blocked()], false).await;
    in_any_order(site, "group:#42", &[added(), blocked(), let_in()], true).await;
    in_any_order(site, "group:#42", &[blocked(), let_in(), removed(3000)], false).await;
}

#[rstest]
#[tokio::test]
async fn an_observation_is_no_accepted_delivery_and_can_be_read_again(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let mut entry = github_observation(1, 40, AccessKind::Gained)(71);
    // Nobody accepted it, so it has no stamp.
    assert!(site.ledger.record(&[Record::Delivery(Box::new(entry.clone()))]).await.unwrap());
    let id = entry.delivery.id.to_string();
    assert_eq!(site.deliveries(&id).await, [(Pending, 0, false, false)]);
    let balance = site.ledger.balance().await.unwrap();
    assert!(balance.adds_up(), "{balance}");
    site.reconcile(&[]).await;
    assert_eq!(site.outcome(&id).await, Applied);
    // A replay says the same.
    entry.delivery.replay = Some(Uuid::from_u128(8));
    entry.reading = reader("github", "org:acme").read(&entry.delivery);
    site.record([entry]).await;
    assert!(matches!(site.reconcile(&[]).await.as_slice(), [(_, Access::Held { .. })]));
    site.record([github_event("leave", 50, false)(71)]).await;
    site.reconcile(&["org:acme".parse().unwrap()]).await;
    assert_eq!(site.outcome(&id).await, Applied);
    let earlier = github_observation(2, 45, AccessKind::Gained)(71);
    let earlier_id = earlier.delivery.id.to_string();
    site.record([earlier]).await;
    assert_eq!(site.outcome(&earlier_id).await, Superseded);
}

#[rstest]
#[tokio::test]
async fn more_losses_than_the_limit_wait_for_one_yes(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let root = || Scope::top(ScopeKind::Org, "1", Some("acme".into()));
    let all = |access, at: i64| ["71", "72", "73"].map(|id| (id.to_owned(), root(), access, Turn::at(time(at))));
    for (number, one) in all(AccessKind::Gained, 10).into_iter().enumerate() {
        site.record([observed("github", "org:acme", number as u128, 10, [one])]).await;
    }
    site.reconcile(&[]).await;
    let mut losses = observed("github", "org:acme", 9, 500, all(AccessKind::Lost, 500));
    let id = losses.delivery.id.to_string();
    assert!(!site.record([losses.clone()]).await);
    assert_eq!(site.outcome(&id).await, HeldBack);
    let (source, event) = ("acme-github".parse().unwrap(), crate::access::observation::EVENT);
    assert!(site.ledger.is_held(&source, event).await.unwrap());
    assert!(site.take().await.is_empty());
    losses.approved = true;
    assert!(site.record([losses.clone()]).await);
    assert_eq!(site.reconcile(&["org:acme".parse().unwrap()]).await.len(), 3);
    assert_eq!(site.outcome(&id).await, Applied);
    assert!(!site.ledger.is_held(&source, event).await.unwrap());
    // Read again it doesn't ask again.
    losses.approved = false;
    losses.delivery.replay = Some(Uuid::from_u128(8));
    site.record([losses]).await;
    assert_ne!(site.outcome(&id).await, HeldBack);
}

#[rstest]
#[tokio::test]
async fn what_is_known_of_a_root_is_its_grants_and_those_of_its_parts_and_whose_link_it_keeps(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = Site::open(on).await;
    let other = Scope::top(ScopeKind::Org, "2", Some("other".into()));
    site.record([
        told("a", 1, gained("71", org())),
        told("b", 2, gained("72", repo("7"))),
        told("c", 3, gained("73", other.clone())),
        told("d", 4, lost("73", other)),
    ])
    .await;
    // 73 has left one root, and nothing is known of the other.
    site.reconcile(&[]).await;
    let connection = ConnectionRef::Only("GITHUB".into());
    let root = org().id;
    let known = site.ledger.known_of_root("github", "github.com", &root, Some(&connection), &|_| Vec::new());
    let known = known.await.unwrap();
    let said: Vec<_> = known.accounts.iter().map(|(id, it)| (id.as_str(), it.grants.len(), it.undecided)).collect();
    assert_eq!(said, [("71", 1, false), ("72", 1, false), ("73", 0, true)]);
    assert!(known.accounts["71"].grants[0].1 > 0, "the latest change is known");
    let roots = site.ledger.spoken_roots("github", "github.com").await.unwrap();
    assert_eq!(roots.iter().map(ToString::to_string).collect::<Vec<_>>(), ["org:#1001", "org:#2"]);
}

#[rstest]
#[tokio::test]
async fn what_a_reading_showed_is_kept_until_the_next_whole_one(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let (source, root) = ("acme-github".parse().unwrap(), "org:acme".parse().unwrap());
    let scope = ScopeId { kind: ScopeKind::Org, id: "{a:#b}".into() };
    let difference = Shown { access: AccessKind::Lost, first_at: time(5), basis: 7 };
    let shown = ShownBefore::from([((scope, "71".to_owned()), difference)]);
    site.ledger.keep_reading(&source, &root, time(1), 3, &shown).await.unwrap();
    site.ledger.reading_failed(&source, "org:acme", "403").await.unwrap();
    site.ledger.reading_failed(&source, "org:acme", "404").await.unwrap();
    assert_eq!(site.ledger.shown_before(&source, &root).await.unwrap(), shown, "a reading that broke off is none");
    let row = site.ledger.rosters().await.unwrap().remove(0);
    assert_eq!((row.members, row.failure.as_deref(), row.differences), (Some(3), Some("404"), 1));
    site.ledger.keep_reading(&source, &root, time(9), 4, &ShownBefore::new()).await.unwrap();
    let row = site.ledger.rosters().await.unwrap().remove(0);
    assert_eq!((row.read_at, row.failure, row.failed_at, row.differences), (Some(time(9)), None, None, 0));
    site.ledger.forget_other_rosters(&source, &["org:other".parse().unwrap()]).await.unwrap();
    assert!(site.ledger.rosters().await.unwrap().is_empty());
}

/// Only what rollcall made of a roster is called that; the event's name alone is anybody's to choose.
#[rstest]
#[tokio::test]
async fn a_delivery_that_calls_itself_a_roster_is_the_providers_all_the_same(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    use crate::ledger::show::evidence::{Cause, Period};

    let site = Site::open(on).await;
    let root = Scope::top(ScopeKind::Org, "1", Some("acme".into()));
    let seen = ("1".to_owned(), root, AccessKind::Gained, Turn::at(time(0)));
    let own = observed("github", "org:acme", 1, 0, [seen]);
    let mut pretender = told("pretender", 600, gained("2", org()));
    pretender.delivery.event = "rollcall.roster".parse().unwrap();
    site.ledger.record(&[own, pretender].map(|entry| Record::Delivery(Box::new(entry)))).await.unwrap();

    let period = Period { from: time(-3_600), to: time(3_600), account: None };
    let mut causes = Vec::new();
    let mut evidence = site.ledger.evidence(period).await.unwrap();
    while let Some(rows) = evidence.changes().await.unwrap() {
        causes.extend(rows.into_iter().map(|row| (row.delivery == "pretender", row.cause)));
    }
    causes.sort_by_key(|(pretends, _)| *pretends);
    assert_eq!(causes, [(false, Cause::Roster), (true, Cause::Delivery)]);
}
