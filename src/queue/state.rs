//! What is done, kept in place at the head of the newest segment.
//!
//! Each segment file begins with two slots of fixed size. The state goes into the one that does not hold the
//! last good one, and they change places only after a write that worked: a write which is cut short, or fails
//! again and again, leaves the state before it intact. Rewriting in place needs no free space: what was delivered
//! is known after a crash even when the disk was full.

use super::bytes::{Fields, crc32};
use super::frame::Seq;
use super::ledger::Ledger;
use crate::{PerSignal, Signal};

/// Length of one slot in bytes: the state takes 929, the rest is zero and room for later versions.
pub(super) const SLOT_BYTES: usize = 1024;
/// Slots at the head of a segment.
pub(super) const SLOTS: u64 = 2;
/// Where the first frame of a segment begins.
pub(super) const FRAMES_START: u64 = SLOT_BYTES as u64 * SLOTS;

const MAGIC: [u8; 8] = *b"outlast1";
/// No state speaks of a segment beyond this one, nor has a higher generation: these numbers must not run out because a
/// slot is nonsense although its checksum is right. A quarter of all segments and half of the generations are left.
const SEGMENT_MAX: u32 = 3 << 30;
const GENERATION_MAX: u64 = 1 << 63;

/// How far a signal has come: everything up to `seq` is done, and `records` of the block after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The last frame that is done; zero if none is.
    pub seq: Seq,
    /// Records of the next block that are done, while it is sent in parts.
    pub records: u32,
}

/// A segment that is about to be written anew without some of its records. Whether that came to pass shows in its
/// length, so that the count of what is gone and the going are one step: a crash forgets both or neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shedding {
    /// The segment's number; 0 if there is none.
    pub segment: u32,
    /// Its length in bytes then; 0 if it is to be removed.
    pub len: u64,
    /// Records that are given up by it.
    pub records: PerSignal<u64>,
    /// As the oldest there are, rather than as the least severe.
    pub oldest: bool,
}

/// What waited when a state was saved, for the comparison with what is found later. See `expected.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// In the frames before this one; zero if it was not known.
    pub upto: Seq,
    /// Records of the user's.
    pub records: PerSignal<u64>,
}

impl Outstanding {
    /// So many of them went.
    fn less(&mut self, gone: &PerSignal<u64>) {
        for (signal, gone) in gone.iter() {
            let records = self.records.get_mut(signal);
            *records = records.saturating_sub(*gone);
        }
    }
}

/// A segment that could not be read when it was due, and that nobody had counted before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Its number; 0 if there is none.
    pub segment: u32,
    /// How far each signal was then: what lies behind that was given up.
    pub marks: PerSignal<Seq>,
}

/// Everything about the queue that its frames do not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Made anew with every new queue; a mark says nothing about another queue's frames.
    pub queue_id: u128,
    /// Grows with every change; the highest one found counts.
    pub generation: u64,
    /// How far each signal has come.
    pub marks: PerSignal<Mark>,
    /// What was given up, and what the fallback has.
    pub ledger: Ledger,
    /// The last report frame that the ledger knows of.
    pub reported: Seq,
    /// The first part of a cut record that still waits for the rest; zero if there is none.
    pub fragment: Seq,
    /// The newest carry frame; zero if there is none.
    pub carry: Seq,
    /// The last frame that told what the ledger says was told; zero if there was none.
    pub told: Seq,
    /// When that was, Unix nanoseconds.
    pub told_at: u64,
    /// What is being shed.
    pub shedding: Shedding,
    /// Hash of the last delivery that was counted as given up instead of being kept; zero if none was. It has no frames to be
    /// known by when Lambda repeats it.
    pub turned_away: u128,
    /// What waits, as far as it is known.
    pub outstanding: Outstanding,
    /// What was given up unread, the oldest of it.
    pub unread: Unread,
    /// The last first part that does not wait any more, whatever became of it: its frame may be there for long.
    pub fragment_done: Seq,
}

