//! The real queue over a real directory, in lockstep with a plain `VecDeque` per signal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::{Lines, batch, block, copy_dir, drain, numbers, severity_of};
use outlast::Signal;
use outlast::queue::{
    Appended, Deflater, Encoding, Kind, Limits, Mark, Overflow, Queue, RealDisk, Reason, Tally, Waiting,
    severity_class,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::path::Path;

#[derive(Clone, Debug)]
enum Action {
    Append { blocks: Vec<(u8, u8)>, padding: u16 },
    Send { signal: u8, max_bytes: u16, max_blocks: u8, gzip: bool, fate: Fate },
    SendPart { signal: u8, records: u8, fate: Fate },
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
    /// The same, and the request is not answered.
    KeptAfterAppend,
    /// The process ends before the fate is known.
    Killed,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Done),
        2 => Just(Fate::Kept),
        1 => Just(Fate::Refused),
        2 => Just(Fate::DoneAfterAppend),
        1 => Just(Fate::KeptAfterAppend),
        1 => Just(Fate::Killed),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (proptest::collection::vec((0u8..3, 1u8..6), 1..5), 0u16..3000)
            .prop_map(|(blocks, padding)| Action::Append { blocks, padding }),
        4 => (0u8..3, 1u16.., 1u8..20, any::<bool>(), fate())
            .prop_map(|(signal, max_bytes, max_blocks, gzip, fate)| Action::Send { signal, max_bytes, max_blocks, gzip, fate }),
        2 => (0u8..3, 1u8..4, fate()).prop_map(|(signal, records, fate)| Action::SendPart { signal, records, fate }),
        2 => Just(Action::Report),
        1 => Just(Action::Reopen),
        1 => Just(Action::Count),
    ]
}

/// What should be in the queue, and what became of the rest.
struct Model {
    waiting: [VecDeque<u64>; 3],
    dropped: [u64; 3],
    next: u64,
    deliveries: u128,
    /// Reports by number: what each of them says.
    reports: HashMap<u64, Tally>,
    /// Reports that the backend has. A request that is not answered has arrived.
    told: HashSet<u64>,
    /// The first record of the block that a record is in.
    block_of: BTreeMap<u64, u64>,
    /// What is being sent.
    under_way: BTreeSet<u64>,
}

struct Lockstep {
    dir: tempfile::TempDir,
    limits: Limits,
    queue: Queue,
    deflater: Deflater,
    model: Model,
}

fn open(dir: &Path, limits: Limits) -> Queue {
    let (mut queue, opened) = Queue::open(Box::new(RealDisk), dir, limits, 77);
    assert!(opened.problem.is_none(), "{:?}", opened.problem);
    if limits.max_bytes > 1 << 20 {
        queue.attach_index(dir);
    }
    queue
}

impl Lockstep {
    /// `index_bytes`: room for an index; without any there is none.
    fn new(overflow: Overflow, index_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Small enough that segments roll and the budget is reached.
        let max_bytes = (96 << 10) + index_bytes;
        let limits = Limits { max_bytes, segment_bytes: 12 << 10, memory_max_bytes: 1 << 20, overflow };
        let queue = open(dir.path(), limits);
        let model = Model {
            waiting: Default::default(),
            dropped: [0; 3],
            next: 0,
            deliveries: 0,
            reports: HashMap::new(),
            told: HashSet::new(),
            block_of: BTreeMap::new(),
            under_way: BTreeSet::new(),
        };
        Self { dir, limits, queue, deflater: Deflater::default(), model }
    }

    fn append(&mut self, blocks: &[(u8, u8)], padding: u16) {
        self.model.deliveries += 1;
        let mut made = Vec::new();
        let mut ids = Vec::new();
        for (signal, records) in blocks {
            let numbers: Vec<u64> = (0..u64::from(*records)).map(|i| self.model.next + i).collect();
            self.model.block_of.extend(numbers.iter().map(|number| (*number, self.model.next)));
            self.model.next += u64::from(*records);
            let signal = Signal::from_byte(*signal).unwrap();
            made.push(block(&mut self.deflater, signal, &numbers, usize::from(padding)));
            ids.push((signal, numbers));
        }
        let batch = batch(self.model.deliveries, made);
        let kept = self.queue.append(&batch).unwrap();
        match kept {
            _ if self.limits.overflow == Overflow::Shed => {
                for (signal, numbers) in ids {
                    self.model.waiting[signal.index()].extend(numbers);
                }
                self.follow_shedding();
            }
            Appended::OnDisk => {
                for (signal, numbers) in ids {
                    self.model.waiting[signal.index()].extend(numbers);
                }
            }
            Appended::Dropped => {
                for (signal, numbers) in ids {
                    self.model.dropped[signal.index()] += numbers.len() as u64;
                }
            }
            Appended::InMemory => panic!("the disk was fine"),
        }
        assert!(self.queue.known(batch.delivery).is_some_and(|progress| progress.is_whole()));
        self.follow_drops();
        assert!(self.queue.disk_bytes() <= self.limits.max_bytes + self.limits.segment_bytes);
    }

