//! How much memory and how many file descriptors the processes have, over a round.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::stage::Stage;

/// How often to look.
const PERIOD: Duration = Duration::from_secs(5);
/// How much memory a process may have more of in the end than once it was warm, in KiB: a tenth, and so much besides.
const ROOM: u64 = 8 << 10;
/// How many file descriptors it may have more: connections come and go.
const DESCRIPTORS: u64 = 16;

/// One look at one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    /// Resident memory, in KiB.
    memory: u64,
    /// Open file descriptors.
    descriptors: u64,
}

/// The meter.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    samples: Mutex<BTreeMap<usize, Vec<Sample>>>,
}

impl Meter {
    /// Looks at every process for as long as it is let.
    pub(crate) async fn watch(&self, stage: &Stage) {
        let mut tick = tokio::time::interval(PERIOD);
        loop {
            tick.tick().await;
            for (number, host) in stage.hosts.iter().enumerate() {
                let sample = host.id().await.and_then(Sample::of);
                self.samples.lock().unwrap().entry(number).or_default().extend(sample);
            }
        }
    }

    /// Compares the end with the time when each process was warm, and says what has grown. Prints the figures.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let mut grown = Vec::new();
        for (host, samples) in self.samples.lock().unwrap().iter() {
            // Warm is the second sixth of the time, the end is the last.
            let sixth = samples.len() / 6;
            if sixth == 0 {
                continue;
            }
            let (warm, end) = (middle(&samples[sixth..2 * sixth]), middle(&samples[samples.len() - sixth..]));
            let figures = format!(
                "host {host}: memory {} KiB when warm, {} KiB in the end; file descriptors {} and {}",
                warm.memory, end.memory, warm.descriptors, end.descriptors
            );
            println!("  {figures}");
            if end.memory > warm.memory + warm.memory / 10 + ROOM || end.descriptors > warm.descriptors + DESCRIPTORS {
                grown.push(figures);
            }
        }
        grown
    }
}

impl Sample {
    fn of(process: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let memory = memory.trim().strip_suffix(" kB")?.parse().ok()?;
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
        Some(Self { memory, descriptors: u64::try_from(descriptors).unwrap() })
    }
}

/// The median of each figure.
fn middle(samples: &[Sample]) -> Sample {
    let median = |figure: fn(&Sample) -> u64| {
        let mut all: Vec<u64> = samples.iter().map(figure).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    Sample { memory: median(|sample| sample.memory), descriptors: median(|sample| sample.descriptors) }
}
