//! Sending what was rescued: what there is, and a queue's directory.

use std::collections::BTreeSet;
use std::path::Path;

use super::convert::Conversion;
use super::objects::{self, converted};
use super::options::Options;
use super::progress::{Bar, Progress};
use super::sender::{Judged, Sender};
use crate::config::{self, Fallback};
use crate::deliver::Aws;
use crate::deliver::fallback::{ENDPOINT_VARIABLE, S3};
use crate::encode::Protocol;
use crate::queue::{
    Encoding, Limits, Mark, Overflow, Queue, ReadOnlyDisk, Reason, Request, Standing, survey,
};
use crate::{PerSignal, Signal, logging};

/// A queue that is only read never has to make room.
const LIMITS_BYTES: u64 = u64::MAX / 2;

pub(super) async fn run(options: &Options) -> Result<(), String> {
    logging::start(log::LevelFilter::Error);
    let loaded = config::load(std::env::vars_os());
    for problem in &loaded.problems {
        eprintln!("{problem}");
    }
    let mut sender = Sender::new(&loaded.config, options.bytes_per_second);
    let bucket = Fallback::parse(&options.source);
    let done = if let Some(Fallback::S3 { bucket, prefix }) = bucket {
        let aws = Aws::from_variables(|name| std::env::var(name).ok(), ENDPOINT_VARIABLE);
        let aws = aws.map_err(|error| error.to_string())?;
        let ca_file = loaded.config.ca_file.clone();
        let s3 = S3::new(aws, &bucket, &prefix, loaded.config.timeout, ca_file).map_err(|e| e.to_string())?;
        objects::of_bucket(options, &s3, &mut sender).await
    } else if Path::new(&options.source).is_file() {
        objects::of_lines(options, &mut sender).await
    } else {
        directory(options, &mut sender).await
    };
    sender.tell_left_out();
    let totals = sender.totals;
    println!(
        "{} records sent in {} requests ({} bytes), {} refused, {} left out",
        totals.records,
        totals.requests,
        sender.egress_bytes(),
        totals.refused,
        totals.skipped
    );
    done?;
    match totals.refused {
        0 => Ok(()),
        refused => Err(format!("not everything was sent: {refused} records were refused")),
    }
}

// === A directory

async fn directory(options: &Options, sender: &mut Sender) -> Result<(), String> {
    if options.function.is_some() {
        return Err("--function is for a bucket: a queue is one function's".to_owned());
    }
    let dir = Path::new(&options.source);
    let (state, segments) = survey(dir).map_err(|error| format!("{}: {error}", options.source))?;
    let waiting: Vec<_> = segments
        .iter()
        .flat_map(|segment| &segment.frames)
        .filter(|frame| frame.standing == Standing::Waits)
        .collect();
    let formats: BTreeSet<u8> = waiting.iter().map(|frame| frame.format).collect();
    let stored_for = stored_for(&formats, sender.protocol())?;
    let conversion = Conversion::between(stored_for, sender.protocol())
        .map_err(|problem| format!("it was stored for another protocol: {problem}"))?;
    let records_of = |signal| {
        let of_signal = waiting.iter().filter(|frame| frame.signal == signal);
        of_signal.map(|frame| u64::from(frame.records)).sum::<u64>()
    };
    let waiting_records = PerSignal::from_fn(records_of);
    let identity = options.identity(state.queue_id, sender.destination());
    let mut progress = Progress::open(&options.progress, &identity)?;
    let mut bar = Bar::new(waiting.iter().map(|frame| u64::from(frame.plain_bytes)).sum());
    drop(waiting);
    let limits = Limits::new(LIMITS_BYTES, Overflow::DropNewest);
    let (mut queue, opened) = Queue::open(Box::new(ReadOnlyDisk), dir, limits, 0);
    if let Some(problem) = opened.problem {
        return Err(format!("{}: {problem}", options.source));
    }
    // Before anything is counted: what was sent by then is no more missing than what the queue itself has done.
    for signal in Signal::ALL {
        if let Some(mark) = progress.marks.get(&signal.index()) {
            queue.done(signal, *mark);
        }
    }
    while queue.count_one() {}
    for signal in Signal::ALL {
        if conversion.as_ref().is_some_and(|conversion| !conversion.takes(signal)) {
            sender.leaves_out(format!("records of {signal}"), *waiting_records.get(signal));
            continue;
        }
        let way = (signal, stored_for, conversion.as_ref());
        lane(options, way, &mut queue, sender, &mut progress, &mut bar).await?;
    }
    bar.end();
    let damaged: u64 = Signal::ALL.iter().map(|s| queue.ledger().dropped_for(*s, Reason::Damaged)).sum();
    if damaged > 0 {
        return Err(format!("not everything was sent: {damaged} records are damaged"));
    }
    Ok(())
}

