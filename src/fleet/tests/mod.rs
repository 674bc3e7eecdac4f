//! Tests of the core: its rules one by one, and its invariants over random histories.

mod lists;
mod properties;
mod restarts;
mod rules;

use std::time::Instant;

use super::device::Device;
use super::*;

/// A core with one gateway, fed by hand.
pub(crate) struct TestFleet {
    pub(crate) fleet: Fleet,
    clock: SteadyClock,
    pub(crate) gateway: GatewayIndex,
    pub(crate) now: Moment,
    pub(crate) out: Vec<Output>,
}

pub(crate) const AUDIT_MS: i64 = 60_000;
pub(crate) const UNKNOWN_MS: i64 = 10_000;
pub(crate) const FORGET_MS: i64 = 3_600_000;
pub(crate) const SETTINGS: GatewaySettings = GatewaySettings {
    audit_interval_ms: AUDIT_MS,
    unknown_after_ms: UNKNOWN_MS,
    forget_after_ms: Some(FORGET_MS),
};

pub(crate) fn id(number: u32) -> DeviceId {
    DeviceId::new(number).unwrap()
}

pub(crate) fn row(number: u32, status: Status, auto_reconnect: bool) -> Listed {
    Listed {
        device_id: id(number),
        status,
        info: DeviceInfo {
            device_type: DeviceType::from_code(0x0D),
            ip: Some("192.168.0.104".parse().unwrap()),
            port: 51211,
            mode: Mode::ServerToDevice,
            ssl: false,
            auto_reconnect,
        },
    }
}

impl TestFleet {
    pub(crate) fn new(declared: &[u32]) -> Self {
        let now = Moment::from_millis(1_790_000_000_000);
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let clock = SteadyClock::new(Instant::now(), now);
        let mut fleet = Fleet::new(clock);
        let declared: Vec<_> = declared.iter().map(|&number| id(number)).collect();
        let gateway = fleet.add_gateway(now, SETTINGS, &declared);
        Self { fleet, clock, gateway, now, out: Vec::new() }
    }

    /// With a link and this first list.
    pub(crate) fn online(rows: Vec<Listed>) -> Self {
        let mut test = Self::new(&[]);
        test.input(LinkEvent::LinkUp);
        test.list(rows);
        test.out.clear();
        test
    }

    pub(crate) fn input(&mut self, event: LinkEvent) {
        self.fleet.step(self.now, self.gateway, event, &mut self.out);
    }

    pub(crate) fn status(&mut self, number: u32, status: Status) {
        self.status_dated(number, status, self.now);
    }

    /// A status with this time of the gateway's clock.
    pub(crate) fn status_dated(&mut self, number: u32, status: Status, timestamp: Moment) {
        let timestamp_s = u32::try_from(timestamp.millis() / 1000).unwrap();
        let (device_id, received) = (id(number), self.clock.instant(self.now));
        self.input(LinkEvent::Status(StreamedStatus { device_id, status, timestamp_s, received }));
    }

    pub(crate) fn change<R>(
        &mut self,
        change: impl FnOnce(&mut Gateway, Moment, &mut Vec<Output>) -> R,
    ) -> R {
        let (now, out) = (self.now, &mut self.out);
        self.fleet.change(self.gateway, |gateway| change(gateway, now, out)).unwrap()
    }

    pub(crate) fn set_kept(&mut self, kept: &[u32]) {
        let kept = kept.iter().map(|&number| id(number)).collect();
        self.change(|gateway, now, out| gateway.set_kept(now, kept, out));
    }

    pub(crate) fn list(&mut self, rows: Vec<Listed>) {
        self.input(LinkEvent::ListRequested);
        self.input(LinkEvent::List(rows));
    }

    pub(crate) fn link_down(&mut self) {
        self.link_down_after(self.now);
    }

    pub(crate) fn link_down_after(&mut self, last_activity: Moment) {
        self.input(LinkEvent::LinkDown { last_activity: self.clock.instant(last_activity) });
    }

    pub(crate) fn pass(&mut self, millis: i64) {
        let end = self.now.plus(millis);
        while let Some(due) = self.fleet.wake_at().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            let before = self.fleet.wake_at();
            self.fleet.wake(self.now, &mut self.out);
            assert_ne!(self.fleet.wake_at(), before, "what was due stays due");
        }
        self.now = end;
    }

    pub(crate) fn events(&mut self) -> Vec<DeviceEvent> {
        let out = std::mem::take(&mut self.out);
        let event = |output| if let Output::Event(event) = output { Some(event) } else { None };
        out.into_iter().filter_map(event).collect()
    }

    pub(crate) fn gateway_events(&mut self) -> Vec<GatewayEvent> {
        let out = std::mem::take(&mut self.out);
        let event =
            |output| if let Output::GatewayEvent(_, event) = output { Some(event) } else { None };
        out.into_iter().filter_map(event).collect()
    }

    pub(crate) fn asked_for_list(&mut self) -> bool {
        let requested = self.out.contains(&Output::RequestList(self.gateway));
        self.out.clear();
        requested
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.fleet.gateway(self.gateway).unwrap()
    }

    pub(crate) fn ids(&self) -> Vec<DeviceId> {
        self.gateway().devices().iter().map(Device::id).collect()
    }

    pub(crate) fn device(&self, number: u32) -> DeviceState {
        self.fleet.device(self.gateway, id(number)).unwrap()
    }

    pub(crate) fn measures(&mut self, number: u32) -> DeviceMeasures {
        let mut all = self.fleet.measures(self.gateway, .., self.now);
        all.find(|device| device.state.device_id == id(number)).unwrap()
    }
}
