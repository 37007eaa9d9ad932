//! What holds for every provider of the registry.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use rstest::rstest;

use super::trial::{self, NOW};
use super::*;
use crate::delivery::DeliveryId;

/// A source of each provider, in each way to verify; whether the body is signed.
struct Case {
    provider: &'static str,
    verify: Option<&'static str>,
    header: Option<&'static str>,
    secret: &'static str,
    signs: bool,
}

const WHSEC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

const fn signs(provider: &'static str) -> Case {
    Case { provider, verify: None, header: None, secret: "It's a Secret to Everybody", signs: true }
}

const CASES: [Case; 11] = [
    signs("github"),
    Case { provider: "gitlab", verify: Some("signature"), header: None, secret: WHSEC, signs: true },
    Case { provider: "gitlab", verify: Some("token"), header: None, secret: "a plain token", signs: false },
    signs("bitbucket-cloud"),
    signs("bitbucket-data-center"),
    signs("gitea"),
    signs("forgejo"),
    signs("gogs"),
    Case { provider: "azure-devops", verify: Some("basic"), header: None, secret: "user:pass:word", signs: false },
    Case {
        provider: "azure-devops",
        verify: Some("header"),
        header: Some("X-Hook-Secret"),
        secret: "s3cr3t",
        signs: false,
    },
    Case { provider: "standard-webhooks", verify: Some("signature"), header: None, secret: WHSEC, signs: true },
];

impl Case {
    fn settings(&self) -> SourceSettings {
        let (verify, header) = (self.verify.map(str::to_owned), self.header.map(str::to_owned));
        SourceSettings { verify, header, ..trial::settings() }
    }

    fn description(&self) -> &'static Description {
        find(self.provider).unwrap()
    }

    fn secret(&self) -> Secret {
        Secret { name: SecretName("env:S".into()), value: self.secret.into() }
    }

    fn verifier(&self) -> Box<dyn Verifier> {
        (self.description().verifier)(&self.settings(), vec![self.secret()]).unwrap()
    }

    fn verified(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Verified, Refusal> {
        let (body, verifier) = (Bytes::copy_from_slice(body), self.verifier());
        verifier.precheck(headers)?;
        verifier.verify(Unverified::new(headers, &body, self.description().encodings), now)
    }

    /// The encodings in which the provider sends its bodies.
    fn encodings(&self) -> impl Iterator<Item = Encoding> {
        let encodings = self.description().encodings;
        [Encoding::Json, Encoding::Form].into_iter().filter(move |encoding| encodings.include(*encoding))
    }

    fn signed(&self, encoding: Encoding, json: &[u8]) -> SignedRequest {
        let signer = (self.description().signer)(&self.settings(), self.secret()).unwrap();
        let draft = Draft { id: "d-1".into(), event: "push".into(), encoding, json: json.to_vec() };
        signer.sign(&draft, NOW).unwrap()
    }

    /// Whether the tag is written in hexadecimal digits, which may be of either case.
    fn is_hex(&self) -> bool {
        self.signs && self.secret != WHSEC
    }

    /// Calls a verified body by its name, and interprets it. Nothing here may panic.
    fn read(&self, request: &SignedRequest) -> Result<DeliveryId, Refusal> {
        let verifier = self.verifier();
        let verified = self.verified(&request.headers, &request.body, NOW)?;
        let named = verifier.name(&request.headers, &verified);
        let event = named.as_ref().map_or("push", |named| named.event.as_str());
        let delivery = trial::delivery(self.provider, event, request.body.clone());
        let _ = (self.description().interpreter)(&self.settings()).unwrap().interpret(&delivery);
        named.map(|named| named.id)
    }

    /// The headers that authenticate it.
    fn marks(&self) -> Vec<HeaderName> {
        let marks: &[&'static str] = match (self.provider, self.verify) {
            ("github", _) => &["x-hub-signature-256"],
            ("gitlab", Some("signature")) | ("standard-webhooks", _) => {
                &["webhook-signature", "webhook-id", "webhook-timestamp"]
            }
            ("gitlab", _) => &["x-gitlab-token"],
            ("gitea", _) => &["x-gitea-signature"],
            ("forgejo", _) => &["x-forgejo-signature"],
            ("gogs", _) => &["x-gogs-signature"],
            ("azure-devops", Some("basic")) => &["authorization"],
            ("azure-devops", _) => &["x-hook-secret"],
            _ => &["x-hub-signature"],
        };
        marks.iter().map(|mark| HeaderName::from_static(mark)).collect()
    }
}

