//! The entities of the bridge, of a gateway, of a device.

use serde_json::{Map, Value, json};

use super::{Controls, Options};
use crate::fleet::{EventType, Status};
use crate::ids::{DeviceId, GatewayName};
use crate::payload::{Directory, Subject};
use crate::topics::Topics;

/// Events older than this fire no automation: they come from a backlog.
const EVENT_AGE_MAX_S: u32 = 300;

/// The platform of the sensors of masters.
const MASTER_PLATFORM: &str = "binary_sensor";

/// Components by their keys. These never change: Home Assistant identifies the components by them.
struct Components<'a> {
    /// The ID of the device that they are of.
    id: &'a str,
    components: Map<String, Value>,
}

impl<'a> Components<'a> {
    fn new(id: &'a str) -> Self {
        Self { id, components: Map::new() }
    }

    fn add(&mut self, key: &str, platform: &str, mut component: Value) {
        component["platform"] = Value::from(platform);
        component["unique_id"] = Value::from(format!("{}_{key}", self.id));
        self.components.insert(key.to_owned(), component);
    }

    /// A component that some configurations do not have: a platform alone removes it.
    fn control(&mut self, is_permitted: bool, key: &str, platform: &str, component: Value) {
        if is_permitted {
            self.add(key, platform, component);
        } else {
            self.remove(key, platform);
        }
    }

    fn remove(&mut self, key: &str, platform: &str) {
        self.components.insert(key.to_owned(), json!({ "platform": platform }));
    }
}

pub(crate) fn of_bridge(
    id: &str,
    directory: &Directory,
    topics: &Topics,
    controls: Controls,
) -> Map<String, Value> {
    let mut components = Components::new(id);
    let (state, info) = (topics.bridge_state(), topics.bridge_info());
    let available = json!([{ "topic": state }]);
    // Without availability: it shows that the bridge is unavailable.
    let mut connection = connection(&state, "online", "offline");
    connection["entity_category"] = Value::from("diagnostic");
    components.add("connection", "binary_sensor", connection);
    let mut waiting = diagnostic("Waiting events", &info, "outbox.pending", "mdi:tray-full");
    waiting["state_class"] = Value::from("measurement");
    waiting["availability"] = available.clone();
    components.add("waiting_events", "sensor", waiting);
    for master in directory.masters.keys() {
        // While the bridge is still connecting, it is not known.
        let state = "value_json is defined and value_json.state != 'connecting'";
        let link = json!({
            "name": format!("Master {master}"),
            "state_topic": topics.master_info(master),
            "value_template": format!("{{{{ value_json.state if {state} else none }}}}"),
            "payload_on": "online",
            "payload_off": "lost",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "availability": available,
        });
        components.add(&master_key(master), MASTER_PLATFORM, link);
    }
    for master in &directory.removed_masters {
        components.remove(&master_key(master), MASTER_PLATFORM);
    }
    let republish = json!({
        "name": "Publish again",
        "command_topic": topics.request_to_bridge("republish"),
        "payload_press": "{}",
        "qos": 1,
        "entity_category": "config",
        "icon": "mdi:refresh",
        "availability": available,
    });
    components.control(controls.republish, "republish", "button", republish);
    components.components
}

fn master_key(master: &GatewayName) -> String {
    format!("master_{master}")
}

pub(crate) fn of_gateway(
    id: &str,
    gateway: &GatewayName,
    topics: &Topics,
    controls: Controls,
) -> Map<String, Value> {
    let mut components = Components::new(id);
    let (state, info) = (topics.gateway_state(gateway), topics.gateway_info(gateway));
    // The counts hold only while the gateway is online.
    let online = json!([{ "topic": topics.bridge_state() }, { "topic": state }]);
    let connection = connection(&state, "online", "offline");
    components.add("connection", "binary_sensor", connection);
    for (key, name, path, icon) in [
        ("devices", "Devices", "devices", "mdi:door"),
        ("connected_devices", "Connected devices", "connected", "mdi:lan-connect"),
    ] {
        let count = json!({
            "name": name,
            "state_topic": info,
            "value_template": field(path),
            "state_class": "measurement",
            "icon": icon,
            "availability": online,
            "availability_mode": "all",
        });
        components.add(key, "sensor", count);
    }
    let mut certificate =
        diagnostic("Certificate expires", &info, "certificate_expires_at", "mdi:certificate");
    certificate["device_class"] = Value::from("timestamp");
    components.add("certificate_expires", "sensor", certificate);
    let disconnect_all = json!({
        "name": "Disconnect all devices",
        "command_topic": topics.request_to(gateway, "disconnect_all"),
        "payload_press": r#"{"requested_by":"Home Assistant"}"#,
        "qos": 1,
        "entity_category": "config",
        "icon": "mdi:lan-disconnect",
        "availability": online,
        "availability_mode": "all",
    });
    components.control(controls.disconnect_all, "disconnect_all", "button", disconnect_all);
    let allow_all = json!({
        "name": "Accept every device",
        "command_topic": topics.request_to(gateway, "accept_filter/allow_all"),
        "payload_on": r#"{"enabled":true,"requested_by":"Home Assistant"}"#,
        "payload_off": r#"{"enabled":false,"requested_by":"Home Assistant"}"#,
        "state_topic": info,
        "value_template": "{{ value_json.accept_filter.allow_all \
                           if value_json is defined and value_json.accept_filter else none }}",
        "state_on": "True",
        "state_off": "False",
        "qos": 1,
        "entity_category": "config",
        "icon": "mdi:lan-pending",
        "availability": online,
        "availability_mode": "all",
    });
    components.control(controls.allow_all, "allow_all", "switch", allow_all);
    components.components
}

