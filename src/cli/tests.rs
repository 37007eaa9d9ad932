use std::time::Duration;

use clap::{CommandFactory, Parser};

use super::named::NameError;
use super::{accounts, deliveries, explain, secrets};
use crate::ledger::show::sample::Sample;

#[derive(Parser)]
#[command(name = "rollcall")]
enum Line {
    Deliveries(Box<deliveries::Args>),
    Accounts(accounts::Args),
    Explain(explain::Args),
    Secrets(secrets::Args),
}

#[test]
fn the_command_line_is_consistent() {
    super::Cli::command().debug_assert();
}

async fn run(sample: &Sample, line: &[&str]) -> anyhow::Result<String> {
    let mut out = Vec::new();
    let line = [&["rollcall"], line].concat();
    match Line::try_parse_from(line)? {
        Line::Deliveries(args) => deliveries::run(&args, &sample.ledger, &mut out).await?,
        Line::Accounts(args) => accounts::run(&args, &sample.ledger, &mut out).await?,
        Line::Secrets(args) => secrets::run(&args, &[], &sample.ledger, &mut out).await?,
        Line::Explain(args) => {
            let roots = |_: &_| vec!["org:acme".parse().unwrap()];
            explain::run(&args, &sample.ledger, &roots, Duration::from_hours(72), &mut out).await?;
        }
    }
    Ok(String::from_utf8(out)?)
}

async fn shown(line: &[&str]) -> String {
    run(&Sample::new().await, &[line, &["--width", "80"]].concat()).await.unwrap()
}

async fn refused(line: &[&str]) -> NameError {
    run(&Sample::new().await, line).await.unwrap_err().downcast().unwrap()
}

