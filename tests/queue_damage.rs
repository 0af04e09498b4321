//! Whatever happens to its files, a queue opens, and gives out every block that is intact, in order.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::disk::{LawfulDisk, Op, broken};
use common::{Lines, batch, block, copy_dir, drain, numbers};
use outlast::Signal;
use outlast::queue::{Appended, Deflater, Encoding, HEADER_BYTES, Limits, Overflow, Queue, RealDisk, Reason};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Two slots of state stand before the first frame.
const FRAMES_START: usize = 2048;
const SLOT_BYTES: usize = 1024;

fn open_as(dir: &Path, queue_id: u128) -> Queue {
    let limits = Limits {
        max_bytes: 1 << 20,
        segment_bytes: 7 << 10,
        memory_max_bytes: 1 << 20,
        overflow: Overflow::DropOldest,
    };
    let (queue, opened) = Queue::open(Box::new(RealDisk), dir, limits, queue_id);
    assert!(opened.problem.is_none(), "{:?}", opened.problem);
    queue
}

fn open(dir: &Path) -> Queue {
    open_as(dir, 1)
}

/// A block on disk.
#[derive(Clone, Debug)]
struct Frame {
    file: PathBuf,
    bytes: Range<usize>,
    signal: Signal,
    ids: Vec<u64>,
    done: bool,
}

/// A queue with a backlog, and where each of its blocks lies.
struct Backlog {
    dir: tempfile::TempDir,
    frames: Vec<Frame>,
}

