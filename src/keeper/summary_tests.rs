//! The end: what only memory holds is counted before anything that may take long.

use super::tests::{body, line, logs_only};
use super::*;
use crate::encode::Otlp;
use crate::queue::{DiskFile, Overflow, Readers, Reason};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// The disk takes nothing new, and gives nothing of an old segment any more, which nobody has counted yet: whoever reads that ends there.
static IS_LATE: AtomicBool = AtomicBool::new(false);
const OLD: &str = "0000000005.seg";

#[derive(Clone, Copy)]
struct LateDisk;

struct LateFile(Box<dyn DiskFile>, bool);

fn full() -> io::Result<()> {
    if IS_LATE.load(Ordering::Relaxed) { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
}

impl DiskFile for LateFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(!(self.1 && IS_LATE.load(Ordering::Relaxed)), "time is up");
        self.0.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if self.0.read_exact_at(&mut vec![0; buf.len()], offset).is_err() {
            full()?;
        }
        self.0.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn is_linked(&self) -> io::Result<bool> {
        self.0.is_linked()
    }
}

impl Disk for LateDisk {
    fn prepare(&self, dir: &Path) -> io::Result<()> {
        RealDisk.prepare(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        RealDisk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        full()?;
        Ok(Box::new(LateFile(RealDisk.create(path)?, false)))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LateFile(RealDisk.open(path)?, path.ends_with(OLD))))
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

fn worker(dir: &Path) -> Worker {
    worker_on(dir, || Box::new(LateDisk))
}

fn worker_on(dir: &Path, disk: fn() -> Box<dyn Disk>) -> Worker {
    let setup = Setup {
        dir: dir.to_path_buf(),
        disk,
        limits: Limits::new(1 << 20, Overflow::DropOldest),
        wire: Box::new(Otlp),
        about: About::default(),
        epoch_unix_nanos: 0,
        making: logs_only(),
        completes_resources: false,
        readers: Readers::default(),
    };
    Worker::open(setup, mpsc::unbounded_channel().0)
}

#[test]
fn what_only_memory_holds_at_the_end_is_counted_before_what_old_segments_hold() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..8 {
        let taken = worker(dir.path()).intake.take(&body([line(&format!("old {n}"))]), n);
        assert_eq!(taken.receipt, Receipt::Kept);
    }
    let mut worker = worker(dir.path());
    IS_LATE.store(true, Ordering::Relaxed);
    let taken = worker.intake.take(&body([line("one"), line("two")]), 9);
    assert_eq!(taken.receipt, Receipt::Kept);
    assert!(worker.intake.queue.is_degraded());
    let (reply, _summary) = oneshot::channel();
    let ended = catch_unwind(AssertUnwindSafe(|| worker.work(Job::Summary(reply))));
    // Whether it came to that segment is not what counts.
    drop(ended);
    IS_LATE.store(false, Ordering::Relaxed);
    let limits = Limits::new(1 << 20, Overflow::DropOldest);
    let (queue, _) = Queue::open(Box::new(RealDisk), dir.path(), limits, 1);
    assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Unsaved), 2);
}

/// The first half of a record that Lambda cut.
const HEAD: &[u8] = br#"[{"time":"2026-01-02T03:04:05.678Z","type":"function","record":"AAAA}]"#;

#[test]
fn when_it_leaves_for_good_half_a_record_waits_no_longer_and_after_a_reset_it_does() {
    for (brings_out, waits) in [(true, false), (false, true)] {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = worker_on(dir.path(), || Box::new(RealDisk));
        assert_eq!(worker.intake.take(HEAD, 1).receipt, Receipt::Kept);
        assert!(worker.intake.queue.fragment().is_some());
        let (reply, _closed) = oneshot::channel();
        worker.work(Job::Close { brings_out, reply });
        assert_eq!(worker.intake.queue.fragment().is_some(), waits);
    }
}

#[test]
fn once_it_leaves_nothing_is_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = worker_on(dir.path(), || Box::new(RealDisk));
    let (reply, _closed) = oneshot::channel();
    worker.work(Job::Close { brings_out: true, reply });
    let (reply, mut receipt) = oneshot::channel();
    worker.take(Delivery { body: body([line("late")]).into(), received_unix_nanos: 1, reply });
    assert_eq!(receipt.try_recv(), Ok(Receipt::Full));
    assert_eq!(worker.intake.queue.waiting(Signal::Logs).blocks, 0);
}
