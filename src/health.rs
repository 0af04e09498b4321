//! What the user is told about the backend, or the fallback: one line when it goes away, one when it is back.

use std::time::Duration;

use crate::clock::Time;
use crate::deliver::{Cause, Verdict};
use crate::logging::Pace;
use crate::{PerSignal, Signal};

/// So many failures in a row are no accident: as many open the breaker.
const ATTEMPTS_TO_BE_SURE: u64 = 3;

/// What the backend is doing, as far as its answers tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Condition {
    #[default]
    Takes,
    Away,
    Denies,
    Refuses,
    Locked,
}

/// Turns verdicts into lines, one per change.
#[derive(Debug)]
pub struct Health {
    name: String,
    /// What is refused is searched for the records at fault.
    searches: bool,
    condition: Condition,
    since: Time,
    attempts: u64,
    refusals_pace: Pace,
    /// Records given up and not told.
    given_up: PerSignal<u64>,
    given_up_pace: Pace,
    /// Records rejected and not told, and what was said of the last.
    rejected: u64,
    rejected_why: String,
    rejected_pace: Pace,
    /// Requests that were too large, not told.
    too_large: u64,
    too_large_pace: Pace,
    /// What the backend said of a request that it took, not told.
    message: Option<String>,
    message_pace: Pace,
}

impl Default for Health {
    /// Of the backend.
    fn default() -> Self {
        Self { searches: true, ..Self::of("backend") }
    }
}

impl Health {
    /// Of a destination besides the main one.
    pub fn of_destination(name: &str) -> Self {
        Self { searches: true, ..Self::of(format!("backend {name}")) }
    }

