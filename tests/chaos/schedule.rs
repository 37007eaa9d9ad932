//! The schedule of faults that follows from a seed. A fault begins and ends with a post's number, not with the clock.

use std::fmt;

use fastrand::Rng;

use crate::options::Topology;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A process is killed, and started again at the end.
    Kill(usize),
    /// A process stands still until the end.
    Freeze(usize),
    /// A process is told to end, and started again at the end.
    Stop(usize),
    /// A wire is cut until the end.
    Cut(Wire),
    /// A wire carries nothing until the end, and says so to nobody.
    Hold(Wire),
    /// A wire is slower by so many milliseconds.
    Delay(Wire, u64),
    /// A RabbitMQ node is killed, and started again at the end.
    NodeKill(usize),
    /// A RabbitMQ node stands still: to the others it is cut off.
    NodeFreeze(usize),
    /// A RabbitMQ node has no memory left, and blocks whoever publishes.
    MemoryAlarm(usize),
    /// PostgreSQL ends every session.
    SessionsEnd,
    /// No worker reaches the ledger, and one of them is killed meanwhile.
    LedgerGone(usize),
    /// No worker reaches the ledger, and Drata refuses everybody.
    BothGone,
    /// Drata misbehaves by this rule.
    Drata(&'static str),
}

/// A wire of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wire {
    Broker(usize),
    Ledger(usize),
    Drata(usize),
}

/// A fault's place in the schedule: from one post to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    pub(crate) begin: usize,
    pub(crate) end: usize,
    pub(crate) fault: Fault,
}

/// What can be struck only by one fault at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Host(usize),
    Wire(Wire),
    Nodes,
    Drata,
}

/// Which hosts there are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hosts {
    pub(crate) ingresses: usize,
    pub(crate) workers: usize,
    pub(crate) nodes: usize,
}

impl Hosts {
    pub(crate) const fn of(topology: Topology) -> Self {
        match topology {
            Topology::Single => Self { ingresses: 2, workers: 3, nodes: 1 },
            Topology::Cluster => Self { ingresses: 2, workers: 3, nodes: 3 },
            Topology::Embedded => Self { ingresses: 0, workers: 1, nodes: 0 },
        }
    }

    /// Workers come after ingresses.
    pub(crate) fn workers(self) -> std::ops::Range<usize> {
        self.ingresses..self.ingresses + self.workers
    }

    fn worker(self, dice: &mut Rng) -> usize {
        dice.usize(self.workers())
    }
}

impl Fault {
    fn subjects(self, hosts: Hosts) -> Vec<Subject> {
        let ledgers = || hosts.workers().map(|host| Subject::Wire(Wire::Ledger(host)));
        match self {
            Self::Kill(host) | Self::Freeze(host) | Self::Stop(host) => vec![Subject::Host(host)],
            Self::Cut(wire) | Self::Hold(wire) | Self::Delay(wire, _) => vec![Subject::Wire(wire)],
            Self::NodeKill(_) | Self::NodeFreeze(_) | Self::MemoryAlarm(_) => vec![Subject::Nodes],
            Self::SessionsEnd => Vec::new(),
            Self::LedgerGone(host) => ledgers().chain([Subject::Host(host)]).collect(),
            Self::BothGone => ledgers().chain([Subject::Drata]).collect(),
            Self::Drata(_) => vec![Subject::Drata],
        }
    }

    /// Whether bytes that were sent under it may arrive after what was sent later.
    pub(crate) fn makes_late(self) -> bool {
        match self {
            Self::Freeze(_) | Self::Hold(Wire::Drata(_)) => true,
            Self::Drata(rule) => rule.starts_with("late"),
            _ => false,
        }
    }

    /// Whether it ends a process.
    pub(crate) const fn ends_a_process(self) -> bool {
        matches!(self, Self::Kill(_) | Self::Stop(_) | Self::LedgerGone(_))
    }
}

