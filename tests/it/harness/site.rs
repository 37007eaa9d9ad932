//! A site that runs rollcall: a folder with its configuration and its data, Drata's stand-in, and a broker. Processes
//! come and go on it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rollcall::delivery::DeliveryId;
use rollcall::ledger::Ledger;
use rollcall::ledger::outcome::Outcome;
use rollcall::outbound;
use rollcall::sandbox::{Fault, Identity, Options, Person, Sandbox, Seen};
use rollcall::shutdown::Tasks;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use toml::Table;
use url::Url;

use super::chaos::Proxy;
use super::github::{Account, GitHub, ORGANIZATION, SECRET};
use super::postgresql::{Role, Schema};
use super::process::{Addresses, Process};
use super::rabbitmq::Names;
use super::{rabbitmq, until};

/// The name of the only source.
pub(crate) const SOURCE: &str = "acme-github";

/// What carries the deliveries.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Carrier {
    Embedded,
    RabbitMq,
}

/// The site.
pub(crate) struct Site {
    /// What the next process is started with.
    pub(crate) config: Table,
    pub(crate) drata: Sandbox,
    pub(crate) github: GitHub,
    names: Option<Names>,
    schema: Option<Schema>,
    folder: TempDir,
    http: reqwest::Client,
    _drata_tasks: Tasks,
}

impl Site {
    /// A site with so many people. Each has an account, which nobody has linked yet; Drata knows all of them.
    pub(crate) async fn new(carrier: Carrier, people: i64) -> Self {
        let accounts = || (1..=people).map(Account);
        let drata = Sandbox::new(Options {
            people: Some(accounts().map(person_of).collect()),
            identities: Some(accounts().map(identity_of).collect()),
            requests_per_minute: None,
            ..Options::default()
        });
        let drata_tasks = Tasks::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url: Url = format!("http://{}/public", listener.local_addr().unwrap()).parse().unwrap();
        drata_tasks.short_lived("test", drata.clone().serve(listener, drata_tasks.token().clone()));

        let folder = tempfile::Builder::new().prefix("rollcall-site-").tempdir().unwrap();
        let mut site = Self {
            config: config(&base_url),
            drata,
            github: GitHub::new(),
            names: None,
            schema: None,
            http: outbound::builder(&base_url, Duration::from_secs(10)).unwrap().build().unwrap(),
            folder,
            _drata_tasks: drata_tasks,
        };
        site.write_people(accounts().map(|account| (account, account.email())));
        if let Carrier::RabbitMq = carrier {
            let url = rabbitmq::url().await;
            site.carried_by(&url, Names::new(&url));
        }
        site
    }

    /// Lets the deliveries go through RabbitMQ at that address. The names are removed in the end.
    pub(crate) fn carried_by(&mut self, url: &str, names: Names) {
        let broker = table(&mut self.config, "broker");
        broker.insert("url".to_owned(), url.into());
        broker.insert("prefix".to_owned(), names.prefix.clone().into());
        self.names = Some(names);
    }

    /// Puts the ledger into PostgreSQL, so that several workers can share it.
    pub(crate) async fn in_postgresql(&mut self) {
        let schema = Schema::create().await;
        self.set("ledger", "url", schema.url.clone());
        self.schema = Some(schema);
    }

    /// The schema in PostgreSQL, if the ledger is there.
    pub(crate) const fn schema(&self) -> Option<&Schema> {
        self.schema.as_ref()
    }

    /// Leaves the folder where it is, and says where that is.
    pub(crate) fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Puts the ledger into PostgreSQL, and lets what follows reach it by way of a proxy only. The tests' own eye on the
    /// ledger goes there directly.
    pub(crate) async fn in_postgresql_behind_a_proxy(&mut self) -> Proxy {
        self.in_postgresql().await;
        let proxy = Proxy::to(Schema::server()).await;
        let url = self.schema().unwrap().url_through(proxy.address);
        self.set("ledger", "url", url);
        proxy
    }

    /// Lets what follows reach Drata by way of a proxy.
    pub(crate) async fn drata_behind_a_proxy(&mut self) -> Proxy {
        let mut url: Url = self.config["drata"]["base_url"].as_str().unwrap().parse().unwrap();
        let proxy = Proxy::to(url.socket_addrs(|| None).unwrap()[0]).await;
        url.set_port(Some(proxy.address.port())).unwrap();
        self.set("drata", "base_url", url.to_string());
        proxy
    }

    /// Lets what follows serve as a role of its own that may do what `deploy/postgres/role.sql` says.
    pub(crate) async fn serves_as_a_role(&mut self) -> Role {
        let role = self.schema.as_ref().expect("a site in PostgreSQL").role().await;
        self.set("ledger", "url", role.url.clone());
        role
    }

