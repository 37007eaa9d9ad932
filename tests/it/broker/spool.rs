//! What the spool must do before a broker that fails in every way that one can.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use rollcall::broker::spool::{Settings, Spool};
use rollcall::broker::{Broker, Consumer, Health, Item, PublishError, SharedBroker, State};
use rollcall::delivery::{Checkpoint, Delivery, Stamp, Timestamp};
use rollcall::shutdown::Tasks;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use uuid::Uuid;

use super::delivery;
use crate::harness::{soon, until};

/// What the broker behind does with what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Takes,
    /// Its connection is gone, and it knows.
    Down,
    /// It refuses, as a full queue does.
    Refuses,
    /// It never answers, as a blocked connection does before anybody has told.
    Hangs,
    /// It stores, and its confirm gets lost.
    StoresSilently,
}

/// A broker that does as it is told, and remembers what it has stored.
#[derive(Debug)]
struct Moody {
    mood: Mutex<Mood>,
    stored: Mutex<Vec<Item>>,
    /// Ids that no queue takes, and ids that are too large.
    unroutable: Mutex<BTreeSet<String>>,
    too_large: Mutex<BTreeSet<String>>,
    /// How many were published at once, each time.
    batches: Mutex<VecDeque<usize>>,
    /// How often it was asked to take a delivery that doesn't come from the spool.
    asked: AtomicUsize,
    /// Lets deliveries from the spool through, one permit each; closed, it lets all through.
    from_spool: Semaphore,
}

impl Moody {
    fn new(mood: Mood) -> Arc<Self> {
        let from_spool = Semaphore::new(0);
        from_spool.close();
        Arc::new(Self {
            mood: Mutex::new(mood),
            stored: Mutex::default(),
            unroutable: Mutex::default(),
            too_large: Mutex::default(),
            batches: Mutex::default(),
            asked: AtomicUsize::new(0),
            from_spool,
        })
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn ids(&self) -> Vec<String> {
        let stored = self.stored.lock().unwrap();
        let ids = stored.iter().filter_map(|item| match item {
            Item::Delivery(delivery) => Some(delivery.id.to_string()),
            Item::Checkpoint(_) => None,
        });
        ids.collect()
    }

    fn checkpoints(&self) -> Vec<Checkpoint> {
        let stored = self.stored.lock().unwrap();
        let checkpoints = stored.iter().filter_map(|item| match item {
            Item::Checkpoint(checkpoint) => Some(checkpoint.clone()),
            Item::Delivery(_) => None,
        });
        checkpoints.collect()
    }

    async fn takes(&self, item: &Item) -> Result<(), PublishError> {
        let unavailable = |why: &str| Err(PublishError::Unavailable(why.to_owned()));
        if let Item::Delivery(delivery) = item {
            if self.unroutable.lock().unwrap().contains(delivery.id.as_str()) {
                return Err(PublishError::Unroutable("no queue took it".to_owned()));
            }
            if self.too_large.lock().unwrap().contains(delivery.id.as_str()) {
                return Err(PublishError::TooLarge { size: 2, limit: 1 });
            }
        }
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Takes => {}
            Mood::Down => return unavailable("no connection"),
            Mood::Refuses => return unavailable("RabbitMQ refused to store it"),
            Mood::Hangs => std::future::pending().await,
            Mood::StoresSilently => {
                self.stored.lock().unwrap().push(item.clone());
                std::future::pending().await
            }
        }
        self.stored.lock().unwrap().push(item.clone());
        Ok(())
    }
}

#[async_trait]
impl Broker for Moody {
    async fn publish(&self, delivery: &Delivery) -> Result<(), PublishError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.takes(&Item::Delivery(delivery.clone())).await
    }

    async fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<(), PublishError> {
        self.takes(&Item::Checkpoint(checkpoint.clone())).await
    }

    async fn publish_in_order(&self, items: &[&Item]) -> Vec<Result<(), PublishError>> {
        self.batches.lock().unwrap().push_back(items.len());
        let mut published = Vec::new();
        for item in items {
            if let Ok(permit) = self.from_spool.acquire().await {
                permit.forget();
            }
            // What the forwarder waits for it has to give up itself.
            let taken = tokio::time::timeout(Duration::from_millis(100), self.takes(item)).await;
            let no_confirm = |_| Err(PublishError::Unavailable("no confirm".to_owned()));
            published.push(taken.unwrap_or_else(no_confirm));
        }
        published
    }

    async fn consume(&self, _: u16) -> Box<dyn Consumer> {
        panic!("nobody consumes here");
    }

    fn health(&self) -> Health {
        let down = *self.mood.lock().unwrap() == Mood::Down;
        let state = if down { State::Down } else { State::Ok };
        Health { state, reason: down.then(|| "not connected".to_owned()), since: Timestamp(0) }
    }

    async fn close(&self) {}
}

