//! Times and durations in JSON, both ways: RFC 3339 with milliseconds, and seconds.

/// Milliseconds as a number of seconds: whole ones without a fraction.
pub(crate) mod seconds {
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
    pub(crate) fn millis(seconds: f64) -> i64 {
        (seconds * 1_000.0).round() as i64
    }
}

/// The same, or null.
pub(crate) mod seconds_opt {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        ms: &Option<i64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match ms {
            Some(ms) => super::seconds::serialize(ms, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D>(source: D) -> Result<Option<i64>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let seconds = Option::<f64>::deserialize(source)?;
        Ok(seconds.map(super::seconds::millis))
    }
}

/// A time.
pub(crate) mod time {
    use jiff::Timestamp;
    use serde::de::Error;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::ids::Moment;
    use crate::payload::rfc3339;

    pub(crate) fn serialize<S: Serializer>(at: &Moment, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(*at))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(source: D) -> Result<Moment, D::Error> {
        parse(&String::deserialize(source)?)
    }

    pub(crate) fn parse<E: Error>(text: &str) -> Result<Moment, E> {
        let at: Timestamp = text.parse().map_err(E::custom)?;
        Ok(Moment::from_millis(at.as_millisecond()))
    }
}

/// A time, or null.
pub(crate) mod time_opt {
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::ids::Moment;

    pub(crate) fn serialize<S: Serializer>(
        at: &Option<Moment>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::time::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D>(source: D) -> Result<Option<Moment>, D::Error>
    where
        D: Deserializer<'de>,
    {
        let text = Option::<String>::deserialize(source)?;
        text.map(|text| super::time::parse(&text)).transpose()
    }
}
