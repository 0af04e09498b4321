//! One invocation, from the first that is heard of it to its report.

use super::span::{Link, Parent, Span, SpanKind, SpanStatus, part_of, span_of, trace_of};
use super::startup::ERROR_TYPE;
use super::told::{Part, Told};
use super::{Around, Sampler};
use crate::record::event::Status;
use crate::record::log::INVOCATION_ID;
use crate::record::trace_context::{SAMPLED, SpanId, XRayHeader};
use crate::record::{Field, Value};
use xxhash_rust::xxh3::xxh3_64;

/// Attribute, of the conventions: the environment was started for this invocation.
pub(super) const COLDSTART: &str = "faas.coldstart";
/// Attribute, of the conventions: the ARN as it was invoked.
const INVOKED_ARN: &str = "aws.lambda.invoked_arn";
/// Attribute: `tenantId` of the platform's records, the tenant that an invocation is for.
pub const TENANT_ID: &str = "aws.lambda.tenant_id";
/// Attribute, `true`: neither the end of the invocation nor its report ever came, so the span's end is a guess.
const INCOMPLETE: &str = "outlast.incomplete";

/// The part that the report brings, after all else.
pub(super) const EXTENSION_OVERHEAD: &str = "extensionOverhead";

/// How an invocation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Success,
    Failure,
    Timeout,
    /// Nobody said.
    Unknown,
}

impl Verdict {
    /// By what a record says. The oldest ones have no status.
    pub(super) fn of(told: &Told<'_>) -> Self {
        match told.status {
            Some(Status::Timeout) => Self::Timeout,
            Some(Status::Failure | Status::Error) => Self::Failure,
            Some(Status::Other) => Self::Unknown,
            None if told.error_type.is_some() => Self::Failure,
            Some(Status::Success) | None => Self::Success,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }
}

/// A number that tells invocations apart.
pub(super) fn token(request_id: &str) -> u64 {
    xxh3_64(request_id.as_bytes())
}

/// An invocation whose report has not come.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "what was heard of it, each by itself")]
pub(super) struct Invocation {
    pub(super) request_id: String,
    /// When it began.
    pub(super) start_unix_nanos: Option<u64>,
    /// The environment was started for it.
    pub(super) cold: bool,
    pub(super) header: Option<XRayHeader>,
    /// `tracing.spanId`
    pub(super) span_id: Option<SpanId>,
    /// A span that the function wrote about.
    pub(super) logged: Option<Link>,
    pub(super) tenant: Option<String>,
    pub(super) function_arn: Option<String>,
    /// How it went, once that is known and counted; its span is made then.
    pub(super) verdict: Option<Verdict>,
    /// The environment was initialised anew since: if no end came, it was cut off.
    pub(super) reset: bool,
    /// Its report came before its end, and stood in for it.
    pub(super) reported: bool,
    /// Lines were told a trace of its own, made of the request id.
    pub(super) settled: bool,
}

impl Invocation {
    pub(super) fn new(request_id: &str) -> Self {
        Self {
            request_id: request_id.to_owned(),
            start_unix_nanos: None,
            cold: false,
            header: None,
            span_id: None,
            logged: None,
            tenant: None,
            function_arn: None,
            verdict: None,
            reset: false,
            reported: false,
            settled: false,
        }
    }

    /// Takes over what a record says about the invocation as such.
    pub(super) fn tell(&mut self, told: &Told<'_>) {
        self.header = self.header.or(told.tracing);
        self.span_id = self.span_id.or(told.span_id);
        if self.tenant.is_none() {
            self.tenant = told.tenant.as_deref().map(str::to_owned);
        }
        if self.function_arn.is_none() {
            self.function_arn = told.function_arn.as_deref().map(str::to_owned);
        }
    }

    /// What its data points have beside the resource.
    pub(super) fn labels(&self) -> Vec<Field<'static>> {
        let tenant = self.tenant.as_ref();
        tenant.map(|tenant| (TENANT_ID.into(), Value::Str(tenant.clone().into()))).into_iter().collect()
    }

