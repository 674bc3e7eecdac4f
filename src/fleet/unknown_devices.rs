//! Statuses of devices that are neither listed nor configured, held until the next list shows
//! whether the gateway has them, also if the link breaks before. Bounded, so that many dialing
//! devices cannot fill the memory. A device that the gateway refuses and that keeps dialing causes
//! one event and one list a minute.

use std::collections::BTreeMap;

use super::event::StatusReport;
use super::status::Status;
use crate::ids::{DeviceId, Moment};

/// Statuses held for one gateway: the devices of a full gateway (1,000), registered at once, make a
/// few changes each before the list is read.
const HELD_MAX: usize = 8_192;
/// How long after a device was found to be unlisted a status that was reported of it is not
/// reported again, in milliseconds.
const REPORTED_FOR_MS: i64 = 60_000;

#[derive(Debug, Default)]
pub(crate) struct UnknownDevices {
    held: BTreeMap<DeviceId, Vec<HeldStatus>>,
    len: usize,
    /// The statuses that were reported, at most one for each list, and until when repeats of them
    /// are only counted.
    reported: BTreeMap<(DeviceId, Status), Moment>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldStatus {
    pub(crate) report: StatusReport,
    /// The gateway's `stream_seq` at which it came.
    pub(crate) stream_seq: u64,
    /// Up to when the device was observed, if this is its last status on a link that has ended.
    pub(crate) observed_until: Option<Moment>,
}

/// The number of discarded statuses, and the one of them that is to be reported.
#[derive(Debug, Default)]
pub(crate) struct Discarded {
    pub(crate) count: u64,
    pub(crate) to_report: Option<(DeviceId, Status)>,
}

impl UnknownDevices {
    /// Whether a status shows nothing new, because it was reported a short time ago. A connection
    /// is always new: another client may have let the gateway accept the device.
    pub(crate) fn is_repeat(&self, device_id: DeviceId, report: &StatusReport) -> bool {
        let StatusReport { status, at, .. } = *report;
        let is_reported = self.reported.get(&(device_id, status)).is_some_and(|until| *until > at);
        is_reported && status.connected() != Some(true) && !self.held.contains_key(&device_id)
    }

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

    /// Discards the statuses that came up to this `stream_seq`: a list has not shown the devices.
    pub(crate) fn discard_until(&mut self, stream_seq: u64, now: Moment) -> Discarded {
        let mut discarded = Discarded::default();
        self.reported.retain(|_, until| *until > now);
        self.held.retain(|&device_id, statuses| {
            statuses.retain(|held| {
                let stays = held.stream_seq > stream_seq;
                if !stays {
                    discarded.count += 1;
                    let status = (device_id, held.report.status);
                    if !self.reported.contains_key(&status) {
                        discarded.to_report = Some(status);
                    }
                }
                stays
            });
            !statuses.is_empty()
        });
        self.len = self.held.values().map(Vec::len).sum();
        let until = now.plus(REPORTED_FOR_MS);
        self.reported.extend(discarded.to_report.map(|status| (status, until)));
        discarded
    }

    /// Discards everything; returns the number of statuses.
    pub(crate) fn discard_all(&mut self) -> u64 {
        u64::try_from(std::mem::take(self).len).unwrap_or(u64::MAX)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
