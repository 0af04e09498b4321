//! The sandbox, the backend and the book in which the demo writes what it sees of them.

use std::{
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use outlast_backend::{Backend, Signal, Verdict};
use outlast_simulator::{Invoked, Sandbox};

use crate::{
    ledger::{Counts, Ledger},
    options::Options,
    phase::Backdrop,
    spread::Spread,
    story::{FIRST_INVOCATIONS, InvocationRow, Mark, Memory, Sample, Start},
};

/// The backlog is gone when no more is under way than this many invocations log: at any moment the
/// Telemetry API buffers one or two, and a request carries some more.
const CAUGHT_UP_INVOCATIONS: usize = 10;

pub(crate) struct Stage {
    pub(crate) options: Options,
    pub(crate) lambda: Sandbox,
    pub(crate) backend: Backend,
    began: Instant,
    book: Mutex<Book>,
}

#[derive(Default)]
pub(crate) struct Book {
    pub(crate) phase: usize,
    /// When each phase that has begun began.
    pub(crate) phase_began_ms: Vec<u64>,
    /// Waiting when each phase that has ended ended.
    pub(crate) waiting_at_end: Vec<usize>,
    /// Requests the backend had seen when each phase that has begun began.
    pub(crate) requests_before: Vec<usize>,
    pub(crate) ledger: Ledger,
    pub(crate) invocations: Vec<InvocationRow>,
    /// The request ids of these.
    pub(crate) requests: Vec<String>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) marks: Vec<Mark>,
    pub(crate) starts: Vec<Start>,
    pub(crate) memory: Memory,
    pub(crate) caught_up_ms: Option<u64>,
    in_environment: usize,
    events_seen: usize,
    records_seen: usize,
}

/// What the live view shows.
pub(crate) struct Now {
    pub(crate) at: Duration,
    pub(crate) phase: usize,
    pub(crate) counts: Counts,
    pub(crate) invocations: usize,
    pub(crate) added: Spread,
    pub(crate) memory: Memory,
    pub(crate) requests: usize,
    pub(crate) last_verdict: Option<Verdict>,
    pub(crate) said: Option<String>,
}

