//! What the queue takes from its index, and what it must not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::disk::{LawfulDisk, Op, broken, full};
use common::{Lines, batch, block, copy_dir, drain, numbers};
use fs2::FileExt;
use outlast::Signal;
use outlast::queue::{
    Appended, Deflater, Disk, Encoding, HEADER_BYTES, Limits, Overflow, Queue, RealDisk, Reason, Tally,
};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn limits() -> Limits {
    Limits { segment_bytes: 8 << 10, ..Limits::new(1 << 20, Overflow::DropOldest) }
}

/// A process over the queue in `dir`, with an index that has opened.
fn open(disk: Box<dyn Disk>, dir: &Path) -> Queue {
    let (mut queue, opened) = Queue::open(disk, dir, limits(), 1);
    assert!(opened.problem.is_none(), "{:?}", opened.problem);
    queue.attach_index(dir);
    assert!(queue.consult_index_within(Duration::from_secs(30)));
    queue.count_drop(Tally { signal: Signal::Logs, reason: Reason::Rejected, records: 0 });
    until(|| is_held(dir));
    queue
}

/// The process dies; its index writes what it was told, which it might have done before.
fn die(queue: Queue, dir: &Path) {
    drop(queue);
    until(|| !is_held(dir));
}

fn until(mut it_is_so: impl FnMut() -> bool) {
    while !it_is_so() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether an index has its database open.
fn is_held(dir: &Path) -> bool {
    std::fs::File::open(dir.join("index/db")).is_ok_and(|file| file.try_lock_exclusive().is_err())
}

fn append(queue: &mut Queue, delivery: u64, signal: Signal, ids: &[u64]) -> Appended {
    let made = vec![block(&mut Deflater::default(), signal, ids, 200)];
    queue.append(&batch(u128::from(delivery), made)).unwrap()
}

fn switch() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(false));
    (Arc::clone(&switch), switch)
}

#[test]
fn what_only_the_index_knows_to_be_given_up_is_counted_by_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let (out, law) = switch();
    let disk = LawfulDisk::new(move |op, _| {
        let refused = matches!(op, Op::Overwrite | Op::Write | Op::Create) && law.load(Ordering::Relaxed);
        if refused { Err(broken()) } else { Ok(()) }
    });
    let mut queue = open(disk, dir.path());
    for delivery in 0..30 {
        append(&mut queue, delivery, Signal::Logs, &[delivery * 2, delivery * 2 + 1]);
    }
    append(&mut queue, 30, Signal::Traces, &[7]);
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    queue.refuse(Signal::Logs, request.to, Reason::Refused);
    // The state reaches the index alone from now on.
    out.store(true, Ordering::Relaxed);
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 3).unwrap();
    queue.refuse(Signal::Logs, request.to, Reason::Refused);
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 2).unwrap();
    let sent = request.records;
    queue.delivered(Signal::Logs, request.to, u64::from(sent), 0);
    die(queue, dir.path());

    let mut queue = open(Box::new(RealDisk), dir.path());
    assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Refused), 8, "as the marks say");
    assert_eq!(queue.ledger().delivered(Signal::Logs), 4);
    // What this process counts comes on top, also where it did so before it heard of the index.
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    assert_eq!(numbers(&request), [12, 13]);
    queue.refuse(Signal::Logs, request.to, Reason::Refused);
    assert_eq!(queue.ledger().dropped(Signal::Logs), 10);
    die(queue, dir.path());
    // By then the segments know.
    let (mut queue, _) = Queue::open(Box::new(RealDisk), dir.path(), limits(), 1);
    assert_eq!(queue.ledger().dropped(Signal::Logs), 10);
    let drained = drain(&mut queue);
    assert_eq!((drained[0].len(), drained[0][0], &drained[2]), (60 - 14, 14, &vec![7]));
    assert_eq!(queue.ledger().dropped(Signal::Logs), 10, "nothing is taken for damaged");
}

