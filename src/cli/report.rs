//! `rollcall report`: the evidence for auditors, and the proof that the history behind it wasn't changed.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;

use super::choice::When;
use super::exit::Misuse;
use super::named::one_account;
use super::table::{Width, json, sentence, time};
use super::{Exit, Place, serve};
use crate::access::AccountPattern;
use crate::delivery::{InvalidName, Timestamp};
use crate::evidence::platform::PlatformEvents;
use crate::evidence::{self, About, Format};
use crate::ledger::Ledger;
use crate::ledger::seal::KnownHead;
use crate::ledger::seal::verify::Verified;
use crate::ledger::show::evidence::Period;

const EXAMPLES: &str = "\
Examples:
  rollcall report --from 2026-07-01 --to 2026-10-01 --format html --output q3.html
  rollcall report --from 90d --account octocat --format csv
  rollcall report --from 7d --format json --without-drata | jq .summary
  rollcall report --verify
  rollcall report --verify --head 1042:5e884898da28047151d0e56f8dc6292773603d0d6aabbd…

The period is by receipt, --from included and --to not; all times are UTC. With a key for Drata in the configuration, \
Drata's own event log is read too, as evidence that doesn't come from rollcall; where the key may not read it, the report \
says so. CSV holds the changes alone: what else the other formats say is written to standard error.

--verify works out anew, from the rows, every hash that was ever made over the ledger's history, and names what was \
changed, deleted or inserted since. Only a head that was noted elsewhere proves that the end wasn't cut off and the whole \
not rewritten: it stands in every report, in the workers' log and in the metrics. Exit code 1 if anything is broken.

With --format json: an object with changes, actions, report and summary; with --verify --json: head, seals, rows, erased, \
unsealed, known_head, broken and first_broken.";

/// Write the evidence for an auditor: each change of access, when it came and when Drata had it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What was received since then: 2026-07-01, 2026-07-01T08:00:00Z, or 90d
    #[arg(long, value_name = "DATE|DURATION", required_unless_present = "verify", conflicts_with = "verify")]
    from: Option<Bound>,
    /// What was received before then [default: now]
    #[arg(long, value_name = "DATE|DURATION", conflicts_with = "verify")]
    to: Option<Bound>,
    /// Only what concerned this account: octocat, github:octocat, github:#583231
    #[arg(long, conflicts_with = "verify")]
    account: Option<AccountPattern>,
    /// How to write it
    #[arg(long, value_enum, default_value_t = Format::Csv, conflicts_with = "verify")]
    format: Format,
    /// Write it to this file, which appears when it is complete [default: standard output]
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    output: Option<PathBuf>,
    /// Don't ask Drata for its own event log
    #[arg(long, conflicts_with = "verify")]
    without_drata: bool,
    /// Prove that the history is what was sealed
    #[arg(long)]
    verify: bool,
    /// A head that was noted earlier and must be in the chain: NUMBER:HASH, or the hash
    #[arg(long, value_name = "HEAD", requires = "verify")]
    head: Option<KnownHead>,
    /// With --verify: write a JSON object
    #[arg(long, requires = "verify")]
    json: bool,
    #[command(flatten)]
    width: Width,
}

/// One end of the period.
#[derive(Clone, Copy, Debug)]
struct Bound(When);

impl FromStr for Bound {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let why = "must be a date like 2026-07-01 (its first moment in UTC), a time like 2026-07-01T08:00:00Z, or a \
                   duration like 90d";
        let midnight = || format!("{text}T00:00:00Z").parse();
        text.parse()
            .or_else(|_| midnight().map(When::At))
            .map(Self)
            .map_err(|_: InvalidName| InvalidName { what: "time", why })
    }
}

pub(super) async fn run(args: &Args, place: &Place) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    let ledger = place.ledger(&settings).await?;
    if args.verify {
        let verified = ledger.verify(args.head).await?;
        return told(args, &verified, &mut std::io::stdout());
    }
    let now = ledger.now().await?;
    let from = args.from.map_or(Timestamp(0), |from| from.0.from(now));
    let to = args.to.map_or(now, |to| to.0.from(now));
    if to <= from {
        return Err(Misuse(format!("--to ({to}) must be later than --from ({from})")).into());
    }
    let account = match &args.account {
        Some(pattern) => Some(one_account(pattern, &ledger).await?),
        None => None,
    };
    let mut about = About {
        version: env!("CARGO_PKG_VERSION"),
        made_at: now,
        from,
        to,
        account: args.account.as_ref().map(ToString::to_string),
        time_zone: "UTC",
        head: ledger.head().await?,
        unsealed: ledger.unsealed().await?,
        platform_events: platform_events(args, place, from, now).await,
    };
    let period = Period { from, to, account };
    match &args.output {
        Some(file) => to_file(file, &ledger, period, &mut about, args.format).await?,
        None => to_standard_output(&ledger, period, &mut about, args).await?,
    }
    Ok(Exit::Done)
}

