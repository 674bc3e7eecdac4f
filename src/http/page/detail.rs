//! The pages of one gateway and of one device: their state, topics and last events.

use std::sync::Arc;

use axum::extract::{Path, Query as Parameters, State};
use axum::http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

use super::availability::availability;
use super::bars::{self, PageRange, pattern};
use super::devices::Condition;
use super::parts::{devices_connected, document, events, gateway_class, since, time};
use super::{App, history};
use crate::availability::{AvailabilityRequest, BucketSize};
use crate::fleet::DeviceState;
use crate::http::query::NoAnswer;
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::metrics::GatewayMeasures;
use crate::net;
use crate::payload::Subject;
use crate::topics::Topics;

/// The answer where there is no such gateway or device.
fn missing() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "this bridge has no such gateway or device\n")
}

/// The parameters of the page's address.
#[derive(Debug, Deserialize)]
pub(crate) struct DetailQuery {
    /// The period of its availability.
    range: Option<PageRange>,
}

pub(crate) async fn gateway(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Parameters(DetailQuery { range }): Parameters<DetailQuery>,
) -> axum::response::Result<Markup> {
    let gateway = app.settings.event_loop.gateway(&name).await?.ok_or_else(missing)?;
    let topics = topics(&app).await?;
    let of = &gateway.entry.name;
    let all = topics.event(&Subject::Gateway(of.clone()), "+");
    let root = "../";
    let page = DetailPage {
        root,
        title: format!("Gateway {of}"),
        head: gateway_head(root, &gateway),
        gateway: of,
        device_id: None,
        topics: vec![topics.gateway_state(of), topics.gateway_info(of), all],
    };
    Ok(page.render(&app, range.unwrap_or(PageRange::Days30)).await)
}

pub(crate) async fn device(
    State(app): State<Arc<App>>,
    Path((name, device_id)): Path<(String, String)>,
    Parameters(DetailQuery { range }): Parameters<DetailQuery>,
) -> axum::response::Result<Markup> {
    let device_id: DeviceId = device_id.parse().map_err(|_| missing())?;
    let event_loop = &app.settings.event_loop;
    let gateway = event_loop.gateway(&name).await?.ok_or_else(missing)?;
    let state = event_loop.device(gateway.index, device_id).await?.ok_or_else(missing)?;
    let topics = topics(&app).await?;
    let of = &gateway.entry.name;
    let all = topics.event(&Subject::Device(of.clone(), device_id), "+");
    let (root, device_type) = ("../../", state.info.map(|info| info.device_type));
    let page = DetailPage {
        root,
        title: gateway.entry.device_name(device_id, device_type).into_owned(),
        head: device_head(root, &gateway, &state),
        gateway: of,
        device_id: Some(device_id),
        topics: vec![topics.device_state(of, device_id), all],
    };
    Ok(page.render(&app, range.unwrap_or(PageRange::Days30)).await)
}

async fn topics(app: &App) -> Result<Topics, NoAnswer> {
    let info = app.settings.event_loop.bridge().await?.info;
    Ok(Topics::new(info.base_topic, info.bridge))
}

/// A page, to which the history is added.
struct DetailPage<'a> {
    /// The way from the page to the status page.
    root: &'static str,
    title: String,
    head: Markup,
    gateway: &'a GatewayName,
    device_id: Option<DeviceId>,
    topics: Vec<String>,
}

impl DetailPage<'_> {
    async fn render(&self, app: &App, range: PageRange) -> Markup {
        let Self { root, title, head, gateway, device_id, topics } = self;
        let query = AvailabilityRequest {
            of_gateways: device_id.is_none(),
            gateways: [(*gateway).clone()].into(),
            device_ids: (*device_id).into_iter().collect(),
            ..bars::query(&app.settings.zone, range)
        };
        // Not the sum of the cells: an outage across midnight is one outage here.
        let total = AvailabilityRequest { bucket: BucketSize::Total, ..query.clone() };
        let figures = async {
            let cells = history::availability(&app.page.history, query).await;
            (cells, history::availability(&app.page.history, total).await)
        };
        let (last_events, (cells, total)) = tokio::join!(
            history::last_events(&app.page.history, vec![(*gateway).clone()], *device_id),
            figures,
        );
        let total = total.ok().and_then(|rows| rows.first().map(|row| row.figures));
        let of = if device_id.is_some() { "devices" } else { "gateways" };
        let month_csv = self.this_month(app, "availability", &[("of", of), ("bucket", "day")]);
        let bridge = &app.settings.bridge;
        let body = html! {
            body data-root=(root) {
                nav { a href=(root) { "← " (bridge) } }
                header {
                    h1 { (title) }
                    p #live role="status" { "as of " (time(net::wall_time())) }
                }
                main {
                    section .detail { (head) }
                    (availability(range, &cells, total.as_ref(), &month_csv, &app.settings.zone))
                    section {
                        h2 { "Last events" }
                        (events(&last_events))
                        p .sub .links {
                            a href=(self.this_month(app, "events", &[])) {
                                "This month's events as CSV"
                            }
                        }
                    }
                    section {
                        h2 { "MQTT topics" }
                        ul .topics { @for topic in topics { li { code { (topic) } } } }
                    }
                }
                (pattern())
            }
        };
        document(root, &format!("{title} – {bridge}"), &body)
    }

    /// The address of a list of this month as CSV.
    fn this_month(&self, app: &App, list: &str, more: &[(&str, &str)]) -> String {
        let now = net::wall_time().timestamp().to_zoned_datetime(app.settings.zone.clone());
        let month = now.strftime("%Y-%m").to_string();
        let address = format!("{}api/v1/{list}?", self.root);
        let mut address = form_urlencoded::Serializer::new(address);
        address.append_pair("gateway", self.gateway.as_str());
        if let Some(device_id) = self.device_id {
            address.append_pair("device_id", &device_id.to_string());
        }
        address.extend_pairs([("from", &*month), ("to", &month), ("limit", "10000")]);
        address.extend_pairs(more).append_pair("format", "csv").finish()
    }
}

/// A line of a list of facts; without a value there is none.
type Fact = (&'static str, Option<String>);

fn gateway_head(root: &str, gateway: &GatewayMeasures) -> Markup {
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

fn device_head(root: &str, gateway: &GatewayMeasures, state: &DeviceState) -> Markup {
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
