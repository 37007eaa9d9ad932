//! `rollcall topology`: whether RabbitMQ is as it has to be, and what has to exist in it for those who own it.

use std::io::Write;

use url::Url;

use super::exit::Misuse;
use super::table::{json, plain};
use super::{Exit, Place};
use crate::broker::rabbitmq::definitions::{Limits, definitions};
use crate::broker::rabbitmq::doctor::{Grade, examine};

const EXAMPLES: &str = "\
Nothing is changed: what is tried is rolled back, or done only to what exists already.

Where somebody else owns RabbitMQ, set broker.declare = false and give them
  rollcall topology --format policies > rollcall.json     limits in policies, which can be changed later
  rollcall topology --format definitions > rollcall.json  limits in the queues' arguments, as serve declares them
to import: rabbitmqctl import_definitions rollcall.json

Exit codes: 0 all is well or only warned of, 1 something is wrong, 2 the configuration is wrong or names no RabbitMQ,
3 RabbitMQ (or the management API of --management) can't be reached.

With --json: a list of findings (part, grade, what, fix).";

/// Examine RabbitMQ, or print what has to exist in it
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print what has to exist, as a definitions file of RabbitMQ, and examine nothing
    #[arg(long, value_enum, conflicts_with_all = ["json", "management"])]
    format: Option<Format>,
    /// The management API, such as http://127.0.0.1:15672; asked with user and password of broker.url
    #[arg(long, value_name = "URL")]
    management: Option<Url>,
    /// Write a JSON list
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Exchange, queues with all their arguments, and binding
    Definitions,
    /// The same with the queues' limits in policies
    Policies,
}

pub(super) async fn run(args: Args, place: &Place, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    let Some(broker) = place.rabbitmq(&settings)? else {
        let why = "broker.url isn't set: the embedded broker is one file in data_dir, with nothing to examine; set broker.url";
        return Err(Misuse(why.to_owned()).into());
    };
    if let Some(format) = args.format {
        let limits = if format == Format::Policies { Limits::Policies } else { Limits::Arguments };
        json(out, &definitions(&broker, limits).map_err(|error| Misuse(error.to_string()))?)?;
        return Ok(Exit::Done);
    }
    let findings = examine(&broker, args.management).await;
    if args.json {
        json(out, &findings)?;
    } else {
        for finding in &findings {
            writeln!(out, "{:<8}  {}: {}", sign(finding.grade), finding.part, plain(&finding.what))?;
            if let Some(fix) = &finding.fix {
                writeln!(out, "          {}", plain(fix))?;
            }
        }
    }
    Ok(match findings.iter().map(|finding| finding.grade).max() {
        Some(Grade::Unreachable) => Exit::Unreachable,
        Some(Grade::Wrong) => Exit::Failed,
        _ => Exit::Done,
    })
}

/// The grade in a column.
pub(super) const fn sign(grade: Grade) -> &'static str {
    match grade {
        Grade::Ok => "ok",
        Grade::NotSeen => "not seen",
        Grade::Warning => "warning",
        Grade::Wrong => "WRONG",
        Grade::Unreachable => "NO WAY",
    }
}
