//! The calls to a master gateway on one connection: logged in as a tenant, with the token on every
//! call.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::{Code, Status};

use super::connection::{Connector, GrpcConnection, RpcObserver};
use super::convert::{self, ListedGateway};
use super::disconnect::Disconnect;
use super::encoded::{EncodedAnswer, EncodedCall};
use super::error::Error;
use super::options::GatewayOptions;
use super::rpc::{ApiVersion, Rpc, Service};
use super::subscription::Subscription;
use super::token::Token;
use crate::certificate::Certificate;
use crate::fleet::{AcceptFilter, GatewayIndex, Listed};
use crate::net;
use crate::proto::connect::StatusChange;
use crate::proto::connect_master;
use crate::proto::gateway::{self, GetListRequest, GetRequest};
use crate::proto::login::LoginRequest;

/// A connection that is logged in. It ends like any connection, and is never reopened.
pub struct MasterClient {
    connection: Arc<GrpcConnection>,
    version: ApiVersion,
    /// The tenant's certificate (PEM), which a login shows.
    certificate: String,
    token: Mutex<Token>,
    /// The last login that failed. Locked during a login, so that calls whose token expired
    /// together log in once.
    failed_login: tokio::sync::Mutex<Option<FailedLogin>>,
}

struct FailedLogin {
    at: Instant,
    /// The master's answer, if it refused the certificate.
    refusal: Option<Status>,
}

impl fmt::Debug for MasterClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.connection.fmt(f)
    }
}

impl MasterClient {
    /// Connects and logs in, without a [`MasterLink`](super::MasterLink).
    pub async fn dial(options: &GatewayOptions, observer: RpcObserver) -> Result<Arc<Self>, Error> {
        Self::open(&Connector::new(options.clone(), observer)).await
    }

    pub(crate) async fn open(connector: &Connector) -> Result<Arc<Self>, Error> {
        let certificate = net::client_certificate(&connector.options.target()).await?;
        let connection = GrpcConnection::open(connector).await?;
        for version in connection.candidate_versions() {
            match log_in(&connection, version, &certificate).await {
                Err(error) if error.grpc_code() == Some(Code::Unimplemented) => {}
                Err(error) => return Err(error),
                Ok(token) => {
                    connection.confirm(version);
                    return Ok(Arc::new(Self {
                        connection: Arc::new(connection),
                        version,
                        certificate,
                        token: Mutex::new(token),
                        failed_login: tokio::sync::Mutex::default(),
                    }));
                }
            }
        }
        let GatewayOptions { peer, address, .. } = connector.options.clone();
        Err(Error::NotAMasterGateway { peer, address })
    }

    pub(crate) const fn connection(&self) -> &Arc<GrpcConnection> {
        &self.connection
    }

    pub(crate) const fn version(&self) -> ApiVersion {
        self.version
    }

