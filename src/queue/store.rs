//! [`Queue`]: segments, lanes, state and budget put together. The contract is in the module above.
//! Here is how it opens, appends and keeps to its budget; `send` puts requests together, `fate` settles them.

use super::deliveries::{Deliveries, Progress};
use super::disk::Disk;
use super::frame::{HEADER_BYTES, Header, Kind, Seq};
use super::index::{Entry, Index, SegmentRow};
use super::lane::Lane;
use super::ledger::{Ledger, Reason, Tally};
use super::scan::{Position, Step, step};
use super::segments::{Segments, StoreError};
use super::state::{FRAMES_START, Mark, State};
use super::types::{AppendError, Appended, Batch, Limits, Oldest, Opened, Overflow, Waiting};
use crate::{PerSignal, Signal};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

/// Segments whose frames are read at open, newest first, for the deliveries they name: what Lambda may repeat
/// came last. The others are counted when there is time.
const SEGMENTS_READ_AT_OPEN: usize = 2;
/// Where the index lives, below the queue's directory.
const INDEX_DIRECTORY: &str = "index";
/// What a segment still has waiting, by signal, in whole blocks.
pub(super) type Remaining = PerSignal<Waiting>;

/// The queue of one directory. Owned by one thread.
pub struct Queue {
    pub(super) store: Segments,
    pub(super) state: State,
    pub(super) lanes: PerSignal<Lane>,
    pub(super) remaining: BTreeMap<u32, Remaining>,
    pub(super) deliveries: Deliveries,
    pub(super) limits: Limits,
    /// What was written to the active segment, for the index.
    written: Remaining,
    /// Segments whose count was taken from the index and is to be made sure of before they go.
    pub(super) unverified: BTreeSet<u32>,
    pub(super) index: Option<Index>,
    pub(super) degraded: bool,
}

impl Queue {
    /// Opens the queue in `dir`. Never fails: see [`Opened::problem`]. `queue_id` is used if there is none yet.
    pub fn open(disk: Box<dyn Disk>, dir: &Path, limits: Limits, queue_id: u128) -> (Self, Opened) {
        let (mut store, problem) = Segments::open(disk, dir, limits.memory_max_bytes);
        let opened = Opened { problem, bytes: store.disk_bytes(), segments: store.all().count() };
        let state = newest_state(&mut store, queue_id);
        for (_, mark) in state.marks.iter() {
            store.number_at_least(mark.seq.segment().saturating_add(1));
        }
        let first = store.first_from(0).unwrap_or(1);
        let lanes = PerSignal::from_fn(|signal| Lane::new(signal, Position::start_of(first)));
        let mut queue = Self {
            store,
            state,
            lanes,
            remaining: BTreeMap::new(),
            deliveries: Deliveries::default(),
            limits,
            written: Remaining::default(),
            unverified: BTreeSet::new(),
            index: None,
            degraded: false,
        };
        queue.read_newest();
        (queue, opened)
    }

    /// Puts an index beside the segments in `dir`. It is not waited for: see [`Queue::consult_index`].
    pub fn attach_index(&mut self, dir: &Path) {
        self.index = Some(Index::new(dir.join(INDEX_DIRECTORY)));
    }

    /// Notes what the newest segments say of deliveries, reports and fragments.
    fn read_newest(&mut self) {
        let mut newest: Vec<u32> =
            self.store.all().rev().take(SEGMENTS_READ_AT_OPEN).map(|(number, _)| number).collect();
        newest.reverse();
        let mut fragment = self.state.fragment;
        let mut joins = Vec::new();
        for number in newest {
            for header in self.count(number) {
                self.deliveries.note(&header);
                match header.kind {
                    Kind::Report(tally) if header.seq > self.state.reported => {
                        self.state.ledger.report(tally);
                        self.state.reported = header.seq;
                    }
                    Kind::Fragment if header.seq > fragment => fragment = header.seq,
                    Kind::Block { joins: Some(seq) } => joins.push((seq, header.delivery)),
                    _ => {}
                }
            }
        }
        let joined = joins.iter().any(|(seq, delivery)| {
            *seq == fragment && self.deliveries.get(*delivery).is_some_and(|progress| progress.is_whole())
        });
        self.state.fragment = if joined { Seq::default() } else { fragment };
    }

