//! The commands that the bridge answers by itself: publish all retained topics again, forget
//! devices, and recorded events of one gateway or of all.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;
use tonic::Code;

use super::failure::{Failure, FailureCode};
use super::request::{Fields, RefusedRequest, Request};
use super::response::{Data, Outcome};
use super::values::{self, List};
use crate::ids::{CommandName, DeviceId, GatewayName, Moment};
use crate::payload::EventTypeName;
use crate::period::Period;
use crate::store::history::{EVENT_ID_MAX, EventFilter, Reader};

/// The default of the most events in an answer.
const LIMIT_DEFAULT: usize = 100;
/// The most events in an answer.
const LIMIT_MAX: u64 = 1_000;
/// How long events are read.
const QUERY_DEADLINE: Duration = Duration::from_millis(700);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeCommand {
    /// Publish all retained topics again.
    Republish,
    /// Forget devices that are neither managed nor configured, or, without `device_ids`, a gateway
    /// that is not configured.
    Forget { gateway: GatewayName, device_ids: Option<BTreeSet<DeviceId>> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgetFields {
    gateway: GatewayName,
    device_id: Option<DeviceId>,
    device_ids: Option<List<DeviceId>>,
}

impl BridgeCommand {
    /// Reads a request to the bridge itself.
    ///
    /// # Errors
    /// With a message that names the mistake and the remedy.
    pub fn read_request(
        name: CommandName,
        payload: &[u8],
    ) -> Result<Request<Self>, RefusedRequest> {
        Request::read(name, payload, |fields| Self::read(name, fields))
    }

    fn read(name: CommandName, fields: Fields) -> Result<Self, Failure> {
        match name {
            CommandName::Republish => fields.none().map(|()| Self::Republish),
            CommandName::Forget => {
                let ForgetFields { gateway, device_id, device_ids } = fields.read()?;
                let device_ids = values::some_devices(device_id, device_ids)?;
                Ok(Self::Forget { gateway, device_ids })
            }
            _ => {
                let message = format!("{name} is not run by the bridge; request it of a gateway");
                Err(Failure::new(FailureCode::UnknownCommand, message))
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryFields {
    device_id: Option<DeviceId>,
    device_ids: Option<List<DeviceId>>,
    event_types: Option<List<EventTypeName>>,
    #[serde(default, deserialize_with = "values::whole::<_, 0, EVENT_ID_MAX>")]
    after_id: Option<u64>,
    #[serde(default, deserialize_with = "values::time")]
    from: Option<String>,
    #[serde(default, deserialize_with = "values::time")]
    to: Option<String>,
    #[serde(default, deserialize_with = "values::whole::<_, 1, LIMIT_MAX>")]
    limit: Option<u64>,
}

/// Reads a request for events of any gateway, in an answer of any size; dates in it are of `zone`.
///
/// # Errors
/// With a message that names the mistake and the remedy.
pub fn read_history(
    payload: &[u8],
    zone: &TimeZone,
    now: Moment,
) -> Result<Request<EventFilter>, RefusedRequest> {
    let read = |fields: Fields| filter(fields.read()?, zone, now);
    Request::read(CommandName::History, payload, read)
}

fn filter(fields: HistoryFields, zone: &TimeZone, now: Moment) -> Result<EventFilter, Failure> {
    let HistoryFields { device_id, device_ids, event_types, after_id, from, to, limit } = fields;
    let period = Period::parse(from.as_deref(), to.as_deref(), zone, now)
        .map_err(|error| Failure::invalid(error.to_string()))?;
    Ok(EventFilter {
        device_ids: values::some_devices(device_id, device_ids)?.unwrap_or_default(),
        event_types: event_types.unwrap_or_default().0,
        after_id,
        // A client that continues after an event misses none, however long ago it was.
        from: (from.is_some() || after_id.is_none()).then_some(period.from),
        to: period.to,
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIMIT_DEFAULT),
        max_bytes: usize::MAX,
        deadline: QUERY_DEADLINE,
        ..EventFilter::default()
    })
}

/// Reads the events.
pub async fn history(reader: &Reader, filter: EventFilter) -> Outcome {
    let page = match reader.query(filter).await {
        Ok(page) => page,
        Err(error) => {
            return Outcome::failed(Failure::new(Code::Unavailable, error.unreadable()));
        }
    };
    match serde_json::value::to_raw_value(&page) {
        Ok(raw) => Outcome { data: Data::Raw(raw), ..Outcome::done(Value::Null) },
        Err(error) => Outcome::failed(Failure::new(Code::Internal, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment::from_millis(1_796_040_000_000);
    const DAY_MS: i64 = 86_400_000;

    fn read(payload: &str) -> Result<Request<EventFilter>, RefusedRequest> {
        read_history(payload.as_bytes(), &TimeZone::UTC, NOW)
    }

    #[test]
    fn every_field_reaches_the_filter() {
        let filter = |payload: &str| read(payload).unwrap().command;
        let id = |id| DeviceId::new(id).unwrap();
        let empty = filter("");
        assert_eq!((empty.from, empty.to), (Some(NOW.plus(-DAY_MS)), None));
        assert_eq!((empty.limit, empty.after_id), (100, None));
        let all = filter(
            r#"{"device_ids":[7,8],"event_types":["Connected"],"after_id":5,"limit":1000,
                "from":"2d","to":1796040000000,"transaction":1,"timeout_s":5,"requested_by":"me"}"#,
        );
        assert_eq!(all.device_ids, [id(7), id(8)].into());
        assert_eq!((all.event_types, all.after_id), (vec!["connected".parse().unwrap()], Some(5)));
        assert_eq!((all.from, all.to, all.limit), (Some(NOW.plus(-2 * DAY_MS)), Some(NOW), 1_000));
        assert_eq!(filter(r#"{"device_id":7}"#).device_ids, [id(7)].into());
        assert_eq!(filter(r#"{"after_id":5}"#).from, None, "no event after it is left out");
    }

    #[test]
    fn mistakes_are_named_with_their_remedy() {
        for (payload, words) in [
            (r#"{"limit":0}"#, "limit: invalid value: 0, expected a whole number from 1 to 1000"),
            (r#"{"limit":1001}"#, "from 1 to 1000"),
            (r#"{"limit":"5"}"#, "from 1 to 1000"),
            (r#"{"after_id":-1}"#, "after_id: invalid value: -1"),
            (r#"{"from":true}"#, "from: invalid value: true"),
            (r#"{"from":"soon"}"#, "from is \"soon\"; it must be a time with its offset"),
            (r#"{"from":"1h","to":"2h"}"#, "ends before it begins"),
            (r#"{"event_types":"connected"}"#, "event_types: invalid type: string \"connected\""),
            (r#"{"event_types":[1]}"#, "event_types[0]: invalid type: integer `1`"),
            (
                r#"{"event_types":["refused","foo"]}"#,
                "event_types[1]: \"foo\" is not an event type",
            ),
            (r#"{"event_types":["disconected"]}"#, "did you mean \"disconnected\"?"),
            (r#"{"device_ids":[0]}"#, "device_ids[0]: invalid value: integer `0`"),
            (r#"{"device_ids":[]}"#, "device_ids is empty"),
            (r#"{"since":"1h"}"#, "unknown field `since`"),
        ] {
            let refused = read(payload).unwrap_err();
            assert_eq!(refused.failure.code, FailureCode::InvalidRequest, "{payload}");
            let message = refused.failure.message;
            assert!(message.contains(words), "{payload}: {message}");
        }
        let refused = read(r#"{"limit":0,"transaction":"42"}"#).unwrap_err();
        assert!(refused.transaction.is_some());
    }
}
