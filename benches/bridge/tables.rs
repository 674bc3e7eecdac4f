//! The results as tables: on stdout, and in docs/performance.md between its markers.

use std::fmt::Write;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");

/// One line of a table.
pub(crate) struct Row {
    what: String,
    value: f64,
    floor: Option<f64>,
    target: Option<(String, bool)>,
}

impl Row {
    /// A figure beside the floor's.
    pub(crate) fn ratio(what: &str, value: f64, floor: f64) -> Self {
        Self { what: what.to_owned(), value, floor: Some(floor), target: None }
    }

    /// A figure alone.
    pub(crate) fn one(what: &str, value: f64) -> Self {
        Self { what: what.to_owned(), value, floor: None, target: None }
    }

    fn against(&self) -> f64 {
        self.floor.map_or(self.value, |floor| self.value / floor)
    }

    /// Its target: so much, or so many times the floor, at least.
    pub(crate) fn at_least(mut self, target: f64) -> Self {
        self.target = Some((format!("at least {}", number(target)), self.against() >= target));
        self
    }

    /// Its target: so much, or so many times the floor, at most.
    pub(crate) fn at_most(mut self, target: f64) -> Self {
        self.target = Some((format!("at most {}", number(target)), self.against() <= target));
        self
    }

    /// Its target: so much more than the floor, at most.
    pub(crate) fn at_most_over(mut self, target: f64) -> Self {
        let over = self.value - self.floor.unwrap_or(0.0);
        self.target = Some((format!("at most {} over", number(target)), over <= target));
        self
    }
}

/// A table of figures that belong together.
pub(crate) struct Table {
    name: &'static str,
    title: String,
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new(name: &'static str, title: String) -> Self {
        Self { name, title, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    fn text(&self, machine: &str) -> String {
        let mut text = format!("{}. {machine}\n\n", self.title);
        text.push_str(
            "| | measured | floor | ratio | target | |\n| --- | --- | --- | --- | --- | --- |\n",
        );
        for row in &self.rows {
            let floor = row.floor.map(number).unwrap_or_default();
            let ratio = row.floor.map(|_| format!("{:.2}", row.against())).unwrap_or_default();
            let (target, reached) = match &row.target {
                Some((target, true)) => (target.as_str(), "reached"),
                Some((target, false)) => (target.as_str(), "**missed**"),
                None => ("", ""),
            };
            let value = number(row.value);
            // Writing to a String cannot fail.
            _ = writeln!(
                text,
                "| {} | {value} | {floor} | {ratio} | {target} | {reached} |",
                row.what
            );
        }
        text
    }

    /// Prints it, and puts it in its place on the page if there is one.
    pub(crate) fn print(&self, write: bool) {
        let text = self.text(&machine());
        println!("\n{}: {text}", self.name);
        if !write {
            return;
        }
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (begin, end) =
            (format!("<!-- {} -->\n", self.name), format!("<!-- /{} -->", self.name));
        let (before, rest) = page.split_once(&begin).unwrap();
        let (_, after) = rest.split_once(&end).unwrap();
        std::fs::write(PAGE, format!("{before}{begin}{text}{end}{after}")).unwrap();
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => format!("{value:.0}"),
        middle if middle >= 20.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Where and when, with the load that others made at the time.
fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("?");
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let now = jiff::Timestamp::now().to_string();
    let (date, _) = now.split_once('T').unwrap();
    format!("{date}, {count} x {model}, load {load}")
}
