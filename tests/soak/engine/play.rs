//! Carries out an episode of the plan.

use std::time::{Duration, Instant};

use fastrand::Rng;
use outlast_simulator::{
    Cut, Freeze, Invocation, Manner, Repeats, ShutdownOptions, ShutdownReason, TelemetryOptions,
};
use tokio::time::sleep;

use super::account::Balance;
use super::backends::POISON;
use super::last_line::FURTHER;
use super::plan::{Delivering, Episode, FUNCTION_TIMEOUT, Step};
use super::stage::{Environment, PATIENCE, Stage};

/// Lambda freezes about this long after the last gate.
const FREEZE_GRACE: Duration = Duration::from_millis(1);
/// One line in so many is poisonous, to a backend that minds.
const POISONOUS: u32 = 150;
/// Invocations while the clock is off.
const INVOCATIONS_PER_JUMP: usize = 4;
/// The run of an invocation that is disturbed.
const DISTURBED_RUN: Duration = Duration::from_millis(60);
/// After a jump the extension may give up a request that was under way, this long after the jump.
const AFTER_JUMP: Duration = Duration::from_millis(600);

/// What lines begin with: of differing severity, for a queue that sheds.
const LEVELS: [&str; 4] = ["", "[ERROR] ", "[DEBUG] ", ""];

/// Lines that no other is like.
pub(crate) struct Lines {
    label: String,
    next: u64,
    rng: Rng,
}

impl Lines {
    /// Each begins with `label`.
    pub(crate) fn new(label: impl Into<String>, seed: u64) -> Self {
        Self { label: label.into(), next: 0, rng: Rng::with_seed(seed) }
    }

    /// One more line, with so many bytes that do not compress.
    pub(crate) fn line(&mut self, bytes: usize) -> String {
        let poison = if self.rng.u32(..POISONOUS) == 0 { POISON } else { "" };
        let noise: String = std::iter::repeat_with(|| self.rng.alphanumeric()).take(bytes).collect();
        self.next += 1;
        // Where the queue sheds, it asks for it.
        let severity = LEVELS[self.next as usize % LEVELS.len()];
        format!("{severity}{} {}{poison} {noise}", self.label, self.next)
    }

    /// An invocation that logs so many lines over its run.
    pub(crate) fn invocation(&mut self, run: Duration, lines: usize, line_bytes: usize) -> Invocation {
        let count = u32::try_from(lines.max(1)).unwrap();
        (0..lines).zip(0_u32..).fold(Invocation::new().runs_for(run), |invocation, (_, at)| {
            invocation.line_at(run / count * at, self.line(line_bytes))
        })
    }
}

/// Plays the episode and balances it. `deadline`: begins no step after that.
pub(crate) async fn play(stage: &Stage, episode: &Episode, label: &str, deadline: Instant) -> Balance {
    let settings = &episode.settings;
    let freeze = if settings.freezes { Freeze::After(FREEZE_GRACE) } else { Freeze::Off };
    let budget = ShutdownOptions { budget: settings.shutdown_budget, runtime_stops_in: Duration::ZERO };
    let millis = |duration: Duration| format!("{}ms", duration.as_millis());
    let mut builder = stage
        .builder()
        .env("OUTLAST_QUEUE_MAX_BYTES", settings.queue_max_bytes)
        .env("OUTLAST_OVERFLOW", settings.overflow())
        .env("OUTLAST_BATCH_MAX_BYTES", settings.batch_max_bytes)
        .env("OUTLAST_MAX_DELAY", millis(settings.max_delay))
        .env("OUTLAST_TIMEOUT", millis(settings.timeout))
        .env("OUTLAST_RETRY_MAX", millis(settings.retry_max))
        .env("OUTLAST_COMPRESSION", if settings.gzip { "gzip" } else { "none" })
        .env("OUTLAST_TELEMETRY", "platform,function,extension")
        .env("OUTLAST_SIGNALS", if settings.all_signals { "logs,metrics,traces" } else { "logs" })
        .env("OUTLAST_SAMPLER", "always_on")
        .freeze(freeze)
        .shutdown(budget)
        .timeout(FUNCTION_TIMEOUT);
    if let Some(weather) = settings.fallback {
        stage.fallback.make(weather, episode.seed).await;
        builder = builder.env("OUTLAST_FALLBACK", stage.fallback.url());
    }
    if let Some(weather) = settings.destination {
        stage.further.make(weather, episode.seed).await;
        builder =
            builder.env("OUTLAST_DESTINATIONS", FURTHER).env("OUTLAST_FURTHER_ENDPOINT", stage.further.url());
    }
    let mut environment = stage.start(builder, settings.queue_max_bytes, settings.timeout).await;
    environment.has_further = settings.destination.is_some();
    let mut player = Player {
        stage,
        environment: &environment,
        lines: Lines::new(label, episode.seed),
        seed: episode.seed,
    };
    for step in &episode.steps {
        if Instant::now() >= deadline {
            break;
        }
        player.step(*step).await;
    }
    stage.settle(&environment, label, episode.has_500s()).await
}

struct Player<'a> {
    stage: &'a Stage,
    environment: &'a Environment,
    lines: Lines,
    seed: u64,
}

