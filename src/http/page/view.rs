//! Renders the status page, and the parts of it that are updated.

use maud::{DOCTYPE, Markup, html};

use super::devices::{Condition, DeviceList, DeviceRow, Filter, PAGE_ROWS};
use super::hours::{HOUR_S, HOURS, Hour};
use crate::fleet::LinkState;
use crate::http::Settings;
use crate::http::query::{EventRow, Summary};
use crate::ids::Moment;
use crate::metrics::GatewayMeasures;
use crate::payload::rfc3339;

/// The width of an hour in a bar, and the height of a bar.
const HOUR_WIDTH: usize = 5;
const BAR_HEIGHT: u32 = 20;

pub(crate) fn page(
    settings: &Settings,
    summary: &Summary,
    gateways: &[GatewayMeasures],
    filter: &Filter,
    devices: &DeviceList,
) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (settings.bridge) " – gsdk2mqtt" }
                link rel="icon" href="icon.svg";
                link rel="stylesheet" href="page.css";
                script src="page.js" defer {}
            }
            body {
                header {
                    h1 { (settings.bridge) }
                    p #live role="status" { "as of " (time(summary.now)) }
                }
                main {
                    div #overview { (overview(summary, gateways)) }
                    (form(filter))
                    section #list { (list(devices, filter)) }
                    section {
                        h2 { "Last events" }
                        ol #events { (events(&summary.events)) }
                    }
                }
                footer { (legend(settings)) }
            }
        }
    }
}

fn legend(settings: &Settings) -> Markup {
    html! {
        p {
            "The bars are the last 24 hours, the current one right: "
            span class="key up" { "connected" } ", "
            span class="key down" { "not connected" } ", "
            span class="key" { "not observed" }
            ". They begin with the process, at " (time(settings.started_at))
            "; time not observed counts as neither."
        }
        p {
            "gsdk2mqtt " (settings.version) " · "
            a href="metrics" { "metrics" } " · "
            a href="healthz" { "healthz" } " · "
            a href="readyz" { "readyz" }
        }
    }
}

/// The bridge and its gateways.
pub(crate) fn overview(summary: &Summary, gateways: &[GatewayMeasures]) -> Markup {
    let sum = |count: fn(&GatewayMeasures) -> usize| gateways.iter().map(count).sum::<usize>();
    let counts = [
        ("down", "not connected", sum(|gateway| gateway.state.disconnected)),
        ("unknown", "unknown", sum(|gateway| gateway.state.unknown)),
        ("up", "connected", sum(|gateway| gateway.state.connected)),
    ];
    html! {
        @if !summary.problems.is_empty() {
            div .trouble role="alert" {
                strong { "Problems" }
                ul { @for problem in &summary.problems { li { (problem) } } }
            }
        }
        ul .counts {
            @for (class, label, count) in counts {
                li .(class) .none[count == 0] {
                    a href={ "?show=" (class) } { b { (count) } " " (label) }
                }
            }
        }
        ul .gateways { @for gateway in gateways { (gateway_card(gateway)) } }
        @if summary.pending_events > 0 {
            p .sub { (summary.pending_events) " events wait for the broker" }
        }
    }
}

fn gateway_card(gateway: &GatewayMeasures) -> Markup {
    let state = &gateway.state;
    let class = match state.state {
        LinkState::Online => "up",
        LinkState::Lost => "down",
        LinkState::Connecting | LinkState::Syncing => "unknown",
    };
    html! {
        li .(class) {
            span .dot {}
            div {
                b { (gateway.entry.name) } " "
                span .word { (state.state.name()) } " "
                (since(state.since)) " "
                span .sub {
                    (gateway.entry.address) " · "
                    (state.connected) " of " (state.devices()) " connected"
                }
                @if let Some(error) = gateway.last_error() { span .sub.error { (error) } }
            }
        }
    }
}

fn form(filter: &Filter) -> Markup {
    let options = [
        (None, "all"),
        (Some(Condition::Down), "not connected"),
        (Some(Condition::Unknown), "unknown"),
        (Some(Condition::Up), "connected"),
        (Some(Condition::Absent), "not expected"),
    ];
    html! {
        form method="get" action="" role="search" {
            h2 { "Devices" }
            input type="search" name="q" maxlength="100" autocomplete="off"
                placeholder="Name, ID, address, gateway, firmware" aria-label="Filter"
                value=(filter.text);
            select name="show" aria-label="State" {
                @for (condition, label) in options {
                    option value=(condition.map_or("", Condition::as_str))
                        selected[condition == filter.condition] { (label) }
                }
            }
            button { "Filter" }
        }
    }
}

