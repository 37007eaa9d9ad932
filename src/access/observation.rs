//! What a roster showed and the ledger didn't know. It enters the ledger as a delivery of rollcall's own making, so that
//! everything that holds for deliveries holds for it: it has its place in the order, can be read again, and is found by
//! whoever asks why an account is as it is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{AccessKind, Account, Change, Scope, Turn};
use crate::delivery::{Delivery, InvalidName, SecretName, SourceName, Timestamp};

/// The event of such a delivery.
pub const EVENT: &str = "rollcall.roster";

/// Where the name of a secret stands in other deliveries. An ingress only ever writes down where a secret comes from, so no
/// request can pass itself off as an observation, whatever it calls its event.
const MADE_HERE: &str = "rollcall:roster";

/// Differences between a roster and the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The time from which on they count: the reading's start, less what a roster may lag behind the events.
    pub at: Timestamp,
    /// The roster, for people: `org:acme`.
    pub roster: String,
    /// When they were seen for the first time; none for whom the ledger had never heard of.
    pub first_seen_at: Option<Timestamp>,
    /// The differences.
    pub observations: Vec<Observation>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The account.
    pub account: Account,
    /// What its access is to.
    pub scope: Scope,
    /// Gained or lost.
    pub access: AccessKind,
    /// In which role, for people.
    pub role: Option<String>,
    /// Its place in the order.
    pub turn: Turn,
}

impl Observation {
    /// The change that it is.
    #[must_use]
    pub fn change(&self) -> Change {
        Change::Access { account: self.account.clone(), scope: self.scope.clone(), kind: self.access }
    }
}

impl Observed {
    /// The delivery that tells it.
    ///
    /// # Errors
    /// If an id can't be written down, which can't be.
    pub fn delivery(
        &self,
        source: SourceName,
        provider: &str,
        id: Uuid,
        received_at: Timestamp,
    ) -> Result<Delivery, InvalidName> {
        let body = serde_json::to_vec(self).map_err(|_| InvalidName { what: "observation", why: "isn't JSON" })?;
        Ok(Delivery {
            source,
            provider: provider.to_owned(),
            id: format!("roster-{id}").parse()?,
            event: EVENT.parse()?,
            received_at,
            secret: SecretName(MADE_HERE.into()),
            stamp: None,
            replay: None,
            body: Bytes::from(body),
        })
    }

    /// What a delivery observed, if it is one of rollcall's own; what is wrong with it, if it can't be read.
    #[must_use]
    pub fn of(delivery: &Delivery) -> Option<Result<Self, String>> {
        is_own(delivery).then(|| {
            serde_json::from_slice(&delivery.body)
                .map_err(|_| "it isn't an observation that this version can read".to_owned())
        })
    }

    /// What people should know of it.
    #[must_use]
    pub fn note(&self) -> String {
        let role = match self.observations.as_slice() {
            [Observation { role: Some(role), access: AccessKind::Gained, .. }] => format!(", as {role}"),
            _ => String::new(),
        };
        format!("the roster of {}{role}", self.roster)
    }
}

/// Whether a delivery is one of rollcall's own, which no provider has signed.
#[must_use]
pub fn is_own(delivery: &Delivery) -> bool {
    is_made_here(&delivery.secret.0)
}

/// Whether that stands where the name of a secret stands in rollcall's own.
#[must_use]
pub fn is_made_here(secret: &str) -> bool {
    secret == MADE_HERE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{AccountKey, AccountKind, ScopeKind, Step};

    fn observed() -> Observed {
        let key = AccountKey { provider: "gitlab".into(), host: "gitlab.com".into(), id: "71".into() };
        let account =
            Account { key, node_id: None, login: Some("rosalind".into()), email: None, kind: AccountKind::Person };
        let scope = Scope::top(ScopeKind::Group, "42", None).part(ScopeKind::Repo, "9", Some("acme/website".into()));
        let turn = Turn::Of { began: Timestamp(1_700_000_000_000_001), step: Step::Ended };
        Observed {
            at: Timestamp(1_800_000_000_000_003),
            roster: "group:acme".into(),
            first_seen_at: None,
            observations: vec![Observation { account, scope, access: AccessKind::Lost, role: None, turn }],
        }
    }

    #[test]
    fn an_observation_is_read_back_from_its_delivery_to_the_microsecond() {
        let observed = observed();
        let delivery = observed.delivery("acme".parse().unwrap(), "gitlab", Uuid::nil(), Timestamp(5)).unwrap();
        assert_eq!(Observed::of(&delivery), Some(Ok(observed)));
        // The id is nobody's time.
        assert_eq!(delivery.id.time(), None);
    }

    #[test]
    fn what_came_in_by_http_is_no_observation_whatever_it_calls_itself() {
        let mut delivery = observed().delivery("acme".parse().unwrap(), "gitlab", Uuid::nil(), Timestamp(5)).unwrap();
        delivery.secret = SecretName("env:GITLAB_SECRET".into());
        assert_eq!(Observed::of(&delivery), None);
        delivery.secret = SecretName(MADE_HERE.into());
        delivery.body = Bytes::from_static(b"{\"action\":\"member_added\"}");
        assert!(matches!(Observed::of(&delivery), Some(Err(_))));
    }
}
