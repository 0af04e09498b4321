//! Requests put together from blocks are what the blocks hold, to a decoder that forgives nothing.

use std::io::Read;

use arbitrary::{Result, Unstructured};
use flate2::read::GzDecoder;
use outlast::Signal;
use outlast::encode::WireFormat;
use outlast::queue::{Batch, Deflater, Encoding, GzipAssembler, Limits, Overflow, Queue, gzip, inflate};

use crate::lines::{FRAMINGS, Lines, block, line};
use crate::memory::{MemoryDisk, directory};
use crate::otlp;

/// Bytes are repeated at most so often, so that a few of them make blocks of every size up to some hundred KiB.
const REPEATS_MAX: usize = 20_000;
/// Nothing larger is made.
const PLAIN_MAX_BYTES: usize = 400_000;

/// Checks one run of blocks.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // The end of the input ends the run.
    let checked = if input.arbitrary().unwrap_or(false) { queued(&mut input) } else { assembled(&mut input) };
    checked.unwrap_or_default();
}

/// Two readers that share nothing but the inflater: one of them strict about everything around it.
fn decoded(body: &[u8]) -> Vec<u8> {
    let strict = outlast_backend::gzip::decode(body).expect("one gzip member");
    let mut reader = GzDecoder::new(body);
    let mut usual = Vec::new();
    reader.read_to_end(&mut usual).expect("gzip");
    assert!(reader.into_inner().is_empty(), "something follows the member");
    assert!(usual == strict);
    strict
}

fn plain(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let bytes: &[u8] = input.arbitrary()?;
    let often = match input.arbitrary::<u8>()? {
        0..=200 => 1,
        _ => input.int_in_range(1..=REPEATS_MAX)?,
    };
    Ok(bytes.repeat(often.min(PLAIN_MAX_BYTES / bytes.len().max(1))))
}

/// The assembler alone: stored bytes, payloads, and payloads that could not be read.
fn assembled(input: &mut Unstructured<'_>) -> Result<()> {
    let mut deflater = Deflater::default();
    let mut member = GzipAssembler::new(input.int_in_range(0..=1000)?);
    let mut expected = Vec::new();
    for _ in 0..input.int_in_range(0..=12)? {
        let Ok(plain) = plain(input) else { break };
        match input.arbitrary::<u8>().unwrap_or_default() % 4 {
            0 => {
                member.stored(&plain);
                expected.extend_from_slice(&plain);
            }
            1 => {
                let failed = member.payload(plain.len() as u32, 1, |out| {
                    out.extend_from_slice(&plain);
                    Err("cannot be read")
                });
                assert_eq!(failed, Err("cannot be read"));
            }
            _ => {
                let payload = deflater.deflate(&plain).expect("deflated");
                let crc = crc32fast::hash(&plain);
                assert!(inflate(&payload, plain.len() as u32, crc).expect("our own") == plain);
                member
                    .payload(plain.len() as u32, crc, |out| {
                        out.extend_from_slice(&payload);
                        Ok::<_, ()>(())
                    })
                    .expect("a payload");
                assert!(decoded(&gzip(&plain).expect("gzip")) == plain);
                expected.extend_from_slice(&plain);
            }
        }
    }
    assert!(decoded(&member.finish()) == expected);
    Ok(())
}

/// Requests as the queue puts them together: runs of blocks, parts of one block, the record after the first.
fn queued(input: &mut Unstructured<'_>) -> Result<()> {
    let wire = Lines(*input.choose(&FRAMINGS)?);
    let framing = wire.framing(Signal::Logs);
    let limits = Limits::new(64 << 20, Overflow::DropOldest);
    let (mut queue, _) = Queue::open(Box::new(MemoryDisk::default()), directory(), limits, 1);
    let mut deflater = Deflater::default();
    // Each block as the lines it has.
    let mut blocks: Vec<Vec<String>> = Vec::new();
    let mut next = 0;
    for delivery in 0..input.int_in_range(1..=8_u32)? {
        let padding = usize::from(input.arbitrary::<u16>()?) % 2000;
        let ids: Vec<u64> = (next..next + u64::from(input.int_in_range(1..=6_u8)?)).collect();
        next += ids.len() as u64;
        let block = block(&mut deflater, Signal::Logs, &ids, padding);
        let batch =
            Batch { delivery: u128::from(delivery), received: 1, parts_before: 0, blocks: vec![block] };
        queue.append(&batch).expect("room");
        blocks.push(ids.iter().map(|id| line(*id, padding)).collect());
    }
    let around = |content: &str| [framing.prefix, content.as_bytes(), framing.suffix].concat();
    let mut done = 0;
    while let Some(head) = blocks.first() {
        let encoding = if input.arbitrary().unwrap_or(true) { Encoding::Gzip } else { Encoding::Identity };
        if input.ratio(1_u8, 4).unwrap_or(false) {
            let second = queue.assemble_second(Signal::Logs, &wire, encoding);
            let line = head.get(done + 1).or_else(|| blocks.get(1).and_then(|block| block.first()));
            assert_eq!(second.map(|request| body(&request)), line.map(|line| around(line)));
        }
        let request = if input.arbitrary().unwrap_or(false) {
            let count = input.int_in_range(1..=head.len() as u32).unwrap_or(1);
            let end = done as u32 + count;
            let request =
                queue.assemble_part(Signal::Logs, &wire, encoding, done as u32..end).expect("a part");
            let end = head.len().min(end as usize);
            assert!(body(&request) == around(&head[done..end].concat()));
            assert_eq!(request.records as usize, end - done);
            done = end;
            request
        } else {
            let max_blocks = input.int_in_range(0..=4).unwrap_or(4);
            let max_bytes = u64::from(input.arbitrary::<u16>().unwrap_or(u16::MAX));
            let request =
                queue.assemble(Signal::Logs, &wire, encoding, max_bytes, max_blocks).expect("a run");
            if done > 0 {
                assert!(body(&request) == around(&head[done..].concat()));
            } else {
                let run: Vec<Vec<u8>> = blocks[..request.blocks as usize]
                    .iter()
                    .map(|block| block.concat().into_bytes())
                    .collect();
                let content = run.join(framing.separator);
                let expected = [framing.prefix, &content, framing.suffix].concat();
                assert!(body(&request) == expected);
                assert!(request.blocks <= max_blocks.max(1));
                assert!(request.blocks == 1 || request.plain_bytes <= max_bytes);
                blocks.drain(1..request.blocks as usize);
            }
            done = blocks[0].len();
            request
        };
        if done == blocks[0].len() {
            blocks.remove(0);
            done = 0;
        }
        queue.done(Signal::Logs, request.to);
    }
    assert!(queue.assemble(Signal::Logs, &wire, Encoding::Gzip, 1000, 10).is_none());
    Ok(())
}

fn body(request: &outlast::queue::Request) -> Vec<u8> {
    match request.encoding {
        Encoding::Gzip => decoded(&request.body),
        Encoding::Identity => otlp::plain(request),
    }
}
