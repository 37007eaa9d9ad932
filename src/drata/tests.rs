//! The client against the sandbox, over loopback.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::any;
use rstest::rstest;
use tokio::net::TcpListener;

use super::*;
use crate::sandbox::{self, Sandbox};
use crate::shutdown::Tasks;
use crate::target::{ConnectionRef, FailureClass, Identity, IdentityRef, LinkStatus, PersonId};

/// A sandbox that listens, and a client of it.
struct Pair {
    sandbox: Sandbox,
    client: Client,
    tasks: Tasks,
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

fn settings(address: SocketAddr) -> Settings {
    let base_url = format!("http://{address}/public").parse().unwrap();
    Settings { requests_per_minute: 60_000, ..Settings::new(base_url) }
}

async fn pair_with(options: sandbox::Options, change: impl FnOnce(&mut Settings)) -> Pair {
    let (sandbox, tasks) = (Sandbox::new(options), Tasks::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(listener.local_addr().unwrap());
    change(&mut settings);
    tasks.short_lived("test", sandbox.clone().serve(listener, tasks.token().clone()));
    let client = Client::new(settings, "test-key".into()).unwrap();
    Pair { sandbox, client, tasks }
}

async fn pair() -> Pair {
    pair_with(sandbox::Options::default(), |_| {}).await
}

async fn faulty(rules: &[&str]) -> Pair {
    let faults = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    pair_with(sandbox::Options { faults, ..Default::default() }, |settings| {
        settings.timeout = Duration::from_millis(300);
    })
    .await
}

/// A client of a server that answers everything in the same way.
async fn client_of(router: Router) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async move { axum::serve(listener, router).await };
    Tasks::new().short_lived("test", serving);
    Client::new(settings(address), "test-key".into()).unwrap()
}

const GITHUB: Filter = Filter { connection_id: Some(12), client_type: None };
const TRIVAS: IdentityRef = IdentityRef(9002);
const TOMAS: LinkStatus = LinkStatus::Linked(PersonId(519));

#[tokio::test]
async fn an_identity_is_found_linked_and_unlinked() {
    let Pair { sandbox, client, .. } = &pair().await;
    let found = client.find_identities(&GITHUB, Some("trivas")).await.unwrap();
    let [identity] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((identity.id, identity.identity_id.as_deref()), (TRIVAS, Some("7410002")));
    assert_eq!((identity.status(), identity.connection), (LinkStatus::Unlinked, Some(12)));

    let linked = client.set_status(TRIVAS, TOMAS).await.unwrap();
    assert_eq!(linked.as_ref().map(Identity::status), Some(TOMAS));
    assert_eq!(sandbox.linked(9002), Some(519));

    let unlinked = client.set_status(TRIVAS, LinkStatus::Unlinked).await.unwrap();
    assert_eq!(unlinked.as_ref().map(Identity::status), Some(LinkStatus::Unlinked));
    assert_eq!(sandbox.linked(9002), None);
    assert_eq!(sandbox.requests()[1].path, "/user-identities/version-control/9002/connect");
}

#[rstest]
#[case("unlinked-user=null")]
#[case("unlinked-user=empty")]
#[case("unlinked-user=omitted")]
#[tokio::test]
async fn an_unlinked_identity_is_read_however_it_is_written(#[case] switch: &str) {
    let Pair { sandbox, client, .. } = &pair().await;
    sandbox.set_switch(switch.parse().unwrap());
    let unlinked = client.set_status(IdentityRef(9001), LinkStatus::Unlinked).await.unwrap();
    assert_eq!(unlinked.unwrap().person, None);
}

/// Runs another test of this binary in an environment whose proxy can't be reached.
#[test]
fn calls_to_this_machine_ignore_proxies_of_the_environment() {
    let test = "drata::tests::an_identity_is_found_linked_and_unlinked";
    let ran = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .envs([("HTTP_PROXY", "http://127.0.0.1:9"), ("http_proxy", "http://127.0.0.1:9")])
        .envs([("ALL_PROXY", "http://127.0.0.1:9"), ("NO_PROXY", "")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[rstest]
#[case("500", FailureClass::Transient, "Drata answered 500: Internal Server Error")]
#[case("503:retry-after=7", FailureClass::Transient, "Drata answered 503: Service Unavailable")]
#[case("429:retry-after=7", FailureClass::Throttled, "Drata answered 429: Too Many Requests")]
#[case("401", FailureClass::RefusedAll, "Drata answered 401: Unauthorized")]
#[case("402", FailureClass::RefusedAll, "Drata answered 402: Payment Required")]
#[case("403", FailureClass::RefusedAll, "Drata answered 403: Forbidden")]
#[case("412", FailureClass::RefusedAll, "Drata answered 412: Precondition Failed")]
#[case("404", FailureClass::Stale, "Drata answered 404: Not Found")]
#[case("400", FailureClass::Refused, "Drata answered 400: Bad Request")]
#[case("409", FailureClass::Refused, "Drata answered 409: Conflict")]
#[tokio::test]
async fn every_refusal_has_its_class(#[case] fault: &str, #[case] class: FailureClass, #[case] message: &str) {
    let Pair { client, .. } = &faulty(&[fault]).await;
    let failure = client.set_status(TRIVAS, TOMAS).await.unwrap_err();
    assert_eq!((failure.class, failure.message.as_str()), (class, message));
    assert_eq!(failure.status, Some(fault[..3].parse().unwrap()));
    assert_eq!(failure.retry_after.is_some(), fault.contains("retry-after"));
}

#[rstest]
#[case("timeout", "Drata didn't answer in time")]
#[case("drop", "the connection to Drata broke: ")]
#[tokio::test]
async fn no_answer_is_transient(#[case] fault: &str, #[case] message: &str) {
    let Pair { client, sandbox, .. } = &faulty(&[fault]).await;
    let failure = client.set_status(TRIVAS, TOMAS).await.unwrap_err();
    assert_eq!((failure.class, failure.status), (FailureClass::Transient, None));
    assert!(failure.message.starts_with(message), "{}", failure.message);
    assert!(!failure.message.contains("http://"), "{}", failure.message);
    assert_eq!(sandbox.requests().len(), 1, "one call is one request");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient() {
    // Bound and dropped, so that nobody listens.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(settings(address), "test-key".into()).unwrap();
    let failure = client.connections().await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Transient);
    assert!(failure.message.starts_with("can't connect to Drata: "), "{}", failure.message);
}

#[tokio::test]
async fn an_answer_of_500_may_hide_that_the_work_was_done() {
    let Pair { client, sandbox, .. } = &faulty(&["500:applied:first=1"]).await;
    assert!(client.set_status(TRIVAS, TOMAS).await.unwrap_err().is_transient());
    let found = client.find_identities(&GITHUB, Some("7410002")).await;
    assert!(found.is_err(), "the first list is hit too");
    let found = client.find_identities(&GITHUB, Some("7410002")).await.unwrap();
    assert_eq!((found[0].status(), sandbox.linked(9002)), (TOMAS, Some(519)));
}

#[tokio::test]
async fn a_success_that_cannot_be_read_is_a_success_for_a_link_and_a_failure_for_a_list() {
    let Pair { client, sandbox, .. } = &faulty(&["garbled"]).await;
    assert_eq!(client.set_status(TRIVAS, TOMAS).await, Ok(None));
    assert_eq!(sandbox.linked(9002), Some(519));
    let failure = client.find_identities(&GITHUB, None).await.unwrap_err();
    assert_eq!((failure.class, failure.message.as_str()), (FailureClass::Transient, "Drata's list can't be read"));
}

#[tokio::test]
async fn a_success_whose_body_never_ends_is_a_success_for_a_link() {
    let body = || async {
        let silence = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        Body::from_stream(silence)
    };
    let mut client = client_of(Router::new().fallback(any(body))).await;
    let quick = Settings { timeout: Duration::from_millis(200), ..client.shared.settings.clone() };
    client = Client::new(quick, "test-key".into()).unwrap();
    assert_eq!(client.set_status(TRIVAS, TOMAS).await, Ok(None));
}

#[tokio::test]
async fn all_pages_are_read() {
    let Pair { client, sandbox, .. } = &pair().await;
    for id in 1..=120 {
        sandbox.put_identity(sandbox::Identity {
            id,
            identity_id: id.to_string(),
            username: format!("user-{id}"),
            connection_id: 77,
            client_type: "GITLAB".into(),
            ..Default::default()
        });
    }
    let connection = Filter::from(&ConnectionRef::Id(77));
    let mut ids: Vec<i64> =
        client.find_identities(&connection, None).await.unwrap().iter().map(|row| row.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=120).collect::<Vec<_>>());
    assert_eq!(sandbox.requests().len(), 3);
    let gitlab = Filter::from(&ConnectionRef::Only("GITLAB".into()));
    assert_eq!(client.find_identities(&gitlab, None).await.unwrap().len(), 122);
}

#[rstest]
#[case::the_first_page_again_and_again(r#"{"data":[{"id":1},{"id":2}],"total":120}"#, Err("repeats itself"))]
#[case::rows_that_cannot_be_read(r#"{"data":[{"id":1},{"id":{}},7],"total":3}"#, Ok(1))]
#[case::no_total(r#"{"data":[{"id":1},{"id":2}]}"#, Ok(2))]
#[case::a_total_that_is_a_text(r#"{"data":[{"id":1}],"total":"1"}"#, Ok(1))]
#[case::nothing(r#"{"data":[],"total":0}"#, Ok(0))]
#[case::no_rows_at_all(r#"{"message":"ok"}"#, Err("can't be read"))]
#[case::no_json("<html>", Err("can't be read"))]
#[tokio::test]
async fn a_list_is_read_to_its_end_or_fails(#[case] body: &'static str, #[case] expected: Result<usize, &str>) {
    let client = client_of(Router::new().fallback(any(move || async move { body }))).await;
    match (client.find_identities(&Filter::default(), None).await, expected) {
        (Ok(rows), Ok(count)) => assert_eq!(rows.len(), count),
        (Err(failure), Err(why)) => assert!(failure.message.contains(why), "{}", failure.message),
        (read, expected) => panic!("{read:?} instead of {expected:?}"),
    }
}

#[tokio::test]
async fn a_list_larger_than_the_bound_is_not_kept_in_memory() {
    let huge = || async { format!(r#"{{"data":[],"total":0,"padding":"{}"}}"#, "x".repeat(9 << 20)) };
    let client = client_of(Router::new().fallback(any(huge))).await;
    assert_eq!(client.connections().await.unwrap_err().message, "Drata's list can't be read");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let moved = || async { (http::StatusCode::TEMPORARY_REDIRECT, [("location", "http://127.0.0.1:9/")]) };
    let client = client_of(Router::new().fallback(any(moved))).await;
    let failure = client.set_status(TRIVAS, TOMAS).await.unwrap_err();
    assert_eq!((failure.class, failure.status), (FailureClass::Refused, Some(307)));
}

#[tokio::test]
async fn after_a_429_every_clone_waits_as_long_as_it_says() {
    let Pair { client, sandbox, .. } = &faulty(&["429:retry-after=1:first=1@connect"]).await;
    let clone = client.clone();
    let throttled = client.set_status(TRIVAS, TOMAS).await.unwrap_err();
    assert_eq!((throttled.class, throttled.retry_after), (FailureClass::Throttled, Some(Duration::from_secs(1))));
    assert!(clone.set_status(TRIVAS, TOMAS).await.is_ok());
    let seen = sandbox.requests();
    let waited = seen[1].begun - seen[0].begun;
    assert!(waited >= 990_000, "{waited} µs");
}

#[tokio::test]
async fn a_turn_that_comes_too_late_is_throttled_without_a_request() {
    let Pair { client, sandbox, .. } = &faulty(&["429:retry-after=60:first=1@connect"]).await;
    let in_a_second = || tokio::time::Instant::now() + Duration::from_secs(1);
    assert_eq!(client.set_status_by(TRIVAS, TOMAS, in_a_second()).await.unwrap_err().status, Some(429));
    let failure = client.clone().set_status_by(TRIVAS, TOMAS, in_a_second()).await.unwrap_err();
    assert_eq!((failure.class, failure.status), (FailureClass::Throttled, None));
    assert!(failure.retry_after.unwrap() > Duration::from_secs(50));
    assert_eq!(sandbox.requests().len(), 1);
}

#[tokio::test]
async fn the_sandbox_s_own_rate_limit_reads_as_throttled() {
    let options = sandbox::Options { requests_per_minute: Some(1), ..Default::default() };
    let Pair { client, .. } = &pair_with(options, |_| {}).await;
    assert!(client.set_status(TRIVAS, TOMAS).await.is_ok());
    let throttled = client.set_status(TRIVAS, TOMAS).await.unwrap_err();
    assert_eq!(throttled.class, FailureClass::Throttled);
    assert!(throttled.retry_after.unwrap() > Duration::from_secs(30));
}

#[tokio::test]
async fn the_state_of_the_account_and_a_wrong_key_refuse_everything() {
    let options = sandbox::Options { api_key: Some("another-key".into()), ..Default::default() };
    let wrong = pair_with(options, |_| {}).await;
    assert_eq!(wrong.client.connections().await.unwrap_err().message, "Drata answered 401: Public API key not found");

    let Pair { client, sandbox, .. } = &pair().await;
    sandbox.set_terms_accepted(false);
    let failure = client.set_status(TRIVAS, TOMAS).await.unwrap_err();
    assert_eq!((failure.class, failure.status), (FailureClass::RefusedAll, Some(412)));
    sandbox.set_plan_paid(false);
    assert_eq!(client.set_status(TRIVAS, TOMAS).await.unwrap_err().status, Some(402));
}

#[tokio::test]
async fn what_is_not_there_is_stale_and_a_service_account_is_refused() {
    let Pair { client, sandbox, .. } = &pair().await;
    let gone = client.set_status(IdentityRef(1), TOMAS).await.unwrap_err();
    let nobody = client.set_status(TRIVAS, LinkStatus::Linked(PersonId(1))).await.unwrap_err();
    assert_eq!((gone.class, nobody.class), (FailureClass::Stale, FailureClass::Stale));

    let mut bot = sandbox.identity(9006).unwrap();
    bot.service_account = Some(crate::delivery::Timestamp(1));
    sandbox.put_identity(bot);
    assert!(client.find_identities(&GITHUB, Some("acme-deploy-bot")).await.unwrap()[0].service_account);
    let refused = client.set_status(IdentityRef(9006), TOMAS).await.unwrap_err();
    assert_eq!((refused.class, refused.status), (FailureClass::Refused, Some(409)));
}

#[tokio::test]
async fn connections_are_listed_once_until_they_are_forgotten() {
    let Pair { client, sandbox, .. } = &pair().await;
    let connections = client.connections().await.unwrap();
    let github = connections.iter().find(|connection| connection.client_type == "GITHUB").unwrap();
    assert_eq!((github.id, github.alias.as_deref()), (12, Some("acme on GitHub")));
    assert_eq!(client.clone().connections().await.unwrap(), connections);
    assert_eq!(sandbox.requests().len(), 1);
    client.forget_connections();
    client.connections().await.unwrap();
    assert_eq!(sandbox.requests().len(), 2);
}

#[tokio::test]
async fn a_person_is_found_by_email_with_the_user_s_id_and_remembered() {
    let Pair { client, sandbox, .. } = &pair().await;
    let person = client.person_by_email(" Lena+Git@ACME.example").await.unwrap().unwrap();
    assert_eq!((person.id, person.employment.as_deref()), (PersonId(523), Some("CURRENT_EMPLOYEE")));
    assert_eq!(person.email.as_deref(), Some("lena+git@acme.example"));
    assert_eq!(client.person_by_email("lena+git@acme.example").await.unwrap(), Some(person));
    assert_eq!(sandbox.requests().len(), 1);
    sandbox.remove_person(523);
    client.forget_person("LENA+git@acme.example");
    assert_eq!(client.person_by_email("lena+git@acme.example").await.unwrap(), None);
}

#[rstest]
#[case("unknown-email=404")]
#[case("unknown-email=400")]
#[tokio::test]
async fn nobody_is_found_by_an_unknown_email_and_that_is_remembered_too(#[case] switch: &str) {
    let Pair { client, sandbox, .. } = &pair().await;
    sandbox.set_switch(switch.parse().unwrap());
    assert_eq!(client.person_by_email("nobody@acme.example").await, Ok(None));
    assert_eq!(client.person_by_email("Nobody@acme.example").await, Ok(None));
    assert_eq!(sandbox.requests().len(), 2, "personnel, then users, once");
}

#[tokio::test]
async fn what_is_no_address_is_not_asked_for() {
    let Pair { client, sandbox, .. } = &pair().await;
    for text in ["", "  ", "518", ".."] {
        assert_eq!(client.person_by_email(text).await, Ok(None));
    }
    assert!(sandbox.requests().is_empty());
}

#[tokio::test]
async fn users_are_asked_where_personnel_are_out_of_reach() {
    let user = || async { r#"{"id":519,"email":"tomas.rivas@acme.example"}"# };
    let router = Router::new()
        .route("/public/users/{email}/email", any(user))
        .fallback(any(|| async { http::StatusCode::FORBIDDEN }));
    let person = client_of(router).await.person_by_email("tomas.rivas@acme.example").await.unwrap().unwrap();
    assert_eq!((person.id, person.employment), (PersonId(519), None));
}

#[rstest]
#[case("500@person", FailureClass::Transient, 1)]
#[case("403@person", FailureClass::RefusedAll, 2)]
#[tokio::test]
async fn a_person_that_cannot_be_asked_for_is_a_failure_and_not_nobody(
    #[case] fault: &str,
    #[case] class: FailureClass,
    #[case] requests: usize,
) {
    let Pair { client, sandbox, .. } = &faulty(&[fault]).await;
    assert_eq!(client.person_by_email("tomas.rivas@acme.example").await.unwrap_err().class, class);
    assert_eq!(sandbox.requests().len(), requests);
    sandbox.set_faults(Vec::new());
    assert!(client.person_by_email("tomas.rivas@acme.example").await.unwrap().is_some(), "a failure isn't remembered");
}

#[tokio::test]
async fn somebody_with_another_address_is_not_taken_for_the_one_asked_for() {
    let body = r#"{"id":511,"user":{"id":518,"email":"other@acme.example"}}"#;
    let client = client_of(Router::new().fallback(any(move || async move { body }))).await;
    assert_eq!(client.person_by_email("asked@acme.example").await, Ok(None));
}

#[tokio::test]
async fn all_people_are_listed_in_pages_with_names_and_employment() {
    let people = (1..=120).map(|n| sandbox::Person {
        id: 500 + n,
        email: format!("dev-{n}@acme.example"),
        first_name: "Dev".to_owned(),
        last_name: n.to_string(),
        employment_status: if n == 7 { "FORMER_CONTRACTOR" } else { "CURRENT_EMPLOYEE" }.to_owned(),
    });
    let options = sandbox::Options { people: Some(people.collect()), ..sandbox::Options::default() };
    let Pair { sandbox, client, .. } = &pair_with(options, |_| {}).await;
    let people = client.people().await.unwrap();
    assert_eq!((people.len(), sandbox.requests().len()), (120, 3));
    assert_eq!((people[6].id, people[6].name.1.as_deref()), (PersonId(507), Some("7")), "the user id");
    assert_eq!(
        people.iter().filter(|person| person.has_left()).map(|person| person.id).collect::<Vec<_>>(),
        [PersonId(507)]
    );
}

#[tokio::test]
async fn where_personnel_is_out_of_reach_users_are_listed() {
    let users = r#"{"data":[{"id":518,"email":"maya@acme.example","firstName":"Maya","lastName":null}],"page":1,"limit":50,"total":1}"#;
    let router = Router::new()
        .route("/public/personnel", any(|| async { http::StatusCode::FORBIDDEN }))
        .route("/public/users", any(move || async move { users }));
    let people = client_of(router).await.people().await.unwrap();
    assert_eq!((people.len(), people[0].id, people[0].has_left()), (1, PersonId(518), false));
    assert_eq!(people[0].name, (Some("Maya".to_owned()), None));
}
