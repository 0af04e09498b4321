//! `Span` of opentelemetry-proto, `trace.v1`.

use super::super::protobuf::{Wire, bytes, fixed32, fixed64, message, tag, varint};
use super::attributes;
use crate::observe::{Link, Span, SpanStatus};

/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`: whether the parent is remote is known.
const HAS_IS_REMOTE: u32 = 0x100;
/// `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK`
const IS_REMOTE: u32 = 0x200;

/// Appends the fields of a `Span`.
pub(super) fn span(span: &Span, out: &mut Vec<u8>) {
    bytes(1, &span.trace_id, out);
    bytes(2, &span.span_id, out);
    if let Some(parent) = span.parent {
        bytes(4, &parent.span_id, out);
    }
    if !span.name.is_empty() {
        bytes(5, span.name.as_bytes(), out);
    }
    tag(6, Wire::Varint, out);
    varint(span.kind as u64, out);
    for (field, time) in [(7, span.start_unix_nanos), (8, span.end_unix_nanos)] {
        if time != 0 {
            fixed64(field, time, out);
        }
    }
    attributes(9, &span.attributes, out);
    if let Some(other) = &span.link {
        message(13, out, |out| link(other, out));
    }
    if let SpanStatus::Error(text) = &span.status {
        message(15, out, |out| {
            if !text.is_empty() {
                bytes(2, text.as_bytes(), out);
            }
            tag(3, Wire::Varint, out);
            varint(ERROR, out);
        });
    }
    let remote = match span.parent {
        None => 0,
        Some(parent) if parent.is_remote => HAS_IS_REMOTE | IS_REMOTE,
        Some(_) => HAS_IS_REMOTE,
    };
    let flags = span.trace_flags | remote;
    if flags != 0 {
        fixed32(16, flags, out);
    }
}

fn link(link: &Link, out: &mut Vec<u8>) {
    bytes(1, &link.trace_id, out);
    bytes(2, &link.span_id, out);
    if link.trace_flags != 0 {
        fixed32(6, link.trace_flags, out);
    }
}