    /// Counts what waits in segment `number` by walking its frames, and returns their headers.
    pub(super) fn count(&mut self, number: u32) -> Vec<Header> {
        let mut remaining = Remaining::default();
        let mut headers = Vec::new();
        let mut position = Position::start_of(number);
        loop {
            match step(&mut self.store, &mut position) {
                Step::Frame(header, _) => {
                    let mark = *self.state.marks.get(header.signal);
                    if header.kind != Kind::Fragment && header.seq > mark.seq {
                        remaining.get_mut(header.signal).add(&header);
                    }
                    headers.push(header);
                }
                Step::Damage(_) => {}
                Step::End => break,
            }
        }
        self.unverified.remove(&number);
        self.remaining.insert(number, remaining);
        headers
    }

    /// Counts one segment that was not counted yet, oldest first. Returns whether there was one: call again
    /// until there is none, when nothing else is to be done.
    pub fn count_one(&mut self) -> bool {
        let next = self.store.all().map(|(n, _)| n).find(|number| !self.remaining.contains_key(number));
        let Some(number) = next else { return false };
        for header in self.count(number) {
            if self.deliveries.get(header.delivery).is_none() {
                self.deliveries.note(&header);
            }
        }
        self.retire();
        true
    }

    /// What the queue has of the delivery with this hash.
    pub fn known(&self, delivery: u128) -> Option<Progress> {
        self.deliveries.get(delivery)
    }

    /// What was given up so far.
    pub fn ledger(&self) -> &Ledger {
        &self.state.ledger
    }

    /// Whether the disk takes nothing at the moment and memory stands in for it.
    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Bytes on disk, everything counted.
    pub fn disk_bytes(&self) -> u64 {
        let index = self.index.as_ref().map_or(0, Index::bytes);
        self.store.disk_bytes().saturating_add(index)
    }

    pub(super) fn note(&mut self, entry: Entry) {
        if let Some(index) = &mut self.index {
            index.note(entry);
        }
    }

    /// Takes over what the index knows, once it has opened. Call now and then until it returns true: nothing
    /// is missing before, but counts may be incomplete and a repeat may go unnoticed.
    pub fn consult_index(&mut self) -> bool {
        self.consult_index_within(Duration::ZERO)
    }

    /// [`consult_index`](Self::consult_index), waiting for the index to open at most so long.
    pub fn consult_index_within(&mut self, wait: Duration) -> bool {
        let Some(index) = &mut self.index else { return true };
        let Some(found) = index.take_found(wait) else { return !index.is_opening() };
        log::debug!("index: open, {} deliveries in it", found.deliveries.len());
        // What was not flushed before a SIGKILL is known from the segments alone, until those are removed.
        let flushed: HashSet<u128> = found.deliveries.iter().copied().collect();
        for delivery in self.deliveries.all().filter(|delivery| !flushed.contains(delivery)) {
            index.note(Entry::Delivery(delivery));
        }
        for delivery in found.deliveries {
            if self.deliveries.get(delivery).is_none() {
                self.deliveries.note_whole(delivery);
            }
        }
        if let Some(state) = found.state.filter(|state| state.queue_id == self.state.queue_id) {
            self.catch_up_with(&state);
        }
        // With the state the deliveries are flushed; the next delivery to the backend may be a long time off.
        self.note(Entry::State(Box::new(self.state)));
        for (number, row) in found.segments {
            // A mark within the segment or past it: only its frames tell what waits.
            let untouched = self.state.marks.iter().all(|(_, mark)| mark.seq.segment() < number);
            if untouched && self.store.len(number) == Some(row.len) && !self.remaining.contains_key(&number) {
                self.remaining.insert(number, row.written);
                self.unverified.insert(number);
            }
        }
        true
    }

