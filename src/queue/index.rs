//! The index beside the segments: the only file that names sled and bincode.
//!
//! It holds what would otherwise have to be read from the segments at start: counts of closed segments, the
//! state where no segment has it, and the deliveries of late: rows of `DELIVERIES_PER_ROW_MAX` hashes, noted when a segment
//! closes or a row is full. Each of these is flushed; a request that is acknowledged notes nothing. **No record rests on it**; without it a repeat of what was delivered by
//! an earlier process, and removed, goes unnoticed. sled 0.34 can open a damaged file without an error and with rows
//! missing, panic, be poisoned by a full disk, or hang in a flush; so
//! - its rows are never the list of what exists (the directory is); counts and state carry a CRC-32 of ours, and a
//!   damaged hash is that of no delivery;
//! - it lives on a thread of its own behind a bounded channel, and nobody waits for that thread, but for the first
//!   delivery of a process, a bounded time;
//! - every call is guarded against panics; after an error it is opened anew, at the third it is left alone;
//! - if it does not open it is removed and begun anew;
//! - values stay below 4 KiB, and a file that has grown is written anew: sled never shrinks one.

use super::bytes::crc32;
use super::disk::{DIRECTORY_MODE, Disk, RealDisk, bytes_on_disk_below, keep_private_below};
use super::notes::{Entry, Found, SegmentRow};
use super::state::{SLOT_BYTES, State};
use super::types::Waiting;
use crate::Signal;
use bincode::config::standard;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::thread;
use std::time::Duration;
use thiserror::Error;

/// Deliveries kept at least; as many as the queue remembers.
const DELIVERIES_KEPT: usize = super::REMEMBERED_DELIVERIES_MAX;
/// A larger index is written anew. Its live rows take some 200 KiB at most.
const INDEX_MAX_BYTES: u64 = 768 << 10;
/// sled's IO threads let go of the lock a little after their handle is dropped (seen: up to 2.3 ms).
const LOCK_RETRIES: u32 = 10;
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(5);
/// Rows after which its size is looked at, unless it was flushed before: its directory is read for it.
const MEASURE_EVERY_ENTRIES: usize = 256;
/// What is written before its size is looked at again, however much has piled up: one row of deliveries, or so many
/// others. sled writes a page of up to 64 KiB anew for each of them now and then, so it grows by 110 KiB at once at most
/// (seen), which is less than the smallest segment.
const APPLIED_MAX_BYTES: usize = 4 << 10;
/// What any other row counts for.
const ROW_BYTES: usize = 256;
/// Errors after which the index is left alone until the next start.
const FAILURES_MAX: u32 = 3;
/// sled's own cache. It bounds little; small values do.
const CACHE_BYTES: u64 = 1 << 20;

const STATE_KEY: &[u8] = b"state";
const SEGMENT_PREFIX: u8 = b'f';
const DELIVERY_PREFIX: u8 = b'd';

