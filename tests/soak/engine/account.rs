//! The account of a run: every record that was acknowledged is delivered, or counted as dropped by the extension.
//!
//! Both ends are read as they go, so that an hour needs no more memory than the records on their way. A record is known
//! by its kind and its content; records of the same content are told apart by their order. [`Account::close`] balances
//! what has come together since the last time, when nothing is on its way any more.
//!
//! Spans and data points are made by the extension, so how many there should be is not known here; but none of them may
//! come again without need either.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use outlast_backend::{Attributes, Record, Signal};
use outlast_simulator::Event;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

/// From here on numbers of requests are those of the fallback's, from 0.
pub(crate) const FALLBACK_FROM: u64 = 1 << 40;

/// What names of the extension's own metrics and records begin with.
const OWN: &str = "outlast.";

/// What stands before the value of a record in its envelope.
const RECORD: &str = r#""record":"#;

/// A record that came again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    /// It is what the extension says of itself.
    pub(crate) own: bool,
    /// The latest of the requests that had brought it.
    pub(crate) before: u64,
    /// The request that brought it again.
    pub(crate) again: u64,
}

/// Figures of a balanced stretch, or sums of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Balance {
    /// Records that Lambda has a 200 for.
    pub(crate) acknowledged: u64,
    /// Of these, records that the backend has.
    pub(crate) delivered: u64,
    /// Of these, records that the backend has not.
    pub(crate) missing: u64,
    /// Records that the extension says it dropped.
    pub(crate) dropped: u64,
    /// Records that the backend has and Lambda no 200 for: kept by a process that died before it could say so.
    pub(crate) unacknowledged: u64,
    /// Events that Lambda could not deliver, most of them because an environment ended.
    pub(crate) undelivered: u64,
    /// Parts of records that Lambda cut, delivered one by one because the environment ended in between.
    pub(crate) parts: u64,
    /// Of these, first parts: so many of the records that are missing have arrived, in parts.
    pub(crate) first_parts: u64,
    /// Records that arrived in requests of unknown fate only: what is dropped before it is sent once more has both arrived,
    /// perhaps several times, and been counted as dropped.
    pub(crate) unconfirmed: u64,
    /// Pairs of neighbours that changed places.
    pub(crate) swapped: u64,
    /// Records out of order in any other way.
    pub(crate) misordered: u64,
}

impl Balance {
    /// What is wrong. `innocent_after_500`: the backend answered 500, so neighbours may have changed places.
    pub(crate) fn problems(&self, innocent_after_500: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let lost = self.missing.saturating_sub(self.dropped + self.first_parts);
        if lost > 0 {
            problems.push(format!("{lost} records lost: {} missing, {} counted", self.missing, self.dropped));
        }
        // What was kept without Lambda's knowing may be dropped as well, and is counted then; of a record in parts, any part.
        if self.dropped > self.missing + self.undelivered + self.unconfirmed + self.parts {
            problems.push(format!("{} records counted as dropped, {} missing", self.dropped, self.missing));
        }
        if self.unacknowledged > self.undelivered {
            problems.push(format!(
                "{} records from nowhere: Lambda failed to deliver {}",
                self.unacknowledged, self.undelivered
            ));
        }
        if self.misordered > 0 {
            problems.push(format!("{} records out of order", self.misordered));
        }
        if self.swapped > 0 && !innocent_after_500 {
            problems.push(format!("{} neighbours changed places", self.swapped));
        }
        problems
    }

    /// Adds the figures of another stretch.
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.delivered += other.delivered;
        self.missing += other.missing;
        self.dropped += other.dropped;
        self.unacknowledged += other.unacknowledged;
        self.undelivered += other.undelivered;
        self.parts += other.parts;
        self.first_parts += other.first_parts;
        self.unconfirmed += other.unconfirmed;
        self.swapped += other.swapped;
        self.misordered += other.misordered;
    }
}

