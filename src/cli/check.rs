//! `rollcall check`: whether the configuration works, tried on everything that it names, and what to enter at the providers.
//!
//! It only looks: it writes nothing at Drata or in the ledger, and creates nothing at the broker.

mod files;
mod transport;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;
use serde::Serialize;

use super::table::{json, plain};
use super::{Exit, Place};
use crate::app::FolderLock;
use crate::broker::rabbitmq::doctor::{self, Grade};
use crate::config::{self, SecretRef, Settings, Source};
use crate::drata::{Client, Filter};
use crate::ledger::{self, Ledger};
use crate::provider::SourceSettings;
use crate::target::{Connection, ConnectionRef, Failure, FailureClass};

const EXAMPLES: &str = "\
It only looks: nothing is written at Drata or in the ledger, and nothing is created at the broker. That the API key may
connect identities can't be tried without connecting one.

Exit codes: 0 all is well or only warned of, 1 something is wrong, 2 the configuration is wrong, 3 something can't be
reached.

With --json: an object with findings (part, state, what) and sources (name, provider, path, url, content_type,
secret, events, rules, try_it).";

/// How long one request to a provider's API may wait for its rate limit.
const PATIENCE: Duration = Duration::from_secs(20);

/// Check the configuration on everything that it names, and show what to enter at the providers
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Write a JSON object
    #[arg(long)]
    json: bool,
}

/// How a part was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Warning,
    Wrong,
    Unreachable,
}

#[derive(Debug, Serialize)]
struct Finding {
    part: String,
    state: State,
    what: String,
}

/// What an administrator enters at the provider.
#[derive(Debug, Serialize)]
struct Card<'a> {
    name: &'a str,
    provider: &'static str,
    path: String,
    url: String,
    content_type: &'static str,
    /// What the provider calls the secret.
    secret_as: String,
    secret: String,
    events: Vec<&'static str>,
    /// What the source's own table makes of events.
    rules: Vec<String>,
    /// A command that sends a delivery as the provider would.
    try_it: String,
}

#[derive(Serialize)]
struct Report<'a> {
    findings: &'a [Finding],
    sources: Vec<Card<'a>>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, part: &str, state: State, what: impl Into<String>) {
        self.0.push(Finding { part: part.to_owned(), state, what: what.into() });
    }
}

pub(super) async fn run(args: Args, place: &Place, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    settings.require_sources()?;
    let mut findings = Findings::default();
    let sources = settings.sources.len();
    findings.add("configuration", State::Ok, format!("valid, {sources} source{}", if sources == 1 { "" } else { "s" }));
    files::check(&settings, place, &mut findings);
    transport::check(&settings, place, &mut findings)?;
    broker(&settings, place, &mut findings).await?;
    spool(&settings, &mut findings);
    ledger(&settings, place, &mut findings).await?;
    let drata = drata(&settings, place, &mut findings).await;
    for source in &settings.sources {
        scopes(source, &mut findings);
        secrets(source, &settings, place, &mut findings);
        roster(source, &settings, place, &mut findings).await;
        if let Some((client, connections)) = &drata {
            connection(source, client, connections, &mut findings).await;
        }
    }
    proxies(&settings, &mut findings);
    let worst = findings.0.iter().map(|finding| finding.state).max().unwrap_or(State::Ok);
    if args.json {
        json(
            out,
            &Report {
                findings: &findings.0,
                sources: settings.sources.iter().map(|source| card(source, &settings)).collect(),
            },
        )?;
    } else {
        show(&findings.0, &settings, out)?;
    }
    Ok(match worst {
        State::Ok | State::Warning => Exit::Done,
        State::Wrong => Exit::Failed,
        State::Unreachable => Exit::Unreachable,
    })
}

