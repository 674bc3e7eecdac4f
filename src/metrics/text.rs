//! Prometheus text, written straight: one family, its header, its samples.
//!
//! May not know what is measured.

use std::fmt::{Display, Write};

/// A family of samples with one name.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) help: &'static str,
}

impl Family {
    /// `# HELP` and `# TYPE`.
    pub(super) fn head(&self, text: &mut String) {
        let Self { name, kind, help } = self;
        // Writing to a String cannot fail.
        _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }
}

/// A sample: `labels` as written by [`label`], joined by commas.
pub(super) fn sample(text: &mut String, name: &str, labels: &str, value: impl Display) {
    _ = writeln!(text, "{name}{{{labels}}} {value}");
}

/// `name="value"`, the value escaped as the format wants it.
pub(super) fn label(name: &str, value: &str) -> String {
    let mut text = String::with_capacity(name.len() + value.len() + 3);
    text.push_str(name);
    text.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// Milliseconds as seconds, without loss.
pub(super) struct Seconds(pub(super) i64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let millis = self.0.unsigned_abs();
        match millis % 1000 {
            0 => write!(f, "{sign}{}", millis / 1000),
            rest => write!(f, "{sign}{}.{rest:03}", millis / 1000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        assert_eq!(label("name", "a\"b\\c\nd"), r#"name="a\"b\\c\nd""#);
    }

    #[test]
    fn seconds_keep_their_milliseconds() {
        for (millis, text) in [(0, "0"), (1_500, "1.500"), (-20, "-0.020"), (60_000, "60")] {
            assert_eq!(Seconds(millis).to_string(), text);
        }
    }
}
