//! What an observer remembers, as bytes: kept with the points and spans that it made, and read by the next process.
//!
//! JSON, because every version has to read what another wrote: a field that is missing or strange is left out, an
//! unknown one ignored, and an invocation that cannot be read is one that was never heard of.

use std::collections::VecDeque;

use serde_json::{Map, Value, json};

use super::invocation::{Invocation, Verdict};
use super::observer::Over;
use super::span::Link;
use super::startup::{STEPS_MAX, Startup, Step};
use super::{Observer, Rules};
use crate::record::identifier;
use crate::record::trace_context::XRayHeader;

/// Invocations that are remembered, of those that are open and of those that are over: the latest. Where more run at once,
/// an environment of Managed Instances, all of them would be half a megabyte with each delivery. One that is forgotten by
/// a kill loses the time of its start, for its report tells the rest.
const REMEMBERED_MAX: usize = 256;
/// The same of those that are over where invocations come one after another: what is late over a kill is the report of the
/// one before, and these bytes go to the disk with each delivery.
const OVER_REMEMBERED_MAX: usize = 16;

impl Observer {
    /// Everything that has to be remembered.
    pub fn carry(&self) -> Vec<u8> {
        let over_max = if self.rules.concurrent { REMEMBERED_MAX } else { OVER_REMEMBERED_MAX };
        let over = self.over.iter().skip(self.over.len().saturating_sub(over_max));
        let over: Vec<Value> =
            over.map(|Over { token, reported, own_trace }| json!([token, reported, own_trace])).collect();
        let open = self.open.iter().skip(self.open.len().saturating_sub(REMEMBERED_MAX));
        json!({
            "since": self.since,
            "cold": self.is_cold,
            "coldFrom": self.cold_from,
            "stepped": self.stepped,
            "started": self.started,
            "coldAt": self.cold_at,
            "initMeasured": self.init_measured,
            "initInReport": self.init_in_report,
            "startup": self.startup.iter().map(write_startup).collect::<Vec<_>>(),
            "open": open.map(write_invocation).collect::<Vec<_>>(),
            "over": over,
        })
        .to_string()
        .into_bytes()
    }

    /// An observer that goes on where the one that wrote `carry` stopped.
    pub fn resume(rules: Rules, carry: &[u8]) -> Self {
        let mut observer = Self::new(rules);
        let Ok(Value::Object(fields)) = serde_json::from_slice::<Value>(carry) else { return observer };
        let list =
            |name: &str| fields.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let count = |name: &str| number(&fields, name).unwrap_or_default();
        observer.since = count("since");
        observer.is_cold = flag(&fields, "cold");
        observer.cold_from = count("coldFrom");
        observer.stepped = count("stepped");
        observer.started = count("started");
        observer.cold_at = count("coldAt");
        observer.init_measured = flag(&fields, "initMeasured");
        observer.init_in_report = count("initInReport");
        observer.startup = list("startup").iter().filter_map(read_startup).take(STEPS_MAX).collect();
        observer.open = list("open").iter().filter_map(read_invocation).take(REMEMBERED_MAX).collect();
        observer.over =
            list("over").iter().filter_map(read_over).take(REMEMBERED_MAX).collect::<VecDeque<_>>();
        observer
    }
}

fn read_over(value: &Value) -> Option<Over> {
    let own_trace = value.get(2).and_then(Value::as_bool).unwrap_or_default();
    Some(Over { token: value.get(0)?.as_u64()?, reported: value.get(1)?.as_bool()?, own_trace })
}

/// A field that is only there if it says something.
fn put(fields: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), value.into());
    }
}

fn number(fields: &Map<String, Value>, name: &str) -> Option<u64> {
    fields.get(name)?.as_u64()
}

fn flag(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    fields.get(name)?.as_str().map(str::to_owned)
}

fn id<const BYTES: usize>(fields: &Map<String, Value>, name: &str) -> Option<[u8; BYTES]> {
    identifier(fields.get(name)?.as_str()?)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).flatten().collect()
}

