//! Corners of the queue that no walk through it comes to by itself: what is asked of one function alone.

use super::deliveries::{Deliveries, REMEMBERED_DELIVERIES_MAX};
use super::frame::{Kind, Seq, sample};
use super::heads::Head;
use super::lane::Lane;
use super::ledger::{Reason, Tally};
use super::notes::{Entry, Index};
use super::reader::{ReaderId, ReaderSpec, Readers};
use super::scan::Position;
use super::segments::Segments;
use super::state::{FRAMES_START, Mark, SLOT_BYTES, State};
use super::types::{Batch, Encoding, Limits, NewBlock, Overflow, Waiting};
use super::{Deflater, Queue, RealDisk};
use crate::encode::{Otlp, WireFormat};
use crate::{PerSignal, Signal};
use std::fs;
use std::path::Path;

const TALLY: Tally = Tally { signal: Signal::Metrics, reason: Reason::Refused, records: 4 };

fn open(dir: &Path) -> Queue {
    let limits = Limits::new(64 << 20, Overflow::DropOldest);
    Queue::open(Box::new(RealDisk), dir, limits, 7).0
}

/// A delivery of one frame of `kind`, with three records.
pub(super) fn delivery(number: u128, signal: Signal, kind: Kind) -> Batch {
    let block = NewBlock {
        kind,
        signal,
        format: Otlp.id(),
        events_end: 1,
        records: 3,
        plain_len: 1,
        plain_crc: crc32fast::hash(b"x"),
        times: (1, 1),
        severity: 0,
        payload: Deflater::default().deflate(b"x").unwrap(),
    };
    Batch { delivery: number, received: 1, parts_before: 0, blocks: vec![block] }
}

fn append(queue: &mut Queue, number: u128, signal: Signal, kind: Kind) {
    queue.append(&delivery(number, signal, kind)).unwrap();
}

const BLOCK: Kind = Kind::Block { joins: None };

fn numbers(queue: &Queue) -> Vec<u32> {
    queue.store.all().map(|(number, _)| number).collect()
}

// === Heads of segments

fn generations(head: &Head) -> Vec<u64> {
    head.states.iter().map(|state| state.generation).collect()
}

fn of(generation: u64) -> State {
    State { generation, ..State::default() }
}

#[test]
fn a_state_is_never_written_over_the_latest_whoever_writes_it() {
    let dir = tempfile::tempdir().unwrap();
    let reopened = || Segments::open(Box::new(RealDisk), dir.path(), 0).0;
    let mut store = reopened();
    store.begin(&of(1)).unwrap();
    store.write_state(&of(2)).unwrap();
    store.write_state(&of(3)).unwrap();
    assert_eq!(generations(&store.head(1).unwrap()), [3, 2]);
    // As noted in a segment that another follows.
    let mut store = reopened();
    for (generation, both) in [(4, [3, 4]), (5, [5, 4]), (6, [5, 6])] {
        if generation == 4 {
            store.head(1).unwrap();
        }
        store.note_state(1, &of(generation));
        assert_eq!(generations(&reopened().head(1).unwrap()), both);
    }
    // As written while no segment takes appends.
    let mut store = reopened();
    store.head(1).unwrap();
    for (generation, both) in [(7, [7, 6]), (8, [7, 8]), (9, [9, 8])] {
        store.write_state(&of(generation)).unwrap();
        assert_eq!(generations(&reopened().head(1).unwrap()), both);
    }
}

#[test]
fn a_head_that_is_not_there_is_empty_and_one_that_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0000000001.seg");
    let (mut store, _) = Segments::open(Box::new(RealDisk), dir.path(), 0);
    store.begin(&of(1)).unwrap();
    let (mut store, _) = Segments::open(Box::new(RealDisk), dir.path(), 0);
    fs::remove_file(&path).unwrap();
    assert!(generations(&store.head(1).unwrap()).is_empty());
    fs::create_dir(&path).unwrap();
    assert!(store.head(1).is_err(), "it is none now, but may be one again");
}

