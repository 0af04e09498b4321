//! Every file operation of the queue fails once, in turn: for a while, for good, or as the last one before the
//! process dies. Whatever fails, no acknowledged record may be missing without being counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::{Lines, batch, block, numbers};
use outlast::queue::{
    AppendError, Appended, At, Deflater, Disk, DiskFile, Encoding, Limits, NewBlock, Overflow, Queue,
    ReaderId, ReaderSpec, Readers, RealDisk, Reason,
};
use outlast::{PerSignal, Signal};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Kinds of file operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Directory,
    Create,
    Open,
    Read,
    Write,
    Truncate,
    Remove,
}

/// Which operations fail, and how.
#[derive(Clone, Debug)]
struct Plan {
    /// The first one that fails, counted from 0 over those that match.
    first: u64,
    /// How many fail from there on.
    count: u64,
    /// Only these fail; others are not counted.
    ops: &'static [Op],
    error: i32,
    /// A failing write writes half of its bytes, and cannot be taken back.
    torn: bool,
    /// What gives when the queue is full.
    overflow: Overflow,
    /// The account is that of the second of two readers.
    second: bool,
}

fn readers(second: bool) -> Readers {
    let b = ReaderSpec { name: "b".to_owned(), wants: PerSignal::from_fn(|_| true) };
    Readers { others: if second { vec![b] } else { vec![] }, ..Readers::default() }
}

const EVERY: &[Op] = &[Op::Directory, Op::Create, Op::Open, Op::Read, Op::Write, Op::Truncate, Op::Remove];
const FOR_GOOD: u64 = u64::MAX;

#[derive(Debug)]
struct Faults {
    plan: Plan,
    seen: u64,
    healed: bool,
}

impl Faults {
    fn fails(&mut self, op: Op) -> bool {
        if self.healed || !self.plan.ops.contains(&op) {
            // What cannot be written cannot be cut off either.
            return op == Op::Truncate && self.plan.torn && !self.healed && self.seen > self.plan.first;
        }
        let at = self.seen;
        self.seen += 1;
        at >= self.plan.first && at - self.plan.first < self.plan.count
    }
}

/// The real disk, but for what is planned.
#[derive(Clone)]
struct FaultyDisk(Arc<Mutex<Faults>>);

impl FaultyDisk {
    fn new(plan: Plan) -> Self {
        Self(Arc::new(Mutex::new(Faults { plan, seen: 0, healed: false })))
    }

    fn check(&self, op: Op) -> io::Result<()> {
        let mut faults = self.0.lock().unwrap();
        if faults.fails(op) { Err(io::Error::from_raw_os_error(faults.plan.error)) } else { Ok(()) }
    }

    /// Whether anything has failed yet.
    fn struck(&self) -> bool {
        let faults = self.0.lock().unwrap();
        faults.seen > faults.plan.first
    }

    fn heal(&self) {
        self.0.lock().unwrap().healed = true;
    }

    fn torn(&self) -> bool {
        self.0.lock().unwrap().plan.torn
    }
}

impl Disk for FaultyDisk {
    fn prepare(&self, dir: &Path) -> io::Result<()> {
        self.check(Op::Directory)?;
        RealDisk.prepare(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<(String, u64)>> {
        self.check(Op::Directory)?;
        RealDisk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check(Op::Create)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), file: RealDisk.create(path)? }))
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.check(Op::Open)?;
        Ok(Box::new(FaultyFile { disk: self.clone(), file: RealDisk.open(path)? }))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check(Op::Remove)?;
        RealDisk.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Op::Directory)?;
        RealDisk.rename(from, to)
    }
    fn remove_all(&self, path: &Path) -> io::Result<()> {
        self.check(Op::Remove)?;
        RealDisk.remove_all(path)
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    file: Box<dyn DiskFile>,
}