fn show(findings: &[Finding], settings: &Settings, out: &mut dyn Write) -> anyhow::Result<()> {
    for Finding { part, state, what } in findings {
        let sign = match state {
            State::Ok => "ok     ",
            State::Warning => "warning",
            State::Wrong => "WRONG  ",
            State::Unreachable => "NO WAY ",
        };
        writeln!(out, "{sign}  {part}: {}", plain(what))?;
    }
    for source in &settings.sources {
        let card = card(source, settings);
        writeln!(out, "\nEnter at {} for {}:", source.provider.title, card.name)?;
        writeln!(out, "  payload URL   {}", card.url)?;
        writeln!(out, "  content type  {}", card.content_type)?;
        writeln!(out, "  {:13} the value of {}", card.secret_as, card.secret)?;
        writeln!(out, "  SSL           verification on")?;
        writeln!(out, "  events        {}", card.events.join(", "))?;
        for rule in &card.rules {
            writeln!(out, "  means         {}", plain(rule))?;
        }
        writeln!(out, "  then try      {}", card.try_it)?;
    }
    Ok(())
}

fn card<'a>(source: &'a Source, settings: &Settings) -> Card<'a> {
    // The provider's own name of an event is what comes before the action.
    let sightings = source.settings.sightings;
    let told =
        source.provider.events.iter().filter(|row| row.change != "-" && (sightings || !row.change.starts_with("seen")));
    let events: BTreeSet<&str> =
        told.map(|row| row.event.split_once('.').map_or(row.event, |(event, _)| event)).collect();
    let name = source.settings.name.as_str();
    Card {
        name,
        provider: source.provider.name,
        path: format!("/webhooks/{name}"),
        url: settings.ingress.webhook_url(&source.settings.name),
        content_type: "application/json",
        secret_as: secret_as(&source.settings),
        secret: source.secrets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
        events: if source.provider.hooks.is_empty() {
            events.into_iter().collect()
        } else {
            source.provider.hooks.to_vec()
        },
        // The configuration was valid, so that it can be built.
        rules: (source.provider.interpreter)(&source.settings).map_or_else(|_| Vec::new(), |it| it.explained()),
        try_it: try_it(source, settings),
    }
}

fn secret_as(settings: &SourceSettings) -> String {
    match (settings.verify.as_deref(), settings.header.as_deref()) {
        (Some("token"), _) => "secret token".to_owned(),
        (Some("basic"), _) => "user:password".to_owned(),
        (Some("header"), Some(header)) => format!("header {header}:"),
        _ => "secret".to_owned(),
    }
}

fn try_it(source: &Source, settings: &Settings) -> String {
    let SourceSettings { name, verify, header, .. } = &source.settings;
    let event = source.provider.invents.first().copied().unwrap_or_default();
    let mut line = format!(
        "rollcall send --url '{}' --provider {} --secret-env NAME --event {event}",
        settings.ingress.webhook_url(name),
        source.provider.name
    );
    for (option, value) in [("verify", verify), ("header", header)] {
        if let Some(value) = value {
            line.push_str(&format!(" --{option} {value}"));
        }
    }
    line
}

/// Whether clients can be told apart. TLS ends at a proxy, and so does what reaches an address of this machine alone: without
/// trusted ones all requests seem to be the proxy's.
fn proxies(settings: &Settings, findings: &mut Findings) {
    let config::Ingress { listen, public_url, settings: ingress } = &settings.ingress;
    let trusted = &ingress.trusted_proxies;
    if trusted.contains_everybody() {
        let what = "ingress.trusted_proxies trusts every address, so that everybody can claim to be anybody; name the \
                    networks of your proxies";
        findings.add("ingress", State::Warning, what);
    }
    let https = public_url.as_ref().is_some_and(|url| url.scheme() == "https");
    let local = listen.ip().is_loopback();
    if !trusted.is_empty() || !(https || local) {
        return;
    }
    let (proxy, advice) = if local {
        (
            "only a proxy on this machine reaches ingress.listen",
            "set ingress.trusted_proxies = [\"127.0.0.1\", \"::1\"]",
        )
    } else {
        ("TLS for ingress.public_url ends at a proxy", "name its network there")
    };
    for source in settings.sources.iter().filter(|source| source.allow_from.is_some()) {
        let what = format!(
            "has allow_from, but ingress.trusted_proxies is missing: {proxy}, so that every request comes from that; {advice}"
        );
        findings.add(&format!("source {}", source.settings.name), State::Warning, what);
    }
    if https {
        let shares = if local {
            "no client can be told apart, nor has any its share (ingress.peer_share)".to_owned()
        } else {
            let most = ingress.max_per_peer;
            format!(
                "all its clients together count as one peer, which may have {most} connections (ingress.peer_share)"
            )
        };
        let what = format!("ingress.trusted_proxies is missing: {proxy}, and {shares}; {advice}");
        findings.add("ingress", State::Warning, what);
    }
}

