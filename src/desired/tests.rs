//! What is missing, what is withdrawn, and what a change of ours hides.

use super::*;
use crate::fleet::{DeviceInfo, DeviceType, Mode, Status};

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

fn declared() -> Wishes {
    Wishes { registered: [(id(1), target())].into(), accepted: [id(2)].into(), ..Wishes::default() }
}

/// A link that stands, with everything declared given and seen.
fn settled() -> Desired {
    let mut desired = Desired::new(declared());
    desired.link_up();
    desired.list_asked();
    assert_eq!(desired.listed(&[]), (true, BTreeSet::new()));
    desired.given(&[Wish::Registered(id(1)), Wish::Accepted(id(2))].into());
    desired.list_asked();
    assert_eq!(desired.listed(&[row(1)]), (false, BTreeSet::new()));
    assert!(desired.filter_read(&filter(&[2])).is_empty());
    desired
}

#[test]
fn what_is_there_is_not_missing() {
    let mut desired = Desired::new(declared());
    desired.link_up();
    desired.list_asked();
    let (first, withdrawn) = desired.listed(&[row(1)]);
    assert!(first && withdrawn.is_empty());
    let missing = Missing { accepted: [id(2)].into(), ..Missing::default() };
    assert_eq!(desired.missing(), missing);
    desired.filter_read(&filter(&[2, 9]));
    assert!(desired.missing().is_empty());
}

#[test]
fn what_a_command_made_is_missing_at_the_next_link() {
    let mut desired = settled();
    desired.change_begins();
    assert!(desired.change_ends(vec![Made::Registered(vec![(id(7), target())])]).changed);
    assert!(desired.missing().is_empty(), "its command has given it");
    desired.link_up();
    desired.list_asked();
    desired.listed(&[row(1)]);
    assert_eq!(desired.missing().registered, [(id(7), target())]);
    desired.change_begins();
    assert!(desired.change_ends(vec![Made::Unregistered([id(7)].into())]).changed);
    assert!(desired.missing().registered.is_empty(), "nobody wants it any more");
}

#[test]
fn what_another_takes_away_is_told_once_and_forgotten_unless_declared() {
    let mut desired = settled();
    desired.change_begins();
    desired.change_ends(vec![Made::LetIn([id(8)].into())]);
    desired.list_asked();
    assert!(desired.filter_read(&filter(&[2, 8])).is_empty());
    desired.list_asked();
    assert_eq!(desired.listed(&[]).1, [Wish::Registered(id(1))].into());
    let gone = desired.filter_read(&filter(&[]));
    assert_eq!(gone, [Wish::Accepted(id(2)), Wish::Accepted(id(8))].into());
    assert_eq!(*desired.commanded(), Wishes::default(), "a command's is forgotten");
    desired.list_asked();
    assert!(desired.listed(&[]).1.is_empty() && desired.filter_read(&filter(&[])).is_empty());
    assert!(desired.missing().is_empty(), "nothing is added while the link is up");
    desired.link_up();
    assert_eq!(desired.missing().accepted, [id(2)].into(), "what is declared is given again");
}

#[test]
fn our_own_change_is_nobodys_withdrawal() {
    let mut desired = settled();
    desired.change_begins();
    desired.list_asked();
    assert!(desired.listed(&[]).1.is_empty(), "a change is under way");
    desired.list_asked();
    desired.change_ends(Vec::new());
    assert!(desired.listed(&[]).1.is_empty(), "the list was asked for before it had ended");
    desired.list_asked();
    assert_eq!(desired.listed(&[]).1, [Wish::Registered(id(1))].into());
}

#[test]
fn what_a_command_of_ours_takes_away_is_not_withdrawn_and_given_at_the_next_link() {
    let all = Wishes { allow_all: true, ..declared() };
    let shut_out = Made::ShutOut([id(2)].into());
    let closed = Made::AllowAll(false);
    let emptied = Made::Filter(AcceptFilter::default());
    let (two, everybody) = (Wish::Accepted(id(2)), Wish::AllowAll);
    for (made, gone) in [
        (shut_out, BTreeSet::from([two])),
        (closed, BTreeSet::from([everybody])),
        (emptied, BTreeSet::from([two, everybody])),
    ] {
        let mut desired = Desired::new(all.clone());
        desired.link_up();
        desired.list_asked();
        let there = AcceptFilter { allow_all: true, ..filter(&[2]) };
        assert!(desired.filter_read(&there).is_empty());
        desired.change_begins();
        let ended = desired.change_ends(vec![made]);
        assert_eq!(ended, Ended { changed: false, kept: gone.clone() });
        // This was on its way when the change was made.
        assert!(desired.filter_read(&there).is_empty());
        desired.list_asked();
        let now = AcceptFilter {
            allow_all: !gone.contains(&everybody),
            ..filter(if gone.contains(&two) { &[] } else { &[2] })
        };
        assert!(desired.filter_read(&now).is_empty(), "{gone:?}");
        assert!(!desired.missing().accepted.contains(&id(2)) && !desired.missing().allow_all);
        desired.link_up();
        let missing = desired.missing();
        assert!(missing.accepted.contains(&id(2)) && missing.allow_all);
    }
}

#[test]
fn what_a_command_takes_away_is_owed_no_more() {
    let mut desired = Desired::new(declared());
    desired.link_up();
    desired.change_begins();
    desired.change_ends(vec![Made::ShutOut([id(2)].into())]);
    assert!(desired.missing().accepted.is_empty());
}

#[test]
fn slaves_are_there_when_all_of_them_are() {
    let wished = Slaves { device_id: id(1), rs485: vec![id(11), id(12)], wiegand: vec![] };
    let mut desired = Desired::new(Wishes::default());
    assert!(!desired.wants_slaves());
    desired.change_begins();
    desired.change_ends(vec![Made::Slaves(vec![wished.clone()])]);
    assert!(desired.wants_slaves());
    desired.link_up();
    desired.list_asked();
    desired.slaves_read(&[Slaves { rs485: vec![id(11)], ..wished.clone() }]);
    assert_eq!(desired.missing().slaves, std::slice::from_ref(&wished));
    let more = Slaves { rs485: vec![id(10), id(12), id(11)], ..wished.clone() };
    desired.slaves_read(&[more]);
    assert!(desired.missing().is_empty());
    assert_eq!(desired.slaves_read(&[]), [Wish::Slaves(id(1))].into());
}

#[test]
fn wishes_survive_being_written_down() {
    let mut wishes = declared();
    wishes.slaves.insert(id(1), Slaves { device_id: id(1), rs485: vec![id(3)], wiegand: vec![] });
    let written = serde_json::to_vec(&wishes).unwrap();
    assert_eq!(serde_json::from_slice::<Wishes>(&written).unwrap(), wishes);
    assert_eq!(serde_json::from_str::<Wishes>("{}").unwrap(), Wishes::default());
}