impl State {
    /// The state as a slot of segment `segment`.
    pub fn encode(&self, segment: u32) -> Vec<u8> {
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.extend_from_slice(&MAGIC);
        slot.extend_from_slice(&segment.to_le_bytes());
        slot.extend_from_slice(&self.queue_id.to_le_bytes());
        slot.extend_from_slice(&self.generation.to_le_bytes());
        for (_, mark) in self.marks.iter() {
            slot.extend_from_slice(&mark.seq.0.to_le_bytes());
            slot.extend_from_slice(&mark.records.to_le_bytes());
        }
        self.ledger.encode(&mut slot);
        slot.extend_from_slice(&self.reported.0.to_le_bytes());
        slot.extend_from_slice(&self.fragment.0.to_le_bytes());
        slot.extend_from_slice(&self.carry.0.to_le_bytes());
        // An earlier version left zeros here, and leaves alone what it does not know.
        self.ledger.encode_handed(&mut slot);
        self.ledger.encode_told(&mut slot);
        slot.extend_from_slice(&self.told.0.to_le_bytes());
        slot.extend_from_slice(&self.told_at.to_le_bytes());
        self.ledger.encode_later(&mut slot);
        slot.extend_from_slice(&self.shedding.segment.to_le_bytes());
        slot.extend_from_slice(&self.shedding.len.to_le_bytes());
        for (_, records) in self.shedding.records.iter() {
            slot.extend_from_slice(&records.to_le_bytes());
        }
        slot.push(u8::from(self.shedding.oldest));
        slot.extend_from_slice(&self.turned_away.to_le_bytes());
        slot.extend_from_slice(&self.outstanding.upto.0.to_le_bytes());
        for (_, records) in self.outstanding.records.iter() {
            slot.extend_from_slice(&records.to_le_bytes());
        }
        slot.extend_from_slice(&self.unread.segment.to_le_bytes());
        for (_, seq) in self.unread.marks.iter() {
            slot.extend_from_slice(&seq.0.to_le_bytes());
        }
        slot.extend_from_slice(&self.fragment_done.0.to_le_bytes());
        slot.resize(SLOT_BYTES - 4, 0);
        let crc = crc32(&slot);
        slot.extend_from_slice(&crc.to_le_bytes());
        slot
    }

    /// The frames it names, whether they are there or not.
    pub(super) fn frames_named(&self) -> impl Iterator<Item = Seq> {
        let own =
            [self.reported, self.fragment, self.carry, self.told, self.outstanding.upto, self.fragment_done];
        self.marks.iter().map(|(_, mark)| mark.seq).chain(own)
    }

    /// The first part that waited does not any more.
    pub(super) fn settle_fragment(&mut self) {
        self.fragment_done = self.fragment_done.max(std::mem::take(&mut self.fragment));
    }

    /// Takes what was being shed for gone, if the segment has the length that it was to have then.
    pub(super) fn decide_shedding(&mut self, len: impl Fn(u32) -> Option<u64>) {
        let shedding = std::mem::take(&mut self.shedding);
        if len(shedding.segment).unwrap_or_default() == shedding.len {
            shedding.count_in(&mut self.ledger);
            self.outstanding.less(&shedding.records);
        }
    }

    /// Reads a slot of segment `segment`; `None` if it is not whole.
    pub fn decode(slot: &[u8], segment: u32) -> Option<Self> {
        let (body, crc) = slot.split_at_checked(SLOT_BYTES - 4)?;
        if Fields::new(crc).u32()? != crc32(body) {
            return None;
        }
        let mut fields = Fields::new(body);
        if fields.array()? != MAGIC || fields.u32()? != segment {
            return None;
        }
        let mut state = Self { queue_id: fields.u128()?, generation: fields.u64()?, ..Self::default() };
        for signal in Signal::ALL {
            *state.marks.get_mut(signal) = Mark { seq: Seq(fields.u64()?), records: fields.u32()? };
        }
        state.ledger = Ledger::decode(&mut fields)?;
        state.reported = Seq(fields.u64()?);
        state.fragment = Seq(fields.u64()?);
        state.carry = Seq(fields.u64()?);
        state.ledger.decode_handed(&mut fields)?;
        state.ledger.decode_told(&mut fields)?;
        state.told = Seq(fields.u64()?);
        state.told_at = fields.u64()?;
        state.ledger.decode_later(&mut fields)?;
        state.shedding.segment = fields.u32()?;
        state.shedding.len = fields.u64()?;
        for signal in Signal::ALL {
            *state.shedding.records.get_mut(signal) = fields.u64()?;
        }
        state.shedding.oldest = fields.u8()? != 0;
        state.turned_away = fields.u128()?;
        state.outstanding.upto = Seq(fields.u64()?);
        for signal in Signal::ALL {
            *state.outstanding.records.get_mut(signal) = fields.u64()?;
        }
        state.unread.segment = fields.u32()?;
        for signal in Signal::ALL {
            *state.unread.marks.get_mut(signal) = Seq(fields.u64()?);
        }
        state.fragment_done = Seq(fields.u64()?);
        let mut named = state.frames_named();
        let plausible = named.all(|seq| seq.segment() <= SEGMENT_MAX) && state.generation <= GENERATION_MAX;
        plausible.then_some(state)
    }
}

