//! An event that waits in memory. While many wait, each is compressed with an earlier event as
//! dictionary, to about a quarter: the events of one bridge differ in a few fields.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use lz4_flex::block::{compress_into_with_dict, decompress_with_dict, get_maximum_output_size};

use super::log::{Event, decode, encode};

/// A dictionary is used for this many events.
const DICTIONARY_USES: u32 = 1_000;

/// An event that waits for the broker. A million may wait, so its size counts.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The event's ID.
    pub(crate) id: u64,
    /// When this process has read it from a stream.
    pub(crate) read_at: Option<Instant>,
    content: WaitingContent,
}

#[derive(Debug)]
enum WaitingContent {
    Plain(Box<Event>),
    /// As the log encodes it; `len`: before it was compressed.
    Compressed {
        bytes: Box<[u8]>,
        len: u32,
        payload_len: u32,
        dictionary: Arc<Vec<u8>>,
    },
}

impl Waiting {
    pub(crate) fn new(event: Event) -> Self {
        let (id, read_at) = (event.id, event.read_at);
        Self { id, read_at, content: WaitingContent::Plain(Box::new(event)) }
    }

    #[expect(clippy::expect_used, reason = "the bytes are those that `compress` has made")]
    pub(crate) fn event(&self) -> Cow<'_, Event> {
        let (bytes, len, dictionary) = match &self.content {
            WaitingContent::Plain(event) => return Cow::Borrowed(event),
            WaitingContent::Compressed { bytes, len, dictionary, .. } => (bytes, *len, dictionary),
        };
        let event = decompress_with_dict(bytes, len as usize, dictionary).ok();
        let event: Event = event.and_then(|event| decode(&event)).expect("a compressed event");
        Cow::Owned(Event { read_at: self.read_at, ..event })
    }

    /// The length of the payload, in bytes.
    pub(crate) fn payload_len(&self) -> usize {
        match &self.content {
            WaitingContent::Plain(event) => event.payload.len(),
            WaitingContent::Compressed { payload_len, .. } => *payload_len as usize,
        }
    }

    /// The bytes that its content takes in memory.
    #[cfg(test)]
    pub(crate) fn memory_len(&self) -> usize {
        match &self.content {
            WaitingContent::Plain(event) => event.payload.len(),
            WaitingContent::Compressed { bytes, .. } => bytes.len(),
        }
    }
}

/// Compresses events.
#[derive(Debug, Default)]
pub(crate) struct Compressor {
    dictionary: Arc<Vec<u8>>,
    uses: u32,
    /// Kept, so that no large block is allocated between many small ones.
    compressed: Vec<u8>,
}

impl Compressor {
    pub(crate) fn compress(&mut self, waiting: &mut Waiting) {
        let WaitingContent::Plain(event) = &waiting.content else { return };
        let encoded = encode(event.as_ref());
        if self.uses == 0 {
            (self.dictionary, self.uses) = (Arc::new(encoded.clone()), DICTIONARY_USES);
        }
        self.uses -= 1;
        self.compressed.resize(get_maximum_output_size(encoded.len()), 0);
        let Self { dictionary, compressed, .. } = self;
        let lengths = (u32::try_from(encoded.len()), u32::try_from(event.payload.len()));
        let compressed_len = compress_into_with_dict(&encoded, compressed, dictionary);
        let ((Ok(len), Ok(payload_len)), Ok(end)) = (lengths, compressed_len) else { return };
        let bytes = compressed[..end].into();
        let dictionary = Arc::clone(dictionary);
        waiting.content = WaitingContent::Compressed { bytes, len, payload_len, dictionary };
    }
}
