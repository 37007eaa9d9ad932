//! Where replays go: to the broker as deliveries that were verified before, or over HTTP as the provider would send them.

use url::Url;

use crate::access::observation;
use crate::broker::SharedBroker;
use crate::delivery::{Delivery, Timestamp};
use crate::provider::{self, Draft, Signer};

/// How many publishes are under way at once: enough for confirms and commits to be shared.
const WINDOW: usize = 128;

/// Where deliveries go.
#[derive(Debug)]
pub enum Destination {
    /// The queue of replays.
    Broker(SharedBroker),
    /// An endpoint that takes webhooks. One after the other: their order is all that tells it what came first, where the
    /// ids hold no time.
    Http {
        /// The source's URL there.
        url: Url,
        /// The client.
        client: reqwest::Client,
        /// Signs anew.
        signer: Box<dyn Signer>,
    },
}

/// What became of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was taken; how it was answered.
    Taken(String),
    /// It will never be; why.
    Refused(String),
    /// Nobody is there.
    Unreachable(String),
}

impl Destination {
    /// How many may be under way at once.
    pub(super) const fn window(&self) -> usize {
        match self {
            Self::Broker(_) => WINDOW,
            Self::Http { .. } => 1,
        }
    }

    pub(super) async fn send(&self, delivery: Delivery) -> Sent {
        match self {
            Self::Broker(broker) => match broker.publish(&delivery).await {
                Ok(()) => Sent::Taken("published".to_owned()),
                Err(error) if error.is_transient() => Sent::Unreachable(error.to_string()),
                Err(error) => Sent::Refused(error.to_string()),
            },
            Self::Http { .. } if observation::is_own(&delivery) => Sent::Refused(
                "a roster's observation is rollcall's own, and nothing that a provider would send".to_owned(),
            ),
            Self::Http { url, client, signer } => post(url, client, signer.as_ref(), &delivery).await,
        }
    }
}

/// Posts it as the provider would, with its own id, signed anew. A form is encoded anew, too; what it holds is the same.
async fn post(url: &Url, client: &reqwest::Client, signer: &dyn Signer, delivery: &Delivery) -> Sent {
    let Some(provider) = provider::find(&delivery.provider) else {
        return Sent::Refused(format!("there is no provider {}", delivery.provider));
    };
    let draft = Draft {
        id: delivery.id.to_string(),
        event: delivery.event.event().to_owned(),
        encoding: provider.encodings.of(&delivery.body),
        json: delivery.json(provider.encodings).into_owned(),
    };
    let signed = match signer.sign(&draft, Timestamp::now()) {
        Ok(signed) => signed,
        Err(error) => return Sent::Refused(format!("it can't be signed: {error}")),
    };
    match client.post(url.clone()).headers(signed.headers).body(signed.body).send().await {
        Err(error) => Sent::Unreachable(format!("{url}: {}", with_causes(&error.without_url()))),
        Ok(answer) if answer.status().is_success() => Sent::Taken(answer.status().to_string()),
        Ok(answer) => Sent::Refused(answer.status().to_string()),
    }
}

/// An error and its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
