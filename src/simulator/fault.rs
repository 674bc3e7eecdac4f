//! Faults: each is defined here, in form and effect, for the control API (JSON), for scenario files
//! (TOML) and for tests. docs/simulator.md is the reference.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::gateway::{Millis, SimulatedGateway};
use super::interceptor::Packages;
use super::parameters::{DeviceSelector, GrpcCode, StatusCode, Storm};
use super::site::{self, DialMode, SiteDevice};

/// A fault of the simulation, or its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, strum::VariantNames)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[strum(serialize_all = "snake_case")]
pub enum Fault {
    /// Devices are switched off; the gateway notices by its keep-alive.
    PowerOff {
        #[serde(default)]
        devices: DeviceSelector,
    },
    /// Devices are switched on.
    PowerOn {
        #[serde(default)]
        devices: DeviceSelector,
    },
    /// Connected devices lose their connection at once.
    Drop {
        #[serde(default)]
        devices: DeviceSelector,
    },
    /// Managed devices change their status without a report: only the list shows it.
    Silent {
        #[serde(default)]
        devices: DeviceSelector,
        status: StatusCode,
    },
    /// A status is reported that changes nothing; also of IDs that do not exist.
    Tell {
        #[serde(default)]
        devices: DeviceSelector,
        status: StatusCode,
    },
    /// The status of managed devices is reported again.
    Repeat {
        #[serde(default)]
        devices: DeviceSelector,
    },
    /// The gateway's network to its devices is interrupted or restored.
    DeviceNetwork { up: bool },
    /// The gateway's clock is ahead of the true time (behind, if negative).
    ClockSkew { seconds: i64 },
    /// All devices become managed, as after requests of a client.
    Manage,
    /// A device is added to the first gateway's subnet.
    AddDevice {
        id: u32,
        #[serde(rename = "type", with = "site::kind")]
        #[schemars(with = "String")]
        kind: i32,
        ip: std::net::Ipv4Addr,
        #[serde(default)]
        ssl: bool,
        #[serde(default)]
        mode: DialMode,
    },
    /// Devices are removed from their subnet.
    RemoveDevice { devices: DeviceSelector },
    /// Devices get another firmware, and restart their network.
    Firmware {
        #[serde(default)]
        devices: DeviceSelector,
        version: String,
    },
    /// `AddAsyncConnection` fails as a whole where it names one of these devices, or no longer.
    RefuseRegistration { devices: DeviceSelector, on: bool },
    /// Many status changes.
    Storm(Storm),
    /// The gateway's network to its clients is interrupted or restored: connections become silent
    /// without an end, and new ones are refused.
    ClientNetwork { up: bool },
    /// The gateway is frozen towards its clients, or no longer: it accepts connections and answers
    /// nothing, not even HTTP/2 pings or a TLS handshake.
    Freeze { on: bool },
    /// All clients' connections end with a TCP reset.
    CutConnections,
    /// All status streams end with this code.
    EndStreams {
        #[serde(default)]
        code: GrpcCode,
    },
    /// The gateway restarts and forgets; it is away for so many seconds.
    Restart {
        #[serde(default)]
        down_s: u32,
    },
    /// Calls of a method fail.
    Fail {
        /// The method as in the interface definition; `*` is any.
        method: String,
        #[serde(default)]
        code: GrpcCode,
        message: Option<String>,
        /// The number of calls; without it until `Heal`.
        times: Option<u64>,
    },
    /// Calls no longer fail.
    Heal,
    /// Every call is delayed.
    Latency { ms: u32 },
    /// Every answer is delayed once it is made: a list is old when it arrives.
    LateAnswers { ms: u32 },
    /// Only these package names are served.
    Packages { serve: Packages },
    /// Response headers of streams wait for the first message, or not.
    LazyHeaders { on: bool },
    /// With a master: a device gateway loses its connection to the master, or reconnects.
    GatewayLink {
        gateway: String,
        up: bool,
        /// Whether the device gateway restarts and forgets.
        #[serde(default)]
        forgets: bool,
    },
    /// With a master: the tenant has a device gateway, or has it no longer.
    GatewayListed { gateway: String, listed: bool },
    /// With a master: all tokens become invalid.
    ExpireTokens,
}

impl Fault {
    /// Switches a device on or off.
    pub fn power(devices: impl Into<DeviceSelector>, on: bool) -> Self {
        let devices = devices.into();
        if on { Self::PowerOn { devices } } else { Self::PowerOff { devices } }
    }

    /// Delays every call.
    pub fn latency(delay: Duration) -> Self {
        Self::Latency { ms: u32::try_from(delay.as_millis()).unwrap_or(u32::MAX) }
    }

    /// Calls of a method fail until `Heal`.
    pub fn fail(method: &str, code: tonic::Code, message: &str) -> Self {
        let (method, message) = (method.to_owned(), Some(message.to_owned()));
        Self::Fail { method, code: GrpcCode(code), message, times: None }
    }

