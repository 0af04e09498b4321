//! Walks the frames of a segment, stepping over what is damaged.

use super::frame::{HEADER_BYTES, Header, MAGIC, Seq};
use super::segments::{Segments, StoreError};
use super::state::FRAMES_START;

/// How much is read at a time while looking for the next intact frame.
const SEARCH_STEP_BYTES: usize = 64 << 10;

/// No segment is so long.
const BEYOND_ANY_SEGMENT: u64 = 1 << 48;

/// A place between frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The segment's number.
    pub segment: u32,
    /// Offset in it.
    pub offset: u64,
}

impl Position {
    /// Before the first frame of a segment.
    pub(super) fn start_of(segment: u32) -> Self {
        Self { segment, offset: FRAMES_START }
    }

    /// Behind all that a segment may hold: the one after it is next.
    pub(super) fn end_of(segment: u32) -> Self {
        Self { segment, offset: BEYOND_ANY_SEGMENT }
    }
}

/// What stands at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An intact header whose payload lies within the segment, and the offset of its payload.
    Frame(Header, u64),
    /// Bytes that are no frame, up to the next intact one.
    Damage(u64),
    /// Nothing more. Bytes that remain are a frame that was never finished.
    End,
    /// The disk does not say what stands there. It may later: this is no evidence of anything.
    Unreadable,
}

/// Reads what stands at `position` and moves it past that.
pub(super) fn step(store: &mut Segments, position: &mut Position) -> Step {
    let Some(len) = store.len(position.segment) else { return Step::End };
    let found = frame_at(store, *position, len).and_then(|frame| match frame {
        Some(header) => Ok(Some((position.offset, Some(header)))),
        None => Ok(next_frame(store, *position, len)?.map(|offset| (offset, None))),
    });
    match found {
        Ok(Some((offset, Some(header)))) => {
            position.offset = offset + header.frame_len();
            Step::Frame(header, offset + HEADER_BYTES as u64)
        }
        Ok(Some((offset, None))) => {
            let skipped = offset - position.offset;
            position.offset = offset;
            Step::Damage(skipped)
        }
        Ok(None) => Step::End,
        // The rest of it is gone, and will not come back.
        Err(error) if error.is_lasting() => Step::End,
        Err(_) => Step::Unreadable,
    }
}

/// Visits the intact frames of segment `number` in order, each with the place of its payload. Returns whether all of it
/// could be read.
pub(super) fn walk(store: &mut Segments, number: u32, visit: impl FnMut(&Header, u64)) -> bool {
    walk_past(store, number, visit, |_| {})
}

/// As [`walk`], and tells the length of each run of bytes that are no frame.
pub(super) fn walk_past(
    store: &mut Segments,
    number: u32,
    mut visit: impl FnMut(&Header, u64),
    mut damaged: impl FnMut(u64),
) -> bool {
    let mut position = Position::start_of(number);
    let mut last = None;
    loop {
        match step(store, &mut position) {
            Step::Frame(header, payload_offset) if follows(header.seq, last) => {
                last = Some(header.seq);
                visit(&header, payload_offset);
            }
            Step::Damage(bytes) => damaged(bytes),
            Step::Frame(..) => {}
            Step::End => return true,
            Step::Unreadable => return false,
        }
    }
}

fn frame_at(store: &mut Segments, position: Position, len: u64) -> Result<Option<Header>, StoreError> {
    if position.offset + HEADER_BYTES as u64 > len {
        return Ok(None);
    }
    let mut bytes = [0; HEADER_BYTES];
    store.read_ahead(position.segment, &mut bytes, position.offset)?;
    Ok(Header::decode(&bytes).filter(|header| {
        header.seq.segment() == position.segment && position.offset + header.frame_len() <= len
    }))
}

