//! Reading back what is there: events that wait, last values, and whether the log is whole.
//!
//! May not write but to mend: to cut a torn tail, to set a damaged file aside. What stands before a
//! damage is true, and is taken; what stands behind it in that file is not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use super::code::Reader;
use super::end::End;
use super::error::StoreError;
use super::frame::{self, Next};
use super::head::{self, FORMAT};
use super::record::{Entry, Event, Key, entries};

const PREFIX: &str = "log-";

/// The file of a segment.
pub(super) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:010}"))
}

/// The numbers of the segments that are there, in order.
pub(super) fn segment_numbers(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("reading", dir))? {
        let name = entry.map_err(StoreError::io("reading", dir))?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        numbers.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// By number, with the segment that holds it and its length there.
    pub(super) events: BTreeMap<u64, (Event, u64, u64)>,
    pub(super) values: BTreeMap<Key, (Vec<u8>, u64, u64)>,
    /// The segments and their lengths.
    pub(super) segments: BTreeMap<u64, u64>,
    /// The chains that the segments were written under.
    pub(super) chains: Vec<String>,
    /// What was wrong.
    pub(super) damage: Option<String>,
    /// Segments that are not taken in whole.
    pub(super) faulty: BTreeSet<u64>,
    /// What is to be done about it.
    mends: Vec<Mend>,
}

/// What has to be done to a file before the log may be written on.
#[derive(Debug)]
pub(super) enum Mend {
    /// It is of the past, or nothing is in it.
    Remove(PathBuf),
    /// Its end is a batch that was never whole.
    Cut(PathBuf, u64),
    /// It is damaged.
    SetAside(PathBuf),
}