#[test]
fn a_segment_with_a_state_of_ours_is_ours_whatever_stands_in_the_other_slot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0000000001.seg");
    let (mut store, _) = Segments::open(Box::new(RealDisk), dir.path(), 0);
    store.begin(&of(1)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let newer: Vec<u8> = bytes[..8].iter().enumerate().map(|(at, byte)| byte + u8::from(at == 7)).collect();
    bytes[SLOT_BYTES..SLOT_BYTES + 8].copy_from_slice(&newer);
    fs::write(&path, &bytes).unwrap();
    let head = store.head(1).unwrap();
    assert_eq!((generations(&head), head.newer), (vec![1], false));
    bytes[..8].copy_from_slice(&newer);
    fs::write(&path, &bytes).unwrap();
    assert!(store.head(1).unwrap().newer);
}

// === Deliveries

#[test]
fn so_many_frames_of_a_delivery_are_there() {
    let mut deliveries = Deliveries::default();
    let mut header = sample(Seq(1));
    header.parts = 3;
    for part in 0..3 {
        header.part = part;
        deliveries.note(&header);
        assert_eq!(deliveries.get(header.delivery).unwrap().frames(), part + 1);
    }
}

#[test]
fn a_delivery_that_the_index_knows_is_whole_unless_its_frames_say_otherwise() {
    let mut deliveries = Deliveries::default();
    let mut header = sample(Seq(1));
    (header.part, header.parts) = (0, 2);
    deliveries.note(&header);
    deliveries.note_older_whole(header.delivery);
    assert!(!deliveries.get(header.delivery).unwrap().is_whole());
    deliveries.note_older_whole(header.delivery + 1);
    assert!(deliveries.get(header.delivery + 1).unwrap().is_whole());
    assert!(deliveries.all().count() < REMEMBERED_DELIVERIES_MAX);
}

// === What is written and counted

#[test]
fn what_waits_adds_up() {
    let header = sample(Seq(1));
    let one =
        Waiting { blocks: 1, records: u64::from(header.records), plain_bytes: u64::from(header.plain_len) };
    assert!(one.records > 0 && one.plain_bytes > 0);
    let mut waiting = Waiting::default();
    waiting.add(&header);
    assert_eq!(waiting, one);
    waiting.take(&header);
    assert_eq!(waiting, Waiting::default());

    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    (1..4).for_each(|number| append(&mut queue, number, Signal::Logs, BLOCK));
    assert_eq!(queue.waiting(Signal::Logs), Waiting { blocks: 3, records: 9, plain_bytes: 3 });
}

#[test]
fn a_segment_that_is_closed_is_followed_by_a_later_state_and_its_deliveries_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let (index, noted) = Index::tapped();
    queue.index = Some(index);
    append(&mut queue, 5, Signal::Logs, BLOCK);
    let before = queue.state.generation;
    queue.begin_segment().unwrap();
    assert!(queue.state.generation > before);
    assert!(noted.try_iter().any(|entry| matches!(entry, Entry::Deliveries(row) if row == [5])));
}

#[test]
fn what_is_turned_away_is_known_as_a_whole_only_and_takes_what_was_to_be_joined() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, 1, Signal::Logs, Kind::Fragment);
    let fragment = queue.state.fragment;
    assert_ne!(fragment, Seq::default());
    let reason = Reason::OverflowNewest;
    let told = |queue: &Queue| (queue.state.turned_away, queue.own.overflowed.new);
    queue.turn_away(&delivery(2, Signal::Metrics, Kind::Report(TALLY)), reason, true).unwrap();
    assert_eq!(told(&queue), (0, 0), "Lambda does not repeat a report of ours");
    queue.turn_away(&delivery(3, Signal::Logs, BLOCK), reason, false).unwrap();
    assert_eq!(told(&queue), (0, 3));
    queue.turn_away(&delivery(4, Signal::Logs, BLOCK), reason, true).unwrap();
    assert_eq!(told(&queue), (4, 6));
    assert_eq!(queue.state.fragment, fragment);
    queue.turn_away(&delivery(5, Signal::Logs, Kind::Block { joins: Some(fragment) }), reason, true).unwrap();
    assert_eq!(queue.state.fragment, Seq::default());
}

