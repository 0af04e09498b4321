//! What the simulated function does in one invocation, and what came of it.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::sandbox::ShutdownEnd;

/// When generated lines are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Evenly over the run.
    #[default]
    Spread,
    /// All at the start.
    AtStart,
    /// All just before the function ends.
    AtEnd,
}

/// How the function ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Responds(Value),
    Fails { error_type: String },
    TimesOut,
    Exits { code: i32 },
}

/// One invocation to come.
///
/// ```
/// # use outlast_simulator::Invocation;
/// # use std::time::Duration;
/// Invocation::new().runs_for(Duration::from_millis(20)).logs(10).line("one more");
/// ```
#[derive(Clone, Debug)]
pub struct Invocation {
    pub(crate) runs_for: Duration,
    pub(crate) generated: usize,
    pub(crate) padding_bytes: usize,
    pub(crate) when: When,
    pub(crate) lines: Vec<(Duration, String)>,
    pub(crate) ending: Ending,
    pub(crate) outlasts_extensions: bool,
}

impl Default for Invocation {
    fn default() -> Self {
        Self::new()
    }
}

impl Invocation {
    /// An invocation that logs nothing and answers `{}` at once.
    pub fn new() -> Self {
        Self {
            runs_for: Duration::ZERO,
            generated: 0,
            padding_bytes: 0,
            when: When::Spread,
            lines: Vec::new(),
            ending: Ending::Responds(Value::Object(serde_json::Map::new())),
            outlasts_extensions: false,
        }
    }

    /// The function does not end before every extension has asked for its next event. With an extension that waits for the
    /// function, or for anything that does not come, it runs into its time limit: proof, without a clock, that the
    /// extensions add nothing.
    #[must_use]
    pub fn outlasts_extensions(mut self) -> Self {
        self.outlasts_extensions = true;
        self
    }

    /// The function runs this long.
    #[must_use]
    pub fn runs_for(mut self, time: Duration) -> Self {
        self.runs_for = time;
        self
    }

    /// The function logs this many lines `run=R inv=I line=L`, each unique for good.
    #[must_use]
    pub fn logs(mut self, lines: usize) -> Self {
        self.generated = lines;
        self
    }

    /// Pads every generated line with this many bytes.
    #[must_use]
    pub fn padded(mut self, bytes: usize) -> Self {
        self.padding_bytes = bytes;
        self
    }

    /// When the generated lines are logged.
    #[must_use]
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// Logs this line at the start. In JSON log format a line that is a JSON object becomes the record itself.
    #[must_use]
    pub fn line(self, line: impl Into<String>) -> Self {
        self.line_at(Duration::ZERO, line)
    }

    /// Logs this line so long after the start.
    #[must_use]
    pub fn line_at(mut self, after: Duration, line: impl Into<String>) -> Self {
        self.lines.push((after, line.into()));
        self
    }

    /// Answers with this value.
    #[must_use]
    pub fn responds(mut self, response: Value) -> Self {
        self.ending = Ending::Responds(response);
        self
    }

    /// The handler raises an error of this type. The environment lives on.
    #[must_use]
    pub fn fails(mut self, error_type: impl Into<String>) -> Self {
        self.ending = Ending::Fails { error_type: error_type.into() };
        self
    }

    /// The function runs into its time limit, and the environment is reset.
    #[must_use]
    pub fn times_out(mut self) -> Self {
        self.ending = Ending::TimesOut;
        self
    }

    /// The runtime process exits after its run with this code, and the environment is reset.
    #[must_use]
    pub fn exits(mut self, code: i32) -> Self {
        self.ending = Ending::Exits { code };
        self
    }

    /// The lines in order of their time, each ending in a newline.
    pub(crate) fn script(&self, run: &str, number: u64) -> Vec<(Duration, String)> {
        let count = u32::try_from(self.generated).unwrap_or(u32::MAX).max(1);
        let padding = "x".repeat(self.padding_bytes);
        let space = if padding.is_empty() { "" } else { " " };
        let generated = (0..self.generated).map(|line| {
            let at = match self.when {
                When::Spread => self.runs_for / count * u32::try_from(line).unwrap_or(u32::MAX),
                When::AtStart => Duration::ZERO,
                When::AtEnd => self.runs_for,
            };
            (at, format!("run={run} inv={number} line={line}{space}{padding}\n"))
        });
        let explicit = self.lines.iter().map(|(at, line)| {
            let end = if line.ends_with('\n') { "" } else { "\n" };
            (*at, format!("{line}{end}"))
        });
        let mut script: Vec<_> = explicit.chain(generated).collect();
        script.sort_by_key(|(at, _)| *at);
        script
    }
}

/// Why an invocation failed, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LambdaError {
    /// `Sandbox.Timedout`, `Extension.Crash`, `Runtime.ExitError`, or the function's own.
    pub error_type: String,
    /// Lambda's text.
    pub message: String,
}

/// What came of an invocation.
#[derive(Clone, Debug)]
pub struct Invoked {
    /// Counts invocations of the sandbox from 1; the `inv=` of the generated lines.
    pub number: u64,
    /// Request id.
    pub request_id: String,
    /// The function's answer, or what the client gets instead.
    pub response: Result<Value, LambdaError>,
    /// Whether the environment was initialised for it.
    pub cold: bool,
    /// When INVOKE was released.
    pub released: Instant,
    /// From the release until the function was done.
    pub function: Duration,
    /// From the call until the client had its response.
    pub client_waited: Duration,
    /// From the release until every INVOKE-subscribed extension had asked for the next event; `None` where one never
    /// did, or where none is subscribed.
    pub extensions: Option<Duration>,
    /// What the extensions added: from the end of the function until the last of them was ready. Zero where they
    /// were ready before.
    pub added: Duration,
    /// The shutdown pass of a reset, where the invocation ended in one.
    pub reset: Option<ShutdownEnd>,
}

impl Invoked {
    /// [`added`](Self::added) in microseconds.
    pub fn added_micros(&self) -> u64 {
        u64::try_from(self.added.as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether the function answered.
    pub fn succeeded(&self) -> bool {
        self.response.is_ok()
    }

    /// The error type, where it failed.
    pub fn error_type(&self) -> Option<&str> {
        self.response.as_ref().err().map(|error| error.error_type.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_lines_are_spread_and_mixed_with_explicit_ones_in_order() {
        let script = Invocation::new()
            .runs_for(Duration::from_millis(30))
            .logs(3)
            .padded(2)
            .line_at(Duration::from_millis(15), "between")
            .script("r", 7);
        let lines: Vec<&str> = script.iter().map(|(_, line)| line.as_str()).collect();
        assert_eq!(
            lines,
            ["run=r inv=7 line=0 xx\n", "run=r inv=7 line=1 xx\n", "between\n", "run=r inv=7 line=2 xx\n"]
        );
        assert_eq!(script[1].0, Duration::from_millis(10));
    }
}
