//! Keeps open pages up to date by server-sent events: once a second what has changed, the same for
//! all. A browser that does not keep up is disconnected, and connects again by itself.

use std::time::Duration;

use axum::response::sse::Event;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::App;
use super::devices::{Condition, DeviceRow};
use super::down::DownDevices;
use super::{history, overview, parts, view};
use crate::http::query::{ChangedStates, LoopQuery, NoAnswer};
use crate::metrics::GatewayMeasures;
use crate::store::history::Reader;

/// How often changes are sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sends updates while a browser watches; the streams end when this is dropped. Changes do not wait
/// for the history. Nothing wakes the program while no browser watches.
pub(crate) async fn send_updates(app: &App, updates: broadcast::Sender<Event>) {
    let changes = ChangedParts {
        app,
        updates: updates.clone(),
        overview: String::new(),
        down: DownDevices::new(),
        down_count: 0,
        is_incomplete: true,
    };
    let events = LastEvents {
        app,
        updates,
        history: Reader::new(app.settings.history.clone()),
        newest: None,
        shown: String::new(),
    };
    tokio::join!(changes.follow(), events.follow());
}

fn ticks() -> Interval {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn send(updates: &broadcast::Sender<Event>, name: &str, data: &Value) {
    // Fails if no browser watches any more.
    _ = updates.send(Event::default().event(name).data(data.to_string()));
}

/// The bridge, its gateways and the devices.
struct ChangedParts<'a> {
    app: &'a App,
    updates: broadcast::Sender<Event>,
    /// What the browsers have.
    overview: String,
    down: DownDevices,
    /// How many the gateways counted when these were read.
    down_count: usize,
    /// Changes may have been lost: the browsers have to load the page again.
    is_incomplete: bool,
}

impl ChangedParts<'_> {
    async fn follow(mut self) {
        let (mut watched, mut ticks) = (self.app.page.watched.subscribe(), ticks());
        while watched.changed().await.is_ok() {
            while self.updates.receiver_count() > 0 {
                ticks.tick().await;
                // The loop may have taken note of an answer that did not arrive.
                self.is_incomplete |= self.send_changes().await.is_err();
            }
        }
    }

    async fn send_changes(&mut self) -> Result<(), NoAnswer> {
        let settings = &self.app.settings;
        let changes = settings.event_loop.ask(LoopQuery::Changes).await?;
        let status = settings.event_loop.ask(LoopQuery::Bridge).await?;
        let gateways = settings.event_loop.gateways().await?;
        self.read_down(&changes, &gateways).await?;
        let overview = overview::overview(&status, &gateways, &self.down).into_string();
        if overview != self.overview {
            send(&self.updates, "overview", &json!(overview));
            self.overview = overview;
        }
        match changes {
            ChangedStates::Devices(devices) if !self.is_incomplete => {
                for (index, device) in devices {
                    let gateway = gateways.iter().find(|gateway| gateway.index == index);
                    let Some(gateway) = gateway else { continue };
                    let row = DeviceRow::new(&gateway.entry, device);
                    let html = view::device_row(&row, None).into_string();
                    send(
                        &self.updates,
                        "device",
                        &json!({ "id": view::row_id(&row), "html": html }),
                    );
                }
            }
            ChangedStates::Devices(_) | ChangedStates::TooMany => {
                send(&self.updates, "reload", &Value::Null)
            }
        }
        self.is_incomplete = false;
        Ok(())
    }

    /// Reads which devices are down, where that may have changed.
    async fn read_down(
        &mut self,
        changes: &ChangedStates,
        gateways: &[GatewayMeasures],
    ) -> Result<(), NoAnswer> {
        let count = gateways.iter().map(|gateway| gateway.state.disconnected).sum();
        let is_changed = match changes {
            ChangedStates::TooMany => true,
            ChangedStates::Devices(devices) => {
                devices.iter().any(|(_, device)| Condition::of(device) == Condition::Down)
            }
        };
        if is_changed || self.is_incomplete || count != self.down_count {
            self.down = DownDevices::read(&self.app.settings.event_loop, gateways).await?;
            self.down_count = count;
        }
        Ok(())
    }
}

/// The last events.
struct LastEvents<'a> {
    app: &'a App,
    updates: broadcast::Sender<Event>,
    /// Its own, which the bars of pages do not hold up.
    history: Reader,
    /// The ID of the newest event when they were read.
    newest: Option<u64>,
    /// What the browsers have.
    shown: String,
}

impl LastEvents<'_> {
    async fn follow(mut self) {
        let (mut watched, mut ticks) = (self.app.page.watched.subscribe(), ticks());
        while watched.changed().await.is_ok() {
            while self.updates.receiver_count() > 0 {
                ticks.tick().await;
                // Without an answer of the event loop, the next time.
                _ = self.send_events().await;
            }
        }
    }

    /// Sends the last events, where there are newer ones.
    async fn send_events(&mut self) -> Result<(), NoAnswer> {
        let newest = history::newest_id(&self.history).await;
        let events = match newest {
            Ok(newest) if self.newest == Some(newest) => return Ok(()),
            Ok(_) => {
                let gateways = self.app.settings.event_loop.gateways().await?;
                let names = gateways.iter().map(|gateway| gateway.entry.name.clone()).collect();
                history::last_events(&self.history, names, None).await
            }
            Err(ref error) => Err(error.clone()),
        };
        self.newest = newest.ok().filter(|_| events.is_ok());
        let events = parts::events(&events).into_string();
        if events != self.shown {
            send(&self.updates, "events", &json!(events));
            self.shown = events;
        }
        Ok(())
    }
}
