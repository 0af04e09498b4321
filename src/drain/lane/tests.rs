use super::super::event::{Head, Target};
use super::*;
use crate::drain::testing::{ms, settings};

const BATCH_MAX_BYTES: u64 = 1 << 20;

/// `blocks` blocks, the oldest `head` with `records` records in `bytes` bytes.
fn level(blocks: u64, head: u64, records: u64, bytes: u64) -> Backlog {
    let oldest = (blocks > 0).then_some(Head { sequence: head, records, bytes });
    Backlog {
        blocks,
        bytes: blocks * bytes,
        oldest: Some(ms(1_000)),
        head: oldest,
        crowded: false,
        brimming: false,
    }
}

fn lane(level: Backlog) -> Lane {
    let mut lane = Lane::new(Signal::Logs, &settings());
    lane.level_changed(level);
    lane
}

fn sent(blocks: u64, records: u64, plain_bytes: u64) -> Sent {
    Sent { head: 1, blocks, records, plain_bytes, wire_bytes: 0 }
}

fn run(max_blocks: u64, max_bytes: u64) -> Portion {
    Portion::Run { max_blocks, max_bytes }
}

#[test]
fn what_is_new_lingers_until_there_is_enough_of_it() {
    assert_eq!(lane(level(1, 1, 10, (64 << 10) - 1)).due_at(ms(500)), ms(1_500));
    assert_eq!(lane(level(1, 1, 10, 64 << 10)).due_at(ms(500)), Time::ZERO);
    let inherited = Backlog { oldest: None, ..level(1, 1, 10, 100) };
    assert_eq!(lane(inherited).due_at(ms(500)), Time::ZERO);
    let mut failed = lane(level(1, 1, 10, 100));
    failed.failed(ms(0), None, Bounds::default(), 0.5);
    assert_eq!(failed.due_at(ms(500)), Time::ZERO);
}

#[test]
fn a_size_limit_cuts_a_block_that_exceeds_it_in_proportion() {
    let mut lane = lane(level(9, 1, 100, 80_000));
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(u64::MAX, BATCH_MAX_BYTES));
    // Half of 16,000 bytes.
    lane.too_large(ms(0), &sent(2, 20, 16_000), false, 0.5);
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), Portion::Records { count: 10 });
    // A block that fits goes whole, and one that is empty costs no division.
    for bytes in [8_000, 7_999, 0] {
        lane.level_changed(level(9, 2, 100, bytes));
        assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(1, 8_000));
    }
    // Of a single record nothing can be cut.
    lane.level_changed(level(9, 3, 1, 80_000));
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(1, 8_000));
}

#[test]
fn a_size_limit_is_never_absurdly_small() {
    let mut lane = lane(level(9, 1, 100, 100));
    lane.too_large(ms(0), &sent(2, 20, 10), false, 0.5);
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(1, 4 << 10));
}

#[test]
fn counts_that_were_halved_grow_back_until_they_bind_no_more() {
    let mut lane = lane(level(9, 1, 1_000, 100));
    lane.too_large(ms(0), &sent(4, 40, 1 << 20), false, 0.5);
    lane.too_large(ms(0), &sent(1, 16, 1 << 20), false, 0.5);
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), Portion::Records { count: 8 });
    lane.delivered(&sent(1, 8, 10), level(9, 1, 992, 100), false);
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), Portion::Records { count: 16 });
    let whole = level(9, 2, 4, 100);
    lane.delivered(&sent(1, 16, 10), whole, false);
    // Two blocks became four and eight.
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(8, 512 << 10));
    for _ in 0..12 {
        lane.delivered(&sent(1, 16, 10), whole, false);
    }
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(u64::MAX, 512 << 10));
}

#[test]
fn another_head_ends_a_search_and_the_same_head_does_not() {
    let mut lane = lane(level(4, 1, 10, 100));
    lane.refused(ms(0), &sent(4, 40, 400), false, 0.5);
    lane.level_changed(level(5, 1, 10, 100));
    assert!(lane.is_isolating());
    lane.level_changed(level(4, 2, 10, 100));
    assert!(!lane.is_isolating());
}

#[test]
fn refusals_without_a_delivery_are_paced_after_a_while() {
    let mut lane = lane(level(99, 1, 10, 100));
    for _ in 0..REFUSALS_BEFORE_PACING {
        lane.refused(ms(0), &sent(1, 10, 100), false, 0.5);
        assert_eq!(lane.not_before, Time::ZERO);
    }
    lane.refused(ms(0), &sent(1, 10, 100), false, 0.5);
    assert!(lane.not_before >= settings().retry_initial);
    lane.delivered(&sent(1, 10, 100), level(99, 2, 10, 100), false);
    lane.refused(ms(0), &sent(1, 10, 100), false, 0.5);
    assert_eq!(lane.not_before, Time::ZERO);
}

#[test]
fn a_recovery_elsewhere_cuts_a_wait_short_unless_the_server_set_it() {
    let mut lane = lane(level(1, 1, 10, 100));
    lane.failed(ms(0), None, Bounds::default(), 0.5);
    assert!(lane.not_before > ms(100));
    lane.cut_wait(ms(100));
    assert_eq!(lane.not_before, ms(100));
    lane.failed(ms(100), None, Bounds { after: Some(ms(60_000)), ..Bounds::default() }, 0.5);
    let told = lane.not_before;
    lane.cut_wait(ms(200));
    assert_eq!(lane.not_before, told);
    // At SHUTDOWN it is tried all the same.
    lane.hurry(ms(300));
    assert_eq!((lane.not_before, lane.last_try), (ms(300), true));
}

