//! The books of a run: the account of each destination, what disturbed it, and what was wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::account::{Account, Balance};
use super::requests::{Disruptions, Requests};
use super::watch::Watched;

/// Connections that waited to be accepted are read within so long after that.
const STALE_READ: Duration = Duration::from_millis(300);

/// What is known of a destination.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) account: Account,
    /// The sum of its balances.
    pub(crate) sum: Balance,
    /// How many records the queue said were dropped, at the last balance.
    pub(crate) dropped: u64,
}

impl Ledger {
    /// What was dropped since the last balance, by what the queue says now. One that was not set meanwhile was forgotten.
    fn newly_dropped(&mut self, dropped: u64) -> u64 {
        let before = std::mem::replace(&mut self.dropped, dropped);
        if dropped < before { dropped } else { dropped - before }
    }
}

/// What a stretch is balanced with.
pub(crate) struct Evidence {
    /// What the queue says was dropped for the backend and for the further destination; `None` if not all is out.
    pub(crate) dropped: Option<(u64, u64)>,
    /// Events that Lambda failed to deliver.
    pub(crate) undelivered: u64,
    pub(crate) has_further: bool,
    /// Neighbours may have changed places.
    pub(crate) innocents: bool,
    pub(crate) request_timeout: Duration,
    pub(crate) requests: Requests,
    pub(crate) requests_of_further: Requests,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Books {
    /// Of the backend, and of the fallback for it.
    pub(crate) main: Ledger,
    pub(crate) further: Ledger,
    pub(crate) watched: Watched,
    /// Repeats of records whose request's fate the extension could not know.
    pub(crate) explained_repeats: u64,
    /// Records that the fallback has.
    pub(crate) handed_over: u64,
    pub(crate) problems: Vec<String>,
    disruptions: Disruptions,
    /// Since when connections wait to be accepted. What is sent on them is read once they are, whoever sent it.
    unaccepted_since: Option<Instant>,
    /// Whether there was a further destination in the latest episode.
    had_further: bool,
    /// By how much reports said more than was dropped, at the last balance.
    over_told: u64,
}

impl Books {
    /// A request under way in this time may have been lost sight of.
    pub(crate) fn disrupted(&mut self, from: Instant, to: Instant) {
        self.disruptions.push((from, to));
    }

    /// Connections wait to be accepted from now on, or are accepted again.
    pub(crate) fn accepts(&mut self, accepts: bool) {
        let now = Instant::now();
        if let Some(since) = self.unaccepted_since.take() {
            self.disrupted(since, now + STALE_READ);
        }
        self.unaccepted_since = (!accepts).then_some(now);
    }

    /// Balances what has come together since the last time. Nothing may be on its way.
    pub(crate) fn balance(&mut self, evidence: &Evidence) -> Balance {
        let Evidence { requests, requests_of_further, request_timeout, .. } = evidence;
        let disruptions = std::mem::take(&mut self.disruptions);
        let is_unknown =
            |requests: &Requests, request| requests.is_unknown(request, &disruptions, *request_timeout);
        self.judge_repeats(requests, true, |request| is_unknown(requests, request));
        self.judge_repeats(requests_of_further, false, |request| is_unknown(requests_of_further, request));
        let mut dropped = 0;
        if let Some((of_main, of_further)) = evidence.dropped {
            dropped = self.main.newly_dropped(of_main);
            let of_further = self.further.newly_dropped(of_further);
            let is_unknown = |request| is_unknown(requests_of_further, request);
            let mut balance = self.further.account.close(of_further, evidence.undelivered, is_unknown);
            if !std::mem::replace(&mut self.had_further, evidence.has_further) {
                // A new one gets what is still stored, though the others have it.
                balance.unacknowledged = 0;
            }
            let problems = balance.problems(false).into_iter();
            self.problems.extend(problems.map(|problem| format!("further destination: {problem}")));
            self.further.sum.add(&balance);
        }
        self.handed_over += self.main.account.handed_over();
        let is_unknown = |request| is_unknown(requests, request);
        let balance = self.main.account.close(dropped, evidence.undelivered, is_unknown);
        self.problems.extend(balance.problems(evidence.innocents));
        if balance.first_parts > disruptions.len() as u64 {
            let Balance { first_parts, parts, .. } = balance;
            self.problems.push(format!("{parts} parts of {first_parts} records that nothing came between"));
        }
        self.main.sum.add(&balance);
        let (told, dropped) = (self.main.account.reported().values().sum::<u64>(), self.main.sum.dropped);
        let over_told = told.saturating_sub(dropped);
        if over_told > self.over_told {
            self.problems.push(format!("reports speak of {told} records, {dropped} were dropped"));
            self.over_told = over_told;
        }
        balance
    }

    /// Whether each record that came again came in a request of which `is_unknown` says that its fate was.
    fn judge_repeats(&mut self, requests: &Requests, is_main: bool, is_unknown: impl Fn(u64) -> bool) {
        let ledger = if is_main { &mut self.main } else { &mut self.further };
        let mut needless: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        for repeat in ledger.account.take_repeats() {
            // The one that began first may have been taken last.
            let (first, _) = requests.in_order(repeat.before, repeat.again);
            // What the extension says of itself is stored again if its segment goes before the first destination has it, and
            // then goes to all of them.
            if repeat.own && !is_main || is_unknown(first) {
                self.explained_repeats += 1;
            } else {
                *needless.entry((repeat.before, repeat.again)).or_default() += 1;
            }
        }
        for ((first, again), records) in needless {
            let told = requests.around(first, again);
            self.problems.push(format!(
                "{records} records came again in request {again} after request {first}, without need: {told:#?}"
            ));
        }
    }
}
