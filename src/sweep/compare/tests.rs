use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::access::{Account, AccountKey, AccountKind};

const ADA: PersonId = PersonId(518);
const BO: PersonId = PersonId(519);
const NOW: Timestamp = Timestamp(1_790_000_000_000_000);

fn standing(n: i64, state: State) -> Standing {
    Standing {
        status: n,
        version: 1,
        account_row: n,
        account: Account {
            key: AccountKey { provider: "github".into(), host: "github.com".into(), id: (2000 + n).to_string() },
            node_id: None,
            login: Some(format!("dev-{n}")),
            email: None,
            kind: AccountKind::Person,
        },
        login_is_its_own: true,
        state,
        reason: None,
        desired: None,
        actual: None,
        identity: None,
        person_from: None,
        waiting_since: (state == State::Waiting).then_some(NOW),
        drifted_at: None,
        at_rest: state == State::Settled,
    }
}

/// One that waits although its identity is known: for its person.
fn without_a_person(n: i64) -> Standing {
    Standing { identity: Some(IdentityRef(9000 + n)), ..standing(n, State::Waiting) }
}

/// One that was brought to a status, because an operator says whose it is.
fn applied(n: i64, status: LinkStatus) -> Standing {
    Standing {
        desired: Some(status),
        actual: Some(status),
        identity: Some(IdentityRef(9000 + n)),
        person_from: Some(PersonFrom::Operator),
        ..standing(n, State::Settled)
    }
}

fn identity(n: i64, person: Option<PersonId>) -> Identity {
    Identity {
        id: IdentityRef(9000 + n),
        identity_id: Some((2000 + n).to_string()),
        username: Some(format!("dev-{n}")),
        email: Some(format!("Dev-{n}@acme.example")),
        person,
        service_account: false,
        connection: Some(12),
    }
}

fn person(n: i64, id: PersonId) -> Person {
    Person { id, email: Some(format!("dev-{n}@acme.example")), name: (None, None), employment: None }
}

const RULES: Rules = Rules { drift: Drift::Report, deadline: Duration::from_hours(72), now: NOW };

/// What is found of one account.
fn of(standing: &Standing, identities: Vec<Identity>, named: Named, people: &[Person], rules: Rules) -> Told {
    let platform = Platform::new(identities, None);
    let persons = Persons::new(people);
    let standings = [standing.clone()];
    let mut findings = compare(&standings, &platform, &named, Some(&persons), rules);
    assert!(findings.len() <= 1);
    findings.pop().map(|found| (found.kind, found.mark, found.told))
}

fn kind(told: &Told) -> Option<Kind> {
    told.as_ref().map(|(kind, ..)| *kind)
}

#[test]
fn an_identity_that_has_appeared_is_found_by_its_id_and_not_by_a_login_that_proves_nothing() {
    let waits = standing(1, State::Waiting);
    let told = of(&waits, vec![identity(2, None), identity(1, None)], Named::new(), &[], RULES);
    let read = Some((IdentityRef(9001), LinkStatus::Unlinked));
    assert_eq!(told.map(|(kind, mark, _)| (kind, mark)), Some((Kind::IdentityAppeared, Mark::Due { read })));
    let somebody_elses = Identity { identity_id: Some("77".into()), ..identity(1, None) };
    assert_eq!(of(&waits, vec![somebody_elses.clone()], Named::new(), &[], RULES), None);
    let reused = Standing { login_is_its_own: false, ..waits };
    let by_login = Identity { identity_id: None, ..somebody_elses };
    assert_eq!(of(&reused, vec![by_login], Named::new(), &[], RULES), None);
}

#[test]
fn one_that_was_given_up_is_found_again() {
    let gave_up = Standing { waiting_since: Some(Timestamp(0)), ..standing(1, State::Parked) };
    assert_eq!(kind(&of(&gave_up, vec![identity(1, None)], Named::new(), &[], RULES)), Some(Kind::IdentityAppeared));
    assert_eq!(of(&gave_up, vec![], Named::new(), &[], RULES), None, "it isn't given up twice");
    let refused = standing(1, State::Parked);
    assert_eq!(of(&refused, vec![identity(1, None)], Named::new(), &[], RULES), None);
}

