//! How far a replay has come: a file of lines, the last of which counts, and a bar for whoever watches.
//!
//! ```text
//!  outlast-tool replay 1 "s3://b/p" since None until None function None
//!  done some/object's/key
//!  mark logs 30064771077 3
//! ```
//! A line is written once the destination has what it speaks of. If the process ends in between, that goes again, the
//! same bytes with the same `Idempotency-Key`.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Read, Write, stderr};
use std::path::Path;

use super::sender::Sender;
use crate::Signal;
use crate::queue::{Mark, Seq};

const TITLE: &str = "outlast-tool replay 1";
const BAR_CHARS: usize = 30;
/// Where nobody watches, a line each so many percent.
const TOLD_EVERY_PERCENT: u64 = 10;

/// What was replayed before.
#[derive(Debug)]
pub(super) struct Progress {
    file: File,
    pub(super) done: HashSet<String>,
    pub(super) marks: BTreeMap<usize, Mark>,
    /// What had records left out, as lines: noted with what is taken after it.
    unnoted: Vec<String>,
}

impl Progress {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    /// If it cannot be read or written, or speaks of another replay.
    pub(super) fn open(path: &Path, identity: &str) -> Result<Self, String> {
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(told)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(told)?;
        let title = format!("{TITLE} {identity}");
        // The last line may have been cut short.
        let whole = text.rfind('\n').map_or("", |end| text.split_at(end + 1).0);
        let mut lines = whole.lines();
        match lines.next() {
            None => writeln!(file, "{title}").map_err(told)?,
            Some(found) if found == title => {}
            Some(_) => {
                return Err(format!(
                    "{} is the progress of another replay: name another with --progress",
                    path.display()
                ));
            }
        }
        if whole.len() < text.len() && !whole.is_empty() {
            writeln!(file).map_err(told)?;
        }
        let mut progress = Self { file, done: HashSet::new(), marks: BTreeMap::new(), unnoted: Vec::new() };
        for line in lines {
            progress.learn(line);
        }
        Ok(progress)
    }

    fn learn(&mut self, line: &str) {
        if let Some(key) = line.strip_prefix("done ") {
            self.done.insert(key.to_owned());
        }
        let mut words = line.split(' ');
        if words.next() == Some("mark")
            && let Some(signal) =
                words.next().and_then(|name| Signal::ALL.into_iter().find(|s| s.name() == name))
            && let (Some(seq), Some(records)) =
                (words.next().and_then(|n| n.parse().ok()), words.next().and_then(|n| n.parse().ok()))
        {
            self.marks.insert(signal.index(), Mark { seq: Seq(seq), records });
        }
    }

    /// The object `key` is done, if that is certain.
    pub(super) fn object_is_done(&mut self, key: &str, is_certain: bool) -> Result<(), String> {
        self.unnoted.push(format!("done {key}"));
        self.note_if(is_certain)
    }

    /// `signal` is done up to `mark`, if that is certain.
    pub(super) fn mark_is_done(
        &mut self,
        signal: Signal,
        mark: Mark,
        is_certain: bool,
    ) -> Result<(), String> {
        // It says what the one before it did.
        self.unnoted.clear();
        self.unnoted.push(format!("mark {signal} {} {}", mark.seq.0, mark.records));
        self.note_if(is_certain)
    }

    /// Nothing comes after what is not noted yet.
    ///
    /// # Errors
    /// If the destination took nothing at all.
    pub(super) fn settle(&mut self, sender: &Sender) -> Result<(), String> {
        if !self.unnoted.is_empty() {
            sender.takes_anything()?;
        }
        self.note_if(true)
    }

    fn note_if(&mut self, is_certain: bool) -> Result<(), String> {
        let lines = if is_certain { std::mem::take(&mut self.unnoted) } else { Vec::new() };
        lines.iter().try_for_each(|line| writeln!(self.file, "{line}")).map_err(|error| error.to_string())
    }
}

/// The bar.
#[derive(Debug)]
pub(super) struct Bar {
    total: u64,
    done: u64,
    watched: bool,
    told: u64,
}

impl Bar {
    /// Of so many bytes in all.
    pub(super) fn new(total: u64) -> Self {
        Self { total, done: 0, watched: stderr().is_terminal(), told: 0 }
    }

    /// So many more are done.
    pub(super) fn advance(&mut self, bytes: u64, records: u64) {
        self.done = self.done.saturating_add(bytes).min(self.total);
        let percent = self.done.saturating_mul(100) / self.total.max(1);
        let filled = (percent as usize * BAR_CHARS / 100).min(BAR_CHARS);
        let bar = format!(
            "[{}{}] {percent:>3} %, {records} records",
            "#".repeat(filled),
            ".".repeat(BAR_CHARS - filled)
        );
        let mut err = stderr();
        // That nobody can see it is no reason to stop.
        let _unseen = if self.watched {
            write!(err, "\r{bar}").and_then(|()| err.flush())
        } else if percent >= self.told + TOLD_EVERY_PERCENT {
            self.told = percent;
            writeln!(err, "{bar}")
        } else {
            Ok(())
        };
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        if self.watched {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_known_again_and_a_line_that_was_cut_short_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("progress");
        let mut progress = Progress::open(&path, "x").unwrap();
        progress.object_is_done("a b/c", true).unwrap();
        progress.mark_is_done(Signal::Traces, Mark { seq: Seq(7), records: 0 }, true).unwrap();
        progress.mark_is_done(Signal::Traces, Mark { seq: Seq(9), records: 2 }, true).unwrap();
        write!(progress.file, "done hal").unwrap();
        let mut again = Progress::open(&path, "x").unwrap();
        assert_eq!(again.done, HashSet::from(["a b/c".to_owned()]));
        assert_eq!(again.marks[&Signal::Traces.index()], Mark { seq: Seq(9), records: 2 });
        again.object_is_done("whole", true).unwrap();
        assert!(Progress::open(&path, "x").unwrap().done.contains("whole"));
        assert!(Progress::open(&path, "y").unwrap_err().contains("another replay"));
    }
}
