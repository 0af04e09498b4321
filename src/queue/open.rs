//! Finding what is there: the segments and their latest state, what the newest frames say, and how much waits.

use super::catch_up::AtOpen;
use super::damage::Damage;
use super::deliveries::Deliveries;
use super::disk::Disk;
use super::frame::{HEADER_BYTES, Header, Kind, Seq};
use super::lane::{Lane, Stored};
use super::ledger::{Reason, Tally};
use super::notes::{Entry, Index};
use super::reader::Own;
use super::scan::{Position, Step, step, walk, walk_past};
use super::segments::{Segments, StoreError};
use super::state::{FRAMES_START, State};
use super::store::{Queue, Remaining};
use super::types::{Limits, Opened, Waiting};
use crate::PerSignal;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::time::Duration;

/// Segments whose frames are read at open, newest first, for the deliveries they name: what Lambda may repeat
/// came last. The others are counted when there is time.
const SEGMENTS_READ_AT_OPEN: usize = 2;
/// Where the index lives, below the queue's directory.
const INDEX_DIRECTORY: &str = "index";
/// How often the index is asked what it found before the queue goes on without.
const INDEX_ASKED_MAX: u32 = 4;
/// How often a directory is looked at before segments in it that cannot be read are left out.
const LOOKS_MAX: u32 = 20;

impl Queue {
    /// Opens the queue in `dir`. Never fails: see [`Opened::problem`]. `queue_id` is used if there is none yet.
    pub fn open(disk: Box<dyn Disk>, dir: &Path, limits: Limits, queue_id: u128) -> (Self, Opened) {
        let (mut store, mut problem) = Segments::open(disk, dir, limits.memory_max_bytes);
        let state = newest_state(&mut store, queue_id, false).unwrap_or_else(|error| {
            store.unlist();
            problem = Some(error);
            State { queue_id, ..State::default() }
        });
        let found = AtOpen::new(&state);
        let opened = Opened { problem, bytes: store.disk_bytes(), segments: store.all().count() };
        let mut queue = Self {
            first_own: store.next_number(),
            store,
            state,
            lanes: new_lanes(),
            remaining: BTreeMap::new(),
            deliveries: Deliveries::default(),
            limits,
            written: Remaining::default(),
            unverified: BTreeSet::new(),
            unreadable: BTreeSet::new(),
            passed_over: BTreeMap::new(),
            index: None,
            unnoted: Vec::new(),
            lowest: BTreeMap::new(),
            index_asked: 0,
            looks: 0,
            degraded: false,
            unsaved: false,
            index_is_behind: true,
            found,
            damage: Damage::default(),
            own: Own::first(),
            others: Vec::new(),
            retire_owed: false,
            appended_since_saved: 0,
        };
        queue.read_newest();
        queue.expect();
        (queue, opened)
    }

    /// Puts an index beside the segments in `dir`. It is not waited for: see [`Queue::consult_index`].
    pub fn attach_index(&mut self, dir: &Path) {
        let index = Index::new(dir.join(INDEX_DIRECTORY));
        let is_new = !index.is_opening();
        self.index = Some(index);
        self.index_is_behind = true;
        self.unnoted = self.deliveries.all().collect();
        if is_new && !self.unnoted.is_empty() {
            // An earlier process came to its end before it had anything to say to an index.
            self.note_deliveries();
            self.note(Entry::State(Box::new(self.state)));
        }
    }

    /// Notes what the newest segments say of deliveries, reports and fragments.
    fn read_newest(&mut self) {
        let mut newest: Vec<u32> =
            self.store.all().rev().take(SEGMENTS_READ_AT_OPEN).map(|(number, _)| number).collect();
        newest.reverse();
        let mut fragment = self.state.fragment;
        let mut carry = self.state.carry;
        let mut joins = Vec::new();
        for number in newest {
            let Self { store, state, deliveries, found, .. } = self;
            walk(store, number, |header, _| {
                deliveries.note(header);
                match header.kind {
                    Kind::Report(tally) if header.seq > state.reported => {
                        state.ledger.report(tally);
                        state.reported = header.seq;
                        found.reports.push((header.seq, tally));
                    }
                    Kind::Fragment if header.seq > fragment.max(state.fragment_done) => fragment = header.seq,
                    Kind::Carry if header.seq > carry => carry = header.seq,
                    Kind::Block { joins: Some(seq) } => joins.push((seq, header.delivery)),
                    _ => {}
                }
            });
        }
        let joined = joins.iter().any(|(seq, delivery)| {
            *seq == fragment && self.deliveries.get(*delivery).is_some_and(|progress| progress.is_whole())
        });
        if self.state.turned_away != 0 {
            self.deliveries.note_whole(self.state.turned_away);
        }
        self.state.fragment = fragment;
        if joined {
            self.state.settle_fragment();
        }
        self.state.carry = carry;
    }