async fn broker(settings: &Settings, place: &Place, findings: &mut Findings) -> anyhow::Result<()> {
    let Some(rabbitmq) = place.rabbitmq(settings)? else {
        findings.add("broker", State::Ok, "embedded, in data_dir; all roles are one process");
        folder("data_dir", &settings.data_dir, findings);
        return Ok(());
    };
    let found = doctor::examine(&rabbitmq, None).await;
    let troubles: Vec<_> = found.iter().filter(|finding| finding.grade > Grade::NotSeen).collect();
    for doctor::Finding { part, grade, what, fix } in &troubles {
        let state = match grade {
            Grade::Unreachable => State::Unreachable,
            Grade::Wrong => State::Wrong,
            _ => State::Warning,
        };
        let what = match (grade, fix) {
            (Grade::Unreachable, _) => format!("RabbitMQ can't be reached (broker.url): {what}"),
            (_, Some(fix)) => format!("{part} {what}; {fix}"),
            (_, None) => format!("{part} {what}"),
        };
        findings.add("broker", state, what);
    }
    if troubles.is_empty() {
        let server = found.iter().find(|finding| finding.part == "server").map_or("RabbitMQ", |server| &server.what);
        let absent = found.iter().any(|finding| finding.what.contains("isn't there yet"));
        let there = if absent { "serve declares what isn't there yet" } else { "exchange and queues are there" };
        findings.add("broker", State::Ok, format!("{server} answers; {there}"));
    }
    Ok(())
}

/// Whether the data folder can be used. One that a serving process holds is in use, and that is well.
fn folder(part: &str, folder: &Path, findings: &mut Findings) {
    if !folder.exists() {
        findings.add(part, State::Ok, format!("{} isn't there yet; serve makes it", folder.display()));
        return;
    }
    match FolderLock::take(folder) {
        Ok(_) => findings.add(part, State::Ok, format!("{} can be written", folder.display())),
        Err(error) => findings.add(part, State::Warning, error.to_string()),
    }
}

/// Whether the spool can be used, where there would be one.
fn spool(settings: &Settings, findings: &mut Findings) {
    if settings.broker.url.is_none() {
        return;
    }
    let with = |all_roles| settings.has_spool(all_roles);
    match (with(true), with(false)) {
        (false, _) => {
            let what = "off: while RabbitMQ takes nothing, deliveries are answered with 503";
            findings.add("spool", State::Ok, what);
        }
        (true, false) => findings.add("spool", State::Ok, "on if all roles are one process, else off"),
        (true, true) => findings.add("spool", State::Ok, "on"),
    }
    if with(false) || settings.spool_folder().exists() {
        folder("spool", &settings.spool_folder(), findings);
    }
}

async fn ledger(settings: &Settings, place: &Place, findings: &mut Findings) -> anyhow::Result<()> {
    let opened = match place.ledger_url(settings)? {
        Some(url) => Ledger::postgresql(&url).await,
        None if settings.data_dir.join(ledger::FILE).is_file() => Ledger::sqlite(&settings.data_dir).await,
        None => {
            findings.add("ledger", State::Ok, "SQLite in data_dir, not there yet; serve makes it");
            return Ok(());
        }
    };
    let pending = match &opened {
        Ok(ledger) => ledger.pending().await,
        Err(error) => {
            findings.add("ledger", State::Unreachable, error.to_string());
            return Ok(());
        }
    };
    let name = opened.map_or("", |ledger| ledger.database().name());
    match pending {
        Ok(pending) if pending.is_empty() => findings.add("ledger", State::Ok, format!("{name}, up to date")),
        Ok(pending) if settings.ledger.migrate => {
            findings.add(
                "ledger",
                State::Ok,
                format!("{name}; serve applies {} migrations at its start", pending.len()),
            );
        }
        Ok(pending) => findings.add(
            "ledger",
            State::Wrong,
            format!(
                "{name}: {} migrations are pending and ledger.migrate is false; run `rollcall migrate`",
                pending.len()
            ),
        ),
        Err(error) => findings.add("ledger", State::Unreachable, error.to_string()),
    }
    Ok(())
}

