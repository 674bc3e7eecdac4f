//! Checks the changes that clients request: each is made once, a repeat gets the stored response,
//! an interrupted one is reported and not resumed, and its items are added again after a restart of
//! the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::answers::{Answer, Answers};
use crate::record::{Calls, End, Process, Sent, Shown};
use crate::request::{Expect, Owner};
use crate::schedule::Schedule;
use crate::world::name_of;

/// How long an answer is stored, less what a request may be under way.
const STORED_FOR: Duration = Duration::from_secs(280);
/// A call with an unknown outcome may still reach the gateway within this time.
const LATE: Duration = Duration::from_secs(60);
/// Within this time a killed process may have a response in flight.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// The window that never delays a response.
const WIDE_WINDOW: u16 = 100;

/// The commands whose calls no other command makes, and these calls.
const CALLS: [(&[&str], &[&str]); 6] = [
    (&["disconnect"], &["Disconnect"]),
    (&["disconnect_all"], &["DisconnectAll"]),
    (&["connect"], &["Connect"]),
    (&["mode/set"], &["SetConnectionModeMulti"]),
    (&["ssl/enable"], &["EnableSSLMulti"]),
    (&["ssl/disable"], &["DisableSSLMulti"]),
];

/// The commands that may remove something without steps.
const REMOVING: [&str; 4] =
    ["async/remove", "accept_filter/remove", "accept_filter/set", "accept_filter/allow_all"];

/// A change as received by one process of the bridge, with its repeats.
struct Change<'a> {
    gateway: usize,
    process: usize,
    sends: Vec<&'a Sent>,
    answers: Vec<&'a Answer>,
}

impl Change<'_> {
    fn command(&self) -> &'static str {
        self.sends[0].request.command
    }

    /// Whether the gateway may have seen it.
    fn may_have_run(&self) -> bool {
        let all_refused = self.answers.len() >= self.sends.len()
            && self.answers.iter().all(|answer| !answer.was_run());
        !all_refused && !matches!(self.sends[0].request.expect, Expect::Refused(_))
    }

    /// Its result if the gateway has answered.
    fn result(&self) -> Option<&str> {
        let done = self.answers.iter().map(|answer| answer.code());
        done.into_iter().find(|code| ["ok", "partial"].contains(code))
    }

    /// Whether it has certainly ended.
    fn is_over(&self) -> bool {
        self.answers.len() >= self.sends.len()
            && self.answers.iter().all(|answer| answer.code() != "interrupted")
    }
}

pub(crate) fn check(
    schedule: &Schedule,
    shown: &Shown,
    answers: &Answers,
    wrong: &mut Vec<String>,
) {
    let changes = changes(shown, answers);
    for change in &changes {
        once(change, wrong);
    }
    for gateway in 0..shown.lists.len() {
        calls_are_asked_for(gateway, &changes, &shown.calls[gateway], wrong);
    }
    interruptions(schedule, shown, &changes, wrong);
    Desired::after(schedule, shown, &changes).check(schedule, shown, &changes, wrong);
}

fn changes<'a>(shown: &'a Shown, answers: &'a Answers) -> Vec<Change<'a>> {
    let mut sends: BTreeMap<(usize, u64), Vec<&Sent>> = BTreeMap::new();
    for sent in shown.sent.iter().filter(|sent| sent.request.changes()) {
        if let (Some(process), Some(_)) = (sent.process, sent.connection) {
            sends.entry((process, sent.request.number)).or_default().push(sent);
        }
    }
    let change = |((process, number), sends): ((usize, u64), Vec<&'a Sent>)| {
        let Owner::Gateway(gateway) = sends[0].request.owner else { return None };
        let answers = answers.to(number, process);
        Some(Change { gateway, process, sends, answers })
    };
    let mut changes: Vec<Change<'_>> = sends.into_iter().filter_map(change).collect();
    changes.sort_by_key(|change| change.sends[0].at);
    changes
}

/// A repeat gets the stored answer.
fn once(change: &Change<'_>, wrong: &mut Vec<String>) {
    let Change { sends, answers, .. } = change;
    let (first, last) = (sends[0].at, sends[sends.len() - 1].at);
    if last - first > STORED_FOR {
        return;
    }
    let (replayed, run): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().filter(|answer| answer.was_run()).partition(|answer| answer.is_replayed());
    if run.len() > 1 {
        wrong.push(format!("a repeat was run: {run:?} {sends:?}"));
    }
    if replayed.len() >= sends.len() {
        wrong.push(format!("the first was answered as a repeat: {replayed:?} {sends:?}"));
    }
    let mut stored = replayed.iter().chain(&run).map(|answer| {
        let mut value = answer.value.clone();
        value.as_object_mut().unwrap().remove("replayed");
        value
    });
    let Some(one) = stored.next() else { return };
    if stored.any(|other| other != one) {
        wrong.push(format!("a repeat was answered otherwise: {answers:?} {sends:?}"));
    }
}

