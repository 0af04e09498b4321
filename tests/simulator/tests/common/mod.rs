//! What the tests share: a sandbox around the probe, and its answers as JSON.

#![allow(dead_code, reason = "every test uses a part of it")]

use std::time::Duration;

use outlast_simulator::{Builder, Sandbox};
use serde_json::Value;

pub(crate) const PROBE: &str = env!("CARGO_BIN_EXE_probe-extension");

/// A sandbox whose probe follows this script.
pub(crate) fn probe(script: &str) -> Builder {
    Sandbox::builder(PROBE).env("PROBE", script).run("r")
}

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The probe's log so far.
pub(crate) fn steps(lambda: &Sandbox) -> Vec<Value> {
    lambda.extension_output().iter().filter_map(|line| serde_json::from_str(&line.text).ok()).collect()
}

/// The answers to one kind of step, once there are this many: the probe's output takes a moment to be read.
pub(crate) async fn answers(lambda: &Sandbox, step: &str, count: usize) -> Vec<Value> {
    lambda
        .until(|lambda| {
            let all: Vec<Value> = steps(lambda).into_iter().filter(|answer| answer["step"] == step).collect();
            (all.len() >= count).then_some(all)
        })
        .await
}

/// The bodies of telemetry that the probe has received and answered.
pub(crate) async fn bodies(lambda: &Sandbox) -> Vec<String> {
    let received = answers(lambda, "telemetry", lambda.deliveries().len()).await;
    received.iter().map(|request| request["body"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Status and error type of an answer.
pub(crate) fn refusal(answer: &Value) -> (u64, &str) {
    (answer["status"].as_u64().unwrap_or(0), answer["body"]["errorType"].as_str().unwrap_or(""))
}
