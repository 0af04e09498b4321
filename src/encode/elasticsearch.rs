//! The bulk API of Elasticsearch and `OpenSearch` ("Bulk API": <https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-bulk>).
//!
//! A record is two lines: the action `create` with the record's uid as `_id`, and the document. `create` is what data
//! streams take, and never overwrites: a record that is sent again meets itself, a conflict (409), and counts as
//! delivered. Documents use the names of the Elastic Common Schema where it has one; what a function logs beside its
//! message is below `attributes`.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::lines::Lines;
use super::{Framing, Limits, Parts, SplitError, WireFormat, json};
use crate::Signal;
use crate::record::log::{INVOCATION_ID, UID};
use crate::record::{Field, LogRecord, Resource, Value};

const ELASTICSEARCH_ID: u8 = 5;

/// Where documents go if the endpoint names no index: a data stream by the naming scheme `type-dataset-namespace`, which
/// matches the template for logs that Elasticsearch has built in.
const DATA_STREAM: &str = "/logs-outlast-default";
const BULK: &str = "/_bulk";

/// Of the answer only what is read, which is a tenth of it ("Common options", "Response filtering").
const ANSWER_FILTER: &str = "filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason";

/// Far below `http.max_content_length` (100 MB) and at the low end of what Elastic recommends (5 to 15 MB): the answer has an
/// entry for each record, and is read as a whole.
const BODY_MAX_BYTES: usize = 5 << 20;

/// Resource attributes that the Elastic Common Schema has under the same names; others become `labels`.
const COMMON: [&str; 3] = ["service.", "faas.", "cloud."];

/// What the schema has for an invocation's id, and where a resource attribute of that name goes.
const EXECUTION: &str = "faas.execution";
const EXECUTION_LABEL: &str = "labels.faas_execution";

/// Actions and documents.
const PAIRS: Lines = Lines { per_record: 2, ..Lines::STREAM };

/// The bulk API.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elasticsearch;

impl WireFormat for Elasticsearch {
    fn id(&self) -> u8 {
        ELASTICSEARCH_ID
    }

    fn content_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn path(&self, _: Signal, given: &str) -> String {
        match given {
            "" => format!("{DATA_STREAM}{BULK}"),
            bulk if bulk.ends_with(BULK) => bulk.to_owned(),
            index => format!("{index}{BULK}"),
        }
    }

    fn query(&self) -> Option<&'static str> {
        Some(ANSWER_FILTER)
    }

    fn limits(&self, _: Signal) -> Limits {
        Limits { body_bytes: BODY_MAX_BYTES, ..Limits::NONE }
    }

    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"", separator: b"", suffix: b"" }
    }

    fn block_head(&self, _: Signal, _: &Resource, _: usize, _: &mut Vec<u8>) {}

    fn log(&self, resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        let uid = json::record_text(record, UID);
        json::object(out, |action| action.object("create", |create| create.some_text("_id", uid)));
        out.push(b'\n');
        json::object(out, |document| {
            document.member("@timestamp", |out| json::rfc3339(record.time_unix_nanos, out));
            document.text("message", &json::body_text(record));
            document.some_text("log.level", &record.severity.text);
            if record.severity.number != 0 {
                document.number("event.severity", record.severity.number.into());
            }
            document.some_text("event.action", record.event_name.as_deref().unwrap_or_default());
            document.some_text("event.id", uid);
            document.member("event.created", |out| json::rfc3339(record.observed_unix_nanos, out));
            document.some_text(EXECUTION, json::record_text(record, INVOCATION_ID));
            document.id("trace.id", record.trace_id.as_ref().map(AsRef::as_ref));
            document.id("span.id", record.span_id.as_ref().map(AsRef::as_ref));
            let (common, labels): (Vec<_>, Vec<_>) = resource
                .attributes
                .iter()
                .partition(|(name, _)| COMMON.iter().any(|prefix| name.starts_with(prefix)));
            let mut taken = Vec::with_capacity(labels.len());
            for (name, value) in common {
                // The one name that both schemas have, for different things.
                if name == EXECUTION {
                    document.text(EXECUTION_LABEL, &json::plain_text(value));
                    taken.push(EXECUTION_LABEL.to_owned());
                } else {
                    document.value(name, value);
                }
            }
            for (name, value) in labels {
                let label = format!("labels.{}", name.replace('.', "_"));
                // A document with a name twice is refused.
                if !taken.contains(&label) {
                    document.text(&label, &json::plain_text(value));
                    taken.push(label);
                }
            }
            if record.attributes.iter().any(|(name, _)| is_left(name)) {
                let left = record.attributes.iter().filter(|(name, _)| is_left(name));
                document.object("attributes", |attributes| members(attributes, &left.collect::<Vec<_>>()));
            }
        });
        out.push(b'\n');
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        PAIRS.parts(plain)
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        PAIRS.subset(plain, parts, records)
    }
}

