use super::*;
use crate::drain::testing::{ms, settings};

fn destination() -> Destination {
    Destination::new(&settings())
}

/// Three failures one after another.
fn open_at(destination: &mut Destination, now: Time) {
    for _ in 0..FAILURES_TO_OPEN {
        destination.failed(now, now);
    }
    assert!(destination.is_open());
}

#[test]
fn a_recovery_doubles_its_blocks_and_halves_the_bound_of_its_pauses() {
    let mut destination = destination();
    let now = ms(1_000);
    open_at(&mut destination, now);
    // Whatever the lane itself has seen.
    assert!(destination.answered(0));
    assert_eq!(destination.pause_until(), Time::ZERO);
    // 200 ms at first; what is under 5 ms is left out.
    for (blocks, bound_micros) in
        [(1, 200_000), (2, 100_000), (4, 50_000), (8, 25_000), (16, 12_500), (32, 6_250)]
    {
        assert_eq!(destination.blocks_max(), blocks);
        destination.delivered(now, blocks, 0.5);
        assert_eq!(destination.pause_until(), now + Duration::from_micros(bound_micros / 2));
    }
    let last = destination.pause_until();
    destination.delivered(now + ms(1), 64, 0.5);
    assert_eq!((destination.blocks_max(), destination.pause_until()), (128, last));
    // The batch was full with fewer blocks: blocks limit nothing any more.
    destination.delivered(now, 127, 0.5);
    assert_eq!(destination.blocks_max(), u64::MAX);
}

#[test]
fn a_ramp_that_is_limited_by_something_else_pauses_on_but_does_not_grow() {
    let mut destination = destination();
    open_at(&mut destination, ms(0));
    destination.answered(3);
    destination.delivered(ms(0), 1, 0.0);
    assert_eq!(destination.blocks_max(), 2);
    destination.delivered(ms(0), 1, 0.0);
    assert_eq!(destination.blocks_max(), 2);
}

#[test]
fn a_ramp_ends_at_its_top() {
    let mut destination = destination();
    destination.start_ramped_down();
    for step in 0..=12 {
        assert_eq!(destination.blocks_max(), 1 << step);
        destination.delivered(ms(0), 1 << step, 0.0);
    }
    assert_eq!(destination.blocks_max(), u64::MAX);
    assert_eq!(destination.pause_until(), Time::ZERO);
}

#[test]
fn a_single_failure_is_no_outage_and_two_are_recovered_from_slowly() {
    let mut destination = destination();
    assert!(!destination.answered(1));
    assert_eq!(destination.blocks_max(), u64::MAX);
    assert!(!destination.answered(2));
    assert_eq!(destination.blocks_max(), 1);
}

#[test]
fn requests_under_way_together_fail_as_one_and_later_ones_on_their_own() {
    let mut destination = destination();
    assert_eq!(destination.failed(ms(10), ms(5)), None);
    assert_eq!(destination.failed(ms(11), ms(9)), None);
    // Begun when the failure was known.
    assert_eq!(destination.failed(ms(12), ms(10)), None);
    assert!(!destination.is_open());
    assert!(destination.failed(ms(13), ms(12)).is_some());
    assert!(destination.is_open());
}

#[test]
fn in_a_hurry_nothing_is_waited_for() {
    let mut destination = destination();
    let now = ms(1_000);
    open_at(&mut destination, now);
    destination.probe_after(now + ms(30_000));
    assert_eq!(destination.probe_at(), now + ms(30_000));
    destination.hurry(now);
    assert_eq!((destination.probe_at(), destination.pause_until()), (now, now));
    let mut destination = self::destination();
    destination.answered(2);
    destination.delivered(now, 1, 0.9);
    destination.hurry(now);
    assert_eq!((destination.blocks_max(), destination.pause_until()), (u64::MAX, now));
}

#[test]
fn delays_start_anew_after_a_hurry_and_after_an_answer() {
    for calm in [
        |destination: &mut Destination| destination.hurry(ms(0)),
        |destination: &mut Destination| {
            destination.answered(0);
        },
    ] {
        let mut destination = destination();
        let mut ceilings = Vec::new();
        for _ in 0..6 {
            ceilings.extend(destination.failed(ms(0), ms(0)));
        }
        calm(&mut destination);
        let again: Vec<_> = (0..6).filter_map(|_| destination.failed(ms(0), ms(0))).collect();
        assert!(again[0] < ceilings[3], "{again:?} after {ceilings:?}");
    }
}

#[test]
fn gzip_is_used_until_it_is_refused() {
    let mut destination = destination();
    assert!(destination.gzip());
    destination.refuse_gzip();
    assert!(!destination.gzip());
}

#[test]
fn connections_are_renewed_once_when_idle_for_long_or_presumed_dead() {
    let mut destination = destination();
    // Nothing was ever opened.
    destination.presume_dead();
    assert!(!destination.take_stale(ms(60_000)));
    destination.used(ms(0));
    assert!(!destination.take_stale(IDLE_MAX));
    assert!(destination.take_stale(IDLE_MAX + ms(1)));
    assert!(!destination.take_stale(IDLE_MAX + ms(2)));
    destination.used(ms(10_000));
    destination.presume_dead();
    assert!(destination.take_stale(ms(10_000)));
    assert!(!destination.take_stale(ms(10_000)));
}
