//! The hooks of a source: those of the provider's that post to it.

use url::Url;

use super::pages::following;
use super::{RecoverError, Recovery};
use crate::provider::SettingsError;
use crate::provider::recover::{HookList, HookPath, HookRow, Hooks};

/// How many hooks that post elsewhere are named.
const NAMED: usize = 5;

/// The hooks of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The hooks.
    pub hooks: Vec<HookPath>,
    /// The lists in which none is the source's: whatever happens there isn't told to it.
    pub without: Vec<String>,
}

impl Recovery {
    /// The source's hooks.
    ///
    /// # Errors
    /// If they can't be found.
    pub async fn hooks(&self) -> Result<Found, RecoverError> {
        let lists = match self.recover.hooks()? {
            Hooks::Named(hook) => return Ok(Found { hooks: vec![hook], without: Vec::new() }),
            Hooks::Listed(lists) => lists,
        };
        let Some(endpoint) = &self.endpoint else {
            let message = "ingress.public_url isn't set, so nobody can tell the source's hook from others; set it to the \
                address that the provider knows, or `hook` in the source's table";
            return Err(SettingsError { key: "hook".to_owned(), message: message.to_owned() }.into());
        };
        let (mut ours, mut without, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for list in &lists {
            let before = ours.len();
            for row in self.hooks_in(list).await? {
                match row.url.as_deref().and_then(|url| Url::parse(url).ok()) {
                    Some(url) if posts_to(&url, endpoint) => ours.push(row.path),
                    Some(url) => others.push(format!("{}{}", url.host_str().unwrap_or_default(), url.path())),
                    None => {}
                }
            }
            if ours.len() == before {
                without.push(list.0.to_string());
            }
        }
        if ours.is_empty() {
            return Err(RecoverError::NoHook {
                lists: without.join(", "),
                url: endpoint.to_string(),
                others: elsewhere(&others),
            });
        }
        Ok(Found { hooks: ours, without })
    }

    async fn hooks_in(&self, list: &HookList) -> Result<Vec<HookRow>, RecoverError> {
        let failed = |why| RecoverError::Hooks { list: list.0.to_string(), why, permission: self.recover.permission() };
        let mut rows = Vec::new();
        let mut next = Some(self.recover.list_hooks(list));
        while let Some(ask) = next {
            let answer = self.api.ask(&ask).await.map_err(failed)?;
            let page = self.recover.read_hooks(list, &answer).map_err(|why| failed(why.into()))?;
            next = following(&ask, page.next).map_err(|why| failed(why.into()))?;
            rows.extend(page.rows);
        }
        Ok(rows)
    }
}

/// Whether a hook posts to that address. A query of its own or a slash at the end make no difference.
fn posts_to(url: &Url, endpoint: &Url) -> bool {
    let path = |url: &Url| url.path().trim_end_matches('/').to_owned();
    url.origin() == endpoint.origin() && path(url) == path(endpoint)
}

fn elsewhere(others: &[String]) -> String {
    match others {
        [] => " (there is none at all, or the token may not see any)".to_owned(),
        few if few.len() <= NAMED => format!(" (but to {})", few.join(", ")),
        many => format!(" (but to {} and {} others)", many[..NAMED].join(", "), many.len() - NAMED),
    }
}
