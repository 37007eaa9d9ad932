//! What befalls scopes and sources as a whole, and labels.

use super::*;
use crate::ledger::outcome::Outcome::{Applied, Held, Pending, Unchanged};

fn team() -> Scope {
    org().part(ScopeKind::Team, "4", Some("platform".into()))
}

#[rstest]
#[tokio::test]
async fn a_deleted_organisation_was_lost_by_everybody_in_it_and_in_its_parts(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = Site::open(on).await;
    site.record([told("a", 1, gained("1", org())), told("b", 2, gained("2", repo("7")))]).await;
    site.reconcile(&[]).await;
    assert!(site.record([told("gone", 5, Change::ScopeLost { scope: org() })]).await);
    assert_eq!(site.reconcile(&[]).await, [(account("1"), Access::Gone), (account("2"), Access::Gone)]);
    assert_eq!(site.outcome("gone").await, Applied);
}

#[rstest]
#[tokio::test]
async fn a_deleted_team_is_not_the_organisation(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("a", 1, gained("1", org())), told("b", 2, gained("1", team()))]).await;
    site.reconcile(&[]).await;
    site.record([told("gone", 5, Change::ScopeLost { scope: team() })]).await;
    let looked_at = site.reconcile(&[]).await;
    assert!(matches!(looked_at.as_slice(), [(_, Access::Held { .. })]));
    let reason = Some("the account still has access otherwise".to_owned());
    assert_eq!(site.history("gone").await.pop(), Some(("unchanged".into(), reason)));
}

#[rstest]
#[tokio::test]
async fn joins_that_arrive_after_a_loss_of_the_whole_and_happened_before_it_are_ended_by_it(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = Site::open(on).await;
    site.record([told("gone", 5, Change::ScopeLost { scope: org() })]).await;
    assert_eq!(site.outcome("gone").await, Unchanged);
    site.record([told("late", 2, gained("1", org())), told("part", 3, gained("2", repo("7")))]).await;
    site.record([told("new", 8, gained("3", org()))]).await;
    let looked_at = site.reconcile(&[]).await;
    assert!(matches!(looked_at.as_slice(), [(_, Access::Gone), (_, Access::Gone), (_, Access::Held { .. })]));
    let reason = Some("the account has lost access since".to_owned());
    assert_eq!(site.history("late").await.pop(), Some(("unchanged".into(), reason)));
    assert_eq!(site.outcome("new").await, Applied);
}

#[rstest]
#[tokio::test]
async fn a_lost_root_concerns_links_that_were_kept_because_nothing_was_known_of_it(
    #[values(Sqlite, PostgreSql)] on: Database,
) {
    let mut site = Site::open(on).await;
    site.record([told("a", 1, gained("1", repo("7"))), told("b", 2, lost("1", repo("7")))]).await;
    assert!(matches!(site.reconcile(&[]).await.as_slice(), [(_, Access::Unknown { .. })]));
    site.record([told("gone", 5, Change::ScopeLost { scope: org() })]).await;
    assert_eq!(site.reconcile(&[]).await, [(account("1"), Access::Gone)]);
}

#[rstest]
#[tokio::test]
async fn whoever_is_looking_at_an_account_while_a_root_is_lost_looks_again(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("a", 1, gained("1", repo("7"))), told("b", 2, lost("1", repo("7")))]).await;
    let (lease, view) = site.take_one().await;
    site.record([told("gone", 5, Change::ScopeLost { scope: org() })]).await;
    let kept = settled(Settled::Unchanged, None, Some(PERSON));
    let held = site.ledger.settle(&lease, view.version, &kept, Vec::new()).await.unwrap();
    assert_eq!(held, crate::ledger::work::Held::Moved);
    let view = site.ledger.view(&lease, &|_| Vec::new()).await.unwrap();
    assert_eq!(access(&view.grants, &view.roots), Access::Gone);
    assert_eq!(view.actual, Some(PERSON), "what it has learned isn't forgotten");
}

#[rstest]
#[tokio::test]
async fn above_the_limit_a_loss_of_the_whole_waits_for_a_yes(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record((1..=3).map(|n| told(&format!("join-{n}"), n, gained(&n.to_string(), org())))).await;
    site.reconcile(&[]).await;
    let mut gone = told("gone", 9, Change::ScopeLost { scope: org() });
    if let Reading::Told { changes, .. } = &mut gone.reading {
        changes[0].mass_change_limit = 2;
    }
    assert!(!site.record([gone.clone()]).await);
    assert_eq!(site.outcome("gone").await, Held);
    let reason = site.history("gone").await.pop().unwrap().1.unwrap();
    assert!(reason.starts_with("it concerns 3 accounts at once, more than mass_change_limit = 2"), "{reason}");
    assert!(site.take().await.is_empty());
    assert!(!site.record([gone.clone()]).await, "a redelivery is no yes");
    assert_eq!(site.outcome("gone").await, Held);

    let mut approved = Entry { approved: true, ..gone };
    approved.delivery.replay = Some(Uuid::from_u128(9));
    assert!(site.record([approved]).await);
    assert_eq!(site.outcome("gone").await, Pending);
    assert!(site.reconcile(&[]).await.iter().all(|(_, access)| *access == Access::Gone));
    assert_eq!(site.outcome("gone").await, Applied);
}

