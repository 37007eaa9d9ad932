//! The worker on a real ledger, with a consumer that hands out what it is given.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rstest::rstest;

use super::recording::AGAIN;
use super::*;
use crate::access::{AccessKind, Account, AccountKey, AccountKind, Change, Scope, ScopeKind};
use crate::broker::State;
use crate::delivery::{SecretName, SourceName, Timestamp, TryKey};
use crate::drata::{self, Client};
use crate::ledger::database::Database::{self, PostgreSql, Sqlite};
use crate::ledger::outcome::Outcome;
use crate::ledger::trial::Trial;
use crate::people::People;
use crate::provider::{Interpreter, Meaning, Misshapen};
use crate::reconcile::{self, Policies, Schedule};
use crate::target::ConnectionRef;

const SOURCE: &str = "acme-github";
/// How many bytes of bodies a worker of these tests decodes at a time.
const MAX_BATCH: usize = 64 * 1024;

/// The first line of the body is the login of somebody who has joined.
#[derive(Debug)]
struct Joins;

impl Interpreter for Joins {
    fn interpret(&self, delivery: &Delivery) -> Result<Meaning, Misshapen> {
        let text = String::from_utf8(delivery.body.to_vec()).unwrap();
        let login = text.lines().next().unwrap().to_owned();
        let key = AccountKey { provider: "github".into(), host: "github.com".into(), id: login.clone() };
        let account = Account { key, node_id: None, login: Some(login), email: None, kind: AccountKind::Person };
        let scope = Scope::top(ScopeKind::Org, "1001", Some("acme".into()));
        let joined = Change::Access { account, scope, kind: AccessKind::Gained };
        Ok(Meaning { changes: vec![joined], ..Meaning::default() })
    }
}

#[derive(Default)]
struct Handed {
    waiting: VecDeque<Message>,
    acked: Vec<u64>,
    /// How many were acked in one go each.
    at_once: Vec<usize>,
}

#[async_trait]
impl Consumer for Handed {
    async fn next(&mut self) -> Option<Message> {
        self.waiting.pop_front()
    }

    fn try_next(&mut self) -> Option<Message> {
        self.waiting.pop_front()
    }

    async fn ack(&mut self, tags: &[AckTag]) -> usize {
        self.at_once.push(tags.len());
        self.acked.extend(tags.iter().map(|tag| tag.number));
        0
    }
}

struct Site {
    worker: Worker,
    trial: Trial,
}

impl Site {
    async fn open(on: Database) -> Self {
        let trial = Trial::open(on).await;
        let source = WorkerSource {
            provider: "github",
            host: "github.com".to_owned(),
            interpreter: Box::new(Joins),
            roots: Vec::new(),
            connections: Connections::One(ConnectionRef::Id(12)),
            mass_change_limit: 50,
        };
        let nobody = drata::Settings::new("http://127.0.0.1:1/public".parse().unwrap());
        let settings = reconcile::Settings {
            second_look: Duration::from_secs(120),
            schedule: Schedule { first: AGAIN.first, factor: 2.0, max: AGAIN.longest, attempts: 12 },
            waiting: AGAIN.longest,
            deadline: Duration::from_hours(72),
            request_timeout: AGAIN.longest,
            concurrency: 1,
            dry_run: false,
        };
        let reconciler = Reconciler::new(
            trial.ledger.clone(),
            Client::new(nobody, "key".into()).unwrap(),
            People::default(),
            Policies::default(),
            settings,
        );
        let reader = Reader::new(BTreeMap::from([(SOURCE.parse().unwrap(), source)]));
        Self { worker: Worker::new(trial.ledger.clone(), reader, Arc::new(reconciler), MAX_BATCH), trial }
    }

    /// Hands out these messages as one batch, and returns what was acked.
    async fn hand_out(&self, batch: Vec<Message>) -> Vec<u64> {
        self.handed_out(batch).await.acked
    }

    async fn handed_out(&self, batch: Vec<Message>) -> Handed {
        let mut consumer = Handed::default();
        let worked = self.worker.batch(&mut consumer, batch, &CancellationToken::new()).await;
        assert!(worked.is_ok(), "the worker gave up");
        consumer
    }

    async fn outcome(&self, id: &str) -> Option<(Outcome, String)> {
        let source: SourceName = SOURCE.parse().unwrap();
        let found = self.trial.ledger.outcome_of(&source, &id.parse().unwrap()).await.unwrap();
        found.map(|(outcome, reason)| (outcome, reason.unwrap_or_default()))
    }

