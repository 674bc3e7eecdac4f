//! Which devices may connect: the accept filter, and the devices that it refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::proto::connect::{AcceptFilter, PendingDeviceInfo};
use crate::simulator::site::SiteDevice;

/// The accept filter of a gateway. Addresses and masks are kept and have no effect, because
/// gateways do not support them yet.
#[derive(Debug, Default)]
pub(crate) struct SimulatedFilter {
    filter: AcceptFilter,
    /// The filter's IDs, as a set.
    allowed: BTreeSet<u32>,
    /// Refused devices with their last try in Unix seconds.
    pending: BTreeMap<u32, u32>,
}

impl SimulatedFilter {
    pub(crate) fn filter(&self) -> AcceptFilter {
        self.filter.clone()
    }

    /// Replaces the filter. Connections that are up stay up.
    pub(crate) fn set_filter(&mut self, filter: AcceptFilter) {
        self.allowed = filter.device_i_ds.iter().copied().collect();
        self.filter = filter;
    }

    /// Adds devices to the filter's IDs.
    pub(crate) fn allow(&mut self, ids: impl Iterator<Item = u32>) {
        self.allowed.extend(ids);
        self.filter.device_i_ds = self.allowed.iter().copied().collect();
    }

    pub(crate) fn allows(&self, id: u32) -> bool {
        self.filter.allow_all || self.allowed.contains(&id)
    }

    pub(crate) fn set_pending(&mut self, id: u32, last_try: u32) {
        self.pending.insert(id, last_try);
    }

    pub(crate) fn clear_pending(&mut self, id: u32) {
        self.pending.remove(&id);
    }

    /// The refused devices, with the details from `device`.
    pub(crate) fn pending<'a>(
        &self,
        device: impl Fn(u32) -> Option<&'a SiteDevice>,
    ) -> Vec<PendingDeviceInfo> {
        let info = |(&id, &last_try): (&u32, &u32)| {
            let device = device(id);
            PendingDeviceInfo {
                device_id: id,
                ip_addr: device.map_or_else(Vec::new, |device| device.ip.to_string().into()),
                last_try,
                r#type: device.map_or(0, |device| device.kind),
            }
        };
        self.pending.iter().map(info).collect()
    }
}
