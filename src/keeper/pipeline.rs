//! From the events of a delivery to blocks: parse, enrich, encode, deflate.

use super::blocks::{Blocks, Encoded, Packer};
use super::delivery::{Delivery, separate};
use super::inputs;
use crate::encode::WireFormat;
use crate::observe::{Emf, Ending, Observer, Points, Rules};
use crate::queue::{BlockError, Kind, NewBlock};
use crate::record::event::Instance;
use crate::record::{Event, Fact, JsonLines, LogRecord, Piece, Resource, salvage};
use crate::rules::{RuleSet, Tally, Withheld};
use crate::{PerSignal, Signal};
use std::borrow::Cow;
use std::time::Duration;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

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
    /// The tenant that the environment serves: one alone, if the function isolates tenants.
    pub tenant: Option<String>,
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

/// What is made of deliveries.
#[derive(Clone, Debug)]
pub struct Making {
    /// The signals that are made.
    pub signals: PerSignal<bool>,
    /// How metrics and spans are made.
    pub rules: Rules,
    /// Types of platform events, as Lambda spells them, that become no log record unless they tell of a problem.
    pub silenced: Vec<String>,
    /// What becomes of metrics that are embedded in log lines.
    pub emf: Emf,
    /// What becomes of a line that is the text of an object.
    pub json_lines: JsonLines,
    /// Whether a stack trace that comes line by line becomes one record.
    pub joins_lines: bool,
    /// How often metrics about the extension itself are made, at most; `None`: never.
    pub own_every: Option<Duration>,
    /// What the user's rules make of log records; none if there are none.
    pub rule_set: Option<RuleSet>,
    /// Whether blocks are to be of one class of severity each, as far as that comes cheaply: the least severe are given
    /// up first.
    pub sorts: bool,
}

impl Default for Making {
    /// Everything that deliveries say, as the settings have it by default.
    fn default() -> Self {
        Self {
            signals: PerSignal::from_fn(|_| true),
            rules: Rules::default(),
            silenced: Vec::new(),
            emf: Emf::default(),
            json_lines: JsonLines::default(),
            joins_lines: false,
            own_every: None,
            rule_set: None,
            sorts: false,
        }
    }
}

/// Turns events into blocks.
pub(super) struct Pipeline {
    pub(super) packer: Packer,
    pub(super) about: About,
    pub(super) resource: Resource,
    pub(super) making: Making,
    /// As of the last delivery that was kept.
    pub(super) observer: Observer,
    /// The invocation that runs, by the order of the stream.
    pub(super) running: Option<Running>,
    /// Sets the records of this process apart from those of a copy of this environment.
    pub(super) nonce: u64,
    pub(super) rule_set: Option<RuleSet>,
    /// What is not on disk of a cut record that waits there.
    withheld: Option<Withheld>,
}

/// An invocation that runs.
pub(super) struct Running {
    pub(super) request_id: String,
    /// When it began, Unix nanoseconds.
    pub(super) since: u64,
}

/// What [`Pipeline::blocks`] made of a delivery.
pub(super) struct Made {
    pub(super) blocks: Vec<NewBlock>,
    pub(super) noted: Vec<Noted>,
    pub(super) records: u64,
    /// What Lambda says it dropped before we got it: records and bytes.
    pub(super) lost: (u64, u64),
    /// To be handed to [`Pipeline::commit`] once the blocks are kept.
    pub(super) remembered: Remembered,
}

/// What is remembered of a delivery that is kept.
pub(super) struct Remembered {
    pub(super) observer: Observer,
    /// What the rules did.
    pub(super) tally: Tally,
}

/// Where a delivery's records come from and what is known of it already.
pub(super) struct Origin {
    /// The bytes that identify the delivery.
    pub(super) uid_seed: u128,
    pub(super) received: u64,
    /// Events whose records are kept already.
    pub(super) skip: PerSignal<u32>,
    pub(super) kind: Kind,
}

impl Pipeline {
    /// A pipeline that goes on where the one before left off, whose memory `carry` is.
    pub(super) fn new(
        wire: Box<dyn WireFormat>,
        about: About,
        mut making: Making,
        carry: Option<&[u8]>,
    ) -> Self {
        making.signals = PerSignal::from_fn(|signal| *making.signals.get(signal) && wire.takes(signal));
        let resource = Resource::build(&inputs(&about));
        let mut pipeline = Self {
            packer: Packer::new(wire),
            about,
            resource,
            observer: Observer::new(making.rules),
            rule_set: making.rule_set.take(),
            making,
            running: None,
            nonce: fastrand::u64(..),
            withheld: None,
        };
        pipeline.resume(carry);
        pipeline
    }

    /// Goes on from what the disk remembers.
    pub(super) fn resume(&mut self, carry: Option<&[u8]>) {
        self.observer = carry.map_or_else(
            || Observer::new(self.making.rules),
            |carry| Observer::resume(self.making.rules, carry),
        );
    }

    pub(super) fn wire(&self) -> &dyn WireFormat {
        self.packer.wire.as_ref()
    }

    /// Whether records of `signal` are made.
    pub(super) fn makes(&self, signal: Signal) -> bool {
        *self.making.signals.get(signal)
    }

