//! From the gateways as typed to the gateways as meant, and what holds between them.
//!
//! May not stop at the first mistake; see `read`, whose part this is.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::checked::{AcceptFilter, Connect, Device, Gateway};
use super::error::Origin;
use super::layers::{KeyPath, Raw};
use super::read::Reader;
use super::values;
use crate::ids::{DeviceId, GatewayName};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// The port a Suprema device listens on.
const DEVICE_PORT: u16 = 51_211;
/// The longest queue we ask a gateway for: it holds that many events of about 100 bytes.
const QUEUE_SIZE_MAX: i128 = 1_000_000;

/// Reads every gateway; those that were wrong are left out, their mistakes noted.
pub(super) fn all(reader: &mut Reader<'_>) -> BTreeMap<GatewayName, Gateway> {
    let table = KeyPath::of(&["gateways"]);
    let names = reader.raw.names(&table);
    let mut gateways = BTreeMap::new();
    // An unknown table or broken TOML explains why there are none: one mistake is told, not two.
    let explained = reader.mistakes.iter().any(|mistake| !mistake.key.contains('.'));
    if names.is_empty() && !explained {
        reader.missing(&table, "add a table [gateways.NAME] with address and ca_file");
    }
    let mut addresses = Unique::new();
    let mut dialled = Unique::new();
    for name in names {
        let path = table.child(&name);
        let checked = name.parse::<GatewayName>();
        let checked = checked.map_err(|refusal| reader.wrong_table(&path, &refusal.to_string()));
        let gateway = gateway(reader, &path, &mut dialled);
        if let Some(gateway) = &gateway {
            let address = path.child("address");
            if let Some(first) = addresses.seen(gateway.address.clone(), &address, reader.raw) {
                reader.wrong(&address, format!("is also {first}; give each gateway once"));
            }
        }
        if let (Ok(name), Some(gateway)) = (checked, gateway) {
            gateways.insert(name, gateway);
        }
    }
    gateways
}

impl Reader<'_> {
    /// Notes a mistake about a table's name, where that table begins.
    fn wrong_table(&mut self, path: &KeyPath, text: &str) {
        let origin = self.raw.table_origin(path);
        let (key, text) = (path.to_string(), text.to_owned());
        self.mistakes.push(super::error::Mistake { origin, key, text });
    }
}

fn gateway(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    dialled: &mut Unique<DeviceId>,
) -> Option<Gateway> {
    let at = |name: &str| path.child(name);
    for (name, remedy) in [
        ("address", "write the gateway's host:port, as in \"192.168.0.2:4000\""),
        ("ca_file", "write the path of the ca.crt that the gateway made when it was installed"),
    ] {
        if !reader.is_set(&at(name)) {
            reader.missing(&at(name), remedy);
        }
    }
    let address = reader.parse(&at("address"), values::gateway_address);
    let ca_file = reader.file(&at("ca_file"));
    let server_name = if reader.is_set(&at("server_name")) {
        reader.parse(&at("server_name"), values::server_name)
    } else {
        address.as_ref().map(|address| address.host.clone())
    };
    let queue_size = reader.within(&at("queue_size"), 1, QUEUE_SIZE_MAX);
    let audit_interval =
        reader.parse(&at("audit_interval"), |text| values::duration(text, SECOND, DAY));
    let unknown_after =
        reader.parse(&at("unknown_after"), |text| values::duration(text, SECOND, HOUR));
    let area = reader.parse(&at("area"), values::label);
    let allow_all = reader.truth(&path.child("accept_filter").child("allow_all"));
    let devices = devices(reader, &path.child("devices"), dialled);
    Some(Gateway {
        address: address?,
        ca_file: ca_file?,
        server_name: server_name?,
        queue_size: queue_size.and_then(|size| i32::try_from(size).ok())?,
        audit_interval: audit_interval?,
        unknown_after: unknown_after?,
        area,
        accept_filter: AcceptFilter { allow_all: allow_all.unwrap_or_default() },
        devices,
    })
}

