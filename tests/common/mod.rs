//! What several integration tests share.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(unreachable_pub)] // each test is a crate of its own // a test fails by panicking
#![allow(dead_code)]

pub mod disk;

use flate2::read::GzDecoder;
use outlast::Signal;
use outlast::encode::{Framing, Parts, SplitError, WireFormat};
use outlast::queue::{Batch, Deflater, Encoding, Kind, NewBlock, Queue, Request};
use std::io::Read;
use std::ops::Range;
use std::path::Path;

/// A wire format of lines: each record is a number.
pub struct Lines;

impl WireFormat for Lines {
    fn id(&self) -> u8 {
        250
    }
    fn content_type(&self) -> &'static str {
        "text/plain"
    }
    fn path(&self, _: Signal, given: &str) -> String {
        given.to_owned()
    }
    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"<", separator: b"|\n", suffix: b">" }
    }
    fn block_head(&self, _: Signal, _: &outlast::record::Resource, _: usize, _: &mut Vec<u8>) {}
    fn log(&self, _: &outlast::record::Resource, _: &outlast::record::LogRecord<'_>, _: &mut Vec<u8>) {}
    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        let mut records = Vec::new();
        let mut start = 0;
        for (at, byte) in plain.iter().enumerate() {
            if *byte == b'\n' {
                records.push(start..at + 1);
                start = at + 1;
            }
        }
        Ok(Parts { head: 0..0, records })
    }
    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        parts.records[records].iter().flat_map(|range| plain[range.clone()].to_vec()).collect()
    }
}

/// The length of all files in `dir` together.
pub fn bytes_in(dir: &Path) -> u64 {
    std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// A block of numbered records.
pub fn block(deflater: &mut Deflater, signal: Signal, ids: &[u64], padding: usize) -> NewBlock {
    // Padding that does not compress, so that sizes are what they seem.
    let mut rng = fastrand::Rng::with_seed(ids.first().copied().unwrap_or(0));
    let mut plain = String::new();
    for id in ids {
        plain.push_str(&id.to_string());
        plain.push(' ');
        plain.extend((0..padding).map(|_| rng.alphanumeric()));
        plain.push('\n');
    }
    NewBlock {
        kind: Kind::Block { joins: None },
        signal,
        format: Lines.id(),
        severity: severity_of(ids.first().copied().unwrap_or(0)),
        events_end: ids.len() as u32,
        records: ids.len() as u32,
        plain_len: plain.len() as u32,
        plain_crc: crc32fast::hash(plain.as_bytes()),
        times: (1, 2),
        payload: deflater.deflate(plain.as_bytes()).unwrap(),
    }
}

/// The severity of the block whose first record is `first`: unknown, DEBUG, INFO, WARN or ERROR, in no order.
pub fn severity_of(first: u64) -> u8 {
    [0, 5, 9, 13, 17][(first.wrapping_mul(2_654_435_761) >> 7) as usize % 5]
}

/// A delivery of `blocks`.
pub fn batch(delivery: u128, blocks: Vec<NewBlock>) -> Batch {
    Batch { delivery, received: 1, parts_before: 0, blocks }
}

/// The numbers in a request, as a strict receiver reads them.
pub fn numbers(request: &Request) -> Vec<u64> {
    let mut text = String::new();
    match request.encoding {
        Encoding::Gzip => {
            GzDecoder::new(&request.body[..]).read_to_string(&mut text).unwrap();
        }
        Encoding::Identity => text = String::from_utf8(request.body.clone()).unwrap(),
    }
    text.strip_prefix('<')
        .and_then(|rest| rest.strip_suffix('>'))
        .unwrap()
        .replace("|\n", "")
        .lines()
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect()
}

/// Everything that waits, by signal, oldest first, taken out by delivering it.
pub fn drain(queue: &mut Queue) -> [Vec<u64>; 3] {
    Signal::ALL.map(|signal| {
        let mut all = Vec::new();
        loop {
            while queue.count_one() {}
            let Some(request) = queue.assemble(signal, &Lines, Encoding::Gzip, 32 << 10, 64) else { break };
            all.extend(numbers(&request));
            queue.done(signal, request.to);
        }
        all
    })
}

/// Flips a bit of the last byte of the file.
pub fn damage_end(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// Copies the files of one directory into another.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
