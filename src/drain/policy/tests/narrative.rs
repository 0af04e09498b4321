//! Whole stories: what is sent when.

use super::world::{UNAVAILABLE, What, World, ms, reply, settings};
use crate::Signal;
use crate::drain::policy::{Action, Event, Outcome, Portion};

#[test]
fn a_quiet_function_is_held_briefly_and_its_telemetry_leaves_within_each_invocation() {
    let mut world = World::healthy(settings(), ms(40));
    for _ in 0..20 {
        let held = world.invocation(ms(120), ms(60_000));
        // 25 ms until the end of the function is seen, 40 ms for the request.
        assert_eq!(held, ms(65));
        assert!(world.is_empty(), "telemetry was left behind by the invocation that made it");
    }
    assert_eq!(world.count(|action| matches!(action, Action::Send { .. })), 20, "one request per invocation");
    // Every invocation but the first finds connections that were idle for a minute.
    assert_eq!(world.count(|action| matches!(action, Action::RenewConnections(_))), 19);
}

#[test]
fn a_busy_function_is_not_held_and_makes_a_few_requests_a_second() {
    let mut world = World::healthy(settings(), ms(5));
    let mut held = Vec::new();
    for _ in 0..1_000 {
        held.push(world.invocation(ms(20), ms(0)));
    }
    assert!(held.iter().skip(3).all(std::time::Duration::is_zero), "{held:?}");
    assert!(held.iter().all(|held| *held <= ms(175)), "25 ms to see the end, then 150 ms at most");
    let requests = world.sends().len();
    assert!((30..=60).contains(&requests), "{requests} requests in 20 s");
    assert!(world.level(Signal::Logs).oldest.is_none_or(|oldest| world.now - oldest <= ms(600)));
}

#[test]
fn a_busy_function_does_not_notice_an_outage_and_everything_arrives_afterwards_in_order() {
    let mut world = World::started(settings(), |request| {
        let outage = (ms(10_000)..ms(70_000)).contains(&request.now);
        reply(ms(5), if outage { UNAVAILABLE } else { Outcome::Delivered })
    });
    let mut added = ms(0);
    while world.now < ms(110_000) {
        let held = world.invocation(ms(20), ms(0));
        if world.now > ms(5_000) {
            added += held;
        }
    }
    assert_eq!(added, ms(0), "an outage cost the function time");
    let in_outage = world.sends().iter().filter(|send| (ms(10_000)..ms(70_000)).contains(&send.0)).count();
    assert!((4..=30).contains(&in_outage), "{in_outage} attempts in a minute of outage");
    world.run_until_empty(100);
    assert_eq!(world.delivered, world.appended);
    assert_eq!(world.refused, []);
}

