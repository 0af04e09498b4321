use super::*;
use crate::Signal;
use crate::queue::expected::Expected;
use crate::queue::frame::sample;
use crate::queue::state::{Mark, Outstanding};
use crate::queue::{Overflow, RealDisk};

const BLOCK: Kind = Kind::Block { joins: None };

fn open(dir: &Path) -> Queue {
    Queue::open(Box::new(RealDisk), dir, Limits::new(1 << 20, Overflow::DropOldest), 1).0
}

/// A queue with a segment that is to be filled by hand, and its number.
fn begun(dir: &Path) -> (Queue, u32) {
    let mut queue = open(dir);
    queue.begin_segment().unwrap();
    let number = queue.store.active().unwrap();
    (queue, number)
}

/// Appends a frame of three records.
fn put(queue: &mut Queue, kind: Kind, signal: Signal) -> Seq {
    let mut header = Header { kind, signal, ..sample(Seq::default()) };
    queue.put(&mut header, &[0; 40]).unwrap();
    header.seq
}

/// A frame that was there and is not any more.
fn gap(queue: &mut Queue) {
    queue.store.append(&[], 1).unwrap();
}

fn damaged(queue: &Queue) -> u64 {
    queue.ledger().dropped_for(Signal::Logs, Reason::Damaged)
}

#[test]
fn missing_frames_are_counted_within_a_segment() {
    assert_eq!(missing_between(None, Seq::new(1, 0)), 0);
    assert_eq!(missing_between(None, Seq::new(1, 2)), 2);
    assert_eq!(missing_between(Some(Seq::new(1, 2)), Seq::new(1, 3)), 0);
    assert_eq!(missing_between(Some(Seq::new(1, 2)), Seq::new(1, 6)), 3);
}

#[test]
fn a_frame_that_is_missing_waits_with_the_one_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, number) = begun(dir.path());
    put(&mut queue, BLOCK, Signal::Logs);
    gap(&mut queue);
    gap(&mut queue);
    put(&mut queue, BLOCK, Signal::Logs);
    queue.remaining.remove(&number);
    assert!(queue.count(number));
    assert_eq!((queue.waiting(Signal::Logs).blocks, queue.waiting(Signal::Logs).records), (4, 8));
}

#[test]
fn what_is_given_up_unread_is_what_waited_then_and_is_sent_to_the_reader() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, number) = begun(dir.path());
    let done = put(&mut queue, BLOCK, Signal::Logs);
    put(&mut queue, BLOCK, Signal::Logs);
    put(&mut queue, Kind::Fragment, Signal::Logs);
    put(&mut queue, BLOCK, Signal::Traces);
    let mut then = PerSignal::<Mark>::default();
    then.get_mut(Signal::Logs).seq = done;
    queue.passed_over.insert(number, then);
    for signal in Signal::ALL {
        queue.state.marks.get_mut(signal).seq = Seq::new(number + 1, 0);
    }
    *queue.own.wants.get_mut(Signal::Traces) = false;
    assert!(queue.count(number));
    let given_up = Signal::ALL.map(|signal| queue.ledger().dropped_for(signal, Reason::Damaged));
    assert_eq!(given_up.iter().sum::<u64>(), damaged(&queue));
    assert_eq!(damaged(&queue), 3);
}

#[test]
fn the_frame_before_which_something_was_expected_is_not_part_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, number) = begun(dir.path());
    gap(&mut queue);
    let upto = put(&mut queue, BLOCK, Signal::Logs);
    let mut outstanding = Outstanding { upto, ..Outstanding::default() };
    *outstanding.records.get_mut(Signal::Logs) = 3;
    let state = State { outstanding, ..State::default() };
    queue.own.expected = Expected::of(&state, &queue.store);
    queue.remaining.remove(&number);
    assert!(queue.count(number));
    // The record that the frame which is missing held at the least waits, and is counted when its turn comes.
    assert_eq!(damaged(&queue) + queue.waiting(Signal::Logs).records, 3 + 3);
}

#[test]
fn segments_of_two_queues_become_one_that_remembers_what_the_newest_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Segments::open(Box::new(RealDisk), dir.path(), 0).0;
    let mut newest = State { queue_id: 8, generation: 5, ..State::default() };
    newest.ledger.drop(Tally { signal: Signal::Logs, reason: Reason::Refused, records: 4 });
    newest.marks.get_mut(Signal::Logs).seq = Seq::new(2, 3);
    store.begin(&State { queue_id: 7, generation: 9, ..State::default() }).unwrap();
    store.begin(&newest).unwrap();
    let found = newest_state(&mut store, 1, false).unwrap();
    assert_eq!(found, State { queue_id: 1, generation: 5, ledger: newest.ledger, ..State::default() });
}

#[test]
fn a_segment_with_a_head_of_a_later_version_and_frames_of_ours_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, number) = begun(dir.path());
    put(&mut queue, BLOCK, Signal::Logs);
    drop(queue);
    let path = dir.path().join(format!("{number:010}.seg"));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[..1024].copy_from_slice(&[0; 1024]);
    bytes[1024..2048].copy_from_slice(&[0; 1024]);
    bytes[..8].copy_from_slice(b"outlast2");
    std::fs::write(&path, bytes).unwrap();
    let mut queue = open(dir.path());
    while queue.count_one() {}
    assert_eq!(queue.waiting(Signal::Logs).records, 3);
}

#[test]
fn an_index_that_is_new_is_told_at_once_what_it_would_have_known() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, _) = begun(dir.path());
    put(&mut queue, BLOCK, Signal::Logs);
    drop(queue);
    let mut queue = open(dir.path());
    assert_eq!(queue.deliveries.all().count(), 1);
    queue.attach_index(dir.path());
    assert!(queue.unnoted.is_empty());
    drop(queue);
    // One that was there is asked first.
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join(INDEX_DIRECTORY)).unwrap();
    let mut queue = open(dir.path());
    queue.attach_index(other.path());
    assert_eq!(queue.unnoted.len(), 1);
    queue.degraded = true;
    assert!(queue.consult_index_within(Duration::from_secs(30)));
    assert_eq!(queue.unnoted.len(), 1, "told once the disk is back");
}
