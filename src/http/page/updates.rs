//! Keeps open pages up to date by server-sent events: once a second what has changed, the same for
//! all. A browser that does not keep up is disconnected, and connects again by itself.

use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::devices::DeviceRow;
use super::{App, Hours, current_hour};
use super::{parts, view};
use crate::fleet::DeviceMeasures;
use crate::http::query::{Changes, NoAnswer, Query};

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
        is_incomplete: false,
    };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let send = async {
        loop {
            ticks.tick().await;
            // The loop may have taken note of an answer that did not arrive.
            if updater.update().await.is_err() {
                updater.is_incomplete = true;
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
    /// Changes may have been lost: the browsers have to load the page again.
    is_incomplete: bool,
}

impl Updater<'_> {
    async fn update(&mut self) -> Result<(), NoAnswer> {
        if self.app.page.hours().is_over(current_hour()) {
            self.end_hour().await?;
        }
        if self.updates.receiver_count() > 0 {
            self.send_changes().await?;
        }
        Ok(())
    }

    async fn end_hour(&self) -> Result<(), NoAnswer> {
        let hour = current_hour();
        let event_loop = &self.app.settings.event_loop;
        let gateways = event_loop.gateways().await?;
        let (mut chunks, mut observed) = (event_loop.devices(&gateways), Vec::new());
        while let Some(chunk) = chunks.next().await? {
            let key = |device: &DeviceMeasures| (chunk.index, device.device_id);
            observed.extend(chunk.devices.iter().map(|it| (key(it), it.observed)));
        }
        self.app.page.hours().end(hour, observed.into_iter());
        Ok(())
    }

    async fn send_changes(&mut self) -> Result<(), NoAnswer> {
        let settings = &self.app.settings;
        let changes = settings.event_loop.ask(Query::Changes).await?;
        let summary = settings.event_loop.ask(Query::Summary).await?;
        let gateways = settings.event_loop.gateways().await?;
        let overview = view::overview(&summary, &gateways).into_string();
        if overview != self.overview {
            self.send("overview", &json!(overview));
            self.overview = overview;
        }
        match changes {
            Changes::Devices(devices) if !self.is_incomplete => {
                for (index, device) in devices {
                    let Some(gateway) = gateways.get(index.0) else { continue };
                    let hours: &Hours = &self.app.page.hours();
                    let row = DeviceRow::new(&gateway.entry, index, device, hours);
                    let html = view::device_row(&row).into_string();
                    self.send("device", &json!({ "id": view::row_id(&row), "html": html }));
                }
            }
            Changes::Devices(_) | Changes::TooMany => self.send("reload", &Value::Null),
        }
        let events = parts::events(&summary.events, false).into_string();
        if events != self.events {
            self.send("events", &json!(events));
            self.events = events;
        }
        self.is_incomplete = false;
        Ok(())
    }

    fn send(&self, name: &str, data: &Value) {
        // Fails if no browser watches any more.
        _ = self.updates.send(Event::default().event(name).data(data.to_string()));
    }
}
