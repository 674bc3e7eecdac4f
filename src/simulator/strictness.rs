//! How strict a simulated gateway is.

/// How strict a gateway is towards its clients: by default as a real one, which is written with
/// grpc-go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strictness {
    /// Sends a stream's response headers only with its first message.
    pub lazy_headers: bool,
    /// Sends each message of a stream in a DATA frame of its own.
    pub single_frames: bool,
    /// Ends the connection of a client that pings too often.
    pub enforces_pings: bool,
    /// The order of lists changes from call to call.
    pub shuffles_lists: bool,
    /// The largest request it reads, in bytes.
    pub max_recv_size: usize,
}

impl Strictness {
    pub const REAL: Self = Self {
        lazy_headers: true,
        single_frames: true,
        enforces_pings: true,
        shuffles_lists: true,
        max_recv_size: 75_497_472,
    };
    pub const LENIENT: Self = Self {
        lazy_headers: false,
        single_frames: false,
        enforces_pings: false,
        shuffles_lists: false,
        ..Self::REAL
    };
}
