//! Whatever lies in place of the index, the segments are enough: every block that waits comes out, and sled's panics and
//! errors stay with its thread.
//!
//! The input is a recipe of harm to the files of an index that was made once. These are real files, because sled opens
//! nothing else, and its threads have to end before the next input: some dozen inputs a second.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use outlast::Signal;
use outlast::queue::{Batch, Deflater, Encoding};
use tempfile::TempDir;

use crate::lines::{FRAMINGS, Lines, block, ids};
use crate::memory::MemoryDisk;
use crate::open_queue::{Files, Frame, frames_in, gives_out, open, stays_whole};
use crate::otlp;

/// The index's directory within the queue's.
const INDEX: &str = "index";
/// How long sled's threads may take to end. It can hang for ever; then they are left behind.
const END_WAIT: Duration = Duration::from_secs(5);
/// How long one look at the index may take. The queue looks four times at most.
const LOOK_WAIT: Duration = Duration::from_millis(250);

/// A queue with an index, as its process left it.
struct Left {
    segments: Files,
    frames: Vec<Frame>,
    index: BTreeMap<PathBuf, Vec<u8>>,
}

/// Checks one recipe.
pub fn check(data: &[u8]) {
    static LEFT: OnceLock<Left> = OnceLock::new();
    let_sled_panic();
    let left = LEFT.get_or_init(leave);
    let mut index = left.index.clone();
    let mut input = Unstructured::new(data);
    for _ in 0..input.int_in_range(0..=6).unwrap_or_default() {
        // The end of the input ends the harm.
        if harm(&mut input, &mut index).is_err() {
            break;
        }
    }
    let dir = directory();
    for (name, bytes) in &index {
        let path = dir.path().join(INDEX).join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, bytes).expect("room");
    }
    let disk = MemoryDisk::with(&left.segments);
    let mut queue = open(&disk, 2);
    queue.attach_index(dir.path());
    while !queue.consult_index_within(LOOK_WAIT) {}
    gives_out(&mut queue, &left.segments, &left.frames);
    stays_whole(queue, &disk, true);
    wait_for_the_end();
}

/// In memory where there is a file system for it.
fn directory() -> TempDir {
    let shared = Path::new("/dev/shm");
    let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
    made.expect("a directory")
}

/// A fuzzer ends at every panic. Those on the index's thread, and in sled's own, are caught there.
fn let_sled_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let in_sled = info.location().is_some_and(|place| place.file().contains("sled-0."));
            if !in_sled && std::thread::current().name() != Some("index") {
                before(info);
            }
        }));
    });
}

fn leave() -> Left {
    let dir = directory();
    let disk = MemoryDisk::default();
    let mut queue = open(&disk, 1);
    queue.attach_index(dir.path());
    let mut deflater = Deflater::default();
    for delivery in 0..40 {
        let first = delivery * 3;
        let signal = Signal::ALL[delivery as usize % 3];
        let blocks = vec![block(&mut deflater, signal, &[first, first + 1, first + 2], 200)];
        let batch = Batch { delivery: u128::from(delivery), received: 1, parts_before: 0, blocks };
        queue.append(&batch).expect("room");
    }
    let mut done = Vec::new();
    for _ in 0..8 {
        let request =
            queue.assemble(Signal::Logs, &Lines(FRAMINGS[0]), Encoding::Gzip, 1 << 20, 1).expect("blocks");
        done.extend(ids(&otlp::plain(&request)));
        queue.done(Signal::Logs, request.to);
    }
    queue.close();
    drop(queue);
    let root = dir.path().join(INDEX);
    // Its thread has no name before it runs.
    while !root.join("db").exists() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    wait_for_the_end();
    let segments = disk.contents();
    let mut frames: Vec<Frame> = segments.iter().flat_map(|(name, bytes)| frames_in(name, bytes)).collect();
    for frame in &mut frames {
        frame.done = done.contains(&frame.ids[0]);
    }
    let mut index = BTreeMap::new();
    let mut unread = vec![root.clone()];
    while let Some(place) = unread.pop() {
        for entry in fs::read_dir(place).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                unread.push(path);
            } else {
                let name = path.strip_prefix(&root).expect("below it").to_path_buf();
                index.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    assert!(index.contains_key(Path::new("db")), "{:?}", index.keys());
    Left { segments, frames, index }
}

/// Waits until the index's thread is gone, and what it may leave behind of sled's.
fn wait_for_the_end() {
    let is_index = |comm: String| comm.trim_end() == INDEX;
    for _ in 0..END_WAIT.as_millis() {
        let Ok(tasks) = fs::read_dir("/proc/self/task") else { return };
        let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
        if !names.into_iter().any(is_index) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn harm(input: &mut Unstructured<'_>, index: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    let names: Vec<PathBuf> = index.keys().cloned().collect();
    let Ok(name) = input.choose(&names) else { return Ok(()) };
    let bytes = index.get_mut(name).expect("a file");
    let at = input.arbitrary::<u32>()? as usize % bytes.len().max(1);
    match input.arbitrary::<u8>()? % 6 {
        0 | 1 => {
            let bit = input.int_in_range(0..=7)?;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        2 => bytes.truncate(at),
        3 => {
            let len = usize::from(input.arbitrary::<u16>()?);
            bytes.iter_mut().skip(at).take(len).for_each(|byte| *byte = 0);
        }
        4 => {
            let noise: &[u8] = input.arbitrary()?;
            bytes.iter_mut().skip(at).zip(noise).for_each(|(byte, noise)| *byte = *noise);
        }
        _ => {
            let noise: &[u8] = input.arbitrary()?;
            *bytes = noise.to_vec();
        }
    }
    Ok(())
}
