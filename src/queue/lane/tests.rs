use super::*;
use crate::queue::disk::RealDisk;
use crate::queue::state::State;

fn header(kind: Kind, segment: u32, ordinal: u32) -> Header {
    Header {
        kind,
        signal: Signal::Logs,
        format: 0,
        severity: 0,
        seq: Seq::new(segment, ordinal),
        delivery: 1,
        part: 0,
        parts: 1,
        events_end: 1,
        records: 1,
        plain_len: 1,
        stored_len: 0,
        plain_crc: 0,
        stored_crc: 0,
        times: (1, 1),
        received: 1,
    }
}

const BLOCK: Kind = Kind::Block { joins: None };

/// A lane that has these blocks in sight.
fn lane(blocks: &[(u32, u32)]) -> Lane {
    let mut lane = Lane::new(Signal::Logs, Position::start_of(1));
    for (segment, ordinal) in blocks {
        lane.take(&header(BLOCK, *segment, *ordinal), 100, Mark::default());
    }
    lane
}

/// Where the lane looks on.
fn place(lane: &Lane) -> (u32, u64) {
    place_of(lane.scanned)
}

fn place_of(position: Position) -> (u32, u64) {
    (position.segment, position.offset)
}

fn in_sight(lane: &Lane) -> Vec<(u32, u32)> {
    lane.items().map(|item| (item.header.seq.segment(), item.header.seq.ordinal())).collect()
}

#[test]
fn a_block_whose_payload_cannot_be_read_is_tried_again_and_given_up_after_twenty_times() {
    let mut lane = lane(&[(1, 0)]);
    for round in 0..2 {
        for _ in 1..READ_TRIES_MAX {
            assert!(lane.stall_at_payload(), "round {round}");
            assert!(lane.is_stalled());
            lane.resume();
        }
        // The next one begins to count anew.
        assert!(!lane.stall_at_payload() && !lane.is_stalled());
    }
    // So it does once one was read.
    lane.stall_at_payload();
    lane.payload_read();
    for _ in 1..READ_TRIES_MAX {
        assert!(lane.stall_at_payload());
    }
}

#[test]
fn a_segment_that_cannot_be_read_is_passed_over_after_twenty_tries() {
    let mut lane = lane(&[]);
    for _ in 1..READ_TRIES_MAX {
        lane.stall_at(4);
        assert!(lane.is_stalled());
    }
    assert_eq!(lane.seen_before(), 1);
    lane.stall_at(4);
    assert!(!lane.is_stalled());
    assert_eq!(place(&lane), place_of(Position::end_of(4)), "what lies behind it is counted first");
}

#[test]
fn a_segment_that_is_left_takes_its_blocks_along_and_no_others() {
    let mut lane = lane(&[(1, 0), (2, 0), (2, 1), (3, 0)]);
    lane.scanned = Position::start_of(2);
    lane.leave(2);
    assert_eq!(in_sight(&lane), [(1, 0), (3, 0)]);
    assert_eq!(place(&lane), place_of(Position::end_of(2)));
    // It looks on where it was otherwise.
    lane.leave(1);
    assert_eq!((in_sight(&lane), place(&lane)), (vec![(3, 0)], place_of(Position::end_of(2))));
}

#[test]
fn of_a_segment_that_was_written_anew_what_is_left_is_in_sight_in_its_new_place() {
    let mut lane = lane(&[(1, 0), (2, 0), (2, 1), (3, 0)]);
    lane.scanned = Position { segment: 2, offset: 999 };
    lane.rewritten(2, &[Item { header: header(BLOCK, 2, 1), payload_offset: 7 }]);
    assert_eq!(in_sight(&lane), [(1, 0), (2, 1), (3, 0)]);
    let places: Vec<u64> = lane.items().map(|item| item.payload_offset).collect();
    assert_eq!(places, [100, 7, 100]);
    assert_eq!(lane.scanned.offset, Position::start_of(2).offset);
    // Another one is none of its.
    lane.scanned = Position { segment: 3, offset: 999 };
    lane.rewritten(2, &[]);
    assert_eq!((in_sight(&lane), lane.scanned.offset), (vec![(1, 0), (3, 0)], 999));
}

