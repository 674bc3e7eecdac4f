//! One gRPC call: decodes the request, calls a handler, encodes the answer.

use std::pin::Pin;

use axum::extract::Request;
use prost::Message;
use tokio_stream::{Stream, StreamExt};
use tonic::codegen::http;
use tonic::transport::server::TlsConnectInfo;
use tonic::{Response, Status};
use tonic_prost::ProstCodec;

use super::interceptor::Package;

/// The largest message a gateway reads: its default `max_recv_size` (wire, section 1).
const MESSAGE_SIZE_MAX: usize = 75_497_472;

/// The answer to a call.
pub(crate) type Answer = http::Response<tonic::body::Body>;

/// An answer to come.
pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// A stream of messages, as tonic wants it.
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A call that waits for its answer.
pub(crate) struct Call {
    request: Request,
    package: Package,
    /// Whether a stream's response headers wait for its first message.
    lazy_headers: bool,
    /// The error of a call that is not allowed, returned once the request is decoded.
    denied: Option<Status>,
}

impl Call {
    pub(crate) fn new(request: Request, package: Package, lazy_headers: bool) -> Self {
        Self { request, package, lazy_headers, denied: None }
    }

    pub(crate) fn package(&self) -> Package {
        self.package
    }

    /// The same call, denied if `check` refuses its token.
    pub(crate) fn allowed_if(
        mut self,
        check: impl FnOnce(Option<&str>) -> Result<(), Status>,
    ) -> Self {
        self.denied = check(self.token().as_deref()).err();
        self
    }

    /// The token in the metadata.
    pub(crate) fn token(&self) -> Option<String> {
        let token = self.request.headers().get("token")?;
        token.to_str().ok().map(str::to_owned)
    }

    /// The certificate with which the client made the connection, in DER.
    pub(crate) fn client_certificate(&self) -> Option<Vec<u8>> {
        let connection: &TlsConnectInfo<()> = self.request.extensions().get()?;
        connection.peer_certs()?.first().map(|certificate| certificate.to_vec())
    }

    /// Answers with what `handler` returns for the request.
    pub(crate) fn answer<'a, M, R>(
        self,
        mut handler: impl FnMut(M) -> Result<R, Status> + Send + 'a,
    ) -> Answering<'a>
    where
        M: Message + Default + 'static,
        R: Message + 'static,
    {
        self.answer_later(move |message| std::future::ready(handler(message)))
    }

    /// As `answer`, where the answer takes time.
    pub(crate) fn answer_later<'a, M, R, F>(
        self,
        mut handler: impl FnMut(M) -> F + Send + 'a,
    ) -> Answering<'a>
    where
        M: Message + Default + 'static,
        R: Message + 'static,
        F: Future<Output = Result<R, Status>> + Send + 'a,
    {
        let Self { request, denied, .. } = self;
        Box::pin(async move {
            let service = tower::service_fn(|request: tonic::Request<M>| {
                let handled = match &denied {
                    None => Ok(handler(request.into_inner())),
                    Some(status) => Err(status.clone()),
                };
                async move { handled?.await.map(Response::new) }
            });
            as_grpc_go(grpc(ProstCodec::<R, M>::default()).unary(service, request).await)
        })
    }

    /// Answers with the stream of a subscription.
    ///
    /// grpc-go sends a stream's response headers only with its first message; with `lazy_headers`
    /// this gateway does so too, and the client's call does not return before.
    pub(crate) fn subscribe<'a, M, T, S>(
        self,
        mut subscribe: impl FnMut(M) -> Result<S, Status> + Send + 'a,
    ) -> Answering<'a>
    where
        M: Message + Default + 'static,
        T: Message + 'static,
        S: Stream<Item = Result<T, Status>> + Send + Unpin + 'static,
    {
        let Self { request, lazy_headers, denied, .. } = self;
        Box::pin(async move {
            let service = tower::service_fn(|request: tonic::Request<M>| {
                let subscribed = match &denied {
                    None => subscribe(request.into_inner()),
                    Some(status) => Err(status.clone()),
                };
                async move {
                    let mut stream = subscribed?;
                    let first = if lazy_headers { stream.next().await } else { None };
                    let first = first.transpose()?.map(Ok);
                    let stream: BoxStream<T> = Box::pin(tokio_stream::iter(first).chain(stream));
                    Ok(Response::new(stream))
                }
            });
            let codec = ProstCodec::<T, M>::default();
            as_grpc_go(grpc(codec).server_streaming(service, request).await)
        })
    }
}

fn grpc<C: tonic::codec::Codec>(codec: C) -> tonic::server::Grpc<C> {
    tonic::server::Grpc::new(codec)
        .max_decoding_message_size(MESSAGE_SIZE_MAX)
        .max_encoding_message_size(usize::MAX)
}

/// A request over the size limit is RESOURCE_EXHAUSTED at a gateway, which is written with
/// grpc-go, where tonic says OUT_OF_RANGE; nothing else here does.
fn as_grpc_go(mut answer: Answer) -> Answer {
    if let Some(code) = answer.headers_mut().get_mut(Status::GRPC_STATUS)
        && code == "11"
    {
        *code = http::HeaderValue::from_static("8");
    }
    answer
}
