//! What arrived: every request in order, every record that was kept, and comparisons with what a test
//! expected.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;

use crate::record::{Keep, Record, Signal};

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Still under way.
    Pending,
    /// Answered 200.
    Accepted,
    /// Answered 200 with `partial_success`.
    Partial {
        /// The number of records said to be rejected.
        rejected: u64,
    },
    /// Answered with this status.
    Status(u16),
    /// Never answered; the sender left or was cut off.
    Hung,
    /// Reset by the backend.
    Reset,
    /// Broken off by the sender before the request was complete, or before the answer was due.
    Abandoned,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Request {
    /// Counted from 0 over all connections, in the order in which the heads arrived.
    pub number: u64,
    /// The connection that carried it, counted from 0.
    pub connection: u64,
    /// Whether the connection had carried another one before.
    pub reused_connection: bool,
    /// When its head had arrived.
    pub at: Instant,
    /// The same on the wall clock.
    pub at_wall: SystemTime,
    /// The method, `POST` if all is well.
    pub method: String,
    /// The path as sent.
    pub path: String,
    /// The signal of that path.
    pub signal: Option<Signal>,
    /// Headers as sent, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as it came, without any chunk framing; empty unless [`Builder::bodies`](crate::Builder::bodies) asks for it.
    pub body: Bytes,
    /// The body's length on the wire, without any chunk framing.
    pub wire_bytes: usize,
    /// The body's length when inflated.
    pub plain_bytes: usize,
    /// The number of records in the body; 0 if nothing asked for them.
    pub records: usize,
    /// Whether the records were kept.
    pub kept: bool,
    /// What became of it.
    pub verdict: Verdict,
    /// When the answer had been written.
    pub answered_at: Option<Instant>,
    /// What is wrong with the request, if anything is.
    pub defect: Option<String>,
}

impl Request {
    /// The value of a header, by its name in lower case; the first if there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The content encoding, `identity` if none was named.
    pub fn encoding(&self) -> &str {
        self.header("content-encoding").unwrap_or("identity")
    }
}

/// Everything that has arrived.
#[derive(Debug, Default)]
pub struct Received {
    keep: Keep,
    records: Vec<Record>,
    counts: [usize; Signal::ALL.len()],
    requests: Vec<Request>,
    pub(crate) connections: u64,
    pub(crate) failed_handshakes: usize,
    /// Bodies accepted whose records are not decoded yet.
    pub(crate) undecoded: usize,
}

/// A record that came more than once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// Its `log.record.uid`, or its text where it has none.
    pub what: String,
    /// How often it came.
    pub times: usize,
}

impl Received {
    pub(crate) fn new(keep: Keep) -> Self {
        Self { keep, ..Self::default() }
    }

    /// Records kept, in the order in which their requests were accepted.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Requests, in the order in which their heads arrived.
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// Requests with this verdict.
    pub fn requests_with(&self, verdict: &Verdict) -> usize {
        self.requests.iter().filter(|request| request.verdict == *verdict).count()
    }

    /// How many records of a signal were kept, also where only counts are remembered.
    pub fn count(&self, signal: Signal) -> usize {
        self.counts.get(signal as usize).copied().unwrap_or_default()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Connections that ended within the TLS handshake.
    pub fn failed_handshakes(&self) -> usize {
        self.failed_handshakes
    }

    /// Accepted bodies whose records are not decoded yet; 0 unless they are decoded after the answer.
    pub fn undecoded(&self) -> usize {
        self.undecoded
    }

    /// What was wrong with any request.
    pub fn defects(&self) -> Vec<&str> {
        self.requests.iter().filter_map(|request| request.defect.as_deref()).collect()
    }

    /// Texts of the log records, in order.
    pub fn texts(&self) -> Vec<&str> {
        self.logs().map(|record| record.text.as_str()).collect()
    }

    fn logs(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.signal == Signal::Logs)
    }

    /// Log records that came more than once, by uid where they have one, otherwise by text.
    pub fn repeated(&self) -> Vec<Repeat> {
        let mut times = HashMap::new();
        let mut order = Vec::new();
        for record in self.logs() {
            let what = record.uid.as_deref().unwrap_or(&record.text);
            let count = times.entry(what).or_insert(0_usize);
            if *count == 0 {
                order.push(what);
            }
            *count += 1;
        }
        let times_of = |what: &str| times.get(what).copied().unwrap_or_default();
        order
            .into_iter()
            .filter(|what| times_of(what) > 1)
            .map(|what| Repeat { what: what.to_owned(), times: times_of(what) })
            .collect()
    }

