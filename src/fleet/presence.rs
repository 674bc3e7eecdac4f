//! Whether a device should be connected, and for how long a device has been absent that should not.

/// What is known of a device's place at its gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presence {
    /// In the configuration.
    declared: bool,
    /// Provisioned again because of a command.
    kept: bool,
    list: InList,
}

/// Whether the gateway's list has the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InList {
    Listed,
    /// For how long lists lacked it while it was not expected, in milliseconds.
    Absent(i64),
}

impl Presence {
    /// A device of the configuration.
    pub(crate) const fn declared() -> Self {
        Self { declared: true, kept: false, list: InList::Absent(0) }
    }

    pub(crate) const fn undeclared(kept: bool) -> Self {
        Self { declared: false, kept, list: InList::Absent(0) }
    }

    /// Restores whether an earlier process saw it in the list, and its absence.
    pub(crate) const fn restore(&mut self, is_listed: bool, absent_ms: i64) {
        self.list = if is_listed { InList::Listed } else { InList::Absent(absent_ms) };
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.list == InList::Listed
    }

    /// Whether the device should be connected.
    pub(crate) fn is_expected(&self) -> bool {
        self.is_listed() || self.declared || self.kept
    }

    pub(crate) const fn is_kept(&self) -> bool {
        self.kept
    }

    pub(crate) const fn absent_ms(&self) -> i64 {
        match self.list {
            InList::Listed => 0,
            InList::Absent(ms) => ms,
        }
    }

    pub(crate) const fn set_kept(&mut self, kept: bool) {
        self.kept = kept;
    }

    pub(crate) const fn enter_list(&mut self) {
        self.list = InList::Listed;
    }

    pub(crate) const fn leave_list(&mut self) {
        self.list = InList::Absent(0);
    }

    /// Adds to its absence while it is not expected; returns the new value.
    pub(crate) fn add_absence(&mut self, passed_ms: i64) -> Option<i64> {
        if self.is_expected() {
            return None;
        }
        let ms = self.absent_ms() + passed_ms;
        self.list = InList::Absent(ms);
        Some(ms)
    }
}