#[test]
fn the_oldest_segment_is_given_up_and_no_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    queue.begin_segment().unwrap();
    assert!(!queue.drop_oldest(u32::MAX), "there is nothing to give up");
    assert_eq!(numbers(&queue), [1]);
    append(&mut queue, 1, Signal::Logs, BLOCK);
    queue.begin_segment().unwrap();
    append(&mut queue, 2, Signal::Logs, BLOCK);
    assert!(queue.drop_oldest(u32::MAX));
    assert_eq!((numbers(&queue), queue.own.overflowed.oldest), (vec![2], 3), "none was begun for it");
    assert!(queue.drop_oldest(u32::MAX));
    assert_eq!((numbers(&queue), queue.own.overflowed.oldest), (vec![3], 6));
    assert_eq!(queue.store.len(3), Some(FRAMES_START));
}

#[test]
fn totals_that_move_are_told_where_they_are_and_no_other_report_is_taken_for_them() {
    for is_told in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path());
        append(&mut queue, 1, Signal::Metrics, Kind::Report(TALLY));
        if is_told {
            queue.told(&PerSignal::default(), 1);
        }
        let before = queue.state.told;
        queue.begin_segment().unwrap();
        assert!(queue.drop_oldest(u32::MAX));
        assert_eq!(queue.state.reported.segment(), 2, "it moved");
        assert_eq!(queue.state.told, if is_told { queue.state.reported } else { before });
    }
}

#[test]
fn a_fragment_is_a_record_that_is_given_up_with_its_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, 1, Signal::Logs, BLOCK);
    append(&mut queue, 2, Signal::Logs, Kind::Fragment);
    assert!(queue.drop_oldest(u32::MAX));
    assert_eq!((queue.state.fragment, queue.own.overflowed.oldest), (Seq::default(), 4));
    assert_eq!(queue.state.ledger.dropped_for(Signal::Logs, Reason::Overflow), 4);
}

#[test]
fn reports_that_are_under_way_are_left_to_their_request_and_those_that_arrived_never_move() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    for number in 1..4 {
        append(&mut queue, number, Signal::Metrics, Kind::Report(TALLY));
    }
    let arrived = Mark { seq: Seq::new(1, 0), records: 0 };
    *queue.state.marks.get_mut(Signal::Metrics) = arrived;
    let request = queue.assemble(Signal::Metrics, &Otlp, Encoding::Gzip, 1 << 20, 1).unwrap();
    assert_eq!(request.to, Mark { seq: Seq::new(1, 1), records: 0 });
    assert!(queue.drop_oldest(u32::MAX));
    let flight = queue.lanes.get(Signal::Metrics).flight.as_ref().unwrap();
    let left: Vec<u32> = flight.reports.iter().map(|(header, _)| header.seq.ordinal()).collect();
    assert_eq!(left, [1]);
    assert_eq!(queue.state.reported, Seq::new(2, 0), "of the three, one moved");
}

// === Segments that go

#[test]
fn a_count_of_the_index_is_made_sure_of_before_a_segment_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, 1, Signal::Logs, BLOCK);
    queue.begin_segment().unwrap();
    queue.remaining.insert(1, PerSignal::default());
    queue.unverified.insert(1);
    queue.retire();
    assert_eq!(numbers(&queue), [1, 2], "there is a block in it");
    let to = Mark { seq: Seq::new(1, 0), records: 0 };
    *queue.state.marks.get_mut(Signal::Logs) = to;
    queue.remaining.insert(1, PerSignal::default());
    queue.unverified.insert(1);
    queue.retire();
    assert_eq!(numbers(&queue), [2]);
}

