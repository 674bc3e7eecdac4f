//! The source of `report` and `history`: the API of a running bridge, or the database in
//! `state_dir`.

mod api;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use jiff::tz::TimeZone;

use super::health::reachable;
use super::say;
use crate::availability::{self, AvailabilityAnswer, AvailabilityRequest, BucketSize};
use crate::config::{self, LocalConfig};
use crate::net;
use crate::store::history::{EventFilter, FILE_NAME, Page, Reader};
use api::ApiClient;
pub(crate) use api::{SourceArgs, Unavailable};

/// Where the past is read.
#[derive(Debug)]
pub(crate) enum HistorySource {
    Bridge(ApiClient),
    Database(Reader),
}

impl HistorySource {
    /// Finds the source, prints it to stderr, and returns it with its zone of dates.
    ///
    /// # Errors
    /// When the configuration is wrong, or there is neither a bridge nor a history.
    pub(crate) async fn open(args: &SourceArgs) -> anyhow::Result<(Self, TimeZone)> {
        let (url, config) = match &args.url {
            Some(url) => (url.clone(), None),
            None => {
                let config = config::load_local(&args.config, std::env::vars_os())?;
                // With a certificate it is for another name than that of the loopback.
                let scheme = if config.http.cert_file.is_some() { "https" } else { "http" };
                (format!("{scheme}://{}", reachable(config.http.listen)), Some(config))
            }
        };
        let client = ApiClient::new(&url, args).await?;
        match (client.zone().await, config) {
            (Ok(zone), config) => {
                say(&format!("reading from the bridge at {url}"));
                Ok((Self::Bridge(client), config.map_or(zone, |config| config.time_zone)))
            }
            (Err(error), None) => Err(match error.downcast_ref() {
                Some(Unavailable::Refused(_)) => {
                    anyhow!("{error}; check that the bridge runs, and that this is its http.listen")
                }
                _ => error,
            }),
            (Err(error), Some(config)) => {
                let path = database(&config).with_context(|| format!("{error:#}"))?;
                say(&format!("reading {} ({error:#})", path.display()));
                Ok((Self::Database(Reader::new(path)), config.time_zone))
            }
        }
    }

    /// Reads availability.
    ///
    /// # Errors
    /// When it cannot be read, or a gateway or device is not known.
    pub(crate) async fn availability(
        &self,
        request: &AvailabilityRequest,
    ) -> anyhow::Result<AvailabilityAnswer> {
        match self {
            Self::Bridge(client) => client.availability(request).await,
            Self::Database(reader) => {
                let (request, recorded_to) = (request.clone(), reader.recorded_to());
                let read = move |path: &Path| availability::answer(path, &request, recorded_to);
                Ok(reader.read(read).await?)
            }
        }
    }

    /// Checks that these gateways and devices are recorded.
    ///
    /// # Errors
    /// Names one that is not.
    pub(crate) async fn check_names(&self, filter: &EventFilter) -> anyhow::Result<()> {
        if filter.gateways.is_empty() && filter.device_ids.is_empty() {
            return Ok(());
        }
        let now = net::wall_time();
        let request = AvailabilityRequest {
            of_gateways: filter.device_ids.is_empty(),
            gateways: filter.gateways.iter().cloned().collect(),
            device_ids: filter.device_ids.clone(),
            after: None,
            period: (now, now),
            zone: TimeZone::UTC,
            bucket: BucketSize::Total,
            limit: usize::MAX,
            deadline: Duration::MAX,
            now,
        };
        self.availability(&request).await.map(drop)
    }

    /// Reads a page of events.
    ///
    /// # Errors
    /// When they cannot be read; [`Unavailable`] if another attempt may succeed.
    pub(crate) async fn events(&self, filter: &EventFilter) -> anyhow::Result<Page> {
        match self {
            Self::Bridge(client) => client.events(filter).await,
            Self::Database(reader) => {
                let page = reader.query(filter.clone()).await;
                Ok(page.map_err(|error| Unavailable::Other(error.with_cause()))?)
            }
        }
    }
}

/// The database of this configuration, which can be read whether the bridge runs or not.
fn database(config: &LocalConfig) -> anyhow::Result<PathBuf> {
    let path = config.state_dir.join(FILE_NAME);
    match std::fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "{} is not there: run this on the bridge's machine with its configuration, once the \
             bridge has run",
            path.display()
        ),
        Err(error) => Err(error).with_context(|| {
            format!(
                "cannot read {}; run this as the user of the service, as with sudo -u gsdk2mqtt",
                path.display()
            )
        }),
    }
}
