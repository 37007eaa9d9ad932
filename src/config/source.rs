//! `[[source]]`: one webhook endpoint. What only its provider understands is handed to the provider to judge.

use std::path::PathBuf;

use toml::Table;
use url::Url;

use super::layers::{Layers, did_you_mean};
use super::problem::nearest;
use super::secret::{SecretRef, is_clear, meant};
use super::value::{Setting, Written};
use crate::access::RootPattern;
use crate::delivery::SourceName;
use crate::ingress::Networks;
use crate::provider::{Description, SourceSettings};
use crate::reconcile::{Drift, OnAccessLost};
use crate::target::ConnectionRef;
use crate::worker::Connections;

/// One source.
#[derive(Clone, Debug)]
pub struct Source {
    /// What its provider's verifier, interpreter and signer are built from.
    pub settings: SourceSettings,
    /// Its provider.
    pub provider: &'static Description,
    /// The secrets that are accepted, at least one.
    pub secrets: Vec<SecretRef>,
    /// Who may send to it; everybody if it doesn't say.
    pub allow_from: Option<Networks>,
    /// What to do with an account's link when it has lost its last access.
    pub on_access_lost: OnAccessLost,
    /// To which connection of the platform it belongs.
    pub connections: Connections,
    /// How many accounts one event may take access from before an operator is asked.
    pub mass_change_limit: u32,
    /// What to do when somebody has changed a link at the platform.
    pub drift: Drift,
    /// The token for the provider's own API, if rollcall may ask it.
    pub api_token: Option<SecretRef>,
    /// Where that API is, if not where the provider has it.
    pub api_url: Option<Url>,
}

const CHOOSE_ON_ACCESS_LOST: &str = "must be chosen, since each choice has its price:
    \"keep\": a leaver's account stays linked, and Drata's own sync stamps \"access revoked\" on it, where test 94 reads it; until that sync it looks as if access went on.
    \"unlink\": a leaver's account is unlinked at once, and the stamp that test 94 looks for on the linked account can no longer be found there.";

/// Every key that all sources have. What isn't here is the provider's own.
const COMMON: [&str; 16] = [
    "name",
    "provider",
    "secrets",
    "allow_from",
    "on_access_lost",
    "scopes",
    "drata_connection",
    "host",
    "sightings",
    "verify",
    "header",
    "mass_change_limit",
    "drift",
    "api_token",
    "api_url",
    "insecure",
];

/// How many accounts one event may take access from, if the source doesn't say.
const MASS_CHANGE_LIMIT: u32 = 50;

/// One `[[source]]` table while it is being read: keys are taken out one by one.
struct Reader<'a> {
    layers: &'a mut Layers,
    table: Table,
    label: String,
}

