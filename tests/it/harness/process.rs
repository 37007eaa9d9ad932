//! The built binary as a process of its own: started, asked, told to end, killed.
//!
//! It knows nothing of what the process does: only its exit code, what it prints and what it logs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};
use url::Url;

use super::{soon, until};

/// A process that was started. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
    log: PathBuf,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None if a signal has killed it.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) output: String,
    /// What it wrote to standard error.
    pub(crate) log: String,
}

/// Where a process that serves can be reached.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) webhook: Url,
    pub(crate) admin: Url,
}

impl Process {
    /// Starts `rollcall` with these arguments and nothing but this environment; what it writes goes into the folder.
    pub(crate) fn start(folder: &Path, arguments: &[&str], environment: &[(&str, String)]) -> Self {
        Self::start_under(&[], folder, arguments, environment)
    }

    /// The same, started by another program, which is given `rollcall` and its arguments and must become it.
    pub(crate) fn start_under(
        under: &[&str],
        folder: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let name = format!("{:08x}", fastrand::u32(..));
        let (output, log) = (folder.join(format!("{name}.out")), folder.join(format!("{name}.log")));
        let files = [&output, &log].map(|file| File::create(file).unwrap().into());
        Self { child: spawn(under, folder, arguments, environment, files), output, log }
    }

    /// The same with this for its standard output and its standard error: what it writes isn't seen.
    pub(crate) fn start_writing_to(
        streams: [Stdio; 2],
        folder: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
    ) -> Self {
        let nowhere = folder.join("nothing is written here");
        let child = spawn(&[], folder, arguments, environment, streams);
        Self { child, output: nowhere.clone(), log: nowhere }
    }

    /// Waits until it serves: its log says where health is, its standard output where webhooks go.
    pub(crate) async fn ready(&mut self) -> Addresses {
        let found = self.told(addresses).await;
        found.unwrap_or_else(|| panic!("it ended instead of getting ready: {}", self.log()))
    }

    /// Waits until it works, and says where its admin listener is. For a process that takes no webhooks.
    pub(crate) async fn works(&mut self) -> Url {
        let found = self.told(|_, log| admin(log)).await;
        found.unwrap_or_else(|| panic!("it ended instead of getting ready: {}", self.log()))
    }

    /// Waits until its output and its log tell something. None if it ends instead.
    pub(crate) async fn told<T>(&mut self, find: impl Fn(&str, &str) -> Option<T>) -> Option<T> {
        let mut found = None;
        until("the process is ready", async || {
            found = find(&read(&self.output), &read(&self.log));
            found.is_some() || self.has_ended()
        })
        .await;
        found
    }

    /// Whether it has ended, for whatever reason.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The process's id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// The file that it logs to.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.log.clone()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        read(&self.log)
    }

    /// Asks it to end, as a service manager does.
    pub(crate) async fn terminate(&self) {
        self.signal("TERM").await;
    }

    /// Asks it to end, as Ctrl-C does.
    pub(crate) async fn interrupt(&self) {
        self.signal("INT").await;
    }

    /// What it has written to standard output so far.
    pub(crate) fn output(&self) -> String {
        read(&self.output)
    }

    /// Stops it in the middle of whatever it does, as a host does that is out of memory.
    pub(crate) async fn freeze(&self) {
        self.signal("STOP").await;
    }

    /// Lets it go on where it was frozen.
    pub(crate) async fn thaw(&self) {
        self.signal("CONT").await;
    }

    /// The most memory that it has had resident so far, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// Lets it have so many more bytes of memory than it has now, and no more; none lifts that limit.
    pub(crate) fn limit_memory(&self, more: Option<u64>) {
        let id = self.id().expect("a process that runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
        let limit = more.map(|more| size * 1024 + more);
        let limits = rustix::process::Rlimit { current: limit, maximum: None };
        let process = rustix::process::Pid::from_raw(id.try_into().unwrap());
        rustix::process::prlimit(process, rustix::process::Resource::As, limits).unwrap();
    }

    async fn signal(&self, name: &str) {
        signal(self.id().expect("a process that runs"), name).await;
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        soon("the end of a killed process", self.child.kill()).await.unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Ended {
        let status = soon("the end of the process", self.child.wait()).await.unwrap();
        Ended { code: status.code(), output: read(&self.output), log: read(&self.log) }
    }

    /// Asks it to end, and waits for it.
    pub(crate) async fn stop(self) -> Ended {
        self.terminate().await;
        self.ended().await
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the process said")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the process said:\n{}{}", read(&self.output), read(&self.log));
        }
    }
}

fn spawn(
    under: &[&str],
    folder: &Path,
    arguments: &[&str],
    environment: &[(&str, String)],
    [output, log]: [Stdio; 2],
) -> Child {
    let words = [under, &[env!("CARGO_BIN_EXE_rollcall")], arguments].concat();
    Command::new(words[0])
        .args(&words[1..])
        .current_dir(folder)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{} can't be started: {error}", words[0]))
}

/// Sends a signal to a process that runs.
pub(super) async fn signal(process: u32, name: &str) {
    let arguments = ["-c", "kill -\"$0\" \"$1\"", name, &process.to_string()];
    assert!(Command::new("/bin/sh").args(arguments).status().await.unwrap().success());
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

pub(crate) fn addresses(output: &str, log: &str) -> Option<Addresses> {
    let webhook = output.lines().find_map(|line| line.split_once(": POST "))?.1.parse().ok()?;
    Some(Addresses { webhook, admin: admin(log)? })
}

pub(crate) fn admin(log: &str) -> Option<Url> {
    let ready = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let admin = ready.into_iter().find(|line| line["message"] == "ready")?["admin"].as_str()?.to_owned();
    format!("http://{admin}/").parse().ok()
}
