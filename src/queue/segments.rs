//! Segment files: append-only but for the state at their head.
//!
//! A new segment is begun at every open, so a torn tail is never appended to. While the disk takes nothing,
//! the newest segment is a buffer in memory with the same content a file would have; it becomes that file as
//! soon as the disk is back. While it is not known what is in the directory, nothing is written there.

use super::disk::{Disk, DiskFile};
use super::heads::{HEAD_SLOT, head};
use super::reading::Ahead;
use super::state::{FRAMES_START, State};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

const SUFFIX: &str = ".seg";
/// A segment that is being written anew, before it takes the place of what it was.
const ASIDE_SUFFIX: &str = ".new";
/// A file with a higher number is not ours, unless a state of ours stands in it: we would have had to write some
/// hundred terabytes, or to go on after a file with just this number. Numbers must not run out because of it.
const FOUND_NUMBER_MAX: u32 = 1 << 31;
/// Names tried for a new segment while there is something in the way that is not ours.
const BEGIN_TRIES_MAX: u32 = 64;

/// Why the store could not do what it was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The directory went away under us.
    #[error("the queue's directory was removed")]
    Vanished,
    /// There is no such segment, or it is shorter than asked for.
    #[error("segment {0} holds nothing there")]
    Missing(u32),
    /// The stand-in memory is full.
    #[error("the memory that stands in for the disk is full")]
    MemoryFull,
    /// The byte budget has no room for a segment beside the one that it is to replace.
    #[error("the byte budget has no room for it")]
    OverBudget,
}

impl StoreError {
    /// Whether it is no use to try again: what was asked for is not there.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Io(error) => {
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
            }
            Self::Vanished | Self::Missing(_) | Self::MemoryFull | Self::OverBudget => true,
        }
    }
}

#[derive(Debug)]
pub(super) enum Place {
    File,
    Memory(Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Segment {
    /// Bytes that are whole: what was committed, or the file's length when it was found.
    pub(super) len: u64,
    pub(super) place: Place,
    /// Which slot the next state goes to: never the one that holds the last good one.
    pub(super) next_slot: u64,
    /// Bytes that were never committed could not be cut off.
    torn: bool,
}

impl Segment {
    fn new(len: u64, place: Place) -> Self {
        Self { len, place, next_slot: HEAD_SLOT ^ 1, torn: false }
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self.place, Place::File)
    }
}

/// The segment that takes appends.
pub(super) struct Active {
    pub(super) number: u32,
    next_ordinal: u32,
    /// `None` while the segment is in memory.
    pub(super) file: Option<Box<dyn DiskFile>>,
}

/// The segments of one queue directory.
pub(super) struct Segments {
    pub(super) disk: Box<dyn Disk>,
    pub(super) dir: PathBuf,
    memory_max_bytes: u64,
    pub(super) by_number: BTreeMap<u32, Segment>,
    pub(super) active: Option<Active>,
    next_number: u32,
    pub(super) readers: Vec<(u32, Box<dyn DiskFile>)>,
    pub(super) ahead: Ahead,
    /// The file that holds the latest state.
    pub(super) carrier: Option<u32>,
    /// Whether the directory's content is known. If not, nothing may be written there.
    listed: bool,
}

impl Segments {
    /// Opens `dir`, finding the segments that are there. Never fails: a directory that cannot be used is
    /// told in the second value, and the store then works in memory.
    pub(super) fn open(disk: Box<dyn Disk>, dir: &Path, memory_max_bytes: u64) -> (Self, Option<StoreError>) {
        let mut store = Self {
            disk,
            dir: dir.to_path_buf(),
            memory_max_bytes,
            by_number: BTreeMap::new(),
            active: None,
            next_number: 1,
            readers: Vec::new(),
            ahead: Ahead::default(),
            carrier: None,
            listed: false,
        };
        let problem = store.find().err();
        (store, problem)
    }

