//! What the queue says of itself, and what its requests are made of, to the byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::disk::{LawfulDisk, Op};
use common::{Lines, batch, block, damage_end, numbers};
use flate2::read::GzDecoder;
use outlast::queue::{
    Batch, Deflater, Disk, Encoding, HEADER_BYTES, Kind, Limits, Overflow, Queue, ReaderId, ReaderSpec,
    Readers, RealDisk, Reason, Request, Tally,
};
use outlast::{PerSignal, Signal};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const LIMITS: Limits = Limits {
    max_bytes: 80 << 10,
    segment_bytes: 8 << 10,
    memory_max_bytes: 1 << 20,
    overflow: Overflow::DropOldest,
};
/// Two slots stand at the head of a segment.
const HEAD_BYTES: u64 = 2 * 1024;

fn open_on(disk: Box<dyn Disk>, dir: &Path, limits: Limits) -> Queue {
    Queue::open(disk, dir, limits, 1).0
}

fn open(dir: &Path) -> Queue {
    let mut queue = open_on(Box::new(RealDisk), dir, LIMITS);
    while queue.count_one() {}
    queue
}

fn delivery(ids: &[u64], padding: usize) -> Batch {
    let mut made =
        batch(u128::from(ids[0]), vec![block(&mut Deflater::default(), Signal::Logs, ids, padding)]);
    made.received = 1_000 + ids[0];
    made
}

fn append(queue: &mut Queue, ids: &[u64], padding: usize) {
    queue.append(&delivery(ids, padding)).unwrap();
}

/// Names and lengths of the files in `dir`.
fn files(dir: &Path) -> BTreeMap<String, u64> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|file| (file.file_name().into_string().unwrap(), file.metadata().unwrap().len())).collect()
}

// === Room

#[test]
fn it_is_nearly_full_from_three_quarters_on_and_brimming_from_seven_eighths() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let mut seen = Vec::new();
    for id in 0..80 {
        append(&mut queue, &[id], 1_000);
        let used = queue.disk_bytes();
        let says = (queue.is_nearly_full(), queue.is_brimming());
        assert_eq!(says, (used >= 60 << 10, used >= 70 << 10), "{used} bytes");
        if !seen.contains(&says) {
            seen.push(says);
        }
    }
    assert_eq!(seen, [(false, false), (true, false), (true, true)]);
}

#[test]
fn what_it_says_it_takes_is_what_its_files_take() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let wants = PerSignal::from_fn(|_| true);
    let others = ["b", "c"].map(|name| ReaderSpec { name: name.to_owned(), wants }).to_vec();
    queue.serve(&Readers { others, ..Readers::default() });
    for id in 0..20 {
        append(&mut queue, &[id], 1_000);
        let files = files(dir.path());
        assert_eq!(queue.disk_bytes(), files.values().sum::<u64>(), "{files:?}");
        assert!(files.contains_key("b.reader") && files.contains_key("c.reader"));
    }
}

#[test]
fn a_segment_is_filled_to_its_last_byte_before_another_is_begun() {
    let one = delivery(&[1], 1_000);
    let size = (HEADER_BYTES + one.blocks[0].payload.len()) as u64;
    for (spare, segments) in [(0, 1), (1, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { segment_bytes: HEAD_BYTES + 2 * size + spare, ..LIMITS };
        let mut queue = open_on(Box::new(RealDisk), dir.path(), limits);
        for delivery in 0..2 {
            queue.append(&Batch { delivery, ..one.clone() }).unwrap();
        }
        assert_eq!(files(dir.path()).len(), segments);
        queue.append(&Batch { delivery: 3, ..one.clone() }).unwrap();
        assert_eq!(files(dir.path()).len(), segments + 1);
    }
}

// === What waits

#[test]
fn the_oldest_block_is_told_with_what_is_left_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    assert!(queue.oldest(Signal::Logs).is_none());
    append(&mut queue, &[7, 8, 9], 10);
    append(&mut queue, &[10], 10);
    let oldest = queue.oldest(Signal::Logs).unwrap();
    assert_eq!((oldest.records, oldest.received), (3, 1_007));
    assert_eq!(oldest.plain_bytes, 39, "three lines of a number, ten letters and two signs");
    let part = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..2).unwrap();
    assert!(queue.in_flight(Signal::Logs) && queue.is_sending());
    queue.delivered(Signal::Logs, part.to, 2, 0);
    assert!(!queue.in_flight(Signal::Logs) && !queue.is_sending());
    assert_eq!(queue.oldest(Signal::Logs).unwrap().records, 1);
    assert_eq!((queue.waiting(Signal::Logs).records, queue.waiting(Signal::Logs).blocks), (2, 2));
    assert!(queue.oldest(Signal::Traces).is_none());
}

