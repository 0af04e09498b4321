//! Spans as they are encoded (opentelemetry-proto, `trace.v1.Span`), and the ids of those we make.

use std::borrow::Cow;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

use crate::record::Field;
use crate::record::trace_context::{SpanId, TraceId};

/// A span that is over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The span it is part of.
    pub parent: Option<Parent>,
    /// W3C trace flags in the lowest eight bits.
    pub trace_flags: u32,
    /// What it is.
    pub name: Cow<'static, str>,
    /// Its part in the exchange.
    pub kind: SpanKind,
    /// When it began, in nanoseconds since the Unix epoch.
    pub start_unix_nanos: u64,
    /// When it ended, likewise; never before it began.
    pub end_unix_nanos: u64,
    /// What is known of it. Names are unique.
    pub attributes: Vec<Field<'static>>,
    /// Another span it has to do with.
    pub link: Option<Link>,
    /// How it went.
    pub status: SpanStatus,
}

/// The parent of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its id.
    pub span_id: SpanId,
    /// It belongs to somebody else.
    pub is_remote: bool,
}

/// A reference to a span of another trace, or to one that is no parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// Its W3C trace flags.
    pub trace_flags: u32,
}

/// `SpanKind`, as far as it occurs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpanKind {
    /// Work within the service.
    #[default]
    Internal = 1,
    /// Work on behalf of a caller.
    Server = 2,
}

/// The status of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SpanStatus {
    /// Nothing went wrong, as far as is known.
    #[default]
    Unset,
    /// Something did; in a word.
    Error(Cow<'static, str>),
}

/// The span id of an invocation that Lambda gave none: always the same for the same request.
pub(super) fn span_of(request_id: &str) -> SpanId {
    never_zero(xxh3_64(request_id.as_bytes())).to_be_bytes()
}

/// The id of a part of the span `parent`, by the part's name.
pub(super) fn part_of(parent: SpanId, name: &str) -> SpanId {
    never_zero(xxh3_64_with_seed(name.as_bytes(), u64::from_be_bytes(parent))).to_be_bytes()
}

/// The trace of something that no tracing header came with.
pub(super) fn trace_of(text: &str) -> TraceId {
    xxh3_128(text.as_bytes()).max(1).to_be_bytes()
}

fn never_zero(id: u64) -> u64 {
    id.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_valid_and_follow_from_the_request() {
        let request = "79b5e81f-9cdd-4145-b1f6-7c50ef8a2a36";
        assert_eq!(span_of(request), span_of(request));
        assert_ne!(span_of(request), span_of("f0c9f58b-8ebe-4e84-a656-95eb6eee865a"));
        let parts = ["init", "responseLatency"].map(|name| part_of(span_of(request), name));
        assert_ne!(parts[0], parts[1]);
        assert_ne!(parts[0], span_of(request));
        assert_ne!(trace_of(request), [0; 16]);
        assert_eq!(never_zero(0), 1);
    }
}
