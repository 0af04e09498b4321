//! The line formats of the Lambda runtimes and the usual loggers.
//!
//! A line is understood only where its form leaves no doubt; a level or a request id that is merely mentioned
//! in a text is left alone.
//!
//! | written by | form |
//! |---|---|
//! | Node.js | `TIME⇥REQUEST⇥LEVEL⇥text` |
//! | .NET | `TIME⇥REQUEST⇥level⇥text` |
//! | Python | `[LEVEL]⇥TIME⇥REQUEST⇥text`, `[LEVEL] text` |
//! | Java (log4j2, the pattern of AWS's documentation) | `DATE TIME REQUEST LEVEL class:line - text` |
//! | Java (logback) | `DATE TIME [thread] LEVEL class - text`, `TIME [thread] LEVEL class - text` |
//! | Ruby | `L, [TIME #PID]  LEVEL REQUEST -- name: text` |
//! | Python (the logging module's own) | `LEVEL:name:text` |
//! | Go (slog, logrus) | `time=TIME level=LEVEL msg=…` |
//! | Go (zap) | `TIME⇥LEVEL⇥caller⇥text` |
//! | Rust (tracing) | `TIME  LEVEL target: text` |
//! | Rust (`env_logger`) | `[TIME LEVEL target] text` |
//! | the platform | `RequestId: REQUEST …`, `START RequestId: …`, `TIME REQUEST Task timed out …` |

use super::event::{is_request_id, request_id_in_line};
use super::severity::number_of;
use super::time;

/// What a line says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) request_id: Option<&'a str>,
    /// The level's word; one that [`number_of`] knows.
    pub(super) level: Option<&'a str>,
    /// When it was written, if the line says in which zone, in nanoseconds since the Unix epoch.
    pub(super) time_unix_nanos: Option<u64>,
}

impl<'a> Line<'a> {
    pub(super) fn read(line: &'a str) -> Self {
        bracketed(line)
            .or_else(|| ruby(line))
            .or_else(|| logfmt(line))
            .or_else(|| timed(line))
            .or_else(|| clocked(line))
            .or_else(|| python(line))
            .unwrap_or_else(|| Self { request_id: request_id_in_line(line), ..Self::default() })
    }
}

/// `[LEVEL]`, then a tab and the rest of Python's form, or a space and text; or `[TIME LEVEL target]`.
fn bracketed(line: &str) -> Option<Line<'_>> {
    let (word, rest) = line.strip_prefix('[')?.split_once(']')?;
    let Some(level) = upper_case_level(word) else {
        let (stamp, word) = word.split_once(' ')?;
        let level = upper_case_level(word.split_ascii_whitespace().next()?)?;
        let stamped = is_date_time(stamp) && rest.starts_with(' ');
        return stamped.then(|| Line { level: Some(level), ..at(stamp) });
    };
    if rest.starts_with(' ') {
        let level = Some(level).filter(|level| is_plain(level));
        return Some(Line { level, ..Line::default() });
    }
    let mut columns = rest.strip_prefix('\t')?.split('\t');
    let stamp = columns.next().filter(|stamp| is_date_time(stamp));
    let request_id = columns.next().filter(|id| stamp.is_some() && is_request_id(id));
    Some(Line { level: Some(level), request_id, ..stamp.map(at_of_python).unwrap_or_default() })
}

/// The time of Python's form. Its older runtime client wrote milliseconds without zeros before them: `20.5Z` is 5 ms after.
fn at_of_python(stamp: &str) -> Line<'static> {
    match stamp.strip_suffix('Z').and_then(|stamp| stamp.rsplit_once('.')) {
        Some((whole, millis)) if millis.len() < 3 => at(&format!("{whole}.{millis:0>3}Z")),
        _ => at(stamp),
    }
}

/// `L, [TIME #PID]  LEVEL -- name: text`, where Lambda puts the request id after the level.
fn ruby(line: &str) -> Option<Line<'_>> {
    let (letter, rest) = line.split_at_checked(1)?;
    let rest = rest.strip_prefix(", [")?;
    let (stamp, rest) = rest.split_once(']')?;
    let (head, _) = rest.split_once(" -- ")?;
    let mut words = head.split_ascii_whitespace();
    let level = words.next()?;
    let known = number_of(level).is_some() || level == "ANY";
    let shape =
        level.starts_with(letter) && known && time::date_time_length(stamp).is_some() && stamp.contains('#');
    shape.then(|| Line {
        level: Some(level).filter(|level| *level != "ANY"),
        request_id: words.next().filter(|id| is_request_id(id)),
        ..Line::default()
    })
}

