//! What has to be remembered outlives our process and the segment it was written to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::{Lines, batch, block, damage_end, drain};
use outlast::Signal;
use outlast::encode::WireFormat;
use outlast::queue::{
    Batch, Deflater, Disk, DiskFile, Encoding, Kind, Limits, NewBlock, Overflow, Queue, RealDisk,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn limits() -> Limits {
    Limits {
        max_bytes: 64 << 10,
        segment_bytes: 4 << 10,
        memory_max_bytes: 1 << 20,
        overflow: Overflow::DropOldest,
    }
}

fn open(dir: &Path) -> Queue {
    Queue::open(Box::new(RealDisk), dir, limits(), 1).0
}

fn carry(text: &str) -> NewBlock {
    NewBlock {
        kind: Kind::Carry,
        signal: Signal::Logs,
        format: Lines.id(),
        severity: 0,
        events_end: 0,
        records: 0,
        plain_len: text.len() as u32,
        plain_crc: crc32fast::hash(text.as_bytes()),
        times: (1, 2),
        payload: text.as_bytes().to_vec(),
    }
}

/// A delivery of a record for each of two signals, and of what is to be remembered.
fn delivery(deflater: &mut Deflater, number: u64, padding: usize, remembered: &str) -> Batch {
    let mut record = |signal| block(deflater, signal, &[number], padding);
    let blocks = vec![record(Signal::Logs), record(Signal::Metrics), carry(remembered)];
    batch(u128::from(number), blocks)
}

fn remembered(queue: &mut Queue) -> Option<String> {
    queue.carry().map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn the_newest_is_remembered_and_is_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut deflater = Deflater::default();
    let mut queue = open(dir.path());
    assert_eq!(remembered(&mut queue), None);
    for number in 1..4 {
        queue.append(&delivery(&mut deflater, number, 10, &format!("after {number}"))).unwrap();
    }
    for mut queue in [queue, open(dir.path())] {
        while queue.count_one() {}
        assert_eq!(remembered(&mut queue).as_deref(), Some("after 3"));
        assert_eq!(queue.waiting(Signal::Logs).records, 3);
        assert_eq!(queue.waiting(Signal::Logs).blocks, 3);
        assert!(queue.known(2).unwrap().is_whole());
    }
    let mut queue = open(dir.path());
    assert_eq!(drain(&mut queue), [vec![1, 2, 3], vec![1, 2, 3], vec![]]);
    assert_eq!(Signal::ALL.map(|signal| queue.ledger().dropped(signal)), [0; 3]);
}

#[test]
fn it_outlives_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut deflater = Deflater::default();
    let mut queue = open(dir.path());
    queue.append(&delivery(&mut deflater, 1, 10, "kept")).unwrap();
    // Nothing more is remembered, while segments come and go.
    for number in 2..60 {
        let record = block(&mut deflater, Signal::Traces, &[number], 900);
        queue.append(&batch(u128::from(number), vec![record])).unwrap();
        if number % 7 == 0 {
            drain(&mut queue);
            assert_eq!(remembered(&mut queue).as_deref(), Some("kept"), "{number}");
            assert_eq!(remembered(&mut open(dir.path())).as_deref(), Some("kept"), "{number}");
        }
    }
    assert!(!dir.path().join("0000000001.seg").exists(), "the segment it was written to is gone");
    assert_eq!(queue.ledger().dropped(Signal::Traces), 0);
}

#[test]
fn the_budget_takes_it_like_anything_else_and_the_next_delivery_brings_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut deflater = Deflater::default();
    let mut queue = open(dir.path());
    queue.append(&delivery(&mut deflater, 1, 10, "first")).unwrap();
    for number in 2..100 {
        let record = block(&mut deflater, Signal::Traces, &[number], 1500);
        queue.append(&batch(u128::from(number), vec![record])).unwrap();
    }
    assert!(queue.ledger().dropped(Signal::Traces) > 0);
    assert_eq!((remembered(&mut queue), remembered(&mut open(dir.path()))), (None, None));
    queue.append(&delivery(&mut deflater, 100, 10, "second")).unwrap();
    assert_eq!(remembered(&mut open(dir.path())).as_deref(), Some("second"));
}

#[test]
fn a_damaged_one_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut deflater = Deflater::default();
    open(dir.path()).append(&delivery(&mut deflater, 1, 10, "remember me")).unwrap();
    damage_end(&dir.path().join("0000000001.seg"));
    let mut queue = open(dir.path());
    assert_eq!(remembered(&mut queue), None);
    assert_eq!(drain(&mut queue), [vec![1], vec![1], vec![]]);
}

