//! Renders the top of the status page: what is not known, what is down, and the gateways.

use maud::{Markup, html};

use super::devices::{DeviceRow, NewestFirst, ShownDevices};
use super::parts::{devices_connected, gateway_class, since};
use crate::http::query::BridgeStatus;
use crate::metrics::GatewayMeasures;
use crate::payload::Health;

/// Gateways that are not online, as the page names them at the top.
const LOST_NAMED_MAX: usize = 10;
/// More gateways that are online are folded.
const CARDS_MAX: usize = 6;

/// The bridge, its gateways, and between them `down`.
pub(crate) fn overview(
    status: &BridgeStatus,
    gateways: &[GatewayMeasures],
    down: &Markup,
) -> Markup {
    let sum = |count: fn(&GatewayMeasures) -> usize| gateways.iter().map(count).sum::<usize>();
    let counts = [
        ("down", "not connected", sum(|gateway| gateway.state.disconnected)),
        ("unknown", "unknown", sum(|gateway| gateway.state.unknown)),
        ("up", "connected", sum(|gateway| gateway.state.connected)),
    ];
    html! {
        (trouble(status, gateways))
        ul #counts .counts {
            @for (class, label, count) in counts {
                li .(class) .none[count == 0] {
                    a href={ "?show=" (class) "#list" } { b { (count) } " " (label) }
                }
            }
        }
        (down)
        (gateway_cards(gateways))
    }
}

/// What is down.
pub(crate) fn not_connected(devices: &ShownDevices<'_>) -> Markup {
    let (recent, long) = (&devices.down, &devices.long_down);
    html! {
        @if recent.count + long.count > 0 {
            section #down {
                h2 { "Not connected" }
                @if recent.count > 0 { (doors(recent)) }
                @if long.count > 0 {
                    details #long {
                        summary { "For more than 7 days: " (long.count) }
                        (doors(long))
                    }
                }
            }
        }
    }
}

fn trouble(status: &BridgeStatus, gateways: &[GatewayMeasures]) -> Markup {
    let lost: Vec<_> = gateways.iter().filter(|gateway| !gateway.state.live).collect();
    let Health { reasons, degraded, .. } = &status.health;
    let degraded = degraded.iter().map(|it| &it.message);
    let problems: Vec<_> = reasons.iter().chain(degraded).collect();
    let waiting = status.info.outbox.pending;
    let waiting = (waiting > 0).then(|| match waiting {
        1 => "1 event waits for the broker".to_owned(),
        count => format!("{count} events wait for the broker"),
    });
    html! {
        @if !problems.is_empty() || !lost.is_empty() {
            section #trouble .trouble {
                h2 { "Not known or not right" }
                ul {
                    @for gateway in lost.iter().take(LOST_NAMED_MAX) { li { (lost_item(gateway)) } }
                    @if lost.len() > LOST_NAMED_MAX {
                        li { (lost.len() - LOST_NAMED_MAX) " more gateways are not online" }
                    }
                    @for problem in problems { li { (problem) } }
                    @if let Some(waiting) = waiting { li { (waiting) } }
                }
            }
        } @else if let Some(waiting) = waiting {
            p .sub { (waiting) }
        }
    }
}

/// What cannot be known while a gateway is not online.
fn lost_item(gateway: &GatewayMeasures) -> Markup {
    let state = &gateway.state;
    html! {
        "Gateway " (gateway.entry.name) " is " (gateway.facts.state_name(state)) ", "
        (since(state.since))
        @match state.devices() {
            0 => {}
            1 => ": the state of its device is unknown",
            count => { ": the state of its " (count) " devices is unknown" }
        }
    }
}

fn doors(list: &NewestFirst) -> Markup {
    let more = list.count - list.rows.len();
    html! {
        ul .doors { @for row in list.rows.values() { (door(row)) } }
        @if more > 0 { p .sub { a href="?show=down#list" { (more) " more" } } }
    }
}

fn door(row: &DeviceRow) -> Markup {
    let DeviceRow { gateway, name, device } = row;
    html! {
        li #{ "down-" (gateway) "-" (device.device_id) } .down {
            span .dot {}
            div {
                a .name href={ "devices/" (gateway) "/" (device.device_id) } { (name) }
                span .sub {
                    (gateway) " · " (device.device_id)
                    @if let Some(status) = device.status { " · " (status) }
                }
            }
            @if let Some(at) = device.since {
                span .when {
                    (since(at))
                    @if !device.since_exact { span .sub { "or before" } }
                }
            }
        }
    }
}

/// Those that are not online come first.
fn gateway_cards(gateways: &[GatewayMeasures]) -> Markup {
    let (online, others): (Vec<_>, Vec<_>) = gateways.iter().partition(|it| it.state.live);
    let cards = |gateways: &[&GatewayMeasures]| {
        html! { ul .gateways { @for gateway in gateways { (gateway_card(gateway)) } } }
    };
    html! {
        section #gateways {
            h2 { "Gateways" }
            @if !others.is_empty() { (cards(&others)) }
            @if online.len() > CARDS_MAX {
                details #online { summary { "Online: " (online.len()) } (cards(&online)) }
            } @else if !online.is_empty() {
                (cards(&online))
            }
        }
    }
}

fn gateway_card(gateway: &GatewayMeasures) -> Markup {
    let state = &gateway.state;
    html! {
        li #{ "gateway-" (gateway.entry.name) } .(gateway_class(gateway)) {
            span .dot {}
            div {
                b { a href={ "gateways/" (gateway.entry.name) } { (gateway.entry.name) } } " "
                span .word { (gateway.facts.state_name(state)) } " "
                (since(state.since)) " "
                span .sub {
                    @match &gateway.entry.master {
                        Some(master) => { "behind " (master.name) }
                        None => { (gateway.entry.address) }
                    }
                    " · " (devices_connected(state))
                }
                @if let Some(error) = gateway.last_error() { span .sub.error { (error) } }
            }
        }
    }
}
