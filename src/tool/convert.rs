//! What was stored for one protocol, for a destination that speaks another.
//!
//! OTLP keeps everything, so what was stored for it (in protobuf or in JSON) can be turned into any other format, by the
//! encoders that the extension has. The others left out what their destinations have no place for: nothing is guessed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::Signal;
use crate::encode::otlp::decoded::{self, Decoded};
use crate::encode::otlp::received;
use crate::encode::{Protocol, WireFormat};
use crate::record::Resource;

/// From one protocol to another.
pub(super) struct Conversion {
    from: Protocol,
    to: Protocol,
    wire: Box<dyn WireFormat>,
}

/// What became of a body.
#[derive(Debug, Default)]
pub(super) struct Converted {
    /// The body; empty if there is nothing to send.
    pub(super) body: Vec<u8>,
    /// Records that the destination has no place for, by what they are.
    pub(super) left_out: BTreeMap<&'static str, u64>,
}

impl Conversion {
    /// `None` if it is the same protocol.
    ///
    /// # Errors
    /// If what was stored is not enough.
    pub(super) fn between(from: Protocol, to: Protocol) -> Result<Option<Self>, String> {
        if from == to {
            return Ok(None);
        }
        if !from.is_otlp() {
            let (from, to) = (from.name(), to.name());
            return Err(format!(
                "{from} has less in it than {to} wants, and only what was stored for otlp is converted: set OUTLAST_PROTOCOL={from}"
            ));
        }
        Ok(Some(Self { from, to, wire: to.wire() }))
    }

    /// Whether the destination takes records of `signal`.
    pub(super) fn takes(&self, signal: Signal) -> bool {
        self.wire.takes(signal)
    }

    /// The body of a request.
    ///
    /// # Errors
    /// If `plain` is not one.
    pub(super) fn body(&self, signal: Signal, plain: &[u8]) -> Result<Converted, String> {
        let plain = if self.from == Protocol::OtlpJson {
            Cow::Owned(received::from_json(signal, plain).map_err(|error| error.to_string())?)
        } else {
            Cow::Borrowed(plain)
        };
        let body = match self.to {
            Protocol::Otlp => plain.into_owned(),
            Protocol::OtlpJson => received::to_json(signal, &plain).map_err(|error| error.to_string())?,
            _ => return self.encoded(signal, &plain),
        };
        Ok(Converted { body, left_out: BTreeMap::new() })
    }

    fn encoded(&self, signal: Signal, plain: &[u8]) -> Result<Converted, String> {
        let mut left_out = BTreeMap::new();
        let mut blocks: Vec<(Resource, Vec<u8>)> = Vec::new();
        let mut encode = |resource: &Resource, decoded| {
            if let Decoded::Foreign(what) = decoded {
                *left_out.entry(what).or_default() += 1;
                return;
            }
            if blocks.last().is_none_or(|(about, _)| about != resource) {
                blocks.push((resource.clone(), Vec::new()));
            }
            let Some((_, records)) = blocks.last_mut() else { return };
            if !records.is_empty() {
                records.extend_from_slice(self.wire.separator());
            }
            match decoded {
                Decoded::Log(record) => self.wire.log(resource, &record, records),
                Decoded::Metric(metric) => self.wire.metric(resource, &metric, records),
                Decoded::Foreign(_) => {}
            }
        };
        decoded::read(signal, plain, &mut encode).map_err(|error| error.to_string())?;
        if blocks.is_empty() {
            return Ok(Converted { body: Vec::new(), left_out });
        }
        let framing = self.wire.framing(signal);
        let blocks: Vec<Vec<u8>> = blocks
            .into_iter()
            .map(|(resource, records)| {
                let mut block = Vec::new();
                self.wire.block_head(signal, &resource, records.len(), &mut block);
                block.extend_from_slice(&records);
                block
            })
            .collect();
        let body = [framing.prefix, &blocks.join(framing.separator), framing.suffix].concat();
        Ok(Converted { body, left_out })
    }

    /// Whether so much is more than one request may hold.
    pub(super) fn is_too_much(&self, signal: Signal, body_bytes: usize, records: usize) -> bool {
        let limits = self.wire.limits(signal);
        body_bytes > limits.body_bytes || records > limits.records as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Data, Histogram, Metric, Number};
    use crate::record::{LogRecord, Severity, Value};

    fn resource() -> Resource {
        Resource {
            attributes: vec![
                ("service.name".into(), Value::Str("shop".into())),
                ("faas.max_memory".into(), Value::Int(1 << 27)),
            ],
        }
    }

