//! The records of platform events (Telemetry API schema reference; shapes as recorded in the field).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::clock::{self, millis};
use crate::options::{FunctionOptions, InitializationType};

/// When initialisation runs: by itself, or again inside an invocation after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before any invocation.
    Init,
    /// Inside an invocation.
    Invoke,
}

impl Phase {
    /// As telemetry writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Invoke => "invoke",
        }
    }
}

/// The X-Ray trace of one invocation.
#[derive(Clone, Debug)]
pub(crate) struct Tracing {
    value: String,
    span_id: String,
}

impl Tracing {
    pub(crate) fn new() -> Self {
        let seconds = clock::unix_millis() / 1_000;
        let (root, parent) = (fastrand::u128(..) >> 32, fastrand::u64(..));
        Self {
            value: format!("Root=1-{seconds:08x}-{root:024x};Parent={parent:016x};Sampled=1"),
            span_id: format!("{:016x}", fastrand::u64(..)),
        }
    }

    pub(crate) fn event(&self) -> Value {
        json!({"type": "X-Amzn-Trace-Id", "value": self.value})
    }

    fn record(&self) -> Value {
        json!({"spanId": self.span_id, "type": "X-Amzn-Trace-Id", "value": self.value})
    }
}

/// How an invocation or an initialisation went, in the words of telemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) status: &'static str,
    pub(crate) error_type: Option<String>,
}

impl Status {
    pub(crate) fn success() -> Self {
        Self { status: "success", error_type: None }
    }

    /// AWS's own rule: `timeout`, `failure` for what the sandbox itself did, else `error`.
    pub(crate) fn failed(error_type: &str) -> Self {
        match error_type {
            "Sandbox.Timedout" => Self { status: "timeout", error_type: None },
            other if other.starts_with("Sandbox.") => {
                Self { status: "failure", error_type: Some(other.into()) }
            }
            other => Self { status: "error", error_type: Some(other.into()) },
        }
    }

    fn add_to(&self, record: &mut Value) {
        set(record, "status", Value::from(self.status));
        if let Some(error_type) = &self.error_type {
            set(record, "errorType", Value::from(error_type.as_str()));
        }
    }
}

fn set(record: &mut Value, name: &str, value: Value) {
    if let Some(fields) = record.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

fn instance(function: &FunctionOptions, instance_id: &str) -> Map<String, Value> {
    let fields = [
        ("functionName", Value::from(function.name.as_str())),
        ("functionVersion", Value::from(function.version.as_str())),
        ("instanceId", Value::from(instance_id)),
        ("instanceMaxMemory", Value::from(u64::from(function.memory_mb) << 20)),
        ("runtimeVersion", Value::from("simulated:1.v1")),
        (
            "runtimeVersionArn",
            Value::from(format!("arn:aws:lambda:{}::runtime:0000simulated", function.region)),
        ),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(crate) fn init_start(
    function: &FunctionOptions,
    instance_id: &str,
    kind: InitializationType,
    phase: Phase,
) -> Value {
    let mut fields = instance(function, instance_id);
    fields.insert("initializationType".into(), kind.as_str().into());
    fields.insert("phase".into(), phase.as_str().into());
    Value::Object(fields)
}

pub(crate) fn init_runtime_done(kind: InitializationType, phase: Phase, status: &Status) -> Value {
    let mut record = json!({"initializationType": kind.as_str(), "phase": phase.as_str()});
    status.add_to(&mut record);
    record
}

pub(crate) fn init_report(kind: InitializationType, phase: Phase, status: &Status, took: Duration) -> Value {
    let mut record = json!({
        "initializationType": kind.as_str(),
        "phase": phase.as_str(),
        "metrics": {"durationMs": millis(took)},
    });
    status.add_to(&mut record);
    record
}

pub(crate) fn restore_start(function: &FunctionOptions, instance_id: &str) -> Value {
    Value::Object(instance(function, instance_id))
}

pub(crate) fn restore_runtime_done() -> Value {
    json!({"status": "success"})
}

pub(crate) fn restore_report(took: Duration) -> Value {
    json!({"status": "success", "metrics": {"durationMs": millis(took)}})
}

pub(crate) fn start(function: &FunctionOptions, request_id: &str, tracing: Option<&Tracing>) -> Value {
    let mut record = json!({
        "requestId": request_id,
        "version": function.version,
        "functionArn": function.arn(),
    });
    if let Some(tracing) = tracing {
        set(&mut record, "tracing", tracing.record());
    }
    if let Some(tenant) = &function.tenant {
        set(&mut record, "tenantId", Value::from(tenant.as_str()));
    }
    record
}

/// The function's part of an invocation, as far as telemetry tells it.
#[derive(Clone, Debug)]
pub(crate) struct Ran<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) status: &'a Status,
    pub(crate) took: Duration,
    pub(crate) done: SystemTime,
    pub(crate) produced_bytes: usize,
    pub(crate) tracing: Option<&'a Tracing>,
    pub(crate) tenant: Option<&'a str>,
}

impl Ran<'_> {
    fn add_to(&self, record: &mut Value) {
        if let Some(tracing) = self.tracing {
            set(record, "tracing", tracing.record());
        }
        if let Some(tenant) = self.tenant {
            set(record, "tenantId", tenant.into());
        }
    }

    fn spans(&self) -> Value {
        // What the runtime itself spends is not simulated: the spans say so with the shortest figure Lambda prints.
        let names = ["responseLatency", "responseDuration", "runtimeOverhead"];
        let start = iso(self.done);
        names.map(|name| json!({"name": name, "start": start, "durationMs": 0.001})).into_iter().collect()
    }
}

