//! The rows of any sequence of observations neither overlap nor have gaps.

use proptest::prelude::*;

use super::*;

/// Something that happens, with the milliseconds until the next.
#[derive(Clone, Debug)]
enum Step {
    Device(u32, SpanState, i64, i64),
    Online,
    Lost(i64),
    ClockSet(i64),
    Kill { unwritten: bool, remembers: bool },
    StoreFailed,
    Removed,
}

fn steps() -> impl Strategy<Value = Vec<(Step, i64)>> {
    let state = prop::sample::select(vec![
        SpanState::Connected,
        SpanState::Disconnected,
        SpanState::Absent,
        SpanState::Unknown,
    ]);
    let step = prop_oneof![
        8 => (1..4_u32, state, 0..900_i64, 0..900_i64)
            .prop_map(|(id, state, until, from)| Step::Device(id, state, until, from)),
        3 => Just(Step::Online),
        2 => (0..5_000_i64).prop_map(Step::Lost),
        1 => (-60_000..60_000_i64).prop_map(Step::ClockSet),
        1 => any::<(bool, bool)>()
            .prop_map(|(unwritten, remembers)| Step::Kill { unwritten, remembers }),
        1 => Just(Step::StoreFailed),
        1 => Just(Step::Removed),
    ];
    prop::collection::vec((step, prop_oneof![Just(0_i64), 0..20_000_i64]), 0..60)
}

proptest! {
    #[test]
    fn rows_neither_overlap_nor_have_gaps(steps in steps()) {
        let mut fixture = Fixture::new();
        for (step, pause_ms) in steps {
            match step {
                Step::Device(id, state, until, from) => {
                    let (until, from) = (at(fixture.now - until), at(fixture.now - from));
                    fixture.apply(device(id, state, until, from));
                }
                Step::Online => fixture.online(),
                Step::Lost(ago_ms) => fixture.lost(ago_ms),
                Step::ClockSet(by_ms) => fixture.set_clock(by_ms),
                Step::Kill { unwritten, remembers } => {
                    if !unwritten {
                        fixture.advance(0);
                    }
                    fixture.start(&["lobby"]);
                    if remembers {
                        fixture.device(1, SpanState::Connected);
                    }
                }
                Step::StoreFailed => {
                    fixture.tracker.detach(UnobservedReason::StoreFailed);
                    fixture.attach();
                }
                Step::Removed => {
                    fixture.start(&[]);
                    fixture.advance(3_000);
                    fixture.start(&["lobby"]);
                }
            }
            fixture.advance(pause_ms);
            prop_assert_eq!(fixture.broken(), None, "{:?} {:?}", fixture.spans(),
                fixture.unobserved());
        }
    }
}
