//! Reports to open pages that something has changed, once a second at most. A page then loads
//! itself again, so that it has one way to be rendered.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval};

use super::down::DownDevices;
use super::{App, history, overview};
use crate::http::query::{LoopQuery, NoAnswer};
use crate::store::history::Reader;

/// How often changes are looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// What pages show, as far as it is needed to notice a change. Pages load themselves now and then
/// anyway, for what is not in it, as a certificate of a gateway.
#[derive(PartialEq, Eq)]
struct Shown {
    device_changes: u64,
    /// The bridge and its gateways.
    overview: String,
    /// The ID of the newest event, or why it cannot be read.
    newest_event: Result<u64, String>,
}

impl Shown {
    async fn read(app: &App, history: &Reader) -> Result<Self, NoAnswer> {
        let event_loop = &app.settings.event_loop;
        let status = event_loop.ask(LoopQuery::Bridge).await?;
        let gateways = event_loop.gateways().await?;
        let overview = overview::overview(&status, &gateways, &DownDevices::new()).into_string();
        let newest_event = history::newest_id(history).await;
        Ok(Self { device_changes: status.device_changes, overview, newest_event })
    }
}

/// Reports changes while a browser watches; the streams end when this is dropped. Nothing wakes the
/// program while no browser watches.
pub(crate) async fn report_changes(app: &App, changes: broadcast::Sender<()>) {
    // Its own, which the bars of pages do not hold up.
    let history = app.settings.history.with_own_limit();
    let (mut watched, mut ticks) = (app.page.watched.subscribe(), interval(INTERVAL));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown = None;
    while watched.changed().await.is_ok() {
        while changes.receiver_count() > 0 {
            ticks.tick().await;
            // Without an answer of the event loop, the next time.
            let Ok(now) = Shown::read(app, &history).await else { continue };
            if shown.as_ref() != Some(&now) {
                shown = Some(now);
                // Fails if no browser watches any more.
                _ = changes.send(());
            }
        }
    }
}
