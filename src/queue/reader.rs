//! Several readers of one queue: destinations that are sent the same stored blocks, each at its own pace.
//!
//! A reader is a place in the queue: how far it has come, what it has waiting, what was given up for it. The first one's
//! state is that of the queue, at the head of the newest segment. Every further reader has a file of its own beside the
//! segments, with two slots like theirs, written in place. A segment is removed once all readers are past it, and no
//! reader's state is older on disk than what is removed, so that after a crash each goes on where it was.
//!
//! One reader at a time is *at the desk*: its marks, ledger and lanes are those in the fields of [`Queue`], and what is asked of
//! the queue is asked for it. The others wait aside. So a queue with one reader is what it would be without this file.
//!
//! A reader whose file is missing, damaged or of another queue begins with what is stored: evidence that is lost means a
//! repeat, never a loss.

use super::bytes::crc32;
use super::disk::{Disk, DiskFile};
use super::expected::{Expected, passed_over};
use super::frame::Seq;
use super::lane::Lane;
use super::ledger::{Ledger, Tally};
use super::open::new_lanes;
use super::overflowed::Overflowed;
use super::segments::StoreError;
use super::state::{Mark, SLOT_BYTES, SLOTS, Shedding, State};
use super::store::{Queue, Remaining};
use crate::{PerSignal, Signal};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

/// What the names of their files end in.
const SUFFIX: &str = ".reader";

/// How often a file is looked at that cannot be read, each time after a pause, before the reader begins with what is stored.
pub(super) const LOOKS_MAX: u32 = 20;

/// A reader of a queue, by its place among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReaderId(usize);

impl ReaderId {
    /// The one whose state is the queue's.
    pub const FIRST: Self = Self(0);

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Its place among all of them.
    pub fn place(self) -> usize {
        self.0
    }
}

/// Who reads a queue besides the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderSpec {
    /// What its file is called, and lines call it: small letters, digits and `_`.
    pub name: String,
    /// The signals it gets; of others nothing waits for it.
    pub wants: PerSignal<bool>,
}

/// Who reads a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readers {
    /// The signals that the first gets.
    pub first: PerSignal<bool>,
    /// Those after it.
    pub others: Vec<ReaderSpec>,
}

impl Default for Readers {
    /// One alone, which gets everything.
    fn default() -> Self {
        Self { first: PerSignal::from_fn(|_| true), others: Vec::new() }
    }
}

/// What is a reader's own, while another is at the desk.
pub(super) struct Reader {
    pub(super) marks: PerSignal<Mark>,
    pub(super) ledger: Ledger,
    pub(super) shedding: Shedding,
    pub(super) lanes: PerSignal<Lane>,
    pub(super) remaining: BTreeMap<u32, Remaining>,
    pub(super) unverified: BTreeSet<u32>,
    pub(super) passed_over: BTreeMap<u32, PerSignal<Mark>>,
    pub(super) unsaved: bool,
    pub(super) own: Own,
}

/// Who it is.
pub(super) struct Own {
    /// `None`: the first, whose state is the queue's.
    pub(super) file: Option<ReaderFile>,
    pub(super) wants: PerSignal<bool>,
    /// What was given up for it and not told.
    pub(super) overflowed: Overflowed,
    /// What an earlier process had waiting for it, until it is known whether that is there.
    pub(super) expected: Option<Box<Expected>>,
    /// How often its file was looked at in vain, until it is known how far it is: nothing is sent to it before.
    pub(super) looks: Option<u32>,
}

impl Own {
    /// The first reader, which gets everything.
    pub(super) fn first() -> Self {
        Self::new(None, PerSignal::from_fn(|_| true))
    }

    fn new(file: Option<ReaderFile>, wants: PerSignal<bool>) -> Self {
        Self { file, wants, overflowed: Overflowed::default(), expected: None, looks: None }
    }

    /// To be said behind a line about it.
    pub(super) fn for_whom(&self) -> String {
        self.file.as_ref().map_or_else(String::new, |file| format!(" for {}", file.name))
    }
}

/// Where the state of a further reader is.
pub(super) struct ReaderFile {
    name: String,
    path: PathBuf,
    file: Option<Box<dyn DiskFile>>,
    generation: u64,
    /// Never the one that holds the last good state.
    next_slot: u64,
}