    /// The index may have seen what could not be written into a segment.
    fn catch_up_with(&mut self, state: &State) {
        let ours = self.store.position().map_or(u32::MAX, |(number, _)| number);
        for (signal, mark) in state.marks.iter() {
            if *mark > *self.state.marks.get(signal) && mark.seq.segment() < ours && !self.in_flight(signal) {
                self.advance(signal, *mark);
            }
        }
    }

    /// The queue's state, for the index beside it.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What `signal` has waiting in the segments counted so far.
    pub fn waiting(&self, signal: Signal) -> Waiting {
        let mut sum = Waiting::default();
        for remaining in self.remaining.values() {
            let waiting = remaining.get(signal);
            sum.blocks += waiting.blocks;
            sum.records += waiting.records;
            sum.plain_bytes += waiting.plain_bytes;
        }
        // Of the block that is sent in parts, some records are done.
        sum.records = sum.records.saturating_sub(u64::from(self.state.marks.get(signal).records));
        sum
    }

    /// The oldest block of `signal` that is not done; `None` if none waits.
    pub fn oldest(&mut self, signal: Signal) -> Option<Oldest> {
        let done = self.state.marks.get(signal).records;
        let header = self.fill(signal).head()?.header;
        Some(Oldest {
            seq: header.seq,
            records: header.records.saturating_sub(done),
            plain_bytes: header.plain_len,
            received: header.received,
        })
    }

    /// Whether a request of `signal` is in flight.
    pub fn in_flight(&self, signal: Signal) -> bool {
        self.lanes.get(signal).flight.is_some()
    }

    pub(super) fn fill(&mut self, signal: Signal) -> &mut Lane {
        let lane = self.lanes.get_mut(signal);
        lane.fill(&mut self.store, *self.state.marks.get(signal));
        lane
    }

    // === Appending ===

    /// Keeps a batch.
    ///
    /// # Errors
    /// [`AppendError::NoRoom`]: nothing of it is kept anywhere; the sender must keep it.
    pub fn append(&mut self, batch: &Batch) -> Result<Appended, AppendError> {
        if batch.blocks.is_empty() {
            self.deliveries.note_whole(batch.delivery);
            return Ok(Appended::OnDisk);
        }
        let size: u64 = batch.blocks.iter().map(|b| (HEADER_BYTES + b.payload.len()) as u64).sum();
        if !self.make_room(size) {
            self.turn_away(batch);
            return Ok(Appended::Dropped);
        }
        match self.write(batch, size) {
            Ok(()) => {}
            Err(error) => {
                self.degrade(&error);
                match self.write(batch, size) {
                    Ok(()) => {}
                    Err(_) => return Err(AppendError::NoRoom),
                }
            }
        }
        Ok(if self.degraded { Appended::InMemory } else { Appended::OnDisk })
    }

    fn write(&mut self, batch: &Batch, size: u64) -> Result<(), StoreError> {
        if !self.degraded {
            let full = self
                .store
                .active()
                .and_then(|n| self.store.len(n))
                .is_none_or(|len| len > FRAMES_START && len + size > self.limits.segment_bytes);
            if full {
                self.begin_segment()?;
            }
        }
        let (number, first) = self.store.position().ok_or(StoreError::Missing(0))?;
        let headers = headers_of(batch, number, first);
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        for (header, block) in headers.iter().zip(&batch.blocks) {
            bytes.extend_from_slice(&header.encode());
            bytes.extend_from_slice(&block.payload);
        }
        self.store.append(&bytes, headers.len() as u32)?;
        self.note(Entry::Delivery(batch.delivery));
        let remaining = self.remaining.entry(number).or_default();
        for header in &headers {
            self.deliveries.note(header);
            match header.kind {
                Kind::Fragment => {
                    self.state.fragment = header.seq;
                    continue;
                }
                Kind::Report(tally) => {
                    self.state.ledger.report(tally);
                    self.state.reported = header.seq;
                }
                Kind::Block { joins: Some(seq) } if seq == self.state.fragment => {
                    self.state.fragment = Seq::default();
                }
                Kind::Block { .. } => {}
            }
            remaining.get_mut(header.signal).add(header);
            self.written.get_mut(header.signal).add(header);
        }
        Ok(())
    }

