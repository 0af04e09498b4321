//! An hour of each kind of outage: what it costs the backend in attempts, the function in time, and the data.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::world::{Reply, UNAVAILABLE, World, hang, ms, reply, settings};
use crate::drain::policy::{Action, Outcome};

const HOUR: Duration = Duration::from_secs(3_600);
/// Half of the seeds draw more often than the mean, but never so much.
const LUCK: (usize, usize) = (5, 4);
const SEEDS: u64 = 4;

/// The most attempts that an outage of `length` may cost: pauses are drawn evenly from `shortest` to the longest retry delay,
/// and each attempt takes `lasts`. The first few, while the pauses grow, come on top.
fn budget(length: Duration, shortest: Duration, lasts: Duration) -> usize {
    let mean = (shortest + settings().retry_max) / 2 + lasts;
    let on_average = usize::try_from(length.as_millis() / mean.as_millis()).unwrap();
    let growing =
        (0..32).take_while(|n| settings().retry_initial * 2_u32.pow(*n) < settings().retry_max).count();
    on_average * LUCK.0 / LUCK.1 + growing
}

/// A function that is invoked once a second, a backend that is away for an hour, and back. No two attempts follow one
/// another sooner than `shortest` after an attempt that `lasts`.
fn hour_of(kind: impl Fn() -> Reply + Clone + 'static, shortest: Duration, lasts: Duration) {
    for seed in 0..SEEDS {
        let away = Rc::new(Cell::new(true));
        let (still, kind) = (Rc::clone(&away), kind.clone());
        let mut world =
            World::new(
                settings(),
                move |_| {
                    if still.get() { kind() } else { reply(ms(20), Outcome::Delivered) }
                },
            )
            .seeded(settings(), seed);
        world.tell(crate::drain::policy::Event::Started);
        let mut held = Vec::new();
        while world.now < HOUR {
            held.push(world.invocation(ms(950), ms(50)));
        }
        // The first is held at most, as ever, until the first failure is known.
        assert!(held.iter().skip(1).all(Duration::is_zero), "an outage cost the function time: {held:?}");
        let sends = world.sends();
        let allowed = budget(HOUR, shortest, lasts);
        assert!(sends.len() <= allowed, "{} attempts, {allowed} allowed", sends.len());
        assert!(sends.len() >= allowed / 3, "{} attempts only: a recovery would go unnoticed", sends.len());
        for pair in sends.windows(2) {
            let pause = pair[1].0 - pair[0].0;
            assert!(pause >= shortest + lasts, "{pause:?} between two attempts");
        }
        assert_eq!(world.delivered, []);
        assert_eq!(world.refused, []);
        away.set(false);
        let noticed = world.now + settings().retry_max * 2 + lasts;
        world.run_until(noticed);
        world.run_until_empty(10_000);
        assert_eq!(world.delivered, world.appended, "everything, once, in order");
        assert_eq!(world.refused, []);
        assert_eq!(world.count(|action| matches!(action, Action::Settle { .. })), 0);
    }
}

/// As in [`settings`].
const INITIAL: Duration = ms(200);

#[test]
fn refused_connections_or_503s() {
    hour_of(|| reply(ms(0), UNAVAILABLE), INITIAL, ms(0));
}

#[test]
fn connections_that_break() {
    hour_of(|| reply(ms(5), Outcome::Retry { after: None, fate_unknown: true }), INITIAL, ms(5));
}

#[test]
fn requests_that_hang() {
    hour_of(hang, INITIAL, settings().request_timeout);
}

#[test]
fn connections_that_take_three_seconds_to_fail() {
    hour_of(|| reply(ms(3_000), UNAVAILABLE), INITIAL, ms(3_000));
}

#[test]
fn wrong_keys() {
    hour_of(|| reply(ms(5), Outcome::Denied), ms(5_000), ms(5));
}

