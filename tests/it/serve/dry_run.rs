//! `serve --dry-run` says what it would do, and the next run without it does it.

use rollcall::ledger::outcome::Outcome;
use serde_json::Value;

use crate::harness::github::{Account, SECRET};
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::until;

#[tokio::test]
async fn a_dry_run_changes_nothing_and_the_next_run_does_it_at_once() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("retry", "waiting", "1h");
    let secrets = [("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()), ("DRATA_API_KEY", "a key".to_owned())];
    let mut process = site.serve_with(&["--dry-run"], &secrets);
    let at = process.ready().await;
    let join = site.github.join(Account(1));
    site.github.accepted(&at.webhook, &join).await;
    let ledger = site.ledger().await;
    let reason = becomes(&ledger, &join.id, Outcome::Waiting).await;
    assert_eq!(reason, "dry run: would link it to person 501");
    assert!(!site.drata.requests().is_empty(), "it looks things up");
    assert!(site.connects(Account(1)).is_empty());
    let health = site.ask(&at, "/health").await.1;
    assert_eq!(health["parts"]["dry-run"]["state"], Value::from("degraded"), "{health}");
    until("the metric counts it", async || {
        let metrics = site.ask(&at, "/metrics").await.1;
        metrics.as_str().unwrap().contains("rollcall_would_apply_accounts 1")
    })
    .await;
    let ended = process.stop().await;
    assert!(ended.log.contains("THIS IS A DRY RUN"), "{}", ended.log);
    assert!(site.connects(Account(1)).is_empty());

    let (process, _) = site.serve().await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(Account(1)));
    assert_eq!(process.stop().await.code, Some(0));
}
