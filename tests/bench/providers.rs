//! What verifying and interpreting a delivery costs, each beside the least that could do it: verifying beside the bare
//! HMAC-SHA256 over the same bytes, interpreting beside reading the whole body into a `serde_json::Value`. In turns, so
//! that the machine's mood counts for both; what counts are the ratios.
//!
//! `cargo bench --bench providers -- --all`

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool prints, and fails by panicking")]

use std::hint::black_box;
use std::process::ExitCode;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use rollcall::delivery::{Delivery, SecretName, Timestamp, Unverified};
use rollcall::provider::{self, Draft, Invention, REGISTRY, Secret, SourceSettings};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::time::Instant;

const USAGE: &str = "\
Usage: cargo bench --bench providers -- --all | --provider NAME

Compares verifying with the bare HMAC, and interpreting with reading everything, on bodies of 8 KiB.";

const BODY: usize = 8 * 1024;
const ROUNDS: usize = 301;
/// How often within a round, so that a round takes far longer than reading the clock.
const TIMES: u32 = 64;
const NOW: Timestamp = Timestamp(1_790_000_000_000_000);
const WHSEC: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A source of a provider that signs, and its secret as the key's bytes.
struct Case {
    settings: SourceSettings,
    secret: Secret,
    key: Vec<u8>,
    /// Without a signature there is no HMAC to compare with.
    signs: bool,
}

impl Case {
    fn of(provider: &provider::Description) -> Self {
        let whsec = matches!(provider.name, "gitlab" | "standard-webhooks");
        let signs = provider.name != "azure-devops";
        let value = match (whsec, signs) {
            (true, _) => WHSEC,
            (_, true) => "a secret of some length",
            _ => "user:password",
        };
        let rules = "[[rules]]\nevent = 'member.added'\nchange = 'gained'\naccount = '/data/user/id'\n\
            login = '/data/user/login'\nscope = '/data/organization/id'";
        let own = if provider.name == "standard-webhooks" { rules.parse().unwrap() } else { toml::Table::new() };
        Self {
            settings: SourceSettings {
                name: "bench".parse().unwrap(),
                host: "git.larkspur.example".to_owned(),
                roots: Vec::new(),
                sightings: true,
                verify: (!signs)
                    .then(|| "basic".to_owned())
                    .or_else(|| (provider.name == "gitlab").then(|| "signature".to_owned())),
                header: None,
                own,
            },
            secret: Secret { name: SecretName("bench".into()), value: value.into() },
            key: if whsec { b"0123456789abcdef0123456789abcdef".to_vec() } else { value.as_bytes().to_vec() },
            signs,
        }
    }

    /// A push or join in the provider's own shape, filled up with commits to 8 KiB.
    fn draft(&self, provider: &provider::Description) -> Draft {
        let signer = (provider.signer)(&self.settings, self.secret.clone()).unwrap();
        // A push where there is one: what has the most that nobody needs.
        let event = provider.invents.iter().find(|event| **event == "push").or(provider.invents.first()).unwrap();
        let draft = signer.invent(&Invention {
            id: Some("0b6f2f4e-3f4e-4c5d-9d3b-3f2d1c0b9a88".to_owned()),
            event: (*event).to_owned(),
            login: "rosalind".to_owned(),
            account_id: "71".to_owned(),
            root: "larkspur".to_owned(),
            root_id: "42".to_owned(),
            part: None,
            part_id: None,
        });
        let draft = draft.unwrap();
        let mut body: Value = serde_json::from_slice(&draft.json).unwrap();
        let mut commits = Vec::new();
        while body.to_string().len() < BODY - 300 {
            let id = format!("{:040x}", commits.len() * 7_919);
            commits.push(json!({
                "id": id, "message": "Water the \"beds\" twice a day", "timestamp": "2026-03-01T10:00:00Z", "distinct": true,
                "author": { "name": "Rosalind Fern", "email": "rosalind@larkspur.example" }, "added": ["beds/rose.rs"],
            }));
            body["commits"] = commits.clone().into();
        }
        let mut json = body.to_string().into_bytes();
        json.resize(BODY.max(json.len()), b' ');
        Draft { json, ..draft }
    }
}

fn main() -> ExitCode {
    let mut chosen = None;
    let mut all = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--all" => all = true,
            "--provider" => chosen = arguments.next(),
            // Cargo's and nextest's own: there are no tests in here.
            "--bench" => {}
            "--list" | "--format" | "--exact" | "--nocapture" | "--test" => return ExitCode::SUCCESS,
            _ => {
                println!("{argument} is no option\n\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    if !all && chosen.is_none() {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    println!("bodies of {BODY} bytes, medians of {ROUNDS} rounds in turns");
    println!(
        "{:22} {:>11} {:>11} {:>6}   {:>11} {:>11} {:>6}",
        "", "HMAC MB/s", "verify MB/s", "ratio", "Value MB/s", "interp MB/s", "ratio"
    );
    for provider in REGISTRY.iter().filter(|provider| chosen.as_ref().is_none_or(|name| name == provider.name)) {
        measure(provider);
    }
    ExitCode::SUCCESS
}

fn measure(provider: &provider::Description) {
    let case = Case::of(provider);
    let draft = case.draft(provider);
    let request = (provider.signer)(&case.settings, case.secret.clone()).unwrap().sign(&draft, NOW).unwrap();
    let verifier = (provider.verifier)(&case.settings, vec![case.secret.clone()]).unwrap();
    let body = Bytes::from(request.body);
    let unverified = Unverified::new(&request.headers, &body, provider.encodings);
    let keyed = Hmac::<Sha256>::new_from_slice(&case.key).unwrap();
    let bare = || {
        let mut mac = keyed.clone();
        mac.update(&body);
        black_box(mac.finalize().into_bytes());
    };
    let verify = || drop(black_box(verifier.verify(unverified, NOW).unwrap()));
    let (bare, verify) = in_turns(bare, verify);

    let verified = verifier.verify(unverified, NOW).unwrap();
    let named = verifier.name(&request.headers, &verified).unwrap();
    let delivery: Delivery = verified.into_delivery(case.settings.name.clone(), provider.name, named, NOW);
    let interpreter = (provider.interpreter)(&case.settings).unwrap();
    assert!(!interpreter.interpret(&delivery).unwrap().changes.is_empty(), "{}", provider.name);
    let whole = || drop(black_box(serde_json::from_slice::<Value>(&body).unwrap()));
    let interpret = || drop(black_box(interpreter.interpret(&delivery).unwrap()));
    let (whole, interpret) = in_turns(whole, interpret);

    let rate = |seconds: f64| body.len() as f64 / seconds / 1e6;
    let signed = if case.signs { format!("{:6.2}", bare / verify) } else { "     -".to_owned() };
    println!(
        "{:22} {:11.0} {:11.0} {signed}   {:11.0} {:11.0} {:6.2}",
        provider.name,
        rate(bare),
        rate(verify),
        rate(whole),
        rate(interpret),
        whole / interpret
    );
}

/// The median times of both, in seconds, measured in turns.
fn in_turns(first: impl Fn(), second: impl Fn()) -> (f64, f64) {
    let mut times: [Vec<f64>; 2] = [Vec::with_capacity(ROUNDS), Vec::with_capacity(ROUNDS)];
    for _ in 0..ROUNDS {
        for (times, run) in times.iter_mut().zip([&first as &dyn Fn(), &second]) {
            let began = Instant::now();
            for _ in 0..TIMES {
                run();
            }
            times.push(began.elapsed().as_secs_f64() / f64::from(TIMES));
        }
    }
    let [first, second] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    });
    (first, second)
}
