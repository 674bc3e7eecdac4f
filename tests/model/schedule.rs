//! The faults of a run, drawn from its seed; `world` applies them.

use std::num::NonZeroU32;
use std::time::Duration;

use fastrand::Rng;
use gsdk2mqtt::config::MqttVersion;
use gsdk2mqtt::simulator::{
    DeviceSelector, DialMode, Fault, GrpcCode, Pattern, SiteDevice, StatusCode, Storm,
};
use tonic::Code;

use crate::network::Side;
use crate::request::{Request, Requests};
use crate::storage::PowerCut;

/// The part of the network that a fault affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Gateway(usize),
    Broker,
}

/// Something that happens at once.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    BridgeStarts,
    /// As by `kill -9`.
    BridgeKilled,
    /// As by SIGTERM.
    BridgeStops,
    /// The bridge's machine loses power: what was not synced is lost.
    PowerCut(PowerCut),
    BrokerStarts,
    BrokerKilled {
        forgets: bool,
    },
    BrokerDeaf(bool),
    BrokerMute(bool),
    BrokerRefuses(bool),
    /// A client sends a request; a request for events continues after those it has read.
    Request(Box<Request>),
    /// A client clears a request that is retained.
    Unretain(Box<Request>),
    /// What this side sends does not get through.
    Hold(Place, Side, bool),
    Cut(Place),
    Gateway(usize, Fault),
}

/// When, and what.
pub(crate) type Step = (Duration, Act);

/// A gateway of the run.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) devices: Vec<SiteDevice>,
    pub(crate) is_strict: bool,
    pub(crate) tells_tries: bool,
    pub(crate) queue_size: u32,
    pub(crate) audit_s: u64,
    pub(crate) reconnect_ms: u64,
    pub(crate) keep_alive_ms: u64,
}

/// All that the seed decides beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) protocol: MqttVersion,
    pub(crate) window: u16,
    pub(crate) sites: Vec<Site>,
    pub(crate) steps: Vec<Step>,
    /// When the faults are over.
    pub(crate) healed_at: Duration,
}

impl Schedule {
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let sites = (0..rng.usize(1..=2)).map(|at| Site::drawn(at, &mut rng)).collect::<Vec<_>>();
        let protocol = if rng.bool() { MqttVersion::V5 } else { MqttVersion::V311 };
        let requests = Requests { protocol, sites: &sites, next: 0 };
        let mut draft = Draft { steps: Vec::new(), rng, sites: &sites, requests };
        let span_s = draft.rng.f64() * 120.0 + 20.0;
        draft.steps.push((Duration::ZERO, Act::BrokerStarts));
        let first = draft.moment(2.0);
        draft.steps.push((first, Act::BridgeStarts));
        for _ in 0..draft.rng.usize(3..=20) {
            draft.of_devices(span_s);
        }
        for _ in 0..draft.rng.usize(1..=8) {
            draft.of_processes(span_s);
        }
        for _ in 0..draft.rng.usize(0..=12) {
            draft.of_clients(span_s);
        }
        let Draft { mut steps, mut rng, .. } = draft;
        steps.sort_by_key(|(at, _)| *at);
        let last = steps.last().map_or(Duration::ZERO, |(at, _)| *at);
        let window = if rng.bool() { rng.u16(1..10) } else { 100 };
        Self { protocol, window, sites, steps, healed_at: last + Duration::from_secs(30) }
    }
}

impl Site {
    fn drawn(at: usize, rng: &mut Rng) -> Self {
        let devices =
            gsdk2mqtt::simulator::mixed_devices(at, at * 100 + rng.usize(0..5), rng.usize(1..=6));
        Self {
            devices,
            is_strict: rng.bool(),
            tells_tries: rng.bool(),
            queue_size: if rng.bool() { rng.u32(1..8) } else { 65_536 },
            audit_s: rng.u64(2..40),
            reconnect_ms: rng.u64(200..10_000),
            keep_alive_ms: rng.u64(0..32_000),
        }
    }

    /// Whether the configuration declares how this device is connected.
    pub(crate) fn is_declared(&self, id: u32) -> bool {
        self.devices.iter().step_by(3).any(|device| device.id == id)
    }

    /// How the configuration declares its devices: by turns.
    pub(crate) fn declared(&self) -> String {
        let line = |(at, device): (usize, &SiteDevice)| match (at % 3, device.mode) {
            (0, DialMode::ServerToDevice) => Some(format!(
                "{} = {{ name = \"D{at}\", connect = \"async\", ip = \"{}\", ssl = {} }}\n",
                device.id, device.ip, device.ssl
            )),
            (0, DialMode::DeviceToServer) => {
                Some(format!("{} = {{ name = \"D{at}\", connect = \"accept\" }}\n", device.id))
            }
            (1, _) => Some(format!("{} = {{ name = \"D{at}\" }}\n", device.id)),
            _ => None,
        };
        self.devices.iter().enumerate().filter_map(line).collect()
    }
}

