//! Property test: after any sequence of writes, kills and stops, all written records are read.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Events(u8, u8),
    Gone(usize),
    Lost(usize, u64),
    Device(u32, u64),
    DeviceGone(u32),
    Kill,
    Stop,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1..4u8, 0..3u8).prop_map(|(events, lost)| Op::Events(events, lost)),
        6 => any::<usize>().prop_map(Op::Gone),
        1 => (any::<usize>(), 1..9u64).prop_map(|(at, lost)| Op::Lost(at, lost)),
        4 => (1..20u32, 0..9u64).prop_map(|(id, seq)| Op::Device(id, seq)),
        1 => (1..20u32).prop_map(Op::DeviceGone),
        1 => Just(Op::Kill),
        1 => Just(Op::Stop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn written_records_are_read_after_any_sequence(
        ops in prop::collection::vec(op(), 1..120),
        segment_max in 100..2_000u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = with_segments_of(segment_max, created(dir.path()));
        let mut model = Held::default();
        let mut number = 0;
        for op in ops {
            let mut batch = LogBatch::default();
            let nth = |at: usize, model: &Held| {
                let count = model.0.len();
                (count > 0).then(|| *model.0.keys().nth(at % count).unwrap())
            };
            match op {
                Op::Events(events, lost) => for _ in 0..events {
                    number += 1;
                    let lost = u64::from(lost);
                    add_event(&mut batch, event(number));
                    super::tests::lost(&mut batch, number, lost);
                    model.0.insert(number, (lost, payload(number)));
                },
                Op::Gone(at) => if let Some(number) = nth(at, &model) {
                    delivered(&mut batch, number);
                    model.0.remove(&number);
                },
                Op::Lost(at, lost) => if let Some(number) = nth(at, &model) {
                    super::tests::lost(&mut batch, number, lost);
                    model.0.get_mut(&number).unwrap().0 = lost;
                },
                Op::Device(number, seq) => {
                    put_device(&mut batch, number, &device(seq));
                    model.1.insert(number, seq);
                }
                Op::DeviceGone(number) => {
                    batch.remove(Key::Device(lobby(), id(number)));
                    model.1.remove(&number);
                }
                Op::Kill => {
                    finish(&log);
                    drop(log);
                    let (again, held) = continues(dir.path());
                    prop_assert_eq!(&held, &model);
                    log = with_segments_of(segment_max, again);
                }
                Op::Stop => {
                    finish(&log);
                    log.stop().unwrap();
                    reboot(dir.path());
                    let (content, again) = open(dir.path());
                    prop_assert_eq!(&held(&content), &model);
                    prop_assert!(matches!(again, Recovery::Continue(_)), "stopped");
                    drop(again);
                    // It was not stopped before this restart.
                    reboot(dir.path());
                    _ = ends(dir.path());
                    let (next_id, records) = (content.next_id, records_of(&content));
                    let again = Log::create(dir.path(), false, "k7f3", next_id, 0, records);
                    log = with_segments_of(segment_max, again.unwrap());
                }
            }
            write(&mut log, &mut batch);
            let most = 2 * log.index.live_bytes() + 8 * segment_max + 4_096;
            let bytes = log.index.bytes();
            prop_assert!(bytes <= most, "{bytes} of {most}");
        }
    }
}

fn records_of(content: &LogContent) -> impl Iterator<Item = Record<'_>> {
    let events = content.events.values().map(|event| Record::Event(Cow::Borrowed(event)));
    let values = content.values.iter();
    events.chain(values.map(|(key, value)| Record::Put(key.clone(), value.into())))
}
