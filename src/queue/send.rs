//! Putting requests together from stored blocks.

use super::block::{self, BlockError, GzipAssembler};
use super::bytes::crc32;
use super::frame::Kind;
use super::lane::{Flight, Item};
use super::ledger::{Reason, Tally};
use super::segments::StoreError;
use super::state::Mark;
use super::store::Queue;
use super::types::{Encoding, Request};
use crate::Signal;
use crate::encode::{Framing, Protocol, WireFormat};
use std::ops::Range;
use thiserror::Error;

/// Why a block cannot be sent.
#[derive(Debug, Error)]
pub(super) enum ReadError {
    /// The file cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is not what its header says.
    #[error("the block is damaged")]
    Damaged,
    /// It does not inflate.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl ReadError {
    /// Whether it is no use to try again.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Store(error) => error.is_lasting(),
            Self::Damaged | Self::Block(_) => true,
        }
    }
}

impl Queue {
    /// Puts together a request of the oldest waiting blocks of `signal`: at least one, then as many as fit
    /// into `max_bytes` plain bytes and `max_blocks`. `None` if nothing waits, or if what waits cannot be read
    /// now (see [`Queue::is_stalled`]).
    ///
    /// If the oldest block is done in part, the request holds the rest of that block only.
    pub fn assemble(
        &mut self,
        signal: Signal,
        wire: &dyn WireFormat,
        encoding: Encoding,
        max_bytes: u64,
        max_blocks: u32,
    ) -> Option<Request> {
        loop {
            self.lose_foreign(signal, wire);
            let done = self.state.marks.get(signal).records;
            let head = self.head(signal)?;
            if done > 0 {
                match self.assemble_part(signal, wire, encoding, done..head.header.records) {
                    Some(request) => return Some(request),
                    None => continue,
                }
            }
            let items = self.run_of(signal, wire, max_bytes, max_blocks);
            let (sent, body, failure) = self.body_of(&items, wire.framing(signal), encoding);
            let Some(last) = sent.last() else {
                if self.is_lost(signal, failure.as_ref()) {
                    self.lose_head(signal, "it is damaged");
                }
                continue;
            };
            self.lanes.get_mut(signal).payload_read();
            let to = Mark { seq: last.header.seq, records: 0 };
            let lane = self.lanes.get_mut(signal);
            lane.flight = Some(Flight::new(to));
            lane.sends(to.seq);
            // Whoever sends everything again has nothing to settle.
            lane.alibi = None;
            return Some(Request {
                signal,
                body,
                encoding,
                to,
                blocks: sent.len() as u32,
                records: records_of(sent.iter()),
                reports: records_of(sent.iter().filter(|item| item.is_report())),
                plain_bytes: sent.iter().map(|item| u64::from(item.header.plain_len)).sum(),
                part: None,
                head: head.header.seq,
                received: head.header.received,
                queue_id: self.state.queue_id,
            });
        }
    }

    /// The oldest block, if it can be read now.
    fn head(&mut self, signal: Signal) -> Option<Item> {
        self.fill(signal, u32::MAX);
        let lane = self.lanes.get(signal);
        lane.head().filter(|_| !lane.is_stalled()).copied()
    }

    /// Whether the head is lost, rather than not readable now.
    fn is_lost(&mut self, signal: Signal, failure: Option<&ReadError>) -> bool {
        failure.is_none_or(ReadError::is_lasting) || !self.lanes.get_mut(signal).stall_at_payload()
    }

    /// The oldest blocks of one wire format that fit together.
    fn run_of(&self, signal: Signal, wire: &dyn WireFormat, max_bytes: u64, max_blocks: u32) -> Vec<Item> {
        let mut bytes = 0;
        let mut records = 0_u32;
        let limits = wire.limits(signal);
        let (max_bytes, records_max) = (max_bytes.min(limits.body_bytes as u64), limits.records);
        self.lanes
            .get(signal)
            .items()
            .take(max_blocks.max(1) as usize)
            .enumerate()
            .take_while(|(index, item)| {
                bytes += u64::from(item.header.plain_len);
                records = records.saturating_add(item.header.records);
                item.header.format == wire.id()
                    && (*index == 0 || bytes <= max_bytes && records <= records_max)
            })
            .map(|(_, item)| *item)
            .collect()
    }

