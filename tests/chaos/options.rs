//! What the command line asks for.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Runs rollcall's real binaries between real services under seeded faults, and holds what came of it against a model.
///
/// Without options it is the short run that belongs to the tests: fixed seeds, a few minutes in all.
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos", version = None)]
pub(crate) struct Options {
    /// Everything follows from it: the population, the order of deliveries, the schedule of faults. Repeatable.
    #[arg(long = "seed", value_name = "N")]
    pub(crate) seeds: Vec<u64>,
    /// What rollcall runs on.
    #[arg(long, value_enum, default_value_t = Topology::Single)]
    pub(crate) topology: Topology,
    /// Goes on with the next seed until so many minutes have passed.
    #[arg(long, value_name = "M")]
    pub(crate) minutes: Option<u64>,
    /// How many deliveries are told in a round, before copies.
    #[arg(long, value_name = "N", default_value_t = 1_500)]
    pub(crate) deliveries: usize,
    /// How many accounts there are.
    #[arg(long, value_name = "N", default_value_t = 600)]
    pub(crate) accounts: i64,
    /// How many posts a second are begun.
    #[arg(long, value_name = "N", default_value_t = 25)]
    pub(crate) rate: usize,
    /// One long round with faults that end no process; memory and file descriptors are compared over it.
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["minutes", "seeds", "deliveries"])]
    pub(crate) soak: Option<usize>,
    /// Outages of Drata and of the ledger, of so many seconds each, and what they cost.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) outage: Option<u64>,
    /// Says what a seed does, and does nothing.
    #[arg(long)]
    pub(crate) plan: bool,
    /// Leaves every host's clock right. Otherwise libfaketime (Debian's package of that name) sets some of them wrong.
    #[arg(long)]
    pub(crate) no_skew: bool,
    /// Tells of each fault as it comes.
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// What rollcall runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    /// Two ingresses, three workers, a RabbitMQ of their own, PostgreSQL.
    Single,
    /// The same on a cluster of three RabbitMQ nodes, with quorum queues on all three.
    Cluster,
    /// One process with everything in it, on files of its own.
    Embedded,
}

impl Topology {
    /// The word for it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Cluster => "cluster",
            Self::Embedded => "embedded",
        }
    }
}

/// The rounds of the short run.
pub(crate) const SHORT: [(Topology, u64, usize); 3] =
    [(Topology::Embedded, 3, 400), (Topology::Single, 1, 1_000), (Topology::Cluster, 2, 800)];

/// libfaketime, if it is installed.
pub(crate) fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}
