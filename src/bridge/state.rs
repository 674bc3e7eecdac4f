//! The state of the bridge: the fleet, and its stored and published part. Applies the outputs of
//! the core, and writes the changes of an iteration before any of them is published.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Serialize;
use tokio::time::Instant;

use super::clock::Clock;
use super::dispatch::Audit;
use super::persistence::Persistence;
use crate::fleet::{ChangedItems, Fleet, Gateway, GatewayEvent, GatewayIndex, LinkEvent, Output};
use crate::ids::{DeviceId, Moment, random_id};
use crate::metrics::Metrics;
use crate::mqtt::{InfoOf, Publisher};
use crate::payload::{
    BridgeEventKind, COMMAND_EVENT, Directory, EventPayload, GatewayEventContent, LinkFacts,
    OutboxInfo, Subject, to_bytes,
};
use crate::store::{HistoryStatus, StoreError};

/// The length of a chain's ID. Four of 32 characters: about a million chains.
const CHAIN_ID_LEN: usize = 4;

/// The state of the bridge, stored and published.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) clock: Clock,
    pub(crate) fleet: Fleet,
    pub(crate) directory: Directory,
    /// By gateway.
    pub(crate) facts: Vec<LinkFacts>,
    pub(crate) persistence: Persistence,
    pub(crate) publisher: Publisher,
    pub(crate) metrics: Metrics,
    /// Events of the bridge and of gateways in this run.
    pub(crate) events: u64,
    /// Changes and removals of devices in this run: status pages compare the number.
    pub(crate) device_changes: u64,
    /// Gateways whose list has to be read again.
    pub(crate) list_requests: Vec<GatewayIndex>,
    /// Devices that may have changed in this iteration, in order, and whether they are connected.
    pub(crate) connections: Vec<(GatewayIndex, DeviceId, Option<bool>)>,
}

impl State {
    /// Follows the wall clock, which deviates when it is set or the machine was suspended.
    pub(crate) fn follow_wall_clock(&mut self) {
        if let Some(by_ms) = self.clock.follow_wall_clock() {
            let by_s = by_ms / 1_000;
            tracing::warn!(by_s, "wall clock set or machine suspended; times adjusted");
            self.fleet.set_wall_offset(self.clock.wall_offset_ms());
            self.persistence.observations.clock_set(by_ms, self.clock.now());
        }
    }

    /// The bridge did not run since `until`.
    pub(crate) fn interrupted(&mut self, until: Instant) {
        let seconds = until.elapsed().as_secs();
        tracing::warn!(seconds, "the bridge did not run; reading every device list again");
        let until = self.clock.steady_clock().at(until.into_std());
        let gateways =
            self.fleet.gateways().map(|(index, gateway)| (index, gateway.link().is_live()));
        for (gateway, was_live) in gateways.collect::<Vec<_>>() {
            self.change(gateway, |gateway, now, out| gateway.interrupt(now, until, out));
            if was_live && !self.fleet.gateway_is_live(gateway) {
                let until = self.clock.wall(until);
                self.persistence.observations.interrupted(gateway, until, &self.directory);
            }
        }
    }

    /// Applies an event of a gateway's link to the core.
    pub(crate) fn step(&mut self, gateway: GatewayIndex, event: LinkEvent) {
        let mut outputs = Vec::new();
        self.fleet.step(self.clock.steady(), gateway, event, &mut outputs);
        self.apply(outputs);
    }

    /// Changes a gateway in the core, and applies the outputs.
    pub(crate) fn change<R>(
        &mut self,
        gateway: GatewayIndex,
        change: impl FnOnce(&mut Gateway, Moment, &mut Vec<Output>) -> R,
    ) -> Option<R> {
        let (now, mut outputs) = (self.clock.steady(), Vec::new());
        let result = self.fleet.change(gateway, |gateway| change(gateway, now, &mut outputs));
        self.apply(outputs);
        result
    }

    /// Requests a gateway's list: something has changed at it, or may have.
    pub(crate) fn request_list(&mut self, gateway: GatewayIndex) {
        self.change(gateway, Gateway::request_list);
    }

    /// These devices of a gateway are kept by commands.
    pub(crate) fn set_kept(&mut self, gateway: GatewayIndex, kept: BTreeSet<DeviceId>) {
        self.change(gateway, |gateway, now, out| gateway.set_kept(now, kept, out));
    }

    /// Forgets devices of a gateway that are not expected; returns those that are.
    pub(crate) fn forget(&mut self, gateway: GatewayIndex, ids: &[DeviceId]) -> Vec<DeviceId> {
        self.change(gateway, |gateway, _, out| gateway.forget(ids, out)).unwrap_or_default()
    }

