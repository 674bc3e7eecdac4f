//! The record of a run, which `oracle` and `history` check.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gsdk2mqtt::proto::connect::{AcceptFilter, DeviceInfo};
use gsdk2mqtt::simulator::Control;
use tokio::time::Instant;

use crate::broker::Seen;
use crate::request::Request;
use crate::storage::{History, StoredEvent};

/// The record of one run.
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
    /// The lists of the gateways: the statuses and since when.
    pub(crate) truth: Vec<Vec<(Duration, BTreeMap<u32, i32>)>>,
    /// When each gateway was silent.
    pub(crate) unreachable: Vec<(usize, Duration, Duration)>,
    /// Violations during the run.
    pub(crate) wrong: Vec<String>,
    pub(crate) cuts: Vec<Cut>,
    /// The history at the end.
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
    /// The calls of each gateway until then.
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

/// A time in which the broker did not read or answer as usual.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Impaired {
    pub(crate) from: Duration,
    pub(crate) until: Duration,
    /// It refused messages.
    pub(crate) refused: bool,
}

/// A power cut at the bridge's machine.
#[derive(Debug)]
pub(crate) struct Cut {
    /// Since when something may have been unsynced.
    pub(crate) from: Duration,
    pub(crate) at: Duration,
    /// Until when a subscriber may receive messages from before the cut: later if the broker
    /// read nothing then.
    pub(crate) until: Duration,
    /// The broker reads nothing yet.
    pub(crate) broker_reads_nothing: bool,
    /// The bridge had not stopped cleanly, so its chain ends.
    pub(crate) ends_chain: bool,
    /// The remaining events.
    pub(crate) stored: BTreeMap<u64, StoredEvent>,
}

/// What a gateway's list showed, since when.
pub(crate) type Truth = Arc<Mutex<Vec<(Duration, BTreeMap<u32, i32>)>>>;

/// Records a gateway's list, independent of all faults.
pub(crate) fn record(control: &Control, began: Instant) -> Truth {
    let truth = Truth::default();
    let noted = truth.clone();
    control.observe_managed(move |managed| {
        let list = managed.iter().map(|info| (info.device_id, info.status)).collect();
        let mut noted = noted.lock().unwrap();
        if noted.last().is_none_or(|(_, last)| *last != list) {
            noted.push((began.elapsed(), list));
        }
    });
    truth
}
