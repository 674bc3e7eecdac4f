//! The source of `report` and `history`: the API of a running bridge, or the database in
//! `state_dir`.

mod api;
mod arguments;
mod database;

use anyhow::Context;
use jiff::tz::TimeZone;

use super::health::reachable;
use super::print_to_stderr;
use crate::availability::Answer;
use crate::config;
use crate::store::history::{Filter, Page};
use api::Client;
pub(crate) use arguments::{AvailabilityQuery, SourceArgs};
use database::Database;

/// Where the past is read.
#[derive(Debug)]
pub(crate) struct Source {
    place: Place,
    zone: TimeZone,
}

#[derive(Debug)]
enum Place {
    Bridge(Client),
    StateDir(Database),
}

impl Source {
    /// Finds the bridge, and prints the source to stderr.
    ///
    /// # Errors
    /// When the configuration is wrong, or there is neither a bridge nor a history.
    pub(crate) async fn open(args: &SourceArgs, config: &config::Args) -> anyhow::Result<Self> {
        if let Some(url) = &args.url {
            let client = Client::new(url, args).await?;
            let zone = client.zone().await?;
            print_to_stderr(&format!("gsdk2mqtt: reading from the bridge at {url}"));
            return Ok(Self { place: Place::Bridge(client), zone });
        }
        let config = config::load(config, std::env::vars_os())?.config;
        let zone = config.time_zone.clone();
        // With a certificate it is for another name than that of the loopback.
        let scheme = if config.http.cert_file.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", reachable(config.http.listen));
        let client = Client::new(&url, args).await?;
        let error = match client.zone().await {
            Ok(_) => {
                print_to_stderr(&format!("gsdk2mqtt: reading from the bridge at {url}"));
                return Ok(Self { place: Place::Bridge(client), zone });
            }
            Err(error) => error,
        };
        let database = Database::open(&config).with_context(|| format!("{error:#}"))?;
        print_to_stderr(&format!("gsdk2mqtt: reading {database} ({error:#})"));
        Ok(Self { place: Place::StateDir(database), zone })
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
        query: &AvailabilityQuery<'_>,
    ) -> anyhow::Result<Answer> {
        match &self.place {
            Place::Bridge(client) => client.availability(query).await,
            Place::StateDir(database) => database.availability(query).await,
        }
    }

    /// Reads a page of events.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) async fn events(&self, filter: &Filter) -> anyhow::Result<Page> {
        match &self.place {
            Place::Bridge(client) => client.events(filter).await,
            Place::StateDir(database) => database.events(filter).await,
        }
    }
}
