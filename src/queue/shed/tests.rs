use super::*;
use crate::queue::bytes::crc32;
use crate::queue::frame::{HEADER_BYTES, Seq, sample};
use crate::queue::state::FRAMES_START;
use crate::queue::{Limits, NewBlock, Overflow, RealDisk, classes};
use std::path::Path;

const DEBUG: u8 = 5;
const ERROR: u8 = 17;
const OF_DEBUG: Going = Going::Class(1);

fn open(dir: &Path) -> Queue {
    let limits = Limits { segment_bytes: 6 << 10, ..Limits::new(48 << 10, Overflow::Shed) };
    Queue::open(Box::new(RealDisk), dir, limits, 1).0
}

fn new_block(severity: u8, records: u32, len: usize) -> NewBlock {
    NewBlock {
        kind: Kind::Block { joins: None },
        signal: Signal::Logs,
        format: 1,
        severity,
        events_end: records,
        records,
        plain_len: 100,
        plain_crc: 1,
        times: (1, 2),
        payload: vec![7; len],
    }
}

fn batch(delivery: u128, blocks: Vec<NewBlock>) -> Batch {
    Batch { delivery, received: 1, parts_before: 0, blocks }
}

/// Appends blocks of these severities in turn until there is no room for so much more.
fn fill(queue: &mut Queue, severities: &[u8], room: u64) {
    for (severity, delivery) in severities.iter().cycle().zip(1..) {
        if !queue.has_room_for(room) {
            return;
        }
        queue.append(&batch(delivery, vec![new_block(*severity, 1, 900)])).unwrap();
    }
}

/// Appends a frame to the newest segment as it is, and says where it is.
fn put(queue: &mut Queue, kind: Kind, severity: u8) -> Seq {
    let payload = [0; 40];
    let stored_crc = crc32(&payload);
    let mut header = Header { kind, severity, stored_crc, ..sample(Seq::default()) };
    queue.put(&mut header, &payload).unwrap();
    header.seq
}

/// A queue with a segment of two blocks: its number, and the less severe of them, which comes first.
fn with_two_classes(dir: &Path) -> (Queue, u32, Seq) {
    let mut queue = open(dir);
    queue.begin_segment().unwrap();
    let number = queue.store.active().unwrap();
    let first = put(&mut queue, Kind::Block { joins: None }, DEBUG);
    put(&mut queue, Kind::Block { joins: None }, ERROR);
    (queue, number, first)
}

/// The headers of the frames in what a segment comes to.
fn headers(bytes: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut rest = &bytes[FRAMES_START as usize..];
    while !rest.is_empty() {
        let header = Header::decode(rest[..HEADER_BYTES].try_into().unwrap()).unwrap();
        rest = &rest[header.frame_len() as usize..];
        headers.push(header);
    }
    headers
}

#[test]
fn of_a_delivery_what_is_turned_away_is_told_to_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    fill(&mut queue, &[ERROR], 1096);
    let new = batch(1000, vec![new_block(DEBUG, 3, 1500), new_block(ERROR, 1, 100)]);
    let Ok(Room::Part(part, turned_away)) = queue.shed_for(&new) else { panic!() };
    assert_eq!(part.blocks.iter().map(|block| block.severity).collect::<Vec<_>>(), [ERROR]);
    assert_eq!(*turned_away.get(Signal::Logs), 3);
}

#[test]
fn while_memory_stands_in_the_oldest_go_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    fill(&mut queue, &[DEBUG, ERROR], 1096);
    queue.stand_in();
    // More than a segment.
    let new = batch(1000, vec![new_block(ERROR, 1, 9_000)]);
    assert!(matches!(queue.shed_for(&new), Ok(Room::Whole)));
    assert!(queue.has_room_for(new.size()));
    let dropped = |reason| queue.ledger().dropped_for(Signal::Logs, reason);
    assert!(dropped(Reason::Overflow) > 0);
    assert_eq!(dropped(Reason::Shed), 0, "no segment is written anew");
}

#[test]
fn what_is_shed_is_summed_up_for_the_line_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    fill(&mut queue, &[DEBUG, ERROR], 1096);
    for delivery in 1000..1020 {
        queue.append(&batch(delivery, vec![new_block(ERROR, 1, 900)])).unwrap();
    }
    let shed = queue.ledger().dropped_for(Signal::Logs, Reason::Shed);
    assert!(shed > 4, "several segments");
    assert!(queue.owes_overflow());
    assert_eq!(queue.own.overflowed.least_severe, shed);
    queue.tell_overflow();
    assert!(!queue.owes_overflow());
}

#[test]
fn what_is_done_or_appended_counts_for_the_lowest_class_of_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, number, first) = with_two_classes(dir.path());
    assert_eq!(queue.lowest_in(number).record, 1);
    queue.state.marks.get_mut(Signal::Logs).seq = first;
    assert_eq!(queue.lowest_in(number).record, 4);
    assert_eq!(queue.least_severe(&BTreeMap::new(), true), (4, number));
    queue.append(&batch(1, vec![new_block(DEBUG, 1, 10)])).unwrap();
    assert_eq!(queue.least_severe(&BTreeMap::new(), true), (1, number), "known by now");
}

