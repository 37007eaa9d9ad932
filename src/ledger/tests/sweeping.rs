//! What a sweep reads and marks, and an operator's yes.

use super::*;
use crate::ledger::actions::About;
use crate::ledger::show::accounts::{AccountFilter, AccountRow, State};
use crate::ledger::sweep::{Mark, Standing};

const OTHER: LinkStatus = LinkStatus::Linked(PersonId(519));

impl Site {
    async fn standings(&self) -> Vec<Standing> {
        self.ledger.standings(&ConnectionRef::Only("GITHUB".into())).await.unwrap().1
    }

    /// Marks all accounts the same way. Returns how many still stood as they had been read.
    async fn mark(&self, standings: &[Standing], mark: Mark) -> usize {
        let marks: Vec<_> = standings.iter().map(|standing| (standing, mark, Some("told".to_owned()))).collect();
        self.ledger.mark(&marks).await.unwrap()
    }

    async fn rows(&self) -> Vec<AccountRow> {
        self.ledger.accounts(&AccountFilter::default(), None, 100).await.unwrap()
    }

    /// Settles the one account that is due.
    async fn settle(&self, settlement: &Settlement) {
        let (lease, view) = self.take_one().await;
        assert_eq!(self.ledger.settle(&lease, view.version, settlement, Vec::new()).await.unwrap(), Held::Written);
    }
}

async fn with_a_join(on: Database) -> Site {
    let mut site = Site::open(on).await;
    site.record([told("join", 1, gained("1", org()))]).await;
    site
}

#[rstest]
#[tokio::test]
async fn only_what_rests_as_it_was_read_is_marked(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = with_a_join(on).await;
    let pending = site.standings().await;
    assert!(!pending[0].at_rest);
    assert_eq!(site.mark(&pending, Mark::Drifted(OTHER)).await, 0);
    site.reconcile(&[]).await;
    let rested = site.standings().await;
    assert!(rested[0].at_rest && rested[0].login_is_its_own);
    // A delivery comes between the reading and the mark.
    site.record([told("join-again", 9, gained("1", org()))]).await;
    assert_eq!(site.mark(&rested, Mark::Unknown).await, 0);
    site.reconcile(&[]).await;
    assert_eq!(site.mark(&rested, Mark::Unknown).await, 0, "it rests again, but another version");
    assert_eq!(site.mark(&site.standings().await, Mark::Unknown).await, 1);
    let (_, view) = site.take_one().await;
    assert_eq!((view.actual, view.drifted_from), (None, None));
}

#[rstest]
#[tokio::test]
async fn a_drift_is_known_until_somebody_settles_otherwise(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = with_a_join(on).await;
    site.reconcile(&[]).await;
    assert_eq!(site.mark(&site.standings().await, Mark::Drifted(OTHER)).await, 1);
    let row = &site.rows().await[0];
    assert_eq!((row.desired, row.actual, row.state), (Some(PERSON), Some(OTHER), Some(State::Settled)));
    assert_eq!((row.reason.as_deref(), site.ledger.counts().await.unwrap().drifted), (Some("told"), 1));
    let only = AccountFilter { drifted: true, ..AccountFilter::default() };
    assert_eq!(site.ledger.accounts(&only, None, 9).await.unwrap().len(), 1);
    assert!(site.take().await.is_empty(), "nothing is due by that");

    // The next look knows of it, and keeps it.
    site.record([told("join-again", 9, gained("1", org()))]).await;
    let (lease, view) = site.take_one().await;
    assert_eq!((view.drifted_from, view.actual), (Some(PERSON), Some(OTHER)));
    let kept = Settlement { keep_drift: true, ..settled(Settled::Unchanged, Some(PERSON), Some(OTHER)) };
    site.ledger.settle(&lease, view.version, &kept, Vec::new()).await.unwrap();
    assert_eq!(site.ledger.counts().await.unwrap().drifted, 1);
    assert_eq!(site.mark(&site.standings().await, Mark::Returned(PERSON)).await, 1);
    assert_eq!(site.ledger.counts().await.unwrap().drifted, 0);
    assert_eq!(site.rows().await[0].actual, Some(PERSON));

    site.mark(&site.standings().await, Mark::Drifted(OTHER)).await;
    site.record([told("leave", 20, lost("1", org()))]).await;
    site.reconcile(&[]).await;
    assert_eq!(site.ledger.counts().await.unwrap().drifted, 0);
}

