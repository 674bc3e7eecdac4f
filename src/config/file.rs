//! The file's layer: TOML, with the line of every key, and all its mistakes of form.
//!
//! May not read the disk, and never quotes a line of the file: it may hold a secret.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use figment::value::Value;
use toml::de::{DeTable, DeValue};

use super::error::{Mistake, Origin};
use super::keys::{self, Form, Node};
use super::layers::{KeyPath, Layer, value_of_text};

/// Reads a file's text.
pub(super) fn read(path: &Path, text: &str, mistakes: &mut Vec<Mistake>) -> Layer {
    let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    let newlines = newlines.map(|(offset, _)| offset).collect();
    let layer = Layer::new("file");
    let tables_twice = BTreeSet::new();
    let mut reader = Reader { path: path.into(), text, newlines, tables_twice, layer, mistakes };
    let (table, errors) = DeTable::parse_recoverable(text);
    // What the parser makes of a broken file is guesswork, so it is looked at only where the
    // keys alone are at fault.
    let readable = errors.iter().all(|error| error.message() == DUPLICATE);
    if !errors.is_empty() {
        let lines = Lines::of(text);
        for error in errors.iter().filter(|error| error.message() == DUPLICATE) {
            let line = reader.line(error.span().unwrap_or_default().start);
            if lines.header_of(line) == line {
                reader.tables_twice.insert(line);
            }
        }
        for error in &errors {
            reader.syntax(error, &lines);
        }
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
    /// Where each line ends, so that a key's line is found without reading the file again.
    newlines: Vec<usize>,
    /// The lines of the headers of tables that stood above already.
    tables_twice: BTreeSet<usize>,
    layer: Layer,
    mistakes: &'a mut Vec<Mistake>,
}

impl Reader<'_> {
    fn origin(&self, offset: usize) -> Origin {
        Origin::File { path: Arc::clone(&self.path), line: self.line(offset) }
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.newlines.partition_point(|newline| *newline < offset)
    }

    fn mistake(&mut self, offset: usize, key: &KeyPath, text: String) {
        let origin = self.origin(offset);
        self.mistakes.push(Mistake { origin, key: key.to_string(), text });
    }

    fn syntax(&mut self, error: &toml::de::Error, lines: &Lines<'_>) {
        let offset = error.span().unwrap_or_default().start;
        if error.message() != DUPLICATE {
            let text = format!("is not valid TOML: {}", error.message());
            return self.mistake(offset, &KeyPath(Vec::new()), text);
        }
        let line = self.line(offset);
        let header = lines.header_of(line);
        // The keys of a table that stands twice stand twice as well: one mistake, not many.
        if header != line && self.tables_twice.contains(&header) {
            return;
        }
        let table = lines.table_of(header).to_owned();
        let word = error.span().and_then(|span| self.text.get(span)).unwrap_or_default();
        let key = match (header == line, table.is_empty()) {
            (true, _) => table,
            (false, true) => word.to_owned(),
            (false, false) => format!("{table}.{word}"),
        };
        let first = lines.first(line, header, word);
        let first = first.map_or(String::new(), |first| format!(", first on line {first}"));
        let origin = self.origin(offset);
        let text = format!("stands twice{first}; join the two or rename one");
        self.mistakes.push(Mistake { origin, key, text });
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

/// Where tables and keys of a file stand, found once: a file may hold 100,000 devices, and each of
/// them may stand twice.
struct Lines<'a> {
    /// The lines that begin a table, with its name.
    headers: Vec<(usize, &'a str)>,
    /// The first line of each table.
    tables: HashMap<&'a str, usize>,
    /// The first line of each key, by the line of its table; 0 above the first table.
    keys: HashMap<(usize, &'a str), usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let (mut headers, mut tables) = (Vec::new(), HashMap::new());
        let mut keys = HashMap::new();
        let mut header = 0;
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim_start();
            if text.starts_with('[') {
                let name = text.split(']').next().unwrap_or_default();
                let name = name.trim_start_matches('[').trim();
                header = line;
                headers.push((line, name));
                tables.entry(name).or_insert(line);
            } else if let Some(key) = key_of(text) {
                keys.entry((header, key)).or_insert(line);
            }
        }
        Self { headers, tables, keys }
    }

    /// The line of the `[table]` that a line belongs to; 0 above the first.
    fn header_of(&self, line: usize) -> usize {
        let above = self.headers.partition_point(|(header, _)| *header <= line);
        let last = above.checked_sub(1).and_then(|last| self.headers.get(last));
        last.map_or(0, |(header, _)| *header)
    }

    /// The name in a `[table]` line.
    fn table_of(&self, header: usize) -> &'a str {
        let found = self.headers.binary_search_by_key(&header, |(line, _)| *line);
        found.ok().and_then(|at| self.headers.get(at)).map_or("", |(_, name)| *name)
    }

    /// Where a table or a key that stands twice stood first.
    fn first(&self, line: usize, header: usize, word: &str) -> Option<usize> {
        let first = if header == line {
            self.tables.get(self.table_of(header))
        } else {
            self.keys.get(&(header, word))
        };
        first.copied().filter(|first| *first < line)
    }
}

/// The first part of the key that a line sets, as it is written.
fn key_of(line: &str) -> Option<&str> {
    let quote = line.chars().next().filter(|first| matches!(first, '"' | '\''));
    let end = match quote {
        Some(quote) => line.char_indices().skip(1).find(|(_, c)| *c == quote)?.0 + 1,
        None => line.find(['=', '.'])?,
    };
    line.get(..end).map(str::trim_end)
}

/// The value, if it is of the key's form. Text is read as a number or a truth value.
fn value_of(form: Form, value: &DeValue<'_>) -> Result<Value, String> {
    if let (Form::Whole | Form::Bool, DeValue::String(text)) = (form, value) {
        return value_of_text(form, text);
    }
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
