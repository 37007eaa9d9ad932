//! GitLab's rosters.
//!
//! Of a group: its [members, inherited and invited ones too](https://docs.gitlab.com/api/members/#list-all-members-of-a-group-or-project-including-inherited-and-invited-members),
//! and the direct members of each [group below](https://docs.gitlab.com/api/groups/#list-descendant-groups) and each
//! [project](https://docs.gitlab.com/api/groups/#list-projects): one request for each of those. Of an instance: its
//! [users](https://docs.gitlab.com/api/users/#as-an-administrator), who exist on it whatever they are members of.
//!
//! A blocked user keeps all memberships, and has no access. No webhook tells of blocking; only a roster does.

use serde::Deserialize;

use super::NAME;
use super::interpret::is_bot;
use crate::access::{Account, AccountKey, AccountKind, RootPattern, Scope, ScopeKind};
use crate::delivery::Timestamp;
use crate::provider::api::{Answer, Ask, UnreadableAnswer};
use crate::provider::fields::{Id, Label, text};
use crate::provider::roster::{About, Found, Member, Question, Roster};

const OF_GROUP: &str =
    "a token with the scope read_api of a member of the group; an owner's sees every project and group in it";
const OF_INSTANCE: &str = "an administrator's token with the scope read_api";

/// The most that GitLab gives on a page.
const PER_PAGE: u32 = 100;

/// Reads the rosters of one source.
#[derive(Debug)]
pub(super) struct GitLabRoster {
    pub(super) host: String,
}

#[derive(Deserialize)]
struct Group {
    id: Id,
    full_path: Option<Label>,
}

#[derive(Deserialize)]
struct Project {
    id: Id,
    path_with_namespace: Option<Label>,
}

/// A user, or a member, who is one with more.
#[derive(Deserialize)]
struct User {
    id: Id,
    username: Option<Label>,
    email: Option<Label>,
    state: Option<String>,
    /// Of the membership, or of the account itself.
    created_at: Option<String>,
    access_level: Option<u32>,
    membership_state: Option<String>,
    bot: Option<bool>,
    /// Only administrators are told.
    is_admin: Option<bool>,
}

impl User {
    /// Whether it is let in. One that was deactivated for being idle comes back by logging in.
    /// <https://docs.gitlab.com/administration/moderate_users/>
    fn is_active(&self) -> bool {
        let blocked = ["blocked", "banned", "ldap_blocked", "blocked_pending_approval"];
        !self.state.as_deref().is_some_and(|state| blocked.contains(&state))
            && self.membership_state.as_deref() != Some("awaiting")
            && self.access_level != Some(0)
    }

    /// <https://docs.gitlab.com/api/members/#roles>
    fn role(&self) -> Option<&'static str> {
        Some(match self.access_level? {
            5 => "minimal access",
            10 => "guest",
            15 => "planner",
            20 => "reporter",
            30 => "developer",
            40 => "maintainer",
            50 => "owner",
            _ => return None,
        })
    }
}

impl GitLabRoster {
    fn member(&self, user: User) -> Member {
        let (active, role) = (user.is_active(), user.role().map(str::to_owned));
        let began = user.created_at.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
        let login = text(user.username);
        let bot = user.bot == Some(true) || login.as_deref().is_some_and(is_bot);
        let account = Account {
            key: AccountKey { provider: NAME.to_owned(), host: self.host.clone(), id: user.id.0 },
            node_id: None,
            login,
            email: text(user.email).filter(|email| email.contains('@')),
            kind: if bot { AccountKind::Bot } else { AccountKind::Person },
        };
        Member { account, role, began, active }
    }

    fn instance(&self) -> Scope {
        Scope::top(ScopeKind::Instance, self.host.clone(), Some(self.host.clone()))
    }
}

impl Roster for GitLabRoster {
    fn begin(&self, root: &RootPattern) -> Result<Question, String> {
        match root.kind {
            ScopeKind::Instance if self.host == "gitlab.com" => {
                Err("gitlab.com as a whole has no roster; name a group: scopes = [\"group:#42\"]".to_owned())
            }
            ScopeKind::Instance => {
                let ask = Ask::get(&["users"]).with("exclude_internal", true);
                Ok(members(&self.instance(), OF_INSTANCE, ask))
            }
            ScopeKind::Group if root.by_id => {
                let ask = Ask::get(&["groups", &root.name]).with("with_projects", false);
                Ok(Question { about: About::Root, ask, needs: OF_GROUP })
            }
            _ => Err(format!("GitLab has no roster of {root}; the root is \"group:#42\" (by id) or \"instance\"")),
        }
    }

    fn read(&self, question: &Question, answer: &Answer, found: &mut Found) -> Result<Vec<Question>, UnreadableAnswer> {
        let mut questions: Vec<Question> =
            answer.next_link().map(|next| question.next(Ask::named(next))).into_iter().collect();
        match &question.about {
            About::Root => {
                let Group { id, full_path } = answer.json()?;
                let path = ["groups", id.0.as_str()];
                let below = |about, of: &str| Question {
                    about,
                    ask: Ask::get(&[path[0], path[1], of]).with("per_page", PER_PAGE),
                    needs: OF_GROUP,
                };
                let group = Scope::top(ScopeKind::Group, id.0.clone(), text(full_path));
                questions.push(members(&group, OF_GROUP, Ask::get(&[path[0], path[1], "members", "all"])));
                questions.push(below(About::Groups, "descendant_groups"));
                let mut projects = below(About::Repositories, "projects");
                projects.ask =
                    projects.ask.with("include_subgroups", true).with("with_shared", false).with("simple", true);
                questions.push(projects);
                found.root(group);
            }
            About::Groups => {
                for Group { id, full_path } in answer.json::<Vec<Group>>()? {
                    let ask = Ask::get(&["groups", &id.0, "members"]);
                    questions.push(part(found, ScopeKind::Group, id, full_path, ask));
                }
            }
            About::Repositories => {
                for Project { id, path_with_namespace } in answer.json::<Vec<Project>>()? {
                    let ask = Ask::get(&["projects", &id.0, "members"]);
                    questions.push(part(found, ScopeKind::Repo, id, path_with_namespace, ask));
                }
            }
            About::Members(scope, _) => {
                let users: Vec<User> = answer.json()?;
                if scope.id.kind == ScopeKind::Instance {
                    if users.iter().any(|user| user.is_admin.is_none()) {
                        return Err(UnreadableAnswer(format!(
                            "it isn't an administrator's view; it takes {OF_INSTANCE}"
                        )));
                    }
                    found.root(scope.clone());
                }
                found.scope(scope);
                for user in users {
                    found.member(scope, self.member(user));
                }
            }
            About::Sight => {}
        }
        Ok(questions)
    }

    /// Everybody of the instance is listed, and so is every member of a group and whatever is below it.
    fn is_exhaustive(&self) -> bool {
        true
    }

    fn has_turns(&self) -> bool {
        true
    }
}

fn members(scope: &Scope, needs: &'static str, ask: Ask) -> Question {
    Question { about: About::Members(scope.clone(), None), ask: ask.with("per_page", PER_PAGE), needs }
}

/// Asks who is in a part of the root.
fn part(found: &Found, kind: ScopeKind, id: Id, name: Option<Label>, ask: Ask) -> Question {
    let scope = match found.top() {
        Some(root) => root.part(kind, id.0, text(name)),
        None => Scope::top(kind, id.0, text(name)),
    };
    members(&scope, OF_GROUP, ask)
}

#[cfg(test)]
mod tests;
