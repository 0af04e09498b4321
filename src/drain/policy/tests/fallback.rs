//! The rows of `docs/decisions.md` that speak of the fallback.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::world::{
    Reply, Request, UNAVAILABLE, World, away, hang, ms, reply, settings, takes, two, with_fallback,
};
use crate::Signal;
use crate::drain::policy::{Action, Event, FallbackSettings, Meter, Outcome, Portion, Settings, Target};

fn never(request: &Request<'_>) -> Reply {
    panic!("nobody should have asked the fallback for {request:?}")
}

fn metered(bytes_per_second: u64, shutdown_max_bytes: u64) -> Settings {
    let meter = Meter { bytes_per_second, shutdown_max_bytes };
    Settings {
        fallback: Some(FallbackSettings { batch_max_bytes: 1 << 20, gzip: true, meter: Some(meter) }),
        ..settings()
    }
}

fn backlog(world: &mut World) {
    for signal in Signal::ALL {
        for _ in 0..10 {
            world.append(signal, 10, 100);
        }
    }
}

/// SHUTDOWN with this budget, after the reserve.
fn shut_down(world: &mut World, budget: Duration) -> Duration {
    let begun = world.now;
    let reserve = settings().shutdown_reserve;
    world.tell(Event::Shutdown { deadline: begun + budget + reserve });
    world.run_until(begun + budget + reserve);
    world.exited.expect("it ends by itself") - begun
}

/// Everything appended ended up there, and nothing else did.
fn all_in(world: &World, ends: &[(Signal, u64)]) {
    let (mut ends, mut appended) = (ends.to_vec(), world.appended.clone());
    ends.sort_unstable();
    appended.sort_unstable();
    assert_eq!(ends, appended);
}

// === SHUTDOWN

#[test]
fn shutdown_hands_over_what_a_failing_backend_does_not_take() {
    let mut world = World::started(with_fallback(), two(away, takes));
    backlog(&mut world);
    world.run_for(ms(100));
    let took = shut_down(&mut world, ms(1_000));
    all_in(&world, &world.handed);
    assert!(took < ms(60), "one attempt at the backend, then the fallback: {took:?}");
}

#[test]
fn shutdown_gives_a_backend_that_does_not_answer_half_of_the_budget() {
    let mut world = World::started(with_fallback(), two(|_| hang(), takes));
    backlog(&mut world);
    let took = shut_down(&mut world, ms(1_000));
    all_in(&world, &world.handed);
    let aborts: Vec<_> = world.actions.iter().filter(|(_, a)| matches!(a, Action::Abort { .. })).collect();
    assert_eq!(aborts.len(), 3);
    assert!(aborts.iter().all(|(at, _)| *at == ms(500)), "{aborts:?}");
    assert!(took > ms(500) && took < ms(600), "{took:?}");
}

#[test]
fn shutdown_gives_a_backend_that_was_away_a_quick_try_only() {
    let mut world = World::started(with_fallback(), two(|_| hang(), takes));
    backlog(&mut world);
    // Three time-outs, and in the middle of the next wait.
    world.run_for(ms(60_000));
    let took = shut_down(&mut world, ms(1_000));
    all_in(&world, &world.handed);
    assert!(took < ms(400), "{took:?}");
    let answer = Rc::new(Cell::new(UNAVAILABLE));
    let shared = Rc::clone(&answer);
    let mut world = World::started(with_fallback(), two(move |_| reply(ms(20), shared.get()), never));
    backlog(&mut world);
    world.run_for(ms(60_000));
    answer.set(Outcome::Delivered);
    shut_down(&mut world, ms(1_000));
    all_in(&world, &world.delivered);
}

#[test]
fn shutdown_hands_nothing_over_if_the_backend_takes_it_all() {
    let mut world = World::started(with_fallback(), two(takes, never));
    backlog(&mut world);
    shut_down(&mut world, ms(1_000));
    all_in(&world, &world.delivered);
}

