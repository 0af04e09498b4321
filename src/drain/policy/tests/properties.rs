//! What holds whatever happens. [`World`] itself checks the rest at every step: no two flights per lane, `Next` once
//! per event, wakes that lie ahead, no busy loop, nothing after `Exit`, nothing marked that was not sent.

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::world::{Reply, World, hang, ms, reply, settings};
use crate::Signal;
use crate::drain::policy::{Event, FallbackSettings, Meter, Outcome, Settings, Target};

#[derive(Clone, Debug)]
enum Step {
    Append {
        signal: Signal,
        blocks: u64,
        records: u64,
        bytes: u64,
    },
    Drop(Signal),
    Run(u64),
    /// An invocation that runs for, and is followed by a freeze of, so many milliseconds.
    Invocation(u64, u64),
    /// An invocation of which no telemetry ever comes.
    Unseen(u64),
}

fn signal() -> impl Strategy<Value = Signal> {
    prop::sample::select(&Signal::ALL[..])
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (signal(), 1..6u64, 1..20u64, prop_oneof![100..2_000u64, 10_000..100_000u64])
            .prop_map(|(signal, blocks, records, bytes)| Step::Append { signal, blocks, records, bytes }),
        1 => signal().prop_map(Step::Drop),
        3 => prop_oneof![0..50u64, 50..20_000u64].prop_map(Step::Run),
        3 => (0..3_000u64, prop_oneof![Just(0u64), 1..500u64, 500..120_000u64])
            .prop_map(|(run, idle)| Step::Invocation(run, idle)),
        1 => (0..5_000u64).prop_map(Step::Unseen),
    ]
}

/// `None` hangs.
fn outcome() -> impl Strategy<Value = Option<Outcome>> {
    prop_oneof![
        4 => Just(Some(Outcome::Delivered)),
        2 => Just(Some(Outcome::Retry { after: None, fate_unknown: false })),
        1 => Just(Some(Outcome::Retry { after: None, fate_unknown: true })),
        1 => (0..100_000u64).prop_map(|after| {
            Some(Outcome::Retry { after: Some(ms(after)), fate_unknown: false })
        }),
        1 => Just(Some(Outcome::TooLarge)),
        3 => prop::option::of(0_u64..20).prop_map(|s| Some(Outcome::ServerError { after: s.map(Duration::from_secs) })),
        1 => Just(Some(Outcome::Denied)),
        2 => Just(Some(Outcome::Refused)),
        2 => (1..40_u64).prop_map(|records| Some(Outcome::FirstRefused { records })),
        1 => Just(Some(Outcome::GzipRefused)),
        1 => Just(Some(Outcome::NotSent)),
        1 => Just(None),
    ]
}

/// Answers from a script, then delivers.
fn scripted(script: Vec<(Option<Outcome>, u64)>) -> impl FnMut(&super::world::Request<'_>) -> Reply {
    let mut script = VecDeque::from(script);
    move |_| match script.pop_front() {
        None => reply(ms(20), Outcome::Delivered),
        Some((None, _)) => hang(),
        Some((Some(outcome), after)) => reply(ms(after), outcome),
    }
}

/// A backend and a fallback, each by its own script.
fn scripted_both(
    backend: Vec<(Option<Outcome>, u64)>,
    fallback: Vec<(Option<Outcome>, u64)>,
) -> impl FnMut(&super::world::Request<'_>) -> Reply {
    let (mut backend, mut fallback) = (scripted(backend), scripted(fallback));
    move |request| match request.target {
        Target::Primary => backend(request),
        Target::Fallback => fallback(request),
    }
}

fn fallback_settings() -> impl Strategy<Value = Settings> {
    let meter = (1..100_000u64, 0..100_000u64)
        .prop_map(|(bytes_per_second, shutdown_max_bytes)| Meter { bytes_per_second, shutdown_max_bytes });
    (prop::option::of(meter), 500..1_000_000u64, any::<bool>()).prop_map(|(meter, batch_max_bytes, gzip)| {
        Settings { fallback: Some(FallbackSettings { batch_max_bytes, gzip, meter }), ..settings() }
    })
}

