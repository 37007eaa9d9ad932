//! The ledger in PostgreSQL as its owner and as the role that serves see it.

use rollcall::ledger::outcome::Outcome;

use crate::harness::github::Account;
use crate::harness::process::Process;
use crate::harness::site::{Carrier, Site, becomes};

#[tokio::test]
async fn a_role_that_may_change_no_table_serves_what_its_owner_has_migrated() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.in_postgresql().await;
    site.set("ledger", "migrate", false);
    let refused = site.start().ended().await;
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.log.contains("ledger.migrate is false; run `rollcall migrate`"), "{}", refused.log);

    let pending = site.run(&["migrate", "--check"]).ended().await;
    assert_eq!(pending.code, Some(1), "{pending:?}");
    assert!(pending.output.starts_with("PostgreSQL: pending 0001 ledger\n"), "{}", pending.output);
    assert_eq!(site.run(&["migrate"]).ended().await.code, Some(0));
    let none = site.run(&["migrate", "--check"]).ended().await;
    assert_eq!((none.code, none.output.as_str()), (Some(0), "PostgreSQL: up to date\n"));

    let _role = site.serves_as_a_role().await;
    let (process, at) = site.serve().await;
    let (join, leave) = (site.github.join(Account(1)), site.github.leave(Account(1)));
    let ledger = site.ledger().await;
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    site.github.accepted(&at.webhook, &leave).await;
    becomes(&ledger, &leave.id, Outcome::Applied).await;
    let listed = site.run(&["deliveries"]).ended().await;
    assert!(listed.output.contains(join.id.as_str()), "{listed:?}");
    let forbidden = site.run(&["migrate"]).ended().await;
    assert_eq!(forbidden.code, Some(0), "there is nothing to change: {forbidden:?}");
    assert_eq!(process.stop().await.code, Some(0));
}

#[tokio::test]
async fn a_postgresql_that_is_not_there_is_named_without_its_password() {
    let mut site = Site::new(Carrier::Embedded, 0).await;
    site.set("ledger", "url", "postgres://rollcall:hunter2@127.0.0.1:1/ledger");
    let processes: [Process; 2] = [site.start(), site.run(&["accounts"])];
    for process in processes {
        let ended = process.ended().await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.log.contains("can't reach PostgreSQL at 127.0.0.1:1/ledger (ledger.url)"), "{}", ended.log);
        assert!(!ended.log.contains("hunter2"), "{}", ended.log);
    }
}
