//! What the demo runs: the real parts, wired as `serve` wires them, and Drata's stand-in.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::time::Instant;
use url::Url;

use super::report::{Delivered, Ended, Report};
use super::story::{Expected, Step, Story};
use crate::app::{self, IngressRole, Running, Setup, WorkerRole};
use crate::broker::{SharedBroker, State, rabbitmq};
use crate::cli::OutOfReach;
use crate::config::{self, Source};
use crate::delivery::{DeliveryId, SecretName, SourceName, Timestamp};
use crate::drata::{self, Client};
use crate::ledger::Ledger;
use crate::ledger::outcome::Outcome;
use crate::outbound;
use crate::people::People;
use crate::provider::{self, REGISTRY, Secret, SignedRequest, SourceSettings};
use crate::reconcile::{self, Drift, OnAccessLost, Schedule};
use crate::sandbox::{Fault, Identity, Options, Person, Sandbox};
use crate::shutdown::Tasks;
use crate::target::ConnectionRef;
use crate::telemetry::metrics;
use crate::worker::Connections;

/// How long anything may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const FIRST_CONNECTION: i64 = 12;

/// Everything that runs.
pub(super) struct Stage {
    pub(super) running: Running,
    pub(super) webhooks: Url,
    ledger: Ledger,
    pub(super) drata: Url,
    pub(super) rabbitmq: Option<rabbitmq::Settings>,
    cast: Cast,
    sandbox: Sandbox,
    sandbox_tasks: Tasks,
    http: reqwest::Client,
    _folder: TempDir,
}

/// Who plays where: a source for every organisation and policy of the stories.
struct Cast {
    sources: BTreeMap<(String, &'static str), (SourceName, i64)>,
    secret: Secret,
    wrong_secret: Secret,
}

impl Cast {
    fn new(stories: &[Story]) -> anyhow::Result<Self> {
        let mut sources = BTreeMap::new();
        for story in stories.iter().filter(|story| story.expect != Expected::Untouched) {
            let next = i64::try_from(sources.len())? + FIRST_CONNECTION;
            let key = (story.organization.id.clone(), story.on_access_lost.as_str());
            let name = match key.1 {
                "unlink" => format!("{}-github", story.organization.login),
                policy => format!("{}-github-{policy}", story.organization.login),
            };
            if let Entry::Vacant(vacant) = sources.entry(key) {
                vacant.insert((name.parse()?, next));
            }
        }
        let secret = |name: &str| Secret {
            name: SecretName(format!("demo:{name}").into()),
            value: SecretString::from(uuid::Uuid::new_v4().to_string()),
        };
        Ok(Self { sources, secret: secret("secret"), wrong_secret: secret("another secret") })
    }

    /// The source of a story, and its connection. Whoever is none of the sources' business is sent to the first.
    fn of(&self, story: &Story) -> anyhow::Result<&(SourceName, i64)> {
        self.sources
            .get(&(story.organization.id.clone(), story.on_access_lost.as_str()))
            .or_else(|| self.sources.values().find(|(_, connection)| *connection == FIRST_CONNECTION))
            .context("there are no stories")
    }

    fn configured(&self) -> anyhow::Result<Vec<Source>> {
        let provider = provider::find("github").context("GitHub is a provider")?;
        let sources = self.sources.iter().map(|((organization, policy), (name, connection))| {
            Ok(Source {
                settings: settings(name.clone(), Some(organization))?,
                provider,
                secrets: Vec::new(),
                allow_from: None,
                on_access_lost: if *policy == "keep" { OnAccessLost::Keep } else { OnAccessLost::Unlink },
                connections: Connections::One(ConnectionRef::Id(*connection)),
                mass_change_limit: 50,
                drift: Drift::default(),
                api_token: None,
                api_url: None,
            })
        });
        sources.collect()
    }
}

fn settings(name: SourceName, organization: Option<&String>) -> anyhow::Result<SourceSettings> {
    Ok(SourceSettings {
        name,
        host: "github.com".to_owned(),
        roots: organization.map(|id| format!("org:#{id}").parse()).transpose()?.into_iter().collect(),
        sightings: false,
        verify: None,
        header: None,
        own: toml::Table::new(),
    })
}

fn identity_of(story: &Story) -> i64 {
    9000 + i64::from(story.number)
}

fn person_of(story: &Story) -> i64 {
    600 + i64::from(story.number)
}

impl Stage {
    pub(super) async fn build(stories: &[Story], broker: Option<&str>) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("rollcall-demo-").context("making a temporary folder")?;
        let cast = Cast::new(stories)?;
        let sandbox = sandbox(stories, &cast)?;
        let sandbox_tasks = Tasks::new();
        let loopback = "127.0.0.1:0".parse()?;
        let listener = app::listen(loopback).await?;
        let drata: Url = format!("http://{}/public", listener.local_addr()?).parse()?;
        sandbox_tasks.essential("sandbox", sandbox.clone().serve(listener, sandbox_tasks.token().clone()));