    /// Counts what waits in segment `number` by walking its frames. Returns whether it could be read. What is not there any
    /// more waits as well, until the signal comes to it and counts it as damaged: then, and only then, the mark says so.
    pub(super) fn count(&mut self, number: u32) -> bool {
        // Nothing of it was done when the index told of it, and nothing can have been since.
        let written = self.remaining.get(&number).filter(|_| self.unverified.contains(&number)).copied();
        let mut remaining = Remaining::default();
        let mut found = Remaining::default();
        let mut skipped = 0;
        let passed_over = self.passed_over.get(&number).copied();
        let mut given_up = PerSignal::<u64>::default();
        let mut last = None;
        let mut missing = 0;
        // Those of them that are expected.
        let mut awaited = 0;
        let upto = self.own.expected.as_ref().map_or(Seq::default(), |expected| expected.upto());
        let mut expected = PerSignal::<u64>::default();
        let Self { store, state, deliveries, own, .. } = self;
        let visit = |header: &Header, _| {
            deliveries.note_older(header);
            // A frame that is missing is counted with the one after it, as the record it held at least: what it held is
            // known of a segment that the index has a row of.
            missing += u64::from(missing_between(last, header.seq));
            if number <= upto.segment() {
                awaited += u64::from(missing_between(last, header.seq.min(upto)));
            }
            last = Some(header.seq);
            let is_wanted = *own.wants.get(header.signal);
            if header.seq <= state.marks.get(header.signal).seq || !is_wanted {
                (missing, awaited) = (0, 0);
                let passed = passed_over.is_some_and(|marks| header.seq > marks.get(header.signal).seq);
                if passed && is_wanted && header.kind.is_sent() {
                    *given_up.get_mut(header.signal) += header.user_records();
                }
            } else if header.kind.is_sent() {
                let waiting = remaining.get_mut(header.signal);
                waiting.add(header);
                found.get_mut(header.signal).add(header);
                let missing = std::mem::take(&mut missing);
                waiting.blocks += missing;
                waiting.records += missing;
                let records = if header.seq < upto { header.user_records() } else { 0 };
                *expected.get_mut(header.signal) += records + std::mem::take(&mut awaited);
            }
        };
        let whole = walk_past(store, number, visit, |bytes| skipped += bytes);
        if whole && self.passed_over.remove(&number).is_some() {
            // No mark will come to them any more.
            for (signal, records) in given_up.iter() {
                self.state.ledger.drop(Tally { signal, reason: Reason::Damaged, records: *records });
            }
            let records: u64 = given_up.iter().map(|(_, records)| records).sum();
            log::warn!(
                "queue: {records} records given up: their segment {number} could not be read when they were due"
            );
            drop(self.save_state());
        }
        if whole {
            for (signal, written) in written.iter().flat_map(PerSignal::iter) {
                let (waiting, found) = (remaining.get_mut(signal), found.get(signal));
                waiting.blocks = found.blocks.max(written.blocks);
                waiting.records = found.records.max(written.records);
            }
            // The same damage for all readers: one line says it.
            if self.is_first() {
                let not_found = remaining
                    .iter()
                    .map(|(signal, waiting)| waiting.records.saturating_sub(found.get(signal).records));
                self.damage.note(skipped, not_found.sum());
            }
            self.unverified.remove(&number);
            self.remaining.insert(number, remaining);
            if let Some(known) = &mut self.own.expected {
                known.count(number, &expected);
            }
            self.settle_expected();
        } else {
            self.unreadable.insert(number);
        }
        whole
    }

    /// Counts one segment that was not counted yet for a reader, oldest first. Returns whether there was one: call again
    /// until there is none, when nothing else is to be done.
    pub fn count_one(&mut self) -> bool {
        let readers = self.readers();
        let counted = readers.into_iter().any(|reader| self.at(reader).count_one_here());
        if counted {
            self.retire();
        }
        counted
    }

    fn count_one_here(&mut self) -> bool {
        if self.own.looks.is_some() {
            return false;
        }
        self.settle_expected();
        let uncounted =
            |number: &u32| !self.remaining.contains_key(number) && !self.unreadable.contains(number);
        let Some(number) = self.store.all().map(|(number, _)| number).find(uncounted) else {
            self.damage.tell();
            return false;
        };
        self.count(number);
        true
    }

