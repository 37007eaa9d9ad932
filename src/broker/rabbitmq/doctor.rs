//! The doctor: whether a RabbitMQ is as rollcall needs it, each trouble with its way out.
//!
//! It changes nothing. Over AMQP it sees the version, the limits of a connection, whether exchange and queues are there
//! and (where rollcall declares them itself) of the right shape, and what the user may do: what it tries is taken back in
//! a transaction, or is done only to what exists already. Bindings, policies and alarms are told by the management API
//! alone, so without its address they are *not seen*.

use std::time::Duration;

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use lapin::options::{BasicGetOptions, BasicPublishOptions};
use lapin::protocol::{AMQPClass, AMQPSoftError, connection::AMQPMethod, parse_class};
use lapin::tcp::AMQPUriTcpExt as _;
use lapin::types::AMQPValue;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::time::timeout;
use url::Url;

use super::management::{Management, Silence};
use super::topology::{self, Argument, BINDING, Names, Queue, declare_exchange, declare_queue, queues};
use super::{Settings, address};

/// How long each question may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a part was found. The worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// It couldn't be looked at.
    NotSeen,
    /// It works, but may not for long.
    Warning,
    /// It won't work.
    Wrong,
    /// It can't be reached.
    Unreachable,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The part, such as `queue rollcall.work`.
    pub part: String,
    /// How it is.
    pub grade: Grade,
    /// What is so.
    pub what: String,
    /// The way out, if it isn't well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, part: &str, what: impl Into<String>) {
        self.0.push(Finding { part: part.to_owned(), grade: Grade::Ok, what: what.into(), fix: None });
    }

    fn add(&mut self, part: &str, grade: Grade, what: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Finding { part: part.to_owned(), grade, what: what.into(), fix: Some(fix.into()) });
    }
}

/// Examines the RabbitMQ of those settings, and its management API if an address is given.
pub async fn examine(settings: &Settings, management: Option<Url>) -> Vec<Finding> {
    let mut findings = Findings::default();
    let (uri, names) = match (address(&settings.url), Names::new(&settings.prefix)) {
        (Ok(uri), Ok(names)) => (uri, names),
        (Err(error), _) => {
            findings.add("configuration", Grade::Wrong, error.to_string(), "correct broker.url");
            return findings.0;
        }
        (_, Err(error)) => {
            findings.add("configuration", Grade::Wrong, error, "correct broker.prefix");
            return findings.0;
        }
    };
    let connecting = Connection::connect_uri(uri.clone(), ConnectionProperties::default());
    let connection = match timeout(PATIENCE, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            let fix = "is it running, and are host, port, user, password and virtual host of broker.url right?";
            findings.add("server", Grade::Unreachable, topology::explain(&error), fix);
            return findings.0;
        }
        Err(_) => {
            findings.add("server", Grade::Unreachable, "it didn't answer", "is broker.url the address of RabbitMQ?");
            return findings.0;
        }
    };
    match timeout(PATIENCE, greeting(&uri)).await.unwrap_or(Err("it didn't answer".to_owned())) {
        Ok(server) => version(&server, settings, &mut findings),
        Err(why) => findings.add("server", Grade::NotSeen, format!("its version can't be read: {why}"), "try again"),
    }
    limits(&connection, settings, &mut findings);
    let doctor =
        Doctor { connection, settings, names: &names, user: &uri.authority.userinfo.username, vhost: &uri.vhost };
    if timeout(PATIENCE, doctor.objects(&mut findings)).await.is_err() {
        findings.add("server", Grade::Unreachable, "it stopped answering", "look into its log");
    }
    // What was found out doesn't depend on a polite goodbye.
    drop(timeout(PATIENCE, doctor.connection.close(200, "OK".into())).await);
    match management.map(|base| Management::new(base, &uri)) {
        None => findings.add(
            "binding, policies, alarms",
            Grade::NotSeen,
            "only the management API tells them",
            "--management http://HOST:15672",
        ),
        Some(Err(why)) => findings.add("management API", Grade::Unreachable, why, "correct --management"),
        Some(Ok(management)) => told(&management, settings, &names, &mut findings).await,
    }
    findings.0
}

