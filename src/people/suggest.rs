//! Whose an account might be, for people to decide: ranked by what speaks for it, with the reason, and never taken for
//! an answer. Pure.

use std::fmt;

use serde::Serialize;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::drata::Person;

/// The shortest name of which it means anything that it is somewhere in a login.
const LONG_ENOUGH: usize = 4;

/// What is known of an account of which nobody knows whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ownerless {
    /// Every login that it was seen with, and the one that the platform has for it.
    pub logins: Vec<String>,
    /// Its e-mail addresses, as an event gave it and as the platform has it.
    pub emails: Vec<String>,
}

/// What speaks for a person, the most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The account's e-mail address and the person's begin alike, at different domains.
    SameEmailName,
    /// The login is what the person's e-mail address begins with.
    LoginIsEmailName,
    /// The login is the person's name.
    LoginIsName,
    /// The login is made of the person's name and an initial.
    LoginLikeName,
    /// The login has the person's first or last name in it.
    LoginHasName,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameEmailName => "the e-mail addresses begin alike",
            Self::LoginIsEmailName => "the login is what the e-mail address begins with",
            Self::LoginIsName => "the login is the name",
            Self::LoginLikeName => "the login is like the name",
            Self::LoginHasName => "the login has a part of the name in it",
        })
    }
}

/// A person whose an account might be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suggestion<'a> {
    /// The person.
    pub person: &'a Person,
    /// What speaks for them.
    pub reason: Reason,
}

/// Ranks people for an account: by the reason, those who have left last among equals.
#[must_use]
pub fn suggest<'a>(account: &Ownerless, people: &'a [Person]) -> Vec<Suggestion<'a>> {
    let mut suggestions: Vec<_> =
        people.iter().filter_map(|person| Some(Suggestion { person, reason: reason(account, person)? })).collect();
    suggestions.sort_by_key(|suggestion| (suggestion.reason, suggestion.person.has_left(), suggestion.person.id));
    suggestions
}

fn reason(account: &Ownerless, person: &Person) -> Option<Reason> {
    let theirs = person.email.as_deref().map(email_name).filter(|name| !name.is_empty());
    if theirs.is_some() && account.emails.iter().any(|email| Some(email_name(email)) == theirs) {
        return Some(Reason::SameEmailName);
    }
    let logins: Vec<String> = account.logins.iter().map(|login| letters(login)).filter(|l| !l.is_empty()).collect();
    let (first, last) = &person.name;
    let part = |name: &Option<String>| letters(name.as_deref().unwrap_or_default());
    let (first, last) = (part(first), part(last));
    let email_name = theirs.map(|name| letters(&name)).unwrap_or_default();
    let by_login = logins.iter().filter_map(|login| of_login(login, &email_name, &first, &last));
    by_login.min()
}

fn of_login(login: &str, email_name: &str, first: &str, last: &str) -> Option<Reason> {
    if login == email_name {
        return Some(Reason::LoginIsEmailName);
    }
    let whole = |a: &str, b: &str| !a.is_empty() && !b.is_empty() && login == format!("{a}{b}");
    if whole(first, last) || whole(last, first) {
        return Some(Reason::LoginIsName);
    }
    let (f, l) = (initial(first), initial(last));
    if whole(f, last) || whole(first, l) || whole(last, f) || whole(l, first) {
        return Some(Reason::LoginLikeName);
    }
    let has = |name: &str| name.chars().count() >= LONG_ENOUGH && login.contains(name);
    (has(first) || has(last)).then_some(Reason::LoginHasName)
}

fn initial(name: &str) -> &str {
    name.char_indices().nth(1).map_or(name, |(end, _)| &name[..end])
}

/// What is before the @, without a tag; of GitHub's
/// [noreply addresses](https://docs.github.com/en/account-and-profile/reference/email-addresses-reference) without the
/// id before it.
fn email_name(email: &str) -> String {
    let (name, domain) = email.split_once('@').unwrap_or((email, ""));
    let name = match name.split_once('+') {
        Some((_, login)) if domain.eq_ignore_ascii_case("users.noreply.github.com") => login,
        Some((name, _)) => name,
        None => name,
    };
    name.to_lowercase()
}

/// The letters of a text, without case, accents, digits and everything between them.
fn letters(text: &str) -> String {
    text.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase).filter(|c| c.is_alphabetic()).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::target::PersonId;

    fn person(id: i64, email: &str, first: &str, last: &str) -> Person {
        let name = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
        Person {
            id: PersonId(id),
            email: name(email),
            name: (name(first), name(last)),
            employment: Some("CURRENT_EMPLOYEE".to_owned()),
        }
    }

    fn account(login: &str, email: Option<&str>) -> Ownerless {
        Ownerless { logins: vec![login.to_owned()], emails: email.map(ToOwned::to_owned).into_iter().collect() }
    }

    #[rstest]
    #[case("x", Some("tomas.rivas@home.example"), Some(Reason::SameEmailName))]
    #[case("x", Some("7410002+Tomas.Rivas@users.noreply.github.com"), Some(Reason::SameEmailName))]
    #[case("tomas-rivas", None, Some(Reason::LoginIsEmailName))]
    #[case("rivas-tomas99", None, Some(Reason::LoginIsName))]
    #[case("trivas", None, Some(Reason::LoginLikeName))]
    #[case("tomas-r", None, Some(Reason::LoginLikeName))]
    #[case("rivas_codes", None, Some(Reason::LoginHasName))]
    #[case("octocat", Some("cat@home.example"), None)]
    #[case("42", None, None)]
    fn a_person_is_suggested_for_what_speaks_for_them(
        #[case] login: &str,
        #[case] email: Option<&str>,
        #[case] expected: Option<Reason>,
    ) {
        let people = [person(519, "tomas.rivas@acme.example", "Tomás", "Rivas")];
        let suggested = suggest(&account(login, email), &people);
        assert_eq!(suggested.first().map(|suggestion| suggestion.reason), expected);
    }

    #[test]
    fn a_name_is_the_same_with_and_without_accents() {
        let people = [person(1, "", "Zoë", "Müller")];
        assert_eq!(suggest(&account("zoe-muller", None), &people)[0].reason, Reason::LoginIsName);
    }

    #[test]
    fn what_speaks_most_comes_first_and_who_has_left_last_among_equals() {
        let left = Person { employment: Some("FORMER_EMPLOYEE".to_owned()), ..person(1, "", "Ada", "Lovelace") };
        let people = [
            left,
            person(2, "", "Alan", "Lovelace"),
            person(3, "alovelace@acme.example", "Agnes", "Love"),
            person(4, "", "Lovelace", ""),
        ];
        let ids: Vec<i64> = suggest(&account("alovelace", None), &people).iter().map(|s| s.person.id.0).collect();
        assert_eq!(ids, [3, 2, 1, 4]);
    }

    #[test]
    fn short_names_and_missing_ones_match_nothing_by_chance() {
        let people = [person(1, "", "Bo", ""), person(2, "", "", "Li"), person(3, "", "", "")];
        assert_eq!(suggest(&account("bobolink", None), &people), []);
        assert_eq!(suggest(&account("b", None), &people), []);
    }
}
