//! Faults on demand: a small grammar of rules, and the dice that decide which request one hits.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::{Method, StatusCode};

/// What a request wants, as far as faults tell requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Linking or unlinking an identity.
    Connect,
    /// Marking an identity as a service account.
    ServiceAccount,
    /// Listing identities.
    List,
    /// Looking for people: users or personnel.
    Person,
    /// Listing connections.
    Connections,
    /// Listing events.
    Events,
}

impl Operation {
    const ALL: [Self; 6] =
        [Self::Connect, Self::ServiceAccount, Self::List, Self::Person, Self::Connections, Self::Events];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ServiceAccount => "service-account",
            Self::List => "list",
            Self::Person => "person",
            Self::Connections => "connections",
            Self::Events => "events",
        }
    }

    /// What a request to this path (without `/public`) wants; `None` for paths that Drata doesn't have.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        match (method, parts.next()?, parts.next(), parts.next(), parts.next()) {
            (&Method::PUT, "user-identities", Some("version-control"), Some(_), Some("connect")) => Some(Self::Connect),
            (&Method::PUT, "user-identities", Some("version-control"), Some(_), Some("service-account")) => {
                Some(Self::ServiceAccount)
            }
            (&Method::GET, "user-identities", Some("version-control"), None, None) => Some(Self::List),
            (&Method::GET, "users" | "personnel", ..) => Some(Self::Person),
            (&Method::GET, "connections", None, None, None) => Some(Self::Connections),
            (&Method::GET, "events", None, None, None) => Some(Self::Events),
            _ => None,
        }
    }
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Answers with this status and, if given, `Retry-After` in seconds.
    Status(StatusCode, Option<u32>),
    /// Never answers.
    Timeout,
    /// Closes the connection without an answer.
    Drop,
    /// Does the work and answers with a body that can't be read.
    Garbled,
    /// Waits before anything else.
    Slow(Duration),
    /// Waits and then does the work, also if the client has hung up by then.
    Late(Duration),
}

/// One rule. [`FromStr`] reads it:
///
/// ```text
/// rule      = effect *( ":" option ) [ "@" operation ]
/// effect    = status            ; 400 to 599: answers with it instead of doing the work
///           | "timeout"         ; never answers (hangs up after 60 s)
///           | "drop"            ; closes the connection without an answer
///           | "garbled"         ; does the work, answers its status, but the body can't be read
///           | "slow=" duration  ; waits first ("200ms", "2s"); goes together with every other rule
///           | "late=" duration  ; does the work that much later, also if the client has hung up by then
/// option    = percent "%"       ; hits that share of the requests, else all
///           | "first=" count    ; hits the first so many requests of each identity (or of each path)
///           | "id=" id          ; hits the requests about that identity alone
///           | "applied"         ; does the work first: the nastiest kind
///           | "retry-after=" s  ; the Retry-After header of a status, in seconds
/// operation = "connect" | "service-account" | "list" | "person" | "connections" | "events"
/// ```
///
/// Rules are tried in order and the first that hits counts, `slow` apart. Examples: `500:20%`, `503@list`,
/// `429:retry-after=2`, `timeout:5%`, `500:first=3@connect`, `500:applied`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// What it does.
    pub effect: Effect,
    /// The share of requests that it hits, in percent; `None` for all.
    pub percent: Option<f64>,
    /// Only the first so many requests of each identity or path.
    pub first: Option<u32>,
    /// Only requests with this identity in their path.
    pub id: Option<String>,
    /// Whether the work is done before.
    pub applied: bool,
    /// Only this operation.
    pub on: Option<Operation>,
}

/// A rule that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault {rule:?}: {why}")]
pub struct InvalidFault {
    rule: String,
    why: String,
}

impl FromStr for Fault {
    type Err = InvalidFault;

    fn from_str(rule: &str) -> Result<Self, Self::Err> {
        let invalid = |why: String| InvalidFault { rule: rule.to_owned(), why };
        let (text, on) = match rule.trim().rsplit_once('@') {
            None => (rule.trim(), None),
            Some((text, name)) => {
                let operation = Operation::ALL.into_iter().find(|operation| operation.as_str() == name);
                let known = Operation::ALL.map(Operation::as_str).join(", ");
                (text, Some(operation.ok_or_else(|| invalid(format!("{name:?} is no operation; there are {known}")))?))
            }
        };
        let mut parts = text.split(':');
        let effect = parse_effect(parts.next().unwrap_or_default()).map_err(invalid)?;
        let mut fault = Self { effect, percent: None, first: None, id: None, applied: false, on };
        for option in parts {
            fault.read_option(option).map_err(invalid)?;
        }
        Ok(fault)
    }
}

