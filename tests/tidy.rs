//! The rules of the source tree as a test: it reads the tree and reports file, line and rule of
//! each violation.
//!
//! The checkers take text and return findings, so that the tests at the end can show with examples
//! that each rule finds violations.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in the helpers of one")]

use std::path::{Path, PathBuf};

/// Which module may use which; a module that is not here may not exist.
///
/// Data goes one way: gateway, fleet, store, mqtt. What is left out is meant: the core knows no
/// wire and no clock, commands know no topics, the simulator cannot share our bugs.
const ARROWS: &[(&str, &str)] = &[
    ("ids", ""),
    ("proto", ""),
    ("task", ""),
    ("certificate", "ids"),
    ("net", "ids certificate"),
    ("fleet", "ids"),
    ("payload", "ids fleet"),
    ("store", "ids config fleet payload net task"),
    ("topics", "ids payload"),
    ("mqtt", "ids certificate config fleet payload topics store homeassistant task net"),
    ("gsdk", "ids certificate fleet proto task net"),
    ("period", "ids"),
    ("availability", "ids payload store"),
    ("commands", "ids desired fleet payload gsdk period store"),
    ("desired", "ids fleet"),
    ("metrics", "ids config fleet payload"),
    ("http", "ids availability config fleet payload metrics net task period store schema topics"),
    ("homeassistant", "ids fleet payload topics"),
    ("config", "ids period"),
    ("simulator", "ids proto net"),
    (
        "bridge",
        "ids fleet payload topics store mqtt gsdk commands desired metrics http homeassistant \
         config net task",
    ),
    ("doctor", "ids certificate fleet topics gsdk mqtt store config bridge http net"),
    ("schema", ""),
    ("demo", "*"),
    ("cli", "*"),
];

/// The core may not know these words, in code.
const NOT_IN_FLEET: [&str; 3] = ["async", "tokio", "tonic"];
/// Work is finished or it is an issue; split here so that this file may pass.
const UNFINISHED: [&str; 5] = [
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
    concat!("X", "XX"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
];

const COLUMNS_MAX: usize = 100;
/// Lines of a file before its tests.
const LINES_MAX: usize = 350;
/// Lines of a file that is all tests.
const TEST_LINES_MAX: usize = 500;
const MAIN_LINES_MAX: usize = 80;
const LIB_LINES_MAX: usize = 60;
/// Direct dependencies of the program. To raise it is a decision: the commit says what is worth it.
const DEPENDENCIES_MAX: usize = 57;
const FILE_BYTES_MAX: u64 = 200 << 10;

/// A breach: line 0 is the file as a whole.
#[derive(Debug, PartialEq)]
struct Finding {
    file: String,
    line: usize,
    rule: String,
}

fn finding(file: &str, line: usize, rule: impl Into<String>) -> Finding {
    Finding { file: file.to_owned(), line, rule: rule.into() }
}

fn assert_tidy(findings: &[Finding]) {
    let lines: Vec<String> =
        findings.iter().map(|f| format!("{}:{}: {}", f.file, f.line, f.rule)).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// The files of the tree, as git has them; where there is no git, all but what is made.
fn files() -> Vec<PathBuf> {
    let git = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output();
    if let Ok(listed) = git.as_ref()
        && listed.status.success()
    {
        let names = String::from_utf8_lossy(&listed.stdout);
        return names.lines().map(PathBuf::from).filter(|path| path.is_file()).collect();
    }
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(".")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let made = ["./target", "./.git"].iter().any(|made| path == Path::new(made));
            match (made, path.is_dir()) {
                (true, _) => {}
                (false, true) => folders.push(path),
                (false, false) => found.push(path.strip_prefix(".").unwrap().to_owned()),
            }
        }
    }
    found
}

/// Every text file with one of these endings, with its path; without what is generated.
fn texts(endings: &[&str]) -> Vec<(String, String)> {
    let wanted = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        endings.contains(&ending) && !path.starts_with("proto/generated")
    };
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        (path.to_string_lossy().into_owned(), text)
    };
    files().into_iter().filter(wanted).map(read).collect()
}

