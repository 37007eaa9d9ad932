//! `rollcall sandbox`: Drata's stand-in as a server of its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::exit::Misuse;
use super::{Exit, Place, say};
use crate::app;
use crate::sandbox::{Fault, Options, Sandbox, Switch, Undocumented, identities_from_file, people_from_file};
use crate::shutdown::{Signal, Tasks, signal};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Faults: 500:20% (one in five), 503, 429:retry-after=2, timeout:5%, drop, slow=200ms, late=3s, \
                        500:first=3 (the first three calls for each identity), 403:id=7@connect (identity 7 alone), 500:applied (does it, then answers 500); \
                        with @connect, @list or @person only for those calls.\n\n\
                        What it was asked: GET /_sandbox/requests. What it holds: GET /_sandbox/state. \
                        At run time: POST /_sandbox/identities, /_sandbox/people, /_sandbox/faults.\n\n\
                        Example: rollcall sandbox --listen 127.0.0.1:9100 --fault '500:20%@connect'"
)]
pub(super) struct Args {
    /// Where to listen; port 0 takes a free one and prints it
    #[arg(long, default_value = "127.0.0.1:9100", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The people, as a JSON array or CSV [default: a small invented company]
    #[arg(long, value_name = "FILE")]
    people: Option<PathBuf>,
    /// The identities, as a JSON array or CSV [default: those of the invented company]
    #[arg(long, value_name = "FILE")]
    identities: Option<PathBuf>,
    /// A fault; may be given several times
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
    /// A choice for something that Drata leaves undocumented, as key=value; may be given several times
    #[arg(long = "undocumented", value_name = "KEY=VALUE")]
    switches: Vec<Switch>,
    /// The name of the environment variable with the API key to accept [default: any key is accepted]
    #[arg(long, value_name = "NAME")]
    api_key_env: Option<String>,
    /// How many requests a minute to allow; 0 for no limit
    #[arg(long, default_value_t = 500, value_name = "N")]
    requests_per_minute: u32,
    /// The seed of faults that come by chance
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

pub(super) async fn run(args: Args, place: &Place) -> anyhow::Result<Exit> {
    let read = |error| Misuse(format!("{error}"));
    let api_key = match &args.api_key_env {
        Some(name) => Some(place.env.get(name).cloned().with_context(|| format!("{name} isn't set"))?.into()),
        None => None,
    };
    let options = Options {
        api_key,
        people: args.people.as_deref().map(people_from_file).transpose().map_err(read)?,
        identities: args.identities.as_deref().map(identities_from_file).transpose().map_err(read)?,
        faults: args.faults,
        seed: args.seed,
        undocumented: args.switches.into_iter().collect::<Undocumented>(),
        requests_per_minute: Some(args.requests_per_minute),
        ..Options::default()
    };
    let listener = app::listen(args.listen).await?;
    let address = listener.local_addr()?;
    say(format_args!("Drata's stand-in: base_url = \"http://{address}/public\""))?;
    let tasks = Tasks::new();
    let token: CancellationToken = tasks.token().clone();
    tasks.essential("sandbox", Sandbox::new(options).serve(listener, token));
    let ended = tokio::select! {
        why = signal() => if why? == Signal::Interrupt { Exit::Interrupted } else { Exit::Done },
        failure = tasks.failed() => return Err(failure.into()),
    };
    tasks.end(std::time::Duration::from_secs(2)).await;
    Ok(ended)
}
