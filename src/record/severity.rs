//! How grave a record is: OpenTelemetry's numbers for the words loggers use.

use std::borrow::Cow;

/// A severity (OpenTelemetry logs data model, "Field: `SeverityNumber`").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Severity<'a> {
    /// 1–4 TRACE, 5–8 DEBUG, 9–12 INFO, 13–16 WARN, 17–20 ERROR, 21–24 FATAL; 0 if unknown.
    pub number: u8,
    /// The word the logger used; empty if unknown.
    pub text: Cow<'a, str>,
}

/// Finer than DEBUG.
pub const TRACE: u8 = 1;
/// For developers.
pub const DEBUG: u8 = 5;
/// Ordinary.
pub const INFO: u8 = 9;
/// Ordinary, but of note: syslog's NOTICE.
pub const NOTICE: u8 = 10;
/// Not an error yet.
pub const WARN: u8 = 13;
/// An error.
pub const ERROR: u8 = 17;
/// The end of a program.
pub const FATAL: u8 = 21;

/// The words of the loggers in use on Lambda: log4j, java.util.logging, Python, .NET (also in its four letters), Ruby, zap,
/// slog, tracing, pino, winston. Those that most lines have come first.
const WORDS: [(&str, u8); 27] = [
    ("info", INFO),
    ("error", ERROR),
    ("warn", WARN),
    ("warning", WARN),
    ("debug", DEBUG),
    ("trace", TRACE),
    ("trce", TRACE),
    ("silly", TRACE),
    ("finest", TRACE),
    ("finer", TRACE),
    ("verbose", TRACE),
    ("dbug", DEBUG),
    ("fine", DEBUG),
    ("http", DEBUG),
    ("information", INFO),
    ("notice", NOTICE),
    ("err", ERROR),
    ("fail", ERROR),
    ("severe", ERROR),
    ("critical", FATAL),
    ("crit", FATAL),
    ("fatal", FATAL),
    ("alert", FATAL),
    ("emergency", FATAL),
    ("emerg", FATAL),
    ("panic", FATAL),
    ("dpanic", FATAL),
];

impl<'a> Severity<'a> {
    /// No severity.
    pub const UNKNOWN: Self = Self { number: 0, text: Cow::Borrowed("") };

    /// A severity by its word, in any case. `None` if no logger's word is meant.
    pub fn from_word(word: Cow<'a, str>) -> Option<Self> {
        number_of(&word).map(|number| Self { number, text: word })
    }

    /// A severity of our own making.
    pub(super) const fn of(number: u8, text: &'static str) -> Self {
        Self { number, text: Cow::Borrowed(text) }
    }

    /// The levels of pino and bunyan, which are numbers.
    pub(super) const fn from_pino(level: i64) -> Option<Self> {
        Some(match level {
            10 => Self::of(TRACE, "TRACE"),
            20 => Self::of(DEBUG, "DEBUG"),
            30 => Self::of(INFO, "INFO"),
            40 => Self::of(WARN, "WARN"),
            50 => Self::of(ERROR, "ERROR"),
            60 => Self::of(FATAL, "FATAL"),
            _ => return None,
        })
    }
}

/// The severity number of a logger's word.
pub(super) fn number_of(word: &str) -> Option<u8> {
    WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, number)| *number)
}
