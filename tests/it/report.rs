//! The evidence for auditors, made beside a process that serves, and the proof of it.

use rollcall::ledger::outcome::Outcome;
use serde_json::Value;
use sqlx::{AnyConnection, Connection};

use crate::harness::github::{Account, SECRET};
use crate::harness::process::Ended;
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::until;

async fn run(site: &Site, arguments: &[&str]) -> Ended {
    let environment = [("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()), ("DRATA_API_KEY", "a key".to_owned())];
    site.run_in(arguments, &environment).ended().await
}

#[tokio::test]
async fn a_join_and_a_leave_are_proved_until_somebody_changes_them() {
    let mut site = Site::new(Carrier::Embedded, 2).await;
    site.set("evidence", "seal_every", "100ms");
    let (process, at) = site.serve().await;
    let ledger = site.ledger().await;
    for posted in [site.github.join(Account(1)), site.github.leave(Account(1))] {
        site.github.accepted(&at.webhook, &posted).await;
        becomes(&ledger, &posted.id, Outcome::Applied).await;
    }
    until("everything is sealed", async || ledger.unsealed().await.unwrap() == 0).await;
    let (_, metrics) = site.ask(&at, "/metrics").await;
    assert!(metrics.as_str().unwrap().contains("rollcall_seals "), "{metrics}");

    let report = run(&site, &["report", "--from", "1h", "--format", "json"]).await;
    assert_eq!(report.code, Some(0), "{report:?}");
    let json: Value = serde_json::from_str(&report.output).unwrap();
    let outcomes: Vec<_> = json["changes"].as_array().unwrap().iter().map(|row| &row["outcome"]).collect();
    assert_eq!(outcomes, ["applied", "applied"]);
    assert_eq!(json["summary"]["evidenced"], 2, "Drata's own log tells of both: {json}");
    assert_eq!(json["report"]["unsealed"], 0);

    site.break_drata(&["403@events"]);
    let file = site.config_file().with_file_name("q3.html");
    let report =
        run(&site, &["report", "--from", "2026-01-01", "--format", "html", "--output", file.to_str().unwrap()]).await;
    assert_eq!(report.code, Some(0), "{report:?}");
    assert!(report.log.starts_with("2 changes written to"), "{report:?}");
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.contains("could not be read: the API key may not read it (403)"), "{page}");

    let verified = run(&site, &["report", "--verify", "--json"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let head: Value = serde_json::from_str(&verified.output).unwrap();
    let head = format!("{}:{}", head["head"]["number"], head["head"]["hash"].as_str().unwrap());
    assert!(page.contains(&head), "a report has the head in it");
    assert_eq!(process.stop().await.code, Some(0));

    let url = format!("sqlite://{}", site.data().join("ledger.db").display());
    let mut connection = AnyConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE changes SET kind = 'gained' WHERE id = 2").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let verified = run(&site, &["report", "--verify", "--head", &head]).await;
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.output.contains("BROKEN: row 2 of changes was changed after it was sealed"), "{verified:?}");
}

#[tokio::test]
async fn what_makes_no_sense_is_a_usage_error() {
    let site = Site::new(Carrier::Embedded, 1).await;
    let (process, _) = site.serve().await;
    for (arguments, said) in [
        (&["report"] as &[&str], "--from"),
        (&["report", "--from", "yesterday"], "must be a date like"),
        (&["report", "--from", "1h", "--to", "2h"], "must be later than"),
        (&["report", "--from", "1h", "--account", "nobody"], "isn't in the ledger"),
        (&["report", "--verify", "--head", "7"], "64 hexadecimal digits"),
    ] {
        let ended = run(&site, arguments).await;
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.log.contains(said), "{arguments:?}: {ended:?}");
    }
    assert_eq!(process.stop().await.code, Some(0));
}