/// Kind and content of a record.
pub(crate) type Key = u128;

/// A record that came, as the account wants it.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// `None` for what the extension made itself, and for parts of records.
    key: Option<Key>,
    /// It is what the extension says of itself: a drop report, or its own metrics.
    own: bool,
    part: Option<Part>,
    uid: u128,
    request: u64,
    /// Of a drop report on log records: the reason and the records.
    report: Option<(String, u64)>,
}

/// What there is of a record that Lambda cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Its beginning.
    First,
    /// Any other.
    Later,
}

impl Part {
    /// By the text, which is that of the delivery: every part has the envelope, and the first one the beginning of a JSON
    /// value in it.
    fn of(attributes: &Attributes, text: &str) -> Option<Self> {
        if !["outlast.cut", "outlast.unparsed"].iter().any(|name| attributes.contains_key(*name)) {
            return None;
        }
        let (_, value) = text.split_once(RECORD)?;
        let is_first = value.starts_with('{') || value.starts_with('"') && !value.starts_with("\"}");
        Some(if is_first { Self::First } else { Self::Later })
    }
}

impl Arrival {
    /// The same, if it came to the fallback.
    pub(crate) fn at_fallback(self) -> Self {
        Self { request: self.request + FALLBACK_FROM, ..self }
    }

    /// What there is to note of a record.
    pub(crate) fn of(record: &Record) -> Self {
        if record.signal != Signal::Logs {
            let own = record.signal == Signal::Metrics && record.text.starts_with(OWN);
            let (uid, request) = (identity(record), record.request);
            return Self { key: None, own, part: None, uid, request, report: None };
        }
        let text = |name: &str| record.attributes.get(name).cloned().unwrap_or_default();
        let own = record.event_name == "outlast.dropped";
        // A report about another destination says nothing of the first one's.
        let is_told =
            text("outlast.dropped.signal") == "logs" && text("outlast.dropped.destination").is_null();
        let report = (own && is_told).then(|| {
            let reason = text("outlast.dropped.reason").as_str().unwrap_or_default().to_owned();
            (reason, text("outlast.dropped.records").as_u64().unwrap_or_default())
        });
        let part = Part::of(&record.attributes, &record.text);
        Self {
            key: (!own && part.is_none()).then(|| key_of_record(record)),
            own,
            part,
            uid: xxh3_128(record.uid.as_deref().unwrap_or_default().as_bytes()),
            request: record.request,
            report,
        }
    }
}

/// A place in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    number: u64,
    request: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Acknowledged and yet to come: places in the order of acknowledgement.
    pending: HashMap<Key, VecDeque<u64>>,
    /// Come and yet to be acknowledged.
    early: HashMap<Key, VecDeque<Place>>,
    /// Contents that were acknowledged or came more than once: which is which is not known.
    alike: HashSet<Key>,
    once: HashSet<Key>,
    came: HashSet<Key>,
    /// Places of acknowledgement and of arrival.
    pairs: Vec<(u64, Place, Key)>,
    acknowledged: u64,
    arrived: u64,
    /// The latest request that brought each uid, for the whole run.
    uids: HashMap<u128, u64>,
    /// Records of the function's and the platform's that no later request brought again.
    brought: HashMap<u64, u64>,
    repeats: Vec<Repeat>,
    reported: BTreeMap<String, u64>,
    parts: u64,
    first_parts: u64,
    /// A line that is waited for, until it comes.
    awaited: Option<Key>,
}

impl Account {
    /// Waits for a line of the function's: [`is_awaiting`](Self::is_awaiting) until it comes.
    pub(crate) fn wait_for(&mut self, line: &str) {
        self.awaited = Some(key("function", Value::from(line)));
    }

