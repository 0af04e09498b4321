//! What an object of the fallback holds: the blocks of a request between what its framing puts there, and in each block its
//! records.
//!
//! The queue knows where a block ends; an object does not say. In formats whose blocks open a list of their own
//! (`otlp-json`, `loki`, `newrelic`) the line between two blocks holds the last record of the one, the separator, and the
//! head of the next. Text may look like a separator, so the record is read as the JSON value that it is.

use std::ops::Range;

use serde::de::IgnoredAny;

use crate::Signal;
use crate::encode::{Framing, Parts, Protocol, WireFormat};

/// The body of an object, and where its records are.
pub(super) struct Content<'a> {
    framing: Framing,
    wire: Box<dyn WireFormat>,
    blocks: Vec<(&'a [u8], Parts)>,
}

impl<'a> Content<'a> {
    /// Reads a body; `None` if it is not what `protocol` sends.
    pub(super) fn read(signal: Signal, plain: &'a [u8], protocol: Protocol) -> Option<Self> {
        let wire = protocol.wire();
        let framing = wire.framing(signal);
        let inner = plain.strip_prefix(framing.prefix)?.strip_suffix(framing.suffix)?;
        let blocks = match wire.parts(inner) {
            Ok(parts) => vec![(inner, parts)],
            Err(_) => blocks(inner, framing.separator, wire.separator())?
                .into_iter()
                .map(|range| {
                    let block = inner.get(range)?;
                    Some((block, wire.parts(block).ok()?))
                })
                .collect::<Option<Vec<_>>>()?,
        };
        Some(Self { framing, wire, blocks })
    }

    pub(super) fn records(&self) -> usize {
        self.blocks.iter().map(|(_, parts)| parts.records.len()).sum()
    }

    /// A body of some of the records.
    pub(super) fn part(&self, range: Range<usize>) -> Vec<u8> {
        let mut first = 0;
        let mut subsets = Vec::new();
        for (block, parts) in &self.blocks {
            let count = parts.records.len();
            let within = |at: usize| at.saturating_sub(first).min(count);
            let chosen = within(range.start)..within(range.end);
            if !chosen.is_empty() {
                subsets.push(self.wire.subset(block, parts, chosen));
            }
            first += count;
        }
        [self.framing.prefix, &subsets.join(self.framing.separator), self.framing.suffix].concat()
    }
}

/// Where the blocks are that `between` separates; `separator` stands between their records.
fn blocks(inner: &[u8], between: &[u8], separator: &[u8]) -> Option<Vec<Range<usize>>> {
    if between.is_empty() {
        return None;
    }
    let (mut found, mut start, mut at) = (Vec::new(), 0, 0);
    for line in inner.split_inclusive(|byte| *byte == b'\n') {
        let is_head = at == start;
        if !is_head && line.ends_with(b"\n") && !line.ends_with(separator) {
            let record = value_len(line)?;
            line.get(record..)?.strip_prefix(between)?;
            found.push(start..at + record);
            start = at + record + between.len();
        }
        at += line.len();
    }
    found.push(start..inner.len());
    Some(found)
}

/// The length of the JSON value that `text` begins with.
fn value_len(text: &[u8]) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{LogRecord, Resource, Value};

    /// Two blocks in which text looks like what stands between blocks.
    fn body(protocol: Protocol) -> (Vec<u8>, usize) {
        let wire = protocol.wire();
        let framing = wire.framing(Signal::Logs);
        let text = format!("a {} b [", String::from_utf8_lossy(framing.separator));
        let resource =
            Resource { attributes: vec![("service.name".into(), Value::Str(text.clone().into()))] };
        let block = |count: usize| {
            let mut records = Vec::new();
            for number in 0..count {
                if number > 0 {
                    records.extend_from_slice(wire.separator());
                }
                let body = Value::Str(format!("{text}{number}").into());
                wire.log(&resource, &LogRecord { body, ..LogRecord::default() }, &mut records);
            }
            let mut block = Vec::new();
            wire.block_head(Signal::Logs, &resource, records.len(), &mut block);
            block.extend_from_slice(&records);
            block
        };
        let blocks = [block(3), block(1), block(2)].join(framing.separator);
        ([framing.prefix, &blocks, framing.suffix].concat(), 6)
    }

    #[test]
    fn several_blocks_are_taken_apart_between_records_in_every_format() {
        for protocol in Protocol::ALL {
            let (plain, count) = body(protocol);
            let content = Content::read(Signal::Logs, &plain, protocol).unwrap();
            assert_eq!(content.records(), count, "{protocol:?}");
            assert!(content.part(0..count) == plain, "{protocol:?}: the whole is what it was");
            for range in [0..1, 2..4, 3..6, 5..6] {
                let part = content.part(range.clone());
                let again = Content::read(Signal::Logs, &part, protocol).unwrap();
                assert_eq!(again.records(), range.len(), "{protocol:?} {range:?}");
                if protocol.wire().content_type() == "application/json" && protocol != Protocol::SplunkHec {
                    assert!(serde_json::from_slice::<IgnoredAny>(&part).is_ok(), "{protocol:?} {range:?}");
                }
            }
        }
    }

    #[test]
    fn what_another_protocol_sent_is_not_read() {
        let (loki, _) = body(Protocol::Loki);
        for protocol in [Protocol::OtlpJson, Protocol::NewRelic, Protocol::Json, Protocol::Otlp] {
            assert!(Content::read(Signal::Logs, &loki, protocol).is_none(), "{protocol:?}");
        }
    }
}
