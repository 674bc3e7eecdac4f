//! The entities of the bridge, of a gateway, of a device.

use serde_json::{Map, Value, json};

use super::{BridgeTopics, Controls, DeviceTopics, GatewayTopics};
use crate::fleet::{EventType, Status};
use crate::ids::DeviceId;

/// Events older than this fire no automation: they come from a backlog (contract, section 6).
const EVENT_AGE_MAX_S: u32 = 300;

/// Components by their keys. These never change: Home Assistant knows the components by them.
type Components = Map<String, Value>;

pub(crate) fn of_bridge(id: &str, topics: &BridgeTopics, controls: Controls) -> Components {
    let mut components = Components::new();
    let available = json!([{ "topic": topics.state }]);
    // Without availability: a bridge that is away is what it tells.
    let mut connection = connection(&topics.state, "online", "offline");
    connection["entity_category"] = Value::from("diagnostic");
    add(&mut components, id, "connection", "binary_sensor", connection);
    let waiting = json!({
        "name": "Waiting events",
        "state_topic": topics.info,
        "value_template": field("outbox.pending"),
        "state_class": "measurement",
        "entity_category": "diagnostic",
        "icon": "mdi:tray-full",
        "availability": available,
    });
    add(&mut components, id, "waiting_events", "sensor", waiting);
    let republish = json!({
        "name": "Publish again",
        "command_topic": topics.republish,
        "payload_press": "{}",
        "qos": 1,
        "entity_category": "config",
        "icon": "mdi:refresh",
        "availability": available,
    });
    control(&mut components, id, "republish", "button", republish, controls.republish);
    components
}

pub(crate) fn of_gateway(id: &str, topics: &GatewayTopics, controls: Controls) -> Components {
    let mut components = Components::new();
    // What is said of its devices holds only while its view is live.
    let live = json!([{ "topic": topics.bridge_state }, { "topic": topics.state }]);
    let connection = connection(&topics.state, "online", "offline");
    add(&mut components, id, "connection", "binary_sensor", connection);
    for (key, name, path, icon) in [
        ("devices", "Devices", "devices", "mdi:door"),
        ("connected_devices", "Connected devices", "connected", "mdi:lan-connect"),
    ] {
        let count = json!({
            "name": name,
            "state_topic": topics.info,
            "value_template": field(path),
            "state_class": "measurement",
            "icon": icon,
            "availability": live,
            "availability_mode": "all",
        });
        add(&mut components, id, key, "sensor", count);
    }
    let certificate = json!({
        "name": "Certificate expires",
        "state_topic": topics.info,
        "value_template": field("certificate_expires_at"),
        "device_class": "timestamp",
        "entity_category": "diagnostic",
        "icon": "mdi:certificate",
    });
    add(&mut components, id, "certificate_expires", "sensor", certificate);
    let disconnect_all = json!({
        "name": "Disconnect all devices",
        "command_topic": topics.disconnect_all,
        "payload_press": r#"{"requested_by":"Home Assistant"}"#,
        "qos": 1,
        "entity_category": "config",
        "icon": "mdi:lan-disconnect",
        "availability": live,
        "availability_mode": "all",
    });
    let wanted = controls.disconnect_all;
    control(&mut components, id, "disconnect_all", "button", disconnect_all, wanted);
    let allow_all = json!({
        "name": "Accept every device",
        "command_topic": topics.allow_all,
        "payload_on": r#"{"enabled":true,"requested_by":"Home Assistant"}"#,
        "payload_off": r#"{"enabled":false,"requested_by":"Home Assistant"}"#,
        "state_topic": topics.info,
        "value_template": "{{ value_json.accept_filter.allow_all \
                           if value_json is defined and value_json.accept_filter else none }}",
        "state_on": "True",
        "state_off": "False",
        "qos": 1,
        "entity_category": "config",
        "icon": "mdi:lan-pending",
        "availability": live,
        "availability_mode": "all",
    });
    control(&mut components, id, "allow_all", "switch", allow_all, controls.allow_all);
    components
}

pub(crate) fn of_device(
    id: &str,
    device_id: DeviceId,
    topics: &DeviceTopics,
    controls: Controls,
) -> Components {
    let mut components = Components::new();
    let mut connection = connection(&topics.state, "True", "False");
    // `null` is written None, which Home Assistant shows as unknown.
    connection["value_template"] = Value::from(field("connected"));
    add(&mut components, id, "connection", "binary_sensor", connection);
    add(&mut components, id, "event", "event", connection_event(topics));
    let statuses: Vec<String> = Status::KNOWN.iter().map(ToString::to_string).collect();
    let status = json!({
        "name": "Status",
        "state_topic": topics.state,
        // One that this list does not have would be a warning in the log at each change.
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
    add(&mut components, id, "status", "sensor", status);
    let since = json!({
        "name": "Since",
        "state_topic": topics.state,
        "value_template": field("since"),
        "device_class": "timestamp",
        "entity_category": "diagnostic",
        "enabled_by_default": false,
        "icon": "mdi:timer-outline",
    });
    add(&mut components, id, "since", "sensor", since);
    let request = format!(r#"{{"device_id":{device_id},"requested_by":"Home Assistant"}}"#);
    let disconnect = json!({
        "name": "Disconnect",
        "command_topic": topics.disconnect,
        "payload_press": request,
        "qos": 1,
        "entity_category": "config",
        "icon": "mdi:lan-disconnect",
    });
    control(&mut components, id, "disconnect", "button", disconnect, controls.disconnect);
    components
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

/// What happened, for automations: of the types that matter to one, and as it happens.
fn connection_event(topics: &DeviceTopics) -> Value {
    let types = [EventType::Connected, EventType::Disconnected, EventType::Refused];
    let types: Vec<String> = types.iter().map(|event_type| event_type.name().to_owned()).collect();
    let template = format!(
        "{{{{ value if value_json.event_type in {} and \
         as_timestamp(now()) - as_timestamp(value_json.received_at, 0) < {EVENT_AGE_MAX_S} }}}}",
        words(&types)
    );
    json!({
        "name": "Connection event",
        "state_topic": topics.events,
        "value_template": template,
        "event_types": types,
        "qos": 1,
        "icon": "mdi:connection",
    })
}

/// One field of a topic's JSON; nothing where the topic is cleared, which Home Assistant may read
/// before it has removed the entity, and would else call an error.
fn field(path: &str) -> String {
    format!("{{{{ value_json.{path} if value_json is defined else none }}}}")
}

/// A list in a template.
fn words(words: &[String]) -> String {
    format!("['{}']", words.join("', '"))
}

fn add(components: &mut Components, id: &str, key: &str, platform: &str, mut component: Value) {
    component["platform"] = Value::from(platform);
    component["unique_id"] = Value::from(format!("{id}_{key}"));
    components.insert(key.to_owned(), component);
}

/// A component that some configurations do not have.
fn control(
    components: &mut Components,
    id: &str,
    key: &str,
    platform: &str,
    component: Value,
    wanted: bool,
) {
    if wanted {
        add(components, id, key, platform, component);
    } else {
        components.insert(key.to_owned(), json!({ "platform": platform }));
    }
}
