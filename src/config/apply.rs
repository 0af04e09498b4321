//! Values that take more than a number or a word: how each is read into the settings.
//!
//! Each function applies what it can and returns what it cannot.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::kind::{Flaw, shown};
use super::{Config, Endpoint, Rules, TelemetryType, endpoint, headers, resource};
use crate::Signal;
use crate::deliver::SYSTEM;

/// What a base URL must be.
pub(super) const BASE_URL_ACCEPTED: &str = "an `http://` or `https://` base URL";
/// What a URL for one signal must be.
pub(super) const OWN_URL_ACCEPTED: &str =
    "an `http://` or `https://` URL, used for this signal as it is, with nothing appended";
/// What a list of telemetry types must be.
pub(super) const TELEMETRY_ACCEPTED: &str = "a comma-separated list of `platform`, `function`, `extension`";
/// What the receiver's address must be.
pub(super) const OTLP_RECEIVER_ACCEPTED: &str =
    "`on`, `off`, or an address with a port such as `127.0.0.1:4318`";
/// What a directory must be.
pub(super) const QUEUE_DIR_ACCEPTED: &str = "an absolute path other than `/`";
/// What a file of certificates or of a key must be.
pub(super) const PEM_FILE_ACCEPTED: &str = "the absolute path of a PEM file";
pub(super) const CA_FILE_ACCEPTED: &str = "the absolute path of a PEM file, or `system`";
/// What rules must be.
pub(super) const RULES_ACCEPTED: &str = "rules in TOML, or the absolute path of a file with them";
/// What resource attributes must be.
pub(super) const RESOURCE_ATTRIBUTES_ACCEPTED: &str =
    "`key=value` pairs separated by commas, percent-encoded";

/// Where SDKs send to unless told otherwise (OpenTelemetry protocol exporter specification). Loopback: nobody outside the
/// environment has business here.
const OTLP_RECEIVER_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4318);

const RESOURCE_SERVICE_NAME: &str = "service.name";

fn bad_url(value: &str, accepted: &str) -> Vec<Flaw> {
    vec![Flaw {
        value: Some(shown(&endpoint::redact(value))),
        accepted: format!("accepts {accepted}"),
        consequence: None,
    }]
}

pub(super) fn base_url(config: &mut Config, value: &str) -> Vec<Flaw> {
    let Some(endpoint) = Endpoint::parse(value) else {
        return bad_url(value, BASE_URL_ACCEPTED);
    };
    let base = endpoint.without_signal_path().filter(|_| config.protocol.is_otlp());
    let Some(base) = base else {
        config.endpoint = Some(endpoint);
        return Vec::new();
    };
    let flaw = Flaw {
        value: Some(shown(&endpoint.to_string())),
        accepted: "accepts a base URL, to which the path of the signal is appended".to_owned(),
        consequence: Some(format!("{base} is taken as the base")),
    };
    config.endpoint = Some(base);
    vec![flaw]
}

pub(super) fn logs_url(config: &mut Config, value: &str) -> Vec<Flaw> {
    own_url(config, Signal::Logs, value)
}

pub(super) fn metrics_url(config: &mut Config, value: &str) -> Vec<Flaw> {
    own_url(config, Signal::Metrics, value)
}

pub(super) fn traces_url(config: &mut Config, value: &str) -> Vec<Flaw> {
    own_url(config, Signal::Traces, value)
}

fn own_url(config: &mut Config, signal: Signal, value: &str) -> Vec<Flaw> {
    match Endpoint::parse(value) {
        None => bad_url(value, OWN_URL_ACCEPTED),
        found => {
            *config.own_endpoints.get_mut(signal) = found;
            Vec::new()
        }
    }
}

pub(super) fn all_headers(config: &mut Config, value: &str) -> Vec<Flaw> {
    let (headers, flaws) = headers::parse(value);
    config.headers = headers;
    flaws
}

pub(super) fn logs_headers(config: &mut Config, value: &str) -> Vec<Flaw> {
    own_headers(config, Signal::Logs, value)
}

pub(super) fn metrics_headers(config: &mut Config, value: &str) -> Vec<Flaw> {
    own_headers(config, Signal::Metrics, value)
}

pub(super) fn traces_headers(config: &mut Config, value: &str) -> Vec<Flaw> {
    own_headers(config, Signal::Traces, value)
}

