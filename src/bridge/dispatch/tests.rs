//! Tests of the dispatcher without the loop: what is refused, what the loop has to run, and what is
//! answered by a task.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::fleet::Fleet;
use crate::ids::{Moment, SteadyClock};
use crate::mqtt::Message;
use crate::payload::Directory;
use crate::topics::Topics;

const CONFIG: &str = r#"
state_dir = "/nonexistent"
[mqtt]
url = "mqtt://127.0.0.1:1"
[commands]
allow = ["republish", "history"]
rate = "3/s"
[gateways.lobby]
address = "127.0.0.1:1"
ca_file = "/nonexistent"
"#;

struct Fixture {
    dispatcher: CommandDispatcher,
    directory: Directory,
    fleet: Fleet,
    now: Instant,
}

impl Fixture {
    /// A dispatcher of a bridge whose gateways have no links: requests to the bridge itself.
    fn new() -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), CONFIG).unwrap();
        let args = config::Args { config: Some(file.path().into()), ..config::Args::default() };
        let config = config::load(&args, []).unwrap().config;
        let directory = Directory {
            bridge: "bridge".to_owned(),
            instance_id: "i1".to_owned(),
            chain: "k7f3".to_owned(),
            gateways: Vec::new(),
        };
        let dispatcher = CommandDispatcher::new(&config, &[]);
        let clock = SteadyClock::new(std::time::Instant::now(), Moment::from_millis(0));
        let fleet = Fleet::new(clock);
        Self { dispatcher, directory, fleet, now: Instant::now() }
    }

    /// Sends a request; returns what the loop has to do, and the results of the replies.
    fn send(&mut self, topic: &str, payload: &str, retain: bool) -> (Requested, Vec<&'static str>) {
        let message = Message {
            topic: format!("gsdk/{topic}"),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            retain,
            response_topic: None,
            correlation_data: None,
            expires_in: None,
            received: self.now,
        };
        let topics = Topics::new("gsdk", "bridge");
        let request = mqtt::Request::of(&topics, "gsdk-reply/", &message).unwrap();
        let view = View {
            fleet: &self.fleet,
            directory: &self.directory,
            link_facts: &[],
            now: Moment::from_millis(0),
            closes_from: None,
        };
        let mut replies = Vec::new();
        let requested = self.dispatcher.request(&request, view, &mut replies);
        (requested, replies.iter().map(|reply| reply.result).collect())
    }
}

#[tokio::test]
async fn what_may_not_run_gets_one_reply_and_nothing_else_happens() {
    for (topic, payload, retain, results) in [
        ("bridge/request/republish", "{}", true, &["invalid_request"][..]),
        ("bridge/request/republish", "", true, &[]),
        ("bridge/request/republish", r#"{"a":1}"#, false, &["invalid_request"]),
        ("bridge/request/forget", "{}", false, &["not_permitted"]),
        ("bridge/request/devices", "{}", false, &["unknown_command"]),
        ("annex/request/devices", "{}", false, &[]),
    ] {
        let (requested, replies) = Fixture::new().send(topic, payload, retain);
        assert!(matches!(requested, Requested::Nothing), "{topic}: {requested:?}");
        assert_eq!(replies, results, "{topic} {payload}");
    }
}

#[tokio::test]
async fn requests_beyond_the_rate_are_refused_until_it_allows_more() {
    let mut fixture = Fixture::new();
    let send = |fixture: &mut Fixture| fixture.send("bridge/request/republish", "{}", false);
    for _ in 0..3 {
        let (requested, replies) = send(&mut fixture);
        assert!(matches!(requested, Requested::Bridge(BridgeCommand::Republish, _)));
        assert!(replies.is_empty(), "the loop answers");
    }
    assert_eq!(send(&mut fixture).1, ["rate_limited"]);
    fixture.now += Duration::from_secs(1);
    assert!(matches!(send(&mut fixture).0, Requested::Bridge(..)));
}

#[tokio::test]
async fn a_task_answers_history_and_the_dispatcher_is_then_idle() {
    let mut fixture = Fixture::new();
    let (requested, replies) = fixture.send("bridge/request/history", "{}", false);
    assert!(matches!(requested, Requested::Nothing) && replies.is_empty());
    assert!(fixture.dispatcher.is_running());
    match fixture.dispatcher.next().await {
        Some(TaskMessage::History { response, requester }) => {
            let reply = fixture.dispatcher.history_read(&response, requester, None);
            assert_eq!((reply.command, reply.result), ("history", "unavailable"));
        }
        other => panic!("{other:?}"),
    }
    assert!(!fixture.dispatcher.is_running());
}
