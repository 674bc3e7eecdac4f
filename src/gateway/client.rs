//! The typed client: every call of service `Connect`, each with its deadline.
//!
//! May not retry, except to find out the gateway's age: whether a call is made again is for the
//! caller to decide, who knows whether it changes something.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use crate::certificate::Certificate;
use crate::ids::Moment;
use crate::net::{self, ActivityClock, Dialed};
use crate::proto::connect::StatusChange;
use crate::proto::connect::SubscribeStatusRequest;
use crate::proto::connect::connect_client::ConnectClient;

use super::channel::{self, KeepAlive};
use super::convert::{self, Read};
use super::error::{Error, code_name, is_certificate_wanted, is_transport, root_cause};
use super::options::GatewayOptions;
use super::package::{Package, PackageMemory, Packaged};
use super::types::DeviceError;

/// The largest message taken: what a gateway itself takes by default (wire, section 1).
const MESSAGE_LEN_MAX: usize = 75_497_472;

/// The generated client, its calls under one package's paths.
pub(super) type Wire = ConnectClient<Packaged<Channel>>;

/// One call that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rpc {
    /// Its name on the wire, such as `GetDeviceList`.
    pub method: &'static str,
    /// The gRPC code in snake_case; `ok`, `deadline_exceeded` for our own deadline too, and
    /// `unavailable` for a broken connection.
    pub code: &'static str,
    /// How long it took. For `SubscribeStatus`: as long as the stream was open.
    pub duration: Duration,
}

/// Who is told of each call that ended. Called on the caller's task: it may not wait.
pub type RpcObserver = Arc<dyn Fn(&Rpc) + Send + Sync>;

/// The calls of one gateway, on one connection. Cheap to clone; clones share the connection.
///
/// Calls fail with [`Error::Broken`] once the connection has ended: take a new one then.
#[derive(Clone)]
pub struct GatewayClient {
    shared: Arc<Shared>,
    deadline: Option<Duration>,
}

struct Shared {
    options: GatewayOptions,
    channel: Channel,
    packages: PackageMemory,
    observer: RpcObserver,
    certificate: Option<Certificate>,
    /// Whether it has asked for a certificate of ours.
    certificate_requested: bool,
    activity: Arc<ActivityClock>,
    warned_of_id_0: AtomicBool,
}

impl fmt::Debug for GatewayClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayClient")
            .field("gateway", &self.shared.options.name)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// How a call ended that gave nothing.
pub(super) enum Refusal {
    Answer(Status),
    Deadline(Duration),
    NotADeviceGateway,
}

impl GatewayClient {
    /// Connects to a gateway for some calls, without a task that keeps the link.
    ///
    /// # Errors
    /// [`Error::Dial`] when no connection comes about.
    pub async fn dial(options: &GatewayOptions, observer: RpcObserver) -> Result<Self, Error> {
        let packages = PackageMemory::default();
        Self::open(options, KeepAlive::Pings, packages, observer).await
    }

    pub(super) async fn open(
        options: &GatewayOptions,
        keep_alive: KeepAlive,
        packages: PackageMemory,
        observer: RpcObserver,
    ) -> Result<Self, Error> {
        packages.doubt();
        let dialed = net::dial(&options.target()).await?;
        let Dialed { stream, certificate, certificate_requested, activity } = dialed;
        let channel = channel::open(stream, options, keep_alive).await.map_err(|error| {
            let (gateway, cause) = (options.name.clone(), error.to_string());
            Error::Broken { gateway, method: "HTTP/2", cause }
        })?;
        let shared = Shared {
            options: options.clone(),
            channel,
            packages,
            observer,
            certificate,
            certificate_requested,
            activity,
            warned_of_id_0: AtomicBool::new(false),
        };
        Ok(Self { shared: Arc::new(shared), deadline: None })
    }