    /// The body of a request, up to the first item that cannot be read, and why not.
    fn body_of(
        &mut self,
        items: &[Item],
        framing: Framing,
        encoding: Encoding,
    ) -> (Vec<Item>, Vec<u8>, Option<ReadError>) {
        let mut failure = None;
        let mut sent = Vec::with_capacity(items.len());
        match encoding {
            Encoding::Gzip => {
                let stored: usize = items.iter().map(|item| item.header.stored_len as usize + 16).sum();
                let mut member = GzipAssembler::new(stored);
                member.stored(framing.prefix);
                for item in items {
                    let separator = if sent.is_empty() { b"" } else { framing.separator };
                    let (plain_len, plain_crc) = (item.header.plain_len, item.header.plain_crc);
                    let read = member
                        .payload_behind(separator, plain_len, plain_crc, |out| self.read_payload(item, out));
                    if let Err(error) = read {
                        failure = Some(error);
                        break;
                    }
                    sent.push(*item);
                }
                member.stored(framing.suffix);
                (sent, member.finish(), failure)
            }
            Encoding::Identity => {
                let mut body = framing.prefix.to_vec();
                for item in items {
                    let plain = match self.plain(item) {
                        Ok(plain) => plain,
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    };
                    if !sent.is_empty() {
                        body.extend_from_slice(framing.separator);
                    }
                    body.extend_from_slice(&plain);
                    sent.push(*item);
                }
                body.extend_from_slice(framing.suffix);
                (sent, body, failure)
            }
        }
    }

    pub(super) fn read_payload(&mut self, item: &Item, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let number = item.header.seq.segment();
        let start = out.len();
        out.resize(start + item.header.stored_len as usize, 0);
        let payload = out.get_mut(start..).ok_or(StoreError::Missing(number))?;
        self.store.read(number, payload, item.payload_offset)?;
        if crc32(payload) == item.header.stored_crc { Ok(()) } else { Err(ReadError::Damaged) }
    }

    pub(super) fn plain(&mut self, item: &Item) -> Result<Vec<u8>, ReadError> {
        let mut payload = Vec::new();
        self.read_payload(item, &mut payload)?;
        Ok(block::inflate(&payload, item.header.plain_len, item.header.plain_crc)?)
    }

    /// Puts together a request of some records of the oldest block of `signal`. The range begins where the
    /// block is done so far, whatever `records` says, and holds at least one record. `None` if nothing waits,
    /// or if the block turned out damaged and was given up: ask again.
    pub fn assemble_part(
        &mut self,
        signal: Signal,
        wire: &dyn WireFormat,
        encoding: Encoding,
        records: Range<u32>,
    ) -> Option<Request> {
        self.lose_foreign(signal, wire);
        let mark = *self.state.marks.get(signal);
        let head = self.head(signal)?;
        let start = mark.records.min(head.header.records.saturating_sub(1));
        let end = records.end.clamp(start + 1, head.header.records.max(start + 1));
        let mut request = match self.subset(signal, &head, wire, encoding, start..end) {
            Ok(request) => request,
            Err(error) => {
                if self.is_lost(signal, Some(&error)) {
                    self.lose_head(signal, "it does not split into its records");
                }
                return None;
            }
        };
        self.lanes.get_mut(signal).payload_read();
        if end < head.header.records {
            request.to = Mark { seq: mark.seq, records: end };
        }
        let lane = self.lanes.get_mut(signal);
        lane.flight = Some(Flight::new(request.to));
        lane.sends(head.header.seq);
        Some(request)
    }

