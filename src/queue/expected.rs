//! What an earlier process had waiting, compared with what is found of it.
//!
//! A state says how many records of each signal waited in the frames before a place ([`Outstanding`]). What is found before that
//! place, once every segment is counted, must be as many: the rest went while nobody watched, with segments that were
//! removed, emptied, cut off or overwritten. Frames behind the place are counted by what is there: how many there were
//! nobody noted, and the last of them may be torn.
//!
//! The state is the latest only if it stands in the newest segment. When one is begun, the segment before it is told so: if
//! that one is gone, a line says it, and nothing is compared, for what was done since is not known either. A process that comes
//! to its end leaves its last state there as well, so that what is compared is right even then.

use super::frame::Seq;
use super::ledger::{Ledger, Reason, Tally};
use super::segments::Segments;
use super::state::{FRAMES_START, Mark, Outstanding, State, Unread};
use super::store::{Queue, Remaining};
use crate::{PerSignal, Signal};
use std::collections::{BTreeMap, BTreeSet};

/// A state is saved at the latest when so many bytes were appended since the last: what is cut off at the end by somebody else
/// is known but for so much. A state takes a thirtieth of it.
pub(super) const SAVED_EVERY_BYTES: u64 = 32 << 10;

/// What is expected, and what of it was found so far.
pub(super) struct Expected {
    outstanding: Outstanding,
    /// As of the state that says it.
    marks: PerSignal<Mark>,
    ledger: Ledger,
    found: PerSignal<u64>,
    /// Segments that were not counted yet.
    uncounted: BTreeSet<u32>,
}

impl Expected {
    /// What `state`, which was found, says of the segments in `store`.
    pub(super) fn of(state: &State, store: &Segments) -> Option<Box<Self>> {
        let State { outstanding, marks, ledger, .. } = *state;
        let Outstanding { upto, .. } = outstanding;
        if upto == Seq::default() {
            return None;
        }
        let uncounted = store.all().map(|(number, _)| number).filter(|number| Seq::new(*number, 0) < upto);
        Some(Box::new(Self {
            outstanding,
            marks,
            ledger,
            found: PerSignal::default(),
            uncounted: uncounted.collect(),
        }))
    }

    /// Where what is expected ends.
    pub(super) fn upto(&self) -> Seq {
        self.outstanding.upto
    }

    /// Segment `number` was counted, and held so many records that are expected.
    pub(super) fn count(&mut self, number: u32, records: &PerSignal<u64>) {
        if self.uncounted.remove(&number) {
            for (signal, records) in records.iter() {
                let found = self.found.get_mut(signal);
                *found = found.saturating_add(*records);
            }
        }
    }

    /// The same by what a row of the index says of it. Whether that can be: not of a segment that is expected in part.
    pub(super) fn count_row(&mut self, number: u32, held: &Remaining) -> bool {
        let is_whole = number < self.upto().segment();
        if is_whole {
            self.count(number, &PerSignal::from_fn(|signal| held.get(signal).records));
        }
        is_whole || !self.uncounted.contains(&number)
    }

    /// Records of `signal` that were not found.
    fn lost(&self, signal: Signal) -> u64 {
        self.outstanding.records.get(signal).saturating_sub(self.found_of(signal))
    }

    /// Records that were found beyond what is expected of their signal: those of missing frames, which wait as if they were of
    /// the signal of the frame behind them.
    fn beyond(&self) -> u64 {
        let beyond = |signal| self.found_of(signal).saturating_sub(*self.outstanding.records.get(signal));
        Signal::ALL.into_iter().map(beyond).fold(0, u64::saturating_add)
    }

    fn found_of(&self, signal: Signal) -> u64 {
        // Of the oldest block some may have been done.
        let done = u64::from(self.marks.get(signal).records);
        self.found.get(signal).saturating_sub(done)
    }
}

/// What was given up unread by an earlier process, as long as it is there.
pub(super) fn passed_over(unread: &Unread, store: &Segments) -> BTreeMap<u32, PerSignal<Mark>> {
    let marks = PerSignal::from_fn(|signal| Mark { seq: *unread.marks.get(signal), records: 0 });
    store.len(unread.segment).map(|_| (unread.segment, marks)).into_iter().collect()
}

