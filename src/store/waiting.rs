//! An event that waits in memory. While many wait, their payloads are compressed: those of one
//! bridge differ in a few fields, so that another one as a dictionary makes a quarter of each.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use lz4_flex::block::{compress_with_dict, decompress_with_dict};

use super::event::Event;

/// A dictionary is used for this many payloads.
const DICTIONARY_USES: u32 = 1_000;

/// An event that waits for the broker. A million may wait, so its size counts.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// With its payload compressed, if it is.
    event: Event,
    compressed: Option<Compressed>,
}

/// What restores a compressed payload.
#[derive(Debug)]
struct Compressed {
    dictionary: Arc<[u8]>,
    /// Of the payload, in bytes.
    len: usize,
}

impl Waiting {
    pub(crate) const fn new(event: Event) -> Self {
        Self { event, compressed: None }
    }

    /// The event with its payload.
    #[expect(clippy::expect_used, reason = "the bytes are those that `compress` has made")]
    pub(crate) fn event(&self) -> Cow<'_, Event> {
        let Some(Compressed { dictionary, len }) = &self.compressed else {
            return Cow::Borrowed(&self.event);
        };
        let payload = decompress_with_dict(&self.event.payload, *len, dictionary);
        let payload = payload.expect("a payload that was compressed").into();
        Cow::Owned(Event { payload, ..self.event.clone() })
    }

    /// The event, whose payload may be compressed.
    pub(crate) const fn head(&self) -> &Event {
        &self.event
    }

    /// Replaces the payload.
    pub(crate) fn rewrite(&mut self, payload: Bytes) {
        (self.event.payload, self.compressed) = (payload, None);
    }

    /// The length of the payload, in bytes.
    pub(crate) fn payload_len(&self) -> usize {
        self.compressed.as_ref().map_or(self.event.payload.len(), |compressed| compressed.len)
    }
}

/// Compresses payloads.
#[derive(Debug, Default)]
pub(crate) struct Compressor {
    dictionary: Option<Arc<[u8]>>,
    uses: u32,
}

impl Compressor {
    pub(crate) fn compress(&mut self, waiting: &mut Waiting) {
        let payload = &waiting.event.payload;
        if self.uses == 0 {
            (self.dictionary, self.uses) = (Some(payload.as_ref().into()), DICTIONARY_USES);
        }
        self.uses -= 1;
        let Some(dictionary) = &self.dictionary else { return };
        let (bytes, len) = (compress_with_dict(payload, dictionary), payload.len());
        if bytes.len() < len {
            waiting.event.payload = bytes.into_boxed_slice().into();
            waiting.compressed = Some(Compressed { dictionary: Arc::clone(dictionary), len });
        }
    }
}
