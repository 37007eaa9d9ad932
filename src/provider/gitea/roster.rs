//! Rosters of Gitea and Forgejo: the [members of an organisation](https://docs.gitea.com/api/#tag/organization/operation/orgListMembers).
//! Gogs has no list of members in its API.
//!
//! To somebody who isn't a member they list the public members only, and say nothing of it; asked whether somebody
//! [is a member](https://docs.gitea.com/api/#tag/organization/operation/orgIsMember) they redirect such a one to the public list.

use serde::Deserialize;

use crate::access::{Account, AccountKey, AccountKind, RootPattern, Scope, ScopeKind};
use crate::provider::api::{Answer, Ask, UnreadableAnswer};
use crate::provider::fields::{Id, Label, text};
use crate::provider::roster::{About, Found, Member, Question, Roster};

const NEEDS: &str = "a token with the scope read:organization of a member of the organisation, or of an administrator: to others \
                     the public members only are listed";

/// The most that they give on a page, unless an administrator has changed that (`MAX_RESPONSE_ITEMS`).
const PER_PAGE: u32 = 50;

/// Reads the rosters of one source.
#[derive(Debug)]
pub(super) struct FamilyRoster {
    pub(super) provider: &'static str,
    pub(super) host: String,
}

#[derive(Deserialize)]
struct Organization {
    id: Id,
    /// Forgejo and older versions of Gitea have only `username`.
    name: Option<Label>,
    username: Option<Label>,
}

#[derive(Deserialize)]
struct User {
    id: Id,
    login: Option<Label>,
    email: Option<Label>,
    /// Only administrators are told.
    prohibit_login: Option<bool>,
}

impl Roster for FamilyRoster {
    fn begin(&self, root: &RootPattern) -> Result<Question, String> {
        match (root.kind, root.by_id) {
            (ScopeKind::Org, false) => {
                Ok(Question { about: About::Root, ask: Ask::get(&["orgs", &root.name]), needs: NEEDS })
            }
            (ScopeKind::Org, true) => Err(format!("{root} can't be asked for by its id; name it: \"org:acme\"")),
            _ => Err(format!("there is no roster of {root}; the root is an organisation: \"org:acme\"")),
        }
    }

    fn read(&self, question: &Question, answer: &Answer, found: &mut Found) -> Result<Vec<Question>, UnreadableAnswer> {
        match &question.about {
            About::Root => {
                let Organization { id, name, username } = answer.json()?;
                let Some(name) = text(name).or_else(|| text(username)) else {
                    return Err(UnreadableAnswer("the organisation has no name".to_owned()));
                };
                let organisation = Scope::top(ScopeKind::Org, id.0, Some(name.clone()));
                let ask = Ask::get(&["orgs", &name, "members"]).with("page", 1).with("limit", PER_PAGE);
                found.root(organisation.clone());
                Ok(vec![Question { about: About::Members(organisation, None), ask, needs: NEEDS }])
            }
            About::Members(organisation, _) => {
                let users: Vec<User> = answer.json()?;
                let mut questions: Vec<Question> =
                    answer.next_link().map(|next| question.next(Ask::named(next))).into_iter().collect();
                let first = users.iter().find_map(|user| text(user.login.clone()));
                if let (Some(first), true) = (first, found.scope(organisation).members.is_empty()) {
                    let name = organisation.name.as_deref().unwrap_or_default();
                    let ask = Ask::get(&["orgs", name, "members", &first]);
                    questions.push(Question { about: About::Sight, ask, needs: NEEDS });
                }
                for user in users {
                    found.member(organisation, self.member(user));
                }
                Ok(questions)
            }
            About::Groups | About::Repositories | About::Sight => Ok(Vec::new()),
        }
    }

    /// A collaborator of a single repository needn't be a member.
    fn is_exhaustive(&self) -> bool {
        false
    }
}

impl FamilyRoster {
    fn member(&self, user: User) -> Member {
        let key = AccountKey { provider: self.provider.to_owned(), host: self.host.clone(), id: user.id.0 };
        let (login, email) = (text(user.login), text(user.email));
        let account = Account { key, node_id: None, login, email, kind: AccountKind::Person };
        Member { account, role: None, began: None, active: user.prohibit_login != Some(true) }
    }
}

#[cfg(test)]
mod tests;
