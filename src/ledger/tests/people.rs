//! Whose accounts are, as operators say it.

use super::*;
use crate::access::AccountPattern;
use crate::ledger::actions::About;
use crate::ledger::people::{Heard, News, Taking, Unheard, Word};
use crate::ledger::show::people::{PeopleFilter, PeopleRow};
use crate::target::{PersonFrom, PersonRef};

fn word(account: &str, person: Option<&str>) -> Word {
    Word { account: account.parse().unwrap(), person: person.map(|person| person.parse().unwrap()) }
}

impl Site {
    async fn hear(&self, words: &[Word], taking: Taking) -> Result<Vec<Heard>, Vec<(usize, Unheard)>> {
        self.ledger.hear(words, "olga", taking).await.unwrap()
    }

    async fn said_of(&self, id: &str) -> Option<Option<PersonRef>> {
        let pattern: AccountPattern = format!("github:#{id}").parse().unwrap();
        let row = self.ledger.accounts_named(&pattern).await.unwrap()[0].row;
        self.ledger.said_of(row, &account(id)).await.unwrap()
    }

    async fn listed(&self, filter: PeopleFilter) -> Vec<PeopleRow> {
        self.ledger.people(&filter, None, 100).await.unwrap()
    }
}

fn email(text: &str) -> Option<PersonRef> {
    Some(PersonRef::Email(text.to_owned()))
}

#[rstest]
#[tokio::test]
async fn what_an_operator_says_makes_the_account_due_and_is_noted(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("join", 1, gained("1", org()))]).await;
    site.reconcile(&[]).await;
    assert!(site.take().await.is_empty());
    let heard = site.hear(&[word("github:LOGIN-1", Some("Ada@acme.example"))], Taking::Anew).await.unwrap();
    assert_eq!(
        (heard[0].account.as_str(), heard[0].known, &heard[0].news),
        ("github@github.com:#1", true, &News::Added)
    );
    let (lease, view) = site.take_one().await;
    assert_eq!(site.said_of("1").await, Some(email("ada@acme.example")));

    // Whoever was looking meanwhile looks again.
    let heard = site.hear(&[word("github:#1", None)], Taking::Anew).await.unwrap();
    assert_eq!(heard[0].news, News::Changed { before: email("ada@acme.example") });
    let stale = settled(Settled::Applied, Some(PERSON), Some(PERSON));
    assert_eq!(site.ledger.settle(&lease, view.version, &stale, Vec::new()).await.unwrap(), Held::Moved);
    assert_eq!(site.said_of("1").await, Some(None));

    let noted = site.ledger.actions(About::Account(view.account_row)).await.unwrap();
    let noted: Vec<_> =
        noted.iter().map(|done| (done.operator.as_str(), done.action.as_str(), done.detail.as_deref())).collect();
    assert_eq!(
        noted,
        [
            ("olga", "link", Some("github@github.com:#1 is ada@acme.example")),
            ("olga", "unlink", Some("github@github.com:#1 is nobody's"))
        ]
    );
}

#[rstest]
#[tokio::test]
async fn an_account_can_be_spoken_of_before_anybody_has_seen_it(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let words =
        [word("github@github.com:Login-1", Some("user:518")), word("github@github.com:#2", Some("b@acme.example"))];
    let heard = site.hear(&words, Taking::Once).await.unwrap();
    assert!(heard.iter().all(|heard| !heard.known && heard.news == News::Added), "{heard:?}");
    assert_eq!(site.hear(&words, Taking::Once).await.unwrap()[0].news, News::Left);
    let unplaced = site.hear(&[word("github:nobody-yet", Some("user:518"))], Taking::Once).await.unwrap_err();
    assert!(matches!(unplaced.as_slice(), [(0, Unheard::Nowhere(_))]));
    let listed = site.listed(PeopleFilter::default()).await;
    let listed: Vec<_> = listed.iter().map(|row| (row.account.as_str(), row.person.as_deref())).collect();
    assert_eq!(
        listed,
        [("github@github.com:login-1", Some("user:518")), ("github@github.com:#2", Some("b@acme.example"))]
    );

    site.record([told("join-1", 1, gained("1", org())), told("join-2", 2, gained("2", org()))]).await;
    assert_eq!(site.said_of("1").await, Some(Some(PersonRef::Id(PersonId(518)))));
    assert_eq!(site.said_of("2").await, Some(email("b@acme.example")));
    // The login is bound to the account that it was first seen with.
    let mut other = account("9");
    other.login = Some("login-1".into());
    let change = Change::Access { account: other.clone(), scope: org(), kind: AccessKind::Gained };
    site.record([told("join-9", 3, change)]).await;
    let row = site.ledger.accounts_named(&"github:#9".parse().unwrap()).await.unwrap()[0].row;
    assert_eq!(site.ledger.said_of(row, &other).await.unwrap(), None);
    // From now on the login alone names two.
    let ambiguous = site.hear(&[word("github:login-1", None)], Taking::Once).await.unwrap_err();
    assert!(ambiguous[0].1.to_string().contains("'github@github.com:#1', 'github@github.com:#9'"), "{ambiguous:?}");
}

