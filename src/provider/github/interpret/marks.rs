//! The top-level keys by which GitHub's events can be told from each other.
//!
//! Taken from GitHub's published schemas of all its webhooks (cloud, Enterprise Cloud and Enterprise Server 3.14 to
//! 3.19). A key that isn't listed says nothing, except where an event is only known by what it lacks: see
//! [`super::body::Body::is_only`].

/// Keys that any event may have.
pub(super) const COMMON: &[&str] =
    &["action", "changes", "enterprise", "installation", "organization", "repository", "sender"];

/// Keys that only some events have: each marks a body as one of those.
#[rustfmt::skip]
pub(super) const MARKS: &[&str] = &[
    "account", "after", "alert", "answer", "approver", "assignee", "avatar_url", "base_ref", "before", "blocked_issue",
    "blocked_issue_id", "blocked_issue_repo", "blocked_user", "blocking_issue", "blocking_issue_id",
    "blocking_issue_repo", "branch", "branches", "build", "cache_location", "check_run", "check_suite",
    "client_payload", "comment", "commit", "commit_oid", "commits", "compare", "completed_at", "context", "created",
    "created_at", "custom_pattern_name", "custom_pattern_scope", "definition", "deleted", "deployment",
    "deployment_callback_url", "deployment_status", "description", "discussion", "effective_date", "environment",
    "event", "exemption_request", "exemption_response", "forced", "forkee", "head_commit", "hook", "hook_id", "id",
    "inputs", "invitation", "issue", "key", "label", "location", "marketplace_purchase", "master_branch", "member",
    "membership", "merge_group", "milestone", "name", "new_property_values", "number", "old_answer",
    "old_property_values", "package", "pages", "parent_issue", "parent_issue_id", "parent_issue_repo",
    "personal_access_token_request", "previous_marketplace_purchase", "project", "project_card", "project_column",
    "projects_v2", "projects_v2_item", "projects_v2_status_update", "pull_request", "pull_requests", "pusher",
    "pusher_type", "reason", "ref", "ref_type", "registry_package", "release", "repositories", "repositories_added",
    "repositories_removed", "repository_advisory", "repository_ruleset", "repository_selection", "requested_action",
    "requested_reviewer", "requested_team", "requester", "requestor", "review", "reviewers", "rule", "scope",
    "secret_types", "security_advisory", "sha", "since", "source", "sponsorship", "starred_at", "started_at", "state",
    "status", "sub_issue", "sub_issue_id", "sub_issue_repo", "target_type", "target_url", "team", "thread", "type",
    "updated_at", "user", "workflow", "workflow_job", "workflow_job_run", "workflow_job_runs", "workflow_run", "zen",
];

/// The listed key, if `key` is one.
pub(super) fn known(key: &str) -> Option<&'static str> {
    [COMMON, MARKS].iter().find_map(|keys| keys.binary_search(&key).ok().map(|at| keys[at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_as_the_search_needs_them() {
        assert!(COMMON.is_sorted() && MARKS.is_sorted());
        assert_eq!(known("zen"), Some("zen"));
        assert_eq!(known("sender"), Some("sender"));
        assert_eq!(known("zebra"), None);
    }
}
