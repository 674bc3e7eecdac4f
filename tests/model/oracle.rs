//! Checks a run, with any faults: the messages that a subscriber of everything received, against
//! the gateways' own lists.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gsdk2mqtt::fleet::Status;
use serde_json::Value;

use crate::answers::Answers;
use crate::broker::Seen;
use crate::record::Shown;
use crate::schedule::Schedule;
use crate::world::{BEGAN_AT_S, name_of};
use crate::{changes, history};

/// An event of a device, as a subscriber reads it.
struct Reported {
    seq: u64,
    status: String,
    chain: String,
    previous: Option<String>,
    received: Duration,
}

/// The summary of a run, and its violations.
pub(crate) struct Summary {
    pub(crate) events: usize,
    pub(crate) repeats: usize,
    pub(crate) answers: usize,
    pub(crate) wrong: Vec<String>,
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn read(payload: &[u8], topic: &str) -> Value {
    serde_json::from_slice(payload).unwrap_or_else(|error| panic!("{topic}: {error}"))
}

/// Checks a run.
pub(crate) fn check(schedule: &Schedule, shown: &Shown) -> Summary {
    let mut wrong = shown.wrong.clone();
    let mut reported: BTreeMap<String, Vec<Reported>> = BTreeMap::new();
    let mut by_id: BTreeMap<String, &Seen> = BTreeMap::new();
    let mut resets: BTreeSet<String> = BTreeSet::new();
    let mut repeats = 0;
    for seen in &shown.seen {
        let Some((subject, _)) = seen.topic.split_once("/event/") else { continue };
        let event = read(&seen.payload, &seen.topic);
        if let Some(first) = by_id.get(text(&event, "event_id")) {
            repeats += 1;
            if (&first.payload, &first.topic) != (&seen.payload, &seen.topic) {
                wrong.push(format!("a repeat differs: {first:?} {seen:?}"));
            }
            continue;
        }
        by_id.insert(text(&event, "event_id").to_owned(), seen);
        if event.get("lost").is_some() {
            wrong.push(format!("the outbox was never full: {seen:?}"));
        }
        if !event["seq"].is_u64() {
            if text(&event, "event_type") == "chain_reset" {
                resets.insert(text(&event, "to").to_owned());
            }
            continue;
        }
        let Some(received) = received(&event) else {
            wrong.push(format!("received before the run began: {seen:?}"));
            continue;
        };
        not_while_unreachable(&event, received, seen, shown, &mut wrong);
        let one = Reported {
            seq: event["seq"].as_u64().unwrap_or_default(),
            status: text(&event, "status").to_owned(),
            chain: text(&event, "chain").to_owned(),
            previous: event["previous"].as_str().map(str::to_owned),
            received,
        };
        let before = reported.entry(subject.to_owned()).or_default();
        if let Some(last) = before.last().filter(|last| last.chain == one.chain) {
            let follows = last.seq + 1 == one.seq && one.previous.as_deref() == Some(&*last.status);
            if !follows {
                wrong.push(format!("does not follow {} ({}): {seen:?}", last.seq, last.status));
            }
        } else if one.seq != 1 || before.iter().any(|earlier| earlier.chain == one.chain) {
            wrong.push(format!("a chain begins with {}: {seen:?}", one.seq));
        }
        let last = before.last().map_or(Duration::ZERO, |last| last.received);
        if text(&event, "source") != "stream" && is_invented(&event, last, received, shown) {
            wrong.push(format!("the list never showed this since {last:?}: {seen:?}"));
        }
        before.push(one);
    }
    let chains = reported.values().flatten().map(|one| one.chain.as_str()).collect();
    only_power_cuts_end_chains(shown, &chains, &resets, &mut wrong);
    history::check(shown, &mut wrong);
    not_too_many(schedule, &reported, &mut wrong);
    the_end(shown, &reported, &mut wrong);
    let answers = Answers::of(schedule, shown, &mut wrong);
    answers.check(schedule, shown, &mut wrong);
    changes::check(schedule, shown, &answers, &mut wrong);
    Summary { events: by_id.len(), repeats, answers: answers.len(), wrong }
}

/// A chain ends at a power cut without a clean stop before it, and `chain_reset` reports the next.
fn only_power_cuts_end_chains(
    shown: &Shown,
    chains: &BTreeSet<&str>,
    resets: &BTreeSet<String>,
    wrong: &mut Vec<String>,
) {
    let ended = shown.cuts.iter().filter(|cut| cut.ends_chain).count();
    if chains.len() > 1 + ended || resets.len() > ended {
        wrong.push(format!("{ended} chains ended, but: chains {chains:?}, resets {resets:?}"));
    }
    let info = shown.retained.get("gsdk/bridge/info").map(|payload| read(payload, "info"));
    let last = info.map(|info| text(&info, "chain").to_owned());
    if ended > 0 && last.as_ref().is_none_or(|last| !resets.contains(last)) {
        wrong.push(format!("no chain_reset reported the last chain {last:?}: {resets:?}"));
    }
}

/// When an event was received, since the run began.
pub(crate) fn received(event: &Value) -> Option<Duration> {
    let received: jiff::Timestamp = text(event, "received_at").parse().unwrap();
    let began_ms = i64::try_from(BEGAN_AT_S).unwrap() * 1_000;
    u64::try_from(received.as_millisecond() - began_ms).ok().map(Duration::from_millis)
}

/// Whether the list showed the contrary of the reported change, during the whole time since the
/// event before.
fn is_invented(event: &Value, since: Duration, until: Duration, shown: &Shown) -> bool {
    let named = |at: &usize| name_of(*at) == text(event, "gateway");
    let Some(at) = (0..shown.truth.len()).find(named) else { return true };
    let id = u32::try_from(event["device_id"].as_u64().unwrap_or_default()).unwrap();
    let listed = |list: &BTreeMap<u32, i32>| match list.get(&id) {
        Some(code) => Status::from(*code).connected(),
        None => Some(false),
    };
    let truth = &shown.truth[at];
    let first = truth.partition_point(|(from, _)| *from <= since).saturating_sub(1);
    let last = truth.partition_point(|(from, _)| *from <= until);
    let reported = event["connected"].as_bool();
    truth[first..last].iter().all(|(_, list)| listed(list) != reported)
}

/// What is not received cannot be reported.
fn not_while_unreachable(
    event: &Value,
    received: Duration,
    seen: &Seen,
    shown: &Shown,
    wrong: &mut Vec<String>,
) {
    for (gateway, since, until) in &shown.unreachable {
        // Half a second: messages in flight when it became silent.
        let silent = *since + Duration::from_millis(500)..*until;
        if text(event, "gateway") == name_of(*gateway) && silent.contains(&received) {
            wrong.push(format!("reported while nothing was received ({silent:?}): {seen:?}"));
        }
    }
}

/// A device that is absent and tried repeatedly causes no storm of events.
fn not_too_many(
    schedule: &Schedule,
    reported: &BTreeMap<String, Vec<Reported>>,
    wrong: &mut Vec<String>,
) {
    let storms: u64 = schedule
        .steps
        .iter()
        .map(|(_, act)| match act {
            crate::schedule::Act::Gateway(
                _,
                gsdk2mqtt::simulator::Fault::Storm(gsdk2mqtt::simulator::Storm { changes, .. }),
            ) => *changes,
            _ => 0,
        })
        .sum();
    let most = u64::try_from(schedule.steps.len()).unwrap_or(u64::MAX) * 6 + storms + 20;
    for (subject, events) in reported {
        if events.len() as u64 > most {
            wrong.push(format!("{} events of {subject}, at most {most} are true", events.len()));
        }
    }
}

/// At the end all states equal the gateways' lists.
fn the_end(shown: &Shown, reported: &BTreeMap<String, Vec<Reported>>, wrong: &mut Vec<String>) {
    let retained = |topic: &str| shown.retained.get(topic).map(|payload| &payload[..]);
    if retained("gsdk/bridge/state") != Some(b"online") {
        wrong.push("gsdk/bridge/state is not online in the end".to_owned());
    }
    let info = retained("gsdk/bridge/info").map(|payload| read(payload, "gsdk/bridge/info"));
    let waiting =
        info.map(|info| (info["outbox"]["pending"].clone(), info["outbox"]["dropped"].clone()));
    if waiting != Some((0.into(), 0.into())) {
        wrong.push(format!("outbox (pending, dropped) in the end: {waiting:?}"));
    }
    for (at, list) in shown.lists.iter().enumerate() {
        let name = name_of(at);
        if retained(&format!("gsdk/{name}/state")) != Some(b"online") {
            wrong.push(format!("{name} is not online in the end"));
        }
        let prefix = format!("gsdk/{name}/");
        let mut listed: BTreeMap<String, i32> =
            list.iter().map(|info| (info.device_id.to_string(), info.status)).collect();
        for (topic, payload) in &shown.retained {
            let id = topic.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix("/state"));
            let Some(id) = id else { continue };
            let state = read(payload, topic);
            let code = listed.remove(id);
            if let Some(found) = difference(&state, code) {
                wrong.push(format!("{found} at the end, the list has {code:?}: {state}"));
            }
            let events =
                reported.get(&format!("{prefix}{id}")).map(Vec::as_slice).unwrap_or_default();
            let last = events.iter().rfind(|event| event.chain == text(&state, "chain"));
            let (seq, status) = last.map_or((0, None), |last| (last.seq, Some(&*last.status)));
            if state["seq"] != seq || status.is_some_and(|status| status != text(&state, "status"))
            {
                wrong.push(format!("the last event is {seq} ({status:?}), the state {state}"));
            }
        }
        for id in listed.keys() {
            wrong.push(format!("{prefix}{id} is in the list and has no state"));
        }
    }
}

/// The differences between a state and the list; `None` is a device that is not listed.
fn difference(state: &Value, code: Option<i32>) -> Option<&'static str> {
    let listed = code.map(Status::from);
    let connected = listed.map_or(Some(false), Status::connected);
    if state["managed"] != code.is_some() {
        return Some("managed is wrong");
    }
    // Those that the configuration declares are named D0, D1 and so on.
    let number = text(state, "name").strip_prefix('D');
    let declared = number.is_some_and(|number| number.parse::<usize>().is_ok());
    if state["expected"] != (code.is_some() || declared || !state["kept"].is_null()) {
        return Some("expected is wrong");
    }
    if state["connected"] != connected.map_or(Value::Null, Value::Bool) {
        return Some("connected is wrong");
    }
    // While a device is absent, its status alternates between tries.
    let status = listed.filter(|listed| listed.connected() != Some(false));
    (status.is_some_and(|status| status.to_string() != text(state, "status")))
        .then_some("status is wrong")
}
