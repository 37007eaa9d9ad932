//! What rollcall waits for, and that it goes on by itself once it is there.

use rollcall::ledger::outcome::Outcome;

use crate::harness::github::Account;
use crate::harness::site::{Carrier, Site, becomes, identity_of, person_of};

const ACCOUNT: Account = Account(1);

#[tokio::test]
async fn an_account_that_drata_does_not_know_yet_waits_for_its_identity() {
    let site = Site::new(Carrier::Embedded, 0).await;
    site.drata.put_person(person_of(ACCOUNT));
    site.drata.put_identity(identity_of(Account(2)));
    site.write_people([(ACCOUNT, ACCOUNT.email())]);
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    let reason = becomes(&ledger, &join.id, Outcome::Waiting).await;
    assert_eq!(reason, "the platform has no identity for it yet");

    site.drata.put_identity(identity_of(ACCOUNT));
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(ACCOUNT));
}

#[tokio::test]
async fn an_account_of_nobody_waits_for_a_row_in_the_people_map() {
    let mut site = Site::new(Carrier::Embedded, 1).await;
    site.set("retry", "waiting", "1h");
    site.write_people([]);
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    let reason = becomes(&ledger, &join.id, Outcome::Waiting).await;
    assert_eq!(reason, "nobody is known whose account it is; a row in the people map says so");

    site.write_people([(ACCOUNT, ACCOUNT.email())]);
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(ACCOUNT));
}

#[tokio::test]
async fn only_the_people_map_overrides_a_link_to_another_person() {
    let mut site = Site::new(Carrier::Embedded, 2).await;
    site.set("retry", "waiting", "1h");
    site.write_people([]);
    let other = Account(2).person();
    let mut identity = identity_of(ACCOUNT);
    identity.email = Some(ACCOUNT.email());
    identity.user_id = Some(other);
    site.drata.put_identity(identity);
    let (_process, at) = site.serve().await;
    let ledger = site.ledger().await;
    let join = site.github.join(ACCOUNT);
    site.github.accepted(&at.webhook, &join).await;
    let reason = becomes(&ledger, &join.id, Outcome::Waiting).await;
    assert!(reason.starts_with(&format!("it is linked to another person ({other})")), "{reason}");
    assert_eq!(site.drata.linked(ACCOUNT.identity()), Some(other));
    assert!(site.connects(ACCOUNT).is_empty());

    site.write_people([(ACCOUNT, format!("user:{}", ACCOUNT.person()))]);
    becomes(&ledger, &join.id, Outcome::Applied).await;
    assert!(site.is_linked(ACCOUNT));
}