#[test]
fn records_of_ours_that_were_done_are_not_taken_off_the_users() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let tally = Tally { signal: Signal::Logs, reason: Reason::Refused, records: 5 };
    let mut report = block(&mut Deflater::default(), Signal::Logs, &[900, 901], 10);
    report.kind = Kind::Report(tally);
    queue.append(&batch(900, vec![report])).unwrap();
    append(&mut queue, &[1, 2], 10);
    assert_eq!(queue.waiting(Signal::Logs).records, 2);
    let part = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..1).unwrap();
    assert_eq!((part.records, part.reports), (1, 1));
    queue.delivered(Signal::Logs, part.to, 0, 0);
    assert_eq!(queue.waiting(Signal::Logs).records, 2);
    let rest = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 1..2).unwrap();
    assert_eq!((rest.records, rest.reports), (1, 1));
}

#[test]
fn what_cannot_be_read_now_is_known_to_be_stalled_and_comes_when_it_can_be() {
    let unreadable = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&unreadable);
    let disk = LawfulDisk::new(move |op, _| match op {
        Op::Read if shared.load(Ordering::Relaxed) => Err(std::io::Error::from_raw_os_error(libc::EIO)),
        _ => Ok(()),
    });
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open_on(disk.clone(), dir.path(), LIMITS);
    append(&mut queue, &[1, 2], 10);
    assert!(!queue.is_stalled());
    for restart in [false, true] {
        if restart {
            // Of the newest segments all is known at once, of older ones not.
            for id in 3..40 {
                append(&mut queue, &[id], 1_000);
            }
            queue = open_on(disk.clone(), dir.path(), LIMITS);
        }
        unreadable.store(true, Ordering::Relaxed);
        while queue.count_one() {}
        assert!(queue.oldest(Signal::Logs).is_none(), "restarted: {restart}");
        assert!(queue.is_stalled(), "restarted: {restart}");
        assert!(queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 9).is_none());
        unreadable.store(false, Ordering::Relaxed);
        queue.try_disk();
        assert!(!queue.is_stalled());
        while queue.count_one() {}
        assert_eq!(queue.oldest(Signal::Logs).unwrap().records, 2);
        assert_eq!(queue.ledger().dropped(Signal::Logs), 0);
    }
}

