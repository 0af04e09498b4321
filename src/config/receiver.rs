//! Keeps the extension from sending to itself.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` is read by two: the function's SDK, which is to send to the receiver, and the extension,
//! which is not. Where the variable is all there is, it must not be taken for the backend.

use super::problem::Problem;
use super::{Config, Endpoint, Fallback, settings};
use crate::Signal;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

const FALLBACK: &str = "OUTLAST_FALLBACK";

/// Removes endpoints that are the receiver itself, and says so.
pub(super) fn break_loop(variables: &BTreeMap<String, String>, config: &mut Config) -> Vec<Problem> {
    let Some(receiver) = config.otlp_receiver else { return Vec::new() };
    let fallback =
        config.fallback.take_if(|place| matches!(place, Fallback::Http(base) if is_at(base, receiver)));
    let fallback = fallback.map(|place| Problem {
        variable: FALLBACK.to_owned(),
        value: Some(place.to_string()),
        accepted: format!(
            "is where {} listens, so it cannot be the fallback as well",
            settings::OTLP_RECEIVER
        ),
        consequence: "there is no fallback".to_owned(),
    });
    backend(variables, config, receiver).into_iter().chain(fallback).collect()
}

fn backend(
    variables: &BTreeMap<String, String>,
    config: &mut Config,
    receiver: SocketAddr,
) -> Option<Problem> {
    let mut found = None;
    let mut check = |endpoint: &mut Option<Endpoint>, name: &'static str| {
        if endpoint.as_ref().is_some_and(|endpoint| is_at(endpoint, receiver)) {
            found = endpoint.take().map(|endpoint| (endpoint, name));
        }
    };
    for signal in Signal::ALL {
        let ours = signal == Signal::Metrics && variables.contains_key(settings::METRICS_ENDPOINT);
        let name = if ours { settings::METRICS_ENDPOINT } else { own_variable(signal) };
        check(config.own_endpoints.get_mut(signal), name);
    }
    check(&mut config.endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT");
    let (endpoint, name) = found?;
    let own = variables.contains_key(settings::ENDPOINT) && name != settings::METRICS_ENDPOINT;
    Some(Problem {
        variable: if own { settings::ENDPOINT } else { name }.to_owned(),
        value: Some(endpoint.to_string()),
        accepted: format!(
            "is where {} listens, so it cannot be the backend as well",
            settings::OTLP_RECEIVER
        ),
        consequence: format!("not used: set {} to the backend", settings::ENDPOINT),
    })
}

fn own_variable(signal: Signal) -> &'static str {
    match signal {
        Signal::Logs => "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        Signal::Metrics => "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        Signal::Traces => "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    }
}

/// Whether `endpoint` leads to `receiver`.
pub(super) fn is_at(endpoint: &Endpoint, receiver: SocketAddr) -> bool {
    let url = endpoint.url();
    if url.port_or_known_default() != Some(receiver.port()) {
        return false;
    }
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    let is_here = address.map_or(host.eq_ignore_ascii_case("localhost"), |address| {
        address.is_loopback() || address.is_unspecified()
    });
    let listens_here = receiver.ip().is_loopback() || receiver.ip().is_unspecified();
    address == Some(receiver.ip()) || is_here && listens_here
}

#[cfg(test)]
mod tests {
    use crate::config::load;

    #[test]
    fn the_receivers_own_address_is_not_taken_for_the_backend() {
        for (receiver, endpoint, is_loop) in [
            ("on", "http://localhost:4318", true),
            ("on", "http://127.0.0.1:4318/", true),
            ("on", "http://[::1]:4318", true),
            ("0.0.0.0:80", "http://localhost", true),
            ("10.0.0.7:4318", "http://10.0.0.7:4318", true),
            ("on", "http://127.0.0.1:4319", false),
            ("on", "http://collector:4318", false),
            ("10.0.0.7:4318", "http://10.0.0.8:4318", false),
            ("10.0.0.7:4318", "http://localhost:4318", false),
            ("off", "http://localhost:4318", false),
        ] {
            let loaded =
                load([("OUTLAST_OTLP_RECEIVER", receiver), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]);
            assert_eq!(loaded.config.endpoint.is_none(), is_loop, "{receiver} {endpoint}");
            let lines: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
            assert_eq!(lines.iter().any(|line| line.contains("set OUTLAST_ENDPOINT")), is_loop, "{lines:?}");
        }
    }

    #[test]
    fn the_receivers_own_address_is_not_taken_for_the_fallback() {
        for (fallback, is_loop) in
            [("http://localhost:4318", true), ("http://127.0.0.1:4319", false), ("stdout", false)]
        {
            let loaded = load([
                ("OUTLAST_ENDPOINT", "http://c"),
                ("OUTLAST_OTLP_RECEIVER", "on"),
                ("OUTLAST_FALLBACK", fallback),
            ]);
            assert_eq!(loaded.config.fallback.is_none(), is_loop, "{fallback}");
            let lines: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
            assert_eq!(lines.iter().any(|line| line.contains("there is no fallback")), is_loop, "{lines:?}");
        }
    }

    #[test]
    fn with_a_backend_of_its_own_the_standard_variable_is_the_sdks() {
        let loaded = load([
            ("OUTLAST_OTLP_RECEIVER", "on"),
            ("OUTLAST_ENDPOINT", "https://backend.example"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://localhost:4318/v1/logs"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4318/v1/traces"),
        ]);
        assert_eq!(loaded.problems, []);
        assert!(
            loaded.config.endpoint.is_some()
                && loaded.config.own_endpoints.get(crate::Signal::Logs).is_none()
        );
    }
}
