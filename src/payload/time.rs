//! Times and durations as the contract writes them.
//!
//! May not read a clock.

use serde::{Serialize, Serializer};

use crate::ids::Moment;

/// RFC 3339 in UTC with milliseconds: `2026-11-23T10:00:00.000Z`.
///
/// Moments beyond the years that RFC 3339 can write are written as the nearest that it can.
#[must_use]
pub fn rfc3339(moment: Moment) -> String {
    let millis = moment.millis();
    let nearest = if millis < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    let timestamp = jiff::Timestamp::from_millisecond(millis).unwrap_or(nearest);
    format!("{timestamp:.3}")
}

pub(super) fn moment<S: Serializer>(moment: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*moment))
}

pub(super) fn moment_opt<S: Serializer>(
    moment: &Option<Moment>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    moment.map(rfc3339).serialize(serializer)
}

/// Milliseconds as a number of seconds: whole ones without a fraction.
pub(super) fn seconds_opt<S: Serializer>(
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