fn next_frame(store: &mut Segments, from: Position, len: u64) -> Result<Option<u64>, StoreError> {
    let mut offset = from.offset + 1;
    let mut bytes = Vec::new();
    while offset + HEADER_BYTES as u64 <= len {
        let step =
            usize::try_from(len - offset).map_or(SEARCH_STEP_BYTES, |left| left.min(SEARCH_STEP_BYTES));
        bytes.resize(step, 0);
        store.read(from.segment, &mut bytes, offset)?;
        for at in positions_of_magic(&bytes) {
            let found = Position { segment: from.segment, offset: offset + at as u64 };
            if frame_at(store, found, len)?.is_some() {
                return Ok(Some(found.offset));
            }
        }
        // A magic may straddle two steps.
        offset += step.saturating_sub(MAGIC.len() - 1).max(1) as u64;
    }
    Ok(None)
}

fn positions_of_magic(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    bytes.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC).map(|(at, _)| at)
}

/// Whether `seq` can follow `last` in a segment.
pub(super) fn follows(seq: Seq, last: Option<Seq>) -> bool {
    last.is_none_or(|last| seq > last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::disk::RealDisk;
    use crate::queue::frame::sample;
    use crate::queue::state::State;

    fn written(frames: u32) -> (tempfile::TempDir, Vec<u64>) {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = Segments::open(Box::new(RealDisk), dir.path(), 0);
        store.begin(&State::default()).unwrap();
        let offsets = (0..frames)
            .map(|ordinal| {
                let mut bytes = sample(Seq::new(1, ordinal)).encode().to_vec();
                bytes.extend_from_slice(&[0xaa; 40]);
                store.append(&bytes, 1).unwrap()
            })
            .collect();
        (dir, offsets)
    }

    fn walk(dir: &tempfile::TempDir) -> (Vec<u32>, u64) {
        let (mut store, _) = Segments::open(Box::new(RealDisk), dir.path(), 0);
        let mut position = Position::start_of(1);
        let (mut ordinals, mut damaged) = (Vec::new(), 0);
        loop {
            match step(&mut store, &mut position) {
                Step::Frame(header, _) => ordinals.push(header.seq.ordinal()),
                Step::Damage(bytes) => damaged += bytes,
                Step::End | Step::Unreadable => return (ordinals, damaged),
            }
        }
    }

    fn edit(dir: &tempfile::TempDir, change: impl FnOnce(&mut Vec<u8>)) {
        let path = dir.path().join("0000000001.seg");
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_damaged_header_costs_its_own_frame_only() {
        let (dir, offsets) = written(5);
        edit(&dir, |bytes| bytes[offsets[2] as usize + 20] ^= 1);
        assert_eq!(walk(&dir), (vec![0, 1, 3, 4], HEADER_BYTES as u64 + 40));
    }

    #[test]
    fn a_torn_tail_ends_the_walk() {
        let (dir, offsets) = written(3);
        edit(&dir, |bytes| bytes.truncate(offsets[2] as usize + 60));
        assert_eq!(walk(&dir), (vec![0, 1], 0));
        edit(&dir, |bytes| bytes.truncate(offsets[1] as usize + HEADER_BYTES + 39));
        assert_eq!(walk(&dir), (vec![0], 0));
    }

    #[test]
    fn zeros_and_garbage_between_frames_are_stepped_over() {
        let (dir, offsets) = written(3);
        edit(&dir, |bytes| {
            let at = offsets[1] as usize;
            bytes.splice(at..at, vec![0; 200_000]);
        });
        assert_eq!(walk(&dir), (vec![0, 1, 2], 200_000));
    }

    #[test]
    fn frames_that_come_again_in_a_segment_are_visited_once() {
        let (dir, offsets) = written(3);
        edit(&dir, |bytes| {
            let again = bytes[offsets[1] as usize..].to_vec();
            bytes.extend_from_slice(&again);
        });
        let (mut store, _) = Segments::open(Box::new(RealDisk), dir.path(), 0);
        let mut ordinals = Vec::new();
        assert!(super::walk(&mut store, 1, |header, _| ordinals.push(header.seq.ordinal())));
        assert_eq!(ordinals, [0, 1, 2]);
    }

    #[test]
    fn an_empty_or_headless_file_yields_nothing() {
        let (dir, _) = written(1);
        edit(&dir, Vec::clear);
        assert_eq!(walk(&dir), (vec![], 0));
    }
}
