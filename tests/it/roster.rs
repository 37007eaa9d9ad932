//! Rosters: what the providers' own lists show and no webhook told, in a process that serves and by `rollcall roster`.

use rollcall::ledger::outcome::Outcome;
use rollcall::ledger::show::filter::DeliveryFilter;
use rstest::rstest;
use serde_json::Value;
use toml::Table;

use crate::harness::github::{Account, SECRET};
use crate::harness::process::{Addresses, Ended, Process};
use crate::harness::rosters::{Api, Fault, Person, Speaks, TOKEN};
use crate::harness::site::{Carrier, Site, becomes};
use crate::harness::until;

const STAYS: Account = Account(1);
const LEAVES: Account = Account(2);

fn person(account: Account) -> Person {
    Person::new(account.id().parse().unwrap(), &account.login())
}

/// A site whose only source may ask this API, and reads its rosters all the time.
async fn site(people: i64, api: &Api) -> Site {
    let mut site = Site::new(Carrier::Embedded, people).await;
    site.source().insert("api_token".to_owned(), Table::from_iter([("env".to_owned(), "API_TOKEN".into())]).into());
    site.source().insert("api_url".to_owned(), api.url.to_string().into());
    site.set("roster", "every", "50ms");
    site.set("roster", "apart", "1ms");
    site
}

