//! The file's layer: TOML, with the line of every key, and all its mistakes of form.
//!
//! May not read the disk, and never quotes a line of the file: it may hold a secret.

use std::path::Path;
use std::sync::Arc;

use figment::value::Value;
use toml::de::{DeTable, DeValue};

use super::error::{Mistake, Origin};
use super::keys::{self, Form, Node};
use super::layers::{KeyPath, Layer};

/// Reads a file's text.
pub(super) fn read(path: &Path, text: &str, mistakes: &mut Vec<Mistake>) -> Layer {
    let mut reader = Reader { path: path.into(), text, layer: Layer::new("file"), mistakes };
    let (table, errors) = DeTable::parse_recoverable(text);
    // What the parser makes of a broken file is guesswork, so it is looked at only where the
    // keys alone are at fault.
    let readable = errors.iter().all(|error| error.message() == DUPLICATE);
    for error in &errors {
        reader.syntax(error, &errors);
    }
    if readable {
        reader.table(table.get_ref(), &KeyPath(Vec::new()));
    }
    reader.layer
}

/// The parser's word for a key or table that stands twice.
const DUPLICATE: &str = "duplicate key";

struct Reader<'a> {
    path: Arc<Path>,
    text: &'a str,
    layer: Layer,
    mistakes: &'a mut Vec<Mistake>,
}

impl Reader<'_> {
    fn origin(&self, offset: usize) -> Origin {
        Origin::File { path: Arc::clone(&self.path), line: self.line(offset) }
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    fn mistake(&mut self, offset: usize, key: &KeyPath, text: String) {
        let origin = self.origin(offset);
        self.mistakes.push(Mistake { origin, key: key.to_string(), text });
    }

    fn syntax(&mut self, error: &toml::de::Error, all: &[toml::de::Error]) {
        let offset = error.span().unwrap_or_default().start;
        if error.message() != DUPLICATE {
            let text = format!("is not valid TOML: {}", error.message());
            return self.mistake(offset, &KeyPath(Vec::new()), text);
        }
        let line = self.line(offset);
        let header = self.header_line(line);
        let twice = |other: &toml::de::Error| {
            let start = other.span().unwrap_or_default().start;
            other.message() == DUPLICATE && self.line(start) == header
        };
        // The keys of a table that stands twice stand twice as well: one mistake, not many.
        if header != line && all.iter().any(twice) {
            return;
        }
        let table = self.table_of(header).to_owned();
        let word = error.span().and_then(|span| self.text.get(span)).unwrap_or_default();
        let key = match (header == line, table.is_empty()) {
            (true, _) => table,
            (false, true) => word.to_owned(),
            (false, false) => format!("{table}.{word}"),
        };
        let first = self.first(line, header, word);
        let first = first.map_or(String::new(), |first| format!(", first on line {first}"));
        let origin = self.origin(offset);
        let text = format!("stands twice{first}; join the two or rename one");
        self.mistakes.push(Mistake { origin, key, text });
    }

    /// The line of the `[table]` that a line belongs to; 0 above the first.
    fn header_line(&self, line: usize) -> usize {
        let above = self.text.lines().take(line).enumerate();
        let headers = above.filter(|(_, text)| text.trim_start().starts_with('['));
        headers.last().map_or(0, |(index, _)| index + 1)
    }

    /// The name in a `[table]` line.
    fn table_of(&self, header: usize) -> &str {
        let line = header.checked_sub(1).and_then(|index| self.text.lines().nth(index));
        let name = line.and_then(|line| line.split(']').next());
        name.map_or("", |name| name.trim_start().trim_start_matches('[').trim())
    }

    /// Where a table or a key that stands twice stood first.
    fn first(&self, line: usize, header: usize, word: &str) -> Option<usize> {
        if header == line {
            let table = self.table_of(header);
            return (1..line).find(|above| {
                self.header_line(*above) == *above && self.table_of(*above) == table
            });
        }
        let begins = |text: &str| {
            let rest = text.trim_start().strip_prefix(word).map(str::trim_start);
            rest.is_some_and(|rest| rest.starts_with(['=', '.']))
        };
        let above = self.text.lines().enumerate().take(line.saturating_sub(1)).skip(header);
        above.filter(|(_, text)| begins(text)).map(|(index, _)| index + 1).next()
    }

    fn table(&mut self, table: &DeTable<'_>, at: &KeyPath) {
        for (name, value) in table {
            let offset = name.span().start;
            let path = at.child(name.get_ref());
            match (keys::lookup(&path.0), value.get_ref()) {
                (Node::Unknown, _) => {
                    let text = format!("unknown key; {}", keys::suggestion(&path.0));
                    self.mistake(offset, &path, text);
                }
                (Node::Table, DeValue::Table(inner)) => {
                    let origin = self.origin(offset);
                    self.layer.table(path.clone(), origin);
                    self.table(inner, &path);
                }
                (Node::Table, _) => {
                    let known = keys::below(&path.0).join(", ");
                    let text = if known.is_empty() {
                        format!("must be a table; write [{path}.NAME]")
                    } else {
                        format!("must be a table of {known}; write [{path}]")
                    };
                    self.mistake(offset, &path, text);
                }
                (Node::Leaf(key), value) => match value_of(key.form, value) {
                    Ok(value) => {
                        let origin = self.origin(offset);
                        self.layer.set(path, value, origin);
                    }
                    Err(text) => self.mistake(offset, &path, text),
                },
            }
        }
    }
}

/// The value, if it is of the key's form.
fn value_of(form: Form, value: &DeValue<'_>) -> Result<Value, String> {
    let right = match (form, value) {
        (Form::Text | Form::Secret, DeValue::String(text)) => Some(Value::from(text.as_ref())),
        (Form::Bool, DeValue::Boolean(truth)) => Some(Value::from(*truth)),
        (Form::Whole, DeValue::Integer(number)) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::from)
        }
        (Form::List, DeValue::Array(items)) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            });
            texts.collect::<Option<Vec<String>>>().map(Value::from)
        }
        _ => None,
    };
    right.ok_or_else(|| {
        let remedy = match (form, value) {
            (Form::Text | Form::Secret, DeValue::Table(_) | DeValue::Array(_)) => "",
            (Form::Text | Form::Secret, _) => "; put it in quotes, with its unit if it has one",
            (Form::List, _) => "; write [\"...\", \"...\"]",
            (Form::Bool | Form::Whole, DeValue::String(_)) => "; leave the quotes out",
            _ => "",
        };
        let found = match (form, value) {
            (Form::Whole, DeValue::Integer(_)) => "one that large",
            (Form::List, DeValue::Array(_)) => "a list with others in it",
            (_, value) => words(value),
        };
        format!("must be {}, not {found}{remedy}", form.words())
    })
}

/// The kind of a value, with its article.
fn words(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