impl Player<'_> {
    async fn step(&mut self, step: Step) {
        let (stage, environment) = (self.stage, self.environment);
        let lambda = &environment.lambda;
        match step {
            Step::Weather(weather) => stage.weather(weather, self.seed).await,
            Step::Delivering(delivering) => lambda.telemetry(|options| *options = telemetry(delivering)),
            Step::Busy { count, run, lines, line_bytes, gap } => {
                for _ in 0..count {
                    let invocation = self.lines.invocation(run, lines, line_bytes);
                    stage.invoke(environment, invocation).await;
                    sleep(gap).await;
                }
            }
            Step::Quiet(length) => {
                sleep(length).await;
                stage.observe(environment);
            }
            Step::Pause { after, length } => {
                let invocation = self.disturbed();
                tokio::join!(stage.invoke_whatever_comes(environment, invocation), async {
                    sleep(after).await;
                    let from = Instant::now();
                    lambda.pause();
                    sleep(length).await;
                    lambda.resume();
                    stage.disrupted(from);
                });
            }
            Step::Kill(after) => {
                let invocation = self.disturbed();
                tokio::join!(stage.invoke_whatever_comes(environment, invocation), async {
                    sleep(after).await;
                    stage.kill(environment).await;
                });
            }
            Step::KillAtStart(after) => {
                stage.kill(environment).await;
                let invocation = self.disturbed();
                tokio::join!(
                    stage.invoke_whatever_comes(environment, invocation),
                    stage.kill_at_start(environment, after)
                );
            }
            Step::KillAtShutdown(after) => {
                stage.invoke(environment, self.lines.invocation(DISTURBED_RUN, 20, 100)).await;
                stage.kill_at_shutdown(environment, after).await;
            }
            Step::TimeOut => {
                let invocation = self.disturbed().times_out();
                stage.invoke_whatever_comes(environment, invocation).await;
            }
            Step::Crash => {
                let invocation = self.disturbed().exits(1);
                stage.invoke_whatever_comes(environment, invocation).await;
            }
            Step::Shutdown(reason) => stage.shut_down(environment, reason.into()).await,
            Step::Jump(millis) => self.jump(millis).await,
            Step::DiskFull { invocations, line_bytes } => self.disk_full(invocations, line_bytes).await,
        }
    }

    fn disturbed(&mut self) -> Invocation {
        let lines = self.lines.rng.usize(1..60);
        self.lines.invocation(DISTURBED_RUN, lines, 100)
    }

    async fn jump(&mut self, millis: i64) {
        let Some(clock) = &self.stage.clock else { return };
        for shift in [millis, 0] {
            let from = Instant::now();
            clock.set(shift).unwrap();
            self.stage.disrupted_until(from, from + AFTER_JUMP);
            for _ in 0..INVOCATIONS_PER_JUMP {
                let invocation = self.lines.invocation(DISTURBED_RUN, 10, 100);
                self.stage.invoke(self.environment, invocation).await;
            }
        }
    }

    /// The function leaves no room, now and then a little of it, then all.
    async fn disk_full(&mut self, invocations: usize, line_bytes: usize) {
        let Some(room) = &self.stage.room else { return };
        let (stage, environment) = (self.stage, self.environment);
        room.fill().unwrap();
        for _ in 0..invocations {
            match self.lines.rng.u8(..4) {
                0 => room.free_bytes(self.lines.rng.u64(..300_000)).unwrap(),
                1 => room.fill().unwrap(),
                _ => {}
            }
            let lines = self.lines.rng.usize(..60);
            let invocation = self.lines.invocation(Duration::from_millis(20), lines, line_bytes);
            stage.invoke(environment, invocation).await;
        }
        room.free().unwrap();
        // What only memory holds dies with the process, as the documents say: the next step must not be a kill.
        let began = Instant::now();
        while is_degraded(environment) {
            stage.invoke(environment, Invocation::new().runs_for(DISTURBED_RUN)).await;
            if began.elapsed() > PATIENCE {
                return stage.problem("there is room, and the disk is not used");
            }
        }
    }
}

impl Stage {
    /// SIGKILL.
    pub(crate) async fn kill(&self, environment: &Environment) {
        let from = Instant::now();
        environment.lambda.kill().await;
        self.disrupted(from);
    }

    /// SIGKILL so long after the process of a new environment was started.
    pub(crate) async fn kill_at_start(&self, environment: &Environment, after: Duration) {
        let lambda = &environment.lambda;
        lambda.until(|lambda| (!lambda.process_ids().is_empty()).then_some(())).await;
        sleep(after).await;
        self.kill(environment).await;
    }

    /// SIGKILL so long after SHUTDOWN began.
    pub(crate) async fn kill_at_shutdown(&self, environment: &Environment, after: Duration) {
        let killed = async {
            sleep(after).await;
            self.kill(environment).await;
        };
        let (end, ()) = tokio::join!(environment.lambda.shutdown(ShutdownReason::Spindown), killed);
        self.note_end(&end);
        self.observe(environment);
    }
}

/// Whether memory stands in for the disk, by what the extension said.
pub(crate) fn is_degraded(environment: &Environment) -> bool {
    let output = environment.lambda.extension_output();
    let last = output.iter().rev().find_map(|line| {
        let taken = line.text.contains("the disk takes data again");
        (taken || line.text.contains("the disk takes nothing (")).then_some(taken)
    });
    last == Some(false)
}

fn telemetry(delivering: Delivering) -> TelemetryOptions {
    let mut options = TelemetryOptions::default();
    match delivering {
        Delivering::Plain => {}
        Delivering::RepeatedAfterAnswer(times) => options.repeats = Repeats::AfterAnswer(times),
        Delivering::AnswerLost(times) => options.repeats = Repeats::AnswerLost(times),
        Delivering::Pieces(bytes) => {
            options.manner = Manner { pieces: Some((bytes, Duration::from_millis(1))), ..Manner::default() };
        }
        Delivering::NewConnections => options.manner = Manner { close_each: true, ..Manner::default() },
        Delivering::Late(delay) => options.delay = delay,
        Delivering::CutOver(bytes) => options.cut = Cut::Over(bytes),
        Delivering::WithoutRuntimeDone => options.runtime_done = false,
        Delivering::ReportLate(after) => options.report_after = after,
        Delivering::WithoutReport => options.report = false,
    }
    options
}