impl Log {
    /// Reads every segment from `first` on, touching nothing. `may_be_torn`: the process before was
    /// not stopped in order, so that the last batch may be incomplete. `by_power`: the machine
    /// neither, so that the end may be anything. `end`: how far it has to go at least.
    pub(super) fn read(
        dir: &Path,
        first: u64,
        may_be_torn: bool,
        by_power: bool,
        end: Option<End>,
    ) -> Result<Self, StoreError> {
        let mut log = Self::default();
        let numbers = segment_numbers(dir)?;
        let last = numbers.last().copied();
        let mut before = None;
        for number in numbers {
            let path = segment_path(dir, number);
            if number < first {
                log.mends.push(Mend::Remove(path));
                continue;
            }
            if before.replace(number).is_some_and(|before| before + 1 != number) {
                log.damaged(|| format!("before {} one is missing", path.display()));
            }
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) => {
                    log.damaged(|| format!("{} cannot be read: {error}", path.display()));
                    log.set_aside(number, path);
                    continue;
                }
            };
            let (end, rest) = log.segment(number, &bytes);
            let is_last = Some(number) == last;
            let torn = match rest {
                Rest::Nothing => continue,
                // Its first frame is synced before anything follows: nothing was in it.
                Rest::Torn if end == 0 && is_last => true,
                Rest::Torn => may_be_torn && is_last,
                Rest::Damaged => by_power && is_last && !frame::any_whole_after(&bytes, end),
            };
            if !torn {
                log.damaged(|| format!("{} is damaged at byte {end}", path.display()));
                log.set_aside(number, path);
            } else if end == 0 {
                log.mends.push(Mend::Remove(path));
            } else {
                log.segments.insert(number, end as u64);
                log.mends.push(Mend::Cut(path, end as u64));
            }
        }
        if let Some(end) = end {
            log.reaches(dir, end);
        }
        Ok(log)
    }

    /// Whether all is there that was written: more may be, by a kill just after it was written.
    fn reaches(&mut self, dir: &Path, end: End) {
        let missing = |number| format!("{} is missing", segment_path(dir, number).display());
        if self.segments.keys().next().is_some_and(|&lowest| lowest > end.oldest) {
            self.damaged(|| missing(end.oldest));
        }
        match self.segments.get(&end.segment) {
            Some(&len) if len >= end.len => {}
            Some(&len) => {
                let path = segment_path(dir, end.segment);
                let (shown, written) = (path.display(), end.len);
                self.damaged(|| {
                    format!(
                        "{shown} was cut: it is whole up to byte {len}, and {written} were written"
                    )
                });
                self.segments.remove(&end.segment);
                self.set_aside(end.segment, path);
            }
            None => {
                self.damaged(|| missing(end.segment));
                let path = segment_path(dir, end.segment);
                if self.mends.iter().any(|mend| mend.path() == path) {
                    self.set_aside(end.segment, path);
                }
            }
        }
    }

    fn set_aside(&mut self, number: u64, path: PathBuf) {
        self.mends.retain(|mend| mend.path() != path);
        self.mends.push(Mend::SetAside(path));
        self.faulty.insert(number);
    }

    fn damaged(&mut self, what: impl FnOnce() -> String) {
        self.damage.get_or_insert_with(what);
    }

    /// Does what the log needs before it may be written on.
    pub(super) fn mend(&mut self, dir: &Path) -> Result<(), StoreError> {
        if self.damage.is_some() {
            // First the proof goes: a start that is killed from here on may not take the rest for
            // all.
            let head = dir.join(head::NAME);
            match fs::remove_file(&head) {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                    return Err(StoreError::io("removing", &head)(cause));
                }
                _ => {}
            }
        }
        for mend in self.mends.drain(..) {
            match mend {
                Mend::Remove(path) => {
                    fs::remove_file(&path).map_err(StoreError::io("removing", &path))?;
                }
                Mend::Cut(path, end) => {
                    let file = OpenOptions::new().write(true).open(&path);
                    let cut =
                        file.and_then(|file| file.set_len(end).and_then(|()| file.sync_all()));
                    cut.map_err(StoreError::io("cutting", &path))?;
                }
                Mend::SetAside(path) => set_aside(dir, &path)?,
            }
        }
        Ok(())
    }

    /// Takes a segment in as far as it is whole; returns how far that is.
    fn segment(&mut self, number: u64, bytes: &[u8]) -> (usize, Rest) {
        let (mut at, mut end) = (0, 0);
        loop {
            let batch = match frame::next(bytes, at) {
                Next::Whole(batch, next) => {
                    end = next;
                    batch
                }
                Next::End if at == 0 => return (0, Rest::Torn),
                Next::End => {
                    self.segments.insert(number, end as u64);
                    return (end, Rest::Nothing);
                }
                Next::Torn => return (at, Rest::Torn),
                Next::Damaged => return (at, Rest::Damaged),
            };
            let taken = if at == 0 { self.opening(batch) } else { self.batch(number, batch) };
            if taken.is_none() {
                return (at, Rest::Damaged);
            }
            at = end;
        }
    }

    fn opening(&mut self, frame: &[u8]) -> Option<()> {
        let mut reader = Reader(frame);
        (reader.text()? == FORMAT).then_some(())?;
        let chain = reader.text()?;
        if !self.chains.iter().any(|known| known == chain) {
            self.chains.push(chain.to_owned());
        }
        Some(())
    }

    fn batch(&mut self, segment: u64, batch: &[u8]) -> Option<()> {
        // All or nothing: a batch that makes no sense somewhere is none.
        let entries: Vec<_> = entries(batch).collect::<Option<_>>()?;
        for (entry, len) in entries {
            match entry {
                Entry::Event(event) => _ = self.events.insert(event.number, (event, segment, len)),
                Entry::Gone(number) => _ = self.events.remove(&number),
                Entry::Lost { number, lost } => {
                    if let Some((event, ..)) = self.events.get_mut(&number) {
                        event.lost = lost;
                    }
                }
                Entry::Value { key, value } => {
                    self.values.insert(key, (value.to_vec(), segment, len));
                }
                Entry::NoValue(key) => _ = self.values.remove(&key),
            }
        }
        Some(())
    }
}

enum Rest {
    Nothing,
    Torn,
    Damaged,
}

impl Mend {
    fn path(&self) -> &Path {
        match self {
            Self::Remove(path) | Self::Cut(path, _) | Self::SetAside(path) => path,
        }
    }
}

/// Puts a file where no start takes it for the store's, and whoever wants to can look at it.
pub(super) fn set_aside(dir: &Path, path: &Path) -> Result<(), StoreError> {
    let aside = free_name(dir, path);
    fs::rename(path, &aside).map_err(StoreError::io("setting aside", path))?;
    tracing::error!(file = %aside.display(), "a damaged file was set aside");
    Ok(())
}

/// `<file>.damaged-N` with the first N that is free.
pub(super) fn free_name(dir: &Path, path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let names = (1_u32..).map(|number| dir.join(format!("{name}.damaged-{number}")));
    names.into_iter().find(|aside| !aside.exists()).unwrap_or_else(|| path.to_owned())
}
