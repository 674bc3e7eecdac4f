//! The figures of one device or gateway in one bucket.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::ids::Moment;
use crate::payload::seconds;
use crate::store::history::{SpanState, Timeline};

/// How long what was, in milliseconds. The four times add up to the period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// How long the bucket is.
    #[serde(rename = "period_s", with = "seconds")]
    pub period_ms: i64,
    /// How long it was connected.
    #[serde(rename = "connected_s", with = "seconds")]
    pub connected_ms: i64,
    /// How long it was not, although expected to be.
    #[serde(rename = "disconnected_s", with = "seconds")]
    pub disconnected_ms: i64,
    /// How long that is not known.
    #[serde(rename = "unobserved_s", with = "seconds")]
    pub unobserved_ms: i64,
    /// How long it was not expected to be connected.
    #[serde(rename = "absent_s", with = "seconds")]
    pub absent_ms: i64,
    /// Connected, of the observed time; `None` if there is none.
    pub availability: Option<f64>,
    /// Observed, of the time in which it was expected; `None` if there is none.
    pub observed: Option<f64>,
    /// How many unbroken times of disconnection.
    pub outages: u64,
    /// The longest of them; `None` if there is none.
    #[serde(rename = "longest_outage_s", with = "seconds::optional")]
    pub longest_outage_ms: Option<i64>,
    /// When it began.
    pub longest_outage_at: Option<Moment>,
    /// Whether it may have lasted longer: time not observed follows it.
    pub longest_outage_at_least: bool,
}

/// Times without a hole between them, each with one state.
#[derive(Clone, Debug, Default)]
pub struct Tiles(Vec<Tile>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    from: Moment,
    to: Moment,
    state: SpanState,
}

impl Tiles {
    /// The figures of a timeline in a period. Open rows are valid up to `proven_at`, but for
    /// absence, which lasts.
    pub fn new(timeline: &Timeline, (from, to): (Moment, Moment), proven_at: Moment) -> Self {
        let mut tiles = Self::default();
        let mut reached = from;
        let first_seen = timeline.first_seen_at.clamp(from, to);
        if first_seen > reached {
            tiles.push(reached, first_seen, SpanState::Absent);
            reached = first_seen;
        }
        for span in &timeline.spans {
            let lasts_to = if span.state == SpanState::Absent { to } else { proven_at };
            let (start, end) = (span.from.max(reached), span.to.unwrap_or(lasts_to).min(to));
            if end <= start {
                continue;
            }
            tiles.push(reached, start, timeline.otherwise);
            tiles.push(start, end, span.state);
            reached = end;
        }
        tiles.push(reached, to, timeline.otherwise);
        tiles
    }

    fn push(&mut self, from: Moment, to: Moment, state: SpanState) {
        match self.0.last_mut() {
            _ if to <= from => {}
            Some(last) if last.state == state => last.to = to,
            _ => self.0.push(Tile { from, to, state }),
        }
    }

    /// Whether it was absent all the time.
    pub fn is_absent(&self) -> bool {
        self.0.iter().all(|tile| tile.state == SpanState::Absent)
    }

    /// When it was removed, if it is absent in the end.
    pub fn removed_at(&self) -> Option<Moment> {
        self.0.last().filter(|last| last.state == SpanState::Absent).map(|last| last.from)
    }

    /// The figures of a part of the period.
    pub fn figures(&self, start: Moment, end: Moment) -> Figures {
        let mut figures = Figures { period_ms: end.since(start), ..Figures::default() };
        let first = self.0.partition_point(|tile| tile.to <= start);
        let tiles = self.0.get(first..).unwrap_or_default();
        for (index, tile) in tiles.iter().take_while(|tile| tile.from < end).enumerate() {
            let (from, to) = (tile.from.max(start), tile.to.min(end));
            let ms = to.since(from);
            match tile.state {
                SpanState::Connected => figures.connected_ms += ms,
                SpanState::Disconnected => {
                    figures.disconnected_ms += ms;
                    figures.outages += 1;
                    if figures.longest_outage_ms.is_none_or(|longest| ms > longest) {
                        let next = tiles.get(index + 1).map(|next| next.state);
                        let is_at_least = tile.to <= end && next == Some(SpanState::Unknown);
                        figures.longest_outage_ms = Some(ms);
                        figures.longest_outage_at = Some(from);
                        figures.longest_outage_at_least = is_at_least;
                    }
                }
                SpanState::Unknown => figures.unobserved_ms += ms,
                SpanState::Absent => figures.absent_ms += ms,
            }
        }
        figures.with_shares()
    }
}

impl Figures {
    /// The observed time.
    pub const fn observed_ms(&self) -> i64 {
        self.connected_ms + self.disconnected_ms
    }

    fn with_shares(self) -> Self {
        let observed_ms = self.observed_ms();
        Self {
            availability: share(self.connected_ms, observed_ms),
            observed: share(observed_ms, self.period_ms - self.absent_ms),
            ..self
        }
    }

    /// All together: the times of all, and the longest outage of any.
    pub fn sum<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let mut sum = Self::default();
        for figures in all.clone() {
            sum.period_ms += figures.period_ms;
            sum.connected_ms += figures.connected_ms;
            sum.disconnected_ms += figures.disconnected_ms;
            sum.unobserved_ms += figures.unobserved_ms;
            sum.absent_ms += figures.absent_ms;
            sum.outages += figures.outages;
        }
        let longest = all.min_by_key(|figures| Reverse(figures.longest_outage_ms));
        if let Some(longest) = longest {
            sum.longest_outage_ms = longest.longest_outage_ms;
            sum.longest_outage_at = longest.longest_outage_at;
            sum.longest_outage_at_least = longest.longest_outage_at_least;
        }
        sum.with_shares()
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact below 285,000 years")]
fn share(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
