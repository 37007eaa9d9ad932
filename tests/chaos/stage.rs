//! The stage: the processes, the services and the wires between them, and what is done to them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use rollcall::delivery::Timestamp;
use tokio::sync::Mutex as AsyncMutex;
use url::Url;

use crate::harness::chaos::Proxy;
use crate::harness::github::{Account, GitHub, SECRET};
use crate::harness::postgresql::Schema;
use crate::harness::rabbitmq::{Names, Node};
use crate::harness::site::{Carrier, Site};
use crate::host::{Host, Role};
use crate::notes::Notes;
use crate::options::{Topology, faketime};
use crate::schedule::{Fault, Hosts, Wire};
use crate::world::World;

/// How long after an unanswered call rollcall looks once more. Longer than anything here holds a request back.
const SECOND_LOOK: &str = "8s";

/// What Drata does now and then, whatever else happens.
const USUAL: &[&str] = &["slow=5ms@connect", "500:2%@connect", "500:5%:applied@connect", "drop:3%:applied@connect"];

/// The stage.
pub(crate) struct Stage {
    // Dropped in this order: whoever uses something goes before it.
    pub(crate) hosts: Vec<Host>,
    pub(crate) site: Site,
    wires: BTreeMap<Wire, Proxy>,
    nodes: Vec<AsyncMutex<Node>>,
    /// The rules that Drata follows besides the usual ones, by the fault that brought them.
    rules: Mutex<Vec<&'static str>>,
    pub(crate) notes: Notes,
    usual: &'static [&'static str],
}

impl Stage {
    /// Everything is started, and serves.
    pub(crate) async fn set(topology: Topology, world: &World, skew: Option<i64>, spools: bool, notes: Notes) -> Self {
        let mut site = Site::new(Carrier::Embedded, world.accounts).await;
        site.github = GitHub::since(Duration::from_secs(20 * 24 * 3_600));
        for account in (1..=world.accounts).map(Account).filter(|account| World::is_unknown(*account).0) {
            site.drata.remove_identity(account.identity());
        }
        for (key, value) in [("first", "100ms"), ("max", "2s"), ("waiting", "3s"), ("second_look", SECOND_LOOK)] {
            site.set("retry", key, value);
        }
        site.set("balance", "after", "5s");
        // What a killed worker had comes again one by one.
        site.set("broker", "prefetch", 64);
        site.set("log", "filter", "info,rollcall::reconcile=warn");
        let roots = (0..world.roots).map(|root| format!("org:#{}", World::root_id(root)).into()).collect();
        site.source().insert("scopes".to_owned(), toml::Value::Array(roots));
        let hosts = Hosts::of(topology);
        let mut nodes = Vec::new();
        match topology {
            Topology::Embedded => {}
            Topology::Single => {
                let mut node = Node::new();
                node.start().await;
                nodes.push(node);
            }
            Topology::Cluster => nodes = Node::cluster(hosts.nodes).await,
        }
        if let Some(first) = nodes.first() {
            site.carried_by(&first.url(), Names::new(&first.url()));
            site.in_postgresql().await;
        }
        let drata = drata_address(&site);
        let brokers: Vec<SocketAddr> = nodes.iter().map(Node::address).collect();
        let mut wires = BTreeMap::new();
        for host in 0..hosts.workers().end {
            if !brokers.is_empty() {
                let mut turned = brokers.clone();
                turned.rotate_left(host % brokers.len());
                wires.insert(Wire::Broker(host), Proxy::to_any(turned).await);
            }
            if hosts.workers().contains(&host) {
                wires.insert(Wire::Drata(host), Proxy::to(drata).await);
                if site.schema().is_some() {
                    wires.insert(Wire::Ledger(host), Proxy::to(Schema::server()).await);
                }
            }
        }
        let mut stage = Self {
            hosts: Vec::new(),
            site,
            wires,
            nodes: nodes.into_iter().map(AsyncMutex::new).collect(),
            rules: Mutex::default(),
            notes,
            usual: USUAL,
        };
        stage.hosts = (0..hosts.workers().end).map(|host| stage.host(host, hosts, skew, spools)).collect();
        stage.obey();
        for host in &stage.hosts {
            host.start(&stage).await;
        }
        stage
    }

