//! What becomes of a request besides being delivered, and of the first part of a cut record that waits for the rest.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::{Lines, batch, block, damage_end, drain, numbers};
use outlast::Signal;
use outlast::encode::WireFormat;
use outlast::queue::{
    Deflater, Encoding, Kind, Limits, Mark, NewBlock, Overflow, Queue, RealDisk, Reason, Seq, Tally,
};
use std::path::Path;

const LIMITS: Limits = Limits {
    max_bytes: 4 << 20,
    segment_bytes: 8 << 10,
    memory_max_bytes: 1 << 20,
    overflow: Overflow::DropOldest,
};

fn open(dir: &Path) -> Queue {
    open_with(dir, LIMITS)
}

fn open_with(dir: &Path, limits: Limits) -> Queue {
    let mut queue = Queue::open(Box::new(RealDisk), dir, limits, 1).0;
    while queue.count_one() {}
    queue
}

/// Log records with these numbers in one block.
fn append(queue: &mut Queue, ids: &[u64], padding: usize) {
    let block = block(&mut Deflater::default(), Signal::Logs, ids, padding);
    queue.append(&batch(u128::from(ids[0]), vec![block])).unwrap();
}

fn request(queue: &mut Queue) -> (Vec<u64>, Mark) {
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 100).unwrap();
    (numbers(&request), request.to)
}

fn waiting(queue: &Queue) -> u64 {
    queue.waiting(Signal::Logs).records
}

// === Requests

#[test]
fn what_the_fallback_has_is_done_and_counted_apart_and_what_it_rejects_is_a_drop() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1, 2, 3], 10);
    append(&mut queue, &[4], 10);
    let part = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..3).unwrap();
    queue.handed_over(Signal::Logs, part.to, 2, 1);
    for queue in [queue, open(dir.path())] {
        let ledger = queue.ledger();
        assert_eq!((ledger.handed(Signal::Logs), ledger.delivered(Signal::Logs)), (2, 0));
        assert_eq!(ledger.dropped_for(Signal::Logs, Reason::Rejected), 1);
        assert_eq!(ledger.dropped(Signal::Logs), 1);
        assert_eq!(waiting(&queue), 1);
    }
}

#[test]
fn an_answer_that_outlived_its_process_counts_only_if_it_surely_means_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1, 2, 3], 10);
    let whole = request(&mut queue).1;
    queue.keep(Signal::Logs);
    let part = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..1).unwrap().to;
    assert_eq!((whole.records, part.records), (0, 1));

    let mut queue = open(dir.path());
    queue.delivered(Signal::Logs, part, 1, 0);
    assert_eq!((waiting(&queue), queue.ledger().delivered(Signal::Logs)), (3, 0), "a part of a block");
    queue.delivered(Signal::Logs, whole, 3, 0);
    assert_eq!((waiting(&queue), queue.ledger().delivered(Signal::Logs)), (0, 3));

    // Of this process, and nothing is in flight any more.
    append(&mut queue, &[4], 10);
    let kept = request(&mut queue).1;
    queue.keep(Signal::Logs);
    queue.delivered(Signal::Logs, kept, 1, 0);
    assert_eq!((waiting(&queue), queue.ledger().delivered(Signal::Logs)), (1, 3));
    assert_eq!(request(&mut queue).0, [4]);
}

#[test]
fn an_answer_to_another_request_than_the_one_in_flight_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1], 10);
    let first = request(&mut queue).1;
    queue.keep(Signal::Logs);
    append(&mut queue, &[2], 10);
    let second = request(&mut queue).1;
    queue.handed_over(Signal::Logs, first, 1, 0);
    assert_eq!((waiting(&queue), queue.ledger().handed(Signal::Logs)), (2, 0));
    assert!(queue.in_flight(Signal::Logs));
    queue.handed_over(Signal::Logs, second, 2, 0);
    assert_eq!((waiting(&queue), queue.ledger().handed(Signal::Logs)), (0, 2));
}

/// What was given up for a refusal, what was delivered, what waits.
fn account(queue: &Queue) -> (u64, u64, u64) {
    let ledger = queue.ledger();
    (ledger.dropped_for(Signal::Logs, Reason::Refused), ledger.delivered(Signal::Logs), waiting(queue))
}

