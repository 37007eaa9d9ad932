//! The table that is printed.

use crate::Run;
use crate::options::Options;
use crate::samples::Samples;

const MIB: f64 = 1024.0 * 1024.0;

/// One pair of runs.
pub(crate) struct Pair {
    /// The bare publisher on one channel.
    pub(crate) one: Samples,
    /// The bare publisher on four channels.
    pub(crate) four: Samples,
    /// The ingress.
    pub(crate) rollcall: Run,
}

/// One line of the table.
pub(crate) type Figures = [f64; 10];

const COLUMNS: [(&str, usize); 10] = [
    ("bare 1 ch/s", 0),
    ("bare 4 ch/s", 0),
    ("bare p99 ms", 2),
    ("rollcall/s", 0),
    ("ratio", 2),
    ("p50 ms", 2),
    ("p99 ms", 2),
    ("CPU µs/req", 0),
    ("idle MiB", 1),
    ("load MiB", 1),
];

impl Pair {
    /// The ratio is to the faster of the two bare runs.
    pub(crate) fn figures(&self) -> Figures {
        let Run { samples, cpu, idle_bytes, load_bytes, .. } = &self.rollcall;
        let faster = if self.one.per_second() > self.four.per_second() { &self.one } else { &self.four };
        [
            self.one.per_second(),
            self.four.per_second(),
            faster.millis(0.99),
            samples.per_second(),
            samples.per_second() / faster.per_second(),
            samples.millis(0.5),
            samples.millis(0.99),
            cpu.as_secs_f64() * 1e6 / samples.count() as f64,
            *idle_bytes as f64 / MIB,
            *load_bytes as f64 / MIB,
        ]
    }
}

/// The median of each column.
pub(crate) fn medians(pairs: &[Pair]) -> Figures {
    let lines: Vec<Figures> = pairs.iter().map(Pair::figures).collect();
    std::array::from_fn(|column| {
        let mut values: Vec<f64> = lines.iter().map(|line| line[column]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

/// What is measured, and the names of the columns.
pub(crate) fn heading(options: &Options) -> String {
    let Options { pairs, seconds, connections, body, .. } = options;
    let broker = if options.embedded { "the embedded broker" } else { "RabbitMQ" };
    let mut heading = format!(
        "ingress on {broker} and a bare publisher on RabbitMQ: {pairs} pairs, {seconds} s each, {connections} in flight, \
         bodies of about {body} bytes\n{:<7}",
        "pair"
    );
    for (name, _) in COLUMNS {
        heading.push_str(&format!("  {name}"));
    }
    heading
}

/// One line, aligned with the heading.
pub(crate) fn line(name: &str, figures: &Figures) -> String {
    let mut line = format!("{name:<7}");
    for ((name, decimals), figure) in COLUMNS.iter().zip(figures) {
        let width = name.chars().count();
        line.push_str(&format!("  {figure:>width$.decimals$}"));
    }
    line
}