impl DiskFile for FaultyFile {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.check(Op::Read)?;
        self.file.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let checked = self.disk.check(Op::Write);
        if checked.is_err() && self.disk.torn() {
            self.file.write_all_at(&buf[..buf.len() / 2], offset)?;
        }
        checked?;
        self.file.write_all_at(buf, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.check(Op::Truncate)?;
        self.file.set_len(len)
    }
    fn is_linked(&self) -> io::Result<bool> {
        self.disk.check(Op::Read)?;
        self.file.is_linked()
    }
}

/// How a scenario ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The disk recovers, and the process lives on.
    Recovery,
    /// The process dies at the first failure, and another one finds what it left.
    Death,
    /// The process goes on as well as it can, and dies in the end, before anything is well again.
    LateDeath,
}

struct Run {
    second: bool,
    dir: tempfile::TempDir,
    limits: Limits,
    disk: FaultyDisk,
    queue: Queue,
    end: End,
    next: u64,
    deliveries: u128,
    acknowledged: [BTreeSet<u64>; 3],
    /// Delivered, in the order of delivery.
    delivered: [Vec<u64>; 3],
    /// Acknowledged while memory stood in for the disk: all of it is lost if the process dies.
    in_memory: [BTreeSet<u64>; 3],
    /// Told to be delivered or given up by a call that did not return.
    open: [BTreeSet<u64>; 3],
    died: bool,
    /// How often a request may have ended with the process: each time what it carried comes again.
    deaths: u64,
    context: String,
}

/// Signal, numbers of the records, padding.
type Recipe = (Signal, Vec<u64>, usize);

thread_local! {
    /// Every run of the scenario appends the same blocks, and deflating them takes longer than all the rest.
    static BLOCKS: RefCell<HashMap<Recipe, NewBlock>> = RefCell::default();
}

fn block_once(signal: Signal, ids: &[u64], padding: usize) -> NewBlock {
    let make = || block(&mut Deflater::default(), signal, ids, padding);
    BLOCKS
        .with_borrow_mut(|blocks| blocks.entry((signal, ids.to_vec(), padding)).or_insert_with(make).clone())
}

fn limits(overflow: Overflow) -> Limits {
    Limits { max_bytes: 24 << 10, segment_bytes: 6 << 10, memory_max_bytes: 16 << 10, overflow }
}

impl Run {
    fn new(plan: Plan, end: End) -> Self {
        let limits = limits(plan.overflow);
        let second = plan.second;
        let dir = tempfile::tempdir().unwrap();
        let context = format!("{plan:?} {end:?}");
        let disk = FaultyDisk::new(plan);
        let (mut queue, _) = Queue::open(Box::new(disk.clone()), &dir.path().join("queue"), limits, 1);
        queue.serve(&readers(second));
        let mut run = Self {
            second,
            dir,
            limits,
            disk,
            queue,
            end,
            next: 0,
            deliveries: 0,
            acknowledged: Default::default(),
            delivered: Default::default(),
            in_memory: Default::default(),
            open: Default::default(),
            died: false,
            deaths: 1,
            context,
        };
        run.live();
        run
    }