#[test]
fn shutdown_hands_over_what_a_slow_backend_has_no_time_for() {
    let settings = Settings { batch_max_bytes: 1_000, ..with_fallback() };
    let mut world = World::started(settings, two(|_| reply(ms(120), Outcome::Delivered), takes));
    backlog(&mut world);
    shut_down(&mut world, ms(1_000));
    assert!(!world.delivered.is_empty() && !world.handed.is_empty());
    all_in(&world, &[world.delivered.clone(), world.handed.clone()].concat());
}

#[test]
fn signals_take_turns_at_the_fallback_in_shutdown() {
    let mut settings = metered(1, 1 << 30);
    settings.fallback.as_mut().unwrap().batch_max_bytes = 2_000;
    let mut world = World::started(settings, two(away, takes));
    backlog(&mut world);
    shut_down(&mut world, ms(1_000));
    all_in(&world, &world.handed);
    let order: Vec<Signal> = world.sends_to(Target::Fallback).into_iter().map(|(_, signal)| signal).collect();
    assert_eq!(order.len(), 15);
    for round in order.chunks(3) {
        assert!(Signal::ALL.iter().all(|signal| round.contains(signal)), "{order:?}");
    }
}

#[test]
fn what_the_fallback_does_not_take_either_stays_and_the_backend_is_tried_as_without_one() {
    let mut alone = World::started(settings(), away);
    let mut world = World::started(with_fallback(), two(away, away));
    for world in [&mut alone, &mut world] {
        world.append(Signal::Logs, 10, 100);
        shut_down(world, ms(1_000));
        assert_eq!((world.delivered.len(), world.handed.len(), world.refused.len()), (0, 0, 0));
        assert!(!world.is_empty());
    }
    let tried = |world: &World| world.sends_to(Target::Primary).len();
    assert!(tried(&world) > 1 && tried(&alone) > 1, "{} {}", tried(&world), tried(&alone));
    // Back in the middle of it.
    let back = |request: &Request<'_>| {
        if request.now > ms(300) { takes(request) } else { away(request) }
    };
    let mut world = World::started(with_fallback(), two(back, away));
    backlog(&mut world);
    shut_down(&mut world, ms(1_000));
    all_in(&world, &world.delivered);
}

#[test]
fn shutdown_with_both_hung_ends_before_the_deadline_and_keeps_the_data() {
    let mut world = World::started(with_fallback(), two(|_| hang(), |_| hang()));
    backlog(&mut world);
    let took = shut_down(&mut world, ms(1_000));
    assert!(took <= ms(1_000), "{took:?}");
    assert_eq!((world.delivered.len(), world.handed.len()), (0, 0));
}

#[test]
fn a_shutdown_writes_no_more_to_a_metered_fallback_than_its_sum() {
    let mut settings = metered(1, 2_500);
    settings.fallback.as_mut().unwrap().batch_max_bytes = 1_000;
    let mut world = World::started(settings, two(away, takes));
    backlog(&mut world);
    shut_down(&mut world, ms(1_000));
    assert_eq!(world.handed.len(), 30, "three requests of a thousand bytes");
}

#[test]
fn what_arrives_late_in_shutdown_goes_to_the_fallback_at_once() {
    let mut world = World::started(with_fallback(), two(|_| hang(), takes));
    world.tell(Event::Invoke { request: 1, deadline: None });
    world.run_for(ms(2_000));
    world
        .at(world.now + ms(150), super::world::What::Append { signal: Signal::Logs, records: 2, bytes: 100 });
    let took = shut_down(&mut world, ms(400));
    assert_eq!(world.handed.len(), 2);
    assert!(took < ms(400), "{took:?}");
}

// === Overflow

#[test]
fn a_queue_that_is_nearly_full_gives_its_oldest_to_the_fallback_while_the_backend_is_away() {
    let settings = Settings { batch_max_bytes: 1_000, ..with_fallback() };
    let mut world = World::started(settings, two(away, takes));
    world.append(Signal::Traces, 10, 100);
    backlog(&mut world);
    world.run_for(ms(60_000));
    assert_eq!(world.handed, [], "there is room");
    world.crowded = true;
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(60_000));
    all_in(&world, &world.handed);
    let first = world.sends_to(Target::Fallback)[0];
    assert_eq!(first.1, Signal::Traces, "the oldest, whatever its signal");
}

