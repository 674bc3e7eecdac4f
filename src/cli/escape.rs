//! Escapes the text of gateways and brokers in the log and in printed results, so that it can
//! neither forge lines nor control a terminal.

use std::fmt::{self, Write};

use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Whether a character affects more than its own place: controls (new lines, terminal escapes, C1),
/// line separators, and marks that change the direction of the text that follows.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}')
}

/// Writes text with its active characters as in Rust's strings: `\n`, `\u{1b}`.
struct Escape<'a, W>(&'a mut W);

impl<W: Write> Write for Escape<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_active) {
            self.0.write_str(&rest[..at])?;
            let mut from = rest[at..].chars();
            if let Some(active) = from.next() {
                write!(self.0, "{}", active.escape_default())?;
            }
            rest = from.as_str();
        }
        self.0.write_str(rest)
    }
}

/// The text on one line, without active characters.
pub(crate) fn escaped(text: &str) -> String {
    let mut into = String::with_capacity(text.len());
    // Writing to a string never fails.
    _ = Escape(&mut into).write_str(text);
    into
}

/// Formats an entry's fields as the library does, without colours and active characters. The
/// library itself escapes only terminal escapes, and only in the message.
#[derive(Debug)]
pub(crate) struct EscapedFields;

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        DefaultFields::new().format_fields(Writer::new(&mut Escape(&mut writer)), fields)
    }
}

/// Formats entries as the inner JSON format does, which escapes only what JSON requires. Outside of
/// strings there are no active characters but the new line at the end.
#[derive(Debug)]
pub(crate) struct EscapedJson<F>(pub(crate) F);

struct EscapeJson<'a, W>(&'a mut W);

impl<W: Write> Write for EscapeJson<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(|c| c != '\n' && is_active(c)) {
            match part.char_indices().next_back() {
                Some((at, c)) if c != '\n' && is_active(c) => {
                    write!(self.0, "{}\\u{:04x}", &part[..at], u32::from(c))?;
                }
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl<S, N, F> FormatEvent<S, N> for EscapedJson<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        self.0.format_event(context, Writer::new(&mut EscapeJson(&mut writer)), event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_active_characters_are_escaped() {
        assert_eq!(escaped("Tür \"1\" \\ 🚪\u{301}"), "Tür \"1\" \\ 🚪\u{301}");
        assert_eq!(escaped("a\r\n\tb\u{1b}[2J\u{7f}"), "a\\r\\n\\tb\\u{1b}[2J\\u{7f}");
        assert_eq!(escaped("\u{9b}\u{2028}\u{202e}x"), "\\u{9b}\\u{2028}\\u{202e}x");
        let mut json = String::new();
        EscapeJson(&mut json).write_str("{\"a\":\"ü\u{9b}\u{202e}x\u{7f}\"}\n").unwrap();
        assert_eq!(json, "{\"a\":\"ü\\u009b\\u202ex\\u007f\"}\n");
    }
}
