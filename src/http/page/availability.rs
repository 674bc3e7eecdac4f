//! Renders the availability of one gateway or device: in words, as a bar, and as a table.

use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::bars::{BAR_SHARE_MIN_MS, CELL_SHARE_MIN_MS, PageRange, bar, in_words, labels};
use super::parts::{legend, time};
use crate::availability::{AvailabilityRow, BucketSize, Figures, duration, percent};

/// `cells` are the hours or days of the range, or why they cannot be read; `month_csv` is the
/// address of this month as CSV.
pub(crate) fn availability(
    range: PageRange,
    cells: &Result<Vec<AvailabilityRow>, String>,
    total: Option<&Figures>,
    month_csv: &str,
    zone: &TimeZone,
) -> Markup {
    html! {
        section .availability {
            h2 #availability { "Availability, last " (range.words().1) }
            p .links {
                @for other in PageRange::ALL {
                    @let (value, label) = other.words();
                    a href={ "?range=" (value) "#availability" }
                        aria-current=[(other == range).then_some("true")] { (label) }
                }
            }
            @match cells.as_deref() {
                Err(error) => p .trouble { (error) },
                Ok([]) => p .sub { "Nothing is recorded in this time." },
                Ok(cells) => {
                    @if let Some(total) = total { (summary(total)) }
                    p .wide { (bar(cells)) }
                    (table(cells, range.bucket()))
                    div .sub { (legend(zone)) }
                },
            }
            p .sub .links {
                a href=(month_csv) { "This month's availability as CSV" }
                button #print type="button" { "Print" }
            }
        }
    }
}

fn summary(total: &Figures) -> Markup {
    let longest = total.longest_outage_ms.zip(total.longest_outage_at);
    let is_long = total.observed_ms() >= BAR_SHARE_MIN_MS;
    html! {
        p .total {
            (in_words(total, BAR_SHARE_MIN_MS))
            @if let Some(observed) = total.observed.filter(|_| is_long) {
                "; observed " (percent(observed)) " of the time"
            }
            @if let Some((ms, at)) = longest {
                "; " (total.outages) " outage" @if total.outages > 1 { "s" } ", the longest "
                @if total.longest_outage_at_least { "at least " }
                (duration(ms)) " at " (time(at))
            }
        }
    }
}

/// The newest first, without those of which all time was absent.
fn table(cells: &[AvailabilityRow], size: BucketSize) -> Markup {
    let unit = if size == BucketSize::Hour { "Hour" } else { "Day" };
    let length = |ms| if ms > 0 { duration(ms) } else { "–".to_owned() };
    let share = |figures: &Figures, share: Option<f64>| {
        let share = share.filter(|_| figures.observed_ms() >= CELL_SHARE_MIN_MS);
        share.map_or_else(|| "–".to_owned(), percent)
    };
    let outages = |figures: &Figures| match figures.observed_ms() {
        0 => "–".to_owned(),
        _ => figures.outages.to_string(),
    };
    let is_absent = |row: &&AvailabilityRow| row.figures.absent_ms == row.figures.period_ms;
    html! {
        div .scrolls tabindex="0" role="region" aria-label="Availability as a table" {
            table .figures {
                thead {
                    tr {
                        th scope="col" { (unit) }
                        @for head in
                            ["Available", "Observed", "Not connected", "Outages", "Longest"]
                        { th scope="col" { (head) } }
                    }
                }
                tbody {
                    @let rows = cells.iter().zip(labels(cells)).rev();
                    @for (row, label) in rows.filter(|(row, _)| !is_absent(row)) {
                        @let figures = &row.figures;
                        tr {
                            th scope="row" { (label) }
                            td { (share(figures, figures.availability)) }
                            td { (share(figures, figures.observed)) }
                            td { (length(figures.disconnected_ms)) }
                            td { (outages(figures)) }
                            td { (length(figures.longest_outage_ms.unwrap_or(0))) }
                        }
                    }
                }
            }
        }
    }
}