#[rstest]
#[case::nobody_is_known(None, None, &[], None)]
#[case::by_the_identitys_address(None, None, &[person(1, ADA)], Some(Kind::PersonFound))]
#[case::it_is_theirs_already(None, Some(ADA), &[person(1, ADA)], Some(Kind::PersonFound))]
#[case::an_address_never_overrides_a_link(None, Some(BO), &[person(1, ADA)], None)]
#[case::somebody_has_linked_it(None, Some(BO), &[], Some(Kind::LinkedMeanwhile))]
#[case::named_by_id(Some(Some(PersonRef::Id(ADA))), Some(BO), &[], Some(Kind::PersonFound))]
#[case::named_and_unknown(Some(Some(PersonRef::Email("x@acme.example".into()))), Some(BO), &[], None)]
#[case::named_and_known(Some(Some(PersonRef::Email("dev-1@acme.example".into()))), Some(BO), &[person(1, ADA)], Some(Kind::PersonFound))]
#[case::nobodys(Some(None), None, &[], Some(Kind::PersonFound))]
fn one_that_waits_for_its_person_is_due_when_that_is_known(
    #[case] named: Option<Option<PersonRef>>,
    #[case] linked: Option<PersonId>,
    #[case] people: &[Person],
    #[case] expected: Option<Kind>,
) {
    let named = named.map(|named| (1, named)).into_iter().collect();
    assert_eq!(kind(&of(&without_a_person(1), vec![identity(1, linked)], named, people, RULES)), expected);
}

#[test]
fn without_a_list_of_people_nobody_is_found_by_address() {
    let (waits, platform) = ([without_a_person(1)], Platform::new(vec![identity(1, None)], None));
    assert_eq!(compare(&waits, &platform, &Named::new(), None, RULES), []);
}

#[test]
fn waiting_ends_at_the_deadline() {
    let since = |hours: i64| Standing {
        waiting_since: Some(NOW.plus_micros(-hours * 3_600_000_000)),
        ..standing(1, State::Waiting)
    };
    assert_eq!(of(&since(71), vec![], Named::new(), &[], RULES), None);
    assert_eq!(kind(&of(&since(72), vec![], Named::new(), &[], RULES)), Some(Kind::WaitedTooLong));
    assert_eq!(
        kind(&of(&since(999), vec![identity(1, None)], Named::new(), &[], RULES)),
        Some(Kind::IdentityAppeared),
        "better late than never"
    );
}

#[rstest]
#[case::relinked(LinkStatus::Linked(ADA), Some(BO))]
#[case::unlinked(LinkStatus::Linked(ADA), None)]
#[case::linked_again(LinkStatus::Unlinked, Some(ADA))]
fn a_link_that_somebody_has_changed_is_reported_or_corrected(#[case] was: LinkStatus, #[case] now: Option<PersonId>) {
    let (account, found) = (applied(1, was), identity(1, now));
    let told = of(&account, vec![found.clone()], Named::new(), &[], RULES).unwrap();
    assert_eq!((told.0, told.1), (Kind::Drifted, Mark::Drifted(found.status())));
    assert!(told.2.contains(&was.to_string()) && told.2.contains(&found.status().to_string()), "{}", told.2);

    let correct = Rules { drift: Drift::Correct, ..RULES };
    let told = of(&account, vec![found.clone()], Named::new(), &[], correct).unwrap();
    assert_eq!((told.0, told.1), (Kind::Drifted, Mark::Unknown));

    // What was reported before is no news, until it is corrected or changes again.
    let reported = Standing { actual: Some(found.status()), drifted_at: Some(NOW), ..account.clone() };
    assert_eq!(of(&reported, vec![found.clone()], Named::new(), &[], RULES), None);
    assert_eq!(kind(&of(&reported, vec![found], Named::new(), &[], correct)), Some(Kind::Drifted));
    let back = match was {
        LinkStatus::Linked(person) => identity(1, Some(person)),
        LinkStatus::Unlinked => identity(1, None),
    };
    let told = of(&reported, vec![back], Named::new(), &[], RULES).unwrap();
    assert_eq!((told.0, told.1), (Kind::Returned, Mark::Returned(was)));
}

#[test]
fn what_was_never_rollcalls_to_decide_does_not_drift() {
    let kept = Standing { desired: None, ..applied(1, LinkStatus::Linked(ADA)) };
    assert_eq!(of(&kept, vec![identity(1, Some(BO))], Named::new(), &[], RULES), None);
    let theirs = Standing { person_from: Some(PersonFrom::Platform), ..applied(1, LinkStatus::Linked(ADA)) };
    let told = of(&theirs, vec![identity(1, Some(BO))], Named::new(), &[], RULES).unwrap();
    assert_eq!((told.0, told.1), (Kind::Relinked, Mark::Unknown));
    let marked = Identity { service_account: true, ..identity(1, None) };
    assert_eq!(of(&applied(1, LinkStatus::Linked(ADA)), vec![marked], Named::new(), &[], RULES), None);
}

