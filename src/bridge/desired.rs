//! What gateways are to have: given at every new link, told of when another client takes it away.
//!
//! May not decide what is missing (`desired` does) nor wait for a gateway: the steps of a round run
//! beside the loop, each told as it ends, and a device that cannot be given is tried again, ever
//! more rarely, while the link stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Bridge;
use super::giving::{Given, Round, give};
use crate::commands::{Failure, Made, Warning, kept_by_configuration};
use crate::config::{Config, Connect, Gateway};
use crate::desired::{Desired, Wish, Wishes, by_kind};
use crate::fleet::{GatewayEvent, GatewayIndex, Input, Listed};
use crate::gsdk::{AcceptFilter, Link, Slaves, Target};
use crate::ids::{DeviceId, GatewayName};
use crate::outbox::store::Key;

/// The first pause after something could not be given; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Reports on their way to the loop. A full queue makes those who report wait, nobody else.
const REPORTS_MAX: usize = 64;
/// Things named in one line of the log; of more it is said how many.
const NAMED_MAX: usize = 10;

/// What came of something that was done beside the loop, at a gateway, on its so-manieth link.
#[derive(Debug)]
pub(super) struct Report {
    gateway: GatewayIndex,
    link: u64,
    of: Done,
}

#[derive(Debug)]
enum Done {
    Step(Given),
    Slaves(Vec<Slaves>),
}

/// What is wanted of each gateway, and how that goes.
#[derive(Debug)]
pub(super) struct Wanted {
    gateways: Vec<Giving>,
    report: mpsc::Sender<Report>,
    pub(super) reports: mpsc::Receiver<Report>,
}

#[derive(Debug)]
struct Giving {
    desired: Desired,
    /// Counts the links: a report of an earlier one says nothing of this.
    link: u64,
    round: Round,
    under_way: bool,
    /// Whether the round has given anything so far.
    has_given: bool,
    again_at: Option<Instant>,
    pause: Duration,
    /// What could not be given on this link and was told, with the error's code and whether it
    /// failed alone: told again when that is another.
    told: BTreeMap<Wish, (&'static str, bool)>,
}

impl Wanted {
    pub(super) fn new(config: &Config) -> Self {
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let giving = |gateway: &Gateway| Giving {
            desired: Desired::new(declared(gateway)),
            link: 0,
            round: Round::default(),
            under_way: false,
            has_given: false,
            again_at: None,
            pause: RETRY_FIRST,
            told: BTreeMap::new(),
        };
        Self { gateways: config.gateways.values().map(giving).collect(), report, reports }
    }

    /// When the loop has to turn to try something again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.gateways.iter().filter_map(|giving| giving.again_at).min()
    }

    pub(super) fn list_asked(&mut self, gateway: GatewayIndex) {
        if let Some(giving) = self.gateways.get_mut(gateway.0) {
            giving.desired.list_asked();
        }
    }

    pub(super) fn change_begins(&mut self, gateway: GatewayIndex) {
        if let Some(giving) = self.gateways.get_mut(gateway.0) {
            giving.desired.change_begins();
        }
    }

    pub(super) fn link_up(&mut self, gateway: GatewayIndex) {
        if let Some(giving) = self.gateways.get_mut(gateway.0) {
            giving.desired.link_up();
            giving.link += 1;
            giving.round = Round::default();
            giving.under_way = false;
            giving.again_at = None;
            giving.pause = RETRY_FIRST;
            giving.told.clear();
        }
    }

    /// What is to outlive the process.
    pub(super) fn note(&self, gateway: GatewayIndex) -> Option<Vec<u8>> {
        let commanded = self.gateways.get(gateway.0)?.desired.commanded();
        let some = *commanded != Wishes::default();
        some.then(|| crate::payload::to_bytes(commanded).to_vec())
    }
}

/// What the configuration declares.
fn declared(gateway: &Gateway) -> Wishes {
    let mut wishes = Wishes { allow_all: gateway.accept_filter.allow_all, ..Wishes::default() };
    for (&device_id, device) in &gateway.devices {
        match device.connect {
            Connect::Observe => {}
            Connect::Accept => _ = wishes.accepted.insert(device_id),
            Connect::Async { ip, port, ssl } => {
                wishes.registered.insert(device_id, Target { ip, port, ssl });
            }
        }
    }
    wishes
}

