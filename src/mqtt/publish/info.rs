//! When one retained info is published.

use bytes::Bytes;

use crate::ids::Moment;

/// The least time between two infos on one topic, and between two looks whether it has changed, in
/// milliseconds: a look costs as much as the gateway has devices.
const INFO_INTERVAL_MS: i64 = 10_000;

/// An info: published on change, not too often, and not twice the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Info {
    /// When it may be published, if it has changed.
    due_at: Option<Moment>,
    published: Option<Bytes>,
    /// When it was compared with what was published last.
    compared_at: Moment,
}

impl Info {
    pub(crate) const fn due_at(&self) -> Option<Moment> {
        self.due_at
    }

    pub(crate) const fn is_published(&self) -> bool {
        self.published.is_some()
    }

    pub(crate) fn changed(&mut self) {
        self.due_at.get_or_insert(match self.published {
            Some(_) => self.compared_at.plus(INFO_INTERVAL_MS),
            None => Moment::default(),
        });
    }

    pub(crate) fn changed_at_once(&mut self) {
        self.due_at = Some(Moment::default());
    }

    /// Publishes it again even if it is unchanged.
    pub(crate) fn again(&mut self) {
        *self = Self { due_at: Some(Moment::default()), ..Self::default() };
    }

    /// The payload, unless it is what was published last.
    pub(crate) fn take(&mut self, now: Moment, payload: Bytes) -> Option<Bytes> {
        (self.due_at, self.compared_at) = (None, now);
        if self.published.as_ref() == Some(&payload) {
            return None;
        }
        self.published = Some(payload.clone());
        Some(payload)
    }
}
