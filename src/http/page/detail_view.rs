//! Renders the state of one gateway and of one device, for the top of their pages.

use maud::{Markup, html};

use super::devices::Condition;
use super::parts::{devices_connected, gateway_class, since, time};
use crate::fleet::DeviceState;
use crate::ids::Moment;
use crate::metrics::GatewayMeasures;

/// A line of a list of facts; without a value there is none.
type Fact = (&'static str, Option<String>);

pub(crate) fn gateway(root: &str, gateway: &GatewayMeasures) -> Markup {
    let (state, facts) = (&gateway.state, &gateway.facts);
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
    html! {
        p .state .(gateway_class(gateway)) {
            span .dot {} span .word { (facts.state_name(state)) } " " (since(state.since))
        }
        @if !state.live {
            p .trouble { "The state of its devices is not known now." }
        }
        @if let Some(error) = gateway.last_error() { p .trouble { (error) } }
        (facts_list(&lines))
        p { a href={ (root) "?q=" (gateway.entry.name) } { "Its devices" } }
    }
}

pub(crate) fn device(root: &str, gateway: &GatewayMeasures, state: &DeviceState) -> Markup {
    let info = state.info;
    let device_type = info.map(|info| info.device_type);
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
    html! {
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
            a href={ (root) "gateways/" (gateway.entry.name) } { (gateway.entry.name) }
        }
    }
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
