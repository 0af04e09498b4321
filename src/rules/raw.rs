//! JSON text that is redacted as text: what cannot be read, and the first part of a cut record, which has to wait on disk.
//!
//! # Cut records
//! The rest of a record that Lambda cut comes with the next delivery, and until then the first part lies on disk. What is
//! sensitive in it is taken out before. But something sensitive may begin at its very end, and nobody can tell before the
//! rest is there. So the last [`WITHHELD_MAX_BYTES`] stay in memory; on disk a mark stands for them. When the rest comes,
//! all of it is put together and read as if it had come at once. If it never comes, or another process gets it, what was
//! withheld is gone, and the mark says so.

use super::RuleSet;
use super::redact::Redaction;
use super::spans::replace;
use crate::record::{Piece, Split, record_start, split, unescaped, value_end};
use xxhash_rust::xxh3::xxh3_64;

/// The end of a first part that is not written to disk: longer than any secret that the detectors know and most that users
/// do, a private key of 4,096 bits (3.2 KiB) among them.
pub(super) const WITHHELD_MAX_BYTES: usize = 4 << 10;
/// What is found at the very end of a first part may go on in the rest. Up to this length it is left to what is withheld:
/// JSON writes a byte in 6 at most. What is longer is taken out at once.
const UNFINISHED_MAX_BYTES: usize = 512;
/// Stands for what was withheld.
const WITHHELD_MARK: &[u8] = b" [outlast: up to 4096 bytes withheld] ";

/// Whether a text goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// This is all of it.
    Known,
    /// The rest comes later, and must fit to it.
    Open,
}

/// What `raw` is without what `redaction` finds; `None` if that is nothing. Strings and numbers are looked at one by one,
/// strings as what they mean; everything else stays, so that JSON stays JSON, and its beginning a beginning.
pub(super) fn walk(raw: &[u8], redaction: &mut Redaction, end: End) -> Option<Vec<u8>> {
    let mut walk =
        Walk { raw, redaction, end, out: Vec::with_capacity(raw.len()), found: false, inside: false };
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        at = match byte {
            b'"' => walk.string(at),
            b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => {
                walk.out.push(byte);
                at + 1
            }
            _ => walk.scalar(at),
        };
    }
    walk.found.then_some(walk.out)
}

struct Walk<'w> {
    raw: &'w [u8],
    redaction: &'w mut Redaction,
    end: End,
    out: Vec<u8>,
    found: bool,
    /// Within the value of a sensitive name, which does not end.
    inside: bool,
}

impl Walk<'_> {
    fn copy(&mut self, from: usize, to: usize) {
        self.out.extend_from_slice(self.raw.get(from..to).unwrap_or_default());
    }

    fn blanks(&self, at: usize) -> usize {
        let rest = self.raw.get(at..).unwrap_or_default();
        at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
    }

    fn mark(&mut self) {
        self.found = true;
        self.out.push(b'"');
        self.out.extend_from_slice(self.redaction.with.as_bytes());
        self.out.push(b'"');
    }

    /// The string that begins at `at`, and if it is a sensitive name, its value.
    fn string(&mut self, at: usize) -> usize {
        let Some(end) = value_end(self.raw, at) else { return self.open_string(at) };
        let colon = self.blanks(end);
        let is_name = self.raw.get(colon) == Some(&b':');
        let text = unescaped(self.raw.get(at + 1..end - 1).unwrap_or_default());
        let redacted = self.redaction.text(&text);
        if self.inside && !is_name {
            self.mark();
        } else if let Some(redacted) = redacted {
            self.found = true;
            self.out.extend_from_slice(&quoted(&redacted));
        } else {
            self.copy(at, end);
        }
        if !is_name {
            return end;
        }
        self.copy(end, colon + 1);
        // Within a value that does not end all is taken out anyway; looking for the end of each would go through the rest
        // for each.
        if self.inside || !self.redaction.keys.has(&text) {
            return colon + 1;
        }
        let value = self.blanks(colon + 1);
        let ends = |end: &usize| self.end == End::Known || *end < self.raw.len();
        if let Some(end) = value_end(self.raw, value).filter(ends) {
            self.mark();
            end
        } else {
            self.inside = true;
            colon + 1
        }
    }

    /// The string that begins at `at` and has no end.
    fn open_string(&mut self, at: usize) -> usize {
        self.out.push(b'"');
        if self.inside {
            self.found = true;
            self.out.extend_from_slice(self.redaction.with.as_bytes());
            return self.raw.len();
        }
        let begun = self.raw.get(at + 1..).unwrap_or_default();
        let (whole, _) = whole_units(begun, begun.len(), true);
        let text = unescaped(begun.get(..whole).unwrap_or_default());
        let mut spans = Vec::new();
        self.redaction.places(&text, &mut spans);
        if self.end == End::Open {
            spans.retain(|span| span.end < text.len() || span.end - span.start > UNFINISHED_MAX_BYTES);
        }
        match replace(&text, &mut spans, &self.redaction.with) {
            Some(redacted) => {
                self.found = true;
                let quoted = quoted(&redacted);
                self.out.extend_from_slice(quoted.get(1..quoted.len() - 1).unwrap_or_default());
                self.copy(at + 1 + whole, self.raw.len());
            }
            None => self.copy(at + 1, self.raw.len()),
        }
        self.raw.len()
    }

    /// The number that begins at `at`, or whatever has no quotes.
    fn scalar(&mut self, at: usize) -> usize {
        let end = value_end(self.raw, at).unwrap_or(at + 1).max(at + 1);
        let token = self.raw.get(at..end).unwrap_or_default();
        let goes_on = end == self.raw.len() && self.end == End::Open && token.len() <= UNFINISHED_MAX_BYTES;
        if goes_on {
            self.copy(at, end);
        } else if self.inside {
            self.mark();
        } else if let Some(redacted) = self.redaction.text(&String::from_utf8_lossy(token)) {
            self.found = true;
            self.out.extend_from_slice(&quoted(&redacted));
        } else {
            self.copy(at, end);
        }
        end
    }
}