/// Why the index could not be used. Never more than a line in the log.
#[derive(Debug, Error)]
pub enum IndexError {
    /// sled said so.
    #[error("{0}")]
    Sled(#[from] sled::Error),
    /// sled panicked.
    #[error("sled panicked")]
    Panicked,
    /// The file system said so.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A row as bincode writes it: length, then blocks, records and plain bytes of each signal.
#[derive(Serialize, Deserialize)]
struct StoredRow {
    len: u64,
    written: [(u64, u64, u64); 3],
}

/// Runs on the index's own thread.
pub(super) struct Worker {
    pub(super) dir: PathBuf,
    pub(super) bytes: Arc<AtomicU64>,
    pub(super) found: SyncSender<Found>,
    /// Rows of deliveries, oldest first: where each is, and how many it holds.
    pub(super) delivery_rows: VecDeque<(u64, usize)>,
}

impl Worker {
    pub(super) fn run(mut self, inbox: &Receiver<Entry>) {
        self.remove_rest();
        let mut db = match self.open() {
            Ok((db, found)) => {
                drop(self.found.try_send(found));
                Some(db)
            }
            Err(error) => {
                log::warn!("index: cannot be opened ({error}); the segments are enough");
                drop(self.found.try_send(Found::default()));
                None
            }
        };
        self.measure();
        let mut failures = 0;
        let mut unmeasured = MEASURE_EVERY_ENTRIES;
        while let Ok(first) = inbox.recv() {
            let entries = few(first, inbox.try_iter());
            let Some(open) = &db else { continue };
            unmeasured = unmeasured.saturating_add(entries.len());
            match self.apply(open, &entries) {
                Ok(false) if unmeasured < MEASURE_EVERY_ENTRIES => continue,
                Ok(_) => {}
                Err(error) => {
                    failures += 1;
                    log::warn!("index: {error}; the segments are enough");
                    // After an error the handle is poisoned for good; a new one works.
                    drop_guarded(db.take());
                    if failures < FAILURES_MAX {
                        db = self.open().ok().map(|(db, _)| db);
                    }
                }
            }
            unmeasured = 0;
            if self.measure() > INDEX_MAX_BYTES
                && let Some(open) = db.take()
            {
                db = self.write_anew(open);
            }
        }
        drop_guarded(db);
    }

    /// Looks how much it takes on disk, what could not be removed included, and that nobody else may read it.
    fn measure(&self) -> u64 {
        keep_private_below(&self.dir);
        let bytes = bytes_on_disk_below(&self.dir).saturating_add(bytes_on_disk_below(&self.trash()));
        self.bytes.store(bytes, Ordering::Relaxed);
        bytes
    }

    /// Opens the database, whatever state it is in: as it is, then without what sled can do without, then anew.
    fn open(&mut self) -> Result<(sled::Db, Found), IndexError> {
        if is_led_astray(&self.dir)? {
            self.discard()?;
            log::warn!(
                "index: not a directory of its own, removed and begun anew; the segments have everything"
            );
        }
        // sled would make it readable for everybody.
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&self.dir)?;
        match self.open_retrying_lock() {
            Ok(opened) => return Ok(opened),
            // Somebody else has it open: its files are not ours to touch.
            Err(error) if is_locked(&error) => return Err(error),
            Err(_) => {}
        }
        for name in files_to_do_without(&self.dir) {
            drop(fs::remove_file(name));
        }
        if let Ok(opened) = self.open_retrying_lock() {
            return Ok(opened);
        }
        self.discard()?;
        log::warn!("index: damaged, removed and begun anew; the segments have everything");
        self.open_retrying_lock()
    }

    fn open_retrying_lock(&mut self) -> Result<(sled::Db, Found), IndexError> {
        let mut tries = 0;
        loop {
            match self.open_once() {
                Err(error) if is_locked(&error) && tries < LOCK_RETRIES => {
                    tries += 1;
                    thread::sleep(LOCK_RETRY_PAUSE);
                }
                done => return done,
            }
        }
    }

    fn open_once(&mut self) -> Result<(sled::Db, Found), IndexError> {
        let dir = self.dir.clone();
        let (db, found, delivery_rows) = guarded(move || {
            let db = sled::Config::new().path(dir).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
            let (found, delivery_rows) = read(&db)?;
            Ok((db, found, delivery_rows))
        })?;
        self.delivery_rows = delivery_rows;
        Ok((db, found))
    }

    /// Removes the files, or what stands in their place. Links are not followed. Renamed first: a removal that is cut short must not leave half a database under the name.
    fn discard(&self) -> Result<(), IndexError> {
        self.remove_rest();
        match fs::rename(&self.dir, self.trash()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.remove_rest();
        Ok(())
    }

    fn trash(&self) -> PathBuf {
        self.dir.with_extension("trash")
    }

    /// What a process that died within [`discard`](Self::discard) left.
    fn remove_rest(&self) {
        drop(RealDisk.remove_all(&self.trash()));
    }

    /// Writes what `entries` say, row by row: nothing rests on their being there together, and a batch makes
    /// sled write its log out at once, through a pool of threads (0.2 ms of CPU each time). Returns whether that
    /// was asked for.
    fn apply(&mut self, db: &sled::Db, entries: &[Entry]) -> Result<bool, IndexError> {
        let mut rows: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::with_capacity(entries.len());
        let mut flush = false;
        for entry in entries {
            match entry {
                Entry::State(state) => {
                    rows.push((STATE_KEY.to_vec(), Some(encode_state(state))));
                    flush = true;
                }
                Entry::Closed(number, row) => {
                    if let Some(value) = encode_row(row) {
                        rows.push((segment_key(*number), Some(value)));
                    }
                }
                Entry::Removed(number) => {
                    rows.push((segment_key(*number), None));
                    // What was in it is known from here alone now.
                    flush = true;
                }
                Entry::Deliveries(hashes) => {
                    flush = true;
                    let place = self.delivery_rows.back().map_or(0, |(place, _)| place + 1);
                    self.delivery_rows.push_back((place, hashes.len()));
                    let value = hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect();
                    rows.push((delivery_key(place), Some(value)));
                    rows.extend(self.forgotten().map(|place| (delivery_key(place), None)));
                }
            }
        }
        guarded(|| {
            for (key, value) in rows {
                match value {
                    Some(value) => db.insert(key, value)?,
                    None => db.remove(key)?,
                };
            }
            if flush {
                db.flush()?;
            }
            Ok(flush)
        })
    }

    /// Rows of deliveries that are not needed any more, given the newer ones.
    fn forgotten(&mut self) -> impl Iterator<Item = u64> + use<> {
        let mut kept: usize = self.delivery_rows.iter().map(|(_, count)| count).sum();
        let mut forgotten = Vec::new();
        while let Some((place, count)) = self.delivery_rows.front().copied()
            && kept - count >= DELIVERIES_KEPT
        {
            kept -= count;
            forgotten.push(place);
            self.delivery_rows.pop_front();
        }
        forgotten.into_iter()
    }

    /// Copies the rows into a new database in place of one that has grown.
    fn write_anew(&mut self, db: sled::Db) -> Option<sled::Db> {
        let rows = guarded(|| db.iter().collect::<Result<Vec<_>, _>>().map_err(IndexError::from)).ok()?;
        drop_guarded(Some(db));
        self.discard().ok()?;
        let delivery_rows = std::mem::take(&mut self.delivery_rows);
        let (db, _) = self.open_retrying_lock().ok()?;
        // It is empty as yet.
        self.delivery_rows = delivery_rows;
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            batch.insert(key, value);
        }
        guarded(|| {
            db.apply_batch(batch)?;
            db.flush()?;
            Ok(db)
        })
        .ok()
    }
}

/// `first` and what follows, as far as [`APPLIED_MAX_BYTES`] go.
fn few(first: Entry, mut next: impl Iterator<Item = Entry>) -> Vec<Entry> {
    let mut entries = Vec::from([first]);
    let size = |entry: &Entry| match entry {
        Entry::Deliveries(hashes) => hashes.len() * size_of::<u128>(),
        Entry::State(_) | Entry::Closed(..) | Entry::Removed(_) => ROW_BYTES,
    };
    while entries.iter().map(size).sum::<usize>() + ROW_BYTES <= APPLIED_MAX_BYTES
        && let Some(entry) = next.next()
    {
        entries.push(entry);
    }
    entries
}

/// sled tells of a held lock only in words.
fn is_locked(error: &IndexError) -> bool {
    matches!(error, IndexError::Sled(sled::Error::Io(error)) if error.to_string().contains("acquire lock"))
}

fn guarded<T>(call: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(IndexError::Panicked))
}