/// Whether a slot was written by a later version of this program.
pub(super) fn is_newer(slot: &[u8]) -> bool {
    let (name, version) = MAGIC.split_at(MAGIC.len() - 1);
    slot.strip_prefix(name)
        .and_then(<[u8]>::first)
        .is_some_and(|found| found > version.first().unwrap_or(found))
}

const _: () = assert!(
    8 + 4
        + 16
        + 8
        + 36
        + Ledger::BYTES
        + 24
        + Ledger::HANDED_BYTES
        + Ledger::TOLD_BYTES
        + 16
        + Ledger::LATER_BYTES
        + 37
        + 16
        + 32
        + 28
        + 8
        + 4
        <= SLOT_BYTES
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::ledger::{Reason, Tally};

    fn state() -> State {
        let mut state = State {
            queue_id: 5,
            generation: 6,
            reported: Seq(8),
            fragment: Seq(9),
            carry: Seq(10),
            told: Seq(11),
            told_at: 12,
            turned_away: 13,
            outstanding: Outstanding { upto: Seq::new(7, 2), records: PerSignal::from_fn(|_| 14) },
            unread: Unread { segment: 4, marks: PerSignal::from_fn(|_| Seq::new(4, 1)) },
            fragment_done: Seq(7),
            ..State::default()
        };
        *state.marks.get_mut(Signal::Traces) = Mark { seq: Seq::new(4, 2), records: 17 };
        state.ledger.drop(Tally { signal: Signal::Logs, reason: Reason::Damaged, records: 3 });
        state.ledger.hand_over(Signal::Traces, 4);
        state.ledger.deliver(Signal::Metrics, 5);
        let totals = state.ledger.untold(Signal::Metrics, 6);
        state.ledger.tell(Signal::Metrics, &totals);
        state.shedding =
            Shedding { segment: 3, len: 7_000, records: PerSignal::from_fn(|_| 9), oldest: true };
        state
    }

    /// Where the version that knew of no fallback ended.
    const END_BEFORE_FALLBACKS: usize = 8 + 4 + 16 + 8 + 36 + Ledger::BYTES + 24;

    #[test]
    fn a_state_of_a_version_without_a_fallback_is_read() {
        let mut slot = state().encode(12);
        slot.truncate(END_BEFORE_FALLBACKS);
        slot.resize(SLOT_BYTES - 4, 0);
        slot.extend_from_slice(&crc32(&slot).to_le_bytes());
        let read = State::decode(&slot, 12).unwrap();
        assert_eq!(read.ledger.handed(Signal::Traces), 0);
        assert_eq!(read.shedding, Shedding::default());
        assert_eq!(read.outstanding, Outstanding::default());
        assert_eq!(read.fragment_done, Seq::default());
        assert_eq!(read.ledger.dropped(Signal::Logs), 3);
        assert_eq!((read.carry, read.marks), (state().carry, state().marks));
        assert_eq!((read.told, read.ledger.delivered(Signal::Metrics)), (Seq::default(), 0));
    }

    #[test]
    fn a_state_survives_the_disk() {
        let slot = state().encode(12);
        assert_eq!(slot.len(), SLOT_BYTES);
        assert_eq!(State::decode(&slot, 12), Some(state()));
    }

    #[test]
    fn a_slot_of_another_segment_or_with_a_flipped_bit_is_no_state() {
        let slot = state().encode(12);
        assert_eq!(State::decode(&slot, 13), None);
        for at in [0, 9, 100, SLOT_BYTES - 1] {
            let mut damaged = slot.clone();
            damaged[at] ^= 0x10;
            assert_eq!(State::decode(&damaged, 12), None);
        }
    }

    #[test]
    fn a_slot_that_would_use_up_the_numbers_is_no_state() {
        let with = |seq: u64, generation: u64| {
            let mut state = State { generation, ..state() };
            state.marks.get_mut(Signal::Logs).seq = Seq(seq);
            State::decode(&state.encode(12), 12).is_some()
        };
        assert!(with(Seq::new(SEGMENT_MAX, u32::MAX).0, GENERATION_MAX));
        assert!(!with(u64::MAX, 1));
        assert!(!with(1, u64::MAX));
    }

    #[test]
    fn a_slot_of_a_later_version_is_told_from_damage() {
        let mut slot = state().encode(12);
        assert!(!is_newer(&slot));
        slot[7] = b'2';
        assert!(is_newer(&slot));
        assert!(!is_newer(&[0; SLOT_BYTES]) && !is_newer(&[]));
    }
}
