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

/// Frames walked in one go once a block is in sight: a signal with a block here and there in a large backlog
/// must not keep everything else waiting.
const FRAMES_PER_FILL_MAX: u32 = 4096;
/// How often something that cannot be read is tried before it is given up. Each try follows a pause.
const READ_TRIES_MAX: u32 = 20;

/// A block that is waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// The frame's header.
    pub header: Header,
    /// Where its payload begins in its segment.
    pub payload_offset: u64,
}

impl Item {
    /// Whether it tells the backend's user what was dropped.
    pub(super) fn is_report(&self) -> bool {
        matches!(self.header.kind, Kind::Report(_))
    }
}

/// A frame, taken out of its segment.
pub(super) type Stored = (Header, Vec<u8>);

/// Blocks being sent.
#[derive(Debug)]
pub(super) struct Flight {
    /// What will be done once they are taken.
    pub to: Mark,
    /// Records among them that were dropped from the queue meanwhile to make room.
    pub orphaned: u64,
    /// Drop reports among them whose segment went meanwhile: they are queued again unless they arrive.
    pub reports: Vec<Stored>,
}

impl Flight {
    /// A request up to `to`.
    pub(super) fn new(to: Mark) -> Self {
        Self { to, orphaned: 0, reports: Vec::new() }
    }
}

/// How far a look ahead came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// Enough is in sight, or what follows cannot be read now.
    Enough,
    /// Every frame there is was seen.
    All,
    /// What this segment holds was not counted yet.
    Uncounted(u32),
}

/// A signal's window and flight.
#[derive(Debug)]
pub(super) struct Lane {
    signal: Signal,
    window: VecDeque<Item>,
    scanned: Position,
    seen_all: bool,
    last: Option<Seq>,
    stalled: bool,
    scan_tries: u32,
    payload_tries: u32,
    /// The request in flight, if there is one.
    pub flight: Option<Flight>,
    /// The last block that was asked for by who sends, as long as its fate is open.
    pub asked_for: Seq,
    /// The record that was sent last as an alibi, by its block and its place in that, until there is no more to be
    /// settled of it: it may have arrived, which no mark says.
    pub alibi: Option<(Seq, u32)>,
    /// The last block that was put into any request.
    pub sent_to: Seq,
    /// The request that was in flight when the queue was closed, while its blocks are where they were.
    pub left: Option<Mark>,
}

impl Lane {
    /// A lane that begins at `start`.
    pub(super) fn new(signal: Signal, start: Position) -> Self {
        Self {
            signal,
            window: VecDeque::new(),
            scanned: start,
            seen_all: false,
            last: None,
            stalled: false,
            scan_tries: 0,
            payload_tries: 0,
            flight: None,
            asked_for: Seq::default(),
            alibi: None,
            sent_to: Seq::default(),
            left: None,
        }
    }

