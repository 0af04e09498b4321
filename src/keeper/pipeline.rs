//! From the events of a delivery to blocks: parse, enrich, encode, deflate.

use super::inputs;
use crate::encode::WireFormat;
use crate::queue::{BlockError, Deflater, Kind, NewBlock};
use crate::record::{Context, Event, Fact, LogRecord, Piece, Resource};
use crate::{Signal, clock};
use std::time::Duration;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// A block holds at most so many plain bytes, unless one record alone is larger. Larger blocks compress no
/// better (4.3 times at 64 KiB and at 256 KiB), and a refused one costs more to take apart.
pub(super) const BLOCK_MAX_PLAIN_BYTES: usize = 256 << 10;

/// What the telemetry is about, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Name of the function.
    pub function_name: Option<String>,
    /// Its version.
    pub function_version: Option<String>,
    /// `AWS_REGION`
    pub region: Option<String>,
    /// The account it belongs to.
    pub account_id: Option<String>,
    /// Its memory size in Lambda's megabytes.
    pub memory_mb: Option<u64>,
    /// The ARN it was last invoked by.
    pub invoked_function_arn: Option<String>,
    /// The environment: the name of its log stream.
    pub instance_id: Option<String>,
    /// `OTEL_SERVICE_NAME`
    pub service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`
    pub resource_attributes: Vec<(String, String)>,
}

/// What a delivery said that the lifecycle wants to know. Invocations are named by [`token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// The function was started.
    Started(u64),
    /// The function is done.
    Done(u64, Option<Duration>),
    /// The invocation was reported on.
    Reported(u64),
}

/// A number that tells invocations apart.
pub fn token(request_id: &str) -> u64 {
    xxh3_64(request_id.as_bytes())
}

/// Turns events into blocks.
pub(super) struct Pipeline {
    wire: Box<dyn WireFormat>,
    deflater: Deflater,
    about: About,
    resource: Resource,
    concurrent: bool,
    /// The invocation that runs, by the order of the stream.
    running: Option<String>,
    /// Sets the records of this process apart from those of a copy of this environment.
    nonce: u64,
}

/// What [`Pipeline::blocks`] made of a delivery.
#[derive(Default)]
pub(super) struct Made {
    pub(super) blocks: Vec<NewBlock>,
    pub(super) noted: Vec<Noted>,
    pub(super) records: u64,
}

/// Where a delivery's records come from and what is known of it already.
pub(super) struct Origin {
    /// The bytes that identify the delivery.
    pub(super) uid_seed: u128,
    pub(super) received: u64,
    /// Events whose log records are kept already.
    pub(super) skip: u32,
    pub(super) kind: Kind,
}

impl Pipeline {
    pub(super) fn new(wire: Box<dyn WireFormat>, about: About, concurrent: bool) -> Self {
        let resource = Resource::build(&inputs(&about));
        Self {
            wire,
            deflater: Deflater::default(),
            about,
            resource,
            concurrent,
            running: None,
            nonce: fastrand::u64(..),
        }
    }

    pub(super) fn wire(&self) -> &dyn WireFormat {
        self.wire.as_ref()
    }

    /// What blocks are deflated with; there is one, for its tables are large.
    pub(super) fn deflater(&mut self) -> &mut Deflater {
        &mut self.deflater
    }

    /// What is known about the function.
    pub(super) fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The function was invoked by `arn`.
    pub(super) fn invoked(&mut self, arn: &str) {
        if self.about.invoked_function_arn.as_deref() != Some(arn) {
            self.about.invoked_function_arn = Some(arn.to_owned());
            self.describe();
        }
    }

    fn describe(&mut self) {
        self.resource = Resource::build(&inputs(&self.about));
    }

