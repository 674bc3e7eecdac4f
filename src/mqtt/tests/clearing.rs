//! Topics of what is no more: cleared once the broker takes it, unless what they are of came back.

use super::*;

#[test]
fn what_is_gone_is_to_be_cleared_until_the_broker_has_taken_it() {
    let mut desk = Desk::online(vec![row(7, Status::TlsConnected)]);
    let annex = "annex".parse().unwrap();
    desk.publisher.gateway_gone(&annex, [id(9)], &mut desk.outbox);
    let topics = ["gsdk/annex/9/state", "gsdk/annex/state", "gsdk/annex/info"];
    let clearing = |desk: &Desk| desk.publisher.clearing().cloned().collect::<Vec<_>>();
    assert_eq!(clearing(&desk), topics);
    assert!(desk.next().is_none(), "nothing is cleared before the session has settled");
    desk.publisher.settled();
    let (first, second) = (desk.next().unwrap(), desk.next().unwrap());
    assert_eq!((first.topic.as_str(), &first.payload[..]), (topics[0], &b""[..]));
    desk.ack(first.token, false);
    desk.ack(second.token, true);
    let mut left = clearing(&desk);
    left.sort_unstable();
    assert_eq!(left, ["gsdk/annex/9/state", "gsdk/annex/info"], "refused, and not sent yet");
    desk.cut(false);
    assert_eq!(clearing(&desk).len(), 2);
    desk.connect(20);
    assert!(desk.said().iter().all(|said| !said.starts_with("gsdk/annex/")), "a new session");
    desk.publisher.settled();
    let said = desk.said();
    let cleared = said.iter().filter(|said| said.starts_with("gsdk/annex/")).count();
    assert_eq!(cleared, 2, "{said:?}");
    assert!(clearing(&desk).is_empty());
}

#[test]
fn what_has_come_back_is_not_cleared() {
    let mut desk = Desk::online(vec![row(7, Status::TlsConnected)]);
    let mine = ["gsdk/lobby/state", "gsdk/lobby/info", "gsdk/lobby/7/state"];
    let gone = ["gsdk/lobby/8/state", "gsdk/annex/state", "elsewhere/lobby/7/state"];
    let topics = mine.iter().chain(&gone).map(|&topic| topic.to_owned());
    topics.for_each(|topic| desk.publisher.clear_still(topic));
    desk.publisher.settled();
    assert_eq!(desk.said(), gone.map(|topic| format!("{topic} ")));
    assert!(desk.publisher.clearing().next().is_none());
}