impl Bridge {
    /// Takes up what the commands of earlier runs made.
    pub(super) fn restore_desired(&mut self, kept: Vec<(GatewayName, Vec<u8>)>) {
        for (name, note) in kept {
            let at = self.directory.gateways.iter().position(|entry| entry.name == name);
            let giving = at.and_then(|at| self.desired.gateways.get_mut(at));
            let (Some(at), Some(giving)) = (at, giving) else {
                self.outbox.note(Key::Desired(name), None);
                continue;
            };
            match serde_json::from_slice::<Wishes>(&note) {
                Ok(wishes) => {
                    giving.desired.restore(wishes);
                    self.keep_devices(GatewayIndex(at));
                }
                Err(error) => {
                    let what = "what commands made there is forgotten";
                    tracing::error!(gateway = %name, %error, what);
                }
            }
        }
    }

    /// The gateway's list has come: what is missing is given, what was taken away is told.
    pub(super) fn listed(&mut self, gateway: GatewayIndex, rows: &[Listed]) {
        let Some(giving) = self.desired.gateways.get_mut(gateway.0) else { return };
        let (first, withdrawn) = giving.desired.listed(rows);
        if first {
            self.give(gateway);
        } else if giving.desired.wants_slaves() {
            self.look_at_slaves(gateway);
        }
        self.withdrawn(gateway, withdrawn);
    }

    pub(super) fn filter_read(&mut self, gateway: GatewayIndex, filter: &AcceptFilter) {
        let Some(giving) = self.desired.gateways.get_mut(gateway.0) else { return };
        let withdrawn = giving.desired.filter_read(filter);
        self.withdrawn(gateway, withdrawn);
    }

    /// A command that changes something has ended, and made this. Warns of what it took away that
    /// the configuration wants.
    pub(super) fn change_ended(&mut self, gateway: GatewayIndex, made: Vec<Made>) -> Vec<Warning> {
        let Some(giving) = self.desired.gateways.get_mut(gateway.0) else { return Vec::new() };
        let ended = giving.desired.change_ends(made);
        if ended.changed {
            self.note_desired(gateway);
        }
        let Some(entry) = self.directory.gateway(gateway) else { return Vec::new() };
        let warning = |wish: Wish| kept_by_configuration(&entry.name, wish.device_id());
        ended.kept.into_iter().map(warning).collect()
    }

    /// What came of something done beside the loop.
    pub(super) fn reported(&mut self, report: Report) {
        let Report { gateway, link, of } = report;
        let giving = self.desired.gateways.get_mut(gateway.0);
        let Some(giving) = giving.filter(|giving| giving.link == link) else { return };
        match of {
            Done::Slaves(slaves) => {
                let withdrawn = giving.desired.slaves_read(&slaves);
                self.withdrawn(gateway, withdrawn);
            }
            Done::Step(given) => self.step_ended(gateway, given),
        }
    }

    /// Tries again what could not be given before.
    pub(super) fn give_again(&mut self, now: Instant) {
        for gateway in self.fleet.gateways() {
            let giving = self.desired.gateways.get_mut(gateway.0);
            let due = |giving: &mut Giving| giving.again_at.is_some_and(|at| at <= now);
            if giving.is_some_and(due) {
                self.give(gateway);
            }
        }
    }

    /// Begins a round, if anything is missing.
    fn give(&mut self, gateway: GatewayIndex) {
        let Some(giving) = self.desired.gateways.get_mut(gateway.0) else { return };
        giving.again_at = None;
        let missing = giving.desired.missing();
        if !missing.is_empty() && !giving.under_way {
            giving.round.begin(&missing);
            giving.has_given = false;
            self.give_on(gateway);
        }
    }

    /// The round's next step, or its end.
    fn give_on(&mut self, gateway: GatewayIndex) {
        let client = self.links.get(gateway.0).and_then(Link::client);
        let place = self.requests.place(gateway);
        let Some(giving) = self.desired.gateways.get_mut(gateway.0) else { return };
        let step = giving.round.next(&giving.desired.missing());
        let (Some(step), Some(client), Some(place)) = (step, client, place) else {
            return self.round_ended(gateway);
        };
        giving.under_way = true;
        let (link, report) = (giving.link, self.desired.report.clone());
        tokio::spawn(async move {
            let given = tokio::spawn(give(step, client, place)).await;
            let given = given.unwrap_or_else(|_| {
                tracing::error!(
                    "giving a gateway what is wanted died of a mistake in this program"
                );
                Given::default()
            });
            // At the end of the process nobody is there to be told.
            _ = report.send(Report { gateway, link, of: Done::Step(given) }).await;
        });
    }

