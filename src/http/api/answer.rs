//! Builds answers: lists as JSON or CSV of limited size, each answer with a validator, so that a
//! client with the same answer gets 304.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hasher as _};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::csv;
use super::params::{AnswerFormat, Params};
use super::problem::Problem;
use crate::task;

/// The most bytes of an answer's rows. What follows the rows fits into the rest of 8 MiB.
pub(crate) const ROWS_BYTES_MAX: usize = (8 << 20) - (16 << 10);

/// The parts of a request that a handler needs.
#[derive(Debug)]
pub(crate) struct ApiRequest {
    pub(crate) headers: HeaderMap,
    query: String,
}

impl<S: Sync> FromRequestParts<S> for ApiRequest {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let query = parts.uri.query().unwrap_or_default().to_owned();
        Ok(Self { headers: parts.headers.clone(), query })
    }
}

/// Where the next page of a list begins: a parameter and its value.
pub(crate) type Next = Option<(&'static str, String)>;

impl ApiRequest {
    pub(crate) fn params(&self) -> Params {
        Params::parse(Some(&self.query))
    }

    /// The form of the answer, where the request may have no other parameters.
    pub(crate) fn format(&self) -> Result<AnswerFormat, Problem> {
        let mut params = self.params();
        let format = params.format(&self.headers)?;
        params.finish()?;
        Ok(format)
    }

    /// An answer with one row, which is no list in JSON.
    pub(crate) fn row(&self, mut rows: Rows, row: &impl Serialize) -> Response {
        if rows.format == AnswerFormat::Json {
            return self.object(row);
        }
        rows.push(row);
        self.list(rows, &(), None)
    }

    /// An answer that is no list.
    pub(crate) fn object(&self, body: &impl Serialize) -> Response {
        // Our payloads always serialize.
        let body = serde_json::to_string(body).unwrap_or_default();
        self.respond("application/json", body)
    }

    /// An answer with these rows; `rest` has its other fields, which CSV has no place for.
    pub(crate) fn list(&self, rows: Rows, rest: &impl Serialize, next: Next) -> Response {
        let Rows { name, format, text, .. } = rows;
        let AnswerFormat::Csv(_) = format else {
            let rest = serde_json::to_string(rest).unwrap_or_default();
            // What is between its braces.
            let rest = rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let rest = rest.filter(|rest| !rest.is_empty());
            let rest = rest.map_or_else(String::new, |rest| format!(",{rest}"));
            let body = format!("{{\"{name}\":[{text}]{rest}}}");
            return self.respond("application/json", body);
        };
        let mut response = self.respond("text/csv; charset=utf-8", text);
        let file = format!("attachment; filename=\"{name}.csv\"");
        let link = next.map(|(parameter, value)| self.next_page(parameter, &value));
        let link = link.map(|address| format!("<{address}>; rel=\"next\""));
        let headers = [(header::CONTENT_DISPOSITION, Some(file)), (header::LINK, link)];
        for (name, value) in headers {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// The address of the same list from there on.
    fn next_page(&self, parameter: &str, value: &str) -> String {
        let pairs = form_urlencoded::parse(self.query.as_bytes());
        let pairs = pairs.filter(|(name, _)| name != parameter);
        let mut query = form_urlencoded::Serializer::for_suffix("?".to_owned(), 1);
        query.extend_pairs(pairs).append_pair(parameter, value);
        query.finish()
    }

    pub(crate) fn respond(&self, content_type: &'static str, body: String) -> Response {
        let mut hasher = DefaultHasher::new();
        hasher.write(body.as_bytes());
        // Weak, since the answer may be compressed.
        let tag = format!("W/\"{:x}-{:016x}\"", body.len(), hasher.finish());
        let is_known = self.headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
            let tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
            tags.into_iter().any(|known| known == "*" || weak(known) == weak(&tag))
        });
        let headers = [(header::ETAG, tag), (header::VARY, "accept".to_owned())];
        if is_known {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (headers, [(header::CONTENT_TYPE, content_type)], body).into_response()
    }
}

/// A tag as it is compared.
fn weak(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// The rows of a list, as text.
#[derive(Debug)]
pub(crate) struct Rows {
    /// The list's field, and the name of its file.
    name: &'static str,
    format: AnswerFormat,
    /// Separated by spaces.
    columns: &'static str,
    text: String,
    count: usize,
}

impl Rows {
    pub(crate) fn new(name: &'static str, format: AnswerFormat, columns: &'static str) -> Self {
        let text = match format {
            AnswerFormat::Json => String::new(),
            AnswerFormat::Csv(separator) => csv::head(columns, separator),
        };
        Self { name, format, columns, text, count: 0 }
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Adds a row; returns whether it fits. The first always does.
    pub(crate) fn push(&mut self, row: &impl Serialize) -> bool {
        let row = match self.format {
            AnswerFormat::Json => serde_json::to_string(row).unwrap_or_default(),
            AnswerFormat::Csv(separator) => {
                let row = serde_json::to_value(row).unwrap_or_default();
                csv::row(self.columns, &row, separator)
            }
        };
        if self.count > 0 && self.text.len() + row.len() >= ROWS_BYTES_MAX {
            return false;
        }
        if self.count > 0 && self.format == AnswerFormat::Json {
            self.text.push(',');
        }
        self.text.push_str(&row);
        self.count += 1;
        task::give_way();
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(query: &str, tag: &str) -> ApiRequest {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, tag.parse().unwrap());
        ApiRequest { headers, query: query.to_owned() }
    }

    #[test]
    fn a_client_that_has_the_answer_gets_no_other() {
        let first = request("", "").object(&json!({"a": 1}));
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        for known in [tag.clone(), tag.trim_start_matches("W/").to_owned(), format!("\"x\", {tag}")]
        {
            let again = request("", &known).object(&json!({"a": 1}));
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(again.headers()[header::ETAG].to_str().unwrap(), tag);
            assert_eq!(request("", &known).object(&json!({"a": 2})).status(), StatusCode::OK);
        }
    }

    #[test]
    fn csv_names_its_next_page() {
        let rows = || Rows::new("events", AnswerFormat::Csv(','), "id");
        let next = Some(("after_id", "7".to_owned()));
        let request = request("format=csv&after_id=5&gateway=a%2Cb", "");
        let response = request.list(rows(), &json!({}), next);
        let link = response.headers()[header::LINK].to_str().unwrap();
        assert_eq!(link, "<?format=csv&gateway=a%2Cb&after_id=7>; rel=\"next\"");
        assert!(!request.list(rows(), &json!({}), None).headers().contains_key(header::LINK));
    }

    #[tokio::test]
    async fn a_list_is_json_whatever_follows_its_rows() {
        for rest in [json!({}), json!({"more": false}), json!({"gap": {"oldest_at": "x"}})] {
            let mut rows = Rows::new("events", AnswerFormat::Json, "");
            rows.push(&json!({"id": 7}));
            rows.push(&json!({"id": 8}));
            let body = request("", "").list(rows, &rest, None).into_body();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(read["events"], json!([{"id": 7}, {"id": 8}]));
            assert_eq!(read.as_object().unwrap().len(), 1 + rest.as_object().unwrap().len());
        }
    }

    #[test]
    fn rows_end_at_the_size_of_an_answer() {
        let mut rows = Rows::new("events", AnswerFormat::Json, "");
        assert!(rows.push(&"x".repeat(ROWS_BYTES_MAX)), "one is never too large");
        assert!(!rows.push(&1));
        assert_eq!(rows.count(), 1);
    }
}
