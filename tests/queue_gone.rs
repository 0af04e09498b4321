//! What an earlier process kept and somebody else removed, emptied, cut off or overwrote before the next one came is counted
//! to the record.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::{Lines, batch, block, copy_dir, drain};
use outlast::Signal;
use outlast::queue::{
    Deflater, Encoding, Limits, Overflow, Queue, ReaderId, ReaderSpec, Readers, RealDisk, Reason,
};
use std::fs;
use std::path::{Path, PathBuf};

const SEGMENT_BYTES: u64 = 10 << 10;
const RECORDS: u64 = 3;

fn open(dir: &Path) -> Queue {
    let limits = Limits { segment_bytes: SEGMENT_BYTES, ..Limits::new(8 << 20, Overflow::DropOldest) };
    let (queue, opened) = Queue::open(Box::new(RealDisk), dir, limits, 1);
    assert!(opened.problem.is_none(), "{:?}", opened.problem);
    queue
}

fn append(queue: &mut Queue, deliveries: std::ops::Range<u64>) {
    let mut deflater = Deflater::default();
    for delivery in deliveries {
        let signal = Signal::ALL[delivery as usize % 3];
        let ids: Vec<u64> = (delivery * RECORDS..(delivery + 1) * RECORDS).collect();
        queue
            .append(&batch(u128::from(delivery) + 1, vec![block(&mut deflater, signal, &ids, 500)]))
            .unwrap();
    }
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    files.sort();
    files
}

fn lost(queue: &Queue) -> u64 {
    Signal::ALL.iter().map(|signal| queue.ledger().dropped_for(*signal, Reason::Damaged)).sum()
}

/// A backlog of 40 deliveries over several segments, left by two processes; some of it was delivered. The number of records
/// that wait.
fn backlog(clean: bool) -> (tempfile::TempDir, u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, 0..20);
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 2).unwrap();
    queue.delivered(Signal::Logs, request.to, u64::from(request.records), 0);
    let part = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..1).unwrap();
    queue.delivered(Signal::Logs, part.to, 1, 0);
    drop(queue);
    let mut queue = open(dir.path());
    while queue.count_one() {}
    append(&mut queue, 20..40);
    if clean {
        queue.close();
    }
    (dir, 40 * RECORDS - 2 * RECORDS - 1)
}

type Damage = fn(&Path);

const KINDS: [(&str, Damage); 5] = [
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("emptied", |path| drop(fs::File::create(path).unwrap())),
    ("cut in a frame", |path| fs::File::options().write(true).open(path).unwrap().set_len(4_000).unwrap()),
    ("cut within the head", |path| fs::File::options().write(true).open(path).unwrap().set_len(900).unwrap()),
    ("zeros over frames", |path| {
        let mut bytes = fs::read(path).unwrap();
        let end = bytes.len().min(7_000);
        bytes[3_000..end].fill(0);
        fs::write(path, bytes).unwrap();
    }),
];

#[test]
fn what_went_while_no_process_ran_is_counted_to_the_record() {
    for clean in [false, true] {
        let (dir, waiting) = backlog(clean);
        let count = segments(dir.path()).len();
        assert!(count >= 5, "{count}");
        for (what, damage) in KINDS {
            for place in 0..count {
                let is_newest = place + 1 == count;
                // Of the newest that is gone nothing is known, nor what of one was appended at last before a SIGKILL.
                if is_newest && !clean {
                    continue;
                }
                let copy = tempfile::tempdir().unwrap();
                copy_dir(dir.path(), copy.path());
                damage(&segments(copy.path())[place]);
                let mut queue = open(copy.path());
                let left: usize = drain(&mut queue).iter().map(Vec::len).sum();
                let lost = lost(&queue);
                assert!(lost > 0);
                assert_eq!(left as u64 + lost, waiting, "segment {place} {what}, clean: {clean}");
                drop(queue);
                let mut queue = open(copy.path());
                while queue.count_one() {}
                assert_eq!(self::lost(&queue), lost, "counted once: segment {place} {what}");
            }
        }
    }
}

#[test]
fn what_is_found_to_be_gone_is_on_disk_at_once() {
    let (dir, _) = backlog(true);
    fs::remove_file(&segments(dir.path())[1]).unwrap();
    let mut queue = open(dir.path());
    assert_eq!(lost(&queue), 0);
    while queue.count_one() {}
    let lost = lost(&queue);
    assert!(lost > 0);
    drop(queue);
    // Before anything is counted.
    assert_eq!(self::lost(&open(dir.path())), lost);
}

