//! Deliveries are replayed: what is chosen, what is recorded, and that nothing gets older by it.

use super::*;
use crate::ledger::outcome::Outcome::{Applied, Held, Parked, Pending, Superseded, Unchanged};
use crate::ledger::replays::{Chosen, NewReplay, ReplayProgress};
use crate::ledger::show::filter::DeliveryFilter;
use crate::ledger::show::outlook::Fate;

fn again(entry: &Entry, replay: Uuid) -> Entry {
    let mut entry = entry.clone();
    entry.delivery.replay = Some(replay);
    entry
}

const fn new(id: Uuid, filter: &DeliveryFilter) -> NewReplay<'_> {
    NewReplay { id, started_by: "ada", choice: "all", job: "{}", what: Chosen::Deliveries(filter) }
}

#[rstest]
#[tokio::test]
async fn a_run_keeps_to_what_it_chose_and_counts_what_was_recorded_again(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let (join, late) = (told("join", 10, gained("1", org())), told("late", 5, lost("1", org())));
    let mut star = told("star", 11, gained("2", org()));
    star.reading = Reading::Ignored("nothing about access".into());
    site.record([join.clone(), late.clone(), star]).await;
    site.reconcile(&[]).await;
    assert_eq!((site.outcome("join").await, site.outcome("late").await), (Applied, Superseded));

    let (id, filter) = (Uuid::from_u128(3), DeliveryFilter::default());
    assert_eq!(site.ledger.begin_replay(new(id, &filter)).await.unwrap(), 2, "the ignored one keeps no body");
    site.record([told("later", 20, gained("3", org()))]).await;
    let page = site.ledger.replay_page(id, 0, 10).await.unwrap();
    assert_eq!(page.iter().map(|(_, delivery)| delivery.id.as_str()).collect::<Vec<_>>(), ["join", "late"]);
    assert_eq!(page[0].1.body, join.delivery.body);
    let (first, _) = page[0];
    assert_eq!(site.ledger.replay_page(id, first, 10).await.unwrap().len(), 1);

    assert!(!site.record([again(&late, id)]).await, "an old leave makes nobody due");
    site.record([again(&join, id), again(&join, id)]).await;
    site.reconcile(&[]).await;
    let run = site.ledger.replay(id).await.unwrap().unwrap();
    assert_eq!((run.total, run.recorded, run.published, run.finished_at), (2, 2, 0, None));
    let shifts = site.ledger.replay_shifts(id).await.unwrap();
    let shifts: Vec<_> = shifts.iter().map(|shift| (shift.before, shift.now, shift.count)).collect();
    assert_eq!(shifts, [(Some(Applied), Applied, 1), (Some(Superseded), Superseded, 1)]);
    assert_eq!(site.deliveries("join").await, [(Applied, 1, false, false)], "a replay isn't accepted anew");
    let row = site.ledger.deliveries_named(&"join".parse().unwrap()).await.unwrap()[0].row;
    let story = site.ledger.story(row).await.unwrap().unwrap();
    assert_eq!((story.delivery.replays, story.replayed_by.len()), (2, 1));
    assert_eq!(story.replayed_by[0].started_by.as_deref(), Some("ada"));

    let progress = ReplayProgress { cursor: 2, published: 2, failed: 0 };
    site.ledger.note_replay(id, progress, true).await.unwrap();
    let run = site.ledger.replays(10).await.unwrap().remove(0);
    assert_eq!((run.cursor, run.published), (2, 2));
    assert!(run.finished_at.is_some());
}

#[rstest]
#[tokio::test]
async fn an_approved_mass_change_is_not_held_again_by_a_replay(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let joins = (0..3).map(|n| told(&format!("join-{n}"), n, gained(&n.to_string(), org())));
    site.record(joins).await;
    site.reconcile(&[]).await;
    let mut gone = told("gone", 9, Change::ScopeLost { scope: org() });
    let Reading::Told { changes, .. } = &mut gone.reading else { panic!() };
    changes[0].mass_change_limit = 2;
    site.record([gone.clone()]).await;
    assert_eq!(site.outcome("gone").await, Held);
    site.record([again(&gone, Uuid::from_u128(1))]).await;
    assert_eq!(site.outcome("gone").await, Held, "a replay says no yes");
    site.record([Entry { approved: true, ..gone.clone() }]).await;
    site.reconcile(&[]).await;
    assert_eq!(site.outcome("gone").await, Applied);
    site.record([again(&gone, Uuid::from_u128(2))]).await;
    assert_eq!(site.outcome("gone").await, Pending);
    site.reconcile(&[]).await;
    assert_ne!(site.outcome("gone").await, Held);
}

