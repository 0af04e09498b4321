//! Reading a body within bounds.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::Limits;

/// What is set aside for a body before its first byte has come, at most. A `Content-Length` is a claim.
const FIRST_ROOM_MAX_BYTES: usize = 64 * 1024;

/// The memory that all bodies share.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// One permit per byte.
    free: Arc<Semaphore>,
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
    bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl Memory ===

impl Memory {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { free: Arc::new(Semaphore::new(limits.memory_max_bytes.min(Semaphore::MAX_PERMITS))) }
    }

    /// Reads `body` to its end.
    pub(super) async fn take(&self, body: &mut Incoming, limits: &Limits) -> Result<Bytes, Refusal> {
        // Exact where there is a Content-Length, absent where the body is chunked.
        let declared = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if declared.is_some_and(|length| length > limits.body_max_bytes) {
            return Err(Refusal::TooLong);
        }
        let mut held = Held::default();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Refusal::Broken)?;
            // The other kind is trailers, which say nothing here.
            let Ok(data) = frame.into_data() else { continue };
            let length = held.bytes.len().saturating_add(data.len());
            if length > limits.body_max_bytes {
                return Err(Refusal::TooLong);
            }
            if length > held.bytes.capacity() {
                let most = declared.unwrap_or(limits.body_max_bytes);
                held.grow(&self.free, length, most)?;
            }
            held.bytes.extend_from_slice(&data);
        }
        Ok(Bytes::from_owner(held))
    }
}

// === impl Held ===

impl Held {
    /// Makes room for `least` bytes: twice the present room if that is allowed and free, else exactly these.
    fn grow(&mut self, free: &Arc<Semaphore>, least: usize, most: usize) -> Result<(), Refusal> {
        let wanted = self.bytes.capacity().saturating_mul(2).max(FIRST_ROOM_MAX_BYTES).min(most).max(least);
        self.grow_to(free, wanted).or_else(|_| self.grow_to(free, least))
    }

    fn grow_to(&mut self, free: &Arc<Semaphore>, capacity: usize) -> Result<(), Refusal> {
        let more = capacity.saturating_sub(self.bytes.capacity());
        let permits = u32::try_from(more).map_err(|_| Refusal::NoMemory)?;
        let room = free.clone().try_acquire_many_owned(permits).map_err(|_| Refusal::NoMemory)?;
        let additional = capacity.saturating_sub(self.bytes.len());
        self.bytes.try_reserve_exact(additional).map_err(|_| Refusal::NoMemory)?;
        match &mut self.room {
            Some(held) => held.merge(room),
            None => self.room = Some(room),
        }
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
