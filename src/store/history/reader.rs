//! Reads the history in parallel with its writer: a few queries at a time, each with a deadline.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use tokio::sync::Semaphore;

use super::error::{Error, is_damage};
use super::query::{EventFilter, Page, newest_id, page};
use crate::ids::Moment;

/// Queries that run at the same time; more wait.
const QUERIES_MAX: usize = 2;

/// Reads the history. Cheap to clone: all clones share the limit, the damage that they find, and
/// how far this process has recorded.
#[derive(Clone, Debug)]
pub struct Reader {
    path: Arc<Path>,
    permits: Arc<Semaphore>,
    /// The inode of the database in which a query has found damage; 0 if none has.
    damaged: Arc<AtomicU64>,
    /// See [`Self::recorded_to`].
    recorded_to: Arc<AtomicI64>,
    /// See [`Self::set_next_id`].
    next_id: Arc<AtomicU64>,
    /// See [`Self::exclude_queries`].
    files: Arc<RwLock<()>>,
}

impl Reader {
    /// A reader of the database at this path, which need not exist yet.
    pub fn new(path: PathBuf) -> Self {
        let permits = Arc::new(Semaphore::new(QUERIES_MAX));
        let recorded_to = Arc::new(AtomicI64::new(i64::MIN));
        let (damaged, files) = (Arc::default(), Arc::default());
        let next_id = Arc::new(AtomicU64::new(u64::MAX));
        Self { path: path.into(), permits, damaged, recorded_to, next_id, files }
    }

    /// A reader of the same database with a limit of its own.
    pub(crate) fn with_own_limit(&self) -> Self {
        Self { permits: Arc::new(Semaphore::new(QUERIES_MAX)), ..self.clone() }
    }

    /// Where the database is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a query has found damage in the database with this inode.
    pub(crate) fn found_damage_in(&self, inode: u64) -> bool {
        self.damaged.load(Ordering::Relaxed) == inode
    }

    /// Up to when everything that this process has observed is recorded; the distant past if it
    /// does not write the history, the distant future while it can write it.
    pub(crate) fn recorded_to(&self) -> Moment {
        Moment::from_millis(self.recorded_to.load(Ordering::Relaxed))
    }

    pub(crate) fn set_recorded_to(&self, at: Moment) {
        self.recorded_to.store(at.millis(), Ordering::Relaxed);
    }

    /// No event has had this ID or a higher one: a client with such an ID got it from a state
    /// directory that was lost. Set before an event is written to the log.
    pub(crate) fn set_next_id(&self, id: u64) {
        self.next_id.store(id, Ordering::Relaxed);
    }

    /// Keeps queries out while the files of the database may be replaced. SQLite's locks do not
    /// hold within one process: the new database would truncate an index of the write-ahead log
    /// that a query has mapped into memory, which ends the process.
    pub(crate) fn exclude_queries(&self) -> RwLockWriteGuard<'_, ()> {
        self.files.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events that a filter selects, as far as its limits and its deadline allow.
    ///
    /// # Errors
    /// When the database is not there or cannot be read.
    pub async fn query(&self, filter: EventFilter) -> Result<Page, Error> {
        let next_id = self.next_id.load(Ordering::Relaxed);
        self.read(move |path| page(path, &filter, next_id)).await
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
    pub(crate) async fn read<T, E>(
        &self,
        read: impl FnOnce(&Path) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + std::error::Error + Send + 'static,
    {
        let (damaged, files) = (self.damaged.clone(), self.files.clone());
        let read = move |path: &Path| {
            let _files = files.read().unwrap_or_else(PoisonError::into_inner);
            // Another program may replace it while it is read.
            let inode = fs::metadata(path).map_or(0, |metadata| metadata.ino());
            read(path).inspect_err(|error| {
                if is_damage(error) {
                    damaged.store(inode, Ordering::Relaxed);
                }
            })
        };
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
