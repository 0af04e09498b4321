//! What a person sees while the demo runs: a view that redraws itself on a terminal, lines elsewhere.
//!
//! Ten lines rewritten five times a second need two escape sequences and no library.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use outlast_backend::Verdict;

use crate::{
    phase::Phase,
    spread::{mib, ms, thousands},
    stage::{Now, Stage},
};

/// Wide enough for the figures, and no terminal is narrower: a line that wrapped would spoil the redraw.
const WIDTH: usize = 79;
/// Between two lines about the same phase when there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

const CLEAR_LINE: &str = "\x1b[2K";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const RESET: &str = "\x1b[0m";

pub(crate) struct View {
    terminal: bool,
    drawn_lines: usize,
    /// As shown before, when there is no terminal.
    last: Option<Now>,
    plain_due: Instant,
    marks: usize,
}

impl View {
    pub(crate) fn new(plain: bool) -> Self {
        let terminal = !plain && io::stdout().is_terminal();
        Self { terminal, drawn_lines: 0, last: None, plain_due: Instant::now(), marks: 0 }
    }

    /// Shows the state of things. An output that is closed ends the showing, not the demo.
    pub(crate) fn show(&mut self, stage: &Stage) -> io::Result<()> {
        let now = stage.now();
        let phases = &stage.options.phases;
        if self.terminal {
            let lines = picture(&now, phases);
            let mut out = io::stdout().lock();
            if self.drawn_lines > 0 {
                write!(out, "\x1b[{}A", self.drawn_lines)?;
            }
            for line in &lines {
                writeln!(out, "{CLEAR_LINE}{line}")?;
            }
            self.drawn_lines = lines.len();
            return out.flush();
        }
        self.lines(stage, now)
    }

    fn lines(&mut self, stage: &Stage, now: Now) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let new_marks: Vec<_> = stage.book().marks.iter().skip(self.marks).cloned().collect();
        for mark in &new_marks {
            let seconds = Duration::from_millis(mark.at_ms).as_secs_f64();
            writeln!(out, "{seconds:6.1}s  {}", mark.what)?;
        }
        self.marks += new_marks.len();
        let entered = self.last.as_ref().is_none_or(|last| last.phase != now.phase);
        if entered {
            // The figures of a phase are complete only when it is over.
            if let Some(last) = &self.last {
                writeln!(out, "{}", figures(last))?;
            }
            if let Some(phase) = stage.options.phases.get(now.phase) {
                writeln!(out, "{:6.1}s  {}: {}", now.at.as_secs_f64(), phase.name, phase.what())?;
            }
        } else if Instant::now() >= self.plain_due {
            writeln!(out, "{}", figures(&now))?;
        }
        if entered || Instant::now() >= self.plain_due {
            self.plain_due = Instant::now() + PLAIN_EVERY;
        }
        self.last = Some(now);
        out.flush()
    }

    /// Shows the last state and leaves it standing.
    pub(crate) fn end(&mut self, stage: &Stage) -> io::Result<()> {
        self.plain_due = Instant::now();
        self.show(stage)
    }
}

/// The figures in a line.
fn figures(now: &Now) -> String {
    let counts = now.counts;
    format!(
        "{:6.1}s    {} acknowledged, {} delivered, {} waiting, {} lost, {} repeated; added {} ms (median), {} ms (p99)",
        now.at.as_secs_f64(),
        thousands(counts.acknowledged),
        thousands(counts.delivered),
        thousands(counts.waiting()),
        thousands(counts.lost),
        thousands(counts.repeated),
        ms(now.added.median_us),
        ms(now.added.p99_us),
    )
}

fn picture(now: &Now, phases: &[Phase]) -> Vec<String> {
    let phase = phases.get(now.phase);
    let counts = now.counts;
    let (state, color) = match phase {
        Some(phase) if phase.is_outage() => (phase.what(), RED),
        Some(phase) => (phase.what(), GREEN),
        None => ("the environment is told to end".to_owned(), GREEN),
    };
    let answer = now.last_verdict.as_ref().map_or("none yet", verdict);
    let lost_color = if counts.lost > 0 { RED } else { GREEN };
    vec![
        String::new(),
        names(phases, now.phase),
        bar(now, phases),
        String::new(),
        field("backend", &format!("{color}{}{RESET}", cut(&state, WIDTH - 12))),
        field("requests", &format!("{} in this phase, the last: {answer}", thousands(now.requests))),
        field(
            "log lines",
            &format!(
                "{} acknowledged   {} delivered   {BOLD}{} waiting{RESET}",
                thousands(counts.acknowledged),
                thousands(counts.delivered),
                thousands(counts.waiting()),
            ),
        ),
        field("", &format!("{lost_color}{} lost{RESET}   {} repeated", counts.lost, counts.repeated)),
        field(
            "added",
            &format!(
                "{BOLD}{} ms{RESET} per invocation (median), {} ms (p99), {} ms (max) of {}",
                ms(now.added.median_us),
                ms(now.added.p99_us),
                ms(now.added.max_us),
                thousands(now.invocations),
            ),
        ),
        field(
            "memory",
            &format!("{} MiB, at most {}", mib(now.memory.last_rss_kib), mib(now.memory.most_rss_kib)),
        ),
        field(
            "it says",
            &format!("{DIM}{}{RESET}", cut(now.said.as_deref().unwrap_or("nothing"), WIDTH - 12)),
        ),
    ]
}

fn field(name: &str, value: &str) -> String {
    format!("  {DIM}{name:<10}{RESET}{value}")
}

/// The names of the phases, the present one standing out.
fn names(phases: &[Phase], present: usize) -> String {
    let shutdown = std::iter::once("SHUTDOWN");
    let names = phases.iter().map(|phase| phase.name.as_str()).chain(shutdown).enumerate();
    let shown: Vec<_> = names
        .map(|(at, name)| {
            let style = if at == present { BOLD } else { DIM };
            format!("{style}{name}{RESET}")
        })
        .collect();
    format!("  {}", shown.join(" > "))
}

/// Time gone of the whole.
fn bar(now: &Now, phases: &[Phase]) -> String {
    const CELLS: usize = 50;
    let whole: Duration = phases.iter().map(|phase| phase.length).sum();
    let over = now.phase >= phases.len();
    let part = if over { 1.0 } else { (now.at.as_secs_f64() / whole.as_secs_f64().max(0.001)).min(1.0) };
    // Not negative and at most CELLS.
    #[expect(clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a part of a small number")]
    let full = (part * CELLS as f64).round() as usize;
    let (seconds, of) = (now.at.as_secs(), whole.as_secs());
    format!("  {}{} {seconds:>3} of about {of} s", "█".repeat(full), "░".repeat(CELLS.saturating_sub(full)))
}

/// At most this many characters, on one line and without control characters.
fn cut(text: &str, width: usize) -> String {
    text.chars().filter(|character| !character.is_control()).take(width).collect()
}

fn verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Pending => "under way",
        Verdict::Accepted => "200",
        Verdict::Partial { .. } => "200, some rejected",
        Verdict::Status(429) => "429",
        Verdict::Status(503) => "503",
        Verdict::Status(_) => "an error status",
        Verdict::Hung => "never answered",
        Verdict::Reset => "reset",
        Verdict::Abandoned => "given up by the extension",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_the_extension_says_can_move_the_cursor() {
        assert_eq!(cut("\x1b[2Aone\ntwo", 100), "[2Aonetwo");
        assert_eq!(cut("abcdef", 3), "abc");
    }
}
