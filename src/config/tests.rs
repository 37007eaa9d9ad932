use std::time::Duration;

use super::*;
use crate::delivery::Delivery;
use crate::provider::api::{ApiDescription, TokenPlace};
use crate::provider::{Interpreter, Meaning, Misshapen, SettingsError, SourceSettings};
use crate::reconcile::{Drift, OnAccessLost};
use crate::target::ConnectionRef;
use crate::worker::Connections;

#[derive(Debug)]
struct Silent;

impl Interpreter for Silent {
    fn interpret(&self, _: &Delivery) -> Result<Meaning, Misshapen> {
        Ok(Meaning::nothing("a test"))
    }
}

fn interpreter(settings: &SourceSettings) -> Result<Box<dyn Interpreter>, SettingsError> {
    match settings.own.keys().find(|key| !matches!(key.as_str(), "flavour" | "hook")) {
        None => Ok(Box::new(Silent)),
        Some(key) => Err(SettingsError { key: key.clone(), message: "hosted has no such key".to_owned() }),
    }
}

const fn provider(name: &'static str, default_host: Option<&'static str>) -> Description {
    Description {
        name,
        title: "Test",
        verification: "none",
        encodings: crate::delivery::Encodings::JsonOnly,
        default_host,
        client_type: |host| (host == "github.com").then_some("GITHUB"),
        roster: None,
        api: Some(ApiDescription {
            base: |host| format!("https://{host}/api"),
            token: TokenPlace::Bearer,
            headers: &[],
        }),
        events: &[],
        hooks: &[],
        invents: &[],
        verifier: |_, _| Err(SettingsError { key: String::new(), message: "no verifier in this test".to_owned() }),
        interpreter,
        recover: None,
        signer: |_, _| Err(SettingsError { key: String::new(), message: "no signer in this test".to_owned() }),
    }
}

static HOSTED: Description = provider("hosted", Some("github.com"));
static SELF_HOSTED: Description = provider("self-hosted", None);

fn load_text(text: &str) -> Result<Settings, ConfigError> {
    load_with(text, &[])
}

fn load_with(text: &str, env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rollcall.toml");
    std::fs::write(&path, text).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(Sources { file: Some(path), env, registry: &[&HOSTED, &SELF_HOSTED] }).map_err(|mut error| {
        for problem in &mut error.problems {
            problem.origin = problem.origin.rsplit('/').next().unwrap().to_owned();
        }
        error
    })
}

fn problems(text: &str) -> Vec<String> {
    load_text(text).unwrap_err().problems.iter().map(Problem::to_string).collect()
}

fn source(name: &str, more: &str) -> String {
    format!("[[source]]\nname = \"{name}\"\nprovider = \"hosted\"\nsecrets = [{{ env = \"HOOK\" }}]\n{more}\n")
}

#[test]
fn the_embedded_file_gives_every_default() {
    let settings = load(Sources { file: None, env: BTreeMap::new(), registry: &[] }).unwrap();
    assert_eq!(settings.data_dir, PathBuf::from("./rollcall-data"));
    assert_eq!(settings.ingress.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.ingress.settings.max_body, 25 << 20);
    assert_eq!(settings.ingress.settings.request_timeout, Duration::from_secs(8));
    assert_eq!((settings.ingress.settings.max_per_peer, settings.ingress.settings.max_per_client), (512, 256));
    let crate::ingress::Settings { body_bytes_per_client, small_bytes_per_client, max_body, .. } =
        settings.ingress.settings;
    assert_eq!((body_bytes_per_client, small_bytes_per_client), (max_body, 8 * 1024 * 1024));
    assert_eq!(settings.ingress.settings.keep_alive, Duration::from_secs(75));
    assert!(settings.ingress.settings.trusted_proxies.is_empty());
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.broker.url, None);
    assert_eq!(settings.broker.prefix, "rollcall");
    assert_eq!(settings.broker.max_message.as_u64(), 16 << 20);
    assert_eq!(settings.broker.prefetch, 500);
    assert!(settings.broker.declare);
    assert_eq!(settings.ledger.url, None);
    assert_eq!(settings.drata.base_url.as_str(), "https://public-api.drata.com/public");
    assert_eq!(settings.drata.api_key, None);
    assert_eq!(settings.drata.requests_per_minute, 500);
    assert_eq!(settings.retry.attempts, 12);
    assert_eq!(settings.retry.waiting, Duration::from_secs(900));
    assert_eq!(settings.people.file, None);
    assert_eq!(settings.log.filter, "info");
}