    /// The queue as the reader sees it whose account is kept.
    fn kept(&mut self) -> At<'_> {
        let reader = if self.second { ReaderId::FIRST.next() } else { ReaderId::FIRST };
        self.queue.at(reader)
    }

    /// The other reader, if there is one, comes further.
    fn other_goes_on(&mut self, signal: Signal) {
        if self.died || !self.second {
            return;
        }
        if let Some(request) = self.queue.assemble(signal, &Lines, Encoding::Identity, 1 << 20, 2) {
            self.queue.done(signal, request.to);
        }
        self.live();
    }

    /// Whether the process is still there after the call that was just made.
    fn live(&mut self) -> bool {
        self.died |= self.end == End::Death && self.disk.struck();
        !self.died
    }

    fn append(&mut self, blocks: &[(Signal, u64)], padding: usize) {
        if self.died {
            return;
        }
        self.deliveries += 1;
        let mut made = Vec::new();
        let mut ids = Vec::new();
        for (signal, records) in blocks {
            let numbers: Vec<u64> = (self.next..self.next + records).collect();
            self.next += records;
            made.push(block_once(*signal, &numbers, padding));
            ids.push((*signal, numbers));
        }
        let batch = batch(self.deliveries, made);
        let kept = self.queue.append(&batch);
        let alive = self.live();
        match kept {
            Ok(kept) => {
                for (signal, numbers) in ids {
                    if !alive {
                        self.open[signal.index()].extend(&numbers);
                        continue;
                    }
                    self.acknowledged[signal.index()].extend(&numbers);
                    if kept == Appended::InMemory {
                        self.in_memory[signal.index()].extend(&numbers);
                    }
                }
            }
            Err(AppendError::NoRoom) => {
                assert!(self.disk.struck(), "{}: no room on a disk that works", self.context);
                // A sender would keep it and send it again; this one gives up. Some may be on disk.
                for (signal, numbers) in ids {
                    self.open[signal.index()].extend(numbers);
                }
            }
        }
    }

    fn send(
        &mut self,
        signal: Signal,
        blocks: u32,
        fate: impl FnOnce(&mut Self, outlast::queue::Mark, Vec<u64>),
    ) {
        if self.died {
            return;
        }
        let request = self.kept().assemble(signal, &Lines, Encoding::Identity, 1 << 20, blocks);
        if let Some(request) = request
            && self.live()
        {
            fate(self, request.to, numbers(&request));
        }
    }

    fn deliver(&mut self, signal: Signal, blocks: u32) {
        self.send(signal, blocks, |run, to, ids| {
            run.kept().done(signal, to);
            // Whether it was noted when the process died or not: the backend has them.
            run.delivered[signal.index()].extend(&ids);
            if !run.live() {
                run.open[signal.index()].extend(ids);
            }
        });
    }

    fn deliver_part(&mut self, signal: Signal, records: u32) {
        if self.died {
            return;
        }
        let request = self.kept().assemble_part(signal, &Lines, Encoding::Identity, 0..records);
        if let Some(request) = request
            && self.live()
        {
            let ids = numbers(&request);
            self.kept().done(signal, request.to);
            self.delivered[signal.index()].extend(&ids);
            if !self.live() {
                self.open[signal.index()].extend(ids);
            }
        }
    }

    fn refuse(&mut self, signal: Signal) {
        self.send(signal, 1, |run, to, ids| {
            run.kept().refuse(signal, to, Reason::Refused);
            if !run.live() {
                run.open[signal.index()].extend(ids);
            }
        });
    }

    fn reopen(&mut self, disk: Box<dyn Disk>) {
        // What only memory had is gone now.
        for (memory, acknowledged) in self.in_memory.iter_mut().zip(&mut self.acknowledged) {
            for id in memory.iter() {
                acknowledged.remove(id);
            }
        }
        let (mut queue, _) = Queue::open(disk, &self.dir.path().join("queue"), self.limits, 2);
        queue.serve(&readers(self.second));
        self.queue = queue;
        for (open, memory) in self.open.iter_mut().zip(&mut self.in_memory) {
            open.append(memory);
        }
        self.live();
    }

    fn chores(&mut self) {
        if self.died {
            return;
        }
        self.queue.count_one();
        self.retry();
    }

    fn retry(&mut self) {
        if self.queue.try_disk() && self.live() {
            self.in_memory = Default::default();
        }
    }

    /// A little of everything.
    fn live_through(&mut self) {
        use Signal::{Logs, Metrics, Traces};
        self.append(&[(Logs, 3), (Metrics, 2)], 300);
        self.append(&[(Traces, 2), (Logs, 4)], 500);
        self.deliver(Logs, 1);
        self.chores();
        self.append(&[(Logs, 4)], 600);
        self.refuse(Metrics);
        self.append(&[(Logs, 5), (Logs, 5)], 400);
        self.deliver_part(Logs, 2);
        self.other_goes_on(Logs);
        self.chores();
        self.append(&[(Metrics, 5), (Traces, 5)], 400);
        self.deliver(Logs, 3);
        self.chores();
        // Over the budget, with a request under way.
        self.append(&[(Logs, 6)], 700);
        self.append(&[(Traces, 6)], 700);
        self.send(Traces, 2, |run, to, ids| {
            run.append(&[(Logs, 6)], 900);
            run.append(&[(Logs, 6)], 900);
            run.append(&[(Logs, 6)], 900);
            if run.live() {
                run.kept().done(Traces, to);
                run.delivered[Traces.index()].extend(&ids);
                run.open[Traces.index()].extend(&ids);
            }
        });
        self.chores();
        if !self.died && self.end == End::Death {
            self.reopen(Box::new(self.disk.clone()));
        }
        self.append(&[(Logs, 3), (Metrics, 2)], 300);
        self.deliver(Metrics, 9);
        self.other_goes_on(Traces);
        self.chores();
        self.deliver(Logs, 9);
        self.append(&[(Logs, 1)], 10);
        self.chores();
    }

    /// The next process dies as well, at operation `at` of its own, while it finds what the last one left and begins to work.
    /// Returns whether it came so far.
    fn die_again(&mut self, at: u64) -> bool {
        let plan = Plan { first: at, ..self.disk.0.lock().unwrap().plan.clone() };
        self.disk = FaultyDisk::new(plan);
        self.deaths += 1;
        self.died = false;
        self.reopen(Box::new(self.disk.clone()));
        self.chores();
        self.append(&[(Signal::Logs, 2), (Signal::Traces, 1)], 200);
        self.chores();
        self.deliver(Signal::Logs, 1);
        self.deliver(Signal::Traces, 1);
        let came_so_far = self.disk.struck();
        self.died = true;
        came_so_far
    }

    /// The disk works again, or another process starts: everything comes out, and the books agree.
    fn settle(mut self) {
        let dies = self.died || self.end == End::LateDeath;
        if dies {
            self.reopen(Box::new(RealDisk));
        }
        self.disk.heal();
        for _ in 0..3 {
            self.retry();
        }
        assert!(!self.queue.is_degraded(), "{}: the disk works, but the queue does not use it", self.context);
        self.died = false;
        if self.end == End::Death {
            self.end = End::Recovery;
        }
        let kept = self.next;
        self.append(&[(Signal::Logs, 2)], 10);
        assert!(self.acknowledged[0].contains(&kept), "{}: nothing is taken", self.context);
        assert!(self.in_memory[0].is_empty(), "{}: it stays in memory", self.context);
        for signal in Signal::ALL {
            while self.queue.count_one() {}
            loop {
                let before = self.delivered[signal.index()].len();
                self.deliver(signal, 5);
                if self.delivered[signal.index()].len() == before {
                    break;
                }
            }
            self.check(signal);
        }
    }

    fn check(&mut self, signal: Signal) {
        let counted = self.kept().ledger().dropped(signal);
        let waiting = self.kept().waiting(signal).records;
        let (at, context) = (signal.index(), &self.context);
        let delivered: BTreeSet<u64> = self.delivered[at].iter().copied().collect();
        let missing: Vec<u64> = self.acknowledged[at].difference(&delivered).copied().collect();
        // Nothing goes without being counted. More may be counted only where the fate of records was open.
        let late = self.end == End::LateDeath;
        // What could not be noted for so long is open altogether.
        let open = if late { self.next } else { self.open[at].len() as u64 };
        assert!(
            (missing.len() as u64..=missing.len() as u64 + open).contains(&counted),
            "{context}: {signal}: {counted} counted, {open} open, missing {missing:?}"
        );
        let mut repeats = 0;
        let mut seen = BTreeSet::new();
        for id in &self.delivered[at] {
            repeats += u64::from(!seen.insert(*id));
        }
        assert!(
            repeats <= open * self.deaths,
            "{context}: {signal}: {repeats} repeats, {open} open: {:?}",
            self.delivered[at]
        );
        if repeats == 0 && !late {
            assert!(
                self.delivered[at].is_sorted(),
                "{context}: {signal}: out of order {:?}",
                self.delivered[at]
            );
        }
        assert_eq!(waiting, 0, "{context}: {signal} waits for ever");
    }
}

