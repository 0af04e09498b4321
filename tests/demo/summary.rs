//! The table at the end, for a terminal or a log.

use std::fmt::Write as _;

use crate::{
    ledger::Counts,
    spread::{mib, ms, thousands},
    story::{FIRST_INVOCATIONS, PhaseRow, Story},
};

const COLUMNS: usize = 13;
const HEADS: [&str; COLUMNS] = [
    "phase",
    "invocations",
    "median",
    "p99",
    "max",
    "median",
    "max",
    "acknowledged",
    "delivered",
    "repeated",
    "lost",
    "misordered",
    "waiting at end",
];
/// What stands above the heads, and over how many of them.
const GROUPS: [(&str, usize); 5] =
    [("", 2), ("added, ms", 3), ("first 10, ms", 2), ("log lines of its invocations", 5), ("", 1)];
/// Between two columns.
const GAP: &str = "  ";

pub(crate) fn text(story: &Story) -> String {
    let mut text = table(story);
    let settings = &story.settings;
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        text.write_fmt(format_args!("{name:<34}{value}\n")).unwrap_or_default();
    };
    if let Some(start) = story.starts.first() {
        line(
            "start to registered / first next",
            format!("{} / {} ms", ms(start.registered_us), ms(start.first_next_us)),
        );
    }
    if let Some(us) = story.first_acknowledgement_us {
        let spread = story.acknowledgement;
        line(
            "first telemetry to its 200",
            format!(
                "{} ms (all: median {}, p99 {}, max {})",
                ms(us),
                ms(spread.median_us),
                ms(spread.p99_us),
                ms(spread.max_us)
            ),
        );
    }
    line(
        "memory (VmRSS, most VmHWM)",
        format!("{} MiB, {} MiB", mib(story.memory.last_rss_kib), mib(story.memory.most_rss_kib)),
    );
    if let Some(ms) = story.caught_up_ms {
        line(
            "backlog gone after its return",
            format!("{} ms", thousands(usize::try_from(ms).unwrap_or(usize::MAX))),
        );
    }
    let shutdown = &story.shutdown;
    line(
        "SHUTDOWN",
        match shutdown.left_us {
            Some(left) => format!(
                "{} lines waiting; gone by itself after {} ms, {} ms before the deadline",
                thousands(shutdown.waiting_before),
                ms(shutdown.took_us),
                ms(left),
            ),
            None => "killed at the deadline".to_owned(),
        },
    );
    line(
        "settings",
        format!(
            "run {} ms, {} lines of about {} bytes, gap {} ms, {}, {}, {} cores",
            settings.run_ms,
            settings.logs,
            settings.padding_bytes + 30,
            settings.gap_ms,
            if settings.freeze { "frozen between invocations" } else { "never frozen" },
            if settings.cut_idle { "idle connections cut" } else { "connections kept" },
            settings.cores,
        ),
    );
    text
}

fn table(story: &Story) -> String {
    let mut rows: Vec<[String; COLUMNS]> = vec![HEADS.map(str::to_owned)];
    rows.extend(story.phases.iter().map(row));
    rows.push(row(&story.total()));
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max();
    let widths: Vec<usize> = (0..COLUMNS).filter_map(width).collect();
    let mut text = format!("\n{}", groups(&widths));
    for row in &rows {
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = if at == 0 { format!("{cell:<width$}") } else { format!("{GAP}{cell:>width$}") };
            text.push_str(&cell);
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn groups(widths: &[usize]) -> String {
    let mut line = String::new();
    let mut widths = widths.iter();
    for (at, (name, span)) in GROUPS.into_iter().enumerate() {
        let width = widths.by_ref().take(span).sum::<usize>() + GAP.len() * (span - 1);
        let gap = if at == 0 { "" } else { GAP };
        let rule = if name.is_empty() { String::new() } else { format!(" {name} ") };
        let cell = if name.is_empty() { " ".repeat(width) } else { format!("{rule:-^width$}") };
        line.push_str(&format_args!("{gap}{cell}").to_string());
    }
    format!("{}\n", line.trim_end())
}

/// A phase as the cells of a table: its name, then the figures.
pub(crate) fn row(phase: &PhaseRow) -> [String; COLUMNS] {
    let Counts { acknowledged, delivered, repeated, lost, misordered } = phase.counts;
    let PhaseRow { added, added_first, .. } = phase;
    let first = |us| if added_first.count > 0 { ms(us) } else { "-".to_owned() };
    [
        phase.name.clone(),
        thousands(phase.invocations),
        ms(added.median_us),
        ms(added.p99_us),
        ms(added.max_us),
        first(added_first.median_us),
        first(added_first.max_us),
        thousands(acknowledged),
        thousands(delivered),
        thousands(repeated),
        thousands(lost),
        thousands(misordered),
        thousands(phase.waiting_at_end),
    ]
}

/// The heading of the columns that count the first invocations says how many they are.
const _: () = assert!(FIRST_INVOCATIONS == 10);
