//! Several readers of one queue: what each is given, what is counted for it, and when the disk is free again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::disk::{LawfulDisk, Op, broken};
use common::{Lines, batch, block, bytes_in, numbers};
use outlast::queue::{
    Appended, Deflater, Encoding, Kind, Limits, Overflow, Queue, ReaderId, ReaderSpec, Readers, RealDisk,
    Reason, Tally,
};
use outlast::{PerSignal, Signal};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const A: ReaderId = ReaderId::FIRST;

fn b() -> ReaderId {
    A.next()
}

fn two() -> Readers {
    named(&["b"])
}

fn named(names: &[&str]) -> Readers {
    let wants = PerSignal::from_fn(|_| true);
    let others = names.iter().map(|name| ReaderSpec { name: (*name).to_owned(), wants }).collect();
    Readers { others, ..Readers::default() }
}

/// Small enough that segments roll and the budget is reached.
fn limits(overflow: Overflow) -> Limits {
    Limits { max_bytes: 100 << 10, segment_bytes: 12 << 10, memory_max_bytes: 1 << 20, overflow }
}

fn open(dir: &Path, overflow: Overflow, readers: &Readers) -> Queue {
    let (mut queue, opened) = Queue::open(Box::new(RealDisk), dir, limits(overflow), 77);
    assert!(opened.problem.is_none(), "{:?}", opened.problem);
    queue.serve(readers);
    queue
}

fn append(queue: &mut Queue, ids: &[u64], padding: usize) {
    let made = vec![block(&mut Deflater::default(), Signal::Logs, ids, padding)];
    assert_eq!(queue.append(&batch(u128::from(ids[0]) + 1, made)).unwrap(), Appended::OnDisk);
}

/// All that `reader` has waiting, taken out by delivering it.
fn drain(queue: &mut Queue, reader: ReaderId) -> Vec<u64> {
    let mut all = Vec::new();
    while let Some(sent) = deliver(queue, reader, 32 << 10) {
        all.extend(sent);
    }
    all
}

fn deliver(queue: &mut Queue, reader: ReaderId, max_bytes: u64) -> Option<Vec<u64>> {
    let mut queue = queue.at(reader);
    let request = queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, max_bytes, 64)?;
    queue.done(Signal::Logs, request.to);
    Some(numbers(&request))
}

fn segments(dir: &Path) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "seg")).count()
}

fn reader_file(dir: &Path) -> std::path::PathBuf {
    dir.join("b.reader")
}

#[test]
fn each_has_a_place_of_its_own_that_survives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    for id in 0..10 {
        append(&mut queue, &[id], 100);
    }
    assert_eq!(drain(&mut queue, A), (0..10).collect::<Vec<_>>());
    assert_eq!(deliver(&mut queue, b(), 250), Some(vec![0, 1]));
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    append(&mut queue, &[10], 100);
    assert_eq!(drain(&mut queue, A), [10]);
    assert_eq!(drain(&mut queue, b()), (2..=10).collect::<Vec<_>>());
}

#[test]
fn a_segment_goes_once_both_are_past_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    for id in 0..30 {
        append(&mut queue, &[id], 2_000);
    }
    let full = segments(dir.path());
    assert!(full > 3, "{full}");
    drain(&mut queue, A);
    assert_eq!(segments(dir.path()), full, "b has none of it");
    drain(&mut queue, b());
    assert_eq!(segments(dir.path()), 1);
    // The other way round, and across a restart.
    for id in 30..60 {
        append(&mut queue, &[id], 2_000);
    }
    drain(&mut queue, b());
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    assert!(segments(dir.path()) >= full);
    assert_eq!(drain(&mut queue, A), (30..60).collect::<Vec<_>>());
    while queue.count_one() {}
    assert!(segments(dir.path()) <= 2, "{}", segments(dir.path()));
}

