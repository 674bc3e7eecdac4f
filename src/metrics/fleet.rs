//! The fleet's series: of gateways and devices, written from copies, a family at a time.
//!
//! May not ask the core: it is given copies, a gateway's at a time, all of one instant. While
//! nobody can know, `gsdk_device_connected` and `_status` are absent; the rest stays.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::text::{Family, Seconds, label, sample};
use crate::fleet::{DeviceMeasures, GatewayCounts, GatewayState, Status};
use crate::ids::Moment;
use crate::payload::GatewayEntry;

/// Groups of device series that can be switched off (`metrics.device`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceGroup {
    /// Connected, status, managed, since.
    State,
    /// Connected and observed seconds.
    Seconds,
    /// Connects, disconnects, failures.
    Counts,
    /// Name, type, address.
    Info,
}

/// What the metrics tell of one gateway and its devices, at one instant.
#[derive(Clone, Debug)]
pub struct GatewayMeasures {
    /// What the configuration says of it.
    pub entry: GatewayEntry,
    /// How the bridge stands to it.
    pub state: GatewayState,
    /// Its counts.
    pub counts: GatewayCounts,
    /// When its certificate ends.
    pub certificate_expires_at: Option<Moment>,
    /// Its devices.
    pub devices: Vec<DeviceMeasures>,
}

/// The fleet's text in pieces: the gateways' families, then each family of the devices, a gateway
/// at a time, so that no more than a piece of it stands in memory.
pub fn fleet_text(
    gateways: Vec<GatewayMeasures>,
    groups: BTreeSet<DeviceGroup>,
) -> impl Iterator<Item = String> {
    let first = gateway_families(&gateways);
    let gateways = Arc::new(gateways);
    let shown = DEVICE_FAMILIES.iter().filter(move |family| groups.contains(&family.group));
    let devices = shown.flat_map(move |family| {
        let gateways = Arc::clone(&gateways);
        (0..gateways.len()).map(move |at| {
            let mut text = String::new();
            if at == 0 {
                family.family.head(&mut text);
            }
            if let Some(gateway) = gateways.get(at) {
                family.write(gateway, &mut text);
            }
            text
        })
    });
    std::iter::once(first).chain(devices)
}

/// One device series: its value, or nothing to say.
struct DeviceFamily {
    group: DeviceGroup,
    family: Family,
    value: fn(&DeviceMeasures) -> Option<Seconds>,
}

const fn device(
    group: DeviceGroup,
    kind: &'static str,
    name: &'static str,
    help: &'static str,
    value: fn(&DeviceMeasures) -> Option<Seconds>,
) -> DeviceFamily {
    DeviceFamily { group, family: Family { name, kind, help }, value }
}

/// A whole number, in the thousandths that [`Seconds`] writes.
fn whole(number: u64) -> Seconds {
    Seconds(i64::try_from(number).unwrap_or(i64::MAX / 1000).saturating_mul(1000))
}

#[rustfmt::skip]
static DEVICE_FAMILIES: [DeviceFamily; 10] = [
    device(DeviceGroup::State, "gauge", "gsdk_device_connected",
        "Whether the device is connected (1) or not (0); absent while nobody can know.",
        |device| device.connected.map(|connected| whole(u64::from(connected)))),
    device(DeviceGroup::State, "gauge", "gsdk_device_status",
        "The device's status as its number on the wire; absent while nobody can know.",
        |device| device.status.map(|status| Seconds(i64::from(status.code()) * 1000))),
    device(DeviceGroup::State, "gauge", "gsdk_device_managed",
        "Whether the device is in the gateway's list.",
        |device| Some(whole(u64::from(device.managed)))),
    device(DeviceGroup::State, "gauge", "gsdk_device_since_timestamp_seconds",
        "When the present or last known value of connected began, by the bridge's clock.",
        |device| device.since.map(|since| Seconds(since.millis()))),
    device(DeviceGroup::Seconds, "counter", "gsdk_device_connected_seconds_total",
        "Of the observed time, how long the device was connected.",
        |device| Some(Seconds(device.observed.connected_ms))),
    device(DeviceGroup::Seconds, "counter", "gsdk_device_observed_seconds_total",
        "How long the device was observed.",
        |device| Some(Seconds(device.observed.observed_ms))),
    device(DeviceGroup::Counts, "counter", "gsdk_device_connects_total",
        "Events connected.",
        |device| Some(whole(device.counts.connects))),
    device(DeviceGroup::Counts, "counter", "gsdk_device_disconnects_total",
        "Events disconnected.",
        |device| Some(whole(device.counts.disconnects))),
    device(DeviceGroup::Counts, "counter", "gsdk_device_connect_failures_total",
        "Failed and refused attempts to connect, repeats among them.",
        |device| Some(whole(device.counts.connect_failures))),
    device(DeviceGroup::Info, "gauge", "gsdk_device_info",
        "Always 1; its labels tell what the device is.",
        |_| Some(whole(1))),
];

impl DeviceFamily {
    fn write(&self, gateway: &GatewayMeasures, text: &mut String) {
        let gateway_label = label("gateway", gateway.entry.name.as_str());
        for device in &gateway.devices {
            let Some(value) = (self.value)(device) else { continue };
            let mut labels = format!("{gateway_label},device_id=\"{}\"", device.device_id);
            if self.group == DeviceGroup::Info {
                labels.push_str(&info_labels(gateway, device));
            }
            sample(text, self.family.name, &labels, value);
        }
    }
}

