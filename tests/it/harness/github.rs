//! GitHub's side: things happen to accounts in an organisation, and GitHub posts a signed delivery for each.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use rollcall::delivery::{DeliveryId, Encoding, SecretName, Timestamp};
use rollcall::outbound;
use rollcall::provider::{self, Draft, Invention, Secret, Signer, SourceSettings};
use url::Url;
use uuid::Uuid;

/// The secret that GitHub and the source share.
pub(crate) const SECRET: &str = "not a secret, only a test's";

/// The organisation in which everything happens.
pub(crate) const ORGANIZATION: (&str, &str) = ("acme", "4201");

/// An invented account, by its number: everything about it follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Account(pub(crate) i64);

impl Posted {
    /// The same with other bytes under the same signature.
    pub(crate) fn forged(mut self) -> Self {
        let mut body = self.body.to_vec();
        body.insert(1, b' ');
        self.body = body.into();
        self
    }

    /// The event, without its action, and the action, if it has one.
    pub(crate) fn event(&self) -> (String, Option<String>) {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        let event = self.headers["x-github-event"].to_str().unwrap().to_owned();
        (event, body["action"].as_str().map(str::to_owned))
    }

    /// Posts it. None if there was no answer.
    pub(crate) async fn post(&self, http: &reqwest::Client, to: &Url) -> Option<reqwest::Response> {
        http.post(to.clone()).headers(self.headers.clone()).body(self.body.clone()).send().await.ok()
    }

    /// Its head and body, as they go over the wire.
    pub(crate) fn wire(&self, to: &Url) -> (String, Bytes) {
        let mut head = format!("POST {} HTTP/1.1\r\nhost: test\r\n", to.path());
        for (name, value) in &self.headers {
            writeln!(head, "{name}: {}\r", value.to_str().unwrap()).unwrap();
        }
        write!(head, "content-length: {}\r\n\r\n", self.body.len()).unwrap();
        (head, self.body.clone())
    }
}

impl Account {
    pub(crate) fn login(self) -> String {
        format!("dev-{}", self.0)
    }

    /// GitHub's id of it.
    pub(crate) fn id(self) -> String {
        (2000 + self.0).to_string()
    }

    /// Drata's row for it.
    pub(crate) const fn identity(self) -> i64 {
        9000 + self.0
    }

    /// The person whose account it is.
    pub(crate) const fn person(self) -> i64 {
        500 + self.0
    }

    /// That person's e-mail address.
    pub(crate) fn email(self) -> String {
        format!("{}@acme.example", self.login())
    }
}

/// A delivery that can be posted, as often as one likes.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) id: DeliveryId,
    pub(crate) account: Account,
    /// Whether the account has access after it.
    pub(crate) joined: bool,
    headers: HeaderMap,
    body: Bytes,
}

impl Posted {
    /// Lets go of the body, which is large and was posted.
    pub(crate) fn forget_body(&mut self) {
        self.body = Bytes::new();
    }
}

/// What GitHub was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
}

/// Something that happened, as GitHub tells it.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Its place in all that happens: a second after the one before.
    pub(crate) number: u64,
    /// The event and action: `organization.member_added`.
    pub(crate) name: &'static str,
    /// To whom; for what befalls a team or repository as a whole, somebody.
    pub(crate) account: Account,
    /// The login that the account has by then.
    pub(crate) login: String,
    /// The name and id of the organisation.
    pub(crate) root: (String, String),
    /// The name and id of the team or repository, where the event has one.
    pub(crate) part: Option<(String, String)>,
}

/// GitHub. Its clock moves by a second with everything that happens, and stays behind ours.
pub(crate) struct GitHub {
    signer: Box<dyn Signer>,
    http: reqwest::Client,
    began: Timestamp,
    happened: AtomicU64,
}

impl GitHub {
    pub(crate) fn new() -> Self {
        Self::since(Duration::from_secs(3_600))
    }

    /// The same, where the first thing happened that long ago.
    pub(crate) fn since(ago: Duration) -> Self {
        let settings = SourceSettings {
            name: "acme-github".parse().unwrap(),
            host: "github.com".to_owned(),
            roots: Vec::new(),
            sightings: false,
            verify: None,
            header: None,
            own: toml::Table::new(),
        };
        let secret = Secret { name: SecretName("test".into()), value: SECRET.into() };
        let anywhere = "http://127.0.0.1/".parse().unwrap();
        Self {
            signer: (provider::find("github").unwrap().signer)(&settings, secret).unwrap(),
            http: outbound::builder(&anywhere, Duration::from_secs(10)).unwrap().build().unwrap(),
            began: Timestamp::now().plus_micros(-i64::try_from(ago.as_micros()).unwrap()),
            happened: AtomicU64::new(0),
        }
    }

    /// Somebody joins the organisation.
    pub(crate) fn join(&self, account: Account) -> Posted {
        self.happens(account, true)
    }

    /// Somebody leaves it.
    pub(crate) fn leave(&self, account: Account) -> Posted {
        self.happens(account, false)
    }

