//! Lines to standard error or standard output that never fail, never panic and never block whoever writes them.
//!
//! A log must not decide whether the service works: its reader may have gone away (a broken pipe), its disk may be full,
//! and a pipe that nobody reads blocks its writer for ever. So lines go into a bounded queue, and a thread of their own
//! writes them. What can't be queued or written is dropped and counted.
//!
//! `tracing-appender` has such a thread too, but swallows errors uncounted and, at the end, prints to standard output with
//! `println!`, which panics or blocks there just as the log did.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use super::metrics::LOG_LINES_DROPPED;

/// How many bytes may be queued. More only comes together if nobody reads them.
const MOST: usize = 1 << 20;
/// How long to wait where a non-blocking descriptor takes nothing just now.
const AGAIN: Duration = Duration::from_millis(20);

/// A queue of lines that a thread writes. Clones share it.
#[derive(Clone, Debug)]
pub struct LineWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Rung when there is a line to write.
    filled: Condvar,
    /// Rung when all are written.
    drained: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether a line is being written.
    writing: bool,
}

impl LineWriter {
    /// To standard error.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn stderr() -> io::Result<Self> {
        Self::to(Raw(rustix::stdio::stderr))
    }

    /// To standard output.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn stdout() -> io::Result<Self> {
        Self::to(Raw(rustix::stdio::stdout))
    }

    fn to(mut to: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), drained: Condvar::new() });
        let queue = Arc::clone(&shared);
        // Nobody waits for it at the end: it may be in the middle of a write that never returns.
        std::thread::Builder::new().name("log writer".to_owned()).spawn(move || queue.run(&mut to))?;
        Ok(Self { shared })
    }

    /// Queues a line, with its line break; drops and counts it if there is no room.
    pub fn line(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.bytes.saturating_add(line.len()) > MOST {
            drop(queue);
            return dropped("queue-full");
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        self.shared.filled.notify_one();
    }

    /// Waits until all is written, at most that long. It blocks the thread, so it is for the end of the process.
    pub fn flush(&self, patience: Duration) {
        let queue = self.shared.lock();
        let busy = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        // Whether it was in time makes no difference: there is nobody to tell.
        drop(self.shared.drained.wait_timeout_while(queue, patience, busy));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, to: &mut impl Write) {
        let mut queue = self.lock();
        loop {
            let Some(line) = queue.lines.pop_front() else {
                self.drained.notify_all();
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.bytes -= line.len();
            queue.writing = true;
            drop(queue);
            if let Err(error) = write(to, &line) {
                dropped(reason(&error));
            }
            queue = self.lock();
            queue.writing = false;
        }
    }
}

/// Writes a whole line. A descriptor that somebody else has made non-blocking is waited for.
fn write(to: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match to.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::BrokenPipe => "broken-pipe",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "disk-full",
        _ => "failed",
    }
}

fn dropped(reason: &'static str) {
    metrics::counter!(LOG_LINES_DROPPED, "reason" => reason).increment(1);
}

/// A standard stream without the lock that the standard library puts before it: a write that never returns would hold that
/// lock, and with it everybody else.
struct Raw(fn() -> rustix::fd::BorrowedFd<'static>);

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write((self.0)(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One event on its way to the queue: the formatter writes it as a whole.
#[derive(Debug)]
pub struct Event<'a>(&'a LineWriter);

impl Write for Event<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = Event<'a>;

    fn make_writer(&'a self) -> Event<'a> {
        Event(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Hands on what is written as long as somebody takes it, and fails as it is told to.
    struct Pipe(SyncSender<Vec<u8>>, Vec<ErrorKind>);

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(kind) = self.1.pop() {
                return Err(kind.into());
            }
            let part = &bytes[..bytes.len().min(3)];
            self.0.send(part.to_vec()).map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
            Ok(part.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pipe(room: usize, failures: Vec<ErrorKind>) -> (LineWriter, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(room);
        (LineWriter::to(Pipe(sender, failures)).unwrap(), receiver)
    }

    #[test]
    fn lines_are_written_whole_and_in_order_and_a_flush_waits_for_them() {
        let (writer, written) = pipe(1000, vec![ErrorKind::WouldBlock, ErrorKind::Interrupted]);
        writer.line(b"first line\n");
        Event(&writer).write_all(b"second line\n").unwrap();
        writer.flush(PATIENCE);
        assert_eq!(written.try_iter().flatten().collect::<Vec<_>>(), b"first line\nsecond line\n");
    }

    #[test]
    fn a_line_that_fails_is_dropped_and_the_next_one_is_tried() {
        let (writer, written) = pipe(1000, vec![ErrorKind::StorageFull]);
        writer.line(b"lost\n");
        writer.line(b"kept\n");
        writer.flush(PATIENCE);
        assert_eq!(written.try_iter().flatten().collect::<Vec<_>>(), b"kept\n");
        drop(written);
        writer.line(b"nobody reads this\n");
        writer.flush(PATIENCE);
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read() {
        let (recorder, metrics) = crate::telemetry::metrics::recorder().unwrap();
        let (writer, _unread) = pipe(0, Vec::new());
        let line = vec![b'x'; 64 << 10];
        metrics::with_local_recorder(&recorder, || {
            // The first one may be in the hands of the thread.
            for _ in 0..=(MOST / line.len()) + 2 {
                writer.line(&line);
            }
        });
        writer.flush(Duration::from_millis(1));
        let text = metrics.render();
        assert!(text.contains("rollcall_log_lines_dropped_total{reason=\"queue-full\"}"), "{text}");
        assert!(writer.shared.lock().bytes <= MOST);
    }

    #[test]
    fn every_way_to_fail_has_its_reason() {
        let full = io::Error::from_raw_os_error(28);
        assert_eq!(reason(&full), "disk-full");
        assert_eq!(reason(&ErrorKind::BrokenPipe.into()), "broken-pipe");
        assert_eq!(reason(&ErrorKind::PermissionDenied.into()), "failed");
    }
}
