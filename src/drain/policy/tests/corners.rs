//! Rules that hold together with others only: what one of them alone would have done is told apart here.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::world::{
    Reply, Request, UNAVAILABLE, World, away, hang, ms, reply, settings, takes, two, with_fallback,
};
use crate::Signal;
use crate::drain::policy::{Action, Event, Outcome, Portion, Settings, Target};

/// SHUTDOWN with `budget` left after the reserve; a report is still to come, so that it does not end at once.
fn shutdown_within(world: &mut World, budget: Duration) {
    world.tell(Event::Invoke { request: 1, deadline: None });
    world.tell(Event::FunctionStarted { request: 1 });
    let deadline = world.now + budget + settings().shutdown_reserve;
    world.tell(Event::Shutdown { deadline });
}

// === What waits for the next invocation

/// Twelve invocations of 100 ms, two seconds apart, and a backend that takes 50 ms; then the beginning of another one.
fn with_habits(settings: Settings, backend: impl FnMut(&Request<'_>) -> Reply + 'static) -> World {
    let mut world = World::started(settings, backend);
    for _ in 0..12 {
        world.invocation(ms(100), ms(2_000));
    }
    world.tell(Event::Invoke { request: 100, deadline: None });
    world.run_for(ms(10));
    world
}

fn next_invocation(world: &mut World) {
    world.freeze(ms(2_000));
    world.tell(Event::Invoke { request: 101, deadline: None });
    world.run_for(ms(1));
}

fn not_held() -> Settings {
    Settings { can_hold: false, ..settings() }
}

/// Whether what comes 80 ms into an invocation, when its function has 20 ms left, goes at once.
fn goes_late_in_the_invocation(world: &mut World, begun: Duration) -> bool {
    world.run_until(begun + ms(80));
    let before = world.sends().len();
    world.append(Signal::Metrics, 1, 64 << 10);
    world.sends().len() > before
}

#[test]
fn what_lingers_until_the_function_is_nearly_done_waits_for_the_next_invocation() {
    let mut world = with_habits(not_held(), |_| reply(ms(50), Outcome::Delivered));
    world.append(Signal::Logs, 1, 100);
    let lingered = world.now + ms(500);
    world.run_until(lingered - ms(20));
    world.tell(Event::FunctionDone { request: 100, ran: Some(ms(100)) });
    let (done, before) = (world.now, world.sends().len());
    world.run_until(done + ms(140));
    assert_eq!(world.sends().len(), before);
    // Nobody freezes it: there may be no next invocation to wait for.
    world.run_until(done + ms(160));
    assert_eq!(world.sends().len(), before + 1);
}

#[test]
fn a_function_that_goes_on_beyond_its_usual_time_is_not_waited_for() {
    let mut world = with_habits(not_held(), |_| reply(ms(50), Outcome::Delivered));
    let begun = world.now - ms(10);
    assert!(!goes_late_in_the_invocation(&mut world, begun));
    let before = world.sends().len();
    world.run_until(begun + ms(145));
    assert_eq!(world.sends().len(), before);
    world.run_until(begun + ms(160));
    assert_eq!(world.sends().len(), before + 1, "it is over its time for as long as a request takes");
}

#[test]
fn a_function_that_runs_as_long_as_a_request_takes_is_worth_waiting_for() {
    for (run, waits) in [(ms(50), true), (ms(49), false)] {
        let mut world = World::healthy(not_held(), ms(50));
        for _ in 0..40 {
            world.invocation(run, ms(2_000));
        }
        let begun = world.now;
        world.tell(Event::Invoke { request: 100, deadline: None });
        world.run_until(begun + ms(60));
        let before = world.sends().len();
        world.append(Signal::Metrics, 1, 64 << 10);
        assert_eq!(world.sends().len() == before, waits, "{run:?}");
    }
}

#[test]
fn nothing_waits_for_another_invocation_where_nothing_freezes() {
    // As with_habits, but nobody asks for the next event.
    let settings = Settings { continuous: true, ..not_held() };
    let mut world = World::healthy(settings, ms(50));
    for request in 0..12 {
        world.tell(Event::Invoke { request, deadline: None });
        world.tell(Event::FunctionStarted { request });
        world.append(Signal::Logs, 1, 64 << 10);
        world.run_for(ms(100));
        world.tell(Event::FunctionDone { request, ran: Some(ms(100)) });
        world.run_for(ms(2_000));
    }
    let begun = world.now;
    world.tell(Event::Invoke { request: 100, deadline: None });
    assert!(goes_late_in_the_invocation(&mut world, begun));
}

#[test]
fn a_lane_that_failed_does_not_wait_for_the_next_invocation_to_try_again() {
    let outcome = Rc::new(Cell::new(Outcome::Delivered));
    let shared = Rc::clone(&outcome);
    let mut world = with_habits(not_held(), move |_| reply(ms(50), shared.get()));
    world.run_until_empty(100);
    outcome.set(UNAVAILABLE);
    next_invocation(&mut world);
    let before = world.sends().len();
    world.append(Signal::Logs, 1, 64 << 10);
    assert_eq!(world.sends().len(), before + 1);
    // Long after the function was expected to end: by habit this would be late for a request.
    world.run_for(ms(1_200));
    assert!(world.sends().len() >= before + 2);
}

#[test]
fn a_search_for_a_refused_record_goes_on_late_in_an_invocation() {
    const POISON: u64 = 7_777;
    let refuses = |request: &Request<'_>| request.records.iter().any(|record| record.bytes == POISON);
    let mut world = with_habits(not_held(), move |request| {
        reply(ms(50), if refuses(request) { Outcome::Refused } else { Outcome::Delivered })
    });
    next_invocation(&mut world);
    let sizes = [10 << 10, 10 << 10, 10 << 10, 10 << 10, 10 << 10, 10 << 10, 10 << 10, POISON];
    world.append_sizes(Signal::Logs, &sizes);
    world.run_for(ms(1_000));
    assert!(world.is_empty(), "{:?}", world.left());
    assert_eq!(world.refused.len(), 1);
}

// === SHUTDOWN

#[test]
fn at_shutdown_a_request_is_worth_making_only_if_its_answer_comes_before_the_end() {
    for (budget, requests) in [(ms(200), 1), (ms(201), 2)] {
        let mut world = World::healthy(settings(), ms(100));
        world.append(Signal::Logs, 1, 64 << 10);
        world.run_for(ms(1_000));
        let before = world.sends().len();
        shutdown_within(&mut world, budget);
        world.append(Signal::Logs, 1, 100);
        world.append(Signal::Logs, 1, 100);
        let second = world.now + ms(40);
        world.run_until(second);
        world.append(Signal::Logs, 1, 100);
        world.run_until(second + ms(1_000));
        assert_eq!(world.sends().len() - before, requests, "within {budget:?}");
    }
}

#[test]
fn what_comes_in_the_second_half_of_a_shutdown_goes_to_the_fallback() {
    for (at, target) in [(ms(149), Target::Primary), (ms(150), Target::Fallback)] {
        let mut world = World::started(with_fallback(), two(takes, takes));
        let begun = world.now;
        shutdown_within(&mut world, ms(300));
        world.run_until(begun + at);
        world.append(Signal::Logs, 1, 100);
        assert_eq!(world.sends_to(target).len(), 1, "after {at:?}");
        assert_eq!(world.sends().len(), 1);
    }
}

#[test]
fn at_shutdown_a_backend_that_recovers_gets_what_a_failing_fallback_does_not_take() {
    let back = ms(400);
    let recovers =
        move |request: &Request<'_>| if request.now < back { away(request) } else { takes(request) };
    let mut world = World::started(with_fallback(), two(recovers, away));
    world.append(Signal::Logs, 5, 100);
    shutdown_within(&mut world, ms(4_000));
    world.run_for(ms(5_000));
    assert_eq!(world.delivered, world.appended);
    assert!(!world.sends_to(Target::Fallback).is_empty());
}

#[test]
fn at_shutdown_a_backend_that_did_not_answer_in_its_half_is_not_asked_again() {
    let mut world = World::started(with_fallback(), two(|_| hang(), away));
    world.append(Signal::Logs, 5, 100);
    shutdown_within(&mut world, ms(4_000));
    world.run_for(ms(5_000));
    // Until the fallback could not answer in time any more, either.
    let until_late = world.sends_to(Target::Primary).into_iter().filter(|(at, _)| *at < ms(3_500));
    assert_eq!(until_late.count(), 1);
    assert!(world.sends_to(Target::Fallback).len() > 2);
}

// === The fallback

/// A queue that is nearly full and a backend that is away: everything is handed over.
fn overflowing(fallback: impl FnMut(&Request<'_>) -> Reply + 'static) -> World {
    let mut world = World::started(with_fallback(), two(away, fallback));
    world.crowded = true;
    world.append(Signal::Logs, 5, 100);
    while world.sends_to(Target::Fallback).is_empty() {
        world.run_for(ms(1));
    }
    world
}

fn renewals(world: &World) -> usize {
    world.count(|action| *action == Action::RenewConnections(Target::Fallback))
}

#[test]
fn connections_to_the_fallback_are_renewed_when_they_were_idle_for_long_and_not_before() {
    for (pause, renewed) in [(ms(3_000), 0), (ms(5_000), 1)] {
        // An answer is a sign of life as well: the first one takes longer than connections may be idle.
        let mut world = overflowing(|_| reply(ms(4_500), Outcome::Delivered));
        world.run_for(ms(4_501));
        assert_eq!(world.handed.len(), 5);
        world.run_for(pause);
        world.append(Signal::Logs, 1, 64 << 10);
        world.run_for(ms(20));
        assert_eq!(world.sends_to(Target::Fallback).len(), 2);
        assert_eq!(renewals(&world), renewed, "after {pause:?}");
    }
}

#[test]
fn a_fallback_that_refuses_gzip_even_where_there_is_none_is_not_hammered() {
    let mut world = overflowing(|_| reply(ms(20), Outcome::GzipRefused));
    world.run_for(ms(60_000));
    let tried = world.sends_to(Target::Fallback).len();
    assert!((3..=12).contains(&tried), "{tried} attempts in a minute");
}

#[test]
fn a_connection_to_the_fallback_that_breaks_is_a_failure_unless_a_freeze_broke_it() {
    let broken = Outcome::Retry { after: None, fate_unknown: true };
    for frozen in [false, true] {
        let mut first = true;
        let mut world =
            overflowing(
                move |request| {
                    if std::mem::take(&mut first) { reply(ms(100), broken) } else { takes(request) }
                },
            );
        if frozen {
            world.freeze(ms(60_000));
        } else {
            world.run_for(ms(100));
        }
        let broke = world.now;
        world.run_for(ms(1_000));
        let again = world.sends_to(Target::Fallback)[1].0 - broke;
        assert_eq!(again < ms(10), frozen, "again after {again:?}");
    }
}

#[test]
fn the_fallback_is_asked_again_no_sooner_than_it_says() {
    for busy in [
        Outcome::Retry { after: Some(ms(90_000)), fate_unknown: false },
        Outcome::ServerError { after: Some(ms(90_000)) },
    ] {
        let mut world = overflowing(move |_| reply(ms(20), busy));
        world.run_for(ms(89_000));
        assert_eq!(world.sends_to(Target::Fallback).len(), 1);
        world.run_for(ms(62_000));
        assert_eq!(world.sends_to(Target::Fallback).len(), 2);
    }
}

// === Denied

#[test]
fn a_backend_that_denies_every_signal_is_away() {
    let mut world = World::started(settings(), |_| reply(ms(5), Outcome::Denied));
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(60_000));
    assert!(world.sends().len() >= 3);
    assert!(world.policy.is_open());
    // One that takes another signal is not.
    let mut world = World::started(settings(), |request| {
        reply(ms(5), if request.signal == Signal::Logs { Outcome::Denied } else { Outcome::Delivered })
    });
    world.append(Signal::Traces, 1, 64 << 10);
    world.run_for(ms(100));
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(60_000));
    assert!(!world.policy.is_open());
}

