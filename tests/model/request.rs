//! The requests of a run, as clients send them; drawn from its seed.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use gsdk2mqtt::config::MqttVersion;
use gsdk2mqtt::simulator::{DialMode, SiteDevice};
use rumqttc_v5::mqttbytes::v5::{Publish, PublishProperties};
use serde_json::{Value, json};

use crate::mqtt::outgoing;
use crate::schedule::Site;
use crate::world::name_of;

/// What the configuration permits: not `disconnect_all`, `search` and others.
pub(crate) const ALLOWED: &str = r#"["devices", "pending", "accept_filter/*", "slaves/get",
    "history", "republish", "connect", "disconnect", "async/*", "mode/set", "ssl/*"]"#;
/// The rate limit of a gateway in a second; also the burst.
pub(crate) const RATE: usize = 5;
/// `commands.max_payload`.
pub(crate) const PAYLOAD_MAX: &str = "1KiB";

/// The owner of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    Bridge,
    Gateway(usize),
}

impl Owner {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Bridge => "bridge".to_owned(),
            Self::Gateway(at) => name_of(at),
        }
    }
}

/// The expected answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// It may run.
    Runs,
    /// It never runs; the code of its response, unless the rate is exceeded.
    Refused(&'static str),
    /// It is no request.
    Ignored,
}

/// A request. The sends of one, and only they, have its number.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) owner: Owner,
    pub(crate) command: &'static str,
    /// An object.
    pub(crate) fields: Value,
    /// Sent in place of the fields.
    pub(crate) raw: Option<&'static str>,
    /// Whether its answer has its transaction.
    pub(crate) is_echoed: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) retain: bool,
    pub(crate) answer_on: Option<&'static str>,
    pub(crate) expect: Expect,
}

impl Request {
    fn new(number: u64, owner: Owner, command: &'static str, fields: &Value) -> Self {
        let mut fields = fields.clone();
        fields["transaction"] = transaction(number);
        Self {
            number,
            owner,
            command,
            fields,
            raw: None,
            is_echoed: true,
            timeout: None,
            expires_in: None,
            retain: false,
            answer_on: None,
            expect: Expect::Runs,
        }
    }

    pub(crate) fn transaction(&self) -> Option<Value> {
        self.is_echoed.then(|| transaction(self.number))
    }

    pub(crate) fn payload(&self) -> String {
        self.raw.map_or_else(|| self.fields.to_string(), str::to_owned)
    }

    /// The bridge's own topic for its answer.
    pub(crate) fn own_topic(&self) -> String {
        format!("gsdk/{}/response/{}", self.owner.name(), self.command)
    }

    /// Where its answer is expected.
    pub(crate) fn answer_topic(&self, protocol: MqttVersion) -> String {
        let wanted = self.answer_on.filter(|topic| topic.starts_with("gsdk-reply/"));
        let wanted = wanted.filter(|_| protocol == MqttVersion::V5);
        wanted.map_or_else(|| self.own_topic(), str::to_owned)
    }

    /// The message, with this correlation data.
    pub(crate) fn message(&self, correlation: String) -> Publish {
        let topic = format!("gsdk/{}/request/{}", self.owner.name(), self.command);
        let properties = PublishProperties {
            message_expiry_interval: self
                .expires_in
                .and_then(|span| u32::try_from(span.as_secs()).ok()),
            response_topic: self.answer_on.map(str::to_owned),
            correlation_data: Some(correlation.into()),
            ..PublishProperties::default()
        };
        let publish = outgoing(&topic, self.payload().into(), self.retain);
        Publish { properties: Some(properties), ..publish }
    }

    /// The message that clears this request, which is retained.
    pub(crate) fn clearing(&self) -> Publish {
        Publish { payload: Bytes::new(), properties: None, ..self.message(String::new()) }
    }

    /// The devices that it names.
    pub(crate) fn device_ids(&self) -> Vec<u64> {
        let ids = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut named = ids(&self.fields["device_ids"]);
        named.extend(ids(&self.fields["devices"]).iter().map(|one| one["device_id"].clone()));
        named.iter().filter_map(Value::as_u64).collect()
    }

    /// Whether it changes something.
    pub(crate) fn changes(&self) -> bool {
        !["devices", "pending", "accept_filter/get", "slaves/get", "history", "republish"]
            .contains(&self.command)
    }

