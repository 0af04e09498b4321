//! From the book to the story: everything is computed here, once, when all is over.

use std::{path::Path, thread};

use outlast_simulator::{Sandbox, ShutdownEnd};

use crate::{
    invocation::{self, Shown},
    ledger::{Counts, invocation_of},
    options::Options,
    phase::Phase,
    spread::{Spread, thousands},
    stage::{Book, Stage},
    story::{InvocationRow, PhaseRow, Settings, Shutdown, Story},
};

/// Lines of the extension's own that the page shows.
const SAID_LINES: usize = 40;

pub(crate) fn tell(
    stage: &Stage,
    extension: &Path,
    variables: Vec<(String, String)>,
    end: &ShutdownEnd,
) -> Story {
    let book = stage.book();
    let deliveries = stage.lambda.deliveries();
    let acknowledged = || deliveries.iter().filter(|delivery| delivery.status == Some(200));
    let us = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let phases = phases(stage, &book);
    let mut totals = Counts::default();
    for Counts { acknowledged, delivered, repeated, lost, misordered } in phases.iter().map(|row| row.counts)
    {
        totals.acknowledged += acknowledged;
        totals.delivered += delivered;
        totals.repeated += repeated;
        totals.lost += lost;
        totals.misordered += misordered;
    }
    let shutdown = Shutdown {
        waiting_before: book.waiting_at_end.last().copied().unwrap_or_default(),
        took_us: us(end.took()),
        left_us: end.left().map(us),
        exit_code: end.exit_code(),
    };
    let problems = problems(totals, &shutdown, &stage.lambda);
    let mut said: Vec<String> =
        stage.lambda.extension_output().into_iter().rev().take(SAID_LINES).map(|line| line.text).collect();
    said.reverse();
    Story {
        settings: settings(&stage.options, extension, variables),
        phases,
        totals,
        added: InvocationRow::spread(&book.invocations, false),
        added_first: InvocationRow::spread(&book.invocations, true),
        acknowledgement: Spread::of(acknowledged().map(|delivery| us(delivery.took))),
        first_acknowledgement_us: acknowledged().next().map(|delivery| us(delivery.took)),
        starts: book.starts.clone(),
        memory: book.memory,
        caught_up_ms: book.caught_up_ms,
        requests: stage.backend.received(|received| received.requests().len()),
        shutdown,
        marks: book.marks.clone(),
        samples: book.samples.clone(),
        invocations: book.invocations.clone(),
        shown: shown(stage, &book),
        collected: None,
        said,
        problems,
    }
}

/// One invocation for the page, of those that the backend has the span of.
fn shown(stage: &Stage, book: &Book) -> Option<Shown> {
    let phases = &stage.options.phases;
    let is_outage = |phase: usize| phases.get(phase).is_some_and(Phase::is_outage);
    stage.backend.received(|received| {
        by_interest(&book.invocations, is_outage).into_iter().find_map(|at| {
            let phase = phases.get(book.invocations.get(at)?.phase)?;
            let request_id = book.requests.get(at)?;
            Some(invocation::find(received.records(), request_id)?.shown(request_id, &phase.name))
        })
    })
}

/// The places of invocations that are worth looking at, the best first: a cold start while the backend was away shows most.
fn by_interest(rows: &[InvocationRow], is_outage: impl Fn(usize) -> bool) -> Vec<usize> {
    const LOOKED_AT_MAX: usize = 5;
    let mut places: Vec<usize> = (0..rows.len()).collect();
    let rank = |at: &usize| rows.get(*at).map(|row| (row.error.is_some(), !is_outage(row.phase), !row.cold));
    places.sort_by_key(rank);
    places.truncate(LOOKED_AT_MAX);
    places
}

fn settings(options: &Options, extension: &Path, variables: Vec<(String, String)>) -> Settings {
    Settings {
        extension: extension.display().to_string(),
        run_ms: options.run.as_millis(),
        logs: options.logs,
        padding_bytes: options.padding_bytes,
        gap_ms: options.gap.as_millis(),
        freeze: options.freeze,
        cut_idle: options.cut_idle,
        seed: options.seed,
        cores: thread::available_parallelism().map_or(1, usize::from),
        variables,
    }
}

fn phases(stage: &Stage, book: &Book) -> Vec<PhaseRow> {
    let misordered = stage.backend.misordered(book.ledger.order());
    // The sandbox counts invocations from 1.
    let phase_of = |text: &str| {
        let row = book.invocations.get(invocation_of(text)?.checked_sub(1)?)?;
        Some(row.phase)
    };
    let counts = book.ledger.grouped(&misordered, stage.options.phases.len(), phase_of);
    let requests = |index: usize| {
        let at = |index: usize| book.requests_before.get(index).copied();
        at(index + 1).unwrap_or_default().saturating_sub(at(index).unwrap_or_default())
    };
    let row = |(index, (phase, counts)): (usize, (&Phase, Counts))| {
        let rows: Vec<&InvocationRow> = book.invocations.iter().filter(|row| row.phase == index).collect();
        let at = |index: usize| book.phase_began_ms.get(index).copied().unwrap_or_default();
        PhaseRow {
            name: phase.name.clone(),
            what: phase.what(),
            outage: phase.is_outage(),
            from_ms: at(index),
            to_ms: at(index + 1),
            invocations: rows.len(),
            added: InvocationRow::spread(rows.iter().copied(), false),
            added_first: InvocationRow::spread(rows.iter().copied(), true),
            counts,
            waiting_at_end: book.waiting_at_end.get(index).copied().unwrap_or_default(),
            requests: requests(index),
        }
    };
    stage.options.phases.iter().zip(counts).enumerate().map(row).collect()
}

/// What must not be.
fn problems(totals: Counts, shutdown: &Shutdown, lambda: &Sandbox) -> Vec<String> {
    let mut problems = Vec::new();
    if totals.acknowledged == 0 {
        problems.push("the extension acknowledged nothing: there was nothing to see".to_owned());
    }
    if totals.lost > 0 {
        problems.push(format!("{} acknowledged log lines were lost", thousands(totals.lost)));
    }
    if totals.misordered > 0 {
        problems.push(format!("{} log lines came out of order", thousands(totals.misordered)));
    }
    for crash in lambda.crashes() {
        problems.push(format!("the extension crashed: {:?}", crash.exit));
    }
    if shutdown.left_us.is_none() {
        problems.push("the extension had to be killed at the deadline of SHUTDOWN".to_owned());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cold_start_in_an_outage_is_shown_rather_than_a_failure_or_a_fine_day() {
        let row = |phase, cold, error: bool| InvocationRow {
            phase,
            at_ms: 0,
            added_us: None,
            first: false,
            cold,
            error: error.then(|| "timeout".to_owned()),
        };
        let rows = [
            row(0, true, false),
            row(0, false, false),
            row(1, true, true),
            row(1, false, false),
            row(1, true, false),
            row(1, false, false),
            row(2, false, false),
        ];
        assert_eq!(by_interest(&rows, |phase| phase == 1), [4, 3, 5, 0, 1]);
        assert_eq!(by_interest(&[], |_| true), Vec::<usize>::new());
    }
}
