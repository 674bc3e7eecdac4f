//! One gRPC call: decodes the request, calls a handler, encodes the answer.

use std::marker::PhantomData;
use std::pin::Pin;

use axum::extract::Request;
use futures_util::TryFutureExt as _;
use prost::Message;
use tokio_stream::{Stream, StreamExt};
use tonic::codec::{BufferSettings, Codec};
use tonic::codegen::http;
use tonic::transport::server::TlsConnectInfo;
use tonic::{Response, Status};
use tonic_prost::ProstCodec;

use super::interceptor::{Package, Strictness};

/// The space for one message of a stream, in bytes.
const SINGLE_FRAME_BUFFER: usize = 256;

/// The answer to a call.
pub(crate) type CallAnswer = http::Response<tonic::body::Body>;

/// An answer to come.
pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = CallAnswer> + Send + 'a>>;

/// A stream of messages for tonic.
type BoxStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A call that waits for its answer.
pub(crate) struct Call {
    request: Request,
    package: Package,
    strictness: Strictness,
}

impl Call {
    pub(crate) fn new(request: Request, package: Package, strictness: Strictness) -> Self {
        Self { request, package, strictness }
    }

    pub(crate) fn package(&self) -> Package {
        self.package
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
        let Self { request, strictness, .. } = self;
        Box::pin(async move {
            let service = tower::service_fn(|request: tonic::Request<M>| {
                handler(request.into_inner()).map_ok(Response::new)
            });
            as_grpc_go(
                grpc(ProstCodec::<R, M>::default(), strictness).unary(service, request).await,
            )
        })
    }

    /// Answers with the stream of a subscription.
    ///
    /// With `lazy_headers` the client's call does not return before the first message.
    pub(crate) fn subscribe<'a, M, T, S>(
        self,
        mut subscribe: impl FnMut(M) -> Result<S, Status> + Send + 'a,
    ) -> Answering<'a>
    where
        M: Message + Default + 'static,
        T: Message + 'static,
        S: Stream<Item = Result<T, Status>> + Send + Unpin + 'static,
    {
        let Self { request, strictness, .. } = self;
        Box::pin(async move {
            let service = tower::service_fn(|request: tonic::Request<M>| {
                let subscribed = subscribe(request.into_inner());
                async move {
                    let mut stream = subscribed?;
                    let first = if strictness.lazy_headers { stream.next().await } else { None };
                    let first = first.transpose()?.map(Ok);
                    let stream: BoxStream<T> = Box::pin(tokio_stream::iter(first).chain(stream));
                    Ok(Response::new(stream))
                }
            });
            let codec = StreamCodec::<T, M>(strictness.single_frames, PhantomData);
            as_grpc_go(grpc(codec, strictness).server_streaming(service, request).await)
        })
    }
}

/// The codec of a stream, which may send each message in a DATA frame of its own.
struct StreamCodec<T, M>(bool, PhantomData<(T, M)>);

impl<T: Message + 'static, M: Message + Default + 'static> Codec for StreamCodec<T, M> {
    type Encode = T;
    type Decode = M;
    type Encoder = <ProstCodec<T, M> as Codec>::Encoder;
    type Decoder = <ProstCodec<T, M> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        if self.0 {
            return ProstCodec::<T, M>::raw_encoder(BufferSettings::new(SINGLE_FRAME_BUFFER, 0));
        }
        ProstCodec::<T, M>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, M>::default().decoder()
    }
}

fn grpc<C: Codec>(codec: C, strictness: Strictness) -> tonic::server::Grpc<C> {
    tonic::server::Grpc::new(codec)
        .max_decoding_message_size(strictness.max_recv_size)
        .max_encoding_message_size(usize::MAX)
}

/// A request over the size limit is RESOURCE_EXHAUSTED at a gateway, which is written with
/// grpc-go, where tonic says OUT_OF_RANGE; nothing else here does.
fn as_grpc_go(mut answer: CallAnswer) -> CallAnswer {
    if let Some(code) = answer.headers_mut().get_mut(Status::GRPC_STATUS)
        && code == "11"
    {
        *code = http::HeaderValue::from_static("8");
    }
    answer
}