/// The text with comments and the insides of strings blanked, line for line.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let hashes = rest.bytes().skip(1).take_while(|byte| *byte == b'#').count();
        let word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let raw = next == 'r' && !word && rest[1 + hashes..].starts_with('"');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if raw {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = 2 + hashes;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if next == '"' {
            string_length(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if let Some(escape) = rest.strip_prefix("'\\") {
            2 + escape.char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(i, _)| i + 1)
        } else {
            code.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = &rest[length..];
    }
    code
}

/// The length of the string literal that a text begins with, both quotes counted.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

/// The part before the tests inside the file, and nothing of a file that is all tests.
fn before_tests<'a>(file: &str, text: &'a str) -> &'a str {
    if is_test(file) {
        return "";
    }
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let next = text[offset + line.len()..].lines().next().unwrap_or_default();
        if line.trim_end() == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{') {
            return &text[..offset];
        }
        offset += line.len();
    }
    text
}

fn is_test(file: &str) -> bool {
    file.starts_with("tests/") || file.contains("/tests/") || file.ends_with("tests.rs")
}

/// `src/fleet/device.rs` is of the module `fleet`; `main.rs` and `lib.rs` are of none.
fn module_of(file: &str) -> Option<&str> {
    let inside = file.strip_prefix("src/")?;
    let name = inside.split('/').next()?.trim_end_matches(".rs");
    (!matches!(name, "main" | "lib")).then_some(name)
}

fn check_head(file: &str, text: &str, findings: &mut Vec<Finding>) {
    if !text.starts_with("//! ") {
        findings.push(finding(file, 1, "a file opens with `//! ` and its job in a sentence"));
    }
}

fn check_size(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let (lines, most) = match file {
        "src/main.rs" => (text.lines().count(), MAIN_LINES_MAX),
        "src/lib.rs" => (text.lines().count(), LIB_LINES_MAX),
        _ if is_test(file) => (text.lines().count(), TEST_LINES_MAX),
        _ => (before_tests(file, text).lines().count(), LINES_MAX),
    };
    if lines > most {
        findings.push(finding(file, most + 1, format!("{lines} lines, at most {most}; split it")));
    }
}

fn check_lines(file: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        let columns = line.chars().count();
        if file.ends_with(".rs") && columns > COLUMNS_MAX {
            let rule = format!("{columns} columns, at most {COLUMNS_MAX}");
            findings.push(finding(file, index + 1, rule));
        }
        for word in UNFINISHED.iter().filter(|word| file != "tests/tidy.rs" && has(line, word)) {
            let rule = format!("{word}: finish it, or file an issue");
            findings.push(finding(file, index + 1, rule));
        }
    }
}

/// Whether a line has the word, not as part of a longer one.
fn has(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(part) && !line[at + word.len()..].starts_with(part))
}

fn check_arrows(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let Some(module) = module_of(file) else { return };
    let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == module) else {
        let rule = format!("the module {module} is not in the table of arrows in tests/tidy.rs");
        return findings.push(finding(file, 1, rule));
    };
    let inside = file.trim_start_matches("src/").trim_end_matches("mod.rs").trim_end_matches(".rs");
    let depth = inside.split('/').filter(|part| !part.is_empty()).count();
    let code = code_of(before_tests(file, text));
    let upwards = "super::".repeat(depth);
    for path in ["crate::", upwards.as_str()] {
        for (at, _) in code.match_indices(path) {
            let line = 1 + code[..at].matches('\n').count();
            for used in modules_named(&code[at + path.len()..]) {
                let known = ARROWS.iter().any(|(known, _)| *known == used);
                let free =
                    used == module || *allowed == "*" || allowed.split(' ').any(|a| a == used);
                if known && !free {
                    findings.push(finding(file, line, format!("{module} may not use {used}")));
                }
            }
        }
    }
    for (index, line) in code.lines().enumerate().filter(|_| module == "fleet") {
        for word in NOT_IN_FLEET.iter().filter(|word| has(line, word)) {
            findings.push(finding(file, index + 1, format!("the core may not know {word}")));
        }
    }
}

