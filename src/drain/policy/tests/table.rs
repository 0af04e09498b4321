//! The decision table of `docs/decisions.md`, row by row.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::world::{Request, UNAVAILABLE, World, hang, ms, reply, settings};
use crate::Signal;
use crate::drain::policy::{Action, Backlog, Event, Outcome, Policy, Portion, Sent, Settings};

/// A gap so long that every invocation is worth holding.
const QUIET: Duration = ms(60_000);

fn invoke(request: u64) -> Event {
    Event::Invoke { request, deadline: None }
}

fn done(request: u64) -> Event {
    Event::FunctionDone { request, ran: None }
}

/// Answers `outcome` until told otherwise through the cell.
fn switchable(outcome: Outcome) -> (Rc<Cell<Outcome>>, impl FnMut(&Request<'_>) -> super::world::Reply) {
    let answer = Rc::new(Cell::new(outcome));
    let shared = Rc::clone(&answer);
    (answer, move |_: &Request<'_>| reply(ms(10), shared.get()))
}

fn gaps(world: &World) -> Vec<Duration> {
    world.sends().windows(2).map(|pair| pair[1].0 - pair[0].0 - ms(10)).collect()
}

// === Next and holding

#[test]
fn next_is_asked_for_at_once_when_started_and_when_an_invocation_cannot_be_held() {
    let mut settings = settings();
    settings.can_hold = false;
    let mut world = World::healthy(settings, ms(10));
    world.tell(invoke(1));
    assert_eq!(world.actions, [(ms(0), Action::Next), (ms(0), Action::Next)]);
}

#[test]
fn a_held_invocation_with_nothing_to_deliver_is_let_go_when_its_function_is_done() {
    let mut world = World::healthy(settings(), ms(10));
    world.tell(invoke(1));
    world.tell(Event::FunctionStarted { request: 1 });
    world.run_for(ms(500));
    assert!(!world.next_pending);
    world.tell(done(1));
    assert!(world.next_pending);
}

#[test]
fn a_hold_ends_when_the_backlog_is_delivered() {
    let mut world = World::healthy(settings(), ms(40));
    world.tell(invoke(1));
    world.append(Signal::Logs, 1, 100);
    world.append(Signal::Traces, 1, 100);
    world.tell(done(1));
    assert_eq!(world.in_flight(), 2, "what would linger goes at once");
    world.run_for(ms(39));
    assert!(!world.next_pending);
    world.run_for(ms(2));
    assert!(world.next_pending);
}

#[test]
fn a_hold_never_outlasts_its_maximum_after_the_function_is_done() {
    let mut world = World::started(settings(), |_| hang());
    world.tell(invoke(1));
    world.append(Signal::Logs, 1, 100);
    world.tell(done(1));
    world.run_for(ms(149));
    assert!(!world.next_pending);
    world.run_for(ms(2));
    assert!(world.next_pending);
}

#[test]
fn a_hold_counts_from_the_end_of_the_function_and_not_from_when_that_is_read() {
    let mut world = World::started(settings(), |_| hang());
    world.tell(invoke(1));
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(60));
    world.tell(Event::FunctionDone { request: 1, ran: Some(ms(20)) });
    world.run_for(ms(109));
    assert!(!world.next_pending);
    world.run_for(ms(2));
    assert!(world.next_pending);
}

#[test]
fn a_hold_ends_before_the_deadline_of_the_function() {
    let mut world = World::started(settings(), |_| hang());
    world.tell(Event::Invoke { request: 1, deadline: Some(ms(250)) });
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(100));
    world.tell(done(1));
    world.run_for(ms(49));
    assert!(!world.next_pending);
    world.run_for(ms(2));
    assert!(world.next_pending);
}

#[test]
fn a_deadline_that_is_near_from_the_beginning_is_not_held_against() {
    let mut world = World::healthy(settings(), ms(10));
    world.tell(Event::Invoke { request: 1, deadline: Some(ms(90)) });
    assert!(world.next_pending);
}

#[test]
fn a_failure_ends_a_hold_at_once_and_forbids_the_next() {
    let mut world = World::started(settings(), |_| reply(ms(10), UNAVAILABLE));
    world.tell(invoke(1));
    world.append(Signal::Logs, 1, 100);
    world.tell(done(1));
    world.run_for(ms(11));
    assert!(world.next_pending);
    world.tell(invoke(2));
    assert!(world.next_pending);
}

#[test]
fn without_a_sign_of_the_function_a_hold_ends_early_and_none_follows_until_its_end_is_seen() {
    let mut world = World::healthy(settings(), ms(10));
    world.tell(invoke(1));
    world.run_for(ms(299));
    assert!(!world.next_pending);
    world.run_for(ms(2));
    assert!(world.next_pending, "telemetry is lost or late");
    world.freeze(QUIET);
    world.tell(invoke(2));
    assert!(world.next_pending, "blind");
    world.tell(done(1));
    world.freeze(QUIET);
    world.tell(invoke(3));
    assert!(!world.next_pending, "the end of an older invocation was seen: sight is back");
}

#[test]
fn a_function_that_runs_on_is_let_go_after_a_second_if_no_end_was_ever_seen() {
    let mut world = World::healthy(settings(), ms(10));
    world.tell(invoke(1));
    world.tell(Event::FunctionStarted { request: 1 });
    world.run_for(ms(1_149));
    assert!(!world.next_pending);
    world.run_for(ms(2));
    assert!(world.next_pending);
}

