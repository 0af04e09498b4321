//! What is dropped, and the reports of it: what they say adds up to what was dropped, although segments with reports in
//! them are given up as well.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by panicking

mod common;

use common::{Lines, batch, block, drain, numbers};
use outlast::Signal;
use outlast::queue::{
    Appended, Deflater, Encoding, HEADER_BYTES, Kind, Limits, Overflow, Queue, RealDisk, Reason, Request,
    Tally,
};

const LIMITS: Limits = Limits {
    max_bytes: 64 << 10,
    segment_bytes: 8 << 10,
    memory_max_bytes: 1 << 20,
    overflow: Overflow::DropOldest,
};
/// Bytes of a record that takes half a segment.
const LARGE: usize = 4_000;
/// Numbers of reports, far from those of records.
const REPORTS: u64 = 1_000_000;

/// A queue in a directory that goes with it.
struct Case {
    dir: tempfile::TempDir,
    queue: Queue,
    deflater: Deflater,
    next: u64,
}

fn refused(records: u64) -> Tally {
    Tally { signal: Signal::Logs, reason: Reason::Refused, records }
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (queue, _) = Queue::open(Box::new(RealDisk), dir.path(), LIMITS, 1);
        Self { dir, queue, deflater: Deflater::default(), next: 0 }
    }

    fn reopen(&mut self) {
        self.queue = Queue::open(Box::new(RealDisk), self.dir.path(), LIMITS, 1).0;
    }

    /// A record of so many bytes.
    fn append(&mut self, bytes: usize) {
        self.next += 1;
        let block = block(&mut self.deflater, Signal::Logs, &[self.next], bytes);
        let kept = self.queue.append(&batch(u128::from(self.next), vec![block])).unwrap();
        assert_eq!(kept, Appended::OnDisk);
    }

    /// `tally` is dropped, and a report with this number made of it.
    fn report(&mut self, number: u64, tally: Tally) {
        self.queue.count_drop(tally);
        let mut report = block(&mut self.deflater, Signal::Logs, &[number], 0);
        report.kind = Kind::Report(tally);
        assert_eq!(self.queue.append(&batch(u128::from(number), vec![report])).unwrap(), Appended::OnDisk);
    }

    fn assemble(&mut self) -> Request {
        self.queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 100).unwrap()
    }

    /// Appends until the first segment is gone.
    fn overflow(&mut self) {
        while self.queue.ledger().dropped_for(Signal::Logs, Reason::Overflow) == 0 {
            self.append(LARGE);
        }
    }

    fn unreported_for(&self, reason: Reason) -> u64 {
        self.queue.unreported().iter().filter(|t| t.reason == reason).map(|t| t.records).sum()
    }

    /// Numbers of the reports that are still delivered.
    fn reports_left(&mut self) -> Vec<u64> {
        let [logs, ..] = drain(&mut self.queue);
        logs.into_iter().filter(|number| *number >= REPORTS).collect()
    }
}

#[test]
fn a_report_whose_fate_is_unknown_comes_again_as_the_same_report_when_its_segment_goes() {
    let mut case = Case::new();
    case.append(10);
    case.report(REPORTS, refused(5));
    assert_eq!(numbers(&case.assemble()), [1, REPORTS]);
    case.queue.keep(Signal::Logs);
    case.overflow();
    assert_eq!(case.unreported_for(Reason::Refused), 0, "it is still reported");
    assert!(case.unreported_for(Reason::Overflow) > 0);
    assert_eq!(case.reports_left(), [REPORTS]);
    assert_eq!(case.unreported_for(Reason::Refused), 0);
}

#[test]
fn a_report_that_moved_is_known_to_the_next_process_and_moves_again() {
    let mut case = Case::new();
    case.append(10);
    case.report(REPORTS, refused(5));
    case.overflow();
    case.reopen();
    assert_eq!(case.unreported_for(Reason::Refused), 0);
    let before = case.queue.ledger().dropped(Signal::Logs);
    // Everything there was goes, some of it when there is no newest segment yet.
    while case.queue.ledger().dropped(Signal::Logs) < before + 20 {
        case.append(LARGE);
    }
    assert_eq!(case.unreported_for(Reason::Refused), 0);
    case.reopen();
    assert_eq!(case.unreported_for(Reason::Refused), 0);
    assert_eq!(case.reports_left(), [REPORTS]);
}

#[test]
fn a_report_that_arrives_although_its_segment_went_does_not_come_again() {
    let mut case = Case::new();
    case.append(10);
    case.report(REPORTS, refused(5));
    let request = case.assemble();
    case.overflow();
    let dropped = case.queue.ledger().dropped_for(Signal::Logs, Reason::Overflow);
    assert_eq!(case.unreported_for(Reason::Refused), 0, "it is under way");
    assert_eq!(case.unreported_for(Reason::Overflow), dropped - 1, "and so is a record");
    case.queue.done(Signal::Logs, request.to);
    assert_eq!(case.unreported_for(Reason::Refused), 0);
    assert_eq!(case.unreported_for(Reason::Overflow), dropped - 1);
    assert_eq!(case.queue.ledger().dropped_for(Signal::Logs, Reason::Overflow), dropped - 1);
    assert_eq!(case.reports_left(), Vec::<u64>::new());
}

