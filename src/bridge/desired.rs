//! Provisions what is missing at a gateway when its link comes up, and reports what another client
//! removed while it was up.
//!
//! The steps of a round run beside the loop. What cannot be provisioned is tried again, at growing
//! intervals, while the link is up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Bridge;
use super::provision::{Provisioned, Round, provision};
use crate::commands::{Failure, FailureCode, Warning, kept_by_configuration};
use crate::config::{Config, Connect, Gateway};
use crate::desired::{DesiredItem, DesiredState, Reconciler, by_kind};
use crate::fleet::{AcceptFilter, Effect, GatewayEvent, GatewayIndex, Listed, Slaves, Target};
use crate::gsdk::Link;
use crate::ids::{DeviceId, GatewayName};
use crate::store::Key;

/// The first delay before a retry; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// The longest delay.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Reports that may wait for the loop. A full queue makes only the reporting tasks wait.
const REPORTS_MAX: usize = 64;
/// Items named in one line of the log; further ones are counted.
const NAMED_MAX: usize = 10;

/// The result of a task beside the loop, for a gateway's link of this number.
#[derive(Debug)]
pub(super) struct Report {
    gateway: GatewayIndex,
    link: u64,
    of: Done,
}

#[derive(Debug)]
enum Done {
    Step(Provisioned),
    Slaves(Vec<Slaves>),
}

/// The provisioning of all gateways.
#[derive(Debug)]
pub(super) struct Wanted {
    gateways: Vec<Provisioner>,
    report: mpsc::Sender<Report>,
    pub(super) reports: mpsc::Receiver<Report>,
}

#[derive(Debug)]
struct Provisioner {
    desired: Reconciler,
    /// Counts the links: a report of an earlier link is ignored.
    link: u64,
    round: Round,
    under_way: bool,
    /// Whether the round has added anything so far.
    has_given: bool,
    again_at: Option<Instant>,
    pause: Duration,
    /// The failures logged on this link: the error's code, and whether the item failed alone. An
    /// item is logged again when these change.
    told: BTreeMap<DesiredItem, (FailureCode, bool)>,
}

impl Wanted {
    pub(super) fn new(config: &Config) -> Self {
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let provisioner = |gateway: &Gateway| Provisioner {
            desired: Reconciler::new(declared(gateway)),
            link: 0,
            round: Round::default(),
            under_way: false,
            has_given: false,
            again_at: None,
            pause: RETRY_FIRST,
            told: BTreeMap::new(),
        };
        Self { gateways: config.gateways.values().map(provisioner).collect(), report, reports }
    }

    /// When the next retry is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.gateways.iter().filter_map(|provisioner| provisioner.again_at).min()
    }

    pub(super) fn list_asked(&mut self, gateway: GatewayIndex) {
        if let Some(provisioner) = self.gateways.get_mut(gateway.0) {
            provisioner.desired.list_asked();
        }
    }

    pub(super) fn change_begins(&mut self, gateway: GatewayIndex) {
        if let Some(provisioner) = self.gateways.get_mut(gateway.0) {
            provisioner.desired.command_started();
        }
    }

    pub(super) fn link_up(&mut self, gateway: GatewayIndex) {
        if let Some(provisioner) = self.gateways.get_mut(gateway.0) {
            provisioner.desired.link_up();
            provisioner.link += 1;
            provisioner.round = Round::default();
            provisioner.under_way = false;
            provisioner.again_at = None;
            provisioner.pause = RETRY_FIRST;
            provisioner.told.clear();
        }
    }

    /// The items made by commands, to be persisted.
    pub(super) fn note(&self, gateway: GatewayIndex) -> Option<Vec<u8>> {
        let commanded = self.gateways.get(gateway.0)?.desired.commanded();
        let some = *commanded != DesiredState::default();
        some.then(|| crate::payload::to_bytes(commanded).to_vec())
    }
}

/// What the configuration declares.
fn declared(gateway: &Gateway) -> DesiredState {
    let mut items =
        DesiredState { allow_all: gateway.accept_filter.allow_all, ..DesiredState::default() };
    for (&device_id, device) in &gateway.devices {
        match device.connect {
            Connect::Observe => {}
            Connect::Accept => _ = items.accepted.insert(device_id),
            Connect::Async { ip, port, ssl } => {
                items.registered.insert(device_id, Target { ip, port, ssl });
            }
        }
    }
    items
}

