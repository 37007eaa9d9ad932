//! A host: one rollcall process that comes and goes.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use url::Url;

use crate::harness::process::{Addresses, Process, addresses, admin};
use crate::harness::site::Site;
use crate::stage::Stage;

/// How long to wait before what didn't start is started again.
const PAUSE: Duration = Duration::from_millis(300);

/// What the process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Ingress,
    Worker,
    All,
}

impl Role {
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Ingress => &["--role", "ingress"],
            Self::Worker => &["--role", "worker"],
            Self::All => &[],
        }
    }
}

/// The host.
pub(crate) struct Host {
    number: usize,
    pub(crate) role: Role,
    environment: Vec<(&'static str, String)>,
    process: AsyncMutex<Option<Process>>,
    at: Mutex<Option<Addresses>>,
}

impl Host {
    pub(crate) fn new(number: usize, role: Role, environment: Vec<(&'static str, String)>) -> Self {
        Self { number, role, environment, process: AsyncMutex::default(), at: Mutex::default() }
    }

    /// Starts the process, however often it takes: what it needs may not be there yet.
    pub(crate) async fn start(&self, stage: &Stage) {
        let mut slot = self.process.lock().await;
        if slot.is_none() {
            *slot = Some(self.started(stage).await);
        }
    }

    async fn started(&self, stage: &Stage) -> Process {
        loop {
            let mut process = stage.site.serve_with(self.role.arguments(), &self.environment);
            stage.notes.wrote(process.log_file());
            let found = match self.role {
                Role::Worker => process.told(|_, log| admin(log)).await.map(|_| None),
                Role::Ingress | Role::All => process.told(addresses).await.map(Some),
            };
            if let Some(at) = found {
                *self.at.lock().unwrap() = at;
                return process;
            }
            let ended = process.ended().await;
            stage.notes.say(&format!("host {} doesn't start yet (exit code {:?})", self.number, ended.code));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Where it takes webhooks, if it is up.
    pub(crate) fn door(&self) -> Option<Url> {
        self.at.lock().unwrap().as_ref().map(|at| at.webhook.clone())
    }

    /// How many deliveries its spool holds; none if it has none or isn't up.
    pub(crate) async fn spooled(&self, site: &Site) -> Option<u64> {
        let at = self.at.lock().unwrap().clone()?;
        let (_, metrics) = site.ask(&at, "/metrics").await;
        metrics.as_str()?.lines().find_map(|line| line.strip_prefix("rollcall_spool_deliveries ")?.parse().ok())
    }

    pub(crate) async fn kill(&self) {
        let mut slot = self.process.lock().await;
        *self.at.lock().unwrap() = None;
        if let Some(process) = slot.take() {
            process.kill().await;
        }
    }

    pub(crate) async fn freeze(&self) {
        if let Some(process) = self.process.lock().await.as_ref() {
            process.freeze().await;
        }
    }

    pub(crate) async fn thaw(&self) {
        if let Some(process) = self.process.lock().await.as_ref() {
            process.thaw().await;
        }
    }

    /// Asks it to end, and waits for that. It has to end well.
    pub(crate) async fn stop(&self, stage: &Stage) {
        let mut slot = self.process.lock().await;
        let Some(process) = slot.take() else { return };
        let ended = process.stop().await;
        *self.at.lock().unwrap() = None;
        if ended.code != Some(0) {
            stage.notes.fault_of_ours(format!(
                "host {} was asked to end and ended with {:?}:\n{}",
                self.number,
                ended.code,
                tail(&ended.log)
            ));
        }
    }

    /// Starts it again if it has ended by itself.
    pub(crate) async fn look_after(&self, stage: &Stage) {
        let Ok(mut slot) = self.process.try_lock() else { return };
        if slot.as_mut().is_some_and(Process::has_ended) {
            let ended = slot.take().unwrap().ended().await;
            let (number, code, said) = (self.number, ended.code, tail(&ended.log));
            stage.notes.fault_of_ours(format!("host {number} ended by itself with {code:?}:\n{said}"));
            *slot = Some(self.started(stage).await);
        }
    }

    /// The number of its process, if it runs.
    pub(crate) async fn id(&self) -> Option<u32> {
        self.process.lock().await.as_ref().and_then(Process::id)
    }
}

/// The last lines of a log.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
