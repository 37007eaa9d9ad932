//! What was done and seen, as it goes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rollcall::delivery::Timestamp;
use tokio::time::Instant;

use crate::schedule::Fault;

/// How a fault went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Struck {
    pub(crate) fault: Fault,
    pub(crate) began: Timestamp,
    pub(crate) ended: Option<Timestamp>,
}

/// The notes of a round. Clones share them.
#[derive(Clone)]
pub(crate) struct Notes(Arc<Inner>);

struct Inner {
    verbose: bool,
    since: Instant,
    began: Timestamp,
    struck: Mutex<Vec<Struck>>,
    /// What rollcall did that it shouldn't have, as seen on the way.
    ours: Mutex<Vec<String>>,
    logs: Mutex<Vec<PathBuf>>,
    /// How the posts were answered: 202, 503, 401, something else, not at all.
    answers: [AtomicUsize; 5],
}

/// How a post was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Accepted,
    Unavailable,
    Unauthorized,
    Otherwise,
    NotAtAll,
}

impl Notes {
    pub(crate) fn new(verbose: bool) -> Self {
        Self(Arc::new(Inner {
            verbose,
            since: Instant::now(),
            began: Timestamp::now(),
            struck: Mutex::default(),
            ours: Mutex::default(),
            logs: Mutex::default(),
            answers: Default::default(),
        }))
    }

    pub(crate) fn say(&self, what: &str) {
        if self.0.verbose {
            println!("  {:7.1} s  {what}", self.0.since.elapsed().as_secs_f64());
        }
    }

    pub(crate) fn began(&self, fault: Fault, at: Timestamp) {
        self.say(&format!("{fault}"));
        self.0.struck.lock().unwrap().push(Struck { fault, began: at, ended: None });
    }

    pub(crate) fn ended(&self, fault: Fault) {
        self.say(&format!("over: {fault}"));
        let mut struck = self.0.struck.lock().unwrap();
        if let Some(open) = struck.iter_mut().rev().find(|s| s.fault == fault && s.ended.is_none()) {
            open.ended = Some(Timestamp::now());
        }
    }

    /// Rollcall did something that it shouldn't have.
    pub(crate) fn fault_of_ours(&self, what: String) {
        self.say(&what);
        self.0.ours.lock().unwrap().push(what);
    }

    /// A process writes its log there.
    pub(crate) fn wrote(&self, log: PathBuf) {
        self.0.logs.lock().unwrap().push(log);
    }

    pub(crate) fn answered(&self, how: Answered) {
        self.0.answers[how as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count(&self, how: Answered) -> usize {
        self.0.answers[how as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn struck(&self) -> Vec<Struck> {
        self.0.struck.lock().unwrap().clone()
    }

    pub(crate) fn faults_of_ours(&self) -> Vec<String> {
        self.0.ours.lock().unwrap().clone()
    }

    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        self.0.logs.lock().unwrap().clone()
    }

    /// Since the round began, in seconds.
    pub(crate) fn seconds_until(&self, at: Timestamp) -> f64 {
        at.since(self.0.began).as_secs_f64()
    }

    pub(crate) fn elapsed(&self) -> f64 {
        self.0.since.elapsed().as_secs_f64()
    }
}
