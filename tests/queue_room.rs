//! The byte budget while the disk takes nothing and memory stands in for it: what is in memory counts as well, for it goes
//! to the disk as soon as that takes it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::{Lines, batch, block, bytes_in, drain};
use outlast::Signal;
use outlast::queue::{
    AppendError, Appended, Deflater, Disk, DiskFile, Encoding, Kind, Limits, NewBlock, Overflow, Queue,
    RealDisk, Reason, Tally,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The real disk, which somebody else fills up and frees again. What was written may be written over. The most there was on it
/// is noted.
#[derive(Clone)]
struct SharedDisk(Arc<AtomicBool>, Arc<AtomicU64>);

impl SharedDisk {
    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }
}

struct SharedFile(SharedDisk, Box<dyn DiskFile>, PathBuf);

impl DiskFile for SharedFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let inside = self.1.read_exact_at(&mut vec![0; buf.len()], offset).is_ok();
        if !inside {
            self.0.check()?;
        }
        self.1.write_all_at(buf, offset)?;
        self.0.1.fetch_max(bytes_in(&self.2), Ordering::Relaxed);
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.set_len(len)
    }
    fn is_linked(&self) -> io::Result<bool> {
        self.1.is_linked()
    }
}

impl Disk for SharedDisk {
    fn prepare(&self, dir: &Path) -> io::Result<()> {
        RealDisk.prepare(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        RealDisk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check()?;
        Ok(Box::new(SharedFile(self.clone(), RealDisk.create(path)?, path.parent().unwrap().to_owned())))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SharedFile(self.clone(), RealDisk.open(path)?, path.parent().unwrap().to_owned())))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_all(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_all(path)
    }
}

const MAX_BYTES: u64 = 96 << 10;
/// Of one record: some 1.5 KB that hardly shrink.
const PADDING: usize = 2_000;

struct Run {
    dir: tempfile::TempDir,
    full: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    queue: Queue,
    deflater: Deflater,
    acknowledged: Vec<u64>,
    next: u64,
}

impl Run {
    fn new(overflow: Overflow) -> Self {
        Self::with(Limits { segment_bytes: 8 << 10, ..Limits::new(MAX_BYTES, overflow) })
    }

    fn with(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (full, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let disk = SharedDisk(Arc::clone(&full), Arc::clone(&most));
        let (queue, opened) = Queue::open(Box::new(disk), dir.path(), limits, 1);
        assert!(opened.problem.is_none());
        let (deflater, acknowledged) = (Deflater::default(), Vec::new());
        Self { dir, full, most, queue, deflater, acknowledged, next: 0 }
    }

    /// Appends so many records; returns how many were turned away with nothing kept or counted.
    fn append(&mut self, records: u64) -> u64 {
        let mut refused = 0;
        for _ in 0..records {
            self.next += 1;
            let block = block(&mut self.deflater, Signal::Logs, &[self.next], PADDING);
            match self.queue.append(&batch(u128::from(self.next), vec![block])) {
                Ok(Appended::OnDisk | Appended::InMemory | Appended::Dropped) => {
                    self.acknowledged.push(self.next);
                }
                Err(AppendError::NoRoom) => refused += 1,
            }
            assert!(self.on_disk() <= MAX_BYTES, "{} bytes on disk", self.on_disk());
        }
        refused
    }

    fn on_disk(&self) -> u64 {
        bytes_in(self.dir.path())
    }

    /// Appends a block of so many records and delivers the first of them.
    fn append_and_begin(&mut self, records: u64) {
        let ids: Vec<u64> = (1..=records).map(|number| self.next + number).collect();
        self.next += records;
        let block = block(&mut self.deflater, Signal::Logs, &ids, 10);
        self.queue.append(&batch(u128::from(self.next), vec![block])).unwrap();
        let part = self.queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..1).unwrap();
        self.queue.delivered(Signal::Logs, part.to, 1, 0);
    }

    /// Appends a delivery of something else.
    fn append_other(&mut self, signal: Signal, kind: Kind) {
        self.next += 1;
        let other = NewBlock { kind, ..block(&mut self.deflater, signal, &[self.next], PADDING) };
        self.queue.append(&batch(u128::from(self.next), vec![other])).unwrap();
    }

    fn dropped(&self) -> u64 {
        self.queue.ledger().dropped(Signal::Logs)
    }

    /// The process ends and another one begins, with a disk that takes everything.
    fn reopen(&mut self) {
        self.full.store(false, Ordering::Relaxed);
        let limits = Limits { segment_bytes: 8 << 10, ..Limits::new(MAX_BYTES, Overflow::DropOldest) };
        self.queue = Queue::open(Box::new(RealDisk), self.dir.path(), limits, 1).0;
    }

