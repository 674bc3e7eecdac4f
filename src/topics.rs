//! The topics (docs/topics.md). Names that become topic levels are valid by their types.

use crate::ids::{DeviceId, GatewayName};
use crate::payload::Subject;

/// The topics of one bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    base: String,
    bridge: String,
}

impl Topics {
    /// For this base topic and bridge name, both as the configuration has checked them.
    pub fn new(base: impl Into<String>, bridge: impl Into<String>) -> Self {
        Self { base: base.into(), bridge: bridge.into() }
    }

    /// The base topic.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `<base>/<bridge>/state`: retained, and the last will.
    pub fn bridge_state(&self) -> String {
        format!("{}/{}/state", self.base, self.bridge)
    }

    /// `<base>/<bridge>/info`: retained.
    pub fn bridge_info(&self) -> String {
        format!("{}/{}/info", self.base, self.bridge)
    }

    /// `<base>/<bridge>/master/<name>/info`: retained.
    pub fn master_info(&self, master: &GatewayName) -> String {
        format!("{}/{}/master/{master}/info", self.base, self.bridge)
    }

    /// The bridge's own topics, which it subscribes to as well.
    pub fn own(&self) -> [String; 2] {
        [self.bridge_state(), self.bridge_info()]
    }

    /// `<base>/<gw>/state`: retained.
    pub fn gateway_state(&self, gateway: &GatewayName) -> String {
        format!("{}/{gateway}/state", self.base)
    }

    /// `<base>/<gw>/info`: retained.
    pub fn gateway_info(&self, gateway: &GatewayName) -> String {
        format!("{}/{gateway}/info", self.base)
    }

    /// `<base>/<gw>/<id>/state`: retained.
    pub fn device_state(&self, gateway: &GatewayName, device_id: DeviceId) -> String {
        [&self.base, gateway.as_str(), &device_id.to_string(), "state"].join("/")
    }

    /// The filter of the infos of all gateways, and of bridges.
    pub fn gateway_infos(&self) -> String {
        format!("{}/+/info", self.base)
    }

    /// The filters of what bridges keep on this base topic, of gateways and devices.
    pub fn retained_filters(&self) -> Vec<String> {
        vec![self.gateway_infos(), format!("{}/+/+/state", self.base)]
    }

    /// The filters of what is retained of this gateway.
    pub fn gateway_filters(&self, gateway: &GatewayName) -> Vec<String> {
        let states = format!("{}/{gateway}/+/state", self.base);
        vec![self.gateway_state(gateway), self.gateway_info(gateway), states]
    }

    /// The gateway or device of a retained topic; `None` for any other topic.
    pub fn owner(&self, topic: &str) -> Option<Subject> {
        let inside = topic.strip_prefix(&self.base)?.strip_prefix('/')?;
        let (gateway, rest) = inside.split_once('/')?;
        let gateway = gateway.parse().ok()?;
        Some(match rest {
            "info" | "state" => Subject::Gateway(gateway),
            _ => Subject::Device(gateway, rest.strip_suffix("/state")?.parse().ok()?),
        })
    }

    /// The filters of the requests to these gateways and to the bridge itself.
    pub fn request_filters<'a>(
        &self,
        gateways: impl IntoIterator<Item = &'a GatewayName>,
    ) -> Vec<String> {
        let gateways = gateways.into_iter().map(|gateway| self.request_filter(gateway));
        gateways.chain([format!("{}/{}/request/#", self.base, self.bridge)]).collect()
    }

    /// The filter of the requests to one gateway.
    pub fn request_filter(&self, gateway: &GatewayName) -> String {
        format!("{}/{gateway}/request/#", self.base)
    }

    /// `<base>/<bridge>/request/<command>`.
    pub fn request_to_bridge(&self, command: &str) -> String {
        format!("{}/{}/request/{command}", self.base, self.bridge)
    }

    /// `<base>/<gw>/request/<command>`.
    pub fn request_to(&self, gateway: &GatewayName, command: &str) -> String {
        format!("{}/{gateway}/request/{command}", self.base)
    }

    /// Owner and command of a request's topic: `<base>/<owner>/request/<command>`.
    pub fn request<'a>(&self, topic: &'a str) -> Option<(&'a str, &'a str)> {
        let inside = topic.strip_prefix(&self.base)?.strip_prefix('/')?;
        let (owner, rest) = inside.split_once('/')?;
        // The filter matches the level above the commands too; a request there names none.
        Some((owner, rest.strip_prefix("request/").or((rest == "request").then_some(""))?))
    }

    /// `<base>/<owner>/response/<command>`: never retained.
    pub fn response(&self, owner: &str, command: &str) -> String {
        format!("{}/{owner}/response/{command}", self.base)
    }

    /// `.../event/<type>` of the bridge, a gateway or a device: never retained.
    pub fn event(&self, subject: &Subject, event_type: &str) -> String {
        let base = &self.base;
        match subject {
            Subject::Bridge => format!("{base}/{}/event/{event_type}", self.bridge),
            Subject::Gateway(gateway) => format!("{base}/{gateway}/event/{event_type}"),
            Subject::Device(gateway, device_id) => {
                [base, gateway.as_str(), &device_id.to_string(), "event", event_type].join("/")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_the_contracts() {
        let topics = Topics::new("site/gsdk", "bridge_2");
        let lobby: GatewayName = "lobby".parse().unwrap();
        let device_id = DeviceId::new(7).unwrap();
        assert_eq!(topics.bridge_state(), "site/gsdk/bridge_2/state");
        assert_eq!(topics.bridge_info(), "site/gsdk/bridge_2/info");
        let master = "site/gsdk/bridge_2/master/lobby/info";
        assert_eq!(topics.master_info(&lobby), master);
        assert_eq!(topics.owner(master), None);
        assert_eq!(topics.gateway_state(&lobby), "site/gsdk/lobby/state");
        assert_eq!(topics.gateway_info(&lobby), "site/gsdk/lobby/info");
        assert_eq!(topics.device_state(&lobby, device_id), "site/gsdk/lobby/7/state");
        let requests = topics.request_filters([&lobby]);
        assert_eq!(requests, ["site/gsdk/lobby/request/#", "site/gsdk/bridge_2/request/#"]);
        assert_eq!(topics.request("site/gsdk/lobby/request/ssl/enable").unwrap().1, "ssl/enable");
        assert_eq!(topics.request("site/gsdk/lobby/request"), Some(("lobby", "")));
        for other in ["site/gsdk/lobby/state", "site/gsdkx/lobby/request/a", "x/lobby/request/a"] {
            assert_eq!(topics.request(other), None);
        }
        let device = Subject::Device(lobby.clone(), device_id);
        assert_eq!(topics.owner("site/gsdk/lobby/7/state"), Some(device));
        assert_eq!(topics.owner("site/gsdk/lobby/info"), Some(Subject::Gateway(lobby.clone())));
        let others = ["lobby/x/state", "lobby/0/state", "bridge_2/info", "lobby/7/8/state"];
        assert!(others.iter().all(|it| topics.owner(&format!("site/gsdk/{it}")).is_none()));
        assert_eq!(topics.response("lobby", "connect"), "site/gsdk/lobby/response/connect");
        let event = |subject| topics.event(&subject, "x");
        assert_eq!(event(Subject::Bridge), "site/gsdk/bridge_2/event/x");
        assert_eq!(event(Subject::Gateway(lobby.clone())), "site/gsdk/lobby/event/x");
        assert_eq!(event(Subject::Device(lobby, device_id)), "site/gsdk/lobby/7/event/x");
    }
}