#[test]
fn a_mark_is_moved_by_records_over_the_bounds_of_blocks_and_never_beyond_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1, 2, 3], 10);
    let first = request(&mut queue).1.seq;
    queue.keep(Signal::Logs);
    append(&mut queue, &[4, 5], 10);
    let second = request(&mut queue).1.seq;
    queue.keep(Signal::Logs);
    let mark = |seq, records| Mark { seq, records };
    let wanted = [mark(Seq::default(), 0), mark(Seq::default(), 1), mark(Seq::default(), 2), mark(first, 0)]
        .into_iter()
        .chain([mark(first, 1), mark(second, 0), mark(second, 0)]);
    for (records, wanted) in (0..).zip(wanted) {
        assert_eq!(queue.mark_after(Signal::Logs, records), wanted, "{records} records");
    }
    let part = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..1).unwrap();
    queue.delivered(Signal::Logs, part.to, 1, 0);
    assert_eq!(queue.mark_after(Signal::Logs, 1), mark(Seq::default(), 2), "counted from where it is");
    assert_eq!(queue.mark_after(Signal::Logs, 2), mark(first, 0));
}

#[test]
fn records_that_are_given_up_are_counted_over_the_bounds_of_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1], 10);
    append(&mut queue, &[2, 3, 4], 10);
    append(&mut queue, &[5], 10);
    queue.settle(Signal::Logs, 3, 0);
    assert_eq!(account(&queue), (0, 0, 5), "nothing was sent, so nothing was judged");
    assert_eq!(request(&mut queue).0.len(), 5);
    queue.keep(Signal::Logs);
    queue.settle(Signal::Logs, 3, 0);
    assert_eq!(account(&queue), (3, 0, 2));
    queue.settle(Signal::Logs, 1, 0);
    assert_eq!(account(&queue), (4, 0, 1));
    assert_eq!(request(&mut queue).0, [5]);
}

#[test]
fn a_part_of_a_block_that_is_refused_counts_as_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1, 2, 3], 10);
    append(&mut queue, &[4], 10);
    let part = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..2).unwrap();
    queue.refuse(Signal::Logs, part.to, Reason::Refused);
    assert_eq!(account(&queue), (2, 0, 2));
    let (rest, to) = request(&mut queue);
    assert_eq!(rest, [3]);
    queue.refuse(Signal::Logs, to, Reason::Refused);
    assert_eq!(account(&queue), (3, 0, 1));
}

#[test]
fn an_alibi_that_arrived_is_marked_where_it_was_sent_from_and_nowhere_else() {
    // Blocks, how many records are given up before the alibi, and whether that is then the next one.
    let cases: [(&[&[u64]], u64, bool); 5] = [
        (&[&[1, 2, 3]], 1, true),
        (&[&[1, 2, 3]], 2, false),
        (&[&[1], &[2, 3]], 1, true),
        (&[&[1], &[2, 3]], 2, false),
        (&[&[1], &[2, 3]], 0, false),
    ];
    for (blocks, refused, is_next) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path());
        for ids in blocks {
            append(&mut queue, ids, 10);
        }
        let alibi = queue.assemble_second(Signal::Logs, &Lines, Encoding::Gzip).unwrap();
        assert_eq!(numbers(&alibi), [2]);
        queue.settle(Signal::Logs, refused, 1);
        let delivered = u64::from(is_next);
        assert_eq!(account(&queue), (refused, delivered, 3 - refused - delivered), "{blocks:?}, {refused}");
        // It counts for one settlement.
        assert_eq!(queue.settle(Signal::Logs, 0, 1), 0);
        let left = 3 - refused - delivered;
        assert_eq!(account(&queue), (refused, delivered, left), "{blocks:?}, {refused}");
        // What was taken from the front is told otherwise.
        assert_eq!(queue.took(Signal::Logs, 1), 1);
        assert_eq!(account(&queue), (refused, delivered + 1, left - 1), "{blocks:?}, {refused}");
    }
}

#[test]
fn an_alibi_is_marked_although_what_stood_before_it_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1], 10);
    append(&mut queue, &[2, 3], 10);
    let alibi = queue.assemble_second(Signal::Logs, &Lines, Encoding::Gzip).unwrap();
    assert_eq!(numbers(&alibi), [2]);
    let (suspect, to) =
        (queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..1).unwrap(), alibi.head);
    queue.refuse(Signal::Logs, suspect.to, Reason::Overflow);
    assert_eq!(queue.oldest(Signal::Logs).unwrap().seq, to);
    assert_eq!(queue.settle(Signal::Logs, 0, 1), 1);
    assert_eq!(request(&mut queue).0, [3]);
}

#[test]
fn nothing_is_taken_that_this_queue_did_not_send() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1, 2], 10);
    assert_eq!(queue.took(Signal::Logs, 1), 0);
    assert_eq!(request(&mut queue).0, [1, 2]);
    assert_eq!(queue.took(Signal::Logs, 1), 1);
    assert_eq!(request(&mut queue).0, [2]);
}

#[test]
fn a_delivery_that_left_nothing_is_known_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    assert_eq!(queue.known(5), None);
    queue.note_whole(5);
    assert!(queue.known(5).unwrap().is_whole());
    queue.append(&batch(6, vec![])).unwrap();
    assert!(queue.known(6).unwrap().is_whole());
}

