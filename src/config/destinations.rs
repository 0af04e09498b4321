//! Destinations besides the one that `OUTLAST_ENDPOINT` names: each has settings of its own, read by the same table.
//!
//! A destination is what the main one is: a [`Config`], of which only what concerns a destination is its own. What is not
//! set has its default, never what is set for the main one: another host must not get that one's credentials.

use std::collections::BTreeMap;

use super::endpoint::Endpoint;
use super::kind::{Flaw, Setting, shown};
use super::problem::Problem;
use super::settings::{self, SETTINGS};
use super::{Config, names, receiver};
use crate::Signal;
use crate::deliver::Headers;

/// What the list of names must be.
pub(super) const ACCEPTED: &str =
    "a comma-separated list of at most 3 names of letters, digits and `_`, 32 characters at most each";

/// Beside the main one. Each may have a request of every signal in memory, and keeps the segments on disk that it did not
/// get: more is the work of a collector.
pub(super) const DESTINATIONS_MAX: usize = 3;

/// Names stand in lines, in attributes and in the name of a file.
const NAME_MAX_CHARS: usize = 32;

/// What may be set for each of them, as in the names of the main settings.
const OWN: [&str; 11] = [
    settings::ENDPOINT,
    settings::PROTOCOL,
    settings::HEADERS,
    settings::TIMEOUT,
    settings::COMPRESSION,
    settings::SIGNALS,
    settings::BATCH_MAX_BYTES,
    settings::RATE_LIMIT,
    settings::CA_FILE,
    settings::CLIENT_CERT_FILE,
    settings::CLIENT_KEY_FILE,
];

/// A destination besides the main one.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Its name, in small letters.
    pub name: String,
    /// The settings as if it were the only one; it has no fallback.
    pub config: Config,
}

/// The settings that a destination has of its own.
pub(super) fn own_settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| OWN.contains(&setting.name))
}

/// The variable that is `setting` for the destination `name`.
pub(super) fn variable(name: &str, setting: &str) -> String {
    let own = setting.strip_prefix(names::PREFIX).unwrap_or(setting);
    format!("{}{}_{own}", names::PREFIX, name.to_ascii_uppercase())
}

/// Whether `variable` is a setting of a destination that was named.
pub(super) fn is_known(config: &Config, name: &str) -> bool {
    config.named.iter().any(|named| own_settings().any(|setting| variable(named, setting.name) == name))
}

/// Reads the list of names.
pub(super) fn named(config: &mut Config, value: &str) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    config.named.clear();
    for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let name = word.to_ascii_lowercase();
        let accepted = if !is_name(&name) {
            format!("accepts {ACCEPTED}")
        } else if let Some(taken) = taken_by(&name) {
            format!("is no name for a destination, for {taken} is a setting of its own")
        } else if config.named.contains(&name) {
            "names a destination twice".to_owned()
        } else if config.named.len() >= DESTINATIONS_MAX {
            format!("accepts at most {DESTINATIONS_MAX} names")
        } else {
            config.named.push(name);
            continue;
        };
        flaws.push(Flaw {
            value: Some(shown(word)),
            accepted,
            consequence: Some("this name is left out".to_owned()),
        });
    }
    flaws
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_MAX_CHARS && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The setting that a variable of a destination called `name` would be mistaken for.
fn taken_by(name: &str) -> Option<String> {
    let is_taken = |own: &String| SETTINGS.iter().any(|setting| setting.name == own);
    own_settings().map(|setting| variable(name, setting.name)).find(is_taken)
}

/// Reads the settings of every destination that is named. One that cannot be sent to is told and left out.
pub(super) fn read(
    variables: &BTreeMap<String, String>,
    main: &Config,
    problems: &mut Vec<Problem>,
) -> Vec<Destination> {
    let mut found = Vec::with_capacity(main.named.len());
    for name in &main.named {
        if let Some(config) = read_one(name, variables, main, problems) {
            found.push(Destination { name: name.clone(), config });
        }
    }
    found
}

fn read_one(
    name: &str,
    variables: &BTreeMap<String, String>,
    main: &Config,
    problems: &mut Vec<Problem>,
) -> Option<Config> {
    let mut config = blank_of(main);
    let value_of = |setting: &str| {
        let variable = variable(name, setting);
        variables.get(&variable).map(|value| (variable, value))
    };
    // First of all, as for the main one: what an endpoint may be depends on it.
    if let (Some(setting), Some((_, value))) =
        (own_settings().find(|setting| setting.name == settings::PROTOCOL), value_of(settings::PROTOCOL))
    {
        drop(setting.kind.apply(&mut config, value));
    }
    for setting in own_settings() {
        let Some((variable, value)) = value_of(setting.name) else { continue };
        let flaws = setting.kind.apply(&mut config, value);
        problems.extend(flaws.into_iter().map(|flaw| Problem::of(&variable, flaw, &setting.fallback())));
    }
    let set = |setting: &str| value_of(setting).is_some();
    super::bound(|setting| variable(name, setting), set, &mut config, problems);
    let wire = config.protocol.wire();
    let untaken = |signal: &Signal| *config.signals.get(*signal) && !wire.takes(*signal);
    let untaken: Vec<Signal> = Signal::ALL.into_iter().filter(untaken).collect();
    // By default it gets what its protocol takes, and nothing need be said of the rest.
    if set(settings::SIGNALS) && !untaken.is_empty() {
        problems.push(Problem {
            variable: variable(name, settings::SIGNALS),
            ..Problem::not_taken(config.protocol, &untaken)
        });
    }
    let endpoint = variable(name, settings::ENDPOINT);
    let is_loop = |found: &Endpoint| config.otlp_receiver.is_some_and(|at| receiver::is_at(found, at));
    let problem = match &config.endpoint {
        None => Problem {
            variable: endpoint,
            value: None,
            accepted: "nowhere to send: set it to the base URL of a backend".to_owned(),
            consequence: format!("the destination {name} is left out"),
        },
        Some(found) if is_loop(found) => Problem {
            variable: endpoint,
            value: Some(found.to_string()),
            accepted: format!(
                "is where {} listens, so it cannot be a backend as well",
                settings::OTLP_RECEIVER
            ),
            consequence: format!("the destination {name} is left out"),
        },
        Some(_) if !Signal::ALL.iter().any(|signal| config.is_made(*signal)) => Problem {
            variable: variable(name, settings::SIGNALS),
            value: None,
            accepted: format!("leaves nothing that {} takes", config.protocol.name()),
            consequence: format!("the destination {name} is left out"),
        },
        Some(_) => return Some(config),
    };
    problems.push(problem);
    None
}

/// What is common to all destinations, and the defaults of what is not.
fn blank_of(main: &Config) -> Config {
    let mut config = Config {
        endpoint: None,
        own_endpoints: crate::PerSignal::default(),
        headers: Headers::default(),
        own_headers: crate::PerSignal::default(),
        fallback: None,
        fallback_headers: Headers::default(),
        ca_file: None,
        client_cert_file: None,
        client_key_file: None,
        rate_limit: None,
        named: Vec::new(),
        destinations: Vec::new(),
        ..main.clone()
    };
    for setting in own_settings().filter(|setting| !setting.default.is_empty()) {
        // A default that its own parser refuses is a mistake in the table; a test walks them all.
        drop(setting.kind.apply(&mut config, setting.default));
    }
    config
}

#[cfg(test)]
mod tests;
