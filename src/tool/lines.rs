//! What the fallback wrote to stdout, in a file of text: what CloudWatch Logs gave back of it, with whatever stands around its
//! lines. Each is JSON without a brace within, also where it is text within other JSON, so it is found by its name and ends
//! with the first brace that closes.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem;
use serde::Deserialize;

use crate::Signal;

/// What each line has in front, after a brace and a quotation mark, which may be escaped.
const NAME: &str = "outlast.fallback";
/// The longest start of a line: `{\"`.
const START_MAX_BYTES: usize = 3;
/// The form that is known here.
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "outlast.fallback")]
    version: u32,
    id: String,
    part: usize,
    parts: usize,
    signal: String,
    format: String,
    encoding: String,
    body: String,
}

/// A body, as far as it is there.
#[derive(Debug)]
pub(super) struct Body {
    /// What tells it from others.
    pub(super) id: String,
    pub(super) signal: Signal,
    /// Its media type.
    pub(super) format: String,
    pub(super) is_gzip: bool,
    parts: usize,
    found: BTreeMap<usize, Vec<u8>>,
}

impl Body {
    /// All of it, if no line is missing.
    pub(super) fn whole(&self) -> Option<Vec<u8>> {
        let is_whole = self.found.keys().copied().eq(1..=self.parts);
        is_whole.then(|| self.found.values().flatten().copied().collect())
    }
}

/// The bodies in `text`, in the order in which they begin, and how many lines are none that can be read.
pub(super) fn bodies(text: &[u8]) -> (Vec<Body>, u64) {
    let mut bodies: Vec<Body> = Vec::new();
    let mut places = BTreeMap::new();
    let mut unreadable = BTreeSet::new();
    for at in memmem::find_iter(text, NAME) {
        let Some((line, body, signal)) = line(text, at) else {
            unreadable.insert(at);
            continue;
        };
        let place = *places.entry(line.id.clone()).or_insert(bodies.len());
        if place == bodies.len() {
            bodies.push(Body {
                id: line.id,
                signal,
                format: line.format,
                is_gzip: line.encoding == "gzip",
                parts: line.parts,
                found: BTreeMap::new(),
            });
        }
        if let Some(known) = bodies.get_mut(place) {
            known.found.insert(line.part, body);
        }
    }
    (bodies, unreadable.len() as u64)
}

/// The line whose name is at `name_at`, its part of a body, and the signal.
fn line(text: &[u8], name_at: usize) -> Option<(Line, Vec<u8>, Signal)> {
    let before = text.get(name_at.saturating_sub(START_MAX_BYTES)..name_at)?;
    let start = name_at - (before.len() - before.iter().rposition(|byte| *byte == b'{')?);
    let line = text.get(start..)?;
    let line = line.get(..=memchr::memchr(b'}', line)?)?;
    let line: Line = serde_json::from_str(&std::str::from_utf8(line).ok()?.replace("\\\"", "\"")).ok()?;
    let signal = Signal::ALL.into_iter().find(|signal| signal.name() == line.signal)?;
    let body = STANDARD.decode(&line.body).ok()?;
    (line.version == VERSION).then_some((line, body, signal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn written(id: &str, part: usize, parts: usize, body: &str) -> String {
        let body = STANDARD.encode(body);
        format!(
            r#"{{"outlast.fallback":1,"id":"{id}","part":{part},"parts":{parts},"signal":"logs","format":"application/json","encoding":"identity","records":1,"body":"{body}"}}"#
        )
    }

    #[test]
    fn lines_are_found_and_joined_whatever_stands_around_them() {
        let (first, second) = (written("a", 1, 2, "one "), written("a", 2, 2, "two"));
        let other = written("b", 1, 1, "three");
        for text in [
            format!("{first}\n{other}\n{second}\n"),
            format!("START {{}}\n2026-05-01T10:15:30Z {second}\tEND\n{first}\t{first}\t{other}"),
            json!({"events": [{"message": first}, {"message": second}, {"message": other}]}).to_string(),
        ] {
            let (mut bodies, unreadable) = bodies(text.as_bytes());
            bodies.sort_by(|a, b| a.id.cmp(&b.id));
            let found: Vec<_> = bodies.iter().map(|body| (&*body.id, body.whole().unwrap())).collect();
            assert_eq!(found, [("a", b"one two".to_vec()), ("b", b"three".to_vec())], "{text}");
            assert_eq!(unreadable, 0);
        }
    }

    #[test]
    fn what_is_missing_is_noticed() {
        let (bodies, unreadable) = bodies(written("a", 2, 2, "two").as_bytes());
        assert_eq!((bodies.len(), unreadable), (1, 0));
        assert!(bodies[0].whole().is_none());
        let cut = written("a", 1, 1, "one");
        let later = cut.replace("fallback\":1", "fallback\":2");
        for text in [&cut[..60], &later, "outlast.fallback", r#"{"outlast.fallback":1}"#] {
            let (bodies, unreadable) = super::bodies(text.as_bytes());
            assert_eq!((bodies.len(), unreadable), (0, 1), "{text}");
        }
    }
}
