//! Every task of the process comes from here, ends on one token, and is missed if it ends otherwise.
//!
//! A task is either *essential* ([`Tasks::essential`], [`Tasks::essential_once`]): the process can't do its job without
//! it, so that its panic or unexpected end is the process's failure, which [`Tasks::failed`] tells; or *short-lived*
//! ([`Tasks::short_lived`]): one connection, one account, one write, whose panic is logged, counted, and nobody else's.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry::metrics as names;

/// The longest part of a panic's message that is kept, in characters.
const MAX_MESSAGE: usize = 300;

/// A name of a task, for logs and metrics: one of a fixed set, never with somebody's data in it.
pub type TaskName = Cow<'static, str>;

/// An essential task that panicked or ended too early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task {task:?} {how}")]
pub struct TaskFailure {
    /// The task.
    pub task: TaskName,
    /// What it did.
    pub how: HowFailed,
}

/// In which way an essential task failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HowFailed {
    /// It panicked, with this message.
    Panicked(String),
    /// It ended before anybody had asked it to.
    Ended,
}

impl fmt::Display for HowFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Ended => f.write_str("ended before it was asked to"),
        }
    }
}

/// The tasks of a process and the token that ends them.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
    /// The first failure of an essential task.
    failure: watch::Sender<Option<TaskFailure>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        Self { tracker: TaskTracker::new(), token: CancellationToken::new(), failure: watch::Sender::new(None) }
    }

    /// The token that ends all of them.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// A group of tasks that ends with this one, and can end earlier by itself. Failures are this one's.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), token: self.token.child_token(), failure: self.failure.clone() }
    }

    /// The same group for tasks that end on a token of their own, which may be cancelled earlier than the group's.
    #[must_use]
    pub fn ending_on(&self, token: CancellationToken) -> Self {
        Self { tracker: self.tracker.clone(), token, failure: self.failure.clone() }
    }

    /// Starts a task that must run until the token is cancelled, and end soon after.
    pub fn essential<F>(&self, name: impl Into<TaskName>, task: F)
    where
        F: Future + Send + 'static,
    {
        let token = self.token.clone();
        self.watched(name.into(), task, move || token.is_cancelled());
    }

    /// Starts a task that must end on the token, may end earlier because its work is done, and must not panic.
    pub fn essential_once<F>(&self, name: impl Into<TaskName>, task: F)
    where
        F: Future + Send + 'static,
    {
        self.watched(name.into(), task, || true);
    }

    fn watched<F>(&self, name: TaskName, task: F, may_end: impl FnOnce() -> bool + Send + 'static)
    where
        F: Future + Send + 'static,
    {
        let failure = self.failure.clone();
        self.start(async move {
            let how = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(_) if may_end() => return,
                Ok(_) => HowFailed::Ended,
                Err(panic) => HowFailed::Panicked(counted(&name, &*panic)),
            };
            let failed = TaskFailure { task: name, how };
            tracing::error!(task = %failed.task, "{failed}; nothing works without it, so the process ends");
            failure.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(failed);
                is_first
            });
        });
    }

    /// Starts a task that ends by itself, and soon after the token is cancelled. If it panics, that is logged and counted,
    /// and whoever awaits the handle gets an error.
    pub fn short_lived<F>(&self, name: &'static str, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.start(async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(output) => output,
                Err(panic) => {
                    let message = counted(name, &*panic);
                    tracing::error!(task = name, "a task panicked: {message}");
                    resume_unwind(panic)
                }
            }
        })
    }

    #[expect(clippy::disallowed_methods, reason = "the only place that starts tasks")]
    fn start<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Waits for the first failure of an essential task. Never returns if there is none.
    pub async fn failed(&self) -> TaskFailure {
        match self.failure.subscribe().wait_for(Option::is_some).await.as_deref() {
            Ok(Some(failure)) => failure.clone(),
            // The sender is held here.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The first failure of an essential task so far.
    #[must_use]
    pub fn failure(&self) -> Option<TaskFailure> {
        self.failure.borrow().clone()
    }

    /// Ends all tasks and waits for them, at most that long. Returns whether all have ended.
    pub async fn end(&self, deadline: Duration) -> bool {
        self.token.cancel();
        self.tracker.close();
        tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok()
    }
}

/// Does something whose panic is its caller's to see to: to count, or to let go on.
///
/// # Errors
/// If it panics.
pub async fn caught<F: Future>(work: F) -> Result<F::Output, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| Panicked { message: message(&*panic), panic })
}