#[test]
fn what_was_counted_before_the_index_opened_is_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (out, law) = switch();
    let disk = LawfulDisk::new(move |op, _| {
        let refused = matches!(op, Op::Overwrite | Op::Create) && law.load(Ordering::Relaxed);
        if refused { Err(broken()) } else { Ok(()) }
    });
    let mut queue = open(disk, dir.path());
    append(&mut queue, 1, Signal::Logs, &[1, 2, 3]);
    append(&mut queue, 2, Signal::Metrics, &[4]);
    out.store(true, Ordering::Relaxed);
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    queue.refuse(Signal::Logs, request.to, Reason::Refused);
    die(queue, dir.path());

    let (mut queue, _) = Queue::open(Box::new(RealDisk), dir.path(), limits(), 1);
    queue.attach_index(dir.path());
    let request = queue.assemble(Signal::Metrics, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    queue.refuse(Signal::Metrics, request.to, Reason::Refused);
    assert!(queue.consult_index_within(Duration::from_secs(30)));
    assert_eq!(Signal::ALL.map(|signal| queue.ledger().dropped(signal)), [3, 1, 0]);
    assert!(drain(&mut queue).iter().all(Vec::is_empty));
}

#[test]
fn a_delivery_that_only_memory_held_is_unknown_to_the_next_process() {
    let dir = tempfile::tempdir().unwrap();
    let (out, law) = switch();
    let disk = LawfulDisk::new(move |op, _| {
        let refused = matches!(op, Op::Write | Op::Create) && law.load(Ordering::Relaxed);
        if refused { Err(full()) } else { Ok(()) }
    });
    let mut queue = open(disk, dir.path());
    append(&mut queue, 1, Signal::Logs, &[1]);
    out.store(true, Ordering::Relaxed);
    // More than the index gets in one row.
    for delivery in 1_000..1_600 {
        assert_eq!(append(&mut queue, delivery, Signal::Logs, &[delivery]), Appended::InMemory);
    }
    queue.count_drop(Tally { signal: Signal::Logs, reason: Reason::Unreadable, records: 1 });
    die(queue, dir.path());

    let queue = open(Box::new(RealDisk), dir.path());
    assert!(queue.known(1).is_some());
    let known = (1_000..1_600).filter(|delivery| queue.known(*delivery).is_some()).count();
    assert_eq!(known, 0, "what Lambda repeats of these would be lost");
}

/// Where the first frame begins, behind two slots of state.
const FRAMES_START: usize = 2048;

/// What is done to a file.
type Harm = fn(&mut Vec<u8>);

#[test]
fn what_is_damaged_in_a_segment_that_the_index_knows_is_counted_to_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(Box::new(RealDisk), dir.path());
    let mut appended = [0; 3];
    for delivery in 0..40 {
        let signal = Signal::ALL[delivery as usize % 3];
        let ids: Vec<u64> = (delivery * 10..delivery * 10 + 1 + delivery % 7).collect();
        append(&mut queue, delivery, signal, &ids);
        appended[signal.index()] += ids.len() as u64;
    }
    queue.count_drop(Tally { signal: Signal::Logs, reason: Reason::Rejected, records: 0 });
    die(queue, dir.path());
    let mut segments: Vec<PathBuf> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "seg"))
        .collect();
    segments.sort();
    // The newest was not closed, so the index knows nothing of it.
    segments.pop();
    assert!(segments.len() >= 4, "{segments:?}");
    let harms: [(&str, Harm); 5] = [
        ("the first header", |bytes| bytes[FRAMES_START + 20] ^= 1),
        ("the first payload", |bytes| bytes[FRAMES_START + HEADER_BYTES + 9] ^= 1),
        ("all of it", |bytes| bytes[FRAMES_START..].fill(0)),
        ("its second half", |bytes| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0x55);
        }),
        ("all of it, and its states", |bytes| bytes.fill(0)),
    ];
    for (what, harm) in harms {
        for chosen in [&segments[..1], &segments[1..3], &segments[..]] {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            for segment in chosen {
                let path = copy.path().join(segment.file_name().unwrap());
                let mut bytes = std::fs::read(&path).unwrap();
                harm(&mut bytes);
                std::fs::write(path, bytes).unwrap();
            }
            let mut queue = open(Box::new(RealDisk), copy.path());
            let drained = drain(&mut queue);
            for signal in Signal::ALL {
                let missing = appended[signal.index()] - drained[signal.index()].len() as u64;
                let counted = queue.ledger().dropped_for(signal, Reason::Damaged);
                assert_eq!(counted, missing, "{what} of {} segments: {signal}", chosen.len());
            }
            let all: usize = drained.iter().map(Vec::len).sum();
            assert!((all as u64) < appended.iter().sum(), "{what}: nothing was damaged");
            die(queue, copy.path());
        }
    }
}

