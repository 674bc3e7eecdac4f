//! Reports to open pages that something has changed, once a second at most. A page then loads
//! itself again, so that it has one way to be rendered.

use std::time::Duration;

use super::super::App;
use super::down::DownDevices;
use super::{history, overview};
use crate::http::query::NoAnswer;
use crate::store::history::Reader;

/// How often changes are looked for.
const INTERVAL: Duration = Duration::from_secs(1);

/// What pages show, as far as it is needed to notice a change. Pages load themselves now and then
/// anyway, for what is not in it, as a certificate of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    device_changes: u64,
    /// The bridge and its gateways.
    overview: String,
    /// The ID of the newest event, or why it cannot be read.
    newest_event: Result<u64, String>,
}

impl Shown {
    async fn read(app: &App, history: &Reader) -> Result<Self, NoAnswer> {
        let event_loop = &app.settings.event_loop;
        let status = event_loop.bridge().await?;
        let gateways = event_loop.gateways().await?;
        let overview = overview::overview(&status, &gateways, &DownDevices::new()).into_string();
        let newest_event = history::newest_id(history).await;
        Ok(Self { device_changes: status.device_changes, overview, newest_event })
    }
}

/// Looks for changes while a browser watches.
pub(crate) async fn follow_changes(app: &App) {
    // Its own, which the bars of pages do not hold up.
    let history = &app.settings.history.with_own_limit();
    // Without an answer of the event loop, the next time.
    let read = || async move { Shown::read(app, history).await.ok().map(Some) };
    app.page.shown.follow(INTERVAL, read).await;
}
