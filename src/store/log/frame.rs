//! Frames: how a batch of records lies in a file, whole or not at all.
//!
//! A frame is its length, the CRC of its bytes, the CRC of these two, then the bytes. A frame that
//! a kill cut short (the file ends before the frame does) can thus be distinguished from a damaged
//! one, even where the damage hit the length.

/// Length, CRC of the bytes, CRC of the two before.
pub(crate) const FRAME_HEAD_LEN: usize = 12;

/// What is found at an offset of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<'a> {
    /// A whole frame: its bytes, and the offset behind it.
    Whole(&'a [u8], usize),
    /// The end of the file.
    End,
    /// The beginning of a frame; the file ends within it.
    Torn,
    /// Bytes that are no frame.
    Damaged,
}

/// A frame of these bytes; `None` if they are too many.
pub(crate) fn frame_of(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEAD_LEN];
    frame.extend_from_slice(bytes);
    seal(&mut frame)?;
    Some(frame)
}

/// Fills in the head of a frame in which space was left for it; `None` if it is too long.
pub(crate) fn seal(frame: &mut [u8]) -> Option<()> {
    let (head, bytes) = frame.split_at_mut_checked(FRAME_HEAD_LEN)?;
    let len = u32::try_from(bytes.len()).ok()?;
    let (lengths, check) = head.split_at_mut(8);
    lengths[..4].copy_from_slice(&len.to_le_bytes());
    lengths[4..].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    check.copy_from_slice(&crc32fast::hash(lengths).to_le_bytes());
    Some(())
}

/// Reads the frame at `at`.
pub(crate) fn next(file: &[u8], at: usize) -> Next<'_> {
    let rest = file.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Next::End;
    }
    let Some((head, bytes)) = rest.split_at_checked(FRAME_HEAD_LEN) else { return Next::Torn };
    let word = |from: usize| {
        let bytes = head.get(from..from + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    if crc32fast::hash(head.get(..8).unwrap_or_default()) != word(8) {
        return Next::Damaged;
    }
    let Ok(len) = usize::try_from(word(0)) else { return Next::Damaged };
    match bytes.get(..len) {
        None => Next::Torn,
        Some(bytes) if crc32fast::hash(bytes) == word(4) => {
            Next::Whole(bytes, at + FRAME_HEAD_LEN + len)
        }
        Some(_) => Next::Damaged,
    }
}

/// The whole frames behind the first, each with its offset.
pub(crate) fn after_first(file: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    let frames = std::iter::from_fn(move || match next(file, at) {
        Next::Whole(frame, end) => Some((std::mem::replace(&mut at, end) as u64, frame)),
        _ => None,
    });
    frames.skip(1)
}

/// Whether a whole frame begins anywhere behind `at`.
pub(crate) fn any_whole_after(file: &[u8], at: usize) -> bool {
    (at + 1..file.len())
        .any(|at| matches!(next(file, at), Next::Whole(bytes, _) if !bytes.is_empty()))
}
