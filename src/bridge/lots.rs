//! Which devices go into one call, so that one of them that is refused holds up no other. Pure.
//!
//! May not call a gateway. A refusal that may be about a single device halves its lot until that
//! one stands alone; then the largest lot left shows whether all fail. Any other refusal, and too
//! many in a row, leave the rest to the next round.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::DeviceId;

/// Devices in one call.
const LOT: usize = 100;
/// Refusals in a row that end a round. One device alone in a lot takes eight; so many more are
/// rather the gateway's own trouble.
const REFUSED_MAX: usize = 10;
/// Devices that were refused alone before and are tried again in one round.
const ALONE_MAX: usize = 8;

/// What is to be given in one round, and who was refused alone in those before.
#[derive(Debug, Default)]
pub(super) struct Lots {
    open: VecDeque<Vec<DeviceId>>,
    /// Refused alone: each stays alone, the one tried longest ago first.
    alone: VecDeque<DeviceId>,
    /// In a row.
    refused: usize,
    /// One was just refused alone.
    doubt: bool,
}

impl Lots {
    /// A round begins: these are missing.
    pub(super) fn begin(&mut self, missing: &BTreeSet<DeviceId>) {
        self.alone.retain(|id| missing.contains(id));
        let others: Vec<DeviceId> =
            missing.iter().filter(|id| !self.alone.contains(id)).copied().collect();
        self.open = others.chunks(LOT).map(<[DeviceId]>::to_vec).collect();
        let few = self.alone.len().min(ALONE_MAX);
        self.open.extend(self.alone.iter().take(few).map(|&id| vec![id]));
        self.alone.rotate_left(few);
        (self.refused, self.doubt) = (0, false);
    }

    /// Those of the next call; none when the round is over.
    pub(super) fn next(&mut self) -> Option<Vec<DeviceId>> {
        if std::mem::take(&mut self.doubt) {
            let largest = self.open.iter().map(Vec::len).max()?;
            let at = self.open.iter().position(|lot| lot.len() == largest)?;
            return self.open.remove(at);
        }
        self.open.pop_front()
    }

    /// These were given.
    pub(super) fn given(&mut self, ids: &BTreeSet<DeviceId>) {
        if !ids.is_empty() {
            self.refused = 0;
            self.alone.retain(|id| !ids.contains(id));
        }
    }

    /// A call with these was refused. Gives those that have to wait for the next round.
    pub(super) fn refused(
        &mut self,
        ids: &BTreeSet<DeviceId>,
        maybe_one: bool,
    ) -> BTreeSet<DeviceId> {
        self.refused += 1;
        let lot: Vec<DeviceId> = ids.iter().copied().collect();
        let mut waiting = BTreeSet::new();
        match lot.as_slice() {
            [id] if maybe_one => {
                if !self.alone.contains(id) {
                    self.alone.push_back(*id);
                }
                waiting.insert(*id);
                self.doubt = true;
            }
            lot if maybe_one => {
                let (first, second) = lot.split_at(lot.len() / 2);
                self.open.push_front(second.to_vec());
                self.open.push_front(first.to_vec());
            }
            lot => waiting.extend(lot),
        }
        if !maybe_one || self.refused >= REFUSED_MAX {
            waiting.extend(self.open.drain(..).flatten());
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: std::ops::RangeInclusive<u32>) -> BTreeSet<DeviceId> {
        numbers.filter_map(DeviceId::new).collect()
    }

    /// Plays a round against a gateway that refuses every call with one of `bad` in it. Gives the
    /// calls, those given, and those that wait.
    fn play(
        lots: &mut Lots,
        missing: &BTreeSet<DeviceId>,
        bad: &BTreeSet<DeviceId>,
    ) -> (usize, BTreeSet<DeviceId>, BTreeSet<DeviceId>) {
        let (mut calls, mut given, mut waiting) = (0, BTreeSet::new(), BTreeSet::new());
        lots.begin(missing);
        while let Some(lot) = lots.next() {
            calls += 1;
            let lot: BTreeSet<DeviceId> = lot.into_iter().collect();
            if lot.is_disjoint(bad) {
                lots.given(&lot);
                given.extend(lot);
            } else {
                waiting.extend(lots.refused(&lot, true));
            }
        }
        (calls, given, waiting)
    }

    #[test]
    fn lots_are_of_100() {
        let mut lots = Lots::default();
        let (calls, given, _) = play(&mut lots, &ids(1..=250), &BTreeSet::new());
        assert_eq!((calls, given), (3, ids(1..=250)));
    }

    #[test]
    fn one_that_is_refused_is_found_wherever_it_stands_and_stays_alone() {
        for at in 1..=200 {
            let (mut lots, bad) = (Lots::default(), ids(at..=at));
            let (calls, given, waiting) = play(&mut lots, &ids(1..=200), &bad);
            assert_eq!((&waiting, given.len()), (&bad, 199), "{at}");
            assert!(calls <= 16, "{at}: {calls}");
            let (calls, _, waiting) = play(&mut lots, &bad, &bad);
            assert_eq!((calls, &waiting), (1, &bad), "{at}");
            // Beside others that go missing it stays alone.
            let (calls, given, _) = play(&mut lots, &ids(1..=200), &bad);
            assert_eq!((calls, given.len()), (3, 199), "{at}");
            let (calls, given, waiting) = play(&mut lots, &bad, &BTreeSet::new());
            assert_eq!((calls, given, waiting.len()), (1, bad, 0), "{at}");
        }
    }

    #[test]
    fn those_behind_many_that_are_refused_do_not_wait_for_them() {
        for bad in [ids(1..=20), ids(31..=50), ids(81..=100)] {
            let mut lots = Lots::default();
            let (calls, given, _) = play(&mut lots, &ids(1..=100), &bad);
            assert!(given.len() >= 75 && calls <= 30, "{} given in {calls} calls", given.len());
        }
    }

    #[test]
    fn many_that_are_refused_are_all_found_in_some_rounds() {
        let (mut lots, bad) = (Lots::default(), ids(31..=50));
        let mut missing = ids(1..=100);
        for _ in 0..10 {
            let (calls, given, waiting) = play(&mut lots, &missing, &bad);
            assert!(calls <= 60, "{calls}");
            missing.retain(|id| !given.contains(id));
            assert_eq!(missing, &waiting | &missing);
        }
        assert_eq!(missing, bad);
    }

    #[test]
    fn what_is_no_single_devices_fault_ends_the_round() {
        let mut lots = Lots::default();
        lots.begin(&ids(1..=250));
        let lot = lots.next().unwrap().into_iter().collect();
        assert_eq!(lots.refused(&lot, false), ids(1..=250));
        assert_eq!(lots.next(), None);
        let (calls, given, waiting) = play(&mut lots, &ids(1..=250), &ids(1..=250));
        assert_eq!((calls, given.len(), waiting), (REFUSED_MAX, 0, ids(1..=250)));
    }
}