#[rstest]
#[tokio::test]
async fn waiting_counts_from_its_beginning_and_what_was_given_up_can_be_due_again(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = with_a_join(on).await;
    let due = |result| Settlement { due_at: Some(Timestamp(0)), identity: None, ..settled(result, None, None) };
    site.settle(&due(Settled::Waiting)).await;
    let since = site.rows().await[0].waiting_since.unwrap();
    // Neither looking again nor a failure nor further news begin it anew.
    site.settle(&due(Settled::Failed)).await;
    site.record([told("join-again", 2, gained("1", org()))]).await;
    site.settle(&due(Settled::Waiting)).await;
    assert_eq!(site.rows().await[0].waiting_since, Some(since));
    site.settle(&Settlement { due_at: None, ..due(Settled::GaveUp) }).await;
    assert_eq!((site.rows().await[0].waiting_since, site.outcome("join").await), (Some(since), Outcome::Superseded));
    assert_eq!(site.outcome("join-again").await, Outcome::Parked);

    let read = Some((IdentityRef(71), LinkStatus::Unlinked));
    assert_eq!(site.mark(&site.standings().await, Mark::Due { read }).await, 1);
    let (lease, view) = site.take_one().await;
    assert_eq!(
        (view.identity, view.actual, view.waiting_since),
        (Some(IdentityRef(71)), Some(LinkStatus::Unlinked), Some(since))
    );
    let linked = settled(Settled::Applied, Some(PERSON), Some(PERSON));
    site.ledger.settle(&lease, view.version, &linked, Vec::new()).await.unwrap();
    assert_eq!((site.rows().await[0].waiting_since, site.outcome("join-again").await), (None, Outcome::Applied));
}

#[rstest]
#[tokio::test]
async fn news_of_an_account_that_was_given_up_give_it_all_the_time_again(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = with_a_join(on).await;
    site.settle(&Settlement { due_at: Some(Timestamp(0)), ..settled(Settled::Waiting, None, None) }).await;
    site.settle(&settled(Settled::GaveUp, None, None)).await;
    site.record([told("join-again", 2, gained("1", org()))]).await;
    assert_eq!(site.take_one().await.1.waiting_since, None);
}

#[rstest]
#[tokio::test]
async fn a_yes_is_shown_before_it_is_said_and_noted_when_it_is(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    for n in 1..=3 {
        site.record([told(&format!("join-{n}"), n, gained(&n.to_string(), org()))]).await;
    }
    site.reconcile(&[]).await;
    let mut gone = told("gone", 9, Change::ScopeLost { scope: org() });
    if let Reading::Told { changes, .. } = &mut gone.reading {
        changes[0].mass_change_limit = 2;
    }
    site.record([gone.clone()]).await;
    assert_eq!(site.outcome("gone").await, Outcome::Held);
    let row = site.ledger.deliveries_named(&"gone".parse().unwrap()).await.unwrap()[0].row;
    let concerned = site.ledger.concerned(row, &gone, &|_| Vec::new()).await.unwrap();
    let ids: Vec<_> = concerned.iter().map(|one| (one.account.key.id.as_str(), one.actual, &one.access)).collect();
    assert_eq!(ids, ["1", "2", "3"].map(|id| (id, Some(PERSON), &Access::Gone)));
    assert_eq!(site.outcome("gone").await, Outcome::Held, "looking at it is no yes");
    assert!(site.take().await.is_empty());

    assert!(site.ledger.approve(row, &gone, "olga", "3 accounts").await.unwrap());
    assert_eq!(site.reconcile(&[]).await.len(), 3);
    assert_eq!(site.outcome("gone").await, Outcome::Applied);
    let noted = site.ledger.actions(About::Delivery(row)).await.unwrap();
    assert_eq!(
        noted.iter().map(|done| (done.operator.as_str(), done.action.as_str())).collect::<Vec<_>>(),
        [("olga", "approve")]
    );
    assert!(!site.ledger.approve(row, &gone, "olga", "3 accounts").await.unwrap(), "it isn't held any more");
}