/// What a server says of itself when somebody connects.
#[derive(Debug)]
struct Server {
    product: String,
    version: String,
}

/// Reads the server's greeting, and hangs up. The AMQP library keeps it to itself.
async fn greeting(uri: &AMQPUri) -> Result<Server, String> {
    let told = |error: std::io::Error| error.to_string();
    let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
    let mut stream = uri.connect_async(&runtime).await.map_err(told)?;
    stream.write_all(b"AMQP\0\0\x09\x01").await.map_err(told)?;
    stream.flush().await.map_err(told)?;
    // A frame: its kind, channel and length; what it says (a greeting is about 500 bytes); its end.
    let mut head = [0; 7];
    stream.read_exact(&mut head).await.map_err(told)?;
    let [1, 0, 0, 0, 0, high, low] = head else {
        return Err("it doesn't greet as AMQP 0-9-1 says".to_owned());
    };
    let mut said = vec![0; u16::from_be_bytes([high, low]).into()];
    stream.read_exact(&mut said).await.map_err(told)?;
    let Ok((_, AMQPClass::Connection(AMQPMethod::Start(start)))) = parse_class(said.as_slice()) else {
        return Err("it doesn't greet as AMQP 0-9-1 says".to_owned());
    };
    let text = |name: &str| match start.server_properties.inner().get(name) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        _ => String::new(),
    };
    Ok(Server { product: text("product"), version: text("version") })
}

/// A version as a number that can be compared; what comes after three numbers is left out.
fn number(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(['.', '-', '+']).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

const MIB: usize = 1024 * 1024;

fn version(server: &Server, settings: &Settings, findings: &mut Findings) {
    let Server { product, version } = server;
    let name = format!("{product} {version}");
    if product != "RabbitMQ" {
        let fix = "use RabbitMQ: rollcall counts on its quorum queues, confirms and returns";
        findings.add("server", Grade::Warning, format!("{name} isn't RabbitMQ"), fix);
        return;
    }
    let Some(number) = number(version) else {
        findings.add(
            "server",
            Grade::Warning,
            format!("the version of {name} can't be read"),
            "3.10 or later is needed",
        );
        return;
    };
    if number < (3, 10, 0) {
        let what = format!("{name} can't dead-letter at least once, so a message it gives up on could be lost");
        findings.add("server", Grade::Wrong, what, "upgrade to RabbitMQ 3.10 or later");
    } else if number == (4, 2, 4) {
        // https://github.com/rabbitmq/rabbitmq-server/issues/16652
        let what = format!("{name} can strand messages that it gives up on when the members of a cluster change");
        findings.add("server", Grade::Warning, what, "upgrade beyond 4.2.4");
    } else {
        findings.ok("server", name);
    }
    // https://www.rabbitmq.com/docs/configure: max_message_size was 128 MiB by default before 4.0.
    let default = if number >= (4, 0, 0) { 16 * MIB } else { 128 * MIB };
    if settings.max_message > default {
        let what = format!(
            "broker.max_message is {} bytes, and this version takes {default} by default",
            settings.max_message
        );
        let fix =
            format!("set max_message_size = {} in rabbitmq.conf, or lower broker.max_message", settings.max_message);
        findings.add("largest message", Grade::Warning, what, fix);
    }
}

fn limits(connection: &Connection, settings: &Settings, findings: &mut Findings) {
    let most = connection.configuration().channel_max();
    // One more for declarations; a consuming connection needs four besides.
    let needed = (settings.channels + 1).max(5);
    if most != 0 && most < needed {
        let what = format!("a connection may have {most} channels, and {needed} are needed");
        findings.add("channels", Grade::Wrong, what, format!("set channel_max = {needed} or more in rabbitmq.conf"));
    }
}

/// Looks at exchange and queues over AMQP.
struct Doctor<'a> {
    connection: Connection,
    settings: &'a Settings,
    names: &'a Names,
    user: &'a str,
    vhost: &'a str,
}