pub(crate) fn of_device(
    id: &str,
    gateway: &GatewayName,
    device_id: DeviceId,
    topics: &Topics,
    options: Options,
) -> Map<String, Value> {
    let mut components = Components::new(id);
    let state = topics.device_state(gateway, device_id);
    let events = topics.event(&Subject::Device(gateway.clone(), device_id), "+");
    let mut connection = connection(&state, "True", "False");
    // `null` becomes None, which Home Assistant shows as unknown.
    connection["value_template"] = Value::from(field("connected"));
    components.add("connection", "binary_sensor", connection);
    components.add("event", "event", connection_event(&events));
    let statuses: Vec<String> = Status::KNOWN.iter().map(ToString::to_string).collect();
    let status = json!({
        "name": "Status",
        "state_topic": state,
        // Home Assistant logs a warning for a status that is not in this list.
        "value_template": format!(
            "{{{{ value_json.status if value_json is defined and value_json.status in {} \
             else none }}}}",
            words(&statuses)
        ),
        "device_class": "enum",
        "options": statuses,
        "entity_category": "diagnostic",
        "icon": "mdi:lan",
    });
    components.add("status", "sensor", status);
    let mut since = diagnostic("Since", &state, "since", "mdi:timer-outline");
    since["device_class"] = Value::from("timestamp");
    since["enabled_by_default"] = Value::from(false);
    components.add("since", "sensor", since);
    let mut firmware = diagnostic("Firmware", &state, "firmware", "mdi:chip");
    firmware["enabled_by_default"] = Value::from(false);
    components.control(options.firmware, "firmware", "sensor", firmware);
    let request = format!(r#"{{"device_id":{device_id},"requested_by":"Home Assistant"}}"#);
    let disconnect = json!({
        "name": "Disconnect",
        "command_topic": topics.request_to(gateway, "disconnect"),
        "payload_press": request,
        "qos": 1,
        "entity_category": "config",
        "icon": "mdi:lan-disconnect",
    });
    components.control(options.controls.disconnect, "disconnect", "button", disconnect);
    components.components
}

fn connection(state_topic: &str, on: &str, off: &str) -> Value {
    json!({
        "name": "Connection",
        "state_topic": state_topic,
        "payload_on": on,
        "payload_off": off,
        "device_class": "connectivity",
    })
}

/// A diagnostic sensor of one field of a topic's JSON.
fn diagnostic(name: &str, state_topic: &str, path: &str, icon: &str) -> Value {
    json!({
        "name": name,
        "state_topic": state_topic,
        "value_template": field(path),
        "entity_category": "diagnostic",
        "icon": icon,
    })
}

/// Events for automations: of the types that matter to one, and as they occur.
fn connection_event(topic: &str) -> Value {
    let types = [EventType::Connected, EventType::Disconnected, EventType::Refused];
    let types: Vec<String> = types.iter().map(|event_type| event_type.name().to_owned()).collect();
    let template = format!(
        "{{{{ value if value_json.event_type in {} and \
         as_timestamp(now()) - as_timestamp(value_json.received_at, 0) < {EVENT_AGE_MAX_S} }}}}",
        words(&types)
    );
    json!({
        "name": "Connection event",
        "state_topic": topic,
        "value_template": template,
        "event_types": types,
        "qos": 1,
        "icon": "mdi:connection",
    })
}

/// One field of a topic's JSON; none where the topic is cleared, which Home Assistant may read
/// before it has removed the entity, and would otherwise log as an error.
fn field(path: &str) -> String {
    format!("{{{{ value_json.{path} if value_json is defined else none }}}}")
}

/// A list in a template.
fn words(words: &[String]) -> String {
    format!("['{}']", words.join("', '"))
}