    /// Whether the line that was waited for last is still to come.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.awaited.is_some()
    }

    /// Lambda got a 200 for a record of this kind and content.
    pub(crate) fn acknowledge(&mut self, key: Key) {
        let place = self.acknowledged;
        self.acknowledged += 1;
        if !self.once.insert(key) {
            self.alike.insert(key);
        }
        match self.early.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(arrival) => self.pair(key, place, arrival),
            None => self.pending.entry(key).or_default().push_back(place),
        }
    }

    /// The backend took this.
    pub(crate) fn receive(&mut self, arrival: Arrival) {
        let Arrival { key, own, part, uid, request, report } = arrival;
        if !self.receive_key(key, uid, request) {
            if let Some(repeat) = self.repeats.last_mut() {
                repeat.own = own;
            }
            return;
        }
        self.parts += u64::from(part.is_some());
        self.first_parts += u64::from(part == Some(Part::First));
        if let Some((reason, records)) = report {
            *self.reported.entry(reason).or_default() += records;
        }
    }

    /// Whether it is new. `None` for a record of the extension's own.
    fn receive_key(&mut self, key: Option<Key>, uid: u128, request: u64) -> bool {
        if let Some(latest) = self.uids.get_mut(&uid) {
            let before = *latest;
            self.repeats.push(Repeat { own: false, before, again: request });
            // One that was given up may come after the one that followed it.
            if request > before {
                *latest = request;
                self.bring(key, request);
                if let Some(brought) = self.brought.get_mut(&before).filter(|_| key.is_some()) {
                    *brought -= 1;
                }
            }
            return false;
        }
        self.uids.insert(uid, request);
        self.bring(key, request);
        let Some(key) = key else { return true };
        self.awaited = self.awaited.filter(|awaited| *awaited != key);
        if !self.came.insert(key) {
            self.alike.insert(key);
        }
        let arrival = Place { number: self.arrived, request };
        self.arrived += 1;
        match self.pending.get_mut(&key).and_then(VecDeque::pop_front) {
            Some(place) => self.pair(key, place, arrival),
            None => self.early.entry(key).or_default().push_back(arrival),
        }
        true
    }

    fn bring(&mut self, key: Option<Key>, request: u64) {
        *self.brought.entry(request).or_default() += u64::from(key.is_some());
    }

    fn pair(&mut self, key: Key, place: u64, arrival: Place) {
        self.pairs.push((place, arrival, key));
    }

    /// Records acknowledged that have not come, dropped ones included.
    pub(crate) fn missing(&self) -> u64 {
        self.pending.values().map(|places| places.len() as u64).sum()
    }

    /// Records acknowledged since the last balance.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Records that came to the fallback last, since the last balance.
    pub(crate) fn handed_over(&self) -> u64 {
        self.brought
            .iter()
            .filter(|(request, _)| **request >= FALLBACK_FROM)
            .map(|(_, records)| records)
            .sum()
    }

    /// Takes the repeats noted so far.
    pub(crate) fn take_repeats(&mut self) -> Vec<Repeat> {
        std::mem::take(&mut self.repeats)
    }

    /// What drop reports said, by reason, for the whole run. A report that came twice counts once.
    pub(crate) fn reported(&self) -> &BTreeMap<String, u64> {
        &self.reported
    }

    /// Balances what has come together, and begins anew. Nothing may be on its way. `dropped` is what the extension says
    /// it dropped since the last time, `undelivered` what Lambda failed to deliver;
    /// `is_unknown` tells the requests whose fate the extension could not know.
    pub(crate) fn close(
        &mut self,
        dropped: u64,
        undelivered: u64,
        is_unknown: impl Fn(u64) -> bool,
    ) -> Balance {
        let unconfirmed = self.brought.iter().filter(|(request, _)| is_unknown(**request));
        let unconfirmed = unconfirmed.map(|(_, records)| *records).sum();
        let missing = self.missing();
        let unacknowledged = self.early.values().map(|arrivals| arrivals.len() as u64).sum();
        let mut pairs = std::mem::take(&mut self.pairs);
        // A request that was given up comes when the network brings it, and what goes to the fallback goes another way.
        pairs.retain(|(_, arrival, key)| {
            let is_told = arrival.request < FALLBACK_FROM && !is_unknown(arrival.request);
            is_told && !self.alike.contains(key)
        });
        pairs.sort_unstable();
        let arrivals: Vec<u64> = pairs.into_iter().map(|(_, arrival, _)| arrival.number).collect();
        let (swapped, misordered) = disorder(&arrivals);
        let balance = Balance {
            acknowledged: self.acknowledged,
            delivered: self.acknowledged - missing,
            missing,
            dropped,
            unacknowledged,
            undelivered,
            parts: self.parts,
            first_parts: self.first_parts,
            unconfirmed,
            swapped,
            misordered,
        };
        let uids = std::mem::take(&mut self.uids);
        let reported = std::mem::take(&mut self.reported);
        let repeats = std::mem::take(&mut self.repeats);
        *self = Self { uids, repeats, reported, ..Self::default() };
        balance
    }
}

