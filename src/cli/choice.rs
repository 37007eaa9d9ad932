//! The options that choose deliveries, the same wherever deliveries are chosen.

use std::str::FromStr;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::access::{AccountPattern, RootPattern};
use crate::delivery::{InvalidName, Timestamp};
use crate::ledger::outcome::Outcome;
use crate::ledger::show::deliveries::DeliveryName;
use crate::ledger::show::filter::DeliveryFilter;
use crate::provider::REGISTRY;

/// Which deliveries. Several options narrow the choice; an option given twice widens it where it can be.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which deliveries")]
pub(super) struct ChoiceArgs {
    /// Only those with this outcome; may be given several times
    #[arg(long, value_parser = outcomes())]
    outcome: Vec<Outcome>,
    /// Only those of this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Only those of this provider
    #[arg(long, value_parser = PossibleValuesParser::new(REGISTRY.iter().map(|provider| provider.name)), hide_possible_values = true)]
    provider: Option<String>,
    /// Only those of this event: organization.member_added, or organization for all of its actions
    #[arg(long)]
    event: Option<String>,
    /// Only those that did something to this account: octocat, github:octocat, github:#583231
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<AccountPattern>,
    /// Only those that told of this scope or one in it: org:acme, repo:acme/web, team:#42
    #[arg(long, value_name = "SCOPE")]
    scope: Option<RootPattern>,
    /// Only this one: the provider's id, or # and its row; may be given several times
    #[arg(long = "delivery", value_name = "ID")]
    names: Vec<DeliveryName>,
    /// Only those received since then: 90m, 7d, or 2026-11-24T08:00:00Z
    #[arg(long, value_name = "DURATION|TIME")]
    since: Option<When>,
    /// Only those received before then
    #[arg(long, value_name = "DURATION|TIME")]
    until: Option<When>,
    /// Only those with this text in the reason of their outcome
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl ChoiceArgs {
    /// What is chosen, by that time.
    pub(super) fn filter(&self, now: Timestamp) -> DeliveryFilter {
        DeliveryFilter {
            outcomes: self.outcome.clone(),
            source: self.source.clone(),
            provider: self.provider.clone(),
            event: self.event.clone(),
            account: self.account.clone(),
            scope: self.scope.clone(),
            names: self.names.clone(),
            since: self.since.map(|since| since.from(now)),
            until: self.until.map(|until| until.from(now)),
            reason: self.reason.clone(),
        }
    }
}

fn outcomes() -> impl TypedValueParser<Value = Outcome> {
    PossibleValuesParser::new(Outcome::ALL.map(|outcome| PossibleValue::new(outcome.as_str()).help(outcome.meaning())))
        .try_map(|text| text.parse::<Outcome>())
}

/// A point in time, as people give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Ago(Duration),
    At(Timestamp),
}

impl FromStr for When {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        humantime::parse_duration(text).map(Self::Ago).or_else(|_| text.parse().map(Self::At)).map_err(
            |_: InvalidName| InvalidName {
                what: "time",
                why: "must be a duration like 90m or 7d, or a time like 2026-11-24T08:00:00Z",
            },
        )
    }
}

impl When {
    /// The time that is meant, by that time.
    pub(super) fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(ago) => now.plus_micros(i64::try_from(ago.as_micros()).map_or(i64::MIN, |ago| -ago)),
            Self::At(at) => at,
        }
    }
}