impl Doctor<'_> {
    async fn objects(&self, findings: &mut Findings) {
        let declares = self.settings.declare;
        let mut rights = Rights::default();
        let part = format!("exchange {}", self.names.exchange);
        let exchange = self.names.exchange.clone();
        if self.exists(&part, self.try_exchange(true).await, findings) {
            let shape = if declares { self.try_exchange(false).await } else { Ok(()) };
            if self.shaped(&part, "exchange", exchange.as_str(), shape, findings) {
                match self.try_publishing().await {
                    Ok(()) => {
                        rights.publishes = true;
                        findings.ok(&part, "is there, and this user may publish to it");
                    }
                    Err(error) => {
                        rights.not_publishing.push(findings.0.len());
                        self.denied(&part, "publish to it", &error, findings);
                    }
                }
            }
        }
        for queue in queues(self.names, self.settings.delivery_limit) {
            let part = format!("queue {}", queue.name);
            let found = self.try_queue(&queue, true).await;
            let (messages, consumers) =
                found.as_ref().map_or((0, 0), |queue| (queue.message_count(), queue.consumer_count()));
            if !self.exists(&part, found.map(|_| ()), findings) {
                continue;
            }
            let shape = if declares { self.try_queue(&queue, false).await.map(|_| ()) } else { Ok(()) };
            if !self.shaped(&part, "queue", queue.name.as_str(), shape, findings) {
                continue;
            }
            // Whether the user may read is tried on an empty queue only: there is nothing to be taken from anybody.
            let readable = if messages == 0 { self.try_getting(&queue).await } else { Ok(()) };
            rights.consumes |= messages == 0 && readable.is_ok();
            match readable {
                Err(error) => {
                    rights.not_consuming.push(findings.0.len());
                    self.denied(&part, "consume from it", &error, findings);
                }
                Ok(()) if messages > 0 && consumers == 0 => {
                    let what = format!("{messages} messages wait, and nobody consumes them");
                    findings.add(&part, Grade::Warning, what, "start a worker: rollcall serve --role worker");
                }
                Ok(()) => findings.ok(&part, format!("is there; {messages} messages, {consumers} consumers")),
            }
        }
        rights.of_one_role(findings);
    }

    async fn try_exchange(&self, passive: bool) -> lapin::Result<()> {
        declare_exchange(&self.connection.create_channel().await?, &self.names.exchange, passive).await
    }

    async fn try_queue(&self, queue: &Queue, passive: bool) -> lapin::Result<lapin::Queue> {
        declare_queue(&self.connection.create_channel().await?, queue, passive).await
    }

    /// Publishes in a transaction that is rolled back: RabbitMQ asks for the permission when the message comes.
    async fn try_publishing(&self) -> lapin::Result<()> {
        let channel = self.connection.create_channel().await?;
        channel.tx_select().await?;
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let confirm = channel
            .basic_publish(self.names.exchange.clone(), "rollcall.topology".into(), options, b"", properties)
            .await?;
        channel.tx_rollback().await?;
        drop(confirm);
        channel.close(200, "OK".into()).await
    }

    async fn try_getting(&self, queue: &Queue) -> lapin::Result<()> {
        let channel = self.connection.create_channel().await?;
        drop(channel.basic_get(queue.name.clone(), BasicGetOptions::default()).await?);
        channel.close(200, "OK".into()).await
    }

    fn exists(&self, part: &str, found: lapin::Result<()>, findings: &mut Findings) -> bool {
        match found {
            Ok(()) => return true,
            Err(error) if topology::soft(&error) != Some(AMQPSoftError::NOTFOUND) => {
                self.denied(part, "look at it", &error, findings);
            }
            Err(_) if self.settings.declare => findings.ok(part, "isn't there yet; serve declares it"),
            Err(_) => findings.add(
                part,
                Grade::Wrong,
                "isn't there, and broker.declare is false",
                "import what `rollcall topology --format definitions` prints, or set broker.declare = true",
            ),
        }
        false
    }

    fn shaped(&self, part: &str, what: &str, name: &str, shape: lapin::Result<()>, findings: &mut Findings) -> bool {
        let Err(error) = shape else { return true };
        if topology::soft(&error) == Some(AMQPSoftError::PRECONDITIONFAILED) {
            let said = topology::explain(&error);
            let argument = said.split('\'').nth(1).unwrap_or("shape").to_owned();
            let fix = if what == "queue" {
                format!(
                    "let the workers empty it, stop serve, run `rabbitmqctl delete_queue -p '{}' {name}`, and start \
                     serve again; or set broker.declare = false to use it as it is",
                    self.vhost
                )
            } else {
                "delete it in RabbitMQ's management, and start serve again; or choose another broker.prefix".to_owned()
            };
            findings.add(part, Grade::Wrong, format!("has another {argument} ({said})"), fix);
        } else {
            self.denied(part, "declare it", &error, findings);
        }
        false
    }

    fn denied(&self, part: &str, act: &str, error: &lapin::Error, findings: &mut Findings) {
        let said = topology::explain(error);
        if topology::soft(error) == Some(AMQPSoftError::ACCESSREFUSED) {
            let prefix = self.settings.prefix.replace('.', "\\.");
            let fix = format!(
                "rabbitmqctl set_permissions -p '{}' '{}' '^{prefix}\\.' '^({prefix}\\.|amq\\.default$)' '^{prefix}\\.'",
                self.vhost, self.user
            );
            findings.add(part, Grade::Wrong, format!("the user {} may not {act} ({said})", self.user), fix);
        } else {
            findings.add(part, Grade::Wrong, format!("can't {act}: {said}"), "look into RabbitMQ's log");
        }
    }
}

