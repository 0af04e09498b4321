//! A queue's directory seen from outside: what is in it, without changing anything. It may be in use.

use super::bytes::crc32;
use super::classes::number_of;
use super::disk::{Disk, DiskFile, RealDisk};
use super::frame::{Kind, Seq};
use super::open::newest_state;
use super::scan::{Position, Step, follows, step};
use super::segments::{Segments, StoreError};
use super::state::State;
use crate::Signal;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The machine's own file system, of which nothing is changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnlyDisk;

fn refused<T>() -> io::Result<T> {
    Err(ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for ReadOnlyDisk {
    fn prepare(&self, dir: &Path) -> io::Result<()> {
        if dir.symlink_metadata()?.is_dir() { Ok(()) } else { Err(ErrorKind::NotADirectory.into()) }
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        RealDisk.list(dir)
    }
    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        refused()
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?))
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }
    fn remove_all(&self, _: &Path) -> io::Result<()> {
        refused()
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits to be sent.
    Waits,
    /// It was delivered, handed over or given up.
    Done,
    /// It is never sent: a fragment, or what is to be remembered.
    Kept,
}

/// One frame.
#[derive(Clone, Copy, Debug)]
pub struct Surveyed {
    /// Its place in the queue.
    pub seq: Seq,
    /// What its payload is.
    pub kind: Kind,
    /// Whose order it keeps.
    pub signal: Signal,
    /// Wire format of the payload.
    pub format: u8,
    /// Severity of the gravest record, 0 if unknown.
    pub severity: u8,
    /// Records in the payload.
    pub records: u32,
    /// Bytes of the payload once inflated.
    pub plain_bytes: u32,
    /// Bytes of the payload on disk.
    pub stored_bytes: u32,
    /// Earliest and latest record time, Unix nanoseconds.
    pub times: (u64, u64),
    /// When it was received, Unix nanoseconds.
    pub received: u64,
    /// What becomes of it.
    pub standing: Standing,
    /// The payload is what its header says.
    pub intact: bool,
}

/// One segment.
#[derive(Clone, Debug, Default)]
pub struct SegmentSurvey {
    /// The number in its name.
    pub number: u32,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its frames that have a header which is whole, oldest first.
    pub frames: Vec<Surveyed>,
    /// Bytes between frames that are none.
    pub damaged_bytes: u64,
    /// All of it could be read.
    pub readable: bool,
}

/// What is in `dir`.
///
/// # Errors
/// If it cannot be read.
pub fn survey(dir: &Path) -> Result<(State, Vec<SegmentSurvey>), StoreError> {
    let (mut store, problem) = Segments::open(Box::new(ReadOnlyDisk), dir, 0);
    if let Some(problem) = problem {
        return Err(problem);
    }
    let state = newest_state(&mut store, 0, true)?;
    let numbers: Vec<(u32, u64)> = store.all().collect();
    let segments = numbers.into_iter().map(|(number, bytes)| segment(&mut store, &state, number, bytes));
    Ok((state, segments.collect()))
}

fn segment(store: &mut Segments, state: &State, number: u32, bytes: u64) -> SegmentSurvey {
    let mut survey = SegmentSurvey { number, bytes, ..SegmentSurvey::default() };
    let mut position = Position::start_of(number);
    let mut last = None;
    loop {
        match step(store, &mut position) {
            Step::Frame(header, offset) if follows(header.seq, last) => {
                last = Some(header.seq);
                let mut payload = vec![0; header.stored_len as usize];
                let read = store.read(number, &mut payload, offset);
                let is_done = header.seq <= state.marks.get(header.signal).seq;
                survey.frames.push(Surveyed {
                    seq: header.seq,
                    kind: header.kind,
                    signal: header.signal,
                    format: header.format,
                    severity: number_of(header.severity),
                    records: header.records,
                    plain_bytes: header.plain_len,
                    stored_bytes: header.stored_len,
                    times: header.times,
                    received: header.received,
                    standing: match header.kind {
                        Kind::Shed | Kind::Classes => Standing::Done,
                        kind if !kind.is_sent() => Standing::Kept,
                        _ if is_done => Standing::Done,
                        _ => Standing::Waits,
                    },
                    intact: read.is_ok()
                        && (header.kind == Kind::Shed || crc32(&payload) == header.stored_crc),
                });
            }
            Step::Frame(..) => {}
            Step::Damage(bytes) => survey.damaged_bytes += bytes,
            Step::Unreadable => return survey,
            Step::End => {
                survey.readable = true;
                return survey;
            }
        }
    }
}