/// Runs the scenario with the first, the second, … operation failing, until none does.
fn each_operation_fails(plan: &Plan, end: End) {
    for overflow in [Overflow::DropOldest, Overflow::Shed] {
        each_operation_fails_with(&Plan { overflow, ..plan.clone() }, end);
    }
}

/// The same for the second of two readers.
fn each_operation_fails_for_the_second(plan: &Plan, end: End) {
    for overflow in [Overflow::DropOldest, Overflow::Shed] {
        each_operation_fails_with(&Plan { overflow, second: true, ..plan.clone() }, end);
    }
}

fn each_operation_fails_with(plan: &Plan, end: End) {
    for first in 0.. {
        let mut run = Run::new(Plan { first, ..plan.clone() }, end);
        run.live_through();
        let struck = run.disk.struck();
        run.settle();
        if !struck {
            assert!(first > 0, "nothing to fail");
            return;
        }
    }
}

fn plan(ops: &'static [Op], error: i32, count: u64) -> Plan {
    Plan { first: 0, count, ops, error, torn: false, overflow: Overflow::DropOldest, second: false }
}

#[test]
fn no_failure_of_one_operation_loses_a_record() {
    for error in [libc::EIO, libc::EACCES] {
        each_operation_fails(&plan(EVERY, error, 1), End::Recovery);
    }
}

