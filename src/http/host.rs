//! Checks `Host` (docs/security.md). A web page can resolve its own name to this machine (DNS
//! rebinding) and then read the answers to requests for that name, despite the same-origin policy.
//! So a name is answered only if no web page can own it, or if it is configured.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::Problem;

/// Characters of a name that a refusal quotes.
const QUOTED_MAX: usize = 253;

/// The configured names (`http.hosts`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(Arc<BTreeSet<String>>);

impl Hosts {
    /// Takes names in lower case; `*` means any.
    pub(crate) fn new(hosts: &BTreeSet<String>) -> Self {
        Self(Arc::new(hosts.clone()))
    }

    /// `host` may have a port.
    fn allow(&self, host: &str) -> bool {
        if host.is_empty() || self.0.contains("*") {
            return true;
        }
        let authority = Authority::try_from(host).ok().filter(|_| !host.contains('@'));
        authority.is_some_and(|authority| self.allow_name(&authority.host().to_lowercase()))
    }

    fn allow_name(&self, name: &str) -> bool {
        let v6 = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if let Some(v6) = v6 {
            return v6.parse::<Ipv6Addr>().is_ok();
        }
        // `localhost` has no dot either.
        !name.contains('.')
            || name.ends_with(".local")
            || name.parse::<Ipv4Addr>().is_ok()
            || self.0.contains(name)
    }

    /// The first name in the request that is not allowed. A request without a name is answered:
    /// browsers always send one.
    fn refused(&self, request: &Request) -> Option<String> {
        let target = request.uri().authority().map(|authority| authority.as_str().to_owned());
        let headers = request.headers().get_all(header::HOST).into_iter();
        let headers = headers.map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        target.into_iter().chain(headers).find(|host| !self.allow(host))
    }
}

/// Answers 421 where the name is not allowed. `/healthz` is open: it reveals nothing, and a probe
/// under another name must not restart a healthy bridge.
pub(crate) async fn check(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let refused = hosts.refused(&request).filter(|_| request.uri().path() != "/healthz");
    let is_api = request.uri().path().starts_with("/api/");
    let Some(refused) = refused else { return next.run(request).await };
    let quoted: String = refused.chars().take(QUOTED_MAX).collect();
    let text = format!(
        "the bridge does not answer to the name {quoted:?}; use its IP address, or add the name to \
         http.hosts"
    );
    if is_api {
        return Problem::unknown_host(text).into_response();
    }
    (StatusCode::MISDIRECTED_REQUEST, text + "\n").into_response()
}
