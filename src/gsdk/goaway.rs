//! Finds the GOAWAY with which a gateway rejects HTTP/2 pings.
//!
//! In this GOAWAY, grpc-go names the newest stream as processed. h2 then reports the same error for
//! that stream as for a broken connection, so the reason is read here, below HTTP/2.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

const GOAWAY: u8 = 7;
const ENHANCE_YOUR_CALM: [u8; 4] = 0xb_u32.to_be_bytes();
const HEAD_LEN: usize = 9;
/// The head of a GOAWAY, the newest stream, and the error code.
const GOAWAY_LEN: usize = HEAD_LEN + 8;

/// Whether the gateway has ended a connection because of pings.
pub(crate) type PingsRejected = Arc<AtomicBool>;

/// The frame that is being received.
#[derive(Debug, Default)]
struct Frames {
    /// Its first bytes: the head, and of a GOAWAY also the error code.
    start: Vec<u8>,
    /// Bytes of it that are passed over.
    skip: usize,
}

impl Frames {
    /// Whether one of these bytes completes a GOAWAY with ENHANCE_YOUR_CALM.
    fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut found = false;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let wanted = if self.start.get(3) == Some(&GOAWAY) { GOAWAY_LEN } else { HEAD_LEN };
            let taken = wanted.saturating_sub(self.start.len()).min(bytes.len());
            self.start.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let [high, middle, low, kind, ..] = self.start[..] {
                let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                let start_len = if kind == GOAWAY { GOAWAY_LEN } else { HEAD_LEN };
                if self.start.len() == start_len {
                    found |= self.start[HEAD_LEN..].ends_with(&ENHANCE_YOUR_CALM);
                    self.skip = (HEAD_LEN + length).saturating_sub(start_len);
                    self.start.clear();
                }
            }
        }
        found
    }
}

/// The same connection, and whether the gateway has ended it because of pings.
pub(crate) fn watch<S: AsyncRead>(
    stream: S,
) -> (InspectReader<S, impl FnMut(&[u8])>, PingsRejected) {
    let pings_rejected = PingsRejected::default();
    let (mut frames, found) = (Frames::default(), pings_rejected.clone());
    let inspect = move |bytes: &[u8]| {
        if frames.follow(bytes) {
            found.store(true, Ordering::Relaxed);
        }
    };
    (InspectReader::new(stream, inspect), pings_rejected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut frame = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_goaway_is_found_however_its_bytes_come() {
        let calm = frame(GOAWAY, &[0, 0, 0, 1, 0, 0, 0, 0xb, b't', b'o', b'o']);
        let no_error = frame(GOAWAY, &[0, 0, 0, 0xb, 0, 0, 0, 0]);
        // Data that looks like one, and a frame without payload.
        let others = [frame(0, &calm), frame(4, &[]), no_error, frame(0, &[7; 200])].concat();
        let all = [others.clone(), calm.clone()].concat();
        for size in [1, 2, 7, 9, 17, 1_000] {
            let mut frames = Frames::default();
            assert!(!others.chunks(size).any(|bytes| frames.follow(bytes)), "{size}");
            let mut frames = Frames::default();
            assert!(all.chunks(size).any(|bytes| frames.follow(bytes)), "{size}");
        }
    }
}
