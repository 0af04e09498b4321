//! Sending what the fallback wrote: objects of a bucket, or lines of stdout. Each is the body of a request.

use std::io::Read;
use std::ops::Range;

use flate2::bufread::MultiGzDecoder;

use super::content::Content;
use super::convert::{Conversion, Converted};
use super::lines::bodies;
use super::options::Options;
use super::progress::{Bar, Progress};
use super::sender::{Judged, Sender};
use crate::Signal;
use crate::deliver::fallback::{Listed, Parcel, S3};
use crate::encode::Protocol;
use crate::queue::gzip;

pub(super) async fn of_bucket(options: &Options, s3: &S3, sender: &mut Sender) -> Result<(), String> {
    let identity = options.identity(0, sender.destination());
    let mut progress = Progress::open(&options.progress, &identity)?;
    let all = s3.list().await.map_err(|error| format!("{}: {error}", options.source))?;
    let destination = sender.protocol();
    let written_for = |key: &str| Parcel::protocol_of(key).unwrap_or(destination);
    // Before anything is sent. Each is made once, for what it remembers of the records before.
    let mut conversions: Vec<(Protocol, Option<Conversion>)> = Vec::new();
    for key in all.iter().map(|object| &object.key).filter(|key| asked_for(key, options).is_some()) {
        let protocol = written_for(key);
        if conversions.iter().all(|(known, _)| *known != protocol) {
            let conversion = Conversion::between(protocol, destination)
                .map_err(|problem| format!("{key} was written for another protocol: {problem}"))?;
            conversions.push((protocol, conversion));
        }
    }
    let conversion_of =
        |key: &str| conversions.iter().find(|(known, _)| *known == written_for(key))?.1.as_ref();
    let mut bar = Bar::new(all.iter().map(|object| object.bytes).sum());
    for Listed { key, bytes } in all {
        let Some(signal) = asked_for(&key, options) else {
            bar.advance(bytes, sender.totals.records);
            sender.totals.skipped += u64::from(!progress.done.contains(&key));
            continue;
        };
        if !progress.done.contains(&key) {
            let conversion = conversion_of(&key);
            if conversion.is_some_and(|conversion| !conversion.takes(signal)) {
                sender.leaves_out(format!("objects of {signal}"), 1);
                bar.advance(bytes, sender.totals.records);
                continue;
            }
            let body = s3.get(&key).await.map_err(|error| format!("{key}: {error}"))?;
            object((signal, &key), body, conversion, sender).await?;
            progress.object_is_done(&key, sender.is_trusted())?;
        }
        bar.advance(bytes, sender.totals.records);
    }
    progress.settle(sender)?;
    bar.end();
    Ok(())
}

/// Sends what lines of stdout hold that CloudWatch Logs gave back into a file.
pub(super) async fn of_lines(options: &Options, sender: &mut Sender) -> Result<(), String> {
    if options.function.is_some() || options.since.is_some() || options.until.is_some() {
        return Err("--function, --since and --until are not for lines, which say neither".to_owned());
    }
    let text = std::fs::read(&options.source).map_err(|error| format!("{}: {error}", options.source))?;
    let (bodies, unreadable) = bodies(&text);
    let destination = sender.protocol();
    // Lines name the media type, which is that of one protocol only for OTLP in protobuf.
    let protobuf = Protocol::Otlp.wire().content_type();
    let foreign = |format: &str| format != destination.wire().content_type() && format != protobuf;
    if let Some(body) = bodies.iter().find(|body| foreign(&body.format)) {
        return Err(format!("they hold {}: set OUTLAST_PROTOCOL to that of the function", body.format));
    }
    let conversion = Conversion::between(Protocol::Otlp, destination)?;
    let mut progress = Progress::open(&options.progress, &options.identity(0, sender.destination()))?;
    let mut bar = Bar::new(bodies.len() as u64);
    let mut missing = unreadable;
    for body in bodies {
        let conversion = conversion.as_ref().filter(|_| body.format == protobuf);
        if progress.done.contains(&body.id) {
        } else if conversion.is_some_and(|conversion| !conversion.takes(body.signal)) {
            sender.leaves_out(format!("bodies of {}", body.signal), 1);
        } else if let Some(whole) = body.whole() {
            let whole = if body.is_gzip { whole } else { gzip(&whole).map_err(|error| error.to_string())? };
            object((body.signal, &body.id), whole, conversion, sender).await?;
            progress.object_is_done(&body.id, sender.is_trusted())?;
        } else {
            eprintln!("a line of {} is missing", body.id);
            missing += 1;
        }
        bar.advance(1, sender.totals.records);
    }
    progress.settle(sender)?;
    bar.end();
    match missing {
        0 => Ok(()),
        missing => Err(format!("not everything was sent: {missing} lines or bodies are not whole")),
    }
}

