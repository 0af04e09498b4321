//! The world around the extension, and the accounts that must balance.

use crate::account;
use outlast_backend::{Backend, Dialect, Record, Signal, Verdict};
use outlast_simulator::{Builder, Event, Freeze, Invocation, Invoked, Sandbox, ShutdownEnd, ShutdownReason};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// How long anything is waited for before the test fails: far more than a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// The extension under test.
pub(crate) const OUTLAST: &str = env!("CARGO_BIN_EXE_outlast");

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The pauses between attempts in [`World::lambda`].
pub(crate) const RETRY_INITIAL: Duration = ms(20);
pub(crate) const RETRY_MAX: Duration = ms(80);

/// Waits for `event`, and fails the test if it does not come.
pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, event).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Waits for something on disk, which nothing announces.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(ms(5)).await;
        }
    };
    within(what, poll).await;
}

/// A backend, and a disk that outlives every sandbox.
pub(crate) struct World {
    pub(crate) backend: Backend,
    disk: TempDir,
    /// What the extension is told to speak, logs only.
    dialect: Option<Dialect>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::around(Backend::start().await.unwrap())
    }

    pub(crate) fn around(backend: Backend) -> Self {
        Self { backend, disk: tempfile::tempdir().unwrap(), dialect: None }
    }

    /// A world whose backend speaks `dialect`, and takes logs only.
    #[expect(clippy::unused_async, reason = "a backend needs a runtime, which an async signature says best")]
    pub(crate) async fn speaking(dialect: Dialect) -> Self {
        let backend = Backend::builder().dialect(dialect).start().unwrap();
        Self { dialect: Some(dialect), ..Self::around(backend) }
    }

    /// What the extension gets as `OUTLAST_QUEUE_DIR`.
    pub(crate) fn queue(&self) -> PathBuf {
        self.disk.path().join("queue")
    }

    /// A sandbox around the extension that sends to the backend, keeps its queue on the disk and retries soon. It
    /// does not freeze, so that backlogs drain without further invocations.
    pub(crate) fn lambda(&self) -> Builder {
        let mut builder = Sandbox::builder(OUTLAST);
        if let Some(dialect) = self.dialect {
            builder = builder.env("OUTLAST_PROTOCOL", dialect.name()).env("OUTLAST_SIGNALS", "logs");
        }
        if let Some(headers) = self.dialect.and_then(Dialect::headers) {
            builder = builder.env("OUTLAST_HEADERS", headers);
        }
        builder
            .env("OUTLAST_ENDPOINT", self.backend.url())
            .env("OUTLAST_QUEUE_DIR", self.queue().display())
            .env("OUTLAST_RETRY_INITIAL", format!("{}ms", RETRY_INITIAL.as_millis()))
            .env("OUTLAST_RETRY_MAX", format!("{}ms", RETRY_MAX.as_millis()))
            // What would be frozen under way waits at most so long for the next invocation.
            .env("OUTLAST_MAX_DELAY", "400ms")
            .freeze(Freeze::Off)
            .timeout(PATIENCE)
    }

    /// The same, of logs alone: for tests that count requests, connections or bytes.
    pub(crate) fn lambda_of_logs(&self) -> Builder {
        self.lambda().env("OUTLAST_SIGNALS", "logs")
    }

    /// Waits for something to arrive at the backend.
    pub(crate) async fn wait_for(&self, condition: impl FnMut(&outlast_backend::Received) -> bool) {
        self.backend.wait_for(condition, PATIENCE).await.unwrap();
    }

    /// Waits until a request is at the backend and has no answer.
    pub(crate) async fn until_in_flight(&self) {
        self.wait_for(|received| received.requests_with(&Verdict::Pending) > 0).await;
    }

    /// Waits until no request is under way.
    pub(crate) async fn until_idle(&self) {
        self.wait_for(|received| received.requests_with(&Verdict::Pending) == 0).await;
    }

    /// Waits until so many requests have begun.
    pub(crate) async fn until_requests(&self, count: usize) {
        self.wait_for(|received| received.requests().len() >= count).await;
    }

    /// Waits until everything acknowledged so far is at the backend.
    pub(crate) async fn until_delivered(&self, lambda: &Sandbox) {
        within("deliveries to end", lambda.settled()).await;
        let expected = lambda.acknowledged_count();
        self.wait_for(|received| {
            let own = received.records().iter().filter(|record| is_users_log(record));
            own.map(|record| &record.uid).collect::<HashSet<_>>().len() >= expected
        })
        .await;
    }

    /// What drop reports say of log records, in all.
    pub(crate) fn reported(&self) -> u64 {
        let records = self.backend.records();
        records.iter().filter(|record| is_report_on_logs(record)).map(count_of).sum()
    }

    /// What drop reports say of log records, by reason.
    pub(crate) fn reported_for(&self, reason: &str) -> u64 {
        let records = self.backend.records();
        let of_reason = |record: &&Record| {
            is_report_on_logs(record) && record.attributes["outlast.dropped.reason"] == reason
        };
        records.iter().filter(of_reason).map(count_of).sum()
    }

    /// SHUTDOWN, after which the account must balance: see [`balance`].
    pub(crate) async fn end(&self, lambda: Sandbox) -> ShutdownEnd {
        let end = leave(&lambda).await;
        assert_eq!(balance(&[&lambda], &self.backend).repeated, 0, "{}", summary(&self.backend));
        end
    }

    /// A new start over the same disk, which delivers what the last one left, then SHUTDOWN.
    pub(crate) async fn aftermath(&self) -> Sandbox {
        self.aftermath_by(self.lambda()).await
    }

    /// The same, by an extension with other settings.
    pub(crate) async fn aftermath_by(&self, lambda: Builder) -> Sandbox {
        let lambda = lambda.start().await.unwrap();
        invoke(&lambda, Invocation::new().line("aftermath")).await;
        self.wait_for(|received| received.texts().contains(&"aftermath")).await;
        leave(&lambda).await;
        lambda
    }
}

