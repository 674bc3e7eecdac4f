//! Renders the status page, and the rows of its devices.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::bars::{PageRange, bar, pattern};
use super::devices::{Condition, DeviceRow, Filter, ShownDevices};
use super::overview::{not_connected, overview};
use super::parts::{document, events, legend, since, time};
use crate::availability::AvailabilityRow;
use crate::http::HttpSettings;
use crate::http::query::BridgeStatus;
use crate::metrics::GatewayMeasures;
use crate::payload::RecordedEvent;
use crate::{net, task};

/// What the history has, or why it cannot be read.
type Recorded<T> = Result<Vec<T>, String>;

pub(crate) fn page(
    settings: &HttpSettings,
    status: &BridgeStatus,
    gateways: &[GatewayMeasures],
    devices: &ShownDevices<'_>,
    bars: &Recorded<AvailabilityRow>,
    last_events: &Recorded<RecordedEvent>,
) -> Markup {
    let down: usize = gateways.iter().map(|gateway| gateway.state.disconnected).sum();
    let count = if down > 0 { format!("({down}) ") } else { String::new() };
    let title = format!("{count}{} – gsdk2mqtt", settings.bridge);
    let body = html! {
        body {
            header {
                h1 { (settings.bridge) }
                p #live role="status" { "as of " (time(net::wall_time())) }
            }
            main {
                div #overview { (overview(status, gateways, &not_connected(devices))) }
                section {
                    (form(devices.filter))
                    div #list { (list(devices, bars)) }
                }
                section {
                    h2 { "Last events" }
                    div #events { (events(last_events)) }
                }
            }
            footer { (footer(settings)) }
            (pattern())
        }
    };
    document("", &title, &body)
}

fn footer(settings: &HttpSettings) -> Markup {
    html! {
        (legend(&settings.zone))
        p {
            "gsdk2mqtt " (env!("CARGO_PKG_VERSION")) " · "
            a href="metrics" { "metrics" } " · "
            a href="healthz" { "healthz" } " · "
            a href="readyz" { "readyz" }
        }
    }
}

fn form(filter: &Filter) -> Markup {
    use Condition::{Absent, Down, Unknown, Up};
    let conditions = [None, Some(Down), Some(Unknown), Some(Up), Some(Absent)];
    html! {
        form method="get" action="" role="search" {
            h2 { "Devices" }
            input type="search" name="q" maxlength="100" autocomplete="off"
                placeholder="Name, ID, address, gateway" aria-label="Filter"
                value=(filter.text);
            select name="show" aria-label="State" {
                @for condition in conditions {
                    option value=(condition.map_or("", |it| it.into_str()))
                        selected[condition == filter.condition]
                    { (condition.map_or("all", Condition::label)) }
                }
            }
            select name="range" aria-label="Period of the bars" {
                @for range in PageRange::ALL {
                    @let (value, label) = range.words();
                    option value=(value) selected[range == filter.range] { (label) }
                }
            }
            button { "Filter" }
        }
    }
}

fn list(devices: &ShownDevices<'_>, bars: &Recorded<AvailabilityRow>) -> Markup {
    let (filter, first, rows) = (devices.filter, devices.skipped(), devices.rows());
    let count = rows.len();
    let groups = rows.chunk_by(|left, right| left.gateway == right.gateway);
    let (_, range) = filter.range.words();
    let cells = cells(bars.as_deref().unwrap_or_default());
    html! {
        @if count == 0 { p .sub { "No device fits." } }
        @if let Err(error) = bars { p .trouble { (error) } }
        table {
            thead {
                tr {
                    th scope="col" { "Device" }
                    th scope="col" { "State" }
                    th scope="col" { "Since" }
                    th scope="col" { "Last " (range) }
                }
            }
            @for rows in groups {
                @let gateway = rows.first().map(|row| &row.gateway);
                tbody data-gateway=[gateway] {
                    @if let Some(gateway) = gateway {
                        tr .group {
                            th scope="rowgroup" colspan="4" {
                                a href={ "gateways/" (gateway) } { (gateway) }
                            }
                        }
                    }
                    @for row in rows {
                        @let key = (row.gateway.as_str(), Some(row.device.device_id.get()));
                        (device_row(row, cells.get(&key).copied()))
                    }
                }
            }
        }
        @if devices.matching() > count && count > 0 {
            nav .pages aria-label="Pages" {
                @if filter.page > 0 { (page_link(filter, filter.page - 1, "← before")) }
                span { (first + 1) "–" (first + count) " of " (devices.matching()) }
                @if first + count < devices.matching() {
                    (page_link(filter, filter.page + 1, "after →"))
                }
            }
        }
    }
}

type Cells<'a> = BTreeMap<(&'a str, Option<u32>), &'a [AvailabilityRow]>;

/// The cells of each device.
fn cells(rows: &[AvailabilityRow]) -> Cells<'_> {
    fn key(row: &AvailabilityRow) -> (&str, Option<u32>) {
        (&row.gateway, row.device_id)
    }
    let bars = rows.chunk_by(|left, right| key(left) == key(right));
    bars.filter_map(|bar| Some((key(bar.first()?), bar))).collect()
}

fn page_link(filter: &Filter, page: usize, label: &str) -> Markup {
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("q", &filter.text)
        .append_pair("show", filter.condition.map_or("", |it| it.into_str()))
        .append_pair("range", filter.range.words().0)
        .append_pair("page", &page.to_string())
        .finish();
    html! { a href={ "?" (query) "#list" } { (label) } }
}

fn device_row(row: &DeviceRow, cells: Option<&[AvailabilityRow]>) -> Markup {
    task::give_way();
    let DeviceRow { gateway, name, device } = row;
    let info = device.info;
    let device_type = info.map(|info| info.device_type).filter(|known| !known.is_undefined());
    let details = device.details.as_deref();
    let product = device_type.map(|known| known.product_name());
    let model = details.and_then(|details| details.model.clone()).or(product);
    let firmware = details.and_then(|details| details.firmware.as_deref());
    let condition = Condition::of(device);
    // While the gateway is lost: since the last known state began.
    let shown_since = device.since.or(device.last_known.map(|last| last.since));
    html! {
        tr id={ "d-" (gateway) "-" (device.device_id) } class=(condition.into_str()) {
            th scope="row" {
                a .name href={ "devices/" (gateway) "/" (device.device_id) } { (name) }
                span .sub {
                    (device.device_id)
                    @if let Some(model) = model { " · " (model) }
                    @if let Some(firmware) = firmware { " " (firmware) }
                    @if let Some(ip) = info.and_then(|info| info.ip) { " · " (ip) }
                }
            }
            td .state {
                span .dot {}
                span .word { (condition.label()) }
                span .sub {
                    @if let Some(status) = device.status { (status) }
                    @else if let Some(last) = device.last_known { "was " (last.status) }
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
            td .day { @if let Some(cells) = cells { (bar(cells)) } }
        }
    }
}
