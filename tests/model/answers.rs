//! Checks the responses to requests (docs/commands.md): each request that reached the bridge has
//! one, in time, on its connection and its topic, with the correct code.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gsdk2mqtt::config::MqttVersion;
use serde_json::Value;

use crate::broker::Seen;
use crate::record::{Sent, Shown};
use crate::request::{Expect, Owner, RATE};
use crate::schedule::Schedule;
use crate::storage::StoredEvent;

/// How long after its own deadline a change may still be verified, and its response be in flight.
const GRACE: Duration = Duration::from_secs(15);
/// In which a request without change and without a deadline is answered.
const READ_WITHIN: Duration = Duration::from_secs(60);
/// Within which recorded events can be read.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);
/// Changes of a gateway that may run or wait.
const CHANGES_MAX: usize = 32;
/// The codes of requests that were not run.
const NOT_RUN: [&str; 7] = [
    "invalid_request",
    "unknown_command",
    "not_permitted",
    "rate_limited",
    "too_large",
    "expired",
    "gateway_unavailable",
];

/// An answer of the bridge.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) at: Duration,
    connection: u64,
    /// The process of the bridge that sent it.
    process: usize,
    topic: String,
    pub(crate) value: Value,
    /// The send that it answers, by its correlation data.
    sent: Option<usize>,
}

/// The answers of a run.
pub(crate) struct Answers(Vec<Answer>);

/// The common fields of a response and its request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Transaction(u64),
    /// The topic of an answer without transaction.
    Topic(String),
}

impl Answer {
    fn read(seen: &Seen, shown: &Shown) -> Option<Self> {
        if !seen.topic.contains("/response/") && !seen.topic.starts_with("gsdk-reply/") {
            return None;
        }
        let began = shown.began[&seen.connection];
        let correlation = seen.correlation.as_ref().map(|data| String::from_utf8_lossy(data));
        Some(Self {
            at: seen.at(),
            connection: seen.connection,
            process: shown.processes.partition_point(|process| process.until < began),
            topic: seen.topic.clone(),
            value: serde_json::from_slice(&seen.payload).unwrap(),
            sent: correlation.map(|text| text.parse().unwrap()),
        })
    }

    /// The error's code, else the result.
    pub(crate) fn code(&self) -> &str {
        let code = self.value["error"]["code"].as_str();
        code.or_else(|| self.value["result"].as_str()).unwrap_or_default()
    }

    /// Whether the gateway may have seen the command.
    pub(crate) fn was_run(&self) -> bool {
        let message = self.value["error"]["message"].as_str().unwrap_or_default();
        !NOT_RUN.contains(&self.code()) && !message.ends_with("nothing was changed")
    }

    pub(crate) fn is_replayed(&self) -> bool {
        self.value["replayed"] == true
    }

    fn number(&self) -> Option<u64> {
        match &self.value["transaction"] {
            Value::String(text) => text.strip_prefix('t')?.parse().ok(),
            other => other.as_u64(),
        }
    }

    fn key(&self) -> Key {
        self.number().map_or_else(|| Key::Topic(self.topic.clone()), Key::Transaction)
    }
}

