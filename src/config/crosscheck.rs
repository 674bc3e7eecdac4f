//! Checks between keys.
//!
//! The checks read the merged tree and not the typed configuration, so that each of them runs
//! whenever its own values are valid.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize as _;

use super::addresses;
use super::error::Origin;
use super::layers::DEFAULT_FILE;
use super::schema::KeyPath;
use super::tree::Tree;
use super::values;
use crate::ids::{DEVICE_PORT, DeviceId, HostPort, nearest};

/// Reports every contradiction, and returns what is odd but permitted.
pub(crate) fn check(tree: &mut Tree<'_>) -> Vec<String> {
    let mqtt = KeyPath::default().child("mqtt");
    check_credentials(tree, &mqtt);
    check_topics(tree, &mqtt);
    check_gateways(tree);
    let mut warnings: Vec<String> = check_web_server(tree).into_iter().collect();
    let tls = tree.read(&mqtt.child("url"), addresses::broker).is_none_or(|url| url.tls);
    let files = ["ca_file", "cert_file", "key_file"];
    let has_alpn = tree.origin(&mqtt.child("alpn")) != Origin::Default;
    if !tls && (has_alpn || files.iter().any(|file| tree.is_set(&mqtt.child(file)))) {
        let warning = "mqtt: certificates or alpn are configured but not used, since mqtt.url \
                       does not begin with mqtts:// or wss://";
        warnings.push(warning.to_owned());
    }
    warnings
}

/// Checks the web server's keys; returns a warning where only this machine can read it.
fn check_web_server(tree: &mut Tree<'_>) -> Option<String> {
    let http = KeyPath::default().child("http");
    let (cert, key) = (http.child("cert_file"), http.child("key_file"));
    check_pairs(tree, [(&cert, &key), (&key, &cert)]);
    let (listen, metrics) = (http.child("listen"), http.child("metrics_listen"));
    let address = tree.read::<SocketAddr>(&listen, addresses::listen)?;
    let second = tree.read(&metrics, addresses::listen);
    if let Some(second) = second.filter(|second| overlap(*second, address)) {
        let text = format!("{second} overlaps {listen}, which is {address}; give it another port");
        tree.wrong(&metrics, text);
    }
    let anonymous = tree.read(&http.child("anonymous_from"), addresses::networks)?;
    let is_local = |network: &ipnet::IpNet| network.addr().is_loopback();
    let is_unreadable = !address.ip().is_loopback()
        && anonymous.iter().all(is_local)
        && !tree.is_set(&http.child("token_file"));
    is_unreadable.then(|| {
        "http.listen: other machines can connect, and get 401; set http.token_file to give them \
         tokens, or name their networks in http.anonymous_from"
            .to_owned()
    })
}

/// Whether the two cannot be listened on at the same time. `[::]` takes the IPv4 addresses too.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |wide: IpAddr, ip: IpAddr| {
        wide == ip || wide.is_unspecified() && (wide.is_ipv6() || ip.is_ipv4())
    };
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let is_same_port = one.port() == other.port() && one.port() != 0;
    is_same_port && (takes(ip, other_ip) || takes(other_ip, ip))
}

/// Reports keys that are set without the key that they need.
fn check_pairs<'k>(
    tree: &mut Tree<'_>,
    pairs: impl IntoIterator<Item = (&'k KeyPath, &'k KeyPath)>,
) {
    for (set, needs) in pairs {
        if tree.is_set(set) && !tree.is_set(needs) {
            tree.wrong(set, format!("is set without {needs}; set both or neither"));
        }
    }
}

fn check_credentials(tree: &mut Tree<'_>, mqtt: &KeyPath) {
    let (password, file) = (mqtt.child("password"), mqtt.child("password_file"));
    if tree.is_set(&password) && tree.is_set(&file) {
        tree.wrong(&password, format!("is set, and so is {file}; keep one of them"));
    }
    let (cert, key, username) =
        (mqtt.child("cert_file"), mqtt.child("key_file"), mqtt.child("username"));
    let pairs = [(&password, &username), (&file, &username), (&cert, &key), (&key, &cert)];
    check_pairs(tree, pairs);
}