struct Draft<'a> {
    steps: Vec<Step>,
    rng: Rng,
    sites: &'a [Site],
    requests: Requests<'a>,
}

impl Draft<'_> {
    fn moment(&mut self, until_s: f64) -> Duration {
        Duration::from_secs_f64(self.rng.f64() * until_s)
    }

    /// Mostly short, seldom long enough that everything counts as lost.
    fn while_(&mut self) -> Duration {
        let longest = self.rng.choice([0.1, 1.0, 8.0, 30.0, 200.0]).unwrap();
        self.moment(longest)
    }

    fn push(&mut self, at: Duration, act: Act) {
        self.steps.push((Duration::from_secs(2) + at, act));
    }

    /// Begins with one act and ends with another.
    fn spell(&mut self, at: Duration, begin: Act, end: Act) {
        let after = self.while_();
        self.push(at, begin);
        self.push(at + after, end);
    }

    fn of_devices(&mut self, span_s: f64) {
        let at = self.moment(span_s);
        let gateway = self.rng.usize(..self.sites.len());
        let all = &self.sites[gateway].devices;
        let count = self.rng.usize(1..=all.len());
        let ids: Vec<u32> = (0..count).map(|_| all[self.rng.usize(..all.len())].id).collect();
        let devices = DeviceSelector::Ids(ids);
        let codes = [0, 1, 2, 4, 0x100, 0x101, 0x200, 0x201, 0x203];
        let status = StatusCode(self.rng.choice(codes).unwrap());
        let act = |fault| Act::Gateway(gateway, fault);
        match self.rng.u32(..12) {
            0..3 => {
                let off = act(Fault::PowerOff { devices: devices.clone() });
                self.spell(at, off, act(Fault::PowerOn { devices }));
            }
            3..5 => self.push(at, act(Fault::Drop { devices })),
            5..7 => self.push(at, act(Fault::Silent { devices, status })),
            7 => self.push(at, act(Fault::Tell { devices, status })),
            8 => self.push(at, act(Fault::Repeat { devices })),
            9 => {
                let down = act(Fault::DeviceNetwork { up: false });
                self.spell(at, down, act(Fault::DeviceNetwork { up: true }));
            }
            _ => {
                let pattern = self.rng.choice([Pattern::InTurn, Pattern::Random]).unwrap();
                let per_second =
                    self.rng.bool().then(|| self.rng.u32(1..50)).and_then(NonZeroU32::new);
                let (changes, seed) = (self.rng.u64(1..60), self.rng.u64(..));
                self.push(at, act(Fault::Storm(Storm { changes, per_second, pattern, seed })));
            }
        }
    }

    fn of_processes(&mut self, span_s: f64) {
        let at = self.moment(span_s);
        match self.rng.u32(..23) {
            0..4 => {
                self.spell(at, Act::BridgeKilled, Act::BridgeStarts);
            }
            4 => self.spell(at, Act::BridgeStops, Act::BridgeStarts),
            5..7 => {
                let forgets = self.rng.bool();
                self.spell(at, Act::BrokerKilled { forgets }, Act::BrokerStarts);
            }
            7 => self.spell(at, Act::BrokerDeaf(true), Act::BrokerDeaf(false)),
            8 => self.spell(at, Act::BrokerMute(true), Act::BrokerMute(false)),
            9 => self.spell(at, Act::BrokerRefuses(true), Act::BrokerRefuses(false)),
            10..15 => self.of_network(at),
            20.. => {
                let most = self.rng.choice([1, 300, 3_000, 300_000]).unwrap();
                let (lost_bytes, zeros) = (self.rng.u64(..=most), self.rng.bool());
                let cut = PowerCut { lost_bytes, zeros };
                self.spell(at, Act::PowerCut(cut), Act::BridgeStarts);
            }
            _ => self.of_gateway(at),
        }
    }

    fn of_network(&mut self, at: Duration) {
        let place = match self.rng.usize(..=self.sites.len()) {
            0 => Place::Broker,
            gateway => Place::Gateway(gateway - 1),
        };
        let side = if self.rng.bool() { Side::Client } else { Side::Server };
        match self.rng.u32(..3) {
            0 => self.push(at, Act::Cut(place)),
            1 => self.spell(at, Act::Hold(place, side, true), Act::Hold(place, side, false)),
            _ => {
                let after = self.while_();
                for side in [Side::Client, Side::Server] {
                    self.push(at, Act::Hold(place, side, true));
                    self.push(at + after, Act::Hold(place, side, false));
                }
            }
        }
    }

    fn of_gateway(&mut self, at: Duration) {
        let gateway = self.rng.usize(..self.sites.len());
        let act = |fault| Act::Gateway(gateway, fault);
        match self.rng.u32(..12) {
            8.. => {
                let ms = self.rng.u32(1_500..9_000);
                self.spell(at, act(Fault::LateAnswers { ms }), act(Fault::LateAnswers { ms: 0 }));
            }
            0..3 => {
                let down_s = self.rng.choice([0, 1, 5, 25]).unwrap();
                self.push(at, act(Fault::Restart { down_s }));
            }
            3 => {
                let frozen = act(Fault::Freeze { on: true });
                self.spell(at, frozen, act(Fault::Freeze { on: false }));
            }
            4 => {
                let down = act(Fault::ClientNetwork { up: false });
                self.spell(at, down, act(Fault::ClientNetwork { up: true }));
            }
            5 => {
                let code = GrpcCode(self.rng.choice([Code::Ok, Code::Internal]).unwrap());
                self.push(at, act(Fault::EndStreams { code }));
            }
            6 => {
                let methods = ["GetDeviceList", "SubscribeStatus", "*"];
                let method = self.rng.choice(methods).unwrap().to_owned();
                let (code, times) = (GrpcCode(Code::Unavailable), None);
                let fails = act(Fault::Fail { method, code, message: None, times });
                self.spell(at, fails, act(Fault::Heal));
            }
            _ => {
                let ms = self.rng.u32(1..4_000);
                self.spell(at, act(Fault::Latency { ms }), act(Fault::Latency { ms: 0 }));
            }
        }
    }

    fn of_clients(&mut self, span_s: f64) {
        let at = self.moment(span_s);
        let rng = &mut self.rng;
        match rng.u32(..12) {
            0..3 => {
                let read = self.requests.read(rng);
                self.send(at, read);
            }
            3..5 => {
                let change = self.requests.change(rng);
                self.send(at, change);
            }
            5..7 => {
                let steps = self.requests.steps(rng);
                self.send(at, steps);
            }
            7 | 8 => self.repeated(at),
            9 => {
                let bad = self.requests.bad(rng);
                self.send(at, bad);
            }
            10 => {
                let retained = Request { retain: true, ..self.requests.read(rng) };
                let (set, clear) = (Box::new(retained.clone()), Box::new(retained));
                self.spell(at, Act::Request(set), Act::Unretain(clear));
            }
            _ => self.burst(at),
        }
        if self.rng.u32(..3) == 0 {
            self.fault_soon_after(at);
        }
    }

    fn send(&mut self, at: Duration, mut request: Request) {
        if self.rng.u32(..8) == 0 {
            request.expires_in = Some(Duration::from_secs(self.rng.u64(1..4)));
        }
        self.push(at, Act::Request(Box::new(request)));
    }

    /// A client sends a change more than once.
    fn repeated(&mut self, at: Duration) {
        let rng = &mut self.rng;
        let change = if rng.bool() { self.requests.steps(rng) } else { self.requests.change(rng) };
        self.push(at, Act::Request(Box::new(change.clone())));
        for _ in 0..self.rng.usize(1..4) {
            let longest = self.rng.choice([0.1, 3.0, 60.0]).unwrap();
            let after = self.moment(longest);
            self.push(at + after, Act::Request(Box::new(change.clone())));
        }
    }

    /// More requests at once than the rate permits, and changes that wait for each other.
    fn burst(&mut self, at: Duration) {
        for _ in 0..self.rng.usize(4..16) {
            let rng = &mut self.rng;
            let request =
                if rng.bool() { self.requests.read(rng) } else { self.requests.change(rng) };
            let after = self.moment(0.05);
            self.send(at + after, request);
        }
    }

    fn fault_soon_after(&mut self, at: Duration) {
        let longest = self.rng.choice([0.02, 0.5, 4.0]).unwrap();
        let at = at + self.moment(longest);
        let gateway = self.rng.usize(..self.sites.len());
        match self.rng.u32(..8) {
            0..3 => self.spell(at, Act::BridgeKilled, Act::BridgeStarts),
            3 => self.spell(at, Act::BridgeStops, Act::BridgeStarts),
            4 => self.push(at, Act::Cut(Place::Broker)),
            5 => self.push(at, Act::Cut(Place::Gateway(gateway))),
            6 => self.push(at, Act::Gateway(gateway, Fault::Restart { down_s: 0 })),
            _ => {
                let cut = PowerCut { lost_bytes: self.rng.u64(..3_000), zeros: false };
                self.spell(at, Act::PowerCut(cut), Act::BridgeStarts);
            }
        }
    }
}