fn own_headers(config: &mut Config, signal: Signal, value: &str) -> Vec<Flaw> {
    let (headers, flaws) = headers::parse(value);
    *config.own_headers.get_mut(signal) = Some(headers);
    flaws
}

pub(super) fn telemetry(config: &mut Config, value: &str) -> Vec<Flaw> {
    let mut types = Vec::new();
    for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let known = [TelemetryType::Platform, TelemetryType::Function, TelemetryType::Extension];
        match known.into_iter().find(|known| known.name().eq_ignore_ascii_case(word)) {
            Some(known) if types.contains(&known) => {}
            Some(known) => types.push(known),
            None => types.clear(),
        }
        if types.is_empty() {
            break;
        }
    }
    if types.is_empty() {
        return vec![Flaw {
            value: Some(shown(value)),
            accepted: format!("accepts {TELEMETRY_ACCEPTED}"),
            consequence: None,
        }];
    }
    config.telemetry = types;
    Vec::new()
}

pub(super) fn otlp_receiver(config: &mut Config, value: &str) -> Vec<Flaw> {
    config.otlp_receiver = match value {
        word if word.eq_ignore_ascii_case("off") => None,
        word if word.eq_ignore_ascii_case("on") => Some(OTLP_RECEIVER_DEFAULT),
        address => match address.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                return vec![Flaw {
                    value: Some(shown(value)),
                    accepted: format!("accepts {OTLP_RECEIVER_ACCEPTED}"),
                    consequence: None,
                }];
            }
        },
    };
    Vec::new()
}

pub(super) fn queue_dir(config: &mut Config, value: &str) -> Vec<Flaw> {
    let path = Path::new(value);
    if !path.is_absolute() || path.parent().is_none() {
        return vec![Flaw {
            value: Some(shown(value)),
            accepted: format!("accepts {QUEUE_DIR_ACCEPTED}"),
            consequence: None,
        }];
    }
    path.clone_into(&mut config.queue_dir);
    Vec::new()
}

/// A file by its absolute path.
fn file(value: &str, take: impl FnOnce(PathBuf)) -> Vec<Flaw> {
    let path = Path::new(value);
    if !path.is_absolute() {
        return vec![Flaw {
            value: Some(shown(value)),
            accepted: format!("accepts {PEM_FILE_ACCEPTED}"),
            consequence: None,
        }];
    }
    take(path.to_owned());
    Vec::new()
}

pub(super) fn rules(config: &mut Config, value: &str) -> Vec<Flaw> {
    // TOML without any rule has neither sign; no TOML begins with a slash.
    config.rules = Some(match Path::new(value) {
        path if path.is_absolute() => Rules::File(path.to_owned()),
        _ if value.contains(['=', '[']) => Rules::Inline(value.to_owned()),
        _ => {
            return vec![Flaw {
                value: Some(shown(value)),
                accepted: format!("accepts {RULES_ACCEPTED}"),
                consequence: None,
            }];
        }
    });
    Vec::new()
}

pub(super) fn ca_file(config: &mut Config, value: &str) -> Vec<Flaw> {
    if value == SYSTEM {
        config.ca_file = Some(SYSTEM.into());
        return Vec::new();
    }
    file(value, |path| config.ca_file = Some(path))
}

pub(super) fn client_cert_file(config: &mut Config, value: &str) -> Vec<Flaw> {
    file(value, |path| config.client_cert_file = Some(path))
}

pub(super) fn client_key_file(config: &mut Config, value: &str) -> Vec<Flaw> {
    file(value, |path| config.client_key_file = Some(path))
}

pub(super) fn resource_attributes(config: &mut Config, value: &str) -> Vec<Flaw> {
    let Some(mut attributes) = resource::parse(value) else {
        return vec![Flaw {
            value: Some(shown(value)),
            accepted: format!("accepts {RESOURCE_ATTRIBUTES_ACCEPTED}"),
            consequence: Some("none of it is used".to_owned()),
        }];
    };
    if let Some((_, name)) = attributes.iter().find(|(key, _)| key == RESOURCE_SERVICE_NAME) {
        config.service_name = Some(name.clone()).filter(|name| !name.is_empty());
    }
    attributes.retain(|(key, _)| key != RESOURCE_SERVICE_NAME);
    config.resource_attributes = attributes;
    Vec::new()
}

pub(super) fn service_name(config: &mut Config, value: &str) -> Vec<Flaw> {
    config.service_name = Some(value.to_owned());
    Vec::new()
}
