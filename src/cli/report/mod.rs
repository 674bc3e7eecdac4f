//! `gsdk2mqtt report`: the availability of the doors, for users and spreadsheets.

mod document;
mod html;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};

use super::escape::escaped;
use super::period::{DefaultPeriod, Selected};
use super::print;
use super::source::{HistorySource, SourceArgs};
use crate::availability::{AvailabilityAnswer, AvailabilityRequest, BucketSize, Figures};
use crate::net;
use document::{ReportDocument, outages, share};

/// Arguments of `gsdk2mqtt report`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ReportArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    selected: Selected,
    /// One row for each door, or for each door and day or month
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    bucket: BucketSize,
    /// Only doors with a lower availability than this, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    below: Option<f64>,
    /// The format of the report
    #[arg(long, value_enum, default_value_t, ignore_case = true)]
    format: ReportFormat,
    /// The file to write; an existing file is replaced [default: stdout]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum ReportFormat {
    #[default]
    Table,
    Csv,
    Json,
    Html,
}

/// Reads the figures and writes the report.
pub(crate) async fn run(args: ReportArgs) -> anyhow::Result<()> {
    let (source, zone) = HistorySource::open(&args.source).await?;
    let zone = args.selected.time_zone.clone().unwrap_or(zone);
    let now = net::wall_time();
    let period = args.selected.period(DefaultPeriod::LastMonth, &zone, now)?;
    let request = AvailabilityRequest {
        of_gateways: false,
        gateways: args.selected.gateways(),
        device_ids: args.selected.device_ids(),
        after: None,
        period: (period.from, period.to.unwrap_or(now)),
        zone: zone.clone(),
        bucket: args.bucket,
        limit: usize::MAX,
        deadline: Duration::MAX,
        now,
    };
    let devices = source.availability(&request).await?;
    let request = AvailabilityRequest { bucket: BucketSize::Total, ..request };
    // Buckets would divide an outage into several.
    let total = match args.bucket {
        BucketSize::Total => sum(&devices),
        _ => sum(&source.availability(&request).await?),
    };
    let of_devices = !request.device_ids.is_empty();
    let request = AvailabilityRequest { of_gateways: true, ..request };
    let mut gateways = source.availability(&request).await?.availability;
    let has_rows = |name: &str| devices.availability.iter().any(|row| row.gateway == name);
    gateways.retain(|row| !of_devices || has_rows(&row.gateway));
    let document = ReportDocument::new(devices, total, gateways, zone, now, args.below);
    let text = match args.format {
        ReportFormat::Table => table(&document),
        ReportFormat::Csv => document.csv(),
        ReportFormat::Json => document.json()?,
        ReportFormat::Html => html::format(&document),
    };
    match &args.output {
        None => print(&text).map(drop),
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        }
    }
}

fn sum(answer: &AvailabilityAnswer) -> Figures {
    Figures::sum(answer.availability.iter().map(|row| &row.figures))
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>().ok();
    let number = number.filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "write a number from 0 to 100, as in 99.5".to_owned())
}

/// The report as a table for a terminal.
fn table(document: &ReportDocument) -> String {
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
