//! Access to the web server (docs/security.md): clients of some networks need no login, all others
//! a token, and the name in `Host` has to be one that no web page can own. `/healthz` and the
//! status of `/readyz` are available without a token.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use ipnet::IpNet;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::api::Problem;
use super::tokens::Tokens;

/// How often refused tokens are logged.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Characters of a name that a refusal quotes.
const QUOTED_MAX: usize = 253;
/// The authentication schemes. Browsers show a password prompt only if Basic comes first.
const ANY_LOGIN: &str = "Basic realm=\"gsdk2mqtt\", charset=\"UTF-8\", Bearer realm=\"gsdk2mqtt\"";

/// The rules of one listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerAccess {
    anonymous_from: Arc<BTreeSet<IpNet>>,
    /// `None`: no file is configured.
    tokens: Option<watch::Receiver<Tokens>>,
    /// When a refused token was last logged.
    logged_at: Arc<Mutex<Option<Instant>>>,
}

impl ListenerAccess {
    pub(crate) fn new(
        anonymous_from: BTreeSet<IpNet>,
        tokens: Option<watch::Receiver<Tokens>>,
    ) -> Self {
        Self { anonymous_from: Arc::new(anonymous_from), tokens, logged_at: Arc::default() }
    }

    fn permits(&self, peer: IpAddr, request: &Request) -> bool {
        self.anonymous_from.iter().any(|network| network.contains(&peer))
            || self.tokens.as_ref().is_some_and(|it| it.borrow().permit(request.headers()))
    }

    /// The answer to a client without a right token.
    fn refusal(&self, peer: IpAddr, request: &Request) -> Response {
        if request.headers().contains_key(header::AUTHORIZATION) {
            self.log(peer);
        }
        let (login, text) = match &self.tokens {
            None => {
                let text = format!(
                    "clients at {peer} may not read: set http.token_file to give them tokens, or \
                     add their network to http.anonymous_from"
                );
                ("Bearer realm=\"gsdk2mqtt\"", text)
            }
            Some(tokens) if tokens.borrow().is_empty() => {
                let text = "no token is valid: the file that http.token_file names has none, or \
                            cannot be read";
                (ANY_LOGIN, text.to_owned())
            }
            Some(_) => {
                let text = "send a token of http.token_file as Authorization: Bearer, or as the \
                            password of Basic";
                (ANY_LOGIN, text.to_owned())
            }
        };
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", text);
        let mut response = problem.answer(request.uri().path());
        let login = HeaderValue::from_static(login);
        response.headers_mut().insert(header::WWW_AUTHENTICATE, login);
        response
    }

    fn log(&self, peer: IpAddr) {
        let now = Instant::now();
        let mut logged_at = self.logged_at.lock().unwrap_or_else(PoisonError::into_inner);
        if logged_at.is_none_or(|at| now.duration_since(at) >= LOG_EVERY) {
            *logged_at = Some(now);
            tracing::warn!(%peer, "web server client refused: invalid token");
        }
    }
}

/// Lets requests pass that are permitted.
pub(crate) async fn check_token(
    State(access): State<ListenerAccess>,
    ConnectInfo(peer): ConnectInfo<IpAddr>,
    request: Request,
    next: Next,
) -> Response {
    if access.permits(peer, &request) {
        return next.run(request).await;
    }
    match request.uri().path() {
        "/healthz" => next.run(request).await,
        "/readyz" => {
            // The reasons name gateways and the broker.
            let status = next.run(request).await.status();
            (status, Json(json!({ "ready": status.is_success() }))).into_response()
        }
        _ => access.refusal(peer, &request),
    }
}

/// The names in `Host` that are answered: those that no web page can own, and the configured ones
/// (`http.hosts`). A web page can resolve its own name to this machine (DNS rebinding) and then
/// read the answers to requests for that name, despite the same-origin policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedHosts(Arc<BTreeSet<String>>);

impl AllowedHosts {
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
pub(crate) async fn check_host(
    State(hosts): State<AllowedHosts>,
    request: Request,
    next: Next,
) -> Response {
    let refused = hosts.refused(&request).filter(|_| request.uri().path() != "/healthz");
    let Some(refused) = refused else { return next.run(request).await };
    let quoted: String = refused.chars().take(QUOTED_MAX).collect();
    let text = format!(
        "the bridge does not answer to the name {quoted:?}; use its IP address, or add the name to \
         http.hosts"
    );
    let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", text);
    problem.answer(request.uri().path())
}
