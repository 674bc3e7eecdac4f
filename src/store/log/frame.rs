//! Frames: the encoding of a batch of records in a file, complete or not at all.
//!
//! A frame is its length, the CRC of its bytes, the CRC of these two, then the bytes. Therefore a
//! frame that a kill cut short (the file ends before the frame does) can be distinguished from a
//! damaged one, even if the length is damaged.

use std::io;

use serde::Serialize;

/// The format of head, segments and records. A later build reads the formats of earlier ones.
pub(crate) const FORMAT: u32 = 1;
/// Length, CRC of the bytes, CRC of the two before.
pub(crate) const FRAME_HEAD_LEN: usize = 12;

/// Why no frame begins at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokenFrame {
    /// The bytes end within the frame.
    Torn,
    /// The bytes are no frame.
    Damaged,
}

/// A frame with this value as JSON.
pub(crate) fn json_frame(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEAD_LEN];
    serde_json::to_writer(&mut frame, value)?;
    seal(&mut frame)?;
    Ok(frame)
}

/// Fills in the head of a frame in which space was left for it.
pub(crate) fn seal(frame: &mut [u8]) -> io::Result<()> {
    let split = frame.split_at_mut_checked(FRAME_HEAD_LEN);
    let (head, bytes) = split.ok_or(io::ErrorKind::InvalidData)?;
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    let (lengths, check) = head.split_at_mut(8);
    lengths[..4].copy_from_slice(&len.to_le_bytes());
    lengths[4..].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    check.copy_from_slice(&crc32fast::hash(lengths).to_le_bytes());
    Ok(())
}

/// Reads the frame at the beginning of these bytes; returns its content and what follows it.
pub(crate) fn split_frame(bytes: &[u8]) -> Result<(&[u8], &[u8]), BrokenFrame> {
    let (head, rest) = bytes.split_first_chunk::<FRAME_HEAD_LEN>().ok_or(BrokenFrame::Torn)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if crc32fast::hash(&head[..8]) != word(8) {
        return Err(BrokenFrame::Damaged);
    }
    let (content, rest) = rest.split_at_checked(word(0) as usize).ok_or(BrokenFrame::Torn)?;
    if crc32fast::hash(content) == word(4) {
        Ok((content, rest))
    } else {
        Err(BrokenFrame::Damaged)
    }
}

/// The whole frames at the beginning of a file, each with the offset behind it.
pub(crate) fn frames(file: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = file;
    std::iter::from_fn(move || {
        let (content, behind) = split_frame(rest).ok()?;
        rest = behind;
        Some((file.len() - rest.len(), content))
    })
}
