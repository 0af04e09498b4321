//! [`Queue`]: segments, lanes, state and budget put together. The contract is in the module above.
//! Here is how it appends; `open` finds what is there, `budget` makes room, `send` puts requests together,
//! `fate` settles them.

use super::catch_up::AtOpen;
use super::damage::Damage;
use super::deliveries::{Deliveries, Progress};
use super::expected::SAVED_EVERY_BYTES;
use super::frame::{Header, Kind, Seq};
use super::lane::{Filled, Item, Lane};
use super::ledger::Ledger;
use super::notes::{DELIVERIES_PER_ROW_MAX, Entry, Index, SegmentRow};
use super::reader::{Own, Reader};
use super::rewritten::Lowest;
use super::segments::{Segments, StoreError};
use super::shed::{Room, count_shed};
use super::state::{FRAMES_START, Mark, State};
use super::types::{AppendError, Appended, Batch, Limits, Oldest, Waiting};
use crate::{PerSignal, Signal};
use std::collections::{BTreeMap, BTreeSet};

/// What a segment still has waiting, by signal, in whole blocks.
pub(super) type Remaining = PerSignal<Waiting>;

/// The queue of one directory. Owned by one thread.
#[expect(clippy::struct_excessive_bools, reason = "what is owed and what is known come and go independently")]
pub struct Queue {
    pub(super) store: Segments,
    pub(super) state: State,
    pub(super) lanes: PerSignal<Lane>,
    pub(super) remaining: BTreeMap<u32, Remaining>,
    pub(super) deliveries: Deliveries,
    pub(super) limits: Limits,
    /// What was written to the active segment, for the index.
    pub(super) written: Remaining,
    /// Segments whose count was taken from the index and is to be made sure of before they go.
    pub(super) unverified: BTreeSet<u32>,
    /// Segments that could not be read when they were to be counted.
    pub(super) unreadable: BTreeSet<u32>,
    /// Those of them that a signal was given up in before anybody knew what they hold, with the marks of then.
    pub(super) passed_over: BTreeMap<u32, PerSignal<Mark>>,
    pub(super) index: Option<Index>,
    /// Deliveries that the index does not know of yet.
    pub(super) unnoted: Vec<u128>,
    /// By segment: no record in it that waits is of a lower class. What is missing is not known yet.
    pub(super) lowest: BTreeMap<u32, Lowest>,
    /// How often the index was asked what it found.
    pub(super) index_asked: u32,
    /// The first segment number that this process may have given out.
    pub(super) first_own: u32,
    /// How often a directory that cannot be used was looked at.
    pub(super) looks: u32,
    pub(super) degraded: bool,
    /// The latest state is not on disk: what it speaks of may not be removed.
    pub(super) unsaved: bool,
    /// The index may hold a state that is not the latest of this process and would be taken for it.
    pub(super) index_is_behind: bool,
    /// What the segments said at open.
    pub(super) found: AtOpen,
    /// What was found damaged.
    pub(super) damage: Damage,
    /// Who is at the desk: whose marks, ledger, lanes and counts are those above.
    pub(super) own: Own,
    /// The other readers.
    pub(super) others: Vec<Reader>,
    /// A further reader came further: what all are past may go.
    pub(super) retire_owed: bool,
    /// Bytes that the latest state on disk does not know of.
    pub(super) appended_since_saved: u64,
}