#[test]
fn every_key_has_a_meaning_and_a_default_or_an_example() {
    let keys = keys();
    assert!(keys.len() > 40, "{}", keys.len());
    for key in &keys {
        assert!(key.meaning.len() > 10, "{} has no meaning", key.path());
        assert!(key.default.is_some() != key.example.is_some(), "{}", key.path());
    }
    let listen = keys.iter().find(|key| key.path() == "ingress.listen").unwrap();
    assert_eq!(listen.default, Some("\"127.0.0.1:8080\""));
    assert_eq!(listen.env().unwrap(), "ROLLCALL__INGRESS__LISTEN");
    assert_eq!(keys.iter().find(|key| key.path() == "source.name").unwrap().env(), None);
}

/// Uncommenting every example must give a configuration that loads: the examples are right, and no key is missing
/// from what the code reads.
#[test]
fn every_example_in_the_embedded_file_can_be_used() {
    let mut written = String::new();
    let (mut section, mut opened) = ("", false);
    for key in keys() {
        if key.section != section {
            section = key.section;
            opened = false;
        }
        if let Some(example) = key.example.filter(|_| !matches!(key.key, "verify" | "header")) {
            if !opened {
                let header = if section == "source" { "[[source]]\n".to_owned() } else { format!("[{section}]\n") };
                written.push_str(&header);
                opened = true;
            }
            written.push_str(&format!("{} = {example}\n", key.key));
        }
    }
    let settings = load_text(&written.replace("\"github\"", "\"hosted\"")).unwrap();
    assert_eq!(settings.sources.len(), 1);
    assert!(settings.broker.url.is_some() && settings.ledger.url.is_some() && settings.drata.api_key.is_some());
}

#[test]
fn the_environment_wins_over_the_file() {
    let settings = load_with(
        "[ingress]\nlisten = \"127.0.0.1:1\"\n[retry]\nattempts = 3\n",
        &[
            ("ROLLCALL__INGRESS__LISTEN", "0.0.0.0:2"),
            ("ROLLCALL__BROKER__URL", "amqp://mq.example"),
            ("ROLLCALL__DRATA__API_KEY", "env:KEY"),
            ("ROLLCALL__BROKER__DECLARE", "false"),
            ("ROLLCALL__DATA_DIR", "/var/lib/rollcall"),
            ("OTHER", "1"),
        ],
    )
    .unwrap();
    assert_eq!(settings.ingress.listen.to_string(), "0.0.0.0:2");
    assert_eq!(settings.retry.attempts, 3);
    assert_eq!(settings.broker.url.unwrap().to_string(), "amqp://mq.example");
    assert_eq!(settings.drata.api_key, Some(SecretRef::Env("KEY".to_owned())));
    assert!(!settings.broker.declare);
    assert_eq!(settings.data_dir, PathBuf::from("/var/lib/rollcall"));
}

#[test]
fn every_scalar_key_can_be_set_in_the_environment() {
    for key in keys() {
        let (Some(name), Some(default)) = (key.env(), key.default) else { continue };
        let loaded = load_with("", &[(name.as_str(), default.trim_matches('"'))]);
        assert!(loaded.is_ok(), "{name}: {}", loaded.unwrap_err());
    }
}

