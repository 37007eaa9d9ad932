//! The ingress's side and the signer's against each other, and against GitHub's documented examples.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::access::Change;
use crate::delivery::{Encoding, Named, SecretName, Timestamp, Unverified, Verified};
use crate::provider::{Draft, Interpreter, Invention, Refusal, SignedRequest, Signer, Verifier};

fn settings(host: &str) -> SourceSettings {
    SourceSettings {
        name: "larkspur".parse().unwrap(),
        host: host.to_owned(),
        roots: Vec::new(),
        sightings: true,
        verify: None,
        header: None,
        own: toml::Table::new(),
    }
}

fn secret(value: &str) -> Secret {
    Secret { name: SecretName("env:S".into()), value: value.into() }
}

fn verifier(value: &str) -> Box<dyn Verifier> {
    (DESCRIPTION.verifier)(&settings("github.com"), vec![secret(value)]).unwrap()
}

fn signer(host: &str, value: &str) -> Box<dyn Signer> {
    (DESCRIPTION.signer)(&settings(host), secret(value)).unwrap()
}

fn verify(verifier: &dyn Verifier, request: &SignedRequest) -> Result<Verified, Refusal> {
    let body = Bytes::from(request.body.clone());
    verifier.precheck(&request.headers)?;
    verifier.verify(Unverified::new(&request.headers, &body, DESCRIPTION.encodings), Timestamp(0))
}

fn draft(event: &str, encoding: Encoding, json: &[u8]) -> Draft {
    Draft { id: "d1".into(), event: event.into(), encoding, json: json.to_vec() }
}

fn name(event: &[&str], id: &[&str], encoding: Encoding, body: &[u8]) -> Result<Named, Refusal> {
    let verifier = verifier("s");
    let body = match encoding {
        Encoding::Json => body.to_vec(),
        Encoding::Form => [b"payload=".as_slice(), body].concat(),
    };
    let request = signer("github.com", "s").sign(&draft("x", Encoding::Json, &body), Timestamp(0)).unwrap();
    let verified = verify(verifier.as_ref(), &request).unwrap();
    let mut headers = HeaderMap::new();
    for (header, values) in [(HEADER_EVENT, event), (HEADER_DELIVERY, id)] {
        for value in values {
            headers.append(header, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
    }
    verifier.name(&headers, &verified)
}

#[rstest]
#[case(
    "It's a Secret to Everybody",
    "Hello, World!",
    "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
)]
#[case(
    "0123456789abcdef",
    "payload=%7B%22yo%22%3Atrue%7D",
    "30f622d549ca623f1c553f7e395a80c9487b43b9feaf9af4a1811381ddf5a94d"
)]
fn documented_signatures_verify(#[case] secret: &str, #[case] body: &'static str, #[case] hex: &str) {
    let mut headers = HeaderMap::new();
    headers.insert("x-hub-signature-256", format!("sha256={hex}").parse().unwrap());
    let body = Bytes::from_static(body.as_bytes());
    let request = Unverified::new(&headers, &body, DESCRIPTION.encodings);
    assert_eq!(&*verifier(secret).verify(request, Timestamp(0)).unwrap().secret().0, "env:S");
    assert!(matches!(verifier("another").verify(request, Timestamp(0)), Err(Refusal::Unverified(_))));
}