    /// Of a fallback that lines call `name`.
    pub fn of(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            searches: false,
            condition: Condition::default(),
            since: Time::ZERO,
            attempts: 0,
            refusals_pace: Pace::default(),
            given_up: PerSignal::default(),
            given_up_pace: Pace::default(),
            rejected: 0,
            rejected_why: String::new(),
            rejected_pace: Pace::default(),
            too_large: 0,
            too_large_pace: Pace::default(),
            message: None,
            message_pace: Pace::default(),
        }
    }

    /// Takes note of an answer at `now`, with `blocks` waiting.
    pub fn note(&mut self, now: Time, verdict: &Verdict, blocks: u64) {
        match verdict {
            Verdict::Delivered { rejected, message } | Verdict::Sifted { rejected, message, .. } => {
                self.recovered(now);
                if *rejected > 0 {
                    self.rejected(now, *rejected, message.as_deref());
                } else if let Some(message) = message {
                    self.message = Some(message.clone());
                    if self.message_pace.allows(now) {
                        self.tell_message();
                    }
                }
            }
            Verdict::Retry { cause: cause @ Cause::NoSecret(_), .. } => {
                // "away", as an outage is: the alarms of docs/operations.md look for it.
                self.became(now, Condition::Locked, || {
                    format!("away (not asked, {cause}); {blocks} blocks wait")
                });
            }
            Verdict::Retry { cause, .. } => {
                self.became(now, Condition::Away, || format!("away ({cause}); {blocks} blocks wait"));
            }
            Verdict::ServerError { .. } => {
                self.became(now, Condition::Away, || format!("away (status 500); {blocks} blocks wait"));
            }
            Verdict::Denied { status } => self.became(now, Condition::Denies, || {
                format!("answers {status}: endpoint, path or credentials are wrong; the data waits")
            }),
            Verdict::Refused { status, message } if !self.searches => {
                self.became(now, Condition::Denies, || format!("refuses with {status} ({message})"));
            }
            Verdict::Refused { status, message } => self.became(now, Condition::Refuses, || {
                format!("refuses content with {status} ({message}); looking for the records at fault")
            }),
            Verdict::TooLarge => {
                self.too_large = self.too_large.saturating_add(1);
                if self.too_large_pace.allows(now) {
                    self.tell_too_large();
                }
            }
            Verdict::GzipRefused => {
                log::warn!("{}: takes no gzip; sending uncompressed", self.name);
            }
        }
    }

    /// The search that a refusal began is over.
    pub fn found_the_fault(&mut self) {
        if self.condition == Condition::Refuses {
            self.condition = Condition::Takes;
        }
    }

    /// Records were given up because the backend refuses them: the search is over.
    pub fn gave_up(&mut self, now: Time, signal: Signal, records: u64) {
        self.found_the_fault();
        let count = self.given_up.get_mut(signal);
        *count = count.saturating_add(records);
        if self.given_up_pace.allows(now) {
            self.tell_given_up();
        }
    }

    /// How long the backend has taken nothing by `now`, unless that is too little to be sure of: a request and its retry may
    /// fail for a connection that a freeze cost. Refusals of content are no outage.
    pub fn outage(&self, now: Time) -> Option<Duration> {
        let is_out = matches!(self.condition, Condition::Away | Condition::Denies | Condition::Locked);
        (is_out && self.attempts >= ATTEMPTS_TO_BE_SURE).then(|| now.saturating_sub(self.since))
    }

    /// Tells what is untold, at the end.
    pub fn end(&mut self) {
        self.tell_given_up();
        self.tell_rejected();
        self.tell_too_large();
        self.tell_message();
    }

    fn tell_too_large(&mut self) {
        match std::mem::take(&mut self.too_large) {
            0 => {}
            1 => log::info!("{}: a request was too large; smaller ones follow", self.name),
            requests => log::info!("{}: {requests} requests were too large; smaller ones follow", self.name),
        }
    }

    fn tell_message(&mut self) {
        if let Some(message) = self.message.take() {
            log::info!("{}: {message}", self.name);
        }
    }

    /// Of a request that was taken some records were not.
    fn rejected(&mut self, now: Time, records: u64, why: Option<&str>) {
        self.rejected = self.rejected.saturating_add(records);
        why.unwrap_or("no reason given").clone_into(&mut self.rejected_why);
        if self.rejected_pace.allows(now) {
            self.tell_rejected();
        }
    }

    fn tell_rejected(&mut self) {
        let records = std::mem::take(&mut self.rejected);
        if records > 0 {
            log::warn!(
                "{}: took the request but rejected {records} records: {}",
                self.name,
                self.rejected_why
            );
        }
    }

    fn tell_given_up(&mut self) {
        for (signal, records) in std::mem::take(&mut self.given_up).iter() {
            if *records > 0 {
                log::warn!("{records} {signal} records given up: the {} refuses them", self.name);
            }
        }
    }

    /// A request was given up.
    pub fn timed_out(&mut self, now: Time) {
        self.became(now, Condition::Away, || "away (no answer in time)".to_owned());
    }

    fn became(&mut self, now: Time, condition: Condition, say: impl FnOnce() -> String) {
        if self.condition == Condition::Takes {
            self.since = now;
            self.attempts = 0;
        }
        self.attempts += 1;
        if self.condition != condition {
            self.condition = condition;
            if condition == Condition::Refuses && !self.refusals_pace.allows(now) {
                return;
            }
            log::warn!("{}: {}", self.name, say());
        }
    }

    fn recovered(&mut self, now: Time) {
        // While the record at fault is searched for, its neighbours are taken.
        if !matches!(self.condition, Condition::Takes | Condition::Refuses) {
            let away = now.saturating_sub(self.since).as_secs_f64();
            log::warn!("{}: takes data again after {away:.1} s and {} attempts", self.name, self.attempts);
            self.condition = Condition::Takes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::Cause;
    use std::time::Duration;

    #[test]
    fn an_episode_is_told_once_and_counts_its_attempts() {
        let mut health = Health::default();
        let away = Verdict::Retry { cause: Cause::TimedOut, after: None };
        for second in 1..4 {
            health.note(Duration::from_secs(second), &away, 1);
        }
        assert_eq!((health.condition, health.attempts), (Condition::Away, 3));
        assert_eq!(health.since, Duration::from_secs(1));
        health.note(Duration::from_secs(9), &Verdict::Delivered { rejected: 0, message: None }, 0);
        assert_eq!(health.condition, Condition::Takes);
    }

    #[test]
    fn an_outage_is_sure_after_three_attempts_and_over_with_a_delivery() {
        let mut health = Health::default();
        let away = Verdict::Retry { cause: Cause::TimedOut, after: None };
        let denied = Verdict::Denied { status: 403 };
        for (second, verdict, outage) in
            [(10, &away, None), (3_610, &away, None), (3_611, &denied, Some(3_601))]
        {
            let now = Duration::from_secs(second);
            health.note(now, verdict, 1);
            assert_eq!(health.outage(now), outage.map(Duration::from_secs));
        }
        let now = Duration::from_secs(3_612);
        health.note(now, &Verdict::Delivered { rejected: 0, message: None }, 0);
        assert_eq!(health.outage(now), None);
        for _ in 0..5 {
            health.note(now, &Verdict::Refused { status: 400, message: "no".to_owned() }, 1);
        }
        assert_eq!(health.outage(now), None, "it answers");
    }

    #[test]
    fn credentials_that_cannot_be_had_are_an_outage_as_well() {
        let mut health = Health::default();
        let locked = Verdict::Retry { cause: Cause::NoSecret("ssm:/key: no".to_owned()), after: None };
        for second in 1..4 {
            health.note(Duration::from_secs(second), &locked, 1);
        }
        assert_eq!(health.outage(Duration::from_secs(61)), Some(Duration::from_secs(60)));
    }

    #[test]
    fn records_that_are_rejected_are_told_at_once_and_then_together() {
        let mut health = Health::default();
        let some = Verdict::Delivered { rejected: 2, message: Some("too old".to_owned()) };
        health.note(Duration::from_secs(1), &some, 1);
        assert_eq!(health.rejected, 0);
        for requests in 1..=20 {
            health.note(Duration::from_secs(2), &some, 1);
            assert_eq!(health.rejected, 2 * requests);
        }
        health.note(Duration::from_secs(11), &some, 1);
        assert_eq!(health.rejected, 0);
        health.note(Duration::from_secs(12), &some, 1);
        health.end();
        assert_eq!(health.rejected, 0);
    }

    #[test]
    fn requests_that_are_too_large_are_told_at_once_and_then_together() {
        let mut health = Health::default();
        let warned = Verdict::Delivered { rejected: 0, message: Some("old client".to_owned()) };
        for (second, untold) in [(1, 0), (2, 1), (3, 2), (11, 0), (12, 1)] {
            health.note(Duration::from_secs(second), &Verdict::TooLarge, 1);
            health.note(Duration::from_secs(second), &warned, 1);
            assert_eq!((health.too_large, health.message.is_some()), (untold, untold > 0), "{second}");
        }
        health.end();
        assert_eq!((health.too_large, &health.message), (0, &None));
    }

    #[test]
    fn the_search_for_a_record_at_fault_is_told_once() {
        let mut health = Health::default();
        let refused = Verdict::Refused { status: 400, message: "no".to_owned() };
        let delivered = Verdict::Delivered { rejected: 0, message: None };
        for second in 1..4 {
            health.note(Duration::from_secs(second), &refused, 1);
            health.note(Duration::from_secs(second), &delivered, 1);
            assert_eq!(health.condition, Condition::Refuses, "the neighbours were taken, the search goes on");
        }
        health.gave_up(Duration::from_secs(4), Signal::Logs, 1);
        assert_eq!(health.condition, Condition::Takes);
    }

    #[test]
    fn records_given_up_are_told_at_once_and_then_together() {
        let mut health = Health::default();
        let untold = |health: &Health| *health.given_up.get(Signal::Logs);
        health.gave_up(Duration::from_secs(1), Signal::Logs, 1);
        assert_eq!(untold(&health), 0);
        for records in 1..=20 {
            health.gave_up(Duration::from_secs(2), Signal::Logs, 1);
            assert_eq!(untold(&health), records);
        }
        health.gave_up(Duration::from_secs(11), Signal::Logs, 1);
        assert_eq!(untold(&health), 0);
        health.gave_up(Duration::from_secs(12), Signal::Logs, 1);
        health.end();
        assert_eq!(untold(&health), 0);
    }
}