/// A disk that reads so many times more, and then fails for the time being.
fn failing_after(reads: &Arc<AtomicUsize>) -> Box<dyn Disk> {
    let reads = Arc::clone(reads);
    LawfulDisk::new(move |op, _| {
        let left = reads.load(Ordering::Relaxed);
        match op {
            Op::Read if left == 0 => Err(std::io::Error::from_raw_os_error(libc::EIO)),
            Op::Read => {
                reads.store(left - 1, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    })
}

#[test]
fn whichever_read_fails_for_the_time_being_nothing_is_given_up_for_it() {
    for (encoding, fails_at) in BOTH.into_iter().flat_map(|encoding| (0..8).map(move |at| (encoding, at))) {
        let dir = tempfile::tempdir().unwrap();
        let reads = Arc::new(AtomicUsize::new(usize::MAX));
        let mut queue = open_on(failing_after(&reads), dir.path(), LIMITS);
        append(&mut queue, &[1], 10);
        append(&mut queue, &[2], 10);
        let mut cut = fragment();
        cut.received = 5;
        queue.append(&cut).unwrap();
        reads.store(fails_at, Ordering::Relaxed);
        let mut got = Vec::new();
        if let Some(request) = queue.assemble(Signal::Logs, &Lines, encoding, 1 << 20, 9) {
            got.extend(numbers(&request));
            queue.done(Signal::Logs, request.to);
        }
        reads.store(usize::MAX, Ordering::Relaxed);
        queue.try_disk();
        reads.store(fails_at, Ordering::Relaxed);
        let early = queue.fragment();
        reads.store(usize::MAX, Ordering::Relaxed);
        assert!(early.is_none_or(|(_, received, _)| received == 5));
        assert_eq!(queue.fragment().map(|(_, received, body)| (received, body)), Some((5, b"half".to_vec())));
        while let Some(request) = queue.assemble(Signal::Logs, &Lines, encoding, 1 << 20, 9) {
            got.extend(numbers(&request));
            queue.done(Signal::Logs, request.to);
        }
        assert_eq!((got, queue.ledger().dropped(Signal::Logs)), (vec![1, 2], 0), "{encoding:?}, {fails_at}");
    }
}

/// The first part of a cut record.
fn fragment() -> Batch {
    let mut cut = delivery(&[500], 0);
    cut.blocks[0].kind = Kind::Fragment;
    cut.blocks[0].plain_len = 4;
    cut.blocks[0].plain_crc = crc32fast::hash(b"half");
    cut.blocks[0].payload = Deflater::default().deflate(b"half").unwrap();
    cut
}

// === What requests are made of

fn plain(request: &Request) -> String {
    let mut text = String::new();
    match request.encoding {
        Encoding::Gzip => drop(GzDecoder::new(&request.body[..]).read_to_string(&mut text).unwrap()),
        Encoding::Identity => text = String::from_utf8(request.body.clone()).unwrap(),
    }
    text
}

const BOTH: [Encoding; 2] = [Encoding::Gzip, Encoding::Identity];

#[test]
fn blocks_stand_between_prefix_and_suffix_with_one_separator_between_two() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    for ids in [[1, 2], [3, 4], [5, 6]] {
        append(&mut queue, &ids, 0);
    }
    for encoding in BOTH {
        for (blocks, text) in [(1, "<1 \n2 \n>"), (2, "<1 \n2 \n|\n3 \n4 \n>")] {
            let request = queue.assemble(Signal::Logs, &Lines, encoding, 1 << 20, blocks).unwrap();
            assert_eq!(plain(&request), text, "{encoding:?}");
            assert_eq!((request.blocks, request.records, request.reports), (blocks, 2 * blocks, 0));
        }
    }
}

#[test]
fn a_damaged_block_ends_a_request_and_goes_with_the_next_and_its_neighbours_arrive() {
    for encoding in BOTH {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path());
        append(&mut queue, &[1], 0);
        append(&mut queue, &[2, 3], 0);
        damage_end(&dir.path().join("0000000001.seg"));
        append(&mut queue, &[4], 0);
        let first = queue.assemble(Signal::Logs, &Lines, encoding, 1 << 20, 9).unwrap();
        assert_eq!(plain(&first), "<1 \n>", "{encoding:?}");
        queue.done(Signal::Logs, first.to);
        let second = queue.assemble(Signal::Logs, &Lines, encoding, 1 << 20, 9).unwrap();
        assert_eq!(plain(&second), "<4 \n>");
        assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Damaged), 2);
    }
}

#[test]
fn a_part_begins_where_the_block_is_and_has_one_record_at_least_and_none_of_the_next_block() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1, 2, 3, 4, 5], 0);
    append(&mut queue, &[6], 0);
    for encoding in BOTH {
        let mut part = |records| queue.assemble_part(Signal::Logs, &Lines, encoding, records).unwrap();
        let nothing = part(0..0);
        assert_eq!((plain(&nothing), nothing.records), ("<1 \n>".to_owned(), 1));
        assert_eq!(part(2..2).part, Some(0..2));
        let all = part(0..99);
        assert_eq!((numbers(&all), all.to.records), (vec![1, 2, 3, 4, 5], 0));
    }
    let two = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..2).unwrap();
    queue.delivered(Signal::Logs, two.to, 2, 0);
    for (asked, got) in [(0..0, vec![3]), (0..4, vec![3, 4]), (4..5, vec![3, 4, 5])] {
        let part = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, asked).unwrap();
        assert_eq!(numbers(&part), got);
        assert_eq!((part.records as usize, part.blocks), (got.len(), 1));
    }
    // A request of whole blocks takes the rest of it alone.
    let rest = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 9).unwrap();
    assert_eq!(numbers(&rest), [3, 4, 5]);
}

