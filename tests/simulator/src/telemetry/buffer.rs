//! The buffer in front of one subscriber. Pure: the time is passed in.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::event::Event;
use crate::options::Schema;
use crate::subscription::Buffering;

/// Events that wait for their batch.
#[derive(Debug)]
pub(crate) struct Buffer {
    limits: Buffering,
    schema: Schema,
    waiting: VecDeque<(Arc<Event>, Instant)>,
    bytes: usize,
    flush: bool,
}

impl Buffer {
    pub(crate) fn new(limits: Buffering, schema: Schema) -> Self {
        Self { limits, schema, waiting: VecDeque::new(), bytes: 0, flush: false }
    }

    pub(crate) fn push(&mut self, event: Arc<Event>, now: Instant) {
        self.bytes += event.size(self.schema);
        self.waiting.push_back((event, now));
    }

    /// Makes whatever waits due at once.
    pub(crate) fn flush(&mut self) {
        self.flush = !self.waiting.is_empty();
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= self.limits.max_items || self.bytes >= self.limits.max_bytes
    }

    /// When the next batch is due; `None` while nothing waits.
    pub(crate) fn due_at(&self, now: Instant) -> Option<Instant> {
        let (_, since) = self.waiting.front()?;
        Some(if self.flush || self.is_full() { now } else { *since + self.limits.timeout })
    }

    /// The next batch: up to the limits, and including the event that goes over `maxBytes`. Of a record that is to be
    /// cut only the rest counts, since its pieces travel in bodies of their own.
    pub(crate) fn take(&mut self) -> Vec<Arc<Event>> {
        let (mut batch, mut taken) = (Vec::new(), 0);
        while batch.len() < self.limits.max_items && taken < self.limits.max_bytes {
            let Some((event, _)) = self.waiting.pop_front() else { break };
            let size = event.size(self.schema);
            taken += if event.raw(self.schema).len() > self.limits.max_bytes {
                size % self.limits.max_bytes
            } else {
                size
            };
            self.bytes = self.bytes.saturating_sub(size);
            batch.push(event);
        }
        self.flush &= !self.waiting.is_empty();
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn event(length: usize) -> Arc<Event> {
        let record = format!("\"{}\"", "x".repeat(length)).into();
        Arc::new(Event { id: 0, time: String::new(), kind: "function".into(), record, legacy: None })
    }

    fn buffer(max_items: usize, max_bytes: usize) -> Buffer {
        let limits = Buffering { max_items, max_bytes, timeout: Duration::from_millis(25) };
        Buffer::new(limits, Schema::V20250129)
    }

    #[test]
    fn a_batch_is_due_after_the_timeout_of_its_oldest_event() {
        let (mut buffer, now) = (buffer(10, 1_000), Instant::now());
        assert_eq!(buffer.due_at(now), None);
        buffer.push(event(1), now);
        buffer.push(event(1), now + Duration::from_millis(20));
        assert_eq!(buffer.due_at(now), Some(now + Duration::from_millis(25)));
        buffer.flush();
        assert_eq!(buffer.due_at(now), Some(now));
        assert_eq!(buffer.take().len(), 2);
        assert_eq!(buffer.due_at(now), None);
    }

    #[test]
    fn items_and_bytes_make_a_batch_due_at_once() {
        let now = Instant::now();
        let mut by_items = buffer(2, 1_000_000);
        (0..3).for_each(|_| by_items.push(event(1), now));
        assert_eq!(by_items.due_at(now), Some(now));
        assert_eq!(by_items.take().len(), 2);
        assert_eq!(by_items.due_at(now), Some(now + Duration::from_millis(25)));
        let mut by_bytes = buffer(100, 300);
        (0..4).for_each(|_| by_bytes.push(event(200), now));
        assert_eq!(by_bytes.take().len(), 2, "the event that goes over the limit is included");
    }
}