#[test]
fn unknown_keys_are_named_with_the_nearest_right_one() {
    assert_eq!(
        problems("data_dri = \"x\"\n[ingres]\nlisten = \"x\"\n[broker]\nprefetsh = 1\nurll = \"x\"\n"),
        [
            "rollcall.toml: broker.prefetsh: there is no such key; did you mean `prefetch`?",
            "rollcall.toml: broker.urll: there is no such key; did you mean `url`?",
            "rollcall.toml: data_dri: there is no such key or section; did you mean `data_dir`?",
            "rollcall.toml: ingres: there is no such key or section; did you mean `ingress`?",
        ]
    );
    let error = load_with("", &[("ROLLCALL__INGRESS__LISTN", "x")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ROLLCALL__INGRESS__LISTN: there is no such setting; did you mean `ROLLCALL__INGRESS__LISTEN`?"
    );
    let error = load_with("", &[("ROLLCALL__SOURCE__NAME", "x")]).unwrap_err();
    assert!(error.to_string().contains("sources can only be written in the file"));
}

#[test]
fn all_problems_are_told_at_once() {
    let found = problems(
        "[ingress]\nlisten = \"localhost\"\nbody_timeout = 5\n[retry]\nfactor = 0.5\nattempts = 0\n[log]\nformat = \"xml\"\n",
    );
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with("rollcall.toml: ingress.listen: must be an IP address and a port"));
    assert!(found[1].starts_with("rollcall.toml: ingress.body_timeout: must be a duration with its unit"));
    assert!(found[2].starts_with("rollcall.toml: retry.attempts: must be a whole number from 1 up"));
    assert!(found[3].starts_with("rollcall.toml: log.format: must be"));
}

#[test]
fn a_syntax_error_has_its_place_and_nothing_of_the_text() {
    let found = problems("[broker]\nurl = \"amqp://u:hush@h\n");
    assert!(found[0].starts_with("rollcall.toml: line 2, column"), "{found:?}");
    assert!(!found[0].contains("hush"));
}

#[test]
fn a_missing_file_is_an_error() {
    let file = Some(PathBuf::from("/nowhere/rollcall.toml"));
    let error = load(Sources { file, env: BTreeMap::new(), registry: &[] }).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/rollcall.toml: can't be read"));
}

