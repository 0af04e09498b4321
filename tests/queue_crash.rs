//! A writer of the queue is killed (SIGKILL) at random moments, again and again over one directory. Nothing
//! that it said was kept may be missing, and nothing that it said was done may come again.
//!
//! The writer is this test binary, run again with [`WRITER`] set. It tells what it does on stderr, one
//! unbuffered write a line, before (lower case) and after (upper case) each step:
//! ```text
//!  t 0 5 6 7    an append of these records of signal 0 begins      T    it was acknowledged
//!  d 0 5 6      delivery of these is about to be noted             D    it was noted
//!  o            the queue is about to be opened
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking
#![allow(clippy::disallowed_methods)]

mod common;

use common::{Lines, batch, block, copy_dir, drain, numbers};
use outlast::queue::{
    Deflater, Encoding, Limits, Overflow, Queue, ReaderId, ReaderSpec, Readers, RealDisk, Reason,
};
use outlast::{PerSignal, Signal};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set in the writer: the seed, the first number to give to a record, and the directory.
const WRITER: &str = "OUTLAST_TEST_CRASH_WRITER";
const ROUNDS: u64 = 100;

/// Small, so that segments roll and the budget is reached many times in each round.
fn limits(seed: u64) -> Limits {
    let overflow =
        [Overflow::DropNewest, Overflow::Shed, Overflow::DropOldest, Overflow::Shed][seed as usize % 4];
    Limits { max_bytes: 96 << 10, segment_bytes: 8 << 10, memory_max_bytes: 1 << 20, overflow }
}

/// Who reads the queue, and whose account is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Alone,
    FirstOfTwo,
    SecondOfTwo,
}

impl Who {
    const ALL: [Self; 3] = [Self::Alone, Self::FirstOfTwo, Self::SecondOfTwo];

    fn readers(self) -> Readers {
        let b = ReaderSpec { name: "b".to_owned(), wants: PerSignal::from_fn(|_| true) };
        Readers { others: if self == Self::Alone { vec![] } else { vec![b] }, ..Readers::default() }
    }

    /// The one whose account is kept, and the other.
    fn pair(self) -> (ReaderId, ReaderId) {
        let (first, second) = (ReaderId::FIRST, ReaderId::FIRST.next());
        if self == Self::SecondOfTwo { (second, first) } else { (first, second) }
    }
}

fn open(dir: &Path, seed: u64, who: Who) -> Queue {
    let (mut queue, opened) = Queue::open(Box::new(RealDisk), dir, limits(seed), u128::from(seed) + 1);
    assert!(opened.problem.is_none(), "{:?}", opened.problem);
    queue.serve(&who.readers());
    queue
}