    pub(super) fn begin_segment(&mut self) -> Result<(), StoreError> {
        let closed = self.store.active().and_then(|number| Some((number, self.store.len(number)?)));
        self.state.generation += 1;
        if self.degraded {
            self.store.begin_in_memory(&self.state);
        } else {
            self.store.begin(&self.state)?;
        }
        let written = std::mem::take(&mut self.written);
        if let Some((number, len)) = closed {
            self.note(Entry::Closed(number, SegmentRow { len, written }));
        }
        if let Some(number) = self.store.active() {
            self.remaining.insert(number, Remaining::default());
        }
        Ok(())
    }

    /// The directory cannot be used, as [`Opened::problem`] says: go on in memory without another word.
    pub fn stand_in(&mut self) {
        self.degraded = true;
        // In memory this cannot fail.
        drop(self.begin_segment());
    }

    /// The disk takes nothing: go on in memory.
    fn degrade(&mut self, error: &StoreError) {
        if self.degraded {
            return;
        }
        log::error!(
            "queue: the disk takes nothing ({error}): keeping up to {} bytes in memory, which a crash would lose, until it does",
            self.limits.memory_max_bytes
        );
        self.stand_in();
    }

    /// Tries to bring what is in memory to the disk. Call now and then while [`Queue::is_degraded`].
    pub fn try_disk(&mut self) -> bool {
        if !self.degraded {
            return true;
        }
        match self.store.move_to_disk() {
            Ok(()) => {
                self.degraded = false;
                log::warn!("queue: the disk takes data again; what was in memory is on disk");
                self.save_state();
                true
            }
            Err(_) => false,
        }
    }

    // === The budget ===

    /// Whether `size` more bytes fit, if need be by giving up the oldest segments.
    fn make_room(&mut self, size: u64) -> bool {
        let needed = size + FRAMES_START;
        if needed > self.limits.max_bytes {
            return false;
        }
        while !self.degraded && self.disk_bytes() + needed > self.limits.max_bytes {
            if self.limits.overflow == Overflow::DropNewest {
                return false;
            }
            if !self.drop_oldest() {
                // Nothing of ours is left to give up: the rest belongs to the index.
                break;
            }
        }
        true
    }

    fn turn_away(&mut self, batch: &Batch) {
        let mut dropped = 0;
        for (header, _) in headers_of(batch, 0, 0).iter().zip(&batch.blocks) {
            let tally = Tally {
                signal: header.signal,
                reason: Reason::OverflowNewest,
                records: header.user_records(),
            };
            dropped += tally.records;
            self.state.ledger.drop(tally);
            // Counted with what was to join it.
            if header.kind == (Kind::Block { joins: Some(self.state.fragment) }) {
                self.state.fragment = Seq::default();
            }
        }
        self.deliveries.note_whole(batch.delivery);
        self.save_state();
        log::warn!("queue full: {dropped} new records dropped");
    }

