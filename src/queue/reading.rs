//! Reading from segments, files and memory alike.

use super::disk::DiskFile;
use super::segments::{Place, Segments, StoreError};

/// Open files kept for reading: one for each signal's place in the queue.
const OPEN_READERS_MAX: usize = 3;
/// Read at a time while frames are walked: a score of small frames for one call, and little to copy in vain
/// where frames are large.
const READ_AHEAD_BYTES: u64 = 16 << 10;
/// Bytes read ahead. Frames never change, so neither do these.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    pub(super) number: u32,
    offset: u64,
    bytes: Vec<u8>,
}

impl Ahead {
    fn copy_to(&self, number: u32, buf: &mut [u8], offset: u64) -> bool {
        let found = (number == self.number)
            .then(|| offset.checked_sub(self.offset))
            .flatten()
            .and_then(|start| self.bytes.get(usize::try_from(start).ok()?..)?.get(..buf.len()));
        found.map(|bytes| buf.copy_from_slice(bytes)).is_some()
    }
}

impl Segments {
    /// Reads from a segment, and a little more for the next call.
    ///
    /// # Errors
    /// As [`Segments::read`].
    pub(super) fn read_ahead(&mut self, number: u32, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
        if self.ahead.copy_to(number, buf, offset) {
            return Ok(());
        }
        let left = self.len(number).ok_or(StoreError::Missing(number))?.saturating_sub(offset);
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.bytes.resize(left.min(READ_AHEAD_BYTES) as usize, 0);
        if self.read(number, &mut ahead.bytes, offset).is_err() {
            return self.read(number, buf, offset);
        }
        self.ahead = Ahead { number, offset, bytes: ahead.bytes };
        if self.ahead.copy_to(number, buf, offset) { Ok(()) } else { Err(StoreError::Missing(number)) }
    }

    /// Reads from a segment.
    ///
    /// # Errors
    /// [`StoreError::Missing`] beyond its end, [`StoreError::Io`] if the file cannot be read.
    pub(super) fn read(&mut self, number: u32, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let segment = self.by_number.get(&number).ok_or(StoreError::Missing(number))?;
        let end = offset.checked_add(buf.len() as u64).ok_or(StoreError::Missing(number))?;
        if end > segment.len {
            return Err(StoreError::Missing(number));
        }
        if let Place::Memory(bytes) = &segment.place {
            let found = usize::try_from(offset)
                .ok()
                .and_then(|start| bytes.get(start..)?.get(..buf.len()))
                .ok_or(StoreError::Missing(number))?;
            buf.copy_from_slice(found);
            return Ok(());
        }
        if let Some(file) =
            self.active.as_ref().filter(|active| active.number == number).and_then(|a| a.file.as_ref())
        {
            return Ok(file.read_exact_at(buf, offset)?);
        }
        if let Some((_, file)) = self.readers.iter().find(|(open, _)| *open == number) {
            return Ok(file.read_exact_at(buf, offset)?);
        }
        let file = self.disk.open(&self.path(number))?;
        file.read_exact_at(buf, offset)?;
        self.keep_reader(number, file);
        Ok(())
    }

    pub(super) fn keep_reader(&mut self, number: u32, file: Box<dyn DiskFile>) {
        if self.readers.len() == OPEN_READERS_MAX {
            self.readers.remove(0);
        }
        self.readers.push((number, file));
    }
}
