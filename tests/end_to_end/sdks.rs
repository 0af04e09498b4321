//! OpenTelemetry's own SDKs, exporting through the extension while the backend is away and the extension is killed.
//!
//! `tests/parts/get.sh otel-python` and `otel-node` install them; where one is missing its tests skip and say so, and
//! fail with `OUTLAST_REQUIRE_PARTS=1`.

use crate::sdk::{Port, assert_each_once, count_theirs, is_theirs};
use crate::support::{World, invoke, leave, within};
use outlast_backend::{Behaviour, Record, Signal};
use outlast_simulator::Invocation;
use serde_json::Value;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The directory of a part that `tests/parts/get.sh` installs, once it is complete.
pub(crate) fn part(name: &str, directory: &str, test: &str) -> Option<PathBuf> {
    let parts = env::var_os("PARTS_DIR").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/outlast-parts"),
        PathBuf::from,
    );
    let directory = parts.join(directory);
    if directory.join(".done").exists() {
        return Some(directory);
    }
    let missing =
        format!("{name} is not installed under {} (tests/parts/get.sh {name})", directory.display());
    assert!(env::var_os("OUTLAST_REQUIRE_PARTS").is_none_or(|value| value != "1"), "{missing}");
    eprintln!("{test}: SKIPPED, {missing}");
    None
}

/// A process that makes spans with an SDK; see `sdks/export.py`.
struct Function {
    _child: Child,
    orders: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

/// What the SDK says was accepted.
struct Accepted(Value);

impl Function {
    fn python(directory: &Path, port: &Port, compression: &str) -> Self {
        let mut command = Command::new(directory.join("bin/python"));
        command.arg(script("export.py")).args([&port.url(), compression]);
        Self::start(command)
    }

    fn node(directory: &Path, port: &Port, format: &str, compression: &str) -> Self {
        let mut command = Command::new("node");
        command.arg(script("export.js")).args([&port.url(), format, compression]);
        command.env("NODE_PATH", directory.join("node_modules"));
        Self::start(command)
    }

    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // The SDK is told everything by arguments.
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
            command.env_remove(name);
        }
        let mut child = command.spawn().unwrap();
        let (orders, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, orders, said: BufReader::new(said).lines() }
    }

    async fn make(&mut self, spans: usize) {
        self.orders.write_all(format!("{spans}\n").as_bytes()).await.unwrap();
    }

    async fn line(&mut self) -> String {
        within("the SDK", self.said.next_line()).await.unwrap().expect("it still runs")
    }

    /// Waits until everything it was told to make is accepted.
    async fn done(&mut self) {
        while self.line().await != "done" {}
    }

    /// Waits until so many more requests are accepted.
    async fn until_exported(&mut self, requests: usize) {
        for _ in 0..requests {
            assert_eq!(self.line().await, "exported", "there is more to export");
        }
    }

    async fn end(mut self) -> Accepted {
        drop(self.orders);
        loop {
            let line = within("the SDK's end", self.said.next_line()).await.unwrap().expect("its account");
            if line != "exported" {
                return Accepted(serde_json::from_str(&line).unwrap());
            }
        }
    }
}

