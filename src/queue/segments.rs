//! Segment files: append-only but for the state at their head.
//!
//! A process begins a segment of its own with its first write, so a torn tail is never appended to. While the
//! disk takes nothing, the newest segment is a buffer in memory with the same content a file would have; it
//! becomes that file as soon as the disk is back.

use super::disk::{Disk, DiskFile};
use super::state::{FRAMES_START, SLOT_BYTES, SLOTS, State};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

const SUFFIX: &str = ".seg";
/// Open files kept for reading: one for each signal's place in the queue.
const OPEN_READERS_MAX: usize = 3;

/// Reads up to this length are headers, which follow one another: they are served from what was read ahead.
const HEADER_READ_MAX_BYTES: usize = 256;
/// Read ahead for headers: some 25 of small frames in one call, and little wasted on large ones.
const AHEAD_BYTES: u64 = 16 << 10;

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
}

#[derive(Debug)]
enum Place {
    File,
    Memory(Vec<u8>),
}

#[derive(Debug)]
struct Segment {
    /// Bytes that are whole: what was committed, or the file's length when it was found.
    len: u64,
    place: Place,
}

/// The segment that takes appends.
struct Active {
    number: u32,
    next_ordinal: u32,
    /// `None` while the segment is in memory.
    file: Option<Box<dyn DiskFile>>,
}

/// A piece of a closed segment, which does not change any more.
#[derive(Debug, Default)]
struct Ahead {
    segment: u32,
    offset: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    /// Fills `buf` if all of it was read.
    fn copy(&self, segment: u32, buf: &mut [u8], offset: u64) -> bool {
        let start = offset.checked_sub(self.offset).and_then(|start| usize::try_from(start).ok());
        let found = start.and_then(|start| self.bytes.get(start..)?.get(..buf.len()));
        let Some(found) = found.filter(|_| self.segment == segment) else { return false };
        buf.copy_from_slice(found);
        true
    }
}