    fn observes(&self) -> bool {
        self.makes(Signal::Metrics) || self.makes(Signal::Traces)
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

    /// Log records, data points and spans of `pieces`, in order, in blocks.
    pub(super) fn blocks(&mut self, pieces: &[Piece<'_>], origin: &Origin) -> Result<Made, BlockError> {
        let mut noted = Vec::new();
        let mut delivery = Delivery::of(self, origin);
        delivery.look_ahead(pieces);
        let (mut rest, mut index) = (pieces, 0u32);
        while let Some((piece, after)) = rest.split_first() {
            index += 1;
            let event = match piece {
                Piece::Whole(raw) => Event::parse(raw),
                Piece::Fragment(raw) => Event::cut(raw),
                Piece::Opaque(raw) => Event::opaque(raw),
            };
            if let Some(fact) = event.fact() {
                // What was measured before an environment begins anew belongs to the interval before.
                if delivery.about.changes(&fact) || matches!(fact, Fact::InitStart(_) | Fact::RestoreStart(_))
                {
                    delivery.close()?;
                }
                delivery.learn(fact, event.time_unix_nanos, &mut noted);
                delivery.learn_tenant(&event);
            }
            // Lines that go on with this one are taken with it.
            let joined = delivery.join(&event, after);
            let more = joined.as_ref().map_or(0, |joined| joined.lines - 1);
            delivery.take(&event, index, joined.as_ref())?;
            index += more;
            rest = after.get(more as usize..).unwrap_or_default();
        }
        delivery.finish(noted)
    }

    /// What is still open at the end of the environment, in blocks.
    pub(super) fn end(&mut self, ending: Ending, received: u64) -> Result<Made, BlockError> {
        let origin =
            Origin { uid_seed: 0, received, skip: PerSignal::default(), kind: Kind::Block { joins: None } };
        let mut delivery = Delivery::of(self, &origin);
        delivery.end(ending)?;
        delivery.finish(Vec::new())
    }

    /// Whether an invocation runs whose end may still be told.
    pub(super) fn awaits_an_end(&self) -> bool {
        self.observes() && self.observer.awaits_an_end()
    }

    /// Whether [`Pipeline::end`] would make anything.
    pub(super) fn has_loose_ends(&self) -> bool {
        self.observes() && self.observer.has_loose_ends()
    }

    /// What was made is kept: what it rests on is remembered.
    pub(super) fn commit(&mut self, remembered: Remembered) {
        self.observer = remembered.observer;
        if let Some(rule_set) = &mut self.rule_set {
            rule_set.count(&remembered.tally);
        }
    }

    /// A block of one record of our own.
    pub(super) fn own_record(
        &mut self,
        record: &LogRecord<'_>,
        kind: Kind,
    ) -> Result<Vec<NewBlock>, BlockError> {
        let mut encoded = Vec::new();
        self.packer.wire.log(&self.resource, record, &mut encoded);
        let severity = record.severity.number;
        let time = record.time_unix_nanos;
        let encoded = Encoded { bytes: &encoded, count: 1, times: (time, time), severity, events: (0, 0) };
        self.own_block(Signal::Logs, &encoded, kind)
    }

    /// A block of data points of our own; `since` is where their interval begins (Unix nanoseconds), and becomes where it ends.
    pub(super) fn own_points(
        &mut self,
        mut points: Points,
        since: &mut u64,
        kind: Kind,
    ) -> Result<Vec<NewBlock>, BlockError> {
        let (wire, resource) = (self.packer.wire.as_ref(), &self.resource);
        let (mut encoded, mut count) = (Vec::new(), 0);
        let time = points.write(since, |metric| {
            separate(wire, &mut encoded);
            wire.metric(resource, metric, &mut encoded);
            count += 1;
        });
        let encoded = Encoded { bytes: &encoded, count, times: (time, time), severity: 0, events: (0, 0) };
        self.own_block(Signal::Metrics, &encoded, kind)
    }

    fn own_block(
        &mut self,
        signal: Signal,
        encoded: &Encoded<'_>,
        kind: Kind,
    ) -> Result<Vec<NewBlock>, BlockError> {
        let mut blocks = Blocks::new(&mut self.packer, kind, 0);
        blocks.push(signal, &self.resource, encoded)?;
        blocks.close(signal, &self.resource)?;
        Ok(blocks.finish().0)
    }

    /// The raw body of a delivery that is half a record, to be joined later. What the rules take out of records does not get
    /// to the disk in it either.
    pub(super) fn fragment(
        &mut self,
        body: &[u8],
        received: u64,
    ) -> Result<(NewBlock, Option<Withheld>), BlockError> {
        let Some(rule_set) = self.rule_set.as_mut().filter(|rules| rules.redacts()) else {
            return Ok((self.packer.fragment(body, received)?, None));
        };
        let (stored, withheld) = rule_set.withhold(&salvage(body));
        Ok((self.packer.fragment(&stored, received)?, Some(withheld)))
    }

    /// The fragment is kept, of which `withheld` is in memory alone.
    pub(super) fn withhold(&mut self, withheld: Option<Withheld>) {
        self.withheld = withheld;
    }

    /// The first part of a cut record, of which `stored` is on disk, as far as this process knows more.
    pub(super) fn first_part<'b>(&self, stored: &'b [u8]) -> Cow<'b, [u8]> {
        let restored = self.withheld.as_ref().and_then(|withheld| withheld.restore(stored));
        restored.map_or(Cow::Borrowed(stored), Cow::Owned)
    }

    /// What the uids of a delivery's records begin with.
    pub(super) fn uid_seed(&self, body: &[u8]) -> u128 {
        xxh3_128_with_seed(body, self.nonce)
    }
}

impl About {
    pub(super) fn changes(&self, fact: &Fact<'_>) -> bool {
        match fact {
            Fact::InitStart(instance) | Fact::RestoreStart(instance) => {
                instance.id.is_some() && instance.id.as_deref() != self.instance_id.as_deref()
            }
            _ => false,
        }
    }

    pub(super) fn become_instance(&mut self, instance: &Instance<'_>) {
        if let Some(id) = &instance.id {
            self.instance_id = Some(id.clone().into_owned());
        }
        if let Some(version) = &instance.function_version
            && self.function_version.is_none()
        {
            self.function_version = Some(version.clone().into_owned());
        }
    }
}
