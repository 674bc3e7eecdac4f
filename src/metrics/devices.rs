//! The devices' series as text, family by family. While a state is unknown, `gsdk_device_connected`
//! and `_status` are absent.

use std::fmt::{Display, Write};

use super::text::{Family, Thousandths, begin, end, label, number};
use crate::fleet::{Counts, DeviceMeasures, DeviceState, Observed, Status};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::payload::GatewayEntry;

/// The usual bytes of a sample after its name and its gateway.
const SAMPLE_BYTES: usize = 40;

/// What one group of series needs of a device, as a scrape keeps it for each of 100,000 devices.
pub trait Row: Sized + 'static {
    /// The group's series.
    const SERIES: &'static [Series<Self>];

    fn new(device: &DeviceMeasures) -> Self;

    fn device_id(&self) -> DeviceId;
}

/// One series of all devices.
pub struct Series<R> {
    family: Family,
    value: fn(&R) -> Option<Thousandths>,
}

impl<R: Row> Series<R> {
    const fn new(
        kind: &'static str,
        name: &'static str,
        help: &'static str,
        value: fn(&R) -> Option<Thousandths>,
    ) -> Self {
        Self { family: Family { name, kind, help }, value }
    }

    /// `# HELP` and `# TYPE`.
    pub fn head(&self) -> String {
        self.family.head()
    }

    /// The samples of these devices of a gateway.
    pub fn text(&self, gateway: &GatewayName, rows: &[R]) -> String {
        let mut before = String::new();
        begin(&mut before, self.family.name, &before_id(gateway));
        let mut text = String::with_capacity(rows.len() * (before.len() + SAMPLE_BYTES));
        for row in rows {
            let Some(value) = (self.value)(row) else { continue };
            text.push_str(&before);
            number(&mut text, u64::from(row.device_id().get()));
            text.push('"');
            end(&mut text, value);
        }
        text
    }
}

/// The series that are always served, together with `gsdk_device_info`: the alerts need them.
#[derive(Debug)]
pub struct StateRow {
    device_id: DeviceId,
    connected: Option<bool>,
    status: Option<Status>,
    managed: bool,
    expected: bool,
    since: Option<Moment>,
    disconnects: u64,
}

impl Row for StateRow {
    #[rustfmt::skip]
    const SERIES: &'static [Series<Self>] = &[
        Series::new("gauge", "gsdk_device_connected",
            "Whether the device is connected (1) or not (0); absent while that is unknown.",
            |device| device.connected.map(|connected| Thousandths::whole(u64::from(connected)))),
        Series::new("gauge", "gsdk_device_status",
            "The device's status as its number on the wire; absent while that is unknown.",
            |device| device.status.map(|status| Thousandths(i64::from(status.code()) * 1000))),
        Series::new("gauge", "gsdk_device_managed",
            "Whether the device is in the gateway's list.",
            |device| Some(Thousandths::whole(u64::from(device.managed)))),
        Series::new("gauge", "gsdk_device_expected",
            "Whether the device should be connected: listed, configured, or kept by a command.",
            |device| Some(Thousandths::whole(u64::from(device.expected)))),
        Series::new("gauge", "gsdk_device_since_timestamp_seconds",
            "When the present or last known value of connected began, by the bridge's clock.",
            |device| device.since.map(|since| Thousandths(since.millis()))),
        Series::new("counter", "gsdk_device_disconnects_total",
            "Events disconnected.",
            |device| Some(Thousandths::whole(device.disconnects))),
    ];

    fn new(DeviceMeasures { state, known, counts, .. }: &DeviceMeasures) -> Self {
        let &DeviceState { device_id, connected, status, managed, expected, .. } = state;
        let since = known.map(|known| known.since);
        let disconnects = counts.disconnects;
        Self { device_id, connected, status, managed, expected, since, disconnects }
    }

    fn device_id(&self) -> DeviceId {
        self.device_id
    }
}

/// The group `seconds`.
#[derive(Debug)]
pub struct SecondsRow(DeviceId, Observed);

impl Row for SecondsRow {
    #[rustfmt::skip]
    const SERIES: &'static [Series<Self>] = &[
        Series::new("counter", "gsdk_device_connected_seconds_total",
            "Of the observed time, how long the device was connected.",
            |Self(_, observed)| Some(Thousandths(observed.connected_ms))),
        Series::new("counter", "gsdk_device_observed_seconds_total",
            "How long the device was observed.",
            |Self(_, observed)| Some(Thousandths(observed.observed_ms))),
    ];

    fn new(device: &DeviceMeasures) -> Self {
        Self(device.state.device_id, device.observed)
    }

    fn device_id(&self) -> DeviceId {
        self.0
    }
}

/// The group `counts`.
#[derive(Debug)]
pub struct CountsRow(DeviceId, Counts);

impl Row for CountsRow {
    #[rustfmt::skip]
    const SERIES: &'static [Series<Self>] = &[
        Series::new("counter", "gsdk_device_connects_total",
            "Events connected.",
            |Self(_, counts)| Some(Thousandths::whole(counts.connects))),
        Series::new("counter", "gsdk_device_connect_failures_total",
            "Failed and refused attempts to connect, repeats among them.",
            |Self(_, counts)| Some(Thousandths::whole(counts.connect_failures))),
    ];

    fn new(device: &DeviceMeasures) -> Self {
        Self(device.state.device_id, device.counts)
    }

    fn device_id(&self) -> DeviceId {
        self.0
    }
}

static INFO: Family = Family {
    name: "gsdk_device_info",
    kind: "gauge",
    help: "Always 1; the labels describe the device.",
};

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
    text.push(',');
    text.push_str(name);
    text.push_str("=\"");
    if let Some(value) = value {
        // Writing to a String cannot fail.
        _ = write!(text, "{value}");
    }
    text.push('"');
}
