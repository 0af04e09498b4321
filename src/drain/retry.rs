//! How long to wait before trying again. The only file that names the crate `backoff`.
//!
//! The crate gives the exponential growth of the ceiling; the delay itself is drawn below it with randomness that
//! the caller passes in, so that every decision can be replayed ("full jitter": AWS Architecture Blog,
//! "Exponential Backoff And Jitter"). The crate's own randomization is off and its clock unused: without a
//! maximum elapsed time neither has any bearing on what it returns.

use std::time::Duration;

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};

/// No retry comes sooner, whatever the settings say: a zero would spin.
const RETRY_FLOOR: Duration = Duration::from_millis(1);

/// The longest `Retry-After` that is obeyed. An environment lives a few hours: a header that says "tomorrow",
/// mistaken or not, must not end delivery for good.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// The most that is added at random to a `Retry-After`, which is also at most doubled: a fleet told the same moment does not
/// come back in it. With a tenth added, one that is seldom at rest came back in step (docs/fleet.md); a single environment
/// that is told a quarter of an hour should not wait for another.
const RETRY_AFTER_SPREAD_MAX: Duration = Duration::from_secs(60);

/// What bounds a single delay from below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// No sooner than this, for failures that time alone will hardly mend.
    pub(super) floor: Duration,
    /// The server's `Retry-After`.
    pub(super) after: Option<Duration>,
}

/// A growing ceiling and delays drawn below it.
#[derive(Debug)]
pub(super) struct Retry {
    initial: Duration,
    max: Duration,
    growth: ExponentialBackoff,
}

impl Retry {
    /// Delays from `initial` up to a ceiling that doubles to `max`.
    pub(super) fn new(initial: Duration, max: Duration) -> Self {
        let initial = initial.max(RETRY_FLOOR);
        let max = max.max(initial);
        let growth = ExponentialBackoffBuilder::new()
            .with_initial_interval(initial.saturating_mul(2).min(max))
            .with_randomization_factor(0.0)
            .with_multiplier(2.0)
            .with_max_interval(max)
            .with_max_elapsed_time(None)
            .build();
        Self { initial, max, growth }
    }

    /// The next ceiling: `min(max, initial * 2^n)` at the `n`-th call since the last reset.
    pub(super) fn next_ceiling(&mut self) -> Duration {
        self.growth.next_backoff().unwrap_or(self.max).clamp(self.initial, self.max)
    }

    /// Starts growing from the beginning again.
    pub(super) fn reset(&mut self) {
        self.growth.reset();
    }

    /// A delay below `ceiling`: uniform between the initial delay (or the floor, where that is longer) and the
    /// ceiling, and later than a `Retry-After`. `random` is in [0, 1).
    pub(super) fn draw(&self, ceiling: Duration, bounds: Bounds, random: f64) -> Duration {
        let low = self.initial.max(bounds.floor);
        let high = ceiling.max(low.saturating_mul(2).min(self.max)).max(low);
        let delay = low.saturating_add(high.saturating_sub(low).mul_f64(random));
        match bounds.after {
            None => delay,
            Some(after) => {
                let after = after.min(RETRY_AFTER_MAX);
                let spread = after.min(RETRY_AFTER_SPREAD_MAX).max(self.initial);
                delay.max(after.saturating_add(spread.mul_f64(random)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn retry() -> Retry {
        Retry::new(200 * MS, 30_000 * MS)
    }

    fn near(a: Duration, b: Duration) -> bool {
        a.abs_diff(b) < MS
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_maximum_and_starts_again_after_a_reset() {
        let mut retry = retry();
        for want in [400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000] {
            let got = retry.next_ceiling();
            assert!(near(got, want * MS), "{got:?} is not {want} ms");
        }
        retry.reset();
        assert!(near(retry.next_ceiling(), 400 * MS));
    }

    #[test]
    fn a_delay_lies_between_the_initial_delay_and_the_ceiling() {
        let retry = retry();
        assert_eq!(retry.draw(800 * MS, Bounds::default(), 0.0), 200 * MS);
        assert_eq!(retry.draw(800 * MS, Bounds::default(), 0.5), 500 * MS);
        assert!(retry.draw(800 * MS, Bounds::default(), 0.999) < 800 * MS);
    }

    #[test]
    fn retry_after_is_a_lower_bound_and_is_at_most_doubled() {
        let retry = retry();
        let bounds = Bounds { after: Some(10_000 * MS), ..Bounds::default() };
        assert_eq!(retry.draw(400 * MS, bounds, 0.0), 10_000 * MS);
        assert_eq!(retry.draw(400 * MS, bounds, 0.5), 15_000 * MS);
        let long = Bounds { after: Some(600_000 * MS), ..Bounds::default() };
        assert_eq!(retry.draw(400 * MS, long, 0.5), 630_000 * MS);
        let short = Bounds { after: Some(MS), ..Bounds::default() };
        assert!(retry.draw(400 * MS, short, 0.0) >= 200 * MS);
    }

    #[test]
    fn an_absurd_retry_after_is_cut_to_an_hour() {
        let bounds = Bounds { after: Some(Duration::MAX), ..Bounds::default() };
        assert_eq!(retry().draw(400 * MS, bounds, 0.0), Duration::from_secs(3_600));
    }

    #[test]
    fn a_floor_above_the_ceiling_still_leaves_room_for_jitter() {
        let bounds = Bounds { floor: 5_000 * MS, after: None };
        assert_eq!(retry().draw(400 * MS, bounds, 0.0), 5_000 * MS);
        assert_eq!(retry().draw(400 * MS, bounds, 0.5), 7_500 * MS);
    }

    #[test]
    fn settings_that_contradict_each_other_do_not_spin() {
        let mut zero = Retry::new(Duration::ZERO, Duration::ZERO);
        let ceiling = zero.next_ceiling();
        assert!(zero.draw(ceiling, Bounds::default(), 0.0) >= RETRY_FLOOR);
        let mut crossed = Retry::new(1_000 * MS, 10 * MS);
        let ceiling = crossed.next_ceiling();
        assert_eq!(crossed.draw(ceiling, Bounds::default(), 0.9), 1_000 * MS);
    }
}
