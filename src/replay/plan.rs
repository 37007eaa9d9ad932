//! The flight plan of a replay: how many deliveries, of whom, from when; what each would change now; how long it takes.
//!
//! The sums are exact and come from the ledger. Deliveries are also read again with this version's interpreters and this
//! configuration, up to [`READ_AGAIN`]: first those that couldn't be understood when they were recorded, then the others,
//! to find out whether they would mean something else now.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ReplayError;
use super::pace::Rate;
use crate::access::{Change, ChangeKey};
use crate::delivery::{Delivery, Timestamp};
use crate::ledger::Ledger;
use crate::ledger::record::{Reading, placed_at};
use crate::ledger::show::deliveries::DeliveryName;
use crate::ledger::show::filter::DeliveryFilter;
use crate::ledger::show::outlook::{Fate, Outlook, Told};
use crate::worker::Reader;

/// How many deliveries a plan reads again at the most. The sums are of all of them.
pub const READ_AGAIN: i64 = 500;
/// How many bodies are held at a time.
const PAGE: usize = 200;

/// What a replay would do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The sums, corrected by what was found out by reading again.
    #[serde(flatten)]
    pub outlook: Outlook,
    /// How many were read again for it.
    pub read_again: i64,
    /// The rate.
    pub rate: String,
    /// How long it takes at that rate, in seconds; null if the rate isn't limited.
    pub seconds: Option<f64>,
    /// The deliveries that were read again, and what would become of each.
    pub flights: Vec<Flight>,
}

/// One delivery of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flight {
    /// Its row.
    pub row: i64,
    /// The source.
    pub source: String,
    /// The provider's id of it.
    pub delivery: String,
    /// The event and action.
    pub event: String,
    /// When it was received.
    pub received_at: Timestamp,
    /// What would become of it.
    pub fate: Fate,
    /// What it tells, or why it tells nothing, as it is read now.
    pub reading: String,
}

/// Plans a replay of what a filter chooses.
///
/// # Errors
/// If the ledger fails.
pub async fn plan(ledger: &Ledger, reader: &Reader, filter: &DeliveryFilter, rate: Rate) -> Result<Plan, ReplayError> {
    let mut outlook = ledger.outlook(filter).await?;
    let mut flights = Vec::new();
    let fates = ledger.fates(filter, READ_AGAIN).await?;
    for part in fates.chunks(PAGE) {
        let known: BTreeMap<i64, Fate> = part.iter().copied().collect();
        let names = known.keys().map(|row| DeliveryName::Row(*row)).collect();
        let only = DeliveryFilter { names, ..DeliveryFilter::default() };
        let mut after = 0;
        loop {
            let page = ledger.kept_page(&only, after, PAGE as i64).await?;
            let (Some((first, _)), Some((last, _))) = (page.first(), page.last()) else { break };
            let told = ledger.told(*first, *last).await?;
            after = *last;
            for (row, delivery) in page {
                let Some(recorded) = known.get(&row).copied() else { continue };
                let told = told.get(&row).map(Vec::as_slice).unwrap_or_default();
                let (fate, reading) = weigh(ledger, reader, &delivery, recorded, told).await?;
                if fate != recorded {
                    *outlook.fates.entry(recorded).or_default() -= 1;
                    *outlook.fates.entry(fate).or_default() += 1;
                }
                flights.push(Flight {
                    row,
                    source: delivery.source.to_string(),
                    delivery: delivery.id.to_string(),
                    event: delivery.event.to_string(),
                    received_at: delivery.received_at,
                    fate,
                    reading,
                });
            }
        }
    }
    outlook.fates.retain(|_, count| *count > 0);
    flights.sort_by_key(|flight| (flight.fate, flight.row));
    Ok(Plan {
        seconds: rate.duration(outlook.deliveries).map(|took| took.as_secs_f64()),
        read_again: i64::try_from(flights.len()).unwrap_or(i64::MAX),
        rate: rate.to_string(),
        outlook,
        flights,
    })
}

/// What would become of a delivery, and what it tells as it is read now.
async fn weigh(
    ledger: &Ledger,
    reader: &Reader,
    delivery: &Delivery,
    recorded: Fate,
    told: &[Told],
) -> Result<(Fate, String), ReplayError> {
    let (changes, when, note) = match reader.read(delivery) {
        Reading::Parked(why) => return Ok((if told.is_empty() { Fate::Parked } else { Fate::Otherwise }, why)),
        Reading::Ignored(why) => {
            let as_before = told.is_empty() && matches!(recorded, Fate::Unread | Fate::Ignored | Fate::Nothing);
            return Ok((if as_before { Fate::Ignored } else { Fate::Otherwise }, why));
        }
        Reading::Told { changes, when, note } => (changes, when, note),
    };
    let mut tells: Vec<String> = changes.iter().map(|placed| shown(&placed.change)).collect();
    tells.extend(note.filter(|_| changes.is_empty()));
    let mut reading = tells.join(", ");
    if recorded == Fate::Held {
        return Ok((recorded, reading));
    }
    if recorded == Fate::Unread && told.is_empty() {
        let mut latest = false;
        for placed in &changes {
            let (event_time, turn) = placed_at(delivery, &when, delivery.received_at);
            let key = ChangeKey {
                turn: placed.turn.unwrap_or(turn),
                event_time,
                received_at: delivery.received_at,
                loss: placed.change.is_loss(),
                source: delivery.source.clone(),
                delivery: delivery.id.clone(),
            };
            latest |= ledger.is_latest(placed, &key).await?;
        }
        if !latest {
            reading.push_str(" (a newer change of the same access is known)");
        }
        return Ok((Fate::Understood, reading));
    }
    let now: Vec<Told> = changes.iter().map(|placed| Told::of(&placed.change)).collect();
    Ok((if now == told { recorded } else { Fate::Otherwise }, reading))
}

