//! Telemetry events and the bodies they travel in.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use crate::options::Schema;

/// One telemetry event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Number of the event within its sandbox, in the order in which events were made.
    pub id: u64,
    /// When the platform made it, ISO 8601.
    pub time: String,
    /// `platform.start`, `function` and so on.
    pub kind: Cow<'static, str>,
    /// The record as raw JSON text.
    pub record: Box<str>,
    /// The record as a JSON string, where schema `2022-07-01` differs.
    pub(crate) legacy: Option<Box<str>>,
}

impl Event {
    /// The record as parsed JSON.
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.record).unwrap_or(Value::Null)
    }

    /// The text of a record that is a string, or the `message` of one that is an object.
    pub fn text(&self) -> Option<String> {
        match self.value() {
            Value::String(text) => Some(text),
            Value::Object(fields) => fields.get("message").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        }
    }

    pub(crate) fn raw(&self, schema: Schema) -> &str {
        match &self.legacy {
            Some(legacy) if schema == Schema::V20220701 => legacy,
            _ => &self.record,
        }
    }

    fn write_envelope(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(b"{\"time\":\"");
        body.extend_from_slice(self.time.as_bytes());
        body.extend_from_slice(b"\",\"type\":\"");
        body.extend_from_slice(self.kind.as_bytes());
        body.extend_from_slice(b"\",\"record\":");
    }

    /// Bytes that the event takes in a body.
    pub(crate) fn size(&self, schema: Schema) -> usize {
        const FRAMING: usize = r#"{"time":"","type":"","record":},"#.len();
        FRAMING + self.time.len() + self.kind.len() + self.raw(schema).len()
    }
}

/// One request to a subscriber. The pieces of a cut record but for the last acknowledge nothing.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) body: Vec<u8>,
    pub(crate) events: Vec<Arc<Event>>,
}

/// The requests that carry a batch: one, unless a record is longer than `cut_over` bytes. Such a record is cut as
/// Lambda cuts it: a piece that is not the last ends in `}]` after the cut text, the next begins with the same
/// envelope, and neither is valid JSON. With `cut_after_others` the first piece follows earlier events in their body.
pub(crate) fn posts(
    batch: &[Arc<Event>],
    schema: Schema,
    cut_over: Option<usize>,
    cut_after_others: bool,
) -> Vec<Post> {
    let mut posts = Vec::new();
    let mut body = Vec::with_capacity(batch.iter().map(|event| event.size(schema)).sum::<usize>() + 2);
    let mut events: Vec<Arc<Event>> = Vec::with_capacity(batch.len());
    let mut close = |body: &mut Vec<u8>, events: &mut Vec<Arc<Event>>| {
        body.push(b']');
        posts.push(Post { body: std::mem::take(body), events: std::mem::take(events) });
    };
    let open = |body: &mut Vec<u8>| body.push(if body.is_empty() { b'[' } else { b',' });
    for event in batch {
        let record = event.raw(schema).as_bytes();
        let limit = cut_over.filter(|limit| {
            let limit = (*limit).max(1);
            record.len() > limit && !event.kind.starts_with("platform.")
        });
        let pieces = record.chunks(limit.unwrap_or(usize::MAX).max(1));
        let last = pieces.len().saturating_sub(1);
        if last > 0 && !body.is_empty() && !cut_after_others {
            close(&mut body, &mut events);
        }
        for (at, piece) in pieces.enumerate() {
            open(&mut body);
            event.write_envelope(&mut body);
            body.extend_from_slice(piece);
            body.push(b'}');
            if at < last {
                close(&mut body, &mut events);
            }
        }
        events.push(Arc::clone(event));
    }
    if !body.is_empty() {
        close(&mut body, &mut events);
    }
    posts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, record: &str) -> Arc<Event> {
        let (kind, time) = ("function".into(), "2026-09-03T14:29:52.929Z".into());
        Arc::new(Event { id, time, kind, record: record.into(), legacy: None })
    }

    fn texts(posts: &[Post]) -> Vec<&str> {
        posts.iter().map(|post| std::str::from_utf8(&post.body).unwrap()).collect()
    }

    #[test]
    fn a_batch_is_one_json_array() {
        let posts = posts(&[event(1, "\"a\""), event(2, "{\"b\":1}")], Schema::V20250129, None, false);
        assert_eq!(posts.len(), 1);
        let array: Value = serde_json::from_slice(&posts[0].body).unwrap();
        assert_eq!(array[0]["record"], "a");
        assert_eq!(array[1]["record"]["b"], 1);
        assert_eq!(posts[0].events.len(), 2);
    }

    #[test]
    fn a_cut_record_reads_like_the_recorded_sample() {
        let batch = [event(1, r#"{"message":"AAAABBBB"}"#), event(2, "1")];
        let posts = posts(&batch, Schema::V20250129, Some(16), false);
        assert_eq!(
            texts(&posts),
            [
                r#"[{"time":"2026-09-03T14:29:52.929Z","type":"function","record":{"message":"AAAA}]"#,
                r#"[{"time":"2026-09-03T14:29:52.929Z","type":"function","record":BBBB"}},{"time":"2026-09-03T14:29:52.929Z","type":"function","record":1}]"#,
            ]
        );
        assert_eq!(posts[0].events.len(), 0);
        assert_eq!(posts[1].events.len(), 2);
    }

    #[test]
    fn earlier_events_travel_before_or_with_the_first_piece() {
        let batch = [event(1, "1"), event(2, r#""aaaabbbbcc""#)];
        let apart = posts(&batch, Schema::V20250129, Some(5), false);
        assert_eq!(apart.iter().map(|post| post.events.len()).collect::<Vec<_>>(), [1, 0, 0, 1]);
        let together = posts(&batch, Schema::V20250129, Some(5), true);
        assert_eq!(together.iter().map(|post| post.events.len()).collect::<Vec<_>>(), [1, 0, 1]);
        assert!(together[0].body.ends_with(br#""record":"aaaa}]"#));
    }
}
