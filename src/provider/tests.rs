//! What holds for every provider of the registry.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use rstest::rstest;

use super::*;

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

const NOW: Timestamp = Timestamp(1_790_000_000_000_000);

impl Case {
    fn settings(&self) -> SourceSettings {
        SourceSettings {
            name: "larkspur".parse().unwrap(),
            host: "git.larkspur.example".to_owned(),
            roots: Vec::new(),
            sightings: true,
            verify: self.verify.map(str::to_owned),
            header: self.header.map(str::to_owned),
            own: toml::Table::new(),
        }
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

    fn signed(&self, encoding: Encoding, json: &[u8]) -> SignedRequest {
        let signer = (self.description().signer)(&self.settings(), self.secret()).unwrap();
        let draft = Draft { id: "d-1".into(), event: "push".into(), encoding, json: json.to_vec() };
        signer.sign(&draft, NOW).unwrap()
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

fn verified(verifier: &dyn Verifier, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Verified, Refusal> {
    let encoding = Encoding::from_content_type(headers["content-type"].to_str().unwrap()).unwrap();
    let body = Bytes::copy_from_slice(body);
    verifier.precheck(headers)?;
    verifier.verify(Unverified { headers, encoding, body: &body }, now)
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
        for encoding in [Encoding::Json, Encoding::Form] {
            let request = case.signed(encoding, r#"{"ref": "refs/heads/main ü"}"#.as_bytes());
            let verified = verified(case.verifier().as_ref(), &request.headers, &request.body, NOW);
            assert_eq!(verified.unwrap().secret().0.as_ref(), "env:S", "{} {encoding:?}", case.provider);
        }
    }
}

#[test]
fn a_mark_that_is_missing_repeated_empty_cut_or_of_another_shape_is_refused_without_its_value() {
    for case in &CASES {
        let verifier = case.verifier();
        let good = case.signed(Encoding::Json, b"{}");
        for mark in case.marks() {
            let value = good.headers[&mark].clone();
            let text = value.to_str().unwrap();
            let mut wrong: Vec<HeaderMap> = Vec::new();
            let mut with = |value: Option<String>| {
                let mut headers = good.headers.clone();
                headers.remove(&mark);
                if let Some(value) = value {
                    headers.insert(&mark, HeaderValue::from_str(&value).unwrap());
                }
                wrong.push(headers);
            };
            with(None);
            with(Some(String::new()));
            with(Some(text[..text.len() - 1].to_owned()));
            with(Some(format!("{text}0")));
            with(Some(format!("{text}{text}")));
            with(Some("sha256=".to_owned()));
            with(Some("sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59".to_owned()));
            with(Some("v1,".to_owned()));
            with(Some("v2,KRM3dZldYCpQeY9B5xRkx1lzA1RCKHfgN5rWCMTaxSI=".to_owned()));
            with(Some("Basic ".to_owned()));
            let mut repeated = good.headers.clone();
            repeated.append(&mark, value.clone());
            wrong.push(repeated);
            for headers in wrong {
                let refusal = verified(verifier.as_ref(), &headers, &good.body, NOW);
                let Err(Refusal::Unverified(why)) = refusal else {
                    panic!("{} {mark} {:?}: {refusal:?}", case.provider, headers.get(&mark))
                };
                assert!(!why.contains(case.secret) && (text.len() < 12 || !why.contains(text)), "{why}");
            }
        }
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
    assert_eq!(unfit(&CASES[8], "hunter2"), "the secret env:S must be user:password");
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
    let verifier = case.verifier();
    verified(verifier.as_ref(), &headers, body.as_bytes(), at(second)).unwrap();
    verified(verifier.as_ref(), &headers, format!("{body}\n").as_bytes(), at(second)).unwrap_err();
    if second > 0 {
        for (away, good) in [(-301, false), (-300, true), (300, true), (301, false), (1_000_000_000, false)] {
            let result = verified(verifier.as_ref(), &headers, body.as_bytes(), at(second + away));
            assert_eq!(result.is_ok(), good, "{away}");
        }
        // One of several signatures is enough, as while a secret is being changed.
        let several = format!("v1a,xyz v1,{} {}", "A".repeat(43) + "=", headers["webhook-signature"].to_str().unwrap());
        headers.insert("webhook-signature", HeaderValue::from_str(&several).unwrap());
        verified(verifier.as_ref(), &headers, body.as_bytes(), at(second)).unwrap();
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
        assert!(verified(case.verifier().as_ref(), &headers, &good.body, NOW).is_err(), "{timestamp}");
    }
}

#[test]
fn a_way_to_verify_has_to_be_chosen_where_there_are_several_and_can_not_where_there_is_one() {
    for provider in REGISTRY {
        let case = CASES.iter().find(|case| case.provider == provider.name).unwrap();
        let settings = SourceSettings { verify: None, header: None, ..case.settings() };
        let chosen = (provider.interpreter)(&settings);
        if matches!(provider.name, "gitlab" | "azure-devops") {
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
    let refusal = verified(github.verifier().as_ref(), &request.headers, &request.body, NOW).unwrap_err();
    assert!(refusal.to_string().contains("provider"), "{refusal}");
}

proptest! {
    #[test]
    fn a_changed_bit_of_body_or_mark_is_refused(
        body in proptest::collection::vec(any::<u8>(), 1..200), number in 0..CASES.len(), at in any::<prop::sample::Index>(), bit in 0..7_u8,
    ) {
        let case = &CASES[number];
        let verifier = case.verifier();
        let good = case.signed(Encoding::Json, &body);
        prop_assert!(verified(verifier.as_ref(), &good.headers, &good.body, NOW).is_ok());

        let mut other = body.clone();
        let index = at.index(other.len());
        other[index] ^= 1 << bit;
        prop_assert_eq!(verified(verifier.as_ref(), &good.headers, &other, NOW).is_ok(), !case.signs);

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
            prop_assert_eq!(verified(verifier.as_ref(), &headers, &good.body, NOW).is_ok(), same, "{} {}", case.provider, mark);
        }
    }

    #[test]
    fn naming_and_interpreting_never_panic(
        number in 0..CASES.len(), body in "\\PC{0,80}|(\\{\"(event_name|object_kind|action|eventType|id|actor|resource)\": ?(\"[a-z._]{0,20}\"|[0-9]{0,30}|\\{\\}|null|\\[\\]),?\\}){1,2}",
    ) {
        let case = &CASES[number];
        let request = case.signed(Encoding::Json, body.as_bytes());
        let verifier = case.verifier();
        let verified = verified(verifier.as_ref(), &request.headers, &request.body, NOW).unwrap();
        if let Ok(named) = verifier.name(&request.headers, &verified) {
            let delivery = Delivery {
                source: "larkspur".parse().unwrap(), provider: case.provider.to_owned(), id: named.id, event: named.event,
                encoding: Encoding::Json, received_at: NOW, secret: SecretName("env:S".into()), stamp: None, replay: None,
                body: request.body.into(),
            };
            let _ = (case.description().interpreter)(&case.settings()).unwrap().interpret(&delivery);
        }
    }
}
