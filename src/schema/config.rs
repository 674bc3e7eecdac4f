//! The configuration's JSON Schema for editors, from the table of keys and its documentation.
//!
//! May not know a key by name. Nothing is required: what a file lacks the environment may have.

use serde_json::{Map, Value, json};

use crate::config::keys::{Fallback, Form, KEYS, Key, PATTERNS, words};

/// Meanings and permitted words stand in the tables of this page; a test of `config` holds them.
const PAGE: &str = include_str!("../../docs/configuration.md");

/// The schema, in the draft that editors of TOML take.
#[must_use]
pub fn config_schema() -> Value {
    let mut schema = table();
    for key in KEYS {
        let path: Vec<&str> = key.path.split('.').collect();
        insert(&mut schema, &path, &[], leaf(key));
    }
    schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    schema["title"] = json!("gsdk2mqtt's configuration");
    schema
}

fn table() -> Value {
    json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

fn insert(within: &mut Value, path: &[&str], above: &[&str], leaf: Value) {
    let Some((first, rest)) = path.split_first() else { return };
    let here = [above, &[*first]].concat();
    if *first == "*" {
        if !within["additionalProperties"].is_object() {
            *within = json!({ "type": "object", "additionalProperties": table() });
            if let Some(pattern) = pattern(&here.join(".")) {
                within["propertyNames"] = json!({ "pattern": pattern });
            }
        }
        return insert(&mut within["additionalProperties"], rest, &here, leaf);
    }
    if rest.is_empty() {
        within["properties"][*first] = leaf;
        return;
    }
    if within["properties"].get(*first).is_none() {
        within["properties"][*first] = table();
    }
    insert(&mut within["properties"][*first], rest, &here, leaf);
}

fn pattern(path: &str) -> Option<&'static str> {
    PATTERNS.iter().find(|(of, _)| *of == path).map(|(_, pattern)| *pattern)
}

fn leaf(key: &Key) -> Value {
    let (form, meaning) = documented(key.path);
    let mut leaf = Map::new();
    match key.form {
        Form::Text => {
            leaf.insert("type".to_owned(), json!("string"));
            if let Some(words) = quoted(form) {
                leaf.insert("enum".to_owned(), json!(words));
            }
            if let Some(pattern) = pattern(key.path) {
                leaf.insert("pattern".to_owned(), json!(pattern));
            }
        }
        Form::Secret => _ = leaf.insert("type".to_owned(), json!("string")),
        Form::Whole => {
            leaf.insert("type".to_owned(), json!("integer"));
            if let Some((least, most)) = range(meaning) {
                leaf.insert("minimum".to_owned(), json!(least));
                leaf.insert("maximum".to_owned(), json!(most));
            }
        }
        Form::Bool => _ = leaf.insert("type".to_owned(), json!("boolean")),
        Form::List => {
            leaf.insert("type".to_owned(), json!("array"));
            leaf.insert("items".to_owned(), json!({ "type": "string", "enum": words(key.path) }));
        }
    }
    leaf.insert("description".to_owned(), json!(meaning.replace('`', "")));
    let default = match key.fallback {
        Fallback::Required | Fallback::Absent(_) => None,
        Fallback::Text(text) => Some(json!(text)),
        Fallback::Whole(number) => Some(json!(number)),
        Fallback::Bool(truth) => Some(json!(truth)),
        Fallback::List(texts) => Some(json!(texts)),
    };
    if let Some(default) = default {
        leaf.insert("default".to_owned(), default);
    }
    Value::Object(leaf)
}

/// What the page says of a key: its type and its meaning.
fn documented(path: &str) -> (&'static str, &'static str) {
    let name = path.replace('*', "NAME").replace(".devices.NAME", ".devices.ID");
    let row = format!("| `{name}` | ");
    let cells = PAGE.lines().find_map(|line| line.strip_prefix(&row));
    let mut cells = cells.unwrap_or_default().split(" | ");
    let (form, meaning) = (cells.next().unwrap_or_default(), cells.nth(1).unwrap_or_default());
    (form, meaning.trim_end_matches('|').trim_end())
}

/// The words of a type that is nothing but a choice of words, as in `"a"`, `"b"` or `"c"`.
fn quoted(form: &str) -> Option<Vec<&str>> {
    let parts = form.split(", ").flat_map(|part| part.split(" or "));
    parts.map(|part| part.strip_prefix("`\"")?.strip_suffix("\"`")).collect()
}

/// The range that a meaning tells, as in `1 to 1,000,000`.
fn range(meaning: &str) -> Option<(u64, u64)> {
    let number = |word: &str| word.trim_end_matches(';').replace(',', "").parse().ok();
    let words: Vec<&str> = meaning.split(' ').collect();
    words.windows(3).find_map(|three| match three {
        [least, "to", most] => Some((number(least)?, number(most)?)),
        _ => None,
    })
}
