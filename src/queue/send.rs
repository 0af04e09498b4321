//! Putting requests together from stored blocks.

use super::block::{self, BlockError, GzipAssembler};
use super::bytes::crc32;
use super::lane::{Flight, Item};
use super::ledger::{Reason, Tally};
use super::segments::StoreError;
use super::state::Mark;
use super::store::Queue;
use super::types::{Encoding, Request};
use crate::Signal;
use crate::encode::WireFormat;
use std::ops::Range;

impl Queue {
    /// Puts together a request of the oldest waiting blocks of `signal`: at least one, then as many as fit
    /// into `max_bytes` plain bytes and `max_blocks`. `None` if nothing waits.
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
            let done = self.state.marks.get(signal).records;
            let head = self.fill(signal).head().copied()?;
            if done > 0 {
                match self.assemble_part(signal, wire, encoding, done..head.header.records) {
                    Some(request) => return Some(request),
                    None => continue,
                }
            }
            if head.header.format != wire.id() {
                self.lose_head(signal, "it is in another wire format");
                continue;
            }
            let items = self.run_of(signal, wire, max_bytes, max_blocks);
            let (sent, body) = self.body_of(&items, wire, encoding);
            let Some(last) = sent.last() else {
                self.lose_head(signal, "it is damaged");
                continue;
            };
            let to = Mark { seq: last.header.seq, records: 0 };
            self.lanes.get_mut(signal).flight = Some(Flight { to, orphaned: 0 });
            return Some(Request {
                signal,
                body,
                encoding,
                to,
                blocks: sent.len() as u32,
                records: sent.iter().map(|item| item.header.records).sum(),
                reports: sent.iter().filter(|item| item.is_report()).map(|item| item.header.records).sum(),
                plain_bytes: sent.iter().map(|item| u64::from(item.header.plain_len)).sum(),
                part: None,
                head: head.header.seq,
            });
        }
    }

    /// The oldest blocks of one wire format that fit together.
    fn run_of(&self, signal: Signal, wire: &dyn WireFormat, max_bytes: u64, max_blocks: u32) -> Vec<Item> {
        let mut bytes = 0;
        self.lanes
            .get(signal)
            .items()
            .take(max_blocks.max(1) as usize)
            .enumerate()
            .take_while(|(index, item)| {
                bytes += u64::from(item.header.plain_len);
                item.header.format == wire.id() && (*index == 0 || bytes <= max_bytes)
            })
            .map(|(_, item)| *item)
            .collect()
    }

    /// The body of a request, up to the first item that is damaged.
    fn body_of(&mut self, items: &[Item], wire: &dyn WireFormat, encoding: Encoding) -> (Vec<Item>, Vec<u8>) {
        let framing = wire.framing();
        let mut sent = Vec::with_capacity(items.len());
        match encoding {
            Encoding::Gzip => {
                let stored: usize = items.iter().map(|item| item.header.stored_len as usize + 16).sum();
                let mut member = GzipAssembler::new(stored);
                member.stored(framing.prefix);
                for item in items {
                    if !sent.is_empty() {
                        member.stored(framing.separator);
                    }
                    let read = member.payload(item.header.plain_len, item.header.plain_crc, |out| {
                        self.read_payload(item, out)
                    });
                    if read.is_err() {
                        break;
                    }
                    sent.push(*item);
                }
                member.stored(framing.suffix);
                (sent, member.finish())
            }
            Encoding::Identity => {
                let mut body = framing.prefix.to_vec();
                for item in items {
                    let Ok(plain) = self.plain(item) else { break };
                    if !sent.is_empty() {
                        body.extend_from_slice(framing.separator);
                    }
                    body.extend_from_slice(&plain);
                    sent.push(*item);
                }
                body.extend_from_slice(framing.suffix);
                (sent, body)
            }
        }
    }

    fn read_payload(&mut self, item: &Item, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let number = item.header.seq.segment();
        let start = out.len();
        out.resize(start + item.header.stored_len as usize, 0);
        let payload = out.get_mut(start..).ok_or(StoreError::Missing(number))?;
        self.store.read(number, payload, item.payload_offset)?;
        if crc32(payload) == item.header.stored_crc { Ok(()) } else { Err(StoreError::Missing(number)) }
    }

    pub(super) fn plain(&mut self, item: &Item) -> Result<Vec<u8>, BlockError> {
        let mut payload = Vec::new();
        self.read_payload(item, &mut payload).map_err(|_| BlockError::Inflate)?;
        block::inflate(&payload, item.header.plain_len, item.header.plain_crc)
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
        let mark = *self.state.marks.get(signal);
        let head = self.fill(signal).head().copied()?;
        let start = mark.records.min(head.header.records.saturating_sub(1));
        let end = records.end.clamp(start + 1, head.header.records.max(start + 1));
        let Some(mut request) = self.subset(signal, &head, wire, encoding, start..end) else {
            self.lose_head(signal, "it does not split into its records");
            return None;
        };
        if end < head.header.records {
            request.to = Mark { seq: mark.seq, records: end };
        }
        self.lanes.get_mut(signal).flight = Some(Flight { to: request.to, orphaned: 0 });
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
        let mut items = self.fill(signal).items().copied();
        let head = items.next()?;
        let (item, place) = match done + 1 {
            second if second < head.header.records => (head, second),
            _ => (items.next()?, 0),
        };
        drop(items);
        self.subset(signal, &item, wire, encoding, place..place + 1)
    }

    /// A request of some records of one block.
    fn subset(
        &mut self,
        signal: Signal,
        item: &Item,
        wire: &dyn WireFormat,
        encoding: Encoding,
        records: Range<u32>,
    ) -> Option<Request> {
        if item.header.format != wire.id() {
            return None;
        }
        let plain = self.plain(item).ok()?;
        let parts = wire.parts(&plain).ok()?;
        if parts.records.len() != item.header.records as usize {
            return None;
        }
        let subset = wire.subset(&plain, &parts, records.start as usize..records.end as usize);
        let framing = wire.framing();
        let plain_body = [framing.prefix, &subset, framing.suffix].concat();
        let plain_bytes = plain_body.len() as u64;
        let body = match encoding {
            Encoding::Gzip => block::gzip(&plain_body).ok()?,
            Encoding::Identity => plain_body,
        };
        Some(Request {
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
        })
    }

    /// Gives up the oldest block of `signal`, which cannot be sent.
    fn lose_head(&mut self, signal: Signal, why: &str) {
        let Some(head) = self.lanes.get(signal).head().copied() else { return };
        let done = u64::from(self.state.marks.get(signal).records);
        log::warn!("queue: block {} ({} records) given up: {why}", head.header.seq.0, head.header.records);
        let records = head.header.user_records().saturating_sub(done);
        self.state.ledger.drop(Tally { signal, reason: Reason::Damaged, records });
        self.advance(signal, Mark { seq: head.header.seq, records: 0 });
    }
}