fn iso(time: SystemTime) -> String {
    let elapsed = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    clock::iso(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn runtime_done(ran: &Ran<'_>) -> Value {
    let mut record = json!({
        "requestId": ran.request_id,
        "metrics": {"durationMs": millis(ran.took), "producedBytes": ran.produced_bytes},
    });
    ran.status.add_to(&mut record);
    if ran.status.status == "success" {
        set(&mut record, "spans", ran.spans());
    }
    ran.add_to(&mut record);
    record
}

/// What `platform.report` adds to [`Ran`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Billing {
    pub(crate) memory_mb: u32,
    pub(crate) total: Duration,
    pub(crate) init: Option<Duration>,
    pub(crate) restore: Option<Duration>,
    /// From the function's end until the extensions let go.
    pub(crate) overhead: Duration,
}

/// Memory use is not simulated; Lambda never reports less than a runtime's own footprint.
const MAX_MEMORY_USED_MB: u32 = 64;

pub(crate) fn report(ran: &Ran<'_>, billing: &Billing) -> Value {
    let billed = billing.total + billing.init.unwrap_or_default();
    let mut metrics = json!({
        "durationMs": millis(billing.total),
        "billedDurationMs": billed.as_micros().div_ceil(1_000) as u64,
        "memorySizeMB": billing.memory_mb,
        "maxMemoryUsedMB": MAX_MEMORY_USED_MB.min(billing.memory_mb),
    });
    if let Some(init) = billing.init {
        set(&mut metrics, "initDurationMs", millis(init).into());
    }
    if let Some(restore) = billing.restore {
        set(&mut metrics, "restoreDurationMs", millis(restore).into());
        set(&mut metrics, "billedRestoreDurationMs", (restore.as_micros().div_ceil(1_000) as u64).into());
    }
    let mut record = json!({"requestId": ran.request_id, "metrics": metrics});
    ran.status.add_to(&mut record);
    let span =
        json!({"name": "extensionOverhead", "start": iso(ran.done), "durationMs": millis(billing.overhead)});
    set(&mut record, "spans", json!([span]));
    ran.add_to(&mut record);
    record
}

/// Managed Instances report a duration and spans, no billing and no memory.
pub(crate) fn managed_report(ran: &Ran<'_>) -> Value {
    let mut record = json!({
        "requestId": ran.request_id,
        "metrics": {"durationMs": millis(ran.took)},
        "spans": ran.spans(),
    });
    ran.status.add_to(&mut record);
    ran.add_to(&mut record);
    record
}
