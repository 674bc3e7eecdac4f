//! Reads the files of a connection: outside the runtime, with a size limit and a deadline.
//!
//! Each file is read by its own thread, because a hanging file system never returns: the runtime's
//! blocking threads are limited, and its shutdown would wait for them.

use std::collections::BTreeMap;
use std::fs::{File, FileType};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::{NO_HANDLES_REMEDY, no_handles_left};

/// The largest file that is read: certificates, keys and passwords take a few kilobytes.
const FILE_LEN_MAX: u64 = 1 << 20;
/// How long the read of a file may take.
const READ_DEADLINE: Duration = Duration::from_secs(5);
/// What editors on Windows put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a file cannot be read. Displayed it follows the file's name: "is a directory".
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("does not exist")]
    Missing,
    #[error("does not exist: ~ stands for no home directory here; write the whole path")]
    NoHome,
    #[error("may not be read by the user of this service")]
    Forbidden,
    #[error("is a {0}, not a file")]
    NotAFile(&'static str),
    #[error("is larger than 1 MiB")]
    TooLarge,
    #[error("could not be read within {} s, as where a network file system hangs",
        READ_DEADLINE.as_secs())]
    Hangs,
    #[error("cannot be read ({0}); {NO_HANDLES_REMEDY}")]
    NoHandles(io::Error),
    #[error("cannot be read ({0})")]
    Io(#[from] io::Error),
}

impl ReadError {
    /// What to do, other than to name another file.
    pub(crate) const fn remedy(&self) -> &'static str {
        match self {
            Self::Forbidden => "give it the right (chgrp and chmod g+r)",
            Self::Missing => "put it there",
            Self::NoHome => "put it there",
            _ => "replace it",
        }
    }

    fn from_io(path: &Path, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound if path.starts_with("~") => Self::NoHome,
            io::ErrorKind::NotFound => Self::Missing,
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            _ if no_handles_left(&error) => Self::NoHandles(error),
            _ => Self::Io(error),
        }
    }
}

/// A file as messages name it: where it is looked for.
pub(crate) fn shown_path(path: &Path) -> String {
    let whole = std::path::absolute(path);
    whole.as_deref().unwrap_or(path).display().to_string()
}

/// Reads a file, less a byte order mark.
///
/// # Errors
/// When it is not there, not a file, too large, or not read in time.
pub(crate) async fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = path.to_owned();
    off_runtime(path, move || read_now(&file)).await?
}

/// Makes sure that a path names a regular file, without opening it.
pub(crate) fn expect_file(path: &Path) -> Result<(), ReadError> {
    let metadata = std::fs::metadata(path).map_err(|error| ReadError::from_io(path, error))?;
    // Opening a named pipe would wait for its writer, and a device may have no end.
    not_a_file(metadata.file_type()).map_or(Ok(()), |other| Err(ReadError::NotAFile(other)))
}

fn read_now(path: &Path) -> Result<Vec<u8>, ReadError> {
    expect_file(path)?;
    let mut bytes = Vec::new();
    let of_io = |error| ReadError::from_io(path, error);
    let file = File::open(path).map_err(of_io)?;
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(of_io)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(ReadError::TooLarge);
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

fn not_a_file(kind: FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt as _;
    match kind {
        _ if kind.is_file() => None,
        _ if kind.is_dir() => Some("directory"),
        _ if kind.is_fifo() => Some("named pipe"),
        _ if kind.is_socket() => Some("socket"),
        _ => Some("device"),
    }
}

/// Runs work that reads `name` on a thread of its own. One at a time for each name, so that a file
/// system that hangs costs one thread for each file, however often it is tried again.
///
/// # Errors
/// When it does not end in time.
pub(crate) async fn off_runtime<T: Send + 'static>(
    name: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReadError> {
    static FILE_LOCKS: Mutex<BTreeMap<PathBuf, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());
    #[cfg(feature = "model")]
    if super::model::is_active() {
        // The model's paused clock would run on to the deadline while another thread works.
        return Ok(work());
    }
    let semaphore = {
        let mut locks = FILE_LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(name.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
    };
    let reading = async move {
        let permit = semaphore.acquire_owned().await.map_err(io::Error::other)?;
        let (done, result) = oneshot::channel();
        std::thread::Builder::new().name("file-read".to_owned()).spawn(move || {
            let result = work();
            drop(permit);
            _ = done.send(result);
        })?;
        result.await.map_err(io::Error::other)
    };
    Ok(timeout(READ_DEADLINE, reading).await.map_err(|_| ReadError::Hangs)??)
}

/// Why a file gives no secret. Displayed it follows the file's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    #[error(transparent)]
    Unread(#[from] ReadError),
    #[error("is not UTF-8 text")]
    NotText,
    #[error("is empty")]
    Empty,
    #[error("holds a NUL or more than 65535 bytes, which MQTT cannot carry")]
    NotForMqtt,
}

/// Reads a secret from its file, less one newline at its end.
///
/// # Errors
/// When the file cannot be read, or holds no secret.
pub(crate) async fn read_secret(path: &Path) -> Result<SecretString, SecretError> {
    let bytes = read(path).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText)?;
    let text = text.strip_suffix('\n').map_or(text, |it| it.strip_suffix('\r').unwrap_or(it));
    if text.is_empty() {
        return Err(SecretError::Empty);
    }
    if text.contains('\0') || text.len() > usize::from(u16::MAX) {
        return Err(SecretError::NotForMqtt);
    }
    Ok(SecretString::from(text))
}

/// What is wrong with a file and what to do, to follow its name; `None` where it can be used.
pub(crate) async fn file_problem(path: &Path, is_password: bool) -> Option<String> {
    let error = match is_password {
        true => read_secret(path).await.err()?,
        false => read(path).await.err()?.into(),
    };
    let remedy = match &error {
        SecretError::Unread(error) => error.remedy(),
        _ => "put it there",
    };
    Some(format!("{error}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    #[tokio::test]
    async fn one_newline_and_a_byte_order_mark_are_cut_from_a_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, secret) in
            [("a\n\n", "a\n"), ("a", "a"), ("a\r\n", "a"), (" a ", " a "), ("\u{feff}a\n", "a")]
        {
            std::fs::write(file.path(), text).unwrap();
            let read = read_secret(file.path()).await.unwrap();
            assert_eq!(read.expose_secret(), secret, "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_read_that_hangs_ends_at_its_deadline_and_the_next_waits_for_no_second_thread() {
        let name = Path::new("/hung");
        let (release, hung) = std::sync::mpsc::channel::<()>();
        let work = move || _ = hung.recv();
        let (first, second) = tokio::join!(off_runtime(name, work), off_runtime(name, || ()));
        assert!(matches!(first, Err(ReadError::Hangs)));
        assert!(matches!(second, Err(ReadError::Hangs)), "it must not start beside the first");
        drop(release);
        assert!(off_runtime(name, || ()).await.is_ok());
    }
}