#[test]
fn every_provider_of_the_registry_has_a_case() {
    for provider in REGISTRY {
        assert!(CASES.iter().any(|case| case.provider == provider.name), "{}", provider.name);
    }
}

#[test]
fn what_a_provider_signs_is_verified_in_json_and_form_and_names_the_secret() {
    for case in &CASES {
        for encoding in case.encodings() {
            let request = case.signed(encoding, r#"{"ref": "refs/heads/main ü"}"#.as_bytes());
            let verified = case.verified(&request.headers, &request.body, NOW);
            assert_eq!(verified.unwrap().secret().0.as_ref(), "env:S", "{} {encoding:?}", case.provider);
        }
    }
}

/// Health tells a wrong secret and a hook without one by this, and mustn't take a scanner for either.
#[test]
fn a_request_is_apparently_signed_unsigned_or_a_strangers() {
    for case in &CASES {
        let verifier = case.verifier();
        let mut headers = case.signed(Encoding::Json, b"{}").headers;
        assert_eq!(verifier.apparent(&headers), Apparent::Signed, "{}", case.provider);
        // By another secret, it is signed all the same.
        let other = match case.secret {
            WHSEC => "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=",
            _ => "another:secret",
        };
        let other = Case { secret: other, ..case.copy() }.signed(Encoding::Json, b"{}").headers;
        assert!(case.verified(&other, b"{}", NOW).is_err());
        assert_eq!(verifier.apparent(&other), Apparent::Signed, "{}", case.provider);
        // Azure DevOps sends it, our signer doesn't.
        if case.provider == "azure-devops" {
            headers.insert("x-vss-subscriptionid", HeaderValue::from_static("1"));
        }
        for mark in case.marks().iter().filter(|mark| *mark != "webhook-id") {
            headers.remove(mark);
        }
        assert_eq!(verifier.apparent(&headers), Apparent::Unsigned, "{}", case.provider);
        headers.insert(case.marks().remove(0), HeaderValue::from_static(""));
        assert_eq!(verifier.apparent(&headers), Apparent::Unsigned, "{}", case.provider);
        let mut scan = HeaderMap::new();
        for (name, value) in [("host", "192.0.2.1"), ("content-type", "application/json"), ("user-agent", "scan/1")] {
            scan.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(verifier.apparent(&scan), Apparent::Stranger, "{}", case.provider);
        scan.insert(case.marks().remove(0), HeaderValue::from_static("!"));
        let is_a_token = !case.signs && case.verify != Some("basic");
        let expected = if is_a_token { Apparent::Signed } else { Apparent::Stranger };
        assert_eq!(verifier.apparent(&scan), expected, "{}", case.provider);
    }
}

/// Spoils the value of a header that authenticates: what comes instead of it, each as a header of its own.
type Spoil = fn(&str) -> Vec<Vec<u8>>;

fn text(text: impl Into<String>) -> Vec<Vec<u8>> {
    vec![text.into().into_bytes()]
}

#[rstest]
#[case::missing(|_: &str| Vec::new())]
#[case::empty(|_: &str| text(""))]
#[case::blank(|_: &str| text(" "))]
#[case::cut(|good: &str| text(&good[..good.len() - 1]))]
#[case::cut_in_front(|good: &str| text(&good[1..]))]
#[case::longer(|good: &str| text(format!("{good}0")))]
#[case::longer_in_front(|good: &str| text(format!("0{good}")))]
#[case::with_a_space(|good: &str| text(format!("{good} ")))]
#[case::with_a_space_in_front(|good: &str| text(format!(" {good}")))]
#[case::with_a_tab(|good: &str| text(format!("{good}\t")))]
#[case::twice_in_one(|good: &str| text(format!("{good}{good}")))]
#[case::twice_with_a_comma(|good: &str| text(format!("{good},{good}")))]
#[case::twice_as_headers(|good: &str| [text(good), text(good)].concat())]
#[case::a_wrong_one_behind(|good: &str| [text(good), text("0".repeat(good.len()))].concat())]
#[case::a_wrong_one_in_front(|good: &str| [text("0".repeat(good.len())), text(good)].concat())]
#[case::an_empty_one_in_front(|good: &str| [text(""), text(good)].concat())]
#[case::zeros(|good: &str| text("0".repeat(good.len())))]
#[case::not_ascii(|good: &str| vec![[good.as_bytes(), &b"\xff"[..]].concat()])]
#[case::upper_case_prefix(|good: &str| text(format!("SHA256={good}")))]
#[case::prefix_alone(|_: &str| text("sha256="))]
#[case::another_prefix(|good: &str| text(format!("sha512={good}")))]
#[case::sha1(|_: &str| text("sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59"))]
#[case::not_hex(|_: &str| text(format!("sha256={}", "g".repeat(64))))]
#[case::not_hex_and_no_prefix(|_: &str| text("g".repeat(64)))]
#[case::no_signature_in_the_list(|_: &str| text("v1,"))]
#[case::of_another_version(|_: &str| text("v2,KRM3dZldYCpQeY9B5xRkx1lzA1RCKHfgN5rWCMTaxSI="))]
#[case::not_base64(|_: &str| text("v1,!!!!"))]
#[case::short_base64(|_: &str| text("v1,KRM3dZk="))]
#[case::of_an_empty_key(|_: &str| text(format!("sha256={}", empty_key())))]
#[case::of_an_empty_key_without_prefix(|_: &str| text(empty_key()))]
#[case::another_scheme(|_: &str| text("Bearer s3cr3t"))]
#[case::basic_and_nothing(|_: &str| text("Basic "))]
fn a_spoiled_mark_is_refused_and_not_told(#[case] spoil: Spoil) {
    for case in &CASES {
        let good = case.signed(Encoding::Json, b"{}");
        for mark in case.marks() {
            let value = good.headers[&mark].to_str().unwrap().to_owned();
            let mut headers = good.headers.clone();
            headers.remove(&mark);
            let spoiled = spoil(&value);
            // That header holds a list with spaces between its signatures.
            if mark == "webhook-signature" && spoiled.len() == 1 && spoiled[0].trim_ascii() == value.as_bytes() {
                continue;
            }
            for spoiled in spoiled {
                headers.append(&mark, HeaderValue::from_bytes(&spoiled).unwrap());
            }
            let refusal = case.verified(&headers, &good.body, NOW);
            let Err(Refusal::Unverified(why)) = refusal else {
                panic!("{} {mark} {:?}: {refusal:?}", case.provider, headers.get(&mark))
            };
            assert!(!why.contains(case.secret) && (value.len() < 12 || !why.contains(&value)), "{why}");
        }
    }
}

/// HMAC-SHA256 of `{}` under the empty key, as everybody can compute it.
fn empty_key() -> String {
    signature::HmacKey::of_bytes(SecretName("none".into()), b"").unwrap().sign(&[b"{}"]).to_string()
}

/// Hexadecimal digits may be of either case; base64, tokens and passwords may not.
#[test]
fn only_hexadecimal_digits_may_be_of_either_case() {
    for case in CASES.iter().filter(|case| case.provider != "standard-webhooks") {
        let mut request = case.signed(Encoding::Json, b"{}");
        let mark = case.marks().remove(0);
        let good = request.headers[&mark].to_str().unwrap();
        let upper = match good.strip_prefix("sha256=") {
            Some(digits) => format!("sha256={}", digits.to_uppercase()),
            None => good.to_uppercase(),
        };
        request.headers.insert(&mark, HeaderValue::from_str(&upper).unwrap());
        assert_eq!(case.verified(&request.headers, &request.body, NOW).is_ok(), case.is_hex(), "{}", case.provider);
    }
}

#[test]
fn of_several_signatures_one_good_one_is_enough_wherever_it_stands_up_to_sixteen() {
    let case = &CASES[1];
    let good = case.signed(Encoding::Json, b"{}");
    let tag = good.headers["webhook-signature"].to_str().unwrap();
    let wrong = format!("v1,{}=", "A".repeat(43));
    let verified_with = |value: String| {
        let mut headers = good.headers.clone();
        headers.insert("webhook-signature", HeaderValue::from_str(&value).unwrap());
        case.verified(&headers, &good.body, NOW).is_ok()
    };
    assert!(verified_with(format!("{tag} {tag}")));
    assert!(verified_with(format!("{wrong} v1a,abc  v9,x {tag}")));
    assert!(verified_with(format!("{} {tag}", [wrong.as_str(); 15].join(" "))));
    assert!(!verified_with(format!("{} {tag}", [wrong.as_str(); 16].join(" "))));
    assert!(!verified_with(format!("{wrong} {wrong}")));
    assert!(!verified_with(tag.replace("v1,", "v2,")));
}

/// Changes a body without changing what it means, or hardly.
#[rstest]
#[case::newline(|good: &[u8]| [good, &b"\n"[..]].concat())]
#[case::byte_order_mark(|good: &[u8]| [&b"\xef\xbb\xbf"[..], good].concat())]
#[case::space(|good: &[u8]| [&b" "[..], good].concat())]
#[case::cut(|good: &[u8]| good[..good.len() - 1].to_vec())]
#[case::empty(|_: &[u8]| Vec::new())]
#[case::twice(|good: &[u8]| [good, good].concat())]
#[case::nul(|good: &[u8]| [good, &b"\0"[..]].concat())]
fn a_changed_body_is_refused_where_it_is_signed(#[case] change: fn(&[u8]) -> Vec<u8>) {
    for case in &CASES {
        let good = case.signed(Encoding::Json, br#"{"ref": "refs/heads/main"}"#);
        let result = case.verified(&good.headers, &change(&good.body), NOW);
        assert_eq!(result.is_ok(), !case.signs, "{}", case.provider);
    }
}

/// The content type isn't signed, so that it says nothing.
#[test]
fn how_a_body_is_read_is_the_same_whatever_its_content_type_says() {
    for case in &CASES {
        for encoding in case.encodings() {
            let good = case.signed(encoding, &body_with(""));
            let id = case.read(&good).unwrap();
            for says in [Encoding::Json.media_type(), Encoding::Form.media_type(), "text/plain"] {
                let mut headers = good.headers.clone();
                headers.insert("content-type", HeaderValue::from_static(says));
                let request = SignedRequest { headers, body: good.body.clone() };
                assert_eq!(case.read(&request), Ok(id.clone()), "{} {encoding:?} as {says}", case.provider);
            }
        }
    }
}

#[test]
fn a_form_of_a_provider_that_sends_none_is_no_json() {
    for case in CASES.iter().filter(|case| case.encodings().count() == 1) {
        let read = case.read(&case.signed(Encoding::Form, &body_with("")));
        assert!(matches!(read, Err(Refusal::Malformed(_))), "{} {read:?}", case.provider);
    }
}

/// What every provider takes a name and an id from, and `more` besides.
fn body_with(more: &str) -> Vec<u8> {
    let named = r#""id": "e-1", "eventType": "git.push", "type": "push", "event_name": "push""#;
    format!("{{{named}{more}}}").into_bytes()
}

#[rstest]
#[case::as_usual(body_with(""), true)]
#[case::deep(body_with(&format!(r#", "deep": {}{}"#, "[".repeat(200_000), "]".repeat(200_000))), true)]
#[case::deep_objects(body_with(&format!(r#", "deep": {}1{}"#, r#"{"a":"#.repeat(100_000), "}".repeat(100_000))), true)]
#[case::huge_numbers(body_with(&format!(r#", "user_id": 1e999999, "sender": {{"id": {}}}, "actor": -0.0"#, "9".repeat(10_000))), true)]
#[case::doubled_keys(
    body_with(r#", "sender": {}, "sender": {}, "user_id": 1, "user_id": 2, "actor": 1, "actor": 2"#),
    true
)]
#[case::lone_surrogate(body_with(r#", "ref": "\ud800", "user_username": "\udfff""#), true)]
#[case::nul_in_a_label(body_with(r#", "user_id": 1, "project_id": 2, "user_username": "a\u0000b""#), true)]
#[case::empty(Vec::new(), false)]
#[case::not_json(b"payload".to_vec(), false)]
#[case::two_values(b"{} {}".to_vec(), false)]
#[case::cut(br#"{"id": "e-1", "eventType": "git.push", "type": "push", "event_name": "pu"#.to_vec(), false)]
#[case::not_utf8(b"{\"id\": \"e-1\", \"eventType\": \"git.push\", \"type\": \"push\", \"ref\": \"\xff\"}".to_vec(), false)]
#[case::utf8_inside_out(b"\xc3\x28".to_vec(), false)]
#[case::byte_order_mark([&b"\xef\xbb\xbf"[..], body_with("").as_slice()].concat(), false)]
fn a_verified_body_is_json_or_malformed_and_nothing_panics(#[case] body: Vec<u8>, #[case] json: bool) {
    for case in &CASES {
        for encoding in case.encodings() {
            let read = case.read(&case.signed(encoding, &body));
            match read {
                Ok(id) => assert!(json && !id.as_str().is_empty(), "{} {encoding:?} {id}", case.provider),
                Err(Refusal::Malformed(_)) => assert!(!json, "{} {encoding:?} {read:?}", case.provider),
                Err(Refusal::Unverified(why)) => panic!("{} {encoding:?} {why}", case.provider),
            }
        }
    }
}

#[test]
fn a_name_that_comes_twice_or_is_of_another_type_says_nothing() {
    let azure = CASES.iter().find(|case| case.provider == "azure-devops").unwrap();
    let standard = CASES.last().unwrap();
    for (case, body) in [
        (azure, r#"{"id": "a", "id": "b", "eventType": "git.push"}"#),
        (azure, r#"{"id": "a", "eventType": 7}"#),
        (azure, r#"["a", "git.push"]"#),
        (standard, r#"{"type": "a", "type": "b"}"#),
        (standard, r#"{"type": ["a"]}"#),
        (standard, r#""a""#),
    ] {
        let read = case.read(&case.signed(Encoding::Json, body.as_bytes()));
        assert!(matches!(read, Err(Refusal::Malformed(_))), "{body}: {read:?}");
    }
}

#[test]
fn the_largest_body_is_verified_and_named() {
    let filler = format!(r#", "filler": "{}""#, "x".repeat(25 * 1024 * 1024 - 200));
    let body = body_with(&filler);
    for case in &CASES {
        case.read(&case.signed(Encoding::Json, &body)).unwrap_or_else(|refusal| panic!("{}: {refusal}", case.provider));
    }
}

#[test]
fn an_empty_or_unfit_secret_is_a_settings_error_that_does_not_show_it() {
    for case in &CASES {
        for value in ["", " ", "\n"] {
            let secret = Secret { name: SecretName("env:S".into()), value: value.into() };
            assert!(
                (case.description().verifier)(&case.settings(), vec![secret.clone()]).is_err(),
                "{}",
                case.provider
            );
            assert!((case.description().signer)(&case.settings(), secret).is_err(), "{}", case.provider);
        }
        assert!((case.description().verifier)(&case.settings(), Vec::new()).is_err());
    }
    let unfit = |case: &Case, value: &str| {
        let secret = Secret { name: SecretName("env:S".into()), value: value.into() };
        let error = (case.description().verifier)(&case.settings(), vec![secret]).unwrap_err();
        assert!(!error.to_string().contains(value), "{error}");
        error.message
    };
    let without_prefix = unfit(&CASES[1], "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    assert_eq!(without_prefix, "the secret env:S must be whsec_ and the base64 text of 24 to 64 bytes");
    unfit(&CASES[1], "whsec_c2hvcnQ=");
    unfit(&CASES[1], "whsec_not base64");
    for no_password in ["hunter2", "hunter2:", "hunter2: "] {
        assert_eq!(unfit(&CASES[8], no_password), "the secret env:S must be user:password");
    }
    unfit(&CASES[9], "two\nlines");
    unfit(&CASES[9], " padded");
}

/// The example that Atlassian published, those of the reference libraries of Standard Webhooks, and two that independent
/// implementations agree on.
#[rstest]
#[case::bitbucket_cloud(3, "It's a Secret to Everybody", "Hello World!", &[("x-hub-signature", "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9")], 0)]
#[case::standard(1, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", r#"{"test": 2432232314}"#, &[
    ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"), ("webhook-timestamp", "1614265330"),
    ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")], 1_614_265_330)]
#[case::gitlab(1, "whsec_dGVzdHRlc3R0ZXN0dGVzdHRlc3R0ZXN0dGVzdHRlc3Q=", r#"{"object_kind":"push"}"#, &[
    ("webhook-id", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"), ("webhook-timestamp", "1744108800"),
    ("webhook-signature", "v1,KRM3dZldYCpQeY9B5xRkx1lzA1RCKHfgN5rWCMTaxSI=")], 1_744_108_800)]
#[case::gitea(5, "0123456789abcdef", r#"{"yo":true}"#, &[("x-gitea-signature", "b1f8020f5b4cd42042f807dd939015c4a418bc1ff7f604dd55b0a19b5d953d9b")], 0)]
fn published_signatures_verify(
    #[case] case: usize,
    #[case] secret: &'static str,
    #[case] body: &str,
    #[case] marks: &[(&'static str, &'static str)],
    #[case] second: i64,
) {
    let case = Case { secret, ..Case { ..CASES[case].copy() } };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in marks {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    let at = |second: i64| Timestamp(second * 1_000_000);
    case.verified(&headers, body.as_bytes(), at(second)).unwrap();
    case.verified(&headers, format!("{body}\n").as_bytes(), at(second)).unwrap_err();
    if second > 0 {
        for (away, good) in [(-301, false), (-300, true), (300, true), (301, false), (1_000_000_000, false)] {
            let result = case.verified(&headers, body.as_bytes(), at(second + away));
            assert_eq!(result.is_ok(), good, "{away}");
        }
        // One of several signatures is enough, as while a secret is being changed.
        let several = format!("v1a,xyz v1,{} {}", "A".repeat(43) + "=", headers["webhook-signature"].to_str().unwrap());
        headers.insert("webhook-signature", HeaderValue::from_str(&several).unwrap());
        case.verified(&headers, body.as_bytes(), at(second)).unwrap();
    }
}

impl Case {
    const fn copy(&self) -> Self {
        Self {
            provider: self.provider,
            verify: self.verify,
            header: self.header,
            secret: self.secret,
            signs: self.signs,
        }
    }
}

#[test]
fn a_timestamp_that_is_no_plain_number_is_refused() {
    let case = &CASES[1];
    let good = case.signed(Encoding::Json, b"{}");
    for timestamp in [
        "",
        "-1",
        "+1790000000",
        " 1790000000",
        "1790000000.5",
        "0x6ab",
        "99999999999999999999",
        "-9223372036854775808",
    ] {
        let mut headers = good.headers.clone();
        headers.insert("webhook-timestamp", HeaderValue::from_str(timestamp).unwrap());
        assert!(case.verified(&headers, &good.body, NOW).is_err(), "{timestamp}");
    }
}

#[test]
fn a_way_to_verify_has_to_be_chosen_where_there_are_several_and_can_not_where_there_is_one() {
    for provider in REGISTRY {
        let case = CASES.iter().find(|case| case.provider == provider.name).unwrap();
        let settings = SourceSettings { verify: None, header: None, ..case.settings() };
        let chosen = (provider.interpreter)(&settings);
        if provider.verification.contains("verify = ") {
            assert_eq!(chosen.unwrap_err().key, "verify");
        } else {
            chosen.unwrap();
        }
        for verify in ["none", "plain", "sha1", "Signature"] {
            let settings = SourceSettings { verify: Some(verify.to_owned()), ..case.settings() };
            assert_eq!((provider.interpreter)(&settings).unwrap_err().key, "verify", "{}", provider.name);
        }
    }
}

#[test]
fn a_gitea_at_a_github_source_is_refused_although_it_signs_as_github_does() {
    let github = &CASES[0];
    let mut request = github.signed(Encoding::Json, b"{}");
    request.headers.insert("x-gitea-event", HeaderValue::from_static("push"));
    let refusal = github.verified(&request.headers, &request.body, NOW).unwrap_err();
    assert!(refusal.to_string().contains("provider"), "{refusal}");
}

proptest! {
    #[test]
    fn a_changed_bit_of_body_or_mark_is_refused(
        body in proptest::collection::vec(any::<u8>(), 1..200), number in 0..CASES.len(), at in any::<prop::sample::Index>(), bit in 0..7_u8,
    ) {
        let case = &CASES[number];
        let good = case.signed(Encoding::Json, &body);
        prop_assert!(case.verified(&good.headers, &good.body, NOW).is_ok());

        let mut other = body.clone();
        let index = at.index(other.len());
        other[index] ^= 1 << bit;
        prop_assert_eq!(case.verified(&good.headers, &other, NOW).is_ok(), !case.signs);

        for mark in case.marks() {
            let mut value = good.headers[&mark].as_bytes().to_vec();
            let index = at.index(value.len());
            value[index] ^= 1 << bit;
            // Hexadecimal digits and the word "Basic" may be written in either case, and nothing else may.
            let prefix = if good.headers[&mark].as_bytes().starts_with(b"sha256=") { 7 } else { 0 };
            let any_case = if mark == "authorization" { index < 5 } else { case.verify.is_none() && index >= prefix };
            let same = any_case && value.eq_ignore_ascii_case(good.headers[&mark].as_bytes());
            let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
            let mut headers = good.headers.clone();
            headers.insert(&mark, value);
            prop_assert_eq!(case.verified(&headers, &good.body, NOW).is_ok(), same, "{} {}", case.provider, mark);
        }
    }

    #[test]
    fn naming_and_interpreting_never_panic(
        number in 0..CASES.len(), body in "\\PC{0,80}|(\\{\"(event_name|object_kind|action|eventType|id|actor|resource)\": ?(\"[a-z._]{0,20}\"|[0-9]{0,30}|\\{\\}|null|\\[\\]),?\\}){1,2}",
    ) {
        let case = &CASES[number];
        let read = case.read(&case.signed(Encoding::Json, body.as_bytes()));
        prop_assert!(!matches!(read, Err(Refusal::Unverified(_))));
    }

    #[test]
    fn interpreting_an_event_of_any_name_and_any_json_never_panics(
        number in 0..CASES.len(), event in 0..200_usize, json in json(),
    ) {
        let case = &CASES[number];
        let events = case.description().events;
        let event = events[event % events.len()].event.replace('*', "something");
        let interpreter = (case.description().interpreter)(&case.settings()).unwrap();
        let mut body = json;
        if let Some(object) = body.as_object_mut() {
            for key in ["event_name", "eventType", "type"] {
                object.insert(key.to_owned(), event.as_str().into());
            }
        }
        for seed in 0..2 {
            let body = body.to_string();
            let cut = &body.as_bytes()[..body.len() - seed];
            let _ = interpreter.interpret(&trial::delivery(case.provider, &event, cut.to_vec()));
        }
    }

    #[test]
    fn the_signed_id_and_time_of_a_delivery_cannot_be_others(
        id in "[a-zA-Z0-9_.-]{1,40}", body in proptest::collection::vec(any::<u8>(), 0..60), at in any::<prop::sample::Index>(), bit in 0..7_u8,
    ) {
        let case = &CASES[1];
        let signer = (case.description().signer)(&case.settings(), case.secret()).unwrap();
        let draft = Draft { id, event: "push".into(), encoding: Encoding::Json, json: body };
        let good = signer.sign(&draft, NOW).unwrap();
        for mark in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            let mut value = good.headers[mark].as_bytes().to_vec();
            let index = at.index(value.len());
            value[index] ^= 1 << bit;
            let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
            let mut headers = good.headers.clone();
            headers.insert(mark, value);
            prop_assert!(case.verified(&headers, &good.body, NOW).is_err(), "{}", mark);
        }
    }
}

/// JSON with the keys that interpreters look for, and values of any type under them.
fn json() -> impl Strategy<Value = serde_json::Value> {
    const KEYS: &str = "action|actor|sender|pusher|user|user_id|group_id|project_id|repository|organization|team|member|\
        membership|created_at|updated_at|expires_at|uuid|id|login|push|pullrequest|pullRequest|toRef|ref|release|resource|\
        pushedBy|createdBy|changes|project|owner|workspace|type|state|name";
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,12}".prop_map(Into::into),
        "20[0-9]{2}-0[1-9]-[0-3][0-9](T10:00:00Z)?".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            1 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Into::into),
            4 => proptest::collection::btree_map(KEYS, inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}