fn tell(what: &str, signal: Signal, ids: &[u64]) {
    let mut line = format!("{what} {}", signal.index());
    for id in ids {
        write!(line, " {id}").unwrap();
    }
    line.push('\n');
    // One write: a line is whole or not there.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Does nothing but in a process started by the tests below.
#[test]
fn writer() {
    let Ok(task) = std::env::var(WRITER) else { return };
    let mut task = task.splitn(4, ' ');
    let seed: u64 = task.next().unwrap().parse().unwrap();
    let mut next: u64 = task.next().unwrap().parse().unwrap();
    let who = Who::ALL[task.next().unwrap().parse::<usize>().unwrap()];
    let (kept, other) = who.pair();
    let dir = Path::new(task.next().unwrap());
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut deflater = Deflater::default();
    std::io::stderr().write_all(b"o\n").unwrap();
    let mut queue = open(dir, seed, who);
    if seed.is_multiple_of(5) {
        queue.attach_index(dir);
    }
    loop {
        let signal = Signal::ALL[rng.usize(..3)];
        match rng.u8(..10) {
            0..5 => {
                let mut made = Vec::new();
                let mut told = Vec::new();
                for _ in 0..rng.usize(1..4) {
                    let signal = Signal::ALL[rng.usize(..3)];
                    let ids: Vec<u64> = (next..next + rng.u64(1..6)).collect();
                    next += ids.len() as u64;
                    made.push(block(&mut deflater, signal, &ids, rng.usize(..400)));
                    tell("t", signal, &ids);
                    told.push((signal, ids));
                }
                queue.append(&batch(u128::from(next), made)).unwrap();
                for (signal, ids) in told {
                    tell("T", signal, &ids);
                }
            }
            5 => {
                queue.consult_index();
                queue.count_one();
            }
            kind => {
                // Of what the other one does nothing is told.
                if who != Who::Alone && rng.bool() {
                    let mut queue = queue.at(other);
                    if let Some(request) = queue.assemble(signal, &Lines, Encoding::Identity, 8000, 8) {
                        match rng.u8(..6) {
                            0 => queue.keep(signal),
                            1 => queue.refuse(signal, request.to, Reason::Refused),
                            _ => queue.done(signal, request.to),
                        }
                    }
                }
                let mut queue = queue.at(kept);
                let request = if kind < 9 {
                    queue.assemble(signal, &Lines, Encoding::Identity, rng.u64(1..8000), rng.u32(1..8))
                } else {
                    queue.assemble_part(signal, &Lines, Encoding::Identity, 0..rng.u32(1..4))
                };
                let Some(request) = request else { continue };
                let ids = numbers(&request);
                match rng.u8(..6) {
                    0 => queue.keep(signal),
                    1 => queue.refuse(signal, request.to, Reason::Refused),
                    _ => {
                        tell("d", signal, &ids);
                        queue.done(signal, request.to);
                        tell("D", signal, &ids);
                    }
                }
            }
        }
    }
}

/// What the records of one signal are known to be.
#[derive(Default)]
struct Account {
    /// Acknowledged, and neither delivered nor counted as dropped.
    alive: BTreeSet<u64>,
    done: BTreeSet<u64>,
    dropped: u64,
}

#[derive(Default)]
struct Book {
    accounts: [Account; 3],
    next: u64,
}

/// Runs a writer over `dir` until it has told `lines` lines and some, then kills it. Returns what it told.
fn run_and_kill(
    dir: &Path,
    (seed, who): (u64, Who),
    next: u64,
    lines: usize,
    pause: Duration,
) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
        .env(WRITER, format!("{seed} {next} {} {}", who as usize, dir.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut all: Vec<String> = told.by_ref().take(lines + 1).collect();
    std::thread::sleep(pause); // where in its work the writer dies is meant to be random
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert!(all.len() > lines && status.code().is_none(), "the writer failed: {all:?}");
    all.extend(told);
    all
}

impl Book {
    /// Compares what `dir` holds with what the writer told, and takes over what is found as what is.
    fn check(&mut self, dir: &Path, (seed, who): (u64, Who), told: &[String]) {
        let mut tried: [BTreeSet<u64>; 3] = Default::default();
        let mut pending: [BTreeSet<u64>; 3] = Default::default();
        for line in told {
            let mut words = line.split(' ');
            let (what, signal) = (words.next().unwrap(), words.next());
            let Some(at) = signal.and_then(|signal| signal.parse::<usize>().ok()) else {
                assert!(what == "o", "{line}");
                continue;
            };
            let ids: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
            self.next = self.next.max(ids.iter().max().map_or(0, |id| id + 1));
            for id in ids {
                let account = &mut self.accounts[at];
                match what {
                    "t" => assert!(tried[at].insert(id)),
                    "T" => assert!(tried[at].remove(&id) && account.alive.insert(id)),
                    "d" => assert!(pending[at].insert(id)),
                    "D" => {
                        assert!(pending[at].remove(&id));
                        account.alive.remove(&id);
                        account.done.insert(id);
                    }
                    other => panic!("{other}"),
                }
            }
        }
        // What the writer left is looked at in a copy, so that the next one goes on from it.
        let copy = tempfile::tempdir().unwrap();
        copy_dir(dir, copy.path());
        let mut queue = open(copy.path(), seed, who);
        if copy.path().join("index").exists() {
            // The segments were written first, so the index knows of nothing that they do not.
            let known = (queue.state().marks, *queue.ledger());
            queue.attach_index(copy.path());
            queue.consult_index_within(Duration::from_secs(30));
            assert_eq!((queue.state().marks, *queue.ledger()), known, "seed {seed}: the index is ahead");
        }
        while queue.count_one() {}
        let mut queue = queue.at(who.pair().0);
        let before = Signal::ALL.map(|signal| queue.ledger().dropped(signal));
        let waiting = drain(&mut queue);
        for signal in Signal::ALL {
            let at = signal.index();
            let account = &mut self.accounts[at];
            assert_eq!(before[at], queue.ledger().dropped(signal), "seed {seed}: {signal} damaged");
            assert!(waiting[at].is_sorted_by(|a, b| a < b), "seed {seed}: {signal} out of order or twice");
            let waiting: BTreeSet<u64> = waiting[at].iter().copied().collect();
            let again = waiting.intersection(&account.done).count();
            assert_eq!(again, 0, "seed {seed}: {signal} delivered again");
            // An append that was cut short may have arrived in part.
            let adopted: BTreeSet<u64> = waiting.intersection(&tried[at]).copied().collect();
            let strangers: Vec<_> =
                waiting.difference(&account.alive).filter(|id| !adopted.contains(id)).collect();
            assert!(strangers.is_empty(), "seed {seed}: {signal} from nowhere: {strangers:?}");
            let gone: BTreeSet<u64> = account.alive.difference(&waiting).copied().collect();
            // Whether a delivery was noted that was about to be is open, and so is a batch turned away.
            let sure = gone.difference(&pending[at]).count() as u64;
            let open = gone.intersection(&pending[at]).count() + tried[at].len() - adopted.len();
            let counted = before[at] - account.dropped;
            assert!(
                (sure..=sure + open as u64).contains(&counted),
                "seed {seed}: {signal}: {sure} records gone, {counted} counted, {open} open"
            );
            account.done.extend(gone);
            account.alive = waiting;
            account.dropped = before[at];
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_hundred_kills() {
    survives(Who::Alone, ROUNDS);
}

#[test]
fn what_was_acknowledged_survives_for_the_first_of_two_readers() {
    survives(Who::FirstOfTwo, ROUNDS / 2);
}

#[test]
fn what_was_acknowledged_survives_for_the_second_of_two_readers() {
    survives(Who::SecondOfTwo, ROUNDS / 2);
}

fn survives(who: Who, rounds: u64) {
    let seed = fastrand::u64(..1 << 40) & !0xff;
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut book = Book::default();
    for round in 0..rounds {
        // Every fourth one dies while it opens, or soon after.
        let lines = if round % 4 == 3 { 0 } else { rng.usize(..300) };
        let pause = Duration::from_micros(rng.u64(..2000));
        let told = run_and_kill(dir.path(), (seed + round, who), book.next, lines, pause);
        book.check(dir.path(), (seed + round, who), &told);
    }
    let survived: usize = book.accounts.iter().map(|account| account.done.len()).sum();
    assert!(survived > 500, "hardly anything happened: {survived}");
}

#[test]
fn a_kill_within_the_first_milliseconds_of_a_queue_leaves_one_that_opens() {
    let seed = fastrand::u64(..1 << 40) & !0xff;
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for round in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue");
        let mut book = Book::default();
        let who = Who::ALL[round as usize % 3];
        let pause = Duration::from_micros(rng.u64(..1500));
        let told = run_and_kill(&path, (seed + round, who), 0, 0, pause);
        book.check_if_any(&path, (seed + round, who), &told);
    }
}

impl Book {
    fn check_if_any(&mut self, dir: &Path, who: (u64, Who), told: &[String]) {
        if dir.exists() {
            self.check(dir, who, told);
        } else {
            assert!(told.iter().all(|line| !line.starts_with('T')), "acknowledged, but there is nothing");
        }
    }
}