    /// A worker began this delivery, and was never heard of again.
    async fn dies_of(&self, delivery: &Delivery) {
        self.trial.ledger.begin_delivery(&try_key(delivery)).await.unwrap();
    }
}

fn delivery(login: &str) -> Delivery {
    Delivery {
        source: SOURCE.parse().unwrap(),
        provider: "github".into(),
        id: format!("join-{}", login.replace('\0', "-")).parse().unwrap(),
        event: "organization.member_added".parse().unwrap(),
        received_at: Timestamp::now(),
        secret: SecretName("env:HOOK".into()),
        stamp: None,
        replay: None,
        body: Bytes::from(login.to_owned()),
    }
}

fn try_key(delivery: &Delivery) -> TryKey {
    EncodedPayload::from(Payload::Delivery(delivery.clone())).try_key().unwrap()
}

fn message(number: u64, redelivered: bool, payload: impl Into<EncodedPayload>) -> Message {
    let payload = payload.into();
    Message { tag: AckTag { session: 1, lane: Lane::Work, number }, lane: Lane::Work, redelivered, payload }
}

fn unreadable(id: &str) -> Payload {
    let why = "it isn't one of ours".to_owned();
    Payload::Unreadable { id: Some(id.to_owned()), why, body: Bytes::new(), properties: None }
}

#[rstest]
#[tokio::test]
async fn a_message_that_was_begun_three_times_is_parked_and_costs_its_neighbours_nothing(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let site = Site::open(on).await;
    let poison = delivery("poison");
    site.dies_of(&poison).await;
    site.dies_of(&poison).await;
    let all = ["before", "poison", "after"].map(|login| Payload::Delivery(delivery(login)));
    let batch = all.into_iter().zip(1..).map(|(payload, number)| message(number, true, payload)).collect();
    assert_eq!(site.hand_out(batch).await, [1, 2, 3]);
    let (outcome, reason) = site.outcome("join-poison").await.unwrap();
    assert_eq!((outcome, reason.as_str()), (Outcome::Parked, "it was begun 3 times and never finished"));
    for neighbour in ["join-before", "join-after"] {
        assert_eq!(site.outcome(neighbour).await.unwrap().0, Outcome::Pending);
    }
    assert_eq!(site.trial.ledger.begin_delivery(&try_key(&poison)).await.unwrap(), 1, "its tries are forgotten");
}

/// PostgreSQL's texts have no null character. Before this was told apart from an outage it was waited out, for ever.
#[tokio::test]
async fn a_delivery_that_the_database_cannot_take_is_parked_and_stops_nobody() {
    let site = Site::open(PostgreSql).await;
    let logins = ["one", "octo\0cat", "two"].map(|login| Payload::Delivery(delivery(login)));
    let batch = logins.into_iter().zip(1..).map(|(payload, number)| message(number, false, payload)).collect();
    assert_eq!(site.hand_out(batch).await, [1, 2, 3]);
    let (outcome, reason) = site.outcome("join-octo-cat").await.unwrap();
    assert_eq!(outcome, Outcome::Parked);
    assert!(reason.starts_with("it can't be recorded as what it means"), "{reason}");
    for neighbour in ["join-one", "join-two"] {
        assert_eq!(site.outcome(neighbour).await.unwrap().0, Outcome::Pending);
    }
}

#[rstest]
#[tokio::test]
async fn messages_of_strangers_are_kept_and_acked_among_deliveries(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let batch = vec![
        message(1, false, unreadable("stranger\0")),
        message(2, false, Payload::Delivery(delivery("one"))),
        message(3, true, unreadable("stranger\0")),
    ];
    assert_eq!(site.hand_out(batch).await, [1, 2, 3]);
    assert_eq!(site.outcome("join-one").await.unwrap().0, Outcome::Pending);
    let kept = site.trial.ledger.unreadable(10).await.unwrap();
    assert_eq!((kept.len(), kept[0].copies), (1, 2));
}

