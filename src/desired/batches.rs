//! Plans which devices are registered in one provisioning call, so that a refused device does not
//! delay the others.
//!
//! A refusal that may concern a single device halves its batch until that device is isolated; then
//! the largest remaining batch shows whether all of them fail. Any other refusal, and too many in a
//! row, postpone the rest to the next round.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::DeviceId;

/// Devices in one call.
const BATCH_SIZE: usize = 100;
/// Refusals in a row that end a round. Isolating one device of a batch takes eight; more are
/// probably trouble of the gateway itself.
const REFUSED_MAX: usize = 10;
/// Isolated devices of earlier rounds that are tried again in one round.
const ISOLATED_MAX: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct BatchPlanner {
    open: VecDeque<Vec<DeviceId>>,
    /// Refused alone: each stays alone, the one tried longest ago first.
    isolated: VecDeque<DeviceId>,
    /// In a row.
    refused: usize,
    /// The last refusal isolated a device: the next call tries the largest batch.
    isolated_one: bool,
}

impl BatchPlanner {
    /// Starts a round with the devices that are missing.
    pub(crate) fn start(&mut self, missing: &BTreeSet<DeviceId>) {
        self.isolated.retain(|id| missing.contains(id));
        let others: Vec<DeviceId> =
            missing.iter().filter(|id| !self.isolated.contains(id)).copied().collect();
        self.open = others.chunks(BATCH_SIZE).map(<[DeviceId]>::to_vec).collect();
        let retried = self.isolated.len().min(ISOLATED_MAX);
        self.open.extend(self.isolated.iter().take(retried).map(|&id| vec![id]));
        self.isolated.rotate_left(retried);
        (self.refused, self.isolated_one) = (0, false);
    }

    /// The devices of the next call; `None` when the round is over.
    pub(crate) fn next(&mut self) -> Option<Vec<DeviceId>> {
        if std::mem::take(&mut self.isolated_one) {
            let largest = self.open.iter().map(Vec::len).max()?;
            let at = self.open.iter().position(|batch| batch.len() == largest)?;
            return self.open.remove(at);
        }
        self.open.pop_front()
    }

    pub(crate) fn accepted(&mut self, ids: &BTreeSet<DeviceId>) {
        if !ids.is_empty() {
            self.refused = 0;
            self.isolated.retain(|id| !ids.contains(id));
        }
    }

    /// A call was refused. Returns the devices that are postponed to the next round.
    pub(crate) fn refused(
        &mut self,
        ids: &BTreeSet<DeviceId>,
        maybe_single: bool,
    ) -> BTreeSet<DeviceId> {
        self.refused += 1;
        let batch: Vec<DeviceId> = ids.iter().copied().collect();
        let mut postponed = BTreeSet::new();
        match batch.as_slice() {
            [id] if maybe_single => {
                if !self.isolated.contains(id) {
                    self.isolated.push_back(*id);
                }
                postponed.insert(*id);
                self.isolated_one = true;
            }
            batch if maybe_single => {
                let (first, second) = batch.split_at(batch.len() / 2);
                self.open.push_front(second.to_vec());
                self.open.push_front(first.to_vec());
            }
            batch => postponed.extend(batch),
        }
        if !maybe_single || self.refused >= REFUSED_MAX {
            postponed.extend(self.open.drain(..).flatten());
        }
        postponed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: std::ops::RangeInclusive<u32>) -> BTreeSet<DeviceId> {
        numbers.filter_map(DeviceId::new).collect()
    }

    /// Runs a round against a gateway that refuses every call with one of `bad` in it. Returns the
    /// calls, the accepted devices and the postponed ones.
    fn run_round(
        planner: &mut BatchPlanner,
        missing: &BTreeSet<DeviceId>,
        bad: &BTreeSet<DeviceId>,
    ) -> (usize, BTreeSet<DeviceId>, BTreeSet<DeviceId>) {
        let (mut calls, mut accepted, mut postponed) = (0, BTreeSet::new(), BTreeSet::new());
        planner.start(missing);
        while let Some(batch) = planner.next() {
            calls += 1;
            let batch: BTreeSet<DeviceId> = batch.into_iter().collect();
            if batch.is_disjoint(bad) {
                planner.accepted(&batch);
                accepted.extend(batch);
            } else {
                postponed.extend(planner.refused(&batch, true));
            }
        }
        (calls, accepted, postponed)
    }

    #[test]
    fn batches_have_100_devices() {
        let mut planner = BatchPlanner::default();
        let (calls, accepted, _) = run_round(&mut planner, &ids(1..=250), &BTreeSet::new());
        assert_eq!((calls, accepted), (3, ids(1..=250)));
    }

    #[test]
    fn a_refused_device_is_isolated_at_any_position_and_remains_isolated() {
        for at in 1..=200 {
            let (mut planner, bad) = (BatchPlanner::default(), ids(at..=at));
            let (calls, accepted, postponed) = run_round(&mut planner, &ids(1..=200), &bad);
            assert_eq!((&postponed, accepted.len()), (&bad, 199), "{at}");
            assert!(calls <= 16, "{at}: {calls}");
            let (calls, _, postponed) = run_round(&mut planner, &bad, &bad);
            assert_eq!((calls, &postponed), (1, &bad), "{at}");
            // It stays isolated beside others that go missing.
            let (calls, accepted, _) = run_round(&mut planner, &ids(1..=200), &bad);
            assert_eq!((calls, accepted.len()), (3, 199), "{at}");
            let (calls, accepted, postponed) = run_round(&mut planner, &bad, &BTreeSet::new());
            assert_eq!((calls, accepted, postponed.len()), (1, bad, 0), "{at}");
        }
    }

    #[test]
    fn many_refused_devices_do_not_hold_up_those_behind_them() {
        for bad in [ids(1..=20), ids(31..=50), ids(81..=100)] {
            let mut planner = BatchPlanner::default();
            let (calls, accepted, _) = run_round(&mut planner, &ids(1..=100), &bad);
            assert!(
                accepted.len() >= 75 && calls <= 30,
                "{} accepted in {calls} calls",
                accepted.len()
            );
        }
    }

    #[test]
    fn many_refused_devices_are_isolated_within_some_rounds() {
        let (mut planner, bad) = (BatchPlanner::default(), ids(31..=50));
        let mut missing = ids(1..=100);
        for _ in 0..10 {
            let (calls, accepted, postponed) = run_round(&mut planner, &missing, &bad);
            assert!(calls <= 60, "{calls}");
            missing.retain(|id| !accepted.contains(id));
            assert_eq!(missing, &postponed | &missing);
        }
        assert_eq!(missing, bad);
    }

    #[test]
    fn a_refusal_that_concerns_no_single_device_ends_the_round() {
        let mut planner = BatchPlanner::default();
        planner.start(&ids(1..=250));
        let batch = planner.next().unwrap().into_iter().collect();
        assert_eq!(planner.refused(&batch, false), ids(1..=250));
        assert_eq!(planner.next(), None);
        let (calls, accepted, postponed) = run_round(&mut planner, &ids(1..=250), &ids(1..=250));
        assert_eq!((calls, accepted.len(), postponed), (REFUSED_MAX, 0, ids(1..=250)));
    }
}