fn perform(world: &mut World, step: &Step, unseen: &mut u64) {
    match *step {
        Step::Append { signal, blocks, records, bytes } => {
            for _ in 0..blocks {
                world.append(signal, records, bytes);
            }
        }
        Step::Drop(signal) => world.drop_oldest(signal),
        Step::Run(time) => world.run_for(ms(time)),
        Step::Invocation(run, idle) => {
            let held = world.invocation(ms(run), ms(idle));
            assert!(held <= settings().hold_max.max(ms(25)), "held for {held:?}; the end is seen 25 ms late");
        }
        Step::Unseen(run) => {
            *unseen += 1;
            world.tell(Event::Invoke { request: 1_000_000 + *unseen, deadline: None });
            world.run_for(ms(run.max(300)));
            assert!(world.next_pending, "held although nothing of the function was seen");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_before_everything_is_delivered_or_given_up_once_when_the_backend_is_well(
        seed in any::<u64>(),
        script in prop::collection::vec((outcome(), 0..6_000u64), 0..60),
        steps in prop::collection::vec(step(), 1..30),
        answers_are_overtaken in any::<bool>(),
    ) {
        let gives_up = script.iter().any(|(outcome, _)| {
            use Outcome::{FirstRefused, Refused, ServerError, TooLarge};
            matches!(outcome, Some(Refused | FirstRefused { .. } | TooLarge | ServerError { .. }))
        });
        let mut world = World::new(settings(), scripted(script)).seeded(settings(), seed);
        world.answers_are_overtaken = answers_are_overtaken;
        world.tell(Event::Started);
        let mut unseen = 0;
        for step in &steps {
            perform(&mut world, step, &mut unseen);
        }
        world.run_until_empty(3_000);
        let mut ended = world.delivered.clone();
        ended.extend(&world.refused);
        ended.sort_unstable();
        // A block dropped by the queue takes what was delivered of it along.
        ended.retain(|record| world.appended.contains(record));
        let mut appended = world.appended.clone();
        appended.sort_unstable();
        prop_assert_eq!(ended, appended, "each record ends exactly once");
        if !gives_up {
            prop_assert_eq!(&world.refused, &[]);
            for signal in Signal::ALL {
                let ids: Vec<_> = world.delivered.iter().filter(|(of, _)| *of == signal).collect();
                prop_assert!(ids.is_sorted(), "{} out of order", signal);
            }
        }
    }

    #[test]
    fn with_a_fallback_each_record_is_delivered_handed_over_or_given_up_once(
        seed in any::<u64>(),
        settings in fallback_settings(),
        script in prop::collection::vec((outcome(), 0..6_000u64), 0..60),
        fallback in prop::collection::vec((outcome(), 0..6_000u64), 0..40),
        steps in prop::collection::vec((step(), any::<bool>()), 1..30),
        shutdown in prop::option::of(0..2_000u64),
        answers_are_overtaken in any::<bool>(),
    ) {
        let mut world = World::new(settings.clone(), scripted_both(script, fallback)).seeded(settings.clone(), seed);
        world.answers_are_overtaken = answers_are_overtaken;
        world.tell(Event::Started);
        let mut unseen = 0;
        for (step, crowded) in &steps {
            world.crowded = *crowded;
            perform(&mut world, step, &mut unseen);
        }
        if let Some(budget) = shutdown {
            let deadline = world.now + ms(budget);
            let end = world.now.max(deadline.saturating_sub(settings.shutdown_reserve));
            world.tell(Event::Shutdown { deadline });
            world.run_until(deadline + ms(1));
            prop_assert!(world.exited.is_some_and(|at| at <= end), "{:?}, the end was {:?}", world.exited, end);
        } else {
            world.run_until_empty(6_000);
        }
        let mut ended = [world.delivered.clone(), world.handed.clone(), world.refused.clone()].concat();
        ended.sort_unstable();
        ended.retain(|record| world.appended.contains(record));
        let mut appended = world.appended.clone();
        appended.sort_unstable();
        if shutdown.is_none() {
            prop_assert_eq!(ended, appended, "each record ends exactly once");
        } else {
            ended.extend(world.left());
            ended.sort_unstable();
            // A neighbour that was delivered as an alibi may be on disk still.
            ended.dedup();
            prop_assert_eq!(ended, appended, "what did not end is on disk");
        }
    }

    #[test]
    fn the_deadline_of_a_shutdown_is_never_passed(
        seed in any::<u64>(),
        script in prop::collection::vec((outcome(), 0..3_000u64), 0..60),
        steps in prop::collection::vec(step(), 0..12),
        budget in 0..2_000u64,
        late in prop::collection::vec((signal(), 0..1_000u64), 0..4),
    ) {
        let mut world = World::new(settings(), scripted(script)).seeded(settings(), seed);
        world.tell(Event::Started);
        let mut unseen = 0;
        for step in &steps {
            perform(&mut world, step, &mut unseen);
        }
        let deadline = world.now + ms(budget);
        let end = world.now.max(deadline.saturating_sub(settings().shutdown_reserve));
        for (signal, after) in late {
            let at = world.now + ms(after);
            world.at(at, super::world::What::Append { signal, records: 3, bytes: 300 });
        }
        world.tell(Event::Shutdown { deadline });
        world.run_until(deadline + ms(1));
        let exited = world.exited;
        prop_assert!(exited.is_some_and(|at| at <= end), "{:?}, the end was {:?}", exited, end);
    }

    #[test]
    fn an_outage_takes_no_more_attempts_than_the_backoff_allows(
        seed in any::<u64>(),
        lanes in 1..=3usize,
        minutes in 1..30u64,
        hung in any::<bool>(),
    ) {
        let world = World::new(settings(), move |_| {
            if hung { hang() } else { reply(ms(5), super::world::UNAVAILABLE) }
        });
        let mut world = world.seeded(settings(), seed);
        world.tell(Event::Started);
        for signal in Signal::ALL.into_iter().take(lanes) {
            for _ in 0..10 {
                world.append(signal, 10, 1_000);
            }
        }
        world.run_for(Duration::from_secs(60 * minutes));
        let sends = world.sends();
        for signal in Signal::ALL {
            let of: Vec<_> = sends.iter().filter(|send| send.1 == signal).collect();
            for pair in of.windows(2) {
                prop_assert!(pair[1].0 - pair[0].0 >= settings().retry_initial);
            }
        }
        // At the full ceiling a probe takes 15 s in the mean; the growth to it adds ten or so per lane.
        let budget = 12 * lanes + usize::try_from(minutes).unwrap() * 8;
        prop_assert!(sends.len() <= budget, "{} attempts in {} minutes", sends.len(), minutes);
        prop_assert!(sends.len() >= usize::try_from(minutes).unwrap(), "{} attempts", sends.len());
        prop_assert_eq!(&world.refused, &[]);
    }
}