/// The segments of one queue directory.
pub(super) struct Segments {
    disk: Box<dyn Disk>,
    dir: PathBuf,
    memory_max_bytes: u64,
    by_number: BTreeMap<u32, Segment>,
    active: Option<Active>,
    next_number: u32,
    readers: Vec<(u32, Box<dyn DiskFile>)>,
    ahead: Ahead,
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
            listed: false,
        };
        let problem = store.find().err();
        (store, problem)
    }

    fn find(&mut self) -> Result<(), StoreError> {
        if let Err(error) = self.disk.prepare(&self.dir) {
            // Where there is no directory there are no segments either: it may be made later.
            self.listed = error.kind() != io::ErrorKind::PermissionDenied
                && error.kind() != io::ErrorKind::NotADirectory;
            return Err(error.into());
        }
        for (name, len) in self.disk.list(&self.dir)? {
            if let Some(number) = number_of(&name) {
                self.by_number.insert(number, Segment { len, place: Place::File });
                self.next_number = self.next_number.max(number.saturating_add(1));
            }
        }
        self.listed = true;
        Ok(())
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
        self.by_number.values().filter(|s| matches!(s.place, Place::File)).map(|s| s.len).sum()
    }

    /// The valid states found in the head of segment `number`.
    pub(super) fn states(&mut self, number: u32) -> Vec<State> {
        let mut head = [0; SLOT_BYTES];
        (0..SLOTS)
            .filter_map(|slot| {
                self.read(number, &mut head, slot * SLOT_BYTES as u64).ok()?;
                State::decode(&head, number)
            })
            .collect()
    }

    /// Reads from a segment.
    ///
    /// # Errors
    /// [`StoreError::Missing`] beyond its end, [`StoreError::Io`] if the file cannot be read.
    pub(super) fn read(&mut self, number: u32, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let segment = self.by_number.get(&number).ok_or(StoreError::Missing(number))?;
        let end = offset.checked_add(buf.len() as u64).ok_or(StoreError::Missing(number))?;
        if end > segment.len {
            return Err(StoreError::Missing(number));
        }
        if let Place::Memory(bytes) = &segment.place {
            let found = usize::try_from(offset)
                .ok()
                .and_then(|start| bytes.get(start..)?.get(..buf.len()))
                .ok_or(StoreError::Missing(number))?;
            buf.copy_from_slice(found);
            return Ok(());
        }
        if let Some(file) =
            self.active.as_ref().filter(|active| active.number == number).and_then(|a| a.file.as_ref())
        {
            return Ok(file.read_exact_at(buf, offset)?);
        }
        let len = segment.len;
        if buf.len() > HEADER_READ_MAX_BYTES {
            return self.read_closed(number, buf, offset);
        }
        if !self.ahead.copy(number, buf, offset) {
            let mut ahead = std::mem::take(&mut self.ahead);
            ahead.bytes.resize(usize::try_from(AHEAD_BYTES.min(len - offset)).unwrap_or_default(), 0);
            if self.read_closed(number, &mut ahead.bytes, offset).is_err() {
                // A file that was cut short behind our back may still hold what was asked for.
                return self.read_closed(number, buf, offset);
            }
            self.ahead = Ahead { segment: number, offset, ..ahead };
            self.ahead.copy(number, buf, offset);
        }
        Ok(())
    }

    /// Reads from a segment that takes no appends.
    fn read_closed(&mut self, number: u32, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
        if let Some((_, file)) = self.readers.iter().find(|(open, _)| *open == number) {
            return Ok(file.read_exact_at(buf, offset)?);
        }
        let file = self.disk.open(&self.path(number))?;
        file.read_exact_at(buf, offset)?;
        if self.readers.len() == OPEN_READERS_MAX {
            self.readers.remove(0);
        }
        self.readers.push((number, file));
        Ok(())
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
        let number = self.next_number;
        self.disk.prepare(&self.dir)?;
        let path = self.path(number);
        let file = self.disk.create(&path)?;
        if let Err(error) = write_head(file.as_ref(), number, state) {
            self.discard(&path);
            return Err(error.into());
        }
        self.by_number.insert(number, Segment { len: FRAMES_START, place: Place::File });
        self.activate(number, Some(file));
        Ok(())
    }

    /// Begins a new segment in memory.
    pub(super) fn begin_in_memory(&mut self, state: &State) {
        let number = self.next_number;
        self.by_number
            .insert(number, Segment { len: FRAMES_START, place: Place::Memory(head(number, state)) });
        self.activate(number, None);
    }

    fn activate(&mut self, number: u32, file: Option<Box<dyn DiskFile>>) {
        self.active = Some(Active { number, next_ordinal: 0, file });
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
                    // If this fails too, the torn frame stays behind: whoever scans the segment skips it.
                    drop(file.set_len(offset));
                    return Err(error.into());
                }
            }
            (Place::File, None) => return Err(StoreError::Missing(active.number)),
        }
        segment.len = offset + bytes.len() as u64;
        active.next_ordinal = active.next_ordinal.saturating_add(frames);
        Ok(offset)
    }

    /// Writes `state` into the head of the active segment.
    ///
    /// # Errors
    /// If there is no active segment or the file cannot be written; the state before it stays valid.
    pub(super) fn write_state(&mut self, state: &State) -> Result<(), StoreError> {
        let active = self.active.as_ref().ok_or(StoreError::Missing(0))?;
        let slot = state.encode(active.number);
        let offset = state.slot_offset();
        if let Some(file) = &active.file {
            return Ok(file.write_all_at(&slot, offset)?);
        }
        if let Some(Segment { place: Place::Memory(bytes), .. }) = self.by_number.get_mut(&active.number)
            && let Ok(start) = usize::try_from(offset)
            && let Some(found) = bytes.get_mut(start..).and_then(|rest| rest.get_mut(..slot.len()))
        {
            found.copy_from_slice(&slot);
        }
        // The files on disk should know as well: the newest of them carries the state of all.
        let newest =
            self.by_number.iter().rev().find(|(_, s)| matches!(s.place, Place::File)).map(|(n, _)| *n);
        if let Some(number) = newest {
            let file = self.disk.open(&self.path(number))?;
            file.write_all_at(&state.encode(number), offset)?;
        }
        Ok(())
    }

    /// Turns the segment in memory into a file.
    ///
    /// # Errors
    /// If the disk still takes nothing; the segment stays in memory then.
    pub(super) fn move_to_disk(&mut self) -> Result<(), StoreError> {
        if !self.listed {
            self.list_late()?;
        }
        let Some(active) = self.active.as_mut().filter(|active| active.file.is_none()) else { return Ok(()) };
        let Some(Segment { place: Place::Memory(bytes), .. }) = self.by_number.get(&active.number) else {
            return Err(StoreError::Missing(active.number));
        };
        self.disk.prepare(&self.dir)?;
        let path = self.dir.join(file_name(active.number));
        let file = self.disk.create(&path)?;
        if let Err(error) = file.write_all_at(bytes, 0) {
            drop(self.disk.remove(&path));
            return Err(error.into());
        }
        if let Some(segment) = self.by_number.get_mut(&active.number) {
            segment.place = Place::File;
        }
        active.file = Some(file);
        Ok(())
    }

    /// A directory that could not be used at open may be used once it is known to hold no segments: those of others
    /// could have our numbers. Segments that turn up late are found by the next start.
    fn list_late(&mut self) -> Result<(), StoreError> {
        self.disk.prepare(&self.dir)?;
        if self.disk.list(&self.dir)?.iter().any(|(name, _)| number_of(name).is_some()) {
            return Err(StoreError::Vanished);
        }
        self.listed = true;
        Ok(())
    }

    /// Removes a segment. A file that cannot be removed is no longer ours to count; the next start finds it
    /// done and tries again.
    pub(super) fn remove(&mut self, number: u32) {
        self.readers.retain(|(open, _)| *open != number);
        self.ahead = Ahead::default();
        if self.active() == Some(number) {
            self.active = None;
        }
        if let Some(Segment { place: Place::File, .. }) = self.by_number.remove(&number) {
            let path = self.path(number);
            self.discard(&path);
        }
    }

    fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            log::warn!("cannot remove {}: {error}", path.display());
        }
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(file_name(number))
    }
}

fn head(number: u32, state: &State) -> Vec<u8> {
    let mut head = vec![0; SLOT_BYTES];
    let slot = state.encode(number);
    // Into the slot that the next generation does not go to.
    if state.slot_offset() == 0 {
        head.splice(0..0, slot);
    } else {
        head.extend_from_slice(&slot);
    }
    head
}

fn write_head(file: &dyn DiskFile, number: u32, state: &State) -> io::Result<()> {
    file.write_all_at(&head(number, state), 0)
}

fn file_name(number: u32) -> String {
    format!("{number:010}{SUFFIX}")
}

fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(SUFFIX)?;
    (digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
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
        assert_eq!(reopened.states(1).iter().map(|s| s.generation).max(), Some(3));
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
        let mut generations: Vec<_> = store.states(1).iter().map(|s| s.generation).collect();
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
}
