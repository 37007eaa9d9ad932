//! Bitbucket Cloud's rosters: the [members of a workspace](https://developer.atlassian.com/cloud/bitbucket/rest/api-group-workspaces/#api-workspaces-workspace-members-get).
//! Data Center has none that rollcall reads: its lists of permissions name groups, whose members only an administrator may
//! list, and Drata has no connection for it.

use serde::Deserialize;
use url::Url;

use crate::access::{Account, AccountKey, AccountKind, RootPattern, Scope, ScopeKind};
use crate::provider::api::{Answer, Ask, UnreadableAnswer};
use crate::provider::fields::{Label, text};
use crate::provider::roster::{About, Found, Member, Question, Roster};

const NEEDS: &str =
    "a token that may read the account: read:account and read:workspace:bitbucket, or \"Account: Read\"";

/// The most that Bitbucket gives on a page.
const PER_PAGE: u32 = 100;

/// Reads the rosters of one source.
#[derive(Debug)]
pub(super) struct CloudRoster {
    pub(super) host: String,
}

#[derive(Deserialize)]
struct Workspace {
    uuid: Label,
    slug: Option<Label>,
}

#[derive(Deserialize)]
struct Page {
    values: Vec<Membership>,
    /// The address of the next page.
    next: Option<String>,
}

#[derive(Deserialize)]
struct Membership {
    user: User,
}

#[derive(Deserialize)]
struct User {
    #[serde(rename = "type")]
    kind: Option<String>,
    uuid: Label,
    account_id: Option<Label>,
}

impl Roster for CloudRoster {
    fn begin(&self, root: &RootPattern) -> Result<Question, String> {
        if root.kind != ScopeKind::Org {
            return Err(format!("Bitbucket has no roster of {root}; the root is a workspace: \"org:acme\""));
        }
        // A workspace is named by its slug or by its UUID alike.
        Ok(Question { about: About::Root, ask: Ask::get(&["workspaces", &root.name]), needs: NEEDS })
    }

    fn read(&self, question: &Question, answer: &Answer, found: &mut Found) -> Result<Vec<Question>, UnreadableAnswer> {
        match &question.about {
            About::Root => {
                let Workspace { uuid: Label(uuid), slug } = answer.json()?;
                let workspace = Scope::top(ScopeKind::Org, uuid.clone(), text(slug));
                let ask = Ask::get(&["workspaces", &uuid, "members"]).with("pagelen", PER_PAGE);
                let members = Question { about: About::Members(workspace.clone(), None), ask, needs: NEEDS };
                found.root(workspace);
                Ok(vec![members])
            }
            About::Members(workspace, _) => {
                let page: Page = answer.json()?;
                for Membership { user } in page.values {
                    if let Some(account) = self.account(user) {
                        found.member(workspace, Member { account, role: None, began: None, active: true });
                    }
                }
                let Some(next) = page.next else { return Ok(Vec::new()) };
                let next: Url =
                    next.parse().map_err(|_| UnreadableAnswer("the next page's address isn't one".to_owned()))?;
                Ok(vec![question.next(Ask::named(next))])
            }
            About::Groups | About::Repositories | About::Sight => Ok(Vec::new()),
        }
    }

    /// Somebody may have access to a single repository without being a member.
    fn is_exhaustive(&self) -> bool {
        false
    }
}

impl CloudRoster {
    /// As in an event: the id is the `uuid`, and a nickname is no login.
    fn account(&self, user: User) -> Option<Account> {
        let kind = match user.kind.as_deref() {
            Some("user") | None => AccountKind::Person,
            Some("app_user" | "AppUser") => AccountKind::Bot,
            Some(_) => return None,
        };
        let key = AccountKey { provider: "bitbucket-cloud".to_owned(), host: self.host.clone(), id: user.uuid.0 };
        Some(Account { key, node_id: text(user.account_id), login: None, email: None, kind })
    }
}

#[cfg(test)]
mod tests;