#[test]
fn a_media_type_that_is_not_taken_in_any_encoding() {
    // The first answer is followed at once by the same as identity.
    let first = Rc::new(Cell::new(true));
    let away = Rc::new(Cell::new(true));
    let still = Rc::clone(&away);
    let mut world = World::started(settings(), move |request| {
        if !still.get() {
            return reply(ms(20), Outcome::Delivered);
        }
        assert_eq!(request.gzip, first.replace(false));
        reply(ms(5), Outcome::GzipRefused)
    });
    while world.now < HOUR {
        world.invocation(ms(950), ms(50));
    }
    assert!(world.sends().len() <= budget(HOUR, ms(5_000), ms(5)) + 1, "{} attempts", world.sends().len());
    away.set(false);
    world.run_for(settings().retry_max);
    world.run_until_empty(10_000);
    assert_eq!(world.delivered, world.appended);
}

#[test]
fn a_retry_after_that_asks_for_more_than_we_would() {
    for outcome in [
        Outcome::Retry { after: Some(ms(60_000)), fate_unknown: false },
        Outcome::ServerError { after: Some(ms(60_000)) },
    ] {
        let mut world = World::started(settings(), move |_| reply(ms(5), outcome));
        while world.now < HOUR {
            world.invocation(ms(950), ms(50));
        }
        let sends = world.sends();
        assert!((30..=60).contains(&sends.len()), "one in one to two minutes: {}", sends.len());
        for pair in sends.windows(2) {
            let pause = pair[1].0 - pair[0].0;
            assert!((ms(60_000)..ms(122_000)).contains(&pause), "{pair:?}");
        }
        assert_eq!(world.refused, []);
    }
}

#[test]
fn five_hundreds_keep_everything_within_the_same_budget() {
    for seed in 0..SEEDS {
        let away = Rc::new(Cell::new(true));
        let still = Rc::clone(&away);
        let mut world = World::new(settings(), move |_| {
            let outcome = if still.get() { Outcome::ServerError { after: None } } else { Outcome::Delivered };
            reply(ms(5), outcome)
        })
        .seeded(settings(), seed);
        world.tell(crate::drain::policy::Event::Started);
        while world.now < HOUR {
            world.invocation(ms(950), ms(50));
        }
        let allowed = budget(HOUR, INITIAL, ms(5));
        assert!(world.sends().len() <= allowed, "{} attempts, {allowed} allowed", world.sends().len());
        away.set(false);
        world.run_for(settings().retry_max * 2);
        world.run_until_empty(10_000);
        assert_eq!(world.refused, []);
        // The search may have reordered the suspect and its neighbour.
        let mut delivered = world.delivered.clone();
        delivered.sort_by_key(|(_, id)| *id);
        assert_eq!(delivered, world.appended);
    }
}

#[test]
fn a_backend_that_flaps_at_random_gets_everything_once_and_in_order() {
    for seed in 0..32 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut until = Duration::ZERO;
        let mut mood = 0;
        let mut world = World::new(settings(), move |request| {
            while request.now >= until {
                until += ms(random.u64(1..20_000));
                mood = random.u8(..6);
            }
            match mood {
                0 => reply(ms(random.u64(..50)), UNAVAILABLE),
                1 => reply(ms(20), Outcome::Denied),
                2 => hang(),
                3 => reply(
                    ms(20),
                    Outcome::Retry { after: Some(ms(random.u64(..3_000))), fate_unknown: false },
                ),
                4 => reply(ms(20), Outcome::ServerError { after: None }),
                _ => reply(ms(random.u64(..200)), Outcome::Delivered),
            }
        })
        .seeded(settings(), seed);
        world.tell(crate::drain::policy::Event::Started);
        while world.now < HOUR / 6 {
            world.invocation(ms(400), ms(100));
        }
        world.run_until_empty(100_000);
        assert_eq!(world.refused, [], "seed {seed}");
        let mut delivered = world.delivered.clone();
        delivered.sort_by_key(|(_, id)| *id);
        delivered.dedup();
        assert_eq!(delivered, world.appended, "seed {seed}");
    }
}