impl Queue {
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
        self.store.disk_bytes().saturating_add(index).saturating_add(self.reader_bytes())
    }

    /// Whether so much of the budget is used that something will have to give way soon.
    pub fn is_nearly_full(&self) -> bool {
        self.spoken_for(0) >= self.limits.nearly_full_bytes()
    }

    /// Whether so much of it is used that the next delivery may cost something.
    pub fn is_brimming(&self) -> bool {
        self.spoken_for(0) >= self.limits.brimming_bytes()
    }

    pub(super) fn note(&mut self, entry: Entry) {
        if let Some(index) = &mut self.index {
            index.note(entry);
        }
    }

    /// Tells the index of deliveries whose frames may go. Those of the newest segment are known from there.
    pub(super) fn note_deliveries(&mut self) {
        let unnoted = std::mem::take(&mut self.unnoted);
        for row in unnoted.chunks(DELIVERIES_PER_ROW_MAX) {
            self.note(Entry::Deliveries(row.to_vec()));
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
        // Of the block that is sent in parts, some records are done. Those of a report are not the user's.
        let is_report = self.lanes.get(signal).head().is_some_and(Item::is_report);
        let done = if is_report { 0 } else { self.state.marks.get(signal).records };
        sum.records = sum.records.saturating_sub(u64::from(done));
        sum
    }

    /// The oldest block of `signal` that is not done. `None` if none waits, if nothing can be read now (see
    /// [`Queue::is_stalled`]), or if none was found yet: until all is counted ([`Queue::count_one`]), a signal's
    /// first block may still come to light.
    pub fn oldest(&mut self, signal: Signal) -> Option<Oldest> {
        self.fill(signal, 1);
        let lane = self.lanes.get(signal);
        let header = lane.head().filter(|_| !lane.is_stalled())?.header;
        let done = self.state.marks.get(signal).records;
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

    /// Brings the blocks of `signal` into sight, counting at most `counts_max` segments for it.
    pub(super) fn fill(&mut self, signal: Signal, counts_max: u32) {
        if !self.wants(signal) || self.own.looks.is_some() {
            return;
        }
        let mut counts = 0;
        while !self.lanes.get(signal).is_stalled() {
            let counted = |remaining: &BTreeMap<u32, Remaining>, unverified: &BTreeSet<u32>, number: u32| {
                remaining
                    .get(&number)
                    .filter(|_| !unverified.contains(&number))
                    .map(|r| r.get(signal).blocks > 0)
            };
            let (remaining, unverified) = (&self.remaining, &self.unverified);
            let lane = self.lanes.get_mut(signal);
            let mark = *self.state.marks.get(signal);
            match lane.fill(&mut self.store, mark, |number| counted(remaining, unverified, number)) {
                Filled::Enough | Filled::All => return,
                Filled::Uncounted(number) => {
                    if lane.head().is_some() || counts == counts_max {
                        return;
                    }
                    // That the index knows of none is no proof, but reason enough not to look in a hurry.
                    let expected = || self.remaining.values().any(|r| r.get(signal).blocks > 0);
                    if counts_max != u32::MAX && self.unverified.contains(&number) && !expected() {
                        return;
                    }
                    counts += 1;
                    if !self.count(number) {
                        let lane = self.lanes.get_mut(signal);
                        lane.stall_at(number);
                        if !lane.is_stalled() && !self.remaining.contains_key(&number) {
                            self.passed_over.entry(number).or_insert(self.state.marks);
                            self.own.expected = None;
                        }
                    }
                }
            }
        }
    }

    /// Whether something cannot be read just now. [`Queue::try_disk`] tries again.
    pub fn is_stalled(&self) -> bool {
        !self.unreadable.is_empty() || self.has_unknown() || self.all_lanes().any(Lane::is_stalled)
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
        let size = batch.size();
        let fits = size + FRAMES_START <= self.limits.max_bytes;
        let is_taken = || self.store.has_memory_for(size) && self.fits_on_return(self.staying_bytes(), size);
        if fits && self.degraded && !is_taken() {
            // Nothing is given up for what is not taken now.
            return Err(AppendError::NoRoom);
        }
        match self.make_room(batch)? {
            Room::Whole => self.keep_all(batch),
            Room::Part(part, turned_away) => self.keep_all(&part).inspect_err(|_| {
                // The sender has all of it.
                for reader in self.readers() {
                    let mut queue = self.at(reader);
                    let turned_away = queue.wanted_of(&turned_away);
                    count_shed(&turned_away, |tally| queue.state.ledger.undrop(tally));
                }
                drop(self.save_all());
            }),
            Room::Nothing => {
                self.deliveries.note_whole(batch.delivery);
                Ok(Appended::Dropped)
            }
        }
    }

    /// Appends a batch there is room for.
    fn keep_all(&mut self, batch: &Batch) -> Result<Appended, AppendError> {
        let size = batch.size();
        if self.degraded && !self.fits_on_return(self.disk_bytes(), size) {
            // What should have been given up for it could not be.
            return Err(AppendError::NoRoom);
        }
        let mut written = self.write(batch, size);
        if let (Err(StoreError::Vanished), false) = (&written, self.degraded) {
            log::error!("queue: its directory was removed by somebody else; it is made again");
            written = self.begin_segment().and_then(|()| self.write(batch, size));
        }
        if let Err(error) = written {
            self.degrade(&error);
            self.write(batch, size).map_err(|_| AppendError::NoRoom)?;
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
        self.unnoted.push(batch.delivery);
        // What only memory holds may go with the process: no later one may take a repeat of it for known.
        if !self.degraded && self.unnoted.len() >= DELIVERIES_PER_ROW_MAX {
            self.note_deliveries();
        }
        for header in &headers {
            self.deliveries.note(header);
            match header.kind {
                Kind::Fragment => {
                    self.state.fragment = header.seq;
                    continue;
                }
                Kind::Carry => {
                    self.state.carry = header.seq;
                    continue;
                }
                Kind::Report(tally) => {
                    self.state.ledger.report(tally);
                    self.state.reported = header.seq;
                }
                Kind::Block { joins: Some(seq) } if seq == self.state.fragment => {
                    self.state.settle_fragment();
                }
                Kind::Shed | Kind::Classes => continue,
                Kind::Block { .. } => {}
            }
            self.waits(header);
        }
        for header in &headers {
            self.note_severity(header);
        }
        self.appended_since_saved += size;
        if !self.degraded && self.appended_since_saved >= SAVED_EVERY_BYTES {
            drop(self.save_state());
        }
        Ok(())
    }

    /// A frame that is to be sent was written: it waits for every reader that gets its signal.
    pub(super) fn waits(&mut self, header: &Header) {
        let number = header.seq.segment();
        if *self.own.wants.get(header.signal) {
            self.remaining.entry(number).or_default().get_mut(header.signal).add(header);
        }
        for reader in self.others.iter_mut().filter(|reader| *reader.own.wants.get(header.signal)) {
            reader.remaining.entry(number).or_default().get_mut(header.signal).add(header);
        }
        self.written.get_mut(header.signal).add(header);
    }

    /// What of `records` is for the reader at the desk.
    pub(super) fn wanted_of(&self, records: &PerSignal<u64>) -> PerSignal<u64> {
        PerSignal::from_fn(|signal| if self.wants(signal) { *records.get(signal) } else { 0 })
    }

    pub(super) fn begin_segment(&mut self) -> Result<(), StoreError> {
        let closed = self.store.active().and_then(|number| Some((number, self.store.len(number)?)));
        self.state.generation += 1;
        self.state.outstanding = self.outstanding(Seq::new(self.store.next_number(), 0));
        self.state.unread = self.unread();
        if self.degraded {
            self.store.begin_in_memory(&self.state);
        } else {
            let before = self.store.carrier;
            self.store.begin(&self.state)?;
            self.unsaved = false;
            self.appended_since_saved = 0;
            if let Some(number) = before {
                // Should the new one be removed by somebody else, this one knows that there was one.
                self.store.note_state(number, &self.state);
            }
        }
        let written = std::mem::take(&mut self.written);
        if let Some((number, len)) = closed {
            self.note_deliveries();
            self.note(Entry::Closed(number, SegmentRow { len, written }));
        }
        if let Some(number) = self.store.active() {
            self.remaining.insert(number, Remaining::default());
            for reader in &mut self.others {
                reader.remaining.insert(number, Remaining::default());
            }
        }
        Ok(())
    }

    /// The disk takes nothing: go on in memory.
    pub(super) fn degrade(&mut self, error: &StoreError) {
        if self.degraded {
            return;
        }
        log::error!(
            "queue: the disk takes nothing ({error}): keeping up to {} bytes in memory, which a crash would lose, until it does",
            self.limits.memory_max_bytes
        );
        self.stand_in();
    }

    /// The directory cannot be used, as [`Opened::problem`](super::Opened) says: go on in memory without another
    /// word.
    pub fn stand_in(&mut self) {
        self.degraded = true;
        // In memory this cannot fail.
        drop(self.begin_segment());
    }

    /// Tries what failed before: to bring what is in memory to the disk, and to read what could not be read.
    /// Call now and then while [`Queue::is_degraded`] or [`Queue::is_stalled`]. Returns whether appends go to
    /// the disk.
    pub fn try_disk(&mut self) -> bool {
        self.unreadable.clear();
        self.lowest.clear();
        self.load_unknown(super::reader::LOOKS_MAX);
        for reader in self.readers() {
            let mut queue = self.at(reader);
            for signal in Signal::ALL {
                queue.lanes.get_mut(signal).resume();
            }
            if queue.unsaved {
                drop(queue.save_state());
            }
        }
        if !self.degraded {
            return true;
        }
        let moved =
            if self.store.is_listed() { self.store.move_to_disk().is_ok() } else { self.look_again() };
        if !moved {
            return false;
        }
        self.degraded = false;
        log::warn!("queue: the disk takes data again; what was in memory is on disk");
        drop(self.save_all());
        self.retire();
        // If the oldest could not be given up meanwhile.
        drop(self.make_room(&Batch { delivery: 0, received: 0, parts_before: 0, blocks: Vec::new() }));
        true
    }
}

pub(super) fn headers_of(batch: &Batch, number: u32, first: u32) -> Vec<Header> {
    let parts = batch.parts_before.saturating_add(batch.blocks.len() as u16);
    batch
        .blocks
        .iter()
        .zip(0u16..)
        .map(|(block, index)| Header {
            kind: block.kind,
            signal: block.signal,
            format: block.format,
            severity: block.severity,
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