    /// Takes over what the index knows, once it has opened. Call now and then until it returns true: nothing
    /// is missing before, but counts may be incomplete and a repeat may go unnoticed.
    pub fn consult_index(&mut self) -> bool {
        self.consult_index_within(Duration::ZERO)
    }

    /// [`consult_index`](Self::consult_index), waiting for the index to open at most so long.
    pub fn consult_index_within(&mut self, wait: Duration) -> bool {
        let Some(index) = &mut self.index else { return true };
        self.index_asked = self.index_asked.saturating_add(1);
        let Some(found) = index.take_found(wait) else {
            // It may hang for ever.
            return !index.is_opening() || self.index_asked >= INDEX_ASKED_MAX;
        };
        log::debug!("index: open, {} deliveries in it", found.deliveries.len());
        // What was not flushed before a SIGKILL is known from the segments alone, until those are removed.
        let flushed: HashSet<u128> = found.deliveries.iter().copied().collect();
        self.unnoted = self.deliveries.all().filter(|delivery| !flushed.contains(delivery)).collect();
        if !self.degraded {
            self.note_deliveries();
        }
        for delivery in found.deliveries.into_iter().rev() {
            self.deliveries.note_older_whole(delivery);
        }
        let ours = found.state.filter(|state| state.queue_id == self.state.queue_id);
        if let Some(state) = &ours {
            self.catch_up_with(state);
        }
        // With the state the deliveries are flushed; the next delivery to the backend may be a long time off.
        self.note(Entry::State(Box::new(self.state)));
        // What is missing of a row counts as damaged, so rows of another queue are none of ours.
        for (number, row) in found.segments.into_iter().filter(|_| ours.is_some()) {
            // A mark within the segment or past it: only its frames tell what waits.
            let untouched = self.state.marks.iter().all(|(_, mark)| mark.seq.segment() < number);
            if untouched && self.store.len(number) == Some(row.len) && !self.remaining.contains_key(&number) {
                let wants = self.own.wants;
                let wanted =
                    |signal| if *wants.get(signal) { *row.written.get(signal) } else { Waiting::default() };
                let held = PerSignal::from_fn(wanted);
                if self.own.expected.as_mut().is_none_or(|expected| expected.count_row(number, &held)) {
                    self.remaining.insert(number, held);
                    self.unverified.insert(number);
                }
            }
        }
        true
    }

    /// Looks again at a directory that could not be used, and brings what memory holds behind what is found
    /// there. Returns whether the directory can be used.
    pub(super) fn look_again(&mut self) -> bool {
        // What is under way is known by its place in memory.
        if self.is_sending() || self.is_within_a_block() {
            return false;
        }
        let Some((frames, fragment)) = self.frames_in_memory() else { return false };
        self.looks = self.looks.saturating_add(1);
        if self.store.look_again().is_err() {
            return false;
        }
        self.lanes = new_lanes();
        self.remaining.clear();
        self.lowest.clear();
        let found = newest_state(&mut self.store, self.state.queue_id, self.looks >= LOOKS_MAX);
        let Ok(mut state) = found else {
            self.store.unlist();
            self.state.marks = PerSignal::default();
            for reader in &mut self.others {
                reader.marks = PerSignal::default();
                reader.lanes = new_lanes();
                reader.remaining.clear();
            }
            drop(self.begin_segment());
            self.put_back(frames, fragment);
            return false;
        };
        state.ledger.add(&self.state.ledger);
        state.generation = state.generation.max(self.state.generation);
        self.state = state;
        self.found = AtOpen::new(&state);
        self.first_own = self.store.next_number();
        self.load_readers();
        self.read_newest();
        self.expect();
        self.degraded = false;
        if let Err(error) = self.begin_segment() {
            self.degrade(&error);
        }
        self.put_back(frames, fragment);
        // A directory that can be read may be on a disk that is full.
        !self.degraded
    }

    /// The frames in memory that are not done, and which of them is a fragment that waits.
    fn frames_in_memory(&mut self) -> Option<(Vec<Stored>, Option<usize>)> {
        let mut frames = Vec::new();
        let mut fragment = None;
        let marks = self.least_marks();
        for number in self.store.all().map(|(number, _)| number).collect::<Vec<_>>() {
            let mut position = Position::start_of(number);
            while let Step::Frame(header, offset) = step(&mut self.store, &mut position) {
                if header.seq == self.state.fragment {
                    fragment = Some(frames.len());
                } else if header.seq != self.state.carry
                    && (!header.kind.is_sent() || header.seq <= marks.get(header.signal).seq)
                {
                    continue;
                }
                let mut payload = vec![0; header.stored_len as usize];
                self.store.read(number, &mut payload, offset).ok()?;
                frames.push((header, payload));
            }
        }
        Some((frames, fragment))
    }