#[test]
fn no_run_of_failures_loses_a_record() {
    for count in [2, 3, 7, 40, FOR_GOOD] {
        each_operation_fails(&plan(EVERY, libc::EIO, count), End::Recovery);
    }
}

#[test]
fn a_full_disk_loses_no_record() {
    for count in [1, 4, FOR_GOOD] {
        each_operation_fails(&plan(&[Op::Write, Op::Create], libc::ENOSPC, count), End::Recovery);
    }
}

#[test]
fn torn_writes_that_cannot_be_cut_off_lose_no_record() {
    for count in [1, 2, 9, FOR_GOOD] {
        let plan = Plan { torn: true, ..plan(&[Op::Write], libc::ENOSPC, count) };
        each_operation_fails(&plan, End::Recovery);
    }
}

#[test]
fn files_that_cannot_be_removed_lose_no_record() {
    for count in [1, FOR_GOOD] {
        each_operation_fails(&plan(&[Op::Remove, Op::Truncate], libc::EACCES, count), End::Recovery);
    }
}

#[test]
fn files_that_cannot_be_read_for_a_while_lose_no_record() {
    for count in [1, 5, FOR_GOOD] {
        each_operation_fails(&plan(&[Op::Read, Op::Open], libc::EIO, count), End::Recovery);
    }
}

#[test]
fn death_at_any_operation_loses_no_record() {
    each_operation_fails(&plan(EVERY, libc::EIO, FOR_GOOD), End::Death);
}

#[test]
fn death_while_a_death_is_recovered_from_loses_no_record() {
    for overflow in [Overflow::DropOldest, Overflow::Shed] {
        let plan = Plan { overflow, ..plan(EVERY, libc::EIO, FOR_GOOD) };
        // Of the first deaths every seventh, which come in all kinds of work; of the second ones all.
        for first in (0..).step_by(7) {
            let mut struck = false;
            for again in 0.. {
                let mut run = Run::new(Plan { first, ..plan.clone() }, End::Death);
                run.live_through();
                struck = run.disk.struck();
                let struck_again = struck && run.die_again(again);
                run.settle();
                if !struck_again {
                    break;
                }
            }
            if !struck {
                assert!(first > 0, "nothing to fail");
                break;
            }
        }
    }
}