fn quoted(text: &str) -> Vec<u8> {
    // Writing a string to memory does not fail.
    serde_json::to_vec(text).unwrap_or_else(|_| b"\"\"".to_vec())
}

/// How much of `text`, up to `limit`, consists of whole characters and escapes, and whether that ends within a string.
fn whole_units(text: &[u8], limit: usize, mut in_string: bool) -> (usize, bool) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let length = match byte {
            b'\\' if in_string => match text.get(at + 1) {
                // With the second half of a pair, if it has one.
                Some(b'u') if is_high_surrogate(text.get(at + 2..at + 6)) => 12,
                Some(b'u') => 6,
                _ => 2,
            },
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            _ => 1,
        };
        if at + length > limit {
            break;
        }
        in_string ^= byte == b'"';
        at += length;
    }
    (at, in_string)
}

fn is_high_surrogate(digits: Option<&[u8]>) -> bool {
    matches!(digits, Some([b'd' | b'D', b'8'..=b'9' | b'a'..=b'b' | b'A'..=b'B', ..]))
}

/// What is not on disk of a first part.
#[derive(Clone, Debug)]
pub struct Withheld {
    /// Hash of what is on disk.
    stored: u64,
    /// Where it continues there.
    at: usize,
    tail: Vec<u8>,
}

/// How the body of a delivery ends, also one that is cut.
const FRAMING: &[u8] = b"}]";

impl Withheld {
    /// The first part as it came, less what was taken out, if `stored` is what is on disk of it.
    pub fn restore(&self, stored: &[u8]) -> Option<Vec<u8>> {
        let stem = stored.get(..self.at).filter(|_| xxh3_64(stored) == self.stored)?;
        Some([stem, &self.tail, FRAMING].concat())
    }
}

impl RuleSet {
    /// The body of a delivery that ends within a record, made of `pieces`, as it may wait on disk, and what may not be there.
    pub fn withhold(&mut self, pieces: &[Piece<'_>]) -> (Vec<u8>, Withheld) {
        let mut body = vec![b'['];
        let mut record = Vec::new();
        for piece in pieces {
            let (Piece::Whole(raw) | Piece::Fragment(raw) | Piece::Opaque(raw)) = piece;
            let (envelope, value) = raw.split_at(record_start(raw).unwrap_or_default());
            if body.len() > 1 {
                body.push(b',');
            }
            body.extend_from_slice(envelope);
            if matches!(piece, Piece::Fragment(_)) {
                record = self.walked(value, End::Open);
            } else {
                body.extend_from_slice(&self.walked(value, End::Known));
            }
        }
        let limit = record.len().saturating_sub(WITHHELD_MAX_BYTES);
        let (kept, in_string) = whole_units(&record, limit, false);
        let stored = |kept: usize, mark: &[&[u8]]| {
            let stem = [body.as_slice(), record.get(..kept).unwrap_or_default()].concat();
            [&stem, mark.concat().as_slice(), FRAMING].concat()
        };
        let mut at = kept;
        let mut on_disk = stored(kept, if in_string { &[WITHHELD_MARK] } else { &[] });
        if !matches!(split(&on_disk), Split::Cut(cut) if cut.open) {
            // So little is left that it looks complete.
            at = 0;
            on_disk = stored(0, &[b"\"", WITHHELD_MARK]);
        }
        let tail = record.split_off(at);
        let withheld = Withheld { stored: xxh3_64(&on_disk), at: body.len() + at, tail };
        (on_disk, withheld)
    }

    /// By every rule that redacts, whatever its conditions: they cannot be asked of what is not read.
    fn walked(&mut self, raw: &[u8], end: End) -> Vec<u8> {
        let mut text = raw.to_vec();
        for redaction in self.redactions() {
            if let Some(walked) = walk(&text, redaction, end) {
                text = walked;
            }
        }
        text
    }
}