#[test]
fn contradictions_are_refused() {
    let contradictory = [
        ("[admin]\nlisten = \"127.0.0.1:8080\"", "admin.listen: is the address of ingress.listen too"),
        ("[retry]\nfactor = 0.9", "retry.factor: must be at least 1"),
        ("[retry]\nfirst = \"11m\"", "retry.first: must be at most retry.max"),
        ("[broker]\npublish_timeout = \"8s\"", "broker.publish_timeout: must be less than ingress.request_timeout"),
        ("[broker]\nconfirm_timeout = \"7s\"", "broker.confirm_timeout: must be at most"),
        ("[broker]\nprefix = \"a b\"", "broker.prefix: may only have"),
        ("[broker]\nurl = \"http://h\"", "broker.url: must begin with amqp"),
        ("[ledger]\nurl = \"sqlite://h\"", "ledger.url: must begin with postgres"),
        ("[drata]\nbase_url = \"https://u:p@h\"", "drata.base_url: must have no user"),
        ("[ingress]\nbody_budget = \"26MiB\"", "ingress.body_budget: must be at least"),
        ("[ingress]\npeer_share = 0", "ingress.peer_share: must be more than 0 and at most 1"),
        ("[ingress]\npeer_share = 25", "ingress.peer_share: must be more than 0 and at most 1"),
        ("[ingress]\ntrusted_proxies = []", "ingress.trusted_proxies: is empty"),
        ("[ingress]\ntrusted_proxies = \"10.0.0.0/8\"", "ingress.trusted_proxies: must be a list of networks"),
        ("[ingress]\ntrusted_proxies = [\"10.0.0.1/8\"]", "which is 10.0.0.0/8; write that"),
        ("[log]\nfilter = \"info,=\"", "log.filter: must be"),
    ];
    for (text, expected) in contradictory {
        let found = problems(text);
        assert!(found.len() == 1 && found[0].contains(expected), "{text}: {found:?}");
    }
    assert!(load_text("[ingress]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"").is_ok());
}

#[test]
fn a_source_has_its_defaults() {
    let settings = load_text(&source("acme", "on_access_lost = \"unlink\"")).unwrap();
    let acme = &settings.sources[0];
    assert_eq!(acme.settings.host, "github.com");
    assert!(acme.settings.roots.is_empty() && !acme.settings.sightings);
    assert_eq!(acme.secrets, [SecretRef::Env("HOOK".to_owned())]);
    assert_eq!(acme.on_access_lost, OnAccessLost::Unlink);
    assert_eq!(acme.connections, Connections::One(ConnectionRef::Only("GITHUB".to_owned())));
    assert_eq!(acme.mass_change_limit, 50);
    assert!(settings.require_sources().is_ok());
}

#[test]
fn networks_are_a_list_in_the_file_and_separated_by_commas_in_the_environment() {
    let allowed = source("acme", "on_access_lost = \"keep\"\nallow_from = [\"192.30.252.0/22\", \"2001:db8::7\"]");
    let settings = load_with(&allowed, &[("ROLLCALL__INGRESS__TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8")]).unwrap();
    let allow_from = settings.sources[0].allow_from.as_ref().unwrap();
    assert!(
        allow_from.contains("192.30.255.1".parse().unwrap()) && allow_from.contains("2001:db8::7".parse().unwrap())
    );
    let trusted = &settings.ingress.settings.trusted_proxies;
    assert!(trusted.contains("10.1.2.3".parse().unwrap()) && trusted.contains("fd00::1".parse().unwrap()));
    assert_eq!(load_text(&source("acme", "on_access_lost = \"keep\"")).unwrap().sources[0].allow_from, None);
    for (wrong, told) in
        [("[]", "is empty"), ("[\"github.com\"]", "\"github.com\": must be a network"), ("[1]", "in quotes")]
    {
        let found = problems(&source("acme", &format!("on_access_lost = \"keep\"\nallow_from = {wrong}")));
        assert!(
            found.len() == 1 && found[0].contains("source[acme].allow_from: ") && found[0].contains(told),
            "{found:?}"
        );
    }
}

#[test]
fn a_host_without_a_client_type_has_no_connection() {
    let settings = load_text(&source("acme", "on_access_lost = \"keep\"\nhost = \"Git.Acme.example\"")).unwrap();
    assert_eq!(settings.sources[0].settings.host, "git.acme.example");
    assert_eq!(settings.sources[0].connections, Connections::None);
}

#[test]
fn an_api_token_is_a_reference_and_its_address_no_more_than_an_address() {
    let with = |own: &str| source("acme", &format!("on_access_lost = \"keep\"\n{own}"));
    let settings =
        load_text(&with("api_token = { env = \"API\" }\napi_url = \"https://git.acme.example/api/v3\"")).unwrap();
    assert_eq!(settings.sources[0].api_token, Some(SecretRef::Env("API".to_owned())));
    assert_eq!(settings.sources[0].api_url.as_ref().unwrap().path(), "/api/v3");
    let contradictory = [
        ("api_token = \"ghp_written\"", "source[acme].api_token: is written out"),
        ("api_url = \"https://git.acme.example\"", "source[acme].api_url: is of no use without api_token"),
        (
            "api_token = { env = \"API\" }\napi_url = \"https://u:p@git.acme.example\"",
            "source[acme].api_url: the API's address must have no user name",
        ),
        ("api_tokn = { env = \"API\" }", "source[acme].api_tokn: there is no such key; did you mean `api_token`?"),
    ];
    for (own, expected) in contradictory {
        let found = problems(&with(own));
        assert!(found.len() == 1 && found[0].contains(expected), "{own}: {found:?}");
    }
}

#[test]
fn what_to_do_on_lost_access_must_be_chosen_and_both_prices_are_told() {
    let found = problems(&source("acme", ""));
    assert_eq!(found.len(), 1);
    let lines: Vec<&str> = found[0].lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("rollcall.toml: source[acme].on_access_lost: must be chosen"));
    assert!(lines[1].contains("\"keep\"") && lines[2].contains("\"unlink\""));
}

#[test]
fn relative_secret_files_lie_beside_the_configuration() {
    let settings =
        load_text(&source("acme", "on_access_lost = \"keep\"").replace("env = \"HOOK\"", "file = \"old\"")).unwrap();
    let SecretRef::File(path) = &settings.sources[0].secrets[0] else { panic!("not a file") };
    assert!(path.is_absolute() && path.ends_with("old"));
}

#[test]
fn a_written_out_secret_is_refused_and_not_repeated() {
    let text = source("acme", "on_access_lost = \"keep\"").replace("{ env = \"HOOK\" }", "\"hush\"");
    let found = problems(&format!("[drata]\napi_key = \"hush\"\n{text}"));
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("rollcall.toml: drata.api_key: is written out"));
    assert!(found[1].starts_with("rollcall.toml: source[acme].secrets[0]: is written out"));
    assert!(!found.concat().contains("hush"));
}