    /// Applies a fault of gateways and devices; returns how many it affected. `None` for one of
    /// connections and calls, which `Control` applies.
    pub(crate) fn apply(
        &self,
        gateways: &mut [SimulatedGateway],
        now: Millis,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        Some(match self {
            Self::PowerOff { devices } => devices
                .each(gateways, rng, |gateway, id| gateway.connections_mut().power(now, id, false)),
            Self::PowerOn { devices } => devices
                .each(gateways, rng, |gateway, id| gateway.connections_mut().power(now, id, true)),
            Self::Drop { devices } => devices
                .each(gateways, rng, |gateway, id| gateway.connections_mut().disconnect(now, id)),
            Self::Silent { devices, status } => devices
                .each(gateways, rng, |gateway, id| gateway.change_silently(now, id, status.0)),
            Self::Tell { devices, status } => devices.each(gateways, rng, |gateway, id| {
                gateway.connections_mut().reports_mut().status(now, id, status.0);
                true
            }),
            Self::Repeat { devices } => {
                devices.each(gateways, rng, |gateway, id| gateway.repeat_status(now, id))
            }
            Self::RemoveDevice { devices } => devices.each(gateways, rng, |gateway, id| {
                gateway.connections_mut().remove_device(now, id)
            }),
            Self::Firmware { devices, version } => devices.each(gateways, rng, |gateway, id| {
                let change = |device: &mut SiteDevice| device.firmware = Some(version.clone());
                gateway.connections_mut().reconfigure(now, id, change);
                gateway.connections().subnet().get(id).is_some()
            }),
            Self::RefuseRegistration { devices, on } => {
                devices.each(gateways, rng, |gateway, id| {
                    gateway.refuse_registration(id, *on);
                    true
                })
            }
            Self::DeviceNetwork { up } => {
                each_of(gateways, |gateway| gateway.connections_mut().set_network(now, *up))
            }
            Self::ClockSkew { seconds } => each_of(gateways, |gateway| {
                let skew_ms = seconds.saturating_mul(1_000);
                gateway.connections_mut().reports_mut().set_clock_skew(skew_ms);
            }),
            Self::Manage => each_of(gateways, |gateway| gateway.manage_all(now)),
            Self::AddDevice { id, kind, ip, ssl, mode } => {
                let (ssl, mode) = (*ssl, *mode);
                let device = SiteDevice { ssl, mode, ..SiteDevice::new(*id, *kind, *ip) };
                add_device(gateways, now, device)
            }
            _ => return None,
        })
    }
}

fn each_of(gateways: &mut [SimulatedGateway], act: impl Fn(&mut SimulatedGateway)) -> usize {
    gateways.iter_mut().map(act).count()
}

fn add_device(gateways: &mut [SimulatedGateway], now: Millis, device: SiteDevice) -> usize {
    if gateways.iter().any(|gateway| gateway.connections().has(device.id)) {
        return 0;
    }
    let first = gateways.first_mut().map(SimulatedGateway::connections_mut);
    first.is_some_and(|connections| connections.add_device(now, device)).into()
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioStep {
    /// Seconds after the start.
    pub at_s: f64,
    /// The interval of repetition in seconds; applied once if absent.
    #[serde(default)]
    pub every_s: Option<f64>,
    /// The number of repetitions in all; without end if absent.
    #[serde(default)]
    pub times: Option<u64>,
    pub fault: Fault,
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::super::parameters::AllWord;
    use super::*;

    #[test]
    fn faults_are_read_from_json_and_toml() {
        let fault: Fault = serde_json::from_str(r#"{"do":"power_off","devices":[1,2]}"#).unwrap();
        assert_eq!(fault, Fault::PowerOff { devices: DeviceSelector::Ids(vec![1, 2]) });
        let fault: Fault = serde_json::from_str(r#"{"do":"power_on"}"#).unwrap();
        assert_eq!(fault, Fault::PowerOn { devices: DeviceSelector::default() });
        let fault: Fault =
            toml::from_str("do = \"silent\"\ndevices = { random = 3 }\nstatus = \"0x203\"")
                .unwrap();
        let devices = DeviceSelector::Random { random: 3 };
        assert_eq!(fault, Fault::Silent { devices, status: StatusCode(0x203) });
        let fault: Fault =
            serde_json::from_str(r#"{"do":"end_streams","code":"resource_exhausted"}"#).unwrap();
        assert_eq!(fault, Fault::EndStreams { code: GrpcCode(Code::ResourceExhausted) });
        let fault: Fault = serde_json::from_str(r#"{"do":"drop","devices":"all"}"#).unwrap();
        assert_eq!(fault, Fault::Drop { devices: DeviceSelector::All(AllWord::All) });
    }

    #[test]
    fn unknown_words_are_refused() {
        for bad in [
            r#"{"do":"explode"}"#,
            r#"{"do":"power_off","device":[1]}"#,
            r#"{"do":"freeze"}"#,
            r#"{"do":"silent","status":"sleepy"}"#,
            r#"{"do":"fail","method":"Connect","code":99}"#,
            r#"{"do":"power_off","devices":"some"}"#,
            r#"{"do":"power_off","devices":{"type":"toaster"}}"#,
            r#"{"do":"storm","changes":10,"per_second":0}"#,
        ] {
            assert!(serde_json::from_str::<Fault>(bad).is_err(), "{bad}");
        }
    }
}
