//! What an earlier process left, taken up: at the start, or once it can be read.
//!
//! May not publish, nor write: what follows is written with the next turn, or by beginning anew.

use std::collections::BTreeMap;

use super::Bridge;
use crate::fleet::{GatewayIndex, Remembered};
use crate::ids::{DeviceId, GatewayName};
use crate::outbox::store::{Content, Found, Key, Late, StoreError, Verdict};
use crate::payload::BridgeEventKind;

/// How what was left relates to what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// All of it is remembered: its chain goes on.
    GoesOn,
    /// Its chain has ended.
    Ended,
    /// Its chain has ended, and this process has been at work for a while.
    Late,
}

impl Bridge {
    /// Takes up what an earlier process left, before the first turn.
    pub(super) fn take_up(&mut self, found: Found) {
        let Found { content, verdict, seen } = found;
        self.keeper.seen = seen;
        match verdict {
            Verdict::GoesOn(chain, store) => {
                // First, so that what is found to be gone is taken out of it too.
                self.turn_chain(chain);
                self.outbox.keep(*store);
                self.restore(content, Left::GoesOn);
                let (chain, events) = (&self.directory.chain, self.outbox.len());
                tracing::info!(chain, events, "the chain goes on");
            }
            Verdict::Unwritable { from, error } => {
                self.restore(content, Left::Ended);
                self.store_failed(&error, from, &[]);
            }
            Verdict::Ends { from, reason } => {
                self.restore(content, Left::Ended);
                if let Some(reason) = reason {
                    let to = self.directory.chain.clone();
                    self.bridge_event(&BridgeEventKind::ChainReset { from, to, reason });
                }
                if let Err(error) = self.begin_anew() {
                    self.store_failed(&error, None, &[]);
                }
            }
        }
    }

    /// What lies in the state directory and could not be read before is taken up, before anything
    /// is written over it. It may also be another directory by now: removed, or mounted over.
    pub(super) fn take_up_late(&mut self) -> Result<(), StoreError> {
        let Some(Late { content, from, seen }) = self.keeper.look_again()? else { return Ok(()) };
        self.keeper.seen = Some(seen);
        let (events, devices) = (content.events.len(), content.devices.len());
        self.restore(content, Left::Late);
        if from.is_some() {
            tracing::info!(events, devices, "what an earlier process left can be read now");
            let to = self.directory.chain.clone();
            let reason = "what it was could be read only after another had begun".to_owned();
            self.bridge_event(&BridgeEventKind::ChainReset { from, to, reason });
        }
        Ok(())
    }

    fn restore(&mut self, content: Content, left: Left) {
        if left == Left::Ended || (left == Left::GoesOn && content.leftovers) {
            self.stale_topics.look();
        }
        match left {
            Left::Late => self.outbox.restore_late(content.events, content.lost),
            Left::GoesOn | Left::Ended => self.outbox.restore(content.events, content.lost),
        }
        self.losses.restore(content.untold);
        self.publisher.clear_still(content.clearing);
        self.restore_gateways(content.gateways, content.devices, left);
        self.restore_desired(content.desired);
        self.tell_interrupted(content.intents);
    }

    /// Changes with steps that an earlier process had under way: told, and not resumed.
    fn tell_interrupted(&mut self, intents: Vec<(GatewayName, Vec<u8>)>) {
        for (gateway, note) in intents {
            self.outbox.note(Key::Intent(gateway.clone()), None);
            let Ok(intent) = serde_json::from_slice(&note) else { continue };
            tracing::warn!(%gateway, ?intent, "a change was cut short; look at its devices");
            self.bridge_event(&BridgeEventKind::CommandInterrupted { gateway, intent });
        }
    }

    /// What was known of configured gateways' devices goes on; what is at the broker of others is
    /// cleared.
    fn restore_gateways(
        &mut self,
        published: Vec<GatewayName>,
        devices: Vec<(GatewayName, DeviceId, Remembered)>,
        left: Left,
    ) {
        let mut gone: BTreeMap<GatewayName, Vec<DeviceId>> = BTreeMap::new();
        for (name, device_id, device) in devices {
            match self.directory.gateways.iter().position(|entry| entry.name == name) {
                Some(at) => self.restore_device(GatewayIndex(at), device_id, device, left),
                None if device.forgotten => {}
                None => {
                    self.outbox.remember(&name, device_id, &device.forget());
                    gone.entry(name).or_default().push(device_id);
                }
            }
        }
        for name in published {
            if !self.directory.gateways.iter().any(|entry| entry.name == name) {
                self.stale_topics.gateway_gone(name.clone());
                gone.entry(name).or_default();
            }
        }
        for (gateway, ids) in gone {
            tracing::info!(%gateway, devices = ids.len(), "not configured any more: forgotten");
            self.publisher.gateway_gone(&gateway, ids, &mut self.outbox);
        }
        for entry in &self.directory.gateways {
            self.outbox.note(Key::Gateway(entry.name.clone()), Some(&[]));
        }
    }

    fn restore_device(
        &mut self,
        gateway: GatewayIndex,
        device_id: DeviceId,
        device: Remembered,
        left: Left,
    ) {
        match left {
            Left::GoesOn => self.fleet.restore(self.clock.now(), gateway, device_id, device),
            // Of a chain that has ended, a forgotten device's place says nothing.
            Left::Ended | Left::Late if device.forgotten => {}
            Left::Ended => {
                let device = Remembered { seq: 0, ..device };
                self.fleet.restore(self.clock.now(), gateway, device_id, device);
            }
            Left::Late => {
                let mut out = std::mem::take(&mut self.out);
                self.fleet.recall(self.clock.steady(), gateway, device_id, device, &mut out);
                self.carry_out(&mut out, None);
                self.out = out;
            }
        }
    }
}