#[test]
fn a_flight_ends_by_its_time_out_without_the_time_it_lay_frozen() {
    let flight = Flight {
        attempt: 1,
        target: Target::Primary,
        started: ms(1_000),
        portion: Portion::Alibi,
        gzip: true,
        frozen: ms(300),
        grace_until: None,
    };
    assert!(flight.is_alibi());
    assert_eq!(flight.ends_at(ms(5_000)), ms(6_300));
    assert_eq!(flight.age(ms(2_000)), ms(700));
    let thawed = Flight { grace_until: Some(ms(2_000)), portion: run(1, 1), ..flight };
    assert!(!thawed.is_alibi());
    assert_eq!(thawed.ends_at(ms(5_000)), ms(2_000));
}

#[test]
fn an_alibi_that_was_accepted_is_not_forgotten_when_a_request_cannot_be_made() {
    let of_one = || level(3, 1, 1, 100);
    let mut lane = lane(of_one());
    for _ in 0..5 {
        lane.server_error(&sent(1, 1, 100), false);
    }
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), Portion::Alibi);
    lane.delivered(&Sent { head: 2, ..sent(1, 1, 100) }, of_one(), true);
    lane.not_sent(ms(0), 0.5);
    lane.level_changed(of_one());
    // What is accused goes alone, and its neighbour is marked with it.
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), Portion::Records { count: 1 });
    assert!(lane.server_error(&sent(1, 1, 100), false));
    let settlement = lane.take_settlement().map(|settlement| (settlement.refused, settlement.delivered));
    assert_eq!(settlement, Some((1, 1)));
    // A doubt alone is forgotten.
    let mut lane = self::lane(of_one());
    for _ in 0..5 {
        lane.server_error(&sent(1, 1, 100), false);
    }
    lane.not_sent(ms(0), 0.5);
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(u64::MAX, BATCH_MAX_BYTES));
}

/// Records of which `refused` are given up and `delivered` arrived before, in a lane whose head is 1.
fn settling(refused: u64, delivered: u64) -> Lane {
    let mut lane = lane(level(3, 1, 10, 1_000));
    lane.want(Some(Settlement { head: 1, refused, delivered }));
    lane
}

#[test]
fn only_records_that_are_given_up_appeal_to_the_fallback() {
    let mut given_up = settling(1, 1);
    given_up.appeal();
    assert_eq!((given_up.appealed(), given_up.take_settlement()), (Some(1), None));
    let mut arrived = settling(0, 1);
    arrived.appeal();
    assert_eq!(arrived.appealed(), None);
    assert!(arrived.take_settlement().is_some());
}

#[test]
fn what_is_handed_over_leaves_the_neighbour_that_arrived_to_be_marked() {
    // The one that was handed over was the last of its block.
    let mut lane = settling(1, 1);
    lane.appeal();
    lane.handed_over(&sent(1, 1, 100), level(2, 2, 10, 1_000));
    assert_eq!(lane.take_settlement(), Some(Settlement { head: 2, refused: 0, delivered: 1 }));
    let mut alone = settling(1, 0);
    alone.appeal();
    alone.handed_over(&sent(1, 1, 100), level(2, 2, 10, 1_000));
    assert_eq!((alone.take_settlement(), alone.is_busy()), (None, false));
}

#[test]
fn what_is_dropped_while_it_appeals_leaves_the_neighbour_that_arrived_to_be_marked() {
    for (delivered, marked) in [(1, Some(Settlement { head: 2, refused: 0, delivered: 1 })), (0, None)] {
        let mut lane = settling(1, delivered);
        lane.appeal();
        lane.level_changed(level(2, 2, 10, 1_000));
        assert_eq!((lane.appealed(), lane.take_settlement()), (None, marked));
    }
}

#[test]
fn an_outage_clears_a_doubt_about_a_record() {
    let mut lane = lane(level(3, 1, 1, 100));
    for _ in 0..5 {
        lane.server_error(&sent(1, 1, 100), false);
    }
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), Portion::Alibi);
    lane.unavailable();
    assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(u64::MAX, BATCH_MAX_BYTES));
}

#[test]
fn what_goes_again_at_once_does_not_linger() {
    let mut lane = lane(level(1, 1, 10, 100));
    assert_eq!(lane.due_at(ms(500)), ms(1_500));
    lane.resend();
    assert_eq!(lane.due_at(ms(500)), Time::ZERO);
}

#[test]
fn a_limit_of_4096_blocks_is_none_any_more() {
    for (halved, then) in [(4_095, 8_190), (4_096, u64::MAX)] {
        let mut lane = lane(level(9_000, 1, 1, 100));
        lane.too_large(ms(0), &sent(2 * halved, 9_000, 4 << 20), false, 0.5);
        assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(halved, BATCH_MAX_BYTES));
        lane.delivered(&sent(halved, halved, 100), level(4_000, 5_000, 1, 100), false);
        assert_eq!(lane.portion(BATCH_MAX_BYTES, u64::MAX), run(then, BATCH_MAX_BYTES));
    }
}