    fn find(&mut self) -> Result<(), StoreError> {
        if let Err(error) = self.disk.prepare(&self.dir) {
            // Where there is no directory there are no segments either: it may be made later.
            let listed = self.disk.list(&self.dir);
            self.listed = listed.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
            return Err(error.into());
        }
        for (name, len) in self.disk.list(&self.dir)? {
            let Some(number) = number_of(&name) else {
                // The process ended before it was whole, or before it took the place of the segment.
                if name.strip_suffix(ASIDE_SUFFIX).is_some_and(is_number) {
                    self.discard(&self.dir.join(name));
                }
                continue;
            };
            self.by_number.insert(number, Segment::new(len, Place::File));
            // What cannot be read just now may be ours.
            if number > FOUND_NUMBER_MAX && self.head(number).is_ok_and(|head| head.states.is_empty()) {
                self.by_number.remove(&number);
                continue;
            }
            self.next_number = self.next_number.max(number.saturating_add(1));
        }
        self.listed = true;
        Ok(())
    }

    /// Whether it is known what is in the directory.
    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Forgets what was found: the directory cannot be used now, and nothing may be written there.
    pub(super) fn unlist(&mut self) {
        self.by_number.clear();
        self.readers.clear();
        self.listed = false;
    }

    /// Looks at a directory again that could not be used before. What is in memory must have been taken out
    /// of the store: it is forgotten.
    ///
    /// # Errors
    /// If it still cannot be used; nothing has changed then.
    pub(super) fn look_again(&mut self) -> Result<(), StoreError> {
        let in_memory = std::mem::take(&mut self.by_number);
        match self.find() {
            Ok(()) => {
                self.active = None;
                self.ahead = Ahead::default();
                Ok(())
            }
            Err(error) => {
                self.by_number = in_memory;
                Err(error)
            }
        }
    }

    /// Takes a segment for somebody else's: it stays where it is, and is never read, counted or removed.
    pub(super) fn leave_alone(&mut self, number: u32) {
        self.by_number.remove(&number);
    }

    /// The number that the next new segment will have.
    pub(super) fn next_number(&self) -> u32 {
        self.next_number
    }

    /// Never hand out a segment number below `number`.
    pub(super) fn number_at_least(&mut self, number: u32) {
        self.next_number = self.next_number.max(number);
    }

    /// Numbers and lengths of all segments, oldest first.
    pub(super) fn all(&self) -> impl DoubleEndedIterator<Item = (u32, u64)> {
        self.by_number.iter().map(|(number, segment)| (*number, segment.len))
    }

    /// The oldest segment with a number of at least `from`.
    pub(super) fn first_from(&self, from: u32) -> Option<u32> {
        self.by_number.range(from..).next().map(|(number, _)| *number)
    }

    /// The committed length of a segment in bytes.
    pub(super) fn len(&self, number: u32) -> Option<u64> {
        self.by_number.get(&number).map(|segment| segment.len)
    }

    /// The segment that takes appends, if one does.
    pub(super) fn active(&self) -> Option<u32> {
        self.active.as_ref().map(|active| active.number)
    }

    /// Bytes on disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.by_number.values().filter(|segment| segment.is_file()).map(|segment| segment.len).sum()
    }

