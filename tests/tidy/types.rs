//! The shape of types: each has a name of its own, methods are in the file of their type, and
//! mutable types are small.

use std::collections::HashMap;

use super::{Finding, assert_tidy, before_tests, code_of, finding, is_test, over};

/// Names of types that any module may have.
const COMMON_NAMES: [&str; 1] = ["Error"];
/// Fields of a type that changes itself. A type without such methods is plain data.
const FIELDS_MAX: usize = 12;

/// A type at the level of its file.
struct Type<'a> {
    name: &'a str,
    line: usize,
    fields: usize,
}

/// An inherent `impl` at the level of its file.
struct Impl<'a> {
    name: &'a str,
    line: usize,
    /// Whether a method takes `&mut self`.
    changes: bool,
}

/// The name that a text begins with.
fn name(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The text after `<...>`, if it begins so.
fn after_generics(text: &str) -> &str {
    if !text.starts_with('<') {
        return text;
    }
    let mut open = 0;
    for (at, c) in text.char_indices() {
        match c {
            '<' => open += 1,
            '>' if !text[..at].ends_with('-') => open -= 1,
            _ => {}
        }
        if open == 0 {
            return &text[at + 1..];
        }
    }
    ""
}

/// The lines below an item's first one, up to the brace that closes it at the start of a line.
fn body<'a>(lines: &[&'a str], at: usize) -> impl Iterator<Item = &'a str> {
    let below = lines[at..].iter().skip(1).copied();
    below.take_while(|line| !line.starts_with(['}', ')']))
}

fn types<'a>(lines: &[&'a str]) -> Vec<Type<'a>> {
    let mut types = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let item = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ").map_or("", |it| it.1),
            Some(rest) => rest.trim_start(),
            None => line,
        };
        let kind = item.strip_prefix("struct ").map(|rest| (true, rest));
        let Some((is_struct, rest)) = kind.or(item.strip_prefix("enum ").map(|rest| (false, rest)))
        else {
            continue;
        };
        let is_field = |line: &&str| {
            let field = line.strip_prefix("    ").filter(|field| !field.starts_with(' '));
            field.is_some_and(|field| field.contains(": ") && !field.starts_with('#'))
        };
        let braces = is_struct && line.trim_end().ends_with('{');
        let fields = if braces { body(lines, at).filter(is_field).count() } else { 0 };
        types.push(Type { name: name(rest), line: at + 1, fields });
    }
    types
}

fn impls<'a>(lines: &[&'a str]) -> Vec<Impl<'a>> {
    let mut impls = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("impl").filter(|rest| rest.starts_with([' ', '<']))
        else {
            continue;
        };
        let of = after_generics(rest).trim_start();
        if of.contains(" for ") || !of.contains('{') {
            continue;
        }
        let changes = body(lines, at).any(|line| line.contains("&mut self"));
        impls.push(Impl { name: name(of), line: at + 1, changes });
    }
    impls
}

fn check_types(file: &str, text: &str, findings: &mut Vec<Finding>) {
    if is_test(file) || !file.starts_with("src/") {
        return;
    }
    let code = code_of(before_tests(file, text));
    let lines: Vec<&str> = code.lines().collect();
    let (types, impls) = (types(&lines), impls(&lines));
    for Impl { name, line, .. } in &impls {
        if !types.iter().any(|known| known.name == *name) {
            let rule = format!("the methods of {name} stand in the file that defines it");
            findings.push(finding(file, *line, rule));
        }
    }
    for Type { name, line, fields } in &types {
        let changes = impls.iter().any(|of| of.name == *name && of.changes);
        if changes && *fields > FIELDS_MAX {
            let rule = format!("{name} has {fields} fields, at most {FIELDS_MAX}; split it");
            findings.push(finding(file, *line, rule));
        }
    }
}

/// `seen`: the files of the types that were checked before.
fn check_names(
    file: &str,
    text: &str,
    seen: &mut HashMap<String, String>,
    findings: &mut Vec<Finding>,
) {
    if is_test(file) || !file.starts_with("src/") {
        return;
    }
    let code = code_of(before_tests(file, text));
    let lines: Vec<&str> = code.lines().collect();
    for Type { name, line, .. } in types(&lines) {
        if COMMON_NAMES.contains(&name) {
            continue;
        }
        if let Some(other) = seen.insert(name.to_owned(), file.to_owned()) {
            let rule = format!("{other} has a type {name}, too; one word means one thing");
            findings.push(finding(file, line, rule));
        }
    }
}

#[test]
fn each_type_has_a_name_of_its_own() {
    let mut seen = HashMap::new();
    assert_tidy(&over(&["rs"], |file, text, findings| {
        check_names(file, text, &mut seen, findings);
    }));
    assert!(!seen.is_empty());
}

#[test]
fn two_types_of_one_name_are_found() {
    let (mut seen, mut findings) = (HashMap::new(), Vec::new());
    let mut check = |file: &str, text: &str| {
        check_names(file, text, &mut seen, &mut findings);
        std::mem::take(&mut findings).len()
    };
    assert_eq!(check("src/a.rs", "pub struct A;\nenum B {\n}\nstruct Error;\n"), 0);
    assert_eq!(check("src/b.rs", "pub(crate) enum A {\n}\nstruct Error;\n"), 1);
    assert_eq!(check("src/c.rs", "#[cfg(test)]\nmod tests {\n}\nstruct B;\n"), 0);
    assert_eq!(check("tests/a.rs", "struct A;\n"), 0);
}

#[test]
fn methods_stand_with_their_type_and_types_with_state_are_small() {
    assert_tidy(&over(&["rs"], check_types));
}

#[test]
fn methods_apart_from_their_type_and_large_types_are_found() {
    let check = |text: &str| {
        let mut findings = Vec::new();
        check_types("src/a/b.rs", text, &mut findings);
        findings.into_iter().map(|found| (found.line, found.rule)).collect::<Vec<_>>()
    };
    let apart =
        |line, name| (line, format!("the methods of {name} stand in the file that defines it"));
    assert_eq!(check("use super::A;\n\nimpl A {\n}\n"), [apart(3, "A")]);
    assert_eq!(check("impl<T: Into<u8>> A<T> {\n}\n"), [apart(1, "A")]);
    assert_eq!(check("impl<F: Fn() -> u8> A<F> {}\n"), [apart(1, "A")]);
    assert_eq!(check("impl fmt::Display for A {\n}\nimpl<T> From<T> for A {\n}\n"), []);
    assert_eq!(check("pub(crate) enum A {\n}\nimpl A {\n}\nstruct B;\nimpl B {}\n"), []);
    assert_eq!(check("#[cfg(test)]\nmod tests {\n    impl A {}\n}\n"), []);

    let structure = |fields: usize, method: &str| {
        let fields: String = (0..fields).map(|it| format!("    pub(crate) f{it}: u8,\n")).collect();
        format!("pub struct A {{\n{fields}}}\n\nimpl A {{\n    fn a({method}) {{}}\n}}\n")
    };
    assert_eq!(check(&structure(12, "&mut self")), []);
    assert_eq!(check(&structure(13, "&self")), []);
    let found = check(&structure(13, "&mut self"));
    assert_eq!(found, [(1, "A has 13 fields, at most 12; split it".to_owned())]);
}
