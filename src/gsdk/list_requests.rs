//! The gateways whose list has to be read: requested by the loop, read by the task of the link.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::fleet::GatewayIndex;

/// A gateway that is requested again while its list is being read is in here again.
#[derive(Debug, Default)]
pub(crate) struct ListRequests {
    gateways: Mutex<BTreeSet<GatewayIndex>>,
    requested: Notify,
}

impl ListRequests {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<GatewayIndex>> {
        self.gateways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn request(&self, gateway: GatewayIndex) {
        self.lock().insert(gateway);
        self.requested.notify_one();
    }

    /// Discards a request made while the link was down.
    pub(crate) fn discard(&self, gateway: GatewayIndex) {
        self.lock().remove(&gateway);
    }

    /// Waits for a request and takes all. Cancel safe.
    pub(crate) async fn take(&self) -> BTreeSet<GatewayIndex> {
        loop {
            let requested = std::mem::take(&mut *self.lock());
            if !requested.is_empty() {
                return requested;
            }
            self.requested.notified().await;
        }
    }
}
