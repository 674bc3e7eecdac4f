//! A running bridge as a source: its JSON API.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use form_urlencoded::Serializer;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_rustls::rustls::crypto::ring;
use ureq::http::{StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

use super::arguments::SourceArgs;
use super::unavailable::Unavailable;
use crate::availability::{AvailabilityAnswer, AvailabilityRequest};
use crate::net;
use crate::period::time_zone;
use crate::store::history::{EventFilter, Page};

/// How long an answer may take; the bridge ends its own after 5 s.
const DEADLINE: Duration = Duration::from_secs(15);
/// The largest answer; the bridge ends its own at 8 MiB.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// The most rows of an answer.
const ROWS_MAX: usize = 10_000;

/// A bridge, with the data that a query needs.
#[derive(Clone, Debug)]
pub(crate) struct ApiClient {
    agent: Agent,
    url: String,
    authorization: Option<String>,
}

#[derive(Deserialize)]
struct BridgeZone {
    time_zone: String,
}

#[derive(Deserialize)]
struct ProblemDetail {
    detail: String,
}

impl ApiClient {
    /// A client of the bridge at this address.
    ///
    /// # Errors
    /// When a file of the arguments cannot be used.
    pub(crate) async fn new(url: &str, args: &SourceArgs) -> anyhow::Result<Self> {
        let authorization = match &args.token_file {
            Some(path) => Some(format!("Bearer {}", token(path).await?)),
            None => None,
        };
        let roots = match &args.ca_file {
            Some(path) => {
                net::certificates(&read(path).await?).map_err(|error| unusable(path, &error))?
            }
            None if url.starts_with("https:") => rustls_native_certs::load_native_certs().certs,
            None => Vec::new(),
        };
        let roots = roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy(url, args))
            .timeout_global(Some(DEADLINE))
            .max_redirects(0)
            .http_status_as_error(false)
            .build();
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { agent: config.into(), url, authorization })
    }

    /// Its zone of dates, which also shows that it answers.
    ///
    /// # Errors
    /// When there is no bridge, or it does not answer.
    pub(crate) async fn zone(&self) -> anyhow::Result<TimeZone> {
        let bridge: BridgeZone = self.get("bridge", String::new()).await?;
        Ok(time_zone(&bridge.time_zone)?)
    }

    /// Availability, page by page.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn availability(
        &self,
        request: &AvailabilityRequest,
    ) -> anyhow::Result<AvailabilityAnswer> {
        let (from, to) = request.period;
        let mut text = Serializer::new(String::new());
        text.append_pair("of", if request.of_gateways { "gateways" } else { "devices" })
            .append_pair("from", &from.millis().to_string())
            .append_pair("to", &to.millis().to_string())
            .append_pair("bucket", &request.bucket.to_string())
            .append_pair("limit", &ROWS_MAX.to_string());
        if let Some(zone) = request.zone.iana_name() {
            text.append_pair("tz", zone);
        }
        for gateway in &request.gateways {
            text.append_pair("gateway", gateway.as_str());
        }
        if !request.of_gateways {
            for id in &request.device_ids {
                text.append_pair("device_id", &id.to_string());
            }
        }
        let query = text.finish();
        let mut answer: AvailabilityAnswer = self.get("availability", query.clone()).await?;
        while let (true, Some(next)) = (answer.more, answer.next.take()) {
            let mut page = Serializer::new(query.clone());
            page.append_pair("after", &next);
            let page: AvailabilityAnswer = self.get("availability", page.finish()).await?;
            answer.availability.extend(page.availability);
            (answer.more, answer.next) = (page.more, page.next);
        }
        Ok(answer)
    }

    /// A page of events.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn events(&self, filter: &EventFilter) -> anyhow::Result<Page> {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", &filter.limit.to_string());
        for (name, at) in [("from", filter.from), ("to", filter.to)] {
            if let Some(at) = at {
                query.append_pair(name, &at.millis().to_string());
            }
        }
        if let Some(id) = filter.after_id {
            query.append_pair("after_id", &id.to_string());
        }
        for gateway in &filter.gateways {
            query.append_pair("gateway", gateway.as_str());
        }
        for id in &filter.device_ids {
            query.append_pair("device_id", &id.to_string());
        }
        for name in &filter.event_types {
            query.append_pair("event_type", name);
        }
        self.get("events", query.finish()).await
    }

    async fn get<T>(&self, path: &str, query: String) -> anyhow::Result<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let Self { agent, url, authorization } = self.clone();
        let address = format!("{url}/api/v1/{path}?{query}");
        let call = move || {
            let mut request = agent.get(&address);
            if let Some(authorization) = &authorization {
                request = request.header("Authorization", authorization);
            }
            let mut response = request.call()?;
            let status = response.status();
            let body =
                response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
            Ok::<_, ureq::Error>((status, body))
        };
        let answer = tokio::task::spawn_blocking(call).await.context("internal error")?;
        let (status, body) =
            answer.map_err(|error| Unavailable(format!("no answer from {url}: {error}")))?;
        if status.is_success() {
            return serde_json::from_str(&body).with_context(|| format!("{url} is not a bridge"));
        }
        let is_refused = status == StatusCode::UNAUTHORIZED;
        let text = match serde_json::from_str::<ProblemDetail>(&body) {
            Ok(ProblemDetail { detail }) if is_refused && self.authorization.is_some() => {
                format!("{url} refuses the token of --token-file: {detail}")
            }
            Ok(ProblemDetail { detail }) if is_refused => {
                format!("{url}: {detail}; --token-file names a file that contains a token")
            }
            Ok(ProblemDetail { detail }) => format!("{url}: {detail}"),
            Err(_) => format!("{url} answers {status}; is it a bridge of this version?"),
        };
        if status.is_server_error() { Err(Unavailable(text).into()) } else { bail!(text) }
    }
}

/// The proxy of the environment; for an address of this machine there is none.
fn proxy(url: &str, args: &SourceArgs) -> Option<Proxy> {
    let url: Uri = url.parse().ok()?;
    let host = url.host()?.trim_matches(['[', ']']);
    let is_loopback = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if args.url.is_none() || is_loopback { None } else { Proxy::try_from_env() }
}

/// The first token of a file.
async fn token(path: &Path) -> anyhow::Result<String> {
    let bytes = read(path).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unusable(path, "is not UTF-8 text"))?;
    let token = text.lines().map(str::trim).find(|line| !line.is_empty());
    Ok(token.ok_or_else(|| unusable(path, "has no token"))?.to_owned())
}

async fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    net::read_file(path).await.map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, why: &str) -> anyhow::Error {
    anyhow!("the file {} {why}", path.display())
}