#[test]
fn what_was_delivered_since_a_segment_was_begun_whose_state_is_gone_is_not_taken_for_lost() {
    let damages: [Damage; 2] = [
        |path| fs::remove_file(path).unwrap(),
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[..2048].fill(0);
            fs::write(path, bytes).unwrap();
        },
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path());
        append(&mut queue, 0..20);
        let newest = segments(dir.path()).pop().unwrap();
        let before = segments(dir.path()).len();
        for signal in Signal::ALL {
            let request = queue.assemble(signal, &Lines, Encoding::Gzip, 1 << 20, 4).unwrap();
            queue.delivered(signal, request.to, u64::from(request.records), 0);
        }
        assert!(segments(dir.path()).len() < before, "what is done is gone");
        // SIGKILL.
        drop(queue);
        damage(&newest);
        let mut queue = open(dir.path());
        assert!(drain(&mut queue).iter().map(Vec::len).sum::<usize>() > 0);
        assert_eq!(lost(&queue), 0);
    }
}

#[test]
fn a_record_that_went_just_before_the_place_that_a_state_speaks_of_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::new(64 << 20, Overflow::DropOldest);
    let open = || Queue::open(Box::new(RealDisk), dir.path(), limits, 1).0;
    let mut queue = open();
    append(&mut queue, 0..9);
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    let mut end = fs::metadata(&segments(dir.path())[0]).unwrap().len() as usize;
    queue.delivered(Signal::Logs, request.to, u64::from(request.records), 0);
    append(&mut queue, 9..18);
    drop(queue);
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    end = bytes[..end].windows(4).rposition(|magic| magic == b"oLf1").unwrap();
    bytes[end] ^= 1;
    fs::write(&path, bytes).unwrap();
    let mut queue = open();
    let left: usize = drain(&mut queue).iter().map(Vec::len).sum();
    assert_eq!(left as u64 + lost(&queue), 18 * RECORDS - RECORDS);
}

#[test]
fn a_process_that_ends_before_it_has_counted_leaves_what_it_was_told() {
    let (dir, waiting) = backlog(true);
    let mut queue = open(dir.path());
    append(&mut queue, 40..41);
    drop(queue);
    fs::remove_file(&segments(dir.path())[1]).unwrap();
    let mut queue = open(dir.path());
    let left: usize = drain(&mut queue).iter().map(Vec::len).sum();
    assert!(lost(&queue) > 0);
    assert_eq!(left as u64 + lost(&queue), waiting + RECORDS);
}

#[test]
fn a_backlog_that_is_whole_or_ends_in_a_torn_frame_counts_nothing() {
    for cut in [0, 1, 95, 300] {
        let (dir, waiting) = backlog(false);
        let newest = segments(dir.path()).pop().unwrap();
        let len = fs::metadata(&newest).unwrap().len();
        fs::File::options().write(true).open(&newest).unwrap().set_len(len - cut).unwrap();
        let mut queue = open(dir.path());
        let left: usize = drain(&mut queue).iter().map(Vec::len).sum();
        assert_eq!(lost(&queue), 0, "{cut}");
        assert_eq!(left as u64, if cut == 0 { waiting } else { waiting - RECORDS }, "{cut}");
    }
}

#[test]
fn what_went_at_the_end_after_much_was_appended_is_counted_but_for_the_last_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::new(64 << 20, Overflow::DropOldest);
    let mut queue = Queue::open(Box::new(RealDisk), dir.path(), limits, 1).0;
    append(&mut queue, 0..200);
    drop(queue);
    let newest = segments(dir.path()).pop().unwrap();
    fs::File::options().write(true).open(newest).unwrap().set_len(10_000).unwrap();
    let mut queue = Queue::open(Box::new(RealDisk), dir.path(), limits, 1).0;
    let left: usize = drain(&mut queue).iter().map(Vec::len).sum();
    let known = left as u64 + lost(&queue);
    assert!((500..=600).contains(&known) && lost(&queue) > 400, "{known} of 600");
}

#[test]
fn what_went_is_counted_for_each_reader_that_had_it_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let readers = Readers {
        others: vec![ReaderSpec { name: "audit".to_owned(), wants: Readers::default().first }],
        ..Readers::default()
    };
    let mut queue = open(dir.path());
    queue.serve(&readers);
    append(&mut queue, 0..40);
    let audit = ReaderId::FIRST.next();
    let mut of_audit = queue.at(audit);
    let request = of_audit.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 2).unwrap();
    of_audit.delivered(Signal::Logs, request.to, u64::from(request.records), 0);
    drop(of_audit);
    queue.close();
    drop(queue);
    fs::remove_file(&segments(dir.path())[1]).unwrap();
    let mut queue = open(dir.path());
    queue.serve(&readers);
    while queue.count_one() {}
    let lost_to_first = lost(&queue);
    assert!(lost_to_first > 0);
    assert_eq!(lost(&queue.at(audit)), lost_to_first);
    let left: usize = drain(&mut queue).iter().map(Vec::len).sum();
    assert_eq!(left as u64 + lost_to_first, 40 * RECORDS);
}
