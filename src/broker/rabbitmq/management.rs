//! RabbitMQ's management API, as far as the doctor asks it: what AMQP can't tell. It only reads.
//!
//! <https://www.rabbitmq.com/docs/management#http-api>; it wants a user with the tag `management` at least.

use std::time::Duration;

use lapin::uri::AMQPUri;
use reqwest::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use url::Url;

use crate::outbound;

const TIMEOUT: Duration = Duration::from_secs(5);

/// The management API of one RabbitMQ, asked as one user about one virtual host.
pub(super) struct Management {
    http: reqwest::Client,
    base: Url,
    user: String,
    password: String,
    vhost: String,
}

/// An exchange.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Exchange {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) durable: bool,
    pub(super) internal: bool,
}

/// A queue.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Queue {
    pub(super) durable: bool,
    #[serde(default)]
    pub(super) arguments: Map<String, Value>,
    /// What the policy that matches it sets.
    #[serde(default)]
    pub(super) effective_policy_definition: Option<Value>,
}

/// A binding.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Binding {
    pub(super) routing_key: String,
}

/// A node of the cluster.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Node {
    pub(super) name: String,
    #[serde(default)]
    pub(super) running: bool,
    #[serde(default)]
    pub(super) mem_alarm: bool,
    #[serde(default)]
    pub(super) disk_free_alarm: bool,
}

/// Why it didn't tell.
#[derive(Debug)]
pub(super) enum Silence {
    /// It can't be reached, or what answered isn't it.
    Unreachable(String),
    /// The user may not ask.
    Refused,
    /// There is no such thing.
    Missing,
}

impl Management {
    /// The API at `base`, such as `http://127.0.0.1:15672`, asked as the user of the AMQP address.
    pub(super) fn new(base: Url, uri: &AMQPUri) -> Result<Self, String> {
        let http = outbound::builder(&base, TIMEOUT)
            .map_err(|error| error.to_string())
            .and_then(|builder| builder.build().map_err(|error| error.without_url().to_string()))?;
        let info = &uri.authority.userinfo;
        Ok(Self { http, base, user: info.username.clone(), password: info.password.clone(), vhost: uri.vhost.clone() })
    }

    pub(super) async fn exchange(&self, name: &str) -> Result<Exchange, Silence> {
        self.get(&["exchanges", &self.vhost, name]).await
    }

    pub(super) async fn queue(&self, name: &str) -> Result<Queue, Silence> {
        self.get(&["queues", &self.vhost, name]).await
    }

    pub(super) async fn bindings(&self, exchange: &str, queue: &str) -> Result<Vec<Binding>, Silence> {
        self.get(&["bindings", &self.vhost, "e", exchange, "q", queue]).await
    }

    /// Wants the tag `monitoring`.
    pub(super) async fn nodes(&self) -> Result<Vec<Node>, Silence> {
        self.get(&["nodes"]).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Silence> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Silence::Unreachable("its address can't have a path".to_owned()))?
            .pop_if_empty()
            .push("api")
            .extend(path);
        let asked = self.http.get(url).basic_auth(&self.user, Some(&self.password)).send().await;
        let unreachable =
            |error: reqwest::Error| Silence::Unreachable(format!("{:#}", anyhow::Error::from(error.without_url())));
        let answer = asked.map_err(unreachable)?;
        match answer.status() {
            StatusCode::OK => answer.json().await.map_err(unreachable),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Silence::Refused),
            StatusCode::NOT_FOUND => Err(Silence::Missing),
            status => Err(Silence::Unreachable(format!("it answers {status}"))),
        }
    }
}