#[test]
fn what_the_index_takes_on_disk_counts_before_anything_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(Box::new(RealDisk), dir.path());
    append(&mut queue, 1, Signal::Logs, &[1]);
    die(queue, dir.path());
    let (mut queue, _) = Queue::open(Box::new(RealDisk), dir.path(), limits(), 1);
    let segments = queue.disk_bytes();
    queue.attach_index(dir.path());
    until(|| is_held(dir.path()) && queue.disk_bytes() > segments);
    die(queue, dir.path());
}

/// All files below `dir`, directories too.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        all.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            all.extend(below(&entry.path()));
        }
    }
    all.sort();
    all
}

#[test]
fn nobody_else_may_read_what_is_on_disk() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("queue");
    let mut queue = open(Box::new(RealDisk), &dir);
    for delivery in 0..600 {
        append(&mut queue, delivery, Signal::Logs, &[delivery]);
    }
    drain(&mut queue);
    die(queue, &dir);
    // What an earlier version left is put right as well.
    std::fs::set_permissions(dir.join("index/db"), PermissionsExt::from_mode(0o644)).unwrap();
    let queue = open(Box::new(RealDisk), &dir);
    die(queue, &dir);
    for path in below(parent.path()) {
        let found = path.symlink_metadata().unwrap();
        let expected = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.permissions().mode() & 0o777, expected, "{}", path.display());
    }
}

#[test]
fn whatever_happens_to_a_file_of_the_index_no_record_is_lost_or_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(Box::new(RealDisk), dir.path());
    for delivery in 0..300 {
        append(&mut queue, delivery, Signal::ALL[delivery as usize % 3], &[delivery]);
    }
    let mut expected = Signal::ALL.map(|signal| (signal.index() as u64..300).step_by(3).collect::<Vec<_>>());
    for signal in [Signal::Logs, Signal::Traces] {
        let request = queue.assemble(signal, &Lines, Encoding::Gzip, 1 << 20, 40).unwrap();
        let done = numbers(&request);
        queue.done(signal, request.to);
        expected[signal.index()].retain(|id| !done.contains(id));
    }
    die(queue, dir.path());
    let index = dir.path().join("index");
    let files: Vec<PathBuf> = below(&index).into_iter().filter(|path| path.is_file()).collect();
    assert!(files.iter().any(|path| path.ends_with("db")) && files.len() >= 2, "{files:?}");
    let mut rng = fastrand::Rng::with_seed(9);
    for file in &files {
        let name = file.strip_prefix(dir.path()).unwrap();
        for harm in ["flipped", "cut", "emptied", "random", "removed", "a directory", "mode 000"] {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(dir.path(), copy.path());
            let path = copy.path().join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            match harm {
                "flipped" => (0..8).for_each(|_| {
                    let at = rng.usize(..bytes.len());
                    bytes[at] ^= 1 << rng.u8(..8);
                }),
                "cut" => bytes.truncate(bytes.len() / 3),
                "emptied" => bytes.clear(),
                _ => bytes.iter_mut().for_each(|byte| *byte = rng.u8(..)),
            }
            match harm {
                "removed" => std::fs::remove_file(&path).unwrap(),
                "a directory" => {
                    std::fs::remove_file(&path).unwrap();
                    std::fs::create_dir(&path).unwrap();
                }
                "mode 000" => std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap(),
                _ => std::fs::write(&path, bytes).unwrap(),
            }
            let what = format!("{} {harm}", name.display());
            let (mut queue, opened) = Queue::open(Box::new(RealDisk), copy.path(), limits(), 1);
            assert!(opened.problem.is_none(), "{what}");
            queue.attach_index(copy.path());
            queue.consult_index_within(Duration::from_secs(30));
            assert_eq!(append(&mut queue, 1_000, Signal::Logs, &[1_000]), Appended::OnDisk, "{what}");
            let mut drained = drain(&mut queue);
            assert_eq!(drained[0].pop(), Some(1_000), "{what}");
            assert_eq!(drained, expected, "{what}");
            assert_eq!(Signal::ALL.map(|signal| queue.ledger().dropped(signal)), [0; 3], "{what}");
        }
    }
}
