//! How long a connection may take for what it is doing. Pure: time is passed in.
//!
//! A connection is looked at after each time it was served. If it moved on, its time starts anew; if its time
//! is up, it is cut. Unless that is noticed much too late: then it was not the peer that was slow, but we
//! that were frozen or starved, and the peer with us. Its time starts anew too.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::Limits;

/// A deadline missed by more than this was missed by a freeze. Timers are punctual to a millisecond; a
/// scheduler that is late by half a second has starved the peer as well.
const FREEZE_MIN_MS: u64 = 500;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No request has begun.
    Idle,
    /// The first byte of a request has come.
    Head,
    /// The headers are complete, the body is being read.
    Body,
    /// The receipt is being waited for. There is no limit: it is our turn, not the peer's.
    Answering,
    /// The answer is made, and not a byte of it written.
    Replying,
    /// It is being closed to make room, and reads no more.
    Evicted,
}

/// A connection's progress when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) phase: Phase,
    /// How many phases there have been, since the same one can come back between two looks.
    pub(super) phases: u64,
    /// Bytes read and written so far.
    pub(super) bytes: u64,
}

/// Decides when a connection is cut.
#[derive(Debug)]
pub(super) struct Watch {
    limits: Limits,
    last: Option<Snapshot>,
    /// When the phase began.
    entered: Instant,
    /// When a byte last moved, or the phase began.
    moved: Instant,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing, but look again at this time.
    Until(Instant),
    /// Nothing until it moves.
    Wait,
    /// Close it.
    Cut,
}

impl Watch {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, last: None, entered: now, moved: now }
    }

    /// To be called after each time the connection was served, and at the time of the last verdict.
    pub(super) fn look(&mut self, now: Instant, snapshot: Snapshot) -> Verdict {
        if self.last.is_none_or(|last| last.phases != snapshot.phases) {
            self.entered = now;
            self.moved = now;
        } else if self.last.is_some_and(|last| last.bytes != snapshot.bytes) {
            self.moved = now;
        }
        self.last = Some(snapshot);
        let Some(deadline) = self.deadline(snapshot.phase) else { return Verdict::Wait };
        if now < deadline {
            return Verdict::Until(deadline);
        }
        if now.duration_since(deadline) < Duration::from_millis(FREEZE_MIN_MS) {
            return Verdict::Cut;
        }
        self.entered = now;
        self.moved = now;
        self.deadline(snapshot.phase).map_or(Verdict::Wait, Verdict::Until)
    }

    fn deadline(&self, phase: Phase) -> Option<Instant> {
        match phase {
            Phase::Idle => Some(self.moved + self.limits.idle_timeout),
            Phase::Head => Some(self.entered + self.limits.head_timeout),
            Phase::Body => {
                Some((self.moved + self.limits.stall_timeout).min(self.entered + self.limits.body_timeout))
            }
            // A peer that takes no answers is as good as gone.
            Phase::Replying => Some(self.entered + self.limits.stall_timeout),
            Phase::Answering | Phase::Evicted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    struct Case {
        start: Instant,
        watch: Watch,
    }

    impl Case {
        fn new() -> Self {
            #[allow(clippy::disallowed_methods)]
            let start = Instant::now();
            Self { start, watch: Watch::new(Limits::default(), start) }
        }

        fn look(&mut self, at_ms: u32, phase: Phase, phases: u64, bytes: u64) -> Verdict {
            self.watch.look(self.start + MS * at_ms, Snapshot { phase, phases, bytes })
        }

        fn until(&self, at_ms: u32) -> Verdict {
            Verdict::Until(self.start + MS * at_ms)
        }
    }

    #[test]
    fn an_idle_connection_is_cut_after_the_idle_time() {
        let mut case = Case::new();
        assert_eq!(case.look(0, Phase::Idle, 0, 0), case.until(60_000));
        assert_eq!(case.look(59_999, Phase::Idle, 0, 0), case.until(60_000));
        assert_eq!(case.look(60_000, Phase::Idle, 0, 0), Verdict::Cut);
    }

    #[test]
    fn the_idle_time_starts_anew_with_each_request() {
        let mut case = Case::new();
        case.look(0, Phase::Idle, 0, 0);
        case.look(50_000, Phase::Idle, 4, 300);
        assert_eq!(case.look(60_000, Phase::Idle, 4, 300), case.until(110_000));
    }

    #[test]
    fn headers_that_trickle_do_not_gain_time() {
        let mut case = Case::new();
        case.look(0, Phase::Head, 1, 1);
        assert_eq!(case.look(4_000, Phase::Head, 1, 2), case.until(5_000));
        assert_eq!(case.look(5_001, Phase::Head, 1, 3), Verdict::Cut);
    }

    #[test]
    fn a_body_gains_time_with_each_byte_but_not_for_ever() {
        let mut case = Case::new();
        assert_eq!(case.look(0, Phase::Body, 2, 100), case.until(2_000));
        for second in 1..9 {
            let at_ms = second * 1_000;
            assert_eq!(
                case.look(at_ms, Phase::Body, 2, 100 + u64::from(second)),
                case.until((at_ms + 2_000).min(10_000))
            );
        }
        assert_eq!(case.look(10_000, Phase::Body, 2, 200), Verdict::Cut);
    }

    #[test]
    fn a_body_that_stalls_is_cut() {
        let mut case = Case::new();
        case.look(0, Phase::Body, 2, 100);
        assert_eq!(case.look(2_000, Phase::Body, 2, 100), Verdict::Cut);
    }

    #[test]
    fn a_peer_that_takes_no_answer_is_cut() {
        let mut case = Case::new();
        assert_eq!(case.look(0, Phase::Replying, 4, 100), case.until(2_000));
        assert_eq!(case.look(2_000, Phase::Replying, 4, 100), Verdict::Cut);
    }

    #[test]
    fn a_connection_that_waits_for_us_is_never_cut() {
        let mut case = Case::new();
        assert_eq!(case.look(0, Phase::Answering, 3, 100), Verdict::Wait);
        assert_eq!(case.look(900_000, Phase::Answering, 3, 100), Verdict::Wait);
    }

    #[test]
    fn a_deadline_missed_by_a_freeze_starts_anew_in_every_phase() {
        for (phase, limit_ms) in [(Phase::Idle, 60_000), (Phase::Head, 5_000), (Phase::Body, 2_000)] {
            let mut case = Case::new();
            case.look(0, phase, 1, 1);
            assert_eq!(case.look(300_000, phase, 1, 1), case.until(300_000 + limit_ms), "{phase:?}");
            assert_eq!(case.look(300_000 + limit_ms, phase, 1, 1), Verdict::Cut, "{phase:?}");
        }
    }

    #[test]
    fn bytes_that_came_during_a_freeze_save_a_body_even_past_its_whole_time() {
        let mut case = Case::new();
        case.look(0, Phase::Body, 2, 100);
        assert_eq!(case.look(300_000, Phase::Body, 2, 150), case.until(302_000));
    }
}
