//! From the configuration as typed to the one as meant: every key read, every mistake noted.
//!
//! May not stop at the first mistake, and never touches the disk but for the one secret's file,
//! through the function it is given.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use figment::value::Value;
use jiff::tz::TimeZone;
use secrecy::SecretString;

use super::checked::{
    Allow, Commands, Config, Credentials, DeviceSeries, History, HomeAssistant, Http, Identity,
    Metrics, Mqtt, Outbox, Password, Protocol, Sync,
};
use super::error::{Mistake, Origin};
use super::layers::KeyPath;
use super::{COMMANDS, OWN_COMMANDS, keys, read_gateways, values};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// The most bytes that a request may be permitted to have: ten times what its most devices take,
/// and half of what a session takes from the broker, so that a larger one can be answered.
const MAX_PAYLOAD_MOST: u64 = 1 << 20;

/// What reads, and what it found wrong on the way.
pub(super) struct Reader<'a> {
    pub(super) raw: &'a super::layers::Raw,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
}

impl Reader<'_> {
    /// Notes a mistake about a key, where that key was set.
    pub(super) fn wrong(&mut self, path: &KeyPath, text: impl Into<String>) {
        let set = self.raw.get(path).map(|(_, origin)| origin.clone());
        let origin = set.unwrap_or_else(|| {
            let table = path.0.split_last().map_or(Vec::new(), |(_, table)| table.to_vec());
            if table.is_empty() { Origin::Default } else { self.raw.table_origin(&KeyPath(table)) }
        });
        self.mistakes.push(Mistake { origin, key: path.to_string(), text: text.into() });
    }

    /// Notes that a key must be given.
    pub(super) fn missing(&mut self, path: &KeyPath, remedy: &str) {
        self.wrong(path, format!("is missing; {remedy}"));
    }

    pub(super) fn is_set(&self, path: &KeyPath) -> bool {
        self.raw.get(path).is_some()
    }

    fn is_default(&self, path: &KeyPath) -> bool {
        self.raw.get(path).is_none_or(|(_, origin)| *origin == Origin::Default)
    }

    pub(super) fn text(&self, path: &KeyPath) -> Option<String> {
        self.raw.get(path).and_then(|(value, _)| value.as_str()).map(str::to_owned)
    }

    pub(super) fn truth(&self, path: &KeyPath) -> Option<bool> {
        self.raw.get(path).and_then(|(value, _)| value.to_bool())
    }

    pub(super) fn number(&self, path: &KeyPath) -> Option<i128> {
        self.raw.get(path).and_then(|(value, _)| value.to_i128())
    }

    fn texts(&self, path: &KeyPath) -> Vec<String> {
        let items = self.raw.get(path).and_then(|(value, _)| value.as_array());
        let texts = items.into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    }

    /// The key's text as something else; `None` if it is absent or was wrong.
    pub(super) fn parse<T>(
        &mut self,
        path: &KeyPath,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.text(path)?;
        parse(&text).map_err(|refusal| self.wrong(path, refusal)).ok()
    }

    /// The key's whole number, within limits.
    pub(super) fn within(&mut self, path: &KeyPath, least: i128, most: i128) -> Option<i128> {
        let number = self.number(path)?;
        if (least..=most).contains(&number) {
            return Some(number);
        }
        self.wrong(path, format!("{number} is out of range; choose from {least} to {most}"));
        None
    }

    pub(super) fn file(&mut self, path: &KeyPath) -> Option<PathBuf> {
        self.parse(path, values::plain).map(PathBuf::from)
    }
}