// === What is told of it

#[test]
fn it_tells_how_long_a_request_is_under_way_and_how_long_ago_the_function_was_done() {
    let mut world = World::started(settings(), |_| hang());
    assert_eq!(world.policy.under_way(world.now, Signal::Logs), None);
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(50));
    world.freeze(ms(2_000));
    let now = world.now + ms(10);
    assert_eq!(world.policy.under_way(now, Signal::Metrics), None);
    let under_way = world.policy.under_way(now, Signal::Logs);
    assert!(
        under_way.is_some_and(|age| age > ms(50) && age < ms(400)),
        "{under_way:?}: freezes do not count"
    );

    let mut world = World::healthy(settings(), ms(10));
    world.tell(Event::Invoke { request: 1, deadline: None });
    assert_eq!(world.policy.since_done(world.now), None);
    world.tell(Event::FunctionDone { request: 1, ran: Some(ms(5)) });
    assert_eq!(world.policy.since_done(world.now + ms(30)), Some(ms(30)));
}

// === A suspect, an alibi, and what else happens to the queue

/// Three records, each a block of its own. The first one breaks the backend; once the second was taken as an alibi, the
/// answer to the first is `then`.
fn with_an_alibi(fallback: bool, then: Outcome) -> World {
    let taken = Rc::new(Cell::new(false));
    let settings = if fallback { with_fallback() } else { settings() };
    let mut world = World::started(
        settings,
        two(
            move |request| {
                let outcome = match (request.has(1), taken.get()) {
                    (true, true) => then,
                    (true, false) => Outcome::ServerError { after: None },
                    _ => Outcome::Delivered,
                };
                taken.set(taken.get() || !request.has(1));
                reply(ms(10), outcome)
            },
            takes,
        ),
    );
    for _ in 0..3 {
        world.append(Signal::Logs, 1, 100);
    }
    world
}

