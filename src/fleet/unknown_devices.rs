//! Statuses of devices that are neither listed nor configured, held until the next list shows
//! whether the gateway has them, also if the link breaks before. Bounded, so that many dialing
//! devices cannot fill the memory.

use std::collections::BTreeMap;

use super::event::StatusReport;
use super::status::Status;
use crate::ids::{DeviceId, Moment};

/// Statuses held for one gateway: the devices of a full gateway (1,000), registered at once, make a
/// few changes each before the list is read.
const HELD_MAX: usize = 8_192;

#[derive(Debug, Default)]
pub(crate) struct UnknownDevices {
    held: BTreeMap<DeviceId, Vec<HeldStatus>>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldStatus {
    pub(crate) report: StatusReport,
    /// The gateway's `stream_seq` at which it came.
    pub(crate) stream_seq: u64,
    /// Up to when the device was observed, if this is its last status on a link that has ended.
    pub(crate) observed_until: Option<Moment>,
}

/// The number of discarded statuses, and the last of them.
#[derive(Debug, Default)]
pub(crate) struct Discarded {
    pub(crate) count: u64,
    pub(crate) last: Option<(DeviceId, Status)>,
}

impl UnknownDevices {
    /// Holds a status; false if there is no room.
    pub(crate) fn hold(
        &mut self,
        device_id: DeviceId,
        report: StatusReport,
        stream_seq: u64,
    ) -> bool {
        if self.len >= HELD_MAX {
            return false;
        }
        self.len += 1;
        let status = HeldStatus { report, stream_seq, observed_until: None };
        self.held.entry(device_id).or_default().push(status);
        true
    }

    /// The link has ended; nothing came after `last_activity`.
    pub(crate) fn end_link(&mut self, last_activity: Moment) {
        for last in self.held.values_mut().filter_map(|statuses| statuses.last_mut()) {
            last.observed_until.get_or_insert(last_activity.max(last.report.at));
        }
    }

    /// Takes the statuses of a device, in order.
    pub(crate) fn take(&mut self, device_id: DeviceId) -> Vec<HeldStatus> {
        let statuses = self.held.remove(&device_id).unwrap_or_default();
        self.len -= statuses.len();
        statuses
    }

    /// Discards the statuses that came up to this `stream_seq`.
    pub(crate) fn discard_until(&mut self, stream_seq: u64) -> Discarded {
        let mut discarded = Discarded::default();
        self.held.retain(|&device_id, statuses| {
            statuses.retain(|held| {
                let stays = held.stream_seq > stream_seq;
                if !stays {
                    discarded.count += 1;
                    discarded.last = Some((device_id, held.report.status));
                }
                stays
            });
            !statuses.is_empty()
        });
        self.len = self.held.values().map(Vec::len).sum();
        discarded
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
