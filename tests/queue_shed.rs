//! What must not be given up to make room, and what must be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::disk::{LawfulDisk, Op, broken};
use common::{Lines, batch, block, bytes_in, drain, numbers};
use outlast::Signal;
use outlast::encode::{Ndjson, WireFormat};
use outlast::queue::{
    Appended, Batch, Deflater, Disk, Encoding, Limits, NewBlock, Overflow, Queue, ReaderId, ReaderSpec,
    Readers, RealDisk, Reason, Request, severity_class,
};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

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
            let bytes = bytes_in(dir.path());
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
    // Nor does it matter which process can.
    drop(queue);
    let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::DropOldest);
    while queue.count_one() {}
    delivered += drain(&mut queue)[0].len();
    assert_eq!(delivered as u64 + queue.ledger().dropped_for(Signal::Logs, Reason::Damaged), 40);
    drop(queue);
    let queue = open(Box::new(RealDisk), dir.path(), Overflow::DropOldest);
    assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Damaged) as usize, 40 - delivered, "once");
}

/// A delivery of lines of JSON, whose severities are those of `levels` in no order: which of them is known by its number.
fn mixed(delivery: u64, records: u64, padding: usize) -> Batch {
    let mut random = fastrand::Rng::with_seed(delivery);
    let ids = delivery * 1000..delivery * 1000 + records;
    let mut plain = String::new();
    for id in ids.clone() {
        let noise: String = (0..padding).map(|_| random.alphanumeric()).collect();
        writeln!(plain, "{{\"id\":{id},\"noise\":\"{noise}\"}}").unwrap();
    }
    let severities: Vec<u8> = ids.map(level).collect();
    let mut made = NewBlock {
        format: Ndjson.id(),
        severity: severities.iter().copied().max().unwrap(),
        records: records as u32,
        plain_len: plain.len() as u32,
        plain_crc: crc32fast::hash(plain.as_bytes()),
        payload: Deflater::default().deflate(plain.as_bytes()).unwrap(),
        ..block(&mut Deflater::default(), Signal::Logs, &[1], 0)
    };
    let classes: Vec<u8> = severities.into_iter().map(severity_class).collect();
    let behind = made.classify(&classes);
    batch(u128::from(delivery), std::iter::once(made).chain(behind).collect())
}

/// DEBUG, INFO, WARN or ERROR, in no order.
fn level(id: u64) -> u8 {
    [DEBUG, 9, 13, ERROR][(id.wrapping_mul(2_654_435_761) >> 9) as usize % 4]
}

/// The numbers of the records in a request.
fn lines_of(request: Request) -> Vec<u64> {
    let body = String::from_utf8(request.body).unwrap();
    let numbers = body.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["id"].as_u64().unwrap()
    });
    numbers.collect()
}

fn drain_lines(queue: &mut Queue) -> Vec<u64> {
    let mut all = Vec::new();
    while queue.count_one() {}
    while let Some(request) = queue.assemble(Signal::Logs, &Ndjson, Encoding::Identity, 32 << 10, 64) {
        let (records, to) = (request.records as usize, request.to);
        let lines = lines_of(request);
        assert_eq!(lines.len(), records);
        all.extend(lines);
        queue.done(Signal::Logs, to);
    }
    all
}

#[test]
fn of_blocks_that_mix_severities_the_least_severe_records_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
    // Some 60 KB in 48 KiB, 16 of which are heads of segments: a quarter of it is ERROR, and fits.
    let deliveries = 16;
    for delivery in 1..=deliveries {
        queue.append(&mixed(delivery, 9, 500)).unwrap();
        let bytes = bytes_in(dir.path());
        assert!(bytes <= MAX_BYTES + (6 << 10), "{bytes} bytes on disk after {delivery}");
        if delivery % 7 == 0 {
            drop(queue);
            queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
        }
    }
    let all: Vec<u64> = (1..=deliveries).flat_map(|n| n * 1000..n * 1000 + 9).collect();
    let (shed, drained) = (queue.ledger().dropped_for(Signal::Logs, Reason::Shed), drain_lines(&mut queue));
    assert!(drained.is_sorted_by(|a, b| a < b), "in order, once: {drained:?}");
    assert_eq!(drained.len() as u64 + shed, all.len() as u64);
    assert_eq!(shed, queue.ledger().dropped(Signal::Logs));
    let of = |ids: &[u64], number: u8| ids.iter().filter(|id| level(**id) == number).count();
    let kept = [DEBUG, 9, 13, ERROR].map(|number| of(&drained, number) * 100 / of(&all, number));
    assert!(kept[3] >= 98, "percent of each level: {kept:?}");
    assert!(kept[0] <= 15, "percent of each level: {kept:?}");
}

