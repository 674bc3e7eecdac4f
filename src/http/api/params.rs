//! Parses the parameters of an API request. Each handler takes the parameters that it supports; the
//! remaining ones are unknown and an error. A parameter with an empty value is ignored.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::http::{HeaderMap, header};
use jiff::tz::TimeZone;

use super::problem::{Problem, quoted};
use crate::ids::{DeviceId, GatewayName, Moment};
use crate::period::{Period, PeriodError, time_zone};

/// Values of a filter.
const VALUES_MAX: usize = 1_000;
/// What `limit` may be.
pub(crate) const LIMITS: RangeInclusive<u64> = 1..=10_000;

/// The parameters that are not read yet.
#[derive(Debug)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
    known: Vec<&'static str>,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerFormat {
    Json,
    /// With this character between columns.
    Csv(char),
}

impl Params {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self { pairs: pairs.into_owned().collect(), known: Vec::new() }
    }

    /// Whether a parameter that is not read yet is given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.pairs.iter().any(|(key, value)| key == name && !value.is_empty())
    }

    fn values(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        let (found, rest) =
            std::mem::take(&mut self.pairs).into_iter().partition(|(key, _)| key == name);
        self.pairs = rest;
        let found: Vec<(String, String)> = found;
        found.into_iter().map(|(_, value)| value).filter(|value| !value.is_empty()).collect()
    }

    /// A parameter that may be given once.
    pub(crate) fn one(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        let mut values = self.values(name);
        if values.len() > 1 {
            return Err(Problem::invalid(name, format!("{name} is given more than once")));
        }
        Ok(values.pop())
    }

    /// A filter, which may be repeated or be a list with commas.
    pub(crate) fn list<T>(&mut self, name: &'static str) -> Result<Vec<T>, Problem>
    where
        T: FromStr,
        T::Err: Display,
    {
        let values = self.values(name);
        let parts = values.iter().flat_map(|value| value.split(',')).map(str::trim);
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        if parts.len() > VALUES_MAX {
            let detail = format!("{name} has more than {VALUES_MAX} values; send several requests");
            return Err(Problem::invalid(name, detail));
        }
        let read = |part: &str| {
            part.parse().map_err(|error| Problem::invalid(name, format!("{name}: {error}")))
        };
        parts.into_iter().map(read).collect()
    }

    pub(crate) fn gateways(&mut self) -> Result<Vec<GatewayName>, Problem> {
        self.list("gateway")
    }

    pub(crate) fn device_ids(&mut self) -> Result<BTreeSet<DeviceId>, Problem> {
        Ok(self.list("device_id")?.into_iter().collect())
    }

    /// A whole number in a range.
    pub(crate) fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Problem> {
        let Some(text) = self.one(name)? else { return Ok(None) };
        number(name, &text, range).map(Some)
    }

    /// The most rows of an answer.
    pub(crate) fn limit(&mut self, default: usize) -> Result<usize, Problem> {
        let limit = self.number("limit", LIMITS)?;
        Ok(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(default))
    }

    /// One of these words, in any case.
    pub(crate) fn word<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Problem> {
        self.one(name)?.map(|text| one_of(name, &text, words)).transpose()
    }

    /// A filter of these words, in any case.
    pub(crate) fn words<T: Copy>(
        &mut self,
        name: &'static str,
        words: &[(&str, T)],
    ) -> Result<Vec<T>, Problem> {
        let texts: Vec<String> = self.list(name)?;
        texts.iter().map(|text| one_of(name, text, words)).collect()
    }

    /// The zone of days, by default this one.
    pub(crate) fn zone(&mut self, default: &TimeZone) -> Result<TimeZone, Problem> {
        let Some(name) = self.one("tz")? else { return Ok(default.clone()) };
        time_zone(&name).map_err(|error| Problem::invalid("tz", format!("tz: {error}")))
    }

    /// `from` and `to`; dates and months are those of `zone`.
    pub(crate) fn period(&mut self, zone: &TimeZone, now: Moment) -> Result<Period, Problem> {
        let (from, to) = (self.one("from")?, self.one("to")?);
        Period::parse(from.as_deref(), to.as_deref(), zone, now).map_err(|error| {
            let parameter = match error {
                PeriodError::Form { key, .. } => key,
                PeriodError::EndsBeforeItBegins { .. } => "to",
            };
            Problem::invalid(parameter, error.to_string())
        })
    }

    /// `format` and `sep`, else what the client prefers.
    pub(crate) fn format(&mut self, headers: &HeaderMap) -> Result<AnswerFormat, Problem> {
        let separator = self.word("sep", &[(",", ','), (";", ';')])?;
        let prefers_csv = prefers_csv(headers);
        let is_csv = self.word("format", &[("json", false), ("csv", true)])?;
        match (is_csv.unwrap_or(prefers_csv), separator) {
            (true, separator) => Ok(AnswerFormat::Csv(separator.unwrap_or(','))),
            (false, None) => Ok(AnswerFormat::Json),
            (false, Some(_)) => Err(Problem::invalid("sep", "sep is for format=csv")),
        }
    }

    /// Checks that everything was read.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        let Some((name, _)) = self.pairs.first() else { return Ok(()) };
        if matches!(name.to_ascii_lowercase().as_str(), "token" | "access_token" | "api_key") {
            let detail = "a token in a URL ends up in logs; send it as Authorization: Bearer";
            return Err(Problem::unknown(name, detail));
        }
        let known = match self.known.as_slice() {
            [] => "this path has none".to_owned(),
            known => format!("this path has {}", known.join(", ")),
        };
        let detail = format!("there is no parameter {:?}; {known}", quoted(name));
        Err(Problem::unknown(name, detail))
    }
}

