//! Access to the web server (docs/security.md): clients of some networks need no login, all others
//! a token. `/healthz` and the status of `/readyz` are available to all.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
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
        let mut response = if request.uri().path().starts_with("/api/") {
            Problem::unauthorized(text).into_response()
        } else {
            (StatusCode::UNAUTHORIZED, text + "\n").into_response()
        };
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
pub(crate) async fn check(
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