#[test]
fn a_function_is_waited_for_twice_its_longest_recent_run() {
    let mut world = World::healthy(settings(), ms(10));
    world.tell(invoke(1));
    world.tell(Event::FunctionStarted { request: 1 });
    world.run_for(ms(1_000));
    world.tell(done(1));
    world.freeze(QUIET);
    world.tell(invoke(2));
    world.tell(Event::FunctionStarted { request: 2 });
    world.run_for(ms(2_149));
    assert!(!world.next_pending);
    world.run_for(ms(2));
    assert!(world.next_pending);
}

#[test]
fn after_the_first_invocation_only_a_gap_longer_than_the_tolerated_delay_is_held_for() {
    for (gap, expected) in [(ms(9_000), false), (ms(11_000), true)] {
        let mut world = World::healthy(settings(), ms(10));
        let held: Vec<_> = (0..8).map(|_| world.invocation(ms(50), gap) > ms(0)).collect();
        assert_eq!(held.get(..1), Some(&[true][..]), "no gap is known yet");
        assert_eq!(held.get(1..), Some(&[expected; 7][..]), "with gaps of {gap:?}");
    }
}

#[test]
fn one_quiet_night_does_not_make_a_busy_function_pay() {
    let mut world = World::healthy(settings(), ms(5));
    for _ in 0..50 {
        world.invocation(ms(20), ms(0));
    }
    world.invocation(ms(20), ms(8 * 3_600_000));
    for n in 0..50 {
        assert_eq!(world.invocation(ms(20), ms(0)), ms(0), "held in invocation {n} of the morning");
    }
}

#[test]
fn a_backend_slower_than_the_hold_is_not_held_for() {
    let mut world = World::healthy(settings(), ms(200));
    let held: Vec<_> = (0..6).map(|_| world.invocation(ms(400), QUIET)).collect();
    assert!(held.iter().skip(2).all(Duration::is_zero), "{held:?}");
}

#[test]
fn a_request_that_is_older_than_the_hold_ends_it_and_forbids_the_next() {
    let mut world = World::started(settings(), |_| hang());
    world.tell(invoke(1));
    world.tell(Event::FunctionStarted { request: 1 });
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(150));
    assert!(!world.next_pending);
    world.run_for(ms(1));
    assert!(world.next_pending, "although the function runs on");
    world.tell(done(1));
    world.tell(invoke(2));
    assert!(world.next_pending, "the request is still stuck");
}

#[test]
fn an_open_breaker_is_not_held_for() {
    let mut world = World::started(settings(), |_| reply(ms(10), UNAVAILABLE));
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(20_000));
    for request in 1..4 {
        world.tell(invoke(request));
        assert!(world.next_pending);
    }
}

#[test]
fn a_signal_that_the_backend_does_not_know_costs_the_others_nothing() {
    let mut world = World::started(settings(), |request| {
        reply(ms(10), if request.signal == Signal::Traces { Outcome::Denied } else { Outcome::Delivered })
    });
    for invocation in 0..20 {
        world.append(Signal::Traces, 1, 100);
        let held = world.invocation(ms(100), ms(60_000));
        // 25 ms until the end of the function is seen, 10 ms for the request.
        assert_eq!(held, ms(35), "invocation {invocation}");
        assert_eq!(world.level(Signal::Logs).blocks, 0, "its logs left within it");
    }
    assert_eq!(world.level(Signal::Traces).blocks, 20, "kept");
    let probes = world.sends().iter().filter(|(_, signal, _)| *signal == Signal::Traces).count();
    assert!((10..=40).contains(&probes), "{probes} probes in 20 minutes of short invocations");
    assert_eq!(world.refused, []);
}

#[test]
fn what_an_earlier_process_left_is_no_reason_to_hold_until_the_backend_takes_some_of_it() {
    let mut world = World::started(settings(), |_| hang());
    world.inherit(Signal::Logs, 3, 10, 100);
    world.tell(invoke(1));
    assert!(world.next_pending);

    let mut world = World::healthy(settings(), ms(10));
    world.inherit(Signal::Logs, 1, 10, 100);
    world.run_until_empty(10);
    world.tell(invoke(1));
    assert!(!world.next_pending);
}

// === What a request carries, and when

#[test]
fn what_is_new_lingers_half_a_second_or_until_there_is_enough_of_it() {
    let mut world = World::healthy(settings(), ms(10));
    world.append(Signal::Logs, 10, 100);
    world.run_for(ms(499));
    assert_eq!(world.sends().len(), 0);
    world.run_for(ms(2));
    assert_eq!(world.sends().len(), 1);
    world.run_for(ms(1_000));
    world.append(Signal::Logs, 1, 64 << 10);
    assert_eq!(world.sends().len(), 2);
}

#[test]
fn a_lane_has_one_request_in_flight_and_lanes_do_not_wait_for_each_other() {
    let mut world = World::healthy(settings(), ms(100));
    for signal in Signal::ALL {
        world.append(signal, 1, 64 << 10);
        world.append(signal, 1, 64 << 10);
    }
    assert_eq!(world.in_flight(), 3, "more than one per lane fails the test by itself");
    world.run_for(ms(250));
    assert!(world.is_empty());
}