#[tokio::test]
async fn deliveries_are_listed_with_what_became_of_them() {
    insta::assert_snapshot!(shown(&["deliveries"]).await, @r"
    ROW  RECEIVED              SOURCE       EVENT                        OUTCOME
    #9   2026-11-24T08:08:00Z  acme-github  organization.member_added    parked
        odd-1 · organization.login: missing field
    #8   2026-11-24T08:08:00Z  acme-github  star.created                 ignored
        star-1 · it says nothing about access
    #7   2026-11-24T08:07:00Z  acme-github  organization.member_added    pending
        join-4 · 500: Internal server error
    #6   2026-11-24T08:06:00Z  acme-github  organization.member_added    waiting
        join-3 · nobody knows whose account it is
    #5   2026-11-24T08:04:00Z  acme-github  organization.member_removed  unchanged
        left-2 · the platform had it already
    #4   2026-11-24T08:04:00Z  acme-github  organization.member_added    superseded
        join-2 · delivery left-2 is newer
    #3   2026-11-24T08:03:00Z  acme-github  member.removed               unchanged
        left-repo · the account still has access otherwise
    #2   2026-11-24T07:30:00Z  acme-github  organization.member_added    superseded
        late-1 · a newer change of the same access is known
    #1   2026-11-24T08:00:00Z  acme-github  organization.member_added    applied
        join-1 · 2 copies
    ");
}

#[tokio::test]
async fn a_listing_says_when_there_may_be_more_and_when_there_is_nothing() {
    insta::assert_snapshot!(shown(&["deliveries", "--limit", "1"]).await, @r"
    ROW  RECEIVED              SOURCE       EVENT                      OUTCOME
    #9   2026-11-24T08:08:00Z  acme-github  organization.member_added  parked
        odd-1 · organization.login: missing field

    1 shown; --after '#9' goes on, --limit shows more at once.
    ");
    insta::assert_snapshot!(shown(&["deliveries", "--since", "1s"]).await, @r"
    No such deliveries.
    ");
    insta::assert_snapshot!(shown(&["accounts", "--state", "parked"]).await, @r"
    No such accounts.
    ");
}

#[tokio::test]
async fn the_story_of_a_delivery_is_told() {
    insta::assert_snapshot!(shown(&["deliveries", "show", "join-1"]).await, @r"
    Delivery join-1 (#1)
      event        organization.member_added
      source       acme-github (github)
      received     2026-11-24T08:00:00Z
      recorded     2026-11-24T08:00:00Z
      verified by  env:GITHUB_WEBHOOK_SECRET
      body         application/json, 21 bytes
      came         2 copies
      outcome      applied

    What it told
      CHANGE  ACCOUNT                   SCOPE     HAPPENED
      gained  octocat (github:#583231)  org:acme  2026-11-24T08:00:00Z

    What it did
      ACCOUNT                   CONNECTION  EFFECT
      octocat (github:#583231)  12          applied

    What became of it
      SINCE                 OUTCOME
      2026-11-24T08:00:00Z  pending
      2026-11-24T08:01:00Z  applied

    Calls since then
      WHEN                  CALL     TO SET         ANSWER  RESULT  TOOK
      2026-11-24T08:01:00Z  connect  linked to 518  200     done    120 ms
    ");
}

#[tokio::test]
async fn the_story_of_a_late_delivery_names_the_one_that_won() {
    insta::assert_snapshot!(shown(&["deliveries", "show", "late-1"]).await, @r"
    Delivery late-1 (#2)
      event        organization.member_added
      source       acme-github (github)
      received     2026-11-24T07:30:00Z
      recorded     2026-11-24T08:00:00Z
      verified by  env:GITHUB_WEBHOOK_SECRET
      body         application/json, 21 bytes
      came         once
      outcome      superseded: a newer change of the same access is known

    What it told
      CHANGE  ACCOUNT                   SCOPE     HAPPENED
      gained  octocat (github:#583231)  org:acme  2026-11-24T07:30:00Z

    What it did
      ACCOUNT                   CONNECTION  EFFECT
      octocat (github:#583231)  -           superseded
          superseded by #1 (join-1): a newer change of the same access is known

    What became of it
      SINCE                 OUTCOME
      2026-11-24T08:00:00Z  pending
      2026-11-24T08:00:00Z  superseded
          a newer change of the same access is known
    ");
}

#[tokio::test]
async fn deliveries_are_json_too() {
    insta::assert_snapshot!(shown(&["deliveries", "--outcome", "waiting", "--json"]).await, @r#"
    [
      {
        "row": 6,
        "received_at": "2026-11-24T08:06:00Z",
        "source": "acme-github",
        "provider": "github",
        "delivery": "join-3",
        "event": "organization.member_added",
        "outcome": "waiting",
        "reason": "nobody knows whose account it is",
        "copies": 1,
        "replays": 0,
        "repeated": false,
        "conflicting": false
      }
    ]
    "#);
    insta::assert_snapshot!(shown(&["deliveries", "show", "join-4", "--json"]).await, @r#"
    {
      "row": 7,
      "received_at": "2026-11-24T08:07:00Z",
      "source": "acme-github",
      "provider": "github",
      "delivery": "join-4",
      "event": "organization.member_added",
      "outcome": "pending",
      "reason": "500: Internal server error",
      "copies": 1,
      "replays": 0,
      "repeated": false,
      "conflicting": false,
      "recorded_at": "2026-11-24T08:07:00Z",
      "media_type": "application/json",
      "body_bytes": 21,
      "secret": "env:GITHUB_WEBHOOK_SECRET",
      "changes": [
        {
          "change": "gained",
          "event_time": "2026-11-24T08:07:00Z",
          "account": {
            "account": "github@github.com:#9",
            "login": "hubber"
          },
          "scope": {
            "id": "org:#1",
            "name": "acme"
          }
        }
      ],
      "effects": [
        {
          "account": "github@github.com:#9",
          "login": "hubber",
          "change": "gained",
          "scope": {
            "id": "org:#1",
            "name": "acme"
          },
          "connection": "12",
          "effect": "pending",
          "reason": "500: Internal server error",
          "superseded_by": null
        }
      ],
      "history": [
        {
          "at": "2026-11-24T08:07:00Z",
          "outcome": "pending",
          "reason": null
        },
        {
          "at": "2026-11-24T08:07:00Z",
          "outcome": "pending",
          "reason": "500: Internal server error"
        }
      ],
      "replayed_by": [],
      "attempts": [
        {
          "at": "2026-11-24T08:07:00Z",
          "account": "github@github.com:#9",
          "login": "hubber",
          "connection": "12",
          "operation": "connect",
          "wanted": {
            "status": "linked",
            "person": 77
          },
          "http_status": 500,
          "result": "transient",
          "duration_us": 120000,
          "message": "Internal server error"
        }
      ]
    }
    "#);
}

#[tokio::test]
async fn a_body_is_written_byte_by_byte() {
    let sample = Sample::new().await;
    assert_eq!(run(&sample, &["deliveries", "body", "#1"]).await.unwrap(), r#"{"delivery":"join-1"}"#);
    insta::assert_snapshot!(refused(&["deliveries", "body", "star-1"]).await, @r#"
    delivery "star-1" keeps no body: it was ignored, and such deliveries keep none
    "#);
}

#[tokio::test]
async fn accounts_are_listed_with_what_should_be_so_and_what_is() {
    insta::assert_snapshot!(shown(&["accounts"]).await, @r"
    ACCOUNT         LOGIN     CONNECTION  SHOULD BE      IS             STATE
    github:#77      mona      12          unknown        unknown        waiting
        due 2026-11-24T09:06:00Z · nobody knows whose account it is
    github:#9       hubber    12          linked to 77   unknown        pending
        due 2026-11-24T08:09:00Z · 1 failed try · 500: Internal server error
    github:#583231  octocat   12          linked to 518  linked to 518  settled
    github:#7       mona-old  12          unlinked       unlinked       settled
        the platform had it already
    ");
    insta::assert_snapshot!(shown(&["accounts", "--state", "waiting", "--json"]).await, @r#"
    [
      {
        "account": "github@github.com:#77",
        "login": "mona",
        "connection": "12",
        "desired": {
          "status": "unknown",
          "person": null
        },
        "actual": {
          "status": "unknown",
          "person": null
        },
        "state": "waiting",
        "reason": "nobody knows whose account it is",
        "drifted_at": null,
        "waiting_since": "2026-11-24T08:06:00Z",
        "attempts": 0,
        "due_at": "2026-11-24T09:06:00Z",
        "after": "1.1795511160000000.3.3"
      }
    ]
    "#);
}

#[tokio::test]
async fn what_each_secret_has_verified_is_listed() {
    insta::assert_snapshot!(shown(&["secrets"]).await, @r"
    SOURCE       SECRET                     VERIFIED  LAST
    acme-github  env:GITHUB_WEBHOOK_SECRET  10        2026-11-24T08:08:00Z  no longer configured

    Nothing was refused in the last week.
    ");
    insta::assert_snapshot!(shown(&["secrets", "--source", "other"]).await, @"No such source.");
}

#[tokio::test]
async fn a_linked_account_is_explained() {
    insta::assert_snapshot!(shown(&["explain", "octocat"]).await, @r"
    octocat is an account at github.com (github:#583231).
    It was seen with the login octocat (first on 2026-11-24T08:00:00Z).

    Connection 12
      At the platform it is linked to person 518 (identity 9001): the platform was
        told, and confirmed it on 2026-11-24T08:01:00Z.
      It should be linked to person 518, because it has access through org:acme.
      It is settled.
      Towards the roots: org:acme is held.

      ACCESS TO      NOW       LATEST CHANGE  WHEN                  BY DELIVERY
      org:acme       held      gained         2026-11-24T08:00:00Z  join-1 (acme-github)
      repo:acme/web  not held  lost           2026-11-24T08:03:00Z  left-repo (acme-github)

    What happened, in order of time
      WHEN                  WHAT      OF IT                      CAME TO
      2026-11-24T07:30:00Z  delivery  organization.member_added  superseded
          gained org:acme · late-1 of acme-github (#2) · superseded by #1 (join-1)…
      2026-11-24T08:00:00Z  delivery  organization.member_added  applied
          gained org:acme · join-1 of acme-github (#1)
      2026-11-24T08:01:00Z  call      connect                    done (200)
          linked to 518 in 12 · 120 ms
      2026-11-24T08:03:00Z  delivery  member.removed             unchanged
          lost repo:acme/web · left-repo of acme-github (#3) · the account still ha…
    ");
}

#[tokio::test]
async fn an_account_that_left_is_explained() {
    insta::assert_snapshot!(shown(&["explain", "github:#7"]).await, @r"
    mona-old is an account at github.com (github:#7).
    It was seen with the login mona (first on 2026-11-24T08:04:00Z, as another
      account was too) and mona-old (first on 2026-11-24T08:04:00Z).

    Connection 12
      At the platform it is linked to nobody (identity 9001): so it was read there.
      It should be unlinked, because it holds nothing any more and is gone from
        every root.
      It is settled: the platform had it already.
      Towards the roots: org:acme is left or lost.

      ACCESS TO  NOW       LATEST CHANGE  WHEN                  BY DELIVERY
      org:acme   not held  lost           2026-11-24T08:04:00Z  left-2 (acme-github)

    What happened, in order of time
      WHEN                  WHAT      OF IT                        CAME TO
      2026-11-24T08:04:00Z  delivery  organization.member_added    superseded
          gained org:acme · join-2 of acme-github (#4) · superseded by #5 (left-2)…
      2026-11-24T08:04:00Z  delivery  organization.member_removed  unchanged
          lost org:acme · left-2 of acme-github (#5) · the platform had it already
    ");
}

#[tokio::test]
async fn an_unanswered_call_is_explained() {
    insta::assert_snapshot!(shown(&["explain", "hubber"]).await, @r"
    hubber is an account at github.com (github:#9).
    It was seen with the login hubber (first on 2026-11-24T08:07:00Z).

    Connection 12
      What it is at the platform (identity 9001) isn't known: a call that was to
        link it to person 77 was sent on 2026-11-24T08:07:00Z and never confirmed.
      It should be linked to person 77, because it has access through org:acme.
      It is pending after 1 failed try, due since 2026-11-24T08:09:00Z: 500:
        Internal server error.
      Towards the roots: org:acme is held.

      ACCESS TO  NOW   LATEST CHANGE  WHEN                  BY DELIVERY
      org:acme   held  gained         2026-11-24T08:07:00Z  join-4 (acme-github)

    What happened, in order of time
      WHEN                  WHAT      OF IT                      CAME TO
      2026-11-24T08:07:00Z  delivery  organization.member_added  pending
          gained org:acme · join-4 of acme-github (#7) · 500: Internal server error
      2026-11-24T08:07:00Z  call      connect                    transient (500)
          linked to 77 in 12 · Internal server error · 120 ms
    ");
}

#[tokio::test]
async fn an_account_that_waits_is_explained() {
    insta::assert_snapshot!(shown(&["explain", "github:#77"]).await, @r"
    mona is an account at github.com (github:#77).
    It was seen with the login mona (first on 2026-11-24T08:06:00Z, as another
      account was too).

    Connection 12
      What it is at the platform isn't known: the last look didn't find it out.
      It should be linked to the person it belongs to, because it has access through
        org:acme.
      It is waiting since 2026-11-24T08:06:00Z, looked at again on
        2026-11-24T09:06:00Z, given up on after 2026-11-27T08:06:00Z: nobody knows
        whose account it is.
      Towards the roots: org:acme is held.

      ACCESS TO  NOW   LATEST CHANGE  WHEN                  BY DELIVERY
      org:acme   held  gained         2026-11-24T08:06:00Z  join-3 (acme-github)

    What happened, in order of time
      WHEN                  WHAT      OF IT                      CAME TO
      2026-11-24T08:06:00Z  delivery  organization.member_added  waiting
          gained org:acme · join-3 of acme-github (#6) · nobody knows whose account…
    ");
}

#[tokio::test]
async fn a_delivery_is_explained_with_what_it_waits_for() {
    insta::assert_snapshot!(shown(&["explain", "--delivery", "join-4"]).await, @r"
    join-4 (#7) is a delivery of acme-github (github) that told of
      organization.member_added.
    It was received on 2026-11-24T08:07:00Z and recorded on 2026-11-24T08:07:00Z;
      the secret env:GITHUB_WEBHOOK_SECRET verified it.
    It is pending (500: Internal server error): recorded, not reconciled yet (or
      tried, and to be tried again).
    hubber (github:#9) is still to be brought up to date in connection 12, due since
      2026-11-24T08:09:00Z: 500: Internal server error.

    What it told
      CHANGE  ACCOUNT             SCOPE     HAPPENED
      gained  hubber (github:#9)  org:acme  2026-11-24T08:07:00Z

    What it did
      ACCOUNT             CONNECTION  EFFECT
      hubber (github:#9)  12          pending
          500: Internal server error

    What happened, in order of time
      WHEN                  WHAT     OF IT    CAME TO
      2026-11-24T08:07:00Z  outcome  -        pending
      2026-11-24T08:07:00Z  outcome  -        pending
          500: Internal server error
      2026-11-24T08:07:00Z  call     connect  transient (500)
          linked to 77 in 12 · Internal server error · 120 ms
    ");
}

#[tokio::test]
async fn an_explanation_is_a_page_in_which_a_login_is_only_a_login() {
    let sample = Sample::new().await;
    sample.call("9", "<img src=x onerror=alert(1)>").await;
    for name in [&["github:#9"] as &[&str], &["--delivery", "#7"]] {
        let page = run(&sample, &[&["explain", "--html"], name].concat()).await.unwrap();
        assert!(page.contains("&#60;img src=x onerror=alert(1)&#62;") && !page.contains("<img"), "{page}");
        assert!(page.contains("What happened, in order of time") && page.trim_end().ends_with("</html>"), "{page}");
    }
    let page = run(&sample, &["explain", "--delivery", "#7", "--json"]).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&page).unwrap();
    let what: Vec<_> = json["happened"].as_array().unwrap().iter().map(|moment| &moment["what"]).collect();
    assert_eq!(what, ["outcome", "outcome", "call"]);
    assert_eq!(json["waits_for"][0]["state"], "pending");
}

#[tokio::test]
async fn an_explanation_is_json_too() {
    insta::assert_snapshot!(shown(&["explain", "github:#9", "--json"]).await, @r#"
    {
      "account": "github@github.com:#9",
      "login": "hubber",
      "kind": "person",
      "node_id": null,
      "logins": [
        {
          "login": "hubber",
          "seen_at": "2026-11-24T08:07:00Z",
          "shared": false
        }
      ],
      "said": null,
      "connections": [
        {
          "connection": "12",
          "state": "pending",
          "reason": "500: Internal server error",
          "desired": {
            "status": "linked",
            "person": 77
          },
          "actual": {
            "status": "unknown",
            "person": null
          },
          "person_from": null,
          "drifted_at": null,
          "waiting_since": null,
          "gives_up_at": null,
          "known": {
            "how": "unanswered",
            "since": "2026-11-24T08:07:00Z",
            "wanted": {
              "status": "linked",
              "person": 77
            }
          },
          "identity": 9001,
          "owed_since": "2026-11-24T08:07:00Z",
          "due_at": "2026-11-24T08:09:00Z",
          "lease_until": null,
          "attempts": 1,
          "access": {
            "access": "held",
            "through": {
              "kind": "org",
              "id": "1"
            },
            "seen_only": false
          },
          "grants": [
            {
              "scope": {
                "id": "org:#1",
                "name": "acme"
              },
              "held": true,
              "change": "gained",
              "event_time": "2026-11-24T08:07:00Z",
              "source": "acme-github",
              "delivery": "join-4",
              "ended": null
            }
          ],
          "roots": [
            {
              "root": "org:acme",
              "standing": "held"
            }
          ],
          "calls": [
            {
              "at": "2026-11-24T08:07:00Z",
              "account": "github@github.com:#9",
              "login": "hubber",
              "connection": "12",
              "operation": "connect",
              "wanted": {
                "status": "linked",
                "person": 77
              },
              "http_status": 500,
              "result": "transient",
              "duration_us": 120000,
              "message": "Internal server error"
            }
          ]
        }
      ],
      "deliveries": [
        {
          "row": 7,
          "received_at": "2026-11-24T08:07:00Z",
          "source": "acme-github",
          "delivery": "join-4",
          "event": "organization.member_added",
          "account": "github@github.com:#9",
          "login": "hubber",
          "change": "gained",
          "scope": {
            "id": "org:#1",
            "name": "acme"
          },
          "connection": "12",
          "effect": "pending",
          "reason": "500: Internal server error",
          "superseded_by": null
        }
      ],
      "happened": [
        {
          "at": "2026-11-24T08:07:00Z",
          "what": "delivery",
          "row": 7,
          "delivery": "join-4",
          "source": "acme-github",
          "event": "organization.member_added",
          "roster": false,
          "change": "gained",
          "scope": {
            "id": "org:#1",
            "name": "acme"
          },
          "effect": "pending",
          "reason": "500: Internal server error",
          "superseded_by": null
        },
        {
          "at": "2026-11-24T08:07:00Z",
          "what": "call",
          "connection": "12",
          "operation": "connect",
          "wanted": {
            "status": "linked",
            "person": 77
          },
          "http_status": 500,
          "result": "transient",
          "duration_us": 120000,
          "message": "Internal server error"
        }
      ],
      "now": "2026-11-24T08:10:00Z"
    }
    "#);
}

#[tokio::test]
async fn a_name_that_names_nothing_or_several_is_refused_with_the_way_out() {
    insta::assert_snapshot!(refused(&["explain", "nobody"]).await, @r#"
    account "nobody" isn't in the ledger; `rollcall accounts` lists who is; no delivery has spoken of this one yet
    "#);
    insta::assert_snapshot!(refused(&["explain", "mona"]).await, @r#"
    account "mona" is ambiguous; name one of them:
      'github@github.com:#7'  now mona-old
      'github@github.com:#77'  now mona
    "#);
    insta::assert_snapshot!(refused(&["deliveries", "show", "#4711"]).await, @r##"
    delivery "#4711" isn't in the ledger; `rollcall deliveries` lists what is; it may also still be in the broker
    "##);
}

#[tokio::test]
async fn mistyped_values_are_usage_errors() {
    let sample = Sample::new().await;
    for line in [
        ["deliveries", "--outcome", "lost"],
        ["deliveries", "--since", "yesterday"],
        ["deliveries", "--limit", "0"],
        ["accounts", "--state", "done"],
        ["explain", "--json", "github:"],
    ] {
        let error = run(&sample, &line).await.unwrap_err();
        assert!(error.downcast_ref::<clap::Error>().is_some(), "{line:?}: {error}");
    }
}

#[tokio::test]
async fn messages_that_cannot_be_read_are_listed_and_their_bytes_are_written() {
    insta::assert_snapshot!(shown(&["deliveries", "unreadable"]).await, @r"
    ROW  FIRST SEEN            LAST SEEN             COPIES  BYTES  MESSAGE
    #1   2026-11-24T08:08:00Z  2026-11-24T08:09:00Z  2       5      m-1
        it isn't one of ours: it has no headers
    ");
    insta::assert_snapshot!(shown(&["deliveries", "unreadable", "--json"]).await, @r#"
    [
      {
        "row": 1,
        "first_seen": "2026-11-24T08:08:00Z",
        "last_seen": "2026-11-24T08:09:00Z",
        "copies": 2,
        "message": "m-1",
        "why": "it isn't one of ours: it has no headers",
        "bytes": 5,
        "ours": false,
        "replay": null
      }
    ]
    "#);
    let sample = Sample::new().await;
    assert_eq!(run(&sample, &["deliveries", "unreadable", "#1"]).await.unwrap(), "hello");
    insta::assert_snapshot!(refused(&["deliveries", "unreadable", "2"]).await, @r##"unreadable message "#2" isn't in the ledger; `rollcall deliveries unreadable` lists what is"##);
}

#[test]
fn postgresql_trusts_the_certificates_of_the_environment_unless_its_address_says_others() {
    let trusting = |url: &str, file| super::trusting(url.parse().unwrap(), file).to_string();
    let plain = "postgres://db.example/rollcall?sslmode=verify-full";
    assert_eq!(trusting(plain, None), plain);
    assert_eq!(trusting(plain, Some("/etc/ca.pem")), format!("{plain}&sslrootcert=%2Fetc%2Fca.pem"));
    let own = "postgres://db.example/rollcall?sslrootcert=/own.pem";
    assert_eq!(trusting(own, Some("/etc/ca.pem")), own);
}
