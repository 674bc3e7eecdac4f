//! The content of a report, independent of its format.

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::availability::{
    self, AvailabilityAnswer, AvailabilityHead, AvailabilityRow, BucketSize, Figures,
};
use crate::http::{AVAILABILITY_COLUMNS, csv};
use crate::ids::Moment;

/// The program that makes the report.
const PROGRAM: &str = concat!("gsdk2mqtt ", env!("CARGO_PKG_VERSION"));

/// A report, as it is in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct ReportDocument {
    /// In words.
    period: String,
    #[serde(flatten)]
    head: AvailabilityHead,
    #[serde(skip)]
    zone: TimeZone,
    made_at: Moment,
    made_by: &'static str,
    /// Of all doors in the whole period, as a sum of seconds.
    total: Figures,
    /// How many doors there are.
    #[serde(skip)]
    doors: usize,
    gateways: Vec<AvailabilityRow>,
    /// Of the doors that are shown, the worst first, by bucket.
    #[serde(rename = "availability")]
    pub(crate) rows: Vec<AvailabilityRow>,
    /// Only doors that were less available are shown, in percent.
    #[serde(skip)]
    below: Option<f64>,
}

impl ReportDocument {
    pub(crate) fn new(
        devices: AvailabilityAnswer,
        total: Figures,
        gateways: Vec<AvailabilityRow>,
        zone: TimeZone,
        made_at: Moment,
        below: Option<f64>,
    ) -> Self {
        let AvailabilityAnswer { head, availability: mut rows, .. } = devices;
        let mut doors: Vec<_> = rows.iter().map(|row| (&row.gateway, row.device_id)).collect();
        doors.dedup();
        let doors = doors.len();
        if let Some(below) = below {
            let is_below = |share: f64| share * 100.0 < below;
            rows.retain(|row| row.figures.availability.is_some_and(is_below));
        }
        rows.sort_by(|left, right| {
            let order = |row: &AvailabilityRow| {
                let observed = row.figures.observed.unwrap_or(0.0);
                (row.start, row.figures.availability.unwrap_or(f64::INFINITY), observed)
            };
            let ((start, share, observed), right) = (order(left), order(right));
            let by_share = share.total_cmp(&right.1).then(observed.total_cmp(&right.2));
            start.cmp(&right.0).then(by_share)
        });
        let period = availability::period((head.from, head.to), &zone);
        let made_by = PROGRAM;
        Self { period, head, zone, made_at, made_by, total, doors, gateways, rows, below }
    }

    pub(crate) fn json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The columns of the API's `availability`.
    pub(crate) fn csv(&self) -> String {
        let mut text = csv::head(AVAILABILITY_COLUMNS, ',');
        for row in &self.rows {
            // A row always serializes.
            let row = serde_json::to_value(row).unwrap_or_default();
            text += &csv::row(AVAILABILITY_COLUMNS, &row, ',');
        }
        text
    }

    /// The lines above the rows.
    pub(crate) fn lines(&self) -> Vec<String> {
        let Self { head, zone, .. } = self;
        let time = |at: Moment| availability::local_time(at, zone);
        let mut lines = vec![
            format!("{} to {}, {}", time(head.from), time(head.to), head.time_zone),
            format!("made {} by {PROGRAM}", time(self.made_at)),
        ];
        match head.oldest_at {
            None => lines.push("not observed: nothing is recorded yet".to_owned()),
            Some(at) if at >= head.to => {
                lines.push(format!("not observed: recorded since {}", time(at)));
            }
            Some(at) if !head.complete => lines.push(format!("recorded since {}", time(at))),
            Some(_) => {}
        }
        let shown = self
            .below
            .map_or(String::new(), |below| format!(", {} rows below {below} %", self.rows.len()));
        let plural = if self.doors == 1 { "" } else { "s" };
        lines.push(format!("{} door{plural}{shown}", self.doors));
        lines.push(match self.total.availability {
            None => "availability not observed".to_owned(),
            availability => format!(
                "availability {}, observed {} of the time",
                share(availability),
                share(self.total.observed)
            ),
        });
        let lost: Vec<String> =
            self.gateways.iter().filter(|it| it.figures.outages > 0).map(outage_summary).collect();
        let is_observed = self.gateways.iter().any(|it| it.figures.observed_ms() > 0);
        lines.push(match lost.as_slice() {
            [] if is_observed => "gateways: no outages observed".to_owned(),
            [] => "gateways: not observed".to_owned(),
            lost => format!("gateways: {}", lost.join("; ")),
        });
        lines
    }

    pub(crate) fn title(&self) -> String {
        format!("Availability of doors, {}", self.period)
    }

    /// Whether rows are of days or months, too.
    pub(crate) fn has_buckets(&self) -> bool {
        self.head.bucket != BucketSize::Total
    }

    /// When and how long the longest outage was.
    pub(crate) fn longest(&self, figures: &Figures) -> Option<(String, String)> {
        let (ms, at) = figures.longest_outage_ms.zip(figures.longest_outage_at)?;
        let at_least = if figures.longest_outage_at_least { "at least " } else { "" };
        let duration = format!("{at_least}{}", availability::duration(ms));
        Some((duration, availability::local_time(at, &self.zone)))
    }

    /// The remarks of a row.
    pub(crate) fn remarks(&self, row: &AvailabilityRow) -> String {
        let date = |at: Moment| at.timestamp().to_zoned_datetime(self.zone.clone()).date();
        let is_new = row.first_seen_at > row.start && row.first_seen_at < row.end;
        let new = is_new.then(|| format!("new since {}", date(row.first_seen_at)));
        let removed = row.removed_at.filter(|at| *at < row.end);
        let removed = removed.map(|at| format!("removed {}", date(at)));
        new.into_iter().chain(removed).collect::<Vec<_>>().join(", ")
    }
}

fn outage_summary(row: &AvailabilityRow) -> String {
    let Figures { outages, disconnected_ms, .. } = row.figures;
    let plural = if outages == 1 { "" } else { "s" };
    let total = availability::duration(disconnected_ms);
    format!("{} {outages} outage{plural}, {total}", row.name)
}

/// The number of outages for people. Without data there is none.
pub(crate) fn outages(figures: &Figures) -> String {
    if figures.observed_ms() > 0 { figures.outages.to_string() } else { String::new() }
}

/// A share for people. Without data there is none.
pub(crate) fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "not observed".to_owned(), availability::percent)
}
