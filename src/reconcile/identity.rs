//! Which identity at the platform an account is.
//!
//! The platform keeps one of the provider's ids as its identity id; which one isn't documented, so it is learned per
//! connection from an exact match and then kept to. A login is a fallback only while no other account has ever held it
//! and nothing speaks against it. More than one match is never guessed between.

use std::collections::BTreeMap;

use crate::access::Account;
use crate::drata::{Client, Filter};
use crate::ledger::learned::IdentityForm;
use crate::ledger::view::View;
use crate::target::{ConnectionRef, Failure, Identity, IdentityRef};

/// What a look-up found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The identity; and the form of identity ids, if it was an exact match.
    One(Identity, Option<IdentityForm>),
    /// There is none (yet).
    None,
    /// It can't be told which; one sentence for people.
    Unclear(String),
}

/// The account that is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sought<'a> {
    pub(crate) account: &'a Account,
    /// Whether no other account was ever seen with its login.
    pub(crate) login_is_its_own: bool,
}

/// Looks an account up.
pub(super) async fn find(client: &Client, view: &View, pinned: Option<IdentityForm>) -> Result<Found, Failure> {
    let filter = match filter(client, &view.connection).await? {
        Ok(filter) => filter,
        Err(unclear) => return Ok(Found::Unclear(unclear)),
    };
    let sought = Sought { account: &view.account, login_is_its_own: view.login_is_its_own };
    let mut matches = Matches::default();
    for query in queries(sought.account, pinned) {
        for identity in client.find_identities(&filter, Some(&query)).await? {
            matches.add(&identity, sought, pinned);
        }
        if !matches.exact.is_empty() {
            break;
        }
    }
    Ok(matches.found())
}

/// The identities that may be an account's.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    exact: BTreeMap<IdentityRef, (Identity, IdentityForm)>,
    by_login: BTreeMap<IdentityRef, Identity>,
}

impl Matches {
    /// Takes an identity that is one, by whatever it is.
    pub(crate) fn add(&mut self, identity: &Identity, sought: Sought<'_>, pinned: Option<IdentityForm>) {
        match compare(identity, sought, pinned) {
            Some(Match::Exact(form)) => drop(self.exact.insert(identity.id, (identity.clone(), form))),
            Some(Match::Login) => drop(self.by_login.insert(identity.id, identity.clone())),
            None => {}
        }
    }

    /// Which one it is: an exact match counts more than any login.
    pub(crate) fn found(mut self) -> Found {
        if let Some((_, (identity, form))) = self.exact.pop_first() {
            return if self.exact.is_empty() {
                Found::One(identity, Some(form))
            } else {
                unclear(self.exact.len() + 1)
            };
        }
        let Some((_, identity)) = self.by_login.pop_first() else { return Found::None };
        if self.by_login.is_empty() { Found::One(identity, None) } else { unclear(self.by_login.len() + 1) }
    }
}

fn unclear(count: usize) -> Found {
    Found::Unclear(format!("{count} identities at the platform match the account; which one is it?"))
}

enum Match {
    Exact(IdentityForm),
    Login,
}

fn compare(identity: &Identity, sought: Sought<'_>, pinned: Option<IdentityForm>) -> Option<Match> {
    let account = sought.account;
    let own_login = account.login.as_deref().filter(|_| sought.login_is_its_own);
    let equals = |form| {
        let id = identity.identity_id.as_deref()?;
        let same = match form {
            IdentityForm::Id => id == account.key.id,
            IdentityForm::NodeId => account.node_id.as_deref() == Some(id),
            IdentityForm::Login => own_login.is_some_and(|login| login.eq_ignore_ascii_case(id)),
        };
        same.then_some(form)
    };
    let exact = match pinned {
        Some(form) => equals(form),
        None => IdentityForm::ALL.into_iter().find_map(equals),
    };
    if let Some(form) = exact {
        return Some(Match::Exact(form));
    }
    let same_login =
        identity.username.as_deref().is_some_and(|name| own_login.is_some_and(|own| own.eq_ignore_ascii_case(name)));
    // An identity id of a known form that isn't this account's is another account's, whatever its login says: the
    // platform's labels are as old as its last sync.
    let somebody_elses = identity.identity_id.as_deref().is_some_and(|id| match pinned {
        Some(_) => true,
        None => id.bytes().all(|b| b.is_ascii_digit()) && account.key.id.bytes().all(|b| b.is_ascii_digit()),
    });
    (same_login && !somebody_elses).then_some(Match::Login)
}

