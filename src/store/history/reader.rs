//! Reads the history in parallel with its writer: a few queries at a time, each with a deadline.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::error::Error;
use super::query::{EventFilter, Page, newest_id, page};

/// Queries that run at the same time; more wait.
const QUERIES_MAX: usize = 2;

/// Reads the history. Cheap to clone: all clones share the limit.
#[derive(Clone, Debug)]
pub struct Reader {
    path: Arc<Path>,
    permits: Arc<Semaphore>,
}

impl Reader {
    /// A reader of the database at this path, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path: path.into(), permits: Arc::new(Semaphore::new(QUERIES_MAX)) }
    }

    /// The events that a filter selects, as far as its limits and its deadline allow.
    ///
    /// # Errors
    /// When the database is not there or cannot be read.
    pub async fn query(&self, filter: EventFilter) -> Result<Page, Error> {
        self.read(move |path| page(path, &filter)).await
    }

    /// The ID of the newest event that was ever recorded.
    ///
    /// # Errors
    /// As [`Self::query`].
    pub async fn newest_id(&self) -> Result<u64, Error> {
        self.read(newest_id).await
    }

    /// Reads the database in its own way, within the same limit.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) async fn read<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        read: impl FnOnce(&Path) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let path = self.path.clone();
        #[cfg(feature = "model")]
        if crate::net::model::is_active() {
            // Other threads run in real time, and a model's answers depend on its seed alone.
            model::flush();
            return read(&path);
        }
        let query = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            read(&path)
        });
        query.await.unwrap_or_else(|panic| Err(Error::Panicked(panic.to_string()).into()))
    }
}

/// Makes the queries of a model wait for everything that is written.
#[cfg(feature = "model")]
pub(crate) mod model {
    use std::cell::RefCell;

    thread_local! {
        static FLUSH: RefCell<Box<dyn Fn()>> = RefCell::new(Box::new(|| ()));
    }

    /// Sets what this thread's queries call first: it records what is written.
    pub(crate) fn flush_with(flush: impl Fn() + 'static) {
        FLUSH.set(Box::new(flush));
    }

    pub(crate) fn flush() {
        FLUSH.with_borrow(|flush| flush());
    }
}
