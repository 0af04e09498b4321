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
        // Of the oldest block some may have been done.
        let done = u64::from(self.marks.get(signal).records);
        let found = self.found.get(signal).saturating_sub(done);
        self.outstanding.records.get(signal).saturating_sub(found)
    }
}

/// What was given up unread by an earlier process, as long as it is there.
pub(super) fn passed_over(unread: &Unread, store: &Segments) -> BTreeMap<u32, PerSignal<Mark>> {
    let marks = PerSignal::from_fn(|signal| Mark { seq: *unread.marks.get(signal), records: 0 });
    store.len(unread.segment).map(|_| (unread.segment, marks)).into_iter().collect()
}

impl Queue {
    /// What the state says of the first reader is expected from now on, if it is the latest there was.
    pub(super) fn expect(&mut self) {
        let carrier = self.store.carrier.unwrap_or_default();
        let newest = self.state.outstanding.upto.segment();
        let is_gone = newest > carrier && self.store.len(newest).is_none_or(|len| len < FRAMES_START);
        // Where a process came to its end, it said so in the segment before as well.
        let is_last_word = is_gone && self.state.outstanding.upto > Seq::new(newest, 0);
        if is_gone && !is_last_word {
            log::warn!(
                "queue: segment {newest}, which an earlier process had begun, was removed by somebody else; what it held is not known"
            );
        }
        let newer = |(number, len): (u32, u64)| number > carrier && len >= FRAMES_START;
        let is_latest = (newest <= carrier || is_last_word) && !self.store.all().any(newer);
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
        let mut sum = 0;
        for signal in Signal::ALL.into_iter().filter(|signal| *self.own.wants.get(*signal)) {
            let records = expected.lost(signal);
            self.state.ledger.drop(Tally { signal, reason: Reason::Damaged, records });
            sum += records;
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