#[rstest]
#[tokio::test]
async fn the_outlook_tells_what_a_replay_would_find(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let mut odd = told("odd", 3, gained("8", org()));
    odd.reading = Reading::Parked("no source is configured".into());
    let mut star = told("star", 4, gained("9", org()));
    star.reading = Reading::Ignored("nothing".into());
    site.record([told("join", 1, gained("1", org())), told("left", 2, lost("1", org())), odd, star]).await;
    site.reconcile(&[]).await;
    site.record([told("waits", 5, gained("2", org()))]).await;
    let outlook = site.ledger.outlook(&DeliveryFilter::default()).await.unwrap();
    assert_eq!((outlook.deliveries, outlook.without_body, outlook.accounts), (4, 1, 2));
    let fates: Vec<_> = outlook.fates.into_iter().collect();
    assert_eq!(fates, [(Fate::Unread, 1), (Fate::Retried, 1), (Fate::LookedAt, 1), (Fate::Superseded, 1)]);
    assert_eq!(outlook.outcomes.values().sum::<i64>(), 4);
    let second = outlook.last.unwrap().micros() - outlook.first.unwrap().micros();
    assert_eq!(second, 4_000_000);
    let fates = site.ledger.fates(&DeliveryFilter::default(), 2).await.unwrap();
    assert_eq!(fates.iter().map(|(_, fate)| *fate).collect::<Vec<_>>(), [Fate::Unread, Fate::Superseded]);
    let applied = DeliveryFilter { outcomes: vec![Applied, Unchanged], ..DeliveryFilter::default() };
    assert_eq!(site.ledger.fates(&applied, 9).await.unwrap().len(), 1);
    let parked = DeliveryFilter { outcomes: vec![Parked], ..DeliveryFilter::default() };
    assert_eq!(site.ledger.outlook(&parked).await.unwrap().deliveries, 1);
}

#[rstest]
#[tokio::test]
async fn secrets_are_counted_and_refusals_are_sums_of_a_run(#[values(Sqlite, PostgreSql)] on: Database) {
    use crate::delivery::{Checkpoint, RefusedCount};
    let mut site = Site::open(on).await;
    let join = told("join", 1, gained("1", org()));
    site.record([join.clone(), join.clone(), told("other", 9, gained("2", org()))]).await;
    site.record([again(&join, Uuid::from_u128(1))]).await;
    let secrets = site.ledger.secrets().await.unwrap();
    assert_eq!(secrets.len(), 1);
    assert_eq!((secrets[0].secret.as_str(), secrets[0].deliveries), ("env:HOOK", 3));
    assert_eq!(secrets[0].last_at.micros() - secrets[0].first_at.micros(), 8_000_000);

    let now = site.ledger.now().await.unwrap();
    let checkpoint = |run, count, last_at| {
        let refused = RefusedCount { reason: "unverified".into(), sender: "9f2c".into(), count, last_at };
        let source = "acme-github".parse().unwrap();
        let run = Uuid::from_u128(run);
        Record::Checkpoint(Checkpoint {
            run,
            source,
            sequence: 0,
            voids: Vec::new(),
            held: None,
            refused: vec![refused],
        })
    };
    let week = Duration::from_hours(8 * 24);
    let old = now.plus_micros(-i64::try_from(week.as_micros()).unwrap());
    for (run, count, at) in [(1, 4, old), (2, 5, now), (2, 7, now), (2, 7, now), (2, 6, now), (3, 1, now)] {
        site.ledger.record(&[checkpoint(run, count, at)]).await.unwrap();
    }
    let refusals = site.ledger.refusals().await.unwrap();
    assert_eq!(refusals.iter().map(|row| row.count).collect::<Vec<_>>(), [8], "{refusals:?}");
    assert_eq!(site.count("refusals").await, 2, "old ones are forgotten");
    assert!(site.ledger.balance().await.unwrap().adds_up());
}