fn devices(
    reader: &mut Reader<'_>,
    table: &KeyPath,
    dialled: &mut Unique<DeviceId>,
) -> BTreeMap<DeviceId, Device> {
    let mut devices = BTreeMap::new();
    let mut addresses = Unique::new();
    for name in reader.raw.names(table) {
        let path = table.child(&name);
        let id = name.parse::<DeviceId>();
        let id = id.map_err(|refusal| reader.wrong_table(&path, &refusal.to_string()));
        let device = device(reader, &path);
        let (Ok(id), Some(device)) = (id, device) else { continue };
        if let Connect::Async { ip, port, .. } = device.connect {
            unique(reader, &path, id, (ip, port), dialled, &mut addresses);
        }
        if devices.insert(id, device).is_some() {
            reader.wrong_table(&path, &format!("device {id} stands twice; keep one of them"));
        }
    }
    devices
}

/// A device answers one gateway only, and an address is one device's.
fn unique(
    reader: &mut Reader<'_>,
    path: &KeyPath,
    id: DeviceId,
    at: (Ipv4Addr, u16),
    dialled: &mut Unique<DeviceId>,
    addresses: &mut Unique<(Ipv4Addr, u16)>,
) {
    let (connect, ip) = (path.child("connect"), path.child("ip"));
    if let Some(first) = dialled.seen(id, &connect, reader.raw) {
        let text = format!("is \"async\", and so is {first}; only one gateway can dial a device");
        reader.wrong(&connect, text);
    }
    if let Some(first) = addresses.seen(at, &ip, reader.raw) {
        let text = format!("{}:{} is also {first}; give each device its own", at.0, at.1);
        reader.wrong(&ip, text);
    }
}

/// The three words of `connect`.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Observe,
    Async,
    Accept,
}

fn device(reader: &mut Reader<'_>, path: &KeyPath) -> Option<Device> {
    const WAYS: [(&str, Way); 3] =
        [("observe", Way::Observe), ("async", Way::Async), ("accept", Way::Accept)];
    let before = reader.mistakes.len();
    let name = reader.parse(&path.child("name"), values::label);
    let area = reader.parse(&path.child("area"), values::label);
    let way = reader.parse(&path.child("connect"), |text| values::word(text, &WAYS));
    let ip = reader.parse(&path.child("ip"), values::device_ip);
    let port = reader.within(&path.child("port"), 1, i128::from(u16::MAX));
    let ssl = reader.truth(&path.child("ssl"));
    let connect = match way? {
        Way::Async => {
            if !reader.is_set(&path.child("ip")) {
                let remedy = "connect = \"async\" needs the device's IPv4 address";
                reader.missing(&path.child("ip"), remedy);
            }
            let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(DEVICE_PORT);
            Connect::Async { ip: ip?, port, ssl: ssl.unwrap_or_default() }
        }
        way => {
            for unused in ["ip", "port", "ssl"] {
                if reader.is_set(&path.child(unused)) && reader.mistakes.len() == before {
                    let text = "is only used with connect = \"async\"; write that, or remove it";
                    reader.wrong(&path.child(unused), text);
                }
            }
            if way == Way::Accept { Connect::Accept } else { Connect::Observe }
        }
    };
    (reader.mistakes.len() == before).then_some(Device { name, area, connect })
}

/// What two things share that may not: the first to have each value is remembered.
struct Unique<K>(BTreeMap<K, KeyPath>);

impl<K: Ord> Unique<K> {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Where the value was before, with the place it was set.
    fn seen(&mut self, value: K, path: &KeyPath, raw: &Raw) -> Option<String> {
        let before = self.0.get(&value).map(|first| {
            let origin = raw.get(first).map(|(_, origin)| origin.clone());
            let origin = origin.unwrap_or_else(|| raw.table_origin(first));
            match origin {
                Origin::Default => first.to_string(),
                origin => format!("{first} ({origin})"),
            }
        });
        if before.is_none() {
            self.0.insert(value, path.clone());
        }
        before
    }
}
