//! The bridge and its [`Persistence`]: what a start restores, and what follows when the log fails.

use std::collections::BTreeMap;

use super::Bridge;
use super::persistence::Values;
use super::wiring::new_chain_id;
use crate::fleet::{GatewayIndex, Remembered};
use crate::ids::{DeviceId, GatewayName};
use crate::payload::{BridgeEventKind, Subject, to_bytes};
use crate::store::{Content, HistoryStatus, Key, Recovery, StoreError, decode, encode};

impl Bridge {
    /// Restores what an earlier process has stored, before the first iteration.
    ///
    /// # Errors
    /// When a new log cannot be written.
    pub(crate) fn restore(
        &mut self,
        content: Content,
        recovery: Recovery,
    ) -> Result<(), StoreError> {
        match recovery {
            Recovery::Continue(log) => {
                self.set_chain(log.chain().to_owned());
                self.persistence.continue_log(log);
                self.restore_content(content, true);
                let (chain, events) = (&self.site.directory.chain, self.persistence.outbox().len());
                tracing::info!(chain, events, "chain continues");
                Ok(())
            }
            Recovery::NewChain { from, reason } => {
                self.restore_content(content, false);
                if let Some(reason) = reason {
                    let to = self.site.directory.chain.clone();
                    self.bridge_event(&BridgeEventKind::ChainReset { from, to, reason });
                }
                self.begin_log()
            }
        }
    }

    fn restore_content(&mut self, content: Content, continues: bool) {
        let Content { events, values, .. } = content;
        if !continues || values.contains_key(&Key::StaleScan) {
            self.retained.stale_topics.look();
        }
        for event in events.into_values() {
            self.persistence.outbox_mut().insert(event);
        }
        for entry in &self.site.directory.gateways {
            self.persistence.set(Key::Gateway(entry.name.clone()), Some(&[]));
        }
        // Of gateways that are not configured, with their devices.
        let mut gone: BTreeMap<GatewayName, Vec<DeviceId>> = BTreeMap::new();
        for (key, value) in values {
            if self.restore_value(&key, &value, continues, &mut gone).is_none() {
                tracing::error!(?key, "store: a value cannot be read; it is left out");
            }
        }
        for (gateway, ids) in gone {
            tracing::info!(%gateway, devices = ids.len(), "gateway not configured: forgotten");
            self.publisher.content().gateway_removed(&gateway, ids, self.persistence.outbox_mut());
        }
    }

    /// Restores one value; `None` if it cannot be read.
    fn restore_value(
        &mut self,
        key: &Key,
        value: &[u8],
        continues: bool,
        gone: &mut BTreeMap<GatewayName, Vec<DeviceId>>,
    ) -> Option<()> {
        match key {
            Key::Device(name, device_id) => {
                let device: Remembered = decode(value)?;
                let gateways = &self.site.directory.gateways;
                match gateways.iter().position(|entry| entry.name == *name) {
                    Some(at) => {
                        self.restore_device(GatewayIndex(at), *device_id, device, continues);
                    }
                    None if device.forgotten => {}
                    None => {
                        self.persistence.set(key.clone(), Some(&encode(&device.forget())));
                        gone.entry(name.clone()).or_default().push(*device_id);
                    }
                }
            }
            Key::Gateway(name) => {
                if !self.site.directory.gateways.iter().any(|entry| entry.name == *name) {
                    self.retained.stale_topics.gateway_gone(name.clone());
                    gone.entry(name.clone()).or_default();
                }
            }
            Key::Lost(_) | Key::LostBefore(_) => {
                self.persistence.outbox_mut().restore_lost(key, decode(value)?);
            }
            Key::UnreportedLoss(subject) => self.losses.restore(subject.clone(), decode(value)?),
            Key::Desired(gateway) => self.restore_desired(gateway, value),
            Key::Intent(gateway) => self.report_interrupted(gateway.clone(), value),
            Key::Clearing(topic) => self.publisher.content().clearing().queue().push(topic.clone()),
            Key::StaleScan | Key::NextId => {}
        }
        Some(())
    }

