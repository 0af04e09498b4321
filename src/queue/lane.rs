//! One signal's place in the queue: a bounded window onto the blocks that are not done yet.
//!
//! The window is filled by walking the frames, so what is held in memory does not grow with the backlog.

use super::frame::{Header, Kind, Seq};
use super::scan::{Position, Step, follows, step};
use super::segments::Segments;
use super::state::Mark;
use crate::Signal;
use std::collections::VecDeque;

/// Blocks looked ahead. A request of `OUTLAST_BATCH_MAX_BYTES` takes a handful of large blocks or some
/// hundred small ones; an item is about 150 bytes.
const WINDOW_BLOCKS: usize = 512;

/// A block that is waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// The frame's header.
    pub header: Header,
    /// Where its payload begins in its segment.
    pub payload_offset: u64,
    /// Frames missing right before this one, because of damage.
    pub lost_before: u32,
}

impl Item {
    /// Whether it tells the backend's user what was dropped.
    pub(super) fn is_report(&self) -> bool {
        matches!(self.header.kind, Kind::Report(_))
    }
}

/// Blocks being sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    /// What will be done once they are taken.
    pub to: Mark,
    /// Records among them that were dropped from the queue meanwhile to make room.
    pub orphaned: u64,
}

/// A signal's window and flight.
#[derive(Debug)]
pub(super) struct Lane {
    signal: Signal,
    window: VecDeque<Item>,
    scanned: Position,
    last: Option<Seq>,
    missing: u32,
    /// The request in flight, if there is one.
    pub flight: Option<Flight>,
}

impl Lane {
    /// A lane that begins at `start`.
    pub(super) fn new(signal: Signal, start: Position) -> Self {
        Self { signal, window: VecDeque::new(), scanned: start, last: None, missing: 0, flight: None }
    }

    /// Blocks in sight, oldest first.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        self.window.iter()
    }

    /// The oldest block that is not done.
    pub(super) fn head(&self) -> Option<&Item> {
        self.window.front()
    }

    /// Takes the head if it is done.
    pub(super) fn pop_through(&mut self, mark: Mark) -> Option<Item> {
        self.head().filter(|item| item.header.seq <= mark.seq)?;
        self.window.pop_front()
    }

    /// Looks further ahead.
    pub(super) fn fill(&mut self, store: &mut Segments, mark: Mark) {
        while self.window.len() < WINDOW_BLOCKS {
            match step(store, &mut self.scanned) {
                Step::Frame(header, payload_offset) => self.take(&header, payload_offset, mark),
                Step::Damage(bytes) => {
                    if self.signal == Signal::Logs {
                        let Position { segment, offset } = self.scanned;
                        log::warn!("queue: segment {segment}: {bytes} damaged bytes before {offset} skipped");
                    }
                }
                Step::End if store.active() == Some(self.scanned.segment) => return,
                Step::End => match self.following_segment(store) {
                    Some(next) => self.scanned = Position::start_of(next),
                    None => return,
                },
            }
        }
    }

    /// The segment after the one that was walked, which may be gone by now.
    fn following_segment(&self, store: &Segments) -> Option<u32> {
        let here = self.scanned.segment;
        store.first_from(if store.len(here).is_some() { here.saturating_add(1) } else { here })
    }

    fn take(&mut self, header: &Header, payload_offset: u64, mark: Mark) {
        if !follows(header.seq, self.last) {
            return;
        }
        if header.seq > mark.seq {
            self.missing = self.missing.saturating_add(missing_between(self.last, header.seq));
        }
        self.last = Some(header.seq);
        if header.seq <= mark.seq || header.signal != self.signal || header.kind == Kind::Fragment {
            return;
        }
        let lost_before = std::mem::take(&mut self.missing);
        self.window.push_back(Item { header: *header, payload_offset, lost_before });
    }

    /// Forgets what lies in segment `number` and looks on behind it.
    pub(super) fn leave(&mut self, number: u32) {
        self.window.retain(|item| item.header.seq.segment() != number);
        if self.scanned.segment == number {
            self.scanned = Position::start_of(number.saturating_add(1));
            self.missing = 0;
        }
    }
}

/// Frames of one segment that should stand between two that are there.
fn missing_between(last: Option<Seq>, seq: Seq) -> u32 {
    match last {
        Some(last) if last.segment() == seq.segment() => {
            seq.ordinal().saturating_sub(last.ordinal()).saturating_sub(1)
        }
        _ => seq.ordinal(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_frames_are_counted_within_a_segment() {
        assert_eq!(missing_between(None, Seq::new(1, 0)), 0);
        assert_eq!(missing_between(None, Seq::new(1, 2)), 2);
        assert_eq!(missing_between(Some(Seq::new(1, 2)), Seq::new(1, 3)), 0);
        assert_eq!(missing_between(Some(Seq::new(1, 2)), Seq::new(1, 6)), 3);
        assert_eq!(missing_between(Some(Seq::new(1, 2)), Seq::new(2, 0)), 0);
    }
}
