//! What becomes of a delivery: known already, kept, half a record, or not telemetry at all.

use super::Fate;
use super::own::Own;
use super::pipeline::{About, Made, Making, Noted, Origin, Pipeline};
use super::telling::{Patron, Untold};
use crate::drain::policy::Portion;
use crate::encode::WireFormat;
use crate::listen::Receipt;
use crate::observe::Ending;
use crate::queue::{
    AppendError, Appended, Batch, BlockError, Encoding, Kind, Progress, Queue, ReaderId, Reason, Request,
    Seq, Tally,
};
use crate::record::{Join, Piece, Split, join, salvage, split};
use crate::{PerSignal, Signal, clock};
use std::panic::{AssertUnwindSafe, catch_unwind};
use xxhash_rust::xxh3::xxh3_128;

/// How long the first half of a cut record waits for the second: they follow one another at once, but a
/// reset may come between them. Nothing else waits meanwhile.
const FRAGMENT_WAIT_NANOS: u64 = 10_000_000_000;
/// A record joined from several parts is at most this long; what is larger stays in its parts.
const JOINED_MAX_BYTES: usize = 32 << 20;
/// Parts of cut records that are the same and are told from one another. More of them, within what the queue remembers, are
/// taken for repeats: each has to be looked for behind the others.
const SAME_PARTS_MAX: u128 = 1024;
/// At the end of the environment drops are reported at once, for nobody comes after us, but no more often than this: a
/// backend that rejects the reports themselves would otherwise get one per request until the deadline.
const LAST_REPORTS_MAX: u32 = 16;

/// The queue with what goes into it.
pub(super) struct Intake {
    pub(super) queue: Queue,
    pub(super) pipeline: Pipeline,
    pub(super) clock: clock::Clock,
    /// Reports that may still be made without waiting, once the end has come.
    pub(super) last_reports: u32,
    /// The main destination, and then the further ones.
    pub(super) patrons: Vec<Patron>,
    pub(super) reports: u64,
    /// Whether what the function's SDK sends gets the attributes of the function, where it has none of that name.
    pub(super) completes_resources: bool,
    /// Requests that cannot be told from others with the same content.
    pub(super) indistinct: u64,
    pub(super) received: u64,
    /// Hash of the latest body that this process took.
    latest: Option<u128>,
    pub(super) own: Own,
    pub(super) untold: Untold,
}

/// What became of a delivery.
pub(super) struct Taken {
    pub(super) receipt: Receipt,
    pub(super) noted: Vec<Noted>,
}

impl From<Receipt> for Taken {
    fn from(receipt: Receipt) -> Self {
        Self { receipt, noted: Vec::new() }
    }
}

/// Why a delivery was not kept.
pub(super) enum Lost {
    NoRoom,
    Broken,
}

impl From<AppendError> for Lost {
    fn from(_: AppendError) -> Self {
        Self::NoRoom
    }
}

impl From<BlockError> for Lost {
    fn from(error: BlockError) -> Self {
        log::error!("a delivery cannot be encoded: {error}");
        Self::Broken
    }
}

impl Intake {
    pub(super) fn new(mut queue: Queue, wire: Box<dyn WireFormat>, about: About, making: Making) -> Self {
        let patrons = queue.readers().map(|reader| Patron::of(&queue.at(reader))).collect();
        let carry = queue.carry();
        let own_every = making.own_every;
        let pipeline = Pipeline::new(wire, about, making, carry.as_deref());
        Self {
            own: Own::every(own_every, pipeline.nonce),
            queue,
            pipeline,
            clock: clock::Clock::start(),
            last_reports: 0,
            patrons,
            reports: 0,
            completes_resources: false,
            indistinct: 0,
            received: 0,
            latest: None,
            untold: Untold::default(),
        }
    }

    /// Takes in the body of a delivery.
    pub(super) fn take(&mut self, body: &[u8], received: u64) -> Taken {
        let hash = xxh3_128(body);
        let Some((delivery, known)) = self.identified(hash, body) else { return Receipt::Repeated.into() };
        match self.keep(body, delivery, received, known) {
            Ok(taken) => {
                self.latest = Some(hash);
                taken
            }
            Err(Lost::NoRoom | Lost::Broken) => Receipt::Full.into(),
        }
    }

    /// What a body is remembered by, and what there is of it. `None` if it is a repeat of Lambda's.
    ///
    /// Of two records of one millisecond the last parts may be the same, if they are a few bytes long. Lambda sends one
    /// delivery at a time, and what it sends again is the latest: another one that continues a record which waits for the rest
    /// is new, and has a number of its own.
    fn identified(&mut self, hash: u128, body: &[u8]) -> Option<(u128, Option<Progress>)> {
        let is_whole = |known: Option<Progress>| known.is_some_and(|progress| progress.is_whole());
        let known = self.queue.known(hash);
        if !is_whole(known) {
            return Some((hash, known));
        }
        // Of what an earlier process took, nobody knows which was the latest.
        self.latest.filter(|latest| *latest != hash)?;
        let (_, _, head) = self.queue.fragment()?;
        if join(&self.pipeline.first_part(&head), body) == Join::Unrelated {
            return None;
        }
        (1..SAME_PARTS_MAX).find_map(|number| {
            let delivery = hash.wrapping_add(number);
            let known = self.queue.known(delivery);
            (!is_whole(known)).then_some((delivery, known))
        })
    }