#[test]
fn reports_are_told_from_blocks() {
    let tally = super::super::ledger::Tally {
        signal: Signal::Logs,
        reason: super::super::ledger::Reason::Refused,
        records: 1,
    };
    let is_report = |kind| Item { header: header(kind, 1, 0), payload_offset: 0 }.is_report();
    assert!(is_report(Kind::Report(tally)) && !is_report(BLOCK));
}

/// Segments with so many blocks of traces each, one after another; the last one takes appends.
fn store(dir: &std::path::Path, segments: &[u32]) -> Segments {
    let (mut store, problem) = Segments::open(Box::new(RealDisk), dir, 1 << 20);
    assert!(problem.is_none());
    for blocks in segments {
        store.begin(&State::default()).unwrap();
        for _ in 0..*blocks {
            let (number, ordinal) = store.position().unwrap();
            let frame = Header { signal: Signal::Traces, ..header(BLOCK, number, ordinal) };
            store.append(&frame.encode(), 1).unwrap();
        }
    }
    store
}

#[test]
fn no_more_blocks_are_held_than_the_window_has_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let blocks = WINDOW_BLOCKS as u32 + 3;
    let mut store = store(dir.path(), &[blocks]);
    let mut lane = Lane::new(Signal::Traces, Position::start_of(1));
    let mark = Mark::default();
    assert_eq!(lane.fill(&mut store, mark, |_| Some(true)), Filled::Enough);
    assert_eq!(lane.items().count(), WINDOW_BLOCKS);
    let done = Mark { seq: Seq::new(1, 9), records: 0 };
    while lane.pop_through(done).is_some() {}
    assert_eq!(lane.fill(&mut store, done, |_| Some(true)), Filled::All);
    assert_eq!(lane.items().count() as u32, blocks - 10);
    assert_eq!(lane.seen_before(), 1);
}

#[test]
fn where_blocks_are_few_so_many_frames_are_walked_at_a_time_once_one_is_in_sight() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), &[FRAMES_PER_FILL_MAX + 50]);
    // Before a block is in sight all are walked.
    let mut lane = Lane::new(Signal::Logs, Position::start_of(1));
    let mark = Mark::default();
    assert_eq!(lane.fill(&mut store, mark, |_| Some(true)), Filled::All);
    // With one in sight, some at a time.
    let mut lane = Lane::new(Signal::Logs, Position::start_of(1));
    lane.window.push_back(Item { header: header(BLOCK, 1, 0), payload_offset: 0 });
    assert_eq!(lane.fill(&mut store, mark, |_| Some(true)), Filled::Enough);
    let frame = header(BLOCK, 1, 0).encode().len() as u64;
    let walked = (lane.scanned.offset - Position::start_of(1).offset) / frame;
    assert_eq!(walked, u64::from(FRAMES_PER_FILL_MAX));
    assert_eq!(lane.fill(&mut store, mark, |_| Some(true)), Filled::All);
}

#[test]
fn segments_without_blocks_of_the_signal_are_passed_over_but_not_the_one_that_takes_appends() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path(), &[1, 1, 1, 1]);
    let mut lane = Lane::new(Signal::Traces, Position::start_of(1));
    let mark = Mark::default();
    assert_eq!(lane.fill(&mut store, mark, |number| Some(number == 3)), Filled::All);
    assert_eq!(in_sight(&lane), [(1, 0), (3, 0), (4, 0)]);
    // Of one that was not counted nothing is known.
    let mut lane = Lane::new(Signal::Traces, Position::start_of(1));
    assert_eq!(lane.fill(&mut store, mark, |number| (number != 3).then_some(false)), Filled::Uncounted(3));
    assert_eq!(in_sight(&lane), [(1, 0)]);
}
