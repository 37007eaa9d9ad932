//! The truth table of GitLab's events. "Group hook" and "system hook" say who sends one; where both do, it is the same.
//! <https://docs.gitlab.com/user/project/integrations/webhook_events/>,
//! <https://docs.gitlab.com/administration/system_hooks/>
//!
//! <!-- events of gitlab -->
//! | event | change | meaning |
//! |---|---|---|
//! | `user_add_to_group` | gained group or lost group | a user became a member of a group; lost, if it had expired already |
//! | `user_update_for_group` | gained group or lost group | access goes on with another level or expiry |
//! | `user_remove_from_group` | lost group | a user is no longer a direct member of a group |
//! | `user_add_to_team` | gained repo or lost repo | a user became a member of a project (system hook) |
//! | `user_update_for_team` | gained repo or lost repo | access to a project goes on with another level (system hook) |
//! | `user_remove_from_team` | lost repo | a user is no longer a direct member of a project (system hook) |
//! | `user_create` | gained instance | an account was made on the instance (system hook) |
//! | `user_destroy` | lost instance | an account was deleted; final for its id (system hook) |
//! | `user_rename` | renamed account | an account has another username (system hook) |
//! | `group_destroy` | scope_lost group | a group was deleted: all its members lose it (system hook) |
//! | `subgroup_destroy` | scope_lost group | a subgroup was deleted (group hook) |
//! | `project_destroy` | scope_lost repo | a project was deleted |
//! | `group_rename` | scope_renamed group | a group has another path (system hook) |
//! | `project_rename` | scope_renamed repo | a project has another path (system hook) |
//! | `project_transfer` | scope_renamed repo | a project moved; who is its direct member stays so (system hook) |
//! | `user_access_request_to_group` | - | a request gives no access before it is granted |
//! | `user_access_request_denied_for_group` | - | a request gives no access |
//! | `user_access_request_revoked_for_group` | - | a request gives no access |
//! | `user_access_request_to_project` | - | a request gives no access before it is granted |
//! | `user_access_request_revoked_for_project` | - | a request gives no access |
//! | `gitlab_subscription_member_approval` | - | the membership that follows is told by itself (system hook) |
//! | `gitlab_subscription_member_approvals` | - | the membership that follows is told by itself (system hook) |
//! | `expiring_access_token` | - | a token's end isn't its account's |
//! | `user_failed_login` | - | a blocked user tried to sign in; blocking itself is never told |
//! | `push` | seen repo | whoever pushed has access (with sightings = true) |
//! | `tag_push` | seen repo | whoever pushed has access (with sightings = true) |
//! | `repository_update` | seen repo | whoever pushed has access (system hook, with sightings = true) |
//! <!-- /events -->

use crate::provider::EventRow;

const fn row(event: &'static str, change: &'static str, meaning: &'static str) -> EventRow {
    EventRow { event, change, meaning }
}

pub(super) const EVENTS: &[EventRow] = &[
    row(
        "user_add_to_group",
        "gained group or lost group",
        "a user became a member of a group; lost, if it had expired already",
    ),
    row("user_update_for_group", "gained group or lost group", "access goes on with another level or expiry"),
    row("user_remove_from_group", "lost group", "a user is no longer a direct member of a group"),
    row("user_add_to_team", "gained repo or lost repo", "a user became a member of a project (system hook)"),
    row(
        "user_update_for_team",
        "gained repo or lost repo",
        "access to a project goes on with another level (system hook)",
    ),
    row("user_remove_from_team", "lost repo", "a user is no longer a direct member of a project (system hook)"),
    row("user_create", "gained instance", "an account was made on the instance (system hook)"),
    row("user_destroy", "lost instance", "an account was deleted; final for its id (system hook)"),
    row("user_rename", "renamed account", "an account has another username (system hook)"),
    row("group_destroy", "scope_lost group", "a group was deleted: all its members lose it (system hook)"),
    row("subgroup_destroy", "scope_lost group", "a subgroup was deleted (group hook)"),
    row("project_destroy", "scope_lost repo", "a project was deleted"),
    row("group_rename", "scope_renamed group", "a group has another path (system hook)"),
    row("project_rename", "scope_renamed repo", "a project has another path (system hook)"),
    row("project_transfer", "scope_renamed repo", "a project moved; who is its direct member stays so (system hook)"),
    row("user_access_request_to_group", "-", "a request gives no access before it is granted"),
    row("user_access_request_denied_for_group", "-", "a request gives no access"),
    row("user_access_request_revoked_for_group", "-", "a request gives no access"),
    row("user_access_request_to_project", "-", "a request gives no access before it is granted"),
    row("user_access_request_revoked_for_project", "-", "a request gives no access"),
    row("gitlab_subscription_member_approval", "-", "the membership that follows is told by itself (system hook)"),
    row("gitlab_subscription_member_approvals", "-", "the membership that follows is told by itself (system hook)"),
    row("expiring_access_token", "-", "a token's end isn't its account's"),
    row("user_failed_login", "-", "a blocked user tried to sign in; blocking itself is never told"),
    row("push", "seen repo", "whoever pushed has access (with sightings = true)"),
    row("tag_push", "seen repo", "whoever pushed has access (with sightings = true)"),
    row("repository_update", "seen repo", "whoever pushed has access (system hook, with sightings = true)"),
];
