//! Prompts for missing options on a terminal. Without a terminal a missing option is an error.

use std::fmt::Display;
use std::io::IsTerminal;
use std::path::PathBuf;

use inquire::{Confirm, InquireError, Password, PasswordDisplayMode, Text};

use crate::cli::{escape::escaped, print_to_stderr};

/// Why `init` ends before it has written everything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InitStop {
    #[error("{0}")]
    WrongUsage(String),
    /// An answer does not work; in a terminal it is prompted for again.
    #[error("{0}; nothing was written")]
    InvalidAnswer(String),
    #[error("{0}; nothing was written")]
    Failed(String),
    #[error("{0}; the files above were written, if any")]
    Incomplete(String),
}

impl InitStop {
    pub(crate) fn wrong_usage(error: impl Display) -> Self {
        Self::WrongUsage(error.to_string())
    }

    /// There is no terminal for the prompt in place of this option.
    pub(crate) fn missing(option: &str, has_default: bool) -> Self {
        let or_yes = if has_default { ", or --yes to take the defaults" } else { "" };
        Self::WrongUsage(format!(
            "{option} is missing, and there is no terminal for a prompt; set it{or_yes}"
        ))
    }
}

impl From<InquireError> for InitStop {
    fn from(error: InquireError) -> Self {
        Self::Failed(match error {
            InquireError::OperationCanceled | InquireError::OperationInterrupted => {
                "cancelled".to_owned()
            }
            error => {
                format!("the terminal cannot be used ({error}); give every answer as an option")
            }
        })
    }
}

/// A question, and the option that answers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) text: &'a str,
    pub(crate) option: &'static str,
    /// `Some("")`: it may stay without an answer.
    pub(crate) default: Option<&'a str>,
}

/// What is copied into a new file.
#[derive(Clone, Debug)]
pub(crate) struct NewContents {
    pub(crate) contents: Vec<u8>,
    /// The file that an answer names.
    pub(crate) path: Option<PathBuf>,
}

impl NewContents {
    pub(crate) fn read(path: PathBuf) -> Result<Self, String> {
        match std::fs::read(&path) {
            Ok(contents) => Ok(Self { contents, path: Some(path) }),
            Err(error) => {
                let hint = if path.starts_with("~") { "; write the whole path for ~" } else { "" };
                Err(format!("{} cannot be read ({error}){hint}", path.display()))
            }
        }
    }
}

/// How questions are answered: in a terminal, by their defaults, or by options only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub(crate) has_terminal: bool,
    /// Every question that has a default answer takes it.
    pub(crate) takes_defaults: bool,
}

impl Asker {
    pub(crate) fn new(takes_defaults: bool) -> Self {
        let has_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        Self { has_terminal, takes_defaults }
    }

    /// Whether optional prompts are shown.
    pub(crate) const fn is_interactive(self) -> bool {
        self.has_terminal && !self.takes_defaults
    }

    pub(crate) fn text(self, question: Question<'_>) -> Result<String, InitStop> {
        self.edited(question, "")
    }

    /// The same, where the prompt begins with an answer that can be edited and removed.
    pub(crate) fn edited(self, question: Question<'_>, initial: &str) -> Result<String, InitStop> {
        let Question { text, option, default } = question;
        match default {
            Some(default) if self.takes_defaults => return Ok(default.to_owned()),
            _ if !self.has_terminal => return Err(InitStop::missing(option, default.is_some())),
            _ => {}
        }
        loop {
            let mut prompt = Text::new(text).with_initial_value(initial);
            if let Some(default) = default.filter(|default| !default.is_empty()) {
                prompt = prompt.with_default(default);
            }
            let answer = prompt.prompt()?.trim().to_owned();
            if !answer.is_empty() || default.is_some() {
                return Ok(answer);
            }
        }
    }

    /// The answer as `read` accepts it: the option's, else prompted for until it is valid.
    pub(crate) fn read<T, E: Display>(
        self,
        given: Option<String>,
        question: Question<'_>,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, InitStop> {
        let may_repeat = given.is_none() && self.has_terminal;
        loop {
            let text = given.clone().map_or_else(|| self.text(question), Ok)?;
            match read(&text) {
                Ok(answer) => return Ok(answer),
                Err(error) if may_repeat => print_to_stderr(&escaped(&error.to_string())),
                Err(error) => {
                    return Err(InitStop::WrongUsage(format!("{}: {error}", question.option)));
                }
            }
        }
    }

    /// The file that the option or the answer names; `None` if the answer is empty.
    pub(crate) fn file(
        self,
        given: Option<PathBuf>,
        question: Question<'_>,
    ) -> Result<Option<NewContents>, InitStop> {
        let read = |path: &str| match path {
            "" => Ok(None),
            path => NewContents::read(path.into()).map(Some),
        };
        self.read(given.map(|path| path.display().to_string()), question, read)
    }

    /// Yes or no; the option's answer, else the default.
    pub(crate) fn confirm(
        self,
        given: Option<bool>,
        text: &str,
        option: &'static str,
        default: bool,
    ) -> Result<bool, InitStop> {
        match given {
            Some(answer) => Ok(answer),
            None if self.takes_defaults => Ok(default),
            None if !self.has_terminal => Err(InitStop::missing(option, true)),
            None => Ok(Confirm::new(text).with_default(default).prompt()?),
        }
    }

    /// Yes or no to something that is never assumed.
    pub(crate) fn confirm_in_person(
        self,
        text: &str,
        option: &'static str,
    ) -> Result<bool, InitStop> {
        if !self.has_terminal {
            return Err(InitStop::missing(option, false));
        }
        Ok(Confirm::new(text).with_default(false).prompt()?)
    }

    pub(crate) fn password(self, text: &str, option: &'static str) -> Result<String, InitStop> {
        if !self.has_terminal {
            return Err(InitStop::missing(option, false));
        }
        let prompt = Password::new(text).without_confirmation();
        Ok(prompt.with_display_mode(PasswordDisplayMode::Masked).prompt()?)
    }

    /// Prints why an answer was refused, in a terminal; anything else remains an error. With
    /// defaults the next attempt would be the same.
    pub(crate) fn report_refused(self, stop: InitStop) -> Result<(), InitStop> {
        match stop {
            InitStop::InvalidAnswer(reason) if self.is_interactive() => {
                print_to_stderr(&format!("{}\n", escaped(&reason)));
                Ok(())
            }
            stop => Err(stop),
        }
    }
}
