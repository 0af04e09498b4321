//! Which deliveries the queue has, so that those which Lambda repeats are recognised.
//!
//! A delivery's frames are written in one go, in order. If our process ends within that write, the first of
//! them may be on disk although the delivery was never acknowledged; Lambda then sends it again, and only
//! what is missing is appended.

use super::frame::Header;
use crate::{PerSignal, Signal};
use std::collections::{HashMap, VecDeque};

/// How many deliveries are remembered: at the fastest pace Lambda is asked for (one each 25 ms) the last 100
/// seconds, far longer than a repeat can take to come. About 200 KiB when full.
pub const REMEMBERED_DELIVERIES_MAX: usize = 4096;

/// What the queue has of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    frames: u16,
    of: u16,
    events_end: PerSignal<u32>,
}

impl Progress {
    /// Whether every frame of the delivery is there.
    pub fn is_whole(&self) -> bool {
        self.frames >= self.of
    }

    /// How many of the delivery's frames are there, from the first one on.
    pub fn frames(&self) -> u16 {
        self.frames
    }

    /// How many of the delivery's events are covered for `signal`, from the first one on.
    pub fn events_kept(&self, signal: Signal) -> u32 {
        *self.events_end.get(signal)
    }
}

/// The deliveries of late, by hash.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    order: VecDeque<u128>,
    known: HashMap<u128, Progress>,
}

impl Deliveries {
    /// What is there of the delivery with this hash.
    pub(super) fn get(&self, delivery: u128) -> Option<Progress> {
        self.known.get(&delivery).copied()
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = u128> {
        self.order.iter().copied()
    }

    /// Notes a frame.
    pub(super) fn note(&mut self, header: &Header) {
        let entry = self.entry(header.delivery);
        entry.of = header.parts;
        entry.frames = entry.frames.max(header.part.saturating_add(1));
        let end = entry.events_end.get_mut(header.signal);
        *end = (*end).max(header.events_end);
    }

    /// Notes a frame of a delivery older than those that are known: it never displaces one of them.
    pub(super) fn note_older(&mut self, header: &Header) {
        if self.make_room_for_older(header.delivery) {
            self.note(header);
        }
    }

    /// Notes a delivery older than those that are known, which is dealt with in full.
    pub(super) fn note_older_whole(&mut self, delivery: u128) {
        if !self.known.contains_key(&delivery) && self.make_room_for_older(delivery) {
            self.note_whole(delivery);
        }
    }

    /// Whether there is an entry for `delivery` now.
    fn make_room_for_older(&mut self, delivery: u128) -> bool {
        if !self.known.contains_key(&delivery) {
            if self.order.len() >= REMEMBERED_DELIVERIES_MAX {
                return false;
            }
            self.order.push_front(delivery);
            self.known.insert(delivery, Progress::default());
        }
        true
    }

    /// Notes a delivery that is dealt with in full.
    pub(super) fn note_whole(&mut self, delivery: u128) {
        let entry = self.entry(delivery);
        entry.of = entry.frames;
    }

    fn entry(&mut self, delivery: u128) -> &mut Progress {
        if !self.known.contains_key(&delivery) {
            self.order.push_back(delivery);
            if self.order.len() > REMEMBERED_DELIVERIES_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
        self.known.entry(delivery).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::frame::{Seq, sample};

    #[test]
    fn a_delivery_is_whole_when_its_last_frame_is_there() {
        let mut deliveries = Deliveries::default();
        let mut header = sample(Seq(1));
        (header.part, header.parts, header.events_end) = (0, 2, 10);
        deliveries.note(&header);
        let progress = deliveries.get(header.delivery).unwrap();
        assert!(!progress.is_whole());
        assert_eq!((progress.events_kept(Signal::Logs), progress.events_kept(Signal::Traces)), (10, 0));
        (header.part, header.events_end) = (1, 15);
        deliveries.note(&header);
        assert!(deliveries.get(header.delivery).unwrap().is_whole());
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_memory_is_bounded() {
        let mut deliveries = Deliveries::default();
        for delivery in 0..=REMEMBERED_DELIVERIES_MAX as u128 {
            deliveries.note_whole(delivery);
        }
        assert_eq!(deliveries.get(0), None);
        assert!(deliveries.get(1).is_some_and(|progress| progress.is_whole()));
        assert_eq!(deliveries.known.len(), REMEMBERED_DELIVERIES_MAX);
    }

    #[test]
    fn older_deliveries_do_not_displace_newer_ones() {
        let mut deliveries = Deliveries::default();
        for delivery in 0..REMEMBERED_DELIVERIES_MAX as u128 - 1 {
            deliveries.note_whole(delivery);
        }
        let mut header = sample(Seq(1));
        (header.delivery, header.parts) = (u128::MAX, 2);
        deliveries.note_older(&header);
        header.part = 1;
        deliveries.note_older(&header);
        assert!(deliveries.get(u128::MAX).is_some_and(|progress| progress.is_whole()));
        deliveries.note_older_whole(u128::MAX - 1);
        assert_eq!(deliveries.get(u128::MAX - 1), None);
        // The older one goes first.
        deliveries.note_whole(u128::MAX - 2);
        assert_eq!(deliveries.get(u128::MAX), None);
        assert!(deliveries.get(0).is_some());
    }
}