    fn keep(
        &mut self,
        body: &[u8],
        delivery: u128,
        received: u64,
        known: Option<Progress>,
    ) -> Result<Taken, Lost> {
        let mut joins = None;
        let mut joined = None;
        if let Some((seq, since, head)) = self.queue.fragment() {
            match join(&self.pipeline.first_part(&head), body) {
                Join::Whole(whole) if whole.len() <= JOINED_MAX_BYTES => {
                    joined = Some(whole);
                    joins = Some(seq);
                }
                Join::StillCut(longer) if longer.len() <= JOINED_MAX_BYTES => {
                    return self.keep_fragment(&longer, delivery, received);
                }
                Join::Whole(_) | Join::StillCut(_) => self.salvage(seq, &head, since)?,
                Join::Unrelated => {
                    let overdue = received.saturating_sub(since) > FRAGMENT_WAIT_NANOS;
                    // There is room for one.
                    let displaced = matches!(split(body), Split::Cut(cut) if cut.open);
                    if overdue || displaced {
                        self.salvage(seq, &head, since)?;
                    }
                }
            }
        }
        let body = joined.as_deref().unwrap_or(body);
        let pieces = match split(body) {
            Split::Events(events) => events.into_iter().map(Piece::Whole).collect(),
            Split::Cut(cut) if cut.open => return self.keep_fragment(body, delivery, received),
            Split::Cut(cut) => cut.pieces,
            Split::Unreadable => return Ok(self.unreadable(body, delivery)),
        };
        let origin = Origin {
            uid_seed: self.pipeline.uid_seed(body),
            received,
            skip: PerSignal::from_fn(|signal| known.map_or(0, |progress| progress.events_kept(signal))),
            kind: Kind::Block { joins },
        };
        let Some(made) = self.digest(&pieces, &origin)? else { return Ok(self.unreadable(body, delivery)) };
        let Made { blocks, noted, records, lost, remembered } = made;
        let parts_before = known.map_or(0, |progress| progress.frames());
        self.append_completing(&Batch { delivery, received, parts_before, blocks }, records, joins)?;
        self.pipeline.commit(remembered);
        self.own.lost(lost);
        self.untold.lost.0 = self.untold.lost.0.saturating_add(lost.0);
        self.untold.lost.1 = self.untold.lost.1.saturating_add(lost.1);
        Ok(Taken { receipt: Receipt::Kept, noted })
    }

