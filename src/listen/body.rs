//! Reading a body within bounds.
//!
//! A long body lies in memory mapped for it alone: pages come as bytes arrive, nothing is copied as it grows, and all of it
//! goes back to the system at the end. The allocator would keep what it has once been given: after the first
//! burst the process would stay as large as the burst.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use memmap2::MmapMut;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::connection::Progress;
use super::limits::Limits;
use super::roster::Roster;

/// Up to this length a body lies on the heap. What Lambda sends most of the time is shorter, and mapping memory costs
/// some microseconds.
const HEAP_MAX_BYTES: usize = 64 * 1024;
/// A longer body is read only when no other such one is. What Lambda documents is not longer.
const LONG_MIN_BYTES: usize = 2 * 1024 * 1024;
/// Memory is set aside in steps of this: what has arrived counts, for a `Content-Length` is a claim.
const ROOM_STEP_BYTES: usize = 64 * 1024;

/// Who waits for memory looks for a peer that has stalled so often, in milliseconds.
const MEMORY_LOOK_MS: u64 = 50;

/// The memory that all bodies share.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// One permit per byte.
    free: Arc<Semaphore>,
    /// The turn of reading a long body. Several at once would take the memory from one another, and none would end.
    turn: Arc<Semaphore>,
    roster: Arc<Roster>,
}

/// Why a body was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is longer than the limit.
    TooLong,
    /// There is no memory for it now.
    NoMemory,
    /// The connection broke, or the chunks make no sense.
    Broken,
}

/// A body and the permits for the memory it takes; they go together.
#[derive(Debug, Default)]
struct Held {
    bytes: Plain,
    room: Option<OwnedSemaphorePermit>,
}

/// Where a body lies.
#[derive(Debug)]
enum Plain {
    Heap(Vec<u8>),
    /// The memory, and how much of it is filled.
    Mapped(MmapMut, usize),
}

impl Default for Plain {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        match &self.bytes {
            Plain::Heap(bytes) => bytes,
            Plain::Mapped(map, length) => map.get(..*length).unwrap_or_default(),
        }
    }
}

// === impl Memory ===

impl Memory {
    pub(super) fn new(limits: &Limits, roster: Arc<Roster>) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limits.memory_max_bytes.min(Semaphore::MAX_PERMITS))),
            turn: Arc::new(Semaphore::new(1)),
            roster,
        }
    }

    /// Reads `body` to its end, noting in `progress` what is held of it.
    pub(super) async fn take(
        &self,
        body: &mut Incoming,
        limits: &Limits,
        progress: &Progress,
    ) -> Result<Bytes, Refusal> {
        // Exact where there is a Content-Length, absent where the body is chunked.
        let declared = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if declared.is_some_and(|length| length > limits.body_max_bytes) {
            return Err(Refusal::TooLong);
        }
        let most = declared.unwrap_or(limits.body_max_bytes);
        let mut held = Held::default();
        let mut turn = None;
        if declared.is_some_and(|length| length > LONG_MIN_BYTES) {
            turn = Some(self.take_turn(0, limits, progress).await?);
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::Broken)?;
            // The other kind is trailers, which say nothing here.
            let Ok(data) = frame.into_data() else { continue };
            let length = held.len().saturating_add(data.len());
            if length > limits.body_max_bytes {
                return Err(Refusal::TooLong);
            }
            if length > LONG_MIN_BYTES && turn.is_none() {
                turn = Some(self.take_turn(held.len(), limits, progress).await?);
            }
            self.make_room(&mut held, length, most, limits, progress).await?;
            held.push(&data, most)?;
        }
        Ok(Bytes::from_owner(held))
    }

    /// Waits for the turn to read a long body, of which so much is held.
    async fn take_turn(
        &self,
        held: usize,
        limits: &Limits,
        progress: &Progress,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        progress.holds(None);
        let turn = self.wait_for(&self.turn, 1, held, limits).await?;
        progress.holds(Some(held));
        Ok(turn)
    }

    /// Sets memory aside for `length` bytes of a body that has `most`: a step more if that is free, else exactly these,
    /// for which another unfinished body may have to go.
    async fn make_room(
        &self,
        held: &mut Held,
        length: usize,
        most: usize,
        limits: &Limits,
        progress: &Progress,
    ) -> Result<(), Refusal> {
        let now = held.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if length <= now {
            return Ok(());
        }
        let more = |wanted: usize| u32::try_from(wanted.saturating_sub(now)).map_err(|_| Refusal::NoMemory);
        let wanted = now.saturating_add(ROOM_STEP_BYTES).min(most).max(length);
        let room = if let Ok(room) = self.free.clone().try_acquire_many_owned(more(wanted)?) {
            room
        } else {
            progress.holds(None);
            self.wait_for(&self.free, more(length)?, now, limits).await?
        };
        match &mut held.room {
            Some(held) => held.merge(room),
            None => held.room = Some(room),
        }
        progress.holds(Some(length));
        Ok(())
    }

    /// Waits for what others hold, and closes those whose peers have stalled. Who holds more waits for longer, so that not all give up at once.
    async fn wait_for(
        &self,
        wanted: &Arc<Semaphore>,
        permits: u32,
        held: usize,
        limits: &Limits,
    ) -> Result<OwnedSemaphorePermit, Refusal> {
        let sixteenths = held.saturating_mul(16) / limits.body_max_bytes.max(1);
        let more = limits.memory_wait / 32 * u32::try_from(sixteenths.min(16)).unwrap_or(16);
        let until = Instant::now() + limits.memory_wait / 2 + more;
        while Instant::now() < until {
            let got = wanted.clone().acquire_many_owned(permits);
            match timeout(Duration::from_millis(MEMORY_LOOK_MS), got).await {
                Ok(Ok(room)) => return Ok(room),
                Ok(Err(_)) => break,
                Err(_) => self.roster.make_memory(Instant::now()),
            }
        }
        Err(Refusal::NoMemory)
    }
}

// === impl Held ===

impl Held {
    fn len(&self) -> usize {
        match &self.bytes {
            Plain::Heap(bytes) => bytes.len(),
            Plain::Mapped(_, length) => *length,
        }
    }

    /// Appends `data`; in all it will be `most` bytes.
    fn push(&mut self, data: &[u8], most: usize) -> Result<(), Refusal> {
        let end = self.len().saturating_add(data.len());
        if let Plain::Heap(bytes) = &mut self.bytes {
            if end <= HEAP_MAX_BYTES {
                bytes.try_reserve(data.len()).map_err(|_| Refusal::NoMemory)?;
                bytes.extend_from_slice(data);
                return Ok(());
            }
            // Address space only, until something is written to it.
            let mut map = MmapMut::map_anon(most.max(end)).map_err(|_| Refusal::NoMemory)?;
            map.get_mut(..bytes.len()).ok_or(Refusal::NoMemory)?.copy_from_slice(bytes);
            self.bytes = Plain::Mapped(map, bytes.len());
        }
        let Plain::Mapped(map, length) = &mut self.bytes else { return Err(Refusal::NoMemory) };
        map.get_mut(*length..end).ok_or(Refusal::NoMemory)?.copy_from_slice(data);
        *length = end;
        Ok(())
    }
}

/// Reads on and throws away, so that a refused sender gets to its end and sees the answer. True if it did
/// within the limit, and the connection can be used again.
pub(super) async fn discard(body: &mut Incoming, limits: &Limits) -> bool {
    let mut left = limits.discard_max_bytes;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}