impl Bridge {
    /// Restores what commands of earlier processes made.
    pub(super) fn restore_desired(&mut self, name: &GatewayName, note: &[u8]) {
        let at = self.directory.gateways.iter().position(|entry| entry.name == *name);
        let provisioner = at.and_then(|at| self.desired.gateways.get_mut(at));
        let (Some(at), Some(provisioner)) = (at, provisioner) else {
            self.persistence.set(Key::Desired(name.clone()), None);
            return;
        };
        match serde_json::from_slice::<DesiredState>(note) {
            Ok(items) => {
                provisioner.desired.restore(items);
                self.keep_devices(GatewayIndex(at));
            }
            Err(error) => {
                let what = "the persisted desired state cannot be read; forgotten";
                tracing::error!(gateway = %name, %error, what);
            }
        }
    }

    /// Handles a device list: provisions missing items after the first, reports withdrawn ones.
    pub(super) fn listed(&mut self, gateway: GatewayIndex, rows: &[Listed]) {
        let Some(provisioner) = self.desired.gateways.get_mut(gateway.0) else { return };
        let (first, withdrawn) = provisioner.desired.listed(rows);
        if first {
            self.give(gateway);
        } else if provisioner.desired.wants_slaves() {
            self.look_at_slaves(gateway);
        }
        self.withdrawn(gateway, withdrawn);
    }

    pub(super) fn filter_read(&mut self, gateway: GatewayIndex, filter: &AcceptFilter) {
        let Some(provisioner) = self.desired.gateways.get_mut(gateway.0) else { return };
        let withdrawn = provisioner.desired.filter_read(filter);
        self.withdrawn(gateway, withdrawn);
    }

    /// A command that changes something has finished. Warns about declared items that it removed.
    pub(super) fn change_ended(
        &mut self,
        gateway: GatewayIndex,
        effects: Vec<Effect>,
    ) -> Vec<Warning> {
        let Some(provisioner) = self.desired.gateways.get_mut(gateway.0) else { return Vec::new() };
        let ended = provisioner.desired.command_finished(effects);
        if ended.changed {
            self.note_desired(gateway);
        }
        let Some(entry) = self.directory.gateway(gateway) else { return Vec::new() };
        let warning = |item: DesiredItem| kept_by_configuration(&entry.name, item.device_id());
        ended.kept.into_iter().map(warning).collect()
    }

    /// Handles the result of a task beside the loop.
    pub(super) fn reported(&mut self, report: Report) {
        let Report { gateway, link, of } = report;
        let provisioner = self.desired.gateways.get_mut(gateway.0);
        let Some(provisioner) = provisioner.filter(|provisioner| provisioner.link == link) else {
            return;
        };
        match of {
            Done::Slaves(slaves) => {
                let withdrawn = provisioner.desired.slaves_read(&slaves);
                self.withdrawn(gateway, withdrawn);
            }
            Done::Step(given) => self.step_ended(gateway, given),
        }
    }

    /// Starts the retries that are due.
    pub(super) fn give_again(&mut self, now: Instant) {
        for gateway in self.fleet.gateways() {
            let provisioner = self.desired.gateways.get_mut(gateway.0);
            let due =
                |provisioner: &mut Provisioner| provisioner.again_at.is_some_and(|at| at <= now);
            if provisioner.is_some_and(due) {
                self.give(gateway);
            }
        }
    }

    /// Starts a round, if anything is missing.
    fn give(&mut self, gateway: GatewayIndex) {
        let Some(provisioner) = self.desired.gateways.get_mut(gateway.0) else { return };
        provisioner.again_at = None;
        let missing = provisioner.desired.missing();
        if !missing.is_empty() && !provisioner.under_way {
            provisioner.round.start(&missing);
            provisioner.has_given = false;
            self.give_on(gateway);
        }
    }

    /// Starts the round's next step, or ends it.
    fn give_on(&mut self, gateway: GatewayIndex) {
        let client = self.links.get(gateway.0).and_then(Link::client);
        let slot = self.requests.change_slot(gateway);
        let Some(provisioner) = self.desired.gateways.get_mut(gateway.0) else { return };
        let step = provisioner.round.next(&provisioner.desired.missing());
        let (Some(step), Some(client), Some(slot)) = (step, client, slot) else {
            return self.round_ended(gateway);
        };
        provisioner.under_way = true;
        let (link, report) = (provisioner.link, self.desired.report.clone());
        tokio::spawn(async move {
            let given = tokio::spawn(provision(step, client, slot)).await;
            let given = given.unwrap_or_else(|_| {
                tracing::error!("internal error: a provisioning task panicked; please report this");
                Provisioned::default()
            });
            // The receiver is gone when the process ends.
            _ = report.send(Report { gateway, link, of: Done::Step(given) }).await;
        });
    }

