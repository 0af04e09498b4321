use super::*;
use crate::config::{Loaded, load};
use crate::encode::Protocol;
use std::time::Duration;

fn loaded(variables: &[(&str, &str)]) -> (Loaded, Vec<String>) {
    let always = [("OUTLAST_ENDPOINT", "http://main"), ("OUTLAST_HEADERS", "authorization=hunter2")];
    let loaded = load(always.iter().chain(variables).copied());
    let told = loaded.problems.iter().map(ToString::to_string).collect();
    (loaded, told)
}

#[test]
fn a_named_destination_has_settings_of_its_own_and_the_defaults_of_the_rest() {
    let (loaded, told) = loaded(&[
        ("OUTLAST_TIMEOUT", "1s"),
        ("OUTLAST_CA_FILE", "/opt/ca.pem"),
        ("OUTLAST_COMPRESSION", "none"),
        ("OUTLAST_RETRY_MAX", "7s"),
        ("OUTLAST_FALLBACK", "stdout"),
        ("OUTLAST_DESTINATIONS", "Audit, b"),
        ("OUTLAST_AUDIT_ENDPOINT", "http://audit"),
        ("OUTLAST_AUDIT_HEADERS", "x-key=own"),
        ("OUTLAST_AUDIT_SIGNALS", "logs"),
        ("OUTLAST_AUDIT_BATCH_MAX_BYTES", "64KiB"),
        ("OUTLAST_AUDIT_RATE_LIMIT", "64KiB"),
        ("OUTLAST_B_ENDPOINT", "http://b"),
        ("OUTLAST_B_PROTOCOL", "elasticsearch"),
        ("OUTLAST_B_TIMEOUT", "3s"),
    ]);
    assert_eq!(told, Vec::<String>::new());
    let [audit, b] = &loaded.config.destinations[..] else { panic!("{loaded:?}") };
    assert_eq!((audit.name.as_str(), b.name.as_str()), ("audit", "b"));
    let url = audit.config.signal_url(Signal::Logs).map(String::from);
    assert_eq!(url.as_deref(), Some("http://audit/v1/logs"));
    assert_eq!(audit.config.timeout, Duration::from_secs(5), "a default, not what the main one has");
    assert!(audit.config.gzip && audit.config.ca_file.is_none() && audit.config.fallback.is_none());
    assert!(audit.config.headers.fixed.contains_key("x-key"));
    assert!(audit.config.is_made(Signal::Logs) && !audit.config.is_made(Signal::Metrics));
    assert_eq!((audit.config.batch_max_bytes, audit.config.rate_limit), (64 << 10, Some(64 << 10)));
    assert_eq!(audit.config.retry_max, Duration::from_secs(7), "common to all");
    assert_eq!((b.config.protocol, b.config.timeout), (Protocol::Elasticsearch, Duration::from_secs(3)));
    assert!(b.config.headers.fixed.is_empty(), "credentials of the main one must not go elsewhere");
    assert!(!b.config.is_made(Signal::Metrics), "what its protocol takes");
}

#[test]
fn every_problem_of_a_destination_is_told_by_its_variable_and_the_rest_go_on() {
    let (loaded, told) = loaded(&[
        ("OUTLAST_DESTINATIONS", "a,b,c"),
        ("OUTLAST_A_TIMEOUT", "soon"),
        ("OUTLAST_A_ENDPOINT", "http://a"),
        ("OUTLAST_B_HEADERS", "x=y"),
        ("OUTLAST_C_ENDPOINT", "ftp://u:hunter2@c"),
        ("OUTLAST_D_ENDPOINT", "http://d"),
    ]);
    let names: Vec<&str> = loaded.config.destinations.iter().map(|found| found.name.as_str()).collect();
    assert_eq!(names, ["a"]);
    for (variable, what) in [
        ("OUTLAST_A_TIMEOUT", "the default, 5s, is used"),
        ("OUTLAST_B_ENDPOINT", "the destination b is left out"),
        ("OUTLAST_C_ENDPOINT", "the destination c is left out"),
        ("OUTLAST_D_ENDPOINT", "not a setting"),
    ] {
        assert!(told.iter().any(|line| line.starts_with(variable) && line.contains(what)), "{told:?}");
    }
    assert!(!told.concat().contains("hunter2"));
}

#[test]
fn names_that_cannot_be_used_are_told_and_left_out() {
    let endpoints = ["A", "B", "C", "D"].map(|name| format!("OUTLAST_{name}_ENDPOINT"));
    let endpoints = endpoints.iter().map(|name| (name.as_str(), "http://x"));
    let list = [("OUTLAST_DESTINATIONS", "a,A,fallback,no-dash,b,c,d")];
    let variables: Vec<_> = list.into_iter().chain(endpoints).collect();
    let (loaded, told) = loaded(&variables);
    assert_eq!(loaded.config.destinations.len(), DESTINATIONS_MAX);
    for what in ["twice", "OUTLAST_FALLBACK_HEADERS is a setting", "letters, digits", "at most 3 names"] {
        assert!(told.iter().any(|line| line.contains(what)), "{what}: {told:?}");
    }
    assert_eq!(told.len(), 5, "and a variable for a destination that is none: {told:?}");
}

#[test]
fn a_destination_is_bounded_by_its_protocol_and_is_not_the_receiver() {
    let (loaded, told) = loaded(&[
        ("OUTLAST_OTLP_RECEIVER", "on"),
        ("OUTLAST_DESTINATIONS", "a,b,c"),
        ("OUTLAST_A_ENDPOINT", "http://localhost:4318"),
        ("OUTLAST_B_ENDPOINT", "http://b"),
        ("OUTLAST_B_PROTOCOL", "newrelic"),
        ("OUTLAST_B_BATCH_MAX_BYTES", "16MiB"),
        ("OUTLAST_B_SIGNALS", "logs,traces"),
        ("OUTLAST_C_ENDPOINT", "http://c"),
        ("OUTLAST_C_PROTOCOL", "loki"),
        ("OUTLAST_C_SIGNALS", "metrics"),
        ("OUTLAST_C_CLIENT_KEY_FILE", "/opt/key.pem"),
    ]);
    let [b] = &loaded.config.destinations[..] else { panic!("{told:?}") };
    assert_eq!(b.config.batch_max_bytes, Protocol::NewRelic.wire().limits(Signal::Logs).body_bytes);
    for (variable, what) in [
        ("OUTLAST_A_ENDPOINT", "OUTLAST_OTLP_RECEIVER listens"),
        ("OUTLAST_B_BATCH_MAX_BYTES", "newrelic"),
        ("OUTLAST_B_SIGNALS", "newrelic takes no traces"),
        ("OUTLAST_C_SIGNALS", "leaves nothing"),
        ("OUTLAST_C_CLIENT_KEY_FILE", "needs OUTLAST_C_CLIENT_CERT_FILE"),
    ] {
        assert!(
            told.iter().any(|line| line.starts_with(variable) && line.contains(what)),
            "{what}: {told:?}"
        );
    }
}