#[test]
fn an_identity_that_is_gone_is_looked_for_unless_it_was_unlinked() {
    let told = of(&applied(1, LinkStatus::Linked(ADA)), vec![], Named::new(), &[], RULES).unwrap();
    assert_eq!((told.0, told.1), (Kind::Vanished, Mark::Unknown));
    assert_eq!(of(&applied(1, LinkStatus::Unlinked), vec![], Named::new(), &[], RULES), None);
}

#[test]
fn what_only_a_dry_run_holds_back_waits_for_nothing() {
    let held = Standing { reason: Some(format!("{DRY_RUN}: would unlink it")), ..without_a_person(1) };
    assert_eq!(of(&held, vec![identity(1, Some(ADA))], Named::new(), &[person(1, ADA)], RULES), None);
}

#[test]
fn the_form_of_identity_ids_is_learned_from_an_exact_match_only() {
    let platform = Platform::new(vec![identity(1, None)], None);
    assert_eq!(platform.shows_form(&[standing(2, State::Waiting)]), None);
    assert_eq!(platform.shows_form(&[standing(2, State::Waiting), without_a_person(1)]), Some(IdentityForm::Id));
    assert_eq!(platform.of_form(IdentityForm::NodeId).find(&standing(1, State::Waiting)), Found::None);
}

fn any_standing() -> impl Strategy<Value = Standing> {
    let status = || {
        prop_oneof![
            Just(None),
            Just(Some(LinkStatus::Unlinked)),
            Just(Some(LinkStatus::Linked(ADA))),
            Just(Some(LinkStatus::Linked(BO)))
        ]
    };
    let state = prop_oneof![Just(State::Pending), Just(State::Waiting), Just(State::Parked), Just(State::Settled)];
    let from = proptest::option::of(proptest::sample::select(PersonFrom::ALL.to_vec()));
    (1..4_i64, state, status(), status(), any::<[bool; 4]>(), from).prop_map(
        |(n, state, desired, actual, [known, since, drifted, at_rest], person_from)| Standing {
            desired,
            actual,
            identity: known.then_some(IdentityRef(9000 + n)),
            person_from,
            waiting_since: since.then_some(Timestamp(0)),
            drifted_at: drifted.then_some(Timestamp(0)),
            at_rest: at_rest && state == State::Settled,
            ..standing(n, state)
        },
    )
}

proptest! {
    /// Whatever is found: nothing that somebody works on is touched, only what rests can drift, nothing is reported that
    /// is as it was applied, and what is reported once isn't found again.
    #[test]
    fn a_sweep_touches_only_what_is_at_rest_and_ends(
        standing in any_standing(),
        person in prop_oneof![Just(None), Just(Some(ADA)), Just(Some(BO))],
        listed in any::<bool>(),
        correct in any::<bool>(),
    ) {
        let drift = if correct { Drift::Correct } else { Drift::Report };
        let rules = Rules { drift, ..RULES };
        let n = standing.status;
        let identities = || if listed { vec![identity(n, person)] } else { Vec::new() };
        let Some((_, mark, _)) = of(&standing, identities(), Named::new(), &[], rules) else { return Ok(()) };
        prop_assert!(standing.state != State::Pending);
        match mark {
            Mark::Due { read } => {
                prop_assert!(awaits(&standing));
                prop_assert!(read.is_none_or(|(id, status)| id.0 == 9000 + n && status == identity(n, person).status()));
            }
            Mark::Unknown => prop_assert!(standing.at_rest && (listed || matches!(standing.desired, Some(LinkStatus::Linked(_))))),
            Mark::Drifted(found) | Mark::Returned(found) => {
                prop_assert!(standing.at_rest && listed && found == identity(n, person).status());
                let drifted = matches!(mark, Mark::Drifted(_));
                prop_assert_eq!(drifted, standing.desired != Some(found));
                prop_assert!(!(drifted && correct));
                let marked = Standing { actual: Some(found), drifted_at: drifted.then_some(NOW), ..standing };
                prop_assert_eq!(of(&marked, identities(), Named::new(), &[], rules), None);
            }
        }
    }
}
