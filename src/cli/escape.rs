//! Escapes the text of gateways and brokers in the log and in printed results, so that it can
//! neither forge lines nor control a terminal.

/// Whether a character affects more than its own place: controls (new lines, terminal escapes, C1),
/// line separators, and marks that change the direction of the text that follows.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}')
}

/// The text with its active characters as in Rust's strings: `\n`, `\u{1b}`.
pub(crate) fn escaped(text: &str) -> String {
    replace_active(text, |c| c.escape_default().to_string())
}

/// JSON with its active characters, which it has inside of strings only, as JSON escapes them.
pub(crate) fn escaped_in_json(json: &str) -> String {
    replace_active(json, |c| format!("\\u{:04x}", u32::from(c)))
}

fn replace_active(text: &str, escape: impl Fn(char) -> String) -> String {
    let mut replaced = String::with_capacity(text.len());
    for c in text.chars() {
        if is_active(c) {
            replaced += &escape(c);
        } else {
            replaced.push(c);
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_active_characters_are_escaped() {
        assert_eq!(escaped("Tür \"1\" \\ 🚪\u{301}"), "Tür \"1\" \\ 🚪\u{301}");
        assert_eq!(escaped("a\r\n\tb\u{1b}[2J\u{7f}"), "a\\r\\n\\tb\\u{1b}[2J\\u{7f}");
        assert_eq!(escaped("\u{9b}\u{2028}\u{202e}x"), "\\u{9b}\\u{2028}\\u{202e}x");
        let json = escaped_in_json("{\"a\":\"ü\u{9b}\u{202e}x\u{7f}\"}");
        assert_eq!(json, "{\"a\":\"ü\\u009b\\u202ex\\u007f\"}");
    }
}