#[test]
fn a_request_that_would_be_frozen_waits_for_the_next_invocation_unless_that_is_too_late() {
    let mut settings = settings();
    settings.can_hold = false;
    for (gap, deferred) in [(ms(2_000), true), (ms(11_000), false)] {
        let mut world = World::healthy(settings.clone(), ms(50));
        for _ in 0..12 {
            world.invocation(ms(100), gap);
        }
        // Lingering is over 20 ms before the function usually ends: too late for a request of 50 ms.
        let from = world.now;
        world.tell(Event::Invoke { request: 100, deadline: None });
        world.run_until(from + ms(80));
        let before = world.sends().len();
        world.append(Signal::Metrics, 1, 64 << 10);
        assert_eq!(world.sends().len() == before, deferred, "with gaps of {gap:?}");
        world.run_until(from + ms(100));
        world.freeze(gap);
        world.tell(Event::Invoke { request: 101, deadline: None });
        world.run_for(ms(60));
        assert_eq!(world.level(Signal::Metrics).blocks, 0, "it goes at the beginning of the next");
    }
}

// === Failures

#[test]
fn delays_grow_below_a_doubling_ceiling_and_never_fall_below_the_initial_delay() {
    for seed in 0..20 {
        let world = World::new(settings(), |_| reply(ms(10), UNAVAILABLE));
        let mut world = world.seeded(settings(), seed);
        world.tell(Event::Started);
        world.append(Signal::Logs, 1, 100);
        world.run_for(ms(600_000));
        for (n, gap) in (1..).zip(gaps(&world)) {
            let ceiling = ms(200) * 2u32.saturating_pow(n).min(150);
            assert!(gap >= ms(200) && gap <= ceiling + ms(1), "delay {n} is {gap:?}");
        }
        assert!(world.sends().len() <= 70, "{} attempts in ten minutes", world.sends().len());
    }
}

#[test]
fn retry_after_is_obeyed_by_the_lane_that_was_told() {
    let told = Outcome::Retry { after: Some(ms(7_000)), fate_unknown: false };
    let mut world = World::started(settings(), move |_| reply(ms(10), told));
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(60_000));
    assert!(world.sends().len() >= 4);
    assert!(gaps(&world).iter().all(|gap| *gap >= ms(7_000)), "{:?}", gaps(&world));
}

#[test]
fn three_failures_open_the_breaker_and_then_one_block_of_one_lane_is_probed() {
    let mut world = World::started(settings(), |_| reply(ms(10), UNAVAILABLE));
    for signal in Signal::ALL {
        for _ in 0..5 {
            world.append(signal, 10, 10_000);
        }
    }
    world.run_for(ms(300_000));
    let sends = world.sends();
    let probes: Vec<_> = sends.iter().skip(9).collect();
    assert!(probes.len() >= 9, "{} probes", probes.len());
    for pair in probes.windows(2) {
        assert_eq!(pair[1].2, Portion::Run { max_blocks: 1, max_bytes: 1 << 20 });
        assert!(pair[1].0 - pair[0].0 >= ms(200), "two probes in one step");
    }
    for signal in Signal::ALL {
        assert!(probes.iter().any(|probe| probe.1 == signal), "{signal} was never probed");
    }
}

#[test]
fn requests_that_fail_together_are_one_failure() {
    let mut world = World::started(settings(), |_| hang());
    for signal in Signal::ALL {
        world.append(signal, 1, 64 << 10);
        world.append(signal, 1, 64 << 10);
    }
    world.run_for(ms(5_600));
    let again: Vec<_> = world.sends().into_iter().skip(3).collect();
    assert!(!again.is_empty());
    for (_, _, portion) in again {
        assert_eq!(
            portion,
            Portion::Run { max_blocks: u64::MAX, max_bytes: 1 << 20 },
            "the breaker is closed"
        );
    }
}

#[test]
fn a_broken_path_of_one_signal_does_not_stop_the_others() {
    let mut world = World::started(settings(), |request| {
        let broken = request.signal == Signal::Metrics;
        reply(ms(10), if broken { UNAVAILABLE } else { Outcome::Delivered })
    });
    world.append(Signal::Metrics, 1, 100);
    world.run_for(ms(60_000));
    let metrics = world.sends().len();
    for _ in 0..60 {
        world.append(Signal::Logs, 1, 100);
        world.run_for(ms(1_000));
        assert_eq!(world.level(Signal::Logs).blocks, 0, "logs wait for metrics");
    }
    let metrics = world.sends().iter().filter(|send| send.1 == Signal::Metrics).count() - metrics;
    assert!(metrics <= 12, "{metrics} attempts in a minute although it has long been failing");
}

#[test]
fn a_success_closes_the_breaker_and_resets_the_delays() {
    let (answer, backend) = switchable(UNAVAILABLE);
    let mut world = World::started(settings(), backend);
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(60_000));
    answer.set(Outcome::Delivered);
    world.run_until_empty(100);
    answer.set(UNAVAILABLE);
    world.append(Signal::Logs, 1, 100);
    let from = world.now;
    world.run_for(ms(910));
    let again: Vec<_> = world.sends().into_iter().filter(|send| send.0 >= from).collect();
    assert_eq!(again.len(), 2, "after the linger, then within 400 ms");
}

#[test]
fn a_time_out_aborts_counts_as_a_failure_and_renews_connections() {
    let mut world = World::started(settings(), |_| hang());
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(5_500));
    let kinds: Vec<_> = world.actions.iter().skip(1).collect();
    assert!(matches!(kinds[0], (at, Action::Send { .. }) if *at == ms(0)), "{kinds:?}");
    assert!(matches!(kinds[1], (at, Action::Abort { .. }) if *at == ms(5_000)), "{kinds:?}");
    assert!(matches!(kinds[2], (at, Action::RenewConnections(_)) if *at >= ms(5_200)), "{kinds:?}");
    assert!(matches!(kinds[3], (at, Action::Send { .. }) if *at >= ms(5_200)), "{kinds:?}");
}