fn one_of<T: Copy>(name: &str, text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let detail = format!("{name} is {:?}; use {}", quoted(text), words.join(" or "));
        Problem::invalid(name, detail)
    })
}

/// A whole number in a range.
pub(crate) fn number(name: &str, text: &str, range: RangeInclusive<u64>) -> Result<u64, Problem> {
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_decimal && range.contains(number));
    number.ok_or_else(|| {
        let (least, most) = range.into_inner();
        let text = quoted(text);
        let detail = format!("{name} is {text:?}; use a whole number from {least} to {most}");
        Problem::invalid(name, detail)
    })
}

/// Whether a client names CSV, and does not accept JSON as much.
fn prefers_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<&str> = accepted.flat_map(|value| value.split(',')).collect();
    let quality = |media_type: &str| {
        let qualities = ranges.iter().map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type));
            let given = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
            if is_named { given.unwrap_or(1.0) } else { 0.0 }
        });
        qualities.fold(0.0, f32::max)
    };
    quality("text/csv") > quality("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
        format!("{:?}", result.unwrap_err())
    }

    #[test]
    fn filters_are_repeated_or_lists() {
        let mut params = Params::parse(Some("gateway=a,b&x=1&gateway=c&gateway=&device_id=7,8"));
        let names: Vec<String> =
            params.gateways().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(params.device_ids().unwrap().len(), 2);
        let rest = problem(params.finish());
        assert!(rest.contains("\"x\"") && rest.contains("gateway, device_id"), "{rest}");
        for query in ["gateway=A", "gateway=bridge", "gateway=a b"] {
            assert!(Params::parse(Some(query)).gateways().is_err(), "{query}");
        }
        for query in ["device_id=0", "device_id=x", "device_id=4294967296", "device_id=-1"] {
            assert!(Params::parse(Some(query)).device_ids().is_err(), "{query}");
        }
        let many = format!("device_id={}", vec!["7"; VALUES_MAX + 1].join(","));
        assert!(Params::parse(Some(&many)).device_ids().is_err());
    }

    #[test]
    fn limits_are_whole_numbers_in_a_range() {
        let limit = |query: &str| Params::parse(Some(query)).limit(100);
        assert_eq!(limit(""), Ok(100));
        assert_eq!(limit("limit="), Ok(100));
        assert_eq!(limit("limit=10000"), Ok(10_000));
        for query in ["limit=0", "limit=10001", "limit=1000000000", "limit=1e3", "limit=+5"] {
            assert!(problem(limit(query)).contains("from 1 to 10000"), "{query}");
        }
        assert!(problem(limit("limit=1&limit=2")).contains("more than once"));
    }

    #[test]
    fn csv_is_chosen_by_parameter_or_header() {
        let format = |query: &str, accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            Params::parse(Some(query)).format(&headers)
        };
        assert_eq!(format("", "*/*"), Ok(AnswerFormat::Json));
        assert_eq!(format("", "text/html, text/csv;q=0.5"), Ok(AnswerFormat::Csv(',')));
        assert_eq!(format("", "text/csv;q=0, */*"), Ok(AnswerFormat::Json));
        assert_eq!(format("", "application/json, text/csv"), Ok(AnswerFormat::Json));
        assert_eq!(format("", "application/json;q=1, text/csv;q=0.1"), Ok(AnswerFormat::Json));
        let mostly_csv = "application/json;q=0.5, text/csv;charset=utf-8;q=0.9";
        assert_eq!(format("", mostly_csv), Ok(AnswerFormat::Csv(',')));
        assert_eq!(format("format=csv&sep=;", "*/*"), Ok(AnswerFormat::Csv(';')));
        assert_eq!(format("format=JSON", "text/csv"), Ok(AnswerFormat::Json));
        assert!(format("sep=;", "*/*").is_err() && format("format=xml", "*/*").is_err());
    }

    #[test]
    fn a_period_names_the_parameter_that_is_wrong() {
        let now = Moment::from_millis(1_796_040_000_000);
        let range = |query: &str| {
            let mut params = Params::parse(Some(query));
            let zone = params.zone(&TimeZone::UTC)?;
            params.period(&zone, now)
        };
        let berlin = range("from=2026-11-30&tz=Europe/Berlin").unwrap();
        assert_eq!(berlin.from.millis() % 86_400_000, 23 * 3_600_000);
        let plus = range("from=2026-11-30T08:00:00+01:00").unwrap();
        assert_eq!(plus.from.millis() % 86_400_000, 7 * 3_600_000);
        assert!(problem(range("tz=Europe/Berln")).contains("Europe/Berlin"));
        assert!(problem(range("from=soon")).contains("parameter: Some(\"from\")"));
        assert!(problem(range("to=2026")).contains("parameter: Some(\"to\")"));
        assert!(problem(range("from=1h&to=2h")).contains("ends before it begins"));
    }

    #[test]
    fn a_token_in_the_address_is_not_repeated() {
        let reported = problem(Params::parse(Some("token=s3cret")).finish());
        assert!(reported.contains("Bearer") && !reported.contains("s3cret"), "{reported}");
    }
}
