//! From the body of a Telemetry API delivery to the raw text of its events.
//!
//! A body is a JSON array `[{"time","type","record"}, …]`. It is split by structure alone, so that an event
//! nobody can make sense of costs its neighbours nothing.
//!
//! # Cut records
//! Lambda cuts a record that is larger than the buffer into consecutive deliveries, at any byte of the
//! record's value:
//! ```text
//! head    [ …whole events…, {"time":T,"type":"function","record":{"message":"AAAA }]
//! middle  [{"time":T,"type":"function","record": AAAA }]
//! tail    [{"time":T,"type":"function","record": AAAA"}} , …whole events… ]
//! ```
//! (spaces added). Every part carries the envelope and the closing `}]`, so no part is JSON and none says
//! that it is a part. [`split`] tells a head by its text: up to the closing `}]` it is the beginning of valid
//! JSON. [`join`] puts parts together and believes the result only if it is JSON, or again the beginning of
//! JSON.
//!
//! A middle or a tail can look like an ordinary array (text such as `AAAA` has no structure), so while a
//! head waits, the next body goes to [`join`] before it goes to [`split`]. When the other half never comes,
//! [`salvage`] gives everything the head holds.

use serde::de::IgnoredAny;

use super::event::usual_envelope;
use super::json::{self, Cursor};

/// What Lambda puts after the text of the last record, cut or not: the end of the envelope and of the array.
const FRAMING: &[u8] = b"}]";
/// How an envelope begins. The way back into step after the remains of a cut record.
const ENVELOPE_START: &[u8] = br#"{"time":"#;
/// At most this many places are tried for the way back into step; each costs a pass over the rest.
const RESYNC_MAX_ATTEMPTS: usize = 64;

/// What a body turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// An array; the raw text of its elements. They need not be valid JSON one by one.
    Events(Vec<&'a [u8]>),
    /// An array of which something is missing.
    Cut(Cut<'a>),
    /// Nothing that an event could be found in.
    Unreadable,
}

/// A body of which something is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    /// Everything the body holds, in order.
    pub pieces: Vec<Piece<'a>>,
    /// Whether the last piece may be continued by the next delivery: the body is worth keeping for [`join`].
    pub open: bool,
}

/// A part of a damaged body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The raw text of an element, for [`Event::parse`](super::Event::parse).
    Whole(&'a [u8]),
    /// What there is of an element, for [`Event::cut`](super::Event::cut).
    Fragment(&'a [u8]),
    /// The raw text of an element that is better not read, for [`Event::opaque`](super::Event::opaque).
    Opaque(&'a [u8]),
}

impl Piece<'_> {
    /// The same text, not to be read.
    #[must_use]
    pub fn unread(self) -> Self {
        match self {
            Self::Whole(raw) | Self::Fragment(raw) | Self::Opaque(raw) => Self::Opaque(raw),
        }
    }
}

/// What two consecutive bodies make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Join {
    /// The cut record is complete: a body to [`split`].
    Whole(Vec<u8>),
    /// They belong together and more is missing: a new head.
    StillCut(Vec<u8>),
    /// The second does not continue the first.
    Unrelated,
}

/// Splits the body of a delivery into the raw text of its events.
pub fn split(body: &[u8]) -> Split<'_> {
    let Some(start) = elements_start(body) else {
        return Split::Unreadable;
    };
    let scan = Scan::run(body, start);
    let Some(broken) = scan.broken else {
        return Split::Events(scan.whole);
    };
    let mut pieces: Vec<_> = scan.whole.into_iter().map(Piece::Whole).collect();
    let rest = body.get(broken..).unwrap_or_default().trim_ascii_end();
    if let Some(fragment) = open_fragment(rest) {
        pieces.push(Piece::Fragment(fragment));
        return Split::Cut(Cut { pieces, open: true });
    }
    let open = resync(rest, &mut pieces);
    match pieces.as_slice() {
        [Piece::Fragment(only)] if json::value_start(only, b"record").is_none() => Split::Unreadable,
        [] => Split::Unreadable,
        _ => Split::Cut(Cut { pieces, open }),
    }
}