impl ReaderFile {
    /// What its slots are tied to, as those of segments are to their number: another's file is none of its.
    fn tie(&self) -> u32 {
        crc32(self.name.as_bytes())
    }

    /// The newest state in the file, if there is any.
    ///
    /// # Errors
    /// If the file cannot be read just now. One that is not there, cut off or no file is no error.
    pub(super) fn load(&mut self, disk: &dyn Disk) -> io::Result<Option<State>> {
        self.file = None;
        let file = match disk.open(&self.path) {
            Err(error) if is_no_file(&error) => return Ok(None),
            opened => opened?,
        };
        let mut newest: Option<State> = None;
        for slot in 0..SLOTS {
            let mut bytes = vec![0; SLOT_BYTES];
            match file.read_exact_at(&mut bytes, slot * SLOT_BYTES as u64) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                read => read?,
            }
            let Some(state) = State::decode(&bytes, self.tie()) else { continue };
            if newest.is_none_or(|newest| state.generation > newest.generation) {
                self.next_slot = slot ^ 1;
                self.generation = state.generation;
                newest = Some(state);
            }
        }
        self.file = Some(file);
        Ok(newest)
    }

    fn save(&mut self, disk: &dyn Disk, state: &State) -> io::Result<()> {
        if let Some(file) = &self.file
            && !file.is_linked()?
        {
            self.file = None;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => match disk.create(&self.path) {
                Ok(file) => {
                    // All the room it will ever need, so that a state can be written when there is no more of it.
                    file.write_all_at(&vec![0; SLOT_BYTES * SLOTS as usize], 0)?;
                    file
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(&self.path)?,
                Err(error) => return Err(error),
            },
        };
        self.generation += 1;
        let state = State { generation: self.generation, ..*state };
        let written = file.write_all_at(&state.encode(self.tie()), self.next_slot * SLOT_BYTES as u64);
        // One that was opened while nothing could be written is opened anew.
        written?;
        self.file = Some(file);
        self.next_slot ^= 1;
        Ok(())
    }
}

/// Whether it is no use to try again: nothing of ours is there.
fn is_no_file(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENOTDIR | libc::ENXIO))
}

/// A queue with one of its readers at the desk; the one before it returns when this goes.
pub struct At<'a> {
    queue: &'a mut Queue,
    aside: Option<usize>,
}

impl Deref for At<'_> {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        self.queue
    }
}

impl DerefMut for At<'_> {
    fn deref_mut(&mut self) -> &mut Queue {
        self.queue
    }
}

impl Drop for At<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.aside {
            self.queue.change_places(place);
            // After a panic the queue is opened anew.
            if std::mem::take(&mut self.queue.retire_owed) && !std::thread::panicking() {
                self.queue.retire();
            }
        }
    }
}

impl Queue {
    /// Names the readers of the queue, once, before anything is asked of it. Those of an earlier process that are not among
    /// them are forgotten.
    pub fn serve(&mut self, readers: &Readers) {
        self.own.wants = readers.first;
        for spec in &readers.others {
            let path = self.store.dir.join(format!("{}{SUFFIX}", spec.name));
            let file = ReaderFile { name: spec.name.clone(), path, file: None, generation: 0, next_slot: 0 };
            self.others.push(Reader {
                marks: PerSignal::default(),
                ledger: Ledger::default(),
                shedding: Shedding::default(),
                lanes: new_lanes(),
                remaining: BTreeMap::new(),
                unverified: BTreeSet::new(),
                passed_over: BTreeMap::new(),
                unsaved: false,
                own: Own::new(Some(file), spec.wants),
            });
        }
        if self.store.is_listed() {
            self.forget_strangers();
            self.load_readers();
        }
    }

