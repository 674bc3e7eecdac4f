//! What the stream says of devices that are in no list: held until the next list tells who they
//! are.
//!
//! May not make devices. Bounded: when full, what comes is refused and its caller counts it, so
//! whoever knocks at the door cannot fill the memory.

use std::collections::BTreeMap;

use super::status::Status;
use crate::ids::{DeviceId, Moment};

/// How many statuses of strangers are held for one gateway: a whole full-size gateway's devices
/// registered at once (1,000) that each make a few steps before the list is read.
const HELD_MAX: usize = 8_192;

#[derive(Debug, Default)]
pub(super) struct Strangers {
    held: BTreeMap<DeviceId, Vec<Word>>,
    len: usize,
}

/// One status of a stranger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) status: Status,
    pub(super) timestamp: Moment,
    pub(super) received_at: Moment,
    /// The gateway's count of inputs at which it came.
    pub(super) heard: u64,
}

/// How many statuses were dropped, and the last of them.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    pub(super) count: u64,
    pub(super) last: Option<(DeviceId, Status)>,
}

impl Strangers {
    /// Holds a status; `false` when full.
    pub(super) fn hold(
        &mut self,
        device_id: DeviceId,
        status: Status,
        timestamp: Moment,
        received_at: Moment,
        heard: u64,
    ) -> bool {
        if self.len >= HELD_MAX {
            return false;
        }
        self.len += 1;
        let word = Word { status, timestamp, received_at, heard };
        self.held.entry(device_id).or_default().push(word);
        true
    }

    /// All that was said of one, in order.
    pub(super) fn take(&mut self, device_id: DeviceId) -> Vec<Word> {
        let words = self.held.remove(&device_id).unwrap_or_default();
        self.len -= words.len();
        words
    }

    /// Drops what was heard up to this count.
    pub(super) fn drop_heard_until(&mut self, mark: u64) -> TurnedAway {
        let mut turned_away = TurnedAway::default();
        self.held.retain(|&device_id, words| {
            words.retain(|word| {
                let stays = word.heard > mark;
                if !stays {
                    turned_away.count += 1;
                    turned_away.last = Some((device_id, word.status));
                }
                stays
            });
            !words.is_empty()
        });
        self.len = self.held.values().map(Vec::len).sum();
        turned_away
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