#[rstest]
#[tokio::test]
async fn a_word_by_login_that_nobody_has_asked_for_gives_way_to_one_by_id(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.hear(&[word("github@github.com:login-1", Some("user:518"))], Taking::Once).await.unwrap();
    site.record([told("join-1", 1, gained("1", org()))]).await;
    let heard = site.hear(&[word("github:login-1", Some("user:519"))], Taking::Once).await.unwrap();
    assert_eq!(heard[0].news, News::Changed { before: Some(PersonRef::Id(PersonId(518))) });
    let said = site.ledger.said().await.unwrap();
    assert_eq!(said.iter().map(|said| said.account.as_str()).collect::<Vec<_>>(), ["github@github.com:#1"]);
}

#[rstest]
#[tokio::test]
async fn all_is_taken_or_nothing_and_a_rehearsal_is_nothing(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    let mut bot = account("3");
    bot.kind = AccountKind::Bot;
    let bot = Change::Access { account: bot, scope: org(), kind: AccessKind::Gained };
    site.record([told("join-1", 1, gained("1", org())), told("join-3", 1, bot)]).await;
    site.reconcile(&[]).await;
    let words = [
        word("github:#1", Some("user:518")),
        word("github:login-1", Some("user:519")),
        word("github:#3", Some("user:520")),
        word("github:new", Some("user:521")),
    ];
    let unheard = site.hear(&words, Taking::Once).await.unwrap_err();
    let unheard: Vec<_> = unheard.into_iter().map(|(n, why)| (n, why.to_string())).collect();
    assert_eq!(unheard[0], (1, "account github:login-1 is the same account as github:#1".to_owned()));
    assert_eq!(unheard[1], (2, "account github:#3 is a bot, and bots are never linked".to_owned()));
    assert_eq!(unheard[2].0, 3);
    assert_eq!(site.hear(&words[..1], Taking::Rehearsed).await.unwrap()[0].news, News::Added);
    assert_eq!((site.count("people").await, site.count("actions").await), (0, 0));
    assert!(site.take().await.is_empty());
}

#[rstest]
#[tokio::test]
async fn what_was_said_twice_changes_nothing_unless_it_is_meant(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    site.record([told("join", 1, gained("1", org()))]).await;
    let words = [word("github:#1", Some("user:518"))];
    site.hear(&words, Taking::Once).await.unwrap();
    site.reconcile(&[]).await;
    site.hear(&words, Taking::Once).await.unwrap();
    assert!(site.take().await.is_empty());
    site.hear(&words, Taking::Anew).await.unwrap();
    assert_eq!(site.take().await.len(), 1);
    assert_eq!(site.count("actions").await, 2);
}

#[rstest]
#[tokio::test]
async fn a_listing_says_from_where_it_is_known(#[values(Sqlite, PostgreSql)] on: Database) {
    let mut site = Site::open(on).await;
    for n in 1..=4 {
        site.record([told(&format!("join-{n}"), n, gained(&n.to_string(), org()))]).await;
    }
    let outcomes = [
        Settlement {
            person_from: Some(PersonFrom::EventEmail),
            ..settled(Settled::Applied, Some(PERSON), Some(PERSON))
        },
        settled(Settled::Waiting, None, Some(LinkStatus::Unlinked)),
        settled(Settled::Unchanged, None, Some(PERSON)),
    ];
    for (lease, settlement) in site.take().await.iter().zip(outcomes) {
        let view = site.ledger.view(lease, &|_| Vec::new()).await.unwrap();
        site.ledger.settle(lease, view.version, &settlement, Vec::new()).await.unwrap();
    }
    site.hear(&[word("github:#4", None)], Taking::Once).await.unwrap();
    let rows = site.listed(PeopleFilter::default()).await;
    let rows: Vec<_> = rows.iter().map(|row| (row.person.as_deref(), row.from, row.operator.as_deref())).collect();
    assert_eq!(
        rows,
        [
            (Some("user:518"), Some(PersonFrom::EventEmail), None),
            (None, None, None),
            (Some("user:518"), Some(PersonFrom::Platform), None),
            (Some("nobody"), Some(PersonFrom::Operator), Some("olga")),
        ]
    );
    let ids = async |filter| {
        let rows: Vec<PeopleRow> = site.listed(filter).await;
        rows.iter().map(|row| row.account.rsplit('#').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let all = PeopleFilter::default;
    assert_eq!(ids(PeopleFilter { unknown: true, ..all() }).await, ["2"]);
    assert_eq!(ids(PeopleFilter { from: Some(PersonFrom::Operator), ..all() }).await, ["4"]);
    assert_eq!(ids(PeopleFilter { person: Some(PersonRef::Id(PersonId(518))), ..all() }).await, ["1", "3"]);
    assert_eq!(ids(PeopleFilter { account: Some("login-3".parse().unwrap()), ..all() }).await, ["3"]);
    assert_eq!(ids(PeopleFilter { provider: Some("gitlab".into()), ..all() }).await, [""; 0]);
    let first = site.ledger.people(&all(), None, 2).await.unwrap();
    let rest = site.ledger.people(&all(), Some(first[1].place), 10).await.unwrap();
    assert_eq!(rest.len(), 2);
}
