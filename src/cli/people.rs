//! `rollcall people`: whose accounts are, and how an operator says it.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::exit::Misuse;
use super::table::{Table, Width, json, plain, sentence, time};
use super::words::pattern_text;
use super::{Exit, Place};
use crate::access::AccountPattern;
use crate::config::Settings;
use crate::ledger::Ledger;
use crate::ledger::people::{Heard, News, Taking, Unheard, Word};
use crate::ledger::show::people::{PeopleCursor, PeopleFilter, PeopleRow};
use crate::people::file;
use crate::provider::REGISTRY;
use crate::target::{ConnectionRef, PersonFrom, PersonRef};

mod suggest;

const EXAMPLES: &str = "\
What an operator says wins over people.csv and over e-mail addresses, and is \
kept in the ledger with who and when. A worker that runs reconciles it at once.

Examples:
  rollcall people list --from none           of whom nobody knows whose they are
  rollcall people suggest                    whose those might be
  rollcall people link github:octocat ada@acme.example
  rollcall people link 'github:#583231' user:518
  rollcall people unlink github:octocat      it is nobody's
  rollcall people import people.csv --dry-run
  rollcall people export > people.csv";

/// Say whose accounts are, and see from where that is known
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List accounts, the person of each, and from where that is known
    #[command(after_help = LIST)]
    List(ListArgs),
    /// Say that an account is a person's; overrides every other way to know it, and a link to somebody else at Drata
    #[command(after_help = LINK)]
    Link {
        /// The account: octocat, github:octocat, github:#583231, github@git.acme.example:octocat
        #[arg(value_name = "ACCOUNT")]
        account: AccountPattern,
        /// The person: an e-mail address, or user:518 with Drata's user id (not the personnel id)
        #[arg(value_name = "PERSON")]
        person: PersonRef,
        /// Write a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say that an account is nobody's: it is unlinked, and isn't linked again until somebody says whose it is
    Unlink {
        /// The account: octocat, github:octocat, github:#583231, github@git.acme.example:octocat
        #[arg(value_name = "ACCOUNT")]
        account: AccountPattern,
        /// Write a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say it for every row of a file: all of them, or none if anything is wrong
    #[command(after_help = IMPORT)]
    Import {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Only show what it would change
        #[arg(long)]
        dry_run: bool,
        /// Write a JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        width: Width,
    },
    /// Suggest whose the accounts might be of which nobody knows it; nothing is linked by that
    #[command(after_help = suggest::HELP)]
    Suggest(suggest::Args),
    /// Write what operators have said as CSV that `rollcall people import` reads
    #[command(
        after_help = "What people.csv and e-mail addresses say isn't part of it: `rollcall people list` shows that, too. What a \
                      spreadsheet would take for a formula has an apostrophe before it, which `rollcall people import` takes away."
    )]
    Export,
}

const LINK: &str = "\
An account that no delivery has spoken of yet can be linked in advance: github:#583231 by its stable id, or github:octocat, \
which then means the first account that is seen with that login.";

const LIST: &str = "\
With --json: an array of objects with account, login, connection, person, from (operator, people_file, event_email, \
identity_email, platform, or null), operator, said_at, state, reason and after (its place, for --after).";

const IMPORT: &str = "\
The file is CSV as people.csv: the header account,person, then a row for each account with an e-mail address, user:518, or \
nobody; at most 100,000 rows and 16 MiB. What operators have said of other accounts stays.

