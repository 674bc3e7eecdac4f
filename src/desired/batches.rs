//! Plans a provisioning round: which missing items are added in one step, so that a refused item
//! does not delay the others.
//!
//! The accept filter comes first, as it is one call for all devices; then registrations and slaves,
//! in batches. A refusal that may concern a single device halves its batch until that device is
//! isolated; then the largest remaining batch shows whether all of them fail. Any other refusal,
//! and too many in a row, postpone the rest of the same kind to the next round.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::state::{DesiredItem, DesiredState, ItemKind};

/// Items in one call.
const BATCH_SIZE: usize = 100;
/// Refusals of one kind in a row that end its round. Isolating one item of a batch takes eight;
/// more are probably trouble of the gateway itself.
const REFUSED_MAX: usize = 10;
/// Isolated items of one kind from earlier rounds that are tried again in one round.
const ISOLATED_MAX: usize = 8;

#[derive(Debug, Default)]
pub struct BatchPlanner {
    /// In the order of their kinds.
    open: VecDeque<Batch>,
    /// Refused alone: each stays alone, the one tried longest ago first.
    isolated: VecDeque<DesiredItem>,
    /// In a row.
    refused: BTreeMap<ItemKind, usize>,
    /// The last refusal isolated an item: the next step tries the largest batch.
    isolated_one: bool,
}

#[derive(Debug)]
struct Batch {
    kind: ItemKind,
    items: Vec<DesiredItem>,
}

impl BatchPlanner {
    /// Starts a round.
    pub fn start(&mut self, missing: &DesiredState) {
        self.isolated.retain(|item| missing.contains(*item));
        self.open.clear();
        for kind in ItemKind::ALL {
            let (isolated, others): (Vec<DesiredItem>, Vec<DesiredItem>) = missing
                .items()
                .filter(|item| item.kind() == kind)
                .partition(|item| self.isolated.contains(item));
            let size = if kind.is_one_call() { usize::MAX } else { BATCH_SIZE };
            let batches = others.chunks(size).map(<[DesiredItem]>::to_vec);
            let retried = self.next_isolated(&isolated).into_iter().map(|item| vec![item]);
            self.open.extend(batches.chain(retried).map(|items| Batch { kind, items }));
        }
        self.refused.clear();
        self.isolated_one = false;
    }

    /// The isolated items of one kind that are tried again in this round.
    fn next_isolated(&mut self, of_kind: &[DesiredItem]) -> Vec<DesiredItem> {
        let isolated = self.isolated.iter().copied().filter(|item| of_kind.contains(item));
        let next: Vec<DesiredItem> = isolated.take(ISOLATED_MAX).collect();
        self.isolated.retain(|item| !next.contains(item));
        self.isolated.extend(&next);
        next
    }

    /// The items of the next step, all of one kind, as far as they are still missing; `None` when
    /// the round is over.
    pub fn next(&mut self, missing: &DesiredState) -> Option<DesiredState> {
        loop {
            let step = missing.only(&self.next_batch()?.items);
            if !step.is_empty() {
                return Some(step);
            }
        }
    }

    fn next_batch(&mut self) -> Option<Batch> {
        if !std::mem::take(&mut self.isolated_one) {
            return self.open.pop_front();
        }
        let kind = self.open.front()?.kind;
        let same = self.open.iter().enumerate().take_while(|(_, batch)| batch.kind == kind);
        let (largest, _) = same.max_by_key(|(at, batch)| (batch.items.len(), Reverse(*at)))?;
        self.open.remove(largest)
    }

    /// These items were added, or found at the gateway.
    pub fn provisioned(&mut self, items: &BTreeSet<DesiredItem>) {
        self.isolated.retain(|item| !items.contains(item));
        for item in items {
            self.refused.remove(&item.kind());
        }
    }