    /// Runs a command on the site's configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> Process {
        self.run_in(arguments, &[])
    }

    /// Runs a command on the site's configuration, in this environment.
    pub(crate) fn run_in(&self, arguments: &[&str], environment: &[(&str, String)]) -> Process {
        let file = self.write_config();
        Process::start(self.folder.path(), &[&["--config", file.to_str().unwrap()], arguments].concat(), environment)
    }

    /// Sets a key of a section.
    pub(crate) fn set(&mut self, section: &str, key: &str, value: impl Into<toml::Value>) {
        table(&mut self.config, section).insert(key.to_owned(), value.into());
    }

    /// The table of the only source.
    pub(crate) fn source(&mut self) -> &mut Table {
        self.config["source"][0].as_table_mut().unwrap()
    }

    /// Writes the people map anew.
    pub(crate) fn write_people(&self, rows: impl IntoIterator<Item = (Account, String)>) {
        let rows: String =
            rows.into_iter().map(|(account, person)| format!("github:#{},{person}\n", account.id())).collect();
        std::fs::write(self.folder.path().join("people.csv"), format!("account,person\n{rows}")).unwrap();
    }

    /// Starts a process and doesn't wait for anything.
    pub(crate) fn start(&self) -> Process {
        self.start_with(&[("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()), ("DRATA_API_KEY", "a key".to_owned())])
    }

    /// Starts a process in this environment.
    pub(crate) fn start_with(&self, environment: &[(&str, String)]) -> Process {
        self.serve_with(&[], environment)
    }

    /// Starts a process with these arguments to `serve`, in this environment.
    pub(crate) fn serve_with(&self, arguments: &[&str], environment: &[(&str, String)]) -> Process {
        self.run_in(&[&["serve"], arguments].concat(), environment)
    }

    /// Starts a process that does everything and writes to these streams, its log as lines of every level.
    pub(crate) fn serve_writing_to(&mut self, streams: [Stdio; 2]) -> Process {
        self.set("log", "filter", "debug");
        let file = self.write_config();
        let environment = [("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()), ("DRATA_API_KEY", "a key".to_owned())];
        let arguments = ["--config", file.to_str().unwrap(), "serve"];
        Process::start_writing_to(streams, self.folder.path(), &arguments, &environment)
    }

    /// Lets the deliveries go through the common RabbitMQ by way of a proxy.
    pub(crate) async fn carried_through_a_proxy(&mut self) -> Proxy {
        let real: Url = rabbitmq::url().await.parse().unwrap();
        let proxy = Proxy::to(real.socket_addrs(|| Some(5672)).unwrap()[0]).await;
        let mut through = real.clone();
        through.set_ip_host(proxy.address.ip()).unwrap();
        through.set_port(Some(proxy.address.port())).unwrap();
        self.carried_by(through.as_str(), Names::new(real.as_str()));
        proxy
    }

    /// Writes the configuration in one step: a process that was started a moment ago may be reading it.
    fn write_config(&self) -> PathBuf {
        let file = self.config_file();
        let new = file.with_extension("new");
        std::fs::write(&new, self.config.to_string()).unwrap();
        std::fs::rename(&new, &file).unwrap();
        file
    }

    /// Starts a process that only takes webhooks. It has no key for Drata.
    pub(crate) fn start_ingress(&self) -> Process {
        self.serve_with(&["--role", "ingress"], &[("GITHUB_WEBHOOK_SECRET", SECRET.to_owned())])
    }

    /// Starts a process that only records and reconciles. It has no webhook secret.
    pub(crate) fn start_worker(&self) -> Process {
        self.serve_with(&["--role", "worker"], &[("DRATA_API_KEY", "a key".to_owned())])
    }

    /// Starts a process that only takes webhooks, by another program that becomes it.
    pub(crate) fn start_ingress_under(&self, under: &[&str]) -> Process {
        let file = self.write_config();
        let arguments = ["--config", file.to_str().unwrap(), "serve", "--role", "ingress"];
        let secret = [("GITHUB_WEBHOOK_SECRET", SECRET.to_owned())];
        Process::start_under(under, self.folder.path(), &arguments, &secret)
    }

    /// Starts a process by another program that becomes it.
    pub(crate) fn start_under(&self, under: &[&str]) -> Process {
        let file = self.write_config();
        let secrets = [("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()), ("DRATA_API_KEY", "a key".to_owned())];
        let arguments = ["--config", file.to_str().unwrap(), "serve"];
        Process::start_under(under, self.folder.path(), &arguments, &secrets)
    }

    /// The folder in which rollcall keeps its files.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The name of the work queue at RabbitMQ, and where that is.
    pub(crate) fn work_queue(&self) -> (String, String) {
        let names = self.names.as_ref().expect("a site with RabbitMQ");
        (names.url.clone(), names.work())
    }

    /// Starts a process and waits until it serves.
    pub(crate) async fn serve(&self) -> (Process, Addresses) {
        let mut process = self.start();
        let addresses = process.ready().await;
        (process, addresses)
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.folder.path().join("rollcall.toml")
    }

    /// The ledger, to look at, whether or not a process runs.
    pub(crate) async fn ledger(&self) -> Ledger {
        match &self.schema {
            Some(schema) => Ledger::connect(&schema.url.clone().into(), true).await.unwrap(),
            None => Ledger::open(&self.folder.path().join("data")).await.unwrap(),
        }
    }

    /// Breaks Drata in these ways, and in no others.
    pub(crate) fn break_drata(&self, rules: &[&str]) {
        self.drata.set_faults(rules.iter().map(|rule| rule.parse::<Fault>().unwrap()).collect());
    }

    /// What Drata was asked to set an account's status to, in order.
    pub(crate) fn connects(&self, account: Account) -> Vec<Seen> {
        let path = format!("/user-identities/version-control/{}/connect", account.identity());
        self.drata.requests().into_iter().filter(|seen| seen.path == path).collect()
    }

    /// Whether Drata has the account linked to its person.
    pub(crate) fn is_linked(&self, account: Account) -> bool {
        self.drata.linked(account.identity()) == Some(account.person())
    }

    /// Asks the admin listener.
    pub(crate) async fn ask(&self, at: &Addresses, path: &str) -> (u16, Value) {
        self.ask_admin(&at.admin, path).await
    }

    /// Asks the admin listener at this address.
    pub(crate) async fn ask_admin(&self, admin: &Url, path: &str) -> (u16, Value) {
        let response = self.http.get(admin.join(path).unwrap()).send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

/// What became of a delivery, if anything has yet.
pub(crate) async fn outcome(ledger: &Ledger, id: &DeliveryId) -> Option<(Outcome, String)> {
    let (outcome, reason) = ledger.outcome_of(&SOURCE.parse().unwrap(), id).await.unwrap()?;
    Some((outcome, reason.unwrap_or_default()))
}

/// Waits until a delivery has this outcome, and returns the reason.
pub(crate) async fn becomes(ledger: &Ledger, id: &DeliveryId, expected: Outcome) -> String {
    let mut reason = None;
    until(&format!("the delivery {id} is {expected}"), async || {
        reason = outcome(ledger, id).await.filter(|(outcome, _)| *outcome == expected);
        reason.is_some()
    })
    .await;
    reason.unwrap().1
}

/// Whether the ledger has a delivery and is done with it.
pub(crate) async fn is_settled(ledger: &Ledger, id: &DeliveryId) -> bool {
    outcome(ledger, id).await.is_some_and(|(outcome, _)| outcome != Outcome::Pending)
}

/// The person whose account it is, as Drata knows them.
pub(crate) fn person_of(account: Account) -> Person {
    Person {
        id: account.person(),
        email: account.email(),
        first_name: account.login(),
        last_name: String::new(),
        employment_status: "CURRENT_EMPLOYEE".to_owned(),
    }
}

/// Drata's row for an account that nobody has linked yet.
pub(crate) fn identity_of(account: Account) -> Identity {
    Identity {
        id: account.identity(),
        identity_id: account.id(),
        username: account.login(),
        connection_id: 12,
        client_type: "GITHUB".to_owned(),
        ..Identity::default()
    }
}

fn table<'a>(config: &'a mut Table, section: &str) -> &'a mut Table {
    config.entry(section).or_insert_with(|| Table::new().into()).as_table_mut().unwrap()
}

/// Quick retries, short time-outs, and no sweep but by hand; else as it is by default.
fn config(drata: &Url) -> Table {
    let (organization, _) = ORGANIZATION;
    let text = format!(
        r#"
        data_dir = "data"
        ingress = {{ listen = "127.0.0.1:0", shutdown_grace = "2s" }}
        admin = {{ listen = "127.0.0.1:0" }}
        log = {{ format = "json" }}
        people = {{ file = "people.csv" }}
        sweep = {{ every = "off" }}
        retry = {{ first = "50ms", max = "200ms", waiting = "200ms" }}

        [drata]
        base_url = "{drata}"
        api_key = {{ env = "DRATA_API_KEY" }}
        requests_per_minute = 60000
        timeout = "1s"

        [[source]]
        name = "{SOURCE}"
        provider = "github"
        secrets = [{{ env = "GITHUB_WEBHOOK_SECRET" }}]
        on_access_lost = "unlink"
        scopes = ["org:{organization}"]
        "#
    );
    text.parse().unwrap()
}
