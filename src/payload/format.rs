//! Formats times, durations and names.

use std::fmt::Display;

use serde::Serializer;

use crate::fleet::Status;
use crate::ids::Moment;

/// RFC 3339 in UTC with milliseconds: `2026-11-23T10:00:00.000Z`.
#[must_use]
pub fn rfc3339(moment: Moment) -> String {
    format!("{:.3}", moment.timestamp())
}

pub(crate) fn moment<S: Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{:.3}", moment.timestamp()))
}

pub(crate) fn moment_opt<S: Serializer>(
    value: &Option<Moment>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => moment(value, serializer),
        None => serializer.serialize_none(),
    }
}

pub(crate) fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

pub(crate) fn text_opt<S: Serializer>(
    value: &Option<impl Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// A status, or `unknown`.
pub(crate) fn status<S: Serializer>(
    value: &Option<Status>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_str("unknown"),
    }
}

/// Milliseconds as a number of seconds: whole ones without a fraction.
pub(crate) fn seconds_opt<S: Serializer>(
    millis: &Option<i64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match *millis {
        None => serializer.serialize_none(),
        Some(millis) if millis % 1000 == 0 => serializer.serialize_i64(millis / 1000),
        #[expect(clippy::cast_precision_loss, reason = "exact below 285,000 years")]
        Some(millis) => serializer.serialize_f64(millis as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_always() {
        let at = |millis| rfc3339(Moment::from_millis(millis));
        assert_eq!(at(1_795_428_000_000), "2026-11-23T10:00:00.000Z");
        assert_eq!(at(1_795_428_000_120), "2026-11-23T10:00:00.120Z");
        assert!(at(i64::MAX).starts_with("9999-12-3"), "{}", at(i64::MAX));
    }
}