fn environment() -> Vec<(&'static str, String)> {
    vec![
        ("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()),
        ("DRATA_API_KEY", "a key".to_owned()),
        ("API_TOKEN", TOKEN.to_owned()),
    ]
}

async fn serve(site: &Site) -> (Process, Addresses) {
    let mut process = site.start_with(&environment());
    let addresses = process.ready().await;
    (process, addresses)
}

/// Makes the ledger, as a process that serves does at its start.
async fn make_ledger(site: &Site) {
    std::fs::create_dir_all(site.data()).unwrap();
    site.ledger().await.close().await;
}

async fn roster(site: &Site, arguments: &[&str]) -> Ended {
    site.run_in(&[&["roster"], arguments].concat(), &environment()).ended().await
}

/// What `rollcall roster --json` says of the only root.
async fn report(site: &Site, arguments: &[&str]) -> Value {
    let ended = roster(site, &[&["--json"], arguments].concat()).await;
    let reports: Value = serde_json::from_str(&ended.output).unwrap_or_else(|_| panic!("{ended:?}"));
    reports[0].clone()
}

/// Waits until the rosters have been read so many times more.
async fn readings(api: &Api, more: usize) {
    let wanted = api.asked("/orgs/acme?") + api.asked("/orgs/acme/outside_collaborators") + more;
    until("the roster is read again", async || {
        api.asked("/orgs/acme?") + api.asked("/orgs/acme/outside_collaborators") >= wanted
    })
    .await;
}

#[tokio::test]
async fn who_joined_and_left_without_a_webhook_is_linked_and_unlinked_after_two_readings_and_not_before() {
    let api = Api::new(Speaks::GitHub).await;
    let mut site = site(3, &api).await;
    let (missed, other) = (Account(3), 7000);
    api.with(|host| {
        host.members = [STAYS, LEAVES, missed].map(|it| (it.id().parse().unwrap(), person(it))).into();
        host.others.insert(other, Person::new(other, "outsider"));
    });
    site.set("roster", "apart", "1h");
    let (process, at) = serve(&site).await;
    for account in [STAYS, LEAVES] {
        let join = site.github.join(account);
        site.github.accepted(&at.webhook, &join).await;
        becomes(&site.ledger().await, &join.id, Outcome::Applied).await;
    }
    api.with(|host| host.members.remove(&LEAVES.id().parse().unwrap()));
    // However often it is read: the readings must lie an hour apart.
    readings(&api, 8).await;
    assert!(site.is_linked(LEAVES) && !site.is_linked(missed));
    let (_, metrics) = site.ask(&at, "/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("rollcall_roster_readings_total{source=\"acme-github\",result=\"whole\"}"), "{metrics}");
    process.stop().await;

    site.set("roster", "apart", "1ms");
    let (_process, _) = serve(&site).await;
    until("the one who left is unlinked", async || !site.is_linked(LEAVES)).await;
    until("the one whose webhook was missed is linked", async || site.is_linked(missed)).await;
    assert!(site.is_linked(STAYS));
    let ledger = site.ledger().await;
    let balance = ledger.balance().await.unwrap();
    assert!(balance.adds_up(), "{balance}");
    let explained = site.run_in(&["explain", "#2002"], &environment()).ended().await;
    assert!(explained.output.contains("rollcall.roster"), "{explained:?}");
    // The pages that hadn't changed weren't sent again.
    assert!(api.with(|host| host.requests.iter().any(|(_, status)| *status == 304)));
}

#[rstest]
#[case::forbidden(Fault::Status(403), "it takes a token of an organisation's owner")]
#[case::nowhere(Fault::Status(404), "there is no such thing, or the token may not see it")]
#[tokio::test]
async fn a_roster_that_is_refused_degrades_its_source_and_takes_nothing_from_anybody(
    #[case] fault: Fault,
    #[case] says: &str,
) {
    let api = Api::new(Speaks::GitHub).await;
    let site = site(2, &api).await;
    api.with(|host| host.members.insert(1, person(STAYS)));
    let (_process, at) = serve(&site).await;
    let join = site.github.join(LEAVES);
    api.with(|host| host.faults = vec![("outside_collaborators", fault)]);
    site.github.accepted(&at.webhook, &join).await;
    becomes(&site.ledger().await, &join.id, Outcome::Applied).await;
    let unwell = async || {
        let (_, health) = site.ask(&at, "/health").await;
        let reason = health["parts"]["source:acme-github"]["reason"].as_str().unwrap_or_default().to_owned();
        if reason.contains(says) { Some(reason) } else { None }
    };
    until("the source says so", async || unwell().await.is_some()).await;
    assert!(site.is_linked(LEAVES));
    api.with(|host| host.faults.clear());
    until("the source is well again", async || unwell().await.is_none()).await;
    until("the roster counts", async || !site.is_linked(LEAVES)).await;
}

#[rstest]
#[case::a_failing_page("page=2", Fault::Status(502), "502 Bad Gateway")]
#[case::a_page_that_breaks_off("page=2", Fault::BreaksOff, "organizations/4201/members")]
#[case::a_page_of_another_shape("page=2", Fault::Status(200), "isn't of the expected shape")]
#[tokio::test]
async fn a_reading_that_breaks_off_is_none(#[case] at: &'static str, #[case] fault: Fault, #[case] says: &str) {
    let api = Api::new(Speaks::GitHub).await;
    let site = site(3, &api).await;
    api.with(|host| host.members = (1..=3).map(|n| (n, person(Account(i64::try_from(n).unwrap())))).collect());
    make_ledger(&site).await;
    assert_eq!(roster(&site, &["--yes"]).await.code, Some(0));
    api.with(|host| host.faults = vec![(at, fault)]);
    let ended = roster(&site, &["--yes"]).await;
    assert!(matches!(ended.code, Some(1 | 3)), "{ended:?}");
    assert!(format!("{}{}", ended.output, ended.log).contains(says), "{ended:?}");
    let ledger = site.ledger().await;
    let row = ledger.rosters().await.unwrap().remove(0);
    assert!(row.failure.is_some() && row.differences == 0, "{row:?}");
}

#[tokio::test]
async fn a_rate_limit_is_waited_out() {
    let api = Api::new(Speaks::GitHub).await;
    let site = site(1, &api).await;
    api.with(|host| {
        host.members.insert(1, person(STAYS));
        host.faults = vec![("outside_collaborators", Fault::Throttled)];
    });
    make_ledger(&site).await;
    assert_eq!(report(&site, &["--dry-run"]).await["members"], 1);
    assert_eq!(api.asked("outside_collaborators"), 2);
}

#[tokio::test]
async fn a_token_that_sees_the_public_members_only_reads_no_roster() {
    for (speaks, says) in [(Speaks::GitHub, "302"), (Speaks::Gitea, "303")] {
        let api = Api::new(speaks).await;
        let mut site = site(1, &api).await;
        if speaks == Speaks::Gitea {
            site.source().insert("provider".to_owned(), "gitea".into());
        }
        api.with(|host| {
            host.sees_all = false;
            host.members = [(1, Person { public: true, ..person(STAYS) }), (2, person(LEAVES))].into();
        });
        make_ledger(&site).await;
        let ended = roster(&site, &["--dry-run"]).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for said in [says, "public members only"] {
            assert!(ended.output.replace("\n  ", " ").contains(said), "{said} in {ended:?}");
        }
    }
}

#[tokio::test]
async fn the_first_run_takes_in_whoever_is_there_after_a_look_and_a_yes() {
    let api = Api::new(Speaks::GitHub).await;
    let site = site(3, &api).await;
    api.with(|host| {
        host.members = (1..=3).map(|n| (n, person(Account(i64::try_from(n).unwrap())))).collect();
        host.members.get_mut(&1).unwrap().role = "admin";
    });
    make_ledger(&site).await;
    let dry = report(&site, &["--dry-run"]).await;
    assert_eq!((&dry["members"], &dry["recorded"]), (&3.into(), &Value::Null));
    let first = &dry["differences"][0];
    assert_eq!(
        (&first["roster"], &first["ledger"], &first["effect"]),
        (&"owner".into(), &"nothing".into(), &"imported".into())
    );
    assert!(!dry.to_string().contains(TOKEN));
    let shown = roster(&site, &["--dry-run", "--width", "80"]).await;
    assert!(shown.output.contains("3 accounts have access") && shown.output.contains("taken in"), "{shown:?}");
    assert!(shown.output.lines().all(|line| line.chars().count() <= 80), "{shown:?}");

    let unasked = roster(&site, &[]).await;
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    assert!(unasked.log.contains("add --yes"), "{unasked:?}");
    let ledger = site.ledger().await;
    assert!(ledger.kept_page(&DeliveryFilter::default(), 0, 10).await.unwrap().is_empty());

    let done = report(&site, &["--yes"]).await;
    assert_eq!(done["recorded"]["gained"], 3);
    let kept = ledger.kept_page(&DeliveryFilter::default(), 0, 10).await.unwrap();
    assert_eq!(kept.len(), 3);
    assert!(kept.iter().all(|(_, delivery)| delivery.event.as_str() == "rollcall.roster"));
    assert_eq!(report(&site, &["--dry-run"]).await["differences"], Value::Array(Vec::new()));

    // They are reconciled by whoever serves.
    let (_process, _) = serve(&site).await;
    until("all are linked", async || (1..=3).all(|n| site.is_linked(Account(n)))).await;
}

#[tokio::test]
async fn more_losses_than_the_limit_are_one_question() {
    let api = Api::new(Speaks::GitHub).await;
    let mut site = site(3, &api).await;
    site.source().insert("mass_change_limit".to_owned(), 1.into());
    api.with(|host| host.members = (1..=4).map(|n| (n, person(Account(i64::try_from(n).unwrap())))).collect());
    make_ledger(&site).await;
    assert_eq!(report(&site, &["--yes"]).await["recorded"]["gained"], 4);
    api.with(|host| host.members.retain(|id, _| *id > 2));
    assert_eq!(report(&site, &[]).await["recorded"]["pending"], 2);
    assert_eq!(report(&site, &["--dry-run"]).await["differences"][0]["effect"], "held");
    assert_eq!(report(&site, &[]).await["recorded"]["held"], 2);
    // The question stands, and isn't put again.
    assert_eq!(report(&site, &[]).await["recorded"]["held"], 2);
    let ledger = site.ledger().await;
    let held: Vec<_> = ledger.kept_page(&DeliveryFilter::default(), 4, 10).await.unwrap();
    let [(_, delivery)] = held.as_slice() else { panic!("one question, not {}", held.len()) };
    assert_eq!(ledger.outcome_of(&delivery.source, &delivery.id).await.unwrap().unwrap().0, Outcome::Held);
    let approved = site.run_in(&["approve", delivery.id.as_str(), "--yes"], &environment()).ended().await;
    assert_eq!(approved.code, Some(0), "{approved:?}");
    assert_eq!(report(&site, &[]).await["differences"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn at_gitlab_a_missed_leave_a_blocked_user_and_a_member_of_a_subgroup_come_right() {
    let api = Api::new(Speaks::GitLab).await;
    let mut site = site(4, &api).await;
    for (key, value) in [("provider", "gitlab"), ("verify", "token")] {
        site.source().insert(key.to_owned(), value.into());
    }
    site.source().insert("scopes".to_owned(), vec!["group:#4201"].into());
    let three = || (1..=3).map(|n| (n, person(Account(i64::try_from(n).unwrap())))).collect();
    api.with(|host| (host.members, host.others) = (three(), [(9, person(Account(4)))].into()));
    make_ledger(&site).await;
    assert_eq!(report(&site, &["--yes"]).await["recorded"]["gained"], 4);
    api.with(|host| {
        host.members.remove(&1);
        host.members.get_mut(&2).unwrap().state = "blocked";
    });
    assert_eq!(report(&site, &[]).await["recorded"]["pending"], 2);
    let second = report(&site, &[]).await;
    assert_eq!(second["recorded"]["lost"], 2, "{second}");
    assert_eq!(report(&site, &[]).await["differences"], Value::Array(Vec::new()));
    api.with(|host| host.members = three());
    report(&site, &[]).await;
    let back = report(&site, &[]).await;
    assert_eq!(back["recorded"]["gained"], 2, "{back}");
    assert_eq!(report(&site, &[]).await["differences"], Value::Array(Vec::new()));
}

#[rstest]
#[case::bitbucket(Speaks::Bitbucket, "bitbucket-cloud", "bitbucket.org")]
#[case::gitea(Speaks::Gitea, "gitea", "git.acme.example")]
#[case::forgejo(Speaks::Gitea, "forgejo", "git.acme.example")]
#[tokio::test]
async fn the_others_lists_are_read_on_all_pages(#[case] speaks: Speaks, #[case] provider: &str, #[case] host: &str) {
    let api = Api::new(speaks).await;
    let mut site = site(0, &api).await;
    for (key, value) in [("provider", provider), ("host", host)] {
        site.source().insert(key.to_owned(), value.into());
    }
    api.with(|host| host.members = (1..=5).map(|n| (n, person(Account(i64::try_from(n).unwrap())))).collect());
    make_ledger(&site).await;
    let done = report(&site, &["--yes"]).await;
    assert_eq!((&done["members"], &done["recorded"]["gained"]), (&5.into(), &5.into()), "{done}");
    assert_eq!(report(&site, &["--dry-run"]).await["differences"], Value::Array(Vec::new()));
}

#[tokio::test]
async fn the_setup_card_says_whether_the_token_does_and_what_it_lacks() {
    let api = Api::new(Speaks::GitHub).await;
    let site = site(1, &api).await;
    api.with(|host| host.members = (1..=5).map(|n| (n, person(Account(i64::try_from(n).unwrap())))).collect());
    let check = async || site.run_in(&["check"], &environment()).ended().await;
    let ended = check().await;
    assert!(
        ended.output.contains("ok       source acme-github: the API token may read the roster of org:acme"),
        "{ended:?}"
    );
    api.with(|host| host.faults = vec![("outside_collaborators", Fault::Status(403))]);
    let ended = check().await;
    let line = ended.output.lines().find(|line| line.contains("roster")).unwrap_or_else(|| panic!("{ended:?}"));
    assert!(line.starts_with("WRONG") && line.contains("read:org"), "{line}");
    assert!(!ended.output.contains(TOKEN));
}

#[tokio::test]
async fn a_source_without_a_token_or_a_provider_without_rosters_is_told_so() {
    let api = Api::new(Speaks::GitHub).await;
    let mut site = site(1, &api).await;
    site.source().remove("api_token");
    site.source().remove("api_url");
    for (arguments, says) in
        [(&["--source", "acme-github"][..], "has no api_token"), (&[], "no source has an api_token")]
    {
        let ended = roster(&site, arguments).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.log.contains(says), "{ended:?}");
    }
}