fn list(devices: &DeviceList, filter: &Filter) -> Markup {
    let first = filter.page.saturating_mul(PAGE_ROWS);
    let shown = devices.rows.len();
    html! {
        @if shown == 0 { p .sub #nothing { "No device fits." } }
        table {
            thead { tr { th { "Device" } th { "State" } th { "Since" } th { "Last 24 hours" } } }
            tbody { @for row in &devices.rows { (device_row(row)) } }
        }
        @if devices.matching > shown && shown > 0 {
            nav .pages {
                @if filter.page > 0 { (page_link(filter, filter.page - 1, "← before")) }
                span { (first + 1) "–" (first + shown) " of " (devices.matching) }
                @if first + shown < devices.matching {
                    (page_link(filter, filter.page + 1, "after →"))
                }
            }
        }
    }
}

fn page_link(filter: &Filter, page: usize, label: &str) -> Markup {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("q", &filter.text)
        .append_pair("show", filter.condition.map_or("", Condition::as_str))
        .append_pair("page", &page.to_string())
        .finish();
    html! { a href={ "?" (query) } { (label) } }
}

pub(crate) fn row_id(row: &DeviceRow) -> String {
    format!("d-{}-{}", row.gateway, row.device.device_id)
}

pub(crate) fn device_row(row: &DeviceRow) -> Markup {
    let DeviceRow { gateway, name, device, hours } = row;
    let info = device.info;
    let device_type = info.map(|info| info.device_type).filter(|known| !known.is_undefined());
    let details = device.details.as_deref();
    let product = device_type.map(|known| known.product_name());
    let model = details.and_then(|details| details.model.clone()).or(product);
    let firmware = details.and_then(|details| details.firmware.as_deref());
    let condition = Condition::of(device);
    let label = match condition {
        Condition::Down => "not connected",
        Condition::Unknown => "unknown",
        Condition::Up => "connected",
        Condition::Absent => "not expected",
    };
    // While the gateway is lost: since the last known state began.
    let shown_since =
        device.since.filter(|_| device.connected.is_some() || device.status.is_none());
    html! {
        tr id=(row_id(row)) class=(condition.as_str()) {
            th scope="row" {
                span .name { (name) }
                span .sub {
                    (gateway) " · " (device.device_id)
                    @if let Some(model) = model { " · " (model) }
                    @if let Some(firmware) = firmware { " " (firmware) }
                    @if let Some(ip) = info.and_then(|info| info.ip) { " · " (ip) }
                }
            }
            td .state {
                span .dot {}
                span .word { (label) }
                span .sub {
                    @if let Some(status) = device.status { (status) }
                    @else if let Some(last) = device.last_status { "was " (last) }
                    @if !device.managed { " · not in the gateway's list" }
                }
            }
            td .when {
                @if let Some(at) = shown_since {
                    (since(at))
                    @if device.connected.is_some() && !device.since_exact {
                        span .sub { "or before" }
                    }
                }
            }
            td .day { (bar(hours)) }
        }
    }
}

fn bar(hours: &[Hour; HOURS]) -> Markup {
    let sum = |of: fn(&Hour) -> u16| hours.iter().map(|hour| u32::from(of(hour))).sum::<u32>();
    let (observed, down) = (sum(|hour| hour.observed_s), sum(|hour| hour.down_s));
    // Rounded down: 100 % means without any outage.
    let share = (observed > 0).then(|| (observed - down.min(observed)) * 100 / observed);
    let label = match share {
        Some(share) => format!("connected {share} % of {}", observed_time(observed)),
        None => "not observed yet".to_owned(),
    };
    html! {
        svg viewBox={ "0 0 120 " (BAR_HEIGHT) } preserveAspectRatio="none" role="img"
            aria-label=(label)
        {
            title { (label) }
            @for (index, hour) in hours.iter().enumerate().filter(|(_, hour)| hour.observed_s > 0) {
                (hour_bar(index, hour))
            }
        }
        span .share { @if let Some(share) = share { (share) " %" } @else { "–" } }
    }
}

fn hour_bar(index: usize, hour: &Hour) -> Markup {
    // Even the shortest time of a state is visible.
    let height = |seconds: u16| (u32::from(seconds) * BAR_HEIGHT).div_ceil(HOUR_S.into()).max(2);
    let observed = height(hour.observed_s);
    let down = if hour.down_s > 0 { height(hour.down_s).min(observed) } else { 0 };
    let top = BAR_HEIGHT.saturating_sub(observed);
    html! {
        @for (class, y, height) in [("down", top, down), ("up", top + down, observed - down)] {
            @if height > 0 {
                rect .(class) x=(index * HOUR_WIDTH) width="4" y=(y) height=(height) {}
            }
        }
    }
}

fn observed_time(seconds: u32) -> String {
    match seconds / 60 {
        0 => "the first minute".to_owned(),
        minutes @ 1..120 => format!("{minutes} min observed"),
        minutes => format!("{} h observed", minutes / 60),
    }
}

/// The latest events.
pub(crate) fn events(events: &[EventRow]) -> Markup {
    html! {
        @if events.is_empty() { li .sub { "None since the process began." } }
        @for event in events { (event_row(event)) }
    }
}

fn event_row(event: &EventRow) -> Markup {
    let class = match event.event_type {
        "connected" | "reachable" | "restored" => "up",
        "disconnected" | "unreachable" | "connect_failed" | "refused" => "down",
        _ => "unknown",
    };
    let time = event.at.timestamp().strftime("%H:%M:%S UTC").to_string();
    html! {
        li .(class) {
            time .clock datetime=(rfc3339(event.at)) { (time) }
            span .dot {}
            div {
                b {
                    @if let Some(name) = &event.device { (name) }
                    @else { "Gateway " (event.gateway) }
                }
                " " span .word { (event.event_type.replace('_', " ")) }
                span .sub {
                    @if event.device.is_some() { (event.gateway) " · " }
                    (event.detail)
                    @if let Some(duration_ms) = event.duration_ms {
                        " · after " (duration(duration_ms))
                    }
                }
            }
        }
    }
}

/// A duration in its two largest units.
fn duration(millis: i64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn since(at: Moment) -> Markup {
    html! { time .since datetime=(rfc3339(at)) { (minute(at)) } }
}

fn time(at: Moment) -> Markup {
    html! { time datetime=(rfc3339(at)) { (minute(at)) } }
}

fn minute(at: Moment) -> String {
    at.timestamp().strftime("%Y-%m-%d %H:%M UTC").to_string()
}
