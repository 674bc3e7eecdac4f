//! The log's way to stderr, past everybody's work: a terminal that is held, a pipe that nobody
//! reads or a disk that stands still costs lines, and never an event.
//!
//! May not wait, but at the end of the program, and then for [`END_WITHIN`] at most.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// What may wait to be written, in bytes; a line that finds no room is lost, and counted.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How long the end of the program waits for what is not yet written.
const END_WITHIN: Duration = Duration::from_secs(1);
/// Between two tries on a pipe that is full and does not wait.
const REST: Duration = Duration::from_millis(10);

/// Takes lines for a thread of its own to write.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Log {
    waiting: Vec<u8>,
    /// What the thread has taken is being written.
    writing: bool,
    /// Lines that found no room or could not be written, since the program's start.
    lost: u64,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes to `out` from now on; says once it has caught up how many lines were lost.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let writer = Self::default();
        let shared = Arc::clone(&writer.0);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write_on(&shared, out))?;
        Ok(writer)
    }

    /// Waits until all is written, or until it is no use.
    pub(super) fn finish(&self) {
        let log = self.0.log();
        let unwritten = |log: &mut Log| log.writing || !log.waiting.is_empty();
        _ = self.0.changed.wait_timeout_while(log, END_WITHIN, unwritten);
    }
}

fn write_on(shared: &Shared, mut out: impl Write) {
    let (mut taken, mut told) = (Vec::new(), 0);
    loop {
        let log = shared.changed.wait_while(shared.log(), |log| log.waiting.is_empty());
        let mut log = log.unwrap_or_else(PoisonError::into_inner);
        taken.clear();
        std::mem::swap(&mut taken, &mut log.waiting);
        log.writing = true;
        drop(log);
        let unwritten = lines(write(&mut out, &taken));
        let mut log = shared.log();
        log.lost += unwritten;
        let (lost, caught_up) = (log.lost, log.waiting.is_empty());
        drop(log);
        // Only to a stderr that takes again; before `writing` ends, as that is what the end of the
        // program waits for.
        if unwritten == 0 && caught_up && lost > told {
            tracing::warn!(since_start = lost, "log lines are lost: stderr did not take them");
            told = lost;
        }
        shared.log().writing = false;
        shared.changed.notify_all();
    }
}

/// Writes for as long as it takes; what an error (it is closed, its disk is full) has left over.
fn write<'a>(out: &mut impl Write, mut bytes: &'a [u8]) -> &'a [u8] {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => break,
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Whoever started us may have made the pipe such that it does not wait.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(REST),
            Err(_) => break,
        }
    }
    bytes
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte == b'\n')).sum()
}

/// A line a call, as the log's formatters write.
impl Write for &Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut log = self.0.log();
        if log.waiting.len() + line.len() > WAITING_BYTES_MAX {
            log.lost += 1;
        } else {
            log.waiting.extend_from_slice(line);
            drop(log);
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a stderr that takes nothing holds up nobody, a line without room is counted, and what
    /// had room is written in order once it takes again. Method: a pipe that is read late.
    #[test]
    fn nobody_waits_and_what_has_room_is_written() {
        let (mut reader, out) = io::pipe().unwrap();
        let writer = Writer::start(out).unwrap();
        let line = |at: usize| format!("{at:0>999}\n").into_bytes();
        // More than pipe, buffer and what is being written hold together.
        let count = 4 * WAITING_BYTES_MAX / 1_000;
        for at in 0..count {
            (&writer).write_all(&line(at)).unwrap();
        }
        let lost = writer.0.log().lost;
        assert!(lost > 0, "nothing was lost of {count}");
        let mut read = vec![0; (count - usize::try_from(lost).unwrap()) * 1_000];
        io::Read::read_exact(&mut reader, &mut read).unwrap();
        writer.finish();
        assert!(!writer.0.log().writing);
        let numbers: Vec<usize> = read
            .chunks(1_000)
            .map(|line| std::str::from_utf8(line).unwrap().trim().parse().unwrap())
            .collect();
        assert!(numbers.is_sorted());
        assert_eq!(numbers[0], 0);
    }
}