#[test]
fn what_is_remembered_moves_on_and_its_segment_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, 1, Signal::Logs, Kind::Carry);
    queue.begin_segment().unwrap();
    let place = queue.state.carry;
    queue.begin_segment().unwrap();
    queue.retire();
    assert_eq!(numbers(&queue), [3]);
    assert_ne!(queue.state.carry, place);
    assert!(queue.carry().is_some());
    let place = queue.state.carry;
    append(&mut queue, 2, Signal::Logs, BLOCK);
    queue.begin_segment().unwrap();
    queue.begin_segment().unwrap();
    queue.retire();
    assert_eq!((numbers(&queue), queue.state.carry), (vec![3, 5], place), "it stays where it may");
}

#[test]
fn a_fragment_that_cannot_be_read_now_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, 1, Signal::Logs, Kind::Fragment);
    queue.begin_segment().unwrap();
    assert!(queue.fragment().is_some());
    let (path, aside) = (dir.path().join("0000000001.seg"), dir.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    queue.store.readers.clear();
    assert!(queue.fragment().is_none());
    assert_eq!(queue.state.ledger.dropped(Signal::Logs), 0);
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert!(queue.fragment().is_some());
}

#[test]
fn what_a_segment_holds_is_passed_over_once_it_is_given_up_and_not_while_it_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    append(&mut queue, 1, Signal::Logs, BLOCK);
    queue.begin_segment().unwrap();
    let path = dir.path().join("0000000001.seg");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    queue.store.readers.clear();
    queue.remaining.remove(&1);
    *queue.lanes.get_mut(Signal::Logs) = Lane::new(Signal::Logs, Position::start_of(0));
    queue.fill(Signal::Logs, u32::MAX);
    assert!(queue.is_stalled() && queue.passed_over.is_empty());
    for _ in 0..1_000 {
        queue.try_disk();
        queue.fill(Signal::Logs, u32::MAX);
    }
    assert_eq!(queue.passed_over.keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn what_an_earlier_process_left_may_be_what_was_judged() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(dir.path()), 1, Signal::Logs, BLOCK);
    let mut queue = open(dir.path());
    while queue.count_one() {}
    queue.settle(Signal::Logs, 3, 0);
    assert_eq!((queue.state.ledger.dropped(Signal::Logs), queue.waiting(Signal::Logs).records), (3, 0));
}

// === Readers

fn with_second(dir: &Path) -> Queue {
    let mut queue = open(dir);
    let wants = PerSignal::from_fn(|signal| signal != Signal::Traces);
    let others = vec![ReaderSpec { name: "b".to_owned(), wants }];
    queue.serve(&Readers { others, ..Readers::default() });
    queue
}

#[test]
fn the_least_marks_are_those_of_whoever_is_behind_and_gets_the_signal() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = with_second(dir.path());
    let mark = |ordinal, records| Mark { seq: Seq::new(1, ordinal), records };
    queue.state.marks = PerSignal::from_fn(|_| mark(5, 0));
    queue.others[0].marks = PerSignal::from_fn(|_| mark(3, 0));
    let least = queue.least_marks();
    assert_eq!(Signal::ALL.map(|signal| *least.get(signal)), [mark(3, 0), mark(3, 0), mark(5, 0)]);
    assert!(!queue.is_within_a_block());
    *queue.others[0].marks.get_mut(Signal::Logs) = mark(3, 1);
    assert!(queue.is_within_a_block());
    queue.others[0].marks = PerSignal::default();
    *queue.state.marks.get_mut(Signal::Logs) = mark(3, 1);
    assert!(queue.is_within_a_block());
}

