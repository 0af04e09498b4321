use super::*;
use crate::drain::testing::{ms, settings};

/// An invocation that ends `ran` after its beginning at `at`, and whose end is read at once.
fn run(invocations: &mut Invocations, at: Time, request: u64, ran: Duration) {
    let settings = settings();
    invocations.invoke(at, request, None, true, &settings);
    invocations.started(request);
    invocations.done(at + ran, request, Some(ran), &settings);
}

#[test]
fn a_gap_as_long_as_is_tolerated_is_not_held_for() {
    for (gap, held) in [(settings().max_delay, false), (settings().max_delay + ms(1), true)] {
        let mut invocations = Invocations::default();
        run(&mut invocations, ms(0), 1, Duration::ZERO);
        assert!(invocations.is_held(), "no gap is known");
        run(&mut invocations, gap, 2, Duration::ZERO);
        assert_eq!(invocations.expected_gap(), Some(gap));
        assert_eq!(invocations.is_held(), held);
    }
}

#[test]
fn with_no_delay_tolerated_every_invocation_is_held() {
    let settings = Settings { max_delay: Duration::ZERO, ..settings() };
    let mut invocations = Invocations::default();
    for request in 1..=5 {
        invocations.invoke(ms(20 * request), request, None, true, &settings);
        assert!(invocations.is_held(), "invocation {request}, a gap of {:?}", invocations.expected_gap());
        invocations.done(ms(20 * request + 10), request, Some(ms(10)), &settings);
    }
}

#[test]
fn an_end_that_is_read_after_the_thaw_tells_its_own_gap_only() {
    let settings = Settings { max_delay: ms(100_000), ..settings() };
    for (named, known) in [(1, Some(ms(60_000))), (9, None)] {
        let mut invocations = Invocations::default();
        invocations.invoke(ms(0), 1, None, true, &settings);
        invocations.invoke(ms(100_000), 2, None, true, &settings);
        invocations.done(ms(100_030), named, Some(ms(40_000)), &settings);
        assert_eq!(invocations.expected_gap(), known);
    }
}

#[test]
fn what_is_told_of_an_invocation_before_its_invoke_is_read_counts() {
    let settings = settings();
    let until = |told: fn(&mut Invocations, &Settings)| {
        let mut invocations = Invocations::default();
        told(&mut invocations, &settings);
        invocations.invoke(ms(1_000), 1, None, true, &settings);
        assert!(invocations.is_held());
        (invocations.hold_until(&settings), invocations.report_is_outstanding())
    };
    let nothing = until(|_, _| {});
    assert_eq!(nothing, (Some(ms(1_000) + STARTED_WITHIN), true));
    assert_eq!(until(|of, settings| of.done(ms(990), 9, None, settings)), nothing, "another one's end");
    let start = until(|of, _| of.started(1));
    assert_eq!(start, (Some(ms(1_000) + RUN_ALLOWANCE_MIN + settings.hold_max), true));
    let end = until(|of, settings| {
        of.started(1);
        of.done(ms(990), 1, Some(ms(10)), settings);
    });
    assert_eq!(end, (Some(ms(1_000) + settings.hold_max), true));
    let report = until(|of, settings| {
        of.done(ms(990), 1, Some(ms(10)), settings);
        of.reported(1);
    });
    assert_eq!(report, (Some(ms(1_000) + settings.hold_max), false));
}

#[test]
fn the_longest_of_eight_runs_is_waited_for_and_the_ninth_forgets_it() {
    let long = ms(20_000);
    for (short_runs, allowance) in [(7, ms(40_000)), (8, ms(1_000))] {
        let mut invocations = Invocations::default();
        run(&mut invocations, ms(0), 0, long);
        let mut at = long;
        for request in 1..=short_runs {
            at += ms(60_000);
            run(&mut invocations, at, request, ms(10));
        }
        at += ms(60_000);
        invocations.invoke(at, 99, None, true, &settings());
        invocations.started(99);
        assert_eq!(invocations.hold_until(&settings()), Some(at + allowance + settings().hold_max));
    }
}

#[test]
fn a_function_that_is_done_has_nothing_left_to_run() {
    let mut invocations = Invocations::default();
    run(&mut invocations, ms(0), 1, ms(1_000));
    invocations.invoke(ms(5_000), 2, None, true, &settings());
    assert_eq!(invocations.expected_rest(ms(5_200)), ms(800));
    assert_eq!(invocations.expected_rest(ms(6_200)), Duration::ZERO);
    invocations.done(ms(5_300), 2, Some(ms(300)), &settings());
    assert_eq!(invocations.expected_rest(ms(5_300)), Duration::ZERO);
}