#[test]
fn denied_keeps_the_data_and_probes_slowly() {
    let (answer, backend) = switchable(Outcome::Denied);
    let mut world = World::started(settings(), backend);
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(600_000));
    assert!(gaps(&world).iter().all(|gap| *gap >= ms(5_000)), "{:?}", gaps(&world));
    assert!(world.sends().len() >= 600 / 31, "it does probe");
    answer.set(Outcome::Delivered);
    world.run_until_empty(100);
    assert_eq!(world.refused, []);
}

#[test]
fn without_compression_every_request_goes_as_identity() {
    let mut world = World::healthy(Settings { gzip: false, ..settings() }, ms(10));
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(11));
    assert!(world.is_empty());
    assert_eq!(world.count(|action| matches!(action, Action::Send { gzip: false, .. })), 1);
}

#[test]
fn gzip_refused_switches_to_identity_and_sends_again_at_once() {
    let mut world = World::started(settings(), |request| {
        reply(ms(10), if request.gzip { Outcome::GzipRefused } else { Outcome::Delivered })
    });
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(21));
    assert!(world.is_empty());
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(11));
    assert!(world.is_empty(), "and stays so");
}

#[test]
fn gzip_refused_even_as_identity_is_a_matter_of_configuration() {
    let mut world = World::started(settings(), |_| reply(ms(10), Outcome::GzipRefused));
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(60_000));
    let sends = world.sends().len();
    assert!((3..=14).contains(&sends), "{sends} attempts in a minute");
    assert_eq!(world.level(Signal::Logs).blocks, 1);
}

#[test]
fn a_request_that_could_not_be_made_is_tried_again_later() {
    let mut world = World::started(settings(), |_| reply(ms(0), Outcome::NotSent));
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(60_000));
    assert!(world.sends().len() <= 30, "{}", world.sends().len());
}

// === Refusals

fn refuses(poison: &'static [u64]) -> impl FnMut(&Request<'_>) -> super::world::Reply {
    move |request| {
        let poisoned = poison.iter().any(|id| request.has(*id));
        reply(ms(10), if poisoned { Outcome::Refused } else { Outcome::Delivered })
    }
}

/// Ten blocks of ten records.
fn ten_blocks(world: &mut World) {
    for _ in 0..10 {
        world.append(Signal::Logs, 10, 1_000);
    }
}

#[test]
fn poisonous_records_are_given_up_alone_and_their_neighbours_arrive_in_order() {
    for poison in [&[1][..], &[37], &[100], &[10, 11], &[1, 2, 3], &[55, 5, 95]] {
        let mut world = World::started(settings(), refuses(poison));
        ten_blocks(&mut world);
        world.run_until_empty(200);
        let mut refused: Vec<_> = poison.iter().map(|id| (Signal::Logs, *id)).collect();
        refused.sort_unstable();
        assert_eq!(world.refused, refused);
        let healthy = world.appended.iter().copied().filter(|known| !refused.contains(known));
        assert_eq!(world.delivered, healthy.collect::<Vec<_>>());
        assert!(world.now < ms(2_000), "isolation does not wait: {:?}", world.now);
    }
}

#[test]
fn after_an_isolation_requests_are_large_again() {
    let mut world = World::started(settings(), refuses(&[1]));
    ten_blocks(&mut world);
    world.run_until_empty(200);
    ten_blocks(&mut world);
    world.run_until_empty(200);
    let last = world.sends().last().map(|send| send.2);
    assert_eq!(last, Some(Portion::Run { max_blocks: u64::MAX, max_bytes: 1 << 20 }));
}

#[test]
fn a_backend_that_refuses_everything_is_not_hammered() {
    let mut world = World::started(settings(), |_| reply(ms(10), Outcome::Refused));
    ten_blocks(&mut world);
    world.run_for(ms(60_000));
    assert!(world.sends().len() <= 32 + 20, "{} attempts", world.sends().len());
}

#[test]
fn a_request_too_large_is_halved_and_the_limit_remembered() {
    let mut world = World::started(settings(), |request| {
        let bytes: u64 = request.records.iter().map(|record| record.bytes).sum();
        reply(ms(10), if bytes > 30_000 { Outcome::TooLarge } else { Outcome::Delivered })
    });
    ten_blocks(&mut world);
    world.run_until_empty(100);
    assert_eq!(world.delivered, world.appended);
    let before = world.sends().len();
    ten_blocks(&mut world);
    world.run_until_empty(100);
    assert_eq!(world.sends().len() - before, 4, "three blocks of 10 kB each, none refused");
}

#[test]
fn a_block_too_large_goes_by_records_and_only_a_record_too_large_is_given_up() {
    let mut world = World::started(settings(), |request| {
        let bytes: u64 = request.records.iter().map(|record| record.bytes).sum();
        reply(ms(10), if bytes > 20_000 { Outcome::TooLarge } else { Outcome::Delivered })
    });
    world.append(Signal::Logs, 64, 1_000);
    world.append(Signal::Logs, 1, 50_000);
    world.append(Signal::Logs, 64, 1_000);
    world.run_until_empty(200);
    assert_eq!(world.refused, [(Signal::Logs, 65)]);
    assert_eq!(world.delivered.len(), 128);
    assert!(world.delivered.is_sorted());
    assert!(world.sends().len() < 30, "{} requests", world.sends().len());
}

// === 500

