//! Checks the history after a run: it has every event that a subscriber received, once, and no gap
//! but at power cuts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::broker::Seen;
use crate::oracle::received;
use crate::record::{Cut, Shown};
use crate::storage::StoredEvent;

/// Checks the history of a run.
pub(crate) fn check(shown: &Shown, wrong: &mut Vec<String>) {
    let published: BTreeMap<String, &Seen> = shown
        .seen
        .iter()
        .filter(|seen| seen.topic.contains("/event/"))
        .map(|seen| (event_id(&seen.payload), seen))
        .rev()
        .collect();
    let recorded = recorded(shown, &published, wrong);
    for (event_id, seen) in &published {
        let at = Duration::from_micros(u64::try_from(seen.at_us).unwrap());
        let has = |events: &BTreeMap<u64, StoredEvent>| {
            events.values().any(|stored| stored.payload == seen.payload)
        };
        // Messages that a slow network delivered after the cut were received before it.
        let made = serde_json::from_slice(&seen.payload).ok().and_then(|event| received(&event));
        let may_be_lost = |cut: &Cut| {
            let span = cut.from..=cut.until;
            span.contains(&at) || made.is_some_and(|made| span.contains(&made))
        };
        let lost = |cut: &Cut| may_be_lost(cut) && !has(&cut.stored);
        if !recorded.contains_key(event_id) && !shown.cuts.iter().any(lost) {
            wrong.push(format!("the history does not have {seen:?}"));
        }
    }
    for cut in &shown.cuts {
        for (id, stored) in &cut.stored {
            let kept = shown.history.events.get(id);
            if kept.is_none_or(|kept| kept.payload != stored.payload) {
                wrong.push(format!("left by the power cut at {:?} and gone: {stored:?}", cut.at));
            }
        }
    }
    // What a power cut may have taken is a gap.
    if shown.history.gaps > shown.cuts.len() as u64 {
        wrong.push(format!("the history has {} gaps", shown.history.gaps));
    }
    unbroken(shown, wrong);
}

fn read(payload: &[u8]) -> Value {
    serde_json::from_slice(payload).unwrap()
}

fn event_id(payload: &[u8]) -> String {
    read(payload)["event_id"].as_str().unwrap().to_owned()
}

/// The history's events by event ID. Each was published as it is, and is marked as delivered.
fn recorded<'a>(
    shown: &'a Shown,
    published: &BTreeMap<String, &Seen>,
    wrong: &mut Vec<String>,
) -> BTreeMap<String, &'a StoredEvent> {
    let mut recorded = BTreeMap::new();
    for stored in shown.history.events.values() {
        let event_id = event_id(&stored.payload);
        let seen = published.get(&event_id);
        if seen.is_none_or(|seen| (&seen.topic, &seen.payload) != (&stored.topic, &stored.payload))
        {
            wrong.push(format!("the history has {stored:?}, published was {seen:?}"));
        }
        if !stored.delivered || stored.dropped || stored.lost > 0 {
            wrong.push(format!("marks of an event that was delivered: {stored:?}"));
        }
        if let Some(twice) = recorded.insert(event_id, stored) {
            wrong.push(format!("twice in the history: {twice:?}"));
        }
    }
    recorded
}

/// In the order of the IDs, the events of a device in a chain are numbered from 1 on.
fn unbroken(shown: &Shown, wrong: &mut Vec<String>) {
    let mut last: BTreeMap<(String, String), u64> = BTreeMap::new();
    for stored in shown.history.events.values() {
        let event = read(&stored.payload);
        let (Some(chain), Some(seq)) = (event["chain"].as_str(), event["seq"].as_u64()) else {
            continue;
        };
        let (subject, _) = stored.topic.split_once("/event/").unwrap();
        let last = last.entry((subject.to_owned(), chain.to_owned())).or_default();
        if seq != *last + 1 {
            wrong.push(format!("in the history {seq} follows {last}: {stored:?}"));
        }
        *last = seq;
    }
}