/// The names that follow `crate::`: one, or those of the group in braces at its first level.
fn modules_named(rest: &str) -> Vec<&str> {
    let ident = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_');
    let name = |text| ident(text).map_or(text, |end| &text[..end]);
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let mut names = vec![name(group.trim_start())];
    let mut open = 0;
    for (index, c) in group.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => break,
            '}' => open -= 1,
            ',' if open == 0 => names.push(name(group[index + 1..].trim_start())),
            _ => {}
        }
    }
    names
}

fn check_dependencies(manifest: &str, findings: &mut Vec<Finding>) {
    let (mut table, mut direct) = ("", 0);
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            table = line;
        } else if table.ends_with("dependencies]") && line.contains(" = ") {
            direct += usize::from(table == "[dependencies]");
            if !line.contains(" # ") {
                let rule = "a dependency has a comment that says what for";
                findings.push(finding("Cargo.toml", index + 1, rule));
            }
        }
    }
    if direct > DEPENDENCIES_MAX {
        let rule = format!("{direct} direct dependencies, at most {DEPENDENCIES_MAX}");
        findings.push(finding("Cargo.toml", 0, rule));
    }
}

/// Runs a checker over every file with one of these endings.
fn over(endings: &[&str], mut check: impl FnMut(&str, &str, &mut Vec<Finding>)) -> Vec<Finding> {
    let mut findings = Vec::new();
    let texts = texts(endings);
    assert!(!texts.is_empty(), "no file of {endings:?} was read");
    for (file, text) in texts {
        check(&file, &text, &mut findings);
    }
    findings
}

#[test]
fn every_source_file_opens_with_its_job_and_keeps_its_size() {
    assert_tidy(&over(&["rs"], |file, text, findings| {
        check_head(file, text, findings);
        check_size(file, text, findings);
    }));
}

#[test]
fn lines_are_short_and_nothing_is_left_unfinished() {
    assert_tidy(&over(&["rs", "md", "toml", "sh", "proto", "yml", "yaml"], check_lines));
}

#[test]
fn modules_use_only_those_they_may() {
    assert_tidy(&over(&["rs"], check_arrows));
}

#[test]
fn dependencies_are_few_and_each_has_a_reason() {
    let mut findings = Vec::new();
    check_dependencies(&std::fs::read_to_string("Cargo.toml").unwrap(), &mut findings);
    assert_tidy(&findings);
}

#[test]
fn the_changelog_has_a_section_for_unreleased_changes() {
    let text = std::fs::read_to_string("CHANGELOG.md").unwrap();
    assert!(text.lines().any(|line| line == "## Unreleased"), "CHANGELOG.md: no ## Unreleased");
}

#[test]
fn no_file_is_large() {
    let mut findings = Vec::new();
    for path in files().iter().filter(|path| *path != Path::new("Cargo.lock")) {
        let bytes = path.metadata().unwrap().len();
        if bytes > FILE_BYTES_MAX {
            let rule =
                format!("{bytes} bytes, at most {FILE_BYTES_MAX}; make it when it is needed");
            findings.push(finding(&path.to_string_lossy(), 0, rule));
        }
    }
    assert_tidy(&findings);
}

/// Examples are configurations that load, but for the secrets that only the user's machine has.
#[test]
fn examples_parse() {
    let mut findings = Vec::new();
    for path in files().iter().filter(|path| path.starts_with("deploy")) {
        let file = path.to_string_lossy();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if ending == Some("toml") {
            let config = Some(path.clone());
            let args = gsdk2mqtt::config::ConfigArgs { config, ..Default::default() };
            let error = gsdk2mqtt::config::load(&args, []).err();
            let mistakes = error.iter().flat_map(gsdk2mqtt::config::Error::mistakes);
            for mistake in mistakes {
                findings.push(finding(&file, 0, mistake.to_string()));
            }
        }
    }
    for (file, text) in texts(&["json"]) {
        if let Err(error) = serde_json::from_str::<serde_json::Value>(&text) {
            findings.push(finding(&file, error.line(), error.to_string()));
        }
    }
    assert_tidy(&findings);
}

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/reliability.rs"]
mod reliability;
#[path = "tidy/tests.rs"]
mod tests;
#[path = "tidy/types.rs"]
mod types;