/// What became of the segment that was the newest when a state was saved.
#[derive(Debug, PartialEq, Eq)]
enum Newest {
    /// It is there.
    There,
    /// It is gone, but the process that began it came to its end, and said what it came to in the segment before as well.
    LastWord,
    /// It is gone, and nobody knows what was done since.
    Gone,
}

/// ... by where what waited ended, the segment whose state counts, and the length of that which was the newest.
fn newest(upto: Seq, carrier: u32, len: Option<u64>) -> Newest {
    let number = upto.segment();
    if number <= carrier || len.is_some_and(|len| len >= FRAMES_START) {
        Newest::There
    } else if upto > Seq::new(number, 0) {
        Newest::LastWord
    } else {
        Newest::Gone
    }
}

impl Queue {
    /// What the state says of the first reader is expected from now on, if it is the latest there was.
    pub(super) fn expect(&mut self) {
        let carrier = self.store.carrier.unwrap_or_default();
        let upto = self.state.outstanding.upto;
        let newest = newest(upto, carrier, self.store.len(upto.segment()));
        if newest == Newest::Gone {
            log::warn!(
                "queue: segment {}, which an earlier process had begun, was removed by somebody else; what it held is not known",
                upto.segment()
            );
        }
        let newer = |(number, len): (u32, u64)| number > carrier && len >= FRAMES_START;
        let is_latest = newest != Newest::Gone && !self.store.all().any(newer);
        self.passed_over = passed_over(&self.state.unread, &self.store);
        self.own.expected = if is_latest { Expected::of(&self.state, &self.store) } else { None };
    }

    /// What was given up unread for the reader at the desk, as a state has it: the oldest of it.
    pub(super) fn unread(&self) -> Unread {
        self.passed_over.first_key_value().map_or_else(Unread::default, |(segment, marks)| Unread {
            segment: *segment,
            marks: PerSignal::from_fn(|signal| marks.get(signal).seq),
        })
    }

    /// The process ends: what waits is known to the record then, even if the newest segment goes.
    pub(super) fn save_for_the_next(&mut self) {
        let Some(active) = self.store.active() else { return };
        let saved = self.appended_since_saved == 0 || self.save_state().is_ok();
        let before = self.store.all().map(|(number, _)| number).rfind(|number| *number < active);
        if let (true, Some(number)) = (saved && self.state.outstanding.upto > Seq::new(active, 0), before) {
            self.store.note_state(number, &self.state);
        }
    }

    /// Counts what is not there, once every segment is counted for the reader at the desk.
    pub(super) fn settle_expected(&mut self) {
        let Some(expected) = self.own.expected.take_if(|expected| expected.uncounted.is_empty()) else {
            return;
        };
        let mut sum = 0_u64;
        let mut beyond = expected.beyond();
        for signal in Signal::ALL.into_iter().filter(|signal| *self.own.wants.get(*signal)) {
            let lost = expected.lost(signal);
            // They are counted when their turn comes.
            let records = lost.saturating_sub(beyond);
            beyond = beyond.saturating_sub(lost);
            self.state.ledger.drop(Tally { signal, reason: Reason::Damaged, records });
            sum = sum.saturating_add(records);
        }
        if sum > 0 {
            log::warn!(
                "queue: {sum} records that an earlier process kept are damaged or were removed by somebody else{}",
                self.own.for_whom()
            );
            drop(self.save_state());
        }
    }

    /// What a state is to say of what waits before `upto` for the reader at the desk.
    pub(super) fn outstanding(&self, upto: Seq) -> Outstanding {
        match &self.own.expected {
            // Nothing was done since.
            Some(before) if before.marks == self.state.marks && before.ledger == self.state.ledger => {
                before.outstanding
            }
            None if !self.degraded && self.is_all_counted() => {
                Outstanding { upto, records: PerSignal::from_fn(|signal| self.waiting(signal).records) }
            }
            _ => Outstanding::default(),
        }
    }

    fn is_all_counted(&self) -> bool {
        self.passed_over.is_empty()
            && self.store.all().all(|(number, _)| self.remaining.contains_key(&number))
    }