/// What the user may do. An ingress needs to publish alone, and a worker to consume.
#[derive(Debug, Default)]
struct Rights {
    publishes: bool,
    consumes: bool,
    /// The findings that say that it may not publish.
    not_publishing: Vec<usize>,
    /// The findings that say that it may not consume.
    not_consuming: Vec<usize>,
}

impl Rights {
    /// What one role doesn't need is no fault of a user of the other's.
    fn of_one_role(self, findings: &mut Findings) {
        let (missing, enough) = match (self.not_publishing.is_empty(), self.not_consuming.is_empty()) {
            (false, true) if self.consumes => (self.not_publishing, "enough for a worker, and not for an ingress"),
            (true, false) if self.publishes => (self.not_consuming, "enough for an ingress, and not for a worker"),
            _ => return,
        };
        for finding in
            findings.0.iter_mut().enumerate().filter(|(n, _)| missing.contains(n)).map(|(_, finding)| finding)
        {
            finding.grade = Grade::Warning;
            finding.what.push_str("; that is ");
            finding.what.push_str(enough);
        }
    }
}

/// What the management API tells.
async fn told(management: &Management, settings: &Settings, names: &Names, findings: &mut Findings) {
    match management.nodes().await {
        Ok(nodes) => {
            let mut well = true;
            for node in &nodes {
                let part = format!("node {}", node.name);
                let trouble = match node {
                    _ if !node.running => Some(("isn't running", "start it: quorum queues need most of their members")),
                    _ if node.mem_alarm => {
                        Some(("has a memory alarm, so publishing is blocked", "give it more memory"))
                    }
                    _ if node.disk_free_alarm => Some(("has a disk alarm, so publishing is blocked", "free its disk")),
                    _ => None,
                };
                if let Some((what, fix)) = trouble {
                    well = false;
                    findings.add(&part, Grade::Wrong, what, fix);
                }
            }
            if well {
                let s = if nodes.len() == 1 { "" } else { "s" };
                findings.ok("nodes", format!("{} node{s}, no alarm", nodes.len()));
            }
        }
        Err(Silence::Unreachable(why)) => {
            findings.add("management API", Grade::Unreachable, why, "is --management right, and the plugin enabled?");
            return;
        }
        Err(_) => {
            findings.add("nodes", Grade::NotSeen, "this user may not ask for alarms", "give it the tag monitoring")
        }
    }
    let part = format!("exchange {}", names.exchange);
    match management.exchange(names.exchange.as_str()).await {
        Ok(exchange) if exchange.kind != "topic" || !exchange.durable || exchange.internal => findings.add(
            &part,
            Grade::Wrong,
            format!("is of type {}, {}", exchange.kind, if exchange.durable { "durable" } else { "not durable" }),
            "replace it by a durable topic exchange that isn't internal",
        ),
        Err(Silence::Refused) => return refused(findings),
        // What isn't there has been said.
        Ok(_) | Err(_) => {}
    }
    for queue in queues(names, settings.delivery_limit) {
        let part = format!("queue {}", queue.name);
        let Ok(found) = management.queue(queue.name.as_str()).await else { continue };
        if !found.durable {
            findings.add(&part, Grade::Wrong, "isn't durable", "replace it by a durable one");
        }
        let policy = found.effective_policy_definition.as_ref();
        for (name, wanted) in &queue.arguments {
            // An argument counts for more than a policy, except that of two limits the lower one does.
            let is = found
                .arguments
                .get(&format!("x-{name}"))
                .or_else(|| policy.and_then(|policy| policy.get(name)))
                .cloned();
            let enough = match (&is, wanted) {
                (Some(is), Argument::Number(least)) => is.as_i64().is_some_and(|is| is >= *least),
                (Some(is), Argument::Text(text)) => is == text.as_str(),
                (None, _) => false,
            };
            if !enough {
                let is = is.map_or_else(|| "isn't set".to_owned(), |is| format!("is {is}"));
                let wanted = serde_json::to_string(wanted).unwrap_or_default();
                let fix = format!("set it to {wanted} by a policy; `rollcall topology --format policies` prints one");
                findings.add(&part, weight(name), format!("{name} {is}"), fix);
            }
        }
    }
    let part = "binding";
    match management.bindings(names.exchange.as_str(), names.work.as_str()).await {
        Ok(bindings) if bindings.iter().any(|binding| binding.routing_key == BINDING) => {
            findings.ok(part, format!("{} gets everything from {}", names.work, names.exchange));
        }
        Err(Silence::Refused) => refused(findings),
        Err(Silence::Missing) if settings.declare => {}
        _ if settings.declare => findings.add(
            part,
            Grade::Warning,
            format!("{} isn't bound to {} by {BINDING}", names.work, names.exchange),
            "start serve: it binds at every connect",
        ),
        _ => findings.add(
            part,
            Grade::Wrong,
            format!("{} isn't bound to {} by {BINDING}, so deliveries are refused", names.work, names.exchange),
            "bind it, or import what `rollcall topology --format definitions` prints",
        ),
    }
}

