//! The report as CSV: the columns of the API's `availability`.

use super::document::ReportDocument;
use crate::http::{AVAILABILITY_COLUMNS, csv};

pub(crate) fn format(document: &ReportDocument) -> String {
    let mut text = csv::head(AVAILABILITY_COLUMNS, ',');
    for row in &document.rows {
        // A row always serializes.
        let row = serde_json::to_value(row).unwrap_or_default();
        text += &csv::row(AVAILABILITY_COLUMNS, &row, ',');
    }
    text
}