fn breaks_on(poison: &'static [u64]) -> impl FnMut(&Request<'_>) -> super::world::Reply {
    move |request| {
        let poisoned = poison.iter().any(|id| request.has(*id));
        reply(ms(10), if poisoned { Outcome::ServerError { after: None } } else { Outcome::Delivered })
    }
}

#[test]
fn a_record_that_breaks_the_backend_is_given_up_once_its_neighbour_was_accepted() {
    for poison in [&[1][..], &[10], &[37]] {
        let mut world = World::started(settings(), breaks_on(poison));
        ten_blocks(&mut world);
        world.run_until_empty(2_000);
        assert_eq!(world.refused, [(Signal::Logs, poison[0])]);
        let rest = world.appended.iter().copied().filter(|known| known.1 != poison[0]);
        assert_eq!(world.delivered, rest.collect::<Vec<_>>(), "each once, in order");
        assert_eq!(world.count(|action| matches!(action, Action::Send { portion: Portion::Alibi, .. })), 1);
    }
}

#[test]
fn an_outage_of_500s_loses_nothing_whenever_it_ends() {
    for end in (1_000..240_000).step_by(1_500) {
        let mut world = World::started(settings(), move |request| {
            let outage = request.now < ms(end);
            reply(ms(10), if outage { Outcome::ServerError { after: None } } else { Outcome::Delivered })
        });
        for _ in 0..3 {
            world.append(Signal::Logs, 3, 1_000);
        }
        world.run_until_empty(2_000);
        assert_eq!(world.refused, [], "outage until {end} ms");
        let mut delivered = world.delivered.clone();
        delivered.sort_unstable();
        assert_eq!(delivered, world.appended, "outage until {end} ms: each exactly once");
    }
}

#[test]
fn without_a_neighbour_a_suspect_waits_for_one() {
    let mut world = World::started(settings(), breaks_on(&[1]));
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(300_000));
    assert_eq!(world.refused, []);
    world.append(Signal::Logs, 1, 100);
    world.run_until_empty(100);
    assert_eq!(world.refused, [(Signal::Logs, 1)]);
    assert_eq!(world.delivered, [(Signal::Logs, 2)]);
}

#[test]
fn two_neighbours_one_breaking_and_one_refused_are_both_given_up() {
    let mut world = World::started(settings(), |request| {
        let outcome = match (request.has(1), request.has(2)) {
            (true, _) => Outcome::ServerError { after: None },
            (_, true) => Outcome::Refused,
            _ => Outcome::Delivered,
        };
        reply(ms(10), outcome)
    });
    ten_blocks(&mut world);
    world.run_until_empty(2_000);
    assert_eq!(world.refused, [(Signal::Logs, 1), (Signal::Logs, 2)]);
    assert_eq!(world.delivered.len(), 98);
}

#[test]
fn a_head_dropped_by_the_queue_takes_the_suspicion_with_it() {
    let mut world = World::started(settings(), refuses(&[1]));
    world.append(Signal::Logs, 64, 1_000);
    world.append(Signal::Logs, 64, 1_000);
    world.run_for(ms(25));
    world.drop_oldest(Signal::Logs);
    world.run_until_empty(100);
    assert_eq!(world.refused, []);
    assert_eq!(world.delivered, world.appended);
}

// === Freezes

#[test]
fn frozen_time_does_not_count_for_a_time_out() {
    let mut world = World::started(settings(), |_| reply(ms(3_000), Outcome::Delivered));
    world.append(Signal::Logs, 1, 64 << 10);
    for _ in 0..8 {
        world.run_for(ms(100));
        world.freeze(ms(900));
    }
    world.run_for(ms(10));
    assert_eq!(world.count(|action| matches!(action, Action::Abort { .. })), 0);
    assert!(world.is_empty());
}

#[test]
fn an_answer_already_in_the_socket_is_read_at_the_thaw() {
    let mut world = World::started(settings(), |_| reply(ms(200), Outcome::Delivered));
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(50));
    world.freeze(ms(600_000));
    world.tell(invoke(1));
    world.run_for(ms(1));
    assert!(world.is_empty());
    assert_eq!(world.count(|action| matches!(action, Action::Abort { .. })), 0);
}

#[test]
fn the_first_request_lost_to_a_freeze_is_no_failure_of_the_backend() {
    let lost = Outcome::Retry { after: None, fate_unknown: true };
    let mut first = true;
    let mut world = World::started(settings(), move |_| {
        if std::mem::take(&mut first) { reply(ms(200), lost) } else { reply(ms(10), Outcome::Delivered) }
    });
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(50));
    world.freeze(ms(60_000));
    world.run_for(ms(11));
    assert!(world.is_empty(), "sent again at once");
}

#[test]
fn a_second_request_lost_to_a_freeze_without_a_delivery_is_a_failure() {
    let mut world = World::started(settings(), |_| hang());
    world.append(Signal::Logs, 1, 64 << 10);
    for losses in 1..=2 {
        world.run_for(ms(20));
        world.freeze(ms(5_000));
        world.run_for(ms(300));
        assert_eq!(world.count(|action| matches!(action, Action::Abort { .. })), losses);
        assert_eq!(world.in_flight(), usize::from(losses == 1), "after {losses}");
    }
}

#[test]
fn a_request_frozen_twice_is_given_up_at_the_second_thaw() {
    let mut world = World::started(settings(), |_| hang());
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(20));
    world.freeze(ms(5_000));
    world.tell(invoke(1));
    world.tell(done(1));
    world.run_for(ms(250));
    world.freeze(ms(5_000));
    world.run_for(ms(1));
    assert_eq!(world.count(|action| matches!(action, Action::Abort { .. })), 1);
}

