//! One signal: what waits, what is in flight, how large the next request may be.

use std::time::Duration;

use super::event::{Backlog, Portion, Sent, Settings, Target};
use super::isolate::{Isolation, Settlement};
use super::retry::{Bounds, Retry};
use crate::Signal;
use crate::clock::Time;

/// So many plain bytes are sent without waiting for more: a quarter of a block, at which compression and the price
/// of a request (some 0.2 ms of CPU) are in fair proportion.
pub(super) const LINGER_BYTES: u64 = 64 << 10;

/// A learned size limit never falls below this: smaller requests cost more than they carry.
const LIMIT_MIN_BYTES: u64 = 4 << 10;

/// After so many refusals of content without one delivery, further ones are paced by the backoff. One isolation
/// takes some 20 (2^8 blocks, 2^12 records): a backend that refuses everything is broken, not the data.
const REFUSALS_BEFORE_PACING: u32 = 32;

/// After an answer that refuses some records by name the next request is so much smaller. What it takes in between doubles
/// the request again, so that less than four would leave it as large as it is.
const SIFTED_SHRINKS_BY: u64 = 4;

/// A request under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flight {
    pub(super) attempt: u64,
    pub(super) target: Target,
    pub(super) started: Time,
    pub(super) portion: Portion,
    pub(super) gzip: bool,
    /// Time it lay frozen, which its time-out does not count.
    pub(super) frozen: Duration,
    /// After a freeze: how long an answer that is already in the socket is waited for.
    pub(super) grace_until: Option<Time>,
}

impl Flight {
    pub(super) fn is_alibi(&self) -> bool {
        self.portion == Portion::Alibi
    }

    /// When it is given up.
    pub(super) fn ends_at(&self, request_timeout: Duration) -> Time {
        self.grace_until.unwrap_or(self.started.saturating_add(self.frozen).saturating_add(request_timeout))
    }

    /// How long it has been running, freezes not counted.
    pub(super) fn age(&self, now: Time) -> Duration {
        now.saturating_sub(self.started).saturating_sub(self.frozen)
    }
}

/// Records to be marked without sending them, from the wish to its confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    No,
    /// The records to be given up go to the fallback first.
    Appealed(Settlement),
    Wanted(Settlement),
    Asked,
}

/// What SHUTDOWN has taught about the backend, as far as this lane tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Faith {
    /// It may still take everything.
    #[default]
    Kept,
    /// It failed: the fallback comes first.
    Shaken,
    /// It did not answer for as long as it was given: never again.
    Lost,
}

/// How the last request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There was none.
    Unknown,
    /// It was delivered.
    Works,
    /// It failed.
    Fails,
    /// It was denied while another lane was taken: that is about this signal, not about the backend.
    SetAside,
}

/// One signal's way to the destination.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "what is known of it, each by itself")]
pub(super) struct Lane {
    pub(super) signal: Signal,
    pub(super) level: Backlog,
    pub(super) flight: Option<Flight>,
    pub(super) failures: u32,
    pub(super) not_before: Time,
    /// Flights lost to a freeze since the last delivery.
    pub(super) freeze_losses: u32,
    settling: Settling,
    /// SHUTDOWN came and its one attempt in any case was not made yet.
    pub(super) last_try: bool,
    /// Only SHUTDOWN asks.
    pub(super) faith: Faith,
    retry: Retry,
    /// `not_before` is the server's word, not our guess.
    told_when: bool,
    /// A request was made and did not deliver: what it carried does not linger again.
    urgent: bool,
    isolation: Isolation,
    limit_bytes: Option<u64>,
    limit_blocks: Option<u64>,
    limit_records: Option<u64>,
    refusals: u32,
    pub(super) standing: Standing,
    /// The head is another one than when the request under way began. It may have been taken by that very request: its
    /// answer can be overtaken by word of what came in since.
    moved: bool,
}

