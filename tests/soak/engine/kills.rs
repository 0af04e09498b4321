//! SIGKILL to the real binary at random moments, round after round over one disk, with a backend that comes and goes:
//! while telemetry comes in, while it goes out, at the start over what the last process left, at SHUTDOWN, and at the
//! first start in an empty directory.

use std::time::Duration;

use fastrand::Rng;
use outlast_simulator::{Freeze, FunctionOptions};
use tokio::time::sleep;

use super::account::Balance;
use super::plan::Weather;
use super::play::Lines;
use super::stage::{Environment, Stage};

/// After so many rounds everything is delivered and balanced, and every other time the directory is removed.
const ROUNDS_PER_BALANCE: u64 = 12;
const QUEUE_MAX_BYTES: u64 = 8 << 20;
const REQUEST_TIMEOUT: Duration = Duration::from_millis(300);
/// What the backend is like for a round. Nothing is refused for good, so nothing may be dropped.
const WEATHERS: [Weather; 8] = [
    Weather::Healthy,
    Weather::Healthy,
    Weather::Status(503),
    Weather::Refused,
    Weather::ResetWithin(300),
    Weather::ResetAfter { kept: true },
    Weather::Hang { kept: true },
    Weather::Slow(Duration::from_millis(30)),
];

/// Kills so often. Problems are in the stage's books.
pub(crate) async fn rounds(stage: &Stage, seed: u64, rounds: u64) -> Balance {
    let mut rng = Rng::with_seed(seed);
    let mut lines = Lines::new("kill", seed);
    let function = FunctionOptions { init_runs_for: Duration::ZERO, ..FunctionOptions::default() };
    let builder = stage
        .builder()
        .function(function)
        .timeout(Duration::from_secs(20))
        .freeze(Freeze::Off)
        .env("OUTLAST_QUEUE_MAX_BYTES", QUEUE_MAX_BYTES)
        .env("OUTLAST_RETRY_INITIAL", "5ms")
        .env("OUTLAST_RETRY_MAX", "40ms")
        .env("OUTLAST_TIMEOUT", format!("{}ms", REQUEST_TIMEOUT.as_millis()));
    let environment = stage.start(builder, QUEUE_MAX_BYTES, REQUEST_TIMEOUT).await;
    let mut sum = Balance::default();
    for round in 0..rounds {
        if rng.u8(..3) == 0 {
            stage.weather(WEATHERS[rng.usize(..WEATHERS.len())], rng.u64(..)).await;
        }
        self::round(stage, &environment, &mut rng, &mut lines).await;
        if round % ROUNDS_PER_BALANCE == ROUNDS_PER_BALANCE - 1 || round + 1 == rounds {
            let balance = stage.settle(&environment, &format!("round {round}"), false).await;
            sum.add(&balance);
            if balance.dropped > 0 {
                stage.problem(format!("{} records dropped in round {round} or before", balance.dropped));
            }
            if rng.bool() {
                stage.wipe();
            }
        }
    }
    sum
}

async fn round(stage: &Stage, environment: &Environment, rng: &mut Rng, lines: &mut Lines) {
    let after = Duration::from_micros(rng.u64(..100_000));
    let count = *[1, 10, 40, 200].get(rng.usize(..4)).unwrap();
    let invocation = lines.invocation(Duration::from_millis(20), count, rng.usize(10..900));
    match rng.u8(..4) {
        // Recovery, or the very first start: a process has some 30 ms until it is ready.
        0 => {
            stage.kill(environment).await;
            tokio::join!(
                stage.invoke_whatever_comes(environment, invocation),
                stage.kill_at_start(environment, after / 5)
            );
        }
        1 => {
            stage.invoke(environment, invocation).await;
            stage.kill_at_shutdown(environment, after / 10).await;
        }
        _ => {
            // Often over a backlog that is being delivered.
            tokio::join!(stage.invoke_whatever_comes(environment, invocation), async {
                sleep(after).await;
                stage.kill(environment).await;
            });
        }
    }
}
