//! What happens in a seed's world, in which order GitHub tells of it, and how often.
//!
//! Thousands of accounts join, leave, join again, are renamed and take each other's former logins; they come to teams and
//! repositories and go, and some of those are deleted. Nothing here knows rollcall.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::harness::github::{Account, Event, ORGANIZATION};

/// So many accounts are ever given to one team or repository: more lose it at once only with an operator's yes.
const HOLDERS: i64 = 30;
/// How many events ago something happened to an account to which something happens at once again.
const SOON: usize = 8;
/// How many teams and repositories there are.
const PARTS: usize = 12;

/// What happened, as far as access goes. Roots and parts are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Joined {
        root: usize,
    },
    Left {
        root: usize,
    },
    Added {
        part: usize,
    },
    Removed {
        part: usize,
    },
    /// A team or repository was deleted, for everybody.
    Deleted {
        part: usize,
    },
    /// An account or a root has another name. It changes no access.
    Renamed,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) what: What,
    pub(crate) event: Event,
}

/// A request that GitHub makes, or somebody who isn't.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post {
    /// Which of the deliveries.
    pub(crate) told: usize,
    /// Whether its bytes were changed on the way, so that its signature is wrong.
    pub(crate) forged: bool,
}

/// A team or repository.
#[derive(Clone, Copy, Debug)]
struct Part {
    root: usize,
    team: bool,
}

/// A seed's world.
#[derive(Debug)]
pub(crate) struct World {
    /// How many organisations the source speaks for.
    pub(crate) roots: usize,
    parts: Vec<Part>,
    /// What happened, by time.
    pub(crate) told: Vec<Told>,
    /// What is posted, in order.
    pub(crate) posts: Vec<Post>,
    /// How many accounts there are, numbered from 1.
    pub(crate) accounts: i64,
}

impl World {
    pub(crate) fn new(seed: u64, accounts: i64, deliveries: usize) -> Self {
        let mut dice = Rng::with_seed(seed);
        let roots = if dice.u8(..3) == 0 { 2 } else { 1 };
        let parts = (0..PARTS).map(|n| Part { root: dice.usize(..roots), team: n % 2 == 0 }).collect();
        let mut world = Self { roots, parts, told: Vec::with_capacity(deliveries), posts: Vec::new(), accounts };
        let mut history = History::default();
        for number in 0..deliveries {
            let told = world.next(&mut dice, &mut history, number);
            world.told.push(told);
        }
        world.posts = posts(&mut dice, deliveries);
        world
    }

    /// A world in which nothing happens by itself.
    pub(crate) const fn quiet(accounts: i64) -> Self {
        Self { roots: 1, parts: Vec::new(), told: Vec::new(), posts: Vec::new(), accounts }
    }

    /// The id of a root, as `scopes` in the configuration names it.
    pub(crate) fn root_id(root: usize) -> String {
        (ORGANIZATION.1.parse::<usize>().unwrap() + root).to_string()
    }

    /// The root that a team or repository is in.
    pub(crate) fn root_of(&self, part: usize) -> usize {
        self.parts[part].root
    }

    /// Whether the account is a bot: GitHub gives bots, and nobody else, such logins.
    pub(crate) const fn is_bot(account: Account) -> bool {
        account.0 % 97 == 13
    }

    /// Whether Drata has no row for the account when all begins; and whether it gets one later.
    pub(crate) const fn is_unknown(account: Account) -> (bool, bool) {
        (account.0 % 50 == 7, account.0 % 100 == 7)
    }

