//! Renders the status page, and the parts of it that are updated.

use maud::{DOCTYPE, Markup, html};

use super::devices::{Condition, DeviceList, DeviceRow, Filter, PAGE_ROWS};
use super::hours::{HOUR_S, HOURS, Hour};
use super::parts::{events, gateway_class, since, time};
use crate::http::Settings;
use crate::http::query::Summary;
use crate::metrics::GatewayMeasures;

/// The width of an hour in a bar, and the height of a bar.
const HOUR_WIDTH: usize = 5;
const BAR_HEIGHT: u32 = 20;
/// Gateways that are not online, as the page names them at the top.
const LOST_NAMED_MAX: usize = 10;

pub(crate) fn page(
    settings: &Settings,
    summary: &Summary,
    gateways: &[GatewayMeasures],
    filter: &Filter,
    devices: &DeviceList,
) -> Markup {
    let down: usize = gateways.iter().map(|gateway| gateway.state.disconnected).sum();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title {
                    @if down > 0 { "(" (down) ") " }
                    (settings.bridge) " – gsdk2mqtt"
                }
                link rel="icon" href="icon.svg";
                link rel="stylesheet" href="page.css";
                script src="times.js" defer {}
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
                        ol #events { (events(&summary.events, false)) }
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
    let lost: Vec<_> = gateways.iter().filter(|gateway| !gateway.state.live).collect();
    html! {
        @if !summary.problems.is_empty() || !lost.is_empty() {
            div .trouble role="alert" {
                strong { "Not known or not right" }
                ul {
                    @for gateway in lost.iter().take(LOST_NAMED_MAX) { li { (lost_item(gateway)) } }
                    @if lost.len() > LOST_NAMED_MAX {
                        li { (lost.len() - LOST_NAMED_MAX) " more gateways are not online" }
                    }
                    @for problem in &summary.problems { li { (problem) } }
                    @if summary.pending_events > 0 {
                        li { (summary.pending_events) " events wait for the broker" }
                    }
                }
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
        @if summary.pending_events > 0 && summary.problems.is_empty() && lost.is_empty() {
            p .sub { (summary.pending_events) " events wait for the broker" }
        }
    }
}

/// What cannot be known while a gateway is not online.
fn lost_item(gateway: &GatewayMeasures) -> Markup {
    let state = &gateway.state;
    html! {
        "Gateway " (gateway.entry.name) " is " (state.state.name()) ", " (since(state.since))
        ": the state of its " (state.devices()) " devices is unknown"
    }
}

fn gateway_card(gateway: &GatewayMeasures) -> Markup {
    let state = &gateway.state;
    html! {
        li .(gateway_class(state.state)) {
            span .dot {}
            div {
                b { a href={ "gateways/" (gateway.entry.name) } { (gateway.entry.name) } } " "
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
                a .name href={ "devices/" (gateway) "/" (device.device_id) } { (name) }
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
    // Rounded down: 100 % means without any outage. A share of less than an hour would mislead.
    let is_long = observed >= u32::from(HOUR_S);
    let share = is_long.then(|| (observed - down.min(observed)) * 100 / observed);
    let label = match (share, observed) {
        (Some(share), _) => format!("connected {share} % of {}", observed_time(observed)),
        (None, 0) => "not observed yet".to_owned(),
        (None, _) => format!("{}: too short for a share", observed_time(observed)),
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
        0 => "less than a minute observed".to_owned(),
        minutes @ 1..120 => format!("{minutes} min observed"),
        minutes => format!("{} h observed", minutes / 60),
    }
}
