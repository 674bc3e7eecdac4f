//! Reads model, firmware and MAC address of connected devices.
//!
//! A device is read once in each of its connections, one device of a gateway at a time and at a
//! limited rate. A failure never counts as an error of the device or the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;

use super::access::GatewayAccess;
use crate::fleet::{DeviceDetails, GatewayIndex};
use crate::gsdk::Error;
use crate::ids::DeviceId;
use crate::task::catch_panic;

/// Between two calls to a gateway: ten a second.
const INTERVAL: Duration = Duration::from_millis(100);
/// Until a device that failed, or a gateway without the call, is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// What a device has answered.
#[derive(Debug)]
pub(crate) struct DetailsRead {
    pub(crate) gateway: GatewayIndex,
    pub(crate) device_id: DeviceId,
    /// `None` if the task panicked.
    outcome: Option<Result<DeviceDetails, Error>>,
}

/// Reads the details of one gateway's devices.
#[derive(Debug)]
pub(crate) struct DetailsReader {
    index: GatewayIndex,
    access: GatewayAccess,
    schedule: Schedule,
    is_reading: bool,
    results: mpsc::Sender<DetailsRead>,
}

impl DetailsReader {
    pub(crate) fn new(
        index: GatewayIndex,
        access: GatewayAccess,
        results: mpsc::Sender<DetailsRead>,
    ) -> Self {
        let schedule = Schedule::new(Instant::now());
        Self { index, access, schedule, is_reading: false, results }
    }

    pub(crate) const fn link_up(&mut self) {
        self.schedule.link_up();
    }

    /// A device was connected or disconnected, or its state is no longer known.
    pub(crate) fn connection_changed(&mut self, device_id: DeviceId, connected: Option<bool>) {
        self.schedule.connection_changed(device_id, connected);
    }

    /// When the next device may be read.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.schedule.due().filter(|_| !self.is_reading && self.access.client().is_some())
    }

    /// Reads the next device if that is due.
    pub(crate) fn wake(&mut self, now: Instant) {
        if self.is_reading {
            return;
        }
        let Some(client) = self.access.client() else { return };
        let Some(device_id) = self.schedule.next(now) else { return };
        self.is_reading = true;
        let (gateway, results) = (self.index, self.results.clone());
        tokio::spawn(async move {
            let call = async move { client.device_details(device_id).await };
            let outcome = catch_panic(call).await.inspect_err(|panic| {
                tracing::error!(panic, "internal error: a task panicked; please report this");
            });
            // The receiver is gone when the process ends.
            _ = results.send(DetailsRead { gateway, device_id, outcome: outcome.ok() }).await;
        });
    }

    /// Handles an answer; returns the device's details.
    pub(crate) fn finished(&mut self, now: Instant, read: DetailsRead) -> Option<DeviceDetails> {
        self.is_reading = false;
        match read.outcome {
            Some(Ok(details)) => return Some(details),
            Some(Err(error)) if error.grpc_code() == Some(Code::Unimplemented) => {
                tracing::debug!(%error, "the gateway does not support reading device details");
                self.schedule.not_served(now, read.device_id);
            }
            outcome => {
                if let Some(Err(error)) = outcome {
                    tracing::debug!(%error, "cannot read the details of a device");
                }
                self.schedule.failed(now, read.device_id);
            }
        }
        None
    }
}

/// Which device is read next, and when.
#[derive(Debug)]
struct Schedule {
    /// Connected devices that have to be read.
    wanted: BTreeSet<DeviceId>,
    /// Devices that were read in their current connection; when again, for those that failed.
    attempts: BTreeMap<DeviceId, Option<Instant>>,
    retries: BTreeSet<(Instant, DeviceId)>,
    /// The last one that was read: all others precede it.
    last: Option<DeviceId>,
    next_at: Instant,
    /// Until when the gateway is not called, because it does not have the call.
    not_served_until: Option<Instant>,
}

impl Schedule {
    const fn new(now: Instant) -> Self {
        Self {
            wanted: BTreeSet::new(),
            attempts: BTreeMap::new(),
            retries: BTreeSet::new(),
            last: None,
            next_at: now,
            not_served_until: None,
        }
    }

    const fn link_up(&mut self) {
        self.not_served_until = None;
    }