#[test]
fn a_segment_in_which_the_class_is_done_is_left_as_it_is_if_that_is_not_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (mut queue, number, first) = with_two_classes(dir.path());
    queue.begin_segment().unwrap();
    queue.state.marks.get_mut(Signal::Logs).seq = first;
    let len = queue.store.len(number);
    let kept = queue.shed_segment(number, OF_DEBUG, &mut Thinning::for_room_of(1 << 20)).unwrap();
    assert_eq!(kept.map(|lowest| lowest.record), Some(4));
    assert_eq!(queue.store.len(number), len);
}

#[test]
fn the_segment_that_carries_the_state_is_not_written_anew_before_another_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    queue.append(&batch(1, vec![new_block(DEBUG, 1, 100)])).unwrap();
    queue.append(&batch(2, vec![new_block(ERROR, 1, 100)])).unwrap();
    drop(queue);
    let mut queue = open(dir.path());
    let number = queue.store.carrier.unwrap();
    assert_eq!(queue.store.active(), None);
    assert!(queue.shed_segment(number, OF_DEBUG, &mut Thinning::never()).unwrap().is_none());
    assert!(queue.store.carrier.unwrap() > number);
    assert_eq!(queue.ledger().dropped_for(Signal::Logs, Reason::Shed), 1);
}

#[test]
fn of_frames_that_are_not_sent_only_the_fragment_and_the_carry_that_count_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    queue.begin_segment().unwrap();
    let number = queue.store.active().unwrap();
    put(&mut queue, Kind::Fragment, 0);
    queue.state.fragment = put(&mut queue, Kind::Fragment, 0);
    put(&mut queue, Kind::Carry, 0);
    queue.state.carry = put(&mut queue, Kind::Carry, 0);
    put(&mut queue, Kind::Block { joins: None }, DEBUG);
    put(&mut queue, Kind::Block { joins: None }, ERROR);
    let made = queue.without(number, OF_DEBUG, &mut Thinning::never()).unwrap().unwrap();
    let kinds: Vec<Kind> = headers(&made.bytes).iter().map(|header| header.kind).collect();
    let block = Kind::Block { joins: None };
    assert_eq!(kinds, [Kind::Shed, Kind::Fragment, Kind::Shed, Kind::Carry, Kind::Shed, block]);
    assert_eq!((made.gone.len(), made.waiting.len()), (1, 1));
}

#[test]
fn a_frame_that_is_there_twice_goes_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    queue.begin_segment().unwrap();
    let seq = put(&mut queue, Kind::Block { joins: None }, DEBUG);
    let again = Header { severity: DEBUG, stored_len: 0, ..sample(seq) };
    queue.store.append(&again.encode(), 1).unwrap();
    let made = queue.without(seq.segment(), OF_DEBUG, &mut Thinning::never()).unwrap().unwrap();
    assert_eq!((made.gone.len(), headers(&made.bytes).len()), (1, 1));
}

#[test]
fn what_is_left_of_a_block_that_is_done_in_part_is_spared() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    queue.begin_segment().unwrap();
    let first = put(&mut queue, Kind::Block { joins: None }, DEBUG);
    let second = put(&mut queue, Kind::Block { joins: None }, DEBUG);
    let gone = |queue: &mut Queue| {
        let made = queue.without(first.segment(), OF_DEBUG, &mut Thinning::never()).unwrap().unwrap();
        made.gone.iter().map(|header| header.seq).collect::<Vec<_>>()
    };
    assert_eq!(gone(&mut queue), [first, second]);
    queue.state.marks.get_mut(Signal::Logs).records = 1;
    assert_eq!(gone(&mut queue), [second]);
}

#[test]
fn a_block_that_is_gone_leaves_its_delivery_and_nothing_of_a_payload() {
    let was = sample(Seq::new(1, 3));
    let mut made = Rewritten::begin(vec![0; FRAMES_START as usize]);
    made.bare(&was);
    let is = Header { kind: Kind::Shed, plain_len: 0, stored_len: 0, plain_crc: 0, stored_crc: 0, ..was };
    assert_eq!(headers(&made.bytes), [is]);
}

#[test]
fn records_are_taken_out_of_blocks_that_have_them_among_graver_ones() {
    let mixed = Header { severity: classes::with_lowest(ERROR, 1), ..sample(Seq::new(1, 0)) };
    let thinned: Vec<bool> = (0..6).map(|class| Going::Class(class).thins(&mixed).is_some()).collect();
    assert_eq!(thinned, [false, true, true, true, false, false]);
    assert_eq!(Going::Everything.thins(&mixed), None);
}
