//! Metrics in a store that nobody here wrote: `VictoriaMetrics`, which takes the series of Datadog's API and OTLP, and can be
//! asked what it has.
//!
//! `tests/parts/get.sh victoria-metrics` gets it out of Debian's unstable distribution. That may fail one day through no fault
//! of ours, so without it the test skips and says so in any case.

use crate::support::{World, invoke, leave, lines_with, ms, output, within};
use outlast_backend::Dialect;
use outlast_simulator::{Builder, Invocation};
use serde_json::Value;
use std::collections::BTreeMap;
use std::env;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// A running store; it is killed when this is dropped.
struct Store {
    port: u16,
    _child: Child,
    _data: TempDir,
}

impl Store {
    async fn start_or_skip(test: &str, flags: &[&str]) -> Option<Self> {
        let parts = env::var_os("PARTS_DIR").map_or_else(
            || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/outlast-parts"),
            PathBuf::from,
        );
        let program = parts.join("victoria-metrics/usr/bin/victoria-metrics");
        if !program.exists() {
            let program = program.display();
            eprintln!("{test}: SKIPPED, there is no {program} (tests/parts/get.sh victoria-metrics)");
            return None;
        }
        Some(Self::start(&program, flags).await)
    }

    async fn start(program: &Path, flags: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        // Free a moment ago; it sets SO_REUSEADDR.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(program)
            .arg(format!("-storageDataPath={}", data.path().display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{port}"))
            .args(["-retentionPeriod=100y", "-memory.allowedBytes=256MB"])
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let store = Self { port, _child: child, _data: data };
        let listens = async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(ms(20)).await;
            }
        };
        within("the store", listens).await;
        store
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn get(&self, path: &str) -> String {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("its answer", connection.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200"), "{head}");
        body.to_owned()
    }

    /// What the points of each metric add up to, and the labels of one of its series.
    async fn totals(&self) -> BTreeMap<String, (f64, Value)> {
        self.get("/internal/force_flush").await;
        let all = self.get("/api/v1/export?match%5B%5D=%7B__name__!%3D%22%22%7D&reduce_mem_usage=0").await;
        let mut totals = BTreeMap::new();
        for line in all.lines() {
            let series: Value = serde_json::from_str(line).unwrap();
            let name = series["metric"]["__name__"].as_str().unwrap().to_owned();
            let values = series["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
            let total = totals.entry(name).or_insert((0.0, series["metric"].clone()));
            total.0 += values.sum::<f64>();
        }
        totals
    }
}

/// Some invocations, and the end: the store has counted every one, and once.
async fn counts_every_invocation_once(builder: Builder, store: &Store, suffix: &str) {
    const INVOCATIONS: u32 = 6;
    let lambda = builder.env("OUTLAST_SELF_METRICS", "off").start().await.unwrap();
    for _ in 0..INVOCATIONS {
        invoke(&lambda, Invocation::new().runs_for(ms(2)).logs(2)).await;
        within("the delivery", lambda.settled()).await;
    }
    leave(&lambda).await;
    assert_eq!(lines_with(&lambda, "0 left on disk, 0 dropped"), 1, "{:?}", output(&lambda));
    // It may take a moment until a new series is found.
    let expected = f64::from(INVOCATIONS);
    let names = ["faas.invocations".to_owned(), format!("faas.invoke_duration{suffix}")];
    let mut totals = store.totals().await;
    let found = async {
        while !names.iter().all(|name| totals.get(name).is_some_and(|(total, _)| *total >= expected)) {
            tokio::time::sleep(ms(50)).await;
            totals = store.totals().await;
        }
    };
    within("what was sent to be found", found).await;
    for (total, labels) in names.iter().map(|name| &totals[name]) {
        assert!((total - expected).abs() < 1e-9, "{total} of {labels}");
        let service = labels.get("service").or(labels.get("service.name"));
        assert_eq!(service.and_then(Value::as_str), Some("simulated-function"));
    }
}

#[tokio::test]
async fn series_of_datadog_are_what_a_store_has_in_the_end() {
    let test = "series_of_datadog_are_what_a_store_has_in_the_end";
    // Of points with the same time one counts, as Datadog has it.
    let Some(store) = Store::start_or_skip(test, &["-dedup.minScrapeInterval=1ms"]).await else { return };
    let world = World::speaking(Dialect::Datadog).await;
    let builder = world
        .lambda()
        .env("OUTLAST_SIGNALS", "logs,metrics")
        .env("OUTLAST_METRICS_ENDPOINT", store.url("/datadog/api/v2/series"));
    counts_every_invocation_once(builder, &store, ".count").await;
}

#[tokio::test]
async fn otlp_metrics_are_what_a_store_has_in_the_end() {
    let test = "otlp_metrics_are_what_a_store_has_in_the_end";
    let Some(store) = Store::start_or_skip(test, &[]).await else { return };
    let world = World::new().await;
    let builder = world
        .lambda()
        .env("OUTLAST_SIGNALS", "logs,metrics")
        .env("OUTLAST_METRICS_ENDPOINT", store.url("/opentelemetry/v1/metrics"));
    counts_every_invocation_once(builder, &store, "_count").await;
}