/// The signal of an object that is one of ours and asked for.
fn asked_for(key: &str, options: &Options) -> Option<Signal> {
    let mut path = key.rsplit('/');
    let name = path.next()?;
    let function = path.nth(4)?;
    let signal = Signal::ALL.into_iter().find(|signal| name.split('-').next() == Some(signal.name()))?;
    let received = u64::try_from(Parcel::received_of(key)?.as_nanos()).ok()?;
    let of_function = options.function.as_deref().is_none_or(|wanted| wanted == function);
    (of_function && options.is_asked_for(received)).then_some(signal)
}

/// Sends one body, which is gzip.
async fn object(
    (signal, key): (Signal, &str),
    body: Vec<u8>,
    conversion: Option<&Conversion>,
    sender: &mut Sender,
) -> Result<(), String> {
    let plain = inflated(&body).map_err(|error| format!("{key}: {error}"))?;
    if let Some(conversion) = conversion {
        return converted((signal, key), &plain, conversion, sender).await;
    }
    let content = Content::read(signal, &plain, sender.protocol())
        .ok_or_else(|| format!("{key} is not what OUTLAST_PROTOCOL={} sends", sender.protocol().name()))?;
    // As it is: the same bytes have the same key.
    let whole = if sender.gzip { body } else { plain.clone() };
    let all = 0..content.records();
    let mut ranges = Vec::new();
    match sender.send(signal, whole, sender.gzip).await? {
        Judged::Taken(rejected) => {
            sender.totals.records += all.len() as u64;
            sender.totals.refused += rejected;
            return Ok(());
        }
        Judged::NoGzip => {
            sender.gzip = false;
            ranges.push(all);
        }
        judged => narrow(key, all, &judged, &mut ranges, sender)?,
    }
    pieces((signal, key), &content, ranges, None, sender).await
}

/// Sends what a body of another protocol becomes.
pub(super) async fn converted(
    (signal, source): (Signal, &str),
    plain: &[u8],
    conversion: &Conversion,
    sender: &mut Sender,
) -> Result<(), String> {
    let of_source = |problem: String| format!("{source}: {problem}");
    let Converted { body, left_out } = conversion.body(signal, plain).map_err(of_source)?;
    for (kind, records) in left_out {
        sender.leaves_out(kind.to_owned(), records);
    }
    if body.is_empty() {
        return Ok(());
    }
    let content = Content::read(signal, &body, sender.protocol());
    let content =
        content.ok_or_else(|| of_source("cannot be taken apart once it is converted".to_owned()))?;
    let ranges = (content.records() > 0).then(|| 0..content.records()).into_iter().collect();
    pieces((signal, source), &content, ranges, Some(conversion), sender).await
}

/// Sends `ranges` of the records, the last one first: halves, in order, down to the records that are not taken. What was
/// converted may be more than a request may hold.
async fn pieces(
    (signal, key): (Signal, &str),
    content: &Content<'_>,
    mut ranges: Vec<Range<usize>>,
    conversion: Option<&Conversion>,
    sender: &mut Sender,
) -> Result<(), String> {
    while let Some(range) = ranges.pop() {
        let part = content.part(range.clone());
        if range.len() > 1 && conversion.is_some_and(|c| c.is_too_much(signal, part.len(), range.len())) {
            narrow(key, range, &Judged::TooLarge, &mut ranges, sender)?;
            continue;
        }
        let body = if sender.gzip { gzip(&part).map_err(|error| error.to_string())? } else { part };
        match sender.send(signal, body, sender.gzip).await? {
            Judged::Taken(rejected) => {
                sender.totals.records += range.len() as u64;
                sender.totals.refused += rejected;
            }
            Judged::NoGzip => {
                sender.gzip = false;
                ranges.push(range);
            }
            judged => narrow(key, range, &judged, &mut ranges, sender)?,
        }
    }
    Ok(())
}

/// Halves what was not taken, and leaves out what cannot be halved.
fn narrow(
    key: &str,
    range: Range<usize>,
    judged: &Judged,
    ranges: &mut Vec<Range<usize>>,
    sender: &mut Sender,
) -> Result<(), String> {
    if range.len() > 1 {
        let middle = range.start + range.len() / 2;
        ranges.extend([middle..range.end, range.start..middle]);
        return Ok(());
    }
    sender.gives_up(key, judged)
}

fn inflated(body: &[u8]) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(body).read_to_end(&mut plain).map_err(|error| format!("is not gzip: {error}"))?;
    Ok(plain)
}
