//! A wire format of lines, whose records are numbers that can be told from one another.

use std::ops::Range;

use outlast::Signal;
use outlast::encode::{Framing, Parts, SplitError, WireFormat};
use outlast::queue::{Deflater, Kind, NewBlock};
use outlast::record::{LogRecord, Resource};

/// A separator that takes more than one stored deflate block.
static LONG: [u8; 70_000] = [b'~'; 70_000];

/// Framings to choose from: none, that of a JSON array, one that is long.
pub(crate) const FRAMINGS: [Framing; 3] = [
    Framing { prefix: b"", separator: b"", suffix: b"" },
    Framing { prefix: b"[", separator: b",\n", suffix: b"]" },
    Framing { prefix: b"<", separator: &LONG, suffix: b">" },
];

/// Lines in a framing.
pub(crate) struct Lines(pub(crate) Framing);

impl WireFormat for Lines {
    fn id(&self) -> u8 {
        250
    }

    fn content_type(&self) -> &'static str {
        "text/plain"
    }

    fn path(&self, _: Signal, _: &str) -> String {
        "/".to_owned()
    }

    fn framing(&self, _: Signal) -> Framing {
        self.0
    }

    fn block_head(&self, _: Signal, _: &Resource, _: usize, _: &mut Vec<u8>) {}

    fn log(&self, _: &Resource, _: &LogRecord<'_>, _: &mut Vec<u8>) {}

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        let mut start = 0;
        let ends = plain.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let records = ends.map(|end| std::mem::replace(&mut start, end)..end).collect();
        Ok(Parts { head: 0..0, records })
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        let chosen = parts.records.iter().take(records.end).skip(records.start);
        chosen.flat_map(|range| plain[range.clone()].to_vec()).collect()
    }
}

/// The line of a record: its number and padding that does not compress to nothing.
pub(crate) fn line(id: u64, padding: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(id);
    let padding: String = (0..padding).map(|_| rng.alphanumeric()).collect();
    format!("{id} {padding}\n")
}

/// The number of each line.
pub(crate) fn ids(plain: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(plain).expect("lines");
    text.lines()
        .map(|line| line.split(' ').next().and_then(|id| id.parse().ok()).expect("a number"))
        .collect()
}

/// A block of numbered records.
pub(crate) fn block(deflater: &mut Deflater, signal: Signal, ids: &[u64], padding: usize) -> NewBlock {
    let plain: String = ids.iter().map(|id| line(*id, padding)).collect();
    NewBlock {
        kind: Kind::Block { joins: None },
        signal,
        format: Lines(FRAMINGS[0]).id(),
        severity: 0,
        events_end: ids.len() as u32,
        records: ids.len() as u32,
        plain_len: plain.len() as u32,
        plain_crc: crc32fast::hash(plain.as_bytes()),
        times: (1, 2),
        payload: deflater.deflate(plain.as_bytes()).expect("deflated"),
    }
}
