use super::*;
use crate::drain::testing::{ms, settings};

const MAX_BYTES: u64 = 64 << 10;

fn standby() -> Standby {
    let fallback = FallbackSettings { batch_max_bytes: MAX_BYTES, gzip: true, meter: None };
    Standby::new(&settings(), &fallback)
}

fn sent(blocks: u64, plain_bytes: u64) -> Sent {
    Sent { head: 1, blocks, records: 10, plain_bytes, wire_bytes: plain_bytes }
}

#[test]
fn the_first_request_of_a_shutdown_is_tried_in_any_case_and_later_ones_only_if_they_can_be_answered() {
    let mut standby = standby();
    let end = ms(1_000);
    standby.latency.add(ms(100));
    for attempt in 0..2 {
        assert!(standby.fits(ms(999), end), "shutdown {attempt}");
        assert!(!standby.fits(end, end));
        standby.sends(ms(0));
        assert!(standby.fits(ms(899), end));
        assert!(!standby.fits(ms(900), end));
        standby.hurry(ms(0));
    }
}

#[test]
fn what_was_sent_to_it_counts_for_the_age_of_its_connections() {
    let mut standby = standby();
    standby.sends(ms(0));
    assert!(!standby.destination.take_stale(ms(4_000)));
    assert!(standby.destination.take_stale(ms(4_001)));
}

#[test]
fn a_failure_makes_records_that_are_given_up_wait_no_longer_and_an_answer_mends_it() {
    let mut standby = standby();
    assert_eq!((standby.is_failing(), standby.is_single()), (false, false));
    assert_eq!(standby.appeal_at(ms(10)), Some(Time::ZERO));
    standby.failed(ms(10), ms(0), Bounds::default(), 0.5);
    assert_eq!((standby.is_failing(), standby.is_single()), (true, true));
    let back = standby.ready_at();
    assert!(back >= ms(10) + settings().retry_initial);
    assert_eq!(standby.appeal_at(ms(11)), None);
    assert_eq!(standby.appeal_at(back), Some(Time::ZERO));
    standby.took(back, &sent(1, 100));
    assert_eq!((standby.is_failing(), standby.is_single()), (false, false));
}

#[test]
fn records_that_are_given_up_wait_for_a_rest() {
    let meter = Meter { bytes_per_second: 1_000, shutdown_max_bytes: 1 };
    let fallback = FallbackSettings { batch_max_bytes: MAX_BYTES, gzip: true, meter: Some(meter) };
    let mut standby = Standby::new(&settings(), &fallback);
    standby.took(ms(500), &sent(1, 3_000));
    assert_eq!(standby.appeal_at(ms(600)), Some(ms(3_500)));
}

#[test]
fn the_first_request_lost_to_a_freeze_is_no_failure_and_a_second_without_an_answer_is() {
    let mut standby = standby();
    assert!(!standby.lost_to_freeze());
    assert!(standby.lost_to_freeze());
    standby.took(ms(0), &sent(1, 100));
    assert!(!standby.lost_to_freeze());
}

#[test]
fn a_request_that_could_not_be_made_is_tried_a_little_later_and_is_no_failure() {
    let mut standby = standby();
    standby.not_sent(ms(1_000), 0.0);
    assert_eq!(standby.ready_at(), ms(1_000) + settings().retry_initial);
    assert!(!standby.is_failing());
}

#[test]
fn what_is_too_large_is_halved_down_to_a_minimum_and_a_single_block_cannot_be() {
    let mut standby = standby();
    assert!(standby.too_large(&sent(2, 20_001)));
    assert_eq!(standby.max_bytes(), 10_000);
    assert!(!standby.too_large(&sent(1, 40_000)));
    assert_eq!(standby.max_bytes(), 10_000, "it only falls");
    assert!(standby.too_large(&sent(2, 10)));
    assert_eq!(standby.max_bytes(), 4 << 10);
}
