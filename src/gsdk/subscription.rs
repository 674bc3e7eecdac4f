//! A subscription to status changes of a gateway or master: how it is established and read.
//!
//! Servers of grpc-go and grpc-core send a stream's headers only with its first message, so a
//! quiet gateway does not respond to the subscription at all.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use tokio::time::sleep;
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

use super::connection::GrpcConnection;
use super::disconnect::Disconnect;
use super::error::{Error, is_transport};
use super::rpc::{ApiVersion, Rpc, SUBSCRIBE_STATUS, Service};
use crate::proto::connect::{GetAcceptFilterRequest, StatusChange, SubscribeStatusRequest};

/// Status changes read at once, before other tasks run.
pub(crate) const BATCH_LEN_MAX: usize = 1024;

type StreamResponse<M> = Pin<Box<dyn Future<Output = Result<Streaming<M>, Status>> + Send>>;

enum StreamState<M> {
    Requested(StreamResponse<M>),
    Open(Box<Streaming<M>>),
}

/// A stream of status changes. It is recorded with its last code when it is dropped.
pub(crate) struct Subscription<M = StatusChange> {
    state: StreamState<M>,
    connection: Arc<GrpcConnection>,
    code: Code,
}

impl Subscription {
    /// Subscribes to a gateway in the API version that it serves.
    pub(crate) async fn establish(
        connection: &Arc<GrpcConnection>,
    ) -> Result<(Self, ApiVersion), Disconnect> {
        for version in connection.candidate_versions() {
            let mut subscription = Self::request(connection.clone(), version);
            if subscription.is_served(version).await? {
                connection.confirm(version);
                return Ok((subscription, version));
            }
        }
        Err(connection.not_a_device_gateway().into())
    }

    fn request(connection: Arc<GrpcConnection>, version: ApiVersion) -> Self {
        let request = SubscribeStatusRequest { queue_size: connection.options().queue_size };
        let response = connection.clone().subscribe(version, Service::Connect, None, request);
        Self::new(connection, response)
    }

    /// Whether the gateway serves the subscription; false if this API version is unknown to it.
    ///
    /// Without a response within the grace period, a light call decides: a gateway that does not
    /// know the subscription would have rejected it by the time that call is answered.
    async fn is_served(&mut self, version: ApiVersion) -> Result<bool, Disconnect> {
        let connection = self.connection.clone();
        let error = tokio::select! {
            biased;
            response = self.response() => response.err(),
            error = probe_after_grace(&connection, version) => error.filter(|error| {
                error.grpc_code().is_none_or(|code| code == Code::Unimplemented)
            }),
        };
        match error {
            None => Ok(true),
            Some(error) if error.grpc_code() == Some(Code::Unimplemented) => Ok(false),
            Some(error) => Err(Disconnect::from_stream(&connection, error)),
        }
    }
}

impl<M: 'static> Subscription<M> {
    /// A subscription whose response is to come.
    pub(crate) fn new(
        connection: Arc<GrpcConnection>,
        response: impl Future<Output = Result<Streaming<M>, Status>> + Send + 'static,
    ) -> Self {
        let state = StreamState::Requested(Box::pin(response));
        Self { state, connection, code: Code::Cancelled }
    }

    /// Waits for the response.
    pub(crate) async fn response(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_open(cx).map_ok(drop)).await
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<&mut Streaming<M>, Error>> {
        if let StreamState::Requested(response) = &mut self.state {
            match ready!(response.as_mut().poll(cx)) {
                Ok(stream) => self.state = StreamState::Open(Box::new(stream)),
                Err(status) => return Poll::Ready(Err(self.failed(status))),
            }
        }
        match &mut self.state {
            StreamState::Open(stream) => Poll::Ready(Ok(stream)),
            StreamState::Requested(_) => Poll::Pending,
        }
    }

    fn failed(&mut self, status: Status) -> Error {
        self.code = if is_transport(&status) { Code::Unavailable } else { status.code() };
        self.connection.error(SUBSCRIBE_STATUS, status)
    }

    /// Waits for at least one change or the end, and reads what is there; also what came before the
    /// end, which is the error. Cancel safe.
    pub(crate) async fn read(&mut self, batch: &mut Vec<M>) -> Result<(), Disconnect> {
        poll_fn(|cx| match self.poll_read(cx, batch) {
            Poll::Pending if !batch.is_empty() => Poll::Ready(Ok(())),
            poll => poll,
        })
        .await
    }

    /// Reads what is there, without waiting: if the batch is full, there may be more.
    pub(crate) fn read_ready(&mut self, batch: &mut Vec<M>) -> Result<(), Disconnect> {
        self.read(batch).now_or_never().unwrap_or(Ok(()))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<M>,
    ) -> Poll<Result<(), Disconnect>> {
        let error = loop {
            let stream = match ready!(self.poll_open(cx)) {
                Ok(stream) => stream,
                Err(error) => break error,
            };
            if batch.len() >= BATCH_LEN_MAX {
                return Poll::Ready(Ok(()));
            }
            match ready!(Pin::new(stream).poll_next(cx)) {
                Some(Ok(change)) => batch.push(change),
                Some(Err(status)) => break self.failed(status),
                None => {
                    self.code = Code::Ok;
                    return Poll::Ready(Err(Disconnect::from_stream_end(&self.connection)));
                }
            }
        };
        Poll::Ready(Err(Disconnect::from_stream(&self.connection, error)))
    }
}

impl<M> Drop for Subscription<M> {
    fn drop(&mut self) {
        self.connection.record(SUBSCRIBE_STATUS, self.code, None);
    }
}

async fn probe_after_grace(connection: &GrpcConnection, version: ApiVersion) -> Option<Error> {
    sleep(connection.options().timing.subscribe_grace).await;
    let deadline = GetAcceptFilterRequest::DEADLINE;
    connection.call_as(version, GetAcceptFilterRequest {}, deadline).await.err()
}
