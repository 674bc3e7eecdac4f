//! Writes the configuration and its files, with the owner and mode that the service's user needs.
//! Existing files are replaced only after a confirmation.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::asker::InitStop;
use crate::cli::print_to_stderr;

/// The user and group of the packaged service.
const SERVICE_USER: &str = "gsdk2mqtt";

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileAccess {
    /// Everyone.
    Public,
    /// The service's group; a file that is replaced keeps its owner and mode.
    Group,
    /// The service's user alone.
    Secret,
}

impl FileAccess {
    pub(crate) const fn mode(self) -> u32 {
        match self {
            Self::Public => 0o644,
            Self::Group => 0o640,
            Self::Secret => 0o600,
        }
    }
}

/// A file to write.
#[derive(Clone, Debug)]
pub(crate) struct NewFile {
    pub(crate) path: PathBuf,
    pub(crate) contents: Vec<u8>,
    pub(crate) access: FileAccess,
    /// Whether it may replace a file.
    pub(crate) may_replace: bool,
}

/// The IDs of the service's user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// The account of the packaged service, if this process may give files to it.
    fn of_service() -> Option<Self> {
        let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
        let accounts = is_root.then(|| fs::read_to_string("/etc/passwd").ok()).flatten()?;
        Self::find(&accounts)
    }

    fn find(accounts: &str) -> Option<Self> {
        let line = accounts.lines().find_map(|line| {
            line.strip_prefix(SERVICE_USER).and_then(|rest| rest.strip_prefix(':'))
        })?;
        let mut ids = line.split(':').skip(1);
        let mut id = || ids.next().and_then(|id| id.parse().ok());
        Some(Self { user: id()?, group: id()? })
    }
}

/// Checks that files can be written into this folder, or that it can be created.
pub(crate) fn prepare(folder: &Path) -> Result<(), InitStop> {
    let existing = folder.ancestors().find(|folder| folder.exists()).unwrap_or(folder);
    let tried = NamedTempFile::new_in(existing);
    tried.map(drop).map_err(|error| {
        InitStop::Failed(format!(
            "{} cannot be written ({error}); run it with sudo, or name another file with --output",
            folder.display()
        ))
    })
}

/// Writes the files, each whole or not at all; none of them before all can be written.
pub(crate) fn write(files: &[NewFile]) -> Result<(), InitStop> {
    let account = Account::of_service();
    let failed =
        |file: &NewFile, error| format!("{} cannot be written ({error})", file.path.display());
    let staged: Result<Vec<_>, _> = files
        .iter()
        .map(|file| stage(file, account).map_err(|error| InitStop::Failed(failed(file, error))))
        .collect();
    for (file, temporary) in files.iter().zip(staged?) {
        let persisted = match file.may_replace {
            true => temporary.persist(&file.path),
            false => temporary.persist_noclobber(&file.path),
        };
        persisted.map_err(|error| InitStop::Incomplete(failed(file, error.error)))?;
        print_to_stderr(&format!("written: {}", file.path.display()));
    }
    Ok(())
}

/// That a file is in the way.
pub(crate) fn exists(path: &Path) -> InitStop {
    InitStop::WrongUsage(format!(
        "{} exists; --overwrite replaces it, --output names another file, and --add-gateway adds \
         a gateway to a configuration; nothing was written",
        path.display()
    ))
}

/// A temporary file beside the new one.
fn stage(file: &NewFile, account: Option<Account>) -> io::Result<NamedTempFile> {
    let folder = file.path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(&file.contents)?;
    let mut mode = file.access.mode();
    if let (FileAccess::Group, Ok(replaced)) = (file.access, fs::metadata(&file.path)) {
        mode = replaced.mode() & 0o7777;
        fchown(temporary.as_file(), Some(replaced.uid()), Some(replaced.gid()))?;
    } else if let Some(Account { user, group }) = account {
        let user = if file.access == FileAccess::Secret { user } else { 0 };
        fchown(temporary.as_file(), Some(user), Some(group))?;
    }
    temporary.as_file().set_permissions(Permissions::from_mode(mode))?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_account_is_found() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\ngsdk2mqtt2:x:1:2::/:\n\
                        gsdk2mqtt:x:110:115::/var/lib/gsdk2mqtt:/usr/sbin/nologin\n";
        assert_eq!(Account::find(accounts), Some(Account { user: 110, group: 115 }));
        assert_eq!(Account::find("root:x:0:0:root:/root:/bin/sh\n"), None);
    }

    #[test]
    fn files_are_written_with_their_modes_and_nothing_else_remains() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, access| NewFile {
            path: folder.path().join(name),
            contents: b"x".into(),
            access,
            may_replace: true,
        };
        let files = [file("ca.crt", FileAccess::Public), file("password", FileAccess::Secret)];
        fs::write(&files[1].path, "before").unwrap();
        write(&files).unwrap();
        for file in &files {
            assert_eq!(fs::read_to_string(&file.path).unwrap(), "x");
            assert_eq!(fs::metadata(&file.path).unwrap().mode() & 0o777, file.access.mode());
        }
        // One that cannot be written keeps back those before it.
        fs::remove_file(&files[0].path).unwrap();
        let below_a_file = file("password/config.toml", FileAccess::Group);
        let stop = write(&[files[0].clone(), below_a_file]).unwrap_err();
        assert!(stop.to_string().ends_with("; nothing was written"), "{stop}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else remains");
    }
}