    /// The same client with another deadline for its calls, as a command's `timeout_s` asks for.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { shared: self.shared.clone(), deadline: Some(deadline) }
    }

    /// When the gateway's certificate expires.
    #[must_use]
    pub fn certificate_expires_at(&self) -> Option<Moment> {
        self.shared.certificate.as_ref().map(|shown| shown.not_after)
    }

    /// The gateway's certificate, where it could be read.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.shared.certificate.as_ref()
    }

    /// Under which package this gateway has answered on this connection; `None` before it has.
    #[must_use]
    pub fn package(&self) -> Option<Package> {
        let (package, confirmed) = self.shared.packages.get();
        confirmed.then_some(package)
    }

    /// Whether the gateway closed the connection because it wants a certificate of ours: it says
    /// so, or it has asked for one and then broken off before any answer.
    pub(super) fn wants_certificate(&self, status: &Status) -> bool {
        let unanswered = self.package().is_none() && is_transport(status);
        is_certificate_wanted(status) || self.shared.certificate_requested && unanswered
    }

    pub(super) fn packages(&self) -> &PackageMemory {
        &self.shared.packages
    }

    /// When something last came over the connection.
    pub(super) fn activity(&self) -> &ActivityClock {
        &self.shared.activity
    }

    pub(super) fn options(&self) -> &GatewayOptions {
        &self.shared.options
    }

    fn wire(&self, package: Package) -> Wire {
        ConnectClient::new(Packaged::new(self.shared.channel.clone(), package))
            .max_decoding_message_size(MESSAGE_LEN_MAX)
    }

    /// Begins a subscription. The answer may come only with the first status change.
    pub(super) async fn subscribe(
        self,
        package: Package,
    ) -> Result<Streaming<StatusChange>, Status> {
        let queue_size = self.shared.options.queue_size;
        let request = SubscribeStatusRequest { queue_size };
        self.wire(package).subscribe_status(request).await.map(Response::into_inner)
    }

    pub(super) fn observe(&self, method: &'static str, code: &'static str, begun: Instant) {
        (self.shared.observer)(&Rpc { method, code, duration: begun.elapsed() });
    }

    /// Makes one call under one package.
    pub(super) async fn call_once<Request, Answer, Sent>(
        &self,
        package: Package,
        method: &'static str,
        deadline: Duration,
        request: Request,
        send: impl Fn(Wire, Request) -> Sent,
    ) -> Result<Answer, Refusal>
    where
        Sent: Future<Output = Result<Response<Answer>, Status>>,
    {
        let deadline = self.deadline.unwrap_or(deadline);
        let begun = Instant::now();
        let sent = send(self.wire(package), request);
        match tokio::time::timeout(deadline, sent).await {
            Err(_) => {
                self.observe(method, code_name(Code::DeadlineExceeded), begun);
                Err(Refusal::Deadline(deadline))
            }
            Ok(Err(status)) => {
                let transport = is_transport(&status);
                let code = if transport { Code::Unavailable } else { status.code() };
                self.observe(method, code_name(code), begun);
                Err(Refusal::Answer(status))
            }
            Ok(Ok(answer)) => {
                self.observe(method, code_name(Code::Ok), begun);
                Ok(answer.into_inner())
            }
        }
    }

    /// Makes a call, under the other package too where the gateway's age is not known yet.
    async fn call_or_refusal<Request, Answer, Sent>(
        &self,
        method: &'static str,
        deadline: Duration,
        request: Request,
        send: impl Fn(Wire, Request) -> Sent,
    ) -> Result<Answer, Refusal>
    where
        Request: Clone,
        Sent: Future<Output = Result<Response<Answer>, Status>>,
    {
        let (package, confirmed) = self.shared.packages.get();
        let first = self.call_once(package, method, deadline, request.clone(), &send).await;
        if confirmed || !is_unimplemented(&first) {
            self.confirm(package, &first);
            return first;
        }
        let package = package.other();
        let second = self.call_once(package, method, deadline, request, &send).await;
        if is_unimplemented(&second) {
            return Err(Refusal::NotADeviceGateway);
        }
        self.confirm(package, &second);
        second
    }

    /// Any answer from the gateway itself shows that it knows the service.
    fn confirm<Answer>(&self, package: Package, outcome: &Result<Answer, Refusal>) {
        let answered = match outcome {
            Ok(_) => true,
            Err(Refusal::Answer(status)) => !is_transport(status),
            Err(Refusal::Deadline(_) | Refusal::NotADeviceGateway) => false,
        };
        if answered {
            self.shared.packages.confirm(package);
        }
    }

    /// Makes a call that gives an answer or an error.
    pub(super) async fn call<Request, Answer, Sent>(
        &self,
        method: &'static str,
        deadline: Duration,
        request: Request,
        send: impl Fn(Wire, Request) -> Sent,
    ) -> Result<Answer, Error>
    where
        Request: Clone,
        Sent: Future<Output = Result<Response<Answer>, Status>>,
    {
        let outcome = self.call_or_refusal(method, deadline, request, send).await;
        outcome.map_err(|refusal| self.error(method, refusal))
    }

    /// Makes a call for many devices. What failed on single ones is read from both places where the
    /// wire puts it: the answer's own field, and the details of an error (wire, section 1).
    pub(super) async fn call_multi<Request, Answer, Sent>(
        &self,
        method: &'static str,
        deadline: Duration,
        request: Request,
        send: impl Fn(Wire, Request) -> Sent,
        errors: impl Fn(Answer) -> Vec<crate::proto::err::ErrorResponse>,
    ) -> Result<Vec<DeviceError>, Error>
    where
        Request: Clone,
        Sent: Future<Output = Result<Response<Answer>, Status>>,
    {
        match self.call_or_refusal(method, deadline, request, send).await {
            Ok(answer) => Ok(convert::device_errors(errors(answer))),
            Err(refusal) => match &refusal {
                Refusal::Answer(status) => convert::multi_errors(status),
                Refusal::Deadline(_) | Refusal::NotADeviceGateway => None,
            }
            .ok_or_else(|| self.error(method, refusal)),
        }
    }

    pub(super) fn error(&self, method: &'static str, refusal: Refusal) -> Error {
        let gateway = self.shared.options.name.clone();
        let address = self.shared.options.address.clone();
        match refusal {
            Refusal::Deadline(deadline) => Error::Deadline { gateway, method, deadline },
            Refusal::NotADeviceGateway => Error::NotADeviceGateway { gateway, address },
            Refusal::Answer(status) if self.wants_certificate(&status) => {
                Error::ClientCertificateWanted { gateway, address }
            }
            Refusal::Answer(status) if is_transport(&status) => {
                Error::Broken { gateway, method, cause: root_cause(&status) }
            }
            Refusal::Answer(status) => Error::Answered {
                gateway,
                method,
                code: code_name(status.code()),
                message: match status.message() {
                    "" => "no reason given".to_owned(),
                    message => message.to_owned(),
                },
            },
        }
    }

    /// The rows of an answer, with a warning of those that were left out: one a connection.
    pub(super) fn rows<T>(&self, method: &'static str, read: Read<T>) -> T {
        if read.without_id > 0 {
            self.warn_of_id_0(method, read.without_id);
        }
        read.rows
    }

    pub(super) fn warn_of_id_0(&self, method: &'static str, count: usize) {
        if !self.shared.warned_of_id_0.swap(true, Ordering::Relaxed) {
            let gateway = &self.shared.options.name;
            tracing::warn!(%gateway, method, count, "the gateway told of devices with the ID 0");
        }
    }
}

fn is_unimplemented<Answer>(outcome: &Result<Answer, Refusal>) -> bool {
    matches!(outcome, Err(Refusal::Answer(status))
        if status.code() == Code::Unimplemented && !is_transport(status))
}
