//! The status page: server-rendered, readable without script, live by server-sent events.
//!
//! May not change anything, nor name anything outside: its style and script are its own, and the
//! content security policy allows no other.

mod data;
mod html;
mod live;
mod view;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

pub use data::{
    Changes, Condition, DeviceRow, EVENTS_SHOWN, EventRow, GatewayRow, HOUR_S, HOURS, Hour,
    Overview, PAGE_ROWS, Page, Wanted,
};
pub(super) use live::{Hub, tell_on};

use super::{Query, Served, unavailable};

/// The longest text that is searched for; longer ones are cut.
const TEXT_MAX: usize = 100;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'";

/// What every answer that a browser may show is sent with.
fn guarded(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(super) async fn style() -> Response {
    guarded("text/css; charset=utf-8", include_str!("page.css"))
}

pub(super) async fn script() -> Response {
    guarded("text/javascript; charset=utf-8", include_str!("page.js"))
}

pub(super) async fn icon() -> Response {
    guarded("image/svg+xml", include_str!("icon.svg"))
}

pub(super) async fn page(State(served): State<Arc<Served>>, RawQuery(query): RawQuery) -> Response {
    let wanted = wanted(query.as_deref().unwrap_or_default());
    // One at a time: looking for devices is the dearest thing that a browser can ask the loop.
    let Ok(_turn) = served.turn.acquire().await else { return unavailable("stopping") };
    let asked = wanted.clone();
    let page = served.settings.ask(|answer| Query::Page(asked, answer)).await;
    match page {
        Ok(page) => guarded("text/html; charset=utf-8", view::page(&page, &wanted)),
        Err(why) => unavailable(why),
    }
}

pub(super) async fn events(State(served): State<Arc<Served>>) -> Response {
    match served.hub.join() {
        Some(stream) => guarded("text/event-stream", Body::from_stream(stream)),
        None => (StatusCode::SERVICE_UNAVAILABLE, "too many watch already\n").into_response(),
    }
}

/// What an address asks for; what cannot be read asks for nothing.
fn wanted(query: &str) -> Wanted {
    let mut wanted = Wanted::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value);
        match name {
            "q" => wanted.text = value.trim().to_lowercase().chars().take(TEXT_MAX).collect(),
            "show" => {
                let named = |condition: &Condition| condition.word() == value;
                wanted.only = Condition::ALL.into_iter().find(named);
            }
            "page" => wanted.page = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    wanted
}

/// A form's value as it was typed.
fn decoded(value: &str) -> String {
    let hex = |pair: &str| u8::from_str_radix(pair, 16).ok();
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some(byte) = value.as_bytes().get(at) {
        at += 1;
        match (byte, value.get(at..at + 2).and_then(hex)) {
            (b'+', _) => bytes.push(b' '),
            (b'%', Some(coded)) => {
                bytes.push(coded);
                at += 2;
            }
            _ => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_is_wanted() {
        let asked = wanted("q=+Front%20D%C3%BCr%2&show=down&page=2&x");
        assert_eq!(asked.text, "front dür%2");
        assert_eq!((asked.only, asked.page), (Some(Condition::Down), 2));
        assert_eq!(wanted("show=all&page=-1&q="), Wanted::default());
        assert_eq!(wanted(&format!("q={}", "x".repeat(900))).text.len(), TEXT_MAX);
    }
}