#[test]
fn a_report_comes_again_if_its_segment_went_while_it_was_under_way_and_nobody_knows_whether_it_arrived() {
    let mut case = Case::new();
    case.append(10);
    case.report(REPORTS, refused(5));
    let _request = case.assemble();
    case.overflow();
    case.queue.keep(Signal::Logs);
    assert_eq!(case.unreported_for(Reason::Refused), 0);
    assert_eq!(
        case.unreported_for(Reason::Overflow),
        case.queue.ledger().dropped_for(Signal::Logs, Reason::Overflow)
    );
    case.reopen();
    assert_eq!(case.unreported_for(Reason::Refused), 0);
    assert_eq!(case.reports_left(), [REPORTS]);
}

#[test]
fn a_report_under_way_when_its_segment_went_is_made_anew_by_the_next_process() {
    let mut case = Case::new();
    case.append(10);
    case.report(REPORTS, refused(5));
    let _request = case.assemble();
    case.overflow();
    case.reopen();
    assert_eq!(case.unreported_for(Reason::Refused), 5);
    assert_eq!(case.reports_left(), Vec::<u64>::new());
}

#[test]
fn what_needs_all_the_room_there_is_takes_that_of_reports_and_they_are_made_anew() {
    let mut case = Case::new();
    case.append(10);
    case.report(REPORTS, refused(5));
    // Three quarters of random letters are left by deflating them.
    case.append((LIMITS.max_bytes as usize - 3_000) * 4 / 3);
    assert!(case.queue.disk_bytes() <= LIMITS.max_bytes, "{}", case.queue.disk_bytes());
    assert_eq!(case.unreported_for(Reason::Refused), 5);
    assert_eq!(case.reports_left(), Vec::<u64>::new());
}

#[test]
fn no_more_than_so_many_reports_of_a_segment_move_and_the_others_are_made_anew() {
    let mut case = Case::new();
    case.append(10);
    for number in 0..70 {
        case.report(REPORTS + number, refused(1));
        // A segment is closed by what no longer fits.
        assert!(case.queue.disk_bytes() < LIMITS.segment_bytes * 2);
    }
    case.overflow();
    case.append(LARGE);
    case.append(LARGE);
    let anew = case.unreported_for(Reason::Refused);
    let left = case.reports_left();
    assert_eq!(left.len() as u64 + anew, 70);
    assert!(anew <= 6, "{anew}");
}

#[test]
fn a_report_that_was_made_for_another_destination_is_made_anew() {
    let mut case = Case::new();
    case.queue.count_drop(refused(5));
    let mut report = block(&mut case.deflater, Signal::Logs, &[REPORTS], 0);
    report.kind = Kind::Report(refused(5));
    report.format = 251;
    assert_eq!(case.queue.append(&batch(1, vec![report])).unwrap(), Appended::OnDisk);
    assert_eq!(case.unreported_for(Reason::Refused), 0);
    assert!(case.queue.assemble(Signal::Logs, &Lines, Encoding::Gzip, 1 << 20, 100).is_none());
    assert_eq!(case.unreported_for(Reason::Refused), 5);
    assert_eq!(
        case.queue.ledger().dropped_for(Signal::Logs, Reason::Damaged),
        0,
        "it is no record of the user's"
    );
}

#[test]
fn a_delivery_as_large_as_the_queue_takes_all_its_room_and_a_larger_one_is_dropped_and_costs_nothing_else() {
    /// The states at the head of a segment.
    const HEAD_BYTES: u64 = 2_048;
    let most = (LIMITS.max_bytes - HEAD_BYTES) as usize - HEADER_BYTES;
    for (payload_bytes, dropped) in [(most, Reason::Overflow), (most + 1, Reason::OverflowNewest)] {
        let mut case = Case::new();
        case.append(10);
        let mut large = block(&mut case.deflater, Signal::Logs, &[2], 0);
        large.payload = vec![0; payload_bytes];
        let taken = case.queue.append(&batch(2, vec![large])).unwrap();
        let expected = if dropped == Reason::Overflow { Appended::OnDisk } else { Appended::Dropped };
        assert_eq!(taken, expected);
        assert_eq!(case.queue.ledger().dropped_for(Signal::Logs, dropped), 1);
        assert_eq!(case.queue.ledger().dropped(Signal::Logs), 1);
        assert!(case.queue.disk_bytes() <= LIMITS.max_bytes);
    }
}

#[test]
fn a_report_that_the_state_knows_of_is_not_counted_again_by_the_next_process() {
    let mut case = Case::new();
    case.report(REPORTS, refused(5));
    case.queue.count_drop(refused(3));
    assert_eq!(case.unreported_for(Reason::Refused), 3);
    case.queue.close();
    case.reopen();
    assert_eq!(case.unreported_for(Reason::Refused), 3);
}
