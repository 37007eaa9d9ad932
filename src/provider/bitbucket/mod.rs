//! Bitbucket Cloud and Bitbucket Data Center. They have the signature's header in common, and little else.
//!
//! `X-Hub-Signature: sha256=…` is HMAC-SHA256 of the raw body: the header that GitHub uses for SHA-1.
//! <https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/>,
//! <https://confluence.atlassian.com/bitbucketserver/manage-webhooks-938025878.html>
//!
//! Neither tells of joins and leaves. What they tell is activity: whoever acts has access, so an account that nobody knew
//! becomes known. That somebody lost access can only be found out by asking.

mod cloud;
mod data_center;
mod roster;

use http::HeaderMap;
use serde::Deserialize;

pub(super) use self::cloud::CLOUD;
pub(super) use self::data_center::DATA_CENTER;
use super::scheme::{Over, Scheme, head, label, signs_only};
use super::{Draft, Meaning, Refusal, SettingsError, SourceSettings};
use crate::access::{AccessKind, Account, Change, Scope};
use crate::delivery::{Named, Verified};

const HEADER_EVENT: &str = "X-Event-Key";
const SCHEME: Scheme = Scheme::Hex { header: "X-Hub-Signature", prefix: "sha256=", over: Over::Body };

/// Both have one way to verify and no settings of their own.
fn check(settings: &SourceSettings) -> Result<(), SettingsError> {
    signs_only(settings, "Bitbucket", "X-Hub-Signature")
}

/// `repo:push` is `repo.push` here, as all events have dots.
fn name(headers: &HeaderMap, verified: &Verified, id: &str) -> Result<Named, Refusal> {
    #[derive(Default, Deserialize)]
    struct Nothing {}

    let key = label(headers, HEADER_EVENT)?;
    let usable = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':' | b'-');
    if !key.bytes().all(usable) {
        return Err(Refusal::Malformed(format!("{HEADER_EVENT} isn't the name of an event")));
    }
    // It must be JSON, whatever it says.
    let _: Nothing = head(&verified.json())?;
    let id = label(headers, id)?.parse()?;
    Ok(Named { id, event: key.replace(':', ".").parse()?, ping: false })
}

fn sent(draft: &Draft, id: &'static str) -> Vec<(&'static str, String)> {
    let key = match draft.event.split_once('.') {
        Some((what, rest)) => format!("{what}:{}", rest.replace('.', ":")),
        None => draft.event.clone(),
    };
    vec![("user-agent", "Bitbucket-Webhooks/2.0".to_owned()), ("x-event-key", key), (id, draft.id.clone())]
}

const NO_ACCESS: &str = "the event says nothing about access";
const PUBLIC: &str = "in a public repository it takes no access to do that";
const NOBODY: &str = "it doesn't say which account did it";
const NOWHERE: &str = "it doesn't say which repository it was in";

fn seen(account: Account, scope: Scope) -> Meaning {
    Change::Access { account, scope, kind: AccessKind::Seen }.into()
}

#[cfg(test)]
mod tests;
