//! The rules applied to examples: what each has to find, and what it has to accept.

use super::*;

fn rules(check: impl Fn(&str, &str, &mut Vec<Finding>), file: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    check(file, text, &mut findings);
    findings.into_iter().map(|found| format!("{}: {}", found.line, found.rule)).collect()
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn heads_are_asked_for() {
    assert_eq!(rules(check_head, "src/fleet/mod.rs", "//! Does it.\n"), nothing());
    assert_eq!(rules(check_head, "src/fleet/device.rs", "//! Does it.\n"), nothing());
    assert_eq!(rules(check_head, "src/fleet/device.rs", "use a;\n").len(), 1);
}

#[test]
fn sizes_count_to_the_tests() {
    let code = "a\n".repeat(350);
    let tests = format!("{code}#[cfg(test)]\nmod tests {{\n{code}}}\n");
    assert_eq!(rules(check_size, "src/a/b.rs", &tests), nothing());
    let elsewhere = format!("#[cfg(test)]\nmod tests;\n{code}");
    assert_eq!(rules(check_size, "src/a/b.rs", &elsewhere).len(), 1);
    assert_eq!(rules(check_size, "src/a/tests.rs", &format!("{code}a\n")), nothing());
    assert_eq!(rules(check_size, "src/main.rs", &"a\n".repeat(81)).len(), 1);
    assert_eq!(rules(check_size, "src/lib.rs", &"a\n".repeat(61)).len(), 1);
}

#[test]
fn long_lines_and_unfinished_work_are_found() {
    let wide = "ä".repeat(100);
    assert_eq!(rules(check_lines, "a.rs", &wide), nothing());
    assert_eq!(rules(check_lines, "a.rs", &format!("\n{wide}b")), ["2: 101 columns, at most 100"]);
    for word in UNFINISHED {
        assert_eq!(rules(check_lines, "a.md", &format!("x\ny {word} z")).len(), 1, "{word}");
        assert_eq!(rules(check_lines, "a.md", &format!("z{word}")), nothing(), "{word}");
    }
}

#[test]
fn arrows_are_seen_in_every_form_of_path() {
    for (file, text) in [
        ("src/fleet/a.rs", "use crate::mqtt::Topic;"),
        ("src/fleet/a.rs", "use crate::{ids::DeviceId, mqtt};"),
        ("src/fleet/a.rs", "use crate::{\n    ids::{self, DeviceId},\n    mqtt::Topic,\n};"),
        ("src/fleet/a.rs", "fn f() { crate::mqtt::publish() }"),
        ("src/fleet/a.rs", "use super::super::mqtt;"),
        ("src/fleet/mod.rs", "use super::mqtt;"),
        ("src/ids.rs", "let s = \"//\"; use crate::mqtt;"),
    ] {
        let found = rules(check_arrows, file, text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].ends_with("may not use mqtt"), "{found:?}");
    }
    assert_eq!(rules(check_arrows, "src/fleet/a.rs", "\n\nuse crate::config;").len(), 1);
    assert!(rules(check_arrows, "src/fleet/a.rs", "\n\nuse crate::config;")[0].starts_with("3:"));
    assert_eq!(rules(check_arrows, "src/attic/mod.rs", "").len(), 1);
}

#[test]
fn permitted_dependencies_are_accepted() {
    for (file, text) in [
        ("src/fleet/a.rs", "use crate::ids::DeviceId; use crate::fleet::Status;"),
        ("src/fleet/a.rs", "// crate::mqtt\n/* crate::mqtt */ let s = \"crate::mqtt\";"),
        ("src/fleet/a.rs", "let s = r#\"\"crate::mqtt\"#; let c = '\"'; let d = '\\'';"),
        ("src/fleet/a.rs", "use super::mqtt;"),
        ("src/fleet/a.rs", "let ä = 'ö'; let r = \"größe\\\" crate::mqtt\"; let t = '\\u{1F}';"),
        ("src/fleet/a.rs", "#[cfg(test)]\nmod tests {\n use crate::mqtt;\n}"),
        ("src/fleet/tests.rs", "use crate::mqtt;"),
        ("src/cli/run.rs", "use crate::{config, simulator};"),
        ("src/main.rs", "use gsdk2mqtt::cli;"),
    ] {
        assert_eq!(rules(check_arrows, file, text), nothing(), "{text}");
    }
}

#[test]
fn the_core_uses_no_runtime() {
    assert_eq!(rules(check_arrows, "src/fleet/a.rs", "pub async fn f() {}").len(), 1);
    assert_eq!(rules(check_arrows, "src/fleet/a.rs", "use tokio::time;").len(), 1);
    assert_eq!(rules(check_arrows, "src/fleet/a.rs", "// async\nlet asynchronous = 1;"), nothing());
    assert_eq!(rules(check_arrows, "src/gsdk/a.rs", "pub async fn f() {}"), nothing());
}

#[test]
fn dependencies_without_a_reason_are_found() {
    let check = |_: &str, text: &str, findings: &mut Vec<Finding>| {
        check_dependencies(text, findings);
    };
    let good = "[dependencies]\na = \"1\" # for b\n[features]\nc = []\n";
    assert_eq!(rules(check, "", good), nothing());
    assert_eq!(rules(check, "", "[dev-dependencies]\na = \"1\"\n").len(), 1);
    let many = "a = \"1\" # for b\n".repeat(DEPENDENCIES_MAX + 1);
    assert_eq!(rules(check, "", &format!("[dependencies]\n{many}")).len(), 1);
}
