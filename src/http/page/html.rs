//! HTML that cannot forget to escape: what is not escaped has to be a literal of this program.
//!
//! May not know what is written.

use std::fmt::{Display, Write as _};

/// HTML in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup of our own.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Anything else, for the inside of an element or of a quoted attribute.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a string does not fail.
        _ = write!(Escaping(&mut self.0), "{text}");
        self
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// Passes text on with the characters replaced that mean something to HTML.
struct Escaping<'a>(&'a mut String);

impl std::fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                _ => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ours_is_escaped() {
        let mut html = Html::default();
        html.raw("<b>").text("<script>alert(\"x\" & 'y')</script> 🚪").raw("</b>");
        let expected =
            "<b>&lt;script&gt;alert(&quot;x&quot; &amp; &#39;y&#39;)&lt;/script&gt; 🚪</b>";
        assert_eq!(html.into_string(), expected);
    }
}