/// A spool in a folder of its own.
struct Place {
    folder: TempDir,
    settings: Settings,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { after: Duration::from_millis(300), min_free: 1, ..Settings::new(folder.path()) };
        Self { folder, settings }
    }

    async fn open(&self, behind: &Arc<Moody>) -> Spool {
        let behind: SharedBroker = Arc::clone(behind) as SharedBroker;
        Spool::start(self.settings.clone(), behind, &Tasks::new()).await
    }

    /// Changes the file behind the spool's back.
    async fn sql(&self, statement: &'static str) {
        let file = self.folder.path().join("queue.db");
        let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
        sqlx::query(statement).execute(&mut other).await.unwrap();
        other.close().await.unwrap();
    }
}

fn numbered(number: u64) -> Delivery {
    let mut delivery = delivery(&format!("d-{number:04}"), vec![b'x'; 100]);
    delivery.stamp = Some(Stamp { run: Uuid::from_u128(7), sequence: number });
    // Received a moment ago, each a little later than the one before.
    delivery.received_at = Timestamp::now().plus_micros(i64::try_from(number).unwrap() - 10_000_000);
    delivery
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| numbered(number).id.to_string()).collect()
}

async fn emptied(spool: &Spool) {
    until("the spool is empty", async || spool.spool_health().state == State::Ok).await;
}

#[tokio::test]
async fn what_the_broker_takes_never_touches_the_spool() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Takes));
    let spool = place.open(&behind).await;
    spool.publish(&numbered(1)).await.unwrap();
    assert_eq!(behind.ids(), ids([1]));
    assert_eq!(spool.spool_health().state, State::Ok);
    assert!(behind.batches.lock().unwrap().is_empty());
    spool.close().await;
}

#[tokio::test]
async fn a_broker_known_to_be_down_keeps_nobody_waiting_and_gets_all_in_order_when_it_is_back() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Down));
    let spool = place.open(&behind).await;
    let sent: Vec<_> = (1..=200).map(numbered).collect();
    for delivery in &sent {
        spool.publish(delivery).await.unwrap();
    }
    assert_eq!(behind.asked.load(Ordering::Relaxed), 0, "a broker that is down was asked");
    let health = spool.spool_health();
    assert_eq!(health.state, State::Degraded);
    assert!(health.reason.unwrap().contains("200 deliveries"));

    behind.is(Mood::Takes);
    emptied(&spool).await;
    let stored = behind.stored.lock().unwrap().clone();
    let forwarded: Vec<_> = stored
        .into_iter()
        .filter_map(|item| match item {
            Item::Delivery(delivery) => Some(delivery),
            Item::Checkpoint(_) => None,
        })
        .collect();
    assert!(forwarded == sent, "each as it was received, with its own stamp and time");
    let batches = behind.batches.lock().unwrap().clone();
    assert!(batches[0] == 1 && batches.iter().all(|size| *size <= 64), "{batches:?}");
    spool.close().await;
}

#[tokio::test]
async fn only_the_first_waits_for_a_broker_that_hangs() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Hangs));
    let spool = place.open(&behind).await;
    let began = Instant::now();
    spool.publish(&numbered(1)).await.unwrap();
    assert!(began.elapsed() >= place.settings.after);
    for number in 2..=50 {
        spool.publish(&numbered(number)).await.unwrap();
    }
    assert_eq!(behind.asked.load(Ordering::Relaxed), 1, "after one that hung none is made to wait");
    let health = spool.health();
    assert_eq!(health.state, State::Degraded, "{health:?}");
    behind.is(Mood::Takes);
    emptied(&spool).await;
    assert_eq!(behind.ids(), ids(1..=50));
    until("the door is open again", async || spool.health().state == State::Ok).await;
    spool.publish(&numbered(51)).await.unwrap();
    assert_eq!(behind.asked.load(Ordering::Relaxed), 2);
    spool.close().await;
}

#[tokio::test]
async fn a_full_queue_is_waited_for_in_the_spool() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Refuses));
    let spool = place.open(&behind).await;
    for number in 1..=20 {
        spool.publish(&numbered(number)).await.unwrap();
    }
    assert_eq!(behind.asked.load(Ordering::Relaxed), 1);
    assert!(spool.health().reason.unwrap().contains("refused"));
    behind.is(Mood::Takes);
    emptied(&spool).await;
    assert_eq!(behind.ids(), ids(1..=20));
    spool.close().await;
}