    /// Gives up the oldest segment. Returns whether there was one to give up.
    fn drop_oldest(&mut self) -> bool {
        let reason = Reason::Overflow;
        let Some(number) = self.store.first_from(0) else { return false };
        if self.store.active() == Some(number) {
            let empty = self.store.len(number).is_none_or(|len| len <= FRAMES_START);
            if empty || self.begin_segment().is_err() {
                return false;
            }
        }
        let headers = self.count(number);
        let mut total = 0;
        for signal in Signal::ALL {
            let dropped = self.drop_of(signal, number, &headers, reason);
            total += dropped;
        }
        if self.state.fragment.segment() == number && self.state.fragment != Seq::default() {
            self.state.ledger.drop(Tally { signal: Signal::Logs, reason, records: 1 });
            self.state.fragment = Seq::default();
            total += 1;
        }
        self.save_state();
        self.forget(number);
        if total > 0 {
            log::warn!("queue full: the oldest {total} records dropped");
        }
        true
    }

    /// Moves `signal`'s mark past segment `number` and counts what is given up by that.
    fn drop_of(&mut self, signal: Signal, number: u32, headers: &[Header], reason: Reason) -> u64 {
        let mark = *self.state.marks.get(signal);
        let past = Mark { seq: Seq::new(number, u32::MAX), records: 0 };
        let waiting: Vec<&Header> = headers
            .iter()
            .filter(|h| h.signal == signal && h.seq > mark.seq && h.kind != Kind::Fragment)
            .collect();
        // Records of a block that was being sent in parts are done already.
        let done = if waiting.is_empty() { 0 } else { u64::from(mark.records) };
        let records = waiting.iter().map(|h| h.user_records()).sum::<u64>().saturating_sub(done);
        for header in &waiting {
            if let Kind::Report(tally) = header.kind {
                self.state.ledger.unreport(tally);
            }
        }
        let lane = self.lanes.get_mut(signal);
        if let Some(flight) = &mut lane.flight {
            let whole =
                waiting.iter().filter(|h| h.seq <= flight.to.seq).map(|h| h.user_records()).sum::<u64>();
            let sent_in_part = waiting.first().is_some_and(|h| h.seq > flight.to.seq);
            // They are in this segment, and in no other.
            let in_part = if sent_in_part { std::mem::take(&mut flight.to.records) } else { 0 };
            flight.orphaned += (whole + u64::from(in_part)).saturating_sub(done);
        }
        lane.leave(number);
        // Where nothing waits the mark stays: it may say how much of a later block is done.
        if !waiting.is_empty() {
            *self.state.marks.get_mut(signal) = past;
        }
        self.state.ledger.drop(Tally { signal, reason, records });
        records
    }
}

/// The state that counts: of the queue whose segment is the newest, the highest generation. Without any,
/// everything found is waiting.
fn newest_state(store: &mut Segments, queue_id: u128) -> State {
    let numbers: Vec<u32> = store.all().rev().map(|(number, _)| number).collect();
    let mut newest: Option<State> = None;
    for number in numbers {
        for state in store.states(number) {
            match &newest {
                Some(found) if found.queue_id != state.queue_id => {
                    log::warn!("queue: segment {number} belongs to another queue: all of it will be sent");
                    return State { queue_id, ledger: found.ledger, ..State::default() };
                }
                Some(found) if found.generation >= state.generation => {}
                _ => newest = Some(state),
            }
        }
    }
    newest.unwrap_or(State { queue_id, ..State::default() })
}

fn headers_of(batch: &Batch, number: u32, first: u32) -> Vec<Header> {
    let parts = batch.parts_before.saturating_add(batch.blocks.len() as u16);
    batch
        .blocks
        .iter()
        .zip(0u16..)
        .map(|(block, index)| Header {
            kind: block.kind,
            signal: block.signal,
            format: block.format,
            seq: Seq::new(number, first.saturating_add(u32::from(index))),
            delivery: batch.delivery,
            part: batch.parts_before.saturating_add(index),
            parts,
            events_end: block.events_end,
            records: block.records,
            plain_len: block.plain_len,
            stored_len: block.payload.len() as u32,
            plain_crc: block.plain_crc,
            stored_crc: super::bytes::crc32(&block.payload),
            times: block.times,
            received: batch.received,
        })
        .collect()
}