// === What is told

fn report(queue: &mut Queue, signal: Signal, tally: Tally) {
    let mut report = block(&mut Deflater::default(), signal, &[9_999], 0);
    report.kind = Kind::Report(tally);
    queue.append(&batch(u128::from(tally.records) + 50_000, vec![report])).unwrap();
}

#[test]
fn what_refused_reports_said_is_said_again_and_what_waits_behind_them_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    for records in [3, 4] {
        let tally = Tally { signal: Signal::Traces, reason: Reason::Unreadable, records };
        queue.count_drop(tally);
        report(&mut queue, Signal::Logs, tally);
    }
    assert_eq!(queue.unreported(), []);
    let first = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    queue.refuse(Signal::Logs, first.to, Reason::Refused);
    assert_eq!(
        queue.unreported(),
        [Tally { signal: Signal::Traces, reason: Reason::Unreadable, records: 3 }]
    );
    assert_eq!(queue.ledger().dropped(Signal::Logs), 0, "a report is no record of the user's");
}

#[test]
fn totals_are_told_once_and_it_is_known_while_they_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1, 2, 3], 10);
    let part = queue.assemble_part(Signal::Logs, &Lines, Encoding::Gzip, 0..2).unwrap();
    queue.delivered(Signal::Logs, part.to, 2, 0);
    let totals = queue.untold();
    let logs = totals.get(Signal::Logs);
    assert_eq!((logs.received, logs.delivered, logs.handed), (3, 2, 0));
    assert!(!queue.is_telling());
    report(&mut queue, Signal::Metrics, Tally { signal: Signal::Logs, reason: Reason::Refused, records: 0 });
    queue.told(&totals, 88);
    for queue in [&queue, &open(dir.path())] {
        let untold = queue.untold();
        assert_eq!((untold.get(Signal::Logs).received, untold.get(Signal::Logs).delivered), (0, 0));
        assert_eq!((queue.is_telling(), queue.state().told_at), (true, 88));
    }
    let told = queue.assemble(Signal::Metrics, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
    queue.delivered(Signal::Metrics, told.to, 0, 0);
    assert!(!queue.is_telling());
}

// === The first part of a cut record

const BODY: &[u8] = b"[{\"time\":\"2026-01-01T00:00:00.000Z\",\"type\":\"func";
/// When it came.
const RECEIVED: u64 = 77;

fn fragment(body: &[u8]) -> NewBlock {
    let mut fragment = block(&mut Deflater::default(), Signal::Logs, &[0], 0);
    fragment.kind = Kind::Fragment;
    fragment.format = Lines.id();
    fragment.records = 1;
    fragment.plain_len = u32::try_from(body.len()).unwrap();
    fragment.plain_crc = crc32fast::hash(body);
    fragment.payload = Deflater::default().deflate(body).unwrap();
    fragment
}

/// Keeps it as a delivery of its own.
fn append_fragment(queue: &mut Queue) -> Seq {
    let mut delivery = batch(1_000, vec![fragment(BODY)]);
    delivery.received = RECEIVED;
    queue.append(&delivery).unwrap();
    queue.fragment().expect("it was kept").0
}

fn has_first_segment(dir: &Path) -> bool {
    dir.join("0000000001.seg").exists()
}

#[test]
fn a_fragment_waits_through_a_restart_and_is_never_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, &[1], 10);
    let seq = append_fragment(&mut queue);
    append(&mut queue, &[2], 10);
    let mut queue = open(dir.path());
    assert_eq!(queue.fragment(), Some((seq, RECEIVED, BODY.to_vec())));
    assert_eq!(drain(&mut queue), [vec![1, 2], vec![], vec![]]);
    assert_eq!(queue.fragment(), Some((seq, RECEIVED, BODY.to_vec())));
    assert_eq!(queue.ledger().dropped(Signal::Logs), 0);
}

#[test]
fn a_segment_stays_for_its_fragment_and_goes_without_it() {
    for waits in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path());
        append(&mut queue, &[1], 10);
        let seq = append_fragment(&mut queue);
        if !waits {
            queue.forget_fragment(seq);
        }
        for id in 2..40 {
            append(&mut queue, &[id], 1_000);
        }
        drain(&mut queue);
        assert_eq!(has_first_segment(dir.path()), waits);
        assert!(!dir.path().join("0000000002.seg").exists(), "others go in any case");
        assert_eq!(queue.fragment().is_some(), waits);
        // Nor does the end of the wait leave anything behind.
        queue.forget_fragment(seq);
        append(&mut queue, &[40], 10);
        drain(&mut queue);
        assert!(!has_first_segment(dir.path()));
    }
}