/// The topics of the bridge, of Home Assistant and of responses have to differ.
fn check_topics(tree: &mut Tree<'_>, mqtt: &KeyPath) {
    let home = KeyPath::default().child("home_assistant");
    let (base_key, prefix_key) = (mqtt.child("base_topic"), home.child("discovery_prefix"));
    let base = tree.read(&base_key, values::topic);
    let prefix = tree.read(&prefix_key, values::topic);
    check_response_prefix(tree, [base.as_deref(), prefix.as_deref()].into_iter().flatten());
    let enabled = tree.read(&home.child("enabled"), bool::deserialize) == Some(true);
    let (Some(base), true) = (base, enabled) else { return };
    let id_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    if !base.chars().all(id_char) {
        let text = format!(
            "{base:?} cannot be part of Home Assistant's IDs; write only letters, digits, _ and \
             -, or switch home_assistant.enabled off"
        );
        tree.wrong(&base_key, text);
    }
    let Some(prefix) = prefix.filter(|prefix| prefix.split('/').next() == base.split('/').next())
    else {
        return;
    };
    // Reported at the one that was set.
    let (key, value, other) = match tree.origin(&base_key) {
        Origin::Default => (&prefix_key, prefix, &base_key),
        _ => (&base_key, base, &prefix_key),
    };
    tree.wrong(key, format!("{value:?} has the same first level as {other}; choose another"));
}

/// Responses go to a tree apart from all that the bridge publishes or reads: otherwise a request
/// could make the bridge forge its own states and requests.
fn check_response_prefix<'a>(tree: &mut Tree<'_>, reserved: impl Iterator<Item = &'a str>) {
    let key = KeyPath::default().child("commands").child("response_prefix");
    let Some(response) = tree.read(&key, values::response_prefix) else { return };
    if tree.origin(&key) == Origin::Default {
        return;
    }
    for topic in reserved.map(|topic| format!("{topic}/")) {
        if response.starts_with(&topic) || topic.starts_with(&response) {
            let text = format!(
                "{response:?} overlaps the bridge's own topics below {topic:?}; choose another, \
                 as in \"{}-reply/\"",
                topic.trim_end_matches('/')
            );
            tree.wrong(&key, text);
        }
    }
}

fn check_gateways(tree: &mut Tree<'_>) {
    let top = KeyPath::default();
    let (gateways, masters) = (top.child("gateways"), top.child("masters"));
    let (names, master_names) = (tree.names(&gateways), tree.names(&masters));
    // An unknown table explains why there is no gateway.
    if names.is_empty() && master_names.is_empty() && !tree.is_wrong(&top) {
        let text = match tree.has_file() {
            true => "is missing; add a table [gateways.NAME] with address and ca_file, or a table \
                 [masters.NAME]"
                .to_owned(),
            false => format!(
                "is missing, and {DEFAULT_FILE} does not exist; create it with gsdk2mqtt init, or \
                 name another file with --config"
            ),
        };
        tree.wrong(&gateways, text);
    }
    let (mut addresses, mut dialled) = (Unique::default(), Unique::default());
    let mut behind = Unique::default();
    for gateway in names.iter().map(|name| gateways.child(name)) {
        let key = gateway.child("address");
        let address: Option<HostPort> = tree.read(&key, addresses::gateway_address);
        if let Some(first) = address.and_then(|address| addresses.insert(address, &key, tree)) {
            tree.wrong(&key, format!("is also {first}; configure each gateway once"));
        }
        check_reach(tree, &gateway, &master_names, &mut behind);
        check_devices(tree, &gateway.child("devices"), &mut dialled);
    }
    let mut tenants = Unique::default();
    for master in master_names.iter().map(|name| masters.child(name)) {
        let key = master.child("address");
        let address: Option<HostPort> = tree.read(&key, addresses::master_address);
        let certificate = tree.read(&master.child("cert_file"), String::deserialize);
        let tenant = address.zip(certificate);
        if let Some(first) = tenant.and_then(|tenant| tenants.insert(tenant, &key, tree)) {
            let text = format!(
                "is also {first}, with the same cert_file; configure each tenant of a master once"
            );
            tree.wrong(&key, text);
        }
        check_master(tree, &master, &gateways);
    }
}

/// Reports the keys that a table lacks, each with what to set.
fn check_required(tree: &mut Tree<'_>, table: &KeyPath, keys: &[(&str, &str)]) {
    let is_table = !tree.names(table).is_empty();
    for (key, what) in keys.iter().map(|(key, what)| (table.child(key), what)) {
        if is_table && !tree.is_set(&key) {
            tree.wrong(&key, format!("is missing; set {what}"));
        }
    }
}