    /// Where the next frame goes; zero if that is not known.
    pub(super) fn next_seq(&self) -> Seq {
        self.store.position().map_or(Seq::default(), |(number, ordinal)| Seq::new(number, ordinal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::frame::sample;
    use crate::queue::{Limits, Overflow, RealDisk};
    use std::path::Path;

    fn open(dir: &Path) -> Queue {
        Queue::open(Box::new(RealDisk), dir, Limits::new(1 << 20, Overflow::DropOldest), 1).0
    }

    /// The queue of a process that had two segments with a frame each.
    fn left_behind(dir: &Path) -> Queue {
        let mut queue = open(dir);
        for _ in 0..2 {
            queue.begin_segment().unwrap();
            queue.put(&mut sample(Seq::default()), &[0; 40]).unwrap();
        }
        queue.save_state().unwrap();
        drop(queue);
        open(dir)
    }

    #[test]
    fn what_became_of_the_newest_segment_is_told_by_what_is_there_and_what_was_said_before() {
        let begun = Seq::new(5, 0);
        assert_eq!(newest(begun, 5, None), Newest::There, "its state counts");
        assert_eq!(newest(begun, 6, None), Newest::There);
        assert_eq!(newest(begun, 4, Some(FRAMES_START)), Newest::There);
        assert_eq!(newest(begun, 4, Some(FRAMES_START - 1)), Newest::Gone);
        assert_eq!(newest(begun, 4, None), Newest::Gone);
        assert_eq!(newest(Seq::new(5, 1), 4, None), Newest::LastWord);
    }

    #[test]
    fn a_row_of_the_index_counts_where_a_whole_segment_is_expected_and_only_once() {
        let mut expected = Expected {
            outstanding: Outstanding { upto: Seq::new(3, 2), records: PerSignal::from_fn(|_| 10) },
            marks: PerSignal::default(),
            ledger: Ledger::default(),
            found: PerSignal::default(),
            uncounted: [1, 2, 3].into(),
        };
        let mut held = Remaining::default();
        held.get_mut(Signal::Logs).records = 4;
        assert!(expected.count_row(1, &held) && expected.count_row(1, &held));
        assert_eq!(expected.lost(Signal::Logs), 6);
        assert!(!expected.count_row(3, &held), "its frames say what of it is expected");
        assert!(expected.count_row(4, &held), "nothing of it is expected");
        assert_eq!(expected.lost(Signal::Logs), 6);
        expected.count(3, &PerSignal::from_fn(|_| 1));
        assert!(expected.count_row(3, &held), "it was counted");
        assert_eq!((expected.lost(Signal::Logs), expected.lost(Signal::Traces)), (5, 9));
    }

    #[test]
    fn a_segment_of_which_nothing_is_expected_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let queue = left_behind(dir.path());
        for (upto, waited_for) in [(Seq::new(2, 0), vec![1]), (Seq::new(2, 1), vec![1, 2])] {
            let outstanding = Outstanding { upto, ..Outstanding::default() };
            let expected = Expected::of(&State { outstanding, ..State::default() }, &queue.store).unwrap();
            assert_eq!(expected.uncounted.into_iter().collect::<Vec<_>>(), waited_for);
        }
    }

    #[test]
    fn a_state_says_what_waits_only_while_all_of_it_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = left_behind(dir.path());
        let unknown = Outstanding::default();
        let upto = Seq::new(3, 0);
        let before = queue.outstanding(upto);
        assert_eq!(
            (before.upto, *before.records.get(Signal::Logs)),
            (Seq::new(2, 1), 6),
            "what was said before"
        );
        let tally = Tally { signal: Signal::Logs, reason: Reason::Refused, records: 1 };
        queue.state.ledger.drop(tally);
        assert_eq!(queue.outstanding(upto), unknown, "something was done since");
        queue.state.ledger.undrop(tally);
        queue.state.marks.get_mut(Signal::Logs).records = 1;
        assert_eq!(queue.outstanding(upto), unknown, "something was done since");
        queue.state.marks.get_mut(Signal::Logs).records = 0;
        queue.own.expected = None;
        assert_eq!(queue.outstanding(upto), unknown, "nothing is counted");
        while queue.count_one() {}
        let known = queue.outstanding(upto);
        assert_eq!((known.upto, *known.records.get(Signal::Logs)), (upto, 6));
        queue.degraded = true;
        assert_eq!(queue.outstanding(upto), unknown, "memory stands in");
        queue.degraded = false;
        queue.passed_over.insert(1, PerSignal::default());
        assert_eq!(queue.outstanding(upto), unknown, "something was given up unread");
    }
}
