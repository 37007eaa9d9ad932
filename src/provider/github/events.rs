//! GitHub's truth table: every event that rollcall understands, and what that means.
//!
//! `-` is nothing; an event that isn't here is nothing as well. Fixtures show each row, and a test holds this table,
//! [`EVENTS`] and the interpreter to each other.
//!
//! <!-- events of github -->
//! | event | change | meaning |
//! |---|---|---|
//! | `organization.member_added` | gained org | joined the organisation |
//! | `organization.member_removed` | lost org | left the organisation or was removed |
//! | `organization.member_invited` | - | an invitation gives no access before it is accepted |
//! | `organization.renamed` | scope_renamed org | the organisation has a new login |
//! | `organization.deleted` | scope_lost org | everybody lost the organisation |
//! | `org_block.blocked` | lost org | the organisation blocked the account |
//! | `org_block.unblocked` | - | being unblocked gives no access |
//! | `member.added` | gained repo | became a collaborator of the repository |
//! | `member.edited` | gained repo | has another role in the repository |
//! | `member.removed` | lost repo | is no collaborator of the repository any more |
//! | `membership.added` | gained team | joined the team |
//! | `membership.removed` | lost team | left the team or was removed |
//! | `team.deleted` | scope_lost team | everybody lost the team |
//! | `team.edited` | scope_renamed team or - | the team has a new name, or another setting |
//! | `team.*` | - | changes what the team's members may do, not who they are |
//! | `team_add` | - | changes what the team's members may do, not who they are |
//! | `repository.deleted` | scope_lost repo | everybody lost the repository |
//! | `repository.transferred` | scope_moved repo | the repository has another owner: who has access to it is unknown |
//! | `repository.renamed` | scope_renamed repo | the repository has a new name |
//! | `repository.*` | - | collaborators stay as they are |
//! | `installation.deleted` | source_blind | the app was uninstalled: GitHub sends no more |
//! | `installation.suspend` | source_blind | the app was suspended: GitHub sends no more |
//! | `installation.created` | source_back | the app was installed |
//! | `installation.unsuspend` | source_back | the app is no longer suspended |
//! | `installation.new_permissions_accepted` | - | changes what the app may do |
//! | `installation_target.renamed` | scope_renamed org or renamed account | the organisation or user has a new login |
//! | `meta.deleted` | source_blind | the webhook was deleted: GitHub sends no more |
//! | `user.created` | gained instance | the account was created (Enterprise Server only) |
//! | `user.deleted` | lost instance | the account was deleted, and all its access with it (Enterprise Server only) |
//! | `enterprise.*` | - | anonymous access, which no account has |
//! | `github_app_authorization.revoked` | - | about a token; the account's own access stays as it is |
//! | `personal_access_token_request.*` | - | about a token; the account's own access stays as it is |
//! | `push` | seen repo | the sender pushed (with `sightings = true`) |
//! | `create` | seen repo | the sender created a branch or tag (with `sightings = true`) |
//! | `delete` | seen repo | the sender deleted a branch or tag (with `sightings = true`) |
//! | `release.published` | seen repo | the sender published a release (with `sightings = true`) |
//! | `workflow_dispatch` | seen repo | the sender ran a workflow by hand (with `sightings = true`) |
//! | `ping` | - | the greeting of a new webhook: answered at once, never published |
//! <!-- /events -->

use crate::provider::EventRow;

const fn row(event: &'static str, change: &'static str, meaning: &'static str) -> EventRow {
    EventRow { event, change, meaning }
}

/// The table.
#[rustfmt::skip]
pub(super) const EVENTS: &[EventRow] = &[
    row("organization.member_added", "gained org", "joined the organisation"),
    row("organization.member_removed", "lost org", "left the organisation or was removed"),
    row("organization.member_invited", "-", "an invitation gives no access before it is accepted"),
    row("organization.renamed", "scope_renamed org", "the organisation has a new login"),
    row("organization.deleted", "scope_lost org", "everybody lost the organisation"),
    row("org_block.blocked", "lost org", "the organisation blocked the account"),
    row("org_block.unblocked", "-", "being unblocked gives no access"),
    row("member.added", "gained repo", "became a collaborator of the repository"),
    row("member.edited", "gained repo", "has another role in the repository"),
    row("member.removed", "lost repo", "is no collaborator of the repository any more"),
    row("membership.added", "gained team", "joined the team"),
    row("membership.removed", "lost team", "left the team or was removed"),
    row("team.deleted", "scope_lost team", "everybody lost the team"),
    row("team.edited", "scope_renamed team or -", "the team has a new name, or another setting"),
    row("team.*", "-", "changes what the team's members may do, not who they are"),
    row("team_add", "-", "changes what the team's members may do, not who they are"),
    row("repository.deleted", "scope_lost repo", "everybody lost the repository"),
    row("repository.transferred", "scope_moved repo", "the repository has another owner: who has access to it is unknown"),
    row("repository.renamed", "scope_renamed repo", "the repository has a new name"),
    row("repository.*", "-", "collaborators stay as they are"),
    row("installation.deleted", "source_blind", "the app was uninstalled: GitHub sends no more"),
    row("installation.suspend", "source_blind", "the app was suspended: GitHub sends no more"),
    row("installation.created", "source_back", "the app was installed"),
    row("installation.unsuspend", "source_back", "the app is no longer suspended"),
    row("installation.new_permissions_accepted", "-", "changes what the app may do"),
    row("installation_target.renamed", "scope_renamed org or renamed account", "the organisation or user has a new login"),
    row("meta.deleted", "source_blind", "the webhook was deleted: GitHub sends no more"),
    row("user.created", "gained instance", "the account was created (Enterprise Server only)"),
    row("user.deleted", "lost instance", "the account was deleted, and all its access with it (Enterprise Server only)"),
    row("enterprise.*", "-", "anonymous access, which no account has"),
    row("github_app_authorization.revoked", "-", "about a token; the account's own access stays as it is"),
    row("personal_access_token_request.*", "-", "about a token; the account's own access stays as it is"),
    row("push", "seen repo", "the sender pushed (with `sightings = true`)"),
    row("create", "seen repo", "the sender created a branch or tag (with `sightings = true`)"),
    row("delete", "seen repo", "the sender deleted a branch or tag (with `sightings = true`)"),
    row("release.published", "seen repo", "the sender published a release (with `sightings = true`)"),
    row("workflow_dispatch", "seen repo", "the sender ran a workflow by hand (with `sightings = true`)"),
    row("ping", "-", "the greeting of a new webhook: answered at once, never published"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_above_is_the_table_below() {
        let documented: Vec<&str> =
            include_str!("events.rs").lines().filter(|line| line.starts_with("//! | `")).collect();
        let rows: Vec<String> =
            EVENTS.iter().map(|row| format!("//! | `{}` | {} | {} |", row.event, row.change, row.meaning)).collect();
        assert_eq!(documented, rows);
    }
}
