//! When what is open at the end of the environment is closed: not before it can tell itself how it ended.

use crate::clock::Time;
use crate::observe::Ending;
use std::time::Duration;

/// After SHUTDOWN the end of the last invocation may still come, or its report: in the field some 100 ms later. The
/// policy stays for 200 ms at least (`LAST_BATCH_WAIT`), so what is then closed can still go.
const WAIT: Duration = Duration::from_millis(150);

/// SHUTDOWN has come, and what is open was not closed yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    ending: Ending,
    at: Time,
}

impl Closing {
    /// SHUTDOWN came at `now`.
    pub(super) fn begun(ending: Ending, now: Time) -> Self {
        Self { ending, at: now.saturating_add(WAIT) }
    }

    /// Why the environment ends.
    pub(super) fn ending(self) -> Ending {
        self.ending
    }

    /// How long there is to wait.
    pub(super) fn rest(self, now: Time) -> Duration {
        self.at.saturating_sub(now)
    }

    /// Whether to wait no longer: `expected` is whether anything may still tell how it ended.
    pub(super) fn is_due(self, now: Time, expected: bool) -> bool {
        !expected || now >= self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_still_be_told_is_waited_for_and_nothing_else() {
        let now = Duration::from_secs(7);
        let closing = Closing::begun(Ending::Timeout, now);
        assert!(closing.is_due(now, false));
        assert!(!closing.is_due(now + WAIT / 2, true));
        assert_eq!(closing.rest(now + WAIT / 2), WAIT / 2);
        assert!(closing.is_due(now + WAIT, true));
        assert_eq!(closing.rest(now + WAIT * 2), Duration::ZERO);
    }
}
