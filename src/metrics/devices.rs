//! The devices' series as text, family by family. While a state is unknown, `gsdk_device_connected`
//! and `_status` are absent.

use std::fmt::{Display, Write};

use super::text::{Family, Thousandths, begin, end, label, number};
use crate::config::DeviceSeries;
use crate::fleet::{DeviceMeasures, DeviceState};
use crate::ids::{DeviceId, GatewayName};
use crate::payload::GatewayEntry;

/// The most families of a group.
const FAMILIES_MAX: usize = 5;
/// The usual bytes of a sample after its name and its gateway.
const SAMPLE_BYTES: usize = 40;

/// A device's values of one group, small enough to keep for each of 100,000 devices.
#[derive(Clone, Copy, Debug)]
pub struct Values {
    device_id: DeviceId,
    /// In the order of the group's families, or [`ABSENT`].
    values: [i64; FAMILIES_MAX],
}

const ABSENT: i64 = i64::MIN;

/// One device series: its value, if there is one.
struct DeviceFamily {
    family: Family,
    value: fn(&DeviceMeasures) -> Option<Thousandths>,
}

const fn device(
    kind: &'static str,
    name: &'static str,
    help: &'static str,
    value: fn(&DeviceMeasures) -> Option<Thousandths>,
) -> DeviceFamily {
    DeviceFamily { family: Family { name, kind, help }, value }
}

#[rustfmt::skip]
static STATE: [DeviceFamily; 5] = [
    device("gauge", "gsdk_device_connected",
        "Whether the device is connected (1) or not (0); absent while that is unknown.",
        |device| device.state.connected.map(|connected| Thousandths::whole(u64::from(connected)))),
    device("gauge", "gsdk_device_status",
        "The device's status as its number on the wire; absent while that is unknown.",
        |device| device.state.status.map(|status| Thousandths(i64::from(status.code()) * 1000))),
    device("gauge", "gsdk_device_managed",
        "Whether the device is in the gateway's list.",
        |device| Some(Thousandths::whole(u64::from(device.state.managed)))),
    device("gauge", "gsdk_device_expected",
        "Whether the device should be connected: it is listed, configured, or kept by a command.",
        |device| Some(Thousandths::whole(u64::from(device.state.expected)))),
    device("gauge", "gsdk_device_since_timestamp_seconds",
        "When the present or last known value of connected began, by the bridge's clock.",
        |device| device.known.map(|known| Thousandths(known.since.millis()))),
];

#[rustfmt::skip]
static SECONDS: [DeviceFamily; 2] = [
    device("counter", "gsdk_device_connected_seconds_total",
        "Of the observed time, how long the device was connected.",
        |device| Some(Thousandths(device.observed.connected_ms))),
    device("counter", "gsdk_device_observed_seconds_total",
        "How long the device was observed.",
        |device| Some(Thousandths(device.observed.observed_ms))),
];

#[rustfmt::skip]
static COUNTS: [DeviceFamily; 3] = [
    device("counter", "gsdk_device_connects_total",
        "Events connected.",
        |device| Some(Thousandths::whole(device.counts.connects))),
    device("counter", "gsdk_device_disconnects_total",
        "Events disconnected.",
        |device| Some(Thousandths::whole(device.counts.disconnects))),
    device("counter", "gsdk_device_connect_failures_total",
        "Failed and refused attempts to connect, repeats among them.",
        |device| Some(Thousandths::whole(device.counts.connect_failures))),
];

static INFO: Family = Family {
    name: "gsdk_device_info",
    kind: "gauge",
    help: "Always 1; the labels describe the device.",
};

fn families(group: DeviceSeries) -> &'static [DeviceFamily] {
    match group {
        DeviceSeries::State => &STATE,
        DeviceSeries::Seconds => &SECONDS,
        DeviceSeries::Counts => &COUNTS,
        DeviceSeries::Info => &[],
    }
}

impl Values {
    /// The group's values of a device.
    pub fn new(group: DeviceSeries, device: &DeviceMeasures) -> Self {
        let mut values = [ABSENT; FAMILIES_MAX];
        for (value, family) in values.iter_mut().zip(families(group)) {
            *value = (family.value)(device).map_or(ABSENT, |value| value.0);
        }
        Self { device_id: device.state.device_id, values }
    }
}

/// The group's series, in the order of the values.
pub fn device_columns(group: DeviceSeries) -> impl Iterator<Item = Column> {
    families(group).iter().enumerate().map(|(at, device)| Column { at, family: &device.family })
}

/// One series of all devices.
pub struct Column {
    at: usize,
    family: &'static Family,
}

impl Column {
    /// `# HELP` and `# TYPE`.
    pub fn head(&self) -> String {
        self.family.head()
    }

    /// The samples of these devices of a gateway.
    pub fn text(&self, gateway: &GatewayName, values: &[Values]) -> String {
        let mut before = String::new();
        begin(&mut before, self.family.name, &before_id(gateway));
        let mut text = String::with_capacity(values.len() * (before.len() + SAMPLE_BYTES));
        for Values { device_id, values } in values {
            let Some(value) = values.get(self.at).filter(|value| **value != ABSENT) else {
                continue;
            };
            text.push_str(&before);
            number(&mut text, u64::from(device_id.get()));
            text.push('"');
            end(&mut text, Thousandths(*value));
        }
        text
    }
}

/// A sample's labels up to the device's ID.
fn before_id(gateway: &GatewayName) -> String {
    let mut text = String::new();
    label(&mut text, "gateway", gateway.as_str());
    text.push_str(",device_id=\"");
    text
}

/// `# HELP` and `# TYPE` of `gsdk_device_info`.
pub fn info_head() -> String {
    INFO.head()
}

/// `gsdk_device_info` of these devices of a gateway.
pub fn info_text(gateway: &GatewayEntry, devices: &[DeviceMeasures]) -> String {
    let before = before_id(&gateway.name);
    let mut text = String::with_capacity(devices.len() * (before.len() + 4 * SAMPLE_BYTES));
    for DeviceMeasures { state: DeviceState { device_id, info, details, .. }, .. } in devices {
        begin(&mut text, INFO.name, &before);
        number(&mut text, u64::from(device_id.get()));
        let name = gateway.device_name(*device_id, info.map(|info| info.device_type));
        text.push_str("\",");
        label(&mut text, "name", &name);
        unescaped_label(&mut text, "device_type", info.map(|info| info.device_type));
        unescaped_label(&mut text, "ip", info.and_then(|info| info.ip));
        unescaped_label(&mut text, "mode", info.map(|info| info.mode));
        unescaped_label(&mut text, "ssl", info.map(|info| info.ssl));
        let details = details.as_deref();
        for (name, value) in [
            ("model", details.and_then(|details| details.model.as_deref())),
            ("firmware", details.and_then(|details| details.firmware.as_deref())),
        ] {
            text.push(',');
            label(&mut text, name, value.unwrap_or_default());
        }
        end(&mut text, Thousandths::whole(1));
    }
    text
}

/// A label whose value has nothing to escape; empty if there is none.
fn unescaped_label(text: &mut String, name: &str, value: Option<impl Display>) {
    // Writing to a String cannot fail.
    _ = match value {
        Some(value) => write!(text, ",{name}=\"{value}\""),
        None => write!(text, ",{name}=\"\""),
    };
}
