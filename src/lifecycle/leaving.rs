//! How much time there is at the end, and what of it is for whom.

use crate::clock::Time;
use std::time::Duration;

/// What SHUTDOWN leaves us if it does not say (Lambda's 2 s less what the runtime may take of them).
pub(super) const SHUTDOWN_BUDGET: Duration = Duration::from_millis(1300);

/// Lambda gives external extensions 2,000 ms (AWS developer guide, "Shutdown phase"). A deadline that seems further off
/// was compared with a wall clock that lags behind, as it may just after a thaw, and says nothing. Nor does one that
/// is over: Lambda kills at the deadline, so whoever hears of it then has a clock that is ahead.
const SHUTDOWN_BUDGET_MAX: Duration = Duration::from_secs(2);

/// What the keeper says when it takes in nothing more, and its counts after that, are waited for so long however near the
/// deadline is. Either is a millisecond's work; longer only if the keeper is busy, or its disk hangs.
const CLOSING_WAIT: Duration = Duration::from_millis(30);
const COUNTS_WAIT: Duration = Duration::from_millis(50);

/// Where the deadline allows it they are waited for longer: with a fourteenth of a CPU a millisecond's work takes 20 at times.
/// A disk that hangs should not cost all that is left.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// The last line is waited for so long in any case: a write takes microseconds, if anybody reads.
const LINE_WAIT: Duration = Duration::from_millis(50);

/// Kept back of such a wait, to exit, which with a fourteenth of a CPU may take as long; of all but the last, for the last
/// line as well.
const EXIT_MARGIN: Duration = Duration::from_millis(40);

/// How the process leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    /// When Lambda kills it.
    pub(super) deadline: Time,
    /// Nobody comes after it over the same disk.
    pub(super) for_good: bool,
}

impl Leaving {
    /// How long to wait until the keepers take in nothing more.
    pub(super) fn closing_wait(self, now: Time) -> Duration {
        self.rest(now).saturating_sub(EXIT_MARGIN + LINE_WAIT + COUNTS_WAIT).clamp(CLOSING_WAIT, WAIT_MAX)
    }

    /// How long to wait for the counts of the last line.
    pub(super) fn counts_wait(self, now: Time) -> Duration {
        self.rest(now).saturating_sub(EXIT_MARGIN + LINE_WAIT).clamp(COUNTS_WAIT, WAIT_MAX)
    }

    /// How long to wait for the last line to be written.
    pub(super) fn line_wait(self, now: Time) -> Duration {
        self.rest(now).saturating_sub(EXIT_MARGIN).clamp(LINE_WAIT, WAIT_MAX)
    }

    fn rest(self, now: Time) -> Duration {
        self.deadline.saturating_sub(now)
    }
}

/// How long SHUTDOWN lasts, given what its deadline says. What Managed Instances grant is not documented, and as they are
/// never frozen their clock is right: it is believed.
pub(super) fn shutdown_budget(told: Option<Duration>, continuous: bool) -> Duration {
    told.filter(|told| !told.is_zero() && (continuous || *told <= SHUTDOWN_BUDGET_MAX))
        .unwrap_or(SHUTDOWN_BUDGET)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_waits_at_the_end_leave_time_to_exit_where_there_is_any() {
        for (left, closing, counts, line) in [
            (1_300, 250, 250, 250),
            (250, 110, 160, 210),
            (150, 30, 60, 110),
            (120, 30, 50, 80),
            (0, 30, 50, 50),
        ] {
            let leaving = Leaving { deadline: 5_000 * MS, for_good: true };
            let now = (5_000 - left) * MS;
            assert_eq!(
                (leaving.closing_wait(now), leaving.counts_wait(now), leaving.line_wait(now)),
                (closing * MS, counts * MS, line * MS),
                "{left}"
            );
        }
    }

    /// Each as long as it may take, if nothing else has used up the reserve.
    #[test]
    fn all_waits_after_one_another_are_over_before_the_deadline() {
        for left in 150..2_000 {
            let leaving = Leaving { deadline: left * MS, for_good: true };
            let closed = leaving.closing_wait(Duration::ZERO);
            let counted = closed + leaving.counts_wait(closed);
            let written = counted + leaving.line_wait(counted);
            assert!(written + 10 * MS <= leaving.deadline, "{left}: {written:?}");
        }
    }

    #[test]
    fn a_deadline_of_shutdown_that_cannot_be_is_not_believed() {
        let told = |millis| Some(Duration::from_millis(millis));
        for millis in [1, 160, 1_300, 2_000] {
            assert_eq!(shutdown_budget(told(millis), false), Duration::from_millis(millis));
        }
        assert_eq!(shutdown_budget(told(2_001), false), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(told(40 * 24 * 3_600_000), false), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(told(0), false), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(told(0), true), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(None, false), SHUTDOWN_BUDGET);
        assert_eq!(shutdown_budget(told(10_000), true), Duration::from_secs(10), "nothing is frozen there");
    }
}
