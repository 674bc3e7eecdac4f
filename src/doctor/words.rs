//! Moments and counts in words. May not read a clock but this machine's, which is compared.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::ids::Moment;

/// A day's milliseconds.
const DAY_MS: i64 = 86_400_000;

/// This machine's time.
pub(super) fn now() -> Moment {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The day of a moment, in UTC.
pub(super) fn day(moment: Moment) -> String {
    match jiff::Timestamp::from_millisecond(moment.millis()) {
        Ok(timestamp) => timestamp.strftime("%Y-%m-%d").to_string(),
        Err(_) => "an impossible date".to_owned(),
    }
}

/// Whole days from now; 0 where it is past.
pub(super) fn days_until(moment: Moment) -> i64 {
    moment.since(now()) / DAY_MS
}

/// `1 device`, `2 devices`.
pub(super) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
