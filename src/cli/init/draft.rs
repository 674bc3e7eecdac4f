//! The new configuration: the document, and its files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::asker::{InitStop, NewContents};
use super::document::ConfigDocument;
use super::files::{self, FileAccess, NewFile};
use crate::bridge::{gateway_target, master_options};
use crate::config::{Config, Loaded};
use crate::gsdk::{GatewayOptions, GatewayTarget};
use crate::ids::GatewayName;

/// The keys of a table, with the options that set them.
pub(crate) type Options<'a> = &'a [(&'a str, &'a str)];

/// What will be written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) document: ConfigDocument,
    path: PathBuf,
    may_replace: bool,
    files: Vec<NewFile>,
    /// Temporary copies of these files, to try the connections with.
    trial: TempDir,
    /// The files that were given, by their temporary copies.
    given: BTreeMap<PathBuf, PathBuf>,
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
        Ok(Self { document, path, may_replace, files: Vec::new(), trial, given: BTreeMap::new() })
    }

    /// Adds a file beside the configuration, or replaces it; returns its path. Another file in its
    /// place is an error, and one with the same contents remains.
    pub(crate) fn put(
        &mut self,
        name: &str,
        source: NewContents,
        access: FileAccess,
    ) -> Result<String, InitStop> {
        let (contents, copy) = (source.contents, self.trial.path().join(name));
        std::fs::write(&copy, &contents)
            .map_err(|error| InitStop::Failed(format!("a temporary file: {error}")))?;
        self.withdraw(name);
        let path = self.folder().join(name);
        self.given.insert(copy, source.path.unwrap_or_else(|| path.clone()));
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
        self.document.load(&self.path).map_err(InitStop::wrong_usage)
    }

    /// Replaces the path of a file that is not written yet by that of its temporary copy.
    pub(crate) fn use_trial(&self, path: &mut Option<PathBuf>) {
        let name = path.as_deref().and_then(Path::file_name);
        let copy = name.map(|name| self.trial.path().join(name));
        if let Some(copy) = copy.filter(|copy| self.given.contains_key(copy)) {
            *path = Some(copy);
        }
    }

    /// How a gateway or master of the draft is reached, with the temporary copies of its files.
    pub(crate) fn peer_options(
        &self,
        config: &Config,
        name: &GatewayName,
    ) -> Result<GatewayOptions, InitStop> {
        let direct = |gateway| match gateway_target(&config.masters, name, gateway) {
            Ok(GatewayTarget::Direct(options)) => Some(options),
            _ => None,
        };
        let master = config.masters.get(name).map(|master| master_options(name, master));
        let options = master.or_else(|| config.gateways.get(name).and_then(direct));
        let mut options = options.ok_or_else(|| InitStop::Failed(format!("no table of {name}")))?;
        let files = &mut options.files;
        for path in [&mut files.ca_file, &mut files.cert_file, &mut files.key_file] {
            self.use_trial(path);
        }
        Ok(options)
    }

    /// The reason why an answer was refused, with the files that were given and the options instead
    /// of temporary files and the keys of a table.
    pub(crate) fn explain(&self, stop: InitStop, table: &str, options: Options<'_>) -> InitStop {
        let InitStop::InvalidAnswer(mut reason) = stop else { return stop };
        for (copy, given) in &self.given {
            reason = reason.replace(&*copy.to_string_lossy(), &given.to_string_lossy());
        }
        for (key, option) in options {
            reason = reason.replace(&format!("{table}.{key}"), option);
        }
        InitStop::InvalidAnswer(reason)
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