/// Where the frames of a segment lie.
fn frames_in(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut frames = Vec::new();
    let mut at = FRAMES_START;
    while at + HEADER_BYTES <= bytes.len() {
        let stored_len = u32::from_le_bytes(bytes[at + 48..at + 52].try_into().unwrap()) as usize;
        frames.push(at..at + HEADER_BYTES + stored_len);
        at += HEADER_BYTES + stored_len;
    }
    frames
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

impl Backlog {
    /// `first_id` tells its records from those of another queue.
    fn new(queue_id: u128, first_id: u64, first_segment: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{:010}.seg", first_segment - 1)), b"").unwrap();
        let mut queue = open_as(dir.path(), queue_id);
        let mut deflater = Deflater::default();
        let mut next = first_id;
        let mut appended = Vec::new();
        for delivery in 0..16 {
            let mut blocks = Vec::new();
            for signal in [Signal::Logs, Signal::ALL[delivery % 3]] {
                let ids: Vec<u64> = (next..next + 3).collect();
                next += 3;
                blocks.push(block(&mut deflater, signal, &ids, 300));
                appended.push((signal, ids));
            }
            let kept = queue.append(&batch(u128::from(next), blocks)).unwrap();
            assert_eq!(kept, Appended::OnDisk);
        }
        // Not so much that a segment goes.
        let request = queue.assemble(Signal::Metrics, &Lines, Encoding::Gzip, 1 << 20, 1).unwrap();
        let done: BTreeSet<u64> = numbers(&request).into_iter().collect();
        queue.done(Signal::Metrics, request.to);
        let mut appended = appended.into_iter();
        let mut frames = Vec::new();
        for file in files(dir.path()).into_iter().filter(|file| file.is_file()) {
            for bytes in frames_in(&fs::read(&file).unwrap()) {
                let (signal, ids) = appended.next().unwrap();
                let file = file.file_name().unwrap().into();
                frames.push(Frame { file, bytes, signal, done: done.contains(&ids[0]), ids });
            }
        }
        assert!(appended.next().is_none());
        let backlog = Self { dir, frames };
        assert!(backlog.segments().len() >= 4, "{:?}", backlog.segments());
        backlog
    }

    fn segments(&self) -> Vec<PathBuf> {
        let names: BTreeSet<PathBuf> = self.frames.iter().map(|frame| frame.file.clone()).collect();
        names.into_iter().collect()
    }

    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        copy
    }

    /// Does `harm` to a copy and checks that all frames for which `intact` holds come out.
    fn survives(&self, what: &str, harm: impl FnOnce(&Path), intact: impl Fn(&Frame) -> bool) {
        let copy = self.copy();
        harm(copy.path());
        let mut queue = open(copy.path());
        let drained = drain(&mut queue);
        self.check(what, &drained, intact);
        // It goes on working, and counts nothing twice.
        let dropped = Signal::ALL.map(|signal| queue.ledger().dropped(signal));
        let mut deflater = Deflater::default();
        let kept =
            queue.append(&batch(1, vec![block(&mut deflater, Signal::Logs, &[7_000_000], 10)])).unwrap();
        assert_eq!(kept, Appended::OnDisk, "{what}");
        drop(queue);
        let mut queue = open(copy.path());
        let mut drained = drain(&mut queue);
        drained[0].retain(|id| *id == 7_000_000);
        assert_eq!(drained[0], [7_000_000], "{what}");
        assert_eq!(
            dropped,
            Signal::ALL.map(|signal| queue.ledger().dropped(signal)),
            "{what}: counted twice"
        );
    }

    fn check(&self, what: &str, drained: &[Vec<u64>; 3], intact: impl Fn(&Frame) -> bool) {
        for signal in Signal::ALL {
            let of_signal = || self.frames.iter().filter(move |frame| frame.signal == signal);
            let drained = &drained[signal.index()];
            assert!(
                drained.is_sorted_by(|a, b| a < b),
                "{what}: {signal} out of order or twice: {drained:?}"
            );
            let found: BTreeSet<u64> = drained.iter().copied().collect();
            for frame in of_signal().filter(|frame| intact(frame) && !frame.done) {
                let missing: Vec<_> = frame.ids.iter().filter(|id| !found.contains(id)).collect();
                assert!(missing.is_empty(), "{what}: {signal} {missing:?} of {frame:?} lost");
            }
            let known: BTreeSet<u64> = of_signal().flat_map(|frame| frame.ids.clone()).collect();
            assert!(found.is_subset(&known), "{what}: {signal} made up");
        }
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_flipped_bit_costs_at_most_its_own_block() {
    let backlog = Backlog::new(1, 0, 1);
    let mut rng = fastrand::Rng::with_seed(5);
    for name in backlog.segments() {
        let len = fs::metadata(backlog.dir.path().join(&name)).unwrap().len() as usize;
        let frames = backlog.frames.iter().filter(|frame| frame.file == name);
        let mut places: Vec<usize> =
            frames.map(|frame| frame.bytes.start + rng.usize(..HEADER_BYTES)).collect();
        places.extend((0..12).map(|_| rng.usize(..len)));
        for at in places {
            let what = format!("{name:?} bit flipped at {at}");
            let harm = |dir: &Path| edit(&dir.join(&name), |bytes| bytes[at] ^= 1 << rng.u8(..8));
            backlog.survives(&what, harm, |frame| frame.file != name || !frame.bytes.contains(&at));
        }
    }
}

#[test]
fn a_segment_that_was_cut_off_keeps_what_is_before() {
    let backlog = Backlog::new(1, 0, 1);
    for name in backlog.segments() {
        let frames: Vec<_> = backlog.frames.iter().filter(|frame| frame.file == name).collect();
        let mut cuts =
            vec![0, 1, 7, SLOT_BYTES - 1, SLOT_BYTES, FRAMES_START - 1, FRAMES_START, FRAMES_START + 3];
        for frame in &frames {
            cuts.extend([frame.bytes.start, frame.bytes.start + 50, frame.bytes.start + HEADER_BYTES]);
            cuts.extend([frame.bytes.start + HEADER_BYTES + 1, frame.bytes.end - 1]);
        }
        for cut in cuts {
            let what = format!("{name:?} cut at {cut}");
            let harm = |dir: &Path| edit(&dir.join(&name), |bytes| bytes.truncate(cut));
            backlog.survives(&what, harm, |frame| frame.file != name || frame.bytes.end <= cut);
        }
    }
}

#[test]
fn a_segment_that_is_not_there_or_not_ours_costs_no_other() {
    let backlog = Backlog::new(1, 0, 1);
    let mut rng = fastrand::Rng::with_seed(6);
    let all = backlog.segments();
    let one_by_one = all.iter().map(|name| vec![name.clone()]).chain([all.clone()]);
    for names in one_by_one {
        let each =
            |dir: &Path, harm: &mut dyn FnMut(&Path)| names.iter().for_each(|name| harm(&dir.join(name)));
        let others = |frame: &Frame| !names.contains(&frame.file);
        let survives = |what: &str, harm: &mut dyn FnMut(&Path)| {
            backlog.survives(&format!("{names:?} {what}"), |dir| each(dir, harm), others);
        };
        survives("removed", &mut |path| fs::remove_file(path).unwrap());
        survives("random", &mut |path| {
            edit(path, |bytes| bytes.iter_mut().for_each(|byte| *byte = rng.u8(..)));
        });
        survives("zeros", &mut |path| edit(path, |bytes| bytes.fill(0)));
        survives("a directory", &mut |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
            fs::write(path.join("0000000001.seg"), b"x").unwrap();
        });
        survives("a link to nowhere", &mut |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/nonexistent", path).unwrap();
        });
        let without_states =
            |dir: &Path| each(dir, &mut |path| edit(path, |bytes| bytes[..FRAMES_START].fill(0)));
        backlog.survives(&format!("{names:?} without states"), without_states, |_| true);
    }
}

