//! What the status page is made of: copies that the loop gives, never more than a page.
//!
//! May not hold anything of the loop's.

use crate::fleet::{DeviceState, GatewayState};
use crate::ids::Moment;

/// Devices on one page.
pub const PAGE_ROWS: usize = 200;
/// Events that are shown.
pub const EVENTS_SHOWN: usize = 50;
/// The hours of the availability bar.
pub const HOURS: usize = 24;
/// The seconds of an hour.
pub const HOUR_S: u16 = 3600;

/// Which devices are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Words that name, ID, type, address or gateway must hold; lower case.
    pub text: String,
    /// Only these; `None` for all.
    pub only: Option<Condition>,
    /// How many pages to skip.
    pub page: usize,
}

/// The condition of a device, in the order in which devices are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Expected and not connected.
    Down,
    /// Expected, and its state cannot be known.
    Unknown,
    /// Connected.
    Up,
    /// Neither expected nor connected.
    Absent,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Down, Self::Unknown, Self::Up, Self::Absent];

    /// The condition of a device with this state.
    #[must_use]
    pub const fn of(state: &DeviceState) -> Self {
        match state.connected {
            Some(true) => Self::Up,
            _ if !state.expected => Self::Absent,
            Some(false) => Self::Down,
            None => Self::Unknown,
        }
    }

    /// Its word in addresses and style sheets.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Absent => "absent",
        }
    }
}

/// The whole page at one instant.
#[derive(Clone, Debug)]
pub struct Page {
    /// What stands above the devices.
    pub overview: Overview,
    /// The devices of this page.
    pub devices: Vec<DeviceRow>,
    /// How many devices fit what is wanted, on all pages.
    pub matching: usize,
    /// The latest events, the newest first.
    pub events: Vec<EventRow>,
}

/// What has changed since it was last asked.
#[derive(Clone, Debug)]
pub struct Changes {
    /// What stands above the devices.
    pub overview: Overview,
    /// The devices that changed and still are; `None` where they are too many to be told one by
    /// one.
    pub devices: Option<Vec<DeviceRow>>,
    /// The latest events, the newest first; `None` where there was none.
    pub events: Option<Vec<EventRow>>,
}

/// The bridge and its gateways.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The bridge's name.
    pub bridge: String,
    /// The program's version.
    pub version: &'static str,
    /// When the process started, and with it the bars.
    pub started_at: Moment,
    /// The bridge's time.
    pub now: Moment,
    /// Why the bridge is not ready, as `/readyz` has it.
    pub reasons: Vec<String>,
    /// Events that wait for the broker.
    pub pending: usize,
    /// The gateways.
    pub gateways: Vec<GatewayRow>,
}

/// One gateway.
#[derive(Clone, Debug)]
pub struct GatewayRow {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// How the bridge stands to it.
    pub state: GatewayState,
    /// Why the link was last down, while it is.
    pub last_error: Option<String>,
}

/// One device.
#[derive(Clone, Debug)]
pub struct DeviceRow {
    /// Its gateway's name.
    pub gateway: String,
    /// Its name.
    pub name: String,
    /// What is known of it.
    pub state: DeviceState,
    /// Its last hours, the present one last.
    pub day: [Hour; HOURS],
}

/// An hour of a device, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hour {
    /// How long it was observed.
    pub observed_s: u16,
    /// How long of that it was not connected; rounded up, so that nothing is hidden.
    pub down_s: u16,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// When the bridge learned of it.
    pub at: Moment,
    /// Of which gateway.
    pub gateway: String,
    /// Of which device; `None` for the gateway itself.
    pub device: Option<String>,
    /// What, as in the event's topic.
    pub what: &'static str,
    /// The statuses, before and after, of a device's event.
    pub detail: String,
    /// How long what was before had lasted, in milliseconds.
    pub lasted_ms: Option<i64>,
}
