//! How functions differ: how often they are invoked, how long they run, how much they say.

use std::f64::consts::TAU;

use crate::backend::{Micros, SECOND};

/// A logarithmic normal distribution with bounds.
struct Spread {
    median: f64,
    sigma: f64,
    least: f64,
    most: f64,
}

/// Seconds from the end of an invocation to the next, in the mean of an environment. Most are kept warm by a trickle; a few
/// are never at rest. Lambda ends environments that idle for longer than the upper bound.
const GAP: Spread = Spread { median: 20.0, sigma: 1.3, least: 0.2, most: 300.0 };
/// Seconds that an invocation takes.
const RUN: Spread = Spread { median: 0.15, sigma: 1.0, least: 0.005, most: 30.0 };
/// Bytes of logs an invocation: from the three events of the platform alone to a megabyte.
const LOGS: Spread = Spread { median: 4_096.0, sigma: 1.6, least: 600.0, most: 1_048_576.0 };

/// How much one invocation differs from the next of the same function.
const RUN_SIGMA: f64 = 0.4;
const LOGS_SIGMA: f64 = 0.5;

impl Spread {
    fn draw(&self, random: &mut fastrand::Rng) -> f64 {
        (self.median * (self.sigma * normal(random)).exp()).clamp(self.least, self.most)
    }
}

fn normal(random: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (TAU * random.f64()).cos()
}

/// The habits of one function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    gap_seconds: f64,
    run_seconds: f64,
    logs_bytes: f64,
}

impl Habits {
    /// `often`: how much more often than others it is invoked.
    pub(crate) fn draw(often: f64, random: &mut fastrand::Rng) -> Self {
        Self {
            gap_seconds: (GAP.draw(random) / often).max(GAP.least),
            run_seconds: RUN.draw(random),
            logs_bytes: LOGS.draw(random),
        }
    }

    /// Bytes of logs a second, in the mean.
    pub(crate) fn bytes_per_second(&self) -> f64 {
        self.logs_bytes / (self.gap_seconds + self.run_seconds)
    }

    /// Until the next invocation: they come independently of each other.
    pub(crate) fn gap(&self, random: &mut fastrand::Rng) -> Micros {
        let seconds = -self.gap_seconds * (1.0 - random.f64()).ln();
        (seconds.min(GAP.most) * SECOND as f64) as Micros
    }

    pub(crate) fn run(&self, random: &mut fastrand::Rng) -> Micros {
        (self.run_seconds * (RUN_SIGMA * normal(random)).exp() * SECOND as f64) as Micros
    }

    pub(crate) fn logs(&self, random: &mut fastrand::Rng) -> u32 {
        (self.logs_bytes * (LOGS_SIGMA * normal(random)).exp()) as u32
    }
}
