//! The core's invariants over random histories of a whole gateway: changes, a stream that loses,
//! lists that overtake it or lag, links that break, devices that come and go.
//!
//! The model is the gateway's truth: statuses,
//! a queue between gateway and bridge, lists taken at one moment and delivered at another.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    /// A status changes; the stream reports it, or loses it.
    Change {
        device: u32,
        status: Status,
        lost: bool,
    },
    /// The gateway repeats a status.
    Repeat {
        device: u32,
    },
    /// A device leaves the gateway's list, disconnected.
    Leave {
        device: u32,
    },
    /// So many messages arrive.
    Deliver(usize),
    /// The gateway makes the list that was requested.
    Snapshot,
    Fail,
    Cut,
    Link,
    Pass(i64),
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        8 => prop::sample::select(Status::KNOWN.to_vec()),
        1 => Just(Status::Unknown(0x203)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let device = 1..6u32;
    prop_oneof![
        6 => (device.clone(), status(), prop::bool::weighted(0.2))
            .prop_map(|(device, status, lost)| Op::Change { device, status, lost }),
        1 => device.clone().prop_map(|device| Op::Repeat { device }),
        1 => device.prop_map(|device| Op::Leave { device }),
        5 => (1..5usize).prop_map(Op::Deliver),
        3 => Just(Op::Snapshot),
        1 => Just(Op::Fail),
        1 => Just(Op::Cut),
        2 => Just(Op::Link),
        4 => prop_oneof![1..3_000i64, 5_000..90_000i64].prop_map(Op::Pass),
    ]
}

/// What is on its way from the gateway to the core, in order.
#[derive(Debug)]
enum Message {
    Status(u32, Status),
    ListRequest,
    List(Vec<Listed>),
    Failed,
}

/// How long a gateway was silent before its link counts as lost.
const SILENT_MS: i64 = 7_000;

struct World {
    test: TestFleet,
    truth: BTreeMap<u32, Status>,
    linked: bool,
    linked_at: Moment,
    list_requested: bool,
    wire: VecDeque<Message>,
    chain: BTreeMap<DeviceId, (u64, Option<Status>)>,
    shown: BTreeMap<DeviceId, Observed>,
    events: u64,
    sent_to_core: u64,
}

impl World {
    fn new() -> Self {
        let test = TestFleet::new(&[5]);
        Self {
            linked_at: test.now,
            test,
            truth: BTreeMap::from([(1, Status::TlsConnected), (2, Status::Disconnected)]),
            linked: false,
            list_requested: false,
            wire: VecDeque::new(),
            chain: BTreeMap::new(),
            shown: BTreeMap::new(),
            events: 0,
            sent_to_core: 0,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Change { device, status, lost } => {
                self.truth.insert(device, status);
                self.say(device, status, lost);
            }
            Op::Repeat { device } => {
                if let Some(&status) = self.truth.get(&device) {
                    self.say(device, status, false);
                }
            }
            Op::Leave { device } => {
                if self.truth.remove(&device).is_some() {
                    self.say(device, Status::Disconnected, false);
                }
            }
            Op::Deliver(count) => (0..count).for_each(|_| self.deliver()),
            Op::Snapshot if self.list_requested => {
                self.list_requested = false;
                self.wire.push_back(Message::List(self.listed()));
            }
            Op::Fail if self.list_requested => {
                self.list_requested = false;
                self.wire.push_back(Message::Failed);
            }
            Op::Snapshot | Op::Fail => {}
            Op::Cut => self.cut(),
            Op::Link => self.link(),
            Op::Pass(millis) => {
                self.test.pass(millis);
                self.settle();
            }
        }
        self.check_states();
    }

    fn say(&mut self, device: u32, status: Status, lost: bool) {
        if self.linked && !lost {
            self.wire.push_back(Message::Status(device, status));
        }
    }

    fn listed(&self) -> Vec<Listed> {
        self.truth.iter().map(|(&device, &status)| row(device, status, device % 2 == 0)).collect()
    }

    fn link(&mut self) {
        if !self.linked {
            self.linked = true;
            self.linked_at = self.test.now;
            self.test.input(LinkEvent::LinkUp);
            self.settle();
        }
    }

    fn cut(&mut self) {
        if self.linked {
            // What was read before the cut is handed on before it.
            while !self.wire.is_empty() {
                self.deliver();
            }
            self.linked = false;
            self.list_requested = false;
            let silent_ms = self.test.now.since(self.linked_at).min(SILENT_MS);
            let last_sign_of_life = self.test.now.plus(-silent_ms);
            self.test.link_down_after(last_sign_of_life);
            self.settle();
        }
    }

    fn deliver(&mut self) {
        match self.wire.pop_front() {
            Some(Message::Status(device, status)) => {
                self.sent_to_core += 1;
                self.test.status(device, status);
            }
            Some(Message::ListRequest) => {
                self.test.input(LinkEvent::ListRequested);
                self.list_requested = true;
            }
            Some(Message::List(rows)) => self.test.input(LinkEvent::List(rows)),
            Some(Message::Failed) => self.test.input(LinkEvent::ListFailed),
            None => {}
        }
        self.settle();
    }

    /// Applies the core's outputs and checks the chain.
    fn settle(&mut self) {
        for output in std::mem::take(&mut self.test.out) {
            match output {
                Output::RequestList(_) => {
                    assert!(self.linked, "a list requested without a link");
                    self.wire.push_back(Message::ListRequest);
                }
                Output::Event(event) => self.link_of_the_chain(&event),
                Output::GatewayEvent(..)
                | Output::StateChanged { .. }
                | Output::StoreState { .. }
                | Output::Forgotten { .. }
                | Output::LeftList { .. }
                | Output::GatewayChanged(_) => {}
            }
        }
    }

