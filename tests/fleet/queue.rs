//! The queue of one signal, as far as the policy can tell: blocks with a size and a time.

use std::collections::VecDeque;

use outlast::drain::policy::{Backlog, Head, Portion, Sent};

use crate::backend::Micros;
use crate::environment::time;

/// Plain bytes of a block, at most (`encode`).
const BLOCK_MAX: u32 = 256 << 10;

/// Bytes of a record, roughly: the policy asks only whether there are several.
const RECORD: u64 = 200;

/// Plain bytes that the default budget of 64 MiB holds of one signal: logs shrink to a fifth or so.
const KEPT_MAX: u64 = 300 << 20;

#[derive(Clone, Copy, Debug)]
struct Block {
    /// Milliseconds: small, because there are many.
    at_millis: u32,
    bytes: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    blocks: VecDeque<Block>,
    bytes: u64,
    /// Blocks that have left at the front.
    gone: u64,
    /// Bytes of the oldest, in which an observer takes interest.
    owed: u64,
}

impl Queue {
    /// Puts `bytes` in. Returns the bytes that had to make room.
    pub(crate) fn append(&mut self, now: Micros, mut bytes: u32, in_flight: bool) -> u64 {
        while bytes > 0 {
            let block = Block { at_millis: (now / 1_000) as u32, bytes: bytes.min(BLOCK_MAX) };
            bytes -= block.bytes;
            self.bytes += u64::from(block.bytes);
            self.blocks.push_back(block);
        }
        let before = self.bytes;
        while self.bytes > KEPT_MAX && !in_flight {
            self.pop();
        }
        before - self.bytes
    }

    fn pop(&mut self) {
        if let Some(block) = self.blocks.pop_front() {
            self.bytes -= u64::from(block.bytes);
            self.gone += 1;
            self.owed = self.owed.saturating_sub(u64::from(block.bytes));
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// From now on what waits at this moment is told apart.
    pub(crate) fn mark(&mut self) {
        self.owed = self.bytes;
    }

    /// Bytes of what waited at the mark and still does.
    pub(crate) fn owed(&self) -> u64 {
        self.owed
    }

    /// When the oldest of it was said.
    pub(crate) fn oldest(&self) -> Option<Micros> {
        self.blocks.front().map(|block| u64::from(block.at_millis) * 1_000)
    }

    pub(crate) fn level(&self) -> Backlog {
        Backlog {
            blocks: self.blocks.len() as u64,
            bytes: self.bytes,
            oldest: self.oldest().map(time),
            head: self.blocks.front().map(|block| {
                let bytes = u64::from(block.bytes);
                Head { sequence: self.gone, records: 1 + bytes / RECORD, bytes }
            }),
            crowded: false,
            brimming: false,
        }
    }

    /// What a request of `portion` carries.
    pub(crate) fn assemble(&self, portion: Portion) -> Sent {
        let Portion::Run { max_blocks, max_bytes } = portion else {
            panic!("{portion:?} of a backend that finds fault with no content");
        };
        let mut sent = Sent { head: self.gone, ..Sent::default() };
        for block in &self.blocks {
            let bytes = u64::from(block.bytes);
            let fits = sent.blocks < max_blocks && sent.plain_bytes + bytes <= max_bytes;
            if sent.blocks > 0 && !fits {
                break;
            }
            sent.blocks += 1;
            sent.records += 1 + bytes / RECORD;
            sent.plain_bytes += bytes;
        }
        sent.wire_bytes = sent.plain_bytes;
        sent
    }

    /// A request was taken.
    pub(crate) fn delivered(&mut self, sent: &Sent) {
        for _ in 0..sent.blocks {
            self.pop();
        }
    }
}
