//! One HTTP/2 connection to a gateway: calls in the gateway's API version, each with a deadline,
//! and the gateway's certificate and version.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prost::Message as _;
use tokio::time::{Instant, timeout};
use tonic::client::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::channel::{self, GrpcChannel, KeepAlive, PingsRejected};
use super::encoded::{BytesCodec, EncodedAnswer, EncodedCall};
use super::error::{self, Error};
use super::options::GatewayOptions;
use super::rpc::{ApiVersion, Method, Rpc, SUBSCRIBE_STATUS, Service};
use super::token::Token;
use crate::certificate::Certificate;
use crate::net::{self, ActivityClock, Dialed};

/// The largest message accepted: a gateway's own default limit.
const MESSAGE_LEN_MAX: usize = 75_497_472;

/// The handshake with which a connection begins; it is named as a call.
const HTTP_2: Method = Method { name: "HTTP/2", is_change: false };
/// The key of the header in which a master expects the token.
const TOKEN_KEY: &str = "token";

/// A finished call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcRecord {
    pub method: &'static str,
    /// `DeadlineExceeded` for our own deadline too, and `Unavailable` for a broken connection.
    pub code: Code,
    /// `None` for a stream.
    pub duration: Option<Duration>,
}

/// Receives each finished call, on the caller's task: it must not block.
pub type RpcObserver = Arc<dyn Fn(&RpcRecord) + Send + Sync>;

/// How connections to a gateway are opened.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) options: GatewayOptions,
    pub(crate) observer: RpcObserver,
    pub(crate) keep_alive: KeepAlive,
    /// Tried first.
    pub(crate) api_version: ApiVersion,
}

impl Connector {
    /// To a gateway that is not known yet.
    pub(crate) fn new(options: GatewayOptions, observer: RpcObserver) -> Self {
        Self { options, observer, keep_alive: KeepAlive::Pings, api_version: ApiVersion::V1_5 }
    }
}

/// A connection. Its calls fail with [`Error::Broken`] once it has ended; it is never reopened.
pub(crate) struct GrpcConnection {
    connector: Connector,
    grpc: Grpc<GrpcChannel>,
    confirmed_version: OnceLock<ApiVersion>,
    certificate: Option<Certificate>,
    /// Whether the gateway requested a client certificate.
    certificate_requested: bool,
    activity: Arc<ActivityClock>,
    pings_rejected: PingsRejected,
    warned_about_id_0: AtomicBool,
}

impl fmt::Debug for GrpcConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcConnection").field("peer", &self.options().peer).finish_non_exhaustive()
    }
}