impl Accepted {
    fn of(&self, kind: &str) -> Vec<String> {
        let list = self.0[kind].as_array().unwrap().iter();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/sdks").join(name)
}

fn of_signal(world: &World, signal: Signal, tell: impl Fn(&Record) -> String) -> Vec<String> {
    let records = world.backend.records();
    records.iter().filter(|record| is_theirs(record, signal)).map(tell).collect()
}

/// Spans of before an outage's first SIGKILL, between two, and after the last: this many in all.
const SPANS: usize = 300;

/// Runs the function through an outage in which the extension is killed, twice while it takes requests; returns when
/// everything that was accepted is at the backend.
async fn through_an_outage(world: &World, port: &Port, mut function: Function) -> Accepted {
    let lambda = port.lambda(world).start().await.unwrap();
    world.backend.behave(Behaviour::status(503));
    function.make(100).await;
    function.done().await;
    lambda.kill().await;
    invoke(&lambda, Invocation::new()).await;
    function.make(SPANS - 100).await;
    for _ in 0..2 {
        function.until_exported(7).await;
        lambda.kill().await;
        invoke(&lambda, Invocation::new()).await;
    }
    function.done().await;
    lambda.kill().await;
    world.backend.recover().await.unwrap();
    invoke(&lambda, Invocation::new()).await;
    let accepted = function.end().await;
    let (logs, points) = (accepted.of("logs").len(), accepted.of("points").len());
    world
        .wait_for(|received| {
            let of_sdk = received.texts().iter().filter(|text| text.starts_with("python log ")).count();
            count_theirs(received, Signal::Traces) >= SPANS
                && count_theirs(received, Signal::Metrics) >= points
                && of_sdk >= logs
        })
        .await;
    leave(&lambda).await;
    assert_eq!(accepted.of("spans").len(), SPANS);
    assert_each_once(
        "spans",
        accepted.of("spans"),
        of_signal(world, Signal::Traces, |span| span.span_id.clone()),
    );
    world.backend.received(|received| assert_eq!(received.defects(), Vec::<&str>::new()));
    accepted
}

async fn python(test: &str, compression: &str) {
    let Some(directory) = part("otel-python", "venv-otel-python", test) else { return };
    let (world, port) = (World::new().await, Port::reserve());
    let function = Function::python(&directory, &port, compression);
    let accepted = through_an_outage(&world, &port, function).await;
    let mut logs = of_signal(&world, Signal::Logs, |record| record.text.clone());
    logs.retain(|text| text.starts_with("python log "));
    assert_eq!(accepted.of("logs").len(), SPANS);
    assert_each_once("log records", accepted.of("logs"), logs);
    // Each point has the time of its collection, and the last says how much there was.
    let points =
        of_signal(&world, Signal::Metrics, |point| format!("{} {}", point.text, point.time_unix_nano));
    assert_each_once("points", accepted.of("points"), points);
    let records = world.backend.records();
    let last = records.iter().rev().find(|record| record.text == "made").unwrap();
    assert_eq!(last.body["value"], SPANS);
}

async fn node(test: &str, format: &str, compression: &str) {
    let Some(directory) = part("otel-node", "node-otel-node", test) else { return };
    let (world, port) = (World::new().await, Port::reserve());
    let function = Function::node(&directory, &port, format, compression);
    through_an_outage(&world, &port, function).await;
    let records = world.backend.records();
    let span = records.iter().find(|record| record.text == "span 7").unwrap();
    assert_eq!(span.attributes["number"], 7);
    assert_eq!(span.attributes["list"], serde_json::json!(["a", "b"]));
    assert_eq!(span.attributes["share"], 0.5);
    assert_eq!(span.resource["service.name"], "node-tests");
    assert_eq!(span.body["status"], serde_json::json!({"code": 2, "message": "ü"}));
    assert_eq!(span.body["events"][0]["name"], "made");
}

#[tokio::test]
async fn the_python_sdk_loses_and_repeats_nothing() {
    python("the_python_sdk_loses_and_repeats_nothing", "none").await;
}

#[tokio::test]
async fn the_python_sdk_with_gzip_loses_and_repeats_nothing() {
    python("the_python_sdk_with_gzip_loses_and_repeats_nothing", "gzip").await;
}

#[tokio::test]
async fn the_node_sdk_in_protobuf_loses_and_repeats_nothing() {
    node("the_node_sdk_in_protobuf_loses_and_repeats_nothing", "proto", "gzip").await;
}

#[tokio::test]
async fn the_node_sdk_in_json_loses_and_repeats_nothing() {
    node("the_node_sdk_in_json_loses_and_repeats_nothing", "http", "none").await;
}
