//! How an environment came to be: initialisation, or restoring a snapshot.

use super::invocation::Verdict;
use super::span::{Span, SpanStatus, part_of, span_of, trace_of};
use super::told::Told;
use crate::record::event::Status;
use crate::record::trace_context::SAMPLED;
use crate::record::{Field, Value};

/// Steps that are remembered for the first invocation: an initialisation that failed, one in its stead, and a restore.
/// More happen only where no invocation comes.
pub(super) const STEPS_MAX: usize = 4;

/// A step longer ago than this did not happen for the invocation that follows: Lambda initialises environments ahead
/// of demand as well. It gets a trace of its own, for in that of the invocation it would be far away. Ten seconds is how
/// long an ordinary initialisation may take (Lambda developer guide, "Init phase").
const ADJACENT_MAX_NANOS: u64 = 10_000_000_000;

/// What a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Init,
    Restore,
}

impl Step {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Restore => "restore",
        }
    }
}

/// A step from its start on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Startup {
    pub(super) step: Step,
    pub(super) start_unix_nanos: u64,
    pub(super) end_unix_nanos: Option<u64>,
    /// `initializationType`
    pub(super) kind: Option<String>,
    /// The log stream, for the id of a trace of its own.
    pub(super) instance_id: Option<String>,
    pub(super) failed: bool,
    pub(super) error_type: Option<String>,
    /// Only its end was told so far: when it began is known from how long it took.
    pub(super) guessed: bool,
}

impl Startup {
    pub(super) fn begun(step: Step, time: u64, told: &Told<'_>) -> Self {
        Self {
            step,
            start_unix_nanos: time,
            end_unix_nanos: None,
            kind: told.initialization_type.as_deref().map(str::to_owned),
            instance_id: told.instance_id.as_deref().map(str::to_owned),
            failed: false,
            error_type: None,
            guessed: false,
        }
    }

    /// A record about the step came; `ended` if it is the last one.
    pub(super) fn tell(&mut self, time: u64, told: &Told<'_>, ended: bool) {
        let failed = told.status.is_some_and(Status::is_failure);
        self.failed |= failed;
        if let Some(error_type) = &told.error_type {
            self.error_type = Some(error_type.clone().into_owned());
        } else if failed && self.error_type.is_none() {
            // As for invocations: without a type, the status says what happened.
            self.error_type = Some(Verdict::of(told).word().to_owned());
        }
        if ended {
            self.end_unix_nanos = Some(time.max(self.start_unix_nanos));
        }
    }

    /// Whether the step was taken for an invocation that began at `start`.
    pub(super) fn is_part_of_invocation(&self, start: u64) -> bool {
        let end = self.end_unix_nanos.unwrap_or(start);
        !is_ahead_of_demand(self.kind.as_deref()) && start.saturating_sub(end) <= ADJACENT_MAX_NANOS
    }

    /// A part of `root`, or a span of its own. What has no end ends where the next thing began, at `until`.
    pub(super) fn span(&self, root: Option<&Span>, until: u64) -> Span {
        let name = self.step.name();
        let mut attributes: Vec<Field<'static>> = Vec::new();
        if let Some(kind) = &self.kind {
            attributes.push((INITIALIZATION_TYPE.into(), Value::Str(kind.clone().into())));
        }
        let status = match (&self.error_type, self.failed) {
            (Some(error_type), _) => {
                attributes.push((ERROR_TYPE.into(), Value::Str(error_type.clone().into())));
                SpanStatus::Error(error_type.clone().into())
            }
            (None, true) => SpanStatus::Error(name.into()),
            (None, false) => SpanStatus::Unset,
        };
        let mut span = Span {
            name: name.into(),
            start_unix_nanos: self.start_unix_nanos,
            end_unix_nanos: self.end_unix_nanos.unwrap_or(until).max(self.start_unix_nanos),
            attributes,
            status,
            ..Span::default()
        };
        let of_its_own =
            format!("{}/{name}/{}", self.instance_id.as_deref().unwrap_or_default(), self.start_unix_nanos);
        if let Some(root) = root {
            span.adopt(root);
            // A failed initialisation is repeated: the two are told apart by their time.
            span.span_id = part_of(root.span_id, &of_its_own);
        } else {
            span.trace_id = trace_of(&of_its_own);
            span.span_id = span_of(&of_its_own);
            span.trace_flags = SAMPLED;
        }
        span
    }
}

/// Attribute: `initializationType` of the platform's records. The conventions have no name for it.
pub(super) const INITIALIZATION_TYPE: &str = "aws.lambda.initialization_type";
/// Attribute of the conventions: the class of an error.
pub(super) const ERROR_TYPE: &str = "error.type";

/// Whether environments of this kind are initialised before anybody asks for them.
pub(super) fn is_ahead_of_demand(kind: Option<&str>) -> bool {
    matches!(kind, Some("provisioned-concurrency" | "lambda-managed-instances"))
}