    /// A step with these items failed. `maybe_single`: perhaps because of a single device. Returns
    /// the items that are postponed to the next round.
    pub fn failed(
        &mut self,
        items: &BTreeSet<DesiredItem>,
        maybe_single: bool,
    ) -> BTreeSet<DesiredItem> {
        let mut postponed = BTreeSet::new();
        let Some(kind) = items.first().map(|item| item.kind()) else { return postponed };
        let maybe_single = maybe_single && !kind.is_one_call();
        let batch: Vec<DesiredItem> = items.iter().copied().collect();
        match batch.as_slice() {
            [item] if maybe_single => {
                if !self.isolated.contains(item) {
                    self.isolated.push_back(*item);
                }
                postponed.insert(*item);
                self.isolated_one = true;
            }
            batch if maybe_single => {
                let (first, second) = batch.split_at(batch.len() / 2);
                for half in [second, first] {
                    self.open.push_front(Batch { kind, items: half.to_vec() });
                }
            }
            batch => postponed.extend(batch),
        }
        let refused = self.refused.entry(kind).or_default();
        *refused += 1;
        if !maybe_single || *refused >= REFUSED_MAX {
            let rest = self.open.iter().filter(|batch| batch.kind == kind);
            postponed.extend(rest.flat_map(|batch| &batch.items));
            self.open.retain(|batch| batch.kind != kind);
        }
        postponed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{Slaves, Target};
    use crate::ids::DeviceId;

    fn ids(numbers: std::ops::RangeInclusive<u32>) -> Vec<DeviceId> {
        numbers.filter_map(DeviceId::new).collect()
    }

    /// The registrations of these devices.
    fn registrations(numbers: std::ops::RangeInclusive<u32>) -> BTreeSet<DesiredItem> {
        ids(numbers).into_iter().map(DesiredItem::Registered).collect()
    }

    fn slaves(numbers: std::ops::RangeInclusive<u32>) -> BTreeSet<DesiredItem> {
        ids(numbers).into_iter().map(DesiredItem::Slaves).collect()
    }

    fn state(items: &BTreeSet<DesiredItem>) -> DesiredState {
        let mut state = DesiredState::default();
        for item in items {
            match *item {
                DesiredItem::Registered(id) => {
                    let target = Target { ip: [10, 0, 0, 1].into(), port: 51_211, ssl: false };
                    state.registered.insert(id, target);
                }
                DesiredItem::Accepted(id) => _ = state.accepted.insert(id),
                DesiredItem::AllowAll => state.allow_all = true,
                DesiredItem::Slaves(device_id) => {
                    let slaves = Slaves { device_id, rs485: vec![], wiegand: vec![] };
                    state.slaves.insert(device_id, slaves);
                }
            }
        }
        state
    }

    fn next(planner: &mut BatchPlanner, missing: &DesiredState) -> Option<BTreeSet<DesiredItem>> {
        planner.next(missing).map(|step| step.items().collect())
    }

    /// Runs a round against a gateway that refuses every step with one of `bad` in it. Returns the
    /// number of steps, the added items and the postponed ones.
    fn run_round(
        planner: &mut BatchPlanner,
        missing: &BTreeSet<DesiredItem>,
        bad: &BTreeSet<DesiredItem>,
    ) -> (usize, BTreeSet<DesiredItem>, BTreeSet<DesiredItem>) {
        let (mut steps, mut added, mut postponed) = (0, BTreeSet::new(), BTreeSet::new());
        let missing = state(missing);
        planner.start(&missing);
        while let Some(batch) = next(planner, &missing) {
            steps += 1;
            if batch.is_disjoint(bad) {
                planner.provisioned(&batch);
                added.extend(batch);
            } else {
                postponed.extend(planner.failed(&batch, true));
            }
        }
        (steps, added, postponed)
    }

    #[test]
    fn the_filter_is_one_step_and_the_batches_of_the_other_kinds_have_100_items() {
        let mut planner = BatchPlanner::default();
        let mut missing = &registrations(1..=250) | &slaves(1..=101);
        missing.extend(ids(1..=250).into_iter().map(DesiredItem::Accepted));
        missing.insert(DesiredItem::AllowAll);
        let wanted = state(&missing);
        planner.start(&wanted);
        let steps = std::iter::from_fn(|| next(&mut planner, &wanted));
        let steps: Vec<_> =
            steps.map(|step| (step.first().unwrap().kind().what(), step.len())).collect();
        let (registered, slaves) = ("async_connections", "slaves");
        let batches =
            [(registered, 100), (registered, 100), (registered, 50), (slaves, 100), (slaves, 1)];
        assert_eq!(steps, [&[("accept_filter", 251)], &batches[..]].concat());
    }

    #[test]
    fn items_that_are_not_missing_any_more_are_omitted() {
        let mut planner = BatchPlanner::default();
        planner.start(&state(&registrations(1..=250)));
        let missing = registrations(150..=160);
        assert_eq!(next(&mut planner, &state(&missing)), Some(missing));
        assert_eq!(planner.next(&DesiredState::default()), None);
    }

    #[test]
    fn a_refused_item_is_isolated_at_any_position_and_remains_isolated() {
        let all = registrations(1..=200);
        for at in 1..=200 {
            let (mut planner, bad) = (BatchPlanner::default(), registrations(at..=at));
            let (steps, added, postponed) = run_round(&mut planner, &all, &bad);
            assert_eq!((&postponed, added.len()), (&bad, 199), "{at}");
            assert!(steps <= 16, "{at}: {steps}");
            let (steps, _, postponed) = run_round(&mut planner, &bad, &bad);
            assert_eq!((steps, &postponed), (1, &bad), "{at}");
            // It stays isolated beside others that go missing.
            let (steps, added, _) = run_round(&mut planner, &all, &bad);
            assert_eq!((steps, added.len()), (3, 199), "{at}");
            let (steps, added, postponed) = run_round(&mut planner, &bad, &BTreeSet::new());
            assert_eq!((steps, added, postponed.len()), (1, bad, 0), "{at}");
        }
    }

    #[test]
    fn many_refused_items_do_not_hold_up_those_behind_them() {
        for bad in [registrations(1..=20), registrations(31..=50), registrations(81..=100)] {
            let mut planner = BatchPlanner::default();
            let (steps, added, _) = run_round(&mut planner, &registrations(1..=100), &bad);
            assert!(added.len() >= 75 && steps <= 30, "{} added in {steps} steps", added.len());
        }
    }

    #[test]
    fn many_refused_items_are_isolated_within_some_rounds() {
        let (mut planner, bad) = (BatchPlanner::default(), registrations(31..=50));
        let mut missing = registrations(1..=100);
        for _ in 0..10 {
            let (steps, added, postponed) = run_round(&mut planner, &missing, &bad);
            assert!(steps <= 60, "{steps}");
            missing.retain(|item| !added.contains(item));
            assert_eq!(missing, &postponed | &missing);
        }
        assert_eq!(missing, bad);
    }

    #[test]
    fn a_refusal_that_concerns_no_single_device_ends_the_round() {
        let (mut planner, all) = (BatchPlanner::default(), registrations(1..=250));
        planner.start(&state(&all));
        let batch = next(&mut planner, &state(&all)).unwrap();
        assert_eq!(planner.failed(&batch, false), all);
        assert_eq!(next(&mut planner, &state(&all)), None);
        let (steps, added, postponed) = run_round(&mut planner, &all, &all);
        assert_eq!((steps, added.len(), postponed), (REFUSED_MAX, 0, all));
    }

    #[test]
    fn refused_items_of_one_kind_do_not_hold_up_those_of_another() {
        let (mut planner, bad) = (BatchPlanner::default(), registrations(1..=250));
        let all = &(&bad | &slaves(1..=250)) | &[DesiredItem::AllowAll].into();
        for round in 1..=3 {
            let (steps, added, postponed) = run_round(&mut planner, &all, &bad);
            assert_eq!((added.len(), &postponed), (251, &bad), "round {round}: {steps} steps");
        }
        // A filter that is refused is neither split nor isolated.
        let filter = [DesiredItem::AllowAll, DesiredItem::Accepted(ids(1..=1)[0])].into();
        let (steps, _, postponed) = run_round(&mut planner, &filter, &filter);
        assert_eq!((steps, postponed), (1, filter));
    }
}