    /// Appends frames once more, in a new place.
    fn put_back(&mut self, frames: Vec<Stored>, fragment: Option<usize>) {
        for (index, (mut header, payload)) in frames.into_iter().enumerate() {
            if let Kind::Block { joins } = &mut header.kind {
                *joins = None;
            }
            if let Err(error) = self.put(&mut header, &payload) {
                self.degrade(&error);
                // It was in memory before, so there is room.
                drop(self.put(&mut header, &payload));
            }
            if fragment == Some(index) {
                self.state.fragment = header.seq;
            }
            match header.kind {
                Kind::Report(_) => self.state.reported = header.seq,
                Kind::Carry => self.state.carry = header.seq,
                Kind::Block { .. } | Kind::Fragment | Kind::Shed | Kind::Classes => {}
            }
        }
    }

    pub(super) fn put(&mut self, header: &mut Header, payload: &[u8]) -> Result<(), StoreError> {
        let (number, ordinal) = self.store.position().ok_or(StoreError::Missing(0))?;
        header.seq = Seq::new(number, ordinal);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(payload);
        self.store.append(&bytes, 1)?;
        if header.kind.is_sent() {
            self.waits(header);
            self.note_severity(header);
        }
        Ok(())
    }
}

pub(super) fn new_lanes() -> PerSignal<Lane> {
    PerSignal::from_fn(|signal| Lane::new(signal, Position::start_of(0)))
}

/// The state that counts: of the queue whose segment is the newest, the highest generation. Without any,
/// everything found is waiting.
///
/// # Errors
/// If a head cannot be read just now and `give_up` is not set.
pub(super) fn newest_state(store: &mut Segments, queue_id: u128, give_up: bool) -> Result<State, StoreError> {
    let mut newest: Option<(u32, State)> = None;
    let mut strange = false;
    for number in store.all().rev().map(|(number, _)| number).collect::<Vec<_>>() {
        let head = match store.head(number) {
            Ok(head) => head,
            Err(error) if give_up => {
                log::error!("queue: segment {number} cannot be read and is left where it is: {error}");
                store.leave_alone(number);
                continue;
            }
            Err(error) => return Err(error),
        };
        if head.newer && !has_frames(store, number) {
            log::warn!("queue: segment {number} is in a format of a later version and is left where it is");
            store.leave_alone(number);
            continue;
        }
        for state in head.states {
            match &newest {
                Some((_, found)) if found.queue_id != state.queue_id => strange = true,
                Some((_, found)) if found.generation >= state.generation => {}
                _ => newest = Some((number, state)),
            }
        }
    }
    let Some((carrier, mut state)) = newest else { return Ok(State { queue_id, ..State::default() }) };
    store.carried_by(carrier);
    state.decide_shedding(|number| store.len(number));
    if strange {
        log::warn!("queue: segments of several queues lie together: all of them will be sent");
        state = State { queue_id, ledger: state.ledger, generation: state.generation, ..State::default() };
        adopt(store, &state);
    }
    // What lay in memory only is gone, and its numbers must not come to mean something else.
    for seq in state.frames_named() {
        store.number_at_least(seq.segment().saturating_add(1));
    }
    Ok(state)
}

/// Makes all segments there are those of one queue, so that what is done from now on counts at the next open.
fn adopt(store: &mut Segments, state: &State) {
    for number in store.all().map(|(number, _)| number).collect::<Vec<_>>() {
        // One with half a head has no state that could disagree.
        if store.len(number).is_some_and(|len| len >= FRAMES_START)
            && let Err(error) = store.stamp(number, state)
        {
            log::warn!("queue: segment {number} cannot be adopted: {error}");
        }
    }
}

/// Whether segment `number` holds a frame that we understand.
fn has_frames(store: &mut Segments, number: u32) -> bool {
    let mut position = Position::start_of(number);
    loop {
        match step(store, &mut position) {
            Step::Frame(..) => return true,
            Step::Damage(_) => {}
            Step::End | Step::Unreadable => return false,
        }
    }
}

/// Frames that should stand between two of one segment that are there, or before the first of it.
fn missing_between(last: Option<Seq>, seq: Seq) -> u32 {
    last.map_or(seq.ordinal(), |last| seq.ordinal().saturating_sub(last.ordinal()).saturating_sub(1))
}

#[cfg(test)]
mod tests;
