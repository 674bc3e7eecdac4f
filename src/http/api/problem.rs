//! Errors of the API: problem details (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::super::query::NoAnswer;

/// When a client may try again, in seconds.
const RETRY_AFTER_S: &str = "5";
/// Characters of a parameter's name or value that are quoted.
const QUOTED_MAX: usize = 100;

/// Why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    parameter: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), parameter: None }
    }

    fn about(self, parameter: &str) -> Self {
        Self { parameter: Some(quoted(parameter)), ..self }
    }

    /// A parameter has a wrong value.
    pub(crate) fn invalid(parameter: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", detail).about(parameter)
    }

    /// There is no such parameter.
    pub(crate) fn unknown(parameter: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unknown_parameter", detail).about(parameter)
    }

    /// There is no such gateway or device.
    pub(crate) fn not_found(parameter: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail).about(parameter)
    }

    /// The bridge has no such gateway.
    pub(crate) fn no_gateway(name: &str) -> Self {
        let name = quoted(name);
        let detail = format!(
            "this bridge has no gateway {name:?}; /api/v1/gateways and gsdk2mqtt report list those \
             it has"
        );
        Self::not_found("gateway", detail)
    }

    /// There is no such path.
    pub(crate) fn no_path(path: &str) -> Self {
        let path = quoted(path);
        let detail = format!("the API has no {path}; /api/v1/openapi.json lists all paths");
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// Too many requests at once.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    }

    /// The requested data cannot be read now.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    /// The answer to a request for this path: outside of the API as text.
    pub(crate) fn answer(self, path: &str) -> Response {
        if path.starts_with("/api/") {
            return self.into_response();
        }
        (self.status, self.detail + "\n").into_response()
    }
}

impl From<NoAnswer> for Problem {
    fn from(error: NoAnswer) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// A part of the request, short enough for an answer.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_MAX).collect()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "parameter": self.parameter,
        });
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, content_type, body.to_string()).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            let retry_after = HeaderValue::from_static(RETRY_AFTER_S);
            response.headers_mut().insert(header::RETRY_AFTER, retry_after);
        }
        response
    }
}