    /// The expected texts that did not come. A line end at the end of a text does not count.
    pub fn missing<'a, T: AsRef<str>>(&self, expected: &'a [T]) -> Vec<&'a str> {
        let came: HashSet<&str> = self.logs().map(|record| line(&record.text)).collect();
        expected.iter().map(|text| line(text.as_ref())).filter(|text| !came.contains(text)).collect()
    }

    /// Texts that came after one that was expected later. Repeats do not count (only the first arrival
    /// of a text does), nor do texts that were not expected. Expected texts must differ from each other.
    pub fn misordered<T: AsRef<str>>(&self, expected: &[T]) -> Vec<String> {
        let mut place: HashMap<&str, usize> =
            expected.iter().enumerate().map(|(at, text)| (line(text.as_ref()), at)).collect();
        let mut furthest = 0;
        let mut late = Vec::new();
        for record in self.logs() {
            let Some(at) = place.remove(line(&record.text)) else { continue };
            if at < furthest {
                late.push(record.text.clone());
            }
            furthest = furthest.max(at);
        }
        late
    }

    /// One line for a failing test.
    pub fn summary(&self) -> String {
        let counts: Vec<_> =
            Signal::ALL.iter().map(|signal| format!("{} {signal}", self.count(*signal))).collect();
        let mut verdicts: Vec<(String, usize)> = Vec::new();
        for request in &self.requests {
            let name = format!("{:?}", request.verdict);
            match verdicts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => verdicts.push((name, 1)),
            }
        }
        let verdicts: Vec<_> = verdicts.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
        format!(
            "{}; {} requests ({}); {} connections; defects {:?}",
            counts.join(", "),
            self.requests.len(),
            verdicts.join(", "),
            self.connections,
            self.defects(),
        )
    }

    pub(crate) fn take_records(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    pub(crate) fn begin(&mut self, mut request: Request) -> u64 {
        let number = self.requests.len() as u64;
        request.number = number;
        self.requests.push(request);
        number
    }

    pub(crate) fn request(&mut self, number: u64) -> Option<&mut Request> {
        usize::try_from(number).ok().and_then(|number| self.requests.get_mut(number))
    }

    pub(crate) fn add(&mut self, records: Vec<Record>) {
        for mut record in records {
            if let Some(count) = self.counts.get_mut(record.signal as usize) {
                *count += 1;
            }
            if self.keep != Keep::Counts {
                record.reduce(self.keep);
                self.records.push(record);
            }
        }
    }
}

/// A text without the line end that a log line was written with.
fn line(text: &str) -> &str {
    text.strip_suffix('\n').unwrap_or(text)
}

/// A condition was not met in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not met within {waited:?}; received: {summary}")]
pub struct Timeout {
    /// How long was waited.
    pub waited: Duration,
    /// What had arrived by then.
    pub summary: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Attributes;
    use std::sync::Arc;

    fn log(text: &str, uid: Option<&str>) -> Record {
        Record {
            signal: Signal::Logs,
            request: 0,
            text: text.to_owned(),
            body: serde_json::Value::Null,
            attributes: Attributes::new(),
            resource: Arc::default(),
            scope: "".into(),
            time_unix_nano: 0,
            other_time_unix_nano: 0,
            severity_number: 0,
            severity_text: String::new(),
            trace_id: String::new(),
            span_id: String::new(),
            event_name: String::new(),
            uid: uid.map(str::to_owned),
        }
    }

    fn received(texts: &[&str]) -> Received {
        let mut received = Received::default();
        received.add(texts.iter().map(|text| log(text, None)).collect());
        received
    }

    #[test]
    fn missing_lines_are_named() {
        assert_eq!(received(&["a", "c\n"]).missing(&["a\n", "b\n", "c"]), ["b"]);
    }

    #[test]
    fn order_is_judged_by_first_arrivals_of_expected_lines() {
        let expected = ["a", "b", "c", "d"];
        assert!(received(&["a", "b", "x", "a", "c", "d"]).misordered(&expected).is_empty());
        assert_eq!(received(&["a", "c", "b", "d"]).misordered(&expected), ["b"]);
        assert_eq!(received(&["d", "a", "b", "c"]).misordered(&expected), ["a", "b", "c"]);
    }

    #[test]
    fn repeats_are_told_by_uid_and_otherwise_by_text() {
        let mut received = Received::default();
        received.add(vec![log("same", Some("1")), log("same", Some("2")), log("same", Some("1"))]);
        received.add(vec![log("bare", None), log("bare", None), log("once", None)]);
        let repeats: Vec<_> = received.repeated().into_iter().map(|r| (r.what, r.times)).collect();
        assert_eq!(repeats, [("1".to_owned(), 2), ("bare".to_owned(), 2)]);
    }
}
