//! The bridge as a service manager runs it: notifications, signals and the journal.

mod journal;
