//! The table of settings: parser, documentation and defaults in one place.

use std::time::Duration;

use log::LevelFilter;

use super::kind::{Choice, Kind, Range, Setting, Standard};
use super::{Overflow, apply, destinations, fallback, headers, signals};
use crate::encode::Protocol;
use crate::observe::Emf;
use crate::record::JsonLines;

/// Base URL of the backend.
pub(super) const ENDPOINT: &str = "OUTLAST_ENDPOINT";
/// How the backend is spoken to.
pub(super) const PROTOCOL: &str = "OUTLAST_PROTOCOL";
/// First pause after a failure.
pub(super) const RETRY_INITIAL: &str = "OUTLAST_RETRY_INITIAL";
/// Longest pause between attempts.
pub(super) const RETRY_MAX: &str = "OUTLAST_RETRY_MAX";
/// Signals that are made and sent.
pub(super) const SIGNALS: &str = "OUTLAST_SIGNALS";
/// Plain bytes per request.
pub(super) const BATCH_MAX_BYTES: &str = "OUTLAST_BATCH_MAX_BYTES";
/// Bytes of the queue on disk.
pub(super) const QUEUE_MAX_BYTES: &str = "OUTLAST_QUEUE_MAX_BYTES";
/// How long a request may take.
pub(super) const TIMEOUT: &str = "OUTLAST_TIMEOUT";
/// Where metrics go.
pub(super) const METRICS_ENDPOINT: &str = "OUTLAST_METRICS_ENDPOINT";
/// Where OTLP is taken from the function.
pub(super) const OTLP_RECEIVER: &str = "OUTLAST_OTLP_RECEIVER";

/// What is shown to the backend.
pub(super) const CLIENT_CERT_FILE: &str = "OUTLAST_CLIENT_CERT_FILE";
/// … and its key.
pub(super) const CLIENT_KEY_FILE: &str = "OUTLAST_CLIENT_KEY_FILE";
/// Headers of every request.
pub(super) const HEADERS: &str = "OUTLAST_HEADERS";
/// How bodies are sent.
pub(super) const COMPRESSION: &str = "OUTLAST_COMPRESSION";
/// Authorities that are trusted.
pub(super) const CA_FILE: &str = "OUTLAST_CA_FILE";
/// Bytes to the backend per second.
pub(super) const RATE_LIMIT: &str = "OUTLAST_RATE_LIMIT";
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const TIMEOUT_RANGE: Range<Duration> = Range {
    min: Duration::from_millis(50),
    max: Duration::from_secs(900),
    why: "Below, a distant backend cannot be reached at all (TCP and TLS take two to three round trips); above, a request would outlive the longest invocation.",
};

const RETRY_RANGE: Range<Duration> = Range {
    min: Duration::from_millis(10),
    max: Duration::from_secs(3600),
    why: "Below, a failing backend would be hammered; above, a recovery would go unnoticed for longer than most environments live.",
};