#[test]
fn after_an_outage_requests_grow_from_one_block_with_shrinking_pauses() {
    let mut world = World::started(settings(), |request| {
        reply(ms(10), if request.now < ms(60_000) { UNAVAILABLE } else { Outcome::Delivered })
    });
    for _ in 0..200 {
        world.append(Signal::Logs, 10, 100);
        world.run_for(ms(100));
    }
    world.run_until_empty(10_000);
    let sends: Vec<_> = world.sends().into_iter().filter(|send| send.0 >= ms(60_000)).collect();
    let sizes: Vec<_> = sends
        .iter()
        .map(|(_, _, portion)| match portion {
            Portion::Run { max_blocks, .. } => *max_blocks,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sizes.get(..7), Some(&[1, 2, 4, 8, 16, 32, 64][..]), "the probe, then the ramp");
    let mut bound = ms(200);
    for pair in sends.windows(2) {
        let pause = pair[1].0 - pair[0].0 - ms(10);
        assert!(pause <= bound, "paused {pause:?}, more than {bound:?}");
        bound /= 2;
    }
    assert_eq!(world.delivered, world.appended);
}

/// Sizes of the requests for logs, in blocks at most, when the second one meets `outcome`.
fn sizes_around(outcome: Outcome) -> Vec<u64> {
    let mut count = 0;
    let mut world = World::started(settings(), move |_| {
        count += 1;
        reply(ms(10), if count == 2 { outcome } else { Outcome::Delivered })
    });
    for _ in 0..2 {
        for _ in 0..20 {
            world.append(Signal::Logs, 10, 1_000);
        }
        world.run_until_empty(100);
    }
    assert_eq!(world.delivered, world.appended);
    let size = |(_, _, portion): (_, _, Portion)| match portion {
        Portion::Run { max_blocks, .. } => max_blocks,
        other => panic!("{other:?}"),
    };
    world.sends().into_iter().map(size).collect()
}

#[test]
fn what_is_turned_away_goes_again_in_small_pieces() {
    assert_eq!(sizes_around(UNAVAILABLE).get(1..6), Some(&[u64::MAX, 1, 2, 4, 8][..]));
}

#[test]
fn what_may_have_arrived_goes_again_as_it_was() {
    let sizes = sizes_around(Outcome::Retry { after: None, fate_unknown: true });
    assert_eq!(sizes.get(1..3), Some(&[u64::MAX, u64::MAX][..]));
}

#[test]
fn an_environment_restarted_in_an_outage_begins_with_one_block_and_without_a_pause() {
    let mut world = World::new(settings(), |_| reply(ms(10), Outcome::Delivered));
    world.inherit(Signal::Logs, 20, 10, 100);
    world.tell(Event::Started);
    let first = world.sends();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].2, Portion::Run { max_blocks: 1, max_bytes: 1 << 20 });
    world.run_until_empty(100);
    assert_eq!(world.now, ms(50), "1 + 2 + 4 + 8 + 5 blocks, one request after the other");
}

#[test]
fn a_quiet_functions_frozen_request_is_repeated_on_a_new_connection_at_the_thaw() {
    // Not held (the backend is too slow for that), so the request is caught by the freeze.
    let mut hung = true;
    let mut world = World::started(settings(), move |_| {
        if std::mem::take(&mut hung) { super::world::hang() } else { reply(ms(40), Outcome::Delivered) }
    });
    world.append(Signal::Logs, 5, 100);
    world.run_for(ms(600));
    assert_eq!(world.in_flight(), 1);
    world.freeze(ms(60_000));
    let thaw = world.now;
    world.tell(Event::Invoke { request: 1, deadline: None });
    assert_eq!(world.count(|action| matches!(action, Action::Abort { .. })), 0, "no time-out at once");
    world.run_for(ms(1_000));
    let tail: Vec<_> = world.actions.iter().filter(|(at, _)| *at >= thaw + ms(300)).collect();
    assert!(matches!(tail[0], (at, Action::Abort { .. }) if *at == thaw + ms(300)), "{tail:?}");
    assert!(matches!(tail[1], (_, Action::RenewConnections(_))), "{tail:?}");
    assert!(matches!(tail[2], (at, Action::Send { .. }) if *at == thaw + ms(300)), "{tail:?}");
    assert!(world.is_empty());
}

#[test]
fn managed_instances_drain_all_the_time_and_ask_for_one_event_only() {
    let mut settings = settings();
    settings.continuous = true;
    settings.can_hold = false;
    let mut world = World::healthy(settings, ms(20));
    for n in 0..200 {
        world.at(ms(25 * n), What::Append { signal: Signal::Logs, records: 3, bytes: 200 });
    }
    world.run_until(ms(6_000));
    assert!(world.is_empty());
    assert_eq!(world.count(|action| *action == Action::Next), 1);
    let requests = world.sends().len();
    assert!((8..=12).contains(&requests), "{requests} requests in 5 s");
    world.tell(Event::Shutdown { deadline: world.now + ms(2_000) });
    world.run_for(ms(2_000));
    assert_eq!(world.exited, Some(ms(6_200)), "the last batch is waited for, no longer");
}
