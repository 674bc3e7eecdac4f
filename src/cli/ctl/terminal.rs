//! The width and colours of the terminal on stdout; without a terminal there are neither.

use std::io::IsTerminal;

use terminal_size::{Width, terminal_size_of};

use crate::fleet::Status;

/// What the terminal offers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terminal {
    /// In columns.
    pub(crate) width: Option<u16>,
    pub(crate) colours: bool,
}

impl Terminal {
    pub(crate) fn of_stdout() -> Self {
        let out = std::io::stdout();
        if !out.is_terminal() {
            return Self::default();
        }
        let width = terminal_size_of(&out).map(|(Width(width), _)| width);
        // https://no-color.org: set and not empty means no colours.
        let variable = |name| std::env::var_os(name).unwrap_or_default();
        let colours = variable("NO_COLOR").is_empty() && variable("TERM") != "dumb";
        Self { width: width.filter(|width| *width > 0), colours }
    }

    /// Colours the text if the word is a status or a result.
    pub(crate) fn coloured(self, word: &str, text: String) -> String {
        const GREEN: &str = "32";
        const YELLOW: &str = "33";
        const RED: &str = "31";
        if !self.colours {
            return text;
        }
        let status = Status::KNOWN.into_iter().find(|status| <&str>::from(status) == word);
        let code = match (word, status) {
            ("ok" | "linked", _) => GREEN,
            ("error" | "link_lost" | "no_link" | "list_failed", _) => RED,
            (_, Some(Status::TryToConnect)) => YELLOW,
            (_, Some(status)) if status.connected() == Some(true) => GREEN,
            (_, Some(_)) => RED,
            (_, None) => return text,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    pub(crate) fn bold(self, text: String) -> String {
        if self.colours { format!("\x1b[1m{text}\x1b[0m") } else { text }
    }
}