/// What to search for: the login usually finds the row whatever form its identity id has.
fn queries(account: &Account, pinned: Option<IdentityForm>) -> Vec<String> {
    let login = account.login.as_ref();
    let mut queries = match pinned {
        Some(IdentityForm::Id) => vec![Some(&account.key.id), login],
        Some(IdentityForm::NodeId) => vec![account.node_id.as_ref(), login],
        Some(IdentityForm::Login) => vec![login],
        None => vec![login, Some(&account.key.id), account.node_id.as_ref()],
    };
    queries.dedup();
    queries.into_iter().flatten().cloned().collect()
}

/// The filter of a connection; or why it can't be told which connection is meant.
pub(crate) async fn filter(client: &Client, connection: &ConnectionRef) -> Result<Result<Filter, String>, Failure> {
    let ConnectionRef::Only(client_type) = connection else { return Ok(Ok(connection.into())) };
    let connections = match client.connections().await {
        Ok(connections) => connections,
        // A key that may not list connections may still do everything else; the client type alone narrows it down.
        Err(failure) if matches!(failure.status, Some(403 | 404)) => return Ok(Ok(connection.into())),
        Err(failure) => return Err(failure),
    };
    let same: Vec<_> = connections.iter().filter(|known| known.client_type == *client_type).collect();
    Ok(match same.as_slice() {
        [only] => Ok((&ConnectionRef::Id(only.id)).into()),
        [] => Err(format!("the platform has no connection of type {client_type}")),
        many => Err(format!(
            "the platform has {} connections of type {client_type}; set drata_connection to one of {}",
            many.len(),
            many.iter().map(|known| known.id.to_string()).collect::<Vec<_>>().join(", ")
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{AccountKey, AccountKind};

    fn account() -> Account {
        Account {
            key: AccountKey { provider: "github".into(), host: "github.com".into(), id: "2001".into() },
            node_id: Some("U_kgDOAAAH0Q".into()),
            login: Some("ada-l".into()),
            email: None,
            kind: AccountKind::Person,
        }
    }

    const fn own(account: &Account) -> Sought<'_> {
        Sought { account, login_is_its_own: true }
    }

    fn identity(identity_id: Option<&str>, username: &str) -> Identity {
        Identity {
            id: IdentityRef(1),
            identity_id: identity_id.map(Into::into),
            username: Some(username.into()),
            email: None,
            person: None,
            service_account: false,
            connection: Some(12),
        }
    }

    #[test]
    fn every_form_of_identity_id_is_an_exact_match() {
        for (id, form) in
            [("2001", IdentityForm::Id), ("U_kgDOAAAH0Q", IdentityForm::NodeId), ("Ada-L", IdentityForm::Login)]
        {
            assert!(
                matches!(compare(&identity(Some(id), "x"), own(&account()), None), Some(Match::Exact(found)) if found == form)
            );
        }
    }

    #[test]
    fn a_login_is_a_fallback_unless_the_id_is_somebody_elses() {
        assert!(matches!(compare(&identity(None, "ADA-L"), own(&account()), None), Some(Match::Login)));
        assert!(matches!(compare(&identity(Some("a-guid"), "ada-l"), own(&account()), None), Some(Match::Login)));
        assert!(compare(&identity(Some("9999"), "ada-l"), own(&account()), None).is_none());
        assert!(compare(&identity(Some("a-guid"), "ada-l"), own(&account()), Some(IdentityForm::Id)).is_none());
    }

    #[test]
    fn a_login_that_another_account_held_proves_nothing() {
        let account = account();
        let reused = Sought { account: &account, login_is_its_own: false };
        assert!(compare(&identity(None, "ada-l"), reused, None).is_none());
        assert!(compare(&identity(Some("ada-l"), "ada-l"), reused, None).is_none());
    }

    #[test]
    fn a_numeric_login_is_not_taken_for_another_accounts_id_once_the_form_is_known() {
        let mut account = account();
        account.login = Some("9999".into());
        assert!(compare(&identity(Some("9999"), "9999"), own(&account), Some(IdentityForm::Id)).is_none());
    }
}
