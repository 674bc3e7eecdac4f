//! The source of `report` and `history`: the API of a running bridge, or the database in
//! `state_dir`.

mod api;
mod arguments;
mod database;
mod unavailable;

use anyhow::Context;
use jiff::tz::TimeZone;

use super::health::reachable;
use super::print_to_stderr;
use crate::availability::{AvailabilityAnswer, AvailabilityRequest};
use crate::config;
use crate::store::history::{EventFilter, Page};
use api::ApiClient;
pub(crate) use arguments::SourceArgs;
use database::HistoryFile;
pub(crate) use unavailable::Unavailable;

/// Where the past is read.
#[derive(Debug)]
pub(crate) struct HistorySource {
    place: SourcePlace,
    zone: TimeZone,
}

#[derive(Debug)]
enum SourcePlace {
    Bridge(ApiClient),
    StateDir(HistoryFile),
}

impl HistorySource {
    /// Finds the bridge, and prints the source to stderr.
    ///
    /// # Errors
    /// When the configuration is wrong, or there is neither a bridge nor a history.
    pub(crate) async fn open(
        args: &SourceArgs,
        config: &config::ConfigArgs,
    ) -> anyhow::Result<Self> {
        if let Some(url) = &args.url {
            let client = ApiClient::new(url, args).await?;
            let zone = client.zone().await?;
            print_to_stderr(&format!("gsdk2mqtt: reading from the bridge at {url}"));
            return Ok(Self { place: SourcePlace::Bridge(client), zone });
        }
        let config = config::load(config, std::env::vars_os())?.config;
        let zone = config.time_zone.clone();
        // With a certificate it is for another name than that of the loopback.
        let scheme = if config.http.cert_file.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", reachable(config.http.listen));
        let client = ApiClient::new(&url, args).await?;
        let error = match client.zone().await {
            Ok(_) => {
                print_to_stderr(&format!("gsdk2mqtt: reading from the bridge at {url}"));
                return Ok(Self { place: SourcePlace::Bridge(client), zone });
            }
            Err(error) => error,
        };
        let database = HistoryFile::open(&config).with_context(|| format!("{error:#}"))?;
        print_to_stderr(&format!("gsdk2mqtt: reading {database} ({error:#})"));
        Ok(Self { place: SourcePlace::StateDir(database), zone })
    }

    /// The zone of dates where none is given.
    pub(crate) const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Reads availability; [`AvailabilityRequest::is_running`] is replaced by what is found.
    ///
    /// # Errors
    /// When it cannot be read, or a gateway or device is not known.
    pub(crate) async fn availability(
        &self,
        request: &AvailabilityRequest,
    ) -> anyhow::Result<AvailabilityAnswer> {
        match &self.place {
            SourcePlace::Bridge(client) => client.availability(request).await,
            SourcePlace::StateDir(database) => database.availability(request).await,
        }
    }

    /// Reads a page of events.
    ///
    /// # Errors
    /// When they cannot be read; [`Unavailable`] if another attempt may succeed.
    pub(crate) async fn events(&self, filter: &EventFilter) -> anyhow::Result<Page> {
        match &self.place {
            SourcePlace::Bridge(client) => client.events(filter).await,
            SourcePlace::StateDir(database) => database.events(filter).await,
        }
    }
}