    /// The disk is back; nothing may be missing but what is counted. Returns how much that is.
    fn come_back(&mut self) -> u64 {
        self.full.store(false, Ordering::Relaxed);
        assert!(self.queue.try_disk() && !self.queue.is_degraded());
        assert!(self.on_disk() <= MAX_BYTES, "{} bytes on disk", self.on_disk());
        let dropped = self.queue.ledger().dropped(Signal::Logs);
        let [got, ..] = drain(&mut self.queue);
        assert!(got.is_sorted());
        assert!(got.iter().all(|number| self.acknowledged.contains(number)));
        assert_eq!(got.len() as u64 + dropped, self.acknowledged.len() as u64);
        dropped
    }
}

#[test]
fn the_oldest_make_room_for_what_memory_holds() {
    let mut run = Run::new(Overflow::DropOldest);
    run.append(40);
    run.full.store(true, Ordering::Relaxed);
    let refused = run.append(200);
    assert!(run.queue.is_degraded());
    // The newest that fit into memory were taken, and only when that was full did the sender have to keep them.
    assert!(refused > 0 && run.acknowledged.len() > 80, "{refused} {}", run.acknowledged.len());
    assert!(run.dropped() > 0, "segments on disk give way while it takes nothing");
    assert!(run.come_back() > 0);
}

#[test]
fn what_memory_holds_leaves_room_for_the_file_that_stays_on_disk_however_long_it_is() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Shed] {
        for records in [1, 20, 30] {
            let mut run = Run::new(overflow);
            // One delivery, and so one segment.
            let ids: Vec<u64> = (1..=records).collect();
            let long = block(&mut run.deflater, Signal::Logs, &ids, PADDING);
            run.queue.append(&batch(1, vec![long])).unwrap();
            run.acknowledged.extend(ids);
            run.next = records;
            run.full.store(true, Ordering::Relaxed);
            run.append(200);
            assert!(run.queue.is_degraded());
            run.come_back();
            let most = run.most.load(Ordering::Relaxed);
            assert!(most <= MAX_BYTES + (8 << 10), "{most} bytes on disk, {overflow:?}, {records} records");
        }
    }
}

#[test]
fn a_full_queue_turns_the_newest_away_while_memory_stands_in() {
    let mut run = Run::new(Overflow::DropNewest);
    run.append(40);
    run.full.store(true, Ordering::Relaxed);
    assert_eq!(run.append(200), 0, "what is turned away is counted, in place");
    let dropped = run.come_back();
    assert!(dropped > 100, "{dropped}");
}

#[test]
fn nothing_is_given_up_for_what_memory_does_not_take() {
    let mut run = Run::new(Overflow::DropOldest);
    run.append(40);
    run.full.store(true, Ordering::Relaxed);
    while run.append(1) == 0 {}
    let dropped = run.queue.ledger().dropped(Signal::Logs);
    assert_eq!(run.append(50), 50);
    assert_eq!(run.queue.ledger().dropped(Signal::Logs), dropped);
    run.come_back();
}

#[test]
fn nor_is_a_segment_given_up_for_what_a_smaller_memory_does_not_take() {
    for memory_max_bytes in (9..17).map(|kib| kib << 10) {
        let limits = Limits {
            memory_max_bytes,
            segment_bytes: 8 << 10,
            ..Limits::new(MAX_BYTES, Overflow::DropOldest)
        };
        let mut run = Run::with(limits);
        run.append(52);
        run.full.store(true, Ordering::Relaxed);
        while run.append(1) == 0 {}
        let dropped = run.dropped();
        assert_eq!(run.append(20), 20);
        assert_eq!(run.dropped(), dropped);
    }
}

#[test]
fn nor_for_what_does_not_fit_beside_the_file_that_stays() {
    let mut run = Run::new(Overflow::DropOldest);
    run.append(15);
    let long = |run: &mut Run, records: u64| {
        let ids: Vec<u64> = (1..=records).map(|number| run.next + number).collect();
        run.next += records;
        let block = block(&mut run.deflater, Signal::Logs, &ids, PADDING);
        run.queue.append(&batch(u128::from(run.next), vec![block]))
    };
    long(&mut run, 30).unwrap();
    run.full.store(true, Ordering::Relaxed);
    run.append(1);
    let (on_disk, dropped) = (run.on_disk(), run.dropped());
    assert!(run.queue.is_degraded() && on_disk > 60 << 10, "{on_disk}");
    assert!(matches!(long(&mut run, 40), Err(AppendError::NoRoom)));
    assert_eq!((run.on_disk(), run.dropped()), (on_disk, dropped));
}

