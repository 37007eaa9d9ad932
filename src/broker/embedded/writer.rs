//! The only writer of the embedded queue: everything that waits goes into one transaction and shares its fsync.
//!
//! Nobody holds a batch back to make it larger; what comes while one is being committed is the next. Only acks by
//! themselves wait a moment, since a lost one just means that its message comes again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::feed::Feed;
use super::{Condition, Settings, store};
use crate::broker::Item;

/// How many publishes a transaction may have; more would only keep the first of them waiting.
const BATCH: usize = 1000;
/// How long acks wait for company.
const ACK_PATIENCE: Duration = Duration::from_millis(20);
/// How long to wait before a file that couldn't be written is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Something to write.
#[derive(Debug)]
pub(super) enum Command {
    /// Store it, and say when it is on disk, or why it isn't.
    Publish(Item, oneshot::Sender<Result<(), String>>),
    /// These messages are done.
    Acked(Vec<i64>),
    /// This message is kept apart from now on, for this reason.
    Aside(i64, String),
    /// Messages up to this id are about to be handed out; say when that is on disk.
    HandOut(i64, oneshot::Sender<()>),
}

/// How many transactions have been committed.
#[derive(Clone, Debug, Default)]
pub(super) struct Commits(Arc<AtomicU64>);

impl Commits {
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The writer's connection, and what it hasn't written yet.
#[derive(Debug)]
pub(super) struct Writer {
    name: &'static str,
    file: PathBuf,
    busy_timeout: Duration,
    connection: Option<SqliteConnection>,
    feed: Arc<Feed>,
    condition: Condition,
    commits: Commits,
    publishes: Vec<(Item, oneshot::Sender<Result<(), String>>)>,
    acked: BTreeSet<i64>,
    aside: BTreeMap<i64, String>,
    hand_outs: Vec<(i64, oneshot::Sender<()>)>,
}

/// Writes until it is told to close, and then what is left.
pub(super) async fn run(
    mut writer: Writer,
    mut commands: mpsc::UnboundedReceiver<Command>,
    closing: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = closing.cancelled() => break,
            command = commands.recv() => match command {
                Some(command) => writer.gather(command),
                None => break,
            },
            // Nothing to do, but the file was in trouble: see whether it still is.
            () = sleep(AGAIN), if !writer.condition.is_ok() => {}
        }
        let patience = Instant::now() + ACK_PATIENCE;
        while writer.has_only_acks() && !closing.is_cancelled() {
            match timeout_at(patience, commands.recv()).await {
                Ok(Some(command)) => writer.gather(command),
                Ok(None) | Err(_) => break,
            }
        }
        while writer.publishes.len() < BATCH
            && let Ok(command) = commands.try_recv()
        {
            writer.gather(command);
        }
        writer.commit().await;
    }
    commands.close();
    while let Some(command) = commands.recv().await {
        writer.gather(command);
    }
    if !writer.is_idle() {
        writer.commit().await;
    }
    if let Some(connection) = writer.connection.take()
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "the file of {} wasn't closed cleanly", writer.name);
    }
}

impl Writer {
    pub(super) fn new(
        Settings { name, file, busy_timeout, .. }: Settings,
        connection: SqliteConnection,
        feed: Arc<Feed>,
        condition: Condition,
        commits: Commits,
    ) -> Self {
        Self {
            name,
            file,
            busy_timeout,
            connection: Some(connection),
            feed,
            condition,
            commits,
            publishes: Vec::new(),
            acked: BTreeSet::new(),
            aside: BTreeMap::new(),
            hand_outs: Vec::new(),
        }
    }

    fn gather(&mut self, command: Command) {
        match command {
            Command::Publish(item, answer) => self.publishes.push((item, answer)),
            Command::Acked(ids) => self.acked.extend(ids),
            Command::Aside(id, why) => {
                self.aside.insert(id, why);
            }
            Command::HandOut(up_to, answer) => self.hand_outs.push((up_to, answer)),
        }
    }

    fn has_only_acks(&self) -> bool {
        self.publishes.is_empty() && self.hand_outs.is_empty() && !self.acked.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.publishes.is_empty() && self.hand_outs.is_empty() && self.acked.is_empty() && self.aside.is_empty()
    }

    /// Writes everything that was gathered. If it can't, publishes are told so; the rest is kept for another time.
    async fn commit(&mut self) {
        let publishes = std::mem::take(&mut self.publishes);
        match self.transaction(&publishes).await {
            Ok(()) => {
                self.commits.0.fetch_add(1, Ordering::Relaxed);
                metrics::counter!("rollcall_broker_embedded_commits_total").increment(1);
                self.condition.note(None);
                self.feed.forget(&std::mem::take(&mut self.acked));
                self.feed.forget(&std::mem::take(&mut self.aside).into_keys().collect());
                if !publishes.is_empty() {
                    self.feed.published();
                }
                // Whoever has stopped waiting for an answer doesn't need it.
                for (_, answer) in publishes {
                    let _ = answer.send(Ok(()));
                }
                for (_, answer) in self.hand_outs.drain(..) {
                    let _ = answer.send(());
                }
            }
            Err(error) => {
                let why = format!("{} can't write {}: {error}", self.name, self.file.display());
                self.condition.note(Some(why.clone()));
                for (_, answer) in publishes {
                    let _ = answer.send(Err(why.clone()));
                }
            }
        }
    }

    async fn transaction(&mut self, publishes: &[(Item, oneshot::Sender<Result<(), String>>)]) -> sqlx::Result<()> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = store::connect(&self.file, self.busy_timeout).await?;
                store::prepare(&mut connection).await?;
                connection
            }
        };
        let write = async |file: &mut SqliteConnection| {
            for (item, _) in publishes {
                store::insert(file, item).await?;
            }
            for (id, why) in &self.aside {
                store::set_aside(file, *id, why).await?;
            }
            for range in ranges(&self.acked) {
                store::delete(file, range).await?;
            }
            let up_to = self.hand_outs.iter().map(|(up_to, _)| *up_to).max();
            if up_to.is_some() || !self.condition.is_ok() {
                store::note_handed_out(file, up_to.unwrap_or(0)).await?;
            }
            Ok(())
        };
        let (connection, ()) = store::transaction(connection, write).await?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// Runs of numbers without a gap.
fn ranges(ids: &BTreeSet<i64>) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for &id in ids {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == id => *last = id,
            _ => ranges.push((id, id)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_id_and_no_other() {
        assert_eq!(ranges(&BTreeSet::from([1, 2, 3, 7, 9, 10])), [(1, 3), (7, 7), (9, 10)]);
        assert_eq!(ranges(&BTreeSet::new()), []);
    }
}