#[test]
fn a_place_that_is_lost_or_damaged_means_repeats_and_no_loss() {
    for spoil in [
        (|path: &Path| std::fs::remove_file(path).unwrap()) as fn(&Path),
        |path| std::fs::write(path, b"no state").unwrap(),
        |path| {
            let mut bytes = std::fs::read(path).unwrap();
            for byte in &mut bytes {
                *byte ^= 0x55;
            }
            std::fs::write(path, bytes).unwrap();
        },
        |path| {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/dev/null", path).unwrap();
        },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path(), Overflow::DropOldest, &two());
        append(&mut queue, &[1], 100);
        drain(&mut queue, b());
        drop(queue);
        spoil(&reader_file(dir.path()));
        let mut queue = open(dir.path(), Overflow::DropOldest, &two());
        append(&mut queue, &[2], 100);
        assert_eq!(drain(&mut queue, b()), [1, 2]);
        assert_eq!(drain(&mut queue, A), [1, 2]);
    }
}

#[test]
fn one_torn_slot_costs_no_more_than_the_last_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    for id in 0..4 {
        append(&mut queue, &[id], 100);
        deliver(&mut queue, b(), 1);
    }
    drop(queue);
    let path = reader_file(dir.path());
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.len(), 2048);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut begins = BTreeSet::new();
    for slot in 0..2 {
        let mut torn = whole.clone();
        torn[slot * 1024 + 500..(slot + 1) * 1024].fill(0);
        std::fs::write(&path, torn).unwrap();
        let mut queue = open(dir.path(), Overflow::DropOldest, &two());
        begins.insert(drain(&mut queue, b()).len());
    }
    assert_eq!(begins.into_iter().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn who_is_not_named_any_more_is_forgotten_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), Overflow::DropOldest, &named(&["b", "c"]));
    for id in 0..20 {
        append(&mut queue, &[id], 2_000);
    }
    drain(&mut queue, A);
    drain(&mut queue, b());
    assert!(segments(dir.path()) > 2, "c has none of it");
    let mut queue = open(dir.path(), Overflow::DropOldest, &named(&["b"]));
    assert!(!dir.path().join("c.reader").exists() && reader_file(dir.path()).exists());
    while queue.count_one() {}
    assert!(segments(dir.path()) <= 2, "{}", segments(dir.path()));
    assert_eq!(drain(&mut queue, b()), Vec::<u64>::new());
}

#[test]
fn one_that_is_new_gets_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), Overflow::DropOldest, &Readers::default());
    append(&mut queue, &[1], 100);
    append(&mut queue, &[2], 100);
    drop(queue);
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    append(&mut queue, &[3], 100);
    assert_eq!(drain(&mut queue, b()), [1, 2, 3]);
}

#[test]
fn what_a_reader_does_not_want_does_not_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut readers = two();
    readers.first = PerSignal::from_fn(|signal| signal == Signal::Logs);
    readers.others[0].wants = PerSignal::from_fn(|signal| signal == Signal::Metrics);
    let mut queue = open(dir.path(), Overflow::DropOldest, &readers);
    for id in 0..20 {
        append(&mut queue, &[id], 2_000);
    }
    assert_eq!(queue.at(b()).waiting(Signal::Logs).records, 0);
    assert!(queue.at(b()).oldest(Signal::Logs).is_none());
    drain(&mut queue, A);
    assert_eq!(segments(dir.path()), 1);
    let metrics = vec![block(&mut Deflater::default(), Signal::Metrics, &[99], 10)];
    queue.append(&batch(1_000, metrics)).unwrap();
    assert_eq!(queue.waiting(Signal::Metrics).records, 0);
    let mut queue = open(dir.path(), Overflow::DropOldest, &readers);
    while queue.count_one() {}
    assert_eq!(queue.waiting(Signal::Metrics).records, 0);
    assert_eq!(queue.at(b()).waiting(Signal::Metrics).records, 1);
}

#[test]
fn while_the_place_of_one_cannot_be_saved_nothing_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    for id in 0..20 {
        append(&mut queue, &[id], 2_000);
    }
    // A directory in place of the file: neither opened nor made.
    std::fs::remove_file(reader_file(dir.path())).unwrap();
    std::fs::create_dir(reader_file(dir.path())).unwrap();
    let full = segments(dir.path());
    drain(&mut queue, A);
    drain(&mut queue, b());
    assert!(segments(dir.path()) >= full);
    std::fs::remove_dir(reader_file(dir.path())).unwrap();
    append(&mut queue, &[20], 10);
    drain(&mut queue, A);
    drain(&mut queue, b());
    assert_eq!(segments(dir.path()), 1);
}