/// Neighbours that changed places, and places out of order in other ways.
fn disorder(arrivals: &[u64]) -> (u64, u64) {
    let (mut swapped, mut misordered) = (0, 0);
    let mut arrivals = arrivals.to_vec();
    for at in 1..arrivals.len() {
        if arrivals[at - 1] < arrivals[at] {
            continue;
        }
        arrivals.swap(at - 1, at);
        let before = at < 2 || arrivals[at - 2] < arrivals[at - 1];
        let after = arrivals.get(at + 1).is_none_or(|next| arrivals[at] < *next);
        if before && after {
            swapped += 1;
        } else {
            misordered += 1;
        }
    }
    (swapped, misordered)
}

fn key(kind: &str, mut body: Value) -> Key {
    if let Value::String(text) = &mut body {
        *text = text.strip_suffix('\n').unwrap_or(text).to_owned();
    }
    xxh3_128(format!("{kind}\0{body}").as_bytes())
}

/// Kind and content of an event.
pub(crate) fn key_of_event(event: &Event) -> Key {
    let mut body = event.value();
    if matches!(&*event.kind, "function" | "extension")
        && let Some(message) = body.get_mut("message").map(Value::take)
    {
        body = message;
    }
    key(&event.kind, body)
}

/// What tells a span or a data point from every other: its id; or its name, attributes, times and value.
fn identity(record: &Record) -> u128 {
    let Record { signal, text, body, attributes, time_unix_nano, other_time_unix_nano, .. } = record;
    let told = format!("{signal:?} {} {} {text}", record.trace_id, record.span_id);
    let point = format!("{attributes:?} {other_time_unix_nano} {time_unix_nano} {body}");
    xxh3_128(if *signal == Signal::Traces { told } else { told + &point }.as_bytes())
}

