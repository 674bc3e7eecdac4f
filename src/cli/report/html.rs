//! The report as one HTML file, to be printed on A4 or read in a browser. It has no script, and
//! every text is escaped.

use maud::{DOCTYPE, PreEscaped, html};

use super::document::{ReportDocument, outages, share};

/// The head of the table is repeated on each page, and no row is broken.
const STYLE: &str = "
@page { size: A4; margin: 15mm;
  @bottom-right { content: counter(page) ' / ' counter(pages); font: 8pt system-ui, sans-serif } }
:root { color-scheme: light }
body { font: 10pt/1.4 system-ui, sans-serif; color: #000; background: #fff; margin: 2em auto;
  max-width: 70em; padding: 0 1em }
h1 { font-size: 16pt; margin: 0 0 .3em }
ul { list-style: none; margin: 0 0 1.2em; padding: 0 }
table { border-collapse: collapse; width: 100% }
thead { display: table-header-group }
tr { break-inside: avoid }
th, td { text-align: left; vertical-align: top; padding: .25em .8em .25em 0;
  border-bottom: 1px solid #bbb }
th { border-bottom: 2px solid #000 }
.door { min-width: 13em; width: 34%; overflow-wrap: anywhere }
.door small { display: block; color: #444 }
.n { text-align: right }
.n, .t { white-space: nowrap; font-variant-numeric: tabular-nums }
@media screen and (max-width: 45em) { table { display: block; overflow-x: auto } }
@media print { body { font-size: 9pt; margin: 0; max-width: none; padding: 0 } }
";

pub(crate) fn format(document: &ReportDocument) -> String {
    let has_buckets = document.has_buckets();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (document.title()) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (document.title()) }
                ul { @for line in document.lines() { li { (line) } } }
                table {
                    thead {
                        tr {
                            @if has_buckets { th scope="col" { "Period" } }
                            th scope="col" { "Door" }
                            th scope="col" .n { "Available" }
                            th scope="col" .n { "Observed" }
                            th scope="col" .n { "Outages" }
                            th scope="col" { "Longest outage" }
                            th scope="col" { "Remarks" }
                        }
                    }
                    tbody {
                        @for row in &document.rows {
                            tr {
                                @if has_buckets { td .t { (row.label) } }
                                td .door {
                                    (row.name)
                                    small {
                                        (row.gateway)
                                        @if let Some(id) = row.device_id { " · " (id) }
                                    }
                                }
                                td .n { (share(row.figures.availability)) }
                                td .n { (share(row.figures.observed)) }
                                td .n { (outages(&row.figures)) }
                                td .t {
                                    @if let Some((longest, from)) = document.longest(&row.figures) {
                                        (longest) br; "from " (from)
                                    }
                                }
                                td { (document.remarks(row)) }
                            }
                        }
                    }
                }
            }
        }
    };
    page.into_string() + "\n"
}
