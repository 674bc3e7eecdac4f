//! The gateways whose list has to be read: requested by the loop, read by the task of the link.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::fleet::GatewayIndex;

/// A gateway that is requested again while its list is being read is in here again.
#[derive(Debug, Default)]
pub(crate) struct ListRequests {
    /// In the order of their requests, each once.
    gateways: Mutex<VecDeque<GatewayIndex>>,
    requested: Notify,
}

impl ListRequests {
    fn lock(&self) -> MutexGuard<'_, VecDeque<GatewayIndex>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn request(&self, gateway: GatewayIndex) {
        let mut gateways = self.lock();
        if !gateways.contains(&gateway) {
            gateways.push_back(gateway);
        }
        self.requested.notify_one();
    }

    /// Discards a request made while the link was down.
    pub(crate) fn discard(&self, gateway: GatewayIndex) {
        self.lock().retain(|other| *other != gateway);
    }

    /// Takes the first one that may be read now.
    pub(crate) fn take(&self, may_read: impl Fn(GatewayIndex) -> bool) -> Option<GatewayIndex> {
        let mut gateways = self.lock();
        let first = gateways.iter().position(|gateway| may_read(*gateway))?;
        gateways.remove(first)
    }

    /// Waits for a request. Cancel safe.
    pub(crate) async fn requested(&self) {
        self.requested.notified().await;
    }
}