impl Stage {
    pub(crate) fn new(options: Options, lambda: Sandbox, backend: Backend) -> Self {
        let stage = Self { options, lambda, backend, began: Instant::now(), book: Mutex::default() };
        stage.started();
        stage
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn mark(&self, what: impl Into<String>) {
        let mark = Mark { at_ms: self.elapsed_ms(), what: what.into() };
        self.book().marks.push(mark);
    }

    /// A phase begins, which ends the one before; the phase after the last is SHUTDOWN.
    pub(crate) fn enter(&self, phase: usize) {
        self.sample();
        let requests = self.backend.received(|received| received.requests().len());
        let at_ms = self.elapsed_ms();
        let mut book = self.book();
        if phase > 0 {
            let waiting = book.ledger.counts().waiting();
            book.waiting_at_end.push(waiting);
        }
        book.phase = phase;
        book.phase_began_ms.push(at_ms);
        book.requests_before.push(requests);
    }

    /// Writes an invocation down.
    pub(crate) fn invoked(&self, at_ms: u64, invoked: &Invoked) {
        if invoked.cold && invoked.number > 1 {
            self.started();
        }
        let mut book = self.book();
        book.in_environment = if invoked.cold { 1 } else { book.in_environment + 1 };
        let row = InvocationRow {
            phase: book.phase,
            at_ms,
            added_us: (invoked.succeeded() && invoked.reset.is_none()).then(|| invoked.added_micros()),
            first: book.in_environment <= FIRST_INVOCATIONS,
            cold: invoked.cold,
            error: invoked.error_type().map(str::to_owned),
        };
        book.invocations.push(row);
        book.requests.push(invoked.request_id.clone());
    }

    fn started(&self) {
        let Some(times) = self.lambda.init_times() else { return };
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let start = Start {
            at_ms: self.elapsed_ms(),
            registered_us: us(times.registered),
            first_next_us: us(times.extensions_ready),
        };
        self.book().starts.push(start);
    }

    /// Reads what is new in the sandbox's and the backend's lists.
    pub(crate) fn sample(&self) {
        let memory = self.memory();
        // First what was acknowledged, then what was received: a line is never received and unknown for
        // longer than until the next sample.
        let events = self.lambda.acknowledged();
        let mut book = self.book();
        let book = &mut *book;
        for event in events.iter().skip(book.events_seen).filter(|event| event.kind == "function") {
            if let Some(text) = event.text() {
                book.ledger.acknowledged(text.trim_end());
            }
        }
        book.events_seen = events.len();
        let new: Vec<String> = self.backend.received(|received| {
            let new = received.records().iter().skip(book.records_seen);
            let texts = new
                .filter(|record| record.signal == Signal::Logs && record.text.starts_with("run="))
                .map(|record| record.text.trim_end().to_owned())
                .collect();
            book.records_seen = received.records().len();
            texts
        });
        for text in &new {
            book.ledger.received(text);
        }

        if let Some((rss_kib, most_kib)) = memory {
            book.memory.last_rss_kib = rss_kib;
            book.memory.most_rss_kib = book.memory.most_rss_kib.max(most_kib);
        }
        let counts = book.ledger.counts();
        let at_ms = self.elapsed_ms();
        book.samples.push(Sample {
            at_ms,
            acknowledged: counts.acknowledged,
            delivered: counts.delivered,
            waiting: counts.waiting(),
            lost: counts.lost,
            rss_kib: memory.map(|(rss_kib, _)| rss_kib),
        });
        let backdrop = self.options.phases.get(book.phase).map(|phase| phase.backdrop);
        if backdrop == Some(Backdrop::Recovery)
            && book.caught_up_ms.is_none()
            && counts.waiting() <= CAUGHT_UP_INVOCATIONS * self.options.logs
            && let Some(began_ms) = book.phase_began_ms.last()
        {
            book.caught_up_ms = Some(at_ms.saturating_sub(*began_ms));
            book.marks.push(Mark { at_ms, what: "caught up".to_owned() });
        }
    }

    /// `VmRSS` and `VmHWM` of the extension in KiB, if it runs.
    fn memory(&self) -> Option<(u64, u64)> {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.lambda.process_ids().first()?)).ok()?;
        Some((kib(&status, "VmRSS:")?, kib(&status, "VmHWM:")?))
    }

    pub(crate) fn now(&self) -> Now {
        let (requests, last_verdict) = self.backend.received(|received| {
            let settled = received.requests().iter().rev().map(|request| &request.verdict);
            let last = settled.clone().find(|verdict| **verdict != Verdict::Pending).cloned();
            (received.requests().len(), last)
        });
        let said = self.lambda.extension_output().pop().map(|line| line.text);
        let book = self.book();
        let in_phase = || book.invocations.iter().filter(|row| row.phase == book.phase);
        let before = book.requests_before.last().copied().unwrap_or_default();
        Now {
            at: self.began.elapsed(),
            phase: book.phase,
            counts: book.ledger.counts(),
            invocations: in_phase().count(),
            added: InvocationRow::spread(in_phase(), false),
            memory: book.memory,
            requests: requests.saturating_sub(before),
            last_verdict: if requests > before { last_verdict } else { None },
            said,
        }
    }
}

/// A field of `/proc/PID/status`, such as `VmRSS:     1234 kB`.
fn kib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kib() {
        let status = "Name:\toutlast\nVmHWM:\t   12345 kB\nVmRSS:\t    9876 kB\n";
        assert_eq!((kib(status, "VmRSS:"), kib(status, "VmHWM:")), (Some(9876), Some(12345)));
        assert_eq!(kib("Name:\tzombie\n", "VmRSS:"), None);
    }
}