/// A gateway has either an address or a master.
fn check_reach(
    tree: &mut Tree<'_>,
    gateway: &KeyPath,
    masters: &[String],
    behind: &mut Unique<(String, String)>,
) {
    let (master, id) = (gateway.child("master"), gateway.child("gateway_id"));
    if !tree.is_set(&master) {
        if tree.is_set(&id) {
            tree.wrong(&id, format!("is set without {master}; set both or neither"));
            return;
        }
        let keys = [
            ("address", "the gateway's host:port, or master and gateway_id"),
            ("ca_file", "the ca.crt that the gateway made when it was installed"),
        ];
        check_required(tree, gateway, &keys);
        return;
    }
    for key in ["address", "ca_file", "server_name", "queue_size"] {
        let key = gateway.child(key);
        if tree.is_set(&key) && tree.origin(&key) != Origin::Default {
            let text = format!("is set, and so is {master}, which has its own; remove one of them");
            tree.wrong(&key, text);
        }
    }
    let text = |key: &KeyPath, tree: &Tree<'_>| tree.read(key, String::deserialize);
    let (name, gateway_id) = (text(&master, tree), text(&id, tree));
    if !tree.is_set(&id) {
        tree.wrong(&id, "is missing; set the gateway's ID at the master");
    }
    let Some(name) = name else { return };
    if !masters.contains(&name) {
        let remedy = match nearest(&name, masters) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("add a table [masters.{name}]"),
        };
        tree.wrong(&master, format!("{name:?} is no master of this configuration; {remedy}"));
    }
    let first = gateway_id.and_then(|gateway_id| behind.insert((name, gateway_id), &id, tree));
    if let Some(first) = first {
        tree.wrong(&id, format!("is also {first}; configure each gateway once"));
    }
}

/// Masters and gateways share their names, and a master has gateways.
fn check_master(tree: &mut Tree<'_>, master: &KeyPath, gateways: &KeyPath) {
    let keys = [
        ("address", "the master gateway's host:port"),
        ("ca_file", "the ca.crt of the master gateway"),
        ("cert_file", "the certificate of the tenant"),
        ("key_file", "the private key of the tenant's certificate"),
    ];
    check_required(tree, master, &keys);
    let Some(name) = master.0.last() else { return };
    let gateway = gateways.child(name);
    if tree.is_set(&gateway) {
        let text = format!("is also the name of {gateway}; give one of them another name");
        tree.wrong(master, text);
    }
    let discover = master.child("discover");
    let discovers = tree.read(&discover, bool::deserialize);
    let is_named = |gateway: &String| {
        let of = gateways.child(gateway).child("master");
        tree.read(&of, String::deserialize).as_ref() == Some(name)
    };
    if discovers == Some(false) && !tree.names(gateways).iter().any(is_named) {
        let text = format!(
            "is false, and no gateway names this master; remove it, or add a table \
             [gateways.NAME] with master = {name:?} and gateway_id"
        );
        tree.wrong(&discover, text);
    }
}

/// The keys of a device's connection belong together, a device answers one gateway only, and an
/// address is that of one device.
fn check_devices(tree: &mut Tree<'_>, devices: &KeyPath, dialled: &mut Unique<DeviceId>) {
    let (mut ids, mut addresses) = (Unique::default(), Unique::default());
    for name in tree.names(devices) {
        let device = devices.child(&name);
        let id = name.parse::<DeviceId>().ok();
        if let Some(first) = id.and_then(|id| ids.insert(id, &device, tree)) {
            tree.wrong(&device, format!("is the same device as {first}; keep one of them"));
        }
        let (connect, ip) = (device.child("connect"), device.child("ip"));
        let Some(mode) = tree.read(&connect, String::deserialize) else {
            continue;
        };
        if !mode.eq_ignore_ascii_case("async") {
            if tree.is_wrong(&device) {
                continue;
            }
            for unused in ["ip", "port", "ssl"].map(|name| device.child(name)) {
                if tree.is_set(&unused) {
                    let text = "is only used with connect = \"async\"; write that, or remove it";
                    tree.wrong(&unused, text);
                }
            }
            continue;
        }
        if !tree.is_set(&ip) {
            tree.wrong(&ip, "is missing; connect = \"async\" needs the device's IPv4 address");
        }
        if let Some(first) = id.and_then(|id| dialled.insert(id, &connect, tree)) {
            let text = format!("is \"async\", and so is {first}; only one gateway can dial it");
            tree.wrong(&connect, text);
        }
        let port = tree.read(&device.child("port"), u16::deserialize);
        let address = tree.read(&ip, addresses::device_ip).flatten();
        let address = address.map(|ip| (ip, port.unwrap_or(DEVICE_PORT)));
        if let Some(first) = address.and_then(|address| addresses.insert(address, &ip, tree)) {
            tree.wrong(&ip, format!("is also the address of {first}; give each device its own"));
        }
    }
}

/// Values that may occur once, with the key that has them.
struct Unique<V>(BTreeMap<V, KeyPath>);

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V: Ord> Unique<V> {
    /// Adds a value; if it was there already, the key that has it, with its place.
    fn insert(&mut self, value: V, key: &KeyPath, tree: &Tree<'_>) -> Option<String> {
        if let Some(first) = self.0.get(&value) {
            return Some(match tree.origin(first) {
                Origin::Default => first.to_string(),
                origin => format!("{first} ({origin})"),
            });
        }
        self.0.insert(value, key.clone());
        None
    }
}