#[test]
fn the_second_record_is_the_one_after_the_first_that_is_not_done_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let second = |queue: &mut Queue| {
        let request = queue.assemble_second(Signal::Logs, &Lines, Encoding::Identity)?;
        assert_eq!((request.records, request.blocks), (1, 1));
        assert!(!queue.in_flight(Signal::Logs));
        Some(numbers(&request))
    };
    assert_eq!(second(&mut queue), None);
    append(&mut queue, &[1, 2, 3], 10);
    for done in 1..=2 {
        assert_eq!(second(&mut queue), Some(vec![done + 1]));
        let to = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..done as u32).unwrap().to;
        queue.delivered(Signal::Logs, to, 1, 0);
    }
    assert_eq!(second(&mut queue), None, "the last one has none");
    append(&mut queue, &[4, 5], 10);
    assert_eq!(second(&mut queue), Some(vec![4]));
}

// === Readers

#[test]
fn a_reader_has_a_name_but_for_the_first_and_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let wants = PerSignal::from_fn(|_| true);
    let others = ["b", "c"].map(|name| ReaderSpec { name: name.to_owned(), wants }).to_vec();
    queue.serve(&Readers { others, ..Readers::default() });
    let readers: Vec<ReaderId> = queue.readers().collect();
    assert_eq!(readers.iter().map(|reader| reader.place()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(readers[2], ReaderId::FIRST.next().next());
    let names: Vec<_> =
        readers.iter().map(|reader| queue.at(*reader).reader_name().map(str::to_owned)).collect();
    assert_eq!(names, [None, Some("b".to_owned()), Some("c".to_owned())]);
    // A request of any of them is a request.
    append(&mut queue, &[1], 10);
    queue.at(readers[1]).assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 9).unwrap();
    assert!(queue.is_sending() && !queue.in_flight(Signal::Logs));
}

fn with_reader(dir: &Path, name: &str) -> Queue {
    let mut queue = open_on(Box::new(RealDisk), dir, LIMITS);
    let others = vec![ReaderSpec { name: name.to_owned(), wants: PerSignal::from_fn(|_| true) }];
    queue.serve(&Readers { others, ..Readers::default() });
    while queue.count_one() {}
    queue
}

/// Delivers the oldest block to the second reader.
fn deliver_one(queue: &mut Queue) -> Vec<u64> {
    let mut queue = queue.at(ReaderId::FIRST.next());
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    queue.done(Signal::Logs, request.to);
    numbers(&request)
}

#[test]
fn the_place_of_a_reader_of_another_name_is_none_of_its() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = with_reader(dir.path(), "b");
    for id in 1..4 {
        append(&mut queue, &[id], 10);
    }
    assert_eq!(deliver_one(&mut queue), [1]);
    drop(queue);
    std::fs::rename(dir.path().join("b.reader"), dir.path().join("c.reader")).unwrap();
    assert_eq!(deliver_one(&mut with_reader(dir.path(), "c")), [1]);
}

#[test]
fn what_is_written_of_a_reader_at_a_start_never_takes_the_place_of_the_last_good_state() {
    for delivered in 1..4 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.reader");
        let mut queue = with_reader(dir.path(), "b");
        for id in 1..6 {
            append(&mut queue, &[id], 10);
        }
        for id in 1..=delivered {
            assert_eq!(deliver_one(&mut queue), [id]);
        }
        drop(queue);
        let before = std::fs::read(&path).unwrap();
        drop(with_reader(dir.path(), "b"));
        // The process died while it wrote.
        let mut torn = std::fs::read(&path).unwrap();
        for (byte, before) in torn.iter_mut().zip(&before) {
            *byte = if byte == before { *byte } else { !*byte };
        }
        assert_ne!(torn, before);
        std::fs::write(&path, torn).unwrap();
        assert_eq!(deliver_one(&mut with_reader(dir.path(), "b")), [delivered + 1]);
    }
}

#[test]
fn a_readers_file_that_somebody_else_put_in_the_place_of_its_own_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.reader");
    let mut queue = with_reader(dir.path(), "b");
    for id in 1..6 {
        append(&mut queue, &[id], 10);
    }
    assert_eq!(deliver_one(&mut queue), [1]);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"somebody else's").unwrap();
    assert_eq!(deliver_one(&mut queue), [2]);
    drop(queue);
    assert_eq!(deliver_one(&mut with_reader(dir.path(), "b")), [3]);
}

// === A survey from outside

