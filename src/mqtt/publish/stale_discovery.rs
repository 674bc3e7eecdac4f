//! What the scans of retained messages find of discovery that is to be removed, and whether another
//! scan is needed.

use std::collections::HashSet;

/// The findings on one connection.
#[derive(Debug, Default)]
pub(crate) struct StaleDiscovery {
    /// A scan has ended, so it is known what the broker retains, as far as it can be read.
    is_read: bool,
    /// The topics found.
    topics: HashSet<String>,
    /// How many of them the present scan has found.
    found: usize,
    /// A broker sends only so many retained messages at once: once those that were found are
    /// removed, others may follow.
    is_scan_wanted: bool,
    /// The last scan, perhaps of an earlier connection, has read everything and found none.
    is_clean: bool,
}

impl StaleDiscovery {
    /// For a new connection.
    pub(crate) fn again(&self) -> Self {
        Self { is_clean: self.is_clean, ..Self::default() }
    }

    /// A topic was found that is to be removed; returns whether for the first time.
    pub(crate) fn found(&mut self, topic: &str) -> bool {
        let is_new = self.topics.insert(topic.to_owned());
        self.found += usize::from(is_new);
        is_new
    }

    /// A scan has ended, after it has read everything if it is complete.
    pub(crate) fn scan_ended(&mut self, is_complete: bool) {
        let count = std::mem::take(&mut self.found);
        (self.is_scan_wanted, self.is_clean) = (count > 0, is_complete && count == 0);
        if count > 0 {
            tracing::info!(count, "clearing stale Home Assistant discovery");
        }
        self.is_read = true;
    }

    /// Whether another scan is to be made, once what was found is removed; true once.
    pub(crate) const fn take_wanted_scan(&mut self) -> bool {
        std::mem::replace(&mut self.is_scan_wanted, false)
    }

    pub(crate) const fn is_clean(&self) -> bool {
        self.is_clean
    }

    pub(crate) const fn is_read(&self) -> bool {
        self.is_read
    }
}
