//! `rollcall deliveries`: which deliveries came, and what became of each.

use std::collections::BTreeMap;
use std::io::Write;

use tokio_util::sync::CancellationToken;

use super::choice::ChoiceArgs;
use super::named::NameError;
use super::table::{Table, Width, json, plain, sentence, time};
use super::watch::{Style, watch};
use super::words::{account_text, calls};
use crate::ledger::Ledger;
use crate::ledger::show::deliveries::{DeliveryName, DeliveryRow, EffectRow, Story, Winner};
use crate::ledger::unreadable::UnreadableRow;
use crate::provider::Secret;
use crate::replay::export;

const EXAMPLES: &str = "\
Examples:
  rollcall deliveries                                   the latest fifty
  rollcall deliveries --outcome parked                  what an operator has to look at
  rollcall deliveries --account github:octocat --since 7d
  rollcall deliveries --reason '500' --after '#812'     the page behind row 812
  rollcall deliveries --watch                           until Ctrl-C
  rollcall deliveries show 72d3162e-cc78-11e3-81ab-4c9367dc0958
  rollcall deliveries show '#12' --json
  rollcall deliveries body '#12' | jq .
  rollcall deliveries unreadable                        messages that aren't rollcall's, or can't be read
  rollcall deliveries unreadable '#3' > message.bin
  rollcall deliveries export --outcome parked > parked.jsonl
  rollcall replay --outcome parked --dry-run            what a replay of them would change

With --json: an array of objects with row, received_at, source, provider, delivery, event, outcome, reason, \
copies, replays, repeated and conflicting; with --watch one object a line. Times are RFC 3339.";

const UNREADABLE: &str = "\
They came over the broker and not from an ingress, were damaged on the way, or couldn't be read by the worker that had \
them. Each is kept once, however often it came. What bears a version of rollcall's can be read again: `rollcall replay \
--unreadable`. Of all others whoever may publish to the exchange is who to ask.