    /// Does what is due by now.
    pub(crate) fn wake(&mut self, now: Instant) {
        self.follow_wall_clock();
        let mut outputs = Vec::new();
        self.fleet.wake(self.clock.steady(), &mut outputs);
        self.apply(outputs);
        // A full outbox would drop another event for the report, so it waits for the broker.
        if self.publisher.is_connected()
            && let Some(kind) = self.persistence.events.report(now)
        {
            self.bridge_event(&kind);
        }
    }

    /// When there is something to do although nothing comes in.
    pub(crate) fn due(&self) -> Option<Instant> {
        let moments = [self.fleet.wake_at(), self.publisher.wake_at()];
        let moments = moments.into_iter().flatten().map(|at| self.clock.instant(at).into());
        let losses = self.persistence.events.report_due(Instant::now());
        let losses = losses.filter(|_| self.publisher.is_connected());
        moments.chain(losses).chain(self.persistence.due()).min()
    }

    fn apply(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            let Self { clock, fleet, directory, persistence, .. } = &mut *self;
            persistence.observations.output(&output, fleet, directory, clock);
            match output {
                Output::Event(event) => {
                    // Before the gateway's first list it comes without `Output::StateChanged`.
                    self.persistence.touch(event.gateway, event.device_id);
                    self.persistence.events.device_event(&self.directory, event);
                }
                Output::GatewayEvent(gateway, event) => self.gateway_event(gateway, &event),
                Output::StateChanged { gateway, device_id } => {
                    self.persistence.touch(gateway, device_id);
                    self.device_changes += 1;
                    self.publisher.content.states.device_changed(gateway, device_id);
                    let connected = self.fleet.connected(gateway, device_id);
                    self.connections.push((gateway, device_id, connected));
                }
                Output::StoreState { gateway, device_id } => {
                    self.persistence.touch(gateway, device_id);
                }
                Output::GatewayChanged(gateway) => {
                    self.publisher.content.gateway_changed(gateway);
                    let entry = self.directory.gateway(gateway);
                    if let Some(master) = entry.and_then(|entry| entry.master.as_ref()) {
                        let of = InfoOf::Master(master.name.clone());
                        self.publisher.content.infos().changed(of);
                    }
                }
                Output::Forgotten { gateway, device_id } => {
                    self.persistence.touch(gateway, device_id);
                    self.device_removed(gateway, device_id);
                    self.device_changes += 1;
                    self.connections.push((gateway, device_id, Some(false)));
                }
                Output::RequestList(gateway) => self.list_requests.push(gateway),
                // Followed by `Output::StateChanged`.
                Output::LeftList { .. } => {}
            }
        }
    }

    /// A device no longer exists: its topics are cleared.
    pub(crate) fn device_removed(&mut self, gateway: GatewayIndex, device_id: DeviceId) {
        if let Some(entry) = self.directory.gateway(gateway) {
            self.publisher.content.device_removed(gateway, device_id, entry);
        }
    }

    pub(crate) fn gateway_event(&mut self, gateway: GatewayIndex, event: &GatewayEvent) {
        let Some(entry) = self.directory.gateway(gateway) else { return };
        let gateway = entry.name.clone();
        match event {
            GatewayEvent::Reachable => tracing::info!(%gateway, "gateway online"),
            GatewayEvent::Unreachable => {
                tracing::warn!(%gateway, "gateway lost; its devices are unknown");
            }
            GatewayEvent::Restored(ChangedItems { what, count, .. }) => {
                tracing::info!(%gateway, what, count, "missing items provisioned");
            }
            GatewayEvent::Withdrawn(ChangedItems { what, count, .. }) => {
                let message = "another client removed desired items";
                tracing::warn!(%gateway, what, count, message);
            }
            GatewayEvent::Corrected { count } => {
                let message = "an audit found changes that the stream did not report";
                tracing::warn!(%gateway, count, message);
            }
            GatewayEvent::Stranger { device_id, status } => {
                tracing::debug!(%gateway, %device_id, %status, "status of an unknown device");
            }
        }
        let content = GatewayEventContent { gateway: &gateway, event };
        self.append_event(self.clock.now(), gateway.as_str(), event.name(), content);
    }

    /// A change was requested of a gateway, or of the bridge itself.
    pub(crate) fn command_event(&mut self, owner: &str, audit: &Audit) {
        self.append_event(self.clock.now(), owner, COMMAND_EVENT, audit);
    }

    pub(crate) fn bridge_event(&mut self, kind: &BridgeEventKind) {
        let bridge = self.directory.info.bridge.clone();
        let payload = self.append_event(self.clock.now(), &bridge, kind.name(), kind);
        if !matches!(kind, BridgeEventKind::MasterReachable { .. }) {
            let payload = String::from_utf8_lossy(&payload);
            tracing::warn!(event = kind.name(), %payload, "bridge event");
        }
    }

    /// Stores an event that is not of a device, to be published in order; returns its payload.
    fn append_event(
        &mut self,
        at: Moment,
        owner: &str,
        event_type: &'static str,
        content: impl Serialize,
    ) -> Bytes {
        self.events += 1;
        let (directory, number) = (&self.directory, self.events);
        let gateway = directory.find_str(owner).and_then(|at| directory.gateway(at));
        let subject = gateway.map_or(Subject::Bridge, |entry| Subject::Gateway(entry.name.clone()));
        let event = EventPayload::new(&directory.info, owner, number, at, event_type, content);
        let payload = to_bytes(&event);
        self.persistence.events.append(at, subject, event_type, payload.clone());
        self.publisher.content.infos().changed(InfoOf::Bridge);
        payload
    }

    /// Sets a fact of a gateway's link, which is published with the gateway's info.
    pub(crate) fn set_fact(&mut self, gateway: GatewayIndex, set: impl FnOnce(&mut LinkFacts)) {
        let Some(facts) = self.facts.get_mut(gateway.0) else { return };
        let urgent =
            |facts: &LinkFacts| (facts.last_error.clone(), facts.package.clone(), facts.is_removed);
        let before = urgent(facts);
        set(facts);
        if self.directory.gateway(gateway).is_none() {
            return;
        }
        if before == urgent(facts) {
            self.publisher.content.infos().changed(InfoOf::Gateway(gateway));
        } else {
            self.publisher.content.infos().changed_at_once(InfoOf::Gateway(gateway));
        }
    }

    /// Forgets all devices of a gateway, and stores that; returns them.
    pub(crate) fn forget_devices(&mut self, gateway: GatewayIndex) -> BTreeSet<DeviceId> {
        let ids = self.change(gateway, |gateway, _, out| gateway.forget_all(out));
        self.persistence.add_touched(&self.fleet, &self.directory);
        ids.unwrap_or_default()
    }

    pub(crate) fn set_chain(&mut self, chain: String) {
        self.directory.info.chain = chain;
        self.publisher.content.infos().changed(InfoOf::Bridge);
    }

    /// Writes what this iteration has changed; nothing of it may be published before.
    pub(crate) fn persist(&mut self) {
        self.persistence.check_disk();
        self.persistence.set_clearing(self.publisher.content.clearing.take_changes());
        let now = self.clock.now();
        let written = self.persistence.write(&self.fleet, &self.directory);
        self.persistence.hand_over_observations(now);
        written.unwrap_or_else(|error| self.log_failed(&error));
        if self.persistence.retry_is_due() {
            match self.begin_log() {
                Ok(()) => tracing::info!("store: writing again"),
                Err(error) => tracing::debug!(%error, "store: still failing"),
            }
        }
        self.metrics.store.set_ok(self.persistence.fault().is_none());
        if self.persistence.check_history() {
            let HistoryStatus { fault, totals, .. } = self.persistence.history();
            self.metrics.store.set_history(fault.is_none(), totals.events, totals.oldest_at);
        }
        let outbox = self.persistence.events.outbox();
        let (pending, dropped) = (outbox.len(), outbox.dropped());
        self.directory.info.outbox = OutboxInfo { pending, dropped };
        self.metrics.store.set_outbox(pending, outbox.bytes(), dropped);
    }

    /// Continues in memory under a new chain.
    fn log_failed(&mut self, error: &StoreError) {
        let reason = error.to_string();
        tracing::error!(%error, "store failed; continuing in memory");
        let from = Some(self.directory.info.chain.clone());
        self.set_chain(new_chain_id());
        self.persistence.events.restart_chain(&mut self.fleet, &self.directory);
        self.bridge_event(&BridgeEventKind::StoreFailed { reason: reason.clone() });
        let to = self.directory.info.chain.clone();
        self.bridge_event(&BridgeEventKind::ChainReset { from, to, reason });
        self.publisher.all_changed(&self.fleet);
    }

    /// Begins a log with everything that is known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn begin_log(&mut self) -> Result<(), StoreError> {
        let Self { clock, fleet, directory, persistence, publisher, .. } = self;
        persistence.set_clearing(publisher.content.clearing.take_changes());
        persistence.begin_log(clock.now(), fleet, directory)
    }

    /// Stores everything a last time, once nothing more can be acknowledged.
    pub(crate) fn stop(&mut self) {
        self.persistence.write_all_now();
        self.persist();
        let was_durable = self.persistence.is_durable();
        let mut stopped = self.persistence.stop();
        if let Err(error) = &stopped {
            if was_durable {
                self.log_failed(error);
            }
            // Everything that has to be stored is still in memory: a last attempt.
            stopped = self.begin_log().and_then(|()| self.persistence.stop());
        }
        let events = self.persistence.events.outbox().len();
        match stopped {
            Ok(()) if events > 0 => {
                tracing::info!(events, "undelivered events are stored for the next start");
            }
            Ok(()) => {}
            Err(error) => tracing::error!(%error, lost = events, "store: not written at the stop"),
        }
    }
}

/// The name of a new chain.
pub(crate) fn new_chain_id() -> String {
    random_id(CHAIN_ID_LEN)
}
