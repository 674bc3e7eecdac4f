//! The command `history`: recorded events of one gateway, or of all.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::failure::{Failure, code};
use super::fields::Fields;
use super::request::{Refused, object, requested_by, timeout};
use super::response::{Body, Data, Outcome};
use super::transaction::Transaction;
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::period::Period;
use crate::store::history::{FILE_NAME, Filter, Reader};

/// Its name.
pub const HISTORY: &str = "history";
/// How many events an answer has where the request does not say.
const LIMIT_DEFAULT: usize = 100;
/// The most events of an answer.
const LIMIT_MAX: usize = 1_000;

/// A request for events.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryRequest {
    /// What the requester calls this request.
    pub transaction: Option<Transaction>,
    /// How long the answer may take.
    pub timeout: Option<Duration>,
    device_ids: BTreeSet<DeviceId>,
    event_types: Vec<String>,
    after_id: Option<u64>,
    from: Option<Moment>,
    to: Option<Moment>,
    limit: usize,
}

impl HistoryRequest {
    /// Reads a payload; dates in it are of `zone`.
    ///
    /// # Errors
    /// With a message that names what is wrong and says what to do.
    pub fn read(payload: &[u8], zone: &TimeZone, now: Moment) -> Result<Self, Refused> {
        let refused = |failure| Refused { transaction: None, failure };
        let mut fields = Fields::new(object(payload).map_err(refused)?, "");
        let transaction = Transaction::read(&mut fields, payload).map_err(refused)?;
        match Self::read_fields(fields, zone, now) {
            Ok(request) => Ok(Self { transaction, ..request }),
            Err(failure) => Err(Refused { transaction, failure }),
        }
    }

    fn read_fields(mut fields: Fields, zone: &TimeZone, now: Moment) -> Result<Self, Failure> {
        let timeout = timeout(&mut fields)?;
        requested_by(&mut fields)?;
        let device_ids = fields.some_device_ids()?.unwrap_or_default();
        let event_types = fields.texts("event_types")?;
        let event_types = event_types.iter().map(|name| name.to_ascii_lowercase()).collect();
        let after_id = fields.whole("after_id", 0, u64::MAX >> 1)?;
        let (from, to) = (fields.time("from")?, fields.time("to")?);
        let limit = fields.whole("limit", 1, LIMIT_MAX as u64)?;
        fields.finish()?;
        let period = Period::parse(from.as_deref(), to.as_deref(), zone, now)
            .map_err(|error| Failure::invalid(error.to_string()))?;
        Ok(Self {
            transaction: None,
            timeout,
            device_ids,
            event_types,
            after_id,
            // Who continues after an event misses none, however long ago it was.
            from: (from.is_some() || after_id.is_none()).then_some(period.from),
            to: period.to,
            limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIMIT_DEFAULT),
        })
    }

    /// What to look for: events of a gateway, or of all and of the bridge.
    #[must_use]
    pub fn filter(self, gateway: Option<GatewayName>, max_bytes: usize) -> Filter {
        Filter {
            gateways: gateway.into_iter().collect(),
            device_ids: self.device_ids,
            event_types: self.event_types,
            after_id: self.after_id,
            from: self.from,
            to: self.to,
            limit: self.limit,
            max_bytes,
        }
    }
}

/// Reads the events.
pub async fn history(reader: &Reader, filter: Filter) -> Outcome {
    let page = match reader.query(filter).await {
        Ok(page) => page,
        Err(error) => {
            let message = format!("{FILE_NAME} cannot be read now: {}", error.with_cause());
            return Outcome::failed(Failure::new(code::UNAVAILABLE, message));
        }
    };
    match serde_json::value::to_raw_value(&page) {
        Ok(raw) => Outcome { data: Data::Json(Body::Raw(raw)), ..Outcome::done(Value::Null) },
        Err(error) => Outcome::failed(Failure::new("internal", error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(1_796_040_000_000);
    const DAY_MS: i64 = 86_400_000;

    fn read(payload: &str) -> Result<HistoryRequest, Refused> {
        HistoryRequest::read(payload.as_bytes(), &TimeZone::UTC, NOW)
    }

    #[test]
    fn every_field_reaches_the_filter() {
        let filter = |payload: &str| read(payload).unwrap().filter(None, 1_000);
        let id = |id| DeviceId::new(id).unwrap();
        let empty = filter("");
        assert_eq!((empty.from, empty.to), (Some(NOW.plus(-DAY_MS)), None));
        assert_eq!((empty.limit, empty.max_bytes, empty.after_id), (100, 1_000, None));
        let all = filter(
            r#"{"device_ids":[7,8],"event_types":["Connected"],"after_id":5,"limit":1000,
                "from":"2d","to":1796040000000,"transaction":1,"timeout_s":5,"requested_by":"me"}"#,
        );
        assert_eq!(all.device_ids, [id(7), id(8)].into());
        assert_eq!((all.event_types, all.after_id), (vec!["connected".to_owned()], Some(5)));
        assert_eq!((all.from, all.to, all.limit), (Some(NOW.plus(-2 * DAY_MS)), Some(NOW), 1_000));
        assert_eq!(filter(r#"{"device_id":7}"#).device_ids, [id(7)].into());
        assert_eq!(filter(r#"{"after_id":5}"#).from, None, "no event after it is left out");
    }

    #[test]
    fn mistakes_are_named_with_their_remedy() {
        for (payload, words) in [
            (r#"{"limit":0}"#, "limit is 0; it must be a whole number from 1 to 1000"),
            (r#"{"limit":1001}"#, "from 1 to 1000"),
            (r#"{"limit":"5"}"#, "from 1 to 1000"),
            (r#"{"after_id":-1}"#, "after_id is -1"),
            (r#"{"from":true}"#, "from is true"),
            (r#"{"from":"soon"}"#, "from is \"soon\"; it must be a time with its offset"),
            (r#"{"from":"1h","to":"2h"}"#, "ends before it begins"),
            (r#"{"event_types":"connected"}"#, "event_types is \"connected\"; it must be a list"),
            (r#"{"event_types":[1]}"#, "event_types[0] is 1"),
            (r#"{"device_ids":[0]}"#, "device_ids[0] is 0"),
            (r#"{"since":"1h"}"#, "\"since\" is not known here"),
        ] {
            let refused = read(payload).unwrap_err();
            assert_eq!(refused.failure.code, code::INVALID_REQUEST, "{payload}");
            let message = refused.failure.message;
            assert!(message.contains(words), "{payload}: {message}");
        }
        let refused = read(r#"{"limit":0,"transaction":"42"}"#).unwrap_err();
        assert!(refused.transaction.is_some());
    }
}