/// A delivery that no table takes, in whatever form, is left with the broker; the worker goes on.
#[rstest]
#[tokio::test]
async fn what_cannot_be_recorded_in_any_way_stays_unacked_and_stops_nobody(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    site.trial.refuse("deliveries", "delivery = 'join-never'").await;
    site.trial.refuse("unreadable", "message = 'join-never'").await;
    let logins = ["one", "never", "two"].map(|login| Payload::Delivery(delivery(login)));
    let batch = logins.into_iter().zip(1..).map(|(payload, number)| message(number, false, payload)).collect();
    assert_eq!(site.hand_out(batch).await, [1, 3]);
    assert_eq!(site.outcome("join-never").await, None);
    assert_eq!(site.outcome("join-two").await.unwrap().0, Outcome::Pending);
    let health = site.worker.recording().health();
    assert_eq!(health.state, State::Degraded);
    assert!(health.reason.as_ref().unwrap().starts_with("1 messages can't be recorded in any way"), "{health:?}");

    // The same when nobody is beside it; and when it comes again and can be recorded, all is well.
    let never = || message(4, true, Payload::Delivery(delivery("never")));
    assert_eq!(site.hand_out(vec![never()]).await, [0_u64; 0]);
    site.trial.refuse_no_longer("deliveries").await;
    let again = Message { tag: AckTag { session: 2, ..never().tag }, ..never() };
    assert_eq!(site.hand_out(vec![again]).await, [4]);
    assert_eq!(site.worker.recording().health().state, State::Ok);
}

/// What is a bug, here or in the database, is met again by every try: the others don't wait for it.
#[tokio::test]
async fn a_delivery_that_meets_a_bug_is_parked_with_the_error_and_stops_nobody() {
    let site = Site::open(Sqlite).await;
    site.trial.ignore("changes", "delivery = 'join-odd'").await;
    let logins = ["one", "odd", "two"].map(|login| Payload::Delivery(delivery(login)));
    let batch = logins.into_iter().zip(1..).map(|(payload, number)| message(number, false, payload)).collect();
    assert_eq!(site.hand_out(batch).await, [1, 2, 3]);
    let (outcome, reason) = site.outcome("join-odd").await.unwrap();
    assert_eq!(outcome, Outcome::Parked);
    assert!(reason.contains("no rows returned"), "{reason}");
    for neighbour in ["join-one", "join-two"] {
        assert_eq!(site.outcome(neighbour).await.unwrap().0, Outcome::Pending);
    }
    assert_eq!(site.worker.recording().health().state, State::Ok);
}

/// Waits until recording is in a state.
async fn recording_is(site: &Site, state: State) {
    let recording = site.worker.recording();
    let waiting = async {
        while recording.health().state != state {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), waiting).await.expect("recording should change its state");
}