/// A gateway receives each requested change once, and no other.
fn calls_are_asked_for(
    gateway: usize,
    changes: &[Change<'_>],
    calls: &Calls,
    wrong: &mut Vec<String>,
) {
    let of_gateway = || changes.iter().filter(|change| change.gateway == gateway);
    let switches_ssl = of_gateway().any(|change| change.command().starts_with("ssl/"));
    for (commands, methods) in CALLS {
        // A change of SSL connects devices again, as often as necessary.
        if commands == ["connect"] && switches_ssl {
            continue;
        }
        let made: u64 = methods.iter().filter_map(|method| calls.get(*method)).sum();
        let asked: Vec<_> =
            of_gateway().filter(|change| commands.contains(&change.command())).collect();
        let most = asked.iter().filter(|change| change.may_have_run()).count() as u64;
        let is_one_call = ["disconnect", "connect"].contains(&commands[0]);
        let done = |change: &&&Change<'_>| is_one_call && change.result().is_some();
        let least = asked.iter().filter(done).count() as u64;
        if !(least..=most).contains(&made) {
            let name = name_of(gateway);
            wrong.push(format!("{name} saw {methods:?} {made} times, {least} to {most} are true"));
        }
    }
}

/// A change that ended with its process is reported, once, and no other.
fn interruptions(
    schedule: &Schedule,
    shown: &Shown,
    changes: &[Change<'_>],
    wrong: &mut Vec<String>,
) {
    let mut reported = BTreeMap::new();
    for seen in shown.seen.iter().filter(|seen| seen.topic.ends_with("/command_interrupted")) {
        let event: Value = serde_json::from_slice(&seen.payload).unwrap();
        reported.entry(event["event_id"].to_string()).or_insert((seen.at(), event));
    }
    let is_of = |event: &Value, change: &Change<'_>| {
        let ids: BTreeSet<u64> = change.sends[0].request.device_ids().into_iter().collect();
        let named = event["device_ids"].as_array().into_iter().flatten();
        event["command"] == change.command()
            && event["gateway"] == name_of(change.gateway)
            && named.filter_map(Value::as_u64).collect::<BTreeSet<_>>() == ids
    };
    let ended = |change: &Change<'_>| &shown.processes[change.process];
    for (at, event) in reported.values() {
        let may_be = |change: &&Change<'_>| {
            let Process { until, end, .. } = ended(change);
            let is_open = *end == End::PowerCut || !change.is_over();
            change.may_have_run() && until <= at && is_open && is_of(event, change)
        };
        // A power cut may remove the record of the report.
        let cuts = shown.processes.iter().filter(|it| it.end == End::PowerCut && it.until <= *at);
        let most = changes.iter().filter(may_be).count() * (1 + cuts.count());
        let same = reported.values().filter(|(other_at, other)| {
            other_at <= at && changes.iter().filter(may_be).any(|change| is_of(other, change))
        });
        if same.count() > most {
            wrong.push(format!("reported as interrupted at {at:?}, at most {most} were: {event}"));
        }
    }
    for change in changes {
        let Process { until, end, .. } = *ended(change);
        let is_lost = shown.cuts.iter().any(|cut| cut.until >= until);
        if end == End::Killed
            && !is_lost
            && was_amid(schedule, shown, change, changes)
            && !reported.values().any(|(at, event)| *at >= until && is_of(event, change))
        {
            wrong.push(format!("interrupted at {until:?} and not reported: {:?}", change.sends));
        }
    }
}

/// Whether its process was certainly killed during this change: the gateway had received its call,
/// and a response would have been received.
fn was_amid(
    schedule: &Schedule,
    shown: &Shown,
    change: &Change<'_>,
    changes: &[Change<'_>],
) -> bool {
    let Process { until, calls, .. } = &shown.processes[change.process];
    let sent = change.sends[0];
    let connection = sent.connection.and_then(|connection| shown.ended.get(&connection));
    let was_received = schedule.window == WIDE_WINDOW
        && connection.is_none_or(|ended| ended >= until)
        && shown.impaired.iter().all(|it| it.until < sent.at || it.from > *until);
    let Some((commands, methods)) =
        CALLS.iter().find(|(commands, _)| commands.contains(&change.command()))
    else {
        return false;
    };
    let count = |calls: &[Calls]| -> u64 {
        methods.iter().filter_map(|method| calls[change.gateway].get(*method)).sum()
    };
    let others = changes.iter().filter(|other| {
        other.gateway == change.gateway
            && commands.contains(&other.command())
            && !std::ptr::eq(*other, change)
    });
    // None of them can have made the call.
    let mut others = others.filter(|other| {
        let is_before =
            other.is_over() && other.answers.iter().all(|answer| answer.at + LATE < sent.at);
        other.may_have_run() && !is_before && other.sends[0].at < *until
    });
    was_received
        && change.sends.len() == 1
        && change.answers.is_empty()
        && sent.at + UNDER_WAY < *until
        && count(calls) > count(&sent.calls)
        && others.next().is_none()
}

/// Something that a command makes at a gateway, which a restart of the gateway loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    Registered(u64),
    Accepted(u64),
    AllowAll,
}

/// The known items that clients requested at the gateways.
#[derive(Default)]
struct Desired {
    known: BTreeMap<(usize, Item), bool>,
    /// Unknown until this time.
    uncertain: BTreeMap<(usize, Item), Duration>,
}

