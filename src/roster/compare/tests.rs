use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::access::{AccountKey, AccountKind, ChangeKey};
use crate::provider::roster::Listed;

const TIMES: Nature = Nature { exhaustive: true, turns: false };
const TURNS: Nature = Nature { exhaustive: true, turns: true };
const APART: Duration = Duration::from_secs(600);

fn root() -> Scope {
    Scope::top(ScopeKind::Org, "1", Some("acme".into()))
}

fn group() -> Scope {
    Scope::top(ScopeKind::Group, "42", Some("acme".into()))
}

fn account(id: &str) -> Account {
    let key = AccountKey { provider: "github".into(), host: "github.com".into(), id: id.into() };
    Account { key, node_id: None, login: Some(format!("login-{id}")), email: None, kind: AccountKind::Person }
}

fn at(second: i64) -> Timestamp {
    Timestamp(second * 1_000_000)
}

fn key(turn: Turn, second: i64, loss: bool) -> ChangeKey {
    let (source, delivery) = ("acme".parse().unwrap(), format!("d{second}").parse().unwrap());
    ChangeKey { turn, event_time: at(second), received_at: at(second), loss, source, delivery }
}

fn grant(scope: &Scope, kind: AccessKind, turn: Turn, second: i64) -> (Grant, i64) {
    let root = scope.root.as_ref().map(|(id, _)| id.clone());
    let key = key(turn, second, kind == AccessKind::Lost);
    (Grant { scope: scope.id.clone(), root, kind, key, scope_lost: None, scope_moved: None }, second)
}

/// A grant of a change of which only its time is known.
fn timed(scope: &Scope, kind: AccessKind, second: i64) -> (Grant, i64) {
    grant(scope, kind, Turn::at(at(second)), second)
}

fn of(began: i64, step: Step) -> Turn {
    Turn::Of { began: at(began), step }
}