/// Every setting, in the order of the page.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: ENDPOINT,
        default: "",
        meaning: "Base URL of the backend. For OTLP `/v1/logs`, `/v1/metrics` and `/v1/traces` are appended, as OTLP/HTTP says; what other protocols do with its path is in [destinations.md](destinations.md#addresses). The query, if any, stays. A host name beyond ASCII is written as DNS has it (`xn--…`). Without it and without the standard variables there is nowhere to send, and the extension idles.",
        example: "https://otlp.example.com:4318",
        kind: Kind::Other(apply::BASE_URL_ACCEPTED, apply::base_url),
        standard: &[
            Standard {
                name: "OTEL_EXPORTER_OTLP_ENDPOINT",
                kind: Kind::Other(apply::BASE_URL_ACCEPTED, apply::base_url),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
                kind: Kind::Other(apply::OWN_URL_ACCEPTED, apply::logs_url),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
                kind: Kind::Other(apply::OWN_URL_ACCEPTED, apply::metrics_url),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                kind: Kind::Other(apply::OWN_URL_ACCEPTED, apply::traces_url),
            },
        ],
    },
    Setting {
        name: METRICS_ENDPOINT,
        default: "",
        meaning: "URL that metrics are posted to, used as it is, where that is not what the protocol makes of `OUTLAST_ENDPOINT` ([destinations.md](destinations.md#addresses)): for `datadog` and `newrelic` behind a proxy, say. It wins over `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`.",
        example: "https://proxy.example.com/datadog/api/v2/series",
        kind: Kind::Other(apply::OWN_URL_ACCEPTED, apply::metrics_url),
        standard: &[],
    },
    Setting {
        name: PROTOCOL,
        default: "otlp",
        meaning: "How the backend is spoken to: [destinations.md](destinations.md) has an example for each, with what is sent and what it guarantees. `otlp` is OTLP/HTTP with protobuf bodies, and `otlp-json` with JSON. `datadog` and `newrelic` take logs and metrics, all others logs only, and the standard `OTEL_EXPORTER_OTLP_*` variables are not read for them.",
        example: "loki",
        kind: Kind::Choice(&[
            Choice { word: "otlp", apply: Some(|config| config.protocol = Protocol::Otlp) },
            Choice { word: "otlp-json", apply: Some(|config| config.protocol = Protocol::OtlpJson) },
            Choice { word: "ndjson", apply: Some(|config| config.protocol = Protocol::Ndjson) },
            Choice { word: "json", apply: Some(|config| config.protocol = Protocol::Json) },
            Choice { word: "elasticsearch", apply: Some(|config| config.protocol = Protocol::Elasticsearch) },
            Choice { word: "loki", apply: Some(|config| config.protocol = Protocol::Loki) },
            Choice { word: "splunk-hec", apply: Some(|config| config.protocol = Protocol::SplunkHec) },
            Choice { word: "datadog", apply: Some(|config| config.protocol = Protocol::Datadog) },
            Choice { word: "newrelic", apply: Some(|config| config.protocol = Protocol::NewRelic) },
        ]),
        standard: &[
            Standard { name: "OTEL_EXPORTER_OTLP_PROTOCOL", kind: Kind::Choice(STANDARD_PROTOCOLS) },
            Standard { name: "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", kind: Kind::Choice(STANDARD_PROTOCOLS) },
        ],
    },
    Setting {
        name: HEADERS,
        default: "",
        meaning: "Headers sent with every request, usually the credentials: `name=value` pairs separated by commas. Values are percent-encoded (`%2C` is a comma, `%20` a space, `%25` a percent sign); one that is not valid percent-encoding is taken as written. A value, or its last word, may be kept elsewhere: `secretsmanager:ARN` or `ssm:/name`, with `#key` for a member of a JSON object ([secrets](destinations.md#secrets)). Never printed.",
        example: "authorization=Bearer%20ssm:/prod/otlp-key,x-tenant=blue",
        kind: Kind::Other(headers::ACCEPTED, apply::all_headers),
        standard: &[
            Standard {
                name: "OTEL_EXPORTER_OTLP_HEADERS",
                kind: Kind::Other(headers::ACCEPTED, apply::all_headers),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
                kind: Kind::Other(headers::ACCEPTED, apply::logs_headers),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
                kind: Kind::Other(headers::ACCEPTED, apply::metrics_headers),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
                kind: Kind::Other(headers::ACCEPTED, apply::traces_headers),
            },
        ],
    },
    Setting {
        name: "OUTLAST_DESTINATIONS",
        default: "",
        meaning: "Names of further destinations, each of which gets everything as well, at its own pace ([several destinations](destinations.md#several-destinations)). What is set for one of them is named after it: [below](#further-destinations).",
        example: "audit",
        kind: Kind::Other(destinations::ACCEPTED, destinations::named),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_FALLBACK",
        default: "",
        meaning: "Where telemetry goes that the backend does not take: at SHUTDOWN, when the queue is nearly full, and what the backend refuses ([fallback.md](fallback.md)). `s3://BUCKET/PREFIX` writes objects, a URL is a second backend of the same wire format, `stdout` writes to CloudWatch Logs, a little. Without it the data waits in the queue, and goes with the environment.",
        example: "s3://my-telemetry/outlast",
        kind: Kind::Other(fallback::ACCEPTED, fallback::fallback),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_FALLBACK_HEADERS",
        default: "",
        meaning: "Headers sent to a fallback that is a second backend, written as in `OUTLAST_HEADERS`, of which it gets none. Never printed.",
        example: "authorization=Bearer%20def",
        kind: Kind::Other(headers::ACCEPTED, fallback::fallback_headers),
        standard: &[],
    },
    Setting {
        name: TIMEOUT,
        default: "5s",
        meaning: "How long one request may take, from connecting to the answer. A request that takes longer is sent again. With [acknowledgement](destinations.md#indexer-acknowledgement) by Splunk it includes the indexing, and the default is 30 s.",
        example: "3s",
        kind: Kind::Duration(TIMEOUT_RANGE, |config, value| config.timeout = value),
        standard: &[
            Standard {
                name: "OTEL_EXPORTER_OTLP_TIMEOUT",
                kind: Kind::Millis(TIMEOUT_RANGE, |config, value| config.timeout = value),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
                kind: Kind::Millis(TIMEOUT_RANGE, |config, value| config.timeout = value),
            },
        ],
    },
    Setting {
        name: CA_FILE,
        default: "",
        meaning: "Certificate authorities that are trusted besides the built-in ones (Mozilla's), for a backend with a certificate of your own: a PEM file in the function's package or in a layer, 1 MiB at most. `system` means those that the image trusts, where distributions keep them. If it cannot be used, one line says so and only the built-in ones are trusted. A fallback is trusted by the same.",
        example: "/opt/ca.pem",
        kind: Kind::Other(apply::CA_FILE_ACCEPTED, apply::ca_file),
        standard: &[
            Standard {
                name: "OTEL_EXPORTER_OTLP_CERTIFICATE",
                kind: Kind::Other(apply::CA_FILE_ACCEPTED, apply::ca_file),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE",
                kind: Kind::Other(apply::CA_FILE_ACCEPTED, apply::ca_file),
            },
        ],
    },
    Setting {
        name: CLIENT_CERT_FILE,
        default: "",
        meaning: "The certificate (with those between it and its authority) that is shown to a backend that asks for one: a PEM file, 1 MiB at most. If it cannot be used, one line says so and none is shown. A fallback gets none.",
        example: "/opt/client.pem",
        kind: Kind::Other(apply::PEM_FILE_ACCEPTED, apply::client_cert_file),
        standard: &[
            Standard {
                name: "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                kind: Kind::Other(apply::PEM_FILE_ACCEPTED, apply::client_cert_file),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE",
                kind: Kind::Other(apply::PEM_FILE_ACCEPTED, apply::client_cert_file),
            },
        ],
    },
    Setting {
        name: CLIENT_KEY_FILE,
        default: "",
        meaning: "The key of that certificate, a PEM file. If it is not set, it is in the file of the certificate.",
        example: "/opt/client.key",
        kind: Kind::Other(apply::PEM_FILE_ACCEPTED, apply::client_key_file),
        standard: &[
            Standard {
                name: "OTEL_EXPORTER_OTLP_CLIENT_KEY",
                kind: Kind::Other(apply::PEM_FILE_ACCEPTED, apply::client_key_file),
            },
            Standard {
                name: "OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY",
                kind: Kind::Other(apply::PEM_FILE_ACCEPTED, apply::client_key_file),
            },
        ],
    },
    Setting {
        name: COMPRESSION,
        default: "gzip",
        meaning: "How request bodies are sent. The queue on disk is compressed in either case.",
        example: "none",
        kind: Kind::Choice(COMPRESSIONS),
        standard: &[
            Standard { name: "OTEL_EXPORTER_OTLP_COMPRESSION", kind: Kind::Choice(COMPRESSIONS) },
            Standard { name: "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", kind: Kind::Choice(COMPRESSIONS) },
        ],
    },
    Setting {
        name: SIGNALS,
        default: "logs,metrics,traces",
        meaning: "What is made and sent: log records of everything the Telemetry API brings, metrics and spans of what the platform says about invocations ([signals.md](signals.md)). A signal without an endpoint is not made.",
        example: "logs,metrics",
        kind: Kind::Other(signals::SIGNALS_ACCEPTED, signals::signals),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_SAMPLER",
        default: "parentbased_always_on",
        meaning: "Which invocations become spans. With `parentbased_`, what the X-Ray header says is followed (`Sampled=0`: no span), and the rest decides where it says nothing. Without active tracing Lambda often says `Sampled=0`: `always_on` makes spans all the same.",
        example: "always_on",
        kind: Kind::Other(signals::SAMPLER_ACCEPTED, signals::sampler),
        standard: &[Standard {
            name: "OTEL_TRACES_SAMPLER",
            kind: Kind::Other(signals::SAMPLER_ACCEPTED, signals::sampler),
        }],
    },
    // After the sampler: only one that takes a share reads it.
    Setting {
        name: "OUTLAST_SAMPLER_RATIO",
        default: "",
        meaning: "The share of traces that `traceidratio` keeps, by the trace id. All of them if it is not set.",
        example: "0.1",
        kind: Kind::Other(signals::RATIO_ACCEPTED, signals::sampler_ratio),
        standard: &[Standard {
            name: "OTEL_TRACES_SAMPLER_ARG",
            kind: Kind::Other(signals::RATIO_ACCEPTED, signals::sampler_ratio),
        }],
    },
    Setting {
        name: "OUTLAST_PRICE_PER_GB_SECOND",
        default: "",
        meaning: "What a gigabyte of memory costs for a second of billed time. With it, or with the price of a request, the metric `aws.lambda.estimated_cost` is made, in the same currency.",
        example: "0.0000166667",
        kind: Kind::Other(signals::PRICE_ACCEPTED, signals::price_per_gb_second),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_PRICE_PER_REQUEST",
        default: "",
        meaning: "What an invocation costs beside its time.",
        example: "0.0000002",
        kind: Kind::Other(signals::PRICE_ACCEPTED, signals::price_per_request),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_SILENCE",
        default: "",
        meaning: "Platform events that are not sent as log records, by type. One that tells of a problem is sent all the same, and so is every type that this version does not know. Metrics and spans are made of them in either case.",
        example: "platform.start,platform.runtimeDone,platform.report",
        kind: Kind::Other(signals::SILENCE_ACCEPTED, signals::silence),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_EMF",
        default: "metrics",
        meaning: "What becomes of metrics that the function embeds in its log lines (CloudWatch's embedded metric format, [as in signals.md](signals.md#embedded-metrics)). `metrics` makes data points of them, and a log record of what else the line says; `keep` makes the points and keeps the line whole as well; `off` leaves such lines as they are. Where no metrics are sent they are left as they are in any case.",
        example: "keep",
        kind: Kind::Choice(&[
            Choice { word: "metrics", apply: Some(|config| config.emf = Emf::Metrics) },
            Choice { word: "keep", apply: Some(|config| config.emf = Emf::Keep) },
            Choice { word: "off", apply: Some(|config| config.emf = Emf::Off) },
        ]),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_JSON_LINES",
        default: "text",
        meaning: "How a log line is read that is a JSON object, which is what loggers write while Lambda's log format is `Text`. `text` sends the line as it is, with the level, time, request id and trace that it tells. `fields` reads it as Lambda would in the log format `JSON`: its message is the body, and the rest become attributes ([signals.md](signals.md#loggers)); one without a message stays text. `off` does not look into it.",
        example: "fields",
        kind: Kind::Choice(&[
            Choice { word: "text", apply: Some(|config| config.json_lines = JsonLines::Text) },
            Choice { word: "fields", apply: Some(|config| config.json_lines = JsonLines::Fields) },
            Choice { word: "off", apply: Some(|config| config.json_lines = JsonLines::Off) },
        ]),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_JOIN_LINES",
        default: "off",
        meaning: "Whether a stack trace that Lambda delivers line by line, which it does for what custom runtimes print, becomes one log record: `on` joins lines that plainly continue the one before ([signals.md](signals.md#lines-that-are-joined)).",
        example: "on",
        kind: Kind::Choice(&[
            Choice { word: "off", apply: Some(|config| config.joins_lines = false) },
            Choice { word: "on", apply: Some(|config| config.joins_lines = true) },
        ]),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_SELF_METRICS",
        default: "1m",
        meaning: "How often metrics about the extension itself are made, at most ([signals.md](signals.md#about-the-extension)): some 500 bytes on the wire, along with metrics of the function, and once more at SHUTDOWN. `off` makes none.",
        example: "5m",
        kind: Kind::Other(signals::OFF_OR_DURATION_ACCEPTED, signals::self_metrics),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_OUTAGE_ALERT_AFTER",
        default: "1m",
        meaning: "How long the backend is away before a line on stdout tells CloudWatch, which makes metrics of it that an alarm can watch ([signals.md](signals.md#the-outage-alert)): one line a minute at most, and one when the backend is back. `off` writes none.",
        example: "10m",
        kind: Kind::Other(signals::OFF_OR_DURATION_ACCEPTED, signals::outage_alert_after),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_RULES",
        default: "",
        meaning: "What becomes of log records before they are kept: left out, sampled, redacted, given other attributes ([rules.md](rules.md)). What is redacted never touches the disk. A rule that is wrong is told with its line and left out; the others work.",
        example: "/var/task/rules.toml",
        kind: Kind::Other(apply::RULES_ACCEPTED, apply::rules),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_TELEMETRY",
        default: "platform,function",
        meaning: "What to take from the Lambda Telemetry API: `platform` events, what the `function` writes, what every `extension` writes (this one included).",
        example: "function",
        kind: Kind::Other(apply::TELEMETRY_ACCEPTED, apply::telemetry),
        standard: &[],
    },
    Setting {
        name: OTLP_RECEIVER,
        default: "off",
        meaning: "Whether to take OTLP/HTTP from the function's own OpenTelemetry SDK, and where: `on` is 127.0.0.1:4318. What comes is kept and delivered like everything else ([the OTLP receiver](otlp-receiver.md)). Set `OUTLAST_ENDPOINT` along with it: `OTEL_EXPORTER_OTLP_ENDPOINT` is then for the SDK.",
        example: "on",
        kind: Kind::Other(apply::OTLP_RECEIVER_ACCEPTED, apply::otlp_receiver),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_OTLP_RECEIVER_RESOURCE",
        default: "keep",
        meaning: "What becomes of the resource of telemetry that the function's SDK sends. `keep` leaves it as it is; `complete` adds the attributes of the function that are known (`faas.name`, `cloud.region` and so on), each only where the SDK says nothing under that name.",
        example: "complete",
        kind: Kind::Choice(&[
            Choice { word: "keep", apply: Some(|config| config.completes_resources = false) },
            Choice { word: "complete", apply: Some(|config| config.completes_resources = true) },
        ]),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_QUEUE_DIR",
        default: "/tmp/outlast",
        meaning: "Where the queue lives. Only `/tmp` and a mounted file system can be written in Lambda; `/tmp` is local and outlives resets. The directory is made if it is missing and should be used by nothing else.",
        example: "/tmp/telemetry",
        kind: Kind::Other(apply::QUEUE_DIR_ACCEPTED, apply::queue_dir),
        standard: &[],
    },
    Setting {
        name: QUEUE_MAX_BYTES,
        default: "64MiB",
        meaning: "The most the queue may occupy on disk, everything counted. Data waits compressed: 64 MiB holds some 300 MB of logs. `/tmp` is 512 MB unless the function asks for more, and the function uses it too.",
        example: "256MiB",
        kind: Kind::Bytes(
            Range {
                min: MIB,
                max: 10 * GIB,
                why: "Below, the queue's own files leave no room for data; above is more than `/tmp` can be given.",
            },
            |config, value| config.queue_max_bytes = value,
        ),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_OVERFLOW",
        default: "drop-oldest",
        meaning: "What gives way when the queue is full. `drop-oldest` keeps what happens now, `drop-newest` keeps the beginning of the outage, `shed` keeps what is most severe ([durability.md](durability.md#shed)). What is dropped is counted and reported, to the backend and on stderr.",
        example: "drop-newest",
        kind: Kind::Choice(&[
            Choice { word: "drop-oldest", apply: Some(|config| config.overflow = Overflow::DropOldest) },
            Choice { word: "drop-newest", apply: Some(|config| config.overflow = Overflow::DropNewest) },
            Choice { word: "shed", apply: Some(|config| config.overflow = Overflow::Shed) },
        ]),
        standard: &[],
    },
    Setting {
        name: BATCH_MAX_BYTES,
        default: "1MiB",
        meaning: "The most telemetry per request, counted before compression. A single block (at most 256 KiB, unless one record alone is larger) is sent however small this is. A backend that answers 413 gets smaller requests by itself, and one whose limit is known never gets larger ones ([destinations.md](destinations.md)).",
        example: "512KiB",
        kind: Kind::Bytes(
            Range {
                min: KIB,
                max: 16 * MIB,
                why: "Below, a request would be mostly headers; above, requests take more memory and time than a small function has to spare.",
            },
            |config, value| config.batch_max_bytes = usize::try_from(value).unwrap_or(usize::MAX),
        ),
        standard: &[],
    },
    Setting {
        name: RATE_LIMIT,
        default: "",
        meaning: "What the requests of one environment may bring to the backend per second, in the mean: bytes as they are sent, with ten seconds' worth at once after a pause. What is beyond waits in the queue, or goes to the fallback when that is nearly full. There is no limit at SHUTDOWN, where waiting would lose data.",
        example: "64KiB",
        kind: Kind::Bytes(
            Range { min: KIB, max: GIB, why: "Below, a record may wait for minutes; above is no limit." },
            |config, value| config.rate_limit = Some(value),
        ),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_MAX_DELAY",
        default: "10s",
        meaning: "How late telemetry may be before an invocation is held for it. The extension sends while the function runs; what is left waits for the next invocation, unless that is expected later than this.",
        example: "1m",
        kind: Kind::Duration(
            Range {
                min: Duration::ZERO,
                max: Duration::from_secs(86_400),
                why: "`0` holds every invocation that has something to send; no environment lives for a day.",
            },
            |config, value| config.max_delay = value,
        ),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_HOLD_MAX",
        default: "150ms",
        meaning: "The longest an invocation is held after the function is done. The time is billed, the caller has its answer already. Never past the function's deadline, and not while the backend is known to be away.",
        example: "500ms",
        kind: Kind::Duration(
            Range {
                min: Duration::ZERO,
                max: Duration::from_secs(30),
                why: "`0` never holds; above, the environment would be withheld from new requests for longer than any delivery is worth.",
            },
            |config, value| config.hold_max = value,
        ),
        standard: &[],
    },
    Setting {
        name: RETRY_INITIAL,
        default: "200ms",
        meaning: "The first pause after a failed request. It grows with each further failure, with full jitter, and a `Retry-After` of the backend is obeyed.",
        example: "1s",
        kind: Kind::Duration(RETRY_RANGE, |config, value| config.retry_initial = value),
        standard: &[],
    },
    Setting {
        name: RETRY_MAX,
        default: "30s",
        meaning: "The longest pause between attempts. There is no limit on attempts or age: data waits until the backend takes it or the queue is full. Must not be below `OUTLAST_RETRY_INITIAL`; if only one of the two is set, the other follows.",
        example: "5m",
        kind: Kind::Duration(RETRY_RANGE, |config, value| config.retry_max = value),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_SHUTDOWN_RESERVE",
        default: "150ms",
        meaning: "The part of the time that Lambda gives at SHUTDOWN which is left unused, so that the process is gone by itself before it is killed.",
        example: "300ms",
        kind: Kind::Duration(
            Range {
                min: Duration::from_millis(20),
                max: Duration::from_secs(1),
                why: "Below, closing the queue may be cut short; Lambda gives 2 s in all, of which 1.3 to 1.7 s arrive.",
            },
            |config, value| config.shutdown_reserve = value,
        ),
        standard: &[],
    },
    Setting {
        name: "OUTLAST_LOG",
        default: "warn",
        meaning: "How much the extension itself writes to stderr. One line per event, never one per record.",
        example: "info",
        kind: Kind::Choice(&[
            Choice { word: "off", apply: Some(|config| config.log = LevelFilter::Off) },
            Choice { word: "error", apply: Some(|config| config.log = LevelFilter::Error) },
            Choice { word: "warn", apply: Some(|config| config.log = LevelFilter::Warn) },
            Choice { word: "info", apply: Some(|config| config.log = LevelFilter::Info) },
            Choice { word: "debug", apply: Some(|config| config.log = LevelFilter::Debug) },
            Choice { word: "trace", apply: Some(|config| config.log = LevelFilter::Trace) },
        ]),
        standard: &[],
    },
    Setting {
        name: "OTEL_RESOURCE_ATTRIBUTES",
        default: "",
        meaning: "Attributes added to everything that is sent: `key=value` pairs separated by commas, keys and values percent-encoded. They win over what the extension finds out itself.",
        example: "deployment.environment.name=prod,team=checkout",
        kind: Kind::Other(apply::RESOURCE_ATTRIBUTES_ACCEPTED, apply::resource_attributes),
        standard: &[],
    },
    // After the attributes: the specification gives it precedence over a `service.name` among them.
    Setting {
        name: "OTEL_SERVICE_NAME",
        default: "",
        meaning: "`service.name` of everything that is sent; the name of the function if it is not set here or in `OTEL_RESOURCE_ATTRIBUTES`.",
        example: "checkout",
        kind: Kind::Other("any text", apply::service_name),
        standard: &[],
    },
];

const COMPRESSIONS: &[Choice] = &[
    Choice { word: "gzip", apply: Some(|config| config.gzip = true) },
    Choice { word: "none", apply: Some(|config| config.gzip = false) },
];

const STANDARD_PROTOCOLS: &[Choice] = &[
    Choice { word: "http/protobuf", apply: Some(|config| config.protocol = Protocol::Otlp) },
    Choice { word: "http/json", apply: Some(|config| config.protocol = Protocol::OtlpJson) },
    Choice { word: "grpc", apply: None },
];