#[test]
fn an_hour_without_an_invocation_costs_a_request_and_no_record() {
    let mut first = true;
    let mut world = World::started(settings(), move |_| {
        if std::mem::take(&mut first) { hang() } else { reply(ms(10), Outcome::Delivered) }
    });
    world.append(Signal::Logs, 10, 8 << 10);
    world.run_for(ms(50));
    assert_eq!(world.in_flight(), 1);
    world.freeze(ms(3_600_000));
    let held = world.invocation(ms(400), ms(0));
    assert!(world.is_empty() && world.delivered.len() == world.appended.len());
    assert_eq!(world.count(|action| matches!(action, Action::RenewConnections(_))), 1);
    assert!(held <= settings().hold_max, "{held:?}");
}

#[test]
fn a_clock_that_jumps_ahead_ends_a_hold_and_a_request_and_loses_nothing() {
    let mut first = true;
    let mut world = World::started(settings(), move |_| {
        if std::mem::take(&mut first) { hang() } else { reply(ms(10), Outcome::Delivered) }
    });
    world.append(Signal::Logs, 10, 8 << 10);
    let deadline = Some(world.now + ms(3_000));
    world.tell(Event::Invoke { request: 1, deadline });
    world.tell(Event::FunctionStarted { request: 1 });
    world.run_for(ms(20));
    assert!(!world.next_pending && world.in_flight() == 1);
    // Nothing was frozen, but time says so.
    world.now += ms(40 * 24 * 3_600_000);
    world.run_for(ms(1));
    assert!(world.next_pending, "the function is not kept by a deadline that is long over");
    world.run_for(ms(400));
    assert!(world.is_empty());
    assert_eq!(world.delivered, world.appended);
}

#[test]
fn connections_idle_for_more_than_four_seconds_are_not_used_again() {
    let mut world = World::healthy(settings(), ms(10));
    for (pause, renewed) in [(ms(3_000), 0), (ms(5_000), 1), (ms(1_000), 1)] {
        world.append(Signal::Logs, 1, 64 << 10);
        world.run_for(ms(20));
        world.freeze(pause);
        world.append(Signal::Logs, 1, 64 << 10);
        world.run_for(ms(20));
        assert_eq!(world.count(|action| matches!(action, Action::RenewConnections(_))), renewed);
    }
}

// === SHUTDOWN

fn shutdown_in(world: &mut World, budget: Duration) {
    let deadline = world.now + budget;
    world.tell(Event::Shutdown { deadline });
}

#[test]
fn shutdown_with_nothing_to_do_waits_for_what_the_function_said_last_and_for_no_more() {
    for (can_hold, over) in [(true, ms(50)), (false, ms(0))] {
        let mut world = World::healthy(Settings { can_hold, ..settings() }, ms(10));
        shutdown_in(&mut world, ms(1_300));
        world.run_for(ms(1_300));
        assert_eq!(world.exited, Some(over), "telemetry comes: {can_hold}");
    }
}

#[test]
fn what_the_function_said_last_is_delivered_at_shutdown() {
    let mut world = World::healthy(settings(), ms(10));
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(45));
    world.append(Signal::Logs, 1, 300);
    world.run_for(ms(1_300));
    assert!(world.is_empty());
    assert_eq!(world.exited, Some(ms(55)));
}

#[test]
fn what_came_when_it_seemed_over_is_delivered_once_nothing_more_is_taken_in() {
    let mut world = World::healthy(settings(), ms(10));
    world.tell(invoke(1));
    world.tell(done(1));
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(250));
    assert_eq!(world.exited, Some(ms(200)));
    world.intake_closes_after(|world| world.append(Signal::Logs, 1, 300));
    world.run_for(ms(1_000));
    assert!(world.is_empty());
    assert_eq!(world.exited, Some(ms(260)), "as long as its request took");
}

#[test]
fn shutdown_is_over_when_the_intake_has_closed_and_nothing_had_come() {
    let mut world = World::healthy(settings(), ms(10));
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(50));
    world.intake_closes_after(|_| {});
    assert_eq!(world.exited, Some(ms(50)));
}

#[test]
fn what_came_when_it_was_over_does_not_outstay_the_deadline() {
    let mut world = World::started(settings(), |_| hang());
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(60));
    world.intake_closes_after(|world| world.append(Signal::Logs, 1, 300));
    world.run_for(ms(1_300));
    assert_eq!(world.exited, Some(ms(1_150)), "the deadline less the reserve");
}

#[test]
fn shutdown_waits_for_the_last_report_and_delivers_it() {
    let mut world = World::healthy(settings(), ms(10));
    world.tell(invoke(1));
    world.tell(done(1));
    world.freeze(ms(1_000));
    let from = world.now;
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(40));
    assert_eq!(world.exited, None);
    world.append(Signal::Logs, 1, 300);
    world.tell(Event::Reported { request: 1 });
    world.run_for(ms(100));
    assert_eq!(world.exited, Some(from + ms(50)));
}

#[test]
fn a_last_report_that_never_comes_is_not_waited_for_long() {
    let mut world = World::healthy(settings(), ms(10));
    world.tell(invoke(1));
    world.tell(done(1));
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(1_300));
    assert_eq!(world.exited, Some(ms(200)));
}