/// Asks Drata for its connections. None if nothing more can be asked.
async fn drata(settings: &Settings, place: &Place, findings: &mut Findings) -> Option<(Client, Vec<Connection>)> {
    suspicious("drata", settings.drata.api_key.as_ref(), place, findings);
    let client = match super::serve::client(settings, place) {
        Ok(client) => client,
        Err(error) => {
            findings.add("drata", State::Wrong, error.to_string());
            return None;
        }
    };
    match client.connections().await {
        Ok(connections) => {
            findings.add(
                "drata",
                State::Ok,
                format!("the API key is accepted, and Drata's connections can be listed: {}", ids(connections.iter())),
            );
            Some((client, connections))
        }
        Err(failure) => {
            let (state, what) = judged("list connections", &failure);
            findings.add("drata", state, what);
            None
        }
    }
}

/// What a failure says about key and address.
fn judged(what: &str, failure: &Failure) -> (State, String) {
    let said = &failure.message;
    match failure.class {
        FailureClass::Transient | FailureClass::Throttled => (State::Unreachable, format!("can't {what}: {said}")),
        FailureClass::RefusedAll if failure.status == Some(401) => {
            (State::Wrong, format!("can't {what}: {said}; the API key is wrong or has expired (drata.api_key)"))
        }
        FailureClass::RefusedAll => {
            (State::Wrong, format!("can't {what}: {said}; give the API key that permission at Drata"))
        }
        FailureClass::Stale => (State::Wrong, format!("can't {what}: {said}; is drata.base_url right?")),
        FailureClass::Refused => (State::Wrong, format!("can't {what}: {said}")),
    }
}

/// Whether the source says whom it speaks for.
fn scopes(source: &Source, findings: &mut Findings) {
    if source.settings.roots.is_empty() {
        let what = "it has no `scopes`, so whatever organisation, group or instance signs with its secret is believed; \
                    name those that it is for";
        findings.add(&format!("source {}", source.settings.name), State::Warning, what);
    }
}

fn secrets(source: &Source, settings: &Settings, place: &Place, findings: &mut Findings) {
    let part = format!("source {}", source.settings.name);
    for secret in &source.secrets {
        match secret.resolve(&place.env) {
            Err(error) => findings.add(&part, State::Wrong, error.to_string().trim().to_owned()),
            Ok(value) => {
                let suspicions = config::webhook_suspicions(&value.value);
                for what in &suspicions {
                    findings.add(&part, State::Warning, format!("the secret {secret} {what}"));
                }
                let same = |other: &&Source| {
                    other.settings.name != source.settings.name
                        && other
                            .secrets
                            .iter()
                            .filter_map(|secret| secret.resolve(&place.env).ok())
                            .any(|other| other.value.expose_secret() == value.value.expose_secret())
                };
                match settings.sources.iter().find(same) {
                    Some(other) => findings.add(
                        &part,
                        State::Warning,
                        format!(
                            "the secret {secret} is also that of source {}; give each its own",
                            other.settings.name
                        ),
                    ),
                    None if suspicions.is_empty() => {
                        findings.add(&part, State::Ok, format!("the secret {secret} is there"));
                    }
                    None => {}
                }
            }
        }
    }
}

/// Warns of what looks wrong about a key or token.
fn suspicious(part: &str, secret: Option<&SecretRef>, place: &Place, findings: &mut Findings) {
    let Some(secret) = secret else { return };
    // One that can't be read is said where it is needed.
    let Ok(value) = secret.resolve(&place.env) else { return };
    for what in config::suspicions(&value.value) {
        findings.add(part, State::Warning, format!("the secret {secret} {what}"));
    }
}

