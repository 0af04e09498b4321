//! What to tell the user about a setting that cannot be used as it is.

use std::fmt;

use super::kind::{Flaw, shown};
use super::units;
use crate::Signal;
use crate::encode::Protocol;

/// One thing that is wrong with the settings. `Display` gives one line; it never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The environment variable.
    pub variable: String,
    /// What it was set to, shortened to one line; none where the value may be secret or is not the point.
    pub value: Option<String>,
    /// What would have been accepted, as a phrase: `accepts a duration …`.
    pub accepted: String,
    /// What happens instead, as a phrase: `the default, 5s, is used`.
    pub consequence: String,
}

impl Problem {
    /// A value that the setting's parser did not take.
    pub(super) fn of(variable: &str, flaw: Flaw, fallback: &str) -> Self {
        Self {
            variable: variable.to_owned(),
            value: flaw.value,
            accepted: flaw.accepted,
            consequence: flaw.consequence.unwrap_or_else(|| fallback.to_owned()),
        }
    }

    /// A value that is not UTF-8.
    pub(super) fn not_text(variable: &str) -> Self {
        Self {
            variable: variable.to_owned(),
            value: None,
            accepted: "accepts UTF-8 text only".to_owned(),
            consequence: "treated as not set".to_owned(),
        }
    }

    /// A signal that is asked for has no URL.
    pub(super) fn no_endpoint_for(signal: Signal) -> Self {
        Self {
            variable: super::settings::SIGNALS.to_owned(),
            value: Some(signal.name().to_owned()),
            accepted: format!("nowhere to send {signal}: set OUTLAST_ENDPOINT"),
            consequence: format!("no {signal} are made"),
        }
    }

    /// The backend has no use for signals that are wanted.
    pub(super) fn not_taken(protocol: Protocol, signals: &[Signal]) -> Self {
        let names: Vec<&str> = signals.iter().map(|signal| signal.name()).collect();
        let (name, names) = (protocol.name(), names.join(" and "));
        Self {
            variable: super::settings::SIGNALS.to_owned(),
            value: None,
            accepted: format!("{name} takes no {names}"),
            consequence: "none are made".to_owned(),
        }
    }

    /// Requests would be larger than the backend takes them.
    pub(super) fn batch_beyond(protocol: Protocol, bytes: usize, body_max_bytes: usize) -> Self {
        let [value, most] = [bytes, body_max_bytes].map(|bytes| units::show_bytes(bytes as u64));
        Self {
            variable: super::settings::BATCH_MAX_BYTES.to_owned(),
            value: Some(value),
            accepted: format!(
                "accepts at most {most} for {}, which takes no larger requests",
                protocol.name()
            ),
            consequence: format!("{most} is used"),
        }
    }

    /// No signal has a URL.
    pub(super) fn nowhere_to_send() -> Self {
        Self {
            variable: super::settings::ENDPOINT.to_owned(),
            value: None,
            accepted: "nowhere to send: set it to the base URL of a backend".to_owned(),
            consequence: "the extension idles and collects nothing".to_owned(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.variable))?;
        if let Some(value) = &self.value {
            write!(f, "=\"{value}\"")?;
        }
        write!(f, ": {}; {}", self.accepted, self.consequence)
    }
}