/// Reads everything; `None` only with at least one mistake noted.
pub(super) fn config(reader: &mut Reader<'_>) -> Option<Config> {
    let top = |name: &str| KeyPath::of(&[name]);
    let state_dir = reader.file(&top("state_dir"));
    let bridge_name = reader.parse(&top("bridge_name"), bridge_name);
    let forget_after = reader
        .parse(&top("forget_after"), |text| values::duration_or_never(text, SECOND, 3650 * DAY));
    let time_zone = time_zone(reader, &top("time_zone"));
    let mqtt = mqtt(reader, bridge_name.as_deref());
    let http = http(reader);
    let home_assistant = home_assistant(reader);
    let ours = [
        mqtt.as_ref().map(|mqtt| mqtt.base_topic.clone()),
        home_assistant.as_ref().map(|home| home.discovery_prefix.clone()),
    ];
    let ours: Vec<String> = ours.into_iter().flatten().collect();
    let commands = commands(reader, &ours);
    apart(reader, mqtt.as_ref(), home_assistant.as_ref());
    let outbox = outbox(reader);
    let history = history(reader);
    let metrics = metrics(reader);
    let gateways = read_gateways::all(reader);
    Some(Config {
        state_dir: state_dir?,
        bridge_name: bridge_name?,
        forget_after: forget_after?,
        time_zone: time_zone?,
        mqtt: mqtt?,
        http: http?,
        commands: commands?,
        home_assistant: home_assistant?,
        outbox: outbox?,
        history: history?,
        metrics: metrics?,
        gateways,
    })
}

/// The configured time zone, else the machine's, else UTC.
fn time_zone(reader: &mut Reader<'_>, path: &KeyPath) -> Option<TimeZone> {
    if reader.is_set(path) {
        return reader.parse(path, values::time_zone);
    }
    Some(TimeZone::try_system().unwrap_or(TimeZone::UTC))
}