fn known(accounts: impl IntoIterator<Item = (&'static str, Vec<(Grant, i64)>)>) -> Known {
    let accounts = accounts
        .into_iter()
        .map(|(id, grants)| (id.to_owned(), KnownAccount { account: account(id), grants, undecided: false }));
    Known { accounts: accounts.collect(), root_lost: None }
}

fn member(id: &str, began: Option<i64>) -> Member {
    Member { account: account(id), role: None, began: began.map(at), active: true }
}

fn whole(root: &Scope, scopes: impl IntoIterator<Item = (Scope, Vec<Member>)>) -> Whole {
    let listed = |(scope, members): (Scope, Vec<Member>)| {
        let members = members.into_iter().map(|member| (member.account.key.id.clone(), member)).collect();
        (scope.id.clone(), Listed { scope, members })
    };
    Whole { root: root.clone(), scopes: scopes.into_iter().map(listed).collect() }
}

/// What differs, in a few words, and with which turn it would be recorded.
fn differences(roster: &Whole, known: &Known, nature: Nature, second: i64) -> Vec<(String, Turn)> {
    let said = |it: Difference| {
        let Observation { account, scope, access, turn, .. } = it.observed;
        let early = if it.is_later { "" } else { " too early" };
        (format!("{} {} {}{early}", account.key.id, access.as_str(), scope.id), turn)
    };
    compare(roster, known, nature, at(second)).into_iter().map(said).collect()
}

fn words(roster: &Whole, known: &Known, nature: Nature) -> Vec<String> {
    differences(roster, known, nature, 100).into_iter().map(|(words, _)| words).collect()
}

#[test]
fn who_is_there_and_unknown_is_gained_and_who_is_known_and_not_there_is_lost() {
    let roster = whole(&root(), [(root(), vec![member("1", None), member("2", None), member("4", None)])]);
    let known = known([
        ("2", vec![timed(&root(), AccessKind::Gained, 5)]),
        ("3", vec![timed(&root(), AccessKind::Gained, 5)]),
        ("4", vec![timed(&root(), AccessKind::Lost, 5)]),
        ("5", vec![timed(&root(), AccessKind::Lost, 5)]),
    ]);
    assert_eq!(words(&roster, &known, TIMES), ["1 gained org:#1", "3 lost org:#1", "4 gained org:#1"]);
    assert_eq!(compare(&roster, &known, TIMES, at(100))[0].ledger, LedgerSays::Nothing);
}

#[test]
fn an_observation_counts_for_nothing_before_the_event_that_it_contradicts() {
    let roster = whole(&root(), [(root(), vec![member("4", None), member("9", None)])]);
    let known = known([
        ("3", vec![timed(&root(), AccessKind::Gained, 100)]),
        ("4", vec![timed(&root(), AccessKind::Lost, 101)]),
        ("9", vec![timed(&root(), AccessKind::Gained, 1)]),
    ]);
    assert_eq!(words(&roster, &known, TIMES), ["3 lost org:#1 too early", "4 gained org:#1 too early"]);
}

#[test]
fn whoever_is_nowhere_in_an_exhaustive_roster_loses_the_root_and_with_it_every_part() {
    let repo = root().part(ScopeKind::Repo, "7", None);
    let roster = whole(&root(), [(root(), vec![member("9", None)])]);
    let collaborator = known([
        ("3", vec![timed(&repo, AccessKind::Gained, 5)]),
        ("9", vec![timed(&root(), AccessKind::Gained, 5), timed(&repo, AccessKind::Gained, 6)]),
    ]);
    assert_eq!(words(&roster, &collaborator, TIMES), ["3 lost org:#1"]);
    let elsewhere = Nature { exhaustive: false, ..TIMES };
    assert!(words(&roster, &collaborator, elsewhere).is_empty(), "they may have been given that repository alone");
}

#[test]
fn whose_link_only_this_root_keeps_is_gone_from_it_if_it_is_not_there() {
    let roster = whole(&root(), [(root(), vec![member("2", None)])]);
    let mut known = known([("1", vec![]), ("2", vec![timed(&root(), AccessKind::Gained, 1)])]);
    known.accounts.get_mut("1").unwrap().undecided = true;
    assert_eq!(words(&roster, &known, TIMES), ["1 lost org:#1"]);
}

#[test]
fn a_lost_root_is_gained_again_by_whoever_is_there() {
    let roster = whole(&root(), [(root(), vec![member("1", None)])]);
    let mut known = known([("1", vec![timed(&root(), AccessKind::Gained, 5)])]);
    known.root_lost = Some(key(Turn::at(at(9)), 9, true));
    assert_eq!(words(&roster, &known, TIMES), ["1 gained org:#1"]);
    known.root_lost = Some(key(Turn::at(at(200)), 200, true));
    assert_eq!(words(&roster, &known, TIMES), ["1 gained org:#1 too early"]);
}

#[test]
fn a_gain_has_the_turn_of_the_member_s_own_record() {
    let roster = whole(&group(), [(group(), vec![member("1", Some(50))])]);
    let none = known([]);
    assert_eq!(differences(&roster, &none, TURNS, 100), [("1 gained group:#42".to_owned(), of(50, Step::Made))]);
    let before = known([("1", vec![grant(&group(), AccessKind::Lost, of(20, Step::Ended), 30)])]);
    assert_eq!(differences(&roster, &before, TURNS, 100)[0].1, of(50, Step::Made));
}

#[test]
fn a_loss_has_the_turn_of_the_record_that_it_ends() {
    let roster = whole(&group(), [(group(), vec![member("9", Some(1))])]);
    let known = known([
        ("1", vec![grant(&group(), AccessKind::Gained, of(20, Step::Changed), 30)]),
        ("9", vec![grant(&group(), AccessKind::Gained, of(1, Step::Made), 1)]),
    ]);
    assert_eq!(differences(&roster, &known, TURNS, 100), [("1 lost group:#42".to_owned(), of(20, Step::Ended))]);
}

#[test]
fn a_record_that_outlives_the_end_of_another_comes_right_after_that_end() {
    // An invitation by way of another group: the account is still in, by an older record.
    let roster = whole(&group(), [(group(), vec![member("1", Some(10))])]);
    let known = known([("1", vec![grant(&group(), AccessKind::Lost, of(20, Step::Ended), 30)])]);
    let lifted = Turn::Of { began: at(20).plus_micros(1), step: Step::Made };
    assert_eq!(differences(&roster, &known, TURNS, 100), [("1 gained group:#42".to_owned(), lifted)]);
}

#[test]
fn being_blocked_and_let_in_again_are_changes_of_the_same_record() {
    let mut blocked = member("1", Some(10));
    blocked.active = false;
    let others = member("9", Some(1));
    let nine = || ("9", vec![grant(&group(), AccessKind::Gained, of(1, Step::Made), 1)]);
    let roster = whole(&group(), [(group(), vec![blocked, others.clone()])]);
    let joined = known([("1", vec![grant(&group(), AccessKind::Gained, of(10, Step::Made), 11)]), nine()]);
    assert_eq!(differences(&roster, &joined, TURNS, 100), [("1 lost group:#42".to_owned(), of(10, Step::Changed))]);
    let roster = whole(&group(), [(group(), vec![member("1", Some(10)), others])]);
    let shut_out = known([("1", vec![grant(&group(), AccessKind::Lost, of(10, Step::Changed), 100)]), nine()]);
    assert_eq!(differences(&roster, &shut_out, TURNS, 200), [("1 gained group:#42".to_owned(), of(10, Step::Changed))]);
    // The end of the record itself is later than both.
    assert!(of(10, Step::Ended) > of(10, Step::Changed));
}

#[test]
fn the_end_of_an_account_is_never_contradicted() {
    let roster = whole(&group(), [(group(), vec![member("1", Some(50))])]);
    let known = known([("1", vec![grant(&group(), AccessKind::Lost, Turn::Final, 30)])]);
    assert!(compare(&roster, &known, TURNS, at(100)).is_empty());
}

#[test]
fn leaving_a_part_is_not_leaving_and_a_part_that_is_gone_is_lost_by_name() {
    let part = |id: &str| group().part(ScopeKind::Repo, id, None);
    let scopes = [(group(), vec![member("9", Some(1))]), (part("7"), vec![member("1", Some(3))])];
    let roster = whole(&group(), scopes);
    let gained = |scope: &Scope| grant(scope, AccessKind::Gained, of(3, Step::Made), 3);
    let known = known([
        ("1", vec![gained(&group()), gained(&part("7")), gained(&part("8"))]),
        ("2", vec![gained(&part("8"))]),
        ("9", vec![gained(&group()), gained(&part("7"))]),
    ]);
    // 8 was deleted, and nobody said so; whoever is elsewhere in the root needn't be asked about it.
    assert_eq!(words(&roster, &known, TURNS), ["1 lost group:#42", "2 lost repo:#8", "9 lost repo:#7"]);
}

#[test]
fn a_part_of_before_that_a_return_brings_back_is_lost_by_the_next_reading() {
    let part = root().part(ScopeKind::Repo, "7", None);
    let roster = whole(&root(), [(root(), vec![member("1", None)]), (part.clone(), vec![])]);
    let seen = timed(&part, AccessKind::Seen, 1);
    let left = known([("1", vec![timed(&root(), AccessKind::Lost, 19), seen.clone()])]);
    assert_eq!(words(&roster, &left, TIMES), ["1 gained org:#1"]);
    let back = known([("1", vec![timed(&root(), AccessKind::Gained, 100), seen])]);
    assert_eq!(words(&roster, &back, TIMES), ["1 lost repo:#7"]);
}

fn times(began: i64) -> ReadingTimes {
    ReadingTimes { began: at(began), ended: at(began + 5) }
}

#[test]
fn a_difference_counts_when_a_second_reading_far_enough_apart_shows_it() {
    let roster = whole(&root(), [(root(), vec![member("1", None)])]);
    let read = |known: &Known, began: i64, before: &ShownBefore| {
        confirm(compare(&roster, known, TIMES, at(began - 300)), before, times(began), APART)
    };
    let nothing = known([]);
    let first = read(&nothing, 1000, &ShownBefore::new());
    assert_eq!((first.confirmed.len(), first.pending.len()), (0, 1));
    let before = shown(&first.pending);
    // Ten minutes from the end of the first reading to the beginning of the second.
    let early = read(&nothing, 1604, &before);
    assert_eq!((early.confirmed.len(), shown(&early.pending)), (0, before.clone()));
    let second = read(&nothing, 1605, &before);
    assert_eq!(second.confirmed.iter().map(|(_, first)| *first).collect::<Vec<_>>(), [at(1005)]);
    // An event between them: the account joined and left, and the roster still shows it.
    let left = known([("1", vec![timed(&root(), AccessKind::Lost, 1200)])]);
    let after_event = read(&left, 1605, &before);
    assert!(after_event.confirmed.is_empty());
    assert_eq!(after_event.pending[0].1, at(1610), "its first reading is this one");
    // And of another kind altogether.
    let gone =
        known([("1", vec![timed(&root(), AccessKind::Gained, 1)]), ("2", vec![timed(&root(), AccessKind::Gained, 1)])]);
    assert!(read(&gone, 1605, &before).confirmed.is_empty());
}

/// A ledger and a roster of three accounts in a root and one part of it.
fn grants() -> impl Strategy<Value = Vec<(usize, usize, AccessKind, i64, usize, i64)>> {
    let kind = prop_oneof![Just(AccessKind::Gained), Just(AccessKind::Lost), Just(AccessKind::Seen)];
    prop::collection::vec((0..3usize, 0..2usize, kind, 0..9i64, 0..3usize, 1..90i64), 0..6)
}

fn members() -> impl Strategy<Value = Vec<(usize, usize, i64, bool)>> {
    prop::collection::vec((0..3usize, 0..2usize, 0..9i64, any::<bool>()), 0..6)
}

const IDS: [&str; 3] = ["1", "2", "3"];

proptest! {
    /// Once what differs is recorded, nothing differs: each observation comes after what it contradicts, and says as much as
    /// the roster does. It may take a second reading: who is in a root again is in its parts of before, too, until that one
    /// shows otherwise.
    #[test]
    fn what_was_observed_and_recorded_differs_no_more(
        grants in grants(), members in members(), turns in any::<bool>(), exhaustive in any::<bool>(),
    ) {
        let nature = Nature { exhaustive, turns };
        let root = if turns { group() } else { root() };
        let scopes = [root.clone(), root.part(ScopeKind::Repo, "7", None)];
        let mut known = known(IDS.map(|id| (id, Vec::new())));
        for (who, scope, kind, began, step, second) in grants {
            let step = if kind == AccessKind::Lost { Step::Ended } else { [Step::Made, Step::Changed, Step::Made][step] };
            let turn = if turns { of(began, step) } else { Turn::at(at(second)) };
            let account = known.accounts.get_mut(IDS[who]).unwrap();
            account.grants.retain(|(grant, _)| grant.scope != scopes[scope].id);
            account.grants.push(grant(&scopes[scope], kind, turn, second));
        }
        let in_scope = |n: usize| {
            let of_scope = members.iter().filter(move |member| member.1 == n);
            of_scope.map(|&(who, _, began, active)| Member { active, ..member(IDS[who], Some(began)) }).collect()
        };
        let roster = whole(&root, [(scopes[0].clone(), in_scope(0)), (scopes[1].clone(), in_scope(1))]);
        for second in [100, 200] {
            for difference in compare(&roster, &known, nature, at(second)) {
                prop_assert!(difference.is_later, "{difference:?}");
                let Observation { account, scope, access, turn, .. } = difference.observed;
                let grants = &mut known.accounts.get_mut(&account.key.id).unwrap().grants;
                let new = grant(&scope, access, turn, second);
                if let Some((old, _)) = grants.iter().find(|(old, _)| old.scope == scope.id) {
                    prop_assert!(old.kind == AccessKind::Seen || new.0.key > old.key);
                }
                grants.retain(|(old, _)| old.scope != scope.id);
                grants.push(new);
            }
            let left = words(&roster, &known, nature);
            prop_assert!(left.iter().all(|word| word.contains(" lost repo:")), "{left:?}");
        }
        prop_assert_eq!(words(&roster, &known, nature), Vec::<String>::new());
    }
}