    fn happens(&self, account: Account, joined: bool) -> Posted {
        let (root, root_id) = ORGANIZATION;
        self.tell(&Event {
            number: self.happened.fetch_add(1, Ordering::Relaxed),
            name: if joined { "organization.member_added" } else { "organization.member_removed" },
            account,
            login: account.login(),
            root: (root.to_owned(), root_id.to_owned()),
            part: None,
        })
    }

    /// The delivery that tells of something.
    pub(crate) fn tell(&self, event: &Event) -> Posted {
        let at = self.began.plus(Duration::from_secs(event.number));
        let (part, part_id) = event.part.clone().unzip();
        let draft = self.signer.invent(&Invention {
            id: Some(time_based(at, event.number).to_string()),
            event: event.name.to_owned(),
            login: event.login.clone(),
            account_id: event.account.id(),
            root: event.root.0.clone(),
            root_id: event.root.1.clone(),
            part,
            part_id,
        });
        let draft = draft.unwrap();
        let request = self.signer.sign(&draft, at).unwrap();
        Posted {
            id: draft.id.parse().unwrap(),
            account: event.account,
            joined: event.name == "organization.member_added",
            headers: request.headers,
            body: request.body.into(),
        }
    }

    /// Somebody joins, in a body of about so many bytes that compresses to next to nothing.
    pub(crate) fn padded_join(&self, account: Account, bytes: usize) -> Posted {
        let (root, root_id) = ORGANIZATION;
        let number = self.happened.fetch_add(1, Ordering::Relaxed);
        let at = self.began.plus(Duration::from_secs(number));
        let draft = self.signer.invent(&Invention {
            id: Some(time_based(at, number).to_string()),
            event: "organization.member_added".to_owned(),
            login: account.login(),
            account_id: account.id(),
            root: root.to_owned(),
            root_id: root_id.to_owned(),
            part: None,
            part_id: None,
        });
        let mut draft = draft.unwrap();
        let padding = format!("{{\"padding\":\"{}\",", "a".repeat(bytes));
        draft.json.splice(..1, padding.into_bytes());
        let request = self.signer.sign(&draft, at).unwrap();
        let (headers, body) = (request.headers, request.body.into());
        Posted { id: draft.id.parse().unwrap(), account, joined: true, headers, body }
    }

    /// A push of about that many bytes that LZ4 can't compress, which looks back 64 KiB: it tells nothing about access.
    pub(crate) fn large(&self, bytes: usize) -> Posted {
        let block: String = std::iter::repeat_with(fastrand::alphanumeric).take(bytes.min(1024 * 1024)).collect();
        let mut padding = block.repeat(bytes.div_ceil(block.len().max(1)));
        padding.truncate(bytes);
        self.post_of("push", format!("{{\"ref\":\"refs/heads/main\",\"padding\":\"{padding}\"}}"))
    }

    /// What it sends when the hook is made.
    pub(crate) fn ping(&self) -> Posted {
        self.post_of("ping", "{\"zen\":\"Keep it logically awesome.\"}".to_owned())
    }

    fn post_of(&self, event: &str, json: String) -> Posted {
        let number = self.happened.fetch_add(1, Ordering::Relaxed);
        let at = self.began.plus(Duration::from_secs(number));
        let id = time_based(at, number).to_string();
        let draft = Draft { id, event: event.to_owned(), encoding: Encoding::Json, json: json.into_bytes() };
        let request = self.signer.sign(&draft, at).unwrap();
        let (headers, body) = (request.headers, request.body.into());
        Posted { id: draft.id.parse().unwrap(), account: Account(0), joined: false, headers, body }
    }

    /// Posts a delivery. None if there was no answer.
    pub(crate) async fn post(&self, to: &Url, delivery: &Posted) -> Option<Answer> {
        let response = delivery.post(&self.http, to).await?;
        let retry_after = response.headers().get("Retry-After").map(|value| value.to_str().unwrap().to_owned());
        Some(Answer { status: response.status().as_u16(), retry_after })
    }

    /// Posts a delivery that somebody has changed on its way.
    pub(crate) async fn forge(&self, to: &Url, delivery: &Posted) -> Option<Answer> {
        let mut forged = delivery.clone();
        forged.body = [&forged.body[..], b" "].concat().into();
        self.post(to, &forged).await
    }

    /// Posts a delivery, which has to be taken.
    pub(crate) async fn accepted(&self, to: &Url, delivery: &Posted) {
        let answer = self.post(to, delivery).await.expect("an answer");
        assert_eq!(answer.status, 202, "{answer:?}");
    }
}

/// A UUID of version 1, as GitHub's delivery ids are: the time of the event, made unique by a number.
fn time_based(at: Timestamp, number: u64) -> Uuid {
    let micros = u64::try_from(at.micros()).unwrap();
    let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap();
    let time = uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos);
    let [.., a, b, c, d] = number.to_be_bytes();
    // The first byte marks an address that belongs to no network card.
    Uuid::new_v1(time, &[0x03, 0, a, b, c, d])
}