#[tokio::test]
async fn a_message_that_was_stored_without_a_confirm_comes_again_as_the_same() {
    let (place, behind) = (Place::new(), Moody::new(Mood::StoresSilently));
    let spool = place.open(&behind).await;
    let sent = numbered(1);
    spool.publish(&sent).await.unwrap();
    behind.is(Mood::Takes);
    emptied(&spool).await;
    let stored = behind.stored.lock().unwrap().clone();
    assert!(stored.len() >= 2);
    for item in &stored {
        assert!(matches!(item, Item::Checkpoint(_)) || matches!(item, Item::Delivery(again) if *again == sent));
    }
    spool.close().await;
}

#[tokio::test]
async fn live_deliveries_go_past_what_waits_and_the_ledger_is_told_what_is_held() {
    let (place, mut behind) = (Place::new(), Moody::new(Mood::Down));
    let moody = Arc::get_mut(&mut behind).unwrap();
    moody.from_spool = Semaphore::new(0);
    let spool = place.open(&behind).await;
    for number in 1..=30 {
        spool.publish(&numbered(number)).await.unwrap();
    }
    behind.is(Mood::Takes);
    behind.from_spool.add_permits(1);
    until("one has been forwarded", async || behind.ids().len() == 1).await;
    spool.publish(&numbered(31)).await.unwrap();
    assert_eq!(behind.ids(), ids([1, 31]), "it had to wait behind 29 others");
    until("what is held is told", async || {
        behind.checkpoints().iter().any(|told| told.held == Some(2) && told.sequence == 0)
    })
    .await;
    let own = Checkpoint {
        run: Uuid::from_u128(7),
        source: "acme-github".parse().unwrap(),
        sequence: 31,
        voids: Vec::new(),
        held: None,
        refused: Vec::new(),
    };
    spool.checkpoint(&own).await.unwrap();
    assert_eq!(behind.checkpoints().last().unwrap(), &Checkpoint { held: Some(2), ..own.clone() });

    behind.from_spool.close();
    emptied(&spool).await;
    assert_eq!(behind.ids(), ids([1, 31].into_iter().chain(2..=30)));
    spool.checkpoint(&own).await.unwrap();
    assert_eq!(behind.checkpoints().last().unwrap(), &own);
    spool.close().await;
}

#[tokio::test]
async fn the_forwarder_takes_few_at_a_time_while_live_deliveries_are_on_their_way() {
    let (place, mut behind) = (Place::new(), Moody::new(Mood::Down));
    Arc::get_mut(&mut behind).unwrap().from_spool = Semaphore::new(0);
    let spool = Arc::new(place.open(&behind).await);
    let others = Tasks::new();
    for number in 1..=300 {
        spool.publish(&numbered(number)).await.unwrap();
    }
    behind.is(Mood::Takes);
    behind.from_spool.add_permits(150);
    until("half of it is forwarded", async || behind.ids().len() == 150).await;
    assert!(behind.batches.lock().unwrap().iter().any(|size| *size > 8));

    // Somebody waits for the broker as long as the rest takes.
    behind.is(Mood::Hangs);
    let live = others.short_lived("test", {
        let spool = Arc::clone(&spool);
        async move { spool.publish(&numbered(301)).await }
    });
    until("a live one is on its way", async || behind.asked.load(Ordering::Relaxed) == 1).await;
    behind.is(Mood::Takes);
    behind.batches.lock().unwrap().clear();
    behind.from_spool.add_permits(100);
    until("it goes on", async || !behind.batches.lock().unwrap().is_empty()).await;
    assert!(behind.batches.lock().unwrap().iter().all(|size| *size <= 8), "{:?}", behind.batches);
    soon("the live one", live).await.unwrap().unwrap();
    behind.from_spool.close();
    emptied(&spool).await;
    spool.close().await;
}