    fn next(&self, dice: &mut Rng, history: &mut History, number: usize) -> Told {
        // A few accounts have a lot to do, and now and then something else happens to one while the last thing that did
        // is still on its way.
        let busy = (self.accounts / 8).max(1);
        let account = match dice.u8(..100) {
            0..30 if number >= SOON => self.told[dice.usize(number - SOON..number)].event.account,
            0..72 => Account(dice.i64(1..=busy)),
            _ => Account(dice.i64(1..=self.accounts)),
        };
        let part = usize::try_from(account.0).unwrap() % PARTS;
        let may_have_part = account.0 <= HOLDERS * i64::try_from(PARTS).unwrap();
        let what = match dice.u16(..1000) {
            0..50 => {
                history.rename(dice, account);
                What::Renamed
            }
            50..53 => {
                // Of an organisation, which is the other that is renamed.
                history.root_names += 1;
                return self.told(What::Renamed, None, history, account, number);
            }
            53..57 if history.deleted.len() < PARTS / 2 && history.deleted.insert(part, ()).is_none() => {
                history.holds.retain(|(_, held), ()| *held != part);
                What::Deleted { part }
            }
            57..220 if may_have_part && !history.deleted.contains_key(&part) => {
                if history.holds.remove(&(account, part)).is_some() {
                    What::Removed { part }
                } else {
                    history.holds.insert((account, part), ());
                    What::Added { part }
                }
            }
            other => {
                let root = if other % 5 < 3 { 0 } else { self.roots - 1 };
                let inside = history.inside.entry((account, root)).or_insert(false);
                // Now and then GitHub tells what is so already.
                *inside = if dice.u8(..20) == 0 { *inside } else { !*inside };
                if *inside { What::Joined { root } } else { What::Left { root } }
            }
        };
        self.told(what, Some(account), history, account, number)
    }

    fn told(&self, what: What, renamed: Option<Account>, history: &History, account: Account, number: usize) -> Told {
        let part = match what {
            What::Added { part } | What::Removed { part } | What::Deleted { part } => Some(part),
            _ => None,
        };
        let team = part.is_some_and(|part| self.parts[part].team);
        let name = match what {
            What::Joined { .. } => "organization.member_added",
            What::Left { .. } => "organization.member_removed",
            What::Added { .. } if team => "membership.added",
            What::Added { .. } => "member.added",
            What::Removed { .. } if team => "membership.removed",
            What::Removed { .. } => "member.removed",
            What::Deleted { .. } if team => "team.deleted",
            What::Deleted { .. } => "repository.deleted",
            What::Renamed if renamed.is_some() => "installation_target.renamed",
            What::Renamed => "organization.renamed",
        };
        let root = match what {
            What::Joined { root } | What::Left { root } => root,
            _ => part.map_or(0, |part| self.root_of(part)),
        };
        let event = Event {
            number: u64::try_from(number).unwrap(),
            name,
            account,
            login: history.login(account) + if Self::is_bot(account) { "[bot]" } else { "" },
            root: (format!("{}-{root}-{}", ORGANIZATION.0, history.root_names), Self::root_id(root)),
            part: part.map(|part| (format!("part-{part}"), (7_000 + part).to_string())),
        };
        Told { what, event }
    }
}

/// What was so far.
#[derive(Debug, Default)]
struct History {
    inside: BTreeMap<(Account, usize), bool>,
    holds: BTreeMap<(Account, usize), ()>,
    deleted: BTreeMap<usize, ()>,
    logins: BTreeMap<Account, String>,
    /// Logins that nobody has any more: somebody else may take them.
    free: Vec<String>,
    renames: usize,
    root_names: usize,
}

impl History {
    fn login(&self, account: Account) -> String {
        self.logins.get(&account).cloned().unwrap_or_else(|| account.login())
    }

    fn rename(&mut self, dice: &mut Rng, account: Account) {
        self.renames += 1;
        let taken =
            (!self.free.is_empty() && dice.bool()).then(|| self.free.swap_remove(dice.usize(..self.free.len())));
        let fresh = || format!("dev-{}-{}", account.0, self.renames);
        let former = self.login(account);
        let login = taken.unwrap_or_else(fresh);
        self.logins.insert(account, login);
        self.free.push(former);
    }
}

/// What is told comes a little, or much, out of order, some of it more than once; and somebody forges a few.
fn posts(dice: &mut Rng, deliveries: usize) -> Vec<Post> {
    let mut placed: Vec<(usize, Post)> = Vec::new();
    for told in 0..deliveries {
        let late = match dice.u8(..100) {
            0..80 => dice.usize(..20),
            80..98 => dice.usize(..150),
            _ => dice.usize(..deliveries.max(3) / 3),
        };
        let post = Post { told, forged: false };
        placed.push((told + late, post));
        if dice.u8(..100) < 12 {
            placed.push((told + late + dice.usize(1..deliveries.max(8) / 4), post));
        }
        if dice.u8(..100) == 0 {
            placed.push((told + dice.usize(..50), Post { told, forged: true }));
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, post)| post).collect()
}