/// Whether the source's token may read its rosters.
async fn roster(source: &Source, settings: &Settings, place: &Place, findings: &mut Findings) {
    let part = format!("source {}", source.settings.name);
    suspicious(&part, source.api_token.as_ref(), place, findings);
    let reads = match super::roster::one_source(source, settings, place, PATIENCE) {
        Ok(Some(reads)) => reads,
        Ok(None) if source.api_token.is_some() => {
            let what = format!("{} has no list of members that rollcall reads", source.provider.title);
            return findings.add(&part, State::Ok, what);
        }
        Ok(None) => return,
        Err(error) => return findings.add(&part, State::Wrong, error.to_string().trim().to_owned()),
    };
    if reads.roots.is_empty() {
        let what = "the API token reads the roster of each root that events have spoken of; name them in `scopes`, and \
                    this tries it";
        return findings.add(&part, State::Ok, what);
    }
    for root in &reads.roots {
        match crate::roster::read::probe(&reads.api, reads.roster.as_ref(), root).await {
            Ok(()) => findings.add(&part, State::Ok, format!("the API token may read the roster of {root}")),
            Err(error) => {
                let state = if error.is_transient() { State::Unreachable } else { State::Wrong };
                findings.add(&part, state, format!("the roster of {root} can't be read: {error}"));
            }
        }
    }
}

/// Whether the source's connections are Drata's, each without a guess, and whether its identities may be read.
async fn connection(source: &Source, client: &Client, known: &[Connection], findings: &mut Findings) {
    let part = format!("source {}", source.settings.name);
    let mut any = false;
    for wanted in source.connections.all() {
        any = true;
        match chosen(source, wanted, known) {
            Err(why) => findings.add(&part, State::Wrong, why),
            Ok(connection) => {
                let filter = Filter::from(&ConnectionRef::Id(connection.id));
                match client.find_identities(&filter, Some("rollcall-check")).await {
                    Ok(_) => findings.add(
                        &part,
                        State::Ok,
                        format!("belongs to Drata's connection {} ({})", connection.id, connection.client_type),
                    ),
                    Err(failure) => {
                        let (state, what) = judged("read identities", &failure);
                        findings.add(&part, state, what);
                    }
                }
            }
        }
    }
    if !any {
        let what =
            "Drata has no connections for this provider: deliveries are verified and recorded, and change nothing";
        findings.add(&part, State::Warning, what);
    }
}

fn chosen<'a>(source: &Source, wanted: &ConnectionRef, known: &'a [Connection]) -> Result<&'a Connection, String> {
    let expected = (source.provider.client_type)(&source.settings.host);
    match wanted {
        ConnectionRef::Id(id) => match known.iter().find(|connection| connection.id == *id) {
            None => {
                let same = known.iter().filter(|known| expected.is_none_or(|expected| expected == known.client_type));
                Err(format!("Drata has no connection {id}; drata_connection must be one of {}", ids(same)))
            }
            Some(found) if expected.is_some_and(|expected| expected != found.client_type) => Err(format!(
                "Drata's connection {id} is of type {}, and not {}",
                found.client_type,
                expected.unwrap_or_default()
            )),
            Some(found) => Ok(found),
        },
        ConnectionRef::Only(client_type) => {
            let same: Vec<&Connection> =
                known.iter().filter(|connection| connection.client_type == *client_type).collect();
            match same.as_slice() {
                [only] => Ok(only),
                [] => Err(format!("Drata has no connection of type {client_type}; connect it there first")),
                many => Err(format!(
                    "Drata has {} connections of type {client_type}; write drata_connection = one of {}",
                    many.len(),
                    ids(many.iter().copied())
                )),
            }
        }
    }
}

fn ids<'a>(connections: impl Iterator<Item = &'a Connection>) -> String {
    let shown = |connection: &Connection| match &connection.alias {
        Some(alias) => format!("{} ({alias})", connection.id),
        None => connection.id.to_string(),
    };
    connections.map(shown).collect::<Vec<_>>().join(", ")
}