fn logs(ids: &[u64]) -> Vec<(Signal, u64)> {
    ids.iter().map(|id| (Signal::Logs, *id)).collect()
}

#[test]
fn a_neighbour_is_not_sent_again_if_the_answer_of_the_suspect_is_overtaken_by_word_of_what_came_in() {
    for overtaken in [false, true] {
        let mut world = with_an_alibi(false, Outcome::Delivered);
        world.answers_are_overtaken = overtaken;
        world.run_until_empty(200);
        assert_eq!((world.delivered, world.refused), (logs(&[2, 1, 3]), logs(&[])), "{overtaken}");
        let mut world = with_an_alibi(true, Outcome::ServerError { after: None });
        world.answers_are_overtaken = overtaken;
        world.run_until_empty(200);
        assert_eq!((world.delivered, world.handed), (logs(&[2, 3]), logs(&[1])), "{overtaken}");
    }
}

/// Lets the requests up to the alibi go out, and so many after it.
fn until_alibi_and(world: &mut World, more: usize) {
    let is_alibi = |send: &(Duration, Signal, Portion)| send.2 == Portion::Alibi;
    let sent = |world: &World| {
        let sends = world.sends();
        sends.iter().position(is_alibi).is_some_and(|at| sends.len() > at + more)
    };
    while !sent(world) {
        world.run_for(ms(1));
    }
}

