//! What became of records that the backend did not get. Every drop is counted here, kept on disk before the
//! records go, and told to the user: a line on stderr at once, a log record to the backend when it takes any. What the
//! fallback has instead is counted apart, and is no drop.

use super::bytes::Fields;
use super::totals::Totals;
use crate::{PerSignal, Signal};
use std::fmt;

/// Why records were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The queue was full and `drop-oldest` made room.
    Overflow,
    /// The queue was full and `drop-newest` turned a delivery away.
    OverflowNewest,
    /// The backend will never take them (OTLP: a status that must not be retried).
    Refused,
    /// The backend took the request but rejected some of its records (OTLP partial success).
    Rejected,
    /// What was stored is damaged, or was made for another destination.
    Damaged,
    /// A request body that is not telemetry.
    Unreadable,
    /// The disk took nothing to the end, and what memory held in its stead went with the process.
    Unsaved,
    /// The queue was full and `shed` gave up the least severe.
    Shed,
}

impl Reason {
    /// Every reason, in the order of the byte stored on disk.
    pub const ALL: [Self; 8] = [
        Self::Overflow,
        Self::OverflowNewest,
        Self::Refused,
        Self::Rejected,
        Self::Damaged,
        Self::Unreadable,
        Self::Unsaved,
        Self::Shed,
    ];
    /// So many stand together on disk; what came later stands behind what stood there first.
    pub(super) const FIRST: usize = 7;

    fn index(self) -> usize {
        self as usize
    }

    /// The reason in words, as reports carry it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overflow => "overflow_oldest",
            Self::OverflowNewest => "overflow_newest",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Damaged => "damaged",
            Self::Unreadable => "unreadable",
            Self::Unsaved => "unsaved",
            Self::Shed => "overflow_shed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number of records of one signal, given up for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The signal of the records.
    pub signal: Signal,
    /// Why they were given up.
    pub reason: Reason,
    /// How many.
    pub records: u64,
}

/// A report names at most this many records, so that a tally fits in one word of a frame's header.
const TALLY_MAX_RECORDS: u64 = (1 << 48) - 1;

impl Tally {
    pub(super) fn pack(self) -> u64 {
        (self.signal.index() as u64) << 56
            | (self.reason.index() as u64) << 48
            | self.records.min(TALLY_MAX_RECORDS)
    }

    pub(super) fn unpack(word: u64) -> Option<Self> {
        Some(Self {
            signal: Signal::from_byte((word >> 56) as u8)?,
            reason: *Reason::ALL.get((word >> 48 & 0xff) as usize)?,
            records: word & TALLY_MAX_RECORDS,
        })
    }
}

/// Running totals for one signal: given up, and told to the backend, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    dropped: [u64; Reason::ALL.len()],
    reported: [u64; Reason::ALL.len()],
}

/// All drops since the queue was made, what was handed to the fallback, and what the backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    accounts: PerSignal<Account>,
    handed: PerSignal<u64>,
    delivered: PerSignal<u64>,
    /// Of all these, what metrics have told.
    told: PerSignal<Totals>,
}

impl Ledger {
    /// Bytes of the drops on disk, for the reasons there were first.
    pub(super) const BYTES: usize = 3 * 2 * Reason::FIRST * 8;
    /// Bytes of what was handed over on disk.
    pub(super) const HANDED_BYTES: usize = 3 * 8;
    /// Bytes of what was delivered, and of what was told, on disk.
    pub(super) const TOLD_BYTES: usize = 3 * 8 + 3 * Totals::BYTES;
    /// Bytes of drops for later reasons on disk: given up, reported, told.
    pub(super) const LATER_BYTES: usize = 3 * 3 * (Reason::ALL.len() - Reason::FIRST) * 8;

    /// Counts records as given up.
    pub fn drop(&mut self, tally: Tally) {
        if let Some(count) = self.accounts.get_mut(tally.signal).dropped.get_mut(tally.reason.index()) {
            *count = count.saturating_add(tally.records);
        }
    }

    /// Takes back a count: the records were delivered after all.
    pub fn undrop(&mut self, tally: Tally) {
        if let Some(count) = self.accounts.get_mut(tally.signal).dropped.get_mut(tally.reason.index()) {
            *count = count.saturating_sub(tally.records);
        }
    }

