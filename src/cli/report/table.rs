//! The report as a table for a terminal.

use comfy_table::{CellAlignment, Table, presets};

use super::document::{ReportDocument, outages, share};
use crate::cli::escape::escaped;

pub(crate) fn format(document: &ReportDocument) -> String {
    let mut text = format!("{}\n", document.title());
    for line in document.lines() {
        text += &format!("{}\n", escaped(&line));
    }
    if document.rows.is_empty() {
        return text;
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let has_buckets = document.has_buckets();
    let bucket = has_buckets.then_some("PERIOD");
    let heads =
        ["DOOR", "GATEWAY", "ID", "AVAILABLE", "OBSERVED", "OUTAGES", "LONGEST", "FROM", "REMARKS"];
    table.set_header(bucket.into_iter().chain(heads));
    for row in &document.rows {
        let (longest, from) = document.longest(&row.figures).unwrap_or_default();
        let cells = [
            escaped(&row.name),
            row.gateway.clone(),
            row.device_id.map_or_else(String::new, |id| id.to_string()),
            share(row.figures.availability),
            share(row.figures.observed),
            outages(&row.figures),
            longest,
            from,
            document.remarks(row),
        ];
        table.add_row(has_buckets.then(|| row.label.clone()).into_iter().chain(cells));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (3..=5).contains(&(index - usize::from(has_buckets && index > 0))) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text.push('\n');
    for line in table.lines() {
        text += &format!("{}\n", line.trim_end());
    }
    text
}
