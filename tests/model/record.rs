//! The record of a run, for `oracle` and `history` to judge.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gsdk2mqtt::proto::connect::{AcceptFilter, DeviceInfo};
use gsdk2mqtt::simulator::Control;
use tokio::time::{Instant, sleep};

use crate::broker::Seen;
use crate::request::Request;
use crate::storage::{History, StoredEvent};

/// How exactly it is known what a list showed when.
pub(crate) const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// What one run has shown.
pub(crate) struct Shown {
    pub(crate) seen: Vec<Seen>,
    pub(crate) retained: BTreeMap<String, bytes::Bytes>,
    /// The lists of the gateways at the end.
    pub(crate) lists: Vec<Vec<DeviceInfo>>,
    /// Their accept filters at the end.
    pub(crate) filters: Vec<AcceptFilter>,
    /// The calls of each gateway by the end.
    pub(crate) calls: Vec<Calls>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) processes: Vec<Process>,
    /// When each connection to the broker began, and when it ended.
    pub(crate) began: BTreeMap<u64, Duration>,
    pub(crate) ended: BTreeMap<u64, Duration>,
    pub(crate) impaired: Vec<Impaired>,
    /// What the gateways' lists showed, again and again: since when which statuses.
    pub(crate) truth: Vec<Vec<(Duration, BTreeMap<u32, i32>)>>,
    /// When nothing could be heard of which gateway.
    pub(crate) deaf: Vec<(usize, Duration, Duration)>,
    /// What was false while the run went on.
    pub(crate) wrong: Vec<String>,
    pub(crate) cuts: Vec<Cut>,
    /// The history in the end.
    pub(crate) history: History,
}

/// How often each method of a gateway was called.
pub(crate) type Calls = BTreeMap<String, u64>;

/// A request that a client sent.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) at: Duration,
    pub(crate) request: Request,
    /// The connection of the bridge that the broker passed it to.
    pub(crate) connection: Option<u64>,
    /// The process of the bridge that ran then.
    pub(crate) process: Option<usize>,
    /// The calls of each gateway by then.
    pub(crate) calls: Vec<Calls>,
}

/// A process of the bridge.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) until: Duration,
    pub(crate) end: End,
    /// The calls of each gateway at its end.
    pub(crate) calls: Vec<Calls>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Stopped,
    Killed,
    PowerCut,
}

/// A time in which the broker did not hear or answer the bridge as usual.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Impaired {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    /// It refused what it heard.
    pub(crate) refused: bool,
}

/// A power cut at the bridge's machine.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Since when something may have been unsynced.
    pub(crate) from: Duration,
    pub(crate) at: Duration,
    /// Until when a subscriber may see what was published before the cut: later where the broker
    /// read nothing then.
    pub(crate) until: Duration,
    /// The broker reads nothing yet.
    pub(crate) is_deaf: bool,
    /// The bridge had not stopped cleanly, so its chain ends.
    pub(crate) ends_chain: bool,
    /// The events that are left.
    pub(crate) stored: BTreeMap<u64, StoredEvent>,
}

/// What a gateway's list showed, since when.
pub(crate) type Truth = Arc<Mutex<Vec<(Duration, BTreeMap<u32, i32>)>>>;

/// Looks at a gateway's list again and again, past all that befalls it.
pub(crate) fn look_on(control: Control, began: Instant) -> Truth {
    let truth = Truth::default();
    let noted = truth.clone();
    tokio::spawn(async move {
        loop {
            let list = control.managed().iter().map(|info| (info.device_id, info.status)).collect();
            {
                let mut noted = noted.lock().unwrap();
                if noted.last().is_none_or(|(_, last)| *last != list) {
                    noted.push((began.elapsed(), list));
                }
            }
            sleep(LOOKS_EVERY).await;
        }
    });
    truth
}
