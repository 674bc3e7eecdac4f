//! Makes a process deterministic: the system's random bytes are the same in each run.
//!
//! Only the model test may link it. `select!` of tokio begins with a random branch and a `HashMap`
//! has a random order, both through std's `RandomState`. std looks for the symbol `getrandom`
//! before it calls the kernel, so that the symbol can be replaced; this crate replaces it. It is a
//! separate crate because it needs `unsafe`, which the main crate forbids.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0x9E37_79B9_7F4A_7C15) };
}

/// Links this crate.
pub fn take_out() {}

/// As the system's, with bytes that are the same on each thread of each run.
///
/// # Safety
/// `buffer` has room for `length` bytes, as for the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller guarantees the size.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for byte in bytes {
        let mut state = STATE.get();
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        STATE.set(state);
        *byte = state.to_le_bytes()[3];
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
