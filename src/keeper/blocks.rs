//! The blocks of one delivery, filled signal by signal.

use crate::encode::WireFormat;
use crate::queue::{BlockError, Deflater, Kind, NewBlock, severity_class};
use crate::record::Resource;
use crate::{PerSignal, Signal};

/// A block holds at most so many plain bytes, unless one record alone is larger. Larger blocks compress no
/// better (4.3 times at 64 KiB and at 256 KiB), and a refused one costs more to take apart.
pub(super) const BLOCK_MAX_PLAIN_BYTES: usize = 256 << 10;
/// More than the head of a block takes.
const HEAD_BYTES: usize = 1024;

/// Makes blocks: encodes and deflates.
pub(super) struct Packer {
    pub(super) wire: Box<dyn WireFormat>,
    deflater: Deflater,
}

/// What is in a block to be, and what its header says of it.
pub(super) struct Content<'c> {
    pub(super) kind: Kind,
    pub(super) signal: Signal,
    /// The last event of its delivery that it covers, from 1.
    pub(super) events_end: u32,
    pub(super) records: u32,
    /// Of the gravest record, 0 if unknown.
    pub(super) severity: u8,
    /// Earliest and latest, Unix nanoseconds.
    pub(super) times: (u64, u64),
    pub(super) plain: &'c [u8],
}

impl Packer {
    pub(super) fn new(wire: Box<dyn WireFormat>) -> Self {
        Self { wire, deflater: Deflater::default() }
    }

    /// The raw body of a delivery that is half a record, to be joined later.
    pub(super) fn fragment(&mut self, body: &[u8], received: u64) -> Result<NewBlock, BlockError> {
        let times = (received, received);
        self.pack(&Content {
            kind: Kind::Fragment,
            signal: Signal::Logs,
            events_end: 0,
            records: 1,
            severity: 0,
            times,
            plain: body,
        })
    }

    /// What is to be remembered. As it is: it is short, and never sent.
    pub(super) fn carry(&self, carry: Vec<u8>, received: u64) -> Result<NewBlock, BlockError> {
        Ok(NewBlock {
            kind: Kind::Carry,
            signal: Signal::Logs,
            format: self.wire.id(),
            severity: 0,
            events_end: 0,
            records: 0,
            plain_len: u32::try_from(carry.len()).map_err(|_| BlockError::Deflate)?,
            plain_crc: crc32fast::hash(&carry),
            times: (received, received),
            payload: carry,
        })
    }

    fn block(
        &mut self,
        signal: Signal,
        kind: Kind,
        resource: &Resource,
        open: &OpenBlock,
    ) -> Result<NewBlock, BlockError> {
        let mut plain = Vec::with_capacity(open.records.len() + HEAD_BYTES);
        self.wire.block_head(signal, resource, open.records.len(), &mut plain);
        plain.extend_from_slice(&open.records);
        let &OpenBlock { events_end, count: records, severity, first, last, .. } = open;
        let times = (first, last);
        self.pack(&Content { kind, signal, events_end, records, severity, times, plain: &plain })
    }

    /// A block with this content, deflated.
    pub(super) fn pack(&mut self, content: &Content<'_>) -> Result<NewBlock, BlockError> {
        let &Content { kind, signal, events_end, records, severity, times, plain } = content;
        Ok(NewBlock {
            kind,
            signal,
            format: self.wire.id(),
            severity,
            events_end,
            records,
            plain_len: u32::try_from(plain.len()).map_err(|_| BlockError::Deflate)?,
            plain_crc: crc32fast::hash(plain),
            times,
            payload: self.deflater.deflate(plain)?,
        })
    }
}

/// Where the least severe records go first, a delivery's blocks are ended so many times because the next record is of
/// another class; then they mix, and a frame says which is which. Each costs a header (96 bytes), what the format says around records, and compression.
pub(super) const CLASS_CUTS_MAX: u32 = 8;

/// The blocks of one delivery.
pub(super) struct Blocks<'p> {
    packer: &'p mut Packer,
    kind: Kind,
    cuts_left: u32,
    /// It is to be said of which class of severity each log record is.
    classifies: bool,
    open: PerSignal<OpenBlock>,
    /// Those that are complete, in the order in which they go to disk.
    done: Vec<NewBlock>,
    /// Records in them.
    records: u64,
}

