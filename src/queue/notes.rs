//! The index from outside: what is noted in it, what was found, and a thread that nobody waits for.

use super::disk::bytes_on_disk_below;
use super::index::Worker;
use super::state::State;
use super::types::Waiting;
use crate::PerSignal;
use std::collections::{BTreeMap, VecDeque};
use std::fs::Metadata;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

/// Entries on their way to the index. If so many pile up it hangs, and is given up until the next start.
pub(super) const PENDING_ENTRIES_MAX: usize = 4096;
/// Deliveries in one row, which then stays below 4 KiB.
pub(super) const DELIVERIES_PER_ROW_MAX: usize = 250;

/// What a closed segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentRow {
    /// Its length in bytes.
    pub len: u64,
    /// All blocks ever written to it, by signal.
    pub written: PerSignal<Waiting>,
}

/// A change to be noted.
#[derive(Clone, Debug)]
pub enum Entry {
    /// The state, after something was done.
    State(Box<State>),
    /// A segment was closed.
    Closed(u32, SegmentRow),
    /// A segment was removed.
    Removed(u32),
    /// Deliveries that are kept, or were; at most `DELIVERIES_PER_ROW_MAX`.
    Deliveries(Vec<u128>),
}

/// What the index knew when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The state it saw last.
    pub state: Option<State>,
    /// Closed segments.
    pub segments: BTreeMap<u32, SegmentRow>,
    /// Deliveries, oldest first.
    pub deliveries: Vec<u128>,
}

/// The index's thread, from outside.
#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    entries: Option<SyncSender<Entry>>,
    given_up: bool,
    bytes: Arc<AtomicU64>,
    /// Brings what was found, once, while that is still to come.
    found: Option<Receiver<Found>>,
    taken: bool,
}

impl Index {
    /// An index in `dir`, a directory of its own. If there is one it is opened now, else with the first entry.
    pub fn new(dir: PathBuf) -> Self {
        let found = dir.symlink_metadata();
        // The budget has to know of it before it is open, which may take long. A link is not followed.
        let bytes = if found.as_ref().is_ok_and(Metadata::is_dir) { bytes_on_disk_below(&dir) } else { 0 };
        let bytes = Arc::new(AtomicU64::new(bytes));
        let mut index = Self { dir, entries: None, given_up: false, bytes, found: None, taken: false };
        if found.is_ok() {
            index.start();
        } else {
            index.taken = true;
        }
        index
    }

    fn start(&mut self) {
        let (entries, inbox) = sync_channel(PENDING_ENTRIES_MAX);
        let (tell, found) = sync_channel(1);
        let worker = Worker {
            dir: self.dir.clone(),
            bytes: Arc::clone(&self.bytes),
            found: tell,
            delivery_rows: VecDeque::new(),
        };
        match thread::Builder::new().name("index".into()).spawn(move || worker.run(&inbox)) {
            Ok(_) => {
                self.entries = Some(entries);
                self.found = Some(found);
            }
            Err(error) => self.give_up(&error),
        }
    }

    fn give_up(&mut self, why: &dyn std::fmt::Display) {
        if !self.given_up {
            log::warn!("index: left alone until the next start: {why}");
        }
        self.given_up = true;
        self.entries = None;
    }

    /// Notes a change. Never waits.
    pub fn note(&mut self, entry: Entry) {
        if self.given_up {
            return;
        }
        if self.entries.is_none() {
            self.start();
        }
        let refused = self.entries.as_ref().is_some_and(|entries| entries.try_send(entry).is_err());
        if refused {
            self.give_up(&"it does not keep up");
        }
    }

    /// What was found at open, once, as soon as it is known; waits for that at most so long.
    pub fn take_found(&mut self, wait: Duration) -> Option<Found> {
        if self.taken {
            return None;
        }
        let found = self.found.as_ref()?.recv_timeout(wait).ok()?;
        self.taken = true;
        self.found = None;
        Some(found)
    }

    /// Whether what it found is still to come.
    pub fn is_opening(&self) -> bool {
        !self.taken && !self.given_up
    }

    /// An index without a thread, and what is noted in it.
    #[cfg(test)]
    pub(super) fn tapped() -> (Self, Receiver<Entry>) {
        let (entries, noted) = sync_channel(PENDING_ENTRIES_MAX);
        let mut index = Self::new(PathBuf::from("/dev/null/index"));
        index.entries = Some(entries);
        (index, noted)
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_does_not_keep_up_is_left_alone_for_good() {
        let (mut index, noted) = Index::tapped();
        for number in 0..PENDING_ENTRIES_MAX as u32 {
            index.note(Entry::Removed(number));
        }
        index.note(Entry::Removed(u32::MAX));
        assert_eq!(noted.try_iter().count(), PENDING_ENTRIES_MAX);
        index.note(Entry::Removed(0));
        assert_eq!(noted.try_iter().count(), 0, "there is room, but nobody to note anything");
    }

    #[test]
    fn what_it_takes_is_known_before_it_is_open() {
        const BYTES: usize = 100 << 10;
        let dir = tempfile::tempdir().unwrap();
        let (index, link) = (dir.path().join("index"), dir.path().join("link"));
        std::fs::create_dir(&index).unwrap();
        std::fs::write(index.join("db.old"), vec![0xa5; BYTES]).unwrap();
        std::os::unix::fs::symlink(&index, &link).unwrap();
        assert!(Index::new(link).bytes() < BYTES as u64, "what is behind a link is not ours");
        assert!(Index::new(index).bytes() >= BYTES as u64);
    }

    #[test]
    fn it_is_opening_until_what_it_found_was_taken() {
        const LONG: Duration = Duration::from_secs(60);
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::new(dir.path().to_path_buf());
        assert!(index.is_opening());
        assert!(index.take_found(LONG).is_some());
        assert!(!index.is_opening());
        assert!(index.take_found(LONG).is_none());
        while index.bytes() <= 1 {
            // It is measured once it is open: a block of the disk at least.
            thread::yield_now();
        }
        assert!(!Index::new(dir.path().join("missing")).is_opening(), "there is nothing to be found");
        let mut index = Index::new(dir.path().to_path_buf());
        index.give_up(&"a test");
        assert!(!index.is_opening(), "it is not waited for");
    }
}
