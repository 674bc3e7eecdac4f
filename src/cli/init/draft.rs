//! The new configuration: the document, and its files.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::asker::InitStop;
use super::document::ConfigDocument;
use super::files::{self, FileAccess, NewFile};
use crate::config::Loaded;

/// What will be written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) document: ConfigDocument,
    path: PathBuf,
    may_replace: bool,
    files: Vec<NewFile>,
    /// Temporary copies of these files, to try the connections with.
    trial: TempDir,
}

impl Draft {
    pub(crate) fn new(
        document: ConfigDocument,
        path: &Path,
        may_replace: bool,
    ) -> Result<Self, InitStop> {
        // The paths in the configuration have to be valid in every working directory.
        let path = std::path::absolute(path)
            .map_err(|error| InitStop::WrongUsage(format!("--output: {error}")))?;
        let trial = tempfile::tempdir().map_err(|error| {
            InitStop::Failed(format!("no temporary folder can be made ({error})"))
        })?;
        Ok(Self { document, path, may_replace, files: Vec::new(), trial })
    }

    /// Adds a file beside the configuration, or replaces it; returns its path. Another file in its
    /// place is an error, and one with the same contents remains.
    pub(crate) fn put(
        &mut self,
        name: &str,
        contents: Vec<u8>,
        access: FileAccess,
    ) -> Result<String, InitStop> {
        std::fs::write(self.trial.path().join(name), &contents)
            .map_err(|error| InitStop::Failed(format!("a temporary file: {error}")))?;
        self.withdraw(name);
        let path = self.folder().join(name);
        let shown = path.display().to_string();
        let mut may_replace = self.may_replace;
        if !may_replace && path.symlink_metadata().is_ok() {
            if std::fs::read(&path).ok().as_ref() != Some(&contents) {
                return Err(files::exists(&path));
            }
            if access == FileAccess::Public {
                return Ok(shown);
            }
            // Others might read it: it is written again with its own mode.
            may_replace = true;
        }
        self.files.push(NewFile { path, contents, access, may_replace });
        Ok(shown)
    }

    /// Takes back a file of an answer before.
    pub(crate) fn withdraw(&mut self, name: &str) {
        let path = self.folder().join(name);
        self.files.retain(|file| file.path != path);
    }

    /// The configuration so far.
    pub(crate) fn load(&self) -> Result<Loaded, InitStop> {
        self.document.load(&self.path).map_err(|error| InitStop::WrongUsage(error.to_string()))
    }

    /// Replaces the path of a file that is not written yet by that of its temporary copy.
    pub(crate) fn use_trial(&self, path: &mut Option<PathBuf>) {
        let Some(path) = path else { return };
        let is_new = self.files.iter().any(|file| file.path == *path);
        if let Some(name) = path.file_name().filter(|_| is_new) {
            *path = self.trial.path().join(name);
        }
    }

    /// The folder of the configuration and its files.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// The files beside the configuration, and last the configuration, which may replace the one
    /// that was read. Of a symbolic link to a configuration the target is replaced.
    pub(crate) fn into_files(mut self, was_read: bool) -> Vec<NewFile> {
        self.files.push(NewFile {
            contents: self.document.text().into_bytes(),
            path: self.path.canonicalize().unwrap_or(self.path),
            access: FileAccess::Group,
            may_replace: self.may_replace || was_read,
        });
        self.files
    }
}