#[test]
fn what_is_given_up_is_counted_for_whom_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    for id in 0..80 {
        append(&mut queue, &[id], 2_000);
        drain(&mut queue, A);
    }
    assert_eq!(queue.ledger().dropped(Signal::Logs), 0);
    let dropped = queue.at(b()).ledger().dropped(Signal::Logs);
    assert!(dropped > 10, "{dropped}");
    let told = queue.at(b()).unreported();
    assert_eq!(told, [Tally { signal: Signal::Logs, reason: Reason::Overflow, records: dropped }]);
    queue.at(b()).note_reported(told[0]);
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    assert_eq!(queue.at(b()).ledger().dropped(Signal::Logs), dropped);
    assert_eq!(queue.at(b()).unreported(), []);
    assert_eq!(drain(&mut queue, b()), (dropped..80).collect::<Vec<_>>());
}

#[test]
fn a_dead_one_costs_the_others_nothing_whatever_gives_way() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Shed] {
        for dead in [A, b()] {
            let alive = if dead == A { b() } else { A };
            let dir = tempfile::tempdir().unwrap();
            let mut queue = open(dir.path(), overflow, &two());
            let mut given = Vec::new();
            for id in 0..120 {
                append(&mut queue, &[id], 2_000);
                given.extend(drain(&mut queue, alive));
            }
            assert_eq!(given, (0..120).collect::<Vec<_>>(), "{overflow:?}");
            let left = drain(&mut queue, dead).len() as u64;
            assert_eq!(left + queue.at(dead).ledger().dropped(Signal::Logs), 120, "{overflow:?}");
            assert_eq!(queue.at(alive).ledger().dropped(Signal::Logs), 0, "{overflow:?}");
        }
    }
}

/// The main destination of a queue of another wire format, or one that gets other signals.
#[test]
fn who_gets_nothing_of_it_has_no_say_in_what_gives_way() {
    for overflow in [Overflow::DropNewest, Overflow::Shed] {
        for first in [PerSignal::from_fn(|_| false), PerSignal::from_fn(|signal| signal == Signal::Traces)] {
            let dir = tempfile::tempdir().unwrap();
            let mut queue = open(dir.path(), overflow, &Readers { first, ..two() });
            for id in 0..120 {
                let made = vec![block(&mut Deflater::default(), Signal::Logs, &[id], 2_000)];
                queue.append(&batch(u128::from(id) + 1, made)).unwrap();
            }
            let dropped = queue.at(b()).ledger().dropped(Signal::Logs);
            let reason = if overflow == Overflow::Shed { Reason::Shed } else { Reason::OverflowNewest };
            let told = queue.at(b()).unreported();
            assert_eq!(told, [Tally { signal: Signal::Logs, reason, records: dropped }], "{overflow:?}");
            let left = drain(&mut queue, b());
            assert!(dropped > 10 && dropped + left.len() as u64 == 120, "{overflow:?}: {dropped}");
            if overflow == Overflow::DropNewest {
                assert_eq!(left, (0..120 - dropped).collect::<Vec<_>>());
            }
        }
    }
}

// === Any order of things

#[derive(Clone, Debug)]
enum Action {
    Append { blocks: Vec<(u8, u8)>, padding: u16 },
    Send { reader: bool, signal: u8, max_bytes: u16, part: u8, fate: Fate },
    Report,
    Reopen,
    Count,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    Kept,
    Refused,
    /// More is appended, and perhaps dropped, while the request is under way.
    DoneAfterAppend,
    /// The process ends before the fate is known.
    Killed,
}

fn action() -> impl Strategy<Value = Action> {
    let fate = prop_oneof![
        4 => Just(Fate::Done),
        2 => Just(Fate::Kept),
        1 => Just(Fate::Refused),
        2 => Just(Fate::DoneAfterAppend),
        1 => Just(Fate::Killed),
    ];
    prop_oneof![
        4 => (proptest::collection::vec((0u8..3, 1u8..6), 1..5), 0u16..3000)
            .prop_map(|(blocks, padding)| Action::Append { blocks, padding }),
        6 => (any::<bool>(), 0u8..3, 1u16.., 0u8..4, fate)
            .prop_map(|(reader, signal, max_bytes, part, fate)| Action::Send { reader, signal, max_bytes, part, fate }),
        1 => Just(Action::Report),
        1 => Just(Action::Reopen),
        1 => Just(Action::Count),
    ]
}

