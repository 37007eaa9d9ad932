//! What was learned once and is then kept to: the form of identity ids, and which account a login in the people map
//! means.

use sqlx::Row;

use super::{Ledger, LedgerError, parsed};
use crate::delivery::InvalidName;
use crate::target::ConnectionRef;

/// Which of an account's ids the platform keeps as its identity id. It isn't documented, so it is learned per
/// connection from the first exact match and then kept to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityForm {
    /// The provider's stable id.
    Id,
    /// The provider's second id (GitHub's node id).
    NodeId,
    /// The login.
    Login,
}

impl IdentityForm {
    /// All forms, the surest first.
    pub const ALL: [Self; 3] = [Self::Id, Self::NodeId, Self::Login];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::NodeId => "node_id",
            Self::Login => "login",
        }
    }
}

impl std::str::FromStr for IdentityForm {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|form| form.as_str() == text)
            .ok_or(InvalidName { what: "identity form", why: "must be one of id, node_id and login" })
    }
}

impl Ledger {
    /// The form that identity ids of a connection were found to have.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn identity_form(&self, connection: &ConnectionRef) -> Result<Option<IdentityForm>, LedgerError> {
        sqlx::query("SELECT form FROM identity_forms WHERE connection = $1")
            .bind(connection.to_string())
            .fetch_optional(&self.read)
            .await?
            .map(|row| parsed("identity form", &row.try_get::<String, _>(0)?))
            .transpose()
    }

    /// Keeps to the form of an exact match, if none is kept to yet.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn learn_identity_form(&self, connection: &ConnectionRef, form: IdentityForm) -> Result<(), LedgerError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO identity_forms (connection, form) VALUES ($1, $2) ON CONFLICT (connection) DO NOTHING",
        )
        .bind(connection.to_string())
        .bind(form.as_str())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Binds a row of the people map that names a login to the first account that asks for it. Returns whether it is
    /// bound to this one: a login that somebody else takes over later doesn't take the person along.
    ///
    /// # Errors
    /// If the database fails.
    pub async fn bind_login(&self, login: &str, account: i64) -> Result<bool, LedgerError> {
        let bound =
            sqlx::query("SELECT account FROM bindings WHERE login = $1").bind(login).fetch_optional(&self.read).await?;
        if let Some(bound) = bound {
            return Ok(bound.try_get::<i64, _>(0)? == account);
        }
        let mut tx = self.begin().await?;
        sqlx::query("INSERT INTO bindings (login, account) VALUES ($1, $2) ON CONFLICT (login) DO NOTHING")
            .bind(login)
            .bind(account)
            .execute(&mut *tx)
            .await?;
        let bound =
            sqlx::query("SELECT account FROM bindings WHERE login = $1").bind(login).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(bound.try_get::<i64, _>(0)? == account)
    }
}
