//! A lenient JSON reader over bytes.
//!
//! Telemetry is JSON written by many hands: raw control characters, lone surrogates and broken UTF-8 do
//! occur, and a reader that refuses them loses records. So structure (brackets, quotes, escapes) is found
//! byte by byte, without recursion and without looking at what strings contain; text is decoded afterwards
//! and never fails. `serde_json` is not used for values because it refuses the above and rounds long numbers.

use std::borrow::Cow;

use super::words::first;

/// So many words of eight bytes are looked at before `memchr`, whose vectors take longer to set up: names and times end
/// within them.
const NEAR_WORDS: usize = 4;

/// The offset of the first quote.
fn quote(bytes: &[u8]) -> Option<usize> {
    let (words, _) = bytes.as_chunks();
    let mut at = 0;
    for word in words.iter().take(NEAR_WORDS) {
        if let Some(place) = first(b'"', u64::from_le_bytes(*word)) {
            return Some(at + place);
        }
        at += size_of::<u64>();
    }
    Some(at + memchr::memchr(b'"', bytes.get(at..)?)?)
}

/// A place in JSON text.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// What has not been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Steps over so many bytes.
    pub(super) fn step(&mut self, bytes: usize) {
        self.at += bytes;
    }

    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over `byte` if it is next.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// What has been read since `start`.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// Steps over a string and gives what stands between its quotes, escapes untouched. `None` if it does not
    /// end.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        if !self.eat(b'"') {
            return None;
        }
        let start = self.at;
        loop {
            self.at += quote(self.rest())?;
            // A quote is escaped by an odd number of backslashes. Each is counted for one quote at most.
            let inside = self.since(start);
            self.at += 1;
            let escapes = inside.iter().rev().take_while(|byte| **byte == b'\\').count();
            if escapes % 2 == 0 {
                return Some(inside);
            }
        }
    }

    /// Steps over a number, a literal, or any other run of bytes that could only be one.
    pub(super) fn token(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        while let Some(byte) = self.peek() {
            if matches!(byte, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']' | b' ' | b'\t' | b'\n' | b'\r') {
                break;
            }
            self.at += 1;
        }
        Some(self.since(start)).filter(|token| !token.is_empty())
    }

    /// Steps over one value by its structure alone: brackets are counted, strings are honoured, nothing else
    /// is looked at. Depth costs no stack. `None` if the value does not end.
    pub(super) fn skip(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let close = match self.peek()? {
            b'"' => {
                self.string()?;
                return Some(self.since(start));
            }
            b'{' => b'}',
            b'[' => b']',
            _ => return self.token(),
        };
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                byte @ (b'}' | b']') => {
                    depth -= 1;
                    if depth == 0 {
                        self.at += 1;
                        return (byte == close).then(|| self.since(start));
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
    }
}

/// The members of an object as raw text: keys between their quotes, values as they stand.
///
/// Yields `None` once, as its last item, where the text stops being an object.
#[derive(Debug)]
pub(super) struct Members<'a> {
    cursor: Cursor<'a>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Start,
    Inside,
    Done,
}

enum Key<'a> {
    Name(&'a [u8]),
    End,
}

impl<'a> Members<'a> {
    pub(super) const fn new(object: &'a [u8]) -> Self {
        Self { cursor: Cursor::new(object, 0), state: State::Start }
    }

    /// Reads a member's key and colon, leaving the cursor before the value, or the closing brace.
    fn key(&mut self) -> Option<Key<'a>> {
        let cursor = &mut self.cursor;
        cursor.skip_space();
        if self.state == State::Start {
            if !cursor.eat(b'{') {
                return None;
            }
            cursor.skip_space();
            if cursor.eat(b'}') {
                return Some(Key::End);
            }
            self.state = State::Inside;
        } else if cursor.eat(b'}') {
            return Some(Key::End);
        } else if !cursor.eat(b',') {
            return None;
        }
        cursor.skip_space();
        let key = cursor.string()?;
        cursor.skip_space();
        cursor.eat(b':').then_some(Key::Name(key))
    }

    fn value(&mut self) -> Option<&'a [u8]> {
        self.cursor.skip_space();
        self.cursor.skip()
    }

    fn at_end(&mut self) -> bool {
        self.cursor.skip_space();
        self.cursor.peek().is_none()
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Option<(&'a [u8], &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        match self.key() {
            Some(Key::Name(key)) => {
                if let Some(value) = self.value() {
                    return Some(Some((key, value)));
                }
            }
            Some(Key::End) if self.at_end() => {
                self.state = State::Done;
                return None;
            }
            _ => {}
        }
        self.state = State::Done;
        Some(None)
    }
}

/// Where the value of the member `name` begins (right after the colon), and the white space that follows the
/// colon of the first member. Members before it must be complete; what follows may be cut anywhere.
pub(super) fn value_start<'a>(object: &'a [u8], name: &[u8]) -> Option<(usize, &'a [u8])> {
    let mut members = Members::new(object);
    let mut gap = None;
    loop {
        let Key::Name(key) = members.key()? else {
            return None;
        };
        let start = members.cursor.at();
        members.cursor.skip_space();
        let gap = *gap.get_or_insert(members.cursor.since(start));
        if key == name {
            return Some((start, gap));
        }
        members.value()?;
    }
}