    /// Bytes in memory that are meant for the disk.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.by_number.values().filter(|segment| !segment.is_file()).map(|segment| segment.len).sum()
    }

    /// Whether the segment in memory takes so many bytes more.
    pub(super) fn has_memory_for(&self, size: u64) -> bool {
        let len = self.active().and_then(|number| self.len(number)).unwrap_or_default();
        len + size <= self.memory_max_bytes
    }

    /// Where the next frame of the active segment goes: its segment and ordinal.
    pub(super) fn position(&self) -> Option<(u32, u32)> {
        self.active.as_ref().map(|active| (active.number, active.next_ordinal))
    }

    /// Begins a new segment file that takes the appends from now on.
    ///
    /// # Errors
    /// If the directory or the file cannot be made or written; nothing has changed then.
    pub(super) fn begin(&mut self, state: &State) -> Result<(), StoreError> {
        if !self.listed {
            return Err(StoreError::Vanished);
        }
        self.disk.prepare(&self.dir)?;
        self.trim();
        let (number, file) = self.create()?;
        if let Err(error) = file.write_all_at(&head(number, state), 0) {
            self.discard(&self.path(number));
            return Err(error.into());
        }
        self.by_number.insert(number, Segment::new(FRAMES_START, Place::File));
        self.activate(number, Some(file));
        self.carrier = Some(number);
        Ok(())
    }

    /// Makes the file of a new segment, with the next number that is free.
    fn create(&mut self) -> Result<(u32, Box<dyn DiskFile>), StoreError> {
        let mut tries = 0;
        loop {
            let number = self.next_number;
            match self.disk.create(&self.path(number)) {
                Ok(file) => return Ok((number, file)),
                // Half of a segment that could not be removed, or nothing of ours.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < BEGIN_TRIES_MAX => {
                    tries += 1;
                    self.next_number = number.saturating_add(1);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Begins a new segment in memory.
    pub(super) fn begin_in_memory(&mut self, state: &State) {
        let number = self.next_number;
        self.by_number.insert(number, Segment::new(FRAMES_START, Place::Memory(head(number, state))));
        self.activate(number, None);
    }

    fn activate(&mut self, number: u32, file: Option<Box<dyn DiskFile>>) {
        let before = self.active.replace(Active { number, next_ordinal: 0, file });
        // An open file is readable even after its name was removed.
        if let Some(Active { number, file: Some(file), .. }) = before {
            self.keep_reader(number, file);
        }
        self.next_number = number.saturating_add(1);
    }

    /// Appends `frames` whole frames to the active segment and returns the offset of the first.
    ///
    /// # Errors
    /// Nothing of it is kept if this fails; the segment may then have to be left for a new one.
    pub(super) fn append(&mut self, bytes: &[u8], frames: u32) -> Result<u64, StoreError> {
        let active = self.active.as_mut().ok_or(StoreError::Missing(0))?;
        let segment = self.by_number.get_mut(&active.number).ok_or(StoreError::Missing(active.number))?;
        let offset = segment.len;
        match (&mut segment.place, &active.file) {
            (Place::Memory(kept), _) => {
                if offset + bytes.len() as u64 > self.memory_max_bytes {
                    return Err(StoreError::MemoryFull);
                }
                kept.extend_from_slice(bytes);
            }
            (Place::File, Some(file)) => {
                if !file.is_linked()? {
                    return Err(StoreError::Vanished);
                }
                if let Err(error) = file.write_all_at(bytes, offset) {
                    // If this fails too, it is tried again before the next segment is begun.
                    segment.torn = file.set_len(offset).is_err();
                    return Err(error.into());
                }
            }
            (Place::File, None) => return Err(StoreError::Missing(active.number)),
        }
        segment.len = offset + bytes.len() as u64;
        active.next_ordinal = active.next_ordinal.saturating_add(frames);
        Ok(offset)
    }

    /// Cuts off what was never committed, where that failed before.
    fn trim(&mut self) {
        for (number, segment) in self.by_number.iter_mut().filter(|(_, segment)| segment.torn) {
            let cut =
                self.disk.open(&self.dir.join(file_name(*number))).and_then(|file| file.set_len(segment.len));
            segment.torn = cut.is_err();
        }
    }

    /// From now on an append is refused where there is no file to take it.
    pub(super) fn keep_nothing_in_memory(&mut self) {
        self.memory_max_bytes = 0;
    }

    /// Turns the segment in memory into a file.
    ///
    /// # Errors
    /// If the disk still takes nothing; the segment stays in memory then.
    pub(super) fn move_to_disk(&mut self) -> Result<(), StoreError> {
        let Some(active) = self.active.as_mut().filter(|active| active.file.is_none()) else { return Ok(()) };
        if !self.listed {
            return Err(StoreError::Vanished);
        }
        let Some(Segment { place: Place::Memory(bytes), .. }) = self.by_number.get(&active.number) else {
            return Err(StoreError::Missing(active.number));
        };
        self.disk.prepare(&self.dir)?;
        let path = self.dir.join(file_name(active.number));
        let file = match self.disk.create(&path) {
            // Half of it, from an attempt that failed and could not be taken back.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.disk.open(&path)?,
            made => made?,
        };
        if let Err(error) = file.set_len(0).and_then(|()| file.write_all_at(bytes, 0)) {
            drop(self.disk.remove(&path));
            return Err(error.into());
        }
        if let Some(segment) = self.by_number.get_mut(&active.number) {
            segment.place = Place::File;
        }
        self.carrier = Some(active.number);
        active.file = Some(file);
        self.trim();
        Ok(())
    }

    /// Removes a segment. A file that cannot be removed is no longer ours to count; the next start finds it
    /// done and tries again.
    pub(super) fn remove(&mut self, number: u32) {
        self.readers.retain(|(open, _)| *open != number);
        if self.active() == Some(number) {
            self.active = None;
        }
        if self.ahead.number == number {
            self.ahead = Ahead::default();
        }
        if let Some(Segment { place: Place::File, .. }) = self.by_number.remove(&number) {
            let path = self.path(number);
            self.discard(&path);
        }
    }

    /// Writes what segment `number` is to be, beside it.
    ///
    /// # Errors
    /// If the disk does not take it.
    pub(super) fn write_aside(&mut self, number: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.aside(number);
        self.disk.remove_all(&path)?;
        Ok(self.disk.create(&path)?.write_all_at(bytes, 0)?)
    }

    /// What was written beside segment `number`, `len` bytes, takes its place.
    ///
    /// # Errors
    /// If it cannot be renamed; the segment is what it was.
    pub(super) fn replace(&mut self, number: u32, len: u64) -> Result<(), StoreError> {
        self.disk.rename(&self.aside(number), &self.path(number))?;
        self.readers.retain(|(open, _)| *open != number);
        if self.ahead.number == number {
            self.ahead = Ahead::default();
        }
        if let Some(segment) = self.by_number.get_mut(&number) {
            *segment = Segment::new(len, Place::File);
        }
        Ok(())
    }

    /// Removes the file of segment `number`, which has to work.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(super) fn unlink(&mut self, number: u32) -> Result<(), StoreError> {
        Ok(self.disk.remove(&self.path(number))?)
    }

    /// What was written beside segment `number` is not needed.
    pub(super) fn discard_aside(&self, number: u32) {
        self.discard(&self.aside(number));
    }

    fn aside(&self, number: u32) -> PathBuf {
        self.path(number).with_extension(ASIDE_SUFFIX.trim_start_matches('.'))
    }

    fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }

    pub(super) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(file_name(number))
    }
}

