//! A gateway's list against what is known: which differences are believed, and when.
//!
//! May not ask for lists (`gateway` does). List and stream have no common order, so the order of
//! the core's inputs decides: the request's own mark went through the same queue as the stream.
//! For a device the stream has not spoken of since that mark, the first list of a link is believed
//! at once; every other difference only when a second list shows it again and the stream was
//! silent about that device all the while (design, decision 2).

use super::Output;
use super::device::{Device, Suspect};
use super::event::{GatewayEvent, Source};
use super::gateway::{Gateway, SECOND_LOOK_MS};
use super::listed::Listed;
use super::status::Status;
use crate::ids::{DeviceId, Moment};

impl Gateway {
    /// Takes a list in. One that was not asked for, or whose link is gone, says nothing.
    pub(super) fn list(&mut self, now: Moment, rows: Vec<Listed>, out: &mut Vec<Output>) {
        let Some(asked_at) = self.listing else { return };
        let first = !self.synced;
        self.list_number += 1;
        self.count_absence(now, out);
        let mut corrected = 0;
        for row in rows {
            corrected += self.row(now, row, asked_at, first, out);
        }
        corrected += self.missing(now, asked_at, first, out);
        self.turn_strangers_away(asked_at, out);
        if first {
            self.come_alive(now, out);
        }
        self.forget_absent(out);
        if corrected > 0 {
            self.counts.corrections += corrected;
            let event = GatewayEvent::Corrected { count: corrected };
            out.push(Output::GatewayEvent(self.index, event));
        }
        let look_again = self.devices.values().any(|device| device.suspect.is_some());
        self.list_done(now, look_again, out);
    }

    fn row(
        &mut self,
        now: Moment,
        row: Listed,
        asked_at: u64,
        first: bool,
        out: &mut Vec<Output>,
    ) -> u64 {
        let Listed { device_id, status, info } = row;
        let (number, shown, live) = (self.list_number, self.shown(now), self.live);
        let known = self.devices.contains_key(&device_id);
        let past = if known { None } else { self.past.remove(&device_id) };
        let kept = self.kept.contains(&device_id);
        let device = self.devices.entry(device_id);
        let device = device.or_insert_with(|| Device::undeclared(shown, kept));
        if let Some(past) = past {
            device.restore(past);
        }
        device.listed_in = number;
        let told_before = (device.managed, device.info);
        device.set_managed(true);
        if live {
            device.start_observing(now);
        }
        device.info = Some(info);
        if told_before != (true, Some(info)) {
            device.updated_at = shown;
            self.state_changed(device_id, out);
        }
        if !known {
            self.let_in(device_id, out);
        }
        self.compare(now, device_id, Some(status), asked_at, first, out)
    }

    /// Devices that the list lacks: never seen ones are disconnected, the others have left it.
    fn missing(&mut self, now: Moment, asked_at: u64, first: bool, out: &mut Vec<Output>) -> u64 {
        let (number, shown, frozen_at) = (self.list_number, self.shown(now), self.frozen_at);
        let missing = |device: &Device| device.listed_in != number;
        let settled = |device: &Device| !device.managed && device.agrees(None);
        let ids: Vec<DeviceId> = self
            .devices
            .iter()
            .filter(|(_, device)| missing(device) && !settled(device))
            .map(|(&device_id, _)| device_id)
            .collect();
        let mut corrected = 0;
        for device_id in ids {
            corrected += self.compare(now, device_id, None, asked_at, first, out);
            let Some(device) = self.devices.get_mut(&device_id) else { continue };
            // One that still counts as connected keeps its place until the second look.
            if device.managed && device.agrees(None) {
                device.set_managed(false);
                if !device.expected() {
                    device.seconds.stop(frozen_at.unwrap_or(now), device.connected());
                }
                device.updated_at = shown;
                self.state_changed(device_id, out);
            }
        }
        corrected
    }

    /// Compares one device; returns 1 where an audit's difference was believed.
    fn compare(
        &mut self,
        now: Moment,
        device_id: DeviceId,
        listed: Option<Status>,
        asked_at: u64,
        first: bool,
        out: &mut Vec<Output>,
    ) -> u64 {
        let (frozen_at, seen_at, shown) = (self.frozen_at, self.heard, self.shown(now));
        let Some(device) = self.devices.get_mut(&device_id) else { return 0 };
        let status = listed.unwrap_or(Status::Disconnected);
        if device.status.is_none() {
            device.first_seen(shown, status);
            if self.live {
                device.start_observing(now);
            }
            self.state_changed(device_id, out);
            return 0;
        }
        if device.agrees(listed) {
            device.suspect = None;
            return 0;
        }
        let silent_since = |mark: u64| device.spoke_at <= mark;
        let source = if first { Source::Resync } else { Source::Audit };
        let believed = match device.suspect {
            _ if first && silent_since(asked_at) => Some(source),
            Some(before) if before.listed == listed && silent_since(before.seen_at) => {
                if now.since(before.at) < SECOND_LOOK_MS {
                    return 0;
                }
                Some(before.source)
            }
            _ => None,
        };
        let Some(source) = believed else {
            device.suspect = Some(Suspect { listed, at: now, seen_at, source });
            return 0;
        };
        let change = device.change(now, shown, status, source, frozen_at);
        self.tell(device_id, change, status, shown, now, source, out);
        u64::from(source == Source::Audit)
    }

    /// A stranger has been found in the list: what the stream said of it until now is its history.
    fn let_in(&mut self, device_id: DeviceId, out: &mut Vec<Output>) {
        for word in self.strangers.take(device_id) {
            let Some(device) = self.devices.get_mut(&device_id) else { return };
            device.spoke_at = word.heard;
            if device.repeats(word.status) {
                device.count_failure(word.status);
                self.counts.repeated += 1;
                continue;
            }
            let (status, source, at) = (word.status, Source::Stream, word.received_at);
            let change = device.change(at, at.plus(self.ahead_ms), status, source, None);
            self.tell(device_id, change, status, word.timestamp, word.received_at, source, out);
        }
    }

    /// Strangers that were heard before the list was asked for, and are not in it.
    fn turn_strangers_away(&mut self, asked_at: u64, out: &mut Vec<Output>) {
        let turned_away = self.strangers.drop_heard_until(asked_at);
        self.counts.strangers += turned_away.count;
        if let Some((device_id, status)) = turned_away.last {
            let event = GatewayEvent::Stranger { device_id, status };
            out.push(Output::GatewayEvent(self.index, event));
        }
        if !self.strangers.is_empty() {
            self.list_wanted = true;
        }
    }
}
