//! Milliseconds in JSON, as a number of seconds: whole ones without a fraction.

use serde::{Deserialize as _, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    if ms % 1_000 == 0 {
        return serializer.serialize_i64(ms / 1_000);
    }
    #[expect(clippy::cast_precision_loss, reason = "exact below 285,000 years")]
    serializer.serialize_f64(*ms as f64 / 1_000.0)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<i64, D::Error> {
    f64::deserialize(source).map(millis)
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest that fits is meant")]
fn millis(seconds: f64) -> i64 {
    (seconds * 1_000.0).round() as i64
}

/// Seconds, or null where there are none.
pub(crate) mod optional {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        ms: &Option<i64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => super::serialize(ms, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D>(source: D) -> Result<Option<i64>, D::Error>
    where
        D: Deserializer<'de>,
    {
        Ok(Option::<f64>::deserialize(source)?.map(super::millis))
    }
}
