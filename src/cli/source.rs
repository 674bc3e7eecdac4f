//! Where `report` and `history` read: the database in `state_dir`, whether the bridge runs or not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::tz::TimeZone;

use super::period::Selected;
use super::print_to_stderr;
use crate::availability::{self, Answer, BucketSize};
use crate::config;
use crate::ids::Moment;
use crate::net;
use crate::store::StateDir;
use crate::store::history::{FILE_NAME, Filter, Page, Reader};

/// Where the past is read.
#[derive(Debug)]
pub(crate) struct Source {
    database: PathBuf,
    /// Whether the bridge that writes it runs.
    is_running: bool,
    zone: TimeZone,
}

impl Source {
    /// Opens the state directory of the configuration; says so on stderr.
    ///
    /// # Errors
    /// When the configuration is wrong, or there is no history.
    pub(crate) fn open(args: &config::Args) -> anyhow::Result<Self> {
        let config = config::load(args, std::env::vars_os())?.config;
        let database = config.state_dir.join(FILE_NAME);
        check(&database)?;
        let holder = StateDir::holder(&config.state_dir);
        let state = match &holder {
            Some(_) => "the bridge runs",
            None => "the bridge does not run",
        };
        print_to_stderr(&format!("gsdk2mqtt: reading {} ({state})", database.display()));
        Ok(Self { database, is_running: holder.is_some(), zone: config.time_zone })
    }

    /// The zone of dates where none is given.
    pub(crate) const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Reads availability.
    ///
    /// # Errors
    /// When it cannot be read, or a gateway or device is not known.
    pub(crate) async fn availability(
        &self,
        selected: &Selected,
        period: (Moment, Moment),
        zone: &TimeZone,
        bucket: BucketSize,
        of_gateways: bool,
    ) -> anyhow::Result<Answer> {
        let query = availability::Query {
            of_gateways,
            gateways: selected.gateways(),
            device_ids: selected.device_ids(),
            after: None,
            period,
            zone: zone.clone(),
            bucket,
            limit: usize::MAX,
            deadline: Duration::MAX,
            is_running: self.is_running,
            now: net::wall_time(),
        };
        let path = self.database.clone();
        let answer = tokio::task::spawn_blocking(move || availability::answer(&path, &query));
        Ok(answer.await.context("internal error: reading the history panicked")??)
    }

    /// Reads events.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn events(&self, filter: Filter) -> anyhow::Result<Page> {
        let page = Reader::new(self.database.clone()).query(filter).await;
        page.map_err(|error| anyhow::anyhow!(error.with_cause()))
    }
}

/// Whether the file can be read, with the remedy if not.
fn check(database: &Path) -> anyhow::Result<()> {
    match std::fs::File::open(database) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "{} is not there: run this on the bridge's machine with its configuration, once the \
             bridge has run",
            database.display()
        ),
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot read {}; run this as the user of the service, as with sudo -u gsdk2mqtt",
                database.display()
            )
        }),
    }
}