    fn step_ended(&mut self, gateway: GatewayIndex, given: Provisioned) {
        let Some(provisioner) = self.desired.gateways.get_mut(gateway.0) else { return };
        let Provisioned { added, found, failed } = given;
        for there in [&added, &found] {
            provisioner.desired.provisioned(there);
            provisioner.round.provisioned(there);
        }
        provisioner.has_given |= !added.is_empty();
        if let Some((items, why)) = failed {
            let waiting = provisioner.round.failed(items, &why);
            let news = provisioner.news(waiting, &why);
            if let (Some(entry), Some(news)) = (self.directory.gateway(gateway), news) {
                tracing::warn!(gateway = %entry.name, "cannot provision {news}; retrying: {why}");
            }
        }
        self.tell(gateway, added, |what, count, device_ids| GatewayEvent::Restored {
            what,
            count,
            device_ids,
        });
        self.give_on(gateway);
    }

    /// Schedules a retry of what is still missing, and a list that shows what was added.
    fn round_ended(&mut self, gateway: GatewayIndex) {
        let Some(provisioner) = self.desired.gateways.get_mut(gateway.0) else { return };
        provisioner.under_way = false;
        let has_given = std::mem::take(&mut provisioner.has_given);
        if has_given {
            provisioner.pause = RETRY_FIRST;
        }
        if !provisioner.desired.missing().is_empty() {
            provisioner.again_at = Some(Instant::now() + provisioner.pause);
            provisioner.pause = (provisioner.pause * 2).min(RETRY_MAX);
        }
        if has_given {
            self.request_list(gateway);
        }
    }

    fn look_at_slaves(&self, gateway: GatewayIndex) {
        let Some(client) = self.links.get(gateway.0).and_then(Link::client) else { return };
        let Some(provisioner) = self.desired.gateways.get(gateway.0) else { return };
        let (link, report) = (provisioner.link, self.desired.report.clone());
        tokio::spawn(async move {
            // Slaves that cannot be read are no failure of the link.
            if let Ok(slaves) = client.slaves().await {
                _ = report.send(Report { gateway, link, of: Done::Slaves(slaves) }).await;
            }
        });
    }

    fn withdrawn(&mut self, gateway: GatewayIndex, items: BTreeSet<DesiredItem>) {
        if items.is_empty() {
            return;
        }
        self.note_desired(gateway);
        self.tell(gateway, items, |what, count, device_ids| GatewayEvent::Withdrawn {
            what,
            count,
            device_ids,
        });
    }

    fn tell(
        &mut self,
        gateway: GatewayIndex,
        items: BTreeSet<DesiredItem>,
        event: impl Fn(&'static str, u64, BTreeSet<DeviceId>) -> GatewayEvent,
    ) {
        for (what, items) in by_kind(items) {
            let device_ids = items.iter().filter_map(|item| item.device_id()).collect();
            self.gateway_event(gateway, &event(what, items.len() as u64, device_ids));
        }
    }

    /// Persists the items that commands made, and marks their devices as kept.
    fn note_desired(&mut self, gateway: GatewayIndex) {
        let Some(entry) = self.directory.gateway(gateway) else { return };
        let note = self.desired.note(gateway);
        self.persistence.set(Key::Desired(entry.name.clone()), note.as_deref());
        self.keep_devices(gateway);
    }

    fn keep_devices(&mut self, gateway: GatewayIndex) {
        let Some(provisioner) = self.desired.gateways.get(gateway.0) else { return };
        let kept = provisioner.desired.kept().collect();
        let mut out = std::mem::take(&mut self.out);
        self.fleet.set_kept(self.clock.steady(), gateway, kept, &mut out);
        self.apply_outputs(&mut out);
        self.out = out;
    }
}

impl Provisioner {
    /// The items whose failure is not logged yet, in words.
    fn news(&mut self, items: BTreeSet<DesiredItem>, why: &Failure) -> Option<String> {
        let key = (why.code, items.len() == 1);
        let mut new = items;
        new.retain(|item| self.told.insert(*item, key) != Some(key));
        let names: Vec<String> = new.iter().take(NAMED_MAX).map(named).collect();
        let more = new.len() - names.len();
        let more = if more == 0 { String::new() } else { format!(", and {more} more") };
        (!names.is_empty()).then(|| names.join(", ") + &more)
    }
}

/// A item in words.
fn named(item: &DesiredItem) -> String {
    match item {
        DesiredItem::Registered(id) => format!("the registration of device {id}"),
        DesiredItem::Accepted(id) => format!("device {id} in its accept filter"),
        DesiredItem::AllowAll => "an accept filter that lets all in".to_owned(),
        DesiredItem::Slaves(id) => format!("the slaves of device {id}"),
    }
}
