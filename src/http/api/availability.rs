//! Availability in time buckets, read from the history in parallel with its writer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::super::App;
use super::answer::{ApiRequest, Rows};
use super::problem::Problem;
use crate::availability::{
    self, After, AfterError, AvailabilityHead, AvailabilityRequest, AvailabilityRow, BucketSize,
    Error,
};
use crate::net;

/// The default of the most rows of an answer.
const LIMIT_DEFAULT: usize = 1_000;
/// How long rows are read. The rest of the answer's time is for what waits before.
const QUERY_DEADLINE: Duration = Duration::from_secs(3);

/// The columns of CSV.
pub(crate) const COLUMNS: &str = "\
    gateway device_id name start end label period_s connected_s disconnected_s unobserved_s \
    absent_s availability observed outages longest_outage_s longest_outage_at \
    longest_outage_at_least first_seen_at removed_at";

const BUCKETS: [(&str, BucketSize); 4] = [
    ("total", BucketSize::Total),
    ("month", BucketSize::Month),
    ("day", BucketSize::Day),
    ("hour", BucketSize::Hour),
];

#[derive(Serialize)]
struct AvailabilityRest<'a> {
    #[serde(flatten)]
    head: &'a AvailabilityHead,
    more: bool,
    next: Option<String>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::UnknownGateway(..) => Self::not_found("gateway", error.to_string()),
            Error::UnknownDevice(_) => Self::not_found("device_id", error.to_string()),
            Error::History(error) => Self::from(error),
        }
    }
}

pub(crate) async fn availability(
    State(app): State<Arc<App>>,
    request: ApiRequest,
) -> Result<Response, Problem> {
    let mut params = request.params();
    let of = params.word("of", &[("devices", false), ("gateways", true)])?;
    let gateways = params.gateways()?.into_iter().collect();
    let device_ids = params.device_ids()?;
    if of == Some(true) && !device_ids.is_empty() {
        return Err(Problem::invalid("device_id", "device_id is for of=devices"));
    }
    let zone = params.zone(&app.settings.zone)?;
    let now = net::wall_time();
    let period = params.period(&zone, now)?;
    let bucket = params.word("bucket", &BUCKETS)?.unwrap_or_default();
    let after = params.one("after")?.map(|text| text.parse()).transpose();
    let after: Option<After> =
        after.map_err(|error: AfterError| Problem::invalid("after", format!("after: {error}")))?;
    let limit = params.limit(LIMIT_DEFAULT)?;
    let format = params.format(&request.headers)?;
    params.finish()?;
    let query = AvailabilityRequest {
        of_gateways: of.unwrap_or(false),
        gateways,
        device_ids,
        after,
        period: (period.from, period.to.unwrap_or(now)),
        zone,
        bucket,
        limit,
        deadline: QUERY_DEADLINE,
        now,
    };
    let (history, recorded_to) = (&app.api.history, app.api.history.recorded_to());
    let read = history.read(move |path| availability::answer(path, &query, recorded_to));
    let answer = read.await?;
    let mut rows = Rows::new("availability", format, COLUMNS);
    let fits = answer.availability.iter().take_while(|row| rows.push(row)).count();
    let is_cut = fits < answer.availability.len();
    let last = fits.checked_sub(1).and_then(|last| answer.availability.get(last));
    let next = last.filter(|_| is_cut).map(AvailabilityRow::continuation).or(answer.next);
    let rest = AvailabilityRest { head: &answer.head, more: next.is_some(), next: next.clone() };
    Ok(request.list(rows, &rest, next.map(|next| ("after", next))))
}