    /// Puts together a request of the one record of `signal` after the first that is not done, from the next
    /// block if the oldest has no other. Nothing is in flight by that. `None` if there is no such record.
    pub fn assemble_second(
        &mut self,
        signal: Signal,
        wire: &dyn WireFormat,
        encoding: Encoding,
    ) -> Option<Request> {
        let done = self.state.marks.get(signal).records;
        self.head(signal)?;
        let mut items = self.lanes.get(signal).items();
        let head = items.next()?;
        let (item, place) = match done.saturating_add(1) {
            second if second < head.header.records => (*head, second),
            _ => (*items.next()?, 0),
        };
        drop(items);
        let lane = self.lanes.get_mut(signal);
        lane.sends(item.header.seq);
        lane.alibi = Some((item.header.seq, place));
        self.subset(signal, &item, wire, encoding, place..place + 1).ok()
    }

    /// A request of some records of one block.
    fn subset(
        &mut self,
        signal: Signal,
        item: &Item,
        wire: &dyn WireFormat,
        encoding: Encoding,
        records: Range<u32>,
    ) -> Result<Request, ReadError> {
        if item.header.format != wire.id() {
            return Err(ReadError::Damaged);
        }
        let plain = self.plain(item)?;
        let parts = wire.parts(&plain).map_err(|_| ReadError::Damaged)?;
        if parts.records.len() != item.header.records as usize {
            return Err(ReadError::Damaged);
        }
        let subset = wire.subset(&plain, &parts, records.start as usize..records.end as usize);
        let framing = wire.framing(signal);
        let plain_body = [framing.prefix, &subset, framing.suffix].concat();
        let plain_bytes = plain_body.len() as u64;
        let body = match encoding {
            Encoding::Gzip => block::gzip(&plain_body)?,
            Encoding::Identity => plain_body,
        };
        Ok(Request {
            signal,
            body,
            encoding,
            to: Mark { seq: item.header.seq, records: 0 },
            blocks: 1,
            records: records.end - records.start,
            reports: if item.is_report() { records.end - records.start } else { 0 },
            plain_bytes,
            part: Some(records),
            head: item.header.seq,
            received: item.header.received,
            queue_id: self.state.queue_id,
        })
    }

    /// Gives up the oldest block of `signal`, which cannot be sent.
    fn lose_head(&mut self, signal: Signal, why: &str) {
        let Some(head) = self.lanes.get(signal).head().copied() else { return };
        if let Some(blocks) = self.damage.block() {
            let (seq, records) = (head.header.seq.0, head.header.records);
            log::warn!("queue: block {seq} ({records} records) given up: {why}; {blocks} such blocks so far");
        }
        self.lose(signal, &head);
    }

    /// Gives up the blocks at the front of `signal` that an earlier process made for another protocol: what is stored is
    /// what would be sent, so the destination of today cannot read it. They are told of in one line.
    fn lose_foreign(&mut self, signal: Signal, wire: &dyn WireFormat) {
        let mut lost = 0;
        let mut format = None;
        while let Some(head) = self.head(signal).filter(|head| head.header.format != wire.id()) {
            format = Some(head.header.format);
            lost += self.lose(signal, &head);
        }
        if let Some(format) = format {
            let made_for = Protocol::of_id(format).map_or("another protocol", Protocol::name);
            log::warn!("queue: {lost} {signal} records given up: they were stored for {made_for}");
        }
    }

    /// Counts the oldest block of `signal` as dropped, and gives the number of its records that were.
    fn lose(&mut self, signal: Signal, head: &Item) -> u64 {
        let done = u64::from(self.state.marks.get(signal).records);
        let records = head.header.user_records().saturating_sub(done);
        self.state.ledger.drop(Tally { signal, reason: Reason::Damaged, records });
        if let (Kind::Report(tally), true) = (head.header.kind, self.is_first()) {
            self.state.ledger.unreport(tally);
        }
        self.advance(signal, Mark { seq: head.header.seq, records: 0 });
        records
    }
}

/// Records in `items`. Their headers are believed, so it is capped rather than wrong beyond 32 bits.
fn records_of<'a>(items: impl Iterator<Item = &'a Item>) -> u32 {
    items.fold(0, |sum: u32, item| sum.saturating_add(item.header.records))
}
