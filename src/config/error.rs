//! Mistakes in a configuration, and the origin of each setting. No text here contains the value of
//! a secret.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use figment::error::{Actual, Kind};

use super::schema::{KeyPath, Schema, choices, has_unit, is_secret, is_table};

/// Where a setting was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In the file, at this line (the first is 1).
    File {
        /// The file as it was named.
        path: Arc<Path>,
        /// The line; 0 for the file as a whole.
        line: usize,
    },
    /// In this environment variable.
    Variable(String),
    /// With this flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "command line {flag}"),
        }
    }
}

/// One mistake: where, which key, and what to change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it was made.
    pub origin: Origin,
    /// The key; empty where the file or the variable itself is wrong.
    pub key: String,
    /// What is wrong and what to write instead.
    pub text: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.key.as_str()) {
            (Origin::Default, key) => write!(f, "{key}: {}", self.text),
            (origin, "") => write!(f, "{origin}: {}", self.text),
            (origin, key) => write!(f, "{origin}: {key}: {}", self.text),
        }
    }
}

/// Everything that is wrong with a configuration; one line a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    mistakes: Vec<Mistake>,
}

impl Error {
    /// The mistakes, in the order of their places.
    pub(crate) fn new(mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort();
        mistakes.dedup();
        Self { mistakes }
    }

    /// Every mistake: those of the file by line, then environment, then command line.
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.mistakes.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Error {}

/// What is wrong with the value of a key, as the end of a sentence about it. The types are named by
/// the schema. The value is quoted only where it is a number, a value of a fixed set, or a text in
/// place of another type, which no secret is.
///
/// `below` are the names below the key, where it is a table with one key.
pub(crate) fn explain(schema: &Schema, path: &KeyPath, below: &[String], kind: &Kind) -> String {
    let null = serde_json::Value::Null;
    let node = schema.at(&path.0).unwrap_or(&null);
    match kind {
        Kind::Message(text) => text.clone(),
        Kind::UnknownField(_, known) => {
            format!("unknown key; {}", schema.suggestion(path, below, known))
        }
        Kind::MissingField(_) => "is missing; set it".to_owned(),
        Kind::UnknownVariant(word, _) => {
            let known = if node["items"].is_object() { &node["items"] } else { node };
            format!("{word:?} is not known; write one of {:?}", choices(known))
        }
        Kind::InvalidValue(Actual::Signed(number), _) => {
            let (least, most) = (&node["minimum"], &node["maximum"]);
            format!("{number} is out of range; choose from {least} to {most}")
        }
        Kind::InvalidType(..) if is_table(node) && schema.is_misplaced(path) => {
            "belongs before the first [table]".to_owned()
        }
        Kind::InvalidType(actual, _) if is_table(node) => {
            format!("must be a table, not {}; write [{path}]", type_of(actual))
        }
        Kind::InvalidType(Actual::Map, _) => {
            format!("must not be a table or a date; {path} is a value and has no keys below it")
        }
        Kind::InvalidType(actual, _) => {
            let (wanted, remedy) = match (node["type"].as_str(), actual) {
                (Some("integer"), _) => ("a whole number", ""),
                (Some("boolean"), _) => ("true or false", ""),
                (Some("array"), _) => ("a list of texts", "; write [\"...\", \"...\"]"),
                (_, Actual::Unsigned(_) | Actual::Signed(_)) if has_unit(node) => {
                    ("a text", "; put it in quotes, with its unit")
                }
                (_, Actual::Unsigned(_) | Actual::Signed(_)) => ("a text", "; put it in quotes"),
                _ => ("a text", ""),
            };
            match actual {
                // In the environment and with `--set` every value is a text.
                Actual::Str(text) if !is_secret(node) => {
                    format!("must be {wanted}, not {text:?}{remedy}")
                }
                actual => format!("must be {wanted}, not {}{remedy}", type_of(actual)),
            }
        }
        _ => "has a value that is not allowed".to_owned(),
    }
}

/// The type of a value, with its article.
const fn type_of(actual: &Actual) -> &'static str {
    match actual {
        Actual::Str(_) | Actual::Char(_) => "a text",
        Actual::Signed(_) | Actual::Unsigned(_) => "a whole number",
        Actual::Float(_) => "a number with a point",
        Actual::Bool(_) => "true or false",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "one that large",
    }
}