#[rstest]
#[tokio::test]
async fn at_the_limit_nobody_is_asked(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record((1..=2).map(|n| told(&format!("join-{n}"), n, gained(&n.to_string(), org())))).await;
    let mut gone = told("gone", 9, Change::ScopeLost { scope: org() });
    if let Reading::Told { changes, .. } = &mut gone.reading {
        changes[0].mass_change_limit = 2;
    }
    assert!(site.record([gone]).await);
}

#[rstest]
#[tokio::test]
async fn a_moved_repository_leaves_its_collaborators_unknown(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("a", 1, gained("1", repo("7")))]).await;
    site.reconcile(&[]).await;
    site.record([told("moved", 5, Change::ScopeMoved { scope: repo("7") })]).await;
    assert!(matches!(site.reconcile(&[]).await.as_slice(), [(_, Access::Unknown { .. })]));
}

#[rstest]
#[tokio::test]
async fn a_new_login_is_noted_and_wakes_an_account_that_waits(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("join", 1, gained("1", org()))]).await;
    let (lease, view) = site.take_one().await;
    site.ledger.settle(&lease, view.version, &settled(Settled::Waiting, None, None), Vec::new()).await.unwrap();
    let renamed = Account { login: Some("ada-lovelace".into()), ..account("1") };
    assert!(site.record([told("rename", 3, Change::Renamed { account: renamed.clone() })]).await);
    assert_eq!(site.outcome("rename").await, Unchanged);
    let (_, view) = site.take_one().await;
    assert_eq!(view.account, renamed);
}

#[rstest]
#[tokio::test]
async fn older_labels_do_not_overwrite_newer_ones(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let renamed = Account { login: Some("ada-lovelace".into()), ..account("1") };
    site.record([told("rename", 5, Change::Renamed { account: renamed })]).await;
    let newer = Scope { name: Some("acme-inc".into()), ..org() };
    site.record([told("renamed", 5, Change::ScopeRenamed { scope: newer })]).await;
    site.record([told("join", 1, gained("1", org()))]).await;
    let (_, view) = site.take_one().await;
    assert_eq!(view.account.login.as_deref(), Some("ada-lovelace"));
    assert_eq!(view.roots[0].name, "org:acme-inc");
}

#[rstest]
#[tokio::test]
async fn a_login_that_two_accounts_have_held_is_nobodys_own(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let heir = Account { login: Some("LOGIN-1".into()), ..account("2") };
    site.record([told("join", 1, gained("1", org()))]).await;
    let change = Change::Access { account: heir, scope: org(), kind: AccessKind::Gained };
    site.record([told("heir", 2, change)]).await;
    for lease in site.take().await {
        assert!(!site.ledger.view(&lease, &|_| Vec::new()).await.unwrap().login_is_its_own);
    }
}

#[rstest]
#[tokio::test]
async fn letters_beyond_ascii_hide_no_second_holder_of_a_login(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    for (id, login) in [("1", "ÉLISE"), ("2", "élise")] {
        let account = Account { login: Some(login.into()), ..account(id) };
        site.record([told(id, 1, Change::Access { account, scope: org(), kind: AccessKind::Gained })]).await;
    }
    for lease in site.take().await {
        assert!(!site.ledger.view(&lease, &|_| Vec::new()).await.unwrap().login_is_its_own);
    }
}

#[rstest]
#[tokio::test]
async fn a_source_goes_blind_and_comes_back_in_the_order_of_events(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let state = async |site: &Site| -> (i64, Option<String>) {
        let row = sqlx::query("SELECT blind, why FROM source_states").fetch_one(&site.ledger.read).await.unwrap();
        (row.get(0), row.get(1))
    };
    site.record([told("blind", 5, Change::SourceBlind { why: "uninstalled".into() })]).await;
    assert_eq!(state(&site).await, (1, Some("uninstalled".into())));
    site.record([told("late", 1, Change::SourceBack)]).await;
    assert_eq!(state(&site).await.0, 1);
    site.record([told("back", 9, Change::SourceBack)]).await;
    assert_eq!(state(&site).await, (0, None));
    assert!(site.take().await.is_empty());
}

#[rstest]
#[tokio::test]
async fn configured_roots_count_before_any_event_speaks_of_them(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("leave", 1, lost("1", org()))]).await;
    let (lease, _) = site.take_one().await;
    let roots: [RootPattern; 2] = ["org:acme".parse().unwrap(), "org:acme-labs".parse().unwrap()];
    let view = site.ledger.view(&lease, &|_| roots.to_vec()).await.unwrap();
    assert_eq!(access(&view.grants, &view.roots), Access::Unknown { roots: vec!["org:acme-labs".into()] });
    let view = site.ledger.view(&lease, &|_| roots[..1].to_vec()).await.unwrap();
    assert_eq!(access(&view.grants, &view.roots), Access::Gone);
}
