//! A running bridge as a source: its JSON API.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use form_urlencoded::Serializer;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{CertificateError, Error as TlsError};
use ureq::http::{StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};

use crate::availability::{AvailabilityAnswer, AvailabilityRequest};
use crate::cli::health::agent;
use crate::config;
use crate::net;
use crate::period::time_zone;
use crate::store::history::{EventFilter, Page};

/// How long an answer may take; the bridge ends its own after 5 s.
const DEADLINE: Duration = Duration::from_secs(15);
/// The largest answer; the bridge ends its own at 8 MiB.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// The most rows of an answer.
const ROWS_MAX: usize = 10_000;

/// Which bridge is read.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SourceArgs {
    #[command(flatten)]
    pub(crate) config: config::ConfigArgs,
    /// The bridge's web server, such as https://bridge.lan:9925 [default: http.listen of the
    /// configuration, else its state_dir]
    #[arg(long, value_name = "URL", value_parser = url)]
    pub(crate) url: Option<String>,
    /// The file with a token for the web server
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the trusted authorities, instead of the system's
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,
}

/// The source does not answer now; it may later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    /// No program listens at this address.
    #[error("no answer from {0}: connection refused")]
    Refused(String),
    #[error("{0}")]
    Other(String),
}

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
            Some(path) => Some(format!("Bearer {}", token(path).await.context("--token-file")?)),
            None => None,
        };
        let roots = match &args.ca_file {
            Some(path) => {
                let pem = read(path).await.context("--ca-file")?;
                net::certificates(&pem).map_err(|error| unusable(path, &error))?
            }
            None if url.starts_with("https:") => rustls_native_certs::load_native_certs().certs,
            None => Vec::new(),
        };
        let roots = roots.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .build();
        let agent = agent(tls, proxy(url, args), DEADLINE);
        Ok(Self { agent, url: url.trim_end_matches('/').to_owned(), authorization })
    }

    /// Its zone of dates, which also shows that it answers.
    ///
    /// # Errors
    /// When there is no bridge, or it does not answer.
    pub(crate) async fn zone(&self) -> anyhow::Result<TimeZone> {
        let bridge: BridgeZone = self.get("bridge", &[]).await?;
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
        let of = if request.of_gateways { "gateways" } else { "devices" };
        let mut parameters = vec![
            ("of", of.to_owned()),
            ("from", from.to_string()),
            ("to", to.to_string()),
            ("bucket", request.bucket.to_string()),
            ("limit", ROWS_MAX.to_string()),
        ];
        parameters.extend(each("tz", request.zone.iana_name()));
        parameters.extend(each("gateway", &request.gateways));
        if !request.of_gateways {
            parameters.extend(each("device_id", &request.device_ids));
        }
        let mut answer: AvailabilityAnswer = self.get("availability", &parameters).await?;
        while let Some(next) = answer.next.take() {
            let parameters = [&parameters[..], &[("after", next)]].concat();
            let page: AvailabilityAnswer = self.get("availability", &parameters).await?;
            answer.availability.extend(page.availability);
            answer.next = page.next;
        }
        Ok(answer)
    }

    /// A page of events.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) async fn events(&self, filter: &EventFilter) -> anyhow::Result<Page> {
        let mut parameters = vec![("limit", filter.limit.to_string())];
        parameters.extend(each("from", filter.from));
        parameters.extend(each("to", filter.to));
        parameters.extend(each("after_id", filter.after_id));
        parameters.extend(each("gateway", &filter.gateways));
        parameters.extend(each("device_id", &filter.device_ids));
        parameters.extend(each("event_type", filter.event_types.iter().map(|name| name.as_str())));
        self.get("events", &parameters).await
    }

    async fn get<T>(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let Self { agent, url, authorization } = self.clone();
        let query = Serializer::new(String::new()).extend_pairs(parameters).finish();
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
        let (status, body) = answer.map_err(|error| match error {
            ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Unavailable::Refused(url.clone())
            }
            _ => Unavailable::Other(format!("no answer from {url}: {}", reason(&error))),
        })?;
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
        if status.is_server_error() { Err(Unavailable::Other(text).into()) } else { bail!(text) }
    }
}

/// Why there is no answer.
fn reason(error: &ureq::Error) -> String {
    let tls = match error {
        ureq::Error::Io(error) => net::tls_error(error),
        _ => None,
    };
    match tls {
        Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is signed by an authority that is not trusted; name that authority's \
             file by --ca-file"
                .to_owned()
        }
        Some(TlsError::InvalidMessage(_)) => {
            "it does not answer in TLS; write http:// if the bridge has no http.cert_file"
                .to_owned()
        }
        // Its own text would be `Other(OtherError(...))`.
        Some(TlsError::InvalidCertificate(CertificateError::Other(cause))) => format!(
            "its certificate is not acceptable ({}); set the bridge's http.cert_file to a server \
             certificate of X.509 version 3, not to that of a CA",
            cause.0
        ),
        _ if matches!(error, ureq::Error::Protocol(_)) => {
            format!("{error}; write https:// if the bridge has http.cert_file")
        }
        _ => error.to_string(),
    }
}

fn url(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['?', '#', '@', ' ']) => {
            Ok(text.to_owned())
        }
        _ => Err("write an address as in https://bridge.lan:9925".to_owned()),
    }
}

/// A parameter once for each of these values.
fn each<T: ToString>(
    name: &'static str,
    values: impl IntoIterator<Item = T>,
) -> impl Iterator<Item = (&'static str, String)> {
    values.into_iter().map(move |value| (name, value.to_string()))
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
    let mut lines = text.lines().map(str::trim);
    let token = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(token.ok_or_else(|| unusable(path, "has no token"))?.to_owned())
}

async fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    net::read_file(path).await.map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, why: &str) -> anyhow::Error {
    anyhow!("the file {} {why}", path.display())
}