    /// The process on one host: how it is started, and what it reaches by which wire.
    fn host(&self, number: usize, hosts: Hosts, skew: Option<i64>, spools: bool) -> Host {
        let mut environment = Vec::new();
        let at = |wire: &Wire| self.wires.get(wire).map(|proxy| proxy.address);
        if let Some(broker) = at(&Wire::Broker(number)) {
            environment.push(("ROLLCALL__BROKER__URL", format!("amqp://guest:guest@{broker}/%2f")));
        }
        if let (Some(schema), Some(ledger)) = (self.site.schema(), at(&Wire::Ledger(number))) {
            environment.push(("ROLLCALL__LEDGER__URL", schema.url_through(ledger)));
        }
        if let Some(drata) = at(&Wire::Drata(number)) {
            environment.push(("ROLLCALL__DRATA__BASE_URL", format!("http://{drata}/public")));
            environment.push(("DRATA_API_KEY", "a key".to_owned()));
        }
        let role = match (hosts.ingresses, hosts.workers().contains(&number)) {
            (0, _) => Role::All,
            (_, false) => Role::Ingress,
            (_, true) => Role::Worker,
        };
        if role != Role::Worker {
            environment.push(("GITHUB_WEBHOOK_SECRET", SECRET.to_owned()));
        }
        if role == Role::Ingress && spools {
            environment.push(("ROLLCALL__SPOOL__ENABLED", "true".to_owned()));
            environment.push(("ROLLCALL__DATA_DIR", format!("data-{number}")));
        }
        // The last of each kind: one clock is fast, the other slow.
        let seconds = match (skew, role) {
            (Some(seconds), Role::Ingress) if number + 1 == hosts.ingresses => Some(seconds),
            (Some(seconds), Role::Worker) if number + 1 == hosts.workers().end => Some(-seconds),
            _ => None,
        };
        if let (Some(seconds), Some(library)) = (seconds, faketime()) {
            environment.push(("LD_PRELOAD", library.display().to_string()));
            environment.push(("FAKETIME", format!("{seconds:+}s")));
            environment.push(("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()));
            environment.push(("DONT_FAKE_MONOTONIC", "1".to_owned()));
        }
        Host::new(number, role, environment)
    }

    /// Where webhooks are taken at present by one of those who take them, if it does.
    pub(crate) fn door(&self, turn: usize) -> Option<Url> {
        let doors: Vec<&Host> = self.hosts.iter().filter(|host| host.role != Role::Worker).collect();
        doors[turn % doors.len()].door()
    }

    /// Begins a fault.
    pub(crate) async fn strike(&self, fault: Fault) {
        let began = Timestamp::now();
        match fault {
            Fault::Kill(host) => self.hosts[host].kill().await,
            Fault::Freeze(host) => self.hosts[host].freeze().await,
            Fault::Stop(host) => self.hosts[host].stop(self).await,
            Fault::Cut(wire) => self.wires[&wire].cut(),
            Fault::Hold(wire) => self.wires[&wire].hold(),
            Fault::Delay(wire, millis) => self.wires[&wire].delay(Duration::from_millis(millis)),
            Fault::NodeKill(node) => self.nodes[node].lock().await.kill().await,
            Fault::NodeFreeze(node) => self.nodes[node].lock().await.freeze().await,
            Fault::MemoryAlarm(node) => self.watermark(node, "0.00001").await,
            Fault::SessionsEnd => self.site.schema().unwrap().end_sessions().await,
            Fault::LedgerGone(host) => {
                self.ledgers().for_each(Proxy::cut);
                // Long enough for messages to be handed out that can't be recorded.
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.hosts[host].kill().await;
            }
            Fault::BothGone => {
                self.ledgers().for_each(Proxy::cut);
                self.rule("401");
            }
            Fault::Drata(rule) => self.rule(rule),
        }
        self.notes.began(fault, began);
    }

    /// Ends a fault.
    pub(crate) async fn mend(&self, fault: Fault) {
        match fault {
            Fault::Kill(host) | Fault::Stop(host) => self.hosts[host].start(self).await,
            Fault::Freeze(host) => self.hosts[host].thaw().await,
            Fault::Cut(wire) | Fault::Hold(wire) | Fault::Delay(wire, _) => self.wires[&wire].mend(),
            Fault::NodeKill(node) => self.nodes[node].lock().await.start().await,
            Fault::NodeFreeze(node) => self.nodes[node].lock().await.thaw().await,
            Fault::MemoryAlarm(node) => self.watermark(node, "0.4").await,
            Fault::SessionsEnd => {}
            Fault::LedgerGone(host) => {
                self.ledgers().for_each(Proxy::mend);
                self.hosts[host].start(self).await;
            }
            Fault::BothGone => {
                self.ledgers().for_each(Proxy::mend);
                self.no_rule("401");
            }
            Fault::Drata(rule) => self.no_rule(rule),
        }
        self.notes.ended(fault);
    }

    /// From here on Drata does what is asked of it.
    pub(crate) fn calm(&mut self) {
        self.usual = &[];
        self.obey();
    }

    /// Drata follows this rule, too.
    pub(crate) fn rule(&self, rule: &'static str) {
        self.rules.lock().unwrap().push(rule);
        self.obey();
    }

    /// Drata follows this rule no longer.
    pub(crate) fn no_rule(&self, rule: &'static str) {
        self.rules.lock().unwrap().retain(|known| *known != rule);
        self.obey();
    }

    fn obey(&self) {
        let rules = self.rules.lock().unwrap();
        self.site.break_drata(&[self.usual, rules.as_slice()].concat());
    }

    /// The address of RabbitMQ, past every wire.
    pub(crate) async fn broker(&self) -> Option<String> {
        match self.nodes.first() {
            Some(node) => Some(node.lock().await.url()),
            None => None,
        }
    }

    /// What RabbitMQ says of its queues and of who consumes from them.
    pub(crate) async fn queues(&self) -> String {
        let Some(node) = self.nodes.first() else { return String::new() };
        let node = node.lock().await;
        let columns = ["messages_ready", "messages_unacknowledged", "consumers", "leader", "online"];
        let queues = node.control(&[&["-q", "list_queues", "name"], columns.as_slice()].concat()).await;
        let consumers = node.control(&["-q", "list_consumers", "queue_name", "channel_pid", "activity_status"]).await;
        let channels =
            node.control(&["-q", "list_channels", "pid", "messages_unacknowledged", "messages_uncommitted"]).await;
        format!("{queues}{consumers}{channels}")
    }

    fn ledgers(&self) -> impl Iterator<Item = &Proxy> {
        self.wires.iter().filter(|(wire, _)| matches!(wire, Wire::Ledger(_))).map(|(_, proxy)| proxy)
    }

    async fn watermark(&self, node: usize, share: &str) {
        self.nodes[node].lock().await.control(&["set_vm_memory_high_watermark", share]).await;
    }

    /// Starts again what ended by itself: as a service manager would. It is noted, since nothing should.
    pub(crate) async fn watch(&self) {
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        loop {
            tick.tick().await;
            for host in &self.hosts {
                host.look_after(self).await;
            }
        }
    }
}

fn drata_address(site: &Site) -> SocketAddr {
    let url: Url = site.config["drata"]["base_url"].as_str().unwrap().parse().unwrap();
    url.socket_addrs(|| None).unwrap()[0]
}
