//! RabbitMQ for tests: one from the environment, else one already running, else a private one.
//!
//! Each test has names of its own and removes what bears them. Tests that harm the broker start a [`Node`] of their own.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lapin::options::{ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::process::signal;
use super::{soon, until};

const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CONTROL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
const LOCAL: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

/// The address of a broker that tests share and must not harm.
pub(crate) async fn url() -> String {
    static SHARED: OnceCell<(String, Option<Node>)> = OnceCell::const_new();
    let (url, _) = SHARED
        .get_or_init(|| async {
            if let Some(url) = url_from_environment() {
                return (url, None);
            }
            if answers(LOCAL).await {
                return (LOCAL.to_owned(), None);
            }
            let mut node = Node::new();
            node.start().await;
            (node.url(), Some(node))
        })
        .await;
    url.clone()
}

#[expect(clippy::disallowed_methods, reason = "the harness is where tests learn about their surroundings")]
fn url_from_environment() -> Option<String> {
    std::env::var("ROLLCALL_TEST_AMQP_URL").ok()
}

async fn answers(url: &str) -> bool {
    match tokio::time::timeout(Duration::from_secs(2), Connection::connect(url, ConnectionProperties::default())).await
    {
        Ok(Ok(connection)) => connection.close(200, "OK".into()).await.is_ok(),
        _ => false,
    }
}

/// A connection of the test's own, and a channel on it.
pub(crate) struct Side {
    pub(crate) connection: Connection,
    pub(crate) channel: Channel,
}

impl Side {
    pub(crate) async fn open(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self { connection, channel }
    }

    /// How many messages wait in a queue.
    pub(crate) async fn depth(&self, queue: &str) -> u32 {
        self.queue(queue).await.message_count()
    }

    /// How many consumers a queue has.
    pub(crate) async fn consumers(&self, queue: &str) -> u32 {
        self.queue(queue).await.consumer_count()
    }

    async fn queue(&self, queue: &str) -> lapin::Queue {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap()
    }

    pub(crate) async fn close(self) {
        self.connection.close(200, "OK".into()).await.unwrap();
    }
}

/// Names that no other test uses. Dropping them removes the exchange and the queues that bear them.
pub(crate) struct Names {
    pub(crate) url: String,
    pub(crate) prefix: String,
}

impl Names {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), prefix: format!("test-{:016x}", fastrand::u64(..)) }
    }

    pub(crate) fn exchange(&self) -> String {
        format!("{}.deliveries", self.prefix)
    }

    pub(crate) fn work(&self) -> String {
        format!("{}.work", self.prefix)
    }

    pub(crate) fn parked(&self) -> String {
        format!("{}.parked", self.prefix)
    }

    pub(crate) fn replays(&self) -> String {
        format!("{}.replays", self.prefix)
    }

    async fn remove(url: String, exchange: String, queues: [String; 3]) {
        let Ok(connection) = Connection::connect(&url, ConnectionProperties::default()).await else { return };
        if let Ok(channel) = connection.create_channel().await {
            let _ = channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
            for queue in queues {
                let _ = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
            }
        }
        let _ = connection.close(200, "OK".into()).await;
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        let remove = Self::remove(self.url.clone(), self.exchange(), [self.work(), self.replays(), self.parked()]);
        // A failed test cleans up too, and there is no awaiting while it unwinds.
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), remove).await });
        });
        let _ = thread.join();
    }
}

/// A RabbitMQ of the test's own, in a folder of its own. It ends with the test, or with the whole process.
pub(crate) struct Node {
    folder: TempDir,
    port: u16,
    distribution_port: u16,
    management_port: Option<u16>,
    guard: Option<Child>,
}

impl Node {
    /// Chooses ports and prepares the folder; starts nothing.
    pub(crate) fn new() -> Self {
        assert!(
            Path::new(SERVER).exists(),
            "no RabbitMQ for the tests: set ROLLCALL_TEST_AMQP_URL, or start one on 127.0.0.1:5672, \
             or install rabbitmq-server"
        );
        let folder = tempfile::Builder::new().prefix("rollcall-rabbitmq-").tempdir().unwrap();
        std::fs::write(folder.path().join("plugins"), "[].\n").unwrap();
        std::fs::write(folder.path().join("rabbitmq.conf"), "loopback_users.guest = true\n").unwrap();
        std::fs::write(folder.path().join("rabbitmq-env.conf"), "").unwrap();
        let mut cookie = std::fs::OpenOptions::new();
        let mut cookie =
            cookie.create(true).write(true).mode(0o600).open(folder.path().join(".erlang.cookie")).unwrap();
        write!(cookie, "{:016x}", fastrand::u64(..)).unwrap();
        Self { folder, port: free_port(), distribution_port: free_port(), management_port: None, guard: None }
    }