    /// A report about `tally` is in the queue.
    pub fn report(&mut self, tally: Tally) {
        if let Some(count) = self.accounts.get_mut(tally.signal).reported.get_mut(tally.reason.index()) {
            *count = count.saturating_add(tally.records);
        }
    }

    /// A report about `tally` was itself dropped: what it spoke of is to be told again.
    pub fn unreport(&mut self, tally: Tally) {
        if let Some(count) = self.accounts.get_mut(tally.signal).reported.get_mut(tally.reason.index()) {
            *count = count.saturating_sub(tally.records);
        }
    }

    /// Counts records that the fallback has.
    pub fn hand_over(&mut self, signal: Signal, records: u64) {
        let count = self.handed.get_mut(signal);
        *count = count.saturating_add(records);
    }

    /// Records of `signal` that the fallback has.
    pub fn handed(&self, signal: Signal) -> u64 {
        *self.handed.get(signal)
    }

    /// Counts records that the backend has.
    pub fn deliver(&mut self, signal: Signal, records: u64) {
        let count = self.delivered.get_mut(signal);
        *count = count.saturating_add(records);
    }

    /// Records of `signal` that the backend has.
    pub fn delivered(&self, signal: Signal) -> u64 {
        *self.delivered.get(signal)
    }

    /// What became of records of `signal` and was not told yet, while `waiting` of them wait. What was received is what
    /// became of all of them: that needs no counter, and is right after any crash.
    pub fn untold(&self, signal: Signal, waiting: u64) -> Totals {
        let dropped = self.accounts.get(signal).dropped;
        let (delivered, handed) = (self.delivered(signal), self.handed(signal));
        let known = [delivered, handed, waiting].into_iter().chain(dropped);
        let received = known.fold(0, u64::saturating_add);
        Totals { received, delivered, handed, dropped }.less(self.told.get(signal))
    }

    /// `totals` are told.
    pub fn tell(&mut self, signal: Signal, totals: &Totals) {
        self.told.get_mut(signal).add(totals);
    }

    /// Takes over the counts of another ledger.
    pub(super) fn add(&mut self, other: &Self) {
        for (signal, records) in other.handed.iter() {
            self.hand_over(signal, *records);
        }
        for signal in Signal::ALL {
            self.deliver(signal, other.delivered(signal));
            self.tell(signal, other.told.get(signal));
        }
        for (signal, account) in other.accounts.iter() {
            let ours = self.accounts.get_mut(signal);
            let sums = ours.dropped.iter_mut().chain(&mut ours.reported);
            for (sum, count) in sums.zip(account.dropped.iter().chain(&account.reported)) {
                *sum = sum.saturating_add(*count);
            }
        }
    }

    /// Takes over the counts of `ahead`, and keeps what was counted here since `known`, which both know of. What was reported
    /// and told only if `reports` and `told` say so.
    pub(super) fn catch_up(&mut self, ahead: &Self, known: &Self, reports: bool, told: bool) {
        let sum = |ours: &mut u64, ahead: u64, known: u64| {
            *ours = ours.saturating_add(ahead).saturating_sub(known);
        };
        for signal in Signal::ALL {
            sum(self.handed.get_mut(signal), ahead.handed(signal), known.handed(signal));
            sum(self.delivered.get_mut(signal), ahead.delivered(signal), known.delivered(signal));
            let (ours, theirs) = (self.accounts.get_mut(signal), ahead.accounts.get(signal));
            let known_account = known.accounts.get(signal);
            for ((ours, theirs), known) in
                ours.dropped.iter_mut().zip(theirs.dropped).zip(known_account.dropped)
            {
                sum(ours, theirs, known);
            }
            if reports {
                for ((ours, theirs), known) in
                    ours.reported.iter_mut().zip(theirs.reported).zip(known_account.reported)
                {
                    sum(ours, theirs, known);
                }
            }
            if told {
                let since = self.told.get(signal).less(known.told.get(signal));
                *self.told.get_mut(signal) = *ahead.told.get(signal);
                self.told.get_mut(signal).add(&since);
            }
        }
    }