#[test]
fn death_within_any_write_loses_no_record() {
    let plan = Plan { torn: true, ..plan(&[Op::Write], libc::EIO, FOR_GOOD) };
    each_operation_fails(&plan, End::Death);
}

#[test]
fn death_at_any_operation_loses_no_record_of_a_second_reader() {
    each_operation_fails_for_the_second(&plan(EVERY, libc::EIO, FOR_GOOD), End::Death);
    let torn = Plan { torn: true, ..plan(&[Op::Write], libc::EIO, FOR_GOOD) };
    each_operation_fails_for_the_second(&torn, End::Death);
}

#[test]
fn what_could_not_be_noted_is_not_removed_for_a_second_reader() {
    for ops in [&[Op::Write] as &[Op], &[Op::Remove, Op::Write], &[Op::Create, Op::Write]] {
        each_operation_fails_for_the_second(&plan(ops, libc::EIO, FOR_GOOD), End::LateDeath);
    }
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_no_record_of_a_second_reader() {
    for count in [1, 4] {
        let plan = plan(&[Op::Write, Op::Create], libc::ENOSPC, count);
        each_operation_fails_for_the_second(&plan, End::Recovery);
    }
}

#[test]
fn what_could_not_be_noted_is_not_removed() {
    for ops in [&[Op::Write] as &[Op], &[Op::Remove, Op::Write], &[Op::Create, Op::Write]] {
        each_operation_fails(&plan(ops, libc::EIO, FOR_GOOD), End::LateDeath);
    }
}

#[test]
fn what_was_dropped_is_remembered_while_memory_stands_in_for_the_disk() {
    let mut run = Run::new(Plan { first: 3, ..plan(&[Op::Create], libc::ENOSPC, FOR_GOOD) }, End::LateDeath);
    run.append(&[(Signal::Metrics, 3)], 500);
    run.refuse(Signal::Metrics);
    while !run.queue.is_degraded() {
        run.append(&[(Signal::Logs, 5)], 500);
    }
    run.deliver(Signal::Logs, 100);
    run.deliver(Signal::Logs, 100);
    assert_eq!(run.queue.waiting(Signal::Logs).records, 0);
    run.reopen(Box::new(RealDisk));
    assert_eq!(run.queue.ledger().dropped(Signal::Metrics), 3);
}

#[test]
fn what_only_memory_holds_at_the_end_is_counted_on_disk() {
    // Early enough that memory and disk together keep to the budget: nothing else is dropped.
    let mut run = Run::new(Plan { first: 2, ..plan(&[Op::Create], libc::ENOSPC, FOR_GOOD) }, End::LateDeath);
    let mut appended = 0;
    while !run.queue.is_degraded() {
        run.append(&[(Signal::Logs, 5)], 500);
        appended += 5;
    }
    run.append(&[(Signal::Logs, 5), (Signal::Traces, 2)], 10);
    let lost = run.queue.close();
    assert_eq!(run.queue.waiting(Signal::Traces).records, 0);
    let left = run.queue.waiting(Signal::Logs).records;
    assert_eq!(left + lost, appended + 5 + 2);
    while run.queue.count_one() {}
    assert_eq!(run.queue.waiting(Signal::Logs).records, left, "what is counted as lost waits no more");
    let late = batch(999, vec![block_once(Signal::Logs, &[1_000_000], 10)]);
    assert!(run.queue.append(&late).is_err(), "what comes later is not taken");
    run.reopen(Box::new(RealDisk));
    while run.queue.count_one() {}
    assert_eq!(run.queue.waiting(Signal::Logs).records, left);
    let counted: u64 = run.queue.ledger().unreported().iter().map(|tally| tally.records).sum();
    assert_eq!(counted, lost);
    assert!(run.queue.ledger().unreported().iter().all(|tally| tally.reason == Reason::Unsaved));
}
