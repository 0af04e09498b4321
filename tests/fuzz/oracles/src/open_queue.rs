//! Whatever lies in its directory, a queue opens, gives out or counts every block that is intact, takes more, and is the
//! same when it is opened again.
//!
//! The input is a recipe: a small queue with a backlog, then either *damage* (bits, cuts, zeros, missing and foreign files),
//! after which every intact block must come out, in order; or *forgery* (frames and states that are sealed with the right
//! checksum but say anything), after which only the queue itself must stay whole.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Result, Unstructured};
use outlast::Signal;
use outlast::queue::{
    Appended, Batch, Deflater, Encoding, HEADER_BYTES, Limits, Overflow, Queue, Reason, Request,
};

use crate::lines::{FRAMINGS, Lines, block, ids};
use crate::memory::{MemoryDisk, directory};
use crate::otlp;

/// Two slots of state stand before the first frame.
const FRAMES_START: usize = 2 * SLOT_BYTES;
const SLOT_BYTES: usize = 1024;
/// The record that is appended afterwards.
const LATE_ID: u64 = 7_000_000;
/// A queue of this size holds a few dozen blocks; more requests than this are a loop without end.
const REQUESTS_MAX: usize = 5_000;

pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A block on disk.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    file: String,
    at: usize,
    bytes: Vec<u8>,
    signal: Signal,
    pub(crate) ids: Vec<u64>,
    pub(crate) done: bool,
}

/// Checks one recipe.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let forged = input.arbitrary().unwrap_or(false);
    // The end of the input is no finding.
    let Ok((mut files, frames)) = backlog(&mut input) else { return };
    for _ in 0..input.int_in_range(0..=5).unwrap_or_default() {
        // The end of the input ends the harm.
        let harmed = if forged { forge(&mut input, &mut files) } else { damage(&mut input, &mut files) };
        if harmed.is_err() {
            break;
        }
    }
    let disk = MemoryDisk::with(&files);
    let mut queue = open(&disk, 2);
    if forged {
        survives(&mut queue, &mut input);
    } else {
        gives_out(&mut queue, &files, &frames);
    }
    stays_whole(queue, &disk, !forged);
}

pub(crate) fn open(disk: &MemoryDisk, queue_id: u128) -> Queue {
    let limits = Limits {
        max_bytes: 1 << 20,
        segment_bytes: 4 << 10,
        memory_max_bytes: 1 << 20,
        overflow: Overflow::DropOldest,
    };
    let (queue, opened) = Queue::open(Box::new(disk.clone()), directory(), limits, queue_id);
    assert!(opened.problem.is_none(), "{:?}", opened.problem);
    queue
}

fn assemble(queue: &mut Queue, signal: Signal, max_blocks: u32) -> Option<Request> {
    queue.assemble(signal, &Lines(FRAMINGS[0]), Encoding::Gzip, 32 << 10, max_blocks)
}

/// A queue of a few segments, of which a part is delivered.
fn backlog(input: &mut Unstructured<'_>) -> Result<(Files, Vec<Frame>)> {
    let disk = MemoryDisk::default();
    let mut queue = open(&disk, 1);
    let mut deflater = Deflater::default();
    let mut next = 0;
    for delivery in 0..input.int_in_range(1..=8_u32)? {
        let mut blocks = Vec::new();
        for _ in 0..input.int_in_range(1..=2)? {
            let (signal, count, padding): (u8, u8, u8) = input.arbitrary()?;
            let ids: Vec<u64> = (next..next + 1 + u64::from(count % 4)).collect();
            next += ids.len() as u64;
            blocks.push(block(
                &mut deflater,
                Signal::ALL[usize::from(signal) % 3],
                &ids,
                usize::from(padding) * 4,
            ));
        }
        let batch = Batch { delivery: u128::from(delivery), received: 1, parts_before: 0, blocks };
        assert_eq!(queue.append(&batch).expect("room"), Appended::OnDisk);
        if input.ratio(1_u8, 6)? {
            queue = open(&disk, 1);
        }
    }
    let mut done = BTreeSet::new();
    for signal in Signal::ALL {
        for _ in 0..input.int_in_range(0..=2)? {
            let Some(request) = assemble(&mut queue, signal, 1) else { break };
            done.extend(ids(&otlp::plain(&request)));
            queue.done(signal, request.to);
        }
    }
    let files = disk.contents();
    let mut frames: Vec<Frame> = files.iter().flat_map(|(name, bytes)| frames_in(name, bytes)).collect();
    for frame in &mut frames {
        frame.done = done.contains(&frame.ids[0]);
    }
    Ok((files, frames))
}

