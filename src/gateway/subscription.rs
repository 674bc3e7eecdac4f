//! One subscription to a gateway's status changes: how it comes to stand, and how it is read.
//!
//! May not wait for an answer to the subscription: servers of grpc-go and grpc-core send the
//! headers of a stream only with its first message, so that a quiet gateway does not answer at all.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, sleep};
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming};

use crate::proto::connect::{GetAcceptFilterRequest, StatusChange};

use super::calls::LIST_DEADLINE;
use super::client::{GatewayClient, Refusal, Wire};
use super::error::{Error, code_name, is_transport};
use super::package::Package;

/// How many changes are read at most before others have their turn.
pub(super) const BATCH_LEN_MAX: usize = 1024;

const METHOD: &str = "SubscribeStatus";

type Asked = Pin<Box<dyn Future<Output = Result<Streaming<StatusChange>, Status>> + Send>>;

enum State {
    Asked(Asked),
    Open(Box<Streaming<StatusChange>>),
}

/// A stream of status changes, answered or not yet.
pub(super) struct Subscription {
    state: State,
    client: GatewayClient,
    begun: Instant,
    code: &'static str,
}

/// How a stream ended: with the gateway's OK, or with an error.
pub(super) type StreamEnd = Result<(), Status>;

impl Subscription {
    fn begin(client: &GatewayClient, package: Package) -> Self {
        let asked = Box::pin(client.clone().subscribe(package));
        let code = code_name(Code::Cancelled);
        Self { state: State::Asked(asked), client: client.clone(), begun: Instant::now(), code }
    }

    /// Waits for the answer to the subscription, which may not come before the first change.
    async fn answered(&mut self) -> Result<(), Status> {
        poll_fn(|cx| self.poll_open(cx).map_ok(drop)).await
    }

    fn poll_open(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<&mut Streaming<StatusChange>, Status>> {
        if let State::Asked(asked) = &mut self.state {
            match ready!(asked.as_mut().poll(cx)) {
                Ok(stream) => self.state = State::Open(Box::new(stream)),
                Err(status) => {
                    self.note(&status);
                    return Poll::Ready(Err(status));
                }
            }
        }
        match &mut self.state {
            State::Open(stream) => Poll::Ready(Ok(stream)),
            State::Asked(_) => Poll::Pending,
        }
    }

    fn note(&mut self, status: &Status) {
        let code = if is_transport(status) { Code::Unavailable } else { status.code() };
        self.code = code_name(code);
    }

    /// Reads what is there, at least one change or the end; nothing is lost where this is dropped.
    pub(super) async fn read(&mut self, batch: &mut Vec<StatusChange>) -> Option<StreamEnd> {
        poll_fn(|cx| match self.poll_read(cx, batch) {
            Poll::Pending if batch.is_empty() => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(end) => Poll::Ready(end),
        })
        .await
    }

    /// Reads what is there, without waiting.
    pub(super) async fn read_ready(&mut self, batch: &mut Vec<StatusChange>) -> Option<StreamEnd> {
        poll_fn(|cx| match self.poll_read(cx, batch) {
            Poll::Pending => Poll::Ready(None),
            Poll::Ready(end) => Poll::Ready(end),
        })
        .await
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut Vec<StatusChange>,
    ) -> Poll<Option<StreamEnd>> {
        let stream = match ready!(self.poll_open(cx)) {
            Ok(stream) => stream,
            Err(status) => return Poll::Ready(Some(Err(status))),
        };
        while batch.len() < BATCH_LEN_MAX {
            match ready!(Pin::new(&mut *stream).poll_next(cx)) {
                Some(Ok(change)) => batch.push(change),
                Some(Err(status)) => {
                    self.note(&status);
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    self.code = code_name(Code::Ok);
                    return Poll::Ready(Some(Ok(())));
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.client.observe(METHOD, self.code, self.begun);
    }
}

/// Why no subscription came to stand.
pub(super) enum NotEstablished {
    /// The stream was refused, or the connection broke.
    Stream(Status),
    /// The call that was to show that the gateway answers did not come back.
    Call(Error),
}

/// Subscribes, under whichever package the gateway knows.
///
/// The subscription stands when the gateway answers it. Where it does not within a moment, a light
/// call after it shows that the gateway serves this package: had it not known the subscription, it
/// would have said so meanwhile.
pub(super) async fn establish(
    client: &GatewayClient,
) -> Result<(Subscription, Package), NotEstablished> {
    let (package, _) = client.packages().get();
    for package in [package, package.other()] {
        let mut subscription = Subscription::begin(client, package);
        match stands(client, package, &mut subscription).await {
            Ok(()) => {
                client.packages().confirm(package);
                return Ok((subscription, package));
            }
            Err(NotEstablished::Stream(status))
                if status.code() == Code::Unimplemented && !is_transport(&status) => {}
            Err(other) => return Err(other),
        }
    }
    Err(NotEstablished::Call(client.error(METHOD, Refusal::NotADeviceGateway)))
}

async fn stands(
    client: &GatewayClient,
    package: Package,
    subscription: &mut Subscription,
) -> Result<(), NotEstablished> {
    tokio::select! {
        biased;
        answer = subscription.answered() => return answer.map_err(NotEstablished::Stream),
        () = sleep(client.options().timing.subscribe_grace) => {}
    }
    tokio::select! {
        biased;
        answer = subscription.answered() => answer.map_err(NotEstablished::Stream),
        answer = light_call(client, package) => match answer {
            Err(Refusal::Answer(status)) if is_transport(&status) => {
                Err(NotEstablished::Stream(status))
            }
            Err(Refusal::Answer(status)) if status.code() == Code::Unimplemented => {
                Err(NotEstablished::Stream(status))
            }
            Err(Refusal::Answer(_)) | Ok(()) => Ok(()),
            Err(refusal) => Err(NotEstablished::Call(client.error("GetAcceptFilter", refusal))),
        },
    }
}

/// A call that costs a gateway next to nothing.
pub(super) async fn light_call(client: &GatewayClient, package: Package) -> Result<(), Refusal> {
    let request = GetAcceptFilterRequest {};
    let send = |mut wire: Wire, request| async move { wire.get_accept_filter(request).await };
    client.call_once(package, "GetAcceptFilter", LIST_DEADLINE, request, send).await.map(drop)
}
