//! Restores the stored state of an earlier process, before the first iteration.

use std::collections::{BTreeMap, BTreeSet};

use super::event_queue::{LossCause, UnreportedLoss};
use super::gateways::Gateways;
use super::retained::StaleTopics;
use super::state::State;
use crate::fleet::Remembered;
use crate::ids::{DeviceId, GatewayName};
use crate::payload::{BridgeEventKind, GatewayEntry, MasterRef};
use crate::store::{Key, LogContent, Recovery, StoreError, decode, encode};

/// The value of a master whose topic is to be cleared, or is.
const MASTER_CLEARED: &[u8] = &[1];

/// Restores everything.
///
/// # Errors
/// When a new log cannot be written.
pub(crate) fn restore(
    state: &mut State,
    gateways: &mut Gateways,
    stale_topics: &mut StaleTopics,
    content: LogContent,
    recovery: Recovery,
) -> Result<(), StoreError> {
    let (continues, unconfigured) = (matches!(recovery, Recovery::Continue(_)), BTreeMap::new());
    let restore = Restore { state, gateways, stale_topics, continues, unconfigured };
    match recovery {
        Recovery::Continue(log) => {
            restore.state.set_chain(log.chain().to_owned());
            restore.state.persistence.continue_log(log);
            restore.content(content);
            let events = state.persistence.events.outbox().len();
            tracing::info!(chain = state.directory.info.chain, events, "chain continues");
            Ok(())
        }
        Recovery::NewChain { from, reason } => {
            restore.content(content);
            let to = state.directory.info.chain.clone();
            tracing::info!(chain = to, "new chain");
            if let Some(reason) = reason {
                state.bridge_event(&BridgeEventKind::ChainReset { from, to, reason });
            }
            state.begin_log()
        }
    }
}

struct Restore<'a> {
    state: &'a mut State,
    gateways: &'a mut Gateways,
    stale_topics: &'a mut StaleTopics,
    /// Whether the chain continues.
    continues: bool,
    /// Gateways that are not configured, with their devices.
    unconfigured: BTreeMap<GatewayName, Vec<DeviceId>>,
}

impl Restore<'_> {
    fn content(mut self, content: LogContent) {
        let LogContent { events, lost, values, .. } = content;
        let needs_scan = !self.continues || values.contains_key(&Key::StaleScan);
        let waiting: BTreeSet<u64> = events.keys().copied().collect();
        for event in events.into_values() {
            self.state.persistence.events.outbox_mut().insert(event);
        }
        for subject in lost {
            let loss = UnreportedLoss { count: 1, cause: LossCause::LogLost };
            self.state.persistence.events.add_loss(subject, loss);
        }
        for (key, value) in values {
            // Its event was in a segment that is damaged.
            if matches!(key, Key::LostBefore(id) if !waiting.contains(&id)) {
                self.state.persistence.set(key, None);
                continue;
            }
            self.state.persistence.restore(&key, &value);
            if self.value(&key, &value).is_none() {
                tracing::error!(?key, "store: a value cannot be read; ignored");
                self.state.persistence.set(key, None);
            }
        }
        let State { directory, persistence, publisher, .. } = self.state;
        for entry in directory.gateways.values() {
            persistence.set(Key::Gateway(entry.name.clone()), Some(&[]));
        }
        for master in directory.masters.keys() {
            persistence.set(Key::Master(master.clone()), Some(&[]));
        }
        if needs_scan {
            self.stale_topics.request_scan();
            persistence.set(Key::StaleScan, Some(&[]));
        }
        for (gateway, ids) in self.unconfigured {
            tracing::info!(%gateway, devices = ids.len(), "gateway not configured; forgotten");
            publisher.content.clear_gateway(&gateway, ids);
        }
        self.gateways.forget_restored(self.state);
    }

    /// Restores one value; `None` if it cannot be read.
    fn value(&mut self, key: &Key, value: &[u8]) -> Option<()> {
        let State { persistence, publisher, directory, .. } = &mut *self.state;
        match key {
            Key::Device(name, id) => self.device(name, *id, decode(value)?),
            Key::Gateway(name) => {
                if self.state.directory.find(name).is_none() {
                    self.unconfigured.entry(name.clone()).or_default();
                }
            }
            Key::Lost(_) | Key::LostBefore(_) => {
                persistence.events.outbox_mut().restore_lost(key, decode(value)?);
            }
            Key::UnreportedLoss(subject) => {
                persistence.events.add_loss(subject.clone(), decode(value)?);
            }
            Key::Desired(name) => match directory.find(name) {
                None => persistence.set(key.clone(), None),
                Some(gateway) => {
                    let commanded = serde_json::from_slice(value).ok()?;
                    let provisioner = self.gateways.provisioner(gateway)?;
                    provisioner.set_commanded(self.state, commanded);
                }
            },
            Key::Intent(name) => {
                // Its command is reported, not resumed.
                persistence.set(key.clone(), None);
                if let Ok(intent) = serde_json::from_slice(value) {
                    let message = "command interrupted; check its devices";
                    tracing::warn!(gateway = %name, ?intent, message);
                    let gateway = name.clone();
                    let interrupted = BridgeEventKind::CommandInterrupted { gateway, intent };
                    self.state.bridge_event(&interrupted);
                }
            }
            Key::Clearing(topic) => publisher.content.clearing.queue.push(topic.clone()),
            Key::Discovered(master, gateway_id) => {
                let of = |entry: &MasterRef| entry.gateway_id == *gateway_id;
                let is_it = |entry: &GatewayEntry| entry.master.as_ref().is_some_and(of);
                let at = directory.behind(master).find(|(_, entry)| is_it(entry)).map(|(at, _)| at);
                match at {
                    Some(gateway) => {
                        self.gateways.discovered.restore(self.state, gateway, decode(value)?);
                    }
                    None => persistence.set(key.clone(), None),
                }
            }
            Key::Master(name) => self.master(name, value),
            Key::StaleScan | Key::NextId | Key::OldestSegment => {}
        }
        Some(())
    }

    /// Clears the topic of a master that is not configured any more, once; its name is stored for
    /// the sensor that Home Assistant has of it.
    fn master(&mut self, name: &GatewayName, value: &[u8]) {
        let State { persistence, publisher, directory, .. } = &mut *self.state;
        if directory.masters.contains_key(name) {
            return;
        }
        directory.removed_masters.insert(name.clone());
        if value != MASTER_CLEARED {
            let topic = publisher.topics().master_info(name);
            publisher.content.clearing.clear(topic);
            persistence.set(Key::Master(name.clone()), Some(MASTER_CLEARED));
        }
    }

    fn device(&mut self, name: &GatewayName, id: DeviceId, mut device: Remembered) {
        device.details = device.details.filter(|_| self.gateways.reads_details());
        let State { clock, fleet, persistence, directory, .. } = &mut *self.state;
        match directory.find(name) {
            Some(gateway) if self.continues => fleet.restore(clock.now(), gateway, id, device),
            // Its place in the chain means nothing in another one, nor to an unconfigured gateway.
            Some(_) | None if device.forgotten => {}
            Some(gateway) => {
                let device = Remembered { seq: 0, ..device };
                fleet.restore(clock.now(), gateway, id, device);
            }
            None => {
                let changes = persistence.events.outbox_mut().changes();
                changes.put(Key::Device(name.clone(), id), &encode(&device.forget()));
                self.unconfigured.entry(name.clone()).or_default().push(id);
            }
        }
    }
}