/// Nobody's own trouble: whatever comes is refused, in whatever form.
#[rstest]
#[case::in_a_batch(&["one", "two"])]
#[case::alone(&["one"])]
#[tokio::test]
async fn a_database_that_refuses_everything_pauses_recording_until_it_does_not(
    #[values(Sqlite, PostgreSql)] on: Database,
    #[case] logins: &[&str],
) {
    let site = Site::open(on).await;
    site.trial.refuse("deliveries", "delivery <> ''").await;
    site.trial.refuse("unreadable", "why <> ''").await;
    let batch = || logins.iter().map(|login| Payload::Delivery(delivery(login))).zip(1..);
    let batch = batch().map(|(payload, number)| message(number, false, payload)).collect();
    let lifting = async {
        recording_is(&site, State::Down).await;
        let since = site.worker.recording().health().since;
        while Timestamp::now().since(since) < AGAIN.first * 10 {
            let health = site.worker.recording().health();
            assert_eq!((health.state, health.since), (State::Down, since), "it is one pause, however many tries");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(site.outcome("join-one").await, None);
        site.trial.refuse_no_longer("deliveries").await;
        site.trial.refuse_no_longer("unreadable").await;
    };
    let (mut acked, ()) = tokio::join!(site.hand_out(batch), lifting);
    acked.sort_unstable();
    assert_eq!(acked, (1..).take(logins.len()).collect::<Vec<u64>>());
    for login in logins {
        let (outcome, reason) = site.outcome(&format!("join-{login}")).await.unwrap();
        assert_eq!(outcome, Outcome::Pending, "{reason}");
    }
    assert_eq!(site.worker.recording().health().state, State::Ok);
}

/// An operator who restarts a worker while the ledger takes nothing has killed nobody.
#[rstest]
#[tokio::test]
async fn an_end_in_good_order_is_no_try(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    site.trial.rename("changes", "elsewhere").await;
    let batch = || vec![message(1, true, Payload::Delivery(delivery("one")))];
    for _ in 0..=TRIES {
        let (mut consumer, token) = (Handed::default(), CancellationToken::new());
        let ending = async {
            recording_is(&site, State::Down).await;
            token.cancel();
        };
        let (worked, ()) = tokio::join!(site.worker.batch(&mut consumer, batch(), &token), ending);
        assert!(worked.is_err() && consumer.acked.is_empty());
        site.worker.recording().resume();
    }
    site.trial.rename("elsewhere", "changes").await;
    assert_eq!(site.hand_out(batch()).await, [1]);
    assert_eq!(site.outcome("join-one").await.unwrap().0, Outcome::Pending);
}

#[rstest]
#[tokio::test]
async fn a_missing_table_pauses_recording_and_parks_nothing(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    site.trial.rename("changes", "elsewhere").await;
    let batch = vec![message(1, true, Payload::Delivery(delivery("one")))];
    let mending = async {
        recording_is(&site, State::Down).await;
        let reason = site.worker.recording().health().reason.unwrap();
        assert!(reason.contains("changes"), "{reason}");
        site.trial.rename("elsewhere", "changes").await;
    };
    let (acked, ()) = tokio::join!(site.hand_out(batch), mending);
    assert_eq!(acked, [1]);
    assert_eq!(site.outcome("join-one").await.unwrap().0, Outcome::Pending);
}

/// A join whose body has so many bytes.
fn padded(login: &str, bytes: usize) -> Delivery {
    Delivery { body: format!("{login}\n{}", " ".repeat(bytes - login.len() - 1)).into(), ..delivery(login) }
}

#[rstest]
#[tokio::test]
async fn no_more_is_decoded_at_a_time_than_the_bound_and_what_is_larger_is_recorded_alone(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let site = Site::open(on).await;
    let third = MAX_BATCH / 3;
    let sizes = [third, third, third, third, MAX_BATCH + 1, third, MAX_BATCH, third];
    let batch = sizes.into_iter().zip(1_u32..).map(|(size, number)| {
        message(number.into(), false, Payload::Delivery(padded(&format!("octocat-{number}"), size)))
    });
    let handed = site.handed_out(batch.collect()).await;
    assert_eq!(handed.acked, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(handed.at_once, [3, 1, 1, 1, 1, 1]);
    for number in 1..=8 {
        assert_eq!(site.outcome(&format!("join-octocat-{number}")).await.unwrap().0, Outcome::Pending);
    }
}

#[rstest]
#[tokio::test]
async fn what_was_handed_out_before_is_recorded_alone_before_anything_else_is_decoded(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let site = Site::open(on).await;
    let logins = [("one", false), ("two", true), ("three", false), ("four", true)];
    let batch = logins
        .into_iter()
        .zip(1..)
        .map(|((login, redelivered), number)| message(number, redelivered, Payload::Delivery(delivery(login))));
    let handed = site.handed_out(batch.collect()).await;
    assert_eq!((handed.acked, handed.at_once), (vec![2, 4, 1, 3], vec![1, 1, 2]));
}

/// Parking decodes it once more. What dies even of that is kept as it travelled, and can be read again.
#[rstest]
#[tokio::test]
async fn what_cannot_even_be_parked_is_kept_as_it_travelled(#[values(Sqlite, PostgreSql)] on: Database) {
    let site = Site::open(on).await;
    let poison = delivery("poison");
    for _ in 0..TRIES {
        site.dies_of(&poison).await;
    }
    let batch = vec![
        message(1, true, Payload::Delivery(poison.clone())),
        message(2, true, Payload::Delivery(delivery("neighbour"))),
    ];
    assert_eq!(site.hand_out(batch).await, [1, 2]);
    assert_eq!(site.outcome("join-poison").await, None);
    assert_eq!(site.outcome("join-neighbour").await.unwrap().0, Outcome::Pending);
    let ledger = &site.trial.ledger;
    let listed = ledger.unreadable(10).await.unwrap();
    assert_eq!((listed.len(), listed[0].ours, listed[0].replay.as_deref()), (1, true, None));
    assert_eq!(listed[0].why, "it was begun 4 times and never finished; it is kept as it travelled");
    let kept = ledger.next_kept_message(0).await.unwrap().unwrap();
    let again = EncodedPayload::kept(&kept.properties, kept.body).unwrap().decode(usize::MAX).unwrap();
    assert!(matches!(again, Payload::Delivery(again) if again == poison));
    ledger.kept_message_replayed(kept.row, uuid::Uuid::from_u128(1)).await.unwrap();
    assert_eq!(ledger.next_kept_message(0).await.unwrap(), None);
    assert_eq!(ledger.begin_delivery(&try_key(&poison)).await.unwrap(), 1, "its tries are forgotten");
}
