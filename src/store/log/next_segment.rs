//! The segment after the one that is written to: the worker creates it ahead, so that nothing waits
//! for it.

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};

use super::segment::Segment;
use super::worker::Worker;
use crate::store::StoreError;

#[derive(Debug, Default)]
pub(crate) struct NextSegment {
    /// `None` until it is requested.
    created: Option<Receiver<Result<Segment, StoreError>>>,
}

impl NextSegment {
    /// Requests it, unless it is requested already.
    pub(crate) fn request(&mut self, worker: &Worker, dir: &Path, number: u64, chain: &str) {
        if self.created.is_some() {
            return;
        }
        let (sender, created) = sync_channel(1);
        let (dir, chain) = (dir.to_owned(), chain.to_owned());
        let requested = worker.request(move || {
            _ = sender.send(Segment::create(&dir, number, &chain));
            Ok(())
        });
        self.created = requested.then_some(created);
    }

    /// Takes it if it is created; `wait`: waits for that.
    pub(crate) fn take(&mut self, wait: bool) -> Option<Result<Segment, StoreError>> {
        let created = self.created.as_ref()?;
        let next = if wait { created.recv().ok() } else { created.try_recv().ok() }?;
        self.created = None;
        Some(next)
    }
}
