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
//! | Ruby | `L, [TIME #PID]  LEVEL REQUEST -- name: text` |
//! | Go (slog) | `time=TIME level=LEVEL msg=…` |
//! | Rust (tracing) | `TIME  LEVEL target: text` |
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
}

impl<'a> Line<'a> {
    pub(super) fn read(line: &'a str) -> Self {
        bracketed(line)
            .or_else(|| ruby(line))
            .or_else(|| logfmt(line))
            .or_else(|| timed(line))
            .unwrap_or_else(|| Self { request_id: request_id_in_line(line), level: None })
    }
}

/// `[LEVEL]`, then a tab and the rest of Python's form, or a space and text.
fn bracketed(line: &str) -> Option<Line<'_>> {
    let (word, rest) = line.strip_prefix('[')?.split_once(']')?;
    let level = upper_case_level(word)?;
    if rest.starts_with(' ') {
        return Some(Line { level: Some(level), request_id: None });
    }
    let mut columns = rest.strip_prefix('\t')?.split('\t');
    let timed = columns.next().is_some_and(is_date_time);
    let request_id = columns.next().filter(|id| timed && is_request_id(id));
    Some(Line { level: Some(level), request_id })
}

/// `L, [TIME #PID]  LEVEL -- name: text`, where Lambda puts the request id after the level.
fn ruby(line: &str) -> Option<Line<'_>> {
    let (letter, rest) = line.split_once(", [")?;
    let (stamp, rest) = rest.split_once(']')?;
    let (head, _) = rest.split_once(" -- ")?;
    let mut words = head.split_ascii_whitespace();
    let level = words.next()?;
    let known = number_of(level).is_some() || level == "ANY";
    let shape = letter.len() == 1
        && level.starts_with(letter)
        && known
        && time::date_time_length(stamp).is_some()
        && stamp.contains('#');
    shape.then(|| Line {
        level: Some(level).filter(|level| *level != "ANY"),
        request_id: words.next().filter(|id| is_request_id(id)),
    })
}

/// `time=TIME level=LEVEL …`
fn logfmt(line: &str) -> Option<Line<'_>> {
    let mut words = line.strip_prefix("time=")?.split(' ');
    let timed = words.next().is_some_and(|stamp| is_date_time(stamp.trim_matches('"')));
    let level = words.next()?.strip_prefix("level=")?;
    let known = timed && number_of(level).is_some();
    known.then_some(Line { level: Some(level), request_id: None })
}

/// A time, then a request id, a level, or both.
fn timed(line: &str) -> Option<Line<'_>> {
    let (_, rest) = line.split_at_checked(time::date_time_length(line)?)?;
    if let Some(columns) = rest.strip_prefix('\t') {
        let mut columns = columns.split('\t');
        let id = columns.next()?;
        // Node.js writes `undefined` outside an invocation; .NET leaves it empty.
        if !is_request_id(id) && !matches!(id, "undefined" | "") {
            return Some(Line::default());
        }
        let level = columns.next().filter(|word| number_of(word).is_some());
        return Some(Line { request_id: Some(id).filter(|id| is_request_id(id)), level });
    }
    let mut words = rest.strip_prefix(' ')?.split_ascii_whitespace();
    let first = words.next()?;
    if is_request_id(first) {
        return Some(Line { request_id: Some(first), level: words.next().and_then(upper_case_level) });
    }
    Some(Line { request_id: None, level: upper_case_level(first) })
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
        assert_eq!(Line::read(line), Line { request_id, level }, "{line:?}");
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
            "2024-05-15T23:59:20.159Z",
            "2024-05-15T23:59:20.159Z error happened",
            "2024-05-15T23:59:20.159Z\tERROR\tx",
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