#[test]
fn a_full_queue_is_no_reason_to_hand_over_while_the_backend_takes_data() {
    let mut world = World::started(with_fallback(), two(takes, never));
    world.crowded = true;
    backlog(&mut world);
    world.run_for(ms(60_000));
    all_in(&world, &world.delivered);
    // Nor is a single failure.
    let mut failed = false;
    let once = move |request: &Request<'_>| {
        if std::mem::replace(&mut failed, true) { takes(request) } else { away(request) }
    };
    let mut world = World::started(with_fallback(), two(once, never));
    world.crowded = true;
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(60_000));
    all_in(&world, &world.delivered);
}

#[test]
fn a_queue_that_is_nearly_full_gives_what_a_rate_limit_holds_back_to_the_fallback() {
    let settings = Settings { bytes_per_second: Some(10), batch_max_bytes: 1_000, ..with_fallback() };
    let mut world = World::started(settings, two(takes, takes));
    backlog(&mut world);
    world.run_for(ms(60_000));
    assert_eq!(world.handed, [], "there is room");
    world.crowded = true;
    world.append(Signal::Logs, 1, 100);
    world.run_for(ms(10_000));
    all_in(&world, &[world.delivered.clone(), world.handed.clone()].concat());
    assert!(!world.handed.is_empty());
    let delivered = world.delivered.len();
    for _ in 0..40 {
        world.append(Signal::Logs, 1, 100);
        world.run_for(ms(60_000));
    }
    assert!(world.delivered.len() > delivered, "the backend gets what the limit allows");
    all_in(&world, &[world.delivered.clone(), world.handed.clone()].concat());
}

#[test]
fn a_queue_that_is_about_to_overflow_gives_its_oldest_to_the_fallback_whatever_the_backend_does() {
    let settings = Settings { batch_max_bytes: 1_000, ..with_fallback() };
    let slow = |_: &Request<'_>| reply(ms(3_000), Outcome::Delivered);
    let mut world = World::started(settings, two(slow, takes));
    world.crowded = true;
    backlog(&mut world);
    world.run_for(ms(4_000));
    assert_eq!(world.handed, [], "nearly full is no reason");
    world.brimming = true;
    world.append(Signal::Logs, 1, 100);
    // One is enough to be no longer brimming, but not for there to be room.
    world.brimming = false;
    world.run_for(ms(4_000));
    assert!(!world.handed.is_empty());
    all_in(&world, &[world.delivered.clone(), world.handed.clone()].concat());
    world.crowded = false;
    world.append(Signal::Logs, 1, 100);
    let handed = world.handed.len();
    world.run_for(ms(20_000));
    assert_eq!(world.handed.len(), handed, "there is room again");
    all_in(&world, &[world.delivered.clone(), world.handed.clone()].concat());
}

#[test]
fn handing_over_does_not_keep_the_backend_from_being_tried() {
    let mut settings = metered(1 << 30, 0);
    settings.fallback.as_mut().unwrap().batch_max_bytes = 100;
    let mut world = World::started(settings, two(away, |_| reply(ms(400), Outcome::Delivered)));
    world.crowded = true;
    for _ in 0..2_000 {
        world.append(Signal::Logs, 1, 100);
    }
    world.run_for(ms(600_000));
    let alone = {
        let mut world = World::started(super::world::settings(), away);
        world.append(Signal::Logs, 1, 100);
        world.run_for(ms(600_000));
        world.sends().len()
    };
    let tried = world.sends_to(Target::Primary).len();
    assert!(tried * 2 > alone, "{tried} attempts, without a fallback {alone}");
    assert!(world.handed.len() > 1_000, "{}", world.handed.len());
}

#[test]
fn handing_over_never_holds_an_invocation() {
    let mut world = World::started(with_fallback(), two(away, |_| reply(ms(3_000), Outcome::Delivered)));
    world.crowded = true;
    backlog(&mut world);
    world.run_for(ms(10_000));
    assert!(!world.sends_to(Target::Fallback).is_empty());
    for _ in 0..6 {
        assert_eq!(world.invocation(ms(100), ms(0)), ms(0));
    }
}

