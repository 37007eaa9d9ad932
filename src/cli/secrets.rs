//! `rollcall secrets`: which secret of each source is still in use, so that an old one can go safely.

use std::io::Write;

use serde::Serialize;

use super::table::{Table, Width, json, time};
use crate::config::Source;
use crate::delivery::Timestamp;
use crate::ledger::Ledger;
use crate::ledger::secrets::{RefusalRow, SecretRow};

const EXAMPLES: &str = "\
Only names of secrets are shown, and nothing of what was refused but the reason and a fingerprint: a short hash of what \
the sender says of itself (User-Agent, X-Forwarded-For). Refusals are kept for a week.

To change a secret: add the new one to `secrets` and restart the ingresses, change it at the provider, wait until the \
new one has verified deliveries and the old one none any more, take the old one out.

With --json: an object with secrets (source, secret, configured, deliveries, first_at, last_at) and refusals (source, \
reason, sender, count, last_at).";

/// Show which secret of each source has verified how much and when last, and what was refused lately
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Write a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

/// A secret that is configured, or was.
#[derive(Debug, Serialize)]
struct Use {
    source: String,
    secret: String,
    /// Whether it is configured now.
    configured: bool,
    deliveries: i64,
    first_at: Option<Timestamp>,
    last_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct Report {
    secrets: Vec<Use>,
    refusals: Vec<RefusalRow>,
}

/// Shows which secrets are in use.
///
/// # Errors
/// If the ledger or `out` fails.
pub async fn run(args: &Args, sources: &[Source], ledger: &Ledger, out: &mut dyn Write) -> anyhow::Result<()> {
    let wanted = |source: &str| args.source.as_deref().is_none_or(|only| only == source);
    let mut used: Vec<SecretRow> = ledger.secrets().await?;
    let mut secrets = Vec::new();
    for source in sources {
        for secret in &source.secrets {
            let (name, secret) = (source.settings.name.to_string(), secret.to_string());
            let found = used.iter().position(|used| used.source == name && used.secret == secret);
            let found = found.map(|found| used.remove(found));
            secrets.push(Use {
                source: name,
                secret,
                configured: true,
                deliveries: found.as_ref().map_or(0, |found| found.deliveries),
                first_at: found.as_ref().map(|found| found.first_at),
                last_at: found.map(|found| found.last_at),
            });
        }
    }
    secrets.extend(used.into_iter().map(|used| Use {
        source: used.source,
        secret: used.secret,
        configured: false,
        deliveries: used.deliveries,
        first_at: Some(used.first_at),
        last_at: Some(used.last_at),
    }));
    secrets.retain(|secret| wanted(&secret.source));
    let mut refusals = ledger.refusals().await?;
    refusals.retain(|refusal| wanted(&refusal.source));
    let report = Report { secrets, refusals };
    if args.json { json(out, &report) } else { show(&report, args.width, out) }
}

fn show(report: &Report, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    if report.secrets.is_empty() {
        return Ok(writeln!(out, "No such source.")?);
    }
    let mut table = Table::new(&["SOURCE", "SECRET", "VERIFIED", "LAST", ""]);
    for secret in &report.secrets {
        let last = secret.last_at.map_or_else(|| "never".to_owned(), time);
        let configured = if secret.configured { "" } else { "no longer configured" };
        let cells =
            [secret.source.clone(), secret.secret.clone(), secret.deliveries.to_string(), last, configured.to_owned()];
        table.row(cells, "");
    }
    table.write(out, 0, width)?;
    if report.refusals.is_empty() {
        return Ok(writeln!(out, "\nNothing was refused in the last week.")?);
    }
    writeln!(out, "\nRefused in the last week")?;
    let mut table = Table::new(&["SOURCE", "REASON", "SENDER", "REQUESTS", "LAST"]);
    for refusal in &report.refusals {
        table.row(
            [
                refusal.source.clone(),
                refusal.reason.clone(),
                refusal.sender.clone(),
                refusal.count.to_string(),
                time(refusal.last_at),
            ],
            "",
        );
    }
    Ok(table.write(out, 2, width)?)
}