#[test]
fn a_form_is_signed_as_the_form_that_it_is() {
    let request = signer("github.com", "0123456789abcdef")
        .sign(&draft("push", Encoding::Form, br#"{"yo":true}"#), Timestamp(0))
        .unwrap();
    assert_eq!(request.body, b"payload=%7B%22yo%22%3Atrue%7D");
    assert_eq!(
        request.headers["x-hub-signature-256"],
        "sha256=30f622d549ca623f1c553f7e395a80c9487b43b9feaf9af4a1811381ddf5a94d"
    );
}

#[test]
fn the_legacy_signature_alone_is_refused_and_the_log_says_so() {
    let mut headers = HeaderMap::new();
    headers.insert("x-hub-signature", HeaderValue::from_static("sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59"));
    let text = verifier("s").precheck(&headers).unwrap_err().to_string();
    assert!(text.contains("legacy X-Hub-Signature (SHA-1)") && !text.contains("01dc"), "{text}");
    headers.clear();
    assert!(matches!(verifier("s").precheck(&headers), Err(Refusal::Unverified(_))));
}

#[test]
fn a_malformed_signature_is_refused_before_the_body_is_read() {
    let mut headers = HeaderMap::new();
    headers.insert("x-hub-signature-256", HeaderValue::from_static("sha256="));
    assert!(matches!(verifier("s").precheck(&headers), Err(Refusal::Unverified(_))));
}

#[rstest]
#[case("organization", br#"{"action":"member_added"}"#, "organization.member_added")]
#[case("push", br#"{"ref":"refs/heads/main"}"#, "push")]
#[case("push", b"[1, 2]", "push")]
#[case("push", b"7", "push")]
#[case("member", br#"{"action":7}"#, "member")]
#[case("member", br#"{"action":null}"#, "member")]
#[case("member", br#"{"action":" "}"#, "member")]
#[case("member", br#"{"action":"a\nb"}"#, "member")]
#[case("member", br#"{"action":"a","action":"b"}"#, "member")]
fn events_are_named_with_the_action_of_the_body(#[case] event: &str, #[case] body: &[u8], #[case] expected: &str) {
    let named = name(&[event], &["72d3162e-cc78-11e3-81ab-4c9367dc0958"], Encoding::Json, body).unwrap();
    assert_eq!((named.event.as_str(), named.ping), (expected, false));
    assert_eq!(named.id.as_str(), "72d3162e-cc78-11e3-81ab-4c9367dc0958");
}

#[test]
fn an_action_of_a_name_s_length_is_left_out() {
    let body = format!(r#"{{"action":"{}"}}"#, "a".repeat(300));
    assert_eq!(name(&["team"], &["1"], Encoding::Json, body.as_bytes()).unwrap().event.as_str(), "team");
}

#[test]
fn a_ping_is_known_by_its_name_and_its_zen() {
    let ping = |event: &str, body: &[u8]| name(&[event], &["1"], Encoding::Json, body).unwrap().ping;
    assert!(ping("ping", br#"{"zen":"x"}"#));
    assert!(!ping("push", br#"{"zen":"x"}"#));
    // Whoever puts that name over another body doesn't have it forgotten.
    assert!(!ping("ping", br#"{"action":"member_added"}"#));
}

#[test]
fn the_payload_of_a_form_is_named_too() {
    let named = name(&["member"], &["1"], Encoding::Form, b"%7B%22action%22%3A%22added%22%7D").unwrap();
    assert_eq!(named.event.as_str(), "member.added");
}

#[rstest]
#[case::no_event(&[], &["1"], b"{}")]
#[case::no_id(&["push"], &[], b"{}")]
#[case::blank_event(&[" "], &["1"], b"{}")]
#[case::blank_id(&["push"], &[""], b"{}")]
#[case::two_events(&["push", "push"], &["1"], b"{}")]
#[case::two_ids(&["push"], &["1", "2"], b"{}")]
#[case::an_event_with_an_action(&["organization.member_added"], &["1"], b"{}")]
#[case::not_ascii(&["push"], &["é"], b"{}")]
#[case::no_json(&["push"], &["1"], b"Hello, World!")]
#[case::nothing(&["push"], &["1"], b"")]
#[case::json_and_more(&["push"], &["1"], b"{} {}")]
#[case::broken_behind_the_action(&["push"], &["1"], br#"{"action":7,"x":"#)]
#[case::broken_list(&["push"], &["1"], b"[1,")]
#[case::not_utf_8(&["push"], &["1"], b"{\"a\":\"\xff\"}")]
fn requests_that_do_not_say_what_they_are_are_malformed(
    #[case] event: &[&str],
    #[case] id: &[&str],
    #[case] body: &[u8],
) {
    assert!(matches!(name(event, id, Encoding::Json, body), Err(Refusal::Malformed(_))));
}

#[test]
fn names_that_cannot_travel_and_forms_without_payload_are_malformed() {
    let long = "x".repeat(256);
    assert!(matches!(name(&[&long], &["1"], Encoding::Json, b"{}"), Err(Refusal::Malformed(_))));
    assert!(matches!(name(&["push"], &[&long], Encoding::Json, b"{}"), Err(Refusal::Malformed(_))));
    let request = signer("github.com", "s").sign(&draft("push", Encoding::Json, b"other=1"), Timestamp(0)).unwrap();
    let body = Bytes::from(request.body);
    let unverified = Unverified::new(&request.headers, &body, DESCRIPTION.encodings);
    let verified = verifier("s").verify(unverified, Timestamp(0)).unwrap();
    assert!(matches!(verifier("s").name(&request.headers, &verified), Err(Refusal::Malformed(_))));
}

#[rstest]
#[case("github.com", "GITHUB")]
#[case("GitHub.com", "GITHUB")]
#[case("larkspur.ghe.com", "GITHUB")]
#[case("git.larkspur.example", "GITHUB_ENTERPRISE")]
#[case("notgithub.com", "GITHUB_ENTERPRISE")]
fn the_platform_knows_cloud_and_server_apart(#[case] host: &str, #[case] client_type: &str) {
    assert_eq!((DESCRIPTION.client_type)(host), Some(client_type));
}

#[test]
fn settings_that_mean_nothing_to_github_are_refused_with_the_way_out() {
    let refused = |change: &dyn Fn(&mut SourceSettings)| {
        let mut settings = settings("github.com");
        change(&mut settings);
        (DESCRIPTION.interpreter)(&settings).unwrap_err()
    };
    assert_eq!(refused(&|s| s.verify = Some("token".into())).key, "verify");
    assert_eq!(refused(&|s| s.header = Some("X-Token".into())).key, "header");
    let own = |key: &'static str| move |s: &mut SourceSettings| drop(s.own.insert(key.into(), true.into()));
    assert_eq!(refused(&own("scope")).to_string(), "scope: source larkspur has no such key; did you mean scopes?");
    assert_eq!(refused(&own("colour")).to_string(), "colour: source larkspur has no such key");
    let mut fine = settings("github.com");
    fine.verify = Some("signature".into());
    assert!((DESCRIPTION.interpreter)(&fine).is_ok());
    assert_eq!((DESCRIPTION.verifier)(&fine, vec![]).unwrap_err().key, "secrets");
    assert_eq!((DESCRIPTION.verifier)(&fine, vec![secret("")]).unwrap_err().key, "secrets");
}

fn invention(event: &str) -> Invention {
    Invention {
        id: None,
        event: event.into(),
        login: "ada-byron".into(),
        account_id: "7104417".into(),
        root: "larkspur-labs".into(),
        root_id: "90210417".into(),
        part: Some("sundial".into()),
        part_id: Some("611902345".into()),
    }
}

#[rstest]
#[case("organization.member_added", "gained")]
#[case("organization.member_removed", "lost")]
#[case("organization.renamed", "scope_renamed")]
#[case("organization.deleted", "scope_lost")]
#[case("member.added", "gained")]
#[case("member.removed", "lost")]
#[case("membership.added", "gained")]
#[case("membership.removed", "lost")]
#[case("team.deleted", "scope_lost")]
#[case("repository.deleted", "scope_lost")]
#[case("repository.transferred", "scope_moved")]
#[case("installation_target.renamed", "renamed")]
#[case("push", "seen")]
#[case("ping", "-")]
fn what_is_invented_verifies_and_means_what_it_is_called(
    #[case] event: &str,
    #[case] expected: &str,
    #[values("github.com", "git.larkspur.example")] host: &str,
    #[values(Encoding::Json, Encoding::Form)] encoding: Encoding,
) {
    let signer = signer(host, "s");
    let draft = Draft { encoding, ..signer.invent(&invention(event)).unwrap() };
    let request = signer.sign(&draft, Timestamp(0)).unwrap();
    let verifier = verifier("s");
    let verified = verify(verifier.as_ref(), &request).unwrap();
    let named = verifier.name(&request.headers, &verified).unwrap();
    assert_eq!((named.event.as_str(), named.ping), (event, event == "ping"));
    let delivery = verified.into_delivery("larkspur".parse().unwrap(), NAME, named, Timestamp(0));
    let interpreter: Box<dyn Interpreter> = (DESCRIPTION.interpreter)(&settings(host)).unwrap();
    let changes = interpreter.interpret(&delivery).unwrap().changes;
    assert_eq!(changes.first().map_or("-", Change::as_str), expected);
    if let Some(Change::Access { account, .. }) = changes.first() {
        assert_eq!(account.key.to_string(), format!("github@{host}:#7104417"));
    }
}

#[test]
fn an_invention_has_its_own_id_or_a_fresh_one() {
    let signer = signer("github.com", "s");
    let ids: Vec<String> = (0..2).map(|_| signer.invent(&invention("push")).unwrap().id).collect();
    assert_ne!(ids[0], ids[1]);
    let given = Invention { id: Some("mine".into()), ..invention("push") };
    assert_eq!(signer.invent(&given).unwrap().id, "mine");
}

#[test]
fn what_cannot_be_invented_lists_what_can() {
    let signer = signer("github.com", "s");
    let refused = signer.invent(&invention("issues.opened")).unwrap_err().to_string();
    assert!(refused.contains("organization.member_added"), "{refused}");
    let odd = Invention { account_id: "octocat".into(), ..invention("push") };
    assert_eq!(signer.invent(&odd).unwrap_err().key, "id");
}

#[test]
fn requests_carry_all_that_github_sends() {
    let headers = |host: &str| {
        let signer = signer(host, "s");
        let draft = signer.invent(&Invention { id: Some("d1".into()), ..invention("member.added") }).unwrap();
        signer.sign(&draft, Timestamp(0)).unwrap().headers
    };
    let cloud = headers("github.com");
    for (name, value) in [
        ("user-agent", "GitHub-Hookshot/rollcall"),
        ("content-type", "application/json"),
        ("x-github-event", "member"),
        ("x-github-delivery", "d1"),
        ("x-github-hook-id", "1"),
        ("x-github-hook-installation-target-type", "organization"),
        ("x-github-hook-installation-target-id", "90210417"),
    ] {
        assert_eq!(cloud[name], value);
    }
    assert!(!cloud.contains_key("x-github-enterprise-host"));
    assert_eq!(headers("git.larkspur.example")["x-github-enterprise-host"], "git.larkspur.example");
}

#[test]
fn a_header_value_that_cannot_travel_is_an_error() {
    let refused = signer("github.com", "s").sign(&draft("a\nb", Encoding::Json, b"{}"), Timestamp(0)).unwrap_err();
    assert_eq!(refused.key, HEADER_EVENT);
}

proptest! {
    #[test]
    fn what_is_signed_verifies_and_a_changed_bit_does_not(
        key in "\\S.{0,40}",
        json in proptest::collection::vec(any::<u8>(), 1..200),
        form in any::<bool>(),
        at in any::<prop::sample::Index>(),
    ) {
        let encoding = if form { Encoding::Form } else { Encoding::Json };
        let mut request = signer("github.com", &key).sign(&draft("push", encoding, &json), Timestamp(0)).unwrap();
        let verifier = verifier(&key);
        prop_assert!(verify(verifier.as_ref(), &request).is_ok());
        let bit = at.index(request.body.len() * 8);
        request.body[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(matches!(verify(verifier.as_ref(), &request), Err(Refusal::Unverified(_))));
    }
}
