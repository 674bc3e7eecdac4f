//! Whether a disk answers, tried by a thread, so that nothing else waits for one that hangs.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use super::StoreError;

/// How long an answer is waited for, once.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Tries a disk.
#[derive(Debug, Default)]
pub(crate) struct DiskProbe {
    /// Closed when the thread ends. At most one thread waits for the disk.
    running: Option<Receiver<()>>,
}

impl DiskProbe {
    /// Whether the disk of a folder answers, also if with an error. The caller waits a second at
    /// most, and not at all while an earlier try has not ended.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn answers(&mut self, dir: &Path) -> Result<bool, StoreError> {
        if let Some(running) = &self.running
            && running.try_recv() == Err(TryRecvError::Empty)
        {
            return Ok(false);
        }
        let running = Self::start(dir)?;
        let hangs = running.recv_timeout(ANSWERS_WITHIN) == Err(RecvTimeoutError::Timeout);
        self.running = hangs.then_some(running);
        Ok(!hangs)
    }

    fn start(dir: &Path) -> Result<Receiver<()>, StoreError> {
        let (ended, running) = channel::<()>();
        let folder = dir.to_owned();
        let thread = std::thread::Builder::new().name("disk".to_owned());
        let started = thread.spawn(move || {
            // An error is an answer; the next write of the store reports it.
            _ = write_to(&folder);
            drop(ended);
        });
        started.map_err(StoreError::io("starting a thread for", dir))?;
        Ok(running)
    }
}

fn write_to(dir: &Path) -> io::Result<()> {
    let mut file = tempfile::tempfile_in(dir)?;
    file.write_all(b"gsdk2mqtt")?;
    file.sync_all()
}
