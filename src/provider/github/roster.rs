//! GitHub's rosters: the [members](https://docs.github.com/en/rest/orgs/members#list-organization-members) and
//! [outside collaborators](https://docs.github.com/en/rest/orgs/outside-collaborators#list-outside-collaborators-for-an-organization)
//! of an organisation, and the [collaborators](https://docs.github.com/en/rest/collaborators/collaborators#list-repository-collaborators)
//! of a repository that is itself a root.
//!
//! To somebody who isn't a member GitHub lists the public members only, and says nothing of it. So it is also asked whether
//! the first of them [is one](https://docs.github.com/en/rest/orgs/members#check-organization-membership-for-a-user): that
//! answers 302, and not 204, to whoever isn't a member.
//!
//! A root that is named by its id is asked for by it: `/organizations/ID` and `/repositories/ID` are in GitHub's own links to
//! further pages, though no page of its own documents them.

use serde::Deserialize;

use super::interpret::{User, account_of};
use crate::access::{RootPattern, Scope, ScopeKind};
use crate::provider::api::{Answer, Ask, UnreadableAnswer};
use crate::provider::fields::{Id, Label, text};
use crate::provider::roster::{About, Found, Member, Question, Roster};

const OF_ORGANISATION: &str = "a token of an organisation's owner with the scope read:org, or one of an app or fine-grained with \
                               \"Members\" organisation permissions (read)";
const OF_MEMBER: &str = "a token of a member of the organisation, or of an app that is installed there: to others GitHub \
                         lists the public members only";
const OF_REPOSITORY: &str = "a token with push access to the repository, or \"Metadata\" repository permissions (read)";

/// The most that GitHub gives on a page.
const PER_PAGE: u32 = 100;

/// Reads the rosters of one source.
#[derive(Debug)]
pub(super) struct GitHubRoster {
    pub(super) host: String,
}

#[derive(Deserialize)]
struct Organization {
    id: Id,
    login: Label,
}

#[derive(Deserialize)]
struct Repository {
    id: Id,
    full_name: Label,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(flatten)]
    user: User,
    /// Of a repository's collaborator.
    role_name: Option<Label>,
}

impl Roster for GitHubRoster {
    fn begin(&self, root: &RootPattern) -> Result<Question, String> {
        let ask = match (root.kind, root.by_id) {
            (ScopeKind::Org, false) => Ask::get(&["orgs", &root.name]),
            (ScopeKind::Org, true) => Ask::get(&["organizations", &root.name]),
            (ScopeKind::Repo, true) => Ask::get(&["repositories", &root.name]),
            (ScopeKind::Repo, false) => match root.name.split_once('/') {
                Some((owner, name)) => Ask::get(&["repos", owner, name]),
                None => return Err(format!("{root} has no owner; write repo:owner/name")),
            },
            (ScopeKind::Instance, _) => {
                return Err("GitHub's list of all users doesn't tell who is suspended, so an instance has no roster; \
                            name its organisations in a source of their own"
                    .to_owned());
            }
            (kind, _) => return Err(format!("GitHub has no roster of a root of kind {}", kind.as_str())),
        };
        let needs = if root.kind == ScopeKind::Org { OF_ORGANISATION } else { OF_REPOSITORY };
        Ok(Question { about: About::Root, ask, needs })
    }

    fn read(&self, question: &Question, answer: &Answer, found: &mut Found) -> Result<Vec<Question>, UnreadableAnswer> {
        let (scope, role) = match &question.about {
            About::Members(scope, role) => (scope, *role),
            About::Root => return root(question, answer, found),
            About::Groups | About::Repositories | About::Sight => return Ok(Vec::new()),
        };
        let listed: Vec<Listed> = answer.json()?;
        let mut questions: Vec<Question> =
            answer.next_link().map(|next| question.next(Ask::named(next))).into_iter().collect();
        let first = listed.iter().find_map(|listed| text(listed.user.login.clone()));
        if let (Some(first), None, ScopeKind::Org) = (first, role, scope.id.kind)
            && found.scope(scope).members.is_empty()
        {
            let ask = Ask::get(&["orgs", scope.name.as_deref().unwrap_or_default(), "members", &first]);
            questions.push(Question { about: About::Sight, ask, needs: OF_MEMBER });
        }
        for Listed { user, role_name } in listed {
            // What isn't a person's or a bot's has no access of its own.
            if let Ok(account) = account_of(&self.host, user) {
                let role = role.map(str::to_owned).or_else(|| text(role_name));
                found.member(scope, Member { account, role, began: None, active: true });
            }
        }
        Ok(questions)
    }

    /// Whoever is neither a member nor an outside collaborator has no access to any repository of the organisation.
    fn is_exhaustive(&self) -> bool {
        true
    }
}

/// Notes the root, and asks who is in it.
fn root(question: &Question, answer: &Answer, found: &mut Found) -> Result<Vec<Question>, UnreadableAnswer> {
    if question.needs == OF_REPOSITORY {
        let Repository { id, full_name: Label(name) } = answer.json()?;
        let (owner, repository) = name.split_once('/').unwrap_or(("", &name));
        let path = ["repos", owner, repository, "collaborators"];
        let scope = Scope::top(ScopeKind::Repo, id.0, Some(name.clone()));
        found.root(scope.clone());
        return Ok(vec![members(&scope, None, OF_REPOSITORY, &path)]);
    }
    let Organization { id, login: Label(login) } = answer.json()?;
    let scope = Scope::top(ScopeKind::Org, id.0, Some(login.clone()));
    let of = |role, path| members(&scope, role, OF_ORGANISATION, &["orgs", &login, path]);
    let mut owners = of(Some("owner"), "members");
    owners.ask = owners.ask.with("role", "admin");
    let questions = vec![of(None, "members"), owners, of(Some("outside collaborator"), "outside_collaborators")];
    found.root(scope);
    Ok(questions)
}

fn members(scope: &Scope, role: Option<&'static str>, needs: &'static str, path: &[&str]) -> Question {
    Question { about: About::Members(scope.clone(), role), ask: Ask::get(path).with("per_page", PER_PAGE), needs }
}

#[cfg(test)]
mod tests;