    /// A request is put together, whose last block is `seq`.
    pub(super) fn sends(&mut self, seq: Seq) {
        self.asked_for = seq;
        self.sent_to = self.sent_to.max(seq);
        self.left = None;
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

    /// Looks further ahead. `holds` tells whether a segment holds blocks of the signal, if that is known.
    pub(super) fn fill(
        &mut self,
        store: &mut Segments,
        mark: Mark,
        holds: impl Fn(u32) -> Option<bool>,
    ) -> Filled {
        let mut walked = 0;
        self.seen_all = false;
        while self.window.len() < WINDOW_BLOCKS && (self.window.is_empty() || walked < FRAMES_PER_FILL_MAX) {
            walked += 1;
            match step(store, &mut self.scanned) {
                Step::Frame(header, payload_offset) => self.take(&header, payload_offset, mark),
                Step::Damage(bytes) => {
                    if self.signal == Signal::Logs {
                        let Position { segment, offset } = self.scanned;
                        log::debug!(
                            "queue: segment {segment}: {bytes} damaged bytes before {offset} skipped"
                        );
                    }
                }
                Step::Unreadable => {
                    self.stall_at(self.scanned.segment);
                    return Filled::Enough;
                }
                Step::End => match self.following_segment(store, &holds) {
                    Following::Segment(next) => self.scanned = Position::start_of(next),
                    Following::Uncounted(next) => return Filled::Uncounted(next),
                    Following::None => {
                        self.seen_all = true;
                        return Filled::All;
                    }
                },
            }
        }
        Filled::Enough
    }

    /// The segment to walk after the one that was walked, which may be gone by now.
    fn following_segment(&self, store: &Segments, holds: impl Fn(u32) -> Option<bool>) -> Following {
        let here = self.scanned.segment;
        if store.active() == Some(here) {
            return Following::None;
        }
        let mut from = if store.len(here).is_some() { here.saturating_add(1) } else { here };
        while let Some(next) = store.first_from(from) {
            match holds(next) {
                _ if store.active() == Some(next) => return Following::Segment(next),
                Some(true) => return Following::Segment(next),
                Some(false) => from = next.saturating_add(1),
                None => return Following::Uncounted(next),
            }
        }
        Following::None
    }

    fn take(&mut self, header: &Header, payload_offset: u64, mark: Mark) {
        self.scan_tries = 0;
        if !follows(header.seq, self.last) {
            return;
        }
        self.last = Some(header.seq);
        if header.seq <= mark.seq || header.signal != self.signal || !header.kind.is_sent() {
            return;
        }
        self.window.push_back(Item { header: *header, payload_offset });
    }

    /// Every frame in segments before this number was seen, and so was every block that is not in the window.
    pub(super) fn seen_before(&self) -> u32 {
        match self.head() {
            Some(item) => item.header.seq.segment(),
            None if self.seen_all => u32::MAX,
            None => self.scanned.segment,
        }
    }

    /// Whether something cannot be read, so that nothing is sent until [`Lane::resume`].
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// What could not be read may be tried again.
    pub(super) fn resume(&mut self) {
        self.stalled = false;
    }

    /// Segment `number` cannot be read where the walk stands. After many tries it is given up.
    pub(super) fn stall_at(&mut self, number: u32) {
        self.scan_tries += 1;
        self.stalled = self.scan_tries < READ_TRIES_MAX;
        if !self.stalled {
            log::error!("queue: segment {number} cannot be read; {} in it are given up", self.signal);
            self.scan_tries = 0;
            self.scanned = Position::end_of(number);
        }
    }

    /// The payload of the head cannot be read. Returns whether it is worth trying again, later.
    pub(super) fn stall_at_payload(&mut self) -> bool {
        self.payload_tries += 1;
        self.stalled = self.payload_tries < READ_TRIES_MAX;
        if !self.stalled {
            self.payload_tries = 0;
        }
        self.stalled
    }

    /// The payload of the head was read.
    pub(super) fn payload_read(&mut self) {
        self.payload_tries = 0;
    }

    /// Segment `number` was written anew: of the blocks in sight those in `waiting` are left, in another place.
    pub(super) fn rewritten(&mut self, number: u32, waiting: &[Item]) {
        self.left = None;
        self.window.retain_mut(|item| {
            if item.header.seq.segment() != number {
                return true;
            }
            let found = waiting.binary_search_by_key(&item.header.seq, |moved| moved.header.seq);
            let moved = found.ok().and_then(|at| waiting.get(at));
            moved.map(|moved| *item = *moved).is_some()
        });
        if self.scanned.segment == number {
            // What was seen of it is known by its number.
            self.scanned = Position::start_of(number);
        }
    }

    /// Forgets what lies in segment `number` and looks on behind it.
    pub(super) fn leave(&mut self, number: u32) {
        self.left = None;
        self.window.retain(|item| item.header.seq.segment() != number);
        if self.scanned.segment == number {
            // Not in the next one, which is to be counted before.
            self.scanned = Position::end_of(number);
        }
    }
}

/// Where a walk goes on after a segment.
enum Following {
    Segment(u32),
    Uncounted(u32),
    None,
}

#[cfg(test)]
mod tests;