#[test]
fn shutdown_flushes_every_lane_at_full_size_without_pauses_although_the_breaker_was_open() {
    let (answer, backend) = switchable(UNAVAILABLE);
    let mut world = World::started(settings(), backend);
    for signal in Signal::ALL {
        for _ in 0..40 {
            world.append(signal, 100, 1_000);
        }
    }
    world.run_for(ms(120_000));
    answer.set(Outcome::Delivered);
    let from = world.now;
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(1_300));
    assert!(world.is_empty());
    let exited = world.exited.expect("an end") - from;
    assert!(exited <= ms(60), "4 requests per lane, lanes side by side: {exited:?}");
}

#[test]
fn shutdown_with_a_hung_backend_ends_before_the_deadline_and_keeps_the_data() {
    let mut world = World::started(settings(), |_| hang());
    world.append(Signal::Logs, 1, 100);
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(1_300));
    assert_eq!(world.exited, Some(ms(1_150)));
    assert_eq!(world.level(Signal::Logs).blocks, 1);
}

#[test]
fn shutdown_with_a_failing_backend_retries_within_the_budget() {
    let mut world = World::started(settings(), |_| reply(ms(10), UNAVAILABLE));
    world.append(Signal::Logs, 1, 100);
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(1_300));
    let sends = world.sends().len();
    assert!((2..=6).contains(&sends), "{sends} attempts");
    assert!(world.exited.expect("an end") <= ms(1_150));
}

#[test]
fn shutdown_with_a_retry_after_beyond_the_budget_does_not_stay_for_nothing() {
    let told = Outcome::Retry { after: Some(ms(60_000)), fate_unknown: false };
    let mut world = World::started(settings(), move |_| reply(ms(10), told));
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(5_000));
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(1_300));
    assert_eq!(world.sends().len(), 2, "the wait is cut short once");
    assert_eq!(world.exited, Some(ms(5_050)), "no later than without it");
}

#[test]
fn a_shutdown_without_time_ends_at_once_whatever_is_in_flight() {
    let mut world = World::started(settings(), |_| hang());
    world.append(Signal::Logs, 1, 64 << 10);
    shutdown_in(&mut world, ms(100));
    assert_eq!(world.exited, Some(ms(0)));
}

#[test]
fn a_request_in_flight_at_shutdown_may_finish() {
    let mut world = World::healthy(settings(), ms(400));
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(100));
    shutdown_in(&mut world, ms(1_300));
    world.run_for(ms(1_300));
    assert_eq!(world.exited, Some(ms(400)));
    assert_eq!(world.delivered.len(), 1);
}

#[test]
fn an_answer_to_an_aborted_attempt_changes_nothing() {
    let mut world = World::started(settings(), |_| hang());
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(6_000));
    assert_eq!(world.in_flight(), 1, "the second attempt");
    world.tell(Event::Answer {
        signal: Signal::Logs,
        attempt: 1,
        sent: Sent::default(),
        outcome: Outcome::Delivered,
        left: Backlog::default(),
    });
    let sends = world.sends().len();
    world.run_for(ms(100));
    assert_eq!(world.sends().len(), sends, "the second attempt is still the one in flight");
}

#[test]
fn settings_at_their_extremes_do_not_spin_or_panic() {
    let zero = Settings {
        batch_max_bytes: 0,
        gzip: false,
        max_delay: Duration::ZERO,
        hold_max: Duration::ZERO,
        retry_initial: Duration::ZERO,
        retry_max: Duration::ZERO,
        request_timeout: Duration::ZERO,
        shutdown_reserve: Duration::ZERO,
        continuous: false,
        can_hold: true,
        fallback: None,
        bytes_per_second: None,
    };
    let huge = Settings {
        batch_max_bytes: u64::MAX,
        gzip: true,
        max_delay: Duration::MAX,
        hold_max: Duration::MAX,
        retry_initial: Duration::MAX,
        retry_max: Duration::MAX,
        request_timeout: Duration::MAX,
        shutdown_reserve: Duration::MAX,
        continuous: false,
        can_hold: true,
        fallback: None,
        bytes_per_second: None,
    };
    for settings in [zero, huge] {
        let mut world = World::started(settings, |_| reply(ms(1), UNAVAILABLE));
        world.append(Signal::Logs, 1, 100);
        world.tell(invoke(1));
        world.tell(done(1));
        world.run_for(ms(100));
        world.tell(Event::Shutdown { deadline: ms(200) });
        world.run_for(ms(200));
        assert!(world.exited.is_some());
    }
}

// === Where rules meet

#[test]
fn a_recovery_cuts_the_waits_of_other_lanes_short_unless_the_server_said_until_when() {
    let told = Outcome::Retry { after: Some(ms(600_000)), fate_unknown: false };
    for (failure, waits) in [(UNAVAILABLE, false), (told, true)] {
        let (answer, backend) = switchable(UNAVAILABLE);
        let mut world = World::started(settings(), backend);
        world.append(Signal::Traces, 1, 100);
        world.run_for(ms(100_000));
        answer.set(failure);
        let attempts = world.sends().len();
        while world.sends().len() == attempts {
            world.run_for(ms(1));
        }
        world.run_for(ms(15));
        let wait = world.policy.wake_at().expect("a next attempt") - world.now;
        assert!(wait > ms(1_000), "the test wants a long wait, not {wait:?}");
        answer.set(Outcome::Delivered);
        world.append(Signal::Logs, 1, 64 << 10);
        world.run_for(ms(250));
        assert_eq!(world.is_empty(), !waits, "after {failure:?}");
    }
}