/// What became of everything, for each reader.
struct Account {
    dir: tempfile::TempDir,
    overflow: Overflow,
    queue: Queue,
    next: u64,
    deliveries: u128,
    appended: [u64; 3],
    reports: BTreeSet<u64>,
    given: [[Vec<u64>; 3]; 2],
}

impl Account {
    fn new(overflow: Overflow) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let queue = open(dir.path(), overflow, &two());
        Self {
            dir,
            overflow,
            queue,
            next: 0,
            deliveries: 0,
            appended: [0; 3],
            reports: BTreeSet::new(),
            given: Default::default(),
        }
    }

    fn append(&mut self, blocks: &[(u8, u8)], padding: u16) {
        let mut made = Vec::new();
        for (signal, records) in blocks {
            let ids: Vec<u64> = (self.next..self.next + u64::from(*records)).collect();
            self.next += u64::from(*records);
            self.appended[usize::from(*signal)] += u64::from(*records);
            let signal = Signal::from_byte(*signal).unwrap();
            made.push(block(&mut Deflater::default(), signal, &ids, usize::from(padding)));
        }
        self.deliveries += 1;
        self.queue.append(&batch(self.deliveries, made)).unwrap();
        let Limits { max_bytes, segment_bytes, .. } = limits(self.overflow);
        assert!(self.queue.disk_bytes() <= max_bytes + segment_bytes);
    }

    fn reopen(&mut self) {
        self.queue = open(self.dir.path(), self.overflow, &two());
    }

    fn send(&mut self, place: usize, signal: Signal, max_bytes: u64, part: u8, fate: Fate) -> bool {
        let reader = [A, b()][place];
        let request = match part {
            0 => self.queue.at(reader).assemble(signal, &Lines, Encoding::Gzip, max_bytes, 100),
            part => self.queue.at(reader).assemble_part(signal, &Lines, Encoding::Gzip, 0..u32::from(part)),
        };
        let Some(request) = request else { return false };
        let sent = numbers(&request);
        let given = &mut self.given[place][signal.index()];
        match fate {
            Fate::Killed => self.reopen(),
            Fate::Kept => self.queue.at(reader).keep(signal),
            Fate::Refused => self.queue.at(reader).refuse(signal, request.to, Reason::Refused),
            Fate::Done => {
                given.extend(sent);
                self.queue.at(reader).done(signal, request.to);
            }
            Fate::DoneAfterAppend => {
                given.extend(sent);
                for _ in 0..2 {
                    self.append(&[(0, 3), (1, 3), (2, 3)], 2500);
                }
                self.queue.at(reader).done(signal, request.to);
            }
        }
        true
    }

    fn report(&mut self) {
        for reader in [A, b()] {
            let tallies = self.queue.at(reader).unreported();
            for tally in tallies {
                let id = self.next;
                self.next += 1;
                self.deliveries += 1;
                let mut report = block(&mut Deflater::default(), Signal::Logs, &[id], 0);
                let records = if reader == A { tally.records } else { 0 };
                report.kind = Kind::Report(Tally { records, ..tally });
                self.queue.append(&batch(self.deliveries, vec![report])).unwrap();
                self.reports.insert(id);
                if reader != A {
                    self.queue.at(reader).note_reported(tally);
                }
            }
        }
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Append { blocks, padding } => self.append(&blocks, padding),
            Action::Send { reader, signal, max_bytes, part, fate } => {
                let signal = Signal::from_byte(signal).unwrap();
                self.send(usize::from(reader), signal, u64::from(max_bytes), part, fate);
            }
            Action::Report => self.report(),
            Action::Reopen => self.reopen(),
            Action::Count => while self.queue.count_one() {},
        }
    }

    /// Everything is with each reader or counted for it, once and in order, and the disk is free.
    fn settle(&mut self) {
        for place in 0..2 {
            for signal in Signal::ALL {
                while self.send(place, signal, 10_000, 0, Fate::Done) {}
            }
        }
        while self.queue.count_one() {}
        for (place, reader) in [A, b()].into_iter().enumerate() {
            for signal in Signal::ALL {
                let given = &self.given[place][signal.index()];
                let users: Vec<u64> = given.iter().copied().filter(|id| !self.reports.contains(id)).collect();
                assert!(users.windows(2).all(|pair| pair[0] < pair[1]), "{reader:?} {signal}: {users:?}");
                let queue = self.queue.at(reader);
                let dropped = queue.ledger().dropped(signal);
                let appended = self.appended[signal.index()];
                assert_eq!(users.len() as u64 + dropped, appended, "{reader:?} {signal}: {users:?}");
                assert_eq!(queue.waiting(signal).records, 0);
            }
        }
        let bytes = bytes_in(self.dir.path());
        assert!(bytes <= 128 << 10, "{bytes} bytes left of an empty queue");
    }
}