    /// The package in which the master answers.
    pub const fn package(&self) -> &'static str {
        self.version.master_package()
    }

    /// The master's certificate, if it could be parsed.
    pub fn certificate(&self) -> Option<&Certificate> {
        self.connection.certificate()
    }

    pub(crate) fn token(&self) -> Token {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a call. If the master does not accept the token, logs in once and repeats the call,
    /// which the master has not executed.
    pub(crate) async fn call<R: Rpc>(
        &self,
        request: R,
        deadline: Duration,
    ) -> Result<R::Response, Error> {
        let answer = self.send(&EncodedCall::new(&request), deadline).await?;
        self.connection.decode::<R>(answer)
    }

    async fn send(&self, call: &EncodedCall, deadline: Duration) -> Result<EncodedAnswer, Error> {
        let (token, until) = (self.token(), Instant::now() + deadline);
        match self.connection.send(self.version, Some(&token), call, deadline).await {
            Err(error) if error.grpc_code() == Some(Code::Unauthenticated) => {
                match timeout_at(until, self.replace(&token)).await {
                    Ok(Ok(true)) => {}
                    // The time-out of a login would say that the call may have been executed.
                    Err(_) | Ok(Ok(false) | Err(Error::Deadline { .. })) => return Err(error),
                    Ok(Err(login_error)) => return Err(login_error),
                }
                let (token, left) = (self.token(), until.saturating_duration_since(Instant::now()));
                let repeated = self.connection.send(self.version, Some(&token), call, left).await;
                repeated.map_err(|error| match error {
                    Error::Deadline { peer, method, .. } => {
                        Error::Deadline { peer, method, deadline }
                    }
                    error => error,
                })
            }
            outcome => outcome,
        }
    }

    /// Logs in again, unless this token has been replaced already. Returns whether there is another
    /// token: there is none if the login of another call failed while this one waited for it. A
    /// refusal of that login is the result of both.
    pub(crate) async fn replace(&self, token: &Token) -> Result<bool, Error> {
        let asked_at = Instant::now();
        let mut failed = self.failed_login.lock().await;
        if self.token().value() != token.value() {
            return Ok(true);
        }
        if let Some(failed) = failed.as_ref().filter(|failed| failed.at >= asked_at) {
            let Some(status) = failed.refusal.clone() else { return Ok(false) };
            let peer = self.connection.options().peer.clone();
            return Err(Error::LoginRefused { peer, status });
        }
        match log_in(&self.connection, self.version, &self.certificate).await {
            Ok(token) => {
                *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
                Ok(true)
            }
            Err(error) => {
                let refusal = match &error {
                    Error::LoginRefused { status, .. } => Some(status.clone()),
                    _ => None,
                };
                *failed = Some(FailedLogin { at: Instant::now(), refusal });
                Err(error)
            }
        }
    }

    /// The gateways of the tenant: two calls.
    pub async fn gateways(&self) -> Result<Vec<ListedGateway>, Error> {
        let ids = self.call(GetListRequest {}, GetListRequest::DEADLINE).await?.gateway_i_ds;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let request = GetRequest { gateway_i_ds: ids };
        let infos = self.call(request, GetRequest::DEADLINE).await?.gateway_infos;
        Ok(infos.into_iter().map(convert::listed_gateway).collect())
    }

    /// Opens both streams of status changes, as a link does, and closes them.
    pub async fn try_streams(&self) -> Result<(), Error> {
        let grace = self.connection.options().timing.subscribe_grace;
        match timeout(grace, self.subscribe().responses()).await {
            Ok(response) => response,
            // Some servers respond only with the first change.
            Err(_) => Ok(()),
        }
    }

    /// Requests both streams.
    pub(crate) fn subscribe(&self) -> MasterStreams {
        let queue_size = self.connection.options().queue_size;
        let devices = connect_master::SubscribeStatusRequest { queue_size };
        let gateways = gateway::SubscribeStatusRequest { queue_size };
        MasterStreams {
            devices: self.subscription(Service::ConnectMaster, devices),
            gateways: self.subscription(Service::Gateway, gateways),
        }
    }

    fn subscription<Q, M>(&self, service: Service, request: Q) -> Subscription<M>
    where
        Q: prost::Message + 'static,
        M: prost::Message + Default + 'static,
    {
        let (connection, token) = (self.connection.clone(), self.token());
        let response = connection.clone().subscribe(self.version, service, Some(token), request);
        Subscription::new(connection, response)
    }
}

/// The status changes of the devices of all gateways, and those of the gateways.
pub(crate) struct MasterStreams {
    pub(crate) devices: Subscription,
    pub(crate) gateways: Subscription<gateway::StatusChange>,
}

impl MasterStreams {
    /// Waits for the responses to both.
    pub(crate) async fn responses(&mut self) -> Result<(), Error> {
        let Self { devices, gateways } = self;
        tokio::try_join!(devices.response(), gateways.response()).map(drop)
    }

    /// Reads what is there of both, without waiting.
    pub(crate) fn read_ready(
        &mut self,
        devices: &mut Vec<StatusChange>,
        gateways: &mut Vec<gateway::StatusChange>,
    ) -> Result<(), Disconnect> {
        let end = self.devices.read_ready(devices);
        end.and(self.gateways.read_ready(gateways))
    }
}

async fn log_in(
    connection: &GrpcConnection,
    version: ApiVersion,
    certificate: &str,
) -> Result<Token, Error> {
    let request = LoginRequest { tenant_cert: certificate.to_owned() };
    let peer = connection.options().peer.clone();
    match connection.call_as(version, request, LoginRequest::DEADLINE).await {
        Ok(response) => {
            let token = Token::new(&response.jwt_token, Instant::now(), net::wall_time());
            token.ok_or_else(|| {
                let message = "the token that the master gave cannot be sent in a header";
                connection.error(LoginRequest::METHOD, Status::internal(message))
            })
        }
        Err(Error::Status { status, .. }) if is_refusal(status.code()) => {
            Err(Error::LoginRefused { peer, status })
        }
        Err(error) => Err(error),
    }
}

/// Whether the code of a failed login is about the certificate.
const fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::NotFound
    )
}

/// The result of a call of a link beside its streams. A list belongs to the link of its gateway
/// with this number.
pub(crate) enum CallResult {
    List(GatewayIndex, u64, Result<Vec<Listed>, Error>),
    Filter(GatewayIndex, u64, Result<AcceptFilter, Error>),
    /// With the number of gateway statuses read when it was requested.
    Gateways(u64, Result<Vec<ListedGateway>, Error>),
    /// Whether there is another token.
    Renewed(Result<bool, Error>),
}

/// The result of the next call that ends; `None` if none runs. A panic of a call continues here.
/// Cancel safe.
pub(crate) async fn next_result(calls: &mut JoinSet<CallResult>) -> Option<CallResult> {
    match calls.join_next().await?.map_err(JoinError::try_into_panic) {
        Ok(result) => Some(result),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => None,
    }
}