/// One invocation that succeeds.
pub(crate) async fn invoke(lambda: &Sandbox, invocation: Invocation) -> Invoked {
    let invoked = within("an invocation", lambda.invoke(invocation)).await.unwrap();
    assert!(invoked.succeeded(), "{:?}", invoked.response);
    invoked
}

/// Invocations while the backend is known to be away. Each ends only when the extension has asked for the next event, so
/// one that waited for anything at all would not end.
pub(crate) async fn free_invocations(lambda: &Sandbox) {
    for _ in 0..5 {
        let invoked = invoke(lambda, Invocation::new().logs(10).outlasts_extensions()).await;
        assert_eq!(invoked.added, Duration::ZERO);
    }
}

/// The attempts of the last outage were no more than pauses of the least length allow.
pub(crate) async fn attempts_within_budget(lambda: &Sandbox) {
    within("the end to be told", lambda.until_output(|line| outage_in(line).is_some())).await;
    let output = output(lambda);
    let (lasted, attempts) =
        output.iter().rev().find_map(|line| outage_in(line)).expect("an outage that ended");
    // What is told is rounded to a tenth of a second.
    let allowed = (lasted + 0.1) / RETRY_INITIAL.as_secs_f64() + 1.0;
    assert!(attempts <= allowed, "{attempts} attempts in {lasted} s, {allowed} allowed");
}

/// How long an outage lasted, in seconds, and the attempts it cost.
fn outage_in(line: &str) -> Option<(f64, f64)> {
    let rest = line.split_once("takes data again after ")?.1;
    let (lasted, rest) = rest.split_once(" s and ")?;
    Some((lasted.parse().ok()?, rest.split(' ').next()?.parse().ok()?))
}

/// SHUTDOWN of an extension that is alive and leaves in time.
pub(crate) async fn leave(lambda: &Sandbox) -> ShutdownEnd {
    assert_eq!(lambda.crashes(), []);
    let end = within("SHUTDOWN", lambda.shutdown(ShutdownReason::Spindown)).await;
    assert!(end.exited_by_itself(), "{end:?} {:?}", output(lambda));
    assert_eq!(end.exit_code(), Some(0), "{:?}", output(lambda));
    assert!(end.extensions.iter().all(|extension| extension.asked_again == 0), "{end:?}");
    end
}

/// What the extension has written, stderr only.
pub(crate) fn output(lambda: &Sandbox) -> Vec<String> {
    lambda.extension_output().into_iter().filter(|line| line.stderr).map(|line| line.text).collect()
}

/// How many of its lines contain `text`.
pub(crate) fn lines_with(lambda: &Sandbox, text: &str) -> usize {
    output(lambda).iter().filter(|line| line.contains(text)).count()
}

/// Log records left on disk according to the last line of the extension.
pub(crate) fn left_on_disk(lambda: &Sandbox) -> usize {
    left_of(lambda, Signal::Logs)
}

/// What of `signal` is left on disk according to the last line of the extension.
pub(crate) fn left_of(lambda: &Sandbox, signal: Signal) -> usize {
    let output = output(lambda);
    let last = output.iter().rev().find(|line| line.contains("shutdown: ")).expect("a last line");
    assert!(last.contains(" left on disk"), "{last}");
    let Some((_, by_signal)) = last.split_once(" left on disk (") else { return 0 };
    let mut by_signal = by_signal.split(')').next().unwrap().split(", ");
    let count = by_signal.find_map(|left| left.strip_suffix(&format!(" {signal}")));
    count.map_or(0, |count| count.parse().unwrap_or_else(|_| panic!("{last}")))
}