    fn link_of_the_chain(&mut self, event: &DeviceEvent) {
        self.events += u64::from(event.source == Source::Stream);
        if let Some(&(seq, status)) = self.chain.get(&event.device_id) {
            assert_eq!((event.seq, event.previous), (seq + 1, status), "{event:?}");
        } else {
            assert_eq!(event.seq, 1, "{event:?}");
        }
        assert_ne!(event.previous, Some(event.status), "{event:?}");
        assert_eq!(event.event_type, EventType::of(event.previous, event.status));
        assert!(event.duration_ms.is_none_or(|duration| duration >= 0));
        self.chain.insert(event.device_id, (event.seq, Some(event.status)));
    }

    fn check_states(&mut self) {
        let live = self.test.gateway().state().live;
        let all: Vec<_> = self.test.fleet.measures(self.test.gateway, .., self.test.now).collect();
        for measures in all {
            let seconds = measures.observed;
            let before = self.shown.insert(measures.state.device_id, seconds).unwrap_or_default();
            assert!(before.connected_ms <= seconds.connected_ms, "a counter ran backwards");
            assert!(before.observed_ms <= seconds.observed_ms, "a counter ran backwards");
            let device = self.test.device(measures.state.device_id.get());
            assert_eq!(device.seq, self.chain.get(&device.device_id).map_or(0, |link| link.0));
            assert_eq!(device.status.is_some(), live);
            assert!(live || device.connected.is_none(), "never says what it cannot know");
            assert_eq!(device.since.is_none(), device.connected.is_none());
            let passed = self.test.now.since(Moment::from_millis(1_790_000_000_000));
            assert!(0 <= seconds.connected_ms && seconds.connected_ms <= seconds.observed_ms);
            assert!(seconds.observed_ms <= passed);
        }
    }

    /// Linked, nothing more happens: within one audit the core's view is the gateway's list.
    fn come_to_rest(&mut self) {
        self.link();
        for _ in 0..200 {
            while !self.wire.is_empty() || self.list_requested {
                self.deliver();
                self.apply(Op::Snapshot);
            }
            self.apply(Op::Pass(1_000));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn retries_make_one_event_of_each_status_however_many_they_are(
        words in prop::collection::vec(
            (
                prop::sample::select(Status::KNOWN.to_vec()).prop_filter("an attempt", |status| {
                    status.connected() != Some(true) && *status != Status::Disconnected
                }),
                0..60_000i64,
            ),
            1..400,
        ),
    ) {
        let mut test = World::new().test;
        test.input(LinkEvent::LinkUp);
        test.list(vec![row(7, Status::TlsConnected, true)]);
        test.status(7, Status::Disconnected);
        let mut distinct = std::collections::HashSet::from([Status::Disconnected.code()]);
        let mut reported = test.events().len();
        for (status, after) in words {
            test.pass(after);
            distinct.insert(status.code());
            test.status(7, status);
            reported += test.events().len();
        }
        prop_assert!(reported <= distinct.len(), "{reported} of {} statuses", distinct.len());
        prop_assert_eq!(test.device(7).connected, Some(false));
    }

    #[test]
    fn the_chain_holds_and_the_view_ends_as_the_list(ops in prop::collection::vec(op(), 1..200)) {
        let mut world = World::new();
        for op in ops {
            world.apply(op);
        }
        world.come_to_rest();
        let counts = world.test.gateway().counts().clone();
        prop_assert_eq!(
            world.sent_to_core,
            world.events + counts.repeated + counts.strangers,
            "every status is an event, a repeat or a stranger's"
        );
        for device_id in world.test.ids() {
            let device = world.test.device(device_id.get());
            let truth = world.truth.get(&device_id.get()).copied();
            prop_assert_eq!(device.managed, truth.is_some());
            let truth = truth.unwrap_or(Status::Disconnected);
            prop_assert_eq!(device.connected, truth.connected());
            if truth.connected() != Some(false) {
                prop_assert_eq!(device.status, Some(truth));
            }
        }
        for &device in world.truth.keys() {
            prop_assert!(world.test.fleet.device(world.test.gateway, id(device)).is_some());
        }
    }

    #[test]
    fn seconds_add_up_to_the_time_passed(
        steps in prop::collection::vec((status(), 0..100_000i64), 1..50),
        gaps in prop::collection::vec((0..50usize, 0..20_000i64), 0..5),
    ) {
        let mut test = TestFleet::online(vec![row(7, Status::TcpConnected, true)]);
        let (mut connected, mut disconnected, mut unknown) = (0, 0, 0);
        let began = test.now;
        let mut present = Status::TcpConnected;
        for (at, (status, millis)) in steps.into_iter().enumerate() {
            // Links that break: back in time without a change counts as observed.
            for &(_, gap) in gaps.iter().filter(|gap| gap.0 == at) {
                test.link_down();
                test.pass(gap);
                test.input(LinkEvent::LinkUp);
                test.list(vec![row(7, present, true)]);
                match present.connected().filter(|_| gap < UNKNOWN_MS) {
                    Some(true) => connected += gap,
                    Some(false) => disconnected += gap,
                    None => unknown += gap,
                }
            }
            test.status(7, status);
            present = test.device(7).status.unwrap();
            test.pass(millis);
            match test.device(7).connected {
                Some(true) => connected += millis,
                Some(false) => disconnected += millis,
                None => unknown += millis,
            }
        }
        let seconds = test.measures(7).observed;
        prop_assert_eq!(seconds.connected_ms, connected);
        prop_assert_eq!(seconds.observed_ms, connected + disconnected);
        prop_assert_eq!(test.now.since(began), connected + disconnected + unknown);
    }
}