/// Joins a body that ended in the middle of a record with the body that came next.
///
/// In a [`Join::Whole`] the cut record is complete and valid JSON.
pub fn join(head: &[u8], next: &[u8]) -> Join {
    joined(head, next).unwrap_or(Join::Unrelated)
}

fn joined(head: &[u8], next: &[u8]) -> Option<Join> {
    let Split::Cut(Cut { pieces, open: true }) = split(head) else {
        return None;
    };
    let Some(Piece::Fragment(fragment)) = pieces.last() else {
        return None;
    };
    let stem = head.trim_ascii_end().strip_suffix(FRAMING)?;
    let resumed = after_envelope(fragment, next)?;
    let mut body = Vec::with_capacity(stem.len() + resumed.len());
    body.extend_from_slice(stem);
    body.extend_from_slice(resumed);

    let start = stem.len().checked_sub(fragment.len())?;
    let scan = Scan::run(&body, start);
    let first_is_valid = scan.whole.first().map(|element| check(element) == Check::Valid);
    if first_is_valid == Some(false) {
        return None;
    }
    let Some(broken) = scan.broken else {
        // An empty list cannot be: the stem ends inside an element.
        return first_is_valid.map(|_| Join::Whole(body));
    };
    if open_fragment(body.get(broken..)?.trim_ascii_end()).is_some() {
        return Some(Join::StillCut(body));
    }
    first_is_valid.map(|_| Join::Whole(body))
}

/// Everything a body holds, taken as it is: for a head whose other half did not come.
pub fn salvage(head: &[u8]) -> Vec<Piece<'_>> {
    match split(head) {
        Split::Events(events) => events.into_iter().map(Piece::Whole).collect(),
        Split::Cut(cut) => cut.pieces,
        Split::Unreadable if head.trim_ascii().is_empty() => Vec::new(),
        Split::Unreadable => vec![Piece::Fragment(head)],
    }
}

/// Where the record begins in an element of a delivery, whole or cut. `None` if it has none.
pub(crate) fn record_start(element: &[u8]) -> Option<usize> {
    json::value_start(element, b"record").map(|(start, _)| start)
}

/// Where the elements of the array begin: after a byte order mark, white space and the bracket.
fn elements_start(body: &[u8]) -> Option<usize> {
    let mark = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let mut cursor = Cursor::new(body, mark);
    cursor.skip_space();
    cursor.eat(b'[').then(|| cursor.at())
}

struct Scan<'a> {
    whole: Vec<&'a [u8]>,
    /// Where the first element begins that does not end, or is not followed by a comma or the end.
    broken: Option<usize>,
}

impl<'a> Scan<'a> {
    /// Reads the elements of an array from `start`, which is after its bracket or before any element.
    fn run(body: &'a [u8], start: usize) -> Self {
        let mut whole = Vec::new();
        let mut cursor = Cursor::new(body, start);
        loop {
            cursor.skip_space();
            let start = cursor.at();
            if cursor.eat(b']') {
                cursor.skip_space();
                let broken = cursor.peek().map(|_| start);
                return Self { whole, broken };
            }
            let Some(element) = usual_line(&mut cursor).or_else(|| cursor.skip()) else {
                return Self { whole, broken: Some(start) };
            };
            cursor.skip_space();
            if cursor.eat(b',') || cursor.peek() == Some(b']') {
                whole.push(element);
            } else {
                return Self { whole, broken: Some(start) };
            }
        }
    }
}

/// Steps over a line that the function logged, as Lambda writes it: of such a one only the end of the line is looked for. `None`
/// without a step if it is anything else.
fn usual_line<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let start = cursor.at();
    let (_, line) = usual_envelope(cursor.rest())?;
    let mut ahead = cursor.clone();
    ahead.step(cursor.rest().len() - line.len());
    ahead.skip()?;
    if !ahead.eat(b'}') {
        return None;
    }
    *cursor = ahead;
    Some(cursor.since(start))
}