/// Closing flushes, and a flush may panic.
fn drop_guarded(db: Option<sled::Db>) {
    drop(guarded(|| {
        drop(db);
        Ok(())
    }));
}

/// Whether sled, which follows symbolic links, would write somewhere else than in a directory of its own.
fn is_led_astray(dir: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(found) if !found.is_dir() => Ok(true),
        Ok(_) => {
            let mut entries = fs::read_dir(dir)?.flatten();
            Ok(entries.any(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink())))
        }
    }
}

fn files_to_do_without(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name == "conf" || name.starts_with("snap.")
        })
        .map(|entry| entry.path())
        .collect()
}

fn segment_key(number: u32) -> Vec<u8> {
    key(SEGMENT_PREFIX, u64::from(number))
}

fn delivery_key(place: u64) -> Vec<u8> {
    key(DELIVERY_PREFIX, place)
}

fn key(prefix: u8, number: u64) -> Vec<u8> {
    let mut key = vec![prefix];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn number_in(key: &[u8]) -> Option<u64> {
    key.get(1..)?.try_into().ok().map(u64::from_be_bytes)
}

fn encode_row(row: &SegmentRow) -> Option<Vec<u8>> {
    let of = |signal| {
        let waiting: &Waiting = row.written.get(signal);
        (waiting.blocks, waiting.records, waiting.plain_bytes)
    };
    let stored = StoredRow { len: row.len, written: Signal::ALL.map(of) };
    let mut bytes = bincode::serde::encode_to_vec(&stored, standard()).ok()?;
    let crc = crc32(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    Some(bytes)
}

fn decode_row(bytes: &[u8]) -> Option<SegmentRow> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != crc32(body) {
        return None;
    }
    let (stored, _): (StoredRow, usize) = bincode::serde::decode_from_slice(body, standard()).ok()?;
    let mut row = SegmentRow { len: stored.len, ..SegmentRow::default() };
    for (signal, (blocks, records, plain_bytes)) in Signal::ALL.into_iter().zip(stored.written) {
        *row.written.get_mut(signal) = Waiting { blocks, records, plain_bytes };
    }
    Some(row)
}

/// A slot as the segments have it, without its padding.
fn encode_state(state: &State) -> Vec<u8> {
    let mut slot = state.encode(0);
    let crc = slot.split_off(SLOT_BYTES - 4);
    while slot.pop_if(|byte| *byte == 0).is_some() {}
    slot.extend(crc);
    slot
}

fn decode_state(bytes: &[u8]) -> Option<State> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    let mut slot = body.to_vec();
    slot.resize(SLOT_BYTES - 4, 0);
    slot.extend_from_slice(crc);
    State::decode(&slot, 0)
}

