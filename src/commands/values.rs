//! Values of requests that serde does not check: ranges, addresses, lists.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::de::{Error as _, Unexpected};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::failure::Failure;
use crate::fleet::Mode;
use crate::ids::{DeviceId, is_device_address};

/// The most entries of a list: what a device gateway accepts in one call.
const LIST_LEN_MAX: usize = 1_000;
/// The longest `requested_by`, in characters.
const REQUESTED_BY_LEN_MAX: usize = 64;

/// A list of at most [`LIST_LEN_MAX`] entries.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Vec<T>")]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> TryFrom<Vec<T>> for List<T> {
    type Error = String;

    fn try_from(items: Vec<T>) -> Result<Self, String> {
        match items.len() {
            ..=LIST_LEN_MAX => Ok(Self(items)),
            len => Err(format!("{len} entries; send at most {LIST_LEN_MAX} in one request")),
        }
    }
}

/// The devices of a request, given as `device_ids` or `device_id`; `None` if neither is given.
pub(crate) fn some_devices(
    device_id: Option<DeviceId>,
    device_ids: Option<List<DeviceId>>,
) -> Result<Option<BTreeSet<DeviceId>>, Failure> {
    match (device_id, device_ids) {
        (Some(_), Some(_)) => {
            Err(Failure::invalid("device_id and device_ids are both given; keep one of them"))
        }
        (Some(id), None) => Ok(Some([id].into())),
        (None, Some(List(ids))) if ids.is_empty() => Err(no_devices("empty")),
        (None, ids) => Ok(ids.map(|List(ids)| ids.into_iter().collect())),
    }
}

/// The devices of a request that needs some.
pub(crate) fn devices(
    device_id: Option<DeviceId>,
    device_ids: Option<List<DeviceId>>,
) -> Result<BTreeSet<DeviceId>, Failure> {
    some_devices(device_id, device_ids)?.ok_or_else(|| no_devices("missing"))
}

fn no_devices(problem: &str) -> Failure {
    let remedy = "give at least one device's ID, as in [544114231]";
    Failure::invalid(format!("device_ids is {problem}; {remedy}"))
}

/// Each device once: a gateway would use only one of two entries.
pub(crate) fn check_unique(ids: impl Iterator<Item = DeviceId>) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for id in ids {
        if !seen.insert(id) {
            let message = format!("device {id} is named twice; name each device once");
            return Err(Failure::invalid(message));
        }
    }
    Ok(())
}

/// A value that is read by `read`, or is not `expected`; `None` for null.
fn checked<'de, D: Deserializer<'de>, T>(
    source: D,
    expected: &str,
    read: impl FnOnce(&Value) -> Option<T>,
) -> Result<Option<T>, D::Error> {
    let found = Value::deserialize(source)?;
    if found.is_null() {
        return Ok(None);
    }
    let wrong = || D::Error::invalid_value(Unexpected::Other(&found.to_string()), &expected);
    read(&found).map(Some).ok_or_else(wrong)
}

/// A time in seconds, from a tenth of a second to `MAX_S`.
pub(crate) fn seconds<'de, D, const MAX_S: u32>(source: D) -> Result<Option<Duration>, D::Error>
where
    D: Deserializer<'de>,
{
    checked(source, &format!("a number of seconds from 0.1 to {MAX_S}"), |found| {
        let seconds = found.as_f64()?;
        (0.1..=f64::from(MAX_S)).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
    })
}

pub(crate) fn requested_by<'de, D>(source: D) -> Result<Option<String>, D::Error>
where
    D: Deserializer<'de>,
{
    let expected = format!("text of at most {REQUESTED_BY_LEN_MAX} printable characters");
    checked(source, &expected, |found| {
        let text = found.as_str()?;
        let fits = text.chars().count() <= REQUESTED_BY_LEN_MAX;
        (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
    })
}

/// An address that a gateway can dial.
pub(crate) fn ip<'de, D: Deserializer<'de>>(source: D) -> Result<Ipv4Addr, D::Error> {
    const EXPECTED: &str = "the device's IPv4 address, as in \"192.168.0.104\"";
    let read = |found: &Value| found.as_str()?.parse().ok().filter(is_device_address);
    checked(source, EXPECTED, read)?.ok_or_else(|| D::Error::missing_field("ip"))
}

pub(crate) fn port<'de, D: Deserializer<'de>>(source: D) -> Result<Option<u16>, D::Error> {
    checked(source, "a whole number from 1 to 65535", |found| {
        found.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0)
    })
}

pub(crate) fn mode<'de, D: Deserializer<'de>>(source: D) -> Result<Mode, D::Error> {
    const EXPECTED: &str = "\"server_to_device\" or \"device_to_server\"";
    let known = |mode: &Mode| matches!(mode, Mode::ServerToDevice | Mode::DeviceToServer);
    let mode = checked(source, EXPECTED, |found| found.as_str()?.parse().ok().filter(known))?;
    mode.ok_or_else(|| D::Error::missing_field("mode"))
}

/// A whole number from `MIN` to `MAX`.
pub(crate) fn whole<'de, D, const MIN: u64, const MAX: u64>(
    source: D,
) -> Result<Option<u64>, D::Error>
where
    D: Deserializer<'de>,
{
    checked(source, &format!("a whole number from {MIN} to {MAX}"), |found| {
        found.as_u64().filter(|number| (MIN..=MAX).contains(number))
    })
}

/// A time as text or as a number; [`Period`](crate::period::Period) reads its form.
pub(crate) fn time<'de, D: Deserializer<'de>>(source: D) -> Result<Option<String>, D::Error> {
    checked(source, "a time as text, or Unix milliseconds", |found| match found {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}
