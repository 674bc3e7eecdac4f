//! Calls whose messages are bytes. What makes a call is compiled once, not for each kind of
//! message.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::rpc::{Method, Rpc, Service};

/// A unary call with its request in the form of the wire.
#[derive(Clone, Debug)]
pub(crate) struct EncodedCall {
    pub(crate) service: Service,
    pub(crate) method: Method,
    pub(crate) request: Bytes,
}

impl EncodedCall {
    pub(crate) fn new<R: Rpc>(request: &R) -> Self {
        let request = request.encode_to_vec().into();
        Self { service: R::SERVICE, method: R::METHOD, request }
    }
}

/// The answer to a call, its message in the form of the wire.
#[derive(Debug)]
pub(crate) struct EncodedAnswer {
    pub(crate) message: Bytes,
    pub(crate) duration: Duration,
}

/// Takes requests and gives responses as bytes.
#[derive(Debug, Default)]
pub(crate) struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