fn parse_effect(text: &str) -> Result<Effect, String> {
    type Waits = fn(Duration) -> Effect;
    match text {
        "timeout" => return Ok(Effect::Timeout),
        "drop" => return Ok(Effect::Drop),
        "garbled" => return Ok(Effect::Garbled),
        _ => {}
    }
    let waits: [(&str, Waits); 2] = [("slow=", Effect::Slow), ("late=", Effect::Late)];
    for (word, effect) in waits {
        if let Some(duration) = text.strip_prefix(word) {
            return humantime::parse_duration(duration)
                .map(effect)
                .map_err(|_| format!("{duration:?} is no duration; write it like 200ms or 2s"));
        }
    }
    match text.parse() {
        Ok(status @ 400..=599) => {
            StatusCode::from_u16(status).map(|status| Effect::Status(status, None)).map_err(|error| error.to_string())
        }
        _ => Err(format!(
            "{text:?} is no effect; there are 400 to 599, timeout, drop, garbled, slow=DURATION and late=DURATION"
        )),
    }
}

impl Fault {
    fn read_option(&mut self, option: &str) -> Result<(), String> {
        let waits = matches!(self.effect, Effect::Slow(_) | Effect::Late(_));
        if let Some(percent) = option.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|percent| (0.0..=100.0).contains(percent));
            self.percent = Some(percent.ok_or_else(|| format!("{option:?} is no share; write it like 20%"))?);
        } else if let Some(count) = option.strip_prefix("first=") {
            self.first = Some(count.parse().map_err(|_| format!("{count:?} is no count"))?);
        } else if let Some(id) = option.strip_prefix("id=") {
            self.id = Some(id.to_owned());
        } else if option == "applied" && !waits {
            self.applied = true;
        } else if let (Some(seconds), Effect::Status(_, retry_after)) =
            (option.strip_prefix("retry-after="), &mut self.effect)
        {
            *retry_after = Some(seconds.parse().map_err(|_| format!("{seconds:?} is no number of seconds"))?);
        } else {
            return Err(format!(
                "{option:?} is no option here; there are N%, first=N, id=ID, applied (not with slow or late), \
                 retry-after=SECONDS (with a status)"
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.effect {
            Effect::Status(status, None) => write!(f, "{}", status.as_u16())?,
            Effect::Status(status, Some(seconds)) => write!(f, "{}:retry-after={seconds}", status.as_u16())?,
            Effect::Timeout => f.write_str("timeout")?,
            Effect::Drop => f.write_str("drop")?,
            Effect::Garbled => f.write_str("garbled")?,
            Effect::Slow(duration) | Effect::Late(duration) => {
                let word = if matches!(self.effect, Effect::Slow(_)) { "slow" } else { "late" };
                write!(f, "{word}={}", humantime::format_duration(*duration).to_string().replace(' ', ""))?;
            }
        }
        if let Some(percent) = self.percent {
            write!(f, ":{percent}%")?;
        }
        if let Some(first) = self.first {
            write!(f, ":first={first}")?;
        }
        if let Some(id) = &self.id {
            write!(f, ":id={id}")?;
        }
        if self.applied {
            f.write_str(":applied")?;
        }
        self.on.map_or(Ok(()), |operation| write!(f, "@{}", operation.as_str()))
    }
}

/// The rules in force, with what they have counted so far.
#[derive(Debug)]
pub(super) struct Faults {
    rules: Vec<(Fault, HashMap<String, u32>)>,
    dice: fastrand::Rng,
}

/// What becomes of one request.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// How long to wait first.
    pub(super) delay: Duration,
    /// The rule that hit, apart from `slow`.
    pub(super) fault: Option<Fault>,
    /// Every rule that hit, as written.
    pub(super) rules: Vec<String>,
}

impl Faults {
    pub(super) fn new(rules: Vec<Fault>, seed: u64) -> Self {
        let mut faults = Self { rules: Vec::new(), dice: fastrand::Rng::with_seed(seed) };
        faults.replace(rules);
        faults
    }