/// The frames of a whole segment, after the table of the format.
pub(crate) fn frames_in(file: &str, bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut at = FRAMES_START;
    while at + HEADER_BYTES <= bytes.len() {
        let stored_len = u32::from_le_bytes(bytes[at + 48..at + 52].try_into().expect("four bytes")) as usize;
        let frame = &bytes[at..at + HEADER_BYTES + stored_len];
        let plain_len = u32::from_le_bytes(frame[44..48].try_into().expect("four bytes"));
        let plain_crc = u32::from_le_bytes(frame[52..56].try_into().expect("four bytes"));
        let plain = outlast::queue::inflate(&frame[HEADER_BYTES..], plain_len, plain_crc).expect("our own");
        let signal = Signal::from_byte(frame[5]).expect("a signal");
        let (ids, bytes) = (ids(&plain), frame.to_vec());
        frames.push(Frame { file: file.to_owned(), at, bytes, signal, ids, done: false });
        at += HEADER_BYTES + stored_len;
    }
    frames
}

fn pick(input: &mut Unstructured<'_>, files: &Files) -> Result<String> {
    let names: Vec<&String> = files.keys().collect();
    Ok((*input.choose(&names)?).clone())
}

/// A place in a file: anywhere, or near where something begins.
fn place(input: &mut Unstructured<'_>, len: usize) -> Result<usize> {
    let (near, offset): (u8, u16) = input.arbitrary()?;
    let offset = usize::from(offset);
    let at = match near % 4 {
        0 => offset % 40,
        1 => FRAMES_START + offset % 200,
        _ => offset,
    };
    Ok(at % len.max(1))
}

