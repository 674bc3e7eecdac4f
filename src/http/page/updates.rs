//! Keeps open pages up to date by server-sent events: once a second what has changed, the same for
//! all. A browser that does not keep up is disconnected, and connects again by itself.

use std::time::Duration;

use axum::response::sse::Event;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval};

use super::App;
use super::devices::{Condition, DeviceRow};
use super::down::DownDevices;
use super::{history, overview, parts, view};
use crate::http::query::{ChangedStates, LoopQuery, NoAnswer};
use crate::metrics::GatewayMeasures;
use crate::store::history::Reader;

/// How often changes are sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sends updates while a browser watches; the streams end when this is dropped.
pub(crate) async fn send_updates(app: &App, updates: broadcast::Sender<Event>) {
    let mut updater = Updater {
        app,
        updates,
        history: Reader::new(app.settings.history.clone()),
        overview: String::new(),
        newest_event: None,
        events: String::new(),
        down: DownDevices::new(),
        down_count: 0,
        is_incomplete: true,
    };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // The loop may have taken note of an answer that did not arrive.
        if updater.updates.receiver_count() > 0 {
            updater.is_incomplete |= updater.send_changes().await.is_err();
        }
    }
}

struct Updater<'a> {
    app: &'a App,
    updates: broadcast::Sender<Event>,
    /// Its own, which the bars of pages do not hold up.
    history: Reader,
    /// What the browsers have.
    overview: String,
    events: String,
    /// The ID of the newest event when these were read.
    newest_event: Option<u64>,
    down: DownDevices,
    /// How many the gateways counted when these were read.
    down_count: usize,
    /// Changes may have been lost: the browsers have to load the page again.
    is_incomplete: bool,
}

impl Updater<'_> {
    async fn send_changes(&mut self) -> Result<(), NoAnswer> {
        let settings = &self.app.settings;
        let changes = settings.event_loop.ask(LoopQuery::Changes).await?;
        let status = settings.event_loop.ask(LoopQuery::Bridge).await?;
        let gateways = settings.event_loop.gateways().await?;
        self.read_down(&changes, &gateways).await?;
        let overview = overview::overview(&status, &gateways, &self.down).into_string();
        if overview != self.overview {
            self.send("overview", &json!(overview));
            self.overview = overview;
        }
        match changes {
            ChangedStates::Devices(devices) if !self.is_incomplete => {
                for (index, device) in devices {
                    let gateway = gateways.iter().find(|gateway| gateway.index == index);
                    let Some(gateway) = gateway else { continue };
                    let row = DeviceRow::new(&gateway.entry, device);
                    let html = view::device_row(&row, None).into_string();
                    self.send("device", &json!({ "id": view::row_id(&row), "html": html }));
                }
            }
            ChangedStates::Devices(_) | ChangedStates::TooMany => self.send("reload", &Value::Null),
        }
        self.is_incomplete = false;
        self.send_events(&gateways).await;
        Ok(())
    }

    /// Sends the last events, where there are newer ones.
    async fn send_events(&mut self, gateways: &[GatewayMeasures]) {
        let events = match history::newest_id(&self.history).await {
            Ok(newest) if self.newest_event == Some(newest) => return,
            Ok(newest) => {
                let names = gateways.iter().map(|gateway| gateway.entry.name.clone()).collect();
                let events = history::last_events(&self.history, names, None).await;
                self.newest_event = events.is_ok().then_some(newest);
                events
            }
            Err(error) => {
                self.newest_event = None;
                Err(error)
            }
        };
        let events = parts::events(&events).into_string();
        if events != self.events {
            self.send("events", &json!(events));
            self.events = events;
        }
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

    fn send(&self, name: &str, data: &Value) {
        // Fails if no browser watches any more.
        _ = self.updates.send(Event::default().event(name).data(data.to_string()));
    }
}