    pub(super) fn replace(&mut self, rules: Vec<Fault>) {
        self.rules = rules.into_iter().map(|rule| (rule, HashMap::new())).collect();
    }

    pub(super) fn list(&self) -> Vec<String> {
        self.rules.iter().map(|(rule, _)| rule.to_string()).collect()
    }

    /// Decides about one request; `subject` is what `first=` counts by.
    pub(super) fn decide(&mut self, operation: Operation, subject: &str) -> Verdict {
        let mut verdict = Verdict::default();
        for (rule, counts) in &mut self.rules {
            if rule.on.is_some_and(|on| on != operation)
                || rule.id.as_ref().is_some_and(|id| !subject.split('/').any(|part| part == id))
            {
                continue;
            }
            let slow = match rule.effect {
                Effect::Slow(delay) => Some(delay),
                _ if verdict.fault.is_some() => continue,
                _ => None,
            };
            if let Some(first) = rule.first {
                let count = counts.entry(subject.to_owned()).or_default();
                if *count >= first {
                    continue;
                }
                *count += 1;
            }
            if rule.percent.is_some_and(|percent| self.dice.f64() * 100.0 >= percent) {
                continue;
            }
            verdict.rules.push(rule.to_string());
            match slow {
                Some(delay) => verdict.delay += delay,
                None => verdict.fault = Some(rule.clone()),
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(rules: &[&str]) -> Faults {
        Faults::new(rules.iter().map(|rule| rule.parse().unwrap()).collect(), 7)
    }

    #[test]
    fn a_rule_for_one_identity_hits_no_other() {
        let mut faults = faults(&["403:id=7@connect"]);
        let mut hit = |subject: &str| faults.decide(Operation::Connect, subject).fault.is_some();
        assert_eq!([hit("/identities/7/connect"), hit("/identities/77/connect"), hit("7")], [true, false, true]);
    }

    #[test]
    fn rules_are_written_as_they_are_read() {
        for rule in [
            "500:20%",
            "503",
            "429:retry-after=2",
            "timeout:5%",
            "drop@person",
            "slow=200ms",
            "late=3s:5%@connect",
            "500:first=3@connect",
            "500:applied",
            "garbled@list",
            "502:0.5%:first=9:applied@connect",
        ] {
            assert_eq!(rule.parse::<Fault>().unwrap().to_string(), rule);
        }
    }

    #[test]
    fn a_wrong_rule_says_what_would_be_right() {
        for (rule, hint) in [
            ("200", "400 to 599"),
            ("sloow=1s", "slow=DURATION"),
            ("slow=1", "like 200ms"),
            ("500:120%", "like 20%"),
            ("500:sometimes", "first=N"),
            ("timeout:retry-after=2", "with a status"),
            ("slow=1s:applied", "not with slow or late"),
            ("late=1s:applied", "not with slow or late"),
            ("500@link", "connect, service-account, list"),
        ] {
            let error = rule.parse::<Fault>().unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn the_first_calls_of_each_identity_are_hit_and_no_others() {
        let mut faults = faults(&["500:first=2@connect"]);
        let mut hit = |subject: &str| faults.decide(Operation::Connect, subject).fault.is_some();
        assert_eq!(
            [hit("1"), hit("1"), hit("2"), hit("1"), hit("2"), hit("2")],
            [true, true, true, false, true, false]
        );
        assert_eq!(faults.decide(Operation::List, "9"), Verdict::default());
    }

    #[test]
    fn slowness_goes_together_with_the_first_rule_that_hits() {
        let mut faults = faults(&["slow=100ms", "503", "500", "slow=50ms"]);
        let verdict = faults.decide(Operation::List, "");
        assert_eq!(verdict.delay, Duration::from_millis(150));
        assert_eq!(verdict.rules, ["slow=100ms", "503", "slow=50ms"]);
    }

    #[test]
    fn the_same_seed_hits_the_same_requests_and_about_the_share_asked_for() {
        let roll = || {
            let mut faults = faults(&["500:20%"]);
            (0..1000).map(|_| faults.decide(Operation::Connect, "1").fault.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(roll(), roll());
        let hits = roll().into_iter().filter(|hit| *hit).count();
        assert!((150..250).contains(&hits), "{hits}");
    }
}