/// `time=TIME level=LEVEL …`
fn logfmt(line: &str) -> Option<Line<'_>> {
    let mut words = line.strip_prefix("time=")?.split(' ');
    let stamp = words.next()?.trim_matches('"');
    let level = words.next()?.strip_prefix("level=")?;
    let known = is_date_time(stamp) && number_of(level).is_some();
    known.then(|| Line { level: Some(level), ..at(stamp) })
}

/// A time, then a request id, a level, or both.
fn timed(line: &str) -> Option<Line<'_>> {
    let (length, time_unix_nanos) = time::leading(line)?;
    let (_, rest) = line.split_at_checked(length)?;
    let told = Line { time_unix_nanos, ..Line::default() };
    if let Some(columns) = rest.strip_prefix('\t') {
        let mut columns = columns.split('\t');
        let id = columns.next()?;
        if let Some(level) = upper_case_level(id) {
            return Some(Line { level: Some(level), ..told });
        }
        // Node.js writes `undefined` outside an invocation; .NET leaves it empty.
        let request_id = Some(id).filter(|id| is_request_id(id));
        if request_id.is_none() && !matches!(id, "undefined" | "") {
            return Some(Line::default());
        }
        let level = columns.next().filter(|word| number_of(word).is_some());
        let time = if level.is_some() || request_id.is_some() { told } else { Line::default() };
        return Some(Line { request_id, level, ..time });
    }
    let rest = rest.strip_prefix(' ')?;
    let first = rest.split_ascii_whitespace().next()?;
    if is_request_id(first) {
        let level = rest.split_ascii_whitespace().nth(1).and_then(upper_case_level);
        return Some(Line { request_id: Some(first), level, ..told });
    }
    let level = upper_case_level(first).filter(|level| is_plain(level)).or_else(|| after_thread(rest));
    Some(level.map_or_else(Line::default, |level| Line { level: Some(level), ..told }))
}

/// `TIME [thread] LEVEL class - text`, the time of day alone.
fn clocked(line: &str) -> Option<Line<'_>> {
    let (stamp, rest) = line.split_once(' ')?;
    let is_time = stamp.len() == "00:00:00.000".len()
        && stamp.bytes().enumerate().all(|(at, byte)| match at {
            2 | 5 => byte == b':',
            8 => matches!(byte, b'.' | b','),
            _ => byte.is_ascii_digit(),
        });
    let level = after_thread(rest).filter(|_| is_time)?;
    Some(Line { level: Some(level), ..Line::default() })
}

/// The level in `[thread] LEVEL …`.
fn after_thread(text: &str) -> Option<&str> {
    let (_, rest) = text.strip_prefix('[')?.split_once("] ")?;
    upper_case_level(rest.split_ascii_whitespace().next()?)
}

/// `LEVEL:name:text`, as Python's logging has it unless it is told otherwise.
fn python(line: &str) -> Option<Line<'_>> {
    // A colon is not looked for through the whole of a line that cannot have this form.
    let (word, rest) = line.starts_with(['D', 'I', 'W', 'E', 'C']).then(|| line.split_once(':')).flatten()?;
    let (name, _) = rest.split_once(':')?;
    let is_level = matches!(word, "DEBUG" | "INFO" | "WARNING" | "ERROR" | "CRITICAL");
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
    (is_level && is_name).then_some(Line { level: Some(word), ..Line::default() })
}

/// A line of this time.
fn at(stamp: &str) -> Line<'static> {
    Line { time_unix_nanos: time::rfc3339(stamp), ..Line::default() }
}

/// Whether a level cannot be anything else where only its place says that it is one: `[HTTP] GET`, `[FINE] 30 EUR` and
/// `[ALERT] x` may be.
fn is_plain(level: &str) -> bool {
    matches!(
        level,
        "TRACE" | "DEBUG" | "INFO" | "WARN" | "WARNING" | "ERROR" | "SEVERE" | "CRITICAL" | "FATAL"
    )
}