/// Drata's own log from then until now: what was received at the end of a period reaches Drata after it.
async fn platform_events(args: &Args, place: &Place, from: Timestamp, now: Timestamp) -> PlatformEvents {
    let key = match place.settings() {
        Ok(settings) if !args.without_drata => serve::client(&settings, place),
        _ => return PlatformEvents::Left,
    };
    match key {
        Ok(client) => PlatformEvents::read(client.link_events(from, now.plus_micros(60_000_000)).await),
        Err(error) => PlatformEvents::Unread(error.to_string()),
    }
}

/// Writes the file aside and puts it in its place when it is complete.
async fn to_file(
    file: &Path,
    ledger: &Ledger,
    period: Period,
    about: &mut About,
    format: Format,
) -> anyhow::Result<()> {
    let wrong = || format!("writing {}", file.display());
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut aside = tempfile::NamedTempFile::new_in(folder).with_context(wrong)?;
    let mut out = BufWriter::new(aside.as_file_mut());
    let summary = evidence::write(ledger, period, about, format, &mut out).await.with_context(wrong)?;
    out.flush().with_context(wrong)?;
    drop(out);
    aside.persist(file).with_context(wrong)?;
    Ok(writeln!(
        std::io::stderr(),
        "{} changes written to {}; {}",
        summary.changes,
        file.display(),
        about.platform_events
    )?)
}

async fn to_standard_output(ledger: &Ledger, period: Period, about: &mut About, args: &Args) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout());
    let summary = evidence::write(ledger, period, about, args.format, &mut out).await?;
    out.flush()?;
    if args.format == Format::Csv {
        let err = &mut std::io::stderr();
        let About { from, to, version, made_at, unsealed, .. } = &*about;
        let head = about.head.map_or_else(|| "nothing is sealed yet".to_owned(), |head| format!("the head is {head}"));
        sentence(
            err,
            0,
            args.width,
            &format!(
                "{} changes received from {from} until before {to} (UTC), by rollcall {version} on {made_at}; {head}, {unsealed} \
             rows aren't sealed yet.",
                summary.changes
            ),
        )?;
        if let Some(delay) = summary.delay {
            sentence(
                err,
                0,
                args.width,
                &format!(
                    "{} were told to the platform, {} of them with its own entry: median {}, 95 % within {}, longest {}.",
                    summary.told, summary.evidenced, delay.median, delay.p95, delay.worst
                ),
            )?;
        }
        sentence(err, 0, args.width, &format!("Independent evidence: {}.", about.platform_events))?;
    }
    Ok(())
}

/// Says what verifying came to. [`Exit::Failed`] if anything is broken.
fn told(args: &Args, verified: &Verified, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let exit = if verified.holds() { Exit::Done } else { Exit::Failed };
    if args.json {
        json(out, verified)?;
        return Ok(exit);
    }
    let Verified { seals, rows, erased, unsealed, broken, .. } = verified;
    match &verified.head {
        None => writeln!(out, "Nothing is sealed yet.")?,
        Some(head) => {
            let plural = if *seals == 1 { "" } else { "s" };
            writeln!(out, "{seals} seal{plural} over {rows} rows; the head is\n  {head}\n  of {}", time(head.at))?;
        }
    }
    for broken in &verified.first_broken {
        writeln!(out, "BROKEN: {broken}")?;
    }
    let more = broken - i64::try_from(verified.first_broken.len()).unwrap_or(*broken);
    if more > 0 {
        writeln!(out, "… and {more} more")?;
    }
    if *unsealed > 0 {
        sentence(
            out,
            0,
            args.width,
            &format!("{unsealed} rows are newer than the latest seal: nothing is proved about them yet."),
        )?;
    }
    if *erased > 0 {
        writeln!(out, "{erased} rows have had a name or a text erased; the rest of them holds.")?;
    }
    let text = match (verified.holds(), args.head) {
        (false, _) => "The history is NOT what was sealed.".to_owned(),
        (true, Some(head)) => format!("Nothing was changed, deleted or inserted, and {head} is in the chain."),
        (true, None) => {
            "Nothing was changed, deleted or inserted. Whether the end was cut off, or all of it rewritten, only \
                         a head tells that was noted elsewhere: --head."
                .to_owned()
        }
    };
    sentence(out, 0, args.width, &text)?;
    Ok(exit)
}
