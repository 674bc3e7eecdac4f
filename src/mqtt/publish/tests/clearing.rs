//! Tests of clearing: topics of what no longer exists, unless it came back.

use super::*;

#[test]
fn what_is_gone_is_to_be_cleared_until_the_broker_has_taken_it() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    let annex = "annex".parse().unwrap();
    setup.publisher.content().gateway_removed(&annex, [id(9)], &mut setup.outbox);
    let topics = ["gsdk/annex/9/state", "gsdk/annex/state", "gsdk/annex/info"];
    let clearing = |setup: &mut Setup| {
        setup.publisher.content().clearing().topics().cloned().collect::<Vec<_>>()
    };
    assert_eq!(clearing(&mut setup), topics);
    assert!(setup.next().is_none(), "nothing is cleared before the session has settled");
    setup.publisher.content().set_settled();
    let (first, second) = (setup.next().unwrap(), setup.next().unwrap());
    assert_eq!((first.topic.as_str(), &first.payload[..]), (topics[0], &b""[..]));
    setup.ack(first.token, false);
    setup.ack(second.token, true);
    let mut left = clearing(&mut setup);
    left.sort_unstable();
    assert_eq!(left, ["gsdk/annex/9/state", "gsdk/annex/info"], "refused, and not sent yet");
    setup.disconnect(false);
    assert_eq!(clearing(&mut setup).len(), 2);
    setup.connect(20);
    assert!(setup.published().iter().all(|said| !said.starts_with("gsdk/annex/")), "a new session");
    setup.publisher.content().set_settled();
    let said = setup.published();
    let cleared = said.iter().filter(|said| said.starts_with("gsdk/annex/")).count();
    assert_eq!(cleared, 2, "{said:?}");
    assert!(clearing(&mut setup).is_empty());
}

#[test]
fn what_has_come_back_is_not_cleared() {
    let mut setup = Setup::online(vec![row(7, Status::TlsConnected)]);
    let mine = ["gsdk/lobby/state", "gsdk/lobby/info", "gsdk/lobby/7/state"];
    let gone = ["gsdk/lobby/8/state", "gsdk/annex/state", "elsewhere/lobby/7/state"];
    let topics = mine.iter().chain(&gone).map(|&topic| topic.to_owned());
    topics.for_each(|topic| setup.publisher.content().clearing().restore(topic));
    setup.publisher.content().set_settled();
    assert_eq!(setup.published(), gone.map(|topic| format!("{topic} ")));
    assert!(setup.publisher.content().clearing().is_empty());
}
