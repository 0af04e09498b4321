//! Recorded deliveries, and what a backend gets of each: log records, data points, spans, as reviewed snapshots.
//!
//! Each goes the whole way that it goes in the extension: to the thread that owns the queue, through everything that is
//! made of it, into blocks on disk, and out of them in requests, which `opentelemetry-proto` decodes. What is printed is
//! what it says; nothing of the extension is asked. Only what no two runs have in common is left out: the hash in
//! `log.record.uid`, how full `/tmp` is, and when the environment ended.
//!
//! `INSTA_UPDATE=always cargo test --test signal_samples` rewrites `tests/snapshots/`; the difference is to be read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, HistogramDataPoint, Metric, NumberDataPoint, metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, status::StatusCode};
use outlast::drain::policy::Portion;
use outlast::encode::Otlp;
use outlast::keeper::{About, Fate, Job, Keeper, Making, Setup};
use outlast::listen::{Delivery, Receipt};
use outlast::observe::{Ending, Price, Rules};
use outlast::queue::{Encoding, Limits, Overflow, ReaderId, Readers, RealDisk, Request};
use outlast::{Signal, clock};
use prost::Message;
use serde_json::{Map, Value as Json, json};
use std::fmt::Write;
use std::io::Read;
use std::ops::RangeInclusive;
use tokio::sync::oneshot;

/// When the deliveries are said to arrive.
const RECEIVED: u64 = 1_900_000_000_000_000_000;
/// By which name the function was invoked.
const INVOKED: &str = "arn:aws:lambda:eu-central-1:123456789012:function:function";
/// Far more than a sample needs.
const QUEUE_MAX_BYTES: u64 = 4 << 20;
/// More than a sample makes, so it all goes in one request of each signal.
const REQUEST: Portion = Portion::Run { max_blocks: 1_000, max_bytes: 1 << 20 };
/// Ends with the record's place in its delivery.
const UID: &str = "log.record.uid";
/// Whose values are the machine's.
const TMP: &str = "aws.lambda.tmp_";

/// An environment that was fed and has ended, as the lifecycle sees it.
struct Ended {
    keeper: Keeper,
    /// Within which it ended, Unix nanoseconds.
    at: RangeInclusive<u64>,
    _dir: tempfile::TempDir,
}

impl Ended {
    /// After `deliveries`, one after another.
    async fn after(deliveries: &[&[u8]], concurrent: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let price = Price { gb_second: 0.000_016_666_7, request: 0.000_000_2 };
        let rules = Rules { price: Some(price), concurrent, ..Rules::default() };
        let setup = Setup {
            dir: dir.path().join("queue"),
            disk: || Box::new(RealDisk),
            limits: Limits::new(QUEUE_MAX_BYTES, Overflow::DropOldest),
            wire: Box::new(Otlp),
            about: About { function_name: Some("function".to_owned()), ..About::default() },
            epoch_unix_nanos: 0,
            making: Making { rules, ..Making::default() },
            readers: Readers::default(),
            completes_resources: false,
        };
        let keeper = Keeper::start(setup).unwrap();
        keeper.ask(Job::Invoked(INVOKED.to_owned()));
        for delivery in deliveries {
            let (reply, receipt) = oneshot::channel();
            let body = delivery.to_vec().into();
            let delivery = Delivery { body, received_unix_nanos: RECEIVED, reply };
            keeper.inbox.send(delivery).await.unwrap();
            assert_eq!(receipt.await, Ok(Receipt::Kept));
        }
        let from = clock::unix_now_nanos();
        keeper.ask(Job::End(Ending::Other));
        keeper.asked(Job::Finish).await.unwrap();
        // Whoever asks for this waits for nothing that could still be told.
        keeper.asked(Job::Summary).await.unwrap();
        Self { keeper, at: from..=clock::unix_now_nanos(), _dir: dir }
    }

    /// The one request of `signal`, decoded; empty if there is none.
    async fn request<M: Message + Default>(&self, signal: Signal) -> M {
        let decoded = self.assembled(signal).await.map(|request| {
            let mut plain = Vec::new();
            GzDecoder::new(&request.body[..]).read_to_end(&mut plain).unwrap();
            M::decode(&plain[..]).unwrap()
        });
        assert!(self.assembled(signal).await.is_none(), "a second request of {signal:?}");
        decoded.unwrap_or_default()
    }

    /// The next request of `signal`, which the backend takes.
    async fn assembled(&self, signal: Signal) -> Option<Request> {
        let (reader, portion, encoding) = (ReaderId::FIRST, REQUEST, Encoding::Gzip);
        let assemble = |reply| Job::Assemble { reader, signal, portion, encoding, reply };
        let request = self.keeper.asked(assemble).await.unwrap()?;
        let (to, records, reports) = (request.to, request.records.into(), request.reports.into());
        let fate = Fate::Delivered { to, records, reports, rejected: 0 };
        self.keeper.asked(|reply| Job::Land { reader, signal, fate, reply }).await.unwrap();
        Some(request)
    }