fn write_startup(startup: &Startup) -> Value {
    let Startup { step, start_unix_nanos, end_unix_nanos, kind, instance_id, failed, error_type, guessed } =
        startup;
    let mut fields = Map::new();
    put(&mut fields, "step", Some(step.name()));
    put(&mut fields, "start", Some(*start_unix_nanos));
    put(&mut fields, "end", *end_unix_nanos);
    put(&mut fields, "kind", kind.as_deref());
    put(&mut fields, "instance", instance_id.as_deref());
    put(&mut fields, "failed", failed.then_some(true));
    put(&mut fields, "error", error_type.as_deref());
    put(&mut fields, "guessed", guessed.then_some(true));
    Value::Object(fields)
}

fn read_startup(value: &Value) -> Option<Startup> {
    let fields = value.as_object()?;
    let name = text(fields, "step")?;
    Some(Startup {
        step: [Step::Init, Step::Restore].into_iter().find(|step| step.name() == name)?,
        start_unix_nanos: number(fields, "start")?,
        end_unix_nanos: number(fields, "end"),
        kind: text(fields, "kind"),
        instance_id: text(fields, "instance"),
        failed: flag(fields, "failed"),
        error_type: text(fields, "error"),
        guessed: flag(fields, "guessed"),
    })
}

const VERDICTS: [(&str, Verdict); 4] = [
    ("success", Verdict::Success),
    ("failure", Verdict::Failure),
    ("timeout", Verdict::Timeout),
    ("unknown", Verdict::Unknown),
];

fn write_invocation(invocation: &Invocation) -> Value {
    let Invocation {
        request_id,
        start_unix_nanos,
        cold,
        header,
        span_id,
        logged,
        tenant,
        function_arn,
        verdict,
        reset,
        reported,
        settled,
    } = invocation;
    let mut fields = Map::new();
    put(&mut fields, "request", Some(request_id.as_str()));
    put(&mut fields, "start", *start_unix_nanos);
    put(&mut fields, "cold", cold.then_some(true));
    if let Some(XRayHeader { trace_id, parent_id, sampled }) = header {
        put(&mut fields, "root", trace_id.map(|id| hex(&id)));
        put(&mut fields, "parent", parent_id.map(|id| hex(&id)));
        put(&mut fields, "sampled", *sampled);
    }
    put(&mut fields, "span", span_id.map(|id| hex(&id)));
    if let Some(Link { trace_id, span_id, trace_flags }) = logged {
        put(&mut fields, "logged", Some(json!([hex(trace_id), hex(span_id), trace_flags])));
    }
    put(&mut fields, "tenant", tenant.as_deref());
    put(&mut fields, "arn", function_arn.as_deref());
    let word = verdict.and_then(|verdict| VERDICTS.iter().find(|(_, known)| *known == verdict));
    put(&mut fields, "verdict", word.map(|(word, _)| *word));
    put(&mut fields, "reset", reset.then_some(true));
    put(&mut fields, "reported", reported.then_some(true));
    put(&mut fields, "settled", settled.then_some(true));
    Value::Object(fields)
}

fn read_invocation(value: &Value) -> Option<Invocation> {
    let fields = value.as_object()?;
    let header = XRayHeader {
        trace_id: id(fields, "root"),
        parent_id: id(fields, "parent"),
        sampled: fields.get("sampled").and_then(Value::as_bool),
    };
    let logged = fields.get("logged").and_then(|link| {
        Some(Link {
            trace_id: identifier(link.get(0)?.as_str()?)?,
            span_id: identifier(link.get(1)?.as_str()?)?,
            trace_flags: u32::try_from(link.get(2)?.as_u64()?).ok()?,
        })
    });
    let verdict = text(fields, "verdict");
    Some(Invocation {
        request_id: text(fields, "request")?,
        start_unix_nanos: number(fields, "start"),
        cold: flag(fields, "cold"),
        header: (header != XRayHeader::default()).then_some(header),
        span_id: id(fields, "span"),
        logged,
        tenant: text(fields, "tenant"),
        function_arn: text(fields, "arn"),
        verdict: verdict.and_then(|word| VERDICTS.iter().find(|(known, _)| *known == word)).map(|(_, v)| *v),
        reset: flag(fields, "reset"),
        reported: flag(fields, "reported"),
        settled: flag(fields, "settled"),
    })
}