/// A queue over a disk that notes the most there is on it while a segment is about to replace another.
fn measured(dir: &Path) -> (Queue, Arc<AtomicU64>) {
    let most = Arc::new(AtomicU64::new(0));
    let (noted, watched) = (Arc::clone(&most), dir.to_path_buf());
    let disk = LawfulDisk::new(move |op, _| {
        if op == Op::Rename {
            noted.fetch_max(bytes_in(&watched), Ordering::Relaxed);
        }
        Ok(())
    });
    (open(disk, dir, Overflow::Shed), most)
}

#[test]
fn a_segment_that_is_longer_than_others_is_written_anew_within_the_budget_and_a_segment() {
    // Segments are of 6 KiB; deliveries, in one piece, of some 13, 17, 27 and 38. Of the last the oldest have to go, too.
    for (records, is_longest) in [(30, false), (40, false), (64, false), (90, true)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, most) = measured(dir.path());
        let deliveries = 9;
        for delivery in 1..=deliveries {
            queue.append(&mixed(delivery, records, 500)).unwrap();
        }
        let most = most.load(Ordering::Relaxed);
        assert!(most <= MAX_BYTES + (6 << 10), "{most} bytes on disk, with {records} records a delivery");
        assert!(most > 0, "some segment was written anew");
        let (shed, dropped) =
            (queue.ledger().dropped_for(Signal::Logs, Reason::Shed), queue.ledger().dropped(Signal::Logs));
        assert_eq!(shed == dropped, !is_longest, "{shed} {dropped}, {records} records a delivery");
        let drained = drain_lines(&mut queue);
        assert!(drained.is_sorted_by(|a, b| a < b), "{drained:?}");
        assert_eq!(drained.len() as u64 + dropped, deliveries * records);
    }
}

#[test]
fn room_is_found_in_a_segment_of_which_a_part_was_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
    for delivery in 1..=20 {
        queue.append(&mixed(delivery, 4, 80)).unwrap();
    }
    // In the oldest segment so much is done that it gives more than is needed, with nothing given up.
    for _ in 0..5 {
        let request = queue.assemble(Signal::Logs, &Ndjson, Encoding::Identity, 1, 1).unwrap();
        assert_eq!(request.records, 4);
        queue.done(Signal::Logs, request.to);
    }
    let before = queue.disk_bytes();
    let mut id = 0;
    while queue.ledger().dropped(Signal::Logs) == 0 {
        id += 1;
        append(&mut queue, &[id], ERROR);
        assert!(id < 200, "{before} bytes of {MAX_BYTES} at first");
    }
    let shed = queue.ledger().dropped_for(Signal::Logs, Reason::Shed) as usize;
    let drained = drain_lines(&mut queue);
    let waited = (6..=20).flat_map(|delivery| delivery * 1000..delivery * 1000 + 4);
    let gone: Vec<u64> = waited.filter(|id| !drained.contains(id)).collect();
    assert!(gone.iter().all(|id| level(*id) == DEBUG), "{gone:?}");
    assert_eq!(gone.len(), shed);
}