/// A panic that was caught.
pub struct Panicked {
    /// Its message, in one bounded line.
    pub message: String,
    panic: Box<dyn Any + Send>,
}

impl fmt::Debug for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panicked").field(&self.message).finish()
    }
}

impl Panicked {
    /// Counts it as one of that name.
    pub fn count(&self, name: &str) {
        count(name);
    }

    /// Lets the panic go on.
    pub fn resume(self) -> ! {
        resume_unwind(self.panic)
    }
}

fn count(name: &str) {
    metrics::counter!(names::PANICS, "task" => name.to_owned()).increment(1);
}

fn counted(name: &str, panic: &(dyn Any + Send)) -> String {
    count(name);
    message(panic)
}

/// A panic's message in one bounded line.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.unwrap_or("(no message)").chars().map(printable).take(MAX_MESSAGE).collect()
}

/// Waits for Ctrl-C or SIGTERM.
///
/// # Errors
/// If the process can't listen for signals.
pub async fn signal() -> std::io::Result<Signal> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| Signal::Interrupt),
        _ = terminate.recv() => Ok(Signal::Terminate),
    }
}

/// Why the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    fn failure(task: &'static str, how: HowFailed) -> TaskFailure {
        TaskFailure { task: task.into(), how }
    }

    #[tokio::test]
    async fn a_panic_of_an_essential_task_is_the_process_s_failure() {
        let tasks = Tasks::new();
        tasks.essential("worker", async { panic!("no {}\nline", "such") });
        let failed = tasks.failed().await;
        assert_eq!(failed, failure("worker", HowFailed::Panicked("no such line".to_owned())));
        assert_eq!(failed.to_string(), "the task \"worker\" panicked: no such line");
        assert_eq!(tasks.failure(), Some(failed));
    }

    #[tokio::test]
    async fn so_is_its_end_before_the_token() {
        let tasks = Tasks::new();
        let child = tasks.child();
        child.essential("ingress", async {});
        assert_eq!(tasks.failed().await, failure("ingress", HowFailed::Ended));
    }

    #[tokio::test]
    async fn the_first_failure_is_the_one_that_is_told() {
        let tasks = Tasks::new();
        tasks.essential("first", async {});
        tasks.failed().await;
        tasks.essential("second", async { panic!("later") });
        assert!(tasks.end(Duration::from_secs(5)).await);
        assert_eq!(tasks.failed().await.task, "first");
    }

    #[tokio::test]
    async fn an_end_on_the_token_is_none_whichever_token_that_is() {
        let tasks = Tasks::new();
        let closing = tasks.token().child_token();
        let until = |token: CancellationToken| async move { token.cancelled().await };
        tasks.ending_on(closing.clone()).essential("feed", until(closing.clone()));
        tasks.essential("worker", until(tasks.token().clone()));
        tasks.essential_once("preparation", async {});
        closing.cancel();
        assert!(tasks.end(Duration::from_secs(5)).await);
        assert_eq!(tasks.failure(), None);
    }

    #[tokio::test]
    async fn a_task_that_may_end_must_not_panic() {
        let tasks = Tasks::new();
        tasks.essential_once("preparation", async { panic!("no") });
        assert_eq!(tasks.failed().await, failure("preparation", HowFailed::Panicked("no".to_owned())));
    }

    #[tokio::test]
    async fn a_panic_of_a_short_lived_task_is_counted_and_nobody_else_s() {
        let (recorder, metrics) = names::recorder().unwrap();
        let _counting = metrics::set_default_local_recorder(&recorder);
        let tasks = Tasks::new();
        let panicked = tasks.short_lived("connection", async { panic!("of its own") });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(tasks.short_lived("connection", async { 7 }).await.unwrap(), 7);
        assert_eq!(tasks.failure(), None);
        assert!(metrics.render().contains("rollcall_panics_total{task=\"connection\"} 1"), "{}", metrics.render());
    }

    #[tokio::test]
    async fn what_is_caught_has_its_message_and_can_go_on() {
        let caught_panic = caught(async { panic!("{}", "x".repeat(1000)) }).await.unwrap_err();
        assert_eq!(caught_panic.message, "x".repeat(300));
        assert_eq!(caught(async { 1 }).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_told() {
        let tasks = Tasks::new();
        tasks.essential("stuck", pending::<()>());
        assert!(!tasks.end(Duration::from_millis(1)).await);
    }
}