    /// Reports a command that was running when an earlier process ended. It is not resumed.
    fn report_interrupted(&mut self, gateway: GatewayName, note: &[u8]) {
        self.persistence.set(Key::Intent(gateway.clone()), None);
        let Ok(intent) = serde_json::from_slice(note) else { return };
        tracing::warn!(%gateway, ?intent, "command interrupted; look at its devices");
        self.bridge_event(&BridgeEventKind::CommandInterrupted { gateway, intent });
    }

    fn restore_device(
        &mut self,
        gateway: GatewayIndex,
        device_id: DeviceId,
        device: Remembered,
        continues: bool,
    ) {
        let device = match continues {
            true => device,
            // In another chain, a forgotten device's place in the old one means nothing.
            false if device.forgotten => return,
            false => Remembered { seq: 0, ..device },
        };
        self.site.fleet.restore(self.clock.now(), gateway, device_id, device);
    }

    /// Writes what this iteration has changed; nothing of it may be published before.
    pub(crate) fn persist(&mut self) {
        self.persistence.check_disk();
        let dropped = self.persistence.append_device_events(&self.site.directory);
        self.dropped(dropped);
        self.losses.store(&mut self.persistence);
        if let Some(is_open) = self.retained.stale_topics.change_to_store() {
            self.persistence.set(Key::StaleScan, is_open.then_some(&[]));
        }
        let now = self.clock.now();
        if let Err(error) = self.persistence.write(now, &self.site.fleet, &self.site.directory) {
            self.log_failed(&error);
        }
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
    }

    /// Counts events that a full outbox has dropped.
    pub(crate) fn dropped(&mut self, dropped: Vec<Subject>) {
        for subject in dropped {
            self.metrics.outbox_dropped.inc();
            self.losses.add(subject);
        }
    }

    /// Continues in memory under a new chain.
    fn log_failed(&mut self, error: &StoreError) {
        let reason = error.to_string();
        tracing::error!(%error, "store failed; continuing in memory");
        let from = Some(self.site.directory.chain.clone());
        self.set_chain(new_chain_id());
        self.persistence.restart_chain(&mut self.site.fleet, &self.site.directory);
        self.bridge_event(&BridgeEventKind::StoreFailed { reason: reason.clone() });
        let to = self.site.directory.chain.clone();
        self.bridge_event(&BridgeEventKind::ChainReset { from, to, reason });
        self.publisher.all_changed(&self.site.fleet);
    }

    /// Begins a log with everything that is known.
    fn begin_log(&mut self) -> Result<(), StoreError> {
        let mut values: Values = self
            .site
            .fleet
            .gateways()
            .filter_map(|gateway| {
                let name = self.site.directory.gateway(gateway)?.name.clone();
                Some((Key::Desired(name), self.provisioner.gateway(gateway)?.note()?))
            })
            .collect();
        let intents = self.dispatcher.intents();
        values
            .extend(intents.map(|(gateway, intent)| {
                (Key::Intent(gateway.clone()), to_bytes(intent).to_vec())
            }));
        let gateways = self.site.directory.gateways.iter().map(|entry| &entry.name);
        let gateways = gateways.chain(self.retained.stale_topics.gone());
        values.extend(gateways.map(|name| (Key::Gateway(name.clone()), Vec::new())));
        let clearing = self.publisher.content().clearing().queue().topics();
        values.extend(clearing.map(|topic| (Key::Clearing(topic.clone()), Vec::new())));
        values.extend(self.losses.values());
        if self.retained.stale_topics.is_open() {
            values.push((Key::StaleScan, Vec::new()));
        }
        self.persistence.begin_log(self.clock.now(), &self.site.fleet, &self.site.directory, values)
    }

    fn set_chain(&mut self, chain: String) {
        self.site.info.chain.clone_from(&chain);
        self.site.directory.chain = chain;
        self.publisher.content().states().bridge_info_changed();
    }

    /// Stores everything a last time, once nothing more can be acknowledged.
    pub(crate) fn stop_storing(&mut self) {
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
        let events = self.persistence.outbox().len();
        match stopped {
            Ok(()) if events > 0 => {
                tracing::info!(events, "undelivered events are stored for the next start");
            }
            Ok(()) => {}
            Err(error) => tracing::error!(%error, events, "store: undelivered events are lost"),
        }
    }
}