    /// The queue may have given up its oldest: exactly as many as it says, from the front.
    fn follow_drops(&mut self) {
        for signal in Signal::ALL {
            let at = signal.index();
            let dropped = self.queue.ledger().dropped(signal);
            let more = dropped.checked_sub(self.model.dropped[at]).expect("a drop was taken back");
            for _ in 0..more {
                self.model.waiting[at].pop_front().expect("more dropped than there was");
            }
            self.model.dropped[at] = dropped;
        }
    }

    fn class_of(&self, id: u64) -> u8 {
        severity_class(severity_of(self.model.block_of[&id]))
    }

    /// The queue may have given up records anywhere: exactly as many as it says, and none while a less severe one is left.
    fn follow_shedding(&mut self) {
        if Signal::ALL.iter().all(|s| self.queue.ledger().dropped(*s) == self.model.dropped[s.index()]) {
            return;
        }
        let copy = tempfile::tempdir().unwrap();
        copy_dir(self.dir.path(), copy.path());
        let is_told = |id: &u64| self.model.reports.contains_key(id);
        let left = drain(&mut open(copy.path(), self.limits))
            .map(|ids| ids.into_iter().filter(|id| !is_told(id)).collect::<Vec<_>>());
        let (mut gravest_gone, mut least_left) = (0, u8::MAX);
        for signal in Signal::ALL {
            let at = signal.index();
            let before = std::mem::replace(&mut self.model.waiting[at], left[at].iter().copied().collect());
            let kept: BTreeSet<u64> = left[at].iter().copied().collect();
            let gone: Vec<u64> = before.iter().copied().filter(|id| !kept.contains(id)).collect();
            let stays: Vec<u64> = before.iter().copied().filter(|id| kept.contains(id)).collect();
            assert_eq!(stays, left[at], "{signal} out of order, or from nowhere");
            let counted = self.queue.ledger().dropped(signal);
            assert_eq!(counted - self.model.dropped[at], gone.len() as u64, "{signal} counted");
            self.model.dropped[at] = counted;
            // What is being sent stays, and so does a block that is done in part.
            let head = before.front().map(|id| self.model.block_of[id]);
            let may_go =
                |id: &&u64| !self.model.under_way.contains(id) && Some(self.model.block_of[*id]) != head;
            gravest_gone = gravest_gone.max(gone.iter().map(|id| self.class_of(*id)).max().unwrap_or(0));
            let least = stays.iter().filter(may_go).map(|id| self.class_of(*id)).min();
            least_left = least_left.min(least.unwrap_or(u8::MAX));
        }
        assert!(gravest_gone <= least_left, "class {gravest_gone} went before class {least_left}");
    }

    fn send(&mut self, signal: u8, request: Option<outlast::queue::Request>, fate: Fate) {
        let signal = Signal::from_byte(signal).unwrap();
        let at = signal.index();
        let Some(request) = request else {
            assert!(self.model.waiting[at].is_empty(), "records wait but nothing is sent");
            return;
        };
        let all = numbers(&request);
        assert_eq!(all.len(), request.records as usize);
        let (reports, sent): (Vec<u64>, Vec<u64>) =
            all.into_iter().partition(|id| self.model.reports.contains_key(id));
        assert_eq!(reports.len(), request.reports as usize);
        // What it took once it does not refuse.
        let fate = match fate {
            Fate::Refused if reports.iter().any(|id| self.model.told.contains(id)) => Fate::Done,
            fate => fate,
        };
        if !matches!(fate, Fate::Refused) {
            self.model.told.extend(reports);
        }
        let expected: Vec<u64> = self.model.waiting[at].iter().take(sent.len()).copied().collect();
        assert_eq!(sent, expected, "not the oldest records in order");
        match fate {
            Fate::Done => {
                self.queue.done(signal, request.to);
                self.model.waiting[at].drain(..sent.len());
            }
            Fate::DoneAfterAppend => self.done_after_append(signal, request.to, &sent),
            Fate::KeptAfterAppend => {
                self.model.under_way = sent.iter().copied().collect();
                self.append(&[(0, 3), (1, 3), (2, 3)], 2500);
                self.report();
                self.append(&[(0, 3), (1, 3), (2, 3)], 2500);
                self.queue.keep(signal);
                self.model.under_way.clear();
            }
            Fate::Kept => self.queue.keep(signal),
            Fate::Refused => {
                self.queue.refuse(signal, request.to, Reason::Refused);
                self.follow_drops();
            }
            Fate::Killed => self.reopen(),
        }
    }