#[test]
fn a_reader_whose_file_cannot_be_read_just_now_waits_and_gets_nothing_twice() {
    for kind in [Op::Open, Op::Read] {
        let dir = tempfile::tempdir().unwrap();
        let mut queue = open(dir.path(), Overflow::DropOldest, &two());
        for id in 1..=9 {
            append(&mut queue, &[id], 1_000);
        }
        for _ in 0..6 {
            deliver(&mut queue, b(), 1);
        }
        drop(queue);
        let unreadable = Arc::new(AtomicBool::new(true));
        let law = Arc::clone(&unreadable);
        let disk = LawfulDisk::new(move |op, path| {
            let refused = op == kind && path.ends_with("b.reader") && law.load(Ordering::Relaxed);
            if refused { Err(broken()) } else { Ok(()) }
        });
        let (mut queue, _) = Queue::open(disk, dir.path(), limits(Overflow::DropOldest), 77);
        queue.serve(&two());
        append(&mut queue, &[10], 1_000);
        while queue.count_one() {}
        assert_eq!(drain(&mut queue, A), (1..=10).collect::<Vec<u64>>());
        queue.try_disk();
        assert_eq!((drain(&mut queue, b()), queue.is_stalled()), (vec![], true), "{kind:?}");
        unreadable.store(false, Ordering::Relaxed);
        queue.try_disk();
        assert!(!queue.is_stalled());
        while queue.count_one() {}
        assert_eq!(drain(&mut queue, b()), [7, 8, 9, 10]);
        assert_eq!(queue.at(b()).ledger().dropped(Signal::Logs), 0);
        queue.count_one();
        assert!(segments(dir.path()) <= 2, "what all have is removed");
    }
}

#[test]
fn a_reader_whose_file_stays_unreadable_begins_with_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let mut queue = open(dir.path(), Overflow::DropOldest, &two());
    append(&mut queue, &[1], 10);
    append(&mut queue, &[2], 10);
    deliver(&mut queue, b(), 1);
    drop(queue);
    let disk =
        LawfulDisk::new(
            move |op, path| {
                if op == Op::Read && path.ends_with("b.reader") { Err(broken()) } else { Ok(()) }
            },
        );
    let (mut queue, _) = Queue::open(disk, dir.path(), limits(Overflow::DropOldest), 77);
    queue.serve(&two());
    for _ in 0..19 {
        assert_eq!((drain(&mut queue, b()), queue.is_stalled()), (vec![], true));
        queue.try_disk();
    }
    while queue.count_one() {}
    assert_eq!((drain(&mut queue, b()), queue.is_stalled()), (vec![1, 2], false));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn two_readers_have_everything_or_it_is_counted_for_them_when_the_oldest_go(actions in proptest::collection::vec(action(), 0..64)) {
        let mut account = Account::new(Overflow::DropOldest);
        for action in actions {
            account.run(action);
        }
        account.settle();
    }

    #[test]
    fn two_readers_have_everything_or_it_is_counted_for_them_when_the_newest_go(actions in proptest::collection::vec(action(), 0..64)) {
        let mut account = Account::new(Overflow::DropNewest);
        for action in actions {
            account.run(action);
        }
        account.settle();
    }

    #[test]
    fn two_readers_have_everything_or_it_is_counted_for_them_when_the_least_severe_go(actions in proptest::collection::vec(action(), 0..64)) {
        let mut account = Account::new(Overflow::Shed);
        for action in actions {
            account.run(action);
        }
        account.settle();
    }
}