#[test]
fn memory_is_no_larger_than_what_the_disk_may_hold() {
    assert_eq!(Limits::new(1 << 20, Overflow::DropOldest).memory_max_bytes, 1 << 20);
    assert_eq!(Limits::new(64 << 20, Overflow::DropOldest).memory_max_bytes, 4 << 20);
}

/// A queue whose directory cannot be used, for a file is in its place, and four records in memory.
fn without_a_directory() -> Run {
    let dir = tempfile::tempdir().unwrap();
    let (full, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    std::fs::write(dir.path().join("queue"), "").unwrap();
    let limits = Limits::new(MAX_BYTES, Overflow::DropOldest);
    let disk = Box::new(SharedDisk(Arc::clone(&full), Arc::clone(&most)));
    let (mut queue, opened) = Queue::open(disk, &dir.path().join("queue"), limits, 1);
    assert!(opened.problem.is_some());
    queue.stand_in();
    let (deflater, acknowledged) = (Deflater::default(), Vec::new());
    let mut run = Run { dir, full, most, queue, deflater, acknowledged, next: 0 };
    assert_eq!(run.append(4), 0);
    run
}

/// The directory can be used, but the disk is full.
fn make_directory_on_a_full_disk(run: &Run) {
    run.full.store(true, Ordering::Relaxed);
    std::fs::remove_file(run.dir.path().join("queue")).unwrap();
    std::fs::create_dir(run.dir.path().join("queue")).unwrap();
}

#[test]
fn a_directory_that_comes_back_on_a_full_disk_is_no_disk_yet() {
    let mut run = without_a_directory();
    make_directory_on_a_full_disk(&run);
    for _ in 0..2 {
        assert!(!run.queue.try_disk() && run.queue.is_degraded());
        assert_eq!(run.append(1), 0);
    }
    assert_eq!(run.come_back(), 0);
    assert_eq!(run.acknowledged.len(), 6);
}

#[test]
fn what_only_memory_holds_at_the_end_is_counted_whatever_became_of_the_directory() {
    let mut run = without_a_directory();
    make_directory_on_a_full_disk(&run);
    assert_eq!(run.queue.close(), 4);
    assert_eq!(run.queue.ledger().dropped(Signal::Logs), 4);
    let mut run = without_a_directory();
    std::fs::remove_file(run.dir.path().join("queue")).unwrap();
    assert_eq!((run.queue.close(), run.queue.ledger().dropped(Signal::Logs)), (0, 0), "all of it is on disk");
    assert_eq!(drain(&mut run.queue)[0], [1, 2, 3, 4]);
}

// === Fragments and what is remembered, which no request takes along

#[test]
fn a_fragment_is_given_up_with_its_segment_and_counted_then() {
    for until_it_goes in [false, true] {
        let mut run = Run::new(Overflow::DropOldest);
        run.append(12);
        run.append_other(Signal::Logs, Kind::Fragment);
        run.append_other(Signal::Logs, Kind::Carry);
        while run.dropped() == 0 || (until_it_goes && run.queue.fragment().is_some()) {
            run.append(1);
        }
        assert_eq!(run.queue.fragment().is_none(), until_it_goes);
        assert_eq!(run.queue.carry().is_none(), until_it_goes);
        let [got, ..] = drain(&mut run.queue);
        let given_up = run.acknowledged.len() - got.len() + usize::from(until_it_goes);
        assert_eq!(run.dropped(), given_up as u64);
    }
}

#[test]
fn a_fragment_that_only_memory_holds_at_the_end_is_a_record_that_is_lost() {
    let mut run = Run::new(Overflow::DropOldest);
    run.append(1);
    run.full.store(true, Ordering::Relaxed);
    while !run.queue.is_degraded() {
        run.append(1);
    }
    run.append_other(Signal::Logs, Kind::Fragment);
    assert_eq!((run.queue.close(), run.dropped()), (2, 2));
    assert!(run.queue.fragment().is_none());
    run.reopen();
    assert_eq!(run.queue.ledger().dropped_for(Signal::Logs, Reason::Unsaved), 2);
}

#[test]
fn what_is_on_disk_at_the_end_stays_whatever_memory_held() {
    let mut run = Run::new(Overflow::DropOldest);
    run.append(1);
    run.append_other(Signal::Logs, Kind::Fragment);
    run.append_other(Signal::Logs, Kind::Carry);
    run.full.store(true, Ordering::Relaxed);
    while !run.queue.is_degraded() {
        run.append(1);
    }
    let carry = run.queue.state().carry;
    assert_eq!((run.queue.close(), run.dropped()), (1, 1));
    assert_eq!(run.queue.state().carry, carry);
    run.reopen();
    assert!(run.queue.fragment().is_some() && run.queue.carry().is_some());
    assert_eq!(run.dropped(), 1);
}

#[test]
fn a_report_that_only_memory_holds_at_the_end_is_made_anew_but_for_one_that_arrived() {
    let mut run = Run::new(Overflow::DropOldest);
    let refused = block(&mut run.deflater, Signal::Metrics, &[1, 2, 3, 4, 5, 6, 7], PADDING);
    run.queue.append(&batch(7_000, vec![refused])).unwrap();
    let request = run.queue.assemble(Signal::Metrics, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    run.queue.refuse(Signal::Metrics, request.to, Reason::Refused);
    run.full.store(true, Ordering::Relaxed);
    while !run.queue.is_degraded() {
        run.append(1);
    }
    let of = |records| Tally { signal: Signal::Metrics, reason: Reason::Refused, records };
    assert_eq!(run.queue.unreported(), [of(7)]);
    run.append_other(Signal::Metrics, Kind::Report(of(2)));
    run.append_other(Signal::Metrics, Kind::Report(of(5)));
    let first = run.queue.assemble(Signal::Metrics, &Lines, Encoding::Gzip, 1, 1).unwrap();
    run.queue.delivered(Signal::Metrics, first.to, 0, 0);
    assert_eq!(run.queue.unreported(), []);
    assert_eq!(run.queue.close(), 1);
    let lost = Tally { signal: Signal::Logs, reason: Reason::Unsaved, records: 1 };
    assert_eq!(run.queue.unreported(), [lost, of(5)]);
}

#[test]
fn an_answer_that_comes_after_the_end_counts_for_what_is_on_disk_and_not_for_what_was_given_up() {
    for on_disk in [true, false] {
        let mut run = Run::new(Overflow::DropOldest);
        run.append(1);
        if !on_disk {
            assert_eq!(drain(&mut run.queue)[0], [1]);
        }
        run.full.store(true, Ordering::Relaxed);
        while !run.queue.is_degraded() {
            run.append(1);
        }
        let request = run.queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1, 1).unwrap();
        let delivered = run.queue.ledger().delivered(Signal::Logs);
        assert_eq!(run.queue.close(), 1);
        run.queue.delivered(Signal::Logs, request.to, 1, 0);
        let counted = run.queue.ledger().delivered(Signal::Logs) - delivered;
        assert_eq!((counted, run.dropped()), (u64::from(on_disk), 1));
    }
}

#[test]
fn of_a_block_that_is_done_in_part_the_rest_is_lost_and_of_one_on_disk_nothing() {
    let mut run = Run::new(Overflow::DropOldest);
    run.append_other(Signal::Metrics, Kind::Block { joins: None });
    run.full.store(true, Ordering::Relaxed);
    while !run.queue.is_degraded() {
        run.append(1);
    }
    assert_eq!(drain(&mut run.queue)[0].len(), 1);
    run.append_and_begin(4);
    assert_eq!((run.queue.close(), run.dropped()), (3, 3));

    let mut run = Run::new(Overflow::DropOldest);
    run.append_and_begin(4);
    run.full.store(true, Ordering::Relaxed);
    while !run.queue.is_degraded() {
        run.append(1);
    }
    assert_eq!((run.queue.close(), run.dropped()), (1, 1));
}

#[test]
fn what_was_under_way_when_its_segment_went_is_not_lost_if_it_arrives() {
    for (records, is_part) in [(1, true), (2, true), (3, false)] {
        let mut run = Run::new(Overflow::DropOldest);
        if !is_part {
            // Neither what is done nor a fragment is under way.
            run.append(1);
            drain(&mut run.queue);
            run.append_other(Signal::Logs, Kind::Fragment);
        }
        let blocks: &[&[u64]] = if is_part { &[&[1, 2, 3]] } else { &[&[1], &[2], &[3]] };
        for ids in blocks {
            let block = block(&mut run.deflater, Signal::Logs, ids, 10);
            run.queue.append(&batch(u128::from(ids[0]) + 1_000, vec![block])).unwrap();
        }
        let request = if is_part {
            run.queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..records)
        } else {
            run.queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 9)
        };
        let request = request.unwrap();
        assert_eq!(request.records, records);
        while run.dropped() == 0 {
            run.append(1);
        }
        let before = run.dropped();
        run.queue.delivered(Signal::Logs, request.to, request.records.into(), 0);
        assert_eq!(run.dropped(), before - u64::from(records));
    }
}