        let people = folder.path().join("people.csv");
        let rows = stories.iter().map(|s| format!("github:#{},{}@acme.example\n", s.account.id, s.account.login));
        std::fs::write(&people, format!("account,person\n{}", rows.collect::<String>()))?;
        let rabbitmq = broker.map(|url| rabbitmq::Settings {
            prefix: format!("rollcall-demo-{}", uuid::Uuid::new_v4().simple()),
            ..rabbitmq::Settings::new(SecretString::from(url))
        });
        let broker = match rabbitmq.clone() {
            None => app::open_embedded(folder.path(), 16 << 20).await?,
            Some(settings) => app::connect_rabbitmq(settings)?,
        };
        reachable(&broker.0).await?;
        let defaults = config::load(config::Sources { file: None, env: BTreeMap::new(), registry: REGISTRY })?;
        let sources = cast.configured()?;
        let verifying = sources.iter().map(|source| app::ingress_source(source, vec![cast.secret.clone()]));
        let ingress = IngressRole {
            sources: verifying.collect::<Result<_, _>>()?,
            settings: defaults.ingress.settings,
            listener: app::listen(loopback).await?,
        };
        let webhooks = ingress.listener.local_addr()?;
        let ledger = Ledger::open(folder.path()).await?;
        let worker = WorkerRole {
            sources,
            ledger: ledger.clone(),
            unprepared: None,
            client: Client::new(
                // The stand-in has no limit, and nobody wants to watch one.
                drata::Settings { requests_per_minute: 100_000, ..drata::Settings::new(drata.clone()) },
                SecretString::from("demo"),
            )?,
            people: (People::read(&people)?, None),
            reconcile: reconcile::Settings {
                schedule: Schedule {
                    first: Duration::from_millis(300),
                    factor: 2.0,
                    max: Duration::from_secs(2),
                    attempts: 12,
                },
                waiting: Duration::from_secs(1),
                deadline: Duration::from_hours(72),
                second_look: Duration::from_secs(120),
                request_timeout: Duration::from_secs(5),
                concurrency: 4,
                dry_run: false,
            },
            sweep_every: None,
            prefetch: 100,
            max_batch: 32 * 1024 * 1024,
            missing_after: defaults.balance.after,
            recover: (Vec::new(), defaults.recover.every),
            rosters: app::RosterSchedule {
                sources: Vec::new(),
                every: defaults.roster.every,
                apart: defaults.roster.apart,
            },
            seal_every: defaults.evidence.seal_every,
        };
        let (ingress, worker) = (Some(ingress), Some(worker));
        let setup = Setup { broker, spool: None, ingress, worker, metrics: metrics::install()? };
        let running = app::start(setup, app::listen(loopback).await?)?;
        let webhooks: Url = format!("http://{webhooks}/").parse()?;
        let http = outbound::builder(&webhooks, Duration::from_secs(10))?.build()?;
        Ok(Self { running, ledger, webhooks, drata, rabbitmq, cast, sandbox, sandbox_tasks, http, _folder: folder })
    }

    /// Plays one story, and holds the stand-in to it.
    pub(super) async fn play(&self, story: &Story, base: Timestamp, report: &mut Report) -> anyhow::Result<()> {
        report.story(story)?;
        if let Some(fault) = &story.fault {
            let fault: Fault = fault.parse().with_context(|| format!("the fault of the story {}", story.name))?;
            self.sandbox.set_faults(vec![fault]);
        }
        for step in &story.steps {
            let delivered = self.deliver(story, step, base).await?;
            report.delivered(story, &delivered)?;
        }
        self.sandbox.set_faults(Vec::new());
        let person = self.sandbox.linked(identity_of(story));
        let connect = format!("/user-identities/version-control/{}/connect", identity_of(story));
        let calls = self.sandbox.requests().iter().filter(|seen| seen.path == connect).count();
        let linked = person == Some(person_of(story));
        let as_told = match story.expect {
            Expected::Linked | Expected::Kept => linked,
            Expected::Unlinked => person.is_none(),
            Expected::Untouched | Expected::Refused => person.is_none() && calls == 0,
        };
        report.ended(story, Ended { linked: person.is_some(), calls, as_told });
        Ok(())
    }

