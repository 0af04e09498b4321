//! The heads of segments: which of them carries the latest state, and how it is kept there.

use super::frame::{self, MAGIC};
use super::segments::{Active, Place, Segment, Segments, StoreError};
use super::state::{self, FRAMES_START, SLOT_BYTES, SLOTS, State};

/// What stands at the head of a segment.
#[derive(Debug, Default)]
pub(super) struct Head {
    /// The valid states.
    pub states: Vec<State>,
    /// It looks as if a later version of this program had written it.
    pub newer: bool,
}

/// The slot that a new head has its state in.
pub(super) const HEAD_SLOT: u64 = 0;

pub(super) fn head(number: u32, state: &State) -> Vec<u8> {
    let mut head = state.encode(number);
    head.resize(FRAMES_START as usize, 0);
    head
}

impl Segments {
    /// Names the file that holds the latest state.
    pub(super) fn carried_by(&mut self, number: u32) {
        self.carrier = Some(number);
    }

    /// Whether the latest state is in segment `number`, and nowhere else.
    pub(super) fn carries_state(&self, number: u32) -> bool {
        self.carrier == Some(number)
    }

    /// What stands at the head of segment `number`.
    ///
    /// # Errors
    /// If the file cannot be read just now. A head that is cut off or damaged is no error, but empty.
    pub(super) fn head(&mut self, number: u32) -> Result<Head, StoreError> {
        let len = self.len(number).unwrap_or(0);
        let mut bytes = vec![0; len.min(FRAMES_START + MAGIC.len() as u64) as usize];
        match self.read(number, &mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.is_lasting() => return Ok(Head::default()),
            Err(error) => return Err(error),
        }
        let slots: Vec<_> = bytes.chunks_exact(SLOT_BYTES).map(|slot| State::decode(slot, number)).collect();
        let newest =
            (0..).zip(&slots).filter_map(|(slot, state)| Some((state.as_ref()?.generation, slot))).max();
        if let (Some(segment), Some((_, slot))) = (self.by_number.get_mut(&number), newest) {
            segment.next_slot = slot ^ 1;
        }
        let first_frame = bytes.get(SLOT_BYTES * SLOTS as usize..).unwrap_or_default();
        let states: Vec<State> = slots.into_iter().flatten().collect();
        let newer = states.is_empty() && bytes.chunks(SLOT_BYTES).any(state::is_newer)
            || frame::is_newer(first_frame);
        Ok(Head { states, newer })
    }

    /// Writes `state` into the head of the active segment, or of the file that has the latest one.
    ///
    /// # Errors
    /// If there is no segment or the file cannot be written; the state before it stays valid.
    pub(super) fn write_state(&mut self, state: &State) -> Result<(), StoreError> {
        if let Some(Active { number, file: Some(file), .. }) = &self.active {
            let segment = self.by_number.get_mut(number).ok_or(StoreError::Missing(*number))?;
            file.write_all_at(&state.encode(*number), segment.next_slot * SLOT_BYTES as u64)?;
            segment.next_slot ^= 1;
            self.carrier = Some(*number);
            return Ok(());
        }
        let mut written = false;
        if let Some(active) = &self.active
            && let Some(Segment { place: Place::Memory(bytes), .. }) = self.by_number.get_mut(&active.number)
            && let Some(kept) = bytes.get_mut(..FRAMES_START as usize)
        {
            kept.copy_from_slice(&head(active.number, state));
            written = true;
        }
        // The files on disk should know as well.
        let newest = || self.by_number.iter().rev().find(|(_, segment)| segment.is_file()).map(|(n, _)| *n);
        let carrier = self.carrier.filter(|number| self.by_number.contains_key(number));
        if let Some(number) = carrier.or_else(newest) {
            let file = self.disk.open(&self.path(number))?;
            let segment = self.by_number.get_mut(&number).ok_or(StoreError::Missing(number))?;
            file.write_all_at(&state.encode(number), segment.next_slot * SLOT_BYTES as u64)?;
            segment.next_slot ^= 1;
            self.carrier = Some(number);
            written = true;
        }
        if written { Ok(()) } else { Err(StoreError::Missing(0)) }
    }

    /// Writes `state`, which stands in the newest segment, into the head of segment `number` as well. No harm is done if that
    /// fails.
    pub(super) fn note_state(&mut self, number: u32, state: &State) {
        let path = self.path(number);
        let Some(segment) = self.by_number.get_mut(&number).filter(|segment| segment.is_file()) else {
            return;
        };
        let offset = segment.next_slot * SLOT_BYTES as u64;
        let written = self.disk.open(&path).and_then(|file| file.write_all_at(&state.encode(number), offset));
        if written.is_ok() {
            segment.next_slot ^= 1;
        }
    }

    /// Writes `state` into both slots of segment `number`: what was there is void.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn stamp(&mut self, number: u32, state: &State) -> Result<(), StoreError> {
        let file = self.disk.open(&self.path(number))?;
        for slot in 0..SLOTS {
            file.write_all_at(&state.encode(number), slot * SLOT_BYTES as u64)?;
        }
        Ok(())
    }
}