/// A change in a few words: `gained octocat org:acme`.
fn shown(change: &Change) -> String {
    let mut words = vec![change.as_str().to_owned()];
    if let Change::Access { account, .. } | Change::Renamed { account } = change {
        words.push(account.login.clone().unwrap_or_else(|| format!("#{}", account.key.id)));
    }
    if let Some(scope) = change.scope() {
        words.push(match &scope.name {
            Some(name) => format!("{}:{name}", scope.id.kind.as_str()),
            None => scope.id.to_string(),
        });
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::access::RootPattern;
    use crate::delivery::SecretName;
    use crate::ledger::database::Database;
    use crate::ledger::record::{Entry, Record};
    use crate::ledger::trial::Trial;
    use crate::provider::{self, Invention, Secret, SourceSettings};
    use crate::target::ConnectionRef;
    use crate::worker::{Connections, WorkerSource};

    fn settings() -> SourceSettings {
        SourceSettings {
            name: "acme-github".parse().unwrap(),
            host: "github.com".to_owned(),
            roots: Vec::new(),
            sightings: false,
            verify: None,
            header: None,
            own: toml::Table::new(),
        }
    }

    fn reader(roots: &[&str]) -> Reader {
        let roots: Vec<RootPattern> = roots.iter().map(|root| root.parse().unwrap()).collect();
        let source = WorkerSource {
            provider: "github",
            host: "github.com".to_owned(),
            interpreter: (provider::find("github").unwrap().interpreter)(&settings()).unwrap(),
            roots,
            connections: Connections::One(ConnectionRef::Id(12)),
            mass_change_limit: 50,
        };
        Reader::new(BTreeMap::from([("acme-github".parse().unwrap(), source)]))
    }

    fn delivery(id: &str, action: &str, second: i64) -> Delivery {
        let secret = Secret { name: SecretName("env:HOOK".into()), value: "a test's secret".into() };
        let signer = (provider::find("github").unwrap().signer)(&settings(), secret).unwrap();
        let event = format!("organization.{action}");
        let draft = signer
            .invent(&Invention {
                id: Some(id.to_owned()),
                event: event.clone(),
                login: "octocat".to_owned(),
                account_id: "583231".to_owned(),
                root: "acme".to_owned(),
                root_id: "1".to_owned(),
                part: None,
                part_id: None,
            })
            .unwrap();
        Delivery {
            source: "acme-github".parse().unwrap(),
            provider: "github".to_owned(),
            id: id.parse().unwrap(),
            event: event.parse().unwrap(),
            received_at: Timestamp(1_795_507_200_000_000 + second * 1_000_000),
            secret: SecretName("env:HOOK".into()),
            stamp: None,
            replay: Some(Uuid::nil()),
            body: draft.json.into(),
        }
    }

    async fn record(ledger: &Ledger, delivery: Delivery, reading: Reading) {
        let entry = Entry { delivery, reading, approved: false };
        ledger.record(&[Record::Delivery(Box::new(entry))]).await.unwrap();
    }

    #[tokio::test]
    async fn what_could_not_be_understood_is_read_again_and_weighed_against_what_is_known() {
        let trial = Trial::open(Database::Sqlite).await;
        let parked = || Reading::Parked("no source acme-github is configured".to_owned());
        record(&trial.ledger, delivery("early", "member_added", 1), parked()).await;
        record(&trial.ledger, delivery("late", "member_removed", 9), parked()).await;
        let join = delivery("join", "member_added", 5);
        let reader_now = reader(&["org:acme"]);
        record(&trial.ledger, join.clone(), reader_now.read(&join)).await;
        let rate = Rate::PerSecond(2.0);
        let plan_now = plan(&trial.ledger, &reader_now, &DeliveryFilter::default(), rate).await.unwrap();
        let flights: Vec<_> = plan_now
            .flights
            .iter()
            .map(|flight| (flight.delivery.as_str(), flight.fate, flight.reading.as_str()))
            .collect();
        assert_eq!(
            flights,
            [
                ("early", Fate::Understood, "gained octocat org:acme (a newer change of the same access is known)"),
                ("late", Fate::Understood, "lost octocat org:acme"),
                ("join", Fate::Retried, "gained octocat org:acme"),
            ]
        );
        assert_eq!(plan_now.outlook.fates, BTreeMap::from([(Fate::Understood, 2), (Fate::Retried, 1)]));
        assert_eq!((plan_now.read_again, plan_now.seconds), (3, Some(1.5)));

        // With other roots the same deliveries would be somebody else's.
        let elsewhere = plan(&trial.ledger, &reader(&["org:other"]), &DeliveryFilter::default(), rate).await.unwrap();
        assert_eq!(elsewhere.outlook.fates, BTreeMap::from([(Fate::Otherwise, 1), (Fate::Ignored, 2)]));
        assert!(elsewhere.flights[0].reading.contains("org:acme is outside the scopes"));
        let nobody =
            plan(&trial.ledger, &Reader::new(BTreeMap::new()), &DeliveryFilter::default(), rate).await.unwrap();
        assert_eq!(nobody.outlook.fates, BTreeMap::from([(Fate::Otherwise, 1), (Fate::Parked, 2)]));
    }
}