/// Where the value that begins at `start` ends, by its structure alone. `None` if it does not.
pub(crate) fn value_end(text: &[u8], start: usize) -> Option<usize> {
    let mut cursor = Cursor::new(text, start);
    cursor.skip()?;
    Some(cursor.at())
}

/// The text of a string, given what stands between its quotes. Borrowed unless it has escapes or broken
/// UTF-8.
///
/// Nothing is refused: a lone surrogate or an unknown escape stays as it was written, backslash included, and
/// bytes that are not UTF-8 become U+FFFD.
pub(crate) fn text(inside: &[u8]) -> Cow<'_, str> {
    if memchr::memchr(b'\\', inside).is_none() {
        return lossy(inside);
    }
    let mut out = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(at);
        out.extend_from_slice(plain);
        let used = unescape(escape, &mut out);
        rest = escape.get(used..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    match String::from_utf8(out) {
        Ok(text) => Cow::Owned(text),
        Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
    }
}

/// `String::from_utf8_lossy`, which goes byte by byte, only where it changes something.
fn lossy(text: &[u8]) -> Cow<'_, str> {
    str::from_utf8(text).map_or_else(|_| String::from_utf8_lossy(text), Cow::Borrowed)
}

/// Writes what the escape at the start of `escape` stands for; returns how many bytes it took, at least one.
fn unescape(escape: &[u8], out: &mut Vec<u8>) -> usize {
    let plain = match escape.get(1) {
        Some(b'n') => b'\n',
        Some(b't') => b'\t',
        Some(b'r') => b'\r',
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
        Some(b'u') => return unescape_unit(escape, out),
        _ => {
            out.push(b'\\');
            return 1;
        }
    };
    out.push(plain);
    2
}

/// `\uXXXX`, or a surrogate pair of two.
fn unescape_unit(escape: &[u8], out: &mut Vec<u8>) -> usize {
    let Some(unit) = hex4(escape.get(2..6)) else {
        out.push(b'\\');
        return 1;
    };
    let (code, used) = match (unit, escape.get(6..8), hex4(escape.get(8..12))) {
        (0xd800..=0xdbff, Some(b"\\u"), Some(low @ 0xdc00..=0xdfff)) => {
            (0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00), 12)
        }
        _ => (unit, 6),
    };
    if let Some(decoded) = char::from_u32(code) {
        out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        out.extend_from_slice(escape.get(..used).unwrap_or_default());
    }
    used
}

fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |unit, &digit| Some((unit << 4) | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_found_at_every_offset() {
        for length in 0..100 {
            let mut bytes = vec![b'!'; length]; // '!' is '"' less one: the borrow a word-wise search can trip on
            assert_eq!(quote(&bytes), None);
            for at in 0..length {
                bytes[at] = b'"';
                assert_eq!(quote(&bytes), Some(at));
                bytes[at] = b'!';
            }
        }
    }

    #[test]
    fn a_string_ends_at_the_first_quote_that_is_not_escaped() {
        for (json, inside) in [
            (r#""""#, Some("")),
            (r#""a"b""#, Some("a")),
            (r#""a\"b"c"#, Some(r#"a\"b"#)),
            (r#""a\\"b""#, Some(r"a\\")),
            (r#""a\\\"b"c"#, Some(r#"a\\\"b"#)),
            (r#""\"\"\\""#, Some(r#"\"\"\\"#)),
            (r#""a\""#, None),
            (r#""\"#, None),
            (r#"""#, None),
            (r#"a""#, None),
        ] {
            assert_eq!(Cursor::new(json.as_bytes(), 0).string(), inside.map(str::as_bytes), "{json}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_stays_as_it_was_written() {
        assert_eq!(text(br"a\ud83d\ude00b"), "a\u{1f600}b");
        assert_eq!(text(br"a\ud83db"), r"a\ud83db");
        assert_eq!(text(br"\ude00\ud83d"), r"\ude00\ud83d");
        assert_eq!(text(br"\ud83d\u0041"), r"\ud83dA");
        assert_eq!(text(br"\q\u12x\"), r"\q\u12x\");
        assert_eq!(text(b"a\xffb\\n"), "a\u{fffd}b\n");
        assert_eq!(text(b"tab\there"), "tab\there");
        assert!(matches!(text("plain é".as_bytes()), Cow::Borrowed("plain é")));
    }

    #[test]
    fn members_end_with_none_where_the_object_breaks() {
        let all: Vec<_> = Members::new(br#" {"a": [1,{"b":"}"}] , "c":2}"#).collect();
        assert_eq!(all, [Some((&b"a"[..], &br#"[1,{"b":"}"}]"#[..])), Some((b"c", b"2"))]);
        assert_eq!(Members::new(b"{}").count(), 0);
        for broken in [&b"{"[..], b"", b"3", br#"{"a"}"#, br#"{"a":}"#, b"{}x", b"{,}"] {
            assert_eq!(Members::new(broken).last(), Some(None), "{}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = [vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat();
        assert_eq!(Cursor::new(&deep, 0).skip(), Some(&deep[..]));
    }
}