#[test]
fn a_fallback_that_is_away_is_not_hammered() {
    for down in [away as fn(&Request<'_>) -> Reply, |_| hang(), |_| reply(ms(5), Outcome::Denied)] {
        let mut world = World::started(with_fallback(), two(away, down));
        world.crowded = true;
        backlog(&mut world);
        world.run_for(ms(600_000));
        let tried = world.sends_to(Target::Fallback);
        assert!((10..90).contains(&tried.len()), "{} attempts in ten minutes", tried.len());
        assert_eq!((world.handed.len(), world.refused.len()), (0, 0));
    }
}

#[test]
fn a_metered_fallback_rests_after_each_request_for_as_long_as_its_rate_says() {
    let mut settings = metered(100, 0);
    settings.fallback.as_mut().unwrap().batch_max_bytes = 1_000;
    let mut world = World::started(settings, two(away, takes));
    world.crowded = true;
    backlog(&mut world);
    world.run_for(ms(600_000));
    all_in(&world, &world.handed);
    let tried = world.sends_to(Target::Fallback);
    assert!(tried.windows(2).all(|pair| pair[1].0 - pair[0].0 >= ms(10_000)), "{tried:?}");
}

#[test]
fn a_fallback_gets_smaller_requests_and_identity_if_it_asks_for_them() {
    let picky = |request: &Request<'_>| {
        let size: u64 = request.records.iter().map(|record| record.bytes).sum();
        let outcome = match size {
            _ if request.gzip => Outcome::GzipRefused,
            5_000.. => Outcome::TooLarge,
            _ => Outcome::Delivered,
        };
        reply(ms(5), outcome)
    };
    let mut world = World::started(with_fallback(), two(away, picky));
    world.crowded = true;
    backlog(&mut world);
    world.run_for(ms(60_000));
    all_in(&world, &world.handed);
}

#[test]
fn a_request_to_the_fallback_lost_to_a_freeze_is_made_again_at_the_thaw() {
    let mut first = true;
    let slow = move |request: &Request<'_>| {
        if std::mem::take(&mut first) { hang() } else { takes(request) }
    };
    let mut world = World::started(with_fallback(), two(away, slow));
    world.crowded = true;
    world.append(Signal::Logs, 5, 100);
    while world.sends_to(Target::Fallback).is_empty() {
        world.run_for(ms(50));
    }
    world.freeze(ms(60_000));
    world.run_for(ms(500));
    all_in(&world, &world.handed);
}

// === Records that are given up

fn refuses(poison: u64) -> impl FnMut(&Request<'_>) -> Reply {
    move |request| {
        let outcome = if request.has(poison) { Outcome::Refused } else { Outcome::Delivered };
        reply(ms(5), outcome)
    }
}

#[test]
fn a_record_that_the_backend_refuses_goes_to_the_fallback() {
    let mut world = World::started(with_fallback(), two(refuses(14), takes));
    for _ in 0..3 {
        world.append(Signal::Logs, 10, 100);
    }
    world.run_until_empty(500);
    assert_eq!(world.handed, [(Signal::Logs, 14)]);
    assert_eq!((world.delivered.len(), world.refused.len()), (29, 0));
    let portions = world.actions.iter().filter_map(|(_, action)| match action {
        Action::Send { portion, target: Target::Fallback, .. } => Some(*portion),
        _ => None,
    });
    assert_eq!(portions.collect::<Vec<_>>(), [Portion::Records { count: 1 }]);
}

/// An answer that names what it refuses: the run of such records at the front, the first twelve.
fn names(refused: u64) -> impl FnMut(&Request<'_>) -> Reply {
    move |request| {
        let run = request.records.iter().take_while(|record| record.id <= refused).count() as u64;
        let outcome = match (run, request.records.len()) {
            (0, _) => Outcome::Delivered,
            (_, 1) => Outcome::Refused,
            _ => Outcome::FirstRefused { records: run },
        };
        reply(ms(5), outcome)
    }
}