With --json: an array of objects with account, login, known, person and news ({\"is\": \"added\" | \"changed\" | \"left\"}).";

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only this account: octocat, github:octocat, github:#583231
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<AccountPattern>,
    /// Only accounts of this provider
    #[arg(long, value_parser = PossibleValuesParser::new(REGISTRY.iter().map(|provider| provider.name)), hide_possible_values = true)]
    provider: Option<String>,
    /// Only accounts of this connection: its id, or its client type where the configuration names no id
    #[arg(long, value_name = "CONNECTION")]
    connection: Option<ConnectionRef>,
    /// Only accounts of this person: an e-mail address that was given for it, or user:518
    #[arg(long, value_name = "PERSON")]
    person: Option<PersonRef>,
    /// Only accounts of which the person is known from there
    #[arg(long, value_parser = origins())]
    from: Option<Origin>,
    /// How many to show at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..))]
    limit: i64,
    /// Go on behind this place, as the page before has given it out
    #[arg(long, value_name = "PLACE")]
    after: Option<PeopleCursor>,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

/// Where a person is known from, or that it isn't.
#[derive(Clone, Copy, Debug)]
enum Origin {
    From(PersonFrom),
    None,
}

fn origins() -> impl TypedValueParser<Value = Origin> {
    let known = PersonFrom::ALL.map(|from| PossibleValue::new(from.as_str()).help(from.meaning()));
    let none = PossibleValue::new("none").help("nobody is known whose it is");
    PossibleValuesParser::new(known.into_iter().chain([none]))
        .map(|word| PersonFrom::named(&word).map_or(Origin::None, Origin::From))
}

pub(super) async fn run(args: Args, place: &Place, out: &mut (dyn Write + Send)) -> anyhow::Result<Exit> {
    let settings = place.settings()?;
    let operator = place.operator();
    // A file is judged before the ledger is asked.
    let rows = match &args.command {
        Command::Import { file, .. } => file::read(file).map_err(|error| Misuse(error.to_string()))?,
        _ => Vec::new(),
    };
    let ledger = place.ledger(&settings).await?;
    match args.command {
        Command::List(args) => list(&args, &ledger, out).await?,
        Command::Link { account, person, json } => {
            say(&settings, &ledger, Word { account, person: Some(person) }, &operator, json, out).await?;
        }
        Command::Unlink { account, json } => {
            say(&settings, &ledger, Word { account, person: None }, &operator, json, out).await?;
        }
        Command::Import { file, dry_run, json: as_json, width } => {
            let taking = if dry_run { Taking::Rehearsed } else { Taking::Once };
            let words: Vec<Word> = rows
                .iter()
                .map(|row| Word { account: placed(&settings, row.account.clone()), person: row.person.clone() })
                .collect();
            let heard = ledger.hear(&words, &operator, taking).await?.map_err(|unheard| {
                Misuse(blamed(&file, unheard.into_iter().map(|(n, why)| (rows.get(n).map_or(0, |row| row.line), why))))
            })?;
            if as_json { json(out, &heard)? } else { imported(&heard, dry_run, width, out)? }
        }
        Command::Suggest(args) => suggest::run(&args, &settings, place, &ledger, out).await?,
        Command::Export => {
            let said = ledger.said().await?;
            file::write(said.iter().map(|said| (said.account.as_str(), said.person.as_ref())), out)?;
        }
    }
    Ok(Exit::Done)
}

/// Every line that is wrong, on a line of its own.
fn blamed(file: &Path, unheard: impl Iterator<Item = (u64, Unheard)>) -> String {
    unheard.map(|(line, why)| format!("{}:{line}: {why}", file.display())).collect::<Vec<_>>().join("\n")
}

/// An account that nobody has seen is where the configuration says: on the host of the provider's only source, or on the
/// provider's public host if there is no source of it.
fn placed(settings: &Settings, mut account: AccountPattern) -> AccountPattern {
    if let (Some(provider), None) = (&account.provider, &account.host) {
        let of = settings.sources.iter().filter(|source| source.provider.name == provider);
        let mut hosts: Vec<&str> = of.map(|source| source.settings.host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        account.host = match hosts.as_slice() {
            [] => crate::provider::find(provider).and_then(|provider| provider.default_host).map(ToOwned::to_owned),
            [only] => Some((*only).to_owned()),
            _ => None,
        };
    }
    account
}

async fn say(
    settings: &Settings,
    ledger: &Ledger,
    word: Word,
    operator: &str,
    as_json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    // As it was typed it may name an account on any host; only one that nobody has seen needs a place.
    let mut heard = ledger.hear(std::slice::from_ref(&word), operator, Taking::Anew).await?;
    if matches!(heard.as_ref().map_err(Vec::as_slice), Err([(_, Unheard::Nowhere(_))])) {
        let account = placed(settings, word.account);
        heard = ledger.hear(&[Word { account, person: word.person }], operator, Taking::Anew).await?;
    }
    let heard = heard.map_err(|unheard| {
        Misuse(unheard.into_iter().map(|(_, why)| why.to_string()).collect::<Vec<_>>().join("\n"))
    })?;
    for heard in &heard {
        if as_json {
            json(out, heard)?;
        } else {
            writeln!(out, "{}", plain(&told(heard)))?;
        }
    }
    Ok(())
}

/// What was said, and what becomes of it.
fn told(heard: &Heard) -> String {
    let name = name(heard);
    let whose = heard.person.as_ref().map_or_else(|| "nobody's".to_owned(), |person| format!("{person}'s"));
    let before = match &heard.news {
        News::Added => String::new(),
        News::Changed { before } => format!(" (before: {})", person_text(before.as_ref())),
        News::Left => " (as was said before)".to_owned(),
    };
    let next = if heard.known {
        "A worker reconciles it at once."
    } else {
        "No delivery has spoken of it yet: it takes effect when one does."
    };
    format!("{name} is {whose}{before}. {next}")
}

fn name(heard: &Heard) -> String {
    let key = pattern_text(&heard.account);
    heard.login.as_ref().map_or_else(|| key.clone(), |login| format!("{login} ({key})"))
}

fn person_text(person: Option<&PersonRef>) -> String {
    person.map_or_else(|| file::NOBODY.to_owned(), ToString::to_string)
}

fn imported(heard: &[Heard], dry_run: bool, width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    let of = |is: fn(&News) -> bool| heard.iter().filter(|heard| is(&heard.news)).count();
    let added = of(|news| *news == News::Added);
    let changed = of(|news| matches!(news, News::Changed { .. }));
    let left = of(|news| *news == News::Left);
    if added + changed > 0 {
        let mut table = Table::new(&["", "ACCOUNT", "PERSON"]);
        for heard in heard.iter().filter(|heard| heard.news != News::Left) {
            let (what, note) = match &heard.news {
                News::Changed { before } => ("changed", format!("before: {}", person_text(before.as_ref()))),
                _ => ("added", String::new()),
            };
            let note = if heard.known { note } else { "no delivery has spoken of it yet".to_owned() };
            table.row([what.to_owned(), name(heard), person_text(heard.person.as_ref())], &note);
        }
        table.write(out, 0, width)?;
        writeln!(out)?;
    }
    let would = if dry_run { "This would be: " } else { "" };
    Ok(writeln!(out, "{would}{added} added, {changed} changed, {left} left as they are.")?)
}

async fn list(args: &ListArgs, ledger: &Ledger, out: &mut dyn Write) -> anyhow::Result<()> {
    let filter = PeopleFilter {
        account: args.account.clone(),
        provider: args.provider.clone(),
        connection: args.connection.clone(),
        person: args.person.clone(),
        from: match args.from {
            Some(Origin::From(from)) => Some(from),
            _ => None,
        },
        unknown: matches!(args.from, Some(Origin::None)),
    };
    let rows = ledger.people(&filter, args.after, args.limit).await?;
    if args.json {
        return json(out, &rows);
    }
    if rows.is_empty() {
        return Ok(writeln!(out, "No such accounts.")?);
    }
    let mut table = Table::new(&["ACCOUNT", "LOGIN", "CONNECTION", "PERSON", "FROM"]);
    for row in &rows {
        let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let cells = [
            pattern_text(&row.account),
            or_none(row.login.as_deref()),
            or_none(row.connection.as_deref()),
            or_none(row.person.as_deref()),
            or_none(row.from.map(PersonFrom::as_str)),
        ];
        table.row(cells, &note(row));
    }
    table.write(out, 0, args.width)?;
    if let Some(last) = rows.last().filter(|_| i64::try_from(rows.len()).is_ok_and(|count| count == args.limit)) {
        writeln!(out)?;
        let more = format!("{} shown; --after {} goes on, --limit shows more at once.", rows.len(), last.place);
        sentence(out, 0, args.width, &more)?;
    }
    Ok(())
}

/// Who said it, and what is missing.
fn note(row: &PeopleRow) -> String {
    let said = row.operator.as_ref().zip(row.said_at).map(|(operator, at)| format!("{operator} on {}", time(at)));
    let why = row.reason.clone().filter(|_| row.person.is_none());
    [said, why].into_iter().flatten().collect::<Vec<_>>().join(" · ")
}