/// The text of a cut element without the framing, if `rest` is one that may be continued.
fn open_fragment(rest: &[u8]) -> Option<&[u8]> {
    let fragment = rest.strip_suffix(FRAMING)?;
    json::value_start(fragment, b"record")?;
    (check(fragment) == Check::Beginning).then_some(fragment)
}

/// What of `next` resumes the record that `fragment` is the beginning of.
fn after_envelope<'b>(fragment: &[u8], next: &'b [u8]) -> Option<&'b [u8]> {
    let (length, gap) = json::value_start(fragment, b"record")?;
    let (envelope, begun) = fragment.split_at_checked(length)?;
    let mut cursor = Cursor::new(next, elements_start(next)?);
    cursor.skip_space();
    let resumed = next.get(cursor.at()..)?.strip_prefix(envelope)?;
    // White space before the value is the framing's only if the framing puts it after every colon; otherwise
    // it belongs to the record.
    let framed = begun.starts_with(gap).then(|| resumed.strip_prefix(gap)).flatten();
    Some(framed.unwrap_or(resumed))
}

/// Takes apart what cannot be read from its start: the remains of a cut record, then events again, perhaps.
/// Returns whether the last piece may be continued.
fn resync<'a>(rest: &'a [u8], pieces: &mut Vec<Piece<'a>>) -> bool {
    let mut from = 1;
    for _ in 0..RESYNC_MAX_ATTEMPTS {
        let Some(at) = find_envelope(rest, from) else {
            break;
        };
        from = at + 1;
        let scan = Scan::run(rest, at);
        if !scan.whole.iter().all(|element| json::value_start(element, b"record").is_some()) {
            continue;
        }
        let open = match scan.broken {
            None => None,
            Some(broken) => match rest.get(broken..).and_then(open_fragment) {
                None => continue,
                fragment => fragment,
            },
        };
        let lost = rest.get(..at).unwrap_or_default().trim_ascii_end();
        pieces.push(Piece::Fragment(lost.strip_suffix(b",").unwrap_or(lost)));
        pieces.extend(scan.whole.into_iter().map(Piece::Whole));
        pieces.extend(open.map(Piece::Fragment));
        return open.is_some();
    }
    let text = rest.strip_suffix(b"]").unwrap_or(rest);
    if !text.is_empty() {
        pieces.push(Piece::Fragment(text));
    }
    false
}

/// The next place from `from` on where an envelope begins after a comma.
fn find_envelope(text: &[u8], from: usize) -> Option<usize> {
    let windows = text.get(from..)?.windows(ENVELOPE_START.len());
    let mut found = (from..).zip(windows).filter(|(_, window)| *window == ENVELOPE_START).map(|(at, _)| at);
    found.find(|at| text.get(..*at).is_some_and(|before| before.trim_ascii_end().ends_with(b"},")))
}

#[derive(Debug, PartialEq, Eq)]
enum Check {
    Valid,
    /// Valid as far as it goes.
    Beginning,
    Invalid,
}

/// Whether `text` is a JSON value, or the beginning of one, by the strict grammar.
fn check(text: &[u8]) -> Check {
    fn strict(text: &[u8]) -> Check {
        match serde_json::from_slice::<IgnoredAny>(text) {
            Ok(_) => Check::Valid,
            Err(error) if error.is_eof() => Check::Beginning,
            Err(_) => Check::Invalid,
        }
    }
    let checked = strict(text);
    // `1.`, `1e` and `-` at the end are reported as wrong numbers; with one more digit they are numbers that
    // something follows.
    if checked == Check::Invalid && matches!(text.last(), Some(b'.' | b'-' | b'+' | b'e' | b'E')) {
        return strict(&[text, b"0"].concat());
    }
    checked
}

#[cfg(test)]
mod tests;
