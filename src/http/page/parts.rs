//! Parts that several pages have: times, durations, lists of events.

use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, html};

use crate::availability::duration;
use crate::fleet::{GatewayState, LinkState};
use crate::ids::Moment;
use crate::metrics::GatewayMeasures;
use crate::payload::RecordedEvent;

/// A page with its files; `root` is the way from it to the status page.
pub(crate) fn document(root: &str, title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href={ (root) "icon.svg" };
                link rel="stylesheet" href={ (root) "page.css" };
                script src={ (root) "page.js" } defer {}
            }
            (body)
        }
    }
}

/// The colour of a gateway's state.
pub(crate) const fn gateway_class(gateway: &GatewayMeasures) -> &'static str {
    match gateway.state.state {
        _ if gateway.facts.is_removed && !gateway.state.live => "absent",
        LinkState::Online => "up",
        LinkState::Lost => "down",
        LinkState::Connecting | LinkState::Syncing => "unknown",
    }
}

/// How many of a gateway's devices are connected, as far as that is known.
pub(crate) fn devices_connected(state: &GatewayState) -> String {
    match state.devices() {
        0 => "no devices".to_owned(),
        count if state.live => format!("{} of {count} connected", state.connected),
        1 => "1 device, unknown".to_owned(),
        count => format!("{count} devices, unknown"),
    }
}

/// What the colours of the bars mean.
pub(crate) fn legend(zone: &TimeZone) -> Markup {
    html! {
        p {
            "Bars, the current hour or day right: "
            span class="key up" { "connected" } ", "
            span class="key down" { "not connected" } " (higher than the rest), "
            span class="key gap" { "not observed" }
            "; time not observed counts as neither. Hours and days of "
            (zone.iana_name().unwrap_or("UTC")) "."
        }
    }
}

/// The last events, or why they cannot be read.
pub(crate) fn events(events: &Result<Vec<RecordedEvent>, String>) -> Markup {
    html! {
        @match events.as_deref() {
            Ok([]) => p .sub { "None." },
            Ok(events) => ol { @for event in events { (event_row(event)) } },
            Err(error) => p .trouble { (error) },
        }
    }
}

fn event_row(event: &RecordedEvent) -> Markup {
    let class = match event.event_type.as_str() {
        "connected" | "reachable" | "restored" => "up",
        "disconnected" | "unreachable" | "connect_failed" | "refused" => "down",
        _ => "unknown",
    };
    let gateway = event.gateway.as_deref().unwrap_or_default();
    html! {
        li .(class) {
            (time(event.received_at))
            span .dot {}
            div {
                b {
                    @if let Some(name) = &event.name { (name) }
                    @else { "Gateway " (gateway) }
                }
                " " span .word { (event.event_type.replace('_', " ")) }
                span .sub {
                    @if event.name.is_some() { (gateway) " · " }
                    @else if let Some(device_id) = event.device_id { "device " (device_id) ": " }
                    (event.detail())
                    @if let Some(duration_ms) = event.duration_ms.filter(|ms| *ms > 0) {
                        " · after " (duration(duration_ms))
                    }
                }
            }
        }
    }
}

pub(crate) fn since(at: Moment) -> Markup {
    html! { time .since datetime=(at) { (at.utc_minute()) } }
}

pub(crate) fn time(at: Moment) -> Markup {
    html! { time datetime=(at) { (at.utc_minute()) } }
}