#[tokio::test]
async fn a_spool_outlives_its_process_and_its_run() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Down));
    let spool = place.open(&behind).await;
    for number in 1..=20 {
        spool.publish(&numbered(number)).await.unwrap();
    }
    let tail = Checkpoint {
        run: Uuid::from_u128(7),
        source: "acme-github".parse().unwrap(),
        sequence: 20,
        voids: vec![3],
        held: None,
        refused: Vec::new(),
    };
    spool.checkpoint(&tail).await.unwrap();
    // Nothing is closed: as a kill would leave it.
    drop(spool);

    let spool = place.open(&behind).await;
    assert!(spool.spool_health().reason.unwrap().contains("20 deliveries"));
    behind.is(Mood::Takes);
    emptied(&spool).await;
    assert_eq!(behind.ids(), ids(1..=20));
    until("the tail is closed", async || behind.checkpoints().last() == Some(&tail)).await;
    spool.close().await;
}

#[tokio::test]
async fn a_full_spool_refuses_says_so_and_takes_again_when_there_is_room() {
    let (mut place, behind) = (Place::new(), Moody::new(Mood::Down));
    // A delivery of 100 bytes counts for 612.
    place.settings.max_bytes = 10 * 612;
    let spool = Arc::new(place.open(&behind).await);
    let sent: Vec<_> = (1..=15).map(numbered).collect();
    let answers = join_all(sent.iter().map(|delivery| spool.publish(delivery))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10, "{answers:?}");
    let error = spool.publish(&numbered(16)).await.unwrap_err();
    assert!(error.to_string().contains("spool.max_bytes"), "{error}");
    assert_eq!(spool.spool_health().state, State::Down);

    behind.is(Mood::Takes);
    emptied(&spool).await;
    assert_eq!(behind.ids().len(), 10);
    behind.is(Mood::Down);
    spool.publish(&numbered(17)).await.unwrap();
    spool.close().await;
}

#[tokio::test]
async fn a_full_spool_still_lets_through_what_the_broker_takes() {
    let (mut place, behind) = (Place::new(), Moody::new(Mood::Refuses));
    place.settings.max_bytes = 612;
    let spool = place.open(&behind).await;
    spool.publish(&numbered(1)).await.unwrap();
    assert!(spool.publish(&numbered(2)).await.is_err());
    assert_eq!(spool.health().state, State::Down, "neither takes anything");
    behind.is(Mood::Takes);
    spool.publish(&numbered(3)).await.unwrap();
    assert_eq!(spool.health().state, State::Ok);
    emptied(&spool).await;
    spool.close().await;
}

#[tokio::test]
async fn what_is_too_old_stays_and_keeps_new_deliveries_out() {
    let (mut place, behind) = (Place::new(), Moody::new(Mood::Down));
    place.settings.max_age = Duration::from_secs(60);
    let spool = place.open(&behind).await;
    let mut old = numbered(1);
    old.received_at = Timestamp::now().plus_micros(-61_000_000);
    spool.publish(&old).await.unwrap();
    let error = spool.publish(&numbered(2)).await.unwrap_err();
    assert!(error.to_string().contains("spool.max_age"), "{error}");
    assert_eq!(spool.spool_health().state, State::Down);
    behind.is(Mood::Takes);
    emptied(&spool).await;
    assert_eq!(behind.ids(), ids([1]));
    spool.close().await;
}

#[tokio::test]
async fn a_disk_with_too_little_room_is_left_alone() {
    let (mut place, behind) = (Place::new(), Moody::new(Mood::Down));
    place.settings.min_free = u64::MAX / 2;
    let spool = place.open(&behind).await;
    let error = spool.publish(&numbered(1)).await.unwrap_err();
    assert!(error.to_string().contains("spool.min_free"), "{error}");
    assert_eq!(spool.spool_health().state, State::Down);
    spool.close().await;
}

#[tokio::test]
async fn what_is_too_large_for_the_broker_is_refused_and_never_spooled() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Takes));
    behind.too_large.lock().unwrap().insert(ids([1]).remove(0));
    let spool = place.open(&behind).await;
    let error = spool.publish(&numbered(1)).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
    assert_eq!(spool.spool_health().state, State::Ok);
    spool.close().await;
}

#[tokio::test]
async fn one_that_no_queue_takes_does_not_keep_the_others() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Down));
    behind.unroutable.lock().unwrap().insert(ids([1]).remove(0));
    let spool = place.open(&behind).await;
    for number in 1..=10 {
        spool.publish(&numbered(number)).await.unwrap();
    }
    behind.is(Mood::Takes);
    until("the others are forwarded", async || behind.ids() == ids(2..=10)).await;
    assert_eq!(spool.spool_health().state, State::Degraded);
    behind.unroutable.lock().unwrap().clear();
    emptied(&spool).await;
    assert_eq!(behind.ids(), ids((2..=10).chain([1])));
    spool.close().await;
}

