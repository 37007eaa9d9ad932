//! What has to exist in RabbitMQ, written for those who own it: the file that `rabbitmqctl import_definitions` and the
//! management API read (<https://www.rabbitmq.com/docs/definitions>). Derived from [`super::topology`], which declares
//! the same.

use serde_json::{Map, Value, json};

use super::topology::{BINDING, Names, Queue, TYPE, queues};
use super::{Settings, SettingsError, address};

/// Where the limits of the queues are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Arguments of the queues, as rollcall declares them itself. They can't be changed later.
    Arguments,
    /// A policy for each queue, which can be changed later. It asks for `broker.declare = false`.
    Policies,
}

/// The definitions of exchange, queues and binding in the virtual host of the settings' URL.
///
/// # Errors
/// If the URL or the prefix can't be used.
pub fn definitions(settings: &Settings, limits: Limits) -> Result<Value, SettingsError> {
    let vhost = address(&settings.url)?.vhost;
    let names = Names::new(&settings.prefix).map_err(SettingsError)?;
    let queues = queues(&names, settings.delivery_limit);
    let in_arguments = |name: &str| limits == Limits::Arguments || name == TYPE;
    let mut definitions = json!({
        "exchanges": [{
            "name": names.exchange.as_str(), "vhost": vhost, "type": "topic",
            "durable": true, "auto_delete": false, "internal": false, "arguments": {},
        }],
        "queues": queues.iter().map(|queue| json!({
            "name": queue.name.as_str(), "vhost": vhost, "durable": true, "auto_delete": false,
            "arguments": some(queue, "x-", in_arguments),
        })).collect::<Vec<_>>(),
        "bindings": [{
            "source": names.exchange.as_str(), "vhost": vhost, "destination": names.work.as_str(),
            "destination_type": "queue", "routing_key": BINDING, "arguments": {},
        }],
    });
    if limits == Limits::Policies {
        let policy = |queue: &Queue| {
            json!({
                "name": queue.name.as_str(), "vhost": vhost, "apply-to": "queues", "priority": PRIORITY,
                "pattern": format!("^{}$", queue.name.as_str().replace('.', "\\.")),
                "definition": some(queue, "", |name| !in_arguments(name)),
            })
        };
        definitions["policies"] = queues.iter().map(policy).collect();
    }
    Ok(definitions)
}

/// Of several policies that match a queue only the one of the highest priority counts; those for all queues have 0 or 1.
const PRIORITY: u8 = 10;

fn some(queue: &Queue, before: &str, wanted: impl Fn(&str) -> bool) -> Map<String, Value> {
    let wanted = queue.arguments.iter().filter(|(name, _)| wanted(name));
    wanted.map(|(name, value)| (format!("{before}{name}"), json!(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_or_policies_hold_the_same_limits() {
        let settings = Settings::new("amqp://guest:hunter2@127.0.0.1:5672/ci".into());
        let arguments = definitions(&settings, Limits::Arguments).unwrap();
        let policies = definitions(&settings, Limits::Policies).unwrap();
        assert!(arguments.get("policies").is_none());
        assert_eq!(policies["queues"][1]["arguments"], json!({ "x-queue-type": "quorum" }));
        assert_eq!(policies["policies"][1]["pattern"], r"^rollcall\.work$");
        assert_eq!(arguments["bindings"][0]["vhost"], "ci");
        for (name, value) in arguments["queues"][1]["arguments"].as_object().unwrap() {
            if name != "x-queue-type" {
                assert_eq!(&policies["policies"][1]["definition"][name.trim_start_matches("x-")], value, "{name}");
            }
        }
    }
}