    fn logs() -> Vec<LogRecord<'static>> {
        let nested = Value::Map(vec![
            ("list".into(), Value::Array(vec![Value::Empty, Value::Bool(true), Value::Double(1.5)])),
            ("text".into(), Value::Str("a \"b\"\n".into())),
        ]);
        let uid =
            |place: u64| (Cow::Borrowed("log.record.uid"), Value::Str(format!("{:032x}-{place}", 7).into()));
        vec![
            LogRecord {
                time_unix_nanos: 1_777_630_530_100_000_000,
                observed_unix_nanos: 1_777_630_531_000_000_000,
                severity: Severity { number: 17, text: "ERROR".into() },
                event_name: Some("platform.report".into()),
                body: Value::Str("it broke: ä".into()),
                attributes: vec![uid(1), ("item".into(), nested)],
                trace_id: Some([0xab; 16]),
                span_id: Some([0xcd; 8]),
                trace_flags: 1,
            },
            LogRecord {
                time_unix_nanos: 1_777_630_530_200_000_000,
                observed_unix_nanos: 1_777_630_531_000_000_000,
                body: Value::Map(vec![("n".into(), Value::Int(i64::MIN))]),
                attributes: vec![uid(2)],
                ..LogRecord::default()
            },
        ]
    }

    fn metrics() -> Vec<Metric<'static>> {
        let spread = Cow::Owned(Histogram::of(&[0.5, 1.0], 0.75));
        [Data::Gauge(Number::Int(-3)), Data::Delta(Number::Double(0.25)), Data::Histogram(spread)]
            .into_iter()
            .map(|data| Metric {
                name: "aws.lambda.thing".into(),
                description: "a thing".into(),
                unit: "s".into(),
                attributes: Cow::Owned(vec![("k".into(), Value::Str("v".into()))]),
                start_unix_nanos: 1_777_630_530_000_000_000,
                time_unix_nanos: 1_777_630_531_000_000_000,
                data,
            })
            .collect()
    }

    /// What the extension itself would send of these to `protocol`.
    fn made(protocol: Protocol, signal: Signal) -> Vec<u8> {
        let wire = protocol.wire();
        let mut records: Vec<Vec<u8>> = Vec::new();
        let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            records.push(out);
        };
        match signal {
            Signal::Metrics => {
                for metric in &metrics() {
                    add(&|out| wire.metric(&resource(), metric, out));
                }
            }
            _ => {
                for log in &logs() {
                    add(&|out| wire.log(&resource(), log, out));
                }
            }
        }
        let records = records.join(wire.separator());
        let mut block = Vec::new();
        wire.block_head(signal, &resource(), records.len(), &mut block);
        let framing = wire.framing(signal);
        [framing.prefix, &block, &records, framing.suffix].concat()
    }

    #[test]
    fn what_was_stored_for_otlp_becomes_what_would_have_been_stored_for_the_other() {
        for from in [Protocol::Otlp, Protocol::OtlpJson] {
            for to in Protocol::ALL.into_iter().filter(|to| *to != from) {
                for signal in [Signal::Logs, Signal::Metrics] {
                    let conversion = Conversion::between(from, to).unwrap().unwrap();
                    if !conversion.takes(signal) {
                        continue;
                    }
                    let Converted { body, left_out } = conversion.body(signal, &made(from, signal)).unwrap();
                    assert!(left_out.is_empty());
                    let (got, expected) = (body, made(to, signal));
                    match to {
                        // The same content, with members and fields in another order.
                        Protocol::Otlp | Protocol::OtlpJson => {
                            let back = Conversion::between(to, from).unwrap().unwrap();
                            let again = |body: &[u8]| back.body(signal, body).unwrap().body;
                            let there = |body: &[u8]| conversion.body(signal, body).unwrap().body;
                            assert!(there(&again(&got)) == there(&again(&expected)), "{from:?} {to:?}");
                        }
                        _ => assert_eq!(
                            String::from_utf8(got).unwrap(),
                            String::from_utf8(expected).unwrap(),
                            "{from:?} {to:?} {signal}"
                        ),
                    }
                }
            }
        }
    }

    #[test]
    fn what_left_something_out_is_not_converted() {
        for from in Protocol::ALL.into_iter().filter(|from| !from.is_otlp()) {
            for to in Protocol::ALL.into_iter().filter(|to| *to != from) {
                let problem = Conversion::between(from, to).err().unwrap();
                let hint = format!("set OUTLAST_PROTOCOL={}", from.name());
                assert!(problem.contains(&hint), "{problem}");
            }
        }
        assert!(Conversion::between(Protocol::Loki, Protocol::Loki).unwrap().is_none());
    }

    #[test]
    fn what_is_none_of_it_is_an_error() {
        let conversion = Conversion::between(Protocol::Otlp, Protocol::Loki).unwrap().unwrap();
        assert!(conversion.body(Signal::Logs, b"\x0a\xff").is_err());
        assert!(conversion.body(Signal::Logs, b"").unwrap().body.is_empty());
    }
}
