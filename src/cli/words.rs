//! How listings write down accounts and calls.

use super::table::{Table, time};
use crate::access::{AccountKey, AccountPattern};
use crate::ledger::show::{AccountLabel, AttemptRow};

/// `github:#583231`: the host only where it isn't the provider's usual one. [`crate::access::AccountPattern`] reads it.
pub(super) fn key_text(key: &AccountKey) -> String {
    let usual = crate::provider::find(&key.provider).and_then(|provider| provider.default_host);
    if usual == Some(key.host.as_str()) { format!("{}:#{}", key.provider, key.id) } else { key.to_string() }
}

/// The same of an account in its full form, which may have a login instead of the id.
pub(super) fn pattern_text(account: &str) -> String {
    let Ok(mut pattern) = account.parse::<AccountPattern>() else { return account.to_owned() };
    let usual = pattern.provider.as_deref().and_then(crate::provider::find).and_then(|provider| provider.default_host);
    if usual.is_some() && usual == pattern.host.as_deref() {
        pattern.host = None;
    }
    pattern.to_string()
}

/// `octocat (github:#583231)`.
pub(super) fn account_text(account: &AccountLabel) -> String {
    match &account.login {
        Some(login) => format!("{login} ({})", key_text(&account.key)),
        None => key_text(&account.key),
    }
}

/// A table of calls.
pub(super) fn calls(calls: &[AttemptRow]) -> Table {
    let mut table = Table::new(&["WHEN", "CALL", "TO SET", "ANSWER", "RESULT", "TOOK"]);
    for call in calls {
        let cells = [
            time(call.at),
            call.operation.clone(),
            call.wanted.map_or_else(|| "-".to_owned(), |wanted| wanted.to_string()),
            call.http_status.map_or_else(|| "none".to_owned(), |status| status.to_string()),
            call.result.clone(),
            format!("{} ms", call.duration_us / 1_000),
        ];
        table.row(cells, call.message.as_deref().unwrap_or_default());
    }
    table
}
