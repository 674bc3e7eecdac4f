//! Keeps open pages up to date by server-sent events: once a second what has changed, the same for
//! all. A browser that does not keep up is disconnected, and connects again by itself.

use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::App;
use super::devices::{Condition, DeviceRow};
use super::down::DownDevices;
use super::{overview, parts, view};
use crate::http::query::{ChangedMeasures, LoopQuery, NoAnswer};
use crate::metrics::GatewayMeasures;

/// How often changes are sent.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sends updates while a browser watches, until `stop` is true; the streams end with it.
pub(crate) async fn send_updates(
    app: Arc<App>,
    updates: broadcast::Sender<Event>,
    mut stop: watch::Receiver<bool>,
) {
    let mut updater = Updater {
        app: &app,
        updates,
        overview: String::new(),
        events: String::new(),
        down: DownDevices::new(),
        down_count: 0,
        is_incomplete: true,
    };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let send = async {
        loop {
            ticks.tick().await;
            // The loop may have taken note of an answer that did not arrive.
            if updater.updates.receiver_count() > 0 {
                updater.is_incomplete |= updater.send_changes().await.is_err();
            }
        }
    };
    tokio::select! {
        // Without a sender the bridge has ended.
        _ = stop.wait_for(|stop| *stop) => {}
        () = send => {}
    }
}

struct Updater<'a> {
    app: &'a App,
    updates: broadcast::Sender<Event>,
    /// What the browsers have.
    overview: String,
    events: String,
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
        let summary = settings.event_loop.ask(LoopQuery::Summary).await?;
        let gateways = settings.event_loop.gateways().await?;
        self.read_down(&changes, &gateways).await?;
        let overview = overview::overview(&summary, &gateways, &self.down).into_string();
        if overview != self.overview {
            self.send("overview", &json!(overview));
            self.overview = overview;
        }
        match changes {
            ChangedMeasures::Devices(devices) if !self.is_incomplete => {
                for (index, device) in devices {
                    let gateway = gateways.iter().find(|gateway| gateway.index == index);
                    let Some(gateway) = gateway else { continue };
                    let row = DeviceRow::new(&gateway.entry, device);
                    let html = view::device_row(&row, None).into_string();
                    self.send("device", &json!({ "id": view::row_id(&row), "html": html }));
                }
            }
            ChangedMeasures::Devices(_) | ChangedMeasures::TooMany => {
                self.send("reload", &Value::Null)
            }
        }
        let events = parts::events(&summary.events, false).into_string();
        if events != self.events {
            self.send("events", &json!(events));
            self.events = events;
        }
        self.is_incomplete = false;
        Ok(())
    }

    /// Reads which devices are down, where that may have changed.
    async fn read_down(
        &mut self,
        changes: &ChangedMeasures,
        gateways: &[GatewayMeasures],
    ) -> Result<(), NoAnswer> {
        let count = gateways.iter().map(|gateway| gateway.state.disconnected).sum();
        let is_changed = match changes {
            ChangedMeasures::TooMany => true,
            ChangedMeasures::Devices(devices) => {
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