    /// Log records of `pieces`, in order, in blocks.
    pub(super) fn blocks(&mut self, pieces: &[Piece<'_>], origin: &Origin) -> Result<Made, BlockError> {
        let mut made = Made::default();
        let mut open = OpenBlock::default();
        let uid = format!("{:032x}", origin.uid_seed);
        let mut encoded = Vec::new();
        for (piece, index) in pieces.iter().zip(1u32..) {
            let event = match piece {
                Piece::Whole(raw) => Event::parse(raw),
                Piece::Fragment(raw) => Event::cut(raw),
            };
            if let Some(fact) = event.fact() {
                if self.changes_resource(&fact) {
                    self.close(&mut open, &mut made, origin)?;
                }
                self.learn(fact, &mut made.noted);
            }
            open.events_end = index;
            if index <= origin.skip {
                continue;
            }
            let context = Context { request_id: self.running.as_deref().filter(|_| !self.concurrent) };
            let uid = format!("{uid}-{index:x}");
            let record = LogRecord::from_event(&event, &context, origin.received, &uid);
            encoded.clear();
            self.wire.log(&record, &mut encoded);
            let time = record.time_unix_nanos;
            if !open.records.is_empty() && open.records.len() + encoded.len() > BLOCK_MAX_PLAIN_BYTES {
                open.events_end = index - 1;
                self.close(&mut open, &mut made, origin)?;
                open.events_end = index;
            }
            open.push(&encoded, time);
        }
        self.close(&mut open, &mut made, origin)?;
        Ok(made)
    }

    /// A block of one record of our own.
    pub(super) fn own_record(
        &mut self,
        record: &LogRecord<'_>,
        kind: Kind,
        received: u64,
    ) -> Result<Vec<NewBlock>, BlockError> {
        let mut open = OpenBlock::default();
        let mut encoded = Vec::new();
        self.wire.log(record, &mut encoded);
        open.push(&encoded, record.time_unix_nanos);
        let mut made = Made::default();
        self.close(&mut open, &mut made, &Origin { uid_seed: 0, received, skip: 0, kind })?;
        Ok(made.blocks)
    }

    /// The raw body of a delivery that is half a record, to be joined later.
    pub(super) fn fragment(&mut self, body: &[u8], received: u64) -> Result<NewBlock, BlockError> {
        Ok(NewBlock {
            kind: Kind::Fragment,
            signal: Signal::Logs,
            format: self.wire.id(),
            events_end: 0,
            records: 1,
            plain_len: u32::try_from(body.len()).map_err(|_| BlockError::Deflate)?,
            plain_crc: crc32fast::hash(body),
            times: (received, received),
            payload: self.deflater.deflate(body)?,
        })
    }

    fn close(&mut self, open: &mut OpenBlock, made: &mut Made, origin: &Origin) -> Result<(), BlockError> {
        let block = std::mem::take(open);
        open.events_end = block.events_end;
        if block.count == 0 {
            return Ok(());
        }
        let mut plain = Vec::with_capacity(block.records.len() + 1024);
        self.wire.block_head(&self.resource, block.records.len(), &mut plain);
        plain.extend_from_slice(&block.records);
        made.records += u64::from(block.count);
        made.blocks.push(NewBlock {
            kind: origin.kind,
            signal: Signal::Logs,
            format: self.wire.id(),
            events_end: block.events_end,
            records: block.count,
            plain_len: u32::try_from(plain.len()).map_err(|_| BlockError::Deflate)?,
            plain_crc: crc32fast::hash(&plain),
            times: (block.first, block.last),
            payload: self.deflater.deflate(&plain)?,
        });
        Ok(())
    }

    fn changes_resource(&self, fact: &Fact<'_>) -> bool {
        match fact {
            Fact::InitStart(instance) | Fact::RestoreStart(instance) => {
                instance.id.is_some() && instance.id.as_deref() != self.about.instance_id.as_deref()
            }
            _ => false,
        }
    }

    fn learn(&mut self, fact: Fact<'_>, noted: &mut Vec<Noted>) {
        match fact {
            Fact::Start { request_id: Some(id) } => {
                noted.push(Noted::Started(token(&id)));
                self.running = Some(id.into_owned());
            }
            Fact::RuntimeDone { request_id: Some(id), duration_ms, .. } => {
                // A duration that is no duration is not known.
                let ran = duration_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok());
                noted.push(Noted::Done(token(&id), ran));
            }
            Fact::Report { request_id, .. } => {
                noted.extend(request_id.as_deref().map(|id| Noted::Reported(token(id))));
                self.running = None;
            }
            Fact::InitStart(instance) => {
                self.running = None;
                self.become_instance(&instance);
            }
            Fact::RestoreStart(instance) => {
                // Another environment may go on from the same snapshot, in which the generator's state is.
                let id = token(instance.id.as_deref().unwrap_or_default());
                fastrand::seed(fastrand::u64(..) ^ clock::unix_now_nanos() ^ id);
                self.nonce = fastrand::u64(..);
                self.running = None;
                self.become_instance(&instance);
            }
            Fact::LogsDropped { records, bytes } => {
                log::warn!(
                    "Lambda dropped {} records ({} bytes) before we got them",
                    records.unwrap_or_default(),
                    bytes.unwrap_or_default()
                );
            }
            _ => {}
        }
    }

    fn become_instance(&mut self, instance: &crate::record::event::Instance<'_>) {
        if let Some(id) = &instance.id {
            self.about.instance_id = Some(id.clone().into_owned());
        }
        if let Some(version) = &instance.function_version
            && self.about.function_version.is_none()
        {
            self.about.function_version = Some(version.clone().into_owned());
        }
        self.describe();
    }

    /// What the uids of a delivery's records begin with.
    pub(super) fn uid_seed(&self, body: &[u8]) -> u128 {
        xxh3_128_with_seed(body, self.nonce)
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
}

impl OpenBlock {
    fn push(&mut self, encoded: &[u8], time: u64) {
        self.records.extend_from_slice(encoded);
        self.first = if self.count == 0 { time } else { self.first.min(time) };
        self.last = self.last.max(time);
        self.count += 1;
    }
}