#[test]
fn a_segment_that_may_not_be_read_stays_and_is_tried_again() {
    let backlog = Backlog::new(1, 0, 1);
    for name in backlog.segments() {
        let copy = backlog.copy();
        let path = copy.path().join(&name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let readable = fs::File::open(&path).is_ok();
        let limits = Limits::new(1 << 20, Overflow::DropOldest);
        let (mut queue, opened) = Queue::open(Box::new(RealDisk), copy.path(), limits, 1);
        // Root may read everything.
        assert_eq!(opened.problem.is_none(), readable);
        let mut drained = drain(&mut queue);
        if !readable {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        queue.try_disk();
        for (signal, more) in drained.iter_mut().zip(drain(&mut queue)) {
            signal.extend(more);
        }
        backlog.check(&format!("{name:?} without permission"), &drained, |_| true);
    }
}

/// Makes a segment one of a later version of the format.
fn make_newer(bytes: &mut [u8], state_too: bool) {
    for frame in frames_in(bytes) {
        bytes[frame.start + 3] = b'2';
    }
    if state_too {
        for slot in bytes[..FRAMES_START].chunks_mut(SLOT_BYTES).filter(|slot| slot.starts_with(b"outlast1"))
        {
            slot[7] = b'2';
        }
    }
}

#[test]
fn a_segment_of_a_later_version_is_left_as_it_is() {
    let backlog = Backlog::new(1, 0, 1);
    for name in backlog.segments() {
        for state_too in [false, true] {
            let copy = backlog.copy();
            let path = copy.path().join(&name);
            edit(&path, |bytes| make_newer(bytes, state_too));
            let before = fs::read(&path).unwrap();
            for _ in 0..2 {
                let mut queue = open(copy.path());
                let drained = drain(&mut queue);
                if drained.iter().any(|signal| !signal.is_empty()) {
                    backlog.check("later version", &drained, |frame| frame.file != name);
                }
                assert_eq!(fs::read(&path).unwrap(), before);
            }
        }
    }
}

#[test]
fn a_head_that_cannot_be_read_is_looked_at_again_and_after_many_looks_its_segment_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let record = |number| block(&mut Deflater::default(), Signal::Logs, &[number], 10);
    queue.append(&batch(1, vec![record(1)])).unwrap();
    drop(queue);
    let mut queue = open(dir.path());
    queue.append(&batch(2, vec![record(2)])).unwrap();
    drop(queue);
    let disk = LawfulDisk::new(|op, path| {
        let is_first = path.file_name().is_some_and(|name| name == "0000000001.seg");
        if is_first && matches!(op, Op::Open | Op::Read) { Err(broken()) } else { Ok(()) }
    });
    let limits = Limits::new(1 << 20, Overflow::DropOldest);
    let (mut queue, opened) = Queue::open(disk, dir.path(), limits, 1);
    assert!(opened.problem.is_some());
    assert_eq!(queue.state().queue_id, 1);
    queue.stand_in();
    assert!((0..19).all(|_| !queue.try_disk()), "it may be readable again");
    assert!(queue.try_disk());
    assert_eq!(drain(&mut queue), [vec![2], vec![], vec![]]);
    assert!(dir.path().join("0000000001.seg").exists());
}

#[test]
fn segments_of_another_queue_are_sent_too_and_only_once() {
    // Older, among and newer than ours.
    for (ours, theirs) in [(20, 1), (1, 2), (1, 50)] {
        let backlog = Backlog::new(1, 0, ours);
        let stranger = Backlog::new(2, 1_000_000, theirs);
        let copy = backlog.copy();
        let mut frames = backlog.frames.clone();
        for (index, name) in stranger.segments().iter().enumerate() {
            let taken = copy.path().join(name).exists();
            if theirs == 2 && index != 1 {
                continue;
            }
            if taken {
                frames.retain(|frame| frame.file != *name);
            }
            fs::copy(stranger.dir.path().join(name), copy.path().join(name)).unwrap();
            frames.extend(stranger.frames.iter().filter(|frame| frame.file == *name).cloned());
        }
        let mut seen: [BTreeSet<u64>; 3] = Default::default();
        for round in 0..400 {
            let mut queue = open_as(copy.path(), 100 + round);
            let mut sent = false;
            for signal in Signal::ALL {
                let Some(request) = queue.assemble(signal, &Lines, Encoding::Gzip, 1 << 20, 2) else {
                    continue;
                };
                for id in numbers(&request) {
                    assert!(seen[signal.index()].insert(id), "{id} came again");
                }
                queue.done(signal, request.to);
                sent = true;
            }
            if !sent {
                break;
            }
        }
        for frame in frames {
            for id in &frame.ids {
                assert!(seen[frame.signal.index()].contains(id), "{id} of {frame:?} lost");
            }
        }
    }
}

#[test]
fn whatever_lies_in_place_of_the_index_the_segments_are_enough() {
    let backlog = Backlog::new(1, 0, 1);
    let mut rng = fastrand::Rng::with_seed(7);
    for kind in 0..4 {
        let copy = backlog.copy();
        let index = copy.path().join("index");
        if kind == 0 {
            fs::write(&index, b"a file").unwrap();
        } else {
            fs::create_dir(&index).unwrap();
            for name in ["conf", "db", "snap.0000000000000001"] {
                let bytes: Vec<u8> = (0..rng.usize(..4096)).map(|_| rng.u8(..)).collect();
                fs::write(index.join(name), if kind == 1 { vec![] } else { bytes }).unwrap();
            }
        }
        let mut queue = open(copy.path());
        queue.attach_index(copy.path());
        while !queue.consult_index() {
            std::thread::yield_now();
        }
        let drained = drain(&mut queue);
        backlog.check(&format!("index {kind}"), &drained, |_| true);
    }
}

#[test]
fn a_file_with_an_absurd_number_does_not_cost_what_is_appended_after_it() {
    for number in [(1 << 31) - 1, 1 << 31, (1 << 31) + 1, u32::MAX] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{number:010}.seg")), b"not a segment").unwrap();
        for id in 1..4 {
            let mut queue = open(dir.path());
            let made = vec![block(&mut Deflater::default(), Signal::Logs, &[id], 10)];
            assert_eq!(queue.append(&batch(u128::from(id), made)).unwrap(), Appended::OnDisk);
            drop(queue);
        }
        assert_eq!(drain(&mut open(dir.path()))[0], [1, 2, 3], "{number}");
    }
}

