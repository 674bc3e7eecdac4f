//! What whoever reads can be shown: how wide their terminal is, and whether it has colours.
//!
//! May not decide what is shown. Where there is no terminal there is neither width nor colour.

use std::io::IsTerminal;

use terminal_size::{Width, terminal_size_of};

/// How things are shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// In columns.
    pub(super) width: Option<usize>,
    pub(super) colours: bool,
}

impl Look {
    /// As stdout takes it.
    pub(super) fn of_stdout() -> Self {
        let out = std::io::stdout();
        if !out.is_terminal() {
            return Self::default();
        }
        let variable = |name| std::env::var_os(name).unwrap_or_default();
        Self {
            width: terminal_size_of(&out).map(|(Width(width), _)| width.into()).filter(|w| *w > 0),
            // https://no-color.org: set and not empty means none.
            colours: variable("NO_COLOR").is_empty() && variable("TERM") != "dumb",
        }
    }

    /// A text in the colour of the word that it shows, if that has one.
    pub(super) fn coloured(self, word: &str, text: String) -> String {
        let code = match word {
            _ if !self.colours => return text,
            "tcp_connected" | "tls_connected" | "ok" | "linked" => "32",
            "try_to_connect" => "33",
            "disconnected" | "error" | "link_lost" | "no_link" => "31",
            _ if word.ends_with("_cannot_connect") || word.ends_with("_not_allowed") => "31",
            _ => return text,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    pub(super) fn bold(self, text: String) -> String {
        if self.colours { format!("\x1b[1m{text}\x1b[0m") } else { text }
    }
}
