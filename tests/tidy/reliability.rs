//! Checks that docs/reliability.md names only tests that exist, and a test in each row.

use super::{Finding, assert_tidy, finding, texts};

const PAGE: &str = "docs/reliability.md";
const HEAD: &str = "| fault | promised | test | measured |";
/// The place of the column `test` between the bars.
const TEST_COLUMN: usize = 3;

#[test]
fn each_row_of_the_reliability_page_names_tests_that_exist() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    assert!(page.contains(HEAD), "{PAGE}: no table begins with {HEAD}");
    assert_tidy(&check(&page, &texts(&["rs"])));
}

fn check(page: &str, sources: &[(String, String)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_table = false;
    for (index, line) in page.lines().enumerate() {
        in_table = line == HEAD || in_table && line.starts_with('|');
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if in_table && cells.get(TEST_COLUMN).is_none_or(|cell| cell.is_empty()) {
            findings.push(finding(PAGE, index + 1, "a row names its test"));
        }
        for name in line.split('`').skip(1).step_by(2).filter(|text| text.contains("::")) {
            if !exists(name.trim_start_matches("cargo test --lib "), sources) {
                findings.push(finding(PAGE, index + 1, format!("there is no test {name}")));
            }
        }
    }
    findings
}

/// `module::name`, `module::beginning_of_a_name_...`, `module::`, or a module alone.
fn exists(path: &str, sources: &[(String, String)]) -> bool {
    let (modules, name) = path.rsplit_once("::").unwrap_or((path, ""));
    let folder = |path: &str| format!("/{}", path.replace("::", "/"));
    let function = match name.strip_suffix("...") {
        Some(beginning) => format!("fn {beginning}"),
        None => format!("fn {name}("),
    };
    sources.iter().any(|(file, text)| {
        let in_modules = file.contains(&folder(modules));
        in_modules && (name.is_empty() || text.contains(&function)) || file.contains(&folder(path))
    })
}

#[test]
fn a_row_without_a_test_and_a_test_that_is_not_there_are_found() {
    let sources = [("tests/it/faults/disk.rs".to_owned(), "fn a_full_disk() {}".to_owned())];
    const NONE: [usize; 0] = [];
    let lines_found = |rows: &str| -> Vec<usize> {
        let page = format!("{HEAD}\n| --- | --- | --- | --- |\n{rows}\n");
        check(&page, &sources).iter().map(|found| found.line).collect()
    };
    assert_eq!(lines_found("| full | goes on | `faults::disk::a_full_disk` | |"), NONE);
    assert_eq!(lines_found("| full | goes on | `faults::disk::a_full_...`, `faults::` | |"), NONE);
    assert_eq!(lines_found("| full | goes on | `faults::disk::a_full` | |"), [3]);
    assert_eq!(lines_found("| full | goes on | `faults::net::a_full_disk` | |"), [3]);
    assert_eq!(lines_found("| full | goes on | | |"), [3]);
}
