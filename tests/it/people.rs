//! Whose accounts are, as an operator says it, beside a process that serves.

use rollcall::ledger::outcome::Outcome;
use rollcall::sandbox::Person;
use serde_json::{Value, json};

use crate::harness::github::Account;
use crate::harness::process::Ended;
use crate::harness::site::{Carrier, Site, becomes, identity_of};
use crate::harness::until;

const ACCOUNT: Account = Account(1);

async fn run(site: &Site, arguments: &[&str]) -> Ended {
    let environment = [("USER", "olga".to_owned()), ("DRATA_API_KEY", "a key".to_owned())];
    site.run_in(&[&["people"], arguments].concat(), &environment).ended().await
}

async fn done(site: &Site, arguments: &[&str]) -> String {
    let ended = run(site, arguments).await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.output
}

async fn json_of(site: &Site, arguments: &[&str]) -> Value {
    serde_json::from_str(&done(site, arguments).await).unwrap()
}

/// A site whose accounts nobody has mapped, and that looks at whoever waits only when it is told to.
async fn unmapped(people: i64) -> Site {
    let mut site = Site::new(Carrier::Embedded, people).await;
    site.set("retry", "waiting", "1h");
    site.write_people([]);
    site
}

#[tokio::test]
async fn a_link_is_reconciled_at_once_wins_over_the_file_and_is_explained() {
    let site = unmapped(2).await;
    site.write_people([(ACCOUNT, ACCOUNT.email())]);
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(ACCOUNT));

    // People write logins as they like, and the file says somebody else.
    let told = done(&site, &["link", "github:DEV-1", "user:502"]).await;
    assert_eq!(told, "dev-1 (github:#2001) is user:502's. A worker reconciles it at once.\n");
    until("it is the other person's", async || site.drata.linked(ACCOUNT.identity()) == Some(502)).await;
    let rows = json_of(&site, &["list", "--account", "dev-1", "--json"]).await;
    assert_eq!(rows[0]["person"], "user:502");
    assert_eq!((&rows[0]["from"], &rows[0]["operator"]), (&json!("operator"), &json!("olga")));

    let told = done(&site, &["unlink", "github:dev-1"]).await;
    assert_eq!(told, "dev-1 (github:#2001) is nobody's (before: user:502). A worker reconciles it at once.\n");
    until("it is nobody's", async || site.drata.linked(ACCOUNT.identity()).is_none()).await;
    // It stays so whatever the account does.
    let again = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &again).await;
    let reason = becomes(&ledger, &again.id, Outcome::Unchanged).await;
    assert_eq!(reason, "it is unlinked already");
    let explained = site.run(&["explain", "github:dev-1"]).ended().await.output;
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(explained.contains("It is nobody's: olga has said so on"), "{explained}");
}

#[tokio::test]
async fn an_account_can_be_linked_before_anybody_has_seen_it() {
    let site = unmapped(2).await;
    let (_process, at) = site.serve().await;
    let told = done(&site, &["link", "github:dev-1", "user:502"]).await;
    assert!(told.contains("No delivery has spoken of it yet"), "{told}");
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    becomes(&site.ledger().await, &join.id, Outcome::Applied).await;
    assert_eq!(site.drata.linked(ACCOUNT.identity()), Some(502));
    let rows = json_of(&site, &["list", "--from", "operator", "--json"]).await;
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(rows[0]["account"], "github@github.com:#2001");
}