    async fn deliver(&self, story: &Story, step: &Step, base: Timestamp) -> anyhow::Result<Delivered> {
        let (source, _) = self.cast.of(story)?;
        let secret = if step.wrong_signature { &self.cast.wrong_secret } else { &self.cast.secret };
        let provider = provider::find("github").context("GitHub is a provider")?;
        let signer = (provider.signer)(&settings(source.clone(), None)?, secret.clone())?;
        let draft = signer.invent(&story.invention(step, base))?;
        let id: DeliveryId = draft.id.parse()?;
        let SignedRequest { headers, body } = signer.sign(&draft, Timestamp::now())?;
        let url = format!("{}webhooks/{source}", self.webhooks);
        let answer = self.http.post(url).headers(headers).body(body).send().await?.status().as_u16();
        let outcome = if answer == 202 { Some(self.outcome(source, &id).await?) } else { None };
        Ok(Delivered { event: step.event.clone(), again: step.is_copy_in(story), answer, outcome })
    }

    /// Waits until a delivery has an outcome that lasts.
    async fn outcome(&self, source: &SourceName, id: &DeliveryId) -> anyhow::Result<(Outcome, Option<String>)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.ledger.outcome_of(source, id).await? {
                Some((outcome, reason)) if outcome != Outcome::Pending => return Ok((outcome, reason)),
                _ if Instant::now() > deadline => bail!("delivery {id} has no lasting outcome after {PATIENCE:?}"),
                _ => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Waits until the ledger knows of everything that was accepted, and shows the balance.
    pub(super) async fn settle(&self, report: &mut Report) -> anyhow::Result<()> {
        self.running.checkpoint().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let balance = self.ledger.balance().await?;
            let complete = balance.accepted >= report.accepted() && balance.missing() == 0;
            if complete || Instant::now() > deadline {
                report.balance(balance);
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = &SourceName> {
        self.cast.sources.values().map(|(name, _)| name)
    }

    /// Ends everything, and removes what it made at RabbitMQ. Returns whether no part of it has failed.
    pub(super) async fn end(self) -> bool {
        let stopped = self.running.stop(Duration::from_secs(1)).await;
        self.sandbox_tasks.end(Duration::from_secs(2)).await;
        if let Some(settings) = &self.rabbitmq
            && let Err(error) = rabbitmq::remove(settings).await
        {
            tracing::warn!(%error, "the demo's queues are left behind");
        }
        !stopped.failed
    }
}

/// `serve` goes on trying; a demo without its broker would only show refusals.
async fn reachable(broker: &SharedBroker) -> Result<(), OutOfReach> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let health = broker.health();
        match health.state {
            State::Ok | State::Degraded => return Ok(()),
            _ if Instant::now() > deadline => {
                return Err(OutOfReach(health.reason.unwrap_or_else(|| "the broker can't be reached".to_owned())));
            }
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn sandbox(stories: &[Story], cast: &Cast) -> anyhow::Result<Sandbox> {
    let people = stories.iter().map(|story| Person {
        id: person_of(story),
        email: format!("{}@acme.example", story.account.login),
        first_name: story.account.login.clone(),
        last_name: String::new(),
        employment_status: "CURRENT_EMPLOYEE".to_owned(),
    });
    let identities = stories
        .iter()
        .map(|story| {
            let (_, connection) = cast.of(story)?;
            Ok(Identity {
                id: identity_of(story),
                identity_id: story.account.id.clone(),
                username: story.account.login.clone(),
                email: None,
                connection_id: *connection,
                client_type: "GITHUB".to_owned(),
                user_id: None,
                connected_at: None,
                disconnected_at: None,
                service_account: None,
                service_account_reason: None,
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Sandbox::new(Options {
        people: Some(people.collect()),
        identities: Some(identities),
        requests_per_minute: None,
        ..Options::default()
    }))
}
