//! What goes into the queue and what comes out of it.

use super::frame::{HEADER_BYTES, Header, Kind, Seq};
use super::segments::StoreError;
use super::state::Mark;
use crate::Signal;
use std::ops::Range;
use thiserror::Error;

/// What gives way when the queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest records go (a segment at a time), so that what happens now is kept.
    #[default]
    DropOldest,
    /// New deliveries are turned away, so that the beginning of the outage is kept.
    DropNewest,
    /// The least severe records go, the oldest of them first.
    Shed,
}

impl Overflow {
    /// The name used in the setting.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DropOldest => "drop-oldest",
            Self::DropNewest => "drop-newest",
            Self::Shed => "shed",
        }
    }
}

/// Sizes the queue keeps to, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// On disk, everything counted (`OUTLAST_QUEUE_MAX_BYTES`).
    pub max_bytes: u64,
    /// A segment is closed when the next append would make it longer.
    pub segment_bytes: u64,
    /// Memory that stands in for the disk while that takes nothing.
    pub memory_max_bytes: u64,
    /// What gives when the budget is used up.
    pub overflow: Overflow,
}

impl Limits {
    /// Segments are a sixteenth of the budget, so that making room gives up little at a time, within these.
    const SEGMENT_BYTES: Range<u64> = 128 << 10..4 << 20;
    /// Some 15 MB of logs: what an ordinary function says while its disk is full for a short time. Never more than the
    /// disk may hold.
    const MEMORY_MAX_BYTES: u64 = 4 << 20;

    /// From three quarters of the budget on the fallback gets the oldest. What is left is four segments of the default
    /// budget, two of the smallest, so that one can be emptied and removed before another has to be dropped.
    const NEARLY_FULL_QUARTERS: u64 = 3;

    /// From here on the queue is nearly full, in bytes.
    pub(super) fn nearly_full_bytes(&self) -> u64 {
        self.max_bytes / 4 * Self::NEARLY_FULL_QUARTERS
    }

    /// From seven eighths on the fallback gets the oldest whatever the backend does: what is left is two segments of the
    /// default budget, and less than two deliveries of the smallest.
    const BRIMMING_EIGHTHS: u64 = 7;

    /// From here on the next delivery may cost something, in bytes.
    pub(super) fn brimming_bytes(&self) -> u64 {
        self.max_bytes / 8 * Self::BRIMMING_EIGHTHS
    }

    /// What is kept free of the budget so that a long segment can be written anew: a quarter is enough for a delivery of
    /// a megabyte, deflated, in the smallest budget. Of one that is longer still the oldest go instead.
    const KEPT_FREE_DIVISOR: u64 = 4;

    /// No more than this is kept free, in bytes.
    pub(super) fn kept_free_max_bytes(&self) -> u64 {
        self.max_bytes / Self::KEPT_FREE_DIVISOR
    }

    /// Limits for a budget of `max_bytes`.
    pub fn new(max_bytes: u64, overflow: Overflow) -> Self {
        let segment_bytes = (max_bytes / 16).clamp(Self::SEGMENT_BYTES.start, Self::SEGMENT_BYTES.end);
        let memory_max_bytes = Self::MEMORY_MAX_BYTES.min(max_bytes);
        Self { max_bytes, segment_bytes, memory_max_bytes, overflow }
    }
}

/// A block to be appended: records that are encoded and deflated.
#[derive(Clone, Debug)]
pub struct NewBlock {
    /// What the payload is.
    pub kind: Kind,
    /// The signal of the records.
    pub signal: Signal,
    /// Wire format of the payload.
    pub format: u8,
    /// Severity of the gravest record (OpenTelemetry's number), 0 if unknown; see [`NewBlock::classify`].
    pub severity: u8,
    /// How many of the delivery's events this signal's blocks cover, up to and with this one.
    pub events_end: u32,
    /// Records in the payload.
    pub records: u32,
    /// Length of the payload once inflated, in bytes.
    pub plain_len: u32,
    /// CRC-32 of the inflated payload.
    pub plain_crc: u32,
    /// Earliest and latest record time, Unix nanoseconds.
    pub times: (u64, u64),
    /// Deflated by [`Deflater`](super::Deflater).
    pub payload: Vec<u8>,
}

/// The blocks of one delivery, appended together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Hash of the request body.
    pub delivery: u128,
    /// When it came, Unix nanoseconds.
    pub received: u64,
    /// Blocks of the delivery that are on disk already, from an attempt that was cut short.
    pub parts_before: u16,
    /// In the order they are to be sent.
    pub blocks: Vec<NewBlock>,
}

impl Batch {
    /// Bytes of its frames.
    pub(super) fn size(&self) -> u64 {
        self.blocks.iter().map(|block| (HEADER_BYTES + block.payload.len()) as u64).sum()
    }
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// On disk.
    OnDisk,
    /// In memory: the disk takes nothing at the moment.
    InMemory,
    /// Given up and counted: the queue is full and keeps what it has.
    Dropped,
}

/// Why a batch was not kept.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Neither the disk nor the memory in its stead has room.
    #[error("neither disk nor memory has room")]
    NoRoom,
}

/// What [`Queue::open`](super::Queue::open) found.
#[derive(Debug, Default)]
pub struct Opened {
    /// The directory cannot be used.
    pub problem: Option<StoreError>,
    /// Bytes of segments that were there.
    pub bytes: u64,
    /// Segments that were there.
    pub segments: usize,
}

/// What a signal has waiting, flights included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Blocks.
    pub blocks: u64,
    /// Records of the user's.
    pub records: u64,
    /// Bytes as they will be sent before compression.
    pub plain_bytes: u64,
}

/// The oldest block of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oldest {
    /// Its place in the queue.
    pub seq: Seq,
    /// Its records that are not done.
    pub records: u32,
    /// Its plain bytes.
    pub plain_bytes: u32,
    /// When it was received, Unix nanoseconds.
    pub received: u64,
}

impl Waiting {
    pub(super) fn add(&mut self, header: &Header) {
        self.blocks += 1;
        self.records += header.user_records();
        self.plain_bytes += u64::from(header.plain_len);
    }

    pub(super) fn take(&mut self, header: &Header) {
        self.blocks = self.blocks.saturating_sub(1);
        self.records = self.records.saturating_sub(header.user_records());
        self.plain_bytes = self.plain_bytes.saturating_sub(u64::from(header.plain_len));
    }
}

/// How a request body is to be packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// One gzip member.
    Gzip,
    /// Not compressed.
    Identity,
}

/// A request body and what it holds.
#[derive(Debug)]
pub struct Request {
    /// The signal of the records.
    pub signal: Signal,
    /// The body.
    pub body: Vec<u8>,
    /// How it is packed.
    pub encoding: Encoding,
    /// Handed to [`Queue::done`](super::Queue::done) or [`Queue::refuse`](super::Queue::refuse) once its fate is known.
    pub to: Mark,
    /// Blocks in it.
    pub blocks: u32,
    /// Records in it, reports of ours included.
    pub records: u32,
    /// Those of the records that are reports of ours.
    pub reports: u32,
    /// Plain bytes in it.
    pub plain_bytes: u64,
    /// If it is only a part of one block: which of the block's records.
    pub part: Option<Range<u32>>,
    /// The block that was the oldest when it was put together.
    pub head: Seq,
    /// When the first of its blocks was received, Unix nanoseconds.
    pub received: u64,
    /// The queue it comes from, see [`State::queue_id`](super::State::queue_id).
    pub queue_id: u128,
}