#[test]
fn a_neighbour_is_marked_although_the_suspect_is_dropped_meanwhile() {
    // While the alibi is under way, and while the suspect is tried a last time.
    for more in [0, 1] {
        let mut world = with_an_alibi(false, Outcome::ServerError { after: None });
        until_alibi_and(&mut world, more);
        world.drop_oldest(Signal::Logs);
        world.run_until_empty(200);
        assert_eq!((world.delivered, world.refused), (logs(&[2, 3]), logs(&[])), "{more}");
    }
}

#[test]
fn a_neighbour_is_marked_although_the_suspect_is_dropped_while_nobody_answers() {
    let taken = Rc::new(Cell::new(false));
    let mut world = World::started(settings(), move |request| match (request.has(1), taken.get()) {
        (true, false) => reply(ms(10), Outcome::ServerError { after: None }),
        (true, true) => hang(),
        (false, _) => {
            taken.set(true);
            reply(ms(10), Outcome::Delivered)
        }
    });
    for _ in 0..3 {
        world.append(Signal::Logs, 1, 100);
    }
    until_alibi_and(&mut world, 1);
    world.drop_oldest(Signal::Logs);
    world.run_until_empty(200);
    assert_eq!((world.delivered, world.refused), (logs(&[2, 3]), logs(&[])));
}

#[test]
fn nothing_goes_to_the_fallback_for_a_record_that_was_dropped_while_it_was_judged() {
    let mut world = World::started(with_fallback(), two(|_| reply(ms(10), Outcome::Refused), takes));
    world.append(Signal::Logs, 1, 100);
    world.append(Signal::Logs, 1, 100);
    while world.in_flight() == 0 || world.sends().len() < 2 {
        world.run_for(ms(1));
    }
    world.drop_oldest(Signal::Logs);
    world.run_until_empty(200);
    assert_eq!((world.handed, world.refused), (logs(&[2]), logs(&[])));
    let appeals = world
        .actions
        .iter()
        .filter(|(_, action)| matches!(action, Action::Send { target: Target::Fallback, .. }));
    assert_eq!(appeals.count(), 1, "only for the one that is there");
}

#[test]
fn what_is_dropped_while_the_fallback_is_asked_is_not_asked_for_again() {
    // The fallback fails only once the record is gone.
    for outcome in [UNAVAILABLE, Outcome::Refused, Outcome::GzipRefused, Outcome::Delivered] {
        let mut world = World::started(
            with_fallback(),
            two(
                |request| reply(ms(10), if request.has(1) { Outcome::Refused } else { Outcome::Delivered }),
                move |_| reply(ms(50), outcome),
            ),
        );
        world.append(Signal::Logs, 1, 100);
        world.append(Signal::Logs, 1, 100);
        while world.sends_to(Target::Fallback).is_empty() {
            world.run_for(ms(1));
        }
        world.drop_oldest(Signal::Logs);
        world.run_until_empty(200);
        assert_eq!((world.delivered.as_slice(), world.refused.as_slice()), (&logs(&[2])[..], &[][..]));
        assert_eq!(world.sends_to(Target::Fallback).len(), 1, "{outcome:?}");
    }
}
