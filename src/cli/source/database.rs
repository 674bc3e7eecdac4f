//! The database in `state_dir` as a source, whether the bridge runs or not.

use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::unavailable::Unavailable;
use crate::availability::{self, AvailabilityAnswer, AvailabilityRequest};
use crate::config::Config;
use crate::store::StateDir;
use crate::store::history::{EventFilter, FILE_NAME, Page, Reader};

/// A database that can be read.
#[derive(Debug)]
pub(crate) struct HistoryFile {
    path: PathBuf,
    /// Whether the bridge that writes it runs.
    is_running: bool,
}

impl fmt::Display for HistoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl HistoryFile {
    /// The database of this configuration.
    ///
    /// # Errors
    /// When it is not there or cannot be read, with the remedy.
    pub(crate) fn open(config: &Config) -> anyhow::Result<Self> {
        let path = config.state_dir.join(FILE_NAME);
        match std::fs::File::open(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "{} is not there: run this on the bridge's machine with its configuration, once \
                 the bridge has run",
                path.display()
            ),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!(
                        "cannot read {}; run this as the user of the service, as with sudo -u \
                         gsdk2mqtt",
                        path.display()
                    )
                });
            }
        }
        Ok(Self { path, is_running: StateDir::holder(&config.state_dir).is_some() })
    }

    /// Reads availability.
    ///
    /// # Errors
    /// When it cannot be read, or a gateway or device is not known.
    pub(crate) async fn availability(
        &self,
        request: &AvailabilityRequest,
    ) -> anyhow::Result<AvailabilityAnswer> {
        let request = AvailabilityRequest { is_running: self.is_running, ..request.clone() };
        let path = self.path.clone();
        let answer = tokio::task::spawn_blocking(move || availability::answer(&path, &request));
        Ok(answer.await.context("internal error: reading the history panicked")??)
    }

    /// Reads a page of events.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn events(&self, filter: &EventFilter) -> anyhow::Result<Page> {
        let page = Reader::new(self.path.clone()).query(filter.clone()).await;
        Ok(page.map_err(|error| Unavailable(error.with_cause()))?)
    }
}