impl Lane {
    pub(super) fn new(signal: Signal, settings: &Settings) -> Self {
        Self {
            signal,
            level: Backlog::default(),
            flight: None,
            failures: 0,
            not_before: Time::ZERO,
            freeze_losses: 0,
            settling: Settling::No,
            last_try: false,
            faith: Faith::Kept,
            retry: Retry::new(settings.retry_initial, settings.retry_max),
            told_when: false,
            urgent: false,
            isolation: Isolation::default(),
            limit_bytes: None,
            limit_blocks: None,
            limit_records: None,
            refusals: 0,
            standing: Standing::Unknown,
            moved: false,
        }
    }

    /// Nothing is under way and there is something to send.
    pub(super) fn is_ready(&self) -> bool {
        self.level.blocks > 0 && !self.is_busy()
    }

    /// A request or a settlement is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.flight.is_some() || self.settling != Settling::No
    }

    /// As [`Lane::is_busy`], with the backend.
    pub(super) fn is_busy_with_backend(&self) -> bool {
        let settling = matches!(self.settling, Settling::Wanted(_) | Settling::Asked);
        settling || self.flight.is_some_and(|flight| flight.target == Target::Primary)
    }

    /// When what waits has waited long enough to be worth a request.
    pub(super) fn due_at(&self, linger: Duration) -> Time {
        if self.urgent || self.level.bytes >= LINGER_BYTES {
            return Time::ZERO;
        }
        self.level.oldest.map_or(Time::ZERO, |oldest| oldest.saturating_add(linger))
    }

    /// What a request may carry now.
    pub(super) fn portion(&self, batch_max_bytes: u64, blocks_max: u64) -> Portion {
        let max_bytes = self.limit_bytes.unwrap_or(u64::MAX).min(batch_max_bytes);
        let blocks_max = self.limit_blocks.unwrap_or(u64::MAX).min(blocks_max);
        let whole = Portion::Run { max_blocks: blocks_max, max_bytes };
        let portion = match self.isolation.portion(&self.level, max_bytes).unwrap_or(whole) {
            Portion::Run { max_blocks, .. } => {
                Portion::Run { max_blocks: max_blocks.min(blocks_max).max(1), max_bytes }
            }
            other => other,
        };
        match (portion, self.records_max()) {
            (Portion::Run { .. }, Some(count)) => Portion::Records { count },
            (Portion::Records { count }, Some(max)) => Portion::Records { count: count.min(max) },
            (portion, _) => portion,
        }
    }

    /// How many records of the head a request may carry, where it may not carry all of them.
    fn records_max(&self) -> Option<u64> {
        let head = self.level.head?;
        let by_bytes = match self.limit_bytes {
            Some(limit) if head.bytes > limit => head.records.saturating_mul(limit) / head.bytes,
            _ => head.records,
        };
        let max = by_bytes.min(self.limit_records.unwrap_or(u64::MAX)).max(1);
        (max < head.records).then_some(max)
    }

    /// The keeper says what waits, unasked.
    pub(super) fn level_changed(&mut self, level: Backlog) {
        let moved = self.level.head_sequence() != level.head_sequence();
        self.level = level;
        match self.flight {
            Some(_) => self.moved |= moved,
            None if moved => self.replaced(),
            None => {}
        }
    }

    /// The request under way ended, and `left` waits. `landed`: what it carried was taken from the front, so that another
    /// head is what was to be expected.
    pub(super) fn ended(&mut self, left: Backlog, landed: bool) {
        let moved = std::mem::take(&mut self.moved) || self.level.head_sequence() != left.head_sequence();
        self.level = left;
        if moved && !landed {
            self.replaced();
        }
    }

    /// The request under way is given up.
    pub(super) fn gave_up(&mut self) {
        self.ended(self.level, false);
    }

    /// The head went without an answer: whatever was thought of it is void. A neighbour of it that was delivered already
    /// is marked all the same.
    fn replaced(&mut self) {
        let mut neighbour_was_delivered = self.isolation.neighbour_was_delivered();
        if let Settling::Appealed(settlement) = self.settling {
            self.settling = Settling::No;
            neighbour_was_delivered |= settlement.delivered > 0;
        }
        self.isolation.reset();
        if neighbour_was_delivered {
            self.want(Settlement::of_neighbour(&self.level));
        }
    }

    /// What is to be settled already comes first, and of a head that went meanwhile nothing is left to settle.
    fn want(&mut self, settlement: Option<Settlement>) {
        let settlement = settlement.filter(|wanted| self.level.head_sequence() == Some(wanted.head));
        if let (Settling::No, Some(settlement)) = (self.settling, settlement) {
            self.settling = Settling::Wanted(settlement);
        }
    }

    /// The settlement to ask for, once.
    pub(super) fn take_settlement(&mut self) -> Option<Settlement> {
        let Settling::Wanted(settlement) = self.settling else { return None };
        self.settling = Settling::Asked;
        Some(settlement)
    }

    // === The fallback

    /// Records that are to be given up are to go to the fallback first.
    pub(super) fn appeal(&mut self) {
        if let Settling::Wanted(settlement) = self.settling
            && settlement.refused > 0
        {
            self.settling = Settling::Appealed(settlement);
        }
    }

    /// How many records at the front are to go to the fallback before they are given up.
    pub(super) fn appealed(&self) -> Option<u64> {
        match self.settling {
            Settling::Appealed(settlement) => Some(settlement.refused),
            _ => None,
        }
    }

    /// The fallback does not take them: they are given up.
    pub(super) fn lose_appeal(&mut self) {
        if let Settling::Appealed(settlement) = self.settling {
            self.settling = Settling::Wanted(settlement);
        }
    }

    /// What a request to the fallback carries.
    pub(super) fn portion_for_fallback(&self, max_bytes: u64) -> Portion {
        if let Some(count) = self.appealed() {
            Portion::Records { count }
        } else if self.isolation.neighbour_was_delivered() {
            // Its neighbour must not go again with it.
            Portion::Records { count: 1 }
        } else {
            Portion::Run { max_blocks: u64::MAX, max_bytes }
        }
    }

    /// The fallback has what was sent. What the backend would have said to it is no longer asked.
    pub(super) fn handed_over(&mut self, sent: &Sent, left: Backlog) {
        self.level = left;
        let rest = match self.settling {
            Settling::Appealed(settlement) => {
                self.settling = Settling::No;
                Settlement::of_neighbour(&left).filter(|_| settlement.delivered > 0)
            }
            _ => self.isolation.delivered(sent, &left, false),
        };
        self.isolation.reset();
        self.want(rest);
    }

    /// A settlement was carried out (or found nothing to settle).
    pub(super) fn settled(&mut self, left: Backlog) {
        self.settling = Settling::No;
        self.level = left;
    }

    pub(super) fn delivered(&mut self, sent: &Sent, left: Backlog, alibi: bool) {
        self.level = left;
        let settlement = self.isolation.delivered(sent, &left, alibi);
        self.want(settlement);
        self.answered();
        self.urgent = self.isolation.is_active();
        self.freeze_losses = 0;
        self.refusals = 0;
        self.standing = Standing::Works;
        self.limit_blocks = self.limit_blocks.and_then(grown);
        self.limit_records = self.limit_records.and_then(grown);
    }

    /// The backend works: it answered, and not with a failure.
    fn answered(&mut self) {
        self.failures = 0;
        self.not_before = Time::ZERO;
        self.told_when = false;
        self.retry.reset();
    }

    pub(super) fn too_large(&mut self, now: Time, sent: &Sent, alibi: bool, random: f64) {
        if alibi || sent.records <= 1 {
            let settlement = self.isolation.refused(sent, alibi);
            self.want(settlement);
            self.limit_records = None;
        } else {
            let limit = self.limit_bytes.unwrap_or(u64::MAX).min(sent.plain_bytes / 2);
            self.limit_bytes = Some(limit.max(LIMIT_MIN_BYTES));
            if sent.blocks > 1 {
                self.limit_blocks = Some((sent.blocks / 2).max(1));
            } else {
                self.limit_records = Some((sent.records / 2).max(1));
            }
        }
        self.paced_refusal(now, random);
    }

    pub(super) fn refused(&mut self, now: Time, sent: &Sent, alibi: bool, random: f64) {
        let settlement = self.isolation.refused(sent, alibi);
        self.want(settlement);
        self.paced_refusal(now, random);
    }

    /// The first records of the head are refused for good, and the answer names them: there is nothing to search for. What
    /// follows goes in smaller pieces, for all of it goes again for each run of such records.
    pub(super) fn first_refused(&mut self, now: Time, sent: &Sent, records: u64, random: f64) {
        self.isolation.reset();
        let head = self.level.head.filter(|head| head.sequence == sent.head);
        self.want(head.map(|head| Settlement {
            head: head.sequence,
            refused: records.min(head.records),
            delivered: 0,
        }));
        if sent.blocks > 1 {
            self.limit_blocks = Some((sent.blocks / SIFTED_SHRINKS_BY).max(1));
        } else if records < sent.records {
            self.limit_records = Some((sent.records / SIFTED_SHRINKS_BY).max(1));
        }
        self.paced_refusal(now, random);
    }

    fn paced_refusal(&mut self, now: Time, random: f64) {
        self.urgent = true;
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= REFUSALS_BEFORE_PACING {
            self.answered();
        } else {
            self.failures = 0;
            self.wait(now, None, Bounds::default(), random);
        }
    }

    /// A 500. True if it convicted a record: then it is the content that failed, not the backend.
    pub(super) fn server_error(&mut self, sent: &Sent, alibi: bool) -> bool {
        let settlement = self.isolation.server_error(sent, alibi);
        self.want(settlement);
        settlement.is_some()
    }

    /// A failure other than a 500.
    pub(super) fn unavailable(&mut self) {
        self.isolation.failed();
    }

    /// The request could not be made: whatever was thought of the head is doubtful.
    pub(super) fn not_sent(&mut self, now: Time, random: f64) {
        // What has arrived already is not to be sent again.
        if !self.isolation.neighbour_was_delivered() {
            self.isolation.reset();
        }
        self.urgent = true;
        self.wait(now, None, Bounds::default(), random);
    }

    /// Counts a failure and waits: below `ceiling`, or below the lane's own if there is none.
    pub(super) fn failed(&mut self, now: Time, ceiling: Option<Duration>, bounds: Bounds, random: f64) {
        self.failures = self.failures.saturating_add(1);
        self.standing = Standing::Fails;
        self.urgent = true;
        self.wait(now, ceiling, bounds, random);
    }

    fn wait(&mut self, now: Time, ceiling: Option<Duration>, bounds: Bounds, random: f64) {
        let own = self.retry.next_ceiling();
        let delay = self.retry.draw(ceiling.unwrap_or(own), bounds, random);
        self.told_when = bounds.after.is_some();
        self.not_before = now.saturating_add(delay);
    }

    /// Sends again at once, without a failure having been counted.
    pub(super) fn resend(&mut self) {
        self.urgent = true;
    }

    /// The backend is back, says another lane: no need to wait, unless the server said until when.
    pub(super) fn cut_wait(&mut self, now: Time) {
        if !self.told_when {
            self.not_before = self.not_before.min(now);
        }
    }

    /// SHUTDOWN: one attempt at once, and retries that fit the time left.
    pub(super) fn hurry(&mut self, now: Time) {
        self.not_before = self.not_before.min(now);
        self.told_when = false;
        self.last_try = true;
        self.faith = Faith::Kept;
        self.retry.reset();
    }

    pub(super) fn is_isolating(&self) -> bool {
        self.isolation.is_active()
    }
}

/// A limit that was learned by halving grows back by doubling, and goes when it no longer binds.
fn grown(limit: u64) -> Option<u64> {
    const BINDING_MAX: u64 = 4096;
    (limit < BINDING_MAX).then_some(limit.saturating_mul(2))
}

#[cfg(test)]
mod tests;