/// Every kind of fault once, with how long it lasts in tenths of a second.
fn deck(dice: &mut Rng, topology: Topology) -> Vec<(u64, Fault)> {
    let hosts = Hosts::of(topology);
    let worker = |dice: &mut Rng| hosts.worker(dice);
    let ingress = |dice: &mut Rng| if hosts.ingresses == 0 { 0 } else { dice.usize(..hosts.ingresses) };
    let anybody = |dice: &mut Rng| dice.usize(..hosts.workers().end);
    let mut deck = vec![
        (dice.u64(5..30), Fault::Kill(worker(dice))),
        (dice.u64(5..30), Fault::Kill(worker(dice))),
        (dice.u64(5..30), Fault::Kill(ingress(dice))),
        (dice.u64(90..120), Fault::Freeze(worker(dice))),
        (dice.u64(20..50), Fault::Freeze(ingress(dice))),
        (dice.u64(5..20), Fault::Stop(worker(dice))),
        (dice.u64(5..20), Fault::Stop(ingress(dice))),
        (dice.u64(10..50), Fault::Cut(Wire::Drata(worker(dice)))),
        (dice.u64(10..50), Fault::Hold(Wire::Drata(worker(dice)))),
        (dice.u64(30..80), Fault::Delay(Wire::Drata(worker(dice)), dice.u64(50..400))),
        (dice.u64(40..70), Fault::Drata("401")),
        (dice.u64(30..60), Fault::Drata("500:70%")),
        (dice.u64(20..40), Fault::Drata("429:retry-after=1")),
        (dice.u64(40..70), Fault::Drata("timeout")),
        (dice.u64(40..70), Fault::Drata("500:50%:applied")),
        (dice.u64(40..70), Fault::Drata("drop:40%:applied")),
        (dice.u64(40..70), Fault::Drata("garbled:50%@connect")),
        (dice.u64(40..70), Fault::Drata("late=2s:30%@connect")),
        (dice.u64(40..70), Fault::Drata("late=4s:30%@connect")),
    ];
    if topology != Topology::Embedded {
        deck.extend([
            (dice.u64(10..50), Fault::Cut(Wire::Broker(anybody(dice)))),
            (dice.u64(10..50), Fault::Cut(Wire::Broker(anybody(dice)))),
            (dice.u64(20..80), Fault::Hold(Wire::Broker(anybody(dice)))),
            (dice.u64(30..80), Fault::Delay(Wire::Broker(anybody(dice)), dice.u64(20..300))),
            (dice.u64(10..50), Fault::Cut(Wire::Ledger(worker(dice)))),
            (dice.u64(20..100), Fault::Hold(Wire::Ledger(worker(dice)))),
            (dice.u64(30..80), Fault::Delay(Wire::Ledger(worker(dice)), dice.u64(5..60))),
            (0, Fault::SessionsEnd),
            (0, Fault::SessionsEnd),
            (dice.u64(40..80), Fault::LedgerGone(worker(dice))),
            (dice.u64(40..70), Fault::BothGone),
            (dice.u64(20..50), Fault::NodeKill(dice.usize(..hosts.nodes))),
            (dice.u64(20..60), Fault::MemoryAlarm(dice.usize(..hosts.nodes))),
        ]);
    }
    if topology == Topology::Cluster {
        deck.extend([
            (dice.u64(30..80), Fault::NodeKill(dice.usize(..hosts.nodes))),
            (dice.u64(100..150), Fault::NodeFreeze(dice.usize(..hosts.nodes))),
        ]);
    }
    dice.shuffle(&mut deck);
    deck
}

/// How close faults come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Every second or two, whatever there is.
    Dense,
    /// Twice a minute, and none that ends a process.
    Soak,
}

/// The schedule: faults of every kind, one after the other and some at once, until shortly before the last post.
pub(crate) fn schedule(seed: u64, topology: Topology, posts: usize, rate: usize, pace: Pace) -> Vec<Strike> {
    let hosts = Hosts::of(topology);
    let mut dice = Rng::with_seed(seed ^ 0x00c4_a055);
    let per_tenth = |tenths: u64| usize::try_from(tenths).unwrap() * rate / 10;
    let mut strikes: Vec<Strike> = Vec::new();
    let mut waiting: Vec<(u64, Fault)> = Vec::new();
    let mut at = 2 * rate;
    while at + rate < posts {
        if waiting.is_empty() {
            waiting = deck(&mut dice, topology);
            waiting.retain(|(_, fault)| pace == Pace::Dense || !fault.ends_a_process());
        }
        let fits = |fault: Fault| {
            let free = |subject| strikes.iter().all(|s| s.end < at || !s.fault.subjects(hosts).contains(subject));
            fault.subjects(hosts).iter().all(free)
        };
        if let Some(next) = waiting.iter().position(|(_, fault)| fits(*fault)) {
            let (tenths, fault) = waiting.remove(next);
            strikes.push(Strike { begin: at, end: (at + per_tenth(tenths)).min(posts - 1), fault });
        }
        let gap = if pace == Pace::Dense { dice.u64(10..25) } else { dice.u64(200..400) };
        at += per_tenth(gap).max(1);
    }
    strikes
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(host) => write!(f, "host {host} - broker"),
            Self::Ledger(host) => write!(f, "host {host} - ledger"),
            Self::Drata(host) => write!(f, "host {host} - Drata"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(host) => write!(f, "kill -9 host {host}"),
            Self::Freeze(host) => write!(f, "freeze host {host}"),
            Self::Stop(host) => write!(f, "stop host {host}"),
            Self::Cut(wire) => write!(f, "cut {wire}"),
            Self::Hold(wire) => write!(f, "hold {wire} still"),
            Self::Delay(wire, millis) => write!(f, "delay {wire} by {millis} ms"),
            Self::NodeKill(node) => write!(f, "kill -9 RabbitMQ {node}"),
            Self::NodeFreeze(node) => write!(f, "freeze RabbitMQ {node}"),
            Self::MemoryAlarm(node) => write!(f, "memory alarm at RabbitMQ {node}"),
            Self::SessionsEnd => f.write_str("PostgreSQL ends all sessions"),
            Self::LedgerGone(host) => write!(f, "no ledger for anybody, kill -9 host {host} meanwhile"),
            Self::BothGone => f.write_str("no ledger for anybody, and Drata refuses"),
            Self::Drata(rule) => write!(f, "Drata: {rule}"),
        }
    }
}