#[test]
fn a_shed_that_is_under_way_is_in_the_file_of_the_reader_it_is_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = with_second(dir.path());
    let second = ReaderId::FIRST.next();
    append(&mut queue, 1, Signal::Logs, BLOCK);
    let mut desk = queue.at(second);
    desk.state.shedding.segment = 9;
    desk.passed_over.insert(1, PerSignal::default());
    desk.save_reader().unwrap();
    let (shedding, unread) = (desk.state.shedding, desk.unread());
    drop(desk);
    let file = queue.others[0].own.file.as_mut().unwrap();
    let saved = file.load(&RealDisk).unwrap().unwrap();
    assert_eq!((saved.shedding, saved.unread), (shedding, unread));
}

#[test]
fn what_gives_way_is_called_as_in_the_setting() {
    let names = [Overflow::DropOldest, Overflow::DropNewest, Overflow::Shed].map(Overflow::name);
    assert_eq!(names, ["drop-oldest", "drop-newest", "shed"]);
}

// === Catching up with the index

/// A queue whose segments know of a drop that was reported, and the state of an index that is ahead of it by another.
fn behind(dir: &Path) -> (Queue, State) {
    let mut queue = open(dir);
    let generation = queue.state.generation + 10;
    let mut ahead = State { generation, ..queue.state };
    ahead.ledger.drop(Tally { records: 10, ..TALLY });
    ahead.ledger.report(TALLY);
    queue.state.ledger.report(TALLY);
    (queue, ahead)
}

#[test]
fn a_report_that_both_know_of_counts_once() {
    for (reported, left) in [(Seq::new(0, 5), 6), (Seq::new(0, 4), 2)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, mut ahead) = behind(dir.path());
        queue.found.reports = vec![(Seq::new(0, 5), TALLY)];
        ahead.reported = reported;
        queue.catch_up_with(&ahead);
        assert_eq!(queue.unreported(), [Tally { records: left, ..TALLY }]);
    }
}

#[test]
fn reports_that_memory_alone_had_are_said_again() {
    let dir = tempfile::tempdir().unwrap();
    let own = open(dir.path()).first_own;
    for (segment, left) in [(own - 1, 6), (own, 10), (own + 1, 10)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, mut ahead) = behind(dir.path());
        assert_eq!(queue.first_own, own);
        queue.state.ledger = super::ledger::Ledger::default();
        ahead.reported = Seq::new(segment, 0);
        queue.catch_up_with(&ahead);
        assert_eq!(queue.unreported(), [Tally { records: left, ..TALLY }]);
    }
}

#[test]
fn totals_that_memory_alone_had_are_said_again() {
    let dir = tempfile::tempdir().unwrap();
    let own = open(dir.path()).first_own;
    for (segment, left) in [(own - 1, 0), (own, 10), (own + 1, 10)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut queue, mut ahead) = behind(dir.path());
        ahead.ledger.tell(Signal::Metrics, &ahead.ledger.untold(Signal::Metrics, 0));
        ahead.told = Seq::new(segment, 0);
        queue.catch_up_with(&ahead);
        assert_eq!(queue.untold().get(Signal::Metrics).received, left);
    }
}

#[test]
fn what_the_index_saw_done_is_done_unless_a_number_was_given_out_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, mut ahead) = behind(dir.path());
    append(&mut queue, 1, Signal::Logs, BLOCK);
    append(&mut queue, 2, Signal::Traces, BLOCK);
    let first_own = queue.first_own;
    queue.remaining.insert(first_own - 1, PerSignal::default());
    *ahead.marks.get_mut(Signal::Logs) = Mark { seq: Seq::new(first_own + 3, 7), records: 2 };
    queue.catch_up_with(&ahead);
    let all_found = Mark { seq: Seq::new(first_own - 1, u32::MAX), records: 0 };
    assert_eq!(*queue.state.marks.get(Signal::Logs), all_found);
    assert_eq!(queue.remaining.keys().copied().collect::<Vec<_>>(), [first_own]);
    assert_eq!((queue.waiting(Signal::Logs).records, queue.waiting(Signal::Traces).records), (3, 3));
}
