//! What becomes of a request of the function's SDK: kept as blocks of its signal, in the order it came among everything
//! else of that signal.
//!
//! Nothing is made of it: its records go to the backend as they came ([`received`]). It is written to the queue by the
//! same call as a delivery of Lambda, so whatever holds for one holds for the other: one write, on disk before the
//! answer, what a kill in the middle of it left is completed when the request comes again.
//!
//! # Repeats
//! An SDK that got no answer sends its request again. That is the same hash among the last deliveries, taken of the body
//! as it is when inflated (a gzip header may hold the time of compression). Requests whose records cannot be told from
//! others with the same content (log records without any time) are never taken for repeats: an acknowledged record must
//! not be lost for the sake of one that comes twice.

use super::blocks::{BLOCK_MAX_PLAIN_BYTES, Content};
use super::intake::{Intake, Lost};
use crate::Signal;
use crate::encode::otlp::received::{self, Media, REQUEST_MAX_BYTES, RequestError};
use crate::listen::{Export, Outcome};
use crate::queue::{Batch, Kind, NewBlock, severity_class};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use std::borrow::Cow;
use std::io::Read;
use xxhash_rust::xxh3::xxh3_128_with_seed;

impl Intake {
    /// Takes in a request. The body's memory is given back as soon as it is needed no longer.
    pub(super) fn take_export(&mut self, export: Export) -> (Outcome, tokio::sync::oneshot::Sender<Outcome>) {
        let Export { signal, media, gzip, body, received_unix_nanos, reply } = export;
        let kept = match inflated(body, gzip) {
            Ok(body) => self.keep_export(signal, media, body, received_unix_nanos),
            Err(problem) => Err(problem),
        };
        (kept.err().unwrap_or(Outcome::Kept), reply)
    }

    fn keep_export(
        &mut self,
        signal: Signal,
        media: Media,
        body: Bytes,
        received: u64,
    ) -> Result<(), Outcome> {
        let mut delivery = xxh3_128_with_seed(&body, seed(signal, media));
        let known = self.queue.known(delivery);
        if known.is_some_and(|progress| progress.is_whole()) {
            return Ok(());
        }
        let request = received::read(signal, media, &body)?;
        let (records, times, distinct, severity) =
            (request.records, request.times, request.distinct, request.severity);
        if records == 0 {
            return Ok(());
        }
        if !distinct {
            self.indistinct = self.indistinct.wrapping_add(1);
            let own = [received.to_le_bytes(), self.indistinct.to_le_bytes()].concat();
            delivery ^= self.pipeline.uid_seed(&own);
        }
        let mut plain = match request.plain {
            Cow::Owned(plain) => Bytes::from(plain),
            Cow::Borrowed(_) => body.clone(),
        };
        drop(body);
        if self.completes_resources {
            plain = Bytes::from(received::complete(&plain, self.pipeline.resource())?);
        }
        let kept = known.map_or(0, |progress| progress.events_kept(signal)).min(records);
        if kept > 0 {
            plain = Bytes::from(received::part(&plain, &(kept as usize..records as usize))?);
        }
        let rest = Rest {
            signal,
            records: records - kept,
            kept,
            severity,
            times: times.unwrap_or((received, received)),
        };
        let blocks = self.blocks_of(&plain, &rest).map_err(|_| Outcome::Full)?;
        drop(plain);
        let parts_before = known.map_or(0, |progress| progress.frames());
        let batch = Batch { delivery, received, parts_before, blocks };
        self.append(&batch, u64::from(records - kept)).map(drop).map_err(|_| Outcome::Full)
    }

    fn blocks_of(&mut self, plain: &[u8], rest: &Rest) -> Result<Vec<NewBlock>, Lost> {
        // It was walked before, so it has no fault now.
        let runs = received::runs(plain, BLOCK_MAX_PLAIN_BYTES).unwrap_or_default();
        let Some(runs) = runs else {
            return self.export_block(plain, rest, rest.records, rest.records);
        };
        let mut blocks = Vec::with_capacity(runs.len());
        for run in runs {
            let part = received::part(plain, &run).map_err(|_| Lost::Broken)?;
            blocks.extend(self.export_block(&part, rest, run.len() as u32, run.end as u32)?);
        }
        Ok(blocks)
    }

    /// A block of `count` records, the last of which is number `end` of the rest; where it is to be said, with what says of
    /// which class of severity each is.
    fn export_block(
        &mut self,
        plain: &[u8],
        rest: &Rest,
        count: u32,
        end: u32,
    ) -> Result<Vec<NewBlock>, Lost> {
        let classifies = self.pipeline.making.sorts && rest.signal == Signal::Logs;
        let severities = if classifies { received::severities(plain) } else { Ok(Vec::new()) };
        let severities = severities.map_err(|_| Lost::Broken)?;
        let gravest = severities.iter().copied().max_by_key(|number| severity_class(*number));
        let mut block = self.pipeline.packer.pack(&Content {
            kind: Kind::Block { joins: None },
            signal: rest.signal,
            events_end: rest.kept.saturating_add(end),
            records: count,
            severity: gravest.unwrap_or(rest.severity),
            times: rest.times,
            plain,
        })?;
        let classes: Vec<u8> = severities.into_iter().map(severity_class).collect();
        let behind = block.classify(&classes);
        Ok([block].into_iter().chain(behind).collect())
    }
}

/// What is not on disk yet of a request: all of it, unless a write of it was cut short.
struct Rest {
    signal: Signal,
    records: u32,
    /// Records that are on disk.
    kept: u32,
    /// Of the gravest record of the request.
    severity: u8,
    times: (u64, u64),
}

/// Requests with the same bytes may differ in their path and type, and a delivery of Lambda (whose hash has no seed) in
/// everything.
fn seed(signal: Signal, media: Media) -> u64 {
    let media = match media {
        Media::Protobuf => 1,
        Media::Json => 2,
    };
    (signal.index() as u64) << 8 | media
}

/// The body, inflated if it is gzip. Reading ends where it is longer than a request may be, however far it would go on.
fn inflated(body: Bytes, gzip: bool) -> Result<Bytes, Outcome> {
    if !gzip {
        return Ok(body);
    }
    let mut plain = Vec::new();
    let mut bounded = MultiGzDecoder::new(&body[..]).take(REQUEST_MAX_BYTES as u64 + 1);
    if let Err(error) = bounded.read_to_end(&mut plain) {
        return Err(Outcome::Refused(format!("the body is not gzip: {error}")));
    }
    if plain.len() > REQUEST_MAX_BYTES {
        return Err(RequestError::TooLong.into());
    }
    Ok(Bytes::from(plain))
}

impl From<RequestError> for Outcome {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::TooLong | RequestError::TooMany => Self::TooLong(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<crate::encode::SplitError> for Outcome {
    fn from(error: crate::encode::SplitError) -> Self {
        RequestError::from(error).into()
    }
}

#[cfg(test)]
mod tests;
