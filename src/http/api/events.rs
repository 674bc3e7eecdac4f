//! Recorded events, read from the history in parallel with its writer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::super::App;
use super::answer::{ApiRequest, ROWS_BYTES_MAX, Rows};
use super::params::Params;
use super::problem::Problem;
use crate::ids::GatewayName;
use crate::net;
use crate::store::history::{EVENT_ID_MAX, Error, EventFilter, EventGap, Order, Snapshot};

/// The default of the most events of an answer.
const LIMIT_DEFAULT: usize = 100;
/// How long events are read. The rest of the answer's time is for what waits before.
const QUERY_DEADLINE: Duration = Duration::from_secs(3);

const COLUMNS: &str = "\
    id delivered dropped event_type event_id timestamp received_at bridge gateway device_id name \
    type connected status status_code previous duration_s source chain seq lost what count \
    devices device_ids reason from to command requested_by transaction result code ip steps";

#[derive(Serialize)]
struct EventsRest {
    more: bool,
    next: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<EventGap>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::unavailable(error.unreadable())
    }
}

/// Which devices' and gateways' events are requested, from the first to the last.
pub(crate) fn filter(params: &mut Params) -> Result<EventFilter, Problem> {
    Ok(EventFilter {
        gateways: params.gateways()?,
        device_ids: params.device_ids()?,
        event_types: params.list("event_type")?,
        after_id: params.number("after_id", 0..=EVENT_ID_MAX)?,
        limit: LIMIT_DEFAULT,
        max_bytes: ROWS_BYTES_MAX,
        deadline: QUERY_DEADLINE,
        ..EventFilter::default()
    })
}

/// Refuses a gateway that is neither configured nor recorded: a list without events would look as
/// if nothing had happened there.
pub(crate) async fn check_gateways(app: &App, filter: &EventFilter) -> Result<(), Problem> {
    let mut unknown = Vec::new();
    for name in &filter.gateways {
        if app.settings.event_loop.gateway(name.as_str()).await?.is_none() {
            unknown.push(name);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let recorded = app.api.history.read(|path| Snapshot::open(path)?.gateways()).await?;
    let is_recorded = |name: &GatewayName| recorded.iter().any(|(known, _)| known == name);
    let unknown = unknown.into_iter().find(|name| !is_recorded(name));
    unknown.map_or(Ok(()), |name| Err(Problem::no_gateway(name.as_str())))
}

pub(crate) async fn events(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let mut params = request.params();
    let mut filter = filter(&mut params)?;
    let zone = params.zone(&app.settings.zone)?;
    let has_from = params.has("from");
    let period = params.period(&zone, net::wall_time())?;
    filter.before_id = params.number("before_id", 0..=EVENT_ID_MAX)?;
    // A client that continues after or before an event misses none, however long ago it was.
    let continues = filter.after_id.is_some() || filter.before_id.is_some();
    filter.from = (has_from || !continues).then_some(period.from);
    filter.to = period.to;
    let orders = [("asc", Order::OldestFirst), ("desc", Order::NewestFirst)];
    filter.order = params.word("order", &orders)?.unwrap_or(Order::OldestFirst);
    filter.limit = params.limit(LIMIT_DEFAULT)?;
    let format = params.format(&request.headers)?;
    params.finish()?;
    check_gateways(&app, &filter).await?;
    let continued_by = match filter.order {
        Order::OldestFirst => "after_id",
        Order::NewestFirst => "before_id",
    };
    let page = app.api.history.query(filter).await?;
    let mut rows = Rows::new("events", format, COLUMNS);
    for event in &page.events {
        // The page is smaller than an answer.
        rows.push(event);
    }
    let next = page.more.then(|| (continued_by, page.next.to_string()));
    let rest = EventsRest { more: page.more, next: page.next, gap: page.gap };
    Ok(request.list(rows, &rest, next))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::payload::EventTypeName;
    use crate::schema::open_api;

    #[test]
    fn the_document_has_all_event_types() {
        let document: Value = serde_json::from_str(&open_api()).unwrap();
        let items = &document["components"]["parameters"]["eventType"]["schema"]["items"];
        assert_eq!(items["enum"], Value::from(EventTypeName::all()));
    }
}