#[test]
fn a_large_newest_segment_is_replaced_once_all_is_done_unless_a_fragment_waits_in_it() {
    let limits = Limits { segment_bytes: 1 << 20, ..LIMITS };
    for waits in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open_with(dir.path(), limits);
        append(&mut queue, &[1], 200 << 10);
        let seq = append_fragment(&mut queue);
        if !waits {
            queue.forget_fragment(seq);
        }
        drain(&mut queue);
        assert_eq!(has_first_segment(dir.path()), waits);
        assert_eq!(queue.fragment().is_some(), waits);
        assert_eq!(queue.disk_bytes() > 100 << 10, waits);
    }
}

#[test]
fn a_small_newest_segment_is_not_replaced_when_all_is_done() {
    let limits = Limits { segment_bytes: 1 << 20, ..LIMITS };
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open_with(dir.path(), limits);
    append(&mut queue, &[1], 60 << 10);
    drain(&mut queue);
    assert!(has_first_segment(dir.path()));
}

#[test]
fn a_fragment_that_was_completed_is_forgotten_after_a_restart_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let seq = append_fragment(&mut queue);
    let mut rest = block(&mut Deflater::default(), Signal::Logs, &[1], 10);
    rest.kind = Kind::Block { joins: Some(seq) };
    queue.append(&batch(1_001, vec![rest])).unwrap();
    for mut queue in [queue, open(dir.path())] {
        assert_eq!(queue.fragment(), None);
        assert_eq!((waiting(&queue), queue.ledger().dropped(Signal::Logs)), (1, 0));
    }
}

#[test]
fn the_end_of_one_fragment_says_nothing_about_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let first = append_fragment(&mut queue);
    let mut delivery = batch(1_001, vec![fragment(b"another")]);
    delivery.received = RECEIVED;
    queue.append(&delivery).unwrap();
    queue.forget_fragment(first);
    let mut rest = block(&mut Deflater::default(), Signal::Logs, &[1], 10);
    rest.kind = Kind::Block { joins: Some(first) };
    queue.append(&batch(1_002, vec![rest])).unwrap();
    for mut queue in [queue, open(dir.path())] {
        assert_eq!(queue.fragment().map(|(_, _, body)| body), Some(b"another".to_vec()));
    }
}

#[test]
fn a_damaged_fragment_is_a_record_that_is_gone_and_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    append_fragment(&mut open(dir.path()));
    damage_end(&dir.path().join("0000000001.seg"));
    let mut queue = open(dir.path());
    assert_eq!((queue.fragment(), queue.fragment()), (None, None));
    assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Damaged), 1);
    // Its frame is there still.
    let mut queue = open(dir.path());
    assert_eq!(queue.fragment(), None);
    assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Damaged), 1);
}

#[test]
fn a_fragment_of_which_nothing_came_is_not_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let first = append_fragment(&mut queue);
    queue.append(&batch(7, vec![block(&mut Deflater::default(), Signal::Logs, &[7], 10)])).unwrap();
    queue.forget_fragment(first);
    for mut queue in [queue, open(dir.path())] {
        assert_eq!((queue.fragment(), waiting(&queue)), (None, 1));
    }
    // The next one waits as any does.
    let second = append_fragment(&mut open(dir.path()));
    assert!(second > first);
    assert_eq!(open(dir.path()).fragment().map(|(seq, ..)| seq), Some(second));
}

#[test]
fn an_older_fragment_does_not_stand_in_for_a_damaged_one_that_was_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let older = append_fragment(&mut queue);
    assert!(append_fragment(&mut queue) > older);
    queue.count_drop(Tally { signal: Signal::Logs, reason: Reason::Refused, records: 0 });
    drop(queue);
    // Its header, so that nothing but the state speaks of it.
    let path = dir.path().join("0000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(4).rposition(|magic| magic == b"oLf1").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut queue = open(dir.path());
    assert_eq!(queue.fragment(), None);
    assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Damaged), 1);
}

// === What an earlier process made for another protocol

#[test]
fn blocks_for_another_protocol_are_given_up_and_those_behind_them_are_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    for (id, format) in [(1, 99), (2, 99), (3, Lines.id()), (4, 99), (5, Lines.id())] {
        let block = NewBlock { format, ..block(&mut Deflater::default(), Signal::Logs, &[id], 0) };
        queue.append(&batch(u128::from(id), vec![block])).unwrap();
    }
    let (sent, to) = request(&mut queue);
    assert_eq!((sent, queue.ledger().dropped_for(Signal::Logs, Reason::Damaged)), (vec![3], 2));
    queue.delivered(Signal::Logs, to, 1, 0);
    assert_eq!(request(&mut queue).0, [5]);
    assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Damaged), 3);
}