#[tokio::test]
async fn what_cannot_be_read_or_is_refused_for_good_is_set_aside_kept_and_tried_once_more_by_the_next_start() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Down));
    let spool = place.open(&behind).await;
    for number in 1..=6 {
        spool.publish(&numbered(number)).await.unwrap();
    }
    spool.close().await;
    drop(spool);
    place.sql("UPDATE message SET version = 99 WHERE id = 1").await;
    place.sql("UPDATE message SET received_at = 'yesterday' WHERE id = 3").await;
    behind.too_large.lock().unwrap().insert(ids([5]).remove(0));

    let spool = place.open(&behind).await;
    behind.is(Mood::Takes);
    until("the others are forwarded", async || behind.ids() == ids([2, 4, 6])).await;
    until("three are set aside", async || {
        spool.spool_health().reason.is_some_and(|reason| reason.starts_with("3 deliveries can't be forwarded"))
    })
    .await;
    assert_eq!(spool.spool_health().state, State::Degraded);
    spool.close().await;
    drop(spool);

    // A newer program reads what this one couldn't, and the broker takes larger messages.
    place.sql("UPDATE aside SET version = 1 WHERE id = 1").await;
    behind.too_large.lock().unwrap().clear();
    let spool = place.open(&behind).await;
    until("two more are forwarded", async || behind.ids() == ids([2, 4, 6, 1, 5])).await;
    until("one is still set aside", async || {
        spool.spool_health().reason.is_some_and(|reason| reason.starts_with("1 deliveries can't"))
    })
    .await;
    spool.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_spool_is_named_harms_no_live_delivery_and_is_opened_once_it_is_gone() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Takes));
    let file = place.folder.path().join("queue.db");
    std::fs::write(&file, vec![b'?'; 8192]).unwrap();
    let spool = place.open(&behind).await;
    let health = spool.spool_health();
    assert_eq!(health.state, State::Down);
    assert!(health.reason.unwrap().contains("queue.db"));
    spool.publish(&numbered(1)).await.unwrap();
    behind.is(Mood::Down);
    assert!(spool.publish(&numbered(2)).await.is_err());

    std::fs::remove_file(&file).unwrap();
    until("it is open", async || spool.spool_health().state == State::Ok).await;
    spool.publish(&numbered(3)).await.unwrap();
    spool.close().await;
}

#[tokio::test]
async fn a_torn_end_of_the_log_takes_nothing_that_was_answered_before() {
    let (place, behind) = (Place::new(), Moody::new(Mood::Down));
    let spool = place.open(&behind).await;
    for number in 1..=40 {
        spool.publish(&numbered(number)).await.unwrap();
    }
    // What a power cut leaves: everything up to the last answer is on disk, and after that anything at all.
    let files = |name: &str| (place.folder.path().join(name), std::fs::read(place.folder.path().join(name)).unwrap());
    let (database, log) = (files("queue.db").1, files("queue.db-wal").1);
    spool.close().await;
    assert!(!log.is_empty(), "it all went to the database");

    let mut random = fastrand::Rng::with_seed(11);
    for tail in [0, 1, 23, 4096, 5000, 20_000] {
        let mut torn = log.clone();
        torn.extend((0..tail).map(|_| random.u8(..)));
        assert_eq!(recovered(&place.settings, &database, &torn).await, ids(1..=40), "{tail} bytes of garbage");
    }
    // Half of a frame that was begun after the last answer: the start of a true one, cut off.
    let mut torn = log.clone();
    torn.extend(&log[32..32 + 2000]);
    assert_eq!(recovered(&place.settings, &database, &torn).await, ids(1..=40));
    // And where the disk lied about what it had, it is a beginning of what was accepted: nothing in between is lost.
    for cut in [1, 4000, 9000, 30_000] {
        let recovered = recovered(&place.settings, &database, &log[..log.len().saturating_sub(cut)]).await;
        assert!(recovered.len() < 40 && ids(1..=40).starts_with(&recovered), "{cut}: {recovered:?}");
    }
}

/// What a spool forwards that finds these files.
async fn recovered(settings: &Settings, database: &[u8], log: &[u8]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("queue.db"), database).unwrap();
    std::fs::write(folder.path().join("queue.db-wal"), log).unwrap();
    let behind = Moody::new(Mood::Takes);
    let settings = Settings { folder: folder.path().to_owned(), ..settings.clone() };
    let spool = Spool::start(settings, Arc::clone(&behind) as SharedBroker, &Tasks::new()).await;
    emptied(&spool).await;
    spool.close().await;
    behind.ids()
}
