//! stub until merge
use crate::Signal;
use std::ops::Range;
pub struct Framing { pub prefix: &'static [u8], pub separator: &'static [u8], pub suffix: &'static [u8] }
pub struct Parts { pub head: Range<usize>, pub records: Vec<Range<usize>> }
#[derive(Debug)]
pub struct SplitError;
pub trait WireFormat: Send + Sync {
    fn id(&self) -> u8;
    fn content_type(&self) -> &'static str;
    fn path(&self, signal: Signal) -> &'static str;
    fn framing(&self) -> Framing;
    fn block_head(&self, r: &crate::record::Resource, n: usize, out: &mut Vec<u8>);
    fn log(&self, r: &crate::record::LogRecord<'_>, out: &mut Vec<u8>);
    fn parts(&self, plain: &[u8]) -> Result<Parts, SplitError>;
    fn subset(&self, plain: &[u8], parts: &Parts, records: Range<usize>) -> Vec<u8>;
}