impl Answers {
    pub(crate) fn of(schedule: &Schedule, shown: &Shown, wrong: &mut Vec<String>) -> Self {
        let answers =
            Self(shown.seen.iter().filter_map(|seen| Answer::read(seen, shown)).collect());
        let mut answered = BTreeSet::new();
        for answer in &answers.0 {
            let Some(at) = answer.sent else {
                // MQTT 5 has it also for a request that was refused.
                if schedule.protocol == MqttVersion::V5 {
                    wrong.push(format!("an answer without correlation data: {answer:?}"));
                }
                continue;
            };
            let Sent { request, connection, .. } = &shown.sent[at];
            let was_refused = shown.impaired.iter().any(|it| it.refused);
            // A response that is ready later is sent on the connection of that time.
            let fits = connection.is_some_and(|connection| connection <= answer.connection)
                && (answer.topic == request.answer_topic(schedule.protocol)
                    || (was_refused && answer.topic == request.own_topic()))
                && answer.number() == request.transaction().map(|_| request.number);
            if !fits || !answered.insert(at) {
                let sent = &shown.sent[at];
                wrong.push(format!("answered twice or not where it was sent: {answer:?} {sent:?}"));
            }
        }
        answers
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// The answers of a process to this request.
    pub(crate) fn to(&self, number: u64, process: usize) -> Vec<&Answer> {
        let fits = |answer: &&Answer| answer.number() == Some(number) && answer.process == process;
        self.0.iter().filter(fits).collect()
    }

    pub(crate) fn check(&self, schedule: &Schedule, shown: &Shown, wrong: &mut Vec<String>) {
        let mut groups: BTreeMap<Key, (Vec<&Sent>, Vec<&Answer>)> = BTreeMap::new();
        for sent in shown.sent.iter().filter(|sent| sent.request.expect != Expect::Ignored) {
            if sent.connection.is_none() {
                continue;
            }
            let topic = || Key::Topic(sent.request.answer_topic(schedule.protocol));
            let number = sent.request.transaction().map(|_| sent.request.number);
            let key = number.map_or_else(topic, Key::Transaction);
            groups.entry(key).or_default().0.push(sent);
        }
        for answer in &self.0 {
            groups.entry(answer.key()).or_default().1.push(answer);
        }
        for (key, (sends, answers)) in &mut groups {
            let is_retained =
                |sent: &Sent| sent.request.retain && Key::Transaction(sent.request.number) == *key;
            if schedule.protocol == MqttVersion::V311 && shown.sent.iter().any(is_retained) {
                // A broker sends it again at each subscription.
                let first = sends.first().and_then(|sent| sent.connection);
                let mut connections = BTreeSet::new();
                answers.retain(|answer| {
                    let is_new = connections.insert(answer.connection);
                    let is_again = Some(answer.connection) != first;
                    !(is_new && is_again && is_refused(answer, "invalid_request"))
                });
            }
            if answers.len() > sends.len() {
                wrong.push(format!("more answers than requests: {sends:?} {answers:?}"));
            }
            self.in_time(schedule, shown, sends, answers, wrong);
            for answer in answers {
                let deserved = |sent: &&&Sent| self.is_deserved(answer, sent, shown, schedule);
                match sends.iter().find(deserved) {
                    None => wrong.push(format!("not as requested: {sends:?} {answer:?}")),
                    Some(sent) => content(answer, sent, shown, wrong),
                }
            }
        }
        self.ids_are_unique(shown, wrong);
    }

    fn in_time(
        &self,
        schedule: &Schedule,
        shown: &Shown,
        sends: &[&Sent],
        answers: &[&Answer],
        wrong: &mut Vec<String>,
    ) {
        let mut due: Vec<Duration> =
            sends.iter().filter_map(|sent| due(sent, schedule, shown)).collect();
        due.sort_unstable();
        let excused = sends.len() - due.len();
        for (at, due) in due.iter().enumerate() {
            let given = answers.iter().filter(|answer| answer.at <= *due).count();
            if given + excused <= at {
                let given: Vec<_> =
                    answers.iter().map(|answer| (answer.at, answer.code())).collect();
                wrong.push(format!("{given:?} is not an answer to each by {due:?}: {sends:?}"));
                return;
            }
        }
    }

    fn is_deserved(
        &self,
        answer: &Answer,
        sent: &Sent,
        shown: &Shown,
        schedule: &Schedule,
    ) -> bool {
        let request = &sent.request;
        let code = answer.code();
        let is_limited = request.timeout.is_some() || request.expires_in.is_some();
        let fits = match (code, request.expect) {
            ("rate_limited", _) => self.is_busy(sent, shown),
            (code, Expect::Refused(expected)) => code == expected,
            (code, _) if request.retain && schedule.protocol == MqttVersion::V5 => {
                code == "invalid_request"
            }
            ("expired" | "timeout", _) if request.command == "history" => is_limited,
            ("ok" | "gateway_unavailable" | "interrupted", _) => true,
            (_, _) if ["history", "republish"].contains(&request.command) => false,
            ("expired", _) => is_limited,
            (code, _) => !NOT_RUN.contains(&code) && code != "internal",
        };
        fits && answer.value["command"] == request.command
            && (request.changes() || !answer.is_replayed())
    }

    /// Whether the number of requests permits a refusal.
    fn is_busy(&self, sent: &Sent, shown: &Shown) -> bool {
        // Delayed requests arrive all at once.
        let impaired = shown.impaired.iter().filter(|it| it.from <= sent.at).map(|it| it.until);
        let since = sent.at.saturating_sub(Duration::from_secs(2));
        if impaired.max().is_some_and(|until| until >= since) {
            return true;
        }
        let owner = |other: &&Sent| other.request.owner == sent.request.owner;
        let before = shown.sent.iter().filter(owner).filter(|other| other.at <= sent.at);
        let soon = Duration::from_secs(2);
        let recent =
            shown.sent.iter().filter(owner).filter(|other| other.at.abs_diff(sent.at) <= soon);
        recent.count() > RATE || before.count() >= CHANGES_MAX
    }

    /// An ID is of one event, in all pages and in the history.
    fn ids_are_unique(&self, shown: &Shown, wrong: &mut Vec<String>) {
        let mut events: BTreeMap<u64, String> = BTreeMap::new();
        let mut add = |id: u64, event_id: &str| {
            let known = events.entry(id).or_insert_with(|| event_id.to_owned());
            if known != event_id {
                wrong.push(format!("the ID {id} is of two events: {known} and {event_id}"));
            }
        };
        for (_, event) in self.0.iter().flat_map(|answer| page(&answer.value)) {
            add(
                event["id"].as_u64().unwrap_or_default(),
                event["event_id"].as_str().unwrap_or_default(),
            );
        }
        for (id, StoredEvent { payload, .. }) in &shown.history.events {
            let event: Value = serde_json::from_slice(payload).unwrap();
            add(*id, event["event_id"].as_str().unwrap_or_default());
        }
    }
}

fn is_refused(answer: &Answer, code: &str) -> bool {
    [code, "rate_limited"].contains(&answer.code())
}

/// The deadline of a response; `None` if it may be lost with its connection.
fn due(sent: &Sent, schedule: &Schedule, shown: &Shown) -> Option<Duration> {
    let request = &sent.request;
    let end = shown.processes.last().map_or(Duration::MAX, |last| last.until);
    let expires_in = request.expires_in.filter(|_| schedule.protocol == MqttVersion::V5);
    let limited = [request.timeout, expires_in].into_iter().flatten().min();
    let within = match limited {
        Some(limit) => limit + GRACE,
        None if !request.changes() => READ_WITHIN,
        None => end.saturating_sub(sent.at + Duration::from_secs(1)),
    };
    let mut due = sent.at + within;
    for impaired in &shown.impaired {
        if impaired.from <= due && impaired.until >= sent.at {
            if impaired.refused {
                return None;
            }
            due = due.max(impaired.until + within);
        }
    }
    let ended = sent.connection.and_then(|connection| shown.ended.get(&connection).copied());
    (due < ended.unwrap_or(end).min(end)).then_some(due)
}

/// The events of a page, in its order.
fn page(answer: &Value) -> impl Iterator<Item = (usize, &Value)> {
    answer["data"]["events"].as_array().into_iter().flatten().enumerate()
}

fn content(answer: &Answer, sent: &Sent, shown: &Shown, wrong: &mut Vec<String>) {
    if answer.code() != "ok" {
        return;
    }
    match (sent.request.command, sent.request.owner) {
        ("history", owner) => history(answer, sent, owner, shown, wrong),
        ("devices", Owner::Gateway(at)) => devices(answer, sent, at, shown, wrong),
        _ => {}
    }
}

/// A page has every event of its range once, in the order of the IDs, as it was published.
fn history(answer: &Answer, sent: &Sent, owner: Owner, shown: &Shown, wrong: &mut Vec<String>) {
    let data = &answer.value["data"];
    let after_id = sent.request.fields["after_id"].as_u64().unwrap_or_default();
    let (next, more) = (data["next"].as_u64().unwrap_or_default(), data["more"] == true);
    let mut last = after_id;
    let mut given = BTreeMap::new();
    for (_, event) in page(&answer.value) {
        let id = event["id"].as_u64().unwrap_or_default();
        if id <= last || id > next {
            wrong.push(format!("{id} after {last} in a page to {next}: {sent:?}"));
        }
        last = id;
        let mut event = event.clone();
        let fields = event.as_object_mut().unwrap();
        for key in ["id", "delivered"] {
            fields.remove(key);
        }
        given.insert(id, event);
    }
    // A power cut may take all events up to the one that the client read last.
    let is_cut_before = shown.cuts.iter().any(|cut| cut.at <= sent.at);
    if data.get("gap").is_some() && !is_cut_before {
        wrong.push(format!("a page has a gap: {sent:?} {data}"));
    }
    let is_cut_later = shown.cuts.iter().any(|cut| cut.until >= sent.at);
    let prefix = format!("gsdk/{}/", owner.name());
    for (id, StoredEvent { topic, payload, .. }) in &shown.history.events {
        let event: Value = serde_json::from_slice(payload).unwrap();
        let is_asked_for = owner == Owner::Bridge || topic.starts_with(&prefix);
        let recorded = crate::oracle::received(&event);
        let is_recorded = recorded.is_some_and(|at| at + RECORDED_WITHIN <= sent.at);
        let is_in_range = *id > after_id && (!more || *id <= next);
        match given.remove(id) {
            Some(found) if found == event && is_asked_for => {}
            Some(found) if !is_cut_later => {
                wrong.push(format!("a page has {found}, the history {event}: {sent:?}"));
            }
            None if is_asked_for && is_recorded && is_in_range => {
                wrong.push(format!("a page to {next} lacks {id} {event}: {sent:?}"));
            }
            _ => {}
        }
    }
    if let Some((id, event)) = given.into_iter().next().filter(|_| !is_cut_later) {
        wrong.push(format!("a page has {id} {event} and the history does not: {sent:?}"));
    }
}

/// The devices equal the gateway's list, if that did not change meanwhile.
fn devices(answer: &Answer, sent: &Sent, at: usize, shown: &Shown, wrong: &mut Vec<String>) {
    let truth = &shown.truth[at];
    let index = |at: Duration| truth.partition_point(|(from, _)| *from <= at);
    let first = index(sent.at);
    let Some((_, list)) = first.checked_sub(1).and_then(|at| truth.get(at)) else { return };
    if index(answer.at) != first {
        return;
    }
    let rows = answer.value["data"]["devices"].as_array().cloned().unwrap_or_default();
    let row = |row: &Value| {
        let id = u32::try_from(row["device_id"].as_u64()?).ok()?;
        Some((id, i32::try_from(row["status_code"].as_i64()?).ok()?))
    };
    let reported: BTreeMap<u32, i32> = rows.iter().filter_map(row).collect();
    if reported != *list || rows.len() != list.len() {
        wrong.push(format!("the list has {list:?}, the answer {reported:?}: {sent:?}"));
    }
}