fn file_name(number: u32) -> String {
    format!("{number:010}{SUFFIX}")
}

fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    digits.parse().ok().filter(|_| is_number(digits))
}

fn is_number(digits: &str) -> bool {
    digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::disk::RealDisk;

    fn open(dir: &Path) -> Segments {
        let (store, problem) = Segments::open(Box::new(RealDisk), dir, 1 << 20);
        assert!(problem.is_none(), "{problem:?}");
        store
    }

    #[test]
    fn what_was_appended_is_read_back_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.begin(&State { generation: 3, ..State::default() }).unwrap();
        let offset = store.append(b"frame", 1).unwrap();
        let mut reopened = open(dir.path());
        let mut buf = [0; 5];
        reopened.read(1, &mut buf, offset).unwrap();
        assert_eq!(&buf, b"frame");
        assert_eq!(reopened.head(1).unwrap().states.iter().map(|s| s.generation).max(), Some(3));
        assert!(reopened.read(1, &mut buf, offset + 1).is_err());
    }

    #[test]
    fn a_state_is_updated_in_place_and_the_one_before_survives_damage() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.begin(&State { generation: 1, ..State::default() }).unwrap();
        for generation in 2..=7 {
            store.write_state(&State { generation, ..State::default() }).unwrap();
        }
        assert_eq!(store.len(1), Some(FRAMES_START));
        let mut generations: Vec<_> = store.head(1).unwrap().states.iter().map(|s| s.generation).collect();
        generations.sort_unstable();
        assert_eq!(generations, [6, 7]);
    }

    #[test]
    fn a_segment_in_memory_becomes_the_file_it_would_have_been() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.begin_in_memory(&State::default());
        let offset = store.append(b"kept", 1).unwrap();
        assert_eq!(store.disk_bytes(), 0);
        store.move_to_disk().unwrap();
        store.append(b"more", 1).unwrap();
        let mut buf = [0; 8];
        open(dir.path()).read(1, &mut buf, offset).unwrap();
        assert_eq!(&buf, b"keptmore");
    }

    #[test]
    fn a_removed_directory_is_noticed_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue");
        let mut store = open(&path);
        store.begin(&State::default()).unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        assert!(matches!(store.append(b"x", 1), Err(StoreError::Vanished)));
        store.begin(&State::default()).unwrap();
        store.append(b"x", 1).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("queue");
        std::os::unix::fs::symlink(dir.path(), &link).unwrap();
        let (mut store, problem) = Segments::open(Box::new(RealDisk), &link, 1 << 20);
        assert!(problem.is_some());
        assert!(store.begin(&State::default()).is_err());
        store.begin_in_memory(&State::default());
        store.append(b"x", 1).unwrap();
    }

    #[test]
    fn memory_takes_what_it_may_hold_to_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Segments::open(Box::new(RealDisk), dir.path(), FRAMES_START + 10);
        store.begin_in_memory(&State::default());
        store.append(b"1", 1).unwrap();
        assert!(store.has_memory_for(9) && !store.has_memory_for(10));
        assert!(matches!(store.append(b"2345678901", 1), Err(StoreError::MemoryFull)));
        store.append(b"234567890", 1).unwrap();
        assert!(store.has_memory_for(0) && !store.has_memory_for(1));
        assert_eq!((store.memory_bytes(), store.disk_bytes()), (FRAMES_START + 10, 0));
        store.move_to_disk().unwrap();
        assert_eq!((store.memory_bytes(), store.disk_bytes()), (0, FRAMES_START + 10));
    }

    #[test]
    fn half_of_a_segment_that_could_not_be_taken_back_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.begin_in_memory(&State::default());
        let offset = store.append(b"kept", 1).unwrap();
        std::fs::write(store.path(1), vec![7; 9_000]).unwrap();
        store.move_to_disk().unwrap();
        assert_eq!(std::fs::read(store.path(1)).unwrap().get(offset as usize..), Some(&b"kept"[..]));
    }

    #[test]
    fn numbers_that_are_taken_are_passed_over_but_not_without_end() {
        for (taken, begins) in [(BEGIN_TRIES_MAX, true), (BEGIN_TRIES_MAX + 1, false)] {
            let dir = tempfile::tempdir().unwrap();
            let mut store = open(dir.path());
            for number in 1..=taken {
                std::fs::write(store.path(number), b"somebody else's").unwrap();
            }
            assert_eq!(store.begin(&State::default()).is_ok(), begins);
            assert_eq!(store.active(), begins.then_some(taken + 1));
        }
    }

    #[test]
    fn numbers_go_up_only() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.number_at_least(7);
        store.begin(&State::default()).unwrap();
        store.number_at_least(3);
        assert_eq!((store.active(), store.next_number()), (Some(7), 8));
        assert_eq!(open(dir.path()).next_number(), 8);
    }

    #[test]
    fn what_takes_the_place_of_a_segment_is_what_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.begin(&State::default()).unwrap();
        let offset = store.append(b"before", 1).unwrap();
        store.begin(&State::default()).unwrap();
        let other = store.append(b"other", 1).unwrap();
        let mut buf = [0; 5];
        store.read(1, &mut buf, offset).unwrap();
        assert_eq!(&buf, b"befor");
        let mut bytes = std::fs::read(store.path(1)).unwrap();
        bytes.truncate(offset as usize);
        bytes.extend_from_slice(b"after");
        store.write_aside(1, &bytes).unwrap();
        store.replace(1, bytes.len() as u64).unwrap();
        store.read(1, &mut buf, offset).unwrap();
        assert_eq!((&buf, store.len(1)), (b"after", Some(bytes.len() as u64)));
        store.remove(1);
        assert!(store.read(1, &mut buf, offset).is_err());
        store.read(2, &mut buf, other).unwrap();
        assert_eq!((&buf, store.disk_bytes()), (b"other", FRAMES_START + 5));
    }

    #[test]
    fn only_names_of_segments_are_segments() {
        assert_eq!(number_of("0000000012.seg"), Some(12));
        for name in ["12.seg", "+000000012.seg", "0000000012", "000000001a.seg", "9999999999.seg", ".seg"] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }
}