/// Encoded records that go together, and what is said of them.
pub(super) struct Encoded<'e> {
    pub(super) bytes: &'e [u8],
    pub(super) count: u32,
    /// Earliest and latest, Unix nanoseconds.
    pub(super) times: (u64, u64),
    /// The places of their events in the delivery, from 1: the first and the last.
    pub(super) events: (u32, u32),
    /// Of the gravest of them, 0 if unknown.
    pub(super) severity: u8,
}

impl<'p> Blocks<'p> {
    /// `cuts_max`: how often a block may be ended for the sake of one class of severity in it.
    pub(super) fn new(packer: &'p mut Packer, kind: Kind, cuts_max: u32) -> Self {
        let (open, classifies) = (PerSignal::default(), cuts_max > 0);
        Self { packer, kind, cuts_left: cuts_max, classifies, open, done: Vec::new(), records: 0 }
    }

    pub(super) fn wire(&self) -> &dyn WireFormat {
        self.packer.wire.as_ref()
    }

    /// What follows is of event `event` or of a later one.
    pub(super) fn reach(&mut self, event: u32) {
        for signal in Signal::ALL {
            self.open.get_mut(signal).events_end = event;
        }
    }

    /// Takes in records of one event, or of events that have them in common. They stay in one block.
    pub(super) fn push(
        &mut self,
        signal: Signal,
        resource: &Resource,
        encoded: &Encoded<'_>,
    ) -> Result<(), BlockError> {
        let records_max = self.packer.wire.limits(signal).records;
        let separator = self.packer.wire.separator();
        let open = self.open.get_mut(signal);
        let is_full = open.records.len() + encoded.bytes.len() > BLOCK_MAX_PLAIN_BYTES
            || open.count.saturating_add(encoded.count) > records_max;
        let is_other =
            self.cuts_left > 0 && severity_class(open.severity) != severity_class(encoded.severity);
        if open.count > 0 && (is_full || is_other) {
            if !is_full {
                self.cuts_left -= 1;
            }
            open.events_end = encoded.events.0.saturating_sub(1);
            self.close(signal, resource)?;
        }
        let open = self.open.get_mut(signal);
        open.events_end = encoded.events.1;
        open.push(encoded, separator);
        if self.classifies {
            open.classes.resize(open.count as usize, severity_class(encoded.severity));
        }
        Ok(())
    }

    /// Completes the block of `signal`.
    pub(super) fn close(&mut self, signal: Signal, resource: &Resource) -> Result<(), BlockError> {
        let open = self.open.get_mut(signal);
        let block = std::mem::take(open);
        open.events_end = block.events_end;
        if block.count > 0 {
            self.records += u64::from(block.count);
            let mut made = self.packer.block(signal, self.kind, resource, &block)?;
            let classes = if self.classifies { made.classify(&block.classes) } else { None };
            self.done.push(made);
            self.done.extend(classes);
        }
        Ok(())
    }

    /// Appends what is to be remembered at the end of the delivery.
    pub(super) fn carry(&mut self, carry: Vec<u8>, received: u64) -> Result<(), BlockError> {
        self.done.push(self.packer.carry(carry, received)?);
        Ok(())
    }

    /// The blocks, and how many records are in them.
    pub(super) fn finish(self) -> (Vec<NewBlock>, u64) {
        (self.done, self.records)
    }
}

/// A block that is being filled.
#[derive(Default)]
struct OpenBlock {
    records: Vec<u8>,
    count: u32,
    events_end: u32,
    first: u64,
    last: u64,
    severity: u8,
    /// Of each record, if that is to be said.
    classes: Vec<u8>,
}

impl OpenBlock {
    fn push(&mut self, encoded: &Encoded<'_>, separator: &[u8]) {
        let (first, last) = encoded.times;
        if self.count > 0 {
            self.records.extend_from_slice(separator);
        }
        self.records.extend_from_slice(encoded.bytes);
        self.first = if self.count == 0 { first } else { self.first.min(first) };
        self.last = self.last.max(last);
        if self.count == 0 || severity_class(encoded.severity) > severity_class(self.severity) {
            self.severity = encoded.severity;
        }
        self.count += encoded.count;
    }
}
