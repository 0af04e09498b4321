//! What waits, with a way to tell an old word from a new one.
//!
//! The keeper speaks of a signal's content in two ways: unasked after a delivery, and in reply to whoever settled a
//! request. The reply passes through a task of its own, so it may reach the lifecycle after a notice that is newer. An
//! old word taken for the last one would hide the newest delivery until the next: at SHUTDOWN for good.

use crate::drain::policy::Backlog;
use crate::{PerSignal, Signal};

/// What a signal had waiting when the keeper said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Grows with everything the keeper says.
    pub revision: u64,
    /// What waited.
    pub backlog: Backlog,
}

/// The newest word on each signal.
#[derive(Debug, Default)]
pub struct Levels(PerSignal<Level>);

impl Levels {
    /// Takes note of `level` and gives the newest that is known, which may be another.
    pub fn newest(&mut self, signal: Signal, level: Level) -> Backlog {
        let known = self.0.get_mut(signal);
        if level.revision >= known.revision {
            *known = level;
        }
        known.backlog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(revision: u64, blocks: u64) -> Level {
        Level { revision, backlog: Backlog { blocks, ..Backlog::default() } }
    }

    #[test]
    fn a_word_that_was_overtaken_does_not_hide_the_newer_one() {
        let mut levels = Levels::default();
        assert_eq!(levels.newest(Signal::Logs, level(1, 5)).blocks, 5);
        assert_eq!(levels.newest(Signal::Logs, level(3, 1)).blocks, 1);
        assert_eq!(levels.newest(Signal::Logs, level(2, 0)).blocks, 1);
        assert_eq!(levels.newest(Signal::Traces, level(2, 7)).blocks, 7);
        assert_eq!(levels.newest(Signal::Logs, level(4, 0)).blocks, 0);
    }
}
