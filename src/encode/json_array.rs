//! An array of JSON objects (`application/json`), for HTTP intakes that take no lines. The objects are those of
//! `ndjson.rs`.

use std::ops::Range;

use super::lines::{COMMA, Lines};
use super::{Framing, Parts, SplitError, WireFormat, ndjson};
use crate::Signal;
use crate::record::{LogRecord, Resource};

const JSON_ID: u8 = 4;

/// An array of JSON objects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl WireFormat for Json {
    fn id(&self) -> u8 {
        JSON_ID
    }

    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn path(&self, _: Signal, given: &str) -> String {
        given.to_owned()
    }

    fn framing(&self, _: Signal) -> Framing {
        Framing { prefix: b"[", separator: COMMA, suffix: b"]" }
    }

    fn separator(&self) -> &'static [u8] {
        COMMA
    }

    fn block_head(&self, _: Signal, _: &Resource, _: usize, _: &mut Vec<u8>) {}

    fn log(&self, resource: &Resource, record: &LogRecord<'_>, out: &mut Vec<u8>) {
        ndjson::object(resource, record, out);
    }

    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError> {
        Lines::LIST.parts(plain)
    }

    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8> {
        Lines::LIST.subset(plain, parts, records)
    }
}