impl GrpcConnection {
    pub(crate) async fn open(connector: &Connector) -> Result<Self, Error> {
        let options = &connector.options;
        let dialed = net::dial(&options.target()).await?;
        let Dialed { stream, certificate, certificate_requested, activity } = dialed;
        let opened = channel::open(stream, options, connector.keep_alive).await.map_err(|error| {
            let (peer, status) = (options.peer.clone(), Status::from_error(Box::new(error)));
            Error::Broken { peer, method: HTTP_2, status }
        });
        let (channel, pings_rejected) = opened?;
        Ok(Self {
            connector: connector.clone(),
            grpc: Grpc::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX),
            confirmed_version: OnceLock::new(),
            certificate,
            certificate_requested,
            activity,
            pings_rejected,
            warned_about_id_0: AtomicBool::new(false),
        })
    }

    pub(crate) fn options(&self) -> &GatewayOptions {
        &self.connector.options
    }

    pub(crate) fn keep_alive(&self) -> KeepAlive {
        self.connector.keep_alive
    }

    /// Whether the gateway has ended it because of our HTTP/2 pings.
    pub(crate) fn pings_rejected(&self) -> bool {
        self.pings_rejected.load(Ordering::Relaxed)
    }

    pub(crate) fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref()
    }

    /// When bytes last came from the gateway.
    pub(crate) fn activity(&self) -> &ActivityClock {
        &self.activity
    }

    /// The API version in which the gateway has answered on this connection.
    pub(crate) fn api_version(&self) -> Option<ApiVersion> {
        self.confirmed_version.get().copied()
    }

    pub(crate) fn confirm(&self, version: ApiVersion) {
        // A gateway serves one version, so a second confirmation is equal.
        _ = self.confirmed_version.set(version);
    }

    /// The API versions to try while none is confirmed, in order.
    pub(crate) fn candidate_versions(&self) -> [ApiVersion; 2] {
        let expected = self.connector.api_version;
        [expected, expected.other()]
    }

    /// Makes a call. While the API version is not confirmed, UNIMPLEMENTED makes it try the other.
    pub(crate) async fn call<R: Rpc>(
        &self,
        request: R,
        deadline: Duration,
    ) -> Result<R::Response, Error> {
        let answer = self.call_in_any(&EncodedCall::new(&request), deadline).await?;
        self.decode::<R>(answer)
    }

    /// Makes a call in one API version, without a token.
    pub(crate) async fn call_as<R: Rpc>(
        &self,
        version: ApiVersion,
        request: R,
        deadline: Duration,
    ) -> Result<R::Response, Error> {
        let answer = self.send(version, None, &EncodedCall::new(&request), deadline).await?;
        self.decode::<R>(answer)
    }

    async fn call_in_any(
        &self,
        call: &EncodedCall,
        deadline: Duration,
    ) -> Result<EncodedAnswer, Error> {
        if let Some(version) = self.api_version() {
            return self.send(version, None, call, deadline).await;
        }
        for version in self.candidate_versions() {
            let outcome = self.send(version, None, call, deadline).await;
            match &outcome {
                Err(error) if error.grpc_code() == Some(Code::Unimplemented) => continue,
                Ok(_) | Err(Error::Status { .. }) => self.confirm(version),
                Err(_) => {}
            }
            return outcome;
        }
        Err(self.not_a_device_gateway())
    }

    /// Makes a call in one API version.
    pub(crate) async fn send(
        &self,
        version: ApiVersion,
        token: Option<&Token>,
        call: &EncodedCall,
        deadline: Duration,
    ) -> Result<EncodedAnswer, Error> {
        let (method, started) = (call.method, Instant::now());
        let response = async {
            let mut grpc = self.ready().await?;
            let request = with_token(call.request.clone(), token);
            grpc.unary(request, version.path(call.service, method.name)?, BytesCodec).await
        };
        let outcome = timeout(deadline, response).await;
        let duration = started.elapsed();
        let error = match outcome {
            Ok(Ok(response)) => {
                return Ok(EncodedAnswer { message: response.into_inner(), duration });
            }
            Ok(Err(status)) => self.error(method, status),
            Err(_) => Error::Deadline { peer: self.options().peer.clone(), method, deadline },
        };
        let code = match &error {
            Error::Status { status, .. } => status.code(),
            Error::Deadline { .. } => Code::DeadlineExceeded,
            _ => Code::Unavailable,
        };
        self.record(method, code, Some(duration));
        Err(error)
    }

    /// The message of an answer, with which the call is finished.
    pub(crate) fn decode<R: Rpc>(&self, answer: EncodedAnswer) -> Result<R::Response, Error> {
        let decoded = R::Response::decode(answer.message);
        let code = if decoded.is_ok() { Code::Ok } else { Code::Internal };
        self.record(R::METHOD, code, Some(answer.duration));
        decoded.map_err(|error| self.error(R::METHOD, Status::internal(error.to_string())))
    }

    /// Requests a stream of status changes. A gateway may respond only with the first one.
    pub(crate) async fn subscribe<Q, M>(
        self: Arc<Self>,
        version: ApiVersion,
        service: Service,
        token: Option<Token>,
        request: Q,
    ) -> Result<Streaming<M>, Status>
    where
        Q: prost::Message + 'static,
        M: prost::Message + Default + 'static,
    {
        let request = with_token(request, token.as_ref());
        let mut grpc = self.ready().await?;
        let (path, codec) = (version.path(service, SUBSCRIBE_STATUS.name)?, ProstCodec::default());
        let response: Response<_> = grpc.server_streaming(request, path, codec).await?;
        Ok(response.into_inner())
    }

    async fn ready(&self) -> Result<Grpc<GrpcChannel>, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(grpc)
    }

    pub(crate) fn record(&self, method: Method, code: Code, duration: Option<Duration>) {
        (self.connector.observer)(&RpcRecord { method: method.name, code, duration });
    }

    /// The error for a call's status.
    pub(crate) fn error(&self, method: Method, status: Status) -> Error {
        let peer = self.options().peer.clone();
        if !error::is_transport(&status) {
            return Error::Status { peer, method, status };
        }
        // tonic keeps a TLS alert only as text.
        let (target, text) = (self.options().target(), error::root_cause(&status));
        if self.api_version().is_none()
            && let Some(error) = net::late_refusal(&target, self.certificate_requested, &text)
        {
            return Error::Dial(error);
        }
        Error::Broken { peer, method, status }
    }

    pub(crate) fn not_a_device_gateway(&self) -> Error {
        let GatewayOptions { peer, address, .. } = self.options().clone();
        Error::NotADeviceGateway { peer, address }
    }

    /// Logs, once a connection, that a gateway sent rows whose device ID is 0.
    pub(crate) fn warn_about_id_0(&self, method: Method, count: usize) {
        if !self.warned_about_id_0.swap(true, Ordering::Relaxed) {
            let (gateway, master, noun) = self.options().peer.log_names();
            tracing::warn!(
                gateway,
                master,
                method = method.name,
                count,
                "{noun} sent devices with ID 0; ignored"
            );
        }
    }
}

fn with_token<T>(message: T, token: Option<&Token>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert(TOKEN_KEY, token.value().clone());
    }
    request
}