#[test]
fn an_older_one_does_not_stand_in_for_a_damaged_one_that_was_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut deflater = Deflater::default();
    let mut queue = open(dir.path());
    queue.append(&delivery(&mut deflater, 1, 10, "older")).unwrap();
    queue.append(&delivery(&mut deflater, 2, 10, "newer")).unwrap();
    queue.close();
    drop(queue);
    // Its header, so that nothing but the state speaks of it.
    let path = dir.path().join("0000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - "newer".len() - 10;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(remembered(&mut open(dir.path())), None);
}

#[test]
fn one_that_was_cut_short_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut deflater = Deflater::default();
    let mut queue = open(dir.path());
    queue.append(&delivery(&mut deflater, 1, 10, "before")).unwrap();
    queue.append(&delivery(&mut deflater, 2, 10, "after")).unwrap();
    let path = dir.path().join("0000000001.seg");
    let len = std::fs::metadata(&path).unwrap().len();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(len - 2).unwrap();
    let mut queue = open(dir.path());
    assert_eq!(remembered(&mut queue).as_deref(), Some("before"));
    assert!(!queue.known(2).unwrap().is_whole(), "it was not acknowledged, and will come again");
}

/// A disk that takes nothing while it is told so.
struct Moody(Arc<AtomicBool>);

impl Moody {
    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

struct MoodyFile(Box<dyn DiskFile>, Moody);

impl DiskFile for MoodyFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.1.check()?;
        self.0.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn is_linked(&self) -> io::Result<bool> {
        self.0.is_linked()
    }
}

impl Disk for Moody {
    fn prepare(&self, dir: &Path) -> io::Result<()> {
        RealDisk.prepare(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        RealDisk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check()?;
        Ok(Box::new(MoodyFile(RealDisk.create(path)?, Self(Arc::clone(&self.0)))))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(MoodyFile(RealDisk.open(path)?, Self(Arc::clone(&self.0)))))
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

#[test]
fn memory_stands_in_for_the_disk_for_it_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let (mut queue, _) = Queue::open(Box::new(Moody(Arc::clone(&full))), dir.path(), limits(), 1);
    let mut deflater = Deflater::default();
    queue.append(&delivery(&mut deflater, 1, 10, "on disk")).unwrap();
    full.store(true, Ordering::Relaxed);
    queue.append(&delivery(&mut deflater, 2, 10, "in memory")).unwrap();
    assert!(queue.is_degraded());
    assert_eq!(remembered(&mut queue).as_deref(), Some("in memory"));
    assert_eq!(remembered(&mut open(dir.path())).as_deref(), Some("on disk"));
    full.store(false, Ordering::Relaxed);
    assert!(queue.try_disk());
    assert_eq!(remembered(&mut queue).as_deref(), Some("in memory"));
    assert_eq!(remembered(&mut open(dir.path())).as_deref(), Some("in memory"));
    let request = queue.assemble(Signal::Metrics, &Lines, Encoding::Gzip, 1 << 20, 9).unwrap();
    assert_eq!(request.records, 2);
}

#[test]
fn what_memory_held_comes_along_to_a_directory_that_was_not_usable() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("queue");
    std::fs::write(&dir, b"a file in its place").unwrap();
    let (mut queue, opened) = Queue::open(Box::new(RealDisk), &dir, limits(), 1);
    assert!(opened.problem.is_some());
    queue.stand_in();
    let mut deflater = Deflater::default();
    queue.append(&delivery(&mut deflater, 1, 10, "older")).unwrap();
    queue.append(&delivery(&mut deflater, 2, 10, "newer")).unwrap();
    std::fs::remove_file(&dir).unwrap();
    assert!(queue.try_disk());
    assert_eq!(remembered(&mut open(&dir)).as_deref(), Some("newer"));
    assert_eq!(drain(&mut queue), [vec![1, 2], vec![1, 2], vec![]]);
}

#[test]
fn what_was_delivered_from_memory_does_not_come_along_and_what_is_under_way_is_waited_for() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("queue");
    std::fs::write(&dir, b"a file in its place").unwrap();
    let mut queue = Queue::open(Box::new(RealDisk), &dir, limits(), 1).0;
    queue.stand_in();
    for number in 1..4 {
        let record = block(&mut Deflater::default(), Signal::Logs, &[number], 10);
        queue.append(&batch(u128::from(number), vec![record])).unwrap();
    }
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    std::fs::remove_file(&dir).unwrap();
    assert!(!queue.try_disk(), "its place in memory is what a request under way is known by");
    queue.done(Signal::Logs, request.to);
    assert!(queue.try_disk());
    assert_eq!(drain(&mut queue), [vec![2, 3], vec![], vec![]]);
}
