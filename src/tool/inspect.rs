//! What is in a queue's directory, as text.

use std::path::Path;

use super::options::Options;
use crate::encode::Protocol;
use crate::queue::{Kind, Reason, SegmentSurvey, Standing, State, Surveyed, survey};
use crate::{Signal, clock};

const SECOND_NANOS: u64 = 1_000_000_000;

pub(super) fn run(options: &Options) -> Result<(), String> {
    let (state, segments) = survey(Path::new(&options.source)).map_err(|error| error.to_string())?;
    print!("{}", told(&state, &segments, options.blocks, clock::unix_now_nanos()));
    Ok(())
}

fn told(state: &State, segments: &[SegmentSurvey], blocks: bool, now: u64) -> String {
    let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let frames = || segments.iter().flat_map(|segment| &segment.frames);
    let mut lines = vec![
        format!("{} segments, {bytes} bytes; queue {:032x}", segments.len(), state.queue_id),
        String::new(),
        format!("{:<8} {:>8} {:>10} {:>12}  oldest received", "waiting", "blocks", "records", "plain bytes"),
    ];
    for signal in Signal::ALL {
        let waiting = || frames().filter(|frame| frame.signal == signal && frame.standing == Standing::Waits);
        let records: u64 = waiting().map(|frame| u64::from(frame.records)).sum();
        // Of the oldest block, some may be done.
        let records = records.saturating_sub(u64::from(state.marks.get(signal).records));
        let plain_bytes: u64 = waiting().map(|frame| u64::from(frame.plain_bytes)).sum();
        let oldest = waiting().next().map_or_else(|| "-".to_owned(), |frame| age(frame.received, now));
        let (name, count) = (signal.name(), waiting().count());
        lines.push(format!("{name:<8} {count:>8} {records:>10} {plain_bytes:>12}  {oldest}"));
    }
    lines.push(String::new());
    lines.push(format!(
        "{:<16} {:>10} {:>7} {:>8} {:>6} {:>15}",
        "segment", "bytes", "frames", "waiting", "broken", "damaged bytes"
    ));
    lines.extend(segments.iter().map(segment));
    for signal in Signal::ALL {
        let dropped =
            Reason::ALL.into_iter().map(|reason| (state.ledger.dropped_for(signal, reason), reason));
        let dropped = dropped.filter(|(records, _)| *records > 0);
        lines.extend(
            dropped.map(|(records, reason)| format!("dropped: {records} {signal} records, {reason}")),
        );
        let handed = state.ledger.handed(signal);
        if handed > 0 {
            lines.push(format!("the fallback has {handed} {signal} records"));
        }
    }
    if blocks {
        lines.push(String::new());
        lines.extend(frames().map(|frame| block(frame, now)));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn segment(segment: &SegmentSurvey) -> String {
    let SegmentSurvey { number, bytes, frames, damaged_bytes, readable } = segment;
    let waiting = frames.iter().filter(|frame| frame.standing == Standing::Waits).count();
    let broken = frames.iter().filter(|frame| !frame.intact).count();
    let unread = if *readable { "" } else { "  not all of it can be read" };
    let count = frames.len();
    format!("{number:010}.seg   {bytes:>10} {count:>7} {waiting:>8} {broken:>6} {damaged_bytes:>15}{unread}")
}

fn block(frame: &Surveyed, now: u64) -> String {
    let kind = match frame.kind {
        Kind::Block { .. } => "block",
        Kind::Fragment => "fragment",
        Kind::Report(_) => "report",
        Kind::Carry => "carry",
        Kind::Shed => "header",
        Kind::Classes => "classes",
    };
    let standing = match frame.standing {
        Standing::Waits => "waits",
        Standing::Done => "done",
        Standing::Kept => "kept",
    };
    let format = Protocol::of_id(frame.format).map_or("unknown", Protocol::name);
    let broken = if frame.intact { "" } else { "  DAMAGED" };
    format!(
        "{:010}/{:<6} {:<8} {kind:<8} {standing:<5} {format:<12} {:>6} records {:>8} bytes ({:>8} plain), severity {:>2}, received {}{broken}",
        frame.seq.segment(),
        frame.seq.ordinal(),
        frame.signal.name(),
        frame.records,
        frame.stored_bytes,
        frame.plain_bytes,
        frame.severity,
        age(frame.received, now),
    )
}

/// How long ago `then` was, both Unix nanoseconds.
fn age(then: u64, now: u64) -> String {
    let seconds = now.saturating_sub(then) / SECOND_NANOS;
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