/// In running text only a level in capitals is one.
fn upper_case_level(word: &str) -> Option<&str> {
    (word.bytes().all(|byte| byte.is_ascii_uppercase()) && number_of(word).is_some()).then_some(word)
}

fn is_date_time(text: &str) -> bool {
    time::date_time_length(text) == Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8c181f94-0f1e-4cdb-a46b-a8dbe7918715";

    #[track_caller]
    fn reads(line: &str, request_id: Option<&str>, level: Option<&str>) {
        let read = Line::read(line);
        assert_eq!((read.request_id, read.level), (request_id, level), "{line:?}");
        if (request_id, level) == (None, None) {
            assert_eq!(read.time_unix_nanos, None, "{line:?}");
        }
    }

    #[test]
    fn a_lines_own_time_counts_where_it_names_its_zone() {
        let time = Some(1_791_444_627_768_000_000);
        for line in [
            format!("2026-10-08T07:30:27.768Z\t{ID}\tINFO\tfrom Node.js"),
            format!("[INFO]\t2026-10-08T07:30:27.768Z\t{ID}\tfrom Python"),
            format!("2026-10-08T07:30:27.768Z {ID} Task timed out after 3.00 seconds"),
            "2026-10-08T07:30:27.768Z\tINFO\tapp/main.go:7\tfrom zap".to_owned(),
            "2026-10-08T09:30:27.768+02:00  INFO 8 --- [main] com.example.App : from Spring".to_owned(),
            "[2026-10-08T07:30:27.768Z INFO  app] from env_logger".to_owned(),
            "time=2026-10-08T07:30:27.768Z level=INFO msg=x".to_owned(),
        ] {
            assert_eq!(Line::read(&line).time_unix_nanos, time, "{line}");
        }
        for line in [
            format!("2026-10-08 07:30:27.768 {ID} INFO  Handler:45 - in some zone"),
            "[INFO]\tyesterday\t\tx".to_owned(),
            "12:34:56.789 [main] INFO c.e.App - x".to_owned(),
            "I, [2026-10-08T07:30:27.768000 #8]  INFO -- : from Ruby".to_owned(),
            "2026-10-08T07:30:27.768Z\t\tand a column".to_owned(),
        ] {
            assert_eq!(Line::read(&line).time_unix_nanos, None, "{line}");
        }
    }

    #[test]
    fn pythons_older_runtime_wrote_milliseconds_without_zeros() {
        for (fraction, millis) in [("5", 5), ("15", 15), ("015", 15), ("150", 150), ("1500", 150)] {
            let line = format!("[INFO]\t2026-10-08T07:30:27.{fraction}Z\t{ID}\tx");
            let time = 1_791_444_627_000_000_000 + millis * 1_000_000;
            assert_eq!(Line::read(&line).time_unix_nanos, Some(time), "{line}");
        }
        let nodes = format!("2026-10-08T07:30:27.5Z\t{ID}\tINFO\tx");
        assert_eq!(Line::read(&nodes).time_unix_nanos, Some(1_791_444_627_500_000_000));
    }

    #[test]
    fn the_runtimes_own_formats_are_understood() {
        let id = Some(ID);
        reads(&format!("2024-05-15T23:59:20.159Z\t{ID}\tWARN\twarn from console"), id, Some("WARN"));
        reads(
            &format!("2024-05-15T23:59:20.159Z\t{ID}\tERROR\tInvoke Error \t{{\"a\":1}}"),
            id,
            Some("ERROR"),
        );
        reads("2024-05-15T23:59:20.159Z\tundefined\tINFO\tcold", None, Some("INFO"));
        reads(&format!("2024-05-15T23:59:20.159Z\t{ID}\tinfo\tfrom .NET"), id, Some("info"));
        reads(&format!("2024-05-15T23:59:20.159Z\t{ID}\tfail\tfrom .NET"), id, Some("fail"));
        reads("2024-05-15T23:59:20.159Z\t\tcrit\tfrom .NET", None, Some("crit"));
        reads(&format!("[WARNING]\t2024-05-15T23:59:20.15Z\t{ID}\tfrom Python"), id, Some("WARNING"));
        reads("[INFO]\t2024-05-15T23:59:20.15Z\t\tat import", None, Some("INFO"));
        reads("[ERROR] ValueError: no\rTraceback (most recent call last):", None, Some("ERROR"));
        reads(&format!("2020-10-09 14:00:00 {ID} INFO  Handler:45 - from log4j2"), id, Some("INFO"));
        reads(&format!("I, [2022-01-01T00:00:00.123456 #8]  INFO {ID} -- : from Ruby"), id, Some("INFO"));
        reads("E, [2022-01-01T00:00:00.123456 #8] ERROR -- app: from Ruby", None, Some("ERROR"));
        reads("A, [2022-01-01T00:00:00.123456 #8]   ANY -- : from Ruby", None, None);
        reads("time=2024-01-01T00:00:00.000Z level=WARN msg=\"from Go\"", None, Some("WARN"));
        reads("2024-01-01T00:00:00.000000Z  INFO app: from Rust", None, Some("INFO"));
        reads("2024-01-01 00:00:00,123 DEBUG [main] something", None, Some("DEBUG"));
        reads("2024-01-01 00:00:00,123 [main] WARN  c.example.App - from logback", None, Some("WARN"));
        reads("12:34:56.789 [http-nio-1] ERROR c.example.App - from logback", None, Some("ERROR"));
        reads("2024-05-15T23:59:20.159Z\tERROR\tapp/main.go:7\tfrom zap", None, Some("ERROR"));
        reads("2024-05-15T23:59:20.159+0200\tDEBUG\tfrom zap", None, Some("DEBUG"));
        reads("time=\"2024-01-01T00:00:00Z\" level=fatal msg=\"from logrus\"", None, Some("fatal"));
        reads("[2024-01-01T00:00:00Z TRACE app::db] from env_logger", None, Some("TRACE"));
        reads("2024-01-01 00:00:00,123 [main] FINE c.example.App - in columns", None, Some("FINE"));
        reads("2024-05-15T23:59:20.159Z\tDPANIC\tapp/main.go:7\tfrom zap", None, Some("DPANIC"));
        reads("WARNING:root:from Python's logging", None, Some("WARNING"));
    }

    #[test]
    fn the_platforms_lines_name_their_request() {
        reads(&format!("START RequestId: {ID} Version: $LATEST"), Some(ID), None);
        reads(&format!("RequestId: {ID} Error: Runtime exited"), Some(ID), None);
        reads(&format!("2024-05-15T23:59:20.159Z {ID} Task timed out after 3.00 seconds"), Some(ID), None);
    }

    #[test]
    fn nothing_is_read_into_a_text_that_merely_mentions_it() {
        for line in [
            "",
            "ERROR",
            "ERROR something",
            "info: about this",
            "an ERROR happened",
            "[error] nginx",
            "[ERROR]",
            "[ERROR]x",
            "[1] ERROR",
            "[NOTE] x",
            "[HTTP] GET /",
            "[FINE] 30 EUR",
            "[ALERT] x",
            "[FAIL] test 7",
            "[VERBOSE] x",
            "2024-05-15T23:59:20.159Z FINE weather",
            "2024-05-15T23:59:20.159Z",
            "2024-05-15T23:59:20.159Z error happened",
            "2024-05-15T23:59:20.159Z\terror\tx",
            "2024-05-15T23:59:20.159Z [main] all is well",
            "[2024-01-01T00:00:00Z INFO]x",
            "[2024-01-01T00:00:00Z note] x",
            "12:34:56.789 ERROR x",
            "12:34:5x.789 [main] ERROR x",
            "ERROR: a thing: x",
            "WARN:root:x",
            "2024-05-15T23:59:20.159Z\tcolumn\tERROR\tx",
            "2009/11/10 23:00:00 ERROR from Go's log",
            "level=ERROR msg=x",
            "time=now level=ERROR",
            "I, [think] ERROR -- x",
            "I, [2022-01-01T00:00:00.123456 #8] ERROR -- x",
            "Id: 8c181f94-0f1e-4cdb-a46b-a8dbe7918715",
            "RequestId: none",
            "{\"level\":\"info\"}",
            "é\tü\t日本\t",
        ] {
            reads(line, None, None);
        }
    }
}
