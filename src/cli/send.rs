//! `rollcall send`: signs a delivery as a provider would, and posts it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use url::Url;

use super::exit::{Misuse, OutOfReach};
use super::{Exit, Place, say};
use crate::config::SecretRef;
use crate::delivery::{Encoding, SourceName, Timestamp};
use crate::outbound;
use crate::provider::{self, Draft, Invention, REGISTRY, Secret, SourceSettings};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    rollcall send --url http://127.0.0.1:8080/webhooks/acme-github --provider github --secret-env GITHUB_WEBHOOK_SECRET \
    --action member_added --login octocat --id 583231\n  \
    rollcall send --url … --provider github --secret-env GITHUB_WEBHOOK_SECRET --event push --file payload.json\n  \
    rollcall send --url … --provider gitlab --verify signature --secret-env GITLAB_SIGNING_TOKEN --event user_add_to_group")]
pub(super) struct Args {
    /// The source's URL: http://HOST/webhooks/SOURCE
    #[arg(long)]
    url: Url,
    /// As which provider to sign
    #[arg(long, value_parser = PossibleValuesParser::new(REGISTRY.iter().map(|provider| provider.name)))]
    provider: String,
    /// The name of the environment variable with the secret
    #[arg(long, value_name = "NAME", required_unless_present = "secret_file")]
    secret_env: Option<String>,
    /// The file with the secret
    #[arg(long, value_name = "FILE", conflicts_with = "secret_env")]
    secret_file: Option<PathBuf>,
    /// The event, as the provider's header says it [default: organization, with --action]
    #[arg(long)]
    event: Option<String>,
    /// The body: a file with the JSON text
    #[arg(long, value_name = "FILE", required_unless_present_any = ["action", "event"], conflicts_with_all = ["action", "login", "id"])]
    file: Option<PathBuf>,
    /// Invent an event with this action, such as member_added
    #[arg(long)]
    action: Option<String>,
    /// The account's login, for an invented event
    #[arg(long, default_value = "octocat")]
    login: String,
    /// The account's stable id, for an invented event
    #[arg(long, default_value = "583231")]
    id: String,
    /// The organisation's name, for an invented event
    #[arg(long, default_value = "acme", value_name = "NAME")]
    organization: String,
    /// The organisation's stable id, for an invented event
    #[arg(long, default_value = "1001", value_name = "ID")]
    organization_id: String,
    /// The team's or repository's name, for an invented event that has one
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
    /// The team's or repository's stable id, for an invented event that has one
    #[arg(long, value_name = "ID")]
    part_id: Option<String>,
    /// The delivery id [default: a fresh one]
    #[arg(long, value_name = "ID")]
    delivery: Option<String>,
    /// The host that the provider's own links name
    #[arg(long)]
    host: Option<String>,
    /// How to prove it, where the provider knows several ways: signature, token, basic or header
    #[arg(long, value_name = "WAY")]
    verify: Option<String>,
    /// The header with the secret, for --verify header
    #[arg(long, value_name = "NAME")]
    header: Option<String>,
    /// Write the body as a form instead of JSON
    #[arg(long)]
    form: bool,
}

pub(super) async fn run(args: Args, place: &Place) -> anyhow::Result<Exit> {
    let provider = provider::find(&args.provider).context("no such provider")?;
    let reference = match (&args.secret_env, &args.secret_file) {
        (Some(name), _) => SecretRef::Env(name.clone()),
        (None, Some(file)) => SecretRef::File(file.clone()),
        (None, None) => return Err(Misuse("one of --secret-env and --secret-file is needed".to_owned()).into()),
    };
    let secret: Secret = reference.resolve(&place.env)?;
    let settings = SourceSettings {
        name: "send".parse::<SourceName>()?,
        host: args.host.clone().or_else(|| provider.default_host.map(str::to_owned)).unwrap_or_default(),
        roots: Vec::new(),
        sightings: false,
        verify: args.verify.clone(),
        header: args.header.clone(),
        own: toml::Table::new(),
    };
    let signer = (provider.signer)(&settings, secret).map_err(|error| Misuse(error.to_string()))?;
    let mut draft = match &args.file {
        Some(file) => {
            let event = args.event.clone().ok_or_else(|| Misuse("--file needs --event".to_owned()))?;
            let json = std::fs::read(file).map_err(|error| Misuse(format!("{}: {error}", file.display())))?;
            let id = args.delivery.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
            Draft { id, event, encoding: Encoding::Json, json }
        }
        None => signer.invent(&invention(&args)).map_err(|error| Misuse(error.to_string()))?,
    };
    if args.form {
        if !provider.encodings.include(Encoding::Form) {
            return Err(Misuse(format!("{} never sends forms; leave --form out", provider.title)).into());
        }
        draft.encoding = Encoding::Form;
    }
    let signed = signer.sign(&draft, Timestamp::now()).map_err(|error| Misuse(error.to_string()))?;
    let answer = outbound::builder(&args.url, Duration::from_secs(15))?
        .build()
        .context("setting up the HTTP client")?
        .post(args.url.clone())
        .headers(signed.headers)
        .body(signed.body)
        .send()
        .await
        .map_err(|error| OutOfReach(format!("{}: {:#}", args.url, anyhow::Error::from(error.without_url()))))?;
    let status = answer.status();
    let text = answer.text().await.unwrap_or_default();
    say(format_args!("{} {}", status, text.trim()))?;
    Ok(if status.is_success() { Exit::Done } else { Exit::Failed })
}

fn invention(args: &Args) -> Invention {
    let event = match (&args.event, &args.action) {
        (Some(event), Some(action)) => format!("{event}.{action}"),
        (Some(event), None) => event.clone(),
        (None, action) => format!("organization.{}", action.as_deref().unwrap_or("member_added")),
    };
    Invention {
        id: args.delivery.clone(),
        event,
        login: args.login.clone(),
        account_id: args.id.clone(),
        root: args.organization.clone(),
        root_id: args.organization_id.clone(),
        part: args.part.clone(),
        part_id: args.part_id.clone(),
    }
}
