//! A program in a real terminal (that of `script`).

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use super::eventually;

/// A program in a separate terminal.
pub(crate) struct Terminal {
    child: Child,
    shown: Arc<Mutex<String>>,
    /// How much of it has been checked.
    seen: usize,
}

impl Terminal {
    /// Runs a command in a terminal of this width, with these variables.
    pub(crate) fn run(columns: u16, variables: &str, command: &str) -> Self {
        // `exec`: Ctrl-C must reach the program only; some shells would end by it, with another
        // exit code.
        let line = format!("stty rows 24 cols {columns}; exec env {variables} {command}");
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script must be installed (apt-get install bsdutils)");
        let shown: Arc<Mutex<String>> = Arc::default();
        let (mut out, into) = (child.stdout.take().unwrap(), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        Self { child, shown, seen: 0 }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    pub(crate) async fn shows(&self, words: &str) {
        eventually(&format!("{words:?} is shown"), || self.shown().contains(words).then_some(()))
            .await;
    }

    /// Waits for words after the previous ones.
    pub(crate) async fn shows_next(&mut self, words: &str) {
        let seen = self.seen;
        let place = || Some(seen + self.shown().get(seen..)?.find(words)? + words.len());
        self.seen = eventually(&format!("{words:?} is shown next"), place).await;
    }

    pub(crate) fn types(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Waits for the words of each step after those before, and types the answer if there is one.
    pub(crate) async fn answers(&mut self, dialogue: &[(&str, Option<&str>)]) {
        for (words, answer) in dialogue {
            self.shows_next(words).await;
            if let Some(answer) = answer {
                self.types(&format!("{answer}\r"));
            }
        }
    }

    /// Its exit code, and the whole output.
    pub(crate) async fn ends(mut self) -> (i32, String) {
        let status = eventually("it ends", || self.child.try_wait().unwrap()).await;
        (status.code().unwrap(), self.shown())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // In a successful test it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
