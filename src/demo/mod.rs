//! The demo: everything in one process on a temporary folder, with invented people and no services.
//!
//! It plays the stories of `tests/decisions.toml` with signed deliveries over HTTP, shows what becomes of each, and holds
//! the stand-in's statuses to what the stories say.

pub mod story;

mod report;
mod stage;

use std::time::Duration;

use crate::cli::Exit;
use crate::delivery::Timestamp;
use crate::shutdown::signal;
use crate::telemetry::logs;

use self::report::Report;
use self::stage::Stage;
use self::story::Story;

/// How long ago the stories began: the ids of their deliveries tell times up to now.
const AGO: Duration = Duration::from_secs(3600);

/// `rollcall demo`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Runs the HTTP edge, a broker, the ledger, the worker and a stand-in for Drata in one process, plays \
                        signed GitHub deliveries, and shows what becomes of each. Only loopback, only free ports, and a \
                        temporary folder. Exits with 0 only if every account ends as its story says.\n\n\
                        The same on RabbitMQ: rollcall demo --broker amqp://guest:guest@127.0.0.1:5672/%2f"
)]
pub struct Args {
    /// Print one JSON object at the end instead of text
    #[arg(long)]
    json: bool,
    /// Keep everything running afterwards, until Ctrl-C
    #[arg(long)]
    keep_running: bool,
    /// Carry the deliveries through this RabbitMQ, under a name of its own that is removed afterwards
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
}

/// Plays all stories.
///
/// # Errors
/// If something can't be started or fails under way.
pub async fn run(args: Args) -> anyhow::Result<Exit> {
    // Warnings would only be about the faults that the stories have on purpose.
    logs::install(&logs::Settings { format: logs::Format::Text, filter: "off".to_owned() }, true)?;
    let stories = Story::all()?;
    let base = Timestamp::now().plus_micros(-i64::try_from(AGO.as_micros()).unwrap_or_default());
    let stage = Stage::build(&stories, args.broker.as_deref()).await?;
    let mut report = Report::new(args.json);
    report.opening(&stage)?;
    for story in &stories {
        stage.play(story, base, &mut report).await?;
    }
    stage.settle(&mut report).await?;
    let well = report.closing()?;
    if args.keep_running {
        report.keep_running(&stage)?;
        tokio::select! {
            signal = signal() => { signal?; }
            _ = stage.running.failed() => {}
        }
    }
    let nothing_failed = stage.end().await;
    Ok(if well && nothing_failed { Exit::Done } else { Exit::Failed })
}
