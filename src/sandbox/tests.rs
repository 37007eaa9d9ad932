//! The sandbox as its clients see it.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::{Request, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use super::*;
use crate::shutdown::Tasks;

/// Asks the sandbox in process and returns the status and the JSON answered.
async fn ask(sandbox: &Sandbox, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = Request::builder().method(method).uri(path).header("authorization", "Bearer key");
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let response = sandbox.router().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn put(sandbox: &Sandbox, id: &str, body: Value) -> (u16, Value) {
    ask(sandbox, "PUT", &format!("/public/user-identities/version-control/{id}/connect"), Some(body)).await
}

fn sandbox() -> Sandbox {
    Sandbox::new(Options::default())
}

#[tokio::test]
async fn a_link_and_an_unlink_show_in_the_answer_the_list_and_the_events() {
    let sandbox = sandbox();
    let (status, linked) = put(&sandbox, "9002", json!({"userId": 519})).await;
    assert_eq!((status, &linked["user"]["id"], linked["connectedAt"].is_string()), (200, &json!(519), true));
    assert_eq!(linked["connection"]["id"], json!("12"));
    assert_eq!(sandbox.linked_login(12, "trivas"), Some(519));

    let (_, list) = ask(&sandbox, "GET", "/user-identities/version-control?q=TRIVAS&connectionId=12", None).await;
    assert_eq!((&list["total"], &list["data"][0]["user"]["id"]), (&json!(1), &json!(519)));

    let (status, unlinked) = put(&sandbox, "9002", json!({"userId": null})).await;
    assert_eq!((status, &unlinked["user"], unlinked["disconnectedAt"].is_string()), (200, &Value::Null, true));
    assert_eq!(sandbox.linked(9002), None);

    let (_, events) = ask(&sandbox, "GET", "/public/events?source=PUBLIC_API", None).await;
    assert_eq!((&events["total"], &events["data"][1]["user"]["id"]), (&json!(2), &json!(519)));
    assert_eq!(events["data"][0]["type"], "USER_IDENTITY_VERSION_CONTROL_LINK_UPDATED");
}

#[rstest]
#[case::no_such_identity("1", json!({"userId": 519}), 404)]
#[case::no_such_person("9002", json!({"userId": 1}), 404)]
#[case::an_identity_that_is_no_number("maya-l", json!({"userId": 519}), 400)]
#[case::a_body_without_the_key("9002", json!({"user": 519}), 400)]
#[case::a_person_that_is_no_number("9002", json!({"userId": "519"}), 400)]
#[case::a_body_that_is_no_object("9002", json!([519]), 400)]
#[tokio::test]
async fn a_wrong_link_is_refused(#[case] id: &str, #[case] body: Value, #[case] status: u16) {
    let (answered, error) = put(&sandbox(), id, body).await;
    assert_eq!((answered, &error["statusCode"]), (status, &json!(status)));
    assert!(error["message"].is_string() && error["code"].is_number() && error["name"].is_string(), "{error}");
}

#[tokio::test]
async fn a_service_account_cannot_be_linked_until_the_mark_is_gone() {
    let sandbox = sandbox();
    let path = "/public/user-identities/version-control/9006/service-account";
    let mark = |marked: bool| Some(json!({"serviceAccount": marked, "serviceAccountReason": "deploys"}));
    let (status, marked) = ask(&sandbox, "PUT", path, mark(true)).await;
    assert_eq!((status, marked["serviceAccount"].is_string()), (200, true));
    assert_eq!(put(&sandbox, "9006", json!({"userId": 519})).await.0, 409);
    sandbox.set_switch(Switch::ServiceAccount(400));
    assert_eq!(put(&sandbox, "9006", json!({"userId": 519})).await.0, 400);
    assert_eq!(ask(&sandbox, "PUT", path, Some(json!({"serviceAccount": true}))).await.0, 400);
    ask(&sandbox, "PUT", path, mark(false)).await;
    assert_eq!(put(&sandbox, "9006", json!({"userId": 519})).await.0, 200);
}

#[rstest]
#[case("page=0", 400)]
#[case("limit=0", 400)]
#[case("limit=51", 400)]
#[case("limit=many", 400)]
#[case("clientType=SOURCEFORGE", 400)]
#[case("sort=HEIGHT", 400)]
#[case("page=9&limit=50&sort=IDENTITY_ID&sortDir=DESC&clientType=GITHUB", 200)]
#[tokio::test]
async fn a_list_checks_what_it_is_asked(#[case] query: &str, #[case] status: u16) {
    let (answered, _) = ask(&sandbox(), "GET", &format!("/user-identities/version-control?{query}"), None).await;
    assert_eq!(answered, status);
}

#[tokio::test]
async fn a_list_has_pages_of_twenty_unless_asked_otherwise() {
    let sandbox = sandbox();
    for id in 1..=45 {
        let username = format!("user-{id:02}");
        sandbox.put_identity(Identity {
            id,
            username,
            connection_id: 77,
            client_type: "GITLAB".into(),
            ..Identity::default()
        });
    }
    let page = async |query: &str| {
        let (_, list) =
            ask(&sandbox, "GET", &format!("/user-identities/version-control?connectionId=77&{query}"), None).await;
        (list["data"].as_array().unwrap().len(), list["limit"].clone(), list["total"].clone())
    };
    assert_eq!(page("").await, (20, json!(20), json!(45)));
    assert_eq!(page("page=3").await, (5, json!(20), json!(45)));
    assert_eq!(page("page=4").await, (0, json!(20), json!(45)));
    let (_, connections) = ask(&sandbox, "GET", "/connections?providerTypes[]=VERSION_CONTROL", None).await;
    assert_eq!(connections["total"], json!(3));
}

#[tokio::test]
async fn the_personnel_id_is_not_the_user_id() {
    let sandbox = sandbox();
    let (_, personnel) = ask(&sandbox, "GET", "/personnel/Lena%2Bgit@acme.example/email", None).await;
    assert_eq!((&personnel["id"], &personnel["user"]["id"]), (&json!(516), &json!(523)));
    assert_eq!(ask(&sandbox, "GET", "/personnel/516", None).await.1["user"]["id"], json!(523));
    assert_eq!(ask(&sandbox, "GET", "/users/523", None).await.1["email"], "lena+git@acme.example");
    assert_eq!(ask(&sandbox, "GET", "/users/nobody@acme.example/email", None).await.0, 404);
    assert_eq!(ask(&sandbox, "GET", "/users?q=okafor", None).await.1["total"], json!(1));
    let former = ask(&sandbox, "GET", "/personnel?employmentStatuses[]=FORMER_EMPLOYEE", None).await.1;
    assert_eq!((&former["total"], &former["data"][0]["user"]["id"]), (&json!(1), &json!(521)));
}

#[tokio::test]
async fn the_key_the_plan_the_terms_and_the_path_are_checked() {
    let sandbox = Sandbox::new(Options { api_key: Some("right".into()), ..Options::default() });
    let ask = async |authorization: Option<&str>, path: &str| {
        let mut request = Request::get(path);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let response = sandbox.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body: Value = serde_json::from_slice(&to_bytes(response.into_body(), 4096).await.unwrap()).unwrap();
        (status, body["code"].as_i64())
    };
    assert_eq!(ask(None, "/connections").await, (401, Some(12300)));
    assert_eq!(ask(Some("Basic cmlnaHQ="), "/connections").await, (401, Some(12300)));
    assert_eq!(ask(Some("Bearer wrong"), "/connections").await, (401, Some(12310)));
    assert_eq!(ask(Some("Bearer right"), "/connections").await, (200, None));
    assert_eq!(ask(Some("Bearer right"), "/v2/connections").await, (404, Some(10170)));
    sandbox.set_terms_accepted(false);
    assert_eq!(ask(Some("Bearer right"), "/connections").await, (412, Some(10340)));
    sandbox.set_plan_paid(false);
    assert_eq!(ask(Some("Bearer right"), "/connections").await, (402, Some(10740)));
}

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_back() {
    let sandbox = Sandbox::new(Options { requests_per_minute: Some(2), ..Options::default() });
    let statuses = [ask(&sandbox, "GET", "/events", None).await.0, ask(&sandbox, "GET", "/events", None).await.0];
    assert_eq!(statuses, [200, 200]);
    let request = Request::get("/events").header("authorization", "Bearer key").body(Body::empty()).unwrap();
    let response = sandbox.router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
}

#[rstest]
#[case("identity-id=login", "q=exact", "trivas", Some("trivas"))]
#[case("identity-id=node", "q=prefix", "MDQ6VXNlcjc0MTAwMDI", Some("MDQ6VXNlcjc0MTAwMDI="))]
#[case("identity-id=numeric", "q=substring", "10002", Some("7410002"))]
#[case("identity-id=numeric", "q=exact", "741000", None)]
#[tokio::test]
async fn identity_ids_and_queries_follow_their_switches(
    #[case] form: &str,
    #[case] how: &str,
    #[case] wanted: &str,
    #[case] found: Option<&str>,
) {
    let undocumented = [form, how].iter().map(|switch| switch.parse::<Switch>().unwrap()).collect();
    let sandbox = Sandbox::new(Options { undocumented, ..Options::default() });
    let (_, list) = ask(&sandbox, "GET", &format!("/user-identities/version-control?q={wanted}"), None).await;
    assert_eq!(list["data"][0]["identityId"].as_str(), found);
}

#[rstest]
#[case("unlinked-user=null", Some(Value::Null))]
#[case("unlinked-user=empty", Some(json!({})))]
#[case("unlinked-user=omitted", None)]
#[tokio::test]
async fn an_unlinked_user_follows_its_switch(#[case] switch: &str, #[case] user: Option<Value>) {
    let sandbox = sandbox();
    sandbox.set_switch(switch.parse().unwrap());
    assert_eq!(put(&sandbox, "9001", json!({"userId": null})).await.1.get("user"), user.as_ref());
}

#[tokio::test]
async fn connected_at_moves_with_the_same_put_only_if_switched_so() {
    let sandbox = sandbox();
    let connected = async || {
        put(&sandbox, "9002", json!({"userId": 519})).await;
        sandbox.identity(9002).unwrap().connected_at
    };
    let first = connected().await;
    assert_eq!(connected().await, first);
    sandbox.set_switch(Switch::ConnectedAtMoves(true));
    assert!(connected().await > first);
}

#[tokio::test]
async fn an_applied_fault_does_the_work_and_a_plain_one_does_not() {
    let sandbox = sandbox();
    sandbox.set_faults(vec!["500:applied:first=1@connect".parse().unwrap(), "503@connect".parse().unwrap()]);
    assert_eq!(put(&sandbox, "9002", json!({"userId": 519})).await.0, 500);
    assert_eq!(sandbox.linked(9002), Some(519));
    assert_eq!(put(&sandbox, "9002", json!({"userId": null})).await.0, 503);
    assert_eq!(sandbox.linked(9002), Some(519));
    let seen = sandbox.requests();
    assert_eq!(seen[0].faults, ["500:first=1:applied@connect"]);
    assert_eq!((seen[0].status, seen[0].has_user_id, seen[0].user_id), (Some(500), true, Some(519)));
    assert_eq!((seen[1].status, seen[1].has_user_id, seen[1].user_id), (Some(503), true, None));
    assert_eq!(seen[1].path, "/user-identities/version-control/9002/connect");
    assert!(seen[0].ended.unwrap() >= seen[0].begun && seen[1].begun >= seen[0].ended.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_late_fault_does_the_work_although_the_client_has_hung_up() {
    let sandbox = sandbox();
    sandbox.set_faults(vec!["late=3s@connect".parse().unwrap()]);
    let impatient = tokio::time::timeout(Duration::from_secs(1), put(&sandbox, "9002", json!({"userId": 519}))).await;
    assert!(impatient.is_err());
    let hung_up = sandbox.requests().pop().unwrap();
    assert!(hung_up.ended.is_some() && hung_up.status.is_none() && hung_up.landed.is_none(), "{hung_up:?}");
    assert_eq!(sandbox.linked(9002), None);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(sandbox.linked(9002), Some(519));
    assert!(sandbox.requests().pop().unwrap().landed.is_some());
    let patient = put(&sandbox, "9002", json!({"userId": null})).await;
    assert_eq!((patient.0, sandbox.linked(9002)), (200, None));
}

#[tokio::test]
async fn the_sandbox_is_changed_and_looked_into_while_it_runs() {
    let sandbox = sandbox();
    let person = json!([{"id": 600, "email": "new@acme.example"}]);
    assert_eq!(ask(&sandbox, "POST", "/_sandbox/people", Some(person)).await.0, 200);
    let identity = json!([{"id": 1, "identityId": "5", "username": "new", "connectionId": 40, "clientType": "GITLAB"}]);
    assert_eq!(ask(&sandbox, "POST", "/_sandbox/identities", Some(identity)).await.0, 200);
    assert_eq!(put(&sandbox, "1", json!({"userId": 600})).await.0, 200);
    assert_eq!(ask(&sandbox, "POST", "/_sandbox/faults", Some(json!(["503@connect"]))).await.0, 200);
    assert_eq!(put(&sandbox, "1", json!({"userId": 600})).await.0, 503);
    let (status, error) = ask(&sandbox, "POST", "/_sandbox/faults", Some(json!(["sometimes"]))).await;
    assert!(status == 400 && error["message"].as_str().unwrap().contains("no effect"), "{error}");
    let (_, state) = ask(&sandbox, "GET", "/_sandbox/state", None).await;
    assert_eq!(state["faults"], json!(["503@connect"]));
    let (_, requests) = ask(&sandbox, "GET", "/_sandbox/requests", None).await;
    assert_eq!((requests.as_array().unwrap().len(), &requests[1]["status"]), (2, &json!(503)));
}

#[tokio::test]
async fn a_dropped_request_gets_not_one_byte_and_the_server_ends_on_its_token() {
    let tasks = Tasks::new();
    let sandbox = Sandbox::new(Options { faults: vec!["drop".parse().unwrap()], ..Options::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.short_lived("test", sandbox.clone().serve(listener, tasks.token().clone()));

    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The end may come as a reset; what counts is that nothing came before it.
    let _ = stream.read_to_end(&mut answer).await;
    assert_eq!(answer, b"");
    assert_eq!((sandbox.requests()[0].status, sandbox.requests()[0].ended.is_some()), (None, true));
    assert!(tasks.end(Duration::from_secs(5)).await);
}
