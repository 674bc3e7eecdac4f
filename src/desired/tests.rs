//! Missing and withdrawn items, and what a command of ours hides.

use super::*;
use crate::fleet::{DeviceInfo, DeviceType, Mode, Status, Target};

const NOW: Moment = Moment::from_millis(1_790_000_000_000);
/// When a second look confirms what was seen at [`NOW`].
const LATER: Moment = NOW.plus(SECOND_LOOK_MS);

fn id(number: u32) -> DeviceId {
    DeviceId::new(number).unwrap()
}

fn target() -> Target {
    Target { ip: [10, 0, 0, 1].into(), port: 51_211, ssl: false }
}

fn row(number: u32) -> Listed {
    let info = DeviceInfo {
        device_type: DeviceType::from_code(0),
        ip: None,
        port: 0,
        mode: Mode::ServerToDevice,
        ssl: false,
        auto_reconnect: true,
    };
    Listed { device_id: id(number), status: Status::TcpConnected, info }
}

fn filter(ids: &[u32]) -> AcceptFilter {
    AcceptFilter { device_ids: ids.iter().map(|&it| id(it)).collect(), ..AcceptFilter::default() }
}

fn of_filter(filter: AcceptFilter) -> ReadItems {
    ReadItems { filter: Some(filter), ..ReadItems::default() }
}

fn accepting(ids: &[u32]) -> ReadItems {
    of_filter(filter(ids))
}

fn declared() -> DesiredState {
    DesiredState {
        registered: [(id(1), target())].into(),
        accepted: [id(2)].into(),
        ..DesiredState::default()
    }
}

/// A link that is up, with every declared item provisioned and seen.
fn settled() -> Reconciler {
    let mut desired = Reconciler::new(declared());
    desired.link_up();
    desired.list_requested();
    assert_eq!(desired.listed(NOW, &[]), (true, BTreeSet::new()));
    desired.provisioned(&[DesiredItem::Registered(id(1)), DesiredItem::Accepted(id(2))].into());
    desired.list_requested();
    assert_eq!(desired.listed(NOW, &[row(1)]), (false, BTreeSet::new()));
    assert!(desired.read(NOW, &accepting(&[2])).is_empty());
    desired
}

#[test]
fn a_present_item_is_not_missing() {
    let mut desired = Reconciler::new(declared());
    desired.link_up();
    desired.list_requested();
    let (first, withdrawn) = desired.listed(NOW, &[row(1)]);
    assert!(first && withdrawn.is_empty());
    let missing = DesiredState { accepted: [id(2)].into(), ..DesiredState::default() };
    assert_eq!(desired.missing(), missing);
    desired.read(NOW, &accepting(&[2, 9]));
    assert!(desired.missing().is_empty());
}

#[test]
fn an_item_made_by_a_command_is_missing_at_the_next_link() {
    let mut desired = settled();
    desired.command_started();
    desired.command_finished(vec![Effect::Registered(vec![(id(7), target())])]);
    assert_eq!(desired.commanded().registered, [(id(7), target())].into());
    assert!(desired.missing().is_empty(), "its command provisioned it");
    desired.link_up();
    desired.list_requested();
    desired.listed(NOW, &[row(1)]);
    assert_eq!(desired.missing().registered, [(id(7), target())].into());
    desired.command_started();
    desired.command_finished(vec![Effect::Unregistered([id(7)].into())]);
    assert!(desired.commanded().is_empty());
    assert!(desired.missing().registered.is_empty(), "it is not desired any more");
}

#[test]
fn an_item_removed_by_another_client_is_reported_once_and_forgotten_unless_declared() {
    let mut desired = settled();
    desired.command_started();
    desired.command_finished(vec![Effect::Accepted([id(8)].into())]);
    desired.list_requested();
    assert!(desired.read(NOW, &accepting(&[2, 8])).is_empty());
    desired.list_requested();
    assert!(desired.listed(NOW, &[]).1.is_empty() && desired.take_needs_second_look());
    assert!(desired.read(NOW, &accepting(&[])).is_empty() && desired.take_needs_second_look());
    desired.list_requested();
    assert_eq!(desired.listed(LATER, &[]).1, [DesiredItem::Registered(id(1))].into());
    let gone = desired.read(LATER, &accepting(&[]));
    assert_eq!(gone, [DesiredItem::Accepted(id(2)), DesiredItem::Accepted(id(8))].into());
    assert_eq!(*desired.commanded(), DesiredState::default(), "an item of a command is forgotten");
    desired.list_requested();
    assert!(desired.listed(LATER, &[]).1.is_empty());
    assert!(desired.read(LATER, &accepting(&[])).is_empty());
    assert!(!desired.take_needs_second_look());
    assert!(desired.missing().is_empty(), "nothing is added while the link is up");
    desired.link_up();
    assert_eq!(desired.missing().accepted, [id(2)].into(), "a declared item is provisioned again");
}

