//! What the collector prints of records, read back: as the records that the page is made of, and as the lines of each.
//!
//! It prints a field a line, and values in a form of its own: `Map(name:Str(text), list:Slice(Int(1)))`. What cannot be
//! read is left out, or stays as it was printed.

use std::collections::BTreeMap;

use outlast_backend::{Record, Signal};
use serde_json::{Map, Value, json};

/// Before an attribute, or a part of a metric's description.
const ARROW: &str = "     -> ";

/// A record as it was printed.
struct Item<'t> {
    signal: Signal,
    lines: Vec<&'t str>,
    fields: BTreeMap<&'t str, &'t str>,
    attributes: BTreeMap<&'t str, &'t str>,
    /// Of the metric, for a data point.
    name: &'t str,
    unit: &'t str,
}

/// The records, and the lines of each: [`Record::request`] is their place.
pub(crate) fn read(said: &str) -> (Vec<Record>, Vec<String>) {
    let items = items(said);
    let records = items.iter().zip(0..).map(|(item, at)| item.record(at)).collect();
    (records, items.iter().map(|item| item.lines.join("\n")).collect())
}

fn items(said: &str) -> Vec<Item<'_>> {
    let mut items: Vec<Item<'_>> = Vec::new();
    let (mut name, mut unit) = ("", "");
    // Whether the lines are those of the last item.
    let mut open = false;
    for line in said.lines() {
        let is = |head: &str| line.strip_prefix(head).is_some_and(|number| number.parse::<u32>().is_ok());
        let begins = if is("LogRecord #") {
            Some(Signal::Logs)
        } else if is("Span #") {
            Some(Signal::Traces)
        } else if is("NumberDataPoints #") || is("HistogramDataPoints #") {
            Some(Signal::Metrics)
        } else {
            None
        };
        if let Some(signal) = begins {
            let (fields, attributes) = (BTreeMap::new(), BTreeMap::new());
            items.push(Item { signal, lines: vec![line], fields, attributes, name, unit });
            open = true;
            continue;
        }
        if is("Metric #") || line.starts_with("Resource") || line.starts_with("Scope") {
            open = false;
            continue;
        }
        let arrow = line.strip_prefix(ARROW).and_then(|pair| pair.split_once(": "));
        match items.last_mut().filter(|_| open) {
            Some(item) => {
                item.lines.push(line);
                if let Some((key, value)) = arrow {
                    item.attributes.entry(key).or_insert(value);
                } else if let Some((key, value)) = line.split_once(':') {
                    item.fields.entry(key.trim()).or_insert(value.trim());
                }
            }
            None => match arrow {
                Some(("Name", value)) => name = value,
                Some(("Unit", value)) => unit = value,
                _ => {}
            },
        }
    }
    items
}

impl Item<'_> {
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).copied().unwrap_or_default()
    }

    fn time(&self, name: &str) -> u64 {
        self.field(name).parse().unwrap_or_default()
    }

    fn number(&self, name: &str) -> Value {
        serde_json::from_str(self.field(name)).unwrap_or_default()
    }

    fn record(&self, at: u64) -> Record {
        let (text, body, times, id) = match self.signal {
            Signal::Logs => {
                let body = value(self.field("Body")).unwrap_or_else(|| self.field("Body").into());
                let text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
                (text, body, ("ObservedTimestamp", "Timestamp"), "Span ID")
            }
            Signal::Traces => {
                let failed = self.field("Status code").contains("ERROR");
                let status = json!({"code": if failed { 2 } else { 0 }});
                let body = json!({"parent_span_id": self.field("Parent ID"), "status": status});
                (self.field("Name").to_owned(), body, ("Start time", "End time"), "ID")
            }
            Signal::Metrics => {
                let told = match self.number("Value") {
                    Value::Null => json!({"sum": self.number("Sum"), "count": self.number("Count")}),
                    value => value,
                };
                let body = json!({"unit": self.unit, "value": told});
                (self.name.to_owned(), body, ("StartTimestamp", "Timestamp"), "")
            }
        };
        let attributes = self.attributes.iter();
        Record {
            signal: self.signal,
            request: at,
            text,
            body,
            attributes: attributes
                .map(|(key, told)| ((*key).to_owned(), value(told).unwrap_or_else(|| (*told).into())))
                .collect(),
            resource: std::sync::Arc::default(),
            scope: "".into(),
            time_unix_nano: self.time(times.1),
            other_time_unix_nano: self.time(times.0),
            severity_number: 0,
            severity_text: String::new(),
            trace_id: self.field("Trace ID").to_owned(),
            span_id: self.field(id).to_owned(),
            event_name: self.field("EventName").to_owned(),
            uid: None,
        }
    }
}

