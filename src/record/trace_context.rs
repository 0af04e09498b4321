//! Trace context as it travels in text: AWS X-Ray's tracing header and the W3C's `traceparent`.

use super::fields::id;
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// A 128-bit trace id. Never all zeros.
pub type TraceId = [u8; 16];
/// A 64-bit span id. Never all zeros.
pub type SpanId = [u8; 8];

/// The W3C trace flag that says the trace is recorded (W3C Trace Context, section 3.2.2.5.1).
pub const SAMPLED: u32 = 1;

/// The X-Ray tracing header, `Root=1-…;Parent=…;Sampled=1` (AWS X-Ray developer guide, "Tracing header").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XRayHeader {
    /// `Root`, as the 128 bits that OpenTelemetry makes of it.
    pub trace_id: Option<TraceId>,
    /// `Parent`: the span of whoever invoked the function.
    pub parent_id: Option<SpanId>,
    /// `Sampled`; `None` if the decision is left open (`?`, or nothing at all).
    pub sampled: Option<bool>,
}

impl XRayHeader {
    /// Reads a header. What it does not say, or says in another form, is left out.
    pub fn parse(header: &str) -> Self {
        let mut found = Self::default();
        for part in header.split(';') {
            match part.trim().split_once('=') {
                Some(("Root", root)) => found.trace_id = id(root),
                Some(("Parent", parent)) => found.parent_id = id(parent),
                Some(("Sampled", "1")) => found.sampled = Some(true),
                Some(("Sampled", "0")) => found.sampled = Some(false),
                _ => {}
            }
        }
        found
    }
}

/// A `traceparent` (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that wrote it.
    pub span_id: SpanId,
    /// The eight flags.
    pub flags: u32,
}

impl TraceParent {
    /// Reads a `traceparent` of any version; a later one may have more at its end. `None` if it is malformed: then
    /// nothing in it may be relied on.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let byte = |digits: &str| {
            let lower = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
            (digits.len() == 2 && lower).then(|| u8::from_str_radix(digits, 16).ok()).flatten()
        };
        let version = byte(version).filter(|version| *version != 0xff)?;
        if version == 0 && parts.next().is_some() {
            return None;
        }
        Some(Self { trace_id: hex_id(trace)?, span_id: hex_id(span)?, flags: u32::from(byte(flags)?) })
    }
}

impl TraceParent {
    /// The first `traceparent` that a text names and gives: `traceparent=00-…`, `traceparent: 00-…`, `"traceparent":"00-…"`.
    pub fn find(text: &str) -> Option<Self> {
        const NAME: &str = "traceparent";
        // Looked for in every line: what searches for it is made once.
        static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NAME));
        FINDER.find_iter(text.as_bytes()).find_map(|at| {
            let touches = text.get(..at)?.ends_with(|before: char| before.is_alphanumeric() || before == '_');
            let rest = text.get(at + NAME.len()..)?.trim_start_matches(['"', '\'', '\\']);
            let rest = rest.trim_start().strip_prefix(['=', ':'])?;
            let rest = rest.trim_start().trim_start_matches(['"', '\'', '\\']);
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len());
            Self::parse(rest.get(..end)?).filter(|_| !touches)
        })
    }
}

/// An identifier of lower-case digits alone, as the W3C has it.
fn hex_id<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    if text.bytes().any(|digit| digit.is_ascii_uppercase()) { None } else { id(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: TraceId =
        [0x63, 0x52, 0xa7, 0x0e, 0x1e, 0x2c, 0x50, 0x2e, 0x35, 0x83, 0x61, 0x80, 0x02, 0x41, 0xfd, 0x45];
    const SPAN: SpanId = [0x35, 0x46, 0x5b, 0x3a, 0x9e, 0x2f, 0x7c, 0x6a];

    #[test]
    fn the_header_of_x_ray_is_read_in_any_order() {
        let root = "Root=1-6352a70e-1e2c502e358361800241fd45";
        let whole = XRayHeader { trace_id: Some(TRACE), parent_id: Some(SPAN), sampled: Some(true) };
        assert_eq!(XRayHeader::parse(&format!("{root};Parent=35465b3a9e2f7c6a;Sampled=1")), whole);
        assert_eq!(
            XRayHeader::parse(&format!("Sampled=1; Parent=35465b3a9e2f7c6a;{root};Lineage=1:2:3")),
            whole
        );
        let open = XRayHeader { trace_id: Some(TRACE), ..XRayHeader::default() };
        assert_eq!(XRayHeader::parse(&format!("{root};Sampled=?")), open);
        assert_eq!(XRayHeader::parse("Sampled=0").sampled, Some(false));
        for nothing in ["", ";;", "Root=1-0-0;Parent=xyz", "Root", "Parent=0000000000000000"] {
            assert_eq!(XRayHeader::parse(nothing), XRayHeader::default(), "{nothing}");
        }
    }

    #[test]
    fn a_traceparent_is_found_in_a_text_that_names_it() {
        let good = "00-6352a70e1e2c502e358361800241fd45-35465b3a9e2f7c6a-01";
        let read = TraceParent { trace_id: TRACE, span_id: SPAN, flags: 1 };
        for text in [
            format!("traceparent={good}"),
            format!("calling, traceparent: {good}, again"),
            format!(r#"headers {{"traceparent":"{good}"}}"#),
            format!(r#"{{\"traceparent\": \"{good}\"}}"#),
            format!("{{ traceparent: '{good}' }}"),
            format!("no traceparent here, but traceparent={good}."),
        ] {
            assert_eq!(TraceParent::find(&text), Some(read), "{text}");
        }
        for text in [
            good.to_owned(),
            format!("traceparent {good}"),
            format!("mytraceparent={good}"),
            format!("traceparent={good}0"),
        ] {
            assert_eq!(TraceParent::find(&text), None, "{text}");
        }
    }

    #[test]
    fn a_traceparent_is_read_as_the_w3c_says() {
        let good = "00-6352a70e1e2c502e358361800241fd45-35465b3a9e2f7c6a-01";
        let read = TraceParent { trace_id: TRACE, span_id: SPAN, flags: 1 };
        assert_eq!(TraceParent::parse(good), Some(read));
        assert_eq!(TraceParent::parse(&good.replacen("00", "cc", 1)), Some(read));
        assert_eq!(TraceParent::parse(&format!("{}-what-comes", good.replacen("00", "01", 1))), Some(read));
        for bad in [
            "",
            "00",
            &format!("{good}-x"),
            &good.replacen("00", "ff", 1),
            &good.to_uppercase(),
            "00-00000000000000000000000000000000-35465b3a9e2f7c6a-01",
            "00-6352a70e1e2c502e358361800241fd45-0000000000000000-01",
            "00-6352a70e1e2c502e358361800241fd45-35465b3a9e2f7c6a-1",
            "00-6352a70e1e2c502e358361800241fd45-35465b3a9e2f7c6a-+1",
            "1-6352a70e-1e2c502e358361800241fd45",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
