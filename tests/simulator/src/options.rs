//! What a sandbox can be told: the function, the execution model, freezing, SHUTDOWN and the behaviour of the Telemetry API.

use std::time::Duration;

/// How the environment came to be; the value of `AWS_LAMBDA_INITIALIZATION_TYPE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitializationType {
    /// Initialised for a request that waits.
    #[default]
    OnDemand,
    /// Initialised ahead of any request.
    ProvisionedConcurrency,
    /// Initialised at publish and restored from a snapshot before the first invocation.
    SnapStart,
    /// Lambda Managed Instances: concurrent invocations, no freeze, no `platform.runtimeDone`, SHUTDOWN only.
    ManagedInstances,
}

impl InitializationType {
    /// The text that Lambda uses in the environment variable and in telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::ProvisionedConcurrency => "provisioned-concurrency",
            Self::SnapStart => "snap-start",
            Self::ManagedInstances => "lambda-managed-instances",
        }
    }
}

/// What happens between invocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// The extension keeps running.
    Off,
    /// SIGSTOP this long after the last gate is satisfied, SIGCONT just before the next event.
    After(Duration),
}

/// The function's log format, which decides the form of its telemetry records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A record is always a string.
    #[default]
    Text,
    /// From schema `2022-12-13` on a record is an object.
    Json,
}

/// The function that the sandbox pretends to run.
#[derive(Clone, Debug)]
pub struct FunctionOptions {
    /// Function name.
    pub name: String,
    /// Function version, `$LATEST` or a number.
    pub version: String,
    /// Handler, told only in the register reply.
    pub handler: String,
    /// Account id, told only to those that ask for the `accountId` feature.
    pub account_id: String,
    /// Region.
    pub region: String,
    /// Configured memory in MB.
    pub memory_mb: u32,
    /// Time limit of one invocation, function and extensions together.
    pub timeout: Duration,
    /// Log format.
    pub log_format: LogFormat,
    /// How long the runtime's own initialisation takes.
    pub init_runs_for: Duration,
    /// Lines that the function logs while it initialises.
    pub init_logs: Vec<String>,
    /// Whether X-Ray tracing is active, so that events carry `tracing`.
    pub tracing: bool,
    /// The tenant, where the function isolates tenants, so that events carry `tenantId`.
    pub tenant: Option<String>,
}

impl Default for FunctionOptions {
    fn default() -> Self {
        Self {
            name: "simulated-function".into(),
            version: "$LATEST".into(),
            handler: "app.handler".into(),
            account_id: "123456789012".into(),
            region: "eu-central-1".into(),
            memory_mb: 256,
            timeout: Duration::from_secs(3),
            log_format: LogFormat::Text,
            // Runtimes take longer; an extension that subscribes without delay is done by then.
            init_runs_for: Duration::from_millis(10),
            init_logs: Vec::new(),
            tracing: false,
            tenant: None,
        }
    }
}

impl FunctionOptions {
    /// The invoked ARN.
    pub fn arn(&self) -> String {
        format!("arn:aws:lambda:{}:{}:function:{}", self.region, self.account_id, self.name)
    }
}

/// The end of an environment. Lambda allows 2,000 ms in all, of which stopping the runtime takes up to 600 ms.
#[derive(Clone, Copy, Debug)]
pub struct ShutdownOptions {
    /// `deadlineMs` minus the moment of delivery: what is left for the extensions.
    pub budget: Duration,
    /// How long the runtime takes to stop before SHUTDOWN is delivered. The extensions already run again meanwhile.
    pub runtime_stops_in: Duration,
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        // Extensions in the field see 1.3 to 1.7 s; a runtime that leaves at once keeps tests short.
        Self { budget: Duration::from_millis(1_400), runtime_stops_in: Duration::ZERO }
    }
}

/// Telemetry schema versions, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Schema {
    /// `2022-07-01`: function and extension records are always strings.
    V20220701,
    /// `2022-12-13`: records are objects when the function logs JSON.
    V20221213,
    /// `2025-01-29`: required by Managed Instances.
    V20250129,
}