fn info_labels(gateway: &GatewayMeasures, device: &DeviceMeasures) -> String {
    let info = device.info;
    let name = gateway.entry.device_name(device.device_id, info.map(|info| info.device_type));
    let text = |value: Option<String>| value.unwrap_or_default();
    let labels = [
        ("name", name),
        ("device_type", text(info.map(|info| info.device_type.to_string()))),
        ("ip", text(info.and_then(|info| info.ip).map(|ip| ip.to_string()))),
        ("mode", text(info.map(|info| info.mode.to_string()))),
        ("ssl", text(info.map(|info| info.ssl.to_string()))),
    ];
    labels.iter().map(|(name, value)| format!(",{}", label(name, value))).collect()
}

/// A gateway's samples of one family: labels beyond `gateway`, and the value in thousandths.
type Samples = Vec<(String, Seconds)>;

/// A family's samples of one gateway.
type SamplesOf = fn(&GatewayMeasures) -> Samples;

fn one(value: Seconds) -> Samples {
    vec![(String::new(), value)]
}

fn maybe(value: Option<i64>) -> Samples {
    value.map(Seconds).into_iter().map(|value| (String::new(), value)).collect()
}

#[rustfmt::skip]
static GATEWAY_FAMILIES: [(Family, SamplesOf); 12] = [
    (Family { name: "gsdk_gateway_up", kind: "gauge",
        help: "Whether the bridge's view of the gateway is live (1) or not (0)." },
        |gateway| one(whole(u64::from(gateway.state.live)))),
    (Family { name: "gsdk_gateway_since_timestamp_seconds", kind: "gauge",
        help: "When the gateway's present state began, by the bridge's clock." },
        |gateway| one(Seconds(gateway.state.since.millis()))),
    (Family { name: "gsdk_gateway_devices", kind: "gauge",
        help: "How many devices are connected, are not, or nobody can know of." },
        |gateway| {
            let count = |connected, count: usize| {
                (label("connected", connected), whole(count as u64))
            };
            let GatewayState { connected, disconnected, unknown, .. } = gateway.state;
            vec![count("true", connected), count("false", disconnected), count("unknown", unknown)]
        }),
    (Family { name: "gsdk_gateway_stream_starts_total", kind: "counter",
        help: "Links made to the gateway." },
        |gateway| one(whole(gateway.counts.stream_starts))),
    (Family { name: "gsdk_gateway_last_list_timestamp_seconds", kind: "gauge",
        help: "When the gateway's list was last read; absent until then." },
        |gateway| maybe(gateway.state.last_list_at.map(Moment::millis))),
    (Family { name: "gsdk_gateway_audit_interval_seconds", kind: "gauge",
        help: "How often the list is read, as configured; what is much older is stale." },
        |gateway| one(Seconds(gateway.state.audit_interval_ms))),
    (Family { name: "gsdk_gateway_clock_skew_seconds", kind: "gauge",
        help: "The gateway's clock minus the bridge's, an estimate; absent until there is one." },
        |gateway| maybe(gateway.state.clock_skew_ms)),
    (Family { name: "gsdk_gateway_certificate_expiry_timestamp_seconds", kind: "gauge",
        help: "When the gateway's certificate ends; absent until it was seen." },
        |gateway| maybe(gateway.certificate_expires_at.map(Moment::millis))),
    (Family { name: "gsdk_status_changes_total", kind: "counter",
        help: "Status changes that became events." }, status_changes),
    (Family { name: "gsdk_repeated_status_total", kind: "counter",
        help: "Statuses from the stream that were no news." },
        |gateway| one(whole(gateway.counts.repeated))),
    (Family { name: "gsdk_corrections_total", kind: "counter",
        help: "Differences that audits found." },
        |gateway| one(whole(gateway.counts.corrections))),
    (Family { name: "gsdk_stranger_status_total", kind: "counter",
        help: "Statuses of devices neither listed nor configured." },
        |gateway| one(whole(gateway.counts.strangers))),
];

fn status_changes(gateway: &GatewayMeasures) -> Samples {
    let counts = &gateway.counts.status_changes;
    let known = Status::KNOWN.iter().map(|status| (*status, counts.get(status).copied()));
    let unknown = counts.iter().filter(|(status, _)| matches!(status, Status::Unknown(_)));
    let unknown = unknown.map(|(status, count)| (*status, Some(*count)));
    let other = Some(gateway.counts.status_changes_other).filter(|count| *count > 0);
    known
        .chain(unknown)
        .map(|(status, count)| (status.to_string(), count.unwrap_or(0)))
        .chain(other.map(|count| ("unknown".to_owned(), count)))
        .map(|(status, count)| (label("status", &status), whole(count)))
        .collect()
}

fn gateway_families(gateways: &[GatewayMeasures]) -> String {
    let mut text = String::new();
    for (family, samples) in &GATEWAY_FAMILIES {
        family.head(&mut text);
        for gateway in gateways {
            let gateway_label = label("gateway", gateway.entry.name.as_str());
            for (labels, value) in samples(gateway) {
                let comma = if labels.is_empty() { "" } else { "," };
                sample(&mut text, family.name, &format!("{gateway_label}{comma}{labels}"), value);
            }
        }
    }
    text
}