/// The protocol whose blocks a directory holds.
fn stored_for(formats: &BTreeSet<u8>, destination: Protocol) -> Result<Protocol, String> {
    let mut formats = formats.iter();
    let (first, second) = (formats.next(), formats.next());
    let Some(first) = first else { return Ok(destination) };
    if second.is_some() {
        return Err(
            "it was stored for several protocols: only the extension itself can sort that out".to_owned()
        );
    }
    Protocol::of_id(*first).ok_or_else(|| "it was stored for a protocol that is not known here".to_owned())
}

async fn lane(
    options: &Options,
    (signal, stored_for, conversion): (Signal, Protocol, Option<&Conversion>),
    queue: &mut Queue,
    sender: &mut Sender,
    progress: &mut Progress,
    bar: &mut Bar,
) -> Result<(), String> {
    // Blocks that are not asked for may stand among the others.
    let one_by_one = options.since.is_some() || options.until.is_some();
    let mut blocks_max = if one_by_one { 1 } else { u32::MAX };
    let mut records_max = u32::MAX;
    let wire = stored_for.wire();
    while let Some(oldest) = queue.oldest(signal) {
        let block = Mark { seq: oldest.seq, records: 0 };
        if !options.is_asked_for(oldest.received) {
            sender.totals.skipped += u64::from(oldest.records);
            bar.advance(u64::from(oldest.plain_bytes), sender.totals.records);
            queue.done(signal, block);
            continue;
        }
        let done = queue.state().marks.get(signal).records;
        let gzip = sender.gzip && conversion.is_none();
        let encoding = if gzip { Encoding::Gzip } else { Encoding::Identity };
        let request = if records_max < oldest.records {
            queue.assemble_part(signal, wire.as_ref(), encoding, done..done.saturating_add(records_max))
        } else {
            queue.assemble(signal, wire.as_ref(), encoding, sender.max_bytes(), blocks_max)
        };
        // What turned out damaged is given up, and the next is tried.
        let Some(Request { body, to, blocks, records, reports, plain_bytes, .. }) = request else { continue };
        if let Some(conversion) = conversion {
            converted((signal, signal.name()), &body, conversion, sender).await?;
            progress.mark_is_done(signal, to, sender.is_trusted())?;
            queue.done(signal, to);
            bar.advance(plain_bytes, sender.totals.records);
            continue;
        }
        match sender.send(signal, body, gzip).await? {
            Judged::Taken(rejected) => {
                sender.totals.records += u64::from(records - reports.min(records));
                sender.totals.refused += rejected;
                progress.mark_is_done(signal, to, sender.is_trusted())?;
                queue.done(signal, to);
                bar.advance(plain_bytes, sender.totals.records);
                if !one_by_one {
                    blocks_max = blocks_max.saturating_mul(2);
                }
                records_max = records_max.saturating_mul(2);
            }
            Judged::NoGzip => {
                sender.gzip = false;
                queue.keep(signal);
            }
            Judged::TooLarge | Judged::Refused(_) | Judged::Breaks if blocks > 1 => {
                blocks_max = blocks / 2;
                queue.keep(signal);
            }
            Judged::TooLarge | Judged::Refused(_) | Judged::Breaks if records > 1 => {
                records_max = records / 2;
                queue.keep(signal);
            }
            judged => {
                sender.gives_up(signal.name(), &judged)?;
                progress.mark_is_done(signal, to, sender.is_trusted())?;
                queue.done(signal, to);
                bar.advance(plain_bytes, sender.totals.records);
            }
        }
    }
    progress.settle(sender)?;
    if queue.is_stalled() {
        return Err(format!("not all of {signal} can be read now"));
    }
    Ok(())
}
