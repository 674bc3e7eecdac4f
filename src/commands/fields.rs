//! The fields of a JSON object, read one by one, each refusal naming the field and the remedy.
//!
//! May not know any command. A field that was never asked for is unknown, and an error.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::failure::Failure;
use crate::gsdk::{DEVICE_PORT_DEFAULT, Target};
use crate::ids::DeviceId;

/// The most devices that one request may name: what a device gateway takes (wire, section 3).
pub(super) const DEVICES_MAX: usize = 1_000;
/// The most of a wrong value that is quoted, in characters.
const QUOTED_MAX: usize = 40;

/// An object's fields that have not been read yet.
#[derive(Debug)]
pub(super) struct Fields {
    map: Map<String, Value>,
    /// What stands before a field's name in messages, such as `devices[2].`.
    place: String,
    asked: Vec<&'static str>,
}

impl Fields {
    pub(super) fn new(map: Map<String, Value>, place: impl Into<String>) -> Self {
        Self { map, place: place.into(), asked: Vec::new() }
    }

    /// The field's value; `null` is as good as absent.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.map.remove(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, found: &Value, wanted: &str) -> Failure {
        Failure::invalid(format!("{}{key} is {}; it must be {wanted}", self.place, quoted(found)))
    }

    pub(super) fn missing(&self, key: &str, wanted: &str) -> Failure {
        Failure::invalid(format!("{}{key} is missing; give {wanted}", self.place))
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, Failure> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(truth)),
            Some(other) => Err(self.wrong(key, &other, "true or false")),
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, Failure> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(key, &other, "a text")),
        }
    }

    /// A number of seconds within limits, both included.
    pub(super) fn seconds(
        &mut self,
        key: &'static str,
        least_s: f64,
        most_s: f64,
    ) -> Result<Option<Duration>, Failure> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (least_s..=most_s).contains(seconds));
        let wanted = || format!("a number of seconds from {least_s} to {most_s}");
        let seconds = seconds.ok_or_else(|| self.wrong(key, &value, &wanted()))?;
        Ok(Some(Duration::from_secs_f64(seconds)))
    }

    /// A whole number within limits, both included.
    pub(super) fn whole(
        &mut self,
        key: &'static str,
        min: u64,
        max: u64,
    ) -> Result<Option<u64>, Failure> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = value.as_u64().filter(|number| (min..=max).contains(number));
        let wanted = || format!("a whole number from {min} to {max}");
        number.map(Some).ok_or_else(|| self.wrong(key, &value, &wanted()))
    }

    /// A time as text or as a number; its form is not checked here.
    pub(super) fn time(&mut self, key: &'static str) -> Result<Option<String>, Failure> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(self.wrong(key, &other, "a time as text, or Unix milliseconds")),
        }
    }

    /// A list of texts; empty where it is absent.
    pub(super) fn texts(&mut self, key: &'static str) -> Result<Vec<String>, Failure> {
        let items = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) if items.len() <= DEVICES_MAX => items,
            Some(other) => return Err(self.wrong(key, &other, "a list of texts")),
        };
        let text = |(at, item): (usize, Value)| match item {
            Value::String(text) => Ok(text),
            other => Err(self.wrong(&format!("{key}[{at}]"), &other, "a text")),
        };
        items.into_iter().enumerate().map(text).collect()
    }

    fn port(&mut self) -> Result<u16, Failure> {
        let Some(value) = self.take("port") else { return Ok(DEVICE_PORT_DEFAULT) };
        let port = value.as_u64().and_then(|number| u16::try_from(number).ok());
        port.filter(|port| *port != 0)
            .ok_or_else(|| self.wrong("port", &value, "a whole number from 1 to 65535"))
    }

    /// Where the gateway is to dial a device.
    pub(super) fn target(&mut self) -> Result<Target, Failure> {
        const EXAMPLE: &str = "the device's IPv4 address, as in \"192.168.0.104\"";
        let text = self.text("ip")?.ok_or_else(|| self.missing("ip", EXAMPLE))?;
        let usable =
            |ip: &Ipv4Addr| !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast());
        let ip = text.parse::<Ipv4Addr>().ok().filter(usable).ok_or_else(|| {
            let wanted = if text.contains(':') {
                format!("IPv4, since gateways dial nothing else: {EXAMPLE}")
            } else {
                EXAMPLE.to_owned()
            };
            self.wrong("ip", &Value::from(text), &wanted)
        })?;
        let port = self.port()?;
        let ssl = self.boolean("ssl")?.unwrap_or(false);
        Ok(Target { ip, port, ssl })
    }

    /// One device.
    pub(super) fn device_id(&mut self) -> Result<DeviceId, Failure> {
        let value = self.take("device_id");
        let value = value.ok_or_else(|| self.missing("device_id", "the device's number"))?;
        self.id("device_id", &value)
    }

    fn id(&self, key: &str, value: &Value) -> Result<DeviceId, Failure> {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.and_then(DeviceId::new).ok_or_else(|| {
            self.wrong(key, value, "a device ID, a whole number from 1 to 4294967295")
        })
    }

    /// A list of IDs; `None` where it is absent.
    pub(super) fn ids(&mut self, key: &'static str) -> Result<Option<Vec<DeviceId>>, Failure> {
        let Some(items) = self.list(key)? else { return Ok(None) };
        let read = |(at, item): (usize, &Value)| self.id(&format!("{key}[{at}]"), item);
        items.iter().enumerate().map(read).collect::<Result<_, _>>().map(Some)
    }

    /// `device_ids` or `device_id`, at least one of them naming at least one device.
    pub(super) fn device_ids(&mut self) -> Result<BTreeSet<DeviceId>, Failure> {
        let wanted = "the devices' numbers, as in [544114231]";
        self.some_device_ids()?.ok_or_else(|| self.missing("device_ids", wanted))
    }

    /// `device_ids` or `device_id`; `None` where both are absent.
    pub(super) fn some_device_ids(&mut self) -> Result<Option<BTreeSet<DeviceId>>, Failure> {
        let one = self.take("device_id");
        let many = self.ids("device_ids")?;
        match (one, many) {
            (Some(_), Some(_)) => {
                Err(Failure::invalid("device_id and device_ids are both given; keep one of them"))
            }
            (Some(value), None) => Ok(Some([self.id("device_id", &value)?].into())),
            (None, Some(ids)) if ids.is_empty() => {
                Err(self.missing("device_ids", "at least one device's number"))
            }
            (None, ids) => Ok(ids.map(|ids| ids.into_iter().collect())),
        }
    }

    /// A list, of at most as many items as a request may name devices.
    pub(super) fn list(&mut self, key: &'static str) -> Result<Option<Vec<Value>>, Failure> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(items)) if items.len() <= DEVICES_MAX => Ok(Some(items)),
            Some(Value::Array(items)) => Err(Failure::invalid(format!(
                "{}{key} has {} entries; send at most {DEVICES_MAX} in one request",
                self.place,
                items.len()
            ))),
            Some(other) => Err(self.wrong(key, &other, "a list, as in [544114231]")),
        }
    }

    /// A list of objects, each as fields of its own.
    pub(super) fn objects(&mut self, key: &'static str) -> Result<Option<Vec<Self>>, Failure> {
        let Some(items) = self.list(key)? else { return Ok(None) };
        let mut objects = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            match item {
                Value::Object(map) => {
                    objects.push(Self::new(map, format!("{}{key}[{at}].", self.place)));
                }
                other => {
                    let key = format!("{key}[{at}]");
                    return Err(self.wrong(&key, &other, "an object in braces"));
                }
            }
        }
        Ok(Some(objects))
    }

    /// All has been read: what is left is unknown.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Some(key) = self.map.keys().next() else { return Ok(()) };
        let key = quoted(&Value::from(key.as_str()));
        let known = self.asked.join(", ");
        let place = self.place.trim_end_matches('.');
        let place = if place.is_empty() { "here".to_owned() } else { format!("in {place}") };
        Err(Failure::invalid(format!(
            "{key} is not known {place}; leave it out. What is known: {known}"
        )))
    }
}

/// A value as in the request, cut short.
pub(super) fn quoted(value: &Value) -> String {
    let text = match value {
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= QUOTED_MAX {
        return text;
    }
    text.chars().take(QUOTED_MAX).chain("...".chars()).collect()
}