/// A record as both ends can tell it: its type and its content.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) kind: String,
    pub(crate) body: Value,
}

fn told_by_lambda(event: &Event) -> Told {
    let mut body = event.value();
    if matches!(&*event.kind, "function" | "extension")
        && let Some(message) = body.get_mut("message").map(Value::take)
    {
        body = message;
    }
    if let Value::String(text) = &mut body {
        *text = text.strip_suffix('\n').unwrap_or(text).to_owned();
    }
    Told { kind: event.kind.to_string(), body }
}

pub(crate) fn told_to_backend(record: &Record) -> Told {
    let kind = record.attributes.get("aws.lambda.telemetry.type").and_then(Value::as_str);
    Told { kind: kind.unwrap_or_default().to_owned(), body: record.body.clone() }
}

/// A log record, and not one of our own.
fn is_users_log(record: &Record) -> bool {
    record.signal == Signal::Logs && !is_report(record)
}

pub(crate) fn is_report(record: &Record) -> bool {
    record.event_name == "outlast.dropped"
}

fn is_report_on_logs(record: &Record) -> bool {
    is_report(record) && record.attributes["outlast.dropped.signal"] == "logs"
}

pub(crate) fn count_of(report: &Record) -> u64 {
    report.attributes["outlast.dropped.records"].as_u64().unwrap()
}

/// What was acknowledged to these sandboxes, in order.
pub(crate) fn acknowledged(lambdas: &[&Sandbox]) -> Vec<Told> {
    let events = lambdas.iter().flat_map(|lambda| lambda.acknowledged());
    events.map(|event| told_by_lambda(&event)).collect()
}

/// What the backend has, in order, without our own reports; repeats are counted and left out.
pub(crate) fn delivered(backend: &Backend) -> (Vec<Told>, usize) {
    let mut seen = HashSet::new();
    let mut repeated = 0;
    let mut told = Vec::new();
    for record in backend.records().iter().filter(|record| is_users_log(record)) {
        let uid = record.uid.clone().expect("every record has a uid");
        if seen.insert(uid) {
            told.push(told_to_backend(record));
        } else {
            repeated += 1;
        }
    }
    (told, repeated)
}

/// What [`balance`] found besides that nothing is lost.
pub(crate) struct Balance {
    /// Records that the backend has more than once.
    pub(crate) repeated: usize,
    /// Records that are still on disk.
    pub(crate) left: usize,
}

/// Everything acknowledged is at the backend in order, and every invocation is counted and traced once, but for its end, which the last line says is on disk.
pub(crate) fn balance(lambdas: &[&Sandbox], backend: &Backend) -> Balance {
    account::of_invocations(lambdas, backend);
    let expected = acknowledged(lambdas);
    let (got, repeated) = delivered(backend);
    let left = lambdas.last().map_or(0, |last| left_on_disk(last));
    if let Some(at) = (0..expected.len().max(got.len())).find(|at| expected.get(*at) != got.get(*at)) {
        let is_tail = at == got.len() && expected.len() - at == left;
        assert!(
            is_tail,
            "acknowledged {} records, the backend has {}; they part at {at}: {:?} against {:?}; {}; {:#?}",
            expected.len(),
            got.len(),
            expected.get(at),
            got.get(at),
            summary(backend),
            lambdas.iter().map(|lambda| output(lambda)).collect::<Vec<_>>(),
        );
        return Balance { repeated, left };
    }
    assert_eq!(left, 0, "nothing is missing, so nothing can be on disk");
    backend.received(|received| assert_eq!(received.defects(), Vec::<&str>::new()));
    Balance { repeated, left }
}

/// Function lines that were acknowledged and that the backend lacks.
pub(crate) fn lost_lines(lambdas: &[&Sandbox], backend: &Backend) -> Vec<String> {
    let expected: Vec<String> = lambdas.iter().flat_map(|lambda| lambda.acknowledged_lines()).collect();
    backend.missing(&expected)
}

/// How often each text came.
pub(crate) fn times(backend: &Backend) -> HashMap<String, usize> {
    let mut times = HashMap::new();
    for text in backend.texts() {
        *times.entry(text).or_insert(0) += 1;
    }
    times
}

pub(crate) fn summary(backend: &Backend) -> String {
    backend.received(outlast_backend::Received::summary)
}