#[test]
fn an_item_removed_by_our_command_is_not_withdrawn() {
    let mut desired = settled();
    desired.command_started();
    desired.list_requested();
    assert!(desired.listed(NOW, &[]).1.is_empty(), "a command is running");
    desired.list_requested();
    desired.command_finished(Vec::new());
    assert!(desired.listed(NOW, &[]).1.is_empty(), "the list was requested before it finished");
    desired.list_requested();
    assert!(desired.listed(NOW, &[]).1.is_empty());
    desired.command_started();
    desired.command_finished(Vec::new());
    desired.list_requested();
    assert!(desired.listed(LATER, &[]).1.is_empty(), "a command ran between the two looks");
    desired.list_requested();
    let last = LATER.plus(SECOND_LOOK_MS);
    assert_eq!(desired.listed(last, &[]).1, [DesiredItem::Registered(id(1))].into());
}

#[test]
fn an_item_missing_from_one_answer_is_not_withdrawn() {
    let mut desired = settled();
    desired.command_started();
    desired.command_finished(vec![Effect::Registered(vec![(id(7), target())])]);
    let look = |desired: &mut Reconciler, at: Moment, is_whole: bool| {
        desired.list_requested();
        let rows = if is_whole { vec![row(1), row(7)] } else { Vec::new() };
        assert!(desired.listed(at, &rows).1.is_empty(), "{at:?}");
    };
    look(&mut desired, NOW, true);
    look(&mut desired, NOW, false);
    look(&mut desired, NOW.plus(SECOND_LOOK_MS - 1), false);
    look(&mut desired, LATER, true);
    // Absent long before, and present in between.
    look(&mut desired, LATER, false);
    // What is absent while a gateway stops is missing at the next link.
    desired.link_up();
    look(&mut desired, LATER.plus(SECOND_LOOK_MS), false);
    let registered = [(id(1), target()), (id(7), target())];
    assert_eq!(desired.missing().registered, registered.into());
}

#[test]
fn a_declared_item_removed_by_our_command_is_missing_at_the_next_link() {
    let all = DesiredState { allow_all: true, ..declared() };
    let unaccepted = Effect::Unaccepted([id(2)].into());
    let closed = Effect::AllowAll(false);
    let emptied = Effect::Filter(AcceptFilter::default());
    let (two, all_devices) = (DesiredItem::Accepted(id(2)), DesiredItem::AllowAll);
    for (effect, gone) in [
        (unaccepted, BTreeSet::from([two])),
        (closed, BTreeSet::from([all_devices])),
        (emptied, BTreeSet::from([two, all_devices])),
    ] {
        let mut desired = Reconciler::new(all.clone());
        desired.link_up();
        desired.list_requested();
        let there = of_filter(AcceptFilter { allow_all: true, ..filter(&[2]) });
        assert!(desired.read(NOW, &there).is_empty());
        desired.command_started();
        assert_eq!(desired.command_finished(vec![effect]), gone);
        assert!(desired.commanded().is_empty());
        // This was read before the change.
        assert!(desired.read(NOW, &there).is_empty());
        desired.list_requested();
        let now = of_filter(AcceptFilter {
            allow_all: !gone.contains(&all_devices),
            ..filter(if gone.contains(&two) { &[] } else { &[2] })
        });
        assert!(desired.read(NOW, &now).is_empty(), "{gone:?}");
        assert!(!desired.missing().accepted.contains(&id(2)) && !desired.missing().allow_all);
        desired.link_up();
        let missing = desired.missing();
        assert!(missing.accepted.contains(&id(2)) && missing.allow_all);
    }
}

#[test]
fn an_item_removed_by_a_command_is_not_missing_on_this_link() {
    let mut desired = Reconciler::new(declared());
    desired.link_up();
    desired.command_started();
    desired.command_finished(vec![Effect::Unaccepted([id(2)].into())]);
    assert!(desired.missing().accepted.is_empty());
}

