//! What became of one signal's records, in numbers.

use super::bytes::Fields;
use super::ledger::Reason;

/// Records by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Taken in.
    pub received: u64,
    /// The backend has them.
    pub delivered: u64,
    /// The fallback has them.
    pub handed: u64,
    /// Given up, in the order of [`Reason::ALL`].
    pub dropped: [u64; Reason::ALL.len()],
}

impl Totals {
    /// Counts on disk: drops for later reasons stand elsewhere.
    const STORED: usize = 3 + Reason::FIRST;
    /// Bytes on disk.
    pub(super) const BYTES: usize = Self::STORED * 8;

    fn counts(&mut self) -> impl Iterator<Item = &mut u64> {
        [&mut self.received, &mut self.delivered, &mut self.handed].into_iter().chain(&mut self.dropped)
    }

    /// What is more than in `other`.
    pub(super) fn less(mut self, other: &Self) -> Self {
        let mut other = *other;
        for (count, other) in self.counts().zip(other.counts()) {
            *count = count.saturating_sub(*other);
        }
        self
    }

    pub(super) fn add(&mut self, other: &Self) {
        let mut other = *other;
        for (count, other) in self.counts().zip(other.counts()) {
            *count = count.saturating_add(*other);
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let mut own = *self;
        for count in own.counts().take(Self::STORED) {
            out.extend_from_slice(&count.to_le_bytes());
        }
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let mut totals = Self::default();
        for count in totals.counts().take(Self::STORED) {
            *count = fields.u64()?;
        }
        Some(totals)
    }
}