#[test]
fn whatever_is_sent_from_a_full_queue_that_sheds_each_record_is_delivered_or_counted() {
    for seed in 0..16 {
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, most) = measured(dir.path());
        let (mut delivered, mut appended) = (Vec::new(), 0);
        let padding = [10, 60, 250, 600][seed as usize % 4];
        for delivery in 1..=400 {
            let records = if random.u8(..40) == 0 { 40 } else { random.u64(1..7) };
            let kept = queue.append(&mixed(delivery, records, random.usize(1..padding)));
            assert!(matches!(kept, Ok(Appended::OnDisk | Appended::Dropped)), "{kept:?}");
            appended += records;
            let request = match random.u8(..6) {
                0 => queue.assemble(Signal::Logs, &Ndjson, Encoding::Identity, 8 << 10, random.u32(1..9)),
                1 => queue.assemble_part(Signal::Logs, &Ndjson, Encoding::Identity, 0..random.u32(1..4)),
                2 => {
                    let part = queue.assemble_part(Signal::Logs, &Ndjson, Encoding::Identity, 0..1);
                    queue.keep(Signal::Logs);
                    let judge = random.u8(..3);
                    // Its neighbour is taken: the record is at fault, or is taken after it. Or it is taken at once.
                    let alibi = (judge != 1)
                        .then(|| queue.assemble_second(Signal::Logs, &Ndjson, Encoding::Identity))
                        .flatten();
                    queue.keep(Signal::Logs);
                    if let Some(alibi) = alibi {
                        let is_innocent = judge == 2;
                        if is_innocent {
                            let part =
                                queue.assemble_part(Signal::Logs, &Ndjson, Encoding::Identity, 0..1).unwrap();
                            queue.done(Signal::Logs, part.to);
                            delivered.extend(lines_of(part));
                        }
                        assert_eq!(queue.settle(Signal::Logs, u64::from(!is_innocent), 1), 1);
                        delivered.extend(lines_of(alibi));
                    } else if let Some(part) = part.filter(|_| judge == 1) {
                        assert_eq!(queue.took(Signal::Logs, 1), 1);
                        delivered.extend(lines_of(part));
                    }
                    None
                }
                _ => None,
            };
            // Meanwhile more comes, and may push out what is under way.
            if let Some(request) = request {
                for more in 0..random.u64(..3) {
                    queue.append(&mixed(delivery + 1000 * (more + 1), 3, 60)).unwrap();
                    appended += 3;
                }
                let to = request.to;
                if random.u8(..3) == 0 {
                    queue.keep(Signal::Logs);
                } else {
                    delivered.extend(lines_of(request));
                    queue.done(Signal::Logs, to);
                }
            }
        }
        queue.keep(Signal::Logs);
        let dropped = queue.ledger().dropped(Signal::Logs);
        delivered.extend(drain_lines(&mut queue));
        let count = delivered.len() as u64;
        delivered.sort_unstable();
        delivered.dedup();
        assert_eq!(delivered.len() as u64, count, "seed {seed}: nothing comes twice");
        assert_eq!(count + dropped, appended, "seed {seed}: {dropped} dropped");
        assert!(most.load(Ordering::Relaxed) <= MAX_BYTES + (6 << 10), "seed {seed}: {most:?}");
    }
}

#[test]
fn a_delivery_that_fills_an_empty_queue_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, most) = measured(dir.path());
    queue.append(&mixed(1, 100, 500)).unwrap();
    assert!(queue.disk_bytes() > MAX_BYTES / 4 * 3, "{}", queue.disk_bytes());
    assert_eq!(queue.ledger().dropped(Signal::Logs), 0);
    for delivery in 2..=4 {
        queue.append(&mixed(delivery, 9, 500)).unwrap();
    }
    assert!(most.load(Ordering::Relaxed) <= MAX_BYTES + (6 << 10));
    let dropped = queue.ledger().dropped(Signal::Logs);
    assert_eq!(drain_lines(&mut queue).len() as u64 + dropped, 127);
}

#[test]
fn a_block_that_is_searched_for_a_record_at_fault_stays_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
    for delivery in 1..=8 {
        queue.append(&mixed(delivery, 9, 500)).unwrap();
    }
    let before = queue.oldest(Signal::Logs).unwrap();
    for delivery in 9..=12 {
        queue.append(&mixed(delivery, 9, 500)).unwrap();
    }
    assert!(queue.ledger().dropped_for(Signal::Logs, Reason::Shed) > 9);
    assert_eq!(queue.oldest(Signal::Logs), Some(before));
}

#[test]
fn a_process_that_dies_while_records_are_taken_out_of_blocks_counts_each_or_has_it() {
    let mut died = 0;
    for at in 0..200 {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
        for delivery in 1..=9 {
            queue.append(&mixed(delivery, 9, 500)).unwrap();
        }
        drop(queue);
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let law = Arc::clone(&left);
        let disk = LawfulDisk::new(move |op, _| {
            let reads = matches!(op, Op::Read | Op::Open);
            let is_over =
                if reads { law.load(Ordering::Relaxed) } else { law.fetch_sub(1, Ordering::Relaxed) };
            if is_over > 0 { Ok(()) } else { Err(broken()) }
        });
        let mut queue = open(disk, dir.path(), Overflow::Shed);
        left.store(at, Ordering::Relaxed);
        let mut kept = 9;
        for delivery in 10..=16 {
            if !matches!(queue.append(&mixed(delivery, 9, 500)), Ok(Appended::OnDisk)) {
                break;
            }
            kept = delivery;
        }
        let is_dead = left.load(Ordering::Relaxed) <= 0;
        died += u64::from(is_dead);
        drop(queue);
        let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
        let (dropped, drained) = (queue.ledger().dropped(Signal::Logs), drain_lines(&mut queue));
        assert!(drained.is_sorted_by(|a, b| a < b), "{at}: {drained:?}");
        let got = drained.iter().filter(|id| **id < (kept + 1) * 1000).count() as u64 + dropped;
        // Of the delivery that was not acknowledged, something may have been turned away or kept.
        assert!(got >= kept * 9 && got <= kept * 9 + 9, "{at}: {got} of {}", kept * 9);
        if !is_dead {
            break;
        }
    }
    assert!(died > 30, "{died}");
}