/// How bad it is if an argument differs.
fn weight(argument: &str) -> Grade {
    match argument {
        // Another type, or dead letters that can be lost, break a promise; a low limit parks early.
        "delivery-limit" => Grade::Warning,
        _ => Grade::Wrong,
    }
}

fn refused(findings: &mut Findings) {
    let what = "this user may not ask for them";
    findings.add("binding, policies", Grade::NotSeen, what, "give it the tag management");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(version_is: &str, max_message: usize) -> Vec<(String, Grade)> {
        let mut findings = Findings::default();
        let server = Server { product: "RabbitMQ".to_owned(), version: version_is.to_owned() };
        version(&server, &Settings { max_message, ..Settings::new("amqp://host".into()) }, &mut findings);
        findings.0.into_iter().map(|finding| (finding.part, finding.grade)).collect()
    }

    #[test]
    fn versions_are_judged_by_what_they_do() {
        let server = |grade| vec![("server".to_owned(), grade)];
        assert_eq!(found("3.9.29", 16 * MIB), server(Grade::Wrong));
        assert_eq!(found("3.10.8", 100 * MIB), server(Grade::Ok));
        assert_eq!(found("4.2.4", 16 * MIB), server(Grade::Warning));
        assert_eq!(found("4.3.0-rc.1", 16 * MIB), server(Grade::Ok));
        assert_eq!(found("4.0.2", 16 * MIB + 1)[1], ("largest message".to_owned(), Grade::Warning));
        assert_eq!(found("unknown", 16 * MIB), server(Grade::Warning));
    }
}
