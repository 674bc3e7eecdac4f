//! Renders the pages of one gateway and of one device.

use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::availability::{AvailabilitySection, availability};
use super::bars::pattern;
use super::devices::Condition;
use super::parts::{devices_connected, document, events, gateway_class, since, time};
use crate::fleet::DeviceState;
use crate::ids::Moment;
use crate::metrics::GatewayMeasures;
use crate::payload::RecordedEvent;

/// What both pages have.
pub(crate) struct DetailPageContent<'a> {
    pub(crate) bridge: &'a str,
    /// The zone of days.
    pub(crate) zone: &'a TimeZone,
    /// The way from the page to the status page.
    pub(crate) root: &'static str,
    pub(crate) now: Moment,
    pub(crate) topics: Vec<String>,
    pub(crate) availability: AvailabilitySection,
    /// The last events, or why they cannot be read.
    pub(crate) events: Result<Vec<RecordedEvent>, String>,
    /// The address of this month's events as CSV.
    pub(crate) events_csv: String,
}

/// A line of a list of facts; without a value there is none.
type Fact = (&'static str, Option<String>);

pub(crate) fn gateway(content: &DetailPageContent<'_>, gateway: &GatewayMeasures) -> Markup {
    let (state, facts) = (&gateway.state, &gateway.facts);
    let name = gateway.entry.name.as_str();
    let skew = state.clock_skew_ms.map(|skew| format!("{} s", (skew + 500).div_euclid(1000)));
    let filter = facts.accept_filter.map(|filter| match filter.allow_all {
        true => "accepts every device".to_owned(),
        false => format!("accepts {} devices", filter.device_count),
    });
    let master = gateway.entry.master.as_ref();
    let lines: [Fact; 9] = [
        ("Address", Some(gateway.entry.address.clone())),
        ("Master", master.map(|master| master.name.to_string())),
        ("ID at the master", master.map(|master| master.gateway_id.to_string())),
        ("Area", gateway.entry.area.clone()),
        ("Devices", Some(devices_connected(state))),
        ("API", facts.package.clone()),
        ("Certificate valid until", facts.certificate_expires_at.map(Moment::utc_day)),
        ("Its clock minus the bridge's", skew),
        ("Accept filter", filter),
    ];
    let head = html! {
        p .state .(gateway_class(gateway)) {
            span .dot {} span .word { (facts.state_name(state)) } " " (since(state.since))
        }
        @if !state.live {
            p .trouble { "The state of its devices is not known now." }
        }
        @if let Some(error) = gateway.last_error() { p .trouble { (error) } }
        (facts_list(&lines))
        p { a href={ (content.root) "?q=" (name) } { "Its devices" } }
    };
    page(content, &format!("Gateway {name}"), &head)
}

pub(crate) fn device(
    content: &DetailPageContent<'_>,
    gateway: &GatewayMeasures,
    state: &DeviceState,
) -> Markup {
    let info = state.info;
    let device_type = info.map(|info| info.device_type);
    let name = gateway.entry.device_name(state.device_id, device_type);
    let condition = Condition::of(state);
    let yes_no = |yes: bool| Some(if yes { "yes" } else { "no" }.to_owned());
    let known = device_type.filter(|known| !known.is_undefined());
    let details = state.details.as_deref();
    let lines: [Fact; 11] = [
        ("ID", Some(state.device_id.to_string())),
        ("Type", known.map(|known| known.product_name().to_string())),
        ("Model", details.and_then(|details| details.model.clone())),
        ("Firmware", details.and_then(|details| details.firmware.clone())),
        ("MAC address", details.and_then(|details| details.mac.clone())),
        ("Area", gateway.entry.area(state.device_id).map(str::to_owned)),
        ("Address", info.and_then(|info| info.ip).map(|ip| ip.to_string())),
        ("Status", state.status.map(|status| status.to_string())),
        ("TLS", info.and_then(|info| yes_no(info.ssl))),
        ("In the gateway's list", yes_no(state.managed)),
        ("Expected to be connected", yes_no(state.expected)),
    ];
    let head = html! {
        p .state .(condition.into_str()) {
            span .dot {} span .word { (condition.label()) } " "
            @if let Some(at) = state.since {
                (since(at))
                @if !state.since_exact { span .sub { " or before" } }
            }
        }
        @if !gateway.state.live {
            p .trouble {
                "Gateway " (gateway.entry.name) " is " (gateway.facts.state_name(&gateway.state))
                ", so the state of this device is not known now."
                @if let Some(last) = state.last_known {
                    " It was " (last.status) " since " (time(last.since)) "."
                }
                @if let Some(error) = gateway.last_error() { br; (error) }
            }
        }
        (facts_list(&lines))
        p {
            "Gateway "
            a href={ (content.root) "gateways/" (gateway.entry.name) } { (gateway.entry.name) }
        }
    };
    page(content, &name, &head)
}

fn facts_list(facts: &[Fact]) -> Markup {
    html! {
        dl {
            @for (label, value) in facts {
                @if let Some(value) = value { div { dt { (label) } dd { (value) } } }
            }
        }
    }
}

fn page(content: &DetailPageContent<'_>, title: &str, head: &Markup) -> Markup {
    let DetailPageContent { bridge, zone, root, now, .. } = content;
    let body = html! {
        body data-root=(root) {
            nav { a href=(root) { "← " (bridge) } }
            header {
                h1 { (title) }
                p #live role="status" { "as of " (time(*now)) }
            }
            main {
                section .detail { (head) }
                (availability(&content.availability, zone))
                section {
                    h2 { "Last events" }
                    (events(&content.events))
                    p .sub .links { a href=(content.events_csv) { "This month's events as CSV" } }
                }
                section {
                    h2 { "MQTT topics" }
                    ul .topics { @for topic in &content.topics { li { code { (topic) } } } }
                }
            }
            (pattern())
        }
    };
    document(root, &format!("{title} – {bridge}"), &body)
}
