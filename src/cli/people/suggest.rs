//! `rollcall people suggest`: whose accounts might be, with the commands that say so.

use std::io::Write;

use serde::Serialize;

use super::super::table::{Width, json, plain, sentence};
use super::super::words::key_text;
use super::super::{Place, serve};
use crate::access::AccountKind;
use crate::app;
use crate::config::Settings;
use crate::drata::{Client, Person};
use crate::ledger::Ledger;
use crate::ledger::show::AccountLabel;
use crate::ledger::sweep::Standing;
use crate::people::suggest::{Ownerless, Reason, suggest};
use crate::reconcile::identity;
use crate::sweep::compare::{Platform, awaits};
use crate::target::ConnectionRef;

/// How many people are suggested for one account.
const SHOWN: usize = 3;

pub(super) const HELP: &str = "\
It asks Drata for its people and identities, in pages: the key needs Personnel: List Personnel (or Users: List Users). What \
speaks for a person, the most first: e-mail addresses that begin alike, a login that is what the e-mail address begins with, \
a login that is the name, like it, or has a part of it. Whoever has left is so marked.

With --json: an array of objects with account, login, connection and suggestions (person, user, name, has_left, reason).";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only accounts of this connection: its id, or its client type where the configuration names no id
    #[arg(long, value_name = "CONNECTION")]
    connection: Option<ConnectionRef>,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    account: AccountLabel,
    connection: String,
    suggestions: Vec<Suggested>,
}

#[derive(Debug, Serialize)]
struct Suggested {
    /// As `rollcall people link` takes it.
    person: String,
    user: i64,
    name: Option<String>,
    has_left: bool,
    reason: Reason,
}

pub(super) async fn run(
    args: &Args,
    settings: &Settings,
    place: &Place,
    ledger: &Ledger,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let client = serve::client(settings, place)?;
    let policies = app::policies(&settings.sources);
    let mut rows = Vec::new();
    let mut people: Option<Vec<Person>> = None;
    for connection in policies.connections().filter(|known| args.connection.as_ref().is_none_or(|only| only == *known))
    {
        let (_, standings) = ledger.standings(connection).await?;
        let ownerless: Vec<&Standing> = standings.iter().filter(|standing| is_ownerless(standing)).collect();
        if ownerless.is_empty() {
            continue;
        }
        if people.is_none() {
            people = Some(client.people().await.map_err(|failure| super::super::asked_in_vain(&failure))?);
        }
        let people = people.as_deref().unwrap_or_default();
        let platform = platform(&client, ledger, connection).await?;
        let mut logins = ledger.logins_in(connection).await?;
        for standing in ownerless {
            if ledger.said_of(standing.account_row, &standing.account).await?.is_some() {
                continue;
            }
            let mut account = Ownerless {
                logins: logins.remove(&standing.account_row).unwrap_or_default(),
                emails: standing.account.email.clone().into_iter().collect(),
            };
            if let Some(identity) = platform.identity_of(standing) {
                account.logins.extend(identity.username);
                account.emails.extend(identity.email);
            }
            let suggestions = suggest(&account, people).into_iter().take(SHOWN).map(|suggestion| {
                let Person { id, email, name: (first, last), .. } = suggestion.person;
                let name: Vec<&str> = [first, last].into_iter().filter_map(|name| name.as_deref()).collect();
                Suggested {
                    person: email.clone().unwrap_or_else(|| format!("user:{id}")),
                    user: id.0,
                    name: Some(name.join(" ")).filter(|name| !name.is_empty()),
                    has_left: suggestion.person.has_left(),
                    reason: suggestion.reason,
                }
            });
            rows.push(Row {
                account: AccountLabel { key: standing.account.key.clone(), login: standing.account.login.clone() },
                connection: connection.to_string(),
                suggestions: suggestions.collect(),
            });
        }
    }
    // Those with the best reasons first, those without any last.
    rows.sort_by_key(|row| row.suggestions.first().map_or((true, None), |best| (false, Some(best.reason))));
    if args.json { json(out, &rows) } else { show(&rows, args.width, out) }
}

/// Whether nobody is known whose account it is, and it matters.
fn is_ownerless(standing: &Standing) -> bool {
    awaits(standing) && standing.desired.is_none() && standing.account.kind == AccountKind::Person
}

async fn platform(client: &Client, ledger: &Ledger, connection: &ConnectionRef) -> anyhow::Result<Platform> {
    let asked = |failure| super::super::asked_in_vain(&failure);
    let identities = match identity::filter(client, connection).await.map_err(asked)? {
        Ok(filter) => client.find_identities(&filter, None).await.map_err(asked)?,
        // Without them the ledger's own knowledge has to do.
        Err(_) => Vec::new(),
    };
    Ok(Platform::new(identities, ledger.identity_form(connection).await?))
}

fn show(rows: &[Row], width: Width, out: &mut dyn Write) -> anyhow::Result<()> {
    if rows.is_empty() {
        return Ok(writeln!(out, "Nobody is missing: of every account that is to be linked it is known whose it is.")?);
    }
    for (n, row) in rows.iter().enumerate() {
        if n > 0 {
            writeln!(out)?;
        }
        let key = key_text(&row.account.key);
        let login = row.account.login.as_ref().map_or_else(String::new, |login| format!("{login} "));
        sentence(out, 0, width, &format!("{login}({key})"))?;
        if row.suggestions.is_empty() {
            writeln!(
                out,
                "  nobody suggests itself; `rollcall people link '{}' PERSON` says whose it is",
                plain(&key)
            )?;
        }
        for suggested in &row.suggestions {
            let name = suggested.name.as_deref().unwrap_or(&suggested.person);
            let left = if suggested.has_left { ", who has left" } else { "" };
            sentence(out, 2, width, &format!("{name}{left}: {}", suggested.reason))?;
            writeln!(out, "    rollcall people link '{}' {}", plain(&key), plain(&suggested.person))?;
        }
    }
    Ok(())
}
