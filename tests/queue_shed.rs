//! What must not be given up to make room, and what must be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::disk::{LawfulDisk, Op, broken};
use common::{Lines, batch, block, drain, numbers};
use outlast::Signal;
use outlast::queue::{Deflater, Disk, Encoding, Limits, Overflow, Queue, RealDisk, Reason};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MAX_BYTES: u64 = 48 << 10;
const DEBUG: u8 = 5;
const ERROR: u8 = 17;
const FATAL: u8 = 21;

fn open(disk: Box<dyn Disk>, dir: &Path, overflow: Overflow) -> Queue {
    let limits = Limits { segment_bytes: 6 << 10, ..Limits::new(MAX_BYTES, overflow) };
    let (queue, opened) = Queue::open(disk, dir, limits, 1);
    assert!(opened.problem.is_none(), "{:?}", opened.problem);
    queue
}

fn append(queue: &mut Queue, ids: &[u64], severity: u8) {
    let mut made = block(&mut Deflater::default(), Signal::Logs, ids, 500);
    made.severity = severity;
    queue.append(&batch(u128::from(ids[0]), vec![made])).unwrap();
}

#[test]
fn an_alibi_is_not_shed_until_it_is_settled_and_nothing_else_is_settled_for_it() {
    // The records of the suspect's block, and whether its neighbour is in the same one.
    for (first, alibi) in [(vec![1], vec![2, 3]), (vec![1], vec![2]), (vec![1, 2, 3], vec![4])] {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
        append(&mut queue, &first, DEBUG);
        // What is not the alibi is not spared.
        append(&mut queue, &alibi, if first.len() > 1 { FATAL } else { DEBUG });
        append(&mut queue, &[10, 11], FATAL);
        for accused in [false, true] {
            let suspect = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..1).unwrap();
            assert_eq!(numbers(&suspect), [1]);
            queue.keep(Signal::Logs);
            if !accused {
                let neighbour = queue.assemble_second(Signal::Logs, &Lines, Encoding::Gzip).unwrap();
                assert_eq!(numbers(&neighbour), [2]);
                // It was delivered; no mark can say so.
                queue.keep(Signal::Logs);
            }
            for id in 0..120 {
                append(&mut queue, &[1000 + u64::from(accused) * 1000 + id], ERROR);
            }
        }
        assert!(queue.ledger().dropped_for(Signal::Logs, Reason::Shed) > 0);
        queue.settle(Signal::Logs, 1, 1);
        assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Refused), 1);
        let (shed, drained) = (queue.ledger().dropped(Signal::Logs) - 1, drain(&mut queue));
        let left: Vec<u64> = drained[0].iter().copied().filter(|id| *id < 1000).collect();
        let expected: Vec<u64> =
            first.into_iter().chain(alibi).filter(|id| *id > 2).chain([10, 11]).collect();
        assert_eq!(left, expected);
        assert_eq!(drained[0].len() as u64 - left.len() as u64 + shed, 240, "only what came later was shed");
    }
}

#[test]
fn a_segment_that_cannot_be_read_does_not_let_the_queue_grow() {
    for overflow in [Overflow::DropOldest, Overflow::Shed] {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(Box::new(RealDisk), dir.path(), overflow);
        for id in 0..40 {
            append(&mut queue, &[id], ERROR);
        }
        drop(queue);
        let unreadable = Arc::new(AtomicBool::new(false));
        let law = Arc::clone(&unreadable);
        let disk = LawfulDisk::new(move |op, path| {
            let first = path.file_name().is_some_and(|name| name == "0000000001.seg");
            let refused = first && matches!(op, Op::Open | Op::Read) && law.load(Ordering::Relaxed);
            if refused { Err(broken()) } else { Ok(()) }
        });
        let mut queue = open(disk, dir.path(), overflow);
        unreadable.store(true, Ordering::Relaxed);
        for id in 40..400 {
            append(&mut queue, &[id], ERROR);
            let files = std::fs::read_dir(dir.path()).unwrap();
            let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
            assert!(bytes <= MAX_BYTES, "{overflow:?}: {bytes} bytes on disk after {id}");
        }
        let dropped = queue.ledger().dropped(Signal::Logs);
        assert!(dropped > 0);
        // What could not be read was not given up, for nobody knew how much it is.
        unreadable.store(false, Ordering::Relaxed);
        queue.try_disk();
        let drained = drain(&mut queue);
        assert!(drained[0].is_sorted() && drained[0][0] == 0, "{:?}", drained[0]);
        assert_eq!(drained[0].len() as u64 + queue.ledger().dropped(Signal::Logs), 400, "{overflow:?}");
        let reason = if overflow == Overflow::Shed { Reason::Shed } else { Reason::Overflow };
        assert_eq!(queue.ledger().dropped_for(Signal::Logs, reason), dropped);
    }
}

#[test]
fn a_delivery_that_was_turned_away_is_known_to_the_next_process() {
    for (overflow, severity) in [(Overflow::DropNewest, ERROR), (Overflow::Shed, DEBUG)] {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(Box::new(RealDisk), dir.path(), overflow);
        let mut id = 1;
        while queue.ledger().dropped(Signal::Logs) == 0 && id < 200 {
            append(&mut queue, &[id], ERROR);
            id += 1;
        }
        append(&mut queue, &[1000], severity);
        let dropped = queue.ledger().dropped(Signal::Logs);
        // Before Lambda got its answer.
        drop(queue);
        let queue = open(Box::new(RealDisk), dir.path(), overflow);
        assert_eq!(queue.ledger().dropped(Signal::Logs), dropped);
        assert!(queue.known(1000).is_some_and(|progress| progress.is_whole()), "{overflow:?}");
    }
}

#[test]
fn what_is_given_up_unread_is_counted_once_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::DropOldest);
    for id in 0..40 {
        append(&mut queue, &[id], ERROR);
    }
    drop(queue);
    let unreadable = Arc::new(AtomicBool::new(false));
    let law = Arc::clone(&unreadable);
    let disk = LawfulDisk::new(move |op, path| {
        let first = path.file_name().is_some_and(|name| name == "0000000001.seg");
        let refused = first && matches!(op, Op::Open | Op::Read) && law.load(Ordering::Relaxed);
        if refused { Err(broken()) } else { Ok(()) }
    });
    let mut queue = open(disk, dir.path(), Overflow::DropOldest);
    unreadable.store(true, Ordering::Relaxed);
    let mut delivered = 0;
    for _ in 0..60 {
        delivered += drain(&mut queue)[0].len();
        queue.try_disk();
    }
    assert!(delivered > 0 && delivered < 40, "{delivered}");
    unreadable.store(false, Ordering::Relaxed);
    queue.try_disk();
    delivered += drain(&mut queue)[0].len();
    assert_eq!(delivered as u64 + queue.ledger().dropped_for(Signal::Logs, Reason::Damaged), 40);
    drop(queue);
    let queue = open(Box::new(RealDisk), dir.path(), Overflow::DropOldest);
    assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Damaged) as usize, 40 - delivered, "once");
}