#[test]
fn mistakes_in_a_source_are_all_told() {
    let found = problems(
        "[[source]]\nprovider = \"hostd\"\nsecrets = []\non_access_lost = \"maybe\"\nscopes = [\"acme\"]\ndrata_connection = \"x\"\nsightngs = true\n",
    );
    let starts = [
        "rollcall.toml: source[#1].name: is missing",
        "rollcall.toml: source[#1].provider: there is no provider \"hostd\", only hosted, self-hosted; did you mean `hosted`?",
        "rollcall.toml: source[#1].secrets: needs at least one secret",
        "rollcall.toml: source[#1].on_access_lost: must be chosen",
        "rollcall.toml: source[#1].scopes[0]: the scope must look like org:acme",
        "rollcall.toml: source[#1].drata_connection: must be the connection's id",
        "rollcall.toml: source[#1].sightngs: there is no such key; did you mean `sightings`?",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (found, start) in found.iter().zip(starts) {
        assert!(found.starts_with(start), "{found}");
    }
}

#[test]
fn a_provider_judges_its_own_keys() {
    let settings = load_text(&source("acme", "on_access_lost = \"keep\"\nflavour = \"plain\"")).unwrap();
    assert_eq!(settings.sources[0].settings.own["flavour"].as_str(), Some("plain"));
    let found = problems(&source("acme", "on_access_lost = \"keep\"\ncolour = 1"));
    assert_eq!(found, ["rollcall.toml: source[acme].colour: hosted has no such key"]);
}

#[test]
fn a_provider_without_a_public_host_needs_one() {
    let found = problems(&source("acme", "on_access_lost = \"keep\"").replace("hosted", "self-hosted"));
    assert!(found[0].contains("source[acme].host: is missing"), "{found:?}");
}

#[test]
fn two_sources_must_have_two_names() {
    let twice = source("acme", "on_access_lost = \"keep\"").repeat(2);
    assert_eq!(
        problems(&twice),
        ["rollcall.toml: source: there are two sources named acme; give each a name of its own"]
    );
}

#[test]
fn sources_of_one_connection_must_agree_on_lost_access() {
    let text = source("a", "on_access_lost = \"keep\"\ndrata_connection = 12")
        + &source("b", "on_access_lost = \"unlink\"\ndrata_connection = { \"org:x\" = 11, \"org:y\" = 12 }");
    let found = problems(&text);
    assert!(found[0].contains("source[b].on_access_lost: is \"unlink\" here but \"keep\" in source a"), "{found:?}");
    assert!(load_text(&text.replace("12 }", "13 }")).is_ok());
}

#[test]
fn naming_a_connection_in_one_source_and_not_in_the_other_is_refused() {
    let text =
        source("a", "on_access_lost = \"keep\"\ndrata_connection = 12") + &source("b", "on_access_lost = \"keep\"");
    let found = problems(&text);
    assert!(found[0].contains("source[b].drata_connection") && found[0].contains("name it in both"), "{found:?}");
}

#[test]
fn commands_that_need_sources_say_so() {
    let error = load_text("").unwrap().require_sources().unwrap_err();
    assert!(error.to_string().contains("there is no [[source]]"));
}

#[test]
fn a_drift_is_reported_or_corrected_and_sources_of_one_connection_agree_on_it() {
    let with = |name: &str, drift: &str| source(name, &format!("on_access_lost = \"keep\"\n{drift}"));
    assert_eq!(load_text(&with("a", "")).unwrap().sources[0].drift, Drift::Report);
    assert_eq!(load_text(&with("a", "drift = \"correct\"")).unwrap().sources[0].drift, Drift::Correct);
    let found = problems(&with("a", "drift = \"ignore\""));
    assert!(found[0].contains("source[a].drift: must be \"report\""), "{found:?}");
    let found = problems(&(with("a", "") + &with("b", "drift = \"correct\"")));
    assert!(found[0].contains("source[b].drift: is \"correct\" here but \"report\" in source a"), "{found:?}");
}

#[test]
fn a_sweep_can_be_switched_off_and_not_mistyped() {
    assert_eq!(load_text("[sweep]\nevery = \"off\"").unwrap().sweep.every, None);
    assert_eq!(load_text("").unwrap().sweep.every, Some(Duration::from_hours(6)));
    let found = problems("[sweep]\nevery = \"daily\"");
    assert!(found[0].contains("sweep.every: must be a duration") && found[0].contains("or \"off\""), "{found:?}");
}