    /// The queue as `reader` sees it.
    pub fn at(&mut self, reader: ReaderId) -> At<'_> {
        let aside = reader.0.checked_sub(1).filter(|place| *place < self.others.len());
        if let Some(place) = aside {
            self.change_places(place);
        }
        At { queue: self, aside }
    }

    /// All of its readers.
    pub fn readers(&self) -> impl Iterator<Item = ReaderId> + use<> {
        (0..=self.others.len()).map(ReaderId)
    }

    /// What the reader at the desk is called; the first has no name.
    pub fn reader_name(&self) -> Option<&str> {
        self.own.file.as_ref().map(|file| file.name.as_str())
    }

    /// Whether a request of any reader is in flight.
    pub fn is_sending(&self) -> bool {
        self.all_lanes().any(|lane| lane.flight.is_some())
    }

    /// Whether any reader is done with a part of a block.
    pub(super) fn is_within_a_block(&self) -> bool {
        let aside = self.others.iter().flat_map(|reader| reader.marks.iter());
        self.state.marks.iter().chain(aside).any(|(_, mark)| mark.records > 0)
    }

    /// Bytes on disk of what is known of the further readers.
    pub(super) fn reader_bytes(&self) -> u64 {
        self.others.len() as u64 * SLOT_BYTES as u64 * SLOTS
    }

    /// A report about `tally`, which the reader at the desk was to be told of, is in the queue.
    pub fn note_reported(&mut self, tally: Tally) {
        self.state.ledger.report(tally);
        drop(self.save_state());
    }

    pub(super) fn all_lanes(&self) -> impl Iterator<Item = &Lane> {
        let aside = self.others.iter().flat_map(|reader| reader.lanes.iter());
        self.lanes.iter().chain(aside).map(|(_, lane)| lane)
    }

    fn change_places(&mut self, place: usize) {
        let Some(aside) = self.others.get_mut(place) else { return };
        std::mem::swap(&mut self.state.marks, &mut aside.marks);
        std::mem::swap(&mut self.state.ledger, &mut aside.ledger);
        std::mem::swap(&mut self.state.shedding, &mut aside.shedding);
        std::mem::swap(&mut self.lanes, &mut aside.lanes);
        std::mem::swap(&mut self.remaining, &mut aside.remaining);
        std::mem::swap(&mut self.unverified, &mut aside.unverified);
        std::mem::swap(&mut self.passed_over, &mut aside.passed_over);
        std::mem::swap(&mut self.unsaved, &mut aside.unsaved);
        std::mem::swap(&mut self.own, &mut aside.own);
    }

    /// Whether the reader at the desk is the first. Of further ones the frames of reports say nothing.
    pub(super) fn is_first(&self) -> bool {
        self.own.file.is_none()
    }

    /// Whether frames of `signal` are for the reader at the desk.
    pub(super) fn wants(&self, signal: Signal) -> bool {
        *self.own.wants.get(signal)
    }

    /// How far every reader is that gets a signal; what no reader gets is done.
    pub(super) fn least_marks(&self) -> PerSignal<Mark> {
        let done = Mark { seq: Seq(u64::MAX), records: 0 };
        PerSignal::from_fn(|signal| {
            let of = |own: &Own, marks: &PerSignal<Mark>| {
                if *own.wants.get(signal) { *marks.get(signal) } else { done }
            };
            let aside = self.others.iter().map(|reader| of(&reader.own, &reader.marks));
            aside.chain([of(&self.own, &self.state.marks)]).min().unwrap_or_default()
        })
    }

    /// Whether segment `number` was counted for every reader and has nothing waiting for any.
    pub(super) fn is_drained(&self, number: u32) -> bool {
        let drained = |remaining: &BTreeMap<u32, Remaining>| {
            let of_segment = remaining.get(&number);
            of_segment.is_some_and(|remaining| remaining.iter().all(|(_, waiting)| waiting.blocks == 0))
        };
        drained(&self.remaining) && self.others.iter().all(|reader| drained(&reader.remaining))
    }

    /// Puts the state of the reader at the desk, which has a file of its own, into that.
    pub(super) fn save_reader(&mut self) -> Result<(), StoreError> {
        if self.own.looks.is_some() {
            // What its file says is not known, and must not be lost.
            return Err(StoreError::Missing(0));
        }
        let (outstanding, unread) = (self.outstanding(self.next_seq()), self.unread());
        let Some(own) = &mut self.own.file else { return Ok(()) };
        let saved = if self.store.is_listed() {
            let State { queue_id, marks, ledger, shedding, .. } = self.state;
            let state = State { queue_id, marks, ledger, shedding, outstanding, unread, ..State::default() };
            own.save(self.store.disk.as_ref(), &state)
        } else {
            // Nothing it speaks of is on disk either.
            Ok(())
        };
        if let (Err(error), false) = (&saved, self.unsaved) {
            log::warn!("queue: cannot save the state of {}: {error}", own.name);
        }
        self.unsaved = saved.is_err();
        Ok(saved?)
    }

    /// Puts the states of all readers on disk.
    ///
    /// # Errors
    /// If that fails for any of them.
    pub(super) fn save_all(&mut self) -> Result<(), StoreError> {
        let mut saved = self.save_state();
        for reader in self.readers().skip(1) {
            saved = saved.and(self.at(reader).save_state());
        }
        saved
    }

    /// Whether the states of all readers are on disk. Those that are not are tried once more.
    pub(super) fn are_saved(&mut self) -> bool {
        if self.unsaved {
            return false;
        }
        let unsaved: Vec<ReaderId> = self
            .readers()
            .skip(1)
            .filter(|reader| self.others.get(reader.0 - 1).is_some_and(|reader| reader.unsaved))
            .collect();
        unsaved.into_iter().all(|reader| self.at(reader).save_state().is_ok())
    }

    /// Reads how far the further readers are. What memory knows of them counts no longer, but for what was given up.
    pub(super) fn load_readers(&mut self) {
        (0..self.others.len()).for_each(|place| self.load_reader(place, LOOKS_MAX));
    }

    /// Looks again at the files of readers that could not be read, `looks_max` times before each is taken for lost.
    pub(super) fn load_unknown(&mut self, looks_max: u32) {
        for place in 0..self.others.len() {
            if self.others.get(place).is_some_and(|reader| reader.own.looks.is_some()) {
                self.load_reader(place, looks_max);
            }
        }
    }

    /// Whether it is not known of any reader how far it is.
    pub(super) fn has_unknown(&self) -> bool {
        self.own.looks.is_some() || self.others.iter().any(|reader| reader.own.looks.is_some())
    }

    fn load_reader(&mut self, place: usize, looks_max: u32) {
        let Some(reader) = self.others.get_mut(place) else { return };
        let Some(file) = &mut reader.own.file else { return };
        let looks = reader.own.looks.unwrap_or_default().saturating_add(1);
        let found = file.load(self.store.disk.as_ref());
        reader.lanes = new_lanes();
        reader.remaining.clear();
        reader.unsaved = true;
        reader.own.looks = found.is_err().then_some(looks).filter(|looks| *looks < looks_max);
        if reader.own.looks.is_some() {
            return;
        }
        let found = found.unwrap_or_else(|error| {
            log::error!(
                "queue: how far {} is cannot be read, it gets all that is stored: {error}",
                file.name
            );
            None
        });
        let mut state = found.filter(|state| state.queue_id == self.state.queue_id).unwrap_or_default();
        state.decide_shedding(|number| self.store.len(number));
        state.ledger.add(&reader.ledger);
        reader.own.expected = Expected::of(&state, &self.store);
        reader.passed_over = passed_over(&state.unread, &self.store);
        reader.marks = state.marks;
        reader.ledger = state.ledger;
        for (_, mark) in state.marks.iter() {
            self.store.number_at_least(mark.seq.segment().saturating_add(1));
        }
        // Its room on disk is taken now, while there is some.
        drop(self.at(ReaderId(place + 1)).save_state());
    }

    /// Removes what earlier processes noted of readers that there are none of now.
    fn forget_strangers(&self) {
        for (name, _) in self.store.disk.list(&self.store.dir).unwrap_or_default() {
            let Some(reader) = name.strip_suffix(SUFFIX) else { continue };
            let is_known = |own: &Own| own.file.as_ref().is_some_and(|file| file.name == reader);
            if self.others.iter().any(|other| is_known(&other.own)) {
                continue;
            }
            match self.store.disk.remove(&self.store.dir.join(&name)) {
                Ok(()) => log::warn!(
                    "queue: {reader} is no destination any more; what waited for it alone is forgotten"
                ),
                Err(error) => log::warn!("queue: cannot remove {name}: {error}"),
            }
        }
    }
}