    /// What the backend has of it.
    async fn told(&self) -> String {
        let (mut logs, mut metrics, mut spans) = (String::new(), String::new(), String::new());
        let ExportLogsServiceRequest { resource_logs } = self.request(Signal::Logs).await;
        let mut about = None;
        for of in resource_logs {
            head(&mut logs, &mut about, of.resource);
            for records in of.scope_logs {
                ours(records.scope.as_ref());
                records.log_records.iter().for_each(|record| self.log(&mut logs, record));
            }
        }
        let ExportMetricsServiceRequest { resource_metrics } = self.request(Signal::Metrics).await;
        about = None;
        for of in resource_metrics {
            head(&mut metrics, &mut about, of.resource);
            for measured in of.scope_metrics {
                ours(measured.scope.as_ref());
                measured.metrics.iter().for_each(|metric| self.metric(&mut metrics, metric));
            }
        }
        let ExportTraceServiceRequest { resource_spans } = self.request(Signal::Traces).await;
        about = None;
        for of in resource_spans {
            head(&mut spans, &mut about, of.resource);
            for traced in of.scope_spans {
                ours(traced.scope.as_ref());
                traced.spans.iter().for_each(|span| self.span(&mut spans, span));
            }
        }
        format!("=== logs\n{logs}\n=== metrics\n{metrics}\n=== spans\n{spans}")
    }

    /// Nanoseconds as a date to the microsecond, which is finer than the platform tells.
    fn date(&self, nanos: u64) -> String {
        let moment = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos)).unwrap();
        match nanos {
            0 => "-".to_owned(),
            RECEIVED => "(received)".to_owned(),
            _ if self.at.contains(&nanos) => "(ended)".to_owned(),
            _ => moment.format(&time::format_description::well_known::Rfc3339).unwrap(),
        }
    }

    fn log(&self, out: &mut String, record: &LogRecord) {
        assert_eq!((record.observed_time_unix_nano, record.dropped_attributes_count), (RECEIVED, 0));
        let ids = match (&record.trace_id[..], &record.span_id[..]) {
            ([], []) => String::new(),
            (trace, span) => format!(" {}/{}/{:02x}", id(trace), id(span), record.flags),
        };
        let mut own = attributes(&record.attributes);
        let uid = own.get_mut(UID).expect("a uid");
        *uid =
            uid.as_str().and_then(|uid| uid.rsplit_once('-')).map(|(_, place)| format!("*-{place}")).into();
        writeln!(
            out,
            "{} {:>2} {} {}{ids}\n    {}\n    {own}",
            self.date(record.time_unix_nano),
            record.severity_number,
            or_dash(&record.severity_text),
            or_dash(&record.event_name),
            value(record.body.as_ref()),
        )
        .unwrap();
    }

    fn metric(&self, out: &mut String, metric: &Metric) {
        let delta = AggregationTemporality::Delta as i32;
        match metric.data.as_ref().expect("data") {
            Data::Gauge(gauge) => gauge.data_points.iter().for_each(|point| {
                let told = if metric.name.starts_with(TMP) { "(of the machine)" } else { &number(point) };
                let (times, own) = ((point.start_time_unix_nano, point.time_unix_nano), &point.attributes);
                self.point(out, metric, &format!("= {told}"), times, own);
            }),
            Data::Sum(sum) => sum.data_points.iter().for_each(|point| {
                assert_eq!((sum.aggregation_temporality, sum.is_monotonic), (delta, true));
                let (times, own) = ((point.start_time_unix_nano, point.time_unix_nano), &point.attributes);
                self.point(out, metric, &format!("+ {}", number(point)), times, own);
            }),
            Data::Histogram(histogram) => histogram.data_points.iter().for_each(|point| {
                assert_eq!(histogram.aggregation_temporality, delta);
                let (times, own) = ((point.start_time_unix_nano, point.time_unix_nano), &point.attributes);
                self.point(out, metric, &spread(point), times, own);
            }),
            other => panic!("{other:?}"),
        }
    }

    fn point(&self, out: &mut String, of: &Metric, told: &str, times: (u64, u64), own: &[KeyValue]) {
        let (from, to) = (self.date(times.0), self.date(times.1));
        writeln!(out, "{} [{}] {told}\n    {from} to {to} {}", of.name, of.unit, attributes(own)).unwrap();
    }

    fn span(&self, out: &mut String, span: &Span) {
        let remote = SpanFlags::ContextIsRemoteMask as u32;
        let status = span.status.clone().unwrap_or_default();
        writeln!(
            out,
            "{:?} {}{}\n    {} to {}\n    trace {} span {} parent {}{} flags {:02x}\n    {}",
            span.kind(),
            span.name,
            if status.code() == StatusCode::Error {
                format!(" ERROR {}", status.message)
            } else {
                String::new()
            },
            self.date(span.start_time_unix_nano),
            self.date(span.end_time_unix_nano),
            id(&span.trace_id),
            id(&span.span_id),
            id(&span.parent_span_id),
            if span.flags & remote == remote { " (remote)" } else { "" },
            span.flags & SpanFlags::TraceFlagsMask as u32,
            attributes(&span.attributes),
        )
        .unwrap();
        for link in &span.links {
            let (trace, to, flags) = (id(&link.trace_id), id(&link.span_id), link.flags);
            writeln!(out, "    link {trace}/{to}/{flags:02x}").unwrap();
        }
    }
}