#[test]
fn records_that_an_answer_names_go_to_the_fallback_together() {
    let mut world = World::started(with_fallback(), two(names(12), takes));
    for _ in 0..3 {
        world.append(Signal::Logs, 10, 100);
    }
    world.run_until_empty(100);
    assert_eq!(world.handed, (1..=12).map(|id| (Signal::Logs, id)).collect::<Vec<_>>());
    assert_eq!(world.delivered, (13..=30).map(|id| (Signal::Logs, id)).collect::<Vec<_>>());
    assert_eq!(world.refused, []);
    let to_fallback = world.sends_to(Target::Fallback).len();
    assert_eq!(to_fallback, 2, "one request for each block");
}

#[test]
fn records_that_an_answer_names_and_the_fallback_does_not_take_are_given_up() {
    let mut world = World::started(with_fallback(), two(names(12), away));
    for _ in 0..3 {
        world.append(Signal::Logs, 10, 100);
    }
    world.run_until_empty(200);
    assert_eq!(world.refused, (1..=12).map(|id| (Signal::Logs, id)).collect::<Vec<_>>());
    assert_eq!((world.delivered.len(), world.handed.len()), (18, 0));
}

#[test]
fn a_backend_that_names_everything_is_not_hammered() {
    let mut world = World::started(with_fallback(), two(names(u64::MAX), takes));
    for _ in 0..200 {
        world.append(Signal::Logs, 2, 100);
    }
    world.run_for(ms(20_000));
    let asked = world.sends_to(Target::Primary).len();
    assert!(asked < 60, "{asked} requests in 20 s");
    world.run_until_empty(2_000);
    assert_eq!(world.handed.len(), 400, "nothing is lost");
}

#[test]
fn a_record_that_neither_takes_is_given_up() {
    for down in [away as fn(&Request<'_>) -> Reply, |_| hang(), |_| reply(ms(5), Outcome::TooLarge)] {
        let mut world = World::started(with_fallback(), two(refuses(14), down));
        for _ in 0..3 {
            world.append(Signal::Logs, 10, 100);
        }
        world.run_until_empty(500);
        assert_eq!(world.refused, [(Signal::Logs, 14)]);
        assert_eq!((world.delivered.len(), world.handed.len()), (29, 0));
        assert_eq!(world.sends_to(Target::Fallback).len(), 1, "asked once");
    }
}

#[test]
fn a_record_that_breaks_the_backend_goes_to_the_fallback_and_its_neighbour_does_not_go_twice() {
    let breaks = |request: &Request<'_>| {
        let outcome = if request.has(3) { Outcome::ServerError { after: None } } else { Outcome::Delivered };
        reply(ms(5), outcome)
    };
    let mut world = World::started(with_fallback(), two(breaks, takes));
    world.append(Signal::Logs, 5, 100);
    world.run_until_empty(500);
    assert_eq!(world.handed, [(Signal::Logs, 3)]);
    let mut delivered = world.delivered.clone();
    delivered.sort_unstable();
    assert_eq!(delivered, [1, 2, 4, 5].map(|id| (Signal::Logs, id)));
}

#[test]
fn an_accused_record_goes_to_the_fallback_at_shutdown_without_its_delivered_neighbour() {
    // The neighbour is delivered, then the backend is away for the last try.
    let mut alibi = false;
    let breaks = move |request: &Request<'_>| {
        if alibi {
            return away(request);
        }
        alibi = !request.has(1);
        reply(ms(5), if alibi { Outcome::Delivered } else { Outcome::ServerError { after: None } })
    };
    let mut world = World::started(with_fallback(), two(breaks, takes));
    world.append(Signal::Logs, 3, 100);
    while world.delivered.is_empty() {
        world.run_for(ms(1_000));
    }
    shut_down(&mut world, ms(1_000));
    assert_eq!(world.delivered, [(Signal::Logs, 2)]);
    assert_eq!(world.handed, [(Signal::Logs, 1), (Signal::Logs, 3)]);
}
