//! Frames: a batch on the disk, whole or not at all.
//!
//! May not know what is in a batch. A frame is its length, the CRC of its bytes, the CRC of these
//! two, then the bytes. So a frame that a kill cut short (the file ends before it does) can be told
//! from one that has been damaged, also where the damage hit the length.

/// Length, CRC of the bytes, CRC of the two before.
pub(super) const FRAME_HEAD_LEN: usize = 12;

/// What stands at a place in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A whole batch, and where the next begins.
    Whole(&'a [u8], usize),
    /// Nothing more.
    End,
    /// The beginning of a batch: the file ends within it.
    Torn,
    /// Something that nobody wrote like this.
    Damaged,
}

/// Fills in the head of a frame whose bytes follow the space for it; `None` if they are too many.
pub(super) fn seal(frame: &mut [u8]) -> Option<()> {
    let (head, bytes) = frame.split_at_mut_checked(FRAME_HEAD_LEN)?;
    let len = u32::try_from(bytes.len()).ok()?;
    let (lengths, check) = head.split_at_mut(8);
    lengths[..4].copy_from_slice(&len.to_le_bytes());
    lengths[4..].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    check.copy_from_slice(&crc32fast::hash(lengths).to_le_bytes());
    Some(())
}

/// What stands at `at`.
pub(super) fn next(file: &[u8], at: usize) -> Next<'_> {
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

/// Whether a whole batch stands anywhere after `at`.
pub(super) fn any_whole_after(file: &[u8], at: usize) -> bool {
    (at + 1..file.len())
        .any(|at| matches!(next(file, at), Next::Whole(bytes, _) if !bytes.is_empty()))
}
