//! Where a rule begins and ends: what other tests pass by on both sides.

use super::world::{Request, World, hang, ms, reply, settings, with_fallback};
use crate::Signal;
use crate::drain::policy::{Action, Event, Outcome, Target};

fn invoke(request: u64) -> Event {
    Event::Invoke { request, deadline: None }
}

fn aborts(world: &World) -> usize {
    world.count(|action| matches!(action, Action::Abort { .. }))
}

/// How many blocks the first request had.
fn blocks_of_the_first(world: &World) -> usize {
    world.delivered.iter().filter(|(signal, _)| *signal == Signal::Logs).count()
}

#[test]
fn a_backend_as_slow_as_the_longest_hold_is_held_for_and_a_slower_one_is_not() {
    for (latency, held) in [(ms(150), true), (ms(151), false)] {
        let mut world = World::healthy(settings(), latency);
        world.append(Signal::Logs, 1, 64 << 10);
        world.run_for(ms(1_000));
        world.tell(invoke(1));
        assert_eq!(!world.next_pending, held, "{latency:?}");
    }
}

#[test]
fn a_request_as_old_as_the_longest_hold_does_not_forbid_one_and_an_older_one_does() {
    for (age, held) in [(ms(150), true), (ms(151), false)] {
        let mut world = World::started(settings(), |_| hang());
        world.append(Signal::Logs, 1, 64 << 10);
        world.run_for(age);
        world.tell(invoke(1));
        assert_eq!(!world.next_pending, held, "{age:?}");
    }
}

#[test]
fn a_request_to_the_fallback_forbids_a_hold_however_young_it_is() {
    let answer = |request: &Request<'_>| match request.target {
        Target::Primary => reply(ms(5), Outcome::Refused),
        Target::Fallback => hang(),
    };
    let mut world = World::started(with_fallback(), answer);
    world.append(Signal::Logs, 1, 64 << 10);
    world.run_for(ms(6));
    let to_fallback = |action: &Action| matches!(action, Action::Send { target: Target::Fallback, .. });
    assert_eq!(world.count(to_fallback), 1);
    world.tell(invoke(1));
    assert!(world.next_pending);
}

#[test]
fn time_that_jumps_while_nothing_can_freeze_counts_for_a_time_out() {
    let mut continuous = settings();
    continuous.continuous = true;
    for (settings, in_invocation) in [(settings(), true), (continuous, false)] {
        let timeout = settings.request_timeout;
        let mut world = World::started(settings, |_| hang());
        if in_invocation {
            world.tell(Event::Invoke { request: 1, deadline: Some(ms(60_000)) });
            world.tell(Event::FunctionStarted { request: 1 });
        }
        world.append(Signal::Logs, 1, 64 << 10);
        world.run_for(ms(20));
        assert_eq!((world.in_flight(), world.next_pending), (1, !in_invocation));
        // We were not given the machine.
        world.now += ms(900);
        world.run_until(timeout + ms(1));
        assert_eq!(aborts(&world), 1);
    }
}

#[test]
fn nothing_left_is_no_reason_to_begin_with_a_small_request() {
    let mut world = World::started(settings(), |_| reply(ms(10), Outcome::Delivered));
    world.inherit(Signal::Logs, 0, 0, 0);
    for _ in 0..4 {
        world.append(Signal::Logs, 1, 100);
    }
    world.run_for(ms(511));
    assert_eq!(blocks_of_the_first(&world), 4);
}

#[test]
fn what_waits_at_the_start_begins_with_a_small_request_whenever_it_came() {
    let mut world = World::new(settings(), |_| reply(ms(10), Outcome::Delivered));
    for _ in 0..4 {
        world.append(Signal::Logs, 1, 20 << 10);
    }
    world.tell(Event::Started);
    world.run_for(ms(11));
    assert_eq!(blocks_of_the_first(&world), 1);
}