#[test]
fn a_shutdown_does_not_retry_what_cannot_be_answered_in_time() {
    let (answer, backend) = switchable(Outcome::Delivered);
    let mut backend = backend;
    let mut world = World::started(settings(), move |request| {
        let outcome = backend(request).outcome;
        reply(ms(if outcome == Outcome::Delivered { 900 } else { 10 }), outcome)
    });
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(1_000));
    answer.set(UNAVAILABLE);
    world.append(Signal::Logs, 1, 100);
    let from = world.now;
    shutdown_in(&mut world, ms(1_200));
    world.run_for(ms(1_200));
    assert_eq!(world.sends().len(), 2, "one attempt in any case, and no other");
    assert_eq!(world.exited, Some(from + ms(50)), "no later than without it");
}

#[test]
fn small_records_after_large_ones_do_not_go_two_by_two() {
    let mut world = World::started(settings(), |request| {
        let bytes: u64 = request.records.iter().map(|record| record.bytes).sum();
        reply(ms(10), if bytes > 25_000 { Outcome::TooLarge } else { Outcome::Delivered })
    });
    let sizes: Vec<_> = (0..64).map(|n| if n < 4 { 20_000 } else { 10 }).collect();
    world.append_sizes(Signal::Logs, &sizes);
    world.run_until_empty(100);
    assert_eq!(world.delivered, world.appended);
    assert!(world.sends().len() <= 20, "{} requests", world.sends().len());
}

#[test]
fn an_accused_record_waits_out_an_outage_for_its_last_try_and_its_neighbour_is_not_repeated() {
    let mut attempts_after_alibi = None;
    let mut world = World::started(settings(), move |request| {
        let outcome = match (&mut attempts_after_alibi, request.has(1)) {
            (None, true) => Outcome::ServerError { after: None },
            (None, false) => {
                attempts_after_alibi = Some(0);
                Outcome::Delivered
            }
            (Some(count), true) if *count < 4 => {
                *count += 1;
                UNAVAILABLE
            }
            (Some(_), _) => Outcome::Delivered,
        };
        reply(ms(10), outcome)
    });
    world.append(Signal::Logs, 1, 100);
    world.append(Signal::Logs, 2, 100);
    world.run_until_empty(200);
    assert_eq!(world.refused, []);
    assert_eq!(world.delivered, [2, 1, 3].map(|id| (Signal::Logs, id)));
}

#[test]
fn a_freeze_shorter_than_the_time_out_is_noticed_too() {
    let mut world = World::started(settings(), |_| hang());
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(20));
    world.freeze(ms(3_000));
    let thaw = world.now;
    world.tell(invoke(1));
    world.run_for(ms(400));
    let abort = world.actions.iter().find(|(_, action)| matches!(action, Action::Abort { .. }));
    assert_eq!(abort.map(|(at, _)| *at), Some(thaw + ms(300)));
}

#[test]
fn a_rate_limit_counts_what_was_given_up() {
    let settings = Settings { bytes_per_second: Some(1_000), continuous: true, ..settings() };
    let gives_up = settings.request_timeout;
    let mut limited = Policy::new(settings, 1);
    limited.on(ms(0), Event::Started);
    let level = Backlog { blocks: 2, bytes: 200_000, ..Backlog::default() };
    limited.on(ms(0), Event::Backlog { signal: Signal::Logs, level });
    let actions = |policy: &mut Policy, now| std::iter::from_fn(|| policy.next(now)).collect::<Vec<_>>();
    actions(&mut limited, ms(0));
    let aborted = limited.next(gives_up);
    assert!(matches!(aborted, Some(Action::Abort { .. })), "{aborted:?}");
    limited.on(gives_up, Event::Spent { wire_bytes: 100_000 });
    assert_eq!(actions(&mut limited, gives_up), []);
    assert_eq!(limited.wake_at(), Some(gives_up + ms(90_000)), "100 s are paid for, 10 of them in advance");
}

#[test]
fn a_rate_limit_lets_one_request_go_at_a_time_and_is_lifted_at_shutdown() {
    let mut limited = Policy::new(Settings { bytes_per_second: Some(1_000), ..settings() }, 1);
    let level = |blocks| Backlog { blocks, bytes: blocks * 100_000, ..Backlog::default() };
    limited.on(ms(0), Event::Started);
    for signal in [Signal::Logs, Signal::Traces] {
        limited.on(ms(0), Event::Backlog { signal, level: level(2) });
    }
    let sends = |policy: &mut Policy, now| {
        let actions = std::iter::from_fn(|| policy.next(now));
        actions
            .filter_map(|a| {
                if let Action::Send { signal, attempt, .. } = a { Some((signal, attempt)) } else { None }
            })
            .collect::<Vec<_>>()
    };
    let first = sends(&mut limited, ms(0));
    assert_eq!(first.len(), 1, "{first:?}");
    let (signal, attempt) = first[0];
    let sent = Sent { head: 1, blocks: 1, records: 1, plain_bytes: 100_000, wire_bytes: 25_000 };
    limited.on(ms(10), Event::Answer { signal, attempt, sent, outcome: Outcome::Delivered, left: level(1) });
    assert_eq!(sends(&mut limited, ms(10)), []);
    let wake = limited.wake_at().expect("it goes on by itself");
    assert_eq!(wake, ms(15_010), "25 s are paid for, 10 of them in advance");
    assert_eq!(sends(&mut limited, wake).len(), 1);
    limited.on(ms(15_020), Event::Shutdown { deadline: ms(17_000) });
    assert_eq!(sends(&mut limited, ms(15_020)).len(), 1, "the other signal goes at once");
}