#[test]
fn slaves_are_present_when_all_of_them_are() {
    let desired_slaves = Slaves { device_id: id(1), rs485: vec![id(11), id(12)], wiegand: vec![] };
    let mut desired = Reconciler::new(DesiredState::default());
    assert!(!desired.wants_slaves());
    desired.command_started();
    desired.command_finished(vec![Effect::Slaves(vec![desired_slaves.clone()])]);
    assert!(desired.wants_slaves());
    desired.link_up();
    desired.list_requested();
    let read = |slaves| ReadItems { slaves: Some(slaves), ..ReadItems::default() };
    let fewer = Slaves { rs485: vec![id(11)], ..desired_slaves.clone() };
    desired.read(NOW, &read(vec![fewer]));
    assert_eq!(desired.missing().slaves, [(id(1), desired_slaves.clone())].into());
    let more = Slaves { rs485: vec![id(10), id(12), id(11)], ..desired_slaves.clone() };
    desired.read(NOW, &read(vec![more]));
    assert!(desired.missing().is_empty());
    assert!(desired.read(NOW, &read(vec![])).is_empty());
    assert_eq!(desired.read(LATER, &read(vec![])), [DesiredItem::Slaves(id(1))].into());
}

#[test]
fn a_desired_state_survives_serialization() {
    let mut state = declared();
    state.slaves.insert(id(1), Slaves { device_id: id(1), rs485: vec![id(3)], wiegand: vec![] });
    let written = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<DesiredState>(&written).unwrap(), state);
    assert_eq!(serde_json::from_str::<DesiredState>("{}").unwrap(), DesiredState::default());
}

fn read(registered: &[u32], accepted: &[u32]) -> ReadItems {
    let registered = Some(registered.iter().map(|&it| id(it)).collect());
    ReadItems { registered, slaves: Some(Vec::new()), ..accepting(accepted) }
}

#[test]
fn behind_a_master_an_item_is_missing_until_both_places_have_it() {
    let mut desired = Reconciler::new(declared());
    desired.link_up();
    desired.list_requested();
    // Nothing is stored: the round starts at once.
    assert!(desired.stored_read(NOW, &read(&[], &[]), &read(&[1], &[2])).0);
    assert_eq!(desired.missing(), declared());
    desired.link_up();
    desired.list_requested();
    // The master may be giving what it stores.
    let (first, withdrawn) = desired.stored_read(NOW, &read(&[1], &[2]), &read(&[], &[2]));
    assert!(!first && withdrawn.is_empty() && desired.take_needs_second_look());
    let missing = DesiredState { accepted: [].into(), ..declared() };
    assert_eq!(desired.missing(), missing);
    let (first, withdrawn) = desired.stored_read(LATER, &read(&[1], &[2]), &read(&[], &[2]));
    assert!(first && withdrawn.is_empty() && !desired.take_needs_second_look());
    assert_eq!(desired.missing(), missing);
    // It stays missing while it cannot be given.
    assert!(!desired.stored_read(LATER, &read(&[1], &[2]), &read(&[], &[2])).0);
    assert_eq!(desired.missing(), missing);
    desired.stored_read(LATER, &read(&[1], &[2]), &read(&[1], &[2]));
    assert!(desired.missing().is_empty());
}

#[test]
fn behind_a_master_withdrawn_is_what_is_no_longer_stored() {
    let mut desired = Reconciler::new(declared());
    desired.link_up();
    desired.list_requested();
    let both = || read(&[1], &[2]);
    assert_eq!(desired.stored_read(NOW, &both(), &both()), (true, BTreeSet::new()));
    for now in [NOW, LATER, LATER.plus(SECOND_LOOK_MS)] {
        desired.list_requested();
        assert!(desired.stored_read(now, &both(), &read(&[], &[])).1.is_empty());
    }
    assert!(desired.missing().is_empty(), "nothing is added while the link is up");
    desired.list_requested();
    assert!(desired.stored_read(NOW, &read(&[], &[2]), &both()).1.is_empty());
    desired.list_requested();
    let (_, withdrawn) = desired.stored_read(LATER, &read(&[], &[2]), &both());
    assert_eq!(withdrawn, [DesiredItem::Registered(id(1))].into());
}