/// A whole value. Parentheses within texts must come in pairs: nothing sets others apart from those around values.
fn value(text: &str) -> Option<Value> {
    let (kind, rest) = text.split_once('(')?;
    let inner = rest.strip_suffix(')')?;
    match kind {
        "Str" => Some(inner.into()),
        "Bool" => Some(inner.parse::<bool>().ok()?.into()),
        "Int" => Some(inner.parse::<i64>().ok()?.into()),
        "Double" => Some(inner.parse::<f64>().ok()?.into()),
        "Slice" => parts(inner).map(value).collect(),
        "Map" => {
            let fields = parts(inner).map(|part| {
                let (name, told) = part.split_once(':')?;
                Some((name.to_owned(), value(told)?))
            });
            fields.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
        _ => None,
    }
}

/// What commas outside of parentheses separate.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let parts = text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    });
    parts.map(|part| part.strip_prefix(' ').unwrap_or(part)).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
2026-11-30T20:03:18.038670Z  INFO Starting Rotel. grpc_endpoint=\"127.0.0.1:35347\"
ResourceLog #0
Resource attributes:
     -> faas.name: Str(f)
ScopeLogs #0
InstrumentationScope outlast 0.1.0
LogRecord #0
ObservedTimestamp: 12
Timestamp: 11
EventName: platform.start
Body: Map(metrics:Map(durationMs:Double(20), count:Int(2)), spans:Slice(Map(name:Str(a, b (c):d)), Bool(true)), none:Slice())
Attributes:
     -> faas.invocation_id: Str(one)
    Trace ID       : t1
    Span ID        : s1
Flags: 1
LogRecord #1
Timestamp: 13
Body: Str(said: so)
ResourceSpans #0
Span #0
    Trace ID       : t1
    Parent ID      : s0
    ID             : s1
    Name           : f
    Kind           : SPAN_KIND_SERVER
Start time: 11
End time: 14
    Status code    : STATUS_CODE_ERROR
ResourceMetrics #0
Metric #0
Descriptor:
     -> Name: faas.mem_usage
     -> Unit: By
     -> DataType: Histogram
HistogramDataPoints #0
Data point attributes:
     -> a: Int(1)
StartTimestamp: 1
Timestamp: 2
Count: 3
Sum: 4.5
Metric #1
Descriptor:
     -> Name: faas.invocations
     -> Unit: {invocation}
NumberDataPoints #0
StartTimestamp: 1
Timestamp: 2
Value: 7
";

    #[test]
    fn what_was_printed_is_read_back_field_by_field() {
        let (records, lines) = read(SAID);
        let [start, said, span, memory, invocations] = &records[..] else { panic!("{records:?}") };
        assert_eq!(
            start.text,
            r#"{"metrics":{"count":2,"durationMs":20.0},"none":[],"spans":[{"name":"a, b (c):d"},true]}"#
        );
        assert_eq!((start.other_time_unix_nano, start.time_unix_nano), (12, 11));
        assert_eq!((start.trace_id.as_str(), start.span_id.as_str()), ("t1", "s1"));
        assert_eq!(start.attributes.get("faas.invocation_id"), Some(&json!("one")));
        assert_eq!((said.text.as_str(), said.trace_id.as_str()), ("said: so", ""));
        assert_eq!((span.text.as_str(), span.span_id.as_str()), ("f", "s1"));
        assert_eq!((span.other_time_unix_nano, span.time_unix_nano), (11, 14));
        assert_eq!(span.body, json!({"parent_span_id": "s0", "status": {"code": 2}}));
        assert_eq!(memory.body, json!({"unit": "By", "value": {"sum": 4.5, "count": 3}}));
        assert_eq!(memory.attributes.get("a"), Some(&json!(1)));
        assert_eq!(invocations.body, json!({"unit": "{invocation}", "value": 7}));
        assert_eq!((invocations.text.as_str(), invocations.request), ("faas.invocations", 4));
        assert_eq!(lines[1], "LogRecord #1\nTimestamp: 13\nBody: Str(said: so)");
        assert!(lines[3].ends_with("Sum: 4.5"), "{}", lines[3]);
    }

    #[test]
    fn what_is_no_value_is_none() {
        for text in ["", "Str", "Str(", "Int(x)", "Bytes(1)", "Map(a)"] {
            assert_eq!(value(text), None, "{text}");
        }
    }
}
