//! Writes the log to stderr on a separate thread: a stopped terminal, an unread pipe or a hanging
//! disk causes lost log lines, but delays no event. Lost lines are counted and reported.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that wait to be written; a line beyond them is lost.
const PENDING_BYTES_MAX: usize = 1 << 20;
/// How long the end of the program waits for pending lines.
const FINISH_DEADLINE: Duration = Duration::from_secs(1);
/// The pause between two attempts to write to a full non-blocking pipe.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Hands lines to the writing thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct StderrWriter(Arc<SharedQueue>);

#[derive(Debug, Default)]
struct SharedQueue {
    queue: Mutex<LineQueue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LineQueue {
    pending: Vec<u8>,
    /// Whether the thread is writing what it has taken.
    is_writing: bool,
    /// Lines lost since the start of the program: no room, or a write failed.
    lost: u64,
}

impl SharedQueue {
    fn queue(&self) -> MutexGuard<'_, LineQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StderrWriter {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self::default();
        let shared = Arc::clone(&writer.0);
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_lines(&shared, out))?;
        Ok(writer)
    }

    /// Writes these lines later, or counts them as lost.
    pub(crate) fn write(&self, lines: &str) {
        let mut queue = self.0.queue();
        if queue.pending.len() + lines.len() > PENDING_BYTES_MAX {
            queue.lost += lines_of(lines.as_bytes());
        } else {
            queue.pending.extend_from_slice(lines.as_bytes());
            drop(queue);
            self.0.changed.notify_all();
        }
    }

    /// Waits until all is written, for at most [`FINISH_DEADLINE`].
    pub(crate) fn finish(&self) {
        let unwritten = |queue: &mut LineQueue| queue.is_writing || !queue.pending.is_empty();
        _ = self.0.changed.wait_timeout_while(self.0.queue(), FINISH_DEADLINE, unwritten);
    }
}

fn write_lines(shared: &SharedQueue, mut out: impl Write) {
    let (mut taken, mut reported) = (Vec::new(), 0);
    loop {
        let queue = shared.changed.wait_while(shared.queue(), |queue| queue.pending.is_empty());
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        taken.clear();
        std::mem::swap(&mut taken, &mut queue.pending);
        queue.is_writing = true;
        drop(queue);
        let unwritten = lines_of(write(&mut out, &taken));
        let mut queue = shared.queue();
        queue.lost += unwritten;
        let (lost, caught_up) = (queue.lost, queue.pending.is_empty());
        drop(queue);
        // Only once stderr accepts lines again, and before `is_writing` is false, for which the end
        // of the program waits.
        if unwritten == 0 && caught_up && lost > reported {
            tracing::warn!(since_start = lost, "log lines lost: stderr did not accept them");
            reported = lost;
        }
        shared.queue().is_writing = false;
        shared.changed.notify_all();
    }
}

/// Writes for as long as it takes. Returns what an error (closed, no space) has left unwritten.
fn write<'a>(out: &mut impl Write, mut bytes: &'a [u8]) -> &'a [u8] {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => break,
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The parent process may have made the pipe non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(RETRY_PAUSE);
            }
            Err(_) => break,
        }
    }
    bytes
}

fn lines_of(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a stderr that accepts nothing blocks no caller, lost lines are counted, and the others
    /// are written in order once it accepts again. Method: a pipe that is read late.
    #[test]
    fn callers_never_wait_and_lost_lines_are_counted() {
        let (mut reader, out) = io::pipe().unwrap();
        let writer = StderrWriter::start(out).unwrap();
        let line = |at: usize| format!("{at:0>999}\n");
        // More than pipe, buffer and what is being written hold together.
        let count = 4 * PENDING_BYTES_MAX / 1_000;
        for at in 0..count {
            writer.write(&line(at));
        }
        let lost = writer.0.queue().lost;
        assert!(lost > 0, "nothing was lost of {count}");
        let mut read = vec![0; (count - usize::try_from(lost).unwrap()) * 1_000];
        io::Read::read_exact(&mut reader, &mut read).unwrap();
        writer.finish();
        assert!(!writer.0.queue().is_writing);
        let numbers: Vec<usize> = read
            .chunks(1_000)
            .map(|line| std::str::from_utf8(line).unwrap().trim().parse().unwrap())
            .collect();
        assert!(numbers.is_sorted());
        assert_eq!(numbers[0], 0);
    }
}