#[test]
fn an_empty_newest_segment_does_not_cost_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path());
    let mut deflater = Deflater::default();
    queue.append(&batch(1, vec![block(&mut deflater, Signal::Logs, &[1, 2], 10)])).unwrap();
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1000, 1).unwrap();
    queue.refuse(Signal::Logs, request.to, Reason::Refused);
    drop(queue);
    // A process that was killed as it began a segment.
    fs::write(dir.path().join("0000000002.seg"), b"").unwrap();
    for _ in 0..2 {
        let mut queue = open(dir.path());
        while queue.count_one() {}
        assert_eq!(queue.ledger().dropped(Signal::Logs), 2);
    }
}

#[test]
fn when_the_directory_is_removed_what_is_lost_is_counted() {
    for rest in 0..8 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue");
        let mut queue = open(&path);
        let mut deflater = Deflater::default();
        let mut append = |queue: &mut Queue, deliveries: Range<u64>| {
            for delivery in deliveries {
                let ids: Vec<u64> = (delivery * 4..delivery * 4 + 4).collect();
                let made = vec![block(&mut deflater, Signal::ALL[delivery as usize % 2], &ids, 500)];
                assert_eq!(queue.append(&batch(u128::from(delivery), made)).unwrap(), Appended::OnDisk);
            }
        };
        append(&mut queue, 0..30);
        if rest % 2 == 0 {
            drop(queue);
            queue = open(&path);
            append(&mut queue, 30..30 + rest);
        }
        let first = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 2).unwrap();
        let delivered = numbers(&first).len();
        queue.done(Signal::Logs, first.to);
        while queue.count_one() {}
        let waiting = Signal::ALL.map(|signal| queue.waiting(signal).records);
        fs::remove_dir_all(&path).unwrap();
        append(&mut queue, 50..52);
        let drained = drain(&mut queue);
        for signal in Signal::ALL {
            let at = signal.index();
            let dropped = queue.ledger().dropped_for(signal, Reason::Damaged);
            let new = if at < 2 { 4 } else { 0 };
            assert_eq!(drained[at].len() as u64 + dropped, waiting[at] + new, "{signal} {rest} {delivered}");
            assert_eq!(queue.waiting(signal).records, 0);
        }
        drop(queue);
        assert!(drain(&mut open(&path)).iter().all(Vec::is_empty));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_a_segment_like_any_other(
        pieces in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..12),
        number in prop_oneof![Just(1u32), Just(7), Just(u32::MAX)],
    ) {
        thread_local! {
            static SAMPLE: Vec<u8> = {
                let backlog = Backlog::new(1, 0, 7);
                fs::read(backlog.dir.path().join("0000000007.seg")).unwrap()
            };
        }
        let mut file = Vec::new();
        let frames = SAMPLE.with(|sample| frames_in(sample).into_iter().map(|at| sample[at].to_vec()).collect::<Vec<_>>());
        for (frame, garbage) in pieces {
            if frame {
                file.extend_from_slice(&frames[garbage.len() % frames.len()]);
                file.extend(garbage.iter().take(garbage.len() % 2));
            } else {
                file.extend(garbage);
            }
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{number:010}.seg")), file).unwrap();
        let mut queue = open(dir.path());
        for signal in drain(&mut queue) {
            prop_assert!(signal.is_sorted_by(|a, b| a < b));
        }
        let mut deflater = Deflater::default();
        let kept = queue.append(&batch(1, vec![block(&mut deflater, Signal::Logs, &[9_000_000], 10)])).unwrap();
        prop_assert_eq!(kept, Appended::OnDisk);
        drop(queue);
        let drained = drain(&mut open(dir.path()));
        prop_assert_eq!(&drained[0], &vec![9_000_000]);
    }
}