    /// While a state is not known, the connection may be the same as before.
    fn connection_changed(&mut self, device_id: DeviceId, connected: Option<bool>) {
        match connected {
            Some(true) if !self.attempts.contains_key(&device_id) => {
                self.wanted.insert(device_id);
            }
            Some(true) | None => {}
            Some(false) => {
                self.wanted.remove(&device_id);
                if let Some(Some(retry_at)) = self.attempts.remove(&device_id) {
                    self.retries.remove(&(retry_at, device_id));
                }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let retry = self.retries.first().map(|(at, _)| *at);
        let wanted = (!self.wanted.is_empty()).then_some(self.next_at);
        let first = retry.into_iter().chain(wanted).min()?.max(self.next_at);
        Some(self.not_served_until.map_or(first, |until| first.max(until)))
    }

    /// The next device to read now, which counts as read.
    fn next(&mut self, now: Instant) -> Option<DeviceId> {
        if self.due()? > now {
            return None;
        }
        self.not_served_until = None;
        while let Some(&(_, device_id)) = self.retries.first().filter(|(at, _)| *at <= now) {
            self.retries.pop_first();
            self.wanted.insert(device_id);
        }
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.wanted.range((after, Bound::Unbounded)).next();
        let device_id = *next.or_else(|| self.wanted.first())?;
        self.wanted.remove(&device_id);
        self.attempts.insert(device_id, None);
        self.last = Some(device_id);
        self.next_at = now + INTERVAL;
        Some(device_id)
    }

    /// The device gave no answer: it is read again in its next connection, or after a day.
    fn failed(&mut self, now: Instant, device_id: DeviceId) {
        // It may have been disconnected meanwhile.
        if let Some(retry_at) = self.attempts.get_mut(&device_id) {
            let at = now + RETRY_AFTER;
            *retry_at = Some(at);
            self.retries.insert((at, device_id));
        }
    }

    /// The gateway does not have the call: it is tried again on its next link, or after a day.
    fn not_served(&mut self, now: Instant, device_id: DeviceId) {
        self.not_served_until = Some(now + RETRY_AFTER);
        if self.attempts.remove(&device_id).is_some() {
            self.wanted.insert(device_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u32) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    /// The devices read until nothing is due within a minute, with the milliseconds.
    fn reads(schedule: &mut Schedule, start: Instant) -> Vec<(u32, u128)> {
        let mut reads = Vec::new();
        while let Some(due) = schedule.due().filter(|due| *due < start + Duration::from_secs(60)) {
            let now = due.max(start);
            let device_id = schedule.next(now).unwrap();
            reads.push((device_id.get(), now.duration_since(start).as_millis()));
        }
        reads
    }

    #[test]
    fn a_device_is_read_once_in_each_connection_and_ten_a_second() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        for number in 1..=3 {
            schedule.connection_changed(id(number), Some(true));
        }
        assert_eq!(reads(&mut schedule, start), [(1, 0), (2, 100), (3, 200)]);
        let later = start + Duration::from_secs(100);
        schedule.connection_changed(id(2), Some(true));
        schedule.connection_changed(id(2), None);
        schedule.connection_changed(id(2), Some(true));
        assert_eq!(reads(&mut schedule, later), [], "the same connection");
        schedule.connection_changed(id(2), Some(false));
        assert_eq!(schedule.due(), None);
        schedule.connection_changed(id(2), Some(true));
        assert_eq!(reads(&mut schedule, later), [(2, 0)]);
    }

    #[test]
    fn a_device_that_connects_all_the_time_does_not_hold_up_the_others() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        (1..=3).for_each(|number| schedule.connection_changed(id(number), Some(true)));
        let mut order = Vec::new();
        for turn in 0..4 {
            order.push(schedule.next(start + INTERVAL * turn).unwrap().get());
            schedule.connection_changed(id(1), Some(false));
            schedule.connection_changed(id(1), Some(true));
        }
        assert_eq!(order, [1, 2, 3, 1]);
    }

    #[test]
    fn a_failure_waits_for_the_next_connection_or_a_day() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        (1..=2).for_each(|number| schedule.connection_changed(id(number), Some(true)));
        for number in [1, 2] {
            let now = schedule.due().unwrap();
            assert_eq!(schedule.next(now), Some(id(number)));
            schedule.failed(now, id(number));
        }
        assert_eq!(schedule.due(), Some(start + RETRY_AFTER));
        schedule.connection_changed(id(1), Some(false));
        schedule.connection_changed(id(1), Some(true));
        assert_eq!(reads(&mut schedule, start + INTERVAL * 2), [(1, 0)]);
        assert_eq!(schedule.due(), Some(start + INTERVAL + RETRY_AFTER), "device 2");
        assert_eq!(reads(&mut schedule, start + INTERVAL + RETRY_AFTER), [(2, 0)]);
        // It failed, and is gone before the failure is known.
        schedule.connection_changed(id(2), Some(false));
        schedule.failed(start, id(2));
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn a_gateway_without_the_call_is_not_called_until_its_next_link_or_a_day() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        (1..=2).for_each(|number| schedule.connection_changed(id(number), Some(true)));
        assert_eq!(schedule.next(start), Some(id(1)));
        schedule.not_served(start, id(1));
        schedule.connection_changed(id(3), Some(true));
        assert_eq!(schedule.due(), Some(start + RETRY_AFTER));
        assert_eq!(schedule.next(start + INTERVAL), None);
        schedule.link_up();
        let later = start + Duration::from_secs(10);
        assert_eq!(reads(&mut schedule, later), [(2, 0), (3, 100), (1, 200)]);
    }
}