#[cfg(feature = "tool")]
mod surveys {
    use super::*;
    use outlast::queue::{ReadOnlyDisk, Standing, survey};

    #[test]
    fn a_survey_tells_what_became_of_each_frame_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path());
        append(&mut queue, &[1], 10);
        append(&mut queue, &[2, 3], 10);
        let mut carry = block(&mut Deflater::default(), Signal::Logs, &[0], 0);
        carry.kind = Kind::Carry;
        queue.append(&batch(77, vec![carry])).unwrap();
        append(&mut queue, &[4], 10);
        let first = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
        queue.delivered(Signal::Logs, first.to, 1, 0);
        drop(queue);
        let before = std::fs::read(dir.path().join("0000000001.seg")).unwrap();
        let (state, segments) = survey(dir.path()).unwrap();
        assert_eq!(state.ledger.delivered(Signal::Logs), 1);
        assert_eq!(segments.len(), 1);
        let segment = &segments[0];
        assert_eq!((segment.number, segment.bytes, segment.damaged_bytes), (1, before.len() as u64, 0));
        assert!(segment.readable);
        let became: Vec<_> = segment.frames.iter().map(|frame| (frame.records, frame.standing)).collect();
        let wanted = [(1, Standing::Done), (2, Standing::Waits), (1, Standing::Kept), (1, Standing::Waits)];
        assert_eq!(became, wanted);
        assert!(segment.frames.iter().all(|frame| frame.intact));
        assert_eq!(std::fs::read(dir.path().join("0000000001.seg")).unwrap(), before);

        // The payload of the last one, and the header of the second.
        let mut damaged = before;
        let last = damaged.len() - 1;
        damaged[last] ^= 1;
        let stored = segment.frames[0].stored_bytes as usize;
        damaged[HEAD_BYTES as usize + HEADER_BYTES + stored + 20] ^= 1;
        std::fs::write(dir.path().join("0000000001.seg"), damaged).unwrap();
        let (_, segments) = survey(dir.path()).unwrap();
        let intact: Vec<_> = segments[0].frames.iter().map(|frame| (frame.records, frame.intact)).collect();
        assert_eq!(intact, [(1, true), (1, true), (1, false)]);
        let skipped = HEADER_BYTES as u64 + u64::from(segment.frames[1].stored_bytes);
        assert_eq!(segments[0].damaged_bytes, skipped);
    }

    #[test]
    fn classes_are_never_sent_and_a_frame_that_comes_again_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0000000001.seg");
        let mut queue = open(dir.path());
        append(&mut queue, &[1], 10);
        let mut classes = block(&mut Deflater::default(), Signal::Logs, &[2, 3], 0);
        classes.kind = Kind::Classes;
        queue.append(&batch(2, vec![classes])).unwrap();
        drop(queue);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_within(HEAD_BYTES as usize..);
        std::fs::write(&path, bytes).unwrap();
        let (_, segments) = survey(dir.path()).unwrap();
        let became: Vec<_> = segments[0].frames.iter().map(|frame| (frame.records, frame.standing)).collect();
        assert_eq!(became, [(1, Standing::Waits), (2, Standing::Done)]);
    }

    #[test]
    fn the_disk_of_a_survey_changes_nothing_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, other) = (dir.path().join("kept"), dir.path().join("other"));
        std::fs::write(&kept, "kept").unwrap();
        let disk = ReadOnlyDisk;
        assert!(disk.create(&other).is_err() && disk.rename(&kept, &other).is_err());
        assert!(disk.remove(&kept).is_err() && disk.remove_all(&kept).is_err());
        assert!(disk.open(&kept).unwrap().write_all_at(b"gone", 0).is_err());
        assert_eq!((std::fs::read(&kept).unwrap(), other.exists()), (b"kept".to_vec(), false));
        let (queue, link) = (dir.path().join("queue"), dir.path().join("link"));
        append(&mut open(&queue), &[1], 10);
        std::os::unix::fs::symlink(&queue, &link).unwrap();
        assert!(survey(&queue).is_ok() && survey(&link).is_err());
    }

    #[test]
    fn there_is_nothing_to_survey_where_there_is_no_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(survey(&dir.path().join("missing")).is_err());
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(survey(&dir.path().join("file")).is_err());
        assert!(files(dir.path()).len() == 1, "and none is made");
    }
}