fn read(db: &sled::Db) -> Result<(Found, VecDeque<(u64, usize)>), IndexError> {
    let mut found = Found::default();
    let mut delivery_rows = VecDeque::new();
    for row in db.iter() {
        let (key, value) = row?;
        match key.first() {
            Some(&SEGMENT_PREFIX) => {
                if let (Some(number), Some(row)) =
                    (number_in(&key).and_then(|n| u32::try_from(n).ok()), decode_row(&value))
                {
                    found.segments.insert(number, row);
                }
            }
            Some(&DELIVERY_PREFIX) => {
                if let Some(place) = number_in(&key) {
                    let hashes = value.chunks_exact(16).filter_map(|hash| hash.try_into().ok());
                    found.deliveries.extend(hashes.map(u128::from_le_bytes));
                    delivery_rows.push_back((place, value.len() / 16));
                }
            }
            _ => found.state = found.state.or_else(|| decode_state(&value)),
        }
    }
    Ok((found, delivery_rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::notes::PENDING_ENTRIES_MAX;
    use std::collections::BTreeMap;
    use std::sync::mpsc::sync_channel;

    fn row(len: u64) -> SegmentRow {
        let mut row = SegmentRow { len, ..SegmentRow::default() };
        *row.written.get_mut(Signal::Logs) = Waiting { blocks: 3, records: 40, plain_bytes: 5000 };
        row
    }

    /// Writes through an index and waits until its thread has ended.
    fn write(dir: &Path, entries: Vec<Entry>) {
        let (sender, inbox) = sync_channel(PENDING_ENTRIES_MAX);
        for entry in entries {
            sender.send(entry).unwrap();
        }
        drop(sender);
        worker(dir).run(&inbox);
    }

    fn worker(dir: &Path) -> Worker {
        Worker {
            dir: dir.to_path_buf(),
            bytes: Arc::default(),
            found: sync_channel(1).0,
            delivery_rows: VecDeque::new(),
        }
    }

    fn found(dir: &Path) -> Found {
        let (db, found) = worker(dir).open().unwrap();
        drop_guarded(Some(db));
        found
    }

    #[test]
    fn what_has_piled_up_is_written_a_little_at_a_time() {
        let deliveries = |count: u128| Entry::Deliveries((0..count).collect());
        let mut pending = vec![Entry::Removed(1); 40].into_iter();
        assert_eq!(few(Entry::Removed(0), &mut pending).len(), 16, "4 KiB of rows");
        assert_eq!(few(deliveries(250), &mut pending).len(), 1);
        assert_eq!(few(deliveries(10), &mut pending).len(), 16, "what is small has company");
        assert_eq!(pending.len(), 10);
        let mut pending = [Entry::Removed(1), deliveries(250), Entry::Removed(2)].into_iter();
        assert_eq!(few(Entry::Removed(0), &mut pending).len(), 3, "of rows of deliveries one at most");
        assert_eq!(few(Entry::Removed(0), std::iter::empty()).len(), 1);
    }

    #[test]
    fn what_has_piled_up_does_not_make_it_grow_beyond_a_segment() {
        const SMALLEST_SEGMENT_BYTES: u64 = 128 << 10;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let entries = (0..PENDING_ENTRIES_MAX as u32).map(|number| match number % 4 {
            0 => Entry::State(Box::default()),
            1 => Entry::Closed(number, row(5)),
            2 => Entry::Deliveries((0..250).map(|hash| u128::from(number) << 64 | hash).collect()),
            _ => Entry::Removed(number.saturating_sub(42)),
        });
        let (entries, watched) = (entries.collect(), path.clone());
        let writer = thread::spawn(move || write(&watched, entries));
        let mut most = 0;
        while !writer.is_finished() {
            most = most.max(bytes_on_disk_below(&path));
        }
        writer.join().unwrap();
        assert!(most > INDEX_MAX_BYTES / 2, "{most}: it was looked at");
        assert!(most <= INDEX_MAX_BYTES + SMALLEST_SEGMENT_BYTES, "{most}");
    }

    #[test]
    fn what_was_noted_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let state = State { queue_id: 4, generation: 9, ..State::default() };
        write(
            &path,
            vec![
                Entry::Closed(1, row(10)),
                Entry::Closed(2, row(20)),
                Entry::Removed(1),
                Entry::Deliveries(vec![5]),
                Entry::Deliveries(vec![6, 7]),
                Entry::State(Box::new(state)),
            ],
        );
        let found = found(&path);
        assert_eq!(found.state, Some(state));
        assert_eq!(found.segments, BTreeMap::from([(2, row(20))]));
        assert_eq!(found.deliveries, [5, 6, 7]);
        let mut worker = worker(&path);
        drop_guarded(worker.open().ok().map(|(db, _)| db));
        assert_eq!(worker.delivery_rows, [(0, 1), (1, 2)], "so that they can be forgotten");
    }

    #[test]
    fn a_state_goes_without_the_padding_of_its_slot() {
        let state = State { queue_id: 4, generation: 9, ..State::default() };
        let row = encode_state(&state);
        assert!(row.len() < SLOT_BYTES, "{}", row.len());
        assert_eq!(decode_state(&row), Some(state));
    }

    #[test]
    fn it_does_without_two_kinds_of_files_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["conf", "db", "snap.0000000000000A10", "snapshot"] {
            fs::write(dir.path().join(name), b"").unwrap();
        }
        fs::create_dir(dir.path().join("blobs")).unwrap();
        let mut names = files_to_do_without(dir.path());
        names.sort();
        assert_eq!(names, ["conf", "snap.0000000000000A10"].map(|name| dir.path().join(name)));
        assert!(files_to_do_without(&dir.path().join("missing")).is_empty());
    }

    #[test]
    fn what_is_not_ours_is_never_led_to_and_never_looked_for_in_vain() {
        let dir = tempfile::tempdir().unwrap();
        let (index, file) = (dir.path().join("index"), dir.path().join("file"));
        assert!(!is_led_astray(&index).unwrap());
        fs::create_dir(&index).unwrap();
        fs::write(index.join("db"), b"").unwrap();
        assert!(!is_led_astray(&index).unwrap());
        std::os::unix::fs::symlink(dir.path(), index.join("blobs")).unwrap();
        assert!(is_led_astray(&index).unwrap());
        fs::write(&file, b"").unwrap();
        assert!(is_led_astray(&file).unwrap());
        assert!(is_led_astray(&file.join("index")).is_err());
    }

    #[test]
    fn what_is_discarded_is_gone_and_what_cannot_be_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        worker(&path).discard().unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("db"), b"").unwrap();
        fs::create_dir(path.with_extension("trash")).unwrap();
        worker(&path).discard().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&path, b"").unwrap();
        assert!(worker(&path.join("index")).discard().is_err());
    }

    #[test]
    fn an_index_that_is_written_anew_has_the_same_rows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        write(&path, vec![Entry::Closed(2, row(20)), Entry::Deliveries(vec![5, 6])]);
        let mut worker = worker(&path);
        let (db, _) = worker.open().unwrap();
        let db = worker.write_anew(db).unwrap();
        assert_eq!(worker.delivery_rows, [(0, 2)]);
        worker.apply(&db, &[Entry::Deliveries(vec![7])]).unwrap();
        drop_guarded(Some(db));
        let found = found(&path);
        assert_eq!(found.segments, BTreeMap::from([(2, row(20))]));
        assert_eq!(found.deliveries, [5, 6, 7], "the newest is the last");
    }

    #[test]
    fn a_row_with_a_flipped_bit_is_no_row() {
        let mut bytes = encode_row(&row(7)).unwrap();
        assert_eq!(decode_row(&bytes), Some(row(7)));
        bytes[1] ^= 4;
        assert_eq!(decode_row(&bytes), None);
        assert_eq!(decode_row(&[]), None);
    }

    #[test]
    fn whatever_is_in_the_directory_it_opens() {
        let mut rng = fastrand::Rng::with_seed(3);
        for trial in 0..12 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("index");
            write(&path, (0..200).map(|n| Entry::Closed(n, row(u64::from(n)))).collect());
            for entry in fs::read_dir(&path).unwrap().flatten().filter(|e| e.path().is_file()) {
                let mut bytes = fs::read(entry.path()).unwrap();
                match trial % 4 {
                    0 => bytes.iter_mut().for_each(|byte| *byte = rng.u8(..)),
                    1 => bytes.truncate(rng.usize(..=bytes.len())),
                    2 => bytes.clear(),
                    _ => (0..20).for_each(|_| {
                        let at = rng.usize(..bytes.len().max(1));
                        if let Some(byte) = bytes.get_mut(at) {
                            *byte ^= 1 << rng.u8(..8);
                        }
                    }),
                }
                fs::write(entry.path(), bytes).unwrap();
            }
            // Left by a process that died while it removed one.
            fs::create_dir(path.with_extension("trash")).unwrap();
            // Rows may be missing; none may be wrong.
            for (number, found) in found(&path).segments {
                assert_eq!(found, row(u64::from(number)));
            }
            write(&path, vec![Entry::Closed(1, row(1))]);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no remains beside it");
        }
    }

    #[test]
    fn a_database_that_somebody_else_holds_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        write(&path, vec![Entry::Deliveries(vec![1])]);
        let (held, _) = worker(&path).open().unwrap();
        assert!(worker(&path).open().is_err_and(|error| is_locked(&error)));
        drop_guarded(Some(held));
        assert_eq!(found(&path).deliveries, [1]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else was made");
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        for round in 0..6u128 {
            let rows = (0..600)
                .map(|row| Entry::Deliveries((0..100).map(|n| (round << 64) + row * 100 + n).collect()));
            write(&path, rows.collect());
        }
        write(&path, vec![Entry::State(Box::default())]);
        assert!(bytes_on_disk_below(&path) <= 2 * INDEX_MAX_BYTES);
        let kept = found(&path).deliveries;
        assert!((DELIVERIES_KEPT..DELIVERIES_KEPT + 100).contains(&kept.len()), "{}", kept.len());
        assert_eq!(kept.last(), Some(&((5 << 64) + 59_999)));
    }
}
