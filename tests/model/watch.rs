//! What is down in a run, and since when; and whether the bridge reports a lost gateway as lost.

use std::time::Duration;

use crate::broker::{Broker, Condition};
use crate::network::Side;
use crate::record::Impaired;
use crate::schedule::Place;
use crate::world::name_of;

/// Within this time an unreachable gateway is shown as lost.
const LOST_WITHIN: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(crate) struct Watch {
    /// Since when bridge and broker have worked and been connected.
    well_since: Option<Duration>,
    held: Vec<(Place, bool)>,
    /// The broker's.
    pub(crate) condition: Condition,
    is_impaired: bool,
    pub(crate) impaired: Vec<Impaired>,
    /// The gateways that are frozen.
    pub(crate) frozen: Vec<bool>,
    unreachable_since: Vec<Option<Duration>>,
    pub(crate) unreachable: Vec<(usize, Duration, Duration)>,
    pub(crate) wrong: Vec<String>,
}

impl Watch {
    pub(crate) fn new(gateways: usize) -> Self {
        let (frozen, unreachable_since) = (vec![false; gateways], vec![None; gateways]);
        Self { frozen, unreachable_since, ..Self::default() }
    }

    /// What this side sends does not get through, or does again.
    pub(crate) fn hold(&mut self, now: Duration, place: Place, side: Side, on: bool) {
        let key = (place, side == Side::Server);
        self.held.retain(|held| *held != key);
        if on {
            self.held.push(key);
        } else if let (Place::Gateway(at), Side::Server) = (place, side) {
            // What was held arrives now, even if the gateway is frozen meanwhile.
            self.set_reachable(now, at, true);
        }
    }

    /// The run is over.
    pub(crate) fn ends(&mut self, now: Duration) {
        for at in 0..self.frozen.len() {
            self.set_reachable(now, at, true);
        }
    }

    pub(crate) fn update(&mut self, now: Duration, broker: &Broker, is_running: bool) {
        let is_held = |place, server| self.held.contains(&(place, server));
        let Condition { reads_nothing, acknowledges_nothing, refuses } = self.condition;
        let is_silent = is_held(Place::Broker, true) || is_held(Place::Broker, false);
        let is_impaired =
            !broker.is_up() || reads_nothing || acknowledges_nothing || refuses || is_silent;
        let unreachable: Vec<bool> = (0..self.frozen.len())
            .map(|at| is_held(Place::Gateway(at), true) || self.frozen[at])
            .collect();
        self.broker_seems(now, is_impaired);
        let is_well = is_running && !is_impaired;
        let since = self.well_since.filter(|_| is_well);
        self.well_since = is_well.then(|| since.unwrap_or(now));
        for (at, unreachable) in unreachable.into_iter().enumerate() {
            self.set_reachable(now, at, !unreachable);
            self.check_lost(now, at, broker);
        }
    }

    fn set_reachable(&mut self, now: Duration, at: usize, reachable: bool) {
        match (reachable, self.unreachable_since[at]) {
            (true, Some(since)) => {
                self.unreachable.push((at, since, now));
                self.unreachable_since[at] = None;
            }
            (false, None) => self.unreachable_since[at] = Some(now),
            _ => {}
        }
    }

    fn broker_seems(&mut self, now: Duration, is_impaired: bool) {
        if is_impaired && !self.is_impaired {
            self.impaired.push(Impaired { from: now, until: now, refused: false });
        }
        let refuses = self.condition.refuses;
        let last = self.impaired.last_mut().filter(|_| is_impaired || self.is_impaired);
        if let Some(last) = last {
            (last.until, last.refused) = (now, last.refused || refuses);
        }
        self.is_impaired = is_impaired;
    }

    /// A gateway that is unreachable for long is lost, and its devices are unknown.
    fn check_lost(&mut self, now: Duration, at: usize, broker: &Broker) {
        let long = |since: Option<Duration>| since.is_some_and(|since| now - since >= LOST_WITHIN);
        if !long(self.well_since) || !long(self.unreachable_since[at]) {
            return;
        }
        let prefix = format!("gsdk/{}/", name_of(at));
        for (topic, payload) in broker.retained() {
            let Some(rest) = topic.strip_prefix(&prefix) else { continue };
            let text = String::from_utf8_lossy(&payload);
            let is_wrong = match rest {
                "state" => text != "offline",
                _ => rest.ends_with("/state") && !text.contains("\"connected\":null"),
            };
            if is_wrong {
                self.wrong.push(format!("{now:?}: {topic} of a lost gateway says {text}"));
            }
        }
    }
}