/// Says what the following is about, unless it was said already.
fn head(out: &mut String, said: &mut Option<Resource>, resource: Option<Resource>) {
    if *said != resource {
        let of = resource.as_ref().expect("a resource");
        writeln!(out, "of {}", attributes(&of.attributes)).unwrap();
        *said = resource;
    }
}

fn ours(scope: Option<&InstrumentationScope>) {
    assert_eq!(scope.map(|scope| scope.name.as_str()), Some("outlast"));
}

fn value(value: Option<&AnyValue>) -> Json {
    use any_value::Value;
    match value.and_then(|value| value.value.as_ref()) {
        None => Json::Null,
        Some(Value::BoolValue(value)) => (*value).into(),
        Some(Value::IntValue(value)) => (*value).into(),
        Some(Value::DoubleValue(value)) => (*value).into(),
        Some(Value::StringValue(text)) => text.as_str().into(),
        Some(Value::ArrayValue(items)) => items.values.iter().map(|item| self::value(Some(item))).collect(),
        Some(Value::KvlistValue(fields)) => attributes(&fields.values),
        Some(other) => panic!("{other:?}"),
    }
}

fn attributes(fields: &[KeyValue]) -> Json {
    let told: Map<_, _> =
        fields.iter().map(|field| (field.key.clone(), value(field.value.as_ref()))).collect();
    assert_eq!(told.len(), fields.len(), "a name twice: {fields:?}");
    told.into()
}

fn id(bytes: &[u8]) -> String {
    let hex = bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    or_dash(&hex).to_owned()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn number(point: &NumberDataPoint) -> String {
    match point.value.expect("a value") {
        number_data_point::Value::AsInt(value) => value.to_string(),
        number_data_point::Value::AsDouble(value) => value.to_string(),
    }
}

fn spread(point: &HistogramDataPoint) -> String {
    let figure = |figure: Option<f64>| figure.expect("a figure");
    let filled: Map<String, Json> = point
        .bucket_counts
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0)
        .map(|(at, count)| {
            let bound = point.explicit_bounds.get(at);
            (bound.map_or("more".to_owned(), |bound| format!("<= {bound}")), json!(count))
        })
        .collect();
    format!(
        "~ {} of sum {} ({} to {}) in {}",
        point.count,
        figure(point.sum),
        figure(point.min),
        figure(point.max),
        Json::Object(filled)
    )
}

/// What a backend has of an environment that delivered this and ended.
async fn told(deliveries: &[&[u8]], concurrent: bool) -> String {
    Ended::after(deliveries, concurrent).await.told().await
}

macro_rules! sample {
    ($test:ident, $name:literal, $concurrent:literal) => {
        #[tokio::test]
        async fn $test() {
            let body = include_bytes!(concat!("telemetry/", $name, ".json"));
            insta::assert_snapshot!($name, told(&[body], $concurrent).await);
        }
    };
}

sample!(a_cold_start, "01-cold-start-success-node18-2024", false);
sample!(a_traced_invocation, "03-fixtures-2022-traced-invoke", false);
sample!(restores_drops_and_errors, "04-shapes-restore-dropped-error", false);
sample!(an_init_that_timed_out, "06-init-timeout-and-warm-2024", false);
sample!(a_cold_and_a_warm_invocation, "07-cold-warm-new-fields-node22-2026", false);
sample!(managed_instances, "08-managed-instances", true);
sample!(the_older_logs_api, "10-logs-api-legacy-batch-2022", false);
sample!(records_that_are_lines, "11-legacy-string-records", false);
sample!(forms_of_function_records, "12-function-record-forms", false);
sample!(a_record_that_was_cut, "15-split-payload-joined", false);

#[tokio::test]
async fn the_halves_of_the_record_that_was_cut_are_what_the_whole_is() {
    let halves: [&[u8]; 2] = [
        include_bytes!("telemetry/15-split-payload-part1.invalid-json.txt"),
        include_bytes!("telemetry/15-split-payload-part2.invalid-json.txt"),
    ];
    let whole: &[u8] = include_bytes!("telemetry/15-split-payload-joined.json");
    assert_eq!(told(&halves, false).await, told(&[whole], false).await);
}