With --json: an array of objects with row, first_seen, last_seen, copies, message (the id that its publisher gave it), \
why, bytes (how many), ours (whether it bears a version of rollcall's) and replay (the replay that has published it \
again). Times are RFC 3339.";

/// List deliveries, the last recorded first, and what became of each
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Command {
    /// Tell the story of one delivery: what it told, what it did to each account, and every call since
    #[command(after_help = "Its body isn't shown; `rollcall deliveries body` writes that.")]
    Show {
        /// The provider's delivery id, or # and the row number that the listing shows
        #[arg(value_name = "ID")]
        id: DeliveryName,
        /// Write one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        width: Width,
    },
    /// Write the exact bytes that the provider signed to standard output
    #[command(after_help = "Bodies hold what the provider sent, personal data included. Ignored deliveries keep none.")]
    Body {
        /// The provider's delivery id, or # and the row number that the listing shows
        #[arg(value_name = "ID")]
        id: DeliveryName,
    },
    /// Write deliveries as lines of JSON with the provider's exact bytes, for `rollcall replay --from-file`
    #[command(after_help = EXPORT)]
    Export {
        #[command(flatten)]
        choice: Box<ChoiceArgs>,
        /// Write no seal: whoever imports the lines has to trust them. Needs no secret
        #[arg(long)]
        unsealed: bool,
    },
    /// List the messages that aren't rollcall's or can't be read, or write the exact bytes of one to standard output
    #[command(after_help = UNREADABLE)]
    Unreadable {
        /// The row number that the listing shows, with or without #: write that message's bytes
        #[arg(value_name = "ROW", value_parser = row_number, conflicts_with_all = ["json", "limit"])]
        row: Option<i64>,
        /// How many to show at most
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
        limit: i64,
        /// Write a JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        width: Width,
    },
}

const EXPORT: &str = "\
Bodies hold what the provider sent, personal data included: keep the file as you keep those. Ignored deliveries keep no \
body and are left out; standard error says how many.

Each line is sealed with the first secret of its source, over everything in it, so that an import finds out what was \
changed. The seal is no signature of the provider's: no ingress takes it, and the secret can't be found out from it.

Example:
  rollcall deliveries export --since 7d > week.jsonl
  rollcall --config staging.toml replay --from-file week.jsonl";

/// What an export needs besides the ledger: the secret of a source, by name, or why it can't be had.
pub(super) type SecretOf<'a> = &'a (dyn Fn(&str) -> anyhow::Result<Secret> + Sync);

impl Args {
    /// The deliveries to export, and whether without seals, if that is what is wanted.
    pub(super) fn export(&self) -> Option<(&ChoiceArgs, bool)> {
        match &self.command {
            Some(Command::Export { choice, unsealed }) => Some((choice, *unsealed)),
            _ => None,
        }
    }

    /// Whether to go on until Ctrl-C.
    pub(super) const fn watches(&self) -> bool {
        self.command.is_none() && self.list.watch
    }
}

#[derive(Clone, Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    choice: ChoiceArgs,
    /// How many to show at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Go on behind this row, the last of the page before: #812
    #[arg(long, value_name = "ROW", value_parser = row, conflicts_with = "watch")]
    after: Option<i64>,
    /// Go on looking until Ctrl-C: drawn anew on a terminal, else what is new or has changed is added
    #[arg(long)]
    watch: bool,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

fn row(text: &str) -> Result<i64, String> {
    let number = text.strip_prefix('#').unwrap_or(text);
    number.parse().map_err(|_| "must be a row such as #812, as the listing shows it".to_owned())
}

/// Writes the chosen deliveries as lines. Returns how many, and how many more keep no body.
///
/// # Errors
/// If a secret is needed and can't be had, and whatever the ledger or `out` fails with.
pub(super) async fn export(
    choice: &ChoiceArgs,
    secret_of: Option<SecretOf<'_>>,
    ledger: &Ledger,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<(i64, i64)> {
    const PAGE: i64 = 200;
    let filter = choice.filter(ledger.now().await?);
    let mut secrets: BTreeMap<String, Secret> = BTreeMap::new();
    let (mut written, mut after) = (0, 0);
    loop {
        let page = ledger.kept_page(&filter, after, PAGE).await?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for (_, delivery) in &page {
            let source = delivery.source.as_str();
            if let Some(secret_of) = secret_of
                && !secrets.contains_key(source)
            {
                secrets.insert(source.to_owned(), secret_of(source)?);
            }
            writeln!(out, "{}", export::write(delivery, secrets.get(source))?)?;
            written += 1;
        }
    }
    out.flush()?;
    Ok((written, ledger.outlook(&filter).await?.without_body))
}

/// Lists deliveries, tells one's story, or writes one's body.
///
/// # Errors
/// [`NameError`] if the id names nothing or several, and whatever the ledger or `out` fails with.
pub async fn run(args: &Args, ledger: &Ledger, out: &mut dyn Write) -> anyhow::Result<()> {
    match &args.command {
        None => list(&args.list, ledger, out).await,
        Some(Command::Show { id, json: as_json, width }) => {
            let found = one(ledger, id, None).await?;
            let story = ledger.story(found.row).await?.ok_or_else(|| not_found(id))?;
            if *as_json { json(out, &story) } else { show(&story, *width, out) }
        }
        Some(Command::Unreadable { row: None, limit, json: as_json, width }) => {
            unreadable(&ledger.unreadable(*limit).await?, *as_json, *width, out)
        }
        Some(Command::Unreadable { row: Some(row), .. }) => {
            let hint = "`rollcall deliveries unreadable` lists what is";
            let body = ledger.unreadable_body(*row).await?;
            let missing = || NameError::NotFound { what: "unreadable message", name: format!("#{row}"), hint };
            Ok(out.write_all(&body.ok_or_else(missing)?)?)
        }
        // It needs more than the ledger: see [`export()`].
        Some(Command::Export { .. }) => Ok(()),
        Some(Command::Body { id }) => {
            let found = one(ledger, id, None).await?;
            let lacks = "keeps no body: it was ignored, and such deliveries keep none";
            let body = ledger.body(found.row).await?;
            let body = body.ok_or_else(|| NameError::Lacking { what: "delivery", name: id.to_string(), lacks })?;
            Ok(out.write_all(&body)?)
        }
    }
}

async fn list(args: &ListArgs, ledger: &Ledger, out: &mut dyn Write) -> anyhow::Result<()> {
    let filter = args.choice.filter(ledger.now().await?);
    let rows = ledger.deliveries(&filter, args.after, args.limit).await?;
    if args.json {
        return json(out, &rows);
    }
    table(&rows, true, args.width, out)?;
    if let Some(last) = rows.last().filter(|_| i64::try_from(rows.len()).is_ok_and(|count| count == args.limit)) {
        writeln!(out, "\n{} shown; --after '#{}' goes on, --limit shows more at once.", rows.len(), last.row)?;
    }
    Ok(())
}

/// Lists deliveries until the token is cancelled.
///
/// # Errors
/// If the ledger or `out` fails.
pub(super) async fn keep_listing(
    args: &Args,
    ledger: &Ledger,
    live: bool,
    token: &CancellationToken,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let args = &args.list;
    let style = Style::of(args.json, live);
    let list = async || {
        let filter = args.choice.filter(ledger.now().await?);
        Ok(ledger.deliveries(&filter, None, args.limit).await?)
    };
    let rows = |rows: &[DeliveryRow], header: bool, out: &mut dyn Write| table(rows, header, args.width, out);
    watch(style, token, out, list, |row| row.row.to_string(), rows).await
}

fn table(rows: &[DeliveryRow], header: bool, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    if rows.is_empty() && header {
        return Ok(writeln!(out, "No such deliveries.")?);
    }
    let mut table = Table::new(&["ROW", "RECEIVED", "SOURCE", "EVENT", "OUTCOME"]);
    for row in rows {
        let received = time(row.received_at);
        let cells = [format!("#{}", row.row), received, row.source.clone(), row.event.clone(), row.outcome.to_string()];
        let flags = flags(row);
        let reason = row.reason.as_deref();
        let note: Vec<&str> = [row.delivery.as_str()].into_iter().chain(flags.as_deref()).chain(reason).collect();
        table.row(cells, &note.join(" · "));
    }
    let written = if header { table.write(out, 0, width) } else { table.write_more(out, width) };
    Ok(written?)
}

fn row_number(text: &str) -> Result<i64, String> {
    text.strip_prefix('#').unwrap_or(text).parse().map_err(|_| "isn't a row number like '#3'".to_owned())
}

fn unreadable(rows: &[UnreadableRow], as_json: bool, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    if as_json {
        return json(out, &rows);
    }
    if rows.is_empty() {
        return Ok(writeln!(out, "No such messages.")?);
    }
    let mut table = Table::new(&["ROW", "FIRST SEEN", "LAST SEEN", "COPIES", "BYTES", "MESSAGE"]);
    for row in rows {
        let message = row.message.clone().unwrap_or_else(|| "-".to_owned());
        let (copies, bytes) = (row.copies.to_string(), row.bytes.to_string());
        let cells = [format!("#{}", row.row), time(row.first_seen), time(row.last_seen), copies, bytes, message];
        let next = match &row.replay {
            Some(replay) => format!(" · published again by replay {replay}"),
            None if row.ours => " · `rollcall replay --unreadable` reads it again".to_owned(),
            None => String::new(),
        };
        table.row(cells, &format!("{}{next}", row.why));
    }
    Ok(table.write(out, 0, width)?)
}

/// What sets a delivery apart: how often it came, and whether it is odd.
fn flags(row: &DeliveryRow) -> Option<String> {
    let mut flags = Vec::new();
    if row.copies != 1 {
        flags.push(format!("{} copies", row.copies));
    }
    match row.replays {
        0 => {}
        1 => flags.push("replayed".to_owned()),
        replays => flags.push(format!("replayed {replays} times")),
    }
    if row.repeated {
        flags.push("the same bytes came before under another id".to_owned());
    }
    if row.conflicting {
        flags.push("the same id came before with other bytes".to_owned());
    }
    (!flags.is_empty()).then(|| flags.join(", "))
}

pub(super) async fn one(ledger: &Ledger, id: &DeliveryName, source: Option<&str>) -> anyhow::Result<DeliveryRow> {
    let mut found = ledger.deliveries_named(id).await?;
    found.retain(|row| source.is_none_or(|only| row.source == only));
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(not_found(id).into()),
        (Some(one), true) => Ok(one),
        (Some(last), false) => {
            found.push(last);
            let candidate = |row: &DeliveryRow| (format!("'#{}'", row.row), format!("{} of {}", row.event, row.source));
            let candidates = found.iter().map(candidate).collect();
            Err(NameError::Ambiguous { what: "delivery", name: id.to_string(), candidates }.into())
        }
    }
}

pub(super) fn not_found(id: &DeliveryName) -> NameError {
    let hint = "`rollcall deliveries` lists what is; it may also still be in the broker";
    NameError::NotFound { what: "delivery", name: id.to_string(), hint }
}

fn show(story: &Story, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    let row = &story.delivery;
    sentence(out, 0, width, &format!("Delivery {} (#{})", row.delivery, row.row))?;
    let body = story.body_bytes.map_or_else(|| "no body kept".to_owned(), |bytes| format!("{bytes} bytes"));
    let facts = [
        ("event", row.event.clone()),
        ("source", format!("{} ({})", row.source, row.provider)),
        ("received", time(row.received_at)),
        ("recorded", time(story.recorded_at)),
        ("verified by", story.secret.clone()),
        ("body", format!("{}, {body}", story.media_type)),
        ("came", flags(row).unwrap_or_else(|| "once".to_owned())),
    ];
    for (what, fact) in facts {
        writeln!(out, "  {what:<11}  {}", plain(&fact))?;
    }
    let reason = row.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    sentence(out, 2, width, &format!("{:<11}  {}{reason}", "outcome", row.outcome))?;

    if !story.changes.is_empty() {
        writeln!(out, "\nWhat it told")?;
        let mut table = Table::new(&["CHANGE", "ACCOUNT", "SCOPE", "HAPPENED"]);
        for change in &story.changes {
            let account = change.account.as_ref().map_or_else(|| "-".to_owned(), account_text);
            let scope = change.scope.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            table.row([change.change.clone(), account, scope, time(change.event_time)], "");
        }
        table.write(out, 2, width)?;
    }
    if !story.effects.is_empty() {
        writeln!(out, "\nWhat it did")?;
        let mut table = Table::new(&["ACCOUNT", "CONNECTION", "EFFECT"]);
        for effect in &story.effects {
            let connection = effect.connection.clone().unwrap_or_else(|| "-".to_owned());
            table.row([account_text(&effect.account), connection, effect.effect.to_string()], &why(effect));
        }
        table.write(out, 2, width)?;
    }
    writeln!(out, "\nWhat became of it")?;
    let mut table = Table::new(&["SINCE", "OUTCOME"]);
    for line in &story.history {
        table.row([time(line.at), line.outcome.to_string()], line.reason.as_deref().unwrap_or_default());
    }
    table.write(out, 2, width)?;
    if !story.replayed_by.is_empty() {
        writeln!(out, "\nReplays")?;
        let mut table = Table::new(&["STARTED", "BY", "OUTCOME BEFORE", "RECORDED AGAIN"]);
        for replay in &story.replayed_by {
            let cells = [
                replay.started_at.map_or_else(|| "elsewhere".to_owned(), time),
                replay.started_by.clone().unwrap_or_else(|| "-".to_owned()),
                replay.before.map_or_else(|| "-".to_owned(), |before| before.to_string()),
                replay.recorded_at.map_or_else(|| "not yet".to_owned(), time),
            ];
            table.row(cells, &replay.replay);
        }
        table.write(out, 2, width)?;
    }
    if !story.attempts.is_empty() {
        writeln!(out, "\nCalls since then")?;
        calls(&story.attempts).write(out, 2, width)?;
    }
    Ok(())
}

/// Why an effect is what it is, and the delivery that won if another one did.
pub(super) fn why(effect: &EffectRow) -> String {
    let winner = effect.superseded_by.as_ref().map(won);
    [winner, effect.reason.clone()].into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// The delivery that won.
pub(super) fn won(winner: &Winner) -> String {
    format!("superseded by #{} ({})", winner.row, winner.delivery)
}