    fn step_ended(&mut self, gateway: GatewayIndex, given: Given) {
        let Some(giving) = self.desired.gateways.get_mut(gateway.0) else { return };
        let Given { added, found, failed } = given;
        for there in [&added, &found] {
            giving.desired.given(there);
            giving.round.given(there);
        }
        giving.has_given |= !added.is_empty();
        if let Some((wishes, why)) = failed {
            let waiting = giving.round.failed(wishes, &why);
            let news = giving.news(waiting, &why);
            if let (Some(entry), Some(news)) = (self.directory.gateway(gateway), news) {
                tracing::warn!(gateway = %entry.name, "cannot give it {news}, trying on: {why}");
            }
        }
        self.tell(gateway, added, |what, count, device_ids| GatewayEvent::Restored {
            what,
            count,
            device_ids,
        });
        self.give_on(gateway);
    }

    /// What is missing still is tried again later; what was given is looked at.
    fn round_ended(&mut self, gateway: GatewayIndex) {
        let Some(giving) = self.desired.gateways.get_mut(gateway.0) else { return };
        giving.under_way = false;
        let has_given = std::mem::take(&mut giving.has_given);
        if has_given {
            giving.pause = RETRY_FIRST;
        }
        if !giving.desired.missing().is_empty() {
            giving.again_at = Some(Instant::now() + giving.pause);
            giving.pause = (giving.pause * 2).min(RETRY_MAX);
        }
        if has_given {
            self.step(gateway, Input::ListWanted, None);
        }
    }

    fn look_at_slaves(&self, gateway: GatewayIndex) {
        let Some(client) = self.links.get(gateway.0).and_then(Link::client) else { return };
        let Some(giving) = self.desired.gateways.get(gateway.0) else { return };
        let (link, report) = (giving.link, self.desired.report.clone());
        tokio::spawn(async move {
            // Beside the list it is a courtesy: what cannot be had is no news.
            if let Ok(slaves) = client.slaves().await {
                _ = report.send(Report { gateway, link, of: Done::Slaves(slaves) }).await;
            }
        });
    }

    fn withdrawn(&mut self, gateway: GatewayIndex, wishes: BTreeSet<Wish>) {
        if wishes.is_empty() {
            return;
        }
        self.note_desired(gateway);
        self.tell(gateway, wishes, |what, count, device_ids| GatewayEvent::Withdrawn {
            what,
            count,
            device_ids,
        });
    }

    fn tell(
        &mut self,
        gateway: GatewayIndex,
        wishes: BTreeSet<Wish>,
        event: impl Fn(&'static str, u64, BTreeSet<DeviceId>) -> GatewayEvent,
    ) {
        for (what, wishes) in by_kind(wishes) {
            let device_ids = wishes.iter().filter_map(|wish| wish.device_id()).collect();
            self.gateway_event(gateway, &event(what, wishes.len() as u64, device_ids));
        }
    }

    /// The wishes that commands made are others now: kept, and seen in the devices' states.
    fn note_desired(&mut self, gateway: GatewayIndex) {
        let Some(entry) = self.directory.gateway(gateway) else { return };
        let note = self.desired.note(gateway);
        self.outbox.note(Key::Desired(entry.name.clone()), note.as_deref());
        self.keep_devices(gateway);
    }

    fn keep_devices(&mut self, gateway: GatewayIndex) {
        let Some(giving) = self.desired.gateways.get(gateway.0) else { return };
        let kept = giving.desired.kept().collect();
        let mut out = std::mem::take(&mut self.out);
        self.fleet.keep(self.clock.steady(), gateway, kept, &mut out);
        self.carry_out(&mut out, None);
        self.out = out;
    }
}

impl Giving {
    /// What of this has not been told, in words.
    fn news(&mut self, wishes: BTreeSet<Wish>, why: &Failure) -> Option<String> {
        let key = (why.code, wishes.len() == 1);
        let mut new = wishes;
        new.retain(|wish| self.told.insert(*wish, key) != Some(key));
        let names: Vec<String> = new.iter().take(NAMED_MAX).map(named).collect();
        let more = new.len() - names.len();
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        (!names.is_empty()).then(|| names.join(", ") + &more)
    }
}

/// A wish in words.
fn named(wish: &Wish) -> String {
    match wish {
        Wish::Registered(id) => format!("the registration of device {id}"),
        Wish::Accepted(id) => format!("device {id} in its accept filter"),
        Wish::AllowAll => "an accept filter that lets all in".to_owned(),
        Wish::Slaves(id) => format!("the slaves of device {id}"),
    }
}
