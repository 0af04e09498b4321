//! The columns of the table: how a value is read, what is accepted, what was wrong.

use std::time::Duration;

use super::{Config, units};

/// Values are shown in problems up to this length: enough to recognise what was typed.
const SHOWN_VALUE_MAX_CHARS: usize = 80;

/// One row of the table.
pub(super) struct Setting {
    /// The environment variable.
    pub(super) name: &'static str,
    /// The default as a user would write it; empty for none.
    pub(super) default: &'static str,
    /// What it is for, one or more sentences of Markdown.
    pub(super) meaning: &'static str,
    /// A value that makes sense.
    pub(super) example: &'static str,
    /// How its value is read.
    pub(super) kind: Kind,
    /// Standard variables that are read when ours is not set, a more specific one after the general one.
    pub(super) standard: &'static [Standard],
}

/// A variable of the OpenTelemetry specification that means the same.
pub(super) struct Standard {
    /// The environment variable.
    pub(super) name: &'static str,
    /// How its value is read, which may differ from ours (its times are plain milliseconds).
    pub(super) kind: Kind,
}

/// Values from `min` to `max`, both included.
pub(super) struct Range<T> {
    /// The least accepted value.
    pub(super) min: T,
    /// The greatest accepted value.
    pub(super) max: T,
    /// Why it ends there, for the page of settings.
    pub(super) why: &'static str,
}

/// How a value is read and where it goes.
pub(super) enum Kind {
    /// A duration with a unit.
    Duration(Range<Duration>, fn(&mut Config, Duration)),
    /// A whole number of milliseconds, as the OpenTelemetry variables have it.
    Millis(Range<Duration>, fn(&mut Config, Duration)),
    /// A size.
    Bytes(Range<u64>, fn(&mut Config, u64)),
    /// One of a few words.
    Choice(&'static [Choice]),
    /// Anything else: what is accepted, and a function that applies what it can and returns what it cannot.
    Other(&'static str, fn(&mut Config, &str) -> Vec<Flaw>),
}

/// One word of a [`Kind::Choice`].
pub(super) struct Choice {
    /// The word.
    pub(super) word: &'static str,
    /// What it does; none for a word that is documented but that this version cannot do.
    pub(super) apply: Option<fn(&mut Config)>,
}

/// Why a value, or a part of it, was not taken.
#[derive(Debug)]
pub(super) struct Flaw {
    /// The value, if it can be shown.
    pub(super) value: Option<String>,
    /// What is accepted, as a phrase.
    pub(super) accepted: String,
    /// What happens instead, if it is not that the default is used.
    pub(super) consequence: Option<String>,
}

impl Setting {
    /// What is used when the value is wrong.
    pub(super) fn fallback(&self) -> String {
        if self.default.is_empty() {
            "not used".to_owned()
        } else {
            format!("the default, {}, is used", self.default)
        }
    }
}

impl Kind {
    /// Reads `value` into `config`; what could not be used comes back and leaves `config` as it was.
    pub(super) fn apply(&self, config: &mut Config, value: &str) -> Vec<Flaw> {
        let refused = || {
            vec![Flaw {
                value: Some(shown(value)),
                accepted: format!("accepts {}", self.accepted()),
                consequence: None,
            }]
        };
        match self {
            Self::Duration(range, set) => match units::parse_duration(value) {
                Some(duration) if (range.min..=range.max).contains(&duration) => set(config, duration),
                _ => return refused(),
            },
            Self::Millis(range, set) => match value.parse().map(Duration::from_millis) {
                Ok(duration) if (range.min..=range.max).contains(&duration) => set(config, duration),
                _ => return refused(),
            },
            Self::Bytes(range, set) => match units::parse_bytes(value) {
                Some(bytes) if (range.min..=range.max).contains(&bytes) => set(config, bytes),
                _ => return refused(),
            },
            Self::Choice(choices) => {
                match choices.iter().find(|choice| choice.word.eq_ignore_ascii_case(value)) {
                    Some(Choice { apply: Some(apply), .. }) => apply(config),
                    Some(Choice { apply: None, .. }) => {
                        let accepted =
                            format!("not supported by this version, which accepts {}", self.accepted());
                        return vec![Flaw { value: Some(shown(value)), accepted, consequence: None }];
                    }
                    None => return refused(),
                }
            }
            Self::Other(_, apply) => return apply(config, value),
        }
        Vec::new()
    }

    /// What is accepted, to follow the word "accepts".
    pub(super) fn accepted(&self) -> String {
        match self {
            Self::Duration(range, _) => format!(
                "a duration with a unit (ms, s, m, h) from {} to {}",
                units::show_duration(range.min),
                units::show_duration(range.max)
            ),
            Self::Millis(range, _) => {
                format!("whole milliseconds from {} to {}", range.min.as_millis(), range.max.as_millis())
            }
            Self::Bytes(range, _) => format!(
                "a size in bytes or with a unit (B, kB, MB, GB, KiB, MiB, GiB) from {} to {}",
                units::show_bytes(range.min),
                units::show_bytes(range.max)
            ),
            Self::Choice(choices) => {
                let words = choices.iter().filter(|choice| choice.apply.is_some());
                words.map(|choice| format!("`{}`", choice.word)).collect::<Vec<_>>().join(", ")
            }
            Self::Other(accepted, _) => (*accepted).to_owned(),
        }
    }

    /// Why the range ends where it does.
    pub(super) fn why(&self) -> Option<&'static str> {
        match self {
            Self::Duration(range, _) | Self::Millis(range, _) => Some(range.why),
            Self::Bytes(range, _) => Some(range.why),
            Self::Choice(_) | Self::Other(..) => None,
        }
    }
}

/// `value` on one line and not too long.
pub(super) fn shown(value: &str) -> String {
    let mut line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Some((end, _)) = line.char_indices().nth(SHOWN_VALUE_MAX_CHARS) {
        line.truncate(end);
        line.push('…');
    }
    line
}