/// Adds `fields` under names that Elasticsearch takes. It reads a dot as a step into an object: so a name may have no empty
/// step, and none may be a step of another unless it is an object. A document that breaks this is refused as a whole.
fn members(object: &mut json::Object<'_>, fields: &[&Field<'_>]) {
    let all: HashMap<&str, bool> =
        fields.iter().map(|(name, value)| (name.as_ref(), matches!(value, Value::Map(_)))).collect();
    let is_value = |step: &str| all.get(step).is_some_and(|is_object| !is_object);
    let mut bent: HashSet<String> = HashSet::new();
    for (name, value) in fields {
        let is_clear = name.split('.').all(|step| !step.trim().is_empty())
            && !name.match_indices('.').any(|(at, _)| name.get(..at).is_some_and(is_value));
        if is_clear {
            object.member(name, |out| member(value, out));
            continue;
        }
        let mut name = name.replace('.', "_");
        while name.trim().is_empty() || all.contains_key(name.as_str()) || bent.contains(&name) {
            name.push('_');
        }
        object.member(&name, |out| member(value, out));
        bent.insert(name);
    }
}

fn member(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Map(fields) => json::object(out, |object| members(object, &fields.iter().collect::<Vec<_>>())),
        Value::Array(items) => json::array(items, out, member),
        other => json::any_value(other, out),
    }
}

/// Whether an attribute has no name of its own in the schema.
fn is_left(name: &str) -> bool {
    name != UID && name != INVOCATION_ID
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(resource: Vec<Field<'static>>, attributes: Vec<Field<'_>>) -> serde_json::Value {
        let mut out = Vec::new();
        Elasticsearch.log(
            &Resource { attributes: resource },
            &LogRecord { attributes, ..LogRecord::default() },
            &mut out,
        );
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().nth(1).unwrap();
        let document: serde_json::Value = serde_json::from_str(line).unwrap();
        let names = document.as_object().unwrap();
        for name in names.keys() {
            assert_eq!(line.matches(&format!("{}:", json!(name))).count(), 1, "{name} twice in {line}");
        }
        document
    }

    fn text(name: &'static str, value: &'static str) -> Field<'static> {
        (name.into(), Value::Str(value.into()))
    }

    #[test]
    fn two_attributes_that_make_one_label_are_said_once() {
        for order in [["faas.execution", "faas_execution"], ["faas_execution", "faas.execution"]] {
            let made = document(order.map(|name| text(name, name)).to_vec(), Vec::new());
            assert_eq!(made["labels.faas_execution"], "faas.execution");
        }
    }

    #[test]
    fn names_that_would_have_a_document_refused_are_bent() {
        let nested = Value::Map(vec![text("", "a"), text("x..y", "b")]);
        let attributes = vec![
            text("", "empty"),
            text(".a", "before"),
            text("a.", "after"),
            text("a..b", "within"),
            text("user", "whole"),
            text("user.id", "part"),
            text("user_id", "taken"),
            text("fine.name", "fine"),
            ("map".into(), nested),
            ("map.deep".into(), Value::Int(1)),
        ];
        let made = document(Vec::new(), attributes);
        assert_eq!(
            made["attributes"],
            json!({
                "_": "empty", "_a": "before", "a_": "after", "a__b": "within",
                "user": "whole", "user_id_": "part", "user_id": "taken", "fine.name": "fine",
                "map": {"_": "a", "x__y": "b"}, "map.deep": 1,
            })
        );
    }
}