impl Reader<'_> {
    fn blame(&mut self, key: &str, message: impl Into<String>) {
        self.layers.blame(format!("source[{}].{key}", self.label), message);
    }

    /// `None` if the value is wrong, which is on record then.
    fn take<T: Setting>(&mut self, key: &str) -> Option<Option<T>> {
        let Some(value) = self.table.remove(key) else { return Some(None) };
        let folder: PathBuf = self.layers.folder.clone();
        T::read(Written::Toml(&value), &folder).map(Some).map_err(|message| self.blame(key, message)).ok()
    }

    fn must_take<T: Setting>(&mut self, key: &str, missing: impl Into<String>) -> Option<T> {
        let value = self.take(key)?;
        if value.is_none() {
            self.blame(key, missing);
        }
        value
    }

    fn take_list<T: Setting>(&mut self, key: &str, expected: &str) -> Option<Vec<T>> {
        let Some(value) = self.table.remove(key) else { return Some(Vec::new()) };
        let toml::Value::Array(items) = value else {
            self.blame(key, format!("must be a list: {expected}"));
            return None;
        };
        let folder: PathBuf = self.layers.folder.clone();
        let mut read = Vec::with_capacity(items.len());
        let mut sound = true;
        for (n, item) in items.iter().enumerate() {
            match T::read(Written::Toml(item), &folder) {
                Ok(item) => read.push(item),
                Err(message) => {
                    self.blame(&format!("{key}[{n}]"), message);
                    sound = false;
                }
            }
        }
        sound.then_some(read)
    }

    fn connections(&mut self, client_type: Option<&str>) -> Option<Connections> {
        match self.table.remove("drata_connection") {
            None => Some(client_type.map_or(Connections::None, |client_type| {
                Connections::One(ConnectionRef::Only(client_type.to_owned()))
            })),
            Some(toml::Value::Integer(id)) if id > 0 => Some(Connections::One(ConnectionRef::Id(id))),
            Some(toml::Value::Table(table)) if !table.is_empty() => {
                let mut map = Vec::new();
                for (root, id) in &table {
                    match (root.parse::<RootPattern>(), id.as_integer().filter(|id| *id > 0)) {
                        (Ok(pattern), Some(id)) => map.push((pattern, ConnectionRef::Id(id))),
                        (Err(error), _) => self.blame("drata_connection", format!("{root:?}: {error}")),
                        (_, None) => {
                            self.blame(
                                "drata_connection",
                                format!("{root:?}: must be the connection's id, a whole number"),
                            );
                        }
                    }
                }
                (map.len() == table.len()).then_some(Connections::ByRoot(map))
            }
            Some(_) => {
                self.blame("drata_connection", "must be the connection's id, or a table such as { \"org:acme\" = 12 }");
                None
            }
        }
    }

    /// Takes a mistyped common key for what it was meant to be, so that the provider isn't asked about it.
    fn refuse_mistyped_keys(&mut self) {
        let written: Vec<String> = self.table.keys().cloned().collect();
        for key in written {
            if let Some(meant) = nearest(&key, COMMON.into_iter().filter(|common| !matches!(*common, "name" | "host")))
            {
                self.blame(&key, format!("there is no such key{}", did_you_mean(Some(meant))));
                self.table.remove(&key);
            }
        }
    }
}

impl Setting for RootPattern {
    fn read(written: Written<'_>, folder: &std::path::Path) -> Result<Self, String> {
        String::read(written, folder)?.parse().map_err(|error: crate::delivery::InvalidName| error.to_string())
    }
}

