//! No circle of imports between the files of `src`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, assert_tidy, before_tests, code_of, finding, is_test, texts};

/// A module's path from the root of the crate.
type Path = Vec<String>;

/// What a file imports, and what it re-exports for others to import.
#[derive(Default)]
struct Module {
    file: String,
    imports: Vec<Path>,
    exports: BTreeMap<String, Path>,
}

fn module_of(file: &str) -> Option<Path> {
    let name = file.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut path: Path = name.split('/').map(str::to_owned).collect();
    path.pop_if(|last| matches!(last.as_str(), "mod" | "lib"));
    (name != "main").then_some(path)
}

/// The paths of a `use` tree: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str, prefix: &[String], paths: &mut Vec<Path>) {
    let (head, group) = match tree.split_once('{') {
        Some((head, group)) => (head, Some(group.trim_end().trim_end_matches('}'))),
        None => (tree.split(" as ").next().unwrap_or(tree), None),
    };
    let mut path = prefix.to_vec();
    path.extend(head.split("::").map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned));
    let Some(group) = group else { return paths.push(path) };
    let (mut open, mut start) = (0, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            ',' if open == 0 => {
                let part = group[start..at].trim();
                if !part.is_empty() {
                    expand(part, &path, paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The path from the root of the crate; `None` where it leads to another crate.
fn resolve(module: &[String], path: &[String], known: &BTreeSet<Path>) -> Option<Path> {
    let supers = path.iter().take_while(|name| *name == "super").count();
    let (base, rest) = match path.first()?.as_str() {
        "crate" => (&[][..], &path[1..]),
        "self" => (module, &path[1..]),
        "super" => (&module[..module.len().checked_sub(supers)?], &path[supers..]),
        child => {
            let is_child = known.contains(&[module, &[child.to_owned()]].concat());
            (module, is_child.then_some(path)?)
        }
    };
    Some([base, rest].concat())
}

fn read(module: &[String], file: &str, code: &str, known: &BTreeSet<Path>) -> Module {
    let mut read = Module { file: file.to_owned(), ..Module::default() };
    let mut elsewhere = String::new();
    for statement in code.split_inclusive(';') {
        let line_start = |at: &usize| {
            let before = &statement[..*at];
            let before = before.trim_end_matches(|c: char| c != '\n');
            let visibility = &statement[before.len()..*at];
            visibility.trim().is_empty() || visibility.trim().starts_with("pub")
        };
        let Some(at) = statement.find("use ").filter(line_start) else {
            elsewhere.push_str(statement);
            continue;
        };
        let mut paths = Vec::new();
        expand(statement[at + 4..].trim_end_matches(';'), &[], &mut paths);
        let line = statement[..at].rsplit('\n').next().unwrap_or_default();
        for path in paths.iter().filter_map(|path| resolve(module, path, known)) {
            match path.last() {
                Some(name) if line.trim().starts_with("pub") => {
                    read.exports.insert(name.clone(), path);
                }
                _ => read.imports.push(path),
            }
        }
    }
    for root in ["crate::", "super::"] {
        for (at, _) in elsewhere.match_indices(root) {
            let end = |c: char| !c.is_alphanumeric() && c != '_' && c != ':';
            let path = elsewhere[at..].split(end).next().unwrap_or_default();
            let path: Path = path.split("::").map(str::to_owned).collect();
            let inside = elsewhere[..at].ends_with("super::");
            read.imports.extend(resolve(module, &path, known).filter(|_| !inside));
        }
    }
    read
}

/// The module that defines what a path leads to.
fn target(path: &[String], modules: &BTreeMap<Path, Module>) -> Option<Path> {
    let mut path = path.to_vec();
    // Longer chains of re-exports are circles themselves.
    for _ in 0..8 {
        let len = (0..=path.len()).rev().find(|&len| modules.contains_key(&path[..len]))?;
        let module = modules.get(&path[..len])?;
        match path.get(len).and_then(|name| module.exports.get(name)) {
            Some(export) => path = [export, &path[len + 1..]].concat(),
            None => return Some(path[..len].to_vec()),
        }
    }
    None
}

fn check_circles(files: &[(String, String)], findings: &mut Vec<Finding>) {
    let sources: Vec<(Path, &str, String)> = files
        .iter()
        .filter(|(file, _)| !is_test(file))
        .filter_map(|(file, text)| {
            Some((module_of(file)?, file.as_str(), code_of(before_tests(file, text))))
        })
        .collect();
    let known: BTreeSet<Path> = sources.iter().map(|(path, ..)| path.clone()).collect();
    let modules: BTreeMap<Path, Module> = sources
        .iter()
        .map(|(path, file, code)| (path.clone(), read(path, file, code, &known)))
        .collect();
    let imported = |path: &Path| -> BTreeSet<Path> {
        let imports = modules[path].imports.iter();
        imports.filter_map(|it| target(it, &modules)).filter(|it| it != path).collect()
    };
    let graph: BTreeMap<&Path, BTreeSet<Path>> =
        modules.keys().map(|path| (path, imported(path))).collect();
    let reachable = |from: &Path| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from.clone()]);
        while let Some(path) = open.pop() {
            open.extend(graph[&path].iter().filter(|next| seen.insert((*next).clone())).cloned());
        }
        seen
    };
    for (path, module) in &modules {
        if reachable(path).contains(path) {
            let through: Vec<&str> = graph[path]
                .iter()
                .filter(|next| reachable(next).contains(path))
                .map(|next| modules[next].file.as_str())
                .collect();
            let rule = format!("imports itself through {}", through.join(" and "));
            findings.push(finding(&module.file, 1, rule));
        }
    }
}

#[test]
fn files_import_each_other_in_no_circle() {
    let mut findings = Vec::new();
    check_circles(&texts(&["rs"]), &mut findings);
    assert_tidy(&findings);
}

#[test]
fn circles_are_found_through_groups_re_exports_and_inline_paths() {
    let check = |files: &[(&str, &str)]| {
        let owned: Vec<_> =
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let mut findings = Vec::new();
        check_circles(&owned, &mut findings);
        findings.into_iter().map(|finding| finding.file).collect::<Vec<_>>()
    };
    let root = ("src/lib.rs", "pub mod a;\npub mod b;\n");
    let a = ("src/a/mod.rs", "mod x;\nmod y;\npub use x::X;\npub(crate) use y::{Y, Z as W};\n");
    let y = ("src/a/y.rs", "pub struct Y;\n");
    let b = ("src/b.rs", "pub struct B;\n");
    assert!(check(&[root, a, ("src/a/x.rs", "use super::y::Y;\n"), y, b]).is_empty());
    let x = ("src/a/x.rs", "use std::fmt;\nuse crate::{b::{self, B}, other};\n");
    let circle = ["src/a/x.rs", "src/b.rs"];
    assert_eq!(check(&[root, a, x, y, ("src/b.rs", "use crate::a::X;\n")]), circle);
    assert_eq!(check(&[root, a, x, y, ("src/b.rs", "fn f(_: crate::a::X) {}\n")]), circle);
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::a::X;\n}\n";
    assert!(check(&[root, a, x, y, ("src/b.rs", tests)]).is_empty());
}