    /// Whether it is a change with steps.
    pub(crate) fn has_steps(&self) -> bool {
        self.fields.get("apply") != Some(&Value::Bool(false))
            && (self.command == "mode/set" || self.command.starts_with("ssl/"))
    }
}

fn transaction(number: u64) -> Value {
    if number.is_multiple_of(2) { json!(number) } else { json!(format!("t{number}")) }
}

/// Draws requests.
pub(crate) struct Requests<'a> {
    pub(crate) protocol: MqttVersion,
    pub(crate) sites: &'a [Site],
    pub(crate) next: u64,
}

impl Requests<'_> {
    fn make(
        &mut self,
        rng: &mut Rng,
        owner: Owner,
        command: &'static str,
        fields: &Value,
    ) -> Request {
        self.next += 1;
        let answer_on = rng.choice([None, Some("gsdk-reply/one"), Some("gsdk-reply/two/a")]);
        let request = Request::new(self.next, owner, command, fields);
        Request { answer_on: answer_on.flatten(), ..request }
    }

    /// A request without change.
    pub(crate) fn read(&mut self, rng: &mut Rng) -> Request {
        let gateway = Owner::Gateway(rng.usize(..self.sites.len()));
        let none = json!({});
        match rng.u32(..10) {
            0..3 => self.make(rng, gateway, "devices", &none),
            3 => self.make(rng, gateway, "pending", &none),
            4 => self.make(rng, gateway, "accept_filter/get", &none),
            5 => self.make(rng, Owner::Bridge, "republish", &none),
            _ => {
                let owner = if rng.bool() { Owner::Bridge } else { gateway };
                let limit = rng.choice([1, 7, 1_000]).unwrap();
                self.make(rng, owner, "history", &json!({ "limit": limit }))
            }
        }
    }

    /// A change of one or two calls.
    pub(crate) fn change(&mut self, rng: &mut Rng) -> Request {
        let gateway = rng.usize(..self.sites.len());
        let owner = Owner::Gateway(gateway);
        let (devices, ids) = some_devices(&self.sites[gateway], rng);
        let target = |device: &SiteDevice| {
            let SiteDevice { id, ip, ssl, .. } = device;
            json!({ "device_id": id, "ip": ip, "ssl": ssl })
        };
        let site = &self.sites[gateway];
        let is_declared_as =
            |mode| devices.iter().any(|device| device.mode == mode && site.is_declared(device.id));
        let mut request = match rng.u32(..10) {
            0 => {
                let SiteDevice { ip, ssl, .. } = &devices[0];
                self.make(rng, owner, "connect", &json!({ "ip": ip, "ssl": ssl }))
            }
            1 | 2 => self.make(rng, owner, "disconnect", &json!({ "device_ids": ids })),
            3 | 4 => {
                let is_accepted = is_declared_as(DialMode::DeviceToServer);
                let devices: Vec<Value> = devices.iter().map(target).collect();
                let request = self.make(rng, owner, "async/add", &json!({ "devices": devices }));
                if is_accepted { refused(request, "invalid_request") } else { request }
            }
            5 => {
                let is_declared = is_declared_as(DialMode::ServerToDevice);
                let request = self.make(rng, owner, "async/remove", &json!({ "device_ids": ids }));
                if is_declared { refused(request, "invalid_request") } else { request }
            }
            6 => self.make(rng, owner, "accept_filter/add", &json!({ "device_ids": ids })),
            7 => self.make(rng, owner, "accept_filter/remove", &json!({ "device_ids": ids })),
            8 => {
                let fields = json!({ "allow_all": rng.bool(), "device_ids": ids });
                self.make(rng, owner, "accept_filter/set", &fields)
            }
            _ => {
                let fields = json!({ "enabled": rng.bool() });
                self.make(rng, owner, "accept_filter/allow_all", &fields)
            }
        };
        if rng.u32(..3) == 0 {
            let timeout_s = rng.choice([1, 3, 20]).unwrap();
            limit(&mut request, timeout_s);
        }
        request
    }

    /// A change of mode or SSL, mostly with all its steps.
    pub(crate) fn steps(&mut self, rng: &mut Rng) -> Request {
        let gateway = rng.usize(..self.sites.len());
        let site = &self.sites[gateway];
        let (_, mut ids) = some_devices(site, rng);
        if rng.u32(..8) > 0 && site.devices.len() > 1 {
            ids.retain(|id| !site.is_declared(*id));
        }
        if ids.is_empty() {
            ids.push(site.devices[rng.usize(..site.devices.len().min(3))].id);
        }
        let is_declared = ids.iter().any(|id| site.is_declared(*id));
        let (command, mut fields) = match rng.u32(..4) {
            0 => ("ssl/enable", json!({ "device_ids": ids })),
            1 => ("ssl/disable", json!({ "device_ids": ids })),
            mode => {
                let mode = ["device_to_server", "server_to_device"][mode as usize - 2];
                ("mode/set", json!({ "device_ids": ids, "mode": mode }))
            }
        };
        if rng.u32(..5) == 0 {
            fields["apply"] = json!(false);
        }
        let mut request = self.make(rng, Owner::Gateway(gateway), command, &fields);
        limit(&mut request, rng.choice([5, 20, 60]).unwrap());
        if is_declared { refused(request, "invalid_request") } else { request }
    }

    /// A request that is always refused.
    pub(crate) fn bad(&mut self, rng: &mut Rng) -> Request {
        let gateway = Owner::Gateway(rng.usize(..self.sites.len()));
        let many: Vec<u32> = (1_000_000..1_000_200).collect();
        let (owner, command, fields, code) = match rng.u32(..12) {
            0 => (gateway, "devices", json!({ "colour": 1 }), "invalid_request"),
            1 => (gateway, "frobnicate", json!({}), "unknown_command"),
            2 => (Owner::Bridge, "devices", json!({}), "unknown_command"),
            3 => (gateway, "disconnect_all", json!({}), "not_permitted"),
            4 => {
                (gateway, "slaves/set", json!({ "slaves": [{ "device_id": 1 }] }), "not_permitted")
            }
            5 => (gateway, "disconnect", json!({}), "invalid_request"),
            6 => (gateway, "accept_filter/set", json!({ "ips": ["10.0.0.1"] }), "invalid_request"),
            7 => (
                gateway,
                "mode/set",
                json!({ "device_ids": [1], "mode": "sideways" }),
                "invalid_request",
            ),
            8 => (gateway, "history", json!({ "limit": 0 }), "invalid_request"),
            9 => (gateway, "accept_filter/add", json!({ "device_ids": many }), "too_large"),
            10 => (gateway, "devices", json!({}), "invalid_request"),
            _ => return self.odd(rng, gateway),
        };
        let mut request = refused(self.make(rng, owner, command, &fields), code);
        request.is_echoed = code != "too_large";
        if (command, code) == ("devices", "invalid_request") && fields == json!({}) {
            (request.raw, request.is_echoed) = (Some("{"), false);
        }
        request
    }

    /// An empty payload, or a forbidden response topic: with MQTT 3.1.1 the first is
    /// no request, and there is no second.
    fn odd(&mut self, rng: &mut Rng, gateway: Owner) -> Request {
        let is_empty = rng.bool();
        let mut request = self.make(rng, gateway, "pending", &json!({}));
        match (is_empty, self.protocol) {
            (true, protocol) => {
                (request.raw, request.is_echoed) = (Some(""), false);
                if protocol == MqttVersion::V311 {
                    request.expect = Expect::Ignored;
                }
            }
            (false, MqttVersion::V5) => {
                request.answer_on = Some("gsdk/bridge/state");
                request = refused(request, "invalid_request");
            }
            (false, MqttVersion::V311) => {}
        }
        request
    }
}

fn refused(request: Request, code: &'static str) -> Request {
    Request { expect: Expect::Refused(code), ..request }
}

fn limit(request: &mut Request, timeout_s: u64) {
    request.fields["timeout_s"] = json!(timeout_s);
    request.timeout = Some(Duration::from_secs(timeout_s));
}

fn some_devices(site: &Site, rng: &mut Rng) -> (Vec<SiteDevice>, Vec<u32>) {
    let count = rng.usize(1..=site.devices.len().min(3));
    let mut devices = site.devices.clone();
    rng.shuffle(&mut devices);
    devices.truncate(count);
    let ids = devices.iter().map(|device| device.id).collect();
    (devices, ids)
}
