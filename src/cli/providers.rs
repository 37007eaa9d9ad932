//! `rollcall providers`: the kinds of Git host that rollcall speaks, and what their events mean.

use std::io::Write;

use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::table::{Table, Width, json};
use crate::provider::{Description, REGISTRY};

const EXAMPLES: &str = "\
Examples:
  rollcall providers               all of them, and how each authenticates its deliveries
  rollcall providers github        what each of GitHub's events means
  rollcall providers github --json

With --json: an array of objects with name, title, verification, default_host, hooks (what to switch on at the provider,
where that isn't called as the events are), rosters (whether its API tells who has access), invents (the events that
`rollcall send` can make up) and events, which are objects with event, change and meaning.";

/// List the Git providers, how each authenticates its deliveries, and what its events mean
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only this provider, with its table of events
    #[arg(value_parser = PossibleValuesParser::new(REGISTRY.iter().map(|provider| provider.name)))]
    name: Option<String>,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    width: Width,
}

#[derive(Serialize)]
struct ProviderRow {
    name: &'static str,
    title: &'static str,
    verification: &'static str,
    default_host: Option<&'static str>,
    hooks: &'static [&'static str],
    rosters: bool,
    invents: &'static [&'static str],
    events: Vec<EventLine>,
}

#[derive(Serialize)]
struct EventLine {
    event: &'static str,
    change: &'static str,
    meaning: &'static str,
}

impl From<&Description> for ProviderRow {
    fn from(provider: &Description) -> Self {
        let events = provider.events.iter();
        Self {
            name: provider.name,
            title: provider.title,
            verification: provider.verification,
            default_host: provider.default_host,
            hooks: provider.hooks,
            rosters: provider.roster.is_some(),
            invents: provider.invents,
            events: events
                .map(|row| EventLine { event: row.event, change: row.change, meaning: row.meaning })
                .collect(),
        }
    }
}

/// Lists providers, or one provider's events.
///
/// # Errors
/// If `out` fails.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<()> {
    let chosen = |provider: &&&Description| args.name.as_ref().is_none_or(|name| name == provider.name);
    let providers: Vec<ProviderRow> = REGISTRY.iter().filter(chosen).map(|provider| (*provider).into()).collect();
    if args.json {
        return json(out, &providers);
    }
    let mut table = Table::new(&["NAME", "TITLE", "EVENTS", "VERIFICATION"]);
    for provider in &providers {
        let events = provider.events.len().to_string();
        table.row([provider.name.to_owned(), provider.title.to_owned(), events, provider.verification.to_owned()], "");
    }
    table.write(out, 0, args.width)?;
    if args.name.is_some() {
        for provider in &providers {
            let host = provider.default_host.unwrap_or("has to be named by each source");
            writeln!(out, "\nHost: {host}")?;
            if !provider.hooks.is_empty() {
                writeln!(out, "Switch on there: {}", provider.hooks.join("; "))?;
            }
            let rosters = if provider.rosters { "read with an api_token" } else { "none that rollcall reads" };
            writeln!(out, "Rosters of who has access: {rosters}")?;
            writeln!(out, "rollcall send can make up: {}", provider.invents.join(", "))?;
            writeln!(out, "\nWhat its events mean (* is anything, - is no change, an event that isn't here is none)")?;
            let mut table = Table::new(&["EVENT", "CHANGE", "MEANING"]);
            for row in &provider.events {
                table.row([row.event.to_owned(), row.change.to_owned(), row.meaning.to_owned()], "");
            }
            table.write(out, 2, args.width)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn written(line: &[&str]) -> String {
        let line = Line::try_parse_from([&["providers"], line].concat()).unwrap();
        let mut out = Vec::new();
        run(&line.args, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_provider_and_every_event_is_listed() {
        let all = written(&[]);
        assert!(REGISTRY.iter().all(|provider| all.contains(provider.title)));
        for provider in REGISTRY {
            let one = written(&[provider.name]);
            assert!(provider.events.iter().all(|row| one.contains(row.meaning)));
            assert!(provider.invents.iter().chain(provider.hooks).all(|text| one.contains(text)), "{one}");
        }
    }

    #[test]
    fn json_is_an_array_with_the_same() {
        let all: serde_json::Value = serde_json::from_str(&written(&["--json"])).unwrap();
        let all = all.as_array().unwrap();
        assert_eq!(all.len(), REGISTRY.len());
        assert_eq!(all[0]["name"], REGISTRY[0].name);
        assert_eq!(all[0]["events"].as_array().unwrap().len(), REGISTRY[0].events.len());
    }

    #[test]
    fn an_unknown_provider_is_a_usage_error_that_lists_the_known_ones() {
        let Err(error) = Line::try_parse_from(["providers", "sourceforge"]) else { panic!("it was taken") };
        assert!(error.to_string().contains("github"), "{error}");
    }
}