    fn done_after_append(&mut self, signal: Signal, to: Mark, sent: &[u64]) {
        let at = signal.index();
        let before = self.queue.ledger().dropped(signal);
        self.model.under_way = sent.iter().copied().collect();
        self.append(&[(0, 3), (1, 3), (2, 3)], 2500);
        self.report();
        self.append(&[(0, 3), (1, 3), (2, 3)], 2500);
        let counted = self.queue.ledger().dropped(signal);
        self.queue.done(signal, to);
        self.model.under_way.clear();
        // Records under way that were given up meanwhile have arrived after all: their count is taken back.
        let after = self.queue.ledger().dropped(signal);
        let orphaned = counted - after;
        assert!(orphaned <= counted - before && orphaned <= sent.len() as u64);
        self.model.dropped[at] = after;
        while self.model.waiting[at].front().is_some_and(|id| sent.contains(id)) {
            self.model.waiting[at].pop_front();
        }
    }

    /// Queues a report of each drop that was not reported yet.
    fn report(&mut self) {
        for tally in self.queue.unreported() {
            let id = self.model.next;
            self.model.next += 1;
            self.model.deliveries += 1;
            let mut report = block(&mut self.deflater, Signal::Logs, &[id], 0);
            report.kind = Kind::Report(tally);
            if self.queue.append(&batch(self.model.deliveries, vec![report])).unwrap() == Appended::OnDisk {
                self.model.reports.insert(id, tally);
            }
            if self.limits.overflow == Overflow::Shed {
                self.follow_shedding();
            } else {
                self.follow_drops();
            }
        }
    }

    fn reopen(&mut self) {
        self.queue = open(self.dir.path(), self.limits);
        self.follow_drops();
    }

    fn run(&mut self, action: Action) {
        match action {
            Action::Append { blocks, padding } => self.append(&blocks, padding),
            Action::Send { signal, max_bytes, max_blocks, gzip, fate } => {
                let encoding = if gzip { Encoding::Gzip } else { Encoding::Identity };
                let of = Signal::from_byte(signal).unwrap();
                let request =
                    self.queue.assemble(of, &Lines, encoding, u64::from(max_bytes), u32::from(max_blocks));
                self.send(signal, request, fate);
            }
            Action::SendPart { signal, records, fate } => {
                let of = Signal::from_byte(signal).unwrap();
                let request = self.queue.assemble_part(of, &Lines, Encoding::Gzip, 0..u32::from(records));
                self.send(signal, request, fate);
            }
            Action::Report => self.report(),
            Action::Reopen => {
                self.reopen();
                if self.model.next.is_multiple_of(2) {
                    while !self.queue.consult_index() {
                        std::thread::yield_now();
                    }
                }
            }
            Action::Count => while self.queue.count_one() {},
        }
    }

    fn deliver(&mut self, signal: Signal) {
        while let Some(request) = self.queue.assemble(signal, &Lines, Encoding::Gzip, 10_000, 100) {
            self.send(signal.index() as u8, Some(request), Fate::Done);
        }
    }

    fn drain(&mut self) {
        while self.queue.count_one() {}
        for signal in Signal::ALL {
            let at = signal.index();
            assert_eq!(
                self.queue.waiting(signal).records,
                self.model.waiting[at].len() as u64,
                "{signal} waiting"
            );
            self.deliver(signal);
            assert!(self.model.waiting[at].is_empty());
            assert_eq!(self.queue.waiting(signal), Waiting::default());
        }
        self.report();
        self.deliver(Signal::Logs);
        assert_eq!(self.queue.unreported(), []);
        for signal in Signal::ALL {
            let told = self.model.told.iter().map(|id| self.model.reports[id]);
            let told: u64 = told.filter(|tally| tally.signal == signal).map(|tally| tally.records).sum();
            assert_eq!(told, self.model.dropped[signal.index()], "{signal} reported");
        }
        let left: u64 = std::fs::read_dir(self.dir.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap())
            .filter(std::fs::Metadata::is_file)
            .map(|m| m.len())
            .sum();
        assert!(left <= 128 << 10, "{left} bytes left of an empty queue");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_agrees_with_a_plain_deque_when_it_gives_up_the_oldest(actions in proptest::collection::vec(action(), 0..64)) {
        let mut lockstep = Lockstep::new(Overflow::DropOldest, 0);
        for action in actions {
            lockstep.run(action);
        }
        lockstep.drain();
    }

    #[test]
    fn the_queue_agrees_with_a_plain_deque_when_it_turns_the_newest_away(actions in proptest::collection::vec(action(), 0..64)) {
        let mut lockstep = Lockstep::new(Overflow::DropNewest, 0);
        for action in actions {
            lockstep.run(action);
        }
        lockstep.drain();
    }

    #[test]
    fn the_queue_agrees_with_a_plain_deque_with_an_index_beside_it(actions in proptest::collection::vec(action(), 0..64)) {
        let mut lockstep = Lockstep::new(Overflow::DropOldest, 2 << 20);
        for action in actions {
            lockstep.run(action);
        }
        lockstep.drain();
    }
}

proptest! {
    // Slower: what is left is looked at after every overflow.
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_agrees_with_a_plain_deque_when_it_gives_up_the_least_severe(actions in proptest::collection::vec(action(), 0..64)) {
        let mut lockstep = Lockstep::new(Overflow::Shed, 0);
        for action in actions {
            lockstep.run(action);
        }
        lockstep.drain();
    }
}