/// `bridge` or `bridge_<x>`: told from a gateway's name in every topic.
pub(super) fn bridge_name(text: &str) -> Result<String, String> {
    let own = text == "bridge" || text.starts_with("bridge_");
    if own && crate::ids::is_snake_word(text) && text.len() <= crate::ids::GATEWAY_NAME_LEN_MAX {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a bridge's name; write \"bridge\", or as in \"bridge_east\""))
}

fn mqtt(reader: &mut Reader<'_>, bridge_name: Option<&str>) -> Option<Mqtt> {
    let at = |name: &str| KeyPath::of(&["mqtt", name]);
    let broker = reader.parse(&at("url"), values::broker);
    let credentials = credentials(reader);
    let ca_file = reader.file(&at("ca_file"));
    let identity = identity(reader);
    let base_topic = reader.parse(&at("base_topic"), values::topic);
    let protocol = reader.parse(&at("protocol"), |text| {
        values::word(text, &[("5", Protocol::V5), ("3.1.1", Protocol::V311)])
    });
    let client_id = if reader.is_set(&at("client_id")) {
        reader.parse(&at("client_id"), values::plain)
    } else {
        // A `/` would make mosquitto refuse every ACL that has a pattern.
        let base = base_topic.as_deref().map(|base| base.replace('/', "_"));
        base.zip(bridge_name).map(|(base, bridge)| format!("gsdk2mqtt_{base}_{bridge}"))
    };
    let max_answer = reader.parse(&at("max_answer"), |text| values::size(text, 1 << 10, 256 << 20));
    let republish_interval = reader.parse(&at("republish_interval"), |text| {
        values::duration_or_never(text, 10 * SECOND, 30 * DAY)
    });
    if broker.as_ref().is_some_and(|broker| !broker.tls)
        && (ca_file.is_some() || identity.is_some())
    {
        let warning = "mqtt: certificates are configured but not used, since mqtt.url does not \
                       begin mqtts://";
        reader.warnings.push(warning.to_owned());
    }
    Some(Mqtt {
        broker: broker?,
        credentials: credentials?,
        ca_file,
        identity,
        base_topic: base_topic?,
        protocol: protocol?,
        client_id: client_id?,
        max_answer_bytes: usize::try_from(max_answer?).ok()?,
        republish_interval: republish_interval?,
    })
}

/// User name and password; the outer `None` is a mistake.
#[expect(clippy::option_option, reason = "wrong, absent and present are three different things")]
fn credentials(reader: &mut Reader<'_>) -> Option<Option<Credentials>> {
    let at = |name: &str| KeyPath::of(&["mqtt", name]);
    let before = reader.mistakes.len();
    let username = reader.parse(&at("username"), values::plain);
    let password = password(reader, &at("password"), &at("password_file"));
    let has_username = reader.is_set(&at("username"));
    for key in [at("password"), at("password_file")] {
        if reader.is_set(&key) && !has_username {
            reader.wrong(&key, "is set without mqtt.username; set that too");
        }
    }
    if reader.mistakes.len() > before {
        return None;
    }
    Some(username.map(|username| Credentials { username, password }))
}

/// A password, given itself or in a file, which is read at each connection.
fn password(reader: &mut Reader<'_>, direct: &KeyPath, file: &KeyPath) -> Option<Password> {
    if reader.is_set(direct) && reader.is_set(file) {
        reader.wrong(direct, format!("is set, and so is {file}; keep one of them"));
        return None;
    }
    if reader.is_set(file) {
        return reader.file(file).map(Password::File);
    }
    // The refusals of `plain` do not quote the text.
    let text = reader.parse(direct, values::plain)?;
    Some(Password::Value(SecretString::from(text)))
}

fn identity(reader: &mut Reader<'_>) -> Option<Identity> {
    let (cert, key) = (KeyPath::of(&["mqtt", "cert_file"]), KeyPath::of(&["mqtt", "key_file"]));
    for (one, other) in [(&cert, &key), (&key, &cert)] {
        if reader.is_set(one) && !reader.is_set(other) {
            reader.wrong(one, format!("is set without {other}; set both or neither"));
        }
    }
    let (cert_file, key_file) = (reader.file(&cert), reader.file(&key));
    Some(Identity { cert_file: cert_file?, key_file: key_file? })
}

fn http(reader: &mut Reader<'_>) -> Option<Http> {
    let listen = reader.parse(&KeyPath::of(&["http", "listen"]), values::listen);
    let path = KeyPath::of(&["http", "hosts"]);
    let mut hosts = std::collections::BTreeSet::new();
    for host in reader.texts(&path) {
        match values::host_name(&host) {
            Ok(host) => _ = hosts.insert(host),
            Err(refusal) => reader.wrong(&path, refusal),
        }
    }
    Some(Http { listen: listen?, hosts })
}

fn commands(reader: &mut Reader<'_>, ours: &[String]) -> Option<Commands> {
    let at = |name: &str| KeyPath::of(&["commands", name]);
    let allow_path = at("allow");
    let mut allow = std::collections::BTreeSet::new();
    for pattern in reader.texts(&allow_path) {
        match command_pattern(&pattern) {
            Ok(()) => _ = allow.insert(pattern),
            Err(refusal) => reader.wrong(&allow_path, refusal),
        }
    }
    let max_payload =
        reader.parse(&at("max_payload"), |text| values::size(text, 1 << 10, MAX_PAYLOAD_MOST));
    let rate = reader.parse(&at("rate"), values::rate);
    let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
    let prefix_path = at("response_prefix");
    let response_prefix = if reader.is_set(&prefix_path) {
        reader.parse(&prefix_path, |text| values::response_prefix(text, &ours))
    } else {
        // Without a base topic there is a mistake already, so that this value is never used.
        Some(format!("{}-reply/", ours.first().copied().unwrap_or_default()))
    };
    Some(Commands {
        allow: Allow(allow),
        max_payload_bytes: usize::try_from(max_payload?).ok()?,
        rate: rate?,
        response_prefix: response_prefix?,
    })
}

/// Whether a text names a command, a group of them (`slaves/*`) or all (`*`).
fn command_pattern(pattern: &str) -> Result<(), String> {
    let names = || COMMANDS.iter().chain(&OWN_COMMANDS).map(|(name, _)| *name);
    let known = match pattern.strip_suffix("/*") {
        Some(group) => names().any(|name| name.split_once('/').is_some_and(|(g, _)| g == group)),
        None => pattern == "*" || names().any(|name| name == pattern),
    };
    if known {
        return Ok(());
    }
    let remedy = keys::nearest(pattern, names()).map_or_else(
        || format!("the commands are {}", names().collect::<Vec<_>>().join(", ")),
        |near| format!("did you mean {near:?}?"),
    );
    Err(format!("{pattern:?} is not a command; {remedy}"))
}

fn home_assistant(reader: &mut Reader<'_>) -> Option<HomeAssistant> {
    let at = |name: &str| KeyPath::of(&["home_assistant", name]);
    let enabled = reader.truth(&at("enabled"));
    let discovery_prefix = reader.parse(&at("discovery_prefix"), values::topic);
    let status_topic = reader.parse(&at("status_topic"), values::topic);
    let controls = reader.truth(&at("controls"));
    Some(HomeAssistant {
        enabled: enabled?,
        discovery_prefix: discovery_prefix?,
        status_topic: status_topic?,
        controls: controls?,
    })
}

/// What holds between the topics of the bridge and those of Home Assistant.
fn apart(reader: &mut Reader<'_>, mqtt: Option<&Mqtt>, home: Option<&HomeAssistant>) {
    let (Some(mqtt), Some(home)) = (mqtt, home) else { return };
    if !home.enabled {
        return;
    }
    let base = KeyPath::of(&["mqtt", "base_topic"]);
    let id_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    if !mqtt.base_topic.chars().all(id_char) {
        let text = format!(
            "{:?} cannot be part of Home Assistant's IDs; write only letters, digits, _ and -, \
             or switch home_assistant.enabled off",
            mqtt.base_topic
        );
        reader.wrong(&base, text);
    }
    if mqtt.base_topic.split('/').next() == home.discovery_prefix.split('/').next() {
        let prefix = KeyPath::of(&["home_assistant", "discovery_prefix"]);
        // The one that somebody set is the one to change.
        let (key, value, other, instead) = if reader.is_default(&base) {
            (prefix, &home.discovery_prefix, "mqtt.base_topic", "homeassistant")
        } else {
            let instead = if mqtt.base_topic.starts_with("gsdk") { "site" } else { "gsdk" };
            (base, &mqtt.base_topic, "home_assistant.discovery_prefix", instead)
        };
        let text = format!(
            "{value:?} shares its first level with {other}; choose another, as in {instead:?}"
        );
        reader.wrong(&key, text);
    }
}

fn outbox(reader: &mut Reader<'_>) -> Option<Outbox> {
    let at = |name: &str| KeyPath::of(&["outbox", name]);
    let max_events = reader.within(&at("max_events"), 1, 1_000_000_000);
    let max_bytes = reader.parse(&at("max_bytes"), |text| values::size(text, 1 << 20, 1 << 40));
    let sync = reader.parse(&at("sync"), |text| {
        values::word(text, &[("interval", Sync::Interval), ("always", Sync::Always)])
    });
    let max_events = max_events.and_then(|count| u64::try_from(count).ok());
    Some(Outbox {
        max_events: max_events.and_then(NonZeroU64::new)?,
        max_bytes: max_bytes?,
        sync: sync?,
    })
}

fn history(reader: &mut Reader<'_>) -> Option<History> {
    let at = |name: &str| KeyPath::of(&["history", name]);
    let keep = reader.parse(&at("keep"), |text| values::duration(text, DAY, 36_500 * DAY));
    let max_bytes = reader.parse(&at("max_bytes"), |text| values::size(text, 1 << 20, 1 << 40));
    Some(History { keep: keep?, max_bytes: max_bytes? })
}

fn metrics(reader: &mut Reader<'_>) -> Option<Metrics> {
    // Builds made before version 2 knew the two that are always served now.
    const GROUPS: [(&str, Option<DeviceSeries>); 4] = [
        ("seconds", Some(DeviceSeries::Seconds)),
        ("counts", Some(DeviceSeries::Counts)),
        ("state", None),
        ("info", None),
    ];
    let path = KeyPath::of(&["metrics", "device"]);
    let mut device = std::collections::BTreeSet::new();
    for group in reader.texts(&path) {
        match values::word(&group, &GROUPS) {
            Ok(group) => device.extend(group),
            Err(refusal) => reader.wrong(&path, refusal),
        }
    }
    Some(Metrics { device })
}
