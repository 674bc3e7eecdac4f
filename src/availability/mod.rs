//! Availability: how long each device was connected, disconnected, not observed and absent, in
//! buckets of any time zone, from what the history has recorded.
//!
//! All sums are of whole milliseconds, so that days add up to their month exactly.

mod answer;
mod buckets;
mod figures;
#[cfg(test)]
mod tests;
mod words;

pub use answer::{
    After, AfterError, AvailabilityAnswer, AvailabilityHead, AvailabilityRequest, AvailabilityRow,
    Error, answer, recorded,
};
pub use buckets::{Bucket, BucketSize, buckets};
pub use figures::{Figures, Tiles};
pub use words::{duration, local_time, percent, period};
