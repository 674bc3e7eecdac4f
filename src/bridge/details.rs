//! Reads model, firmware and MAC address of connected devices.
//!
//! A device is read once in each of its connections, one device of a gateway at a time and at a
//! limited rate. A failure never counts as an error of the device or the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;

use super::access::GatewayAccess;
use crate::fleet::{DeviceDetails, GatewayIndex};
use crate::gsdk::Error;
use crate::ids::DeviceId;
use crate::task::log_panic;

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

    /// A gateway that has restarted may have the call.
    pub(crate) fn link_up(&mut self, now: Instant) {
        self.schedule.link_up(now);
    }

    /// A device was connected or disconnected, or its state is no longer known: then the connection
    /// may be the same as before.
    pub(crate) fn connection_changed(
        &mut self,
        now: Instant,
        device_id: DeviceId,
        connected: Option<bool>,
    ) {
        self.schedule.connection_changed(now, device_id, connected);
    }

    /// When the next device may be read.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.schedule.due().filter(|_| !self.is_reading && self.access.is_connected())
    }

    /// Reads the next device if that is due.
    pub(crate) fn wake(&mut self, now: Instant) {
        // Most gateways have nothing to read: their client is not cloned.
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        let Some(client) = self.access.client() else { return };
        let Some(device_id) = self.schedule.next(now) else { return };
        self.is_reading = true;
        let (gateway, results) = (self.index, self.results.clone());
        tokio::spawn(async move {
            let outcome = log_panic(client.device_details(device_id)).await;
            // The receiver is gone when the process ends.
            _ = results.send(DetailsRead { gateway, device_id, outcome }).await;
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
    /// Connected devices that have to be read, each not before this instant. Those that have waited
    /// longest come first.
    queue: BTreeSet<(Instant, DeviceId)>,
    /// Connected devices with their instant in the queue; `None` for one that was read in its
    /// current connection.
    connected: BTreeMap<DeviceId, Option<Instant>>,
    /// Until then the gateway is not called: a short time after each call, longer if it does not
    /// have the call.
    next_at: Instant,
}

impl Schedule {
    const fn new(now: Instant) -> Self {
        Self { queue: BTreeSet::new(), connected: BTreeMap::new(), next_at: now }
    }

    /// As [`DetailsReader::link_up`].
    fn link_up(&mut self, now: Instant) {
        self.next_at = self.next_at.min(now);
    }

    /// As [`DetailsReader::connection_changed`].
    fn connection_changed(&mut self, now: Instant, device_id: DeviceId, connected: Option<bool>) {
        match connected {
            Some(true) if !self.connected.contains_key(&device_id) => {
                self.connected.insert(device_id, None);
                self.enqueue(now, device_id);
            }
            Some(true) | None => {}
            Some(false) => {
                if let Some(Some(at)) = self.connected.remove(&device_id) {
                    self.queue.remove(&(at, device_id));
                }
            }
        }
    }

    /// Queues a device, unless it was disconnected or queued again meanwhile.
    fn enqueue(&mut self, at: Instant, device_id: DeviceId) {
        if let Some(queued_at @ None) = self.connected.get_mut(&device_id) {
            *queued_at = Some(at);
            self.queue.insert((at, device_id));
        }
    }

    fn due(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| self.next_at.max(*at))
    }

    /// The next device to read now, which counts as read.
    fn next(&mut self, now: Instant) -> Option<DeviceId> {
        if self.due()? > now {
            return None;
        }
        let (_, device_id) = self.queue.pop_first()?;
        self.connected.insert(device_id, None);
        self.next_at = now + INTERVAL;
        Some(device_id)
    }

    /// The device gave no answer: it is read again in its next connection, or after a day.
    fn failed(&mut self, now: Instant, device_id: DeviceId) {
        self.enqueue(now + RETRY_AFTER, device_id);
    }

    /// The gateway does not have the call: it is tried again on its next link, or after a day.
    fn not_served(&mut self, now: Instant, device_id: DeviceId) {
        self.next_at = now + RETRY_AFTER;
        self.enqueue(now, device_id);
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    fn id(id: u32) -> DeviceId {
        DeviceId::new(id).unwrap()
    }

    fn connect(schedule: &mut Schedule, now: Instant, numbers: RangeInclusive<u32>) {
        numbers.for_each(|number| schedule.connection_changed(now, id(number), Some(true)));
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
        connect(&mut schedule, start, 1..=3);
        assert_eq!(reads(&mut schedule, start), [(1, 0), (2, 100), (3, 200)]);
        let later = start + Duration::from_secs(100);
        for connected in [Some(true), None, Some(true)] {
            schedule.connection_changed(later, id(2), connected);
        }
        assert_eq!(reads(&mut schedule, later), [], "the same connection");
        schedule.connection_changed(later, id(2), Some(false));
        assert_eq!(schedule.due(), None);
        connect(&mut schedule, later, 2..=2);
        assert_eq!(reads(&mut schedule, later), [(2, 0)]);
    }

    #[test]
    fn a_device_that_connects_all_the_time_does_not_hold_up_the_others() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        connect(&mut schedule, start, 1..=3);
        let mut order = Vec::new();
        for turn in 1..=4 {
            let now = start + INTERVAL * turn;
            order.push(schedule.next(now).unwrap().get());
            schedule.connection_changed(now, id(1), Some(false));
            connect(&mut schedule, now, 1..=1);
        }
        assert_eq!(order, [1, 2, 3, 1]);
    }

    #[test]
    fn a_failure_waits_for_the_next_connection_or_a_day() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        connect(&mut schedule, start, 1..=2);
        for number in [1, 2] {
            let now = schedule.due().unwrap();
            assert_eq!(schedule.next(now), Some(id(number)));
            schedule.failed(now, id(number));
        }
        assert_eq!(schedule.due(), Some(start + RETRY_AFTER));
        let again = start + INTERVAL * 2;
        schedule.connection_changed(again, id(1), Some(false));
        connect(&mut schedule, again, 1..=1);
        assert_eq!(reads(&mut schedule, again), [(1, 0)]);
        assert_eq!(schedule.due(), Some(start + INTERVAL + RETRY_AFTER), "device 2");
        assert_eq!(reads(&mut schedule, start + INTERVAL + RETRY_AFTER), [(2, 0)]);
        // It failed, and is gone before the failure is known.
        schedule.connection_changed(again, id(2), Some(false));
        schedule.failed(again, id(2));
        assert_eq!(schedule.due(), None);
        // It is connected again before that.
        connect(&mut schedule, again, 2..=2);
        schedule.failed(again, id(2));
        assert_eq!(schedule.queue, [(again, id(2))].into());
    }

    #[test]
    fn a_gateway_without_the_call_is_not_called_until_its_next_link_or_a_day() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        connect(&mut schedule, start, 1..=2);
        assert_eq!(schedule.next(start), Some(id(1)));
        let answered = start + Duration::from_millis(10);
        connect(&mut schedule, answered, 3..=3);
        schedule.not_served(answered, id(1));
        assert_eq!(schedule.due(), Some(answered + RETRY_AFTER));
        assert_eq!(schedule.next(start + INTERVAL), None);
        let later = start + Duration::from_secs(10);
        schedule.link_up(later);
        assert_eq!(reads(&mut schedule, later), [(2, 0), (1, 100), (3, 200)]);
    }
}