    /// The ids that a line of this invocation belongs to; `None` while no trace is known.
    pub(super) fn trace(&self) -> Option<Link> {
        let header = self.header.filter(|header| header.trace_id.is_some());
        let own = || {
            if self.settled {
                Some(trace_of(&self.request_id))
            } else {
                self.logged.map(|link| link.trace_id)
            }
        };
        let trace_id = header.and_then(|header| header.trace_id).or_else(own)?;
        let sampled = header.and_then(|header| header.sampled).unwrap_or(true);
        let trace_flags = if sampled { SAMPLED } else { 0 };
        Some(Link { trace_id, span_id: self.own_span_id(), trace_flags })
    }

    /// The same; if no trace is known, that is settled: it is in one of its own.
    pub(super) fn settle_trace(&mut self) -> Link {
        self.settled |= self.trace().is_none();
        let own =
            Link { trace_id: trace_of(&self.request_id), span_id: self.own_span_id(), trace_flags: SAMPLED };
        self.trace().unwrap_or(own)
    }

    /// Whether the id of its trace was made of the request id.
    pub(super) fn has_own_trace(&self) -> bool {
        let is_traced = self.header.is_some_and(|header| header.trace_id.is_some());
        !is_traced && self.span_id.is_none() && (self.settled || self.logged.is_none())
    }

    fn own_span_id(&self) -> SpanId {
        self.span_id.unwrap_or_else(|| span_of(&self.request_id))
    }

    /// The span of the whole, without its parts; `None` if it is not to be kept.
    pub(super) fn root(&self, sampler: Sampler, around: &Around<'_>, ended: &Ended<'_>) -> Option<Span> {
        let header = self.header.filter(|header| header.trace_id.is_some());
        let trace = self.trace();
        let trace_id = trace.map_or_else(|| trace_of(&self.request_id), |trace| trace.trace_id);
        if !sampler.keeps(trace_id, header.and_then(|header| header.sampled)) {
            return None;
        }
        let mut attributes: Vec<Field<'static>> = vec![
            (INVOCATION_ID.into(), Value::Str(self.request_id.clone().into())),
            (COLDSTART.into(), Value::Bool(self.cold)),
        ];
        if let Some(arn) = self.function_arn.as_deref().or(around.invoked_arn).filter(|arn| !arn.is_empty()) {
            attributes.push((INVOKED_ARN.into(), Value::Str(arn.to_owned().into())));
        }
        attributes.extend(self.labels());
        let status = match (ended.verdict, ended.error_type) {
            (Verdict::Success, _) | (Verdict::Unknown, None) => SpanStatus::Unset,
            (verdict, error_type) => {
                let error = error_type.unwrap_or(verdict.word()).to_owned();
                attributes.push((ERROR_TYPE.into(), Value::Str(error.clone().into())));
                SpanStatus::Error(error.into())
            }
        };
        if ended.guessed {
            attributes.push((INCOMPLETE.into(), Value::Bool(true)));
        }
        let parent = header.and_then(|header| header.parent_id);
        Some(Span {
            trace_id,
            span_id: self.own_span_id(),
            parent: parent.map(|span_id| Parent { span_id, is_remote: true }),
            trace_flags: SAMPLED,
            name: around.function_name.unwrap_or("invocation").to_owned().into(),
            kind: SpanKind::Server,
            start_unix_nanos: ended.start_unix_nanos,
            end_unix_nanos: ended.end_unix_nanos.max(ended.start_unix_nanos),
            attributes,
            link: self.logged,
            status,
        })
    }
}

/// The end of an invocation.
pub(super) struct Ended<'a> {
    pub(super) start_unix_nanos: u64,
    pub(super) end_unix_nanos: u64,
    pub(super) verdict: Verdict,
    pub(super) error_type: Option<&'a str>,
    /// Nobody said when and how it ended.
    pub(super) guessed: bool,
}

impl Span {
    /// Becomes a part of `root`.
    pub(super) fn adopt(&mut self, root: &Self) {
        self.trace_id = root.trace_id;
        self.trace_flags = root.trace_flags;
        self.parent = Some(Parent { span_id: root.span_id, is_remote: false });
    }
}

impl Part {
    /// The span of this part of `root`.
    pub(super) fn span(&self, root: &Span) -> Span {
        let mut span = Span {
            span_id: part_of(root.span_id, &self.name),
            name: self.name.clone().into(),
            start_unix_nanos: self.start_unix_nanos,
            end_unix_nanos: self.end_unix_nanos(),
            ..Span::default()
        };
        span.adopt(root);
        span
    }
}
