//! Blocks whose records are lines, which is how every format made of JSON has them: a raw line feed never occurs within
//! JSON that we write, so records are found without reading them.
//!
//! ```text
//! head␊ record,␊ record,␊ record      a list: the head, if there is one, is a line of its own
//! record␊ record␊ record␊             a stream
//! ```
//! What closes a list that the head opens stands in the framing: between blocks, and after the last.

use std::ops::Range;

use super::{Parts, SplitError};

/// How lines make a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    /// The first line is the head.
    pub(super) has_head: bool,
    /// Lines of a record.
    pub(super) per_record: usize,
    /// What stands between two records, its line feed included; empty if every record ends with one.
    pub(super) separator: &'static [u8],
}

/// Records between commas.
pub(super) const COMMA: &[u8] = b",\n";

impl Lines {
    /// A stream of lines.
    pub(super) const STREAM: Self = Self { has_head: false, per_record: 1, separator: b"" };
    /// A list of lines.
    pub(super) const LIST: Self = Self { has_head: false, per_record: 1, separator: COMMA };
    /// A list within something that the head opens.
    pub(super) const HEADED_LIST: Self = Self { has_head: true, per_record: 1, separator: COMMA };

    /// See [`WireFormat::parts`](super::WireFormat::parts).
    pub(super) fn parts(self, plain: &[u8]) -> Result<Parts, SplitError> {
        let mut ends = plain.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let head_end =
            if self.has_head { ends.next().ok_or(SplitError::Truncated(plain.len()))? } else { 0 };
        let head = 0..head_end;
        let mut records = Vec::new();
        let mut start = head.end;
        while let Some(end) = ends.by_ref().nth(self.per_record.saturating_sub(1)) {
            if !plain.get(start..end).unwrap_or_default().ends_with(self.separator) {
                return Err(SplitError::Unexpected(end));
            }
            records.push(start..end);
            start = end;
        }
        match (self.separator.is_empty(), start < plain.len()) {
            (true, true) => Err(SplitError::Truncated(plain.len())),
            // A separator with nothing behind it.
            (false, false) if !records.is_empty() => Err(SplitError::Truncated(plain.len())),
            (_, rest) => {
                records.extend(rest.then_some(start..plain.len()));
                Ok(Parts { head, records })
            }
        }
    }

    /// See [`WireFormat::subset`](super::WireFormat::subset).
    pub(super) fn subset(self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        let chosen =
            parts.records.get(records.start..records.end.min(parts.records.len())).unwrap_or_default();
        let bytes = match (chosen.first(), chosen.last()) {
            (Some(first), Some(last)) => plain.get(first.start..last.end).unwrap_or_default(),
            _ => &[],
        };
        let bytes = bytes.strip_suffix(self.separator).unwrap_or(bytes);
        [plain.get(parts.head.clone()).unwrap_or_default(), bytes].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_such_block_is_told() {
        assert_eq!(Lines::STREAM.parts(b"{}\n{"), Err(SplitError::Truncated(4)));
        assert_eq!(Lines::LIST.parts(b"{},\n"), Err(SplitError::Truncated(4)));
        assert_eq!(Lines::LIST.parts(b"{}\n{}"), Err(SplitError::Unexpected(3)));
        assert_eq!(Lines::HEADED_LIST.parts(b"{}"), Err(SplitError::Truncated(2)));
        let pairs = Lines { per_record: 2, ..Lines::STREAM };
        assert_eq!(pairs.parts(b"{}\n{}\n{}\n"), Err(SplitError::Truncated(9)));
        for lines in [Lines::STREAM, Lines::LIST, pairs] {
            assert_eq!(lines.parts(b"").map(|parts| parts.records.len()), Ok(0));
        }
    }
}
