//! The retained infos of gateways, masters and the bridge: when each is published.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::fleet::GatewayIndex;
use crate::ids::{GatewayName, Moment};

/// The least time between two infos on one topic, and between two looks whether it has changed, in
/// milliseconds: a look costs as much as the gateway has devices.
const INFO_INTERVAL_MS: i64 = 10_000;

/// What an info is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum InfoOf {
    Gateway(GatewayIndex),
    Master(GatewayName),
    Bridge,
}

/// The infos: published on change, not too often, and not twice the same.
#[derive(Debug, Default)]
pub(crate) struct Infos {
    infos: BTreeMap<InfoOf, Info>,
    /// Those that have changed, by when they may be published.
    due: BTreeSet<(Moment, InfoOf)>,
}

#[derive(Debug, Default)]
struct Info {
    /// When it may be published, if it has changed.
    due_at: Option<Moment>,
    published: Option<Bytes>,
    /// When it was compared with what was published last.
    compared_at: Moment,
}

impl Infos {
    pub(crate) fn changed(&mut self, of: InfoOf) {
        let info = self.infos.get(&of);
        if info.is_none_or(|info| info.due_at.is_none()) {
            let published = info.filter(|info| info.published.is_some());
            let at = published.map(|info| info.compared_at.plus(INFO_INTERVAL_MS));
            self.set_due(of, at.unwrap_or_default());
        }
    }

    /// A field that does not wait for the interval has changed.
    pub(crate) fn changed_at_once(&mut self, of: InfoOf) {
        self.set_due(of, Moment::default());
    }

    /// Publishes it again even if it is unchanged.
    pub(crate) fn again(&mut self, of: InfoOf) {
        self.remove(&of);
        self.changed(of);
    }

    /// Publishes those of all masters again even if they are unchanged.
    pub(crate) fn masters_again(&mut self) {
        let masters = self.infos.keys().filter(|of| matches!(of, InfoOf::Master(_)));
        masters.cloned().collect::<Vec<_>>().into_iter().for_each(|of| self.again(of));
    }

    /// It is not published any more, or not yet on this connection.
    pub(crate) fn remove(&mut self, of: &InfoOf) {
        if let Some(Info { due_at: Some(at), .. }) = self.infos.remove(of) {
            self.due.remove(&(at, of.clone()));
        }
    }

    fn set_due(&mut self, of: InfoOf, at: Moment) {
        let info = self.infos.entry(of.clone()).or_default();
        if let Some(before) = info.due_at.replace(at) {
            self.due.remove(&(before, of.clone()));
        }
        self.due.insert((at, of));
    }

    /// Those that have changed, in the order in which they may be published.
    pub(crate) fn due(&self) -> impl Iterator<Item = &(Moment, InfoOf)> {
        self.due.iter()
    }

    pub(crate) fn is_published(&self, of: &InfoOf) -> bool {
        self.infos.get(of).is_some_and(|info| info.published.is_some())
    }

    /// The payload of one that is due, unless it is what was published last.
    pub(crate) fn take(&mut self, now: Moment, of: &InfoOf, payload: Bytes) -> Option<Bytes> {
        let info = self.infos.get_mut(of)?;
        if let Some(at) = info.due_at.take() {
            self.due.remove(&(at, of.clone()));
        }
        info.compared_at = now;
        if info.published.as_ref() == Some(&payload) {
            return None;
        }
        info.published = Some(payload.clone());
        Some(payload)
    }
}