    /// Blocks of `pieces`. A panic on the way costs their meaning: they are carried as text then. Lambda would send them
    /// again and again if they were turned away. `None` if not even that can be done.
    fn digest(&mut self, pieces: &[Piece<'_>], origin: &Origin) -> Result<Option<Made>, BlockError> {
        let pipeline = &mut self.pipeline;
        if let Ok(made) = catch_unwind(AssertUnwindSafe(|| pipeline.blocks(pieces, origin))) {
            return made.map(Some);
        }
        log::error!("a delivery cannot be read: a panic was caught; its records are kept as text");
        let unread: Vec<_> = pieces.iter().map(|piece| piece.unread()).collect();
        catch_unwind(AssertUnwindSafe(|| pipeline.blocks(&unread, origin))).ok().transpose()
    }

    pub(super) fn append(&mut self, batch: &Batch, records: u64) -> Result<Appended, Lost> {
        self.tell_own_with(&batch.blocks);
        let appended = self.queue.append(batch)?;
        if appended != Appended::Dropped {
            self.received += records;
        }
        Ok(appended)
    }

    /// The same for a batch that completes the cut record `fragment`, if it completes one: that waits no longer. Blocks say
    /// so themselves. A carry does not, and of a record that is left out there is nothing else.
    fn append_completing(&mut self, batch: &Batch, records: u64, fragment: Option<Seq>) -> Result<(), Lost> {
        self.append(batch, records)?;
        let is_named = batch.blocks.iter().any(|block| matches!(block.kind, Kind::Block { .. }));
        if let (false, Some(seq)) = (is_named, fragment) {
            self.queue.forget_fragment(seq);
        }
        Ok(())
    }

    /// Keeps a body that ends in the middle of a record until the rest comes.
    fn keep_fragment(&mut self, body: &[u8], delivery: u128, received: u64) -> Result<Taken, Lost> {
        let (block, withheld) = self.pipeline.fragment(body, received)?;
        self.append(&Batch { delivery, received, parts_before: 0, blocks: vec![block] }, 0)?;
        // Not before: what is turned away comes again, and goes on from the part that is there.
        self.pipeline.withhold(withheld);
        Ok(Receipt::Kept.into())
    }

    /// The rest of a cut record did not come: what there is becomes records.
    fn salvage(&mut self, seq: Seq, head: &[u8], received: u64) -> Result<(), Lost> {
        let uid_seed = self.pipeline.uid_seed(head);
        let kind = Kind::Block { joins: Some(seq) };
        let origin = Origin { uid_seed, received, skip: PerSignal::default(), kind };
        let delivery = xxh3_128(&seq.0.to_le_bytes());
        // It stays where it is, then.
        let Some(made) = self.digest(&salvage(head), &origin)? else { return Ok(()) };
        let batch = Batch { delivery, received, parts_before: 0, blocks: made.blocks };
        self.append_completing(&batch, made.records, Some(seq))?;
        self.pipeline.commit(made.remembered);
        Ok(())
    }

    fn unreadable(&mut self, body: &[u8], delivery: u128) -> Taken {
        self.untold.unreadable.0 += 1;
        self.untold.unreadable.1 += body.len() as u64;
        self.queue.note_whole(delivery);
        self.queue.count_drop(Tally { signal: Signal::Logs, reason: Reason::Unreadable, records: 1 });
        Receipt::Unreadable.into()
    }

    /// The end is near: a cut record is kept as it is, and drops are reported at once.
    pub(super) fn finish(&mut self) {
        self.last_reports = LAST_REPORTS_MAX;
        if let Some((seq, since, head)) = self.queue.fragment()
            && self.salvage(seq, &head, since).is_err()
        {
            log::warn!("half a record stays as it is");
        }
    }

    /// The environment ends: no more is expected of the invocations that are open.
    pub(super) fn end(&mut self, ending: Ending) {
        if !self.pipeline.has_loose_ends() {
            return;
        }
        let received = clock::unix_now_nanos();
        let closed = self.pipeline.end(ending, received).map_err(Lost::from).and_then(|made| {
            let delivery = self.pipeline.uid_seed(&received.to_le_bytes());
            self.append(&Batch { delivery, received, parts_before: 0, blocks: made.blocks }, made.records)?;
            self.pipeline.commit(made.remembered);
            Ok(())
        });
        if closed.is_err() {
            log::warn!("what was open at the end is not told");
        }
    }

    // === Sending ===

    pub(super) fn assemble(
        &mut self,
        reader: ReaderId,
        signal: Signal,
        portion: Portion,
        encoding: Encoding,
    ) -> Option<Request> {
        let wire = self.pipeline.wire();
        let mut queue = self.queue.at(reader);
        match portion {
            Portion::Run { max_blocks, max_bytes } => {
                let max_blocks = u32::try_from(max_blocks).unwrap_or(u32::MAX);
                queue.assemble(signal, wire, encoding, max_bytes, max_blocks)
            }
            Portion::Records { count } => {
                let done = queue.state().marks.get(signal).records;
                let end = done.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
                queue.assemble_part(signal, wire, encoding, done..end)
            }
            Portion::Alibi => queue.assemble_second(signal, wire, encoding),
        }
    }

    pub(super) fn land(&mut self, reader: ReaderId, signal: Signal, fate: Fate) {
        let Some(patron) = self.patrons.get_mut(reader.place()) else { return };
        let mut queue = self.queue.at(reader);
        match fate {
            Fate::Delivered { to, records, reports, rejected } => {
                patron.takes = true;
                // A report of ours that is rejected is no loss of the user's, and must not beget another.
                let records = records.saturating_sub(reports);
                let rejected = rejected.min(records);
                patron.delivered += records - rejected;
                if reader == ReaderId::FIRST
                    && let Some(oldest) = queue.oldest(signal)
                {
                    self.own.flushed(signal, oldest.received);
                }
                queue.delivered(signal, to, records - rejected, rejected);
            }
            Fate::HandedOver { to, records, reports, rejected } => {
                let records = records.saturating_sub(reports);
                let rejected = rejected.min(records);
                queue.handed_over(signal, to, records - rejected, rejected);
            }
            Fate::Kept => {
                patron.takes = false;
                queue.keep(signal);
            }
            Fate::Taken { head, records } => {
                patron.takes = true;
                if queue.oldest(signal).is_some_and(|oldest| oldest.seq.0 == head) {
                    patron.delivered += queue.took(signal, records);
                } else {
                    queue.keep(signal);
                }
            }
            Fate::Settled { head, refused, delivered } => {
                // It judged content, so it works; and what it refused may be all there was to send.
                patron.takes = true;
                // What was to be given up may have gone otherwise. An alibi has arrived all the same.
                let is_there = queue.oldest(signal).is_some_and(|oldest| oldest.seq.0 == head);
                patron.delivered += queue.settle(signal, if is_there { refused } else { 0 }, delivered);
            }
        }
    }
}