impl Desired {
    fn after(schedule: &Schedule, shown: &Shown, changes: &[Change<'_>]) -> Self {
        let mut desired = Self::default();
        let mut cuts = shown.processes.iter().filter(|it| it.end == End::PowerCut).peekable();
        for change in changes {
            let sent = change.sends[0];
            while cuts.next_if(|cut| cut.until <= sent.at).is_some() {
                desired.known.clear();
            }
            if !change.may_have_run() {
                continue;
            }
            let all: Vec<u64> =
                schedule.sites[change.gateway].devices.iter().map(|it| it.id.into()).collect();
            let mut effects = effects(sent, &all);
            let was_refused = change.answers.iter().any(|answer| !answer.was_run());
            let is_certain = change.result() == Some("ok")
                && !sent.request.has_steps()
                && !(was_refused && change.sends.len() > 1);
            if !is_certain && effects.iter().any(|(item, _)| !matches!(item, Item::Registered(_))) {
                // It may replace the whole filter late.
                let accepted = all.iter().map(|id| (Item::Accepted(*id), true));
                effects.extend(accepted.chain([(Item::AllowAll, true)]));
            }
            for (item, is_wanted) in effects {
                let key = (change.gateway, item);
                let uncertain = desired.uncertain.get(&key);
                if is_certain && uncertain.is_none_or(|until| *until < sent.at) {
                    desired.known.insert(key, is_wanted);
                } else {
                    desired.known.remove(&key);
                }
                if !is_certain {
                    desired.uncertain.insert(key, sent.at + LATE);
                }
            }
        }
        if cuts.next().is_some() {
            desired.known.clear();
        }
        desired
    }

    fn check(
        &self,
        schedule: &Schedule,
        shown: &Shown,
        changes: &[Change<'_>],
        wrong: &mut Vec<String>,
    ) {
        for ((gateway, item), is_wanted) in &self.known {
            let filter = &shown.filters[*gateway];
            let listed = |id: u64| {
                let row = shown.lists[*gateway].iter().find(|row| u64::from(row.device_id) == id);
                row.is_some_and(|row| row.auto_reconnect)
            };
            let (id, is_there) = match *item {
                Item::Registered(id) => (Some(id), listed(id)),
                Item::Accepted(id) => {
                    (Some(id), filter.device_i_ds.iter().any(|it| u64::from(*it) == id))
                }
                Item::AllowAll => (None, filter.allow_all),
            };
            let declared = id.and_then(|id| u32::try_from(id).ok());
            let site = &schedule.sites[*gateway];
            if declared.is_some_and(|id| site.is_declared(id)) {
                continue;
            }
            if is_there != *is_wanted {
                let name = name_of(*gateway);
                wrong
                    .push(format!("{name}: {item:?} is wanted: {is_wanted}, is there: {is_there}"));
            }
            let Some(id) = id.filter(|_| *is_wanted) else { continue };
            let state = shown.retained.get(&format!("gsdk/{}/{id}/state", name_of(*gateway)));
            let state = state.and_then(|payload| serde_json::from_slice::<Value>(payload).ok());
            if state.as_ref().is_some_and(|state| state["kept"] != "command") {
                wrong.push(format!("{item:?} is kept by a command, the state says {state:?}"));
            }
        }
        for seen in shown.seen.iter().filter(|seen| seen.topic.ends_with("/event/withdrawn")) {
            let may_be = |change: &&Change<'_>| {
                let removes =
                    change.sends[0].request.has_steps() || REMOVING.contains(&change.command());
                removes && seen.topic.contains(&format!("/{}/", name_of(change.gateway)))
            };
            if !changes.iter().any(|change| may_be(&change) && change.sends[0].at <= seen.at()) {
                wrong.push(format!("withdrawn, and no client removed it: {seen:?}"));
            }
        }
    }
}

/// The effect of a change, as far as it is known for these devices.
fn effects(sent: &Sent, all: &[u64]) -> Vec<(Item, bool)> {
    let request = &sent.request;
    let ids = request.device_ids();
    let each = |item: fn(u64) -> Item, is_wanted: bool| -> Vec<(Item, bool)> {
        ids.iter().map(|id| (item(*id), is_wanted)).collect()
    };
    match request.command {
        "async/add" => each(Item::Registered, true),
        "async/remove" => each(Item::Registered, false),
        "accept_filter/add" => each(Item::Accepted, true),
        "accept_filter/remove" => each(Item::Accepted, false),
        "accept_filter/allow_all" => vec![(Item::AllowAll, request.fields["enabled"] == true)],
        "accept_filter/set" => {
            let accepted = all.iter().map(|id| (Item::Accepted(*id), ids.contains(id)));
            let allow_all = (Item::AllowAll, request.fields["allow_all"] == true);
            accepted.chain([allow_all]).collect()
        }
        "mode/set" | "ssl/enable" | "ssl/disable" if request.has_steps() => {
            [each(Item::Registered, true), each(Item::Accepted, true)].concat()
        }
        _ => Vec::new(),
    }
}
