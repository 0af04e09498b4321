//! What happened, as data: this is what the page shows and what the file beside it holds.
//!
//! Times are milliseconds since the start of the first phase unless a name says otherwise.

use serde::Serialize;

use crate::{
    collector::Collected,
    invocation::Shown,
    ledger::Counts,
    spread::{Spread, ms, thousands},
};

/// How many invocations of an environment are counted apart: connections, caches and the
/// extension's idea of the gap between invocations are new.
pub(crate) const FIRST_INVOCATIONS: usize = 10;

#[derive(Debug, Serialize)]
pub(crate) struct Story {
    pub(crate) settings: Settings,
    pub(crate) phases: Vec<PhaseRow>,
    pub(crate) totals: Counts,
    /// Added time of all invocations but the first ones of each environment.
    pub(crate) added: Spread,
    /// Added time of the first ones.
    pub(crate) added_first: Spread,
    /// From the start of a telemetry request to its answer, all those answered 200.
    pub(crate) acknowledgement: Spread,
    /// The same for the very first.
    pub(crate) first_acknowledgement_us: Option<u64>,
    pub(crate) starts: Vec<Start>,
    pub(crate) memory: Memory,
    pub(crate) caught_up_ms: Option<u64>,
    pub(crate) requests: usize,
    pub(crate) shutdown: Shutdown,
    pub(crate) marks: Vec<Mark>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) invocations: Vec<InvocationRow>,
    /// One invocation as the backend has it.
    pub(crate) shown: Option<Shown>,
    /// The same as a real collector has it, where there is one.
    #[serde(skip)]
    pub(crate) collected: Option<Collected>,
    /// What the extension itself said, the last lines.
    pub(crate) said: Vec<String>,
    /// Why the demo fails; empty if all is well.
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settings {
    pub(crate) extension: String,
    pub(crate) run_ms: u128,
    pub(crate) logs: usize,
    pub(crate) padding_bytes: usize,
    pub(crate) gap_ms: u128,
    pub(crate) freeze: bool,
    pub(crate) cut_idle: bool,
    pub(crate) seed: u64,
    pub(crate) cores: usize,
    /// Variables the extension was given beside Lambda's own.
    pub(crate) variables: Vec<(String, String)>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PhaseRow {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) outage: bool,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    pub(crate) invocations: usize,
    pub(crate) added: Spread,
    pub(crate) added_first: Spread,
    pub(crate) counts: Counts,
    /// Acknowledged and not delivered when the phase ended.
    pub(crate) waiting_at_end: usize,
    /// Requests the backend saw.
    pub(crate) requests: usize,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct InvocationRow {
    pub(crate) phase: usize,
    pub(crate) at_ms: u64,
    /// Absent where the environment was reset: there was no end of the function to measure from.
    pub(crate) added_us: Option<u64>,
    /// Among the first of its environment.
    pub(crate) first: bool,
    pub(crate) cold: bool,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) at_ms: u64,
    pub(crate) acknowledged: usize,
    pub(crate) delivered: usize,
    pub(crate) waiting: usize,
    pub(crate) lost: usize,
    /// Resident memory of the extension; absent while there is none.
    pub(crate) rss_kib: Option<u64>,
}

/// A turning point.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Mark {
    pub(crate) at_ms: u64,
    pub(crate) what: String,
}

/// One start of the extension.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Start {
    pub(crate) at_ms: u64,
    /// Until it had registered.
    pub(crate) registered_us: u64,
    /// Until it asked for its first event.
    pub(crate) first_next_us: u64,
}

/// From `/proc/PID/status`.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    /// `VmRSS` when last seen.
    pub(crate) last_rss_kib: u64,
    /// The largest `VmHWM` of all processes of the extension.
    pub(crate) most_rss_kib: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Shutdown {
    pub(crate) waiting_before: usize,
    pub(crate) took_us: u64,
    /// Until the deadline; absent if it was killed there.
    pub(crate) left_us: Option<u64>,
    pub(crate) exit_code: Option<i32>,
}

impl Story {
    /// All phases as one row.
    pub(crate) fn total(&self) -> PhaseRow {
        PhaseRow {
            name: "all".to_owned(),
            what: String::new(),
            outage: false,
            from_ms: 0,
            to_ms: 0,
            invocations: self.invocations.len(),
            added: self.added,
            added_first: self.added_first,
            counts: self.totals,
            waiting_at_end: self.totals.waiting(),
            requests: self.requests,
        }
    }

    /// The result in a sentence.
    pub(crate) fn headline(&self) -> String {
        let Counts { acknowledged, delivered, lost, misordered, repeated, .. } = self.totals;
        format!(
            "{} log lines acknowledged, {} delivered, {} lost, {} out of order, {} repeated; \
             {} ms added to an invocation (median; 99th percentile {})",
            thousands(acknowledged),
            thousands(delivered),
            thousands(lost),
            thousands(misordered),
            thousands(repeated),
            ms(self.added.median_us),
            ms(self.added.p99_us),
        )
    }
}

impl InvocationRow {
    /// Added times, of the first invocations of an environment or of the others.
    pub(crate) fn spread<'a>(rows: impl IntoIterator<Item = &'a Self>, first: bool) -> Spread {
        Spread::of(rows.into_iter().filter(|row| row.first == first).filter_map(|row| row.added_us))
    }
}
