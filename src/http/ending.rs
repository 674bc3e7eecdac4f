//! How an answer ends that has no length: its connection is closed at once where that is its end,
//! and reset where it was broken off, so that no part is taken for the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::Version;
use axum::middleware::Next;
use axum::response::Response;
use tokio_stream::Stream;

/// Set once an answer on this connection was broken off. The handlers have it as an extension of
/// the request.
#[derive(Clone, Debug, Default)]
pub(super) struct Broken(Arc<AtomicBool>);

impl Broken {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// HTTP/1.0 has no chunks, so only the end of the connection ends an answer without a length. hyper
/// 1.12 leaves that connection open where the end of the body comes after everything was flushed:
/// it looks at its state again only when it is woken.
pub(super) async fn close_in_http_1_0(request: Request, next: Next) -> Response {
    let chunks = request.version() > Version::HTTP_10;
    let response = next.run(request).await;
    if chunks || response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| Body::from_stream(WakesAtEnd(body.into_data_stream())))
}

/// A body that wakes its reader once more after its end.
struct WakesAtEnd(BodyDataStream);

impl Stream for WakesAtEnd {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(Pin::new(&mut self.0).poll_next(cx));
        if piece.is_none() {
            cx.waker().wake_by_ref();
        }
        Poll::Ready(piece)
    }
}
