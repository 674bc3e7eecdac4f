//! Checks the words of code and pages, and the links and shell commands of pages.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::{Finding, assert_tidy, files, finding, over};

/// Words that technical English does not need: personifications, figures of speech.
const BANNED: &[&str] = &[
    "again and again",
    "all the same",
    "anew",
    "astray",
    "befall",
    "befalls",
    "begun",
    "for ever",
    "goes on",
    "going on",
    "heard",
    "hears",
    "in vain",
    "let go",
    "lets go",
    "nobody",
    "somebody",
    "speaks",
    "stands still",
    "take up",
    "taken up",
    "taking up",
    "told",
    "turn away",
    "wants",
    "whoever",
    "without a word",
];

#[test]
fn code_and_pages_use_plain_words() {
    assert_tidy(&over(&["rs", "md"], check_words));
}

#[test]
fn links_of_pages_lead_somewhere() {
    assert_tidy(&over(&["md"], check_links));
}

#[test]
fn shell_commands_of_pages_parse() {
    assert_tidy(&over(&["md"], check_shell));
}

fn check_words(file: &str, text: &str, findings: &mut Vec<Finding>) {
    if file.starts_with("tests/tidy") {
        return;
    }
    let between_words = |c: char| !c.is_alphabetic() && c != '_';
    for (index, line) in text.lines().enumerate() {
        let line = format!(" {} ", line.to_lowercase().replace(between_words, " "));
        for word in BANNED.iter().filter(|word| line.contains(&format!(" {word} "))) {
            findings.push(finding(file, index + 1, format!("say it without \"{word}\"")));
        }
    }
}

fn check_links(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    for (index, line) in text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let link = rest.split([')', ' ']).next().unwrap_or_default();
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let target = if path.is_empty() { file.into() } else { folder.join(path) };
            let page = std::fs::read_to_string(&target);
            if !target.exists() {
                findings.push(finding(file, index + 1, format!("{link} leads nowhere")));
            } else if !anchor.is_empty() && !page.is_ok_and(|page| anchors(&page).contains(anchor))
            {
                findings.push(finding(file, index + 1, format!("{link} has no such heading")));
            }
        }
    }
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Blocks of the language `sh`: commands to be copied.
fn check_shell(file: &str, text: &str, findings: &mut Vec<Finding>) {
    let mut block: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        match (&mut block, line.trim()) {
            (None, "```sh") => block = Some((index + 1, String::new())),
            (Some((begin, commands)), "```") => {
                let output = Command::new("sh").args(["-n", "-c", commands]).output().unwrap();
                if !output.status.success() {
                    let error = String::from_utf8_lossy(&output.stderr).into_owned();
                    findings.push(finding(file, *begin, error));
                }
                block = None;
            }
            (Some((_, commands)), _) => *commands += &format!("{line}\n"),
            (None, _) => {}
        }
    }
}

#[test]
fn wrong_words_links_and_commands_are_found() {
    let rules = |check: fn(&str, &str, &mut Vec<Finding>), text: &str| {
        let mut findings = Vec::new();
        check("README.md", text, &mut findings);
        findings.len()
    };
    assert_eq!(rules(check_words, "Nobody goes\non; nobody-else"), 2);
    assert_eq!(rules(check_words, "An ongoing body"), 0);
    let links = "[a](nowhere.md) [b](docs/topics.md#nothing) [c](#nothing) [d](https://x)";
    assert_eq!(rules(check_links, links), 3);
    assert_eq!(rules(check_links, "## A `b`, c\n[a](docs/topics.md)"), 0);
    assert_eq!(rules(check_shell, "```sh\nif true; then\n```\n```sh\ntrue\n```"), 1);
    assert!(anchors("## A `b`, c-d").contains("a-b-c-d"));
    assert!(files().iter().any(|path| path == Path::new("README.md")));
}
