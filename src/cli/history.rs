//! `gsdk2mqtt history`: prints recorded events, and with `--follow` new ones.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::escape::{escaped, escaped_in_json};
use super::period::{DefaultPeriod, Selected};
use super::signals::stop_signal;
use super::source::{HistorySource, SourceArgs, Unavailable};
use super::{print, say, stdout_closed};
use crate::availability::{duration, local_time};
use crate::net;
use crate::payload::{EventTypeName, RecordedEvent};
use crate::store::history::{EventFilter, EventGap};

/// Events that are read at once.
const PAGE_EVENTS: usize = 1_000;
/// Their size.
const PAGE_BYTES: usize = 8 << 20;
/// How long a page is read.
const PAGE_WITHIN: Duration = Duration::from_secs(3);
/// How often `--follow` looks for more: events are recorded once a second.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `gsdk2mqtt history`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    selected: Selected,
    /// Only events of these types, such as disconnected
    #[arg(long = "event-type", value_name = "TYPE", value_delimiter = ',')]
    event_types: Vec<EventTypeName>,
    /// Then print new events as they are recorded
    #[arg(long, conflicts_with_all = ["to", "month"])]
    follow: bool,
    /// Print each event as a line of JSON
    #[arg(long)]
    json: bool,
}

/// Prints events, the oldest first.
pub(crate) async fn run(args: HistoryArgs) -> anyhow::Result<()> {
    let (source, zone) = HistorySource::open(&args.source).await?;
    let zone = args.selected.time_zone.clone().unwrap_or(zone);
    let period = args.selected.period(DefaultPeriod::LastDay, &zone, net::wall_time())?;
    let filter = EventFilter {
        gateways: args.selected.gateways().into_iter().collect(),
        device_ids: args.selected.device_ids(),
        event_types: args.event_types,
        from: Some(period.from),
        to: period.to,
        limit: PAGE_EVENTS,
        max_bytes: PAGE_BYTES,
        deadline: PAGE_WITHIN,
        ..EventFilter::default()
    };
    let pages = EventPages { source, filter, follow: args.follow, is_waiting: false, gap: None };
    let zone = (!args.json).then_some(zone);
    if !args.follow {
        return print_events(pages, zone.as_ref()).await;
    }
    tokio::select! {
        done = print_events(pages, zone.as_ref()) => done,
        () = stop_signal() => Ok(()),
        () = stdout_closed() => Ok(()),
    }
}

/// Reads page by page.
struct EventPages {
    source: HistorySource,
    filter: EventFilter,
    follow: bool,
    /// The source did not answer, which was reported.
    is_waiting: bool,
    /// The last one that was reported.
    gap: Option<EventGap>,
}

impl EventPages {
    /// The next page, which may be empty, and whether there is more now. With `--follow` a source
    /// that does not answer is waited for.
    async fn next(&mut self) -> anyhow::Result<(Vec<Box<RawValue>>, bool)> {
        let page = loop {
            match self.source.events(&self.filter).await {
                Ok(page) => break page,
                Err(error) if self.follow && error.is::<Unavailable>() => {
                    if !std::mem::replace(&mut self.is_waiting, true) {
                        say(&format!("{error:#}; events will follow once it answers"));
                    }
                    sleep(FOLLOW_EVERY).await;
                }
                Err(error) => return Err(error),
            }
        };
        if std::mem::take(&mut self.is_waiting) {
            say("it answers again");
        }
        if page.gap.is_some() && page.gap != self.gap {
            page.gap.iter().for_each(report_gap);
            self.gap = page.gap;
        }
        self.filter.after_id = Some(page.next);
        if !page.more {
            // New events follow by their IDs, even if the bridge's clock is set to an earlier time.
            self.filter.from = None;
        }
        Ok((page.events, page.more))
    }
}

/// Prints events as lines in this zone, or without one as JSON.
async fn print_events(mut pages: EventPages, zone: Option<&TimeZone>) -> anyhow::Result<()> {
    let mut is_empty = true;
    loop {
        let (events, more) = pages.next().await?;
        is_empty &= events.is_empty();
        let mut lines = String::new();
        for event in &events {
            let text = match zone {
                None => escaped_in_json(event.get()),
                Some(zone) => line(&serde_json::from_str(event.get())?, zone),
            };
            lines += &format!("{text}\n");
        }
        if !print(&lines)? {
            return Ok(());
        }
        match (more, pages.follow) {
            (true, _) => {}
            (false, true) => sleep(FOLLOW_EVERY).await,
            (false, false) => break,
        }
    }
    if is_empty {
        pages.source.check_names(&pages.filter).await?;
        say("no such events are recorded in this time");
    }
    Ok(())
}

/// What is missing; stdout has events only.
fn report_gap(gap: &EventGap) {
    if let Some(oldest_at) = &gap.oldest_at {
        say(&format!("events before {oldest_at} are not kept"));
    }
    for missing in &gap.missing {
        let (from, to) = (&missing.from, &missing.to);
        say(&format!("events from {from} to {to} could not be recorded"));
    }
}

fn line(event: &RecordedEvent, zone: &TimeZone) -> String {
    let at = local_time(event.received_at, zone);
    let mut parts = vec![at, event.gateway.clone().unwrap_or_else(|| "bridge".to_owned())];
    if let Some(id) = event.device_id {
        parts.push(id.to_string());
    }
    parts.extend(event.name.clone());
    parts.push(event.event_type.clone());
    parts.extend(Some(event.detail()).filter(|detail| !detail.is_empty()));
    if let Some(duration_ms) = event.duration_ms {
        parts.push(format!("after {}", duration(duration_ms)));
    }
    escaped(&parts.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let shown = |json: &str| line(&serde_json::from_str(json).unwrap(), &TimeZone::UTC);
        let device = r#"{"event_type":"disconnected","received_at":"2026-11-23T11:00:00.120Z",
            "gateway":"lobby","device_id":544114231,"name":"Front\ndoor","status":"disconnected",
            "previous":"tls_connected","duration_s":3600.5,"more":1}"#;
        let expected = "2026-11-23 11:00:00  lobby  544114231  Front\\ndoor  disconnected  \
                        tls_connected → disconnected  after 1 h";
        assert_eq!(shown(device), expected);
        let bridge = r#"{"event_type":"chain_reset","received_at":"2026-11-23T11:00:00Z"}"#;
        assert_eq!(shown(bridge), "2026-11-23 11:00:00  bridge  chain_reset");
    }
}