impl Schema {
    /// All versions, oldest first.
    pub const ALL: [Self; 3] = [Self::V20220701, Self::V20221213, Self::V20250129];

    /// The version as it is written in a subscription.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V20220701 => "2022-07-01",
            Self::V20221213 => "2022-12-13",
            Self::V20250129 => "2025-01-29",
        }
    }
}

/// What the sandbox does with a batch that was not answered 2xx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// As production: the same body again, with growing pauses, until it is answered 200.
    Retry {
        /// Pause after the first failure; doubled after each further one.
        first: Duration,
        /// Longest pause.
        longest: Duration,
    },
    /// As the Managed Instances mode of AWS's emulator: the batch is gone and `platform.logsDropped` says so. A batch
    /// that fills while another is in flight is dropped too.
    Drop,
}

/// Deliveries that Lambda repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeats {
    /// Once each.
    #[default]
    Never,
    /// Every body again this many times although it was answered 200.
    AfterAnswer(u32),
    /// The first this many attempts of every body end with the answer unread and the connection closed, so the
    /// extension has acknowledged and Lambda does not know.
    AnswerLost(u32),
}

/// Records that are too large for one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Never: one body, however large.
    Never,
    /// As production: a record larger than the subscription's `maxBytes` is cut mid-value.
    OverMaxBytes,
    /// Every function or extension record longer than this many bytes is cut into pieces of that length.
    Over(usize),
}

/// How the sandbox behaves as an HTTP client of the extension.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Write the request in pieces of this many bytes with a pause after each; `None` writes it whole.
    pub pieces: Option<(usize, Duration)>,
    /// Wait this long before reading the answer.
    pub read_after: Duration,
    /// A new connection for every request.
    pub close_each: bool,
}

/// The Telemetry API's behaviour. May be changed while the sandbox runs, see [`Sandbox::telemetry`](crate::Sandbox::telemetry).
#[derive(Clone, Copy, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "independent switches, each of them named")]
pub struct TelemetryOptions {
    /// False: PUT answers 202 `Telemetry.NotSupported`, as SAM and the emulator's ordinary mode do.
    pub supported: bool,
    /// The newest schema version that is accepted; newer ones are refused with a validation error.
    pub newest_schema: Schema,
    /// What happens to a batch that was not answered 2xx.
    pub on_failure: OnFailure,
    /// Pause before every delivery, on top of the buffering.
    pub delay: Duration,
    /// Deliveries that are repeated.
    pub repeats: Repeats,
    /// Records that are cut in pieces.
    pub cut: Cut,
    /// Whether events that precede a cut record share the body of its first piece. Recorded cuts start a body of their own.
    pub cut_after_others: bool,
    /// False: `platform.runtimeDone` never comes.
    pub runtime_done: bool,
    /// False: `platform.report` never comes.
    pub report: bool,
    /// How long after the next INVOKE, or after SHUTDOWN, a withheld `platform.report` appears. In the field 0–100 ms.
    pub report_after: Duration,
    /// Bytes that may wait for one subscriber before further events are dropped and reported as `platform.logsDropped`.
    pub waiting_max_bytes: usize,
    /// HTTP manners.
    pub manner: Manner,
}

/// Enough for the bursts that tests push (67 MB) with room to spare; only a subscriber that never answers meets it.
const WAITING_MAX_BYTES: usize = 512 << 20;

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self {
            supported: true,
            newest_schema: Schema::V20250129,
            on_failure: OnFailure::Retry {
                first: Duration::from_millis(20),
                longest: Duration::from_millis(500),
            },
            delay: Duration::ZERO,
            repeats: Repeats::Never,
            cut: Cut::OverMaxBytes,
            cut_after_others: false,
            runtime_done: true,
            report: true,
            report_after: Duration::ZERO,
            waiting_max_bytes: WAITING_MAX_BYTES,
            manner: Manner::default(),
        }
    }
}