fn key_of_record(record: &Record) -> Key {
    let kind = record.attributes.get("aws.lambda.telemetry.type").and_then(Value::as_str);
    key(kind.unwrap_or_default(), record.body.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acknowledges and receives numbers.
    fn account(acknowledged: &[u128], received: &[u128]) -> Account {
        let mut account = Account::default();
        for key in acknowledged {
            account.acknowledge(*key);
        }
        for (uid, key) in received.iter().enumerate() {
            account.receive_key(Some(*key), uid as u128, 0);
        }
        account
    }

    #[test]
    fn what_is_neither_delivered_nor_counted_is_lost() {
        let balance = account(&[1, 2, 3, 4], &[1, 4]).close(1, 0, |_| false);
        assert_eq!((balance.acknowledged, balance.delivered, balance.missing), (4, 2, 2));
        assert_eq!(balance.problems(false), ["1 records lost: 2 missing, 1 counted"]);
        assert_eq!(
            account(&[1, 2, 3, 4], &[1, 4]).close(2, 0, |_| false).problems(false),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_was_counted_without_being_missing_shows() {
        let problems = account(&[1, 2], &[1, 2]).close(1, 0, |_| false).problems(false);
        assert_eq!(problems, ["1 records counted as dropped, 0 missing"]);
    }

    #[test]
    fn a_record_that_came_in_parts_is_not_missing() {
        let part = |value: &str, uid: u128| {
            let text = format!(r#"{{"time":"T","type":"function","record":{value}}}"#);
            let attributes = [("outlast.cut".to_owned(), Value::from(true))].into_iter().collect();
            let part = Part::of(&attributes, &text);
            Arrival { key: None, own: false, part, uid, request: 0, report: None }
        };
        let mut account = account(&[1], &[]);
        for (value, uid) in [("\"one ", 1), ("more\"", 2), ("\"", 3)] {
            account.receive(part(value, uid));
        }
        let balance = account.close(0, 0, |_| false);
        assert_eq!((balance.missing, balance.parts, balance.first_parts), (1, 3, 1));
        assert_eq!(balance.problems(false), Vec::<String>::new());
    }

    #[test]
    fn a_record_nobody_tried_to_deliver_is_from_nowhere() {
        assert_eq!(account(&[1], &[1, 2]).close(0, 1, |_| false).problems(false), Vec::<String>::new());
        assert_eq!(account(&[1], &[1, 2]).close(0, 0, |_| false).problems(false).len(), 1);
    }

    #[test]
    fn arrival_before_the_acknowledgement_is_known_counts_as_well() {
        let mut account = Account::default();
        account.receive_key(Some(1), 1, 0);
        account.acknowledge(1);
        let balance = account.close(0, 0, |_| false);
        assert_eq!((balance.delivered, balance.unacknowledged), (1, 0));
    }

    #[test]
    fn a_uid_that_comes_again_is_a_repeat_and_no_delivery() {
        let mut account = account(&[1, 1], &[1]);
        assert!(!account.receive_key(Some(1), 0, 7));
        assert_eq!(account.take_repeats(), [Repeat { own: false, before: 0, again: 7 }]);
        assert_eq!(account.close(0, 0, |_| false).missing, 1);
    }

    #[test]
    fn what_came_in_requests_of_unknown_fate_only_may_be_counted_as_dropped_however_often_it_came() {
        let problems = |unknown: &'static [u64]| {
            let mut account = account(&[1], &[1]);
            account.receive_key(Some(1), 0, 7);
            account.receive_key(Some(1), 0, 3);
            account.close(1, 0, |request| unknown.contains(&request)).problems(false)
        };
        assert_eq!(problems(&[0, 3, 7]), Vec::<String>::new());
        assert_eq!(problems(&[0, 3]), ["1 records counted as dropped, 0 missing"], "the last one arrived");
    }

    #[test]
    fn a_repeat_is_judged_by_the_request_before_it() {
        let mut account = account(&[1], &[1]);
        for request in [5, 2, 9] {
            account.receive_key(Some(1), 0, request);
        }
        let expected = [(0, 5), (5, 2), (5, 9)].map(|(before, again)| Repeat { own: false, before, again });
        assert_eq!(account.take_repeats(), expected);
    }

    #[test]
    fn order_is_judged_by_what_is_unique() {
        assert_eq!(account(&[1, 2, 3, 4], &[1, 3, 2, 4]).close(0, 0, |_| false).swapped, 1);
        let balance = account(&[1, 2, 3, 4], &[4, 1, 2, 3]).close(0, 0, |_| false);
        assert!(balance.misordered > 0 && !balance.problems(true).is_empty(), "{balance:?}");
        assert_eq!(account(&[9, 1, 9], &[1, 9]).close(1, 0, |_| false).problems(false), Vec::<String>::new());
        // The first of two alike was kept without Lambda's knowing.
        let mut account = account(&[], &[9, 1, 9]);
        account.acknowledge(1);
        account.acknowledge(9);
        assert_eq!(account.close(0, 1, |_| false).problems(false), Vec::<String>::new());
    }
}