impl Source {
    /// Reads the `n`th table, counted from 1. `None` if anything is wrong, which is on record then.
    pub(super) fn read(layers: &mut Layers, registry: &[&'static Description], n: usize, table: Table) -> Option<Self> {
        let label = table.get("name").and_then(toml::Value::as_str).map_or_else(|| format!("#{n}"), str::to_owned);
        let before = layers.problems.len();
        let mut reader = Reader { layers, table, label };
        let name = reader.must_take::<String>("name", "is missing; it becomes the last part of the source's URL");
        let name =
            name.and_then(|name| name.parse::<SourceName>().map_err(|e| reader.blame("name", e.to_string())).ok());
        let provider = provider(&mut reader, registry);
        let secrets = reader.take_list::<SecretRef>("secrets", "[{ env = \"NAME\" }] or [{ file = \"PATH\" }]");
        if secrets.as_ref().is_some_and(Vec::is_empty) {
            reader.blame("secrets", "needs at least one secret: [{ env = \"NAME\" }] or [{ file = \"PATH\" }]");
        }
        let allow_from = reader.take("allow_from");
        let on_access_lost = on_access_lost(&mut reader);
        let roots = reader.take_list("scopes", "[\"org:acme\"]");
        let host = host(&mut reader, provider);
        let sightings = reader.take("sightings");
        let verify = reader.take("verify");
        let header = reader.take("header");
        let mass_change_limit = reader.take("mass_change_limit");
        let drift = drift(&mut reader);
        let (api_token, api_url) = api(&mut reader, provider);
        let client_type = provider.zip(host.as_deref()).and_then(|(provider, host)| (provider.client_type)(host));
        let connections = reader.connections(client_type);
        reader.refuse_mistyped_keys();
        let settings = SourceSettings {
            name: name?,
            host: host?,
            roots: roots?,
            sightings: sightings?.unwrap_or(false),
            verify: verify?,
            header: header?,
            own: std::mem::take(&mut reader.table),
        };
        let provider = provider?;
        if let Err(error) = (provider.interpreter)(&settings) {
            // A key that its provider knows is no mistyped one.
            let unknown = settings.own.contains_key(&error.key) && error.key != "hook";
            let hint = unknown.then(|| nearest(&error.key, COMMON.into_iter())).flatten();
            reader.blame(&error.key, format!("{}{}", error.message, did_you_mean(hint)));
        }
        let source = Self {
            settings,
            provider,
            secrets: secrets?,
            allow_from: allow_from?,
            on_access_lost: on_access_lost?,
            connections: connections?,
            mass_change_limit: mass_change_limit?.unwrap_or(MASS_CHANGE_LIMIT),
            drift: drift?,
            api_token: api_token?,
            api_url: api_url?,
        };
        (layers.problems.len() == before).then_some(source)
    }
}

/// The provider's API: a token is what switches it on.
fn api(
    reader: &mut Reader<'_>,
    provider: Option<&'static Description>,
) -> (Option<Option<SecretRef>>, Option<Option<Url>>) {
    let token: Option<Option<SecretRef>> = reader.take("api_token");
    let url: Option<Option<Url>> = reader.take("api_url");
    if let Some(provider) = provider.filter(|provider| provider.api.is_none()) {
        for (key, written) in [("api_token", matches!(token, Some(Some(_)))), ("api_url", matches!(url, Some(Some(_))))]
        {
            if written {
                reader.blame(key, format!("{} has no API that rollcall asks; leave the key out", provider.title));
            }
        }
    } else if matches!((&token, &url), (Some(None), Some(Some(_)))) {
        reader.blame("api_url", "is of no use without api_token; give it one, or leave the key out");
    }
    let insecure: Option<Option<bool>> = reader.take("insecure");
    if let (Some(Some(url)), Some(None | Some(false))) = (&url, insecure)
        && is_clear(url)
    {
        reader.blame("api_url", format!("must begin with https://{}", meant("insecure")));
    }
    if let Some(Some(url)) = &url
        && let Err(error) = crate::api::check(url)
    {
        reader.blame("api_url", error.to_string());
    }
    (token, url)
}

fn provider(reader: &mut Reader<'_>, registry: &[&'static Description]) -> Option<&'static Description> {
    let known: Vec<&str> = registry.iter().map(|provider| provider.name).collect();
    let known_list = known.join(", ");
    let name: String = reader.must_take("provider", format!("is missing; it is one of {known_list}"))?;
    let found = registry.iter().copied().find(|provider| provider.name == name);
    if found.is_none() {
        let hint = did_you_mean(nearest(&name, known.into_iter()));
        reader.blame("provider", format!("there is no provider {name:?}, only {known_list}{hint}"));
    }
    found
}

fn on_access_lost(reader: &mut Reader<'_>) -> Option<OnAccessLost> {
    let word: String = reader.must_take("on_access_lost", CHOOSE_ON_ACCESS_LOST)?;
    let choice = [OnAccessLost::Unlink, OnAccessLost::Keep].into_iter().find(|choice| choice.as_str() == word);
    if choice.is_none() {
        reader.blame("on_access_lost", CHOOSE_ON_ACCESS_LOST);
    }
    choice
}

fn drift(reader: &mut Reader<'_>) -> Option<Drift> {
    let Some(word) = reader.take::<String>("drift")? else { return Some(Drift::default()) };
    let choice = Drift::ALL.into_iter().find(|choice| choice.as_str() == word);
    if choice.is_none() {
        reader.blame(
            "drift",
            "must be \"report\", which leaves a link that somebody has changed at Drata, or \"correct\", which brings it back",
        );
    }
    choice
}

/// The host is half of what names an account, so it is kept in one spelling.
fn host(reader: &mut Reader<'_>, provider: Option<&'static Description>) -> Option<String> {
    let written: Option<String> = reader.take("host")?;
    let host = match (written, provider.map(|provider| provider.default_host)) {
        (Some(host), _) => host.to_ascii_lowercase(),
        (None, Some(Some(default))) => default.to_owned(),
        (None, Some(None)) => {
            reader.blame("host", "is missing; this provider has no public host to default to");
            return None;
        }
        // The provider is wrong, and that is on record.
        (None, None) => return None,
    };
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if host.chars().all(usable) {
        Some(host)
    } else {
        reader.blame("host", "must be a host name alone, such as \"git.acme.example\", without scheme and path");
        None
    }
}