#[tokio::test]
async fn an_import_says_by_line_what_is_wrong_and_an_export_is_imported_without_news() {
    let site = unmapped(3).await;
    let (process, at) = site.serve().await;
    let ledger = site.ledger().await;
    for n in 1..=3 {
        let join = site.github.join(Account(n));
        site.github.accepted(&at.webhook, &join).await;
        becomes(&ledger, &join.id, Outcome::Waiting).await;
    }
    assert_eq!(process.stop().await.code, Some(0));
    let file = site.data().with_file_name("import.csv");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();

    write("account,person\ngithub:dev-1,dev-1@acme.example\ngithub:dev-2,somebody\ndev-3,user:503\n");
    let refused = run(&site, &["import", path]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.log.contains("import.csv:3: person \"somebody\" is neither an e-mail address nor user:518"),
        "{refused:?}"
    );
    assert!(
        refused.log.contains("import.csv:4: account \"dev-3\" names no provider; write github:dev-3"),
        "{refused:?}"
    );
    write("account,person\ngithub:dev-1,dev-1@acme.example\ngithub:#2001,user:503\n");
    let refused = run(&site, &["import", path]).await;
    assert_eq!(refused.code, Some(2));
    assert!(
        refused
            .log
            .contains("import.csv:3: account github@github.com:#2001 is the same account as github@github.com:dev-1"),
        "{refused:?}"
    );
    assert_eq!(done(&site, &["export"]).await, "account,person\n");

    done(&site, &["link", "github:dev-2", "user:501"]).await;
    write("account,person\ngithub:dev-1,dev-1@acme.example\ngithub:dev-2,nobody\ngithub:later,user:503\n");
    let summary = "2 added, 1 changed, 0 left as they are.\n";
    let rehearsed = done(&site, &["import", path, "--dry-run"]).await;
    assert!(rehearsed.ends_with(&format!("This would be: {summary}")), "{rehearsed}");
    assert!(done(&site, &["import", path]).await.ends_with(summary));
    assert_eq!(done(&site, &["import", path]).await, "0 added, 0 changed, 3 left as they are.\n");

    let exported = done(&site, &["export"]).await;
    assert_eq!(
        exported,
        "account,person\ngithub@github.com:#2001,dev-1@acme.example\ngithub@github.com:#2002,nobody\n\
         github@github.com:later,user:503\n"
    );
    write(&exported);
    assert_eq!(done(&site, &["import", path]).await, "0 added, 0 changed, 3 left as they are.\n");
    let elsewhere = unmapped(0).await;
    let (process, _) = elsewhere.serve().await;
    assert_eq!(process.stop().await.code, Some(0));
    assert!(done(&elsewhere, &["import", path]).await.ends_with("3 added, 0 changed, 0 left as they are.\n"));
    assert_eq!(done(&elsewhere, &["export"]).await, exported);
}

#[tokio::test]
async fn suggestions_come_with_the_command_that_links_and_link_nobody() {
    let site = unmapped(0).await;
    for (id, email, first, last) in
        [(601, "maya.lindqvist@acme.example", "Maya", "Lindqvist"), (602, "tomas.rivas@acme.example", "Tomás", "Rivas")]
    {
        site.drata.put_person(Person {
            id,
            email: email.to_owned(),
            first_name: first.to_owned(),
            last_name: last.to_owned(),
            employment_status: "CURRENT_EMPLOYEE".to_owned(),
        });
    }
    let mut known = identity_of(ACCOUNT);
    known.email = Some("maya.lindqvist@home.example".to_owned());
    site.drata.put_identity(known);
    site.drata.put_identity(identity_of(Account(2)));
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    for account in [ACCOUNT, Account(2)] {
        let join = site.github.join(account);
        site.github.accepted(&at.webhook, &join).await;
        becomes(&ledger, &join.id, Outcome::Waiting).await;
    }
    let suggested = done(&site, &["suggest"]).await;
    assert_eq!(
        suggested,
        "dev-1 (github:#2001)\n  Maya Lindqvist: the e-mail addresses begin alike\n    \
         rollcall people link 'github:#2001' maya.lindqvist@acme.example\n\n\
         dev-2 (github:#2002)\n  nobody suggests itself; `rollcall people link 'github:#2002' PERSON` says whose it is\n"
    );
    let rows = json_of(&site, &["suggest", "--json"]).await;
    assert_eq!(rows[0]["suggestions"][0]["reason"], "same_email_name");
    assert!(site.connects(ACCOUNT).is_empty());

    // The very command, as it is shown.
    done(&site, &["link", "github:#2001", "maya.lindqvist@acme.example"]).await;
    until("it is linked", async || site.drata.linked(ACCOUNT.identity()) == Some(601)).await;
}

#[tokio::test]
async fn what_names_nothing_is_a_usage_error_with_a_way_out() {
    let site = unmapped(0).await;
    let (process, _) = site.serve().await;
    assert_eq!(process.stop().await.code, Some(0));
    let ended = run(&site, &["link", "octocat", "user:501"]).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.log.contains("name its provider and host"), "{ended:?}");
    let ended = run(&site, &["link", "github:octocat", "ada"]).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.log.contains("person \"ada\" is neither an e-mail address nor user:518"), "{ended:?}");
}