    /// What was given up and not reported yet.
    pub fn unreported(&self) -> Vec<Tally> {
        let mut tallies = Vec::new();
        for (signal, account) in self.accounts.iter() {
            for (reason, (dropped, reported)) in
                Reason::ALL.into_iter().zip(account.dropped.iter().zip(account.reported))
            {
                let records = dropped.saturating_sub(reported);
                if records > 0 {
                    tallies.push(Tally { signal, reason, records });
                }
            }
        }
        tallies
    }

    /// Records given up in all, by signal.
    pub fn dropped(&self, signal: Signal) -> u64 {
        self.accounts.get(signal).dropped.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Records of `signal` given up for `reason`.
    pub fn dropped_for(&self, signal: Signal, reason: Reason) -> u64 {
        self.accounts.get(signal).dropped.get(reason.index()).copied().unwrap_or(0)
    }

    /// Appends what was handed over, which stands apart from the rest: an earlier version did not know of it.
    pub(super) fn encode_handed(&self, out: &mut Vec<u8>) {
        for (_, records) in self.handed.iter() {
            out.extend_from_slice(&records.to_le_bytes());
        }
    }

    /// Reads what [`Ledger::encode_handed`] wrote.
    pub(super) fn decode_handed(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        for signal in Signal::ALL {
            *self.handed.get_mut(signal) = fields.u64()?;
        }
        Some(())
    }

    /// Appends drops for later reasons, which stand behind everything else.
    pub(super) fn encode_later(&self, out: &mut Vec<u8>) {
        self.encode_reasons(Reason::FIRST, Reason::ALL.len(), out);
        for count in self.told.iter().flat_map(|(_, totals)| totals.dropped.iter().skip(Reason::FIRST)) {
            out.extend_from_slice(&count.to_le_bytes());
        }
    }

    /// Reads what [`Ledger::encode_later`] wrote.
    pub(super) fn decode_later(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        self.decode_reasons(Reason::FIRST, Reason::ALL.len(), fields)?;
        for signal in Signal::ALL {
            for count in self.told.get_mut(signal).dropped.iter_mut().skip(Reason::FIRST) {
                *count = fields.u64()?;
            }
        }
        Some(())
    }

    /// Appends what was delivered and told, which stands behind what an earlier version knows.
    pub(super) fn encode_told(&self, out: &mut Vec<u8>) {
        for (_, records) in self.delivered.iter() {
            out.extend_from_slice(&records.to_le_bytes());
        }
        for (_, totals) in self.told.iter() {
            totals.encode(out);
        }
    }

    /// Reads what [`Ledger::encode_told`] wrote.
    pub(super) fn decode_told(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        for signal in Signal::ALL {
            *self.delivered.get_mut(signal) = fields.u64()?;
        }
        for signal in Signal::ALL {
            *self.told.get_mut(signal) = Totals::decode(fields)?;
        }
        Some(())
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        self.encode_reasons(0, Reason::FIRST, out);
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Option<Self> {
        let mut ledger = Self::default();
        ledger.decode_reasons(0, Reason::FIRST, fields)?;
        Some(ledger)
    }

    fn encode_reasons(&self, from: usize, to: usize, out: &mut Vec<u8>) {
        for (_, account) in self.accounts.iter() {
            for counts in [&account.dropped, &account.reported] {
                for count in counts.iter().take(to).skip(from) {
                    out.extend_from_slice(&count.to_le_bytes());
                }
            }
        }
    }

    fn decode_reasons(&mut self, from: usize, to: usize, fields: &mut Fields<'_>) -> Option<()> {
        for signal in Signal::ALL {
            let account = self.accounts.get_mut(signal);
            for counts in [&mut account.dropped, &mut account.reported] {
                for count in counts.iter_mut().take(to).skip(from) {
                    *count = fields.u64()?;
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(records: u64) -> Tally {
        Tally { signal: Signal::Logs, reason: Reason::Refused, records }
    }

    #[test]
    fn what_is_dropped_stays_unreported_until_a_report_is_queued() {
        let mut ledger = Ledger::default();
        ledger.drop(tally(5));
        assert_eq!(ledger.unreported(), vec![tally(5)]);
        ledger.report(tally(5));
        assert_eq!(ledger.unreported(), vec![]);
        ledger.unreport(tally(5));
        assert_eq!(ledger.unreported(), vec![tally(5)]);
        assert_eq!(ledger.dropped(Signal::Logs), 5);
    }

    #[test]
    fn a_ledger_survives_the_disk() {
        let mut ledger = Ledger::default();
        ledger.drop(tally(u64::MAX));
        ledger.drop(tally(1));
        ledger.report(Tally { signal: Signal::Traces, reason: Reason::Unreadable, records: 9 });
        let mut bytes = Vec::new();
        ledger.encode(&mut bytes);
        assert_eq!(bytes.len(), Ledger::BYTES);
        ledger.drop(Tally { signal: Signal::Metrics, reason: Reason::Shed, records: 4 });
        ledger.hand_over(Signal::Logs, 6);
        let totals = ledger.untold(Signal::Metrics, 6);
        ledger.tell(Signal::Metrics, &totals);
        ledger.encode_handed(&mut bytes);
        ledger.encode_told(&mut bytes);
        ledger.encode_later(&mut bytes);
        assert_eq!(
            bytes.len(),
            Ledger::BYTES + Ledger::HANDED_BYTES + Ledger::TOLD_BYTES + Ledger::LATER_BYTES
        );
        let mut fields = Fields::new(&bytes);
        let mut read = Ledger::decode(&mut fields).unwrap();
        read.decode_handed(&mut fields).unwrap();
        read.decode_told(&mut fields).unwrap();
        read.decode_later(&mut fields).unwrap();
        assert_eq!(read, ledger);
    }

    #[test]
    fn what_was_handed_over_is_counted_apart_from_drops_and_taken_over_with_them() {
        let mut ledger = Ledger::default();
        ledger.hand_over(Signal::Metrics, 7);
        let mut other = Ledger::default();
        other.hand_over(Signal::Metrics, u64::MAX);
        other.drop(tally(2));
        ledger.add(&other);
        assert_eq!(ledger.handed(Signal::Metrics), u64::MAX);
        assert_eq!((ledger.handed(Signal::Logs), ledger.dropped(Signal::Logs)), (0, 2));
        assert_eq!(ledger.dropped(Signal::Metrics), 0);
    }

    #[test]
    fn what_was_told_is_not_told_again_and_what_came_in_is_what_became_of_it() {
        let mut ledger = Ledger::default();
        ledger.deliver(Signal::Logs, 5);
        ledger.hand_over(Signal::Logs, 1);
        ledger.drop(tally(2));
        let first = ledger.untold(Signal::Logs, 10);
        assert_eq!((first.received, first.delivered, first.handed), (18, 5, 1));
        assert_eq!(first.dropped.iter().sum::<u64>(), 2);
        ledger.tell(Signal::Logs, &first);
        assert_eq!(ledger.untold(Signal::Logs, 10), Totals::default());
        ledger.deliver(Signal::Logs, 10);
        let second = ledger.untold(Signal::Logs, 4);
        assert_eq!((second.received, second.delivered), (4, 10));
    }

    #[test]
    fn a_drop_that_is_taken_back_is_made_up_for_by_the_next() {
        let mut ledger = Ledger::default();
        ledger.drop(tally(5));
        let told = ledger.untold(Signal::Logs, 0);
        ledger.tell(Signal::Logs, &told);
        ledger.undrop(tally(3));
        assert_eq!(ledger.untold(Signal::Logs, 3), Totals::default());
        ledger.drop(tally(4));
        let more = ledger.untold(Signal::Logs, 0);
        assert_eq!((more.dropped.iter().sum::<u64>(), more.received), (1, 1), "six in all, five told");
    }

    #[test]
    fn a_tally_fits_one_word() {
        for signal in Signal::ALL {
            for reason in Reason::ALL {
                let tally = Tally { signal, reason, records: 123_456 };
                assert_eq!(Tally::unpack(tally.pack()), Some(tally));
            }
        }
        assert_eq!(Tally::unpack(u64::MAX), None);
    }

    #[test]
    fn a_reason_is_told_by_its_name() {
        assert_eq!(format!("{} {}", Reason::Overflow, Reason::Shed), "overflow_oldest overflow_shed");
    }
}