/// What happens to files: nothing of it can make a block or a state that was not there.
fn damage(input: &mut Unstructured<'_>, files: &mut Files) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let name = pick(input, files)?;
    let bytes = files.get_mut(&name).expect("a file");
    let at = place(input, bytes.len())?;
    match input.arbitrary::<u8>()? % 8 {
        0..=2 => {
            let bit = input.int_in_range(0..=7)?;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        3 => bytes.truncate(at),
        4 => {
            let len = usize::from(input.arbitrary::<u16>()?);
            bytes.iter_mut().skip(at).take(len).for_each(|byte| *byte = 0);
        }
        5 => {
            let noise: &[u8] = input.arbitrary()?;
            bytes.iter_mut().skip(at).zip(noise).for_each(|(byte, noise)| *byte = *noise);
        }
        6 => bytes.extend_from_slice(input.arbitrary()?),
        _ => {
            let bytes = files.remove(&name).expect("a file");
            let number: u32 = input.arbitrary()?;
            match input.arbitrary::<u8>()? % 4 {
                // Removed.
                0 => {}
                // Not ours.
                1 => drop(files.insert("notes.txt".to_owned(), bytes)),
                _ => drop(files.insert(format!("{number:010}.seg"), bytes)),
            }
        }
    }
    Ok(())
}

/// Frames and states that were never written, with checksums that are right.
fn forge(input: &mut Unstructured<'_>, files: &mut Files) -> Result<()> {
    if files.is_empty() || input.ratio(1_u8, 8)? {
        let number = input.arbitrary::<u32>()? >> 1;
        files.insert(format!("{number:010}.seg"), input.arbitrary::<&[u8]>()?.to_vec());
        return Ok(());
    }
    let name = pick(input, files)?;
    let segment: u32 = name.strip_suffix(".seg").and_then(|number| number.parse().ok()).unwrap_or(1);
    let bytes = files.get_mut(&name).expect("a file");
    match input.arbitrary::<u8>()? % 4 {
        0 => {
            let slot = SLOT_BYTES * usize::from(input.arbitrary::<bool>()?);
            if bytes.len() < FRAMES_START {
                return Ok(());
            }
            bytes[slot..slot + 8].copy_from_slice(b"outlast1");
            bytes[slot + 8..slot + 12].copy_from_slice(&segment.to_le_bytes());
            // Identity, generation, marks and ledger.
            for _ in 0..input.int_in_range(0..=4)? {
                let at = slot + 12 + usize::from(input.arbitrary::<u8>()? % 54) * 8;
                // Absurd, or what a state could say: numbers may grow to half of all there are.
                let value = if input.arbitrary()? { u64::MAX } else { input.arbitrary::<u64>()? >> 1 };
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
            seal(&mut bytes[slot..slot + SLOT_BYTES]);
        }
        1 | 2 => {
            let mut frame = [0; HEADER_BYTES];
            let payload: &[u8] = input.arbitrary()?;
            input.fill_buffer(&mut frame)?;
            frame[..4].copy_from_slice(b"oLf1");
            frame[4] = frame[4] % 3 + 1;
            frame[5] %= 3;
            frame[6] = if input.arbitrary()? { 250 } else { frame[6] };
            if input.ratio(7_u8, 8)? {
                let ordinal = u32::from(input.arbitrary::<u8>()?);
                frame[8..12].copy_from_slice(&ordinal.to_le_bytes());
                frame[12..16].copy_from_slice(&segment.to_le_bytes());
                frame[48..52].copy_from_slice(&(payload.len() as u32).to_le_bytes());
                frame[56..60].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
            }
            seal(&mut frame);
            bytes.extend_from_slice(&frame);
            bytes.extend_from_slice(payload);
        }
        // A piece of the file, once more at its end.
        _ => {
            let from = place(input, bytes.len())?;
            let piece: Vec<u8> = bytes[from.min(bytes.len())..].to_vec();
            bytes.extend(piece);
        }
    }
    Ok(())
}

/// Ends `bytes` in the CRC-32 of what is before.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..at]);
    bytes[at..].copy_from_slice(&crc.to_le_bytes());
}

/// Every block that is intact comes out, in order; one whose payload alone is damaged is counted.
pub(crate) fn gives_out(queue: &mut Queue, files: &Files, frames: &[Frame]) {
    for signal in Signal::ALL {
        let mut sent: Vec<u64> = Vec::new();
        while queue.count_one() {}
        for _ in 0..REQUESTS_MAX {
            let Some(request) = assemble(queue, signal, 64) else { break };
            assert!(request.to > *queue.state().marks.get(signal));
            sent.extend(ids(&otlp::plain(&request)));
            queue.done(signal, request.to);
        }
        assert!(sent.is_sorted_by(|a, b| a < b), "out of order or twice: {sent:?}");
        let found: BTreeSet<u64> = sent.iter().copied().collect();
        let of_signal = || frames.iter().filter(|frame| frame.signal == signal);
        let mut damaged = 0;
        for frame in of_signal().filter(|frame| !frame.done) {
            let there =
                files.get(&frame.file).and_then(|bytes| bytes.get(frame.at..frame.at + frame.bytes.len()));
            if there == Some(&frame.bytes) {
                assert!(frame.ids.iter().all(|id| found.contains(id)), "{frame:?} is lost; {sent:?}");
            } else if there.is_some_and(|there| there[..HEADER_BYTES] == frame.bytes[..HEADER_BYTES]) {
                damaged += frame.ids.len() as u64;
            }
        }
        let known: BTreeSet<u64> = of_signal().flat_map(|frame| frame.ids.clone()).collect();
        assert!(found.is_subset(&known), "made up");
        let counted = queue.ledger().dropped_for(signal, Reason::Damaged);
        assert!(counted >= damaged, "{signal}: {counted} of {damaged} damaged records are counted");
        assert!(!queue.is_stalled());
    }
}

/// Sends and refuses until nothing is left, by any of the ways there are.
fn survives(queue: &mut Queue, input: &mut Unstructured<'_>) {
    let wire = Lines(FRAMINGS[1]);
    for signal in Signal::ALL {
        while queue.count_one() {}
        let mut idle = 0;
        for turn in 0.. {
            assert!(turn < REQUESTS_MAX, "{signal} never ends: {:?}", queue.state());
            let way: u8 = input.arbitrary().unwrap_or_default();
            let encoding = if way & 1 == 0 { Encoding::Gzip } else { Encoding::Identity };
            drop(queue.assemble_second(signal, &wire, encoding));
            let request = match way >> 1 & 1 {
                0 => queue.assemble(signal, &wire, encoding, 32 << 10, u32::from(way >> 4)),
                _ => queue.assemble_part(signal, &wire, encoding, 0..u32::from(way >> 4)),
            };
            let Some(request) = request else {
                idle += 1;
                if idle > 20 && queue.oldest(signal).is_none() {
                    break;
                }
                continue;
            };
            assert!(request.to > *queue.state().marks.get(signal), "no step forward");
            match way >> 2 & 3 {
                0 => queue.refuse(signal, request.to, Reason::Refused),
                1 => queue.done_but(signal, request.to, u64::from(way)),
                _ => queue.done(signal, request.to),
            }
        }
    }
    let _ = queue.fragment();
    let _ = queue.ledger().unreported();
}

/// The queue takes a block more, closes, and opened again gives that one and nothing else.
pub(crate) fn stays_whole(mut queue: Queue, disk: &MemoryDisk, counts_hold: bool) {
    let dropped = Signal::ALL.map(|signal| queue.ledger().dropped(signal));
    let late = block(&mut Deflater::default(), Signal::Logs, &[LATE_ID], 10);
    let batch = Batch { delivery: u128::MAX, received: 2, parts_before: 0, blocks: vec![late] };
    assert_eq!(queue.append(&batch).expect("room"), Appended::OnDisk);
    assert_eq!(queue.close(), 0);
    drop(queue);
    let mut queue = open(disk, 3);
    while queue.count_one() {}
    let request = assemble(&mut queue, Signal::Logs, 64).expect("what was appended");
    assert_eq!(ids(&otlp::plain(&request)), [LATE_ID]);
    queue.done(Signal::Logs, request.to);
    assert_eq!(queue.close(), 0);
    let mut queue = open(disk, 4);
    while queue.count_one() {}
    for signal in Signal::ALL {
        assert!(assemble(&mut queue, signal, 64).is_none(), "{signal} comes again");
        assert_eq!(queue.waiting(signal).blocks, 0);
    }
    let again = Signal::ALL.map(|signal| queue.ledger().dropped(signal));
    assert!(!counts_hold || dropped == again, "{dropped:?}, {again:?}");
}