#[test]
fn of_what_is_equally_severe_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
    for id in 0..200 {
        append(&mut queue, &[id], DEBUG);
    }
    let drained = &drain(&mut queue)[0];
    assert_eq!(drained.last(), Some(&199));
    assert_eq!(drained.len() as u64 + queue.ledger().dropped_for(Signal::Logs, Reason::Shed), 200);
}

#[test]
fn what_was_shed_is_known_by_its_delivery_to_the_next_process_and_not_taken_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
    for id in 1..=70 {
        append(&mut queue, &[id], if id % 2 == 0 { DEBUG } else { ERROR });
    }
    let shed = queue.ledger().dropped_for(Signal::Logs, Reason::Shed);
    assert!(shed > 0);
    drop(queue);
    let mut queue = open(Box::new(RealDisk), dir.path(), Overflow::Shed);
    while queue.count_one() {}
    for id in 1..=70 {
        assert!(queue.known(id).is_some_and(|progress| progress.is_whole()), "{id}");
    }
    assert_eq!(drain(&mut queue)[0].len() as u64 + shed, 70);
    assert_eq!(queue.ledger().dropped(Signal::Logs), shed);
}

#[test]
fn where_no_segment_can_be_written_anew_the_oldest_go_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = LawfulDisk::new(|op, path| {
        let aside = path.extension().is_some_and(|extension| extension == "new");
        if aside && op == Op::Create { Err(broken()) } else { Ok(()) }
    });
    let mut queue = open(disk, dir.path(), Overflow::Shed);
    for id in 0..90 {
        append(&mut queue, &[id], if id % 2 == 0 { DEBUG } else { ERROR });
    }
    // Larger than two segments.
    let mut large = block(&mut Deflater::default(), Signal::Logs, &[1000], 18_000);
    large.severity = ERROR;
    queue.append(&batch(1000, vec![large])).unwrap();
    assert!(queue.disk_bytes() <= MAX_BYTES, "{}", queue.disk_bytes());
    assert!(queue.ledger().dropped_for(Signal::Logs, Reason::Overflow) > 0);
    assert_eq!(drain(&mut queue)[0].last(), Some(&1000));
}

/// A queue of which one destination has everything, while something had to give way for another that is away.
fn full_for_one_that_is_away(dir: &Path, severity: impl Fn(u64) -> u8) -> (Queue, ReaderId) {
    let mut queue = open(Box::new(RealDisk), dir, Overflow::Shed);
    let others = vec![ReaderSpec { name: "audit".to_owned(), wants: Readers::default().first }];
    queue.serve(&Readers { others, ..Readers::default() });
    let audit = ReaderId::FIRST.next();
    let mut id = 0;
    while queue.at(audit).ledger().dropped(Signal::Logs) == 0 && id < 500 {
        append(&mut queue, &[id], severity(id));
        drain(&mut queue);
        id += 1;
    }
    (queue, audit)
}

#[test]
fn for_a_destination_that_is_away_the_least_severe_go_although_another_has_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, audit) =
        full_for_one_that_is_away(dir.path(), |id| if id % 2 == 0 { DEBUG } else { ERROR });
    let away = queue.at(audit);
    assert!(away.ledger().dropped_for(Signal::Logs, Reason::Shed) > 0);
    assert_eq!(away.ledger().dropped_for(Signal::Logs, Reason::Overflow), 0);
}

#[test]
fn what_a_destination_that_is_away_holds_up_gives_way_to_what_is_less_severe_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = full_for_one_that_is_away(dir.path(), |_| ERROR);
    // Larger than two segments.
    let mut large = block(&mut Deflater::default(), Signal::Logs, &[1000], 18_000);
    large.severity = DEBUG;
    assert_eq!(queue.append(&batch(1000, vec![large])).unwrap(), Appended::OnDisk);
    assert!(queue.disk_bytes() <= MAX_BYTES, "{}", queue.disk_bytes());
    assert_eq!(drain(&mut queue)[0], [1000]);
}
