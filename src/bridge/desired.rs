//! What the configuration wants of a gateway, given to it at every new link.
//!
//! May not take anything away, nor narrow a filter: it only adds what is missing. A restart of a
//! gateway cannot be told from a cut, so nothing here tries to. It runs beside the loop, ends with
//! the link, and holds up nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::config::{Config, Connect, Gateway};
use crate::fleet::{GatewayEvent, GatewayIndex, Listed};
use crate::gateway::{Error, GatewayClient, Target};
use crate::ids::DeviceId;

/// Registrations in one call.
const LOT: usize = 100;
/// The first pause after something could not be given; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(2);
/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Reports on their way to the loop. A full queue makes the one who gives wait, nobody else.
const REPORTS_MAX: usize = 64;

/// What was added to a gateway, to be told.
pub(super) type Report = (GatewayIndex, GatewayEvent);

/// What is wanted of each gateway.
#[derive(Debug)]
pub(super) struct Desired {
    gateways: Vec<Wanted>,
    report: mpsc::Sender<Report>,
    pub(super) reports: mpsc::Receiver<Report>,
}

#[derive(Clone, Debug)]
struct Wanted {
    registered: Vec<(DeviceId, Target)>,
    accepted: BTreeSet<DeviceId>,
    allow_all: bool,
    /// A link has been made, and its list has not come yet.
    due: bool,
}

impl Desired {
    pub(super) fn new(config: &Config) -> Self {
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let gateways = config.gateways.values().map(Wanted::new).collect();
        Self { gateways, report, reports }
    }

    /// A new link: once its list has come, what is missing is added.
    pub(super) fn link_up(&mut self, gateway: GatewayIndex) {
        if let Some(wanted) = self.gateways.get_mut(gateway.0) {
            wanted.due = !wanted.is_empty();
        }
    }

    /// The list of a link has come.
    pub(super) fn listed(
        &mut self,
        gateway: GatewayIndex,
        rows: &[Listed],
        client: Option<GatewayClient>,
    ) {
        let Some(wanted) = self.gateways.get_mut(gateway.0) else { return };
        let Some(client) = client.filter(|_| std::mem::take(&mut wanted.due)) else { return };
        let registered: BTreeSet<DeviceId> =
            rows.iter().filter(|row| row.info.auto_reconnect).map(|row| row.device_id).collect();
        let mut missing = wanted.clone();
        missing.registered.retain(|(device_id, _)| !registered.contains(device_id));
        tokio::spawn(give(gateway, client, missing, self.report.clone()));
    }
}

impl Wanted {
    fn new(gateway: &Gateway) -> Self {
        let mut wanted = Self {
            registered: Vec::new(),
            accepted: BTreeSet::new(),
            allow_all: gateway.accept_filter.allow_all,
            due: false,
        };
        for (&device_id, device) in &gateway.devices {
            match device.connect {
                Connect::Observe => {}
                Connect::Accept => _ = wanted.accepted.insert(device_id),
                Connect::Async { ip, port, ssl } => {
                    wanted.registered.push((device_id, Target { ip, port, ssl }));
                }
            }
        }
        wanted
    }

    fn is_empty(&self) -> bool {
        self.registered.is_empty() && self.accepted.is_empty() && !self.allow_all
    }
}

/// Gives until everything is given or the link has ended.
async fn give(
    gateway: GatewayIndex,
    client: GatewayClient,
    mut missing: Wanted,
    report: mpsc::Sender<Report>,
) {
    let mut pause = RETRY_FIRST;
    loop {
        let registered = register(&client, &mut missing.registered).await;
        let accepted = accept(&client, &missing).await;
        let added = registered.as_ref().map_or(0, |&count| count);
        let filtered = accepted.as_ref().map_or(0, |&count| count);
        for (what, count) in [("async_connections", added), ("accept_filter", filtered)] {
            let event = GatewayEvent::Restored { what, count };
            if count > 0 && report.send((gateway, event)).await.is_err() {
                return;
            }
        }
        if accepted.is_ok() {
            missing.accepted.clear();
            missing.allow_all = false;
        }
        if missing.is_empty() {
            return;
        }
        if [registered, accepted].iter().any(|done| matches!(done, Err(Error::Broken { .. }))) {
            // The link has ended: the next one begins anew.
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Registers in lots; a lot that fails is tried one by one, so that one device that cannot be
/// registered holds up no other. What could not be registered stays in `missing`.
async fn register(
    client: &GatewayClient,
    missing: &mut Vec<(DeviceId, Target)>,
) -> Result<u64, Error> {
    let mut added = 0;
    let mut left = Vec::new();
    for lot in std::mem::take(missing).chunks(LOT) {
        match client.async_add(lot).await {
            Ok(()) => added += lot.len() as u64,
            Err(error @ Error::Broken { .. }) => return Err(error),
            Err(_) => {
                for one in lot {
                    match client.async_add(std::slice::from_ref(one)).await {
                        Ok(()) => added += 1,
                        Err(error @ Error::Broken { .. }) => return Err(error),
                        Err(error) => {
                            tracing::warn!(device = %one.0, "cannot be registered: {error}");
                            left.push(*one);
                        }
                    }
                }
            }
        }
    }
    *missing = left;
    Ok(added)
}

/// Lets in who is wanted and not let in yet; gives how many entries were added.
async fn accept(client: &GatewayClient, wanted: &Wanted) -> Result<u64, Error> {
    if wanted.accepted.is_empty() && !wanted.allow_all {
        return Ok(0);
    }
    let mut filter = client.accept_filter().await?;
    let before = (filter.allow_all, filter.device_ids.len());
    filter.allow_all |= wanted.allow_all;
    filter.device_ids.extend(&wanted.accepted);
    let added = filter.device_ids.len() - before.1 + usize::from(filter.allow_all != before.0);
    if added > 0 {
        client.set_accept_filter(&filter).await?;
    }
    Ok(added as u64)
}
