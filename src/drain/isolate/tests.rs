#![allow(clippy::unnecessary_wraps)] // as they are compared

use super::super::event::Head;
use super::*;

const MAX_BYTES: u64 = 1 << 20;

/// `blocks` blocks, the first of them `head` with `records` records.
fn level(blocks: u64, head: u64, records: u64) -> Backlog {
    let head = (blocks > 0).then_some(Head { sequence: head, records, bytes: records * 100 });
    Backlog { blocks, bytes: blocks * 1_000, oldest: None, head, crowded: false, brimming: false }
}

fn sent(blocks: u64, head: u64, records: u64) -> Sent {
    Sent { head, blocks, records, plain_bytes: records * 100, wire_bytes: 0 }
}

fn blocks(count: u64) -> Option<Portion> {
    Some(Portion::Run { max_blocks: count, max_bytes: MAX_BYTES })
}

fn records(count: u64) -> Option<Portion> {
    Some(Portion::Records { count })
}

#[test]
fn a_refusal_halves_blocks_then_records_until_one_is_left() {
    let mut isolation = Isolation::default();
    assert!(!isolation.is_active());
    assert_eq!(isolation.portion(&level(9, 1, 6), MAX_BYTES), None);
    assert_eq!(isolation.refused(&sent(5, 1, 40), false), None);
    assert!(isolation.is_active());
    assert_eq!(isolation.portion(&level(9, 1, 6), MAX_BYTES), blocks(2));
    assert_eq!(isolation.refused(&sent(2, 1, 16), false), None);
    assert_eq!(isolation.portion(&level(9, 1, 6), MAX_BYTES), blocks(1));
    assert_eq!(isolation.refused(&sent(1, 1, 6), false), None);
    assert_eq!(isolation.portion(&level(9, 1, 6), MAX_BYTES), records(3));
    assert_eq!(isolation.refused(&sent(1, 1, 3), false), None);
    assert_eq!(isolation.portion(&level(9, 1, 6), MAX_BYTES), records(1));
    let given_up = isolation.refused(&sent(1, 1, 1), false);
    assert_eq!(given_up, Some(Settlement { head: 1, refused: 1, delivered: 0 }));
    assert!(!isolation.is_active());
}

#[test]
fn what_is_accepted_leaves_the_window() {
    let mut isolation = Isolation::default();
    isolation.refused(&sent(5, 1, 50), false);
    isolation.delivered(&sent(2, 1, 20), &level(3, 3, 10), false);
    assert_eq!(isolation.portion(&level(3, 3, 10), MAX_BYTES), blocks(1));
    isolation.delivered(&sent(1, 3, 10), &level(2, 4, 10), false);
    assert_eq!(isolation.portion(&level(2, 4, 10), MAX_BYTES), blocks(1));
    isolation.delivered(&sent(1, 4, 10), &level(1, 5, 10), false);
    isolation.delivered(&sent(1, 5, 10), &level(4, 6, 10), false);
    assert!(!isolation.is_active(), "the window is empty");

    isolation.refused(&sent(1, 6, 10), false);
    isolation.delivered(&sent(1, 6, 5), &level(4, 6, 5), false);
    assert_eq!(isolation.portion(&level(4, 6, 5), MAX_BYTES), records(2));
    isolation.delivered(&sent(1, 6, 2), &level(4, 6, 3), false);
    isolation.delivered(&sent(1, 6, 3), &level(4, 6, 9), false);
    assert!(!isolation.is_active(), "the window is empty, although its block goes on");

    isolation.refused(&sent(1, 6, 9), false);
    isolation.delivered(&sent(1, 6, 4), &level(3, 7, 10), false);
    assert!(!isolation.is_active(), "its block is gone");
}

#[test]
fn no_more_records_are_sent_than_the_head_has() {
    let mut isolation = Isolation::default();
    isolation.refused(&sent(1, 1, 20), false);
    assert_eq!(isolation.portion(&level(1, 1, 4), MAX_BYTES), records(4));
    assert_eq!(isolation.portion(&level(1, 1, 0), MAX_BYTES), records(1));
}

/// Isolates a single record in doubt, of a head with `records` records.
fn suspected(records: u64) -> Isolation {
    let mut isolation = Isolation::default();
    for _ in 0..SERVER_ERRORS_BEFORE_DOUBT {
        assert!(!isolation.is_active());
        assert_eq!(isolation.server_error(&sent(1, 1, 1), false), None);
    }
    assert!(isolation.is_active());
    assert_eq!(isolation.portion(&level(1, 1, records), MAX_BYTES).is_some(), records > 0);
    isolation
}

#[test]
fn an_alibi_is_asked_for_only_where_there_is_a_neighbour() {
    assert_eq!(suspected(2).portion(&level(1, 1, 2), MAX_BYTES), Some(Portion::Alibi));
    assert_eq!(suspected(1).portion(&level(2, 1, 1), MAX_BYTES), Some(Portion::Alibi));
    assert_eq!(suspected(1).portion(&level(1, 1, 1), MAX_BYTES), records(1));
}

#[test]
fn an_outage_clears_a_doubt_and_counts_from_the_beginning() {
    let mut isolation = suspected(2);
    isolation.failed();
    assert!(!isolation.is_active());
    for _ in 1..SERVER_ERRORS_BEFORE_DOUBT {
        isolation.server_error(&sent(1, 1, 1), false);
    }
    isolation.failed();
    isolation.server_error(&sent(1, 1, 1), false);
    assert!(!isolation.is_active());
}

#[test]
fn an_outage_clears_no_refusal_and_no_accusation() {
    let mut isolation = Isolation::default();
    isolation.refused(&sent(4, 1, 40), false);
    isolation.failed();
    assert_eq!(isolation.portion(&level(4, 1, 10), MAX_BYTES), blocks(2));

    let mut isolation = suspected(2);
    isolation.delivered(&sent(1, 1, 1), &level(1, 1, 2), true);
    isolation.failed();
    let convicted = isolation.server_error(&sent(1, 1, 1), false);
    assert_eq!(convicted, Some(Settlement { head: 1, refused: 1, delivered: 1 }));
    assert!(!isolation.is_active());
}