    /// Another one that can form a cluster with this one.
    fn peer(&self) -> Self {
        let peer = Self::new();
        let cookie = |node: &Self| node.folder.path().join(".erlang.cookie");
        std::fs::copy(cookie(self), cookie(&peer)).unwrap();
        peer
    }

    /// A cluster of so many, started. A node that loses sight of most of the others stands still until it sees them.
    pub(crate) async fn cluster(size: usize) -> Vec<Self> {
        let mut nodes = vec![Self::new()];
        nodes.extend((1..size).map(|_| nodes[0].peer()).collect::<Vec<_>>());
        for node in &mut nodes {
            node.configure("cluster_partition_handling = pause_minority\n");
            node.start().await;
        }
        for node in &nodes[1..] {
            node.control(&["stop_app"]).await;
            node.control(&["join_cluster", &nodes[0].name()]).await;
            node.control(&["start_app"]).await;
        }
        nodes
    }

    /// Adds lines to its configuration. Before it is started.
    pub(crate) fn configure(&self, lines: &str) {
        let mut configuration = std::fs::OpenOptions::new();
        let mut configuration = configuration.append(true).open(self.folder.path().join("rabbitmq.conf")).unwrap();
        configuration.write_all(lines.as_bytes()).unwrap();
    }

    /// The same with the management API.
    pub(crate) fn with_management() -> Self {
        let port = free_port();
        let mut node = Self::new();
        node.management_port = Some(port);
        std::fs::write(node.folder.path().join("plugins"), "[rabbitmq_management].\n").unwrap();
        let listen = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n");
        node.configure(&listen);
        node
    }

    fn name(&self) -> String {
        format!("rollcall-{}@localhost", self.port)
    }

    /// The address of the management API.
    pub(crate) fn management(&self) -> String {
        format!("http://127.0.0.1:{}", self.management_port.expect("a node with management"))
    }

    /// Where it takes connections.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(&mut self) {
        let url = self.url();
        self.start_for(&url).await;
    }

    /// Starts it and waits until it answers a user of its own.
    pub(crate) async fn start_for(&mut self, url: &str) {
        // The shell waits for its standard input to end, which it does with this process, however that ends.
        const GUARDED: &str =
            r#""$0" </dev/null >>"$HOME/out" 2>&1 & read -r _; kill -9 "$(cat "$RABBITMQ_PID_FILE")" "#;
        let _ = std::fs::remove_file(self.pid_file());
        let mut command = self.command("/bin/sh");
        command.args(["-c", GUARDED, SERVER]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.guard = Some(command.spawn().unwrap());
        until("the private RabbitMQ answers", || answers(url)).await;
    }

    /// Kills it as a power cut would.
    pub(crate) async fn kill(&mut self) {
        let mut guard = self.guard.take().expect("a node that runs");
        drop(guard.stdin.take());
        soon("the end of the node", tokio::task::spawn_blocking(move || guard.wait())).await.unwrap().unwrap();
    }

    /// Stops it in the middle of whatever it does: to the others it is as if the network had lost it.
    pub(crate) async fn freeze(&self) {
        signal(self.process(), "STOP").await;
    }

    /// Lets it go on where it was frozen.
    pub(crate) async fn thaw(&self) {
        signal(self.process(), "CONT").await;
    }

    fn process(&self) -> u32 {
        std::fs::read_to_string(self.pid_file()).unwrap().trim().parse().unwrap()
    }

    /// Runs `rabbitmqctl`, and returns what it says.
    pub(crate) async fn control(&self, arguments: &[&str]) -> String {
        let mut command = self.command(CONTROL);
        command.args(arguments);
        let output = soon("rabbitmqctl", tokio::process::Command::from(command).output()).await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.path().join("pid")
    }

    fn command(&self, program: &str) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(program);
        command
            .current_dir(folder)
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", self.name())
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_PID_FILE", self.pid_file())
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("rabbitmq-env.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} net_ticktime 8 +S 2",
            );
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
