//! Streams of platform events, and what is made of them.

#![allow(clippy::float_cmp, clippy::cast_precision_loss, clippy::cast_sign_loss)] // small numbers, taken over as they are

use super::observer::{CONCURRENT_MAX, OPEN_MAX, OVER_MAX};
use super::*;
use crate::record::trace_context::TraceId;
use crate::record::{Event, Value};

const T0: u64 = 1_791_444_600_000_000_000;
const MS: u64 = 1_000_000;
const A: &str = "79b5e81f-9cdd-4145-b1f6-7c50ef8a2a36";
const B: &str = "f0c9f58b-8ebe-4e84-a656-95eb6eee865a";
const C: &str = "0c9f58bf-8ebe-4e84-a656-95eb6eee865a";
const TRACE: &str = "1-6352a70e-1e2c502e358361800241fd45";
const TRACE_ID: TraceId =
    [0x63, 0x52, 0xa7, 0x0e, 0x1e, 0x2c, 0x50, 0x2e, 0x35, 0x83, 0x61, 0x80, 0x02, 0x41, 0xfd, 0x45];

/// An observer with everything that came out of it.
struct Stream {
    observer: Observer,
    points: Vec<(String, f64)>,
    spans: Vec<Span>,
    /// Of the points, in whole milliseconds after the beginning.
    intervals: Vec<(u64, u64)>,
}

/// Milliseconds after the beginning, as the platform writes them.
fn iso(ms: u64) -> String {
    let (minutes, seconds) = (30 + ms / 60_000, ms / 1000 % 60);
    format!("2026-10-08T{:02}:{:02}:{seconds:02}.{:03}Z", 7 + minutes / 60, minutes % 60, ms % 1000)
}

impl Stream {
    fn with(rules: Rules) -> Self {
        Self { observer: Observer::new(rules), points: Vec::new(), spans: Vec::new(), intervals: Vec::new() }
    }

    fn new() -> Self {
        Self::with(Rules::default())
    }

    /// Lets go of what is in memory, as a SIGKILL does, and goes on with what is on disk.
    fn restart(&mut self) {
        self.observer = Observer::resume(self.observer.rules, &self.observer.carry());
    }

    fn around(ms: u64) -> Around<'static> {
        Around { received: T0 + ms * MS, function_name: Some("f"), ..Around::default() }
    }

    fn told(&mut self, ms: u64, kind: &str, record: &str) -> &mut Self {
        let raw = format!(r#"{{"time":"{}","type":"platform.{kind}","record":{record}}}"#, iso(ms));
        let mut seen = Seen::default();
        self.observer.see(&Event::parse(raw.as_bytes()), &Self::around(ms), &mut seen);
        self.keep(seen);
        self
    }

    fn keep(&mut self, mut seen: Seen) {
        self.spans.append(&mut seen.spans);
        let points = &mut self.points;
        let mut interval = None;
        if seen.points.is_empty() {
            return;
        }
        self.observer.write_points(&mut seen, |metric| {
            let value = match &metric.data {
                Data::Gauge(Number::Int(value)) | Data::Delta(Number::Int(value)) => *value as f64,
                Data::Gauge(Number::Double(value)) | Data::Delta(Number::Double(value)) => *value,
                Data::Histogram(histogram) => histogram.sum,
            };
            if metric.start_unix_nanos > 0 {
                let ms = |nanos: u64| nanos.saturating_sub(T0) / MS;
                interval = Some((ms(metric.start_unix_nanos), ms(metric.time_unix_nanos)));
            }
            let labels = metric.attributes.iter().map(|(name, value)| format!(" {name}={value:?}"));
            points.push((metric.name.to_string() + &labels.collect::<String>(), value));
        });
        self.intervals.extend(interval);
    }

    fn end(&mut self, ms: u64, ending: Ending) -> &mut Self {
        let mut seen = Seen::default();
        self.observer.end(ending, &Self::around(ms), &mut seen);
        self.keep(seen);
        self
    }

    fn init(&mut self, ms: u64, phase: &str) -> &mut Self {
        let told = |more: &str| {
            format!(r#"{{"initializationType":"on-demand","phase":"{phase}","status":"success"{more}}}"#)
        };
        self.told(ms, "initStart", &told(r#","instanceId":"i1""#));
        self.told(ms + 100, "initReport", &told(r#","metrics":{"durationMs":100.5}"#))
    }

    fn start(&mut self, ms: u64, request: &str) -> &mut Self {
        self.told(ms, "start", &format!(r#"{{"requestId":"{request}"}}"#))
    }

    fn done(&mut self, ms: u64, request: &str, status: &str) -> &mut Self {
        let record = format!(
            r#"{{"requestId":"{request}","status":"{status}","metrics":{{"durationMs":20,"producedBytes":2}},
                "spans":[{{"name":"responseLatency","start":"{}","durationMs":15.5}}]}}"#,
            iso(ms - 20)
        );
        self.told(ms, "runtimeDone", &record)
    }

    fn report(&mut self, ms: u64, request: &str, status: &str) -> &mut Self {
        let record = format!(
            r#"{{"requestId":"{request}","status":"{status}",
                "metrics":{{"durationMs":25,"billedDurationMs":25,"memorySizeMB":256,"maxMemoryUsedMB":64}},
                "spans":[{{"name":"extensionOverhead","start":"{}","durationMs":5}}]}}"#,
            iso(ms)
        );
        self.told(ms, "report", &record)
    }

    /// The sum of all points of these names.
    fn total(&self, name: &str) -> f64 {
        self.points.iter().filter(|(known, _)| known.split(' ').next() == Some(name)).map(|(_, v)| v).sum()
    }

    /// Invocations, errors, time-outs, cold starts.
    fn outcomes(&self) -> [u64; 4] {
        ["faas.invocations", "faas.errors", "faas.timeouts", "faas.coldstarts"]
            .map(|name| self.total(name) as u64)
    }

    fn names(&self) -> Vec<&str> {
        self.spans.iter().map(|span| &*span.name).collect()
    }

    fn root(&self) -> &Span {
        let roots: Vec<_> = self.spans.iter().filter(|span| span.kind == SpanKind::Server).collect();
        assert_eq!(roots.len(), 1, "{:?}", self.names());
        roots[0]
    }

    fn attribute(span: &Span, name: &str) -> Option<Value<'static>> {
        span.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }
}

#[test]
fn a_cold_start_is_told_in_full_when_the_function_is_done() {
    let mut stream = Stream::new();
    stream.init(0, "init").start(110, A).done(150, A, "success");
    assert_eq!(stream.names(), ["f", "init", "responseLatency"]);
    assert_eq!(stream.outcomes(), [1, 0, 0, 1]);
    let root = stream.root();
    assert_eq!((root.start_unix_nanos, root.end_unix_nanos), (T0 + 110 * MS, T0 + 150 * MS));
    assert_eq!(Stream::attribute(root, "faas.coldstart"), Some(Value::Bool(true)));
    assert_eq!(Stream::attribute(root, "faas.invocation_id"), Some(Value::Str(A.into())));
    for part in &stream.spans[1..] {
        let parent = Parent { span_id: root.span_id, is_remote: false };
        assert_eq!((part.trace_id, part.parent), (root.trace_id, Some(parent)));
    }
    assert_eq!(stream.spans[1].end_unix_nanos, T0 + 100 * MS);
    assert_eq!(stream.total("faas.init_duration"), 0.1005);
    assert_eq!(stream.total("faas.invoke_duration"), 0.02);
    assert_eq!(stream.total("aws.lambda.produced_bytes"), 2.0);

    stream.start(1000, B).report(1001, A, "success").done(1030, B, "success");
    assert_eq!(stream.names()[3..], ["extensionOverhead", "f", "responseLatency"]);
    assert_eq!(stream.outcomes(), [2, 0, 0, 1]);
    assert_eq!(Stream::attribute(&stream.spans[4], "faas.coldstart"), Some(Value::Bool(false)));
    assert_eq!(stream.total("aws.lambda.billed_duration"), 0.025);
    assert_eq!(stream.total("faas.mem_usage"), 67_108_864.0);
    assert_eq!(stream.total("aws.lambda.estimated_cost"), 0.0);
}

#[test]
fn the_tracing_header_gives_trace_parent_and_sampling() {
    let start = |sampled: &str| {
        format!(
            r#"{{"requestId":"{A}","tracing":{{"spanId":"24cd7d670fa455f0","type":"X-Amzn-Trace-Id","value":"Root={TRACE};Parent=35465b3a9e2f7c6a{sampled}"}}}}"#
        )
    };
    for sampled in [";Sampled=1", "", ";Sampled=?"] {
        let mut stream = Stream::new();
        stream.told(0, "start", &start(sampled)).done(30, A, "success").report(31, A, "success");
        let root = stream.root();
        assert_eq!(root.trace_id, TRACE_ID);
        assert_eq!(root.span_id, [0x24, 0xcd, 0x7d, 0x67, 0x0f, 0xa4, 0x55, 0xf0]);
        let parent = [0x35, 0x46, 0x5b, 0x3a, 0x9e, 0x2f, 0x7c, 0x6a];
        assert_eq!(root.parent, Some(Parent { span_id: parent, is_remote: true }));
        assert!(stream.spans.iter().all(|span| span.trace_id == TRACE_ID && span.trace_flags == 1));
        assert_eq!(stream.spans.len(), 3);
    }
    let mut unsampled = Stream::new();
    unsampled.init(0, "init").told(101, "start", &start(";Sampled=0")).done(130, A, "success");
    assert_eq!(unsampled.report(131, A, "success").names(), [""; 0]);
    assert_eq!(unsampled.outcomes(), [1, 0, 0, 1], "metrics are not sampled");
    let always = Rules { sampler: Sampler { parent_based: false, ratio: 1.0 }, ..Rules::default() };
    let mut kept = Stream::with(always);
    kept.told(0, "start", &start(";Sampled=0")).done(30, A, "success");
    assert_eq!(kept.names(), ["f", "responseLatency"]);
}

#[test]
fn what_the_function_wrote_about_its_own_trace_is_linked_or_adopted() {
    let link = Link { trace_id: [7; 16], span_id: [8; 8], trace_flags: 1 };
    let mut stream = Stream::new();
    stream.start(0, A);
    assert_eq!(stream.observer.trace_of(A), None);
    assert_eq!(stream.observer.settled_trace_of(B), None);
    stream.observer.logged(A, link);
    stream.observer.logged(A, Link { trace_id: [9; 16], ..link });
    stream.done(30, A, "success");
    assert_eq!((stream.root().trace_id, stream.root().link), (link.trace_id, Some(link)));
    assert_eq!(stream.observer.trace_of(A).map(|own| own.span_id), Some(stream.root().span_id));

    // A line that asked before was told of a trace, and that is the span's.
    let mut asked = Stream::new();
    asked.start(0, A);
    let told = asked.observer.settled_trace_of(A).unwrap();
    asked.restart();
    asked.observer.logged(A, link);
    asked.done(30, A, "success");
    assert_eq!((asked.root().trace_id, asked.root().span_id), (told.trace_id, told.span_id));
    assert_eq!(asked.root().link, Some(link));

    let header = format!(r#"{{"requestId":"{B}","tracing":{{"value":"Root={TRACE};Sampled=1"}}}}"#);
    let mut traced = Stream::new();
    traced.told(0, "start", &header);
    traced.observer.logged(B, Link { trace_id: TRACE_ID, ..link });
    traced.observer.logged(B, link);
    traced.done(30, B, "success");
    assert_eq!((traced.root().trace_id, traced.root().link), (TRACE_ID, Some(link)));
}

#[test]
fn every_way_to_fail_is_counted_once_and_marks_the_span() {
    for (status, outcomes) in
        [("error", [0, 1, 0, 0]), ("failure", [0, 1, 0, 0]), ("timeout", [0, 0, 1, 0]), ("novel", [0; 4])]
    {
        let mut stream = Stream::new();
        stream.start(0, A).done(30, A, status).report(31, A, status);
        assert_eq!(stream.outcomes(), outcomes, "{status}");
        let failed = matches!(stream.root().status, SpanStatus::Error(_));
        assert_eq!(failed, status != "novel");
        // What extensions spent is theirs, and went well.
        assert_eq!(stream.spans.last().map(|span| span.status.clone()), Some(SpanStatus::Unset));
    }
    let mut typed = Stream::new();
    let record = format!(r#"{{"requestId":"{A}","status":"failure","errorType":"Runtime.ExitError"}}"#);
    typed.start(0, A).told(30, "runtimeDone", &record);
    assert_eq!(typed.root().status, SpanStatus::Error("Runtime.ExitError".into()));
    assert_eq!(Stream::attribute(typed.root(), "error.type"), Some(Value::Str("Runtime.ExitError".into())));
    assert!(typed.points.iter().any(|(name, _)| name.starts_with("faas.errors error.type=")));
}

#[test]
fn an_initialisation_that_failed_says_how_also_where_it_has_no_type_of_error() {
    for (ends, said) in [
        ([r#"{"status":"timeout"}"#, r#"{"status":"timeout"}"#], "timeout"),
        ([r#"{"status":"error"}"#, r#"{"status":"success"}"#], "failure"),
        ([r#"{"status":"timeout"}"#, r#"{"status":"timeout","errorType":"X"}"#], "X"),
        ([r#"{"status":"error","errorType":"X"}"#, r#"{"status":"error"}"#], "X"),
    ] {
        let mut stream = Stream::new();
        stream.told(0, "initStart", r#"{"initializationType":"on-demand","phase":"init"}"#);
        stream.told(90, "initRuntimeDone", ends[0]).told(91, "initReport", ends[1]).end(100, Ending::Other);
        let [span] = &stream.spans[..] else { panic!("{:?}", stream.names()) };
        assert_eq!(span.status, SpanStatus::Error(said.into()), "{ends:?}");
        assert_eq!(Stream::attribute(span, "error.type"), Some(Value::Str(said.into())), "{ends:?}");
    }
}

#[test]
fn an_extension_that_runs_into_the_time_out_is_told_apart() {
    let mut stream = Stream::new();
    stream.start(0, A).done(30, A, "success").report(3000, A, "timeout");
    assert_eq!(stream.outcomes(), [1, 0, 1, 0]);
    assert_eq!(stream.root().status, SpanStatus::Unset);
    assert_eq!(stream.spans.last().unwrap().status, SpanStatus::Error("timeout".into()));
}

#[test]
fn a_report_stands_in_where_no_end_comes() {
    let mut stream = Stream::with(Rules { concurrent: true, ..Rules::default() });
    stream.told(0, "initStart", r#"{"initializationType":"lambda-managed-instances","phase":"init"}"#);
    let init = r#"{"initializationType":"lambda-managed-instances","phase":"init","status":"success","metrics":{"durationMs":9}}"#;
    stream.told(10, "initReport", init);
    assert_eq!(stream.names(), ["init"], "ahead of demand: a trace of its own");
    // They overlap, and end in another order.
    stream.start(100, A).start(101, B).report(130, B, "success").report(140, A, "error");
    assert_eq!(stream.names(), ["init", "f", "extensionOverhead", "f", "extensionOverhead"]);
    assert_eq!(stream.outcomes(), [1, 1, 0, 0], "and no cold start");
    assert_eq!(stream.spans[1].start_unix_nanos, T0 + 101 * MS);
    assert_eq!(stream.spans[3].start_unix_nanos, T0 + 100 * MS);
    assert_ne!(stream.spans[0].trace_id, stream.spans[1].trace_id);
    assert_eq!(stream.total("faas.invoke_duration"), 0.05);
    assert!(stream.observer.open.is_empty());
}

#[test]
fn events_that_come_late_twice_or_alone_make_no_second_span() {
    let mut stream = Stream::new();
    // The start was lost: its place is known from the duration.
    stream.done(30, A, "success");
    assert_eq!(stream.root().start_unix_nanos, T0 + 10 * MS);
    stream.start(31, A).done(32, A, "success").report(33, A, "success").report(34, A, "success");
    stream.start(35, A).done(36, A, "success");
    assert_eq!(stream.outcomes(), [1, 0, 0, 0]);
    assert_eq!(stream.total("aws.lambda.billed_duration"), 0.025);
    assert_eq!(stream.names(), ["f", "responseLatency", "extensionOverhead"]);

    let mut alone = Stream::new();
    alone.report(100, A, "success");
    assert_eq!(alone.root().start_unix_nanos, T0 + 75 * MS);
    assert_eq!(alone.outcomes(), [1, 0, 0, 0]);
}

#[test]
fn an_invocation_without_an_end_is_closed_by_what_is_known() {
    for (ending, outcomes) in
        [(Ending::Timeout, [0, 0, 1, 0]), (Ending::Failure, [0, 1, 0, 0]), (Ending::Other, [0, 0, 0, 0])]
    {
        let mut stream = Stream::new();
        stream.start(0, A);
        assert!(stream.observer.awaits_an_end());
        stream.end(3000, ending);
        assert_eq!(stream.outcomes(), outcomes, "{ending:?}");
        let root = stream.root();
        assert_eq!(Stream::attribute(root, "outlast.incomplete"), Some(Value::Bool(true)));
        assert_eq!(root.end_unix_nanos, T0 + 3000 * MS);
        assert_eq!(root.status == SpanStatus::Unset, ending == Ending::Other);
        assert!(!stream.observer.has_loose_ends());
        // The report comes all the same: it tells what was billed, and nothing twice.
        stream.report(3001, A, "timeout");
        assert_eq!(stream.outcomes(), outcomes);
        assert_eq!(stream.total("aws.lambda.billed_duration"), 0.025);
        assert_eq!(stream.names(), ["f", "extensionOverhead"]);
        let (root, overhead) = (&stream.spans[0], &stream.spans[1]);
        assert_eq!(overhead.parent.map(|parent| parent.span_id), Some(root.span_id));
        assert_eq!(overhead.trace_id, root.trace_id);
    }
}

#[test]
fn of_one_that_was_closed_in_a_trace_of_the_functions_the_overhead_has_no_place() {
    let mut stream = Stream::new();
    stream.start(0, A);
    stream.observer.logged(A, Link { trace_id: [7; 16], span_id: [8; 8], trace_flags: 1 });
    stream.end(3000, Ending::Timeout).report(3001, A, "timeout");
    assert_eq!(stream.names(), ["f"]);
}

#[test]
fn the_reason_of_the_end_is_that_of_the_latest_invocation() {
    for (ending, outcomes) in [(Ending::Timeout, [0, 0, 1, 0]), (Ending::Failure, [0, 1, 0, 0])] {
        // The end of the first one was lost.
        let mut stream = Stream::new();
        stream.start(0, A).start(1000, B).end(3000, ending);
        assert_eq!(stream.outcomes(), outcomes, "{ending:?}");
        let mut concurrent = Stream::with(Rules { concurrent: true, ..Rules::default() });
        concurrent.start(0, A).start(1000, B).end(3000, ending);
        assert_eq!(concurrent.outcomes(), outcomes.map(|count| 2 * count), "{ending:?}");
    }
}

#[test]
fn a_report_before_the_end_loses_nothing() {
    let mut stream = Stream::new();
    stream.init(0, "init").start(110, A).report(131, A, "success");
    stream.restart();
    stream.report(132, A, "success").done(130, A, "success").done(133, A, "success");
    assert_eq!(stream.outcomes(), [1, 0, 0, 1]);
    for (name, total) in [
        ("aws.lambda.produced_bytes", 2.0),
        ("aws.lambda.response_latency", 0.0155),
        ("aws.lambda.extension_overhead", 0.005),
        ("aws.lambda.billed_duration", 0.025),
        ("faas.invoke_duration", 0.025),
    ] {
        assert_eq!(stream.total(name), total, "{name}");
    }
    assert_eq!(stream.names(), ["f", "init", "extensionOverhead", "responseLatency"]);
    let root = stream.root().clone();
    assert!(stream.spans[1..].iter().all(|part| part.parent.unwrap().span_id == root.span_id));
    assert!(stream.observer.open.is_empty());
}

#[test]
fn a_cold_start_whose_start_was_lost_is_not_that_of_the_next() {
    let mut done = Stream::new();
    done.init(0, "init").done(150, A, "success").start(1000, B).done(1030, B, "success");
    let mut reported = Stream::new();
    let record = format!(
        r#"{{"requestId":"{A}","status":"success","metrics":{{"durationMs":25,"billedDurationMs":126,"initDurationMs":100.5}}}}"#
    );
    reported.init(0, "init").told(150, "report", &record).start(1000, B).done(1030, B, "success");
    for stream in [done, reported] {
        assert_eq!(stream.outcomes(), [2, 0, 0, 1]);
        assert_eq!(stream.total("faas.init_duration"), 0.1005);
        let roots: Vec<_> = stream.spans.iter().filter(|span| span.kind == SpanKind::Server).collect();
        let cold = |span: &Span| Stream::attribute(span, "faas.coldstart");
        assert_eq!((cold(roots[0]), cold(roots[1])), (Some(Value::Bool(true)), Some(Value::Bool(false))));
        let init = stream.spans.iter().find(|span| &*span.name == "init").unwrap();
        assert_eq!(init.parent.map(|parent| parent.span_id), Some(roots[0].span_id));
    }
}

#[test]
fn an_initialisation_that_is_told_late_was_for_the_invocation_after_it() {
    let init = r#"{"initializationType":"on-demand","phase":"init","instanceId":"i"}"#;
    let mut stream = Stream::new();
    stream.start(110, A).told(0, "initStart", init);
    assert!(!stream.observer.open[0].reset);
    stream.done(150, A, "success").start(1000, B).done(1030, B, "success");
    assert_eq!(stream.outcomes(), [2, 0, 0, 1]);
    assert_eq!(Stream::attribute(&stream.spans[0], "faas.coldstart"), Some(Value::Bool(true)));
    assert_eq!(stream.names(), ["f", "init", "responseLatency", "f", "responseLatency"]);
}

#[test]
fn a_report_tells_of_an_initialisation_that_nobody_told() {
    let record = format!(
        r#"{{"requestId":"{A}","status":"success","metrics":{{"durationMs":25,"billedDurationMs":126,"initDurationMs":100.5}}}}"#
    );
    let mut stream = Stream::new();
    stream.start(110, A).done(150, A, "success").told(151, "report", &record);
    assert_eq!((stream.total("faas.init_duration"), stream.outcomes()), (0.1005, [1, 0, 0, 1]));
    // It may be told after all.
    stream.init(0, "init");
    assert_eq!((stream.total("faas.init_duration"), stream.outcomes()), (0.1005, [1, 0, 0, 1]));
    // The next environment's is another.
    stream.init(5000, "invoke").start(5110, B).done(5130, B, "success");
    assert_eq!((stream.total("faas.init_duration"), stream.outcomes()), (0.201, [2, 0, 0, 2]));
}

#[test]
fn a_step_without_an_end_ends_with_the_next() {
    let mut stream = Stream::new();
    stream.told(0, "initStart", r#"{"initializationType":"on-demand","phase":"init"}"#);
    stream.init(300, "invoke").start(410, A).done(450, A, "success");
    assert_eq!(stream.names(), ["f", "init", "init", "responseLatency"]);
    assert_eq!(stream.spans[1].end_unix_nanos, T0 + 300 * MS);
    assert_eq!(stream.spans[2].end_unix_nanos, T0 + 400 * MS);
}

#[test]
fn a_reset_of_the_same_instance_after_the_end_takes_nothing_back() {
    let mut stream = Stream::new();
    stream.init(0, "init").start(110, A).done(150, A, "timeout").init(200, "invoke");
    stream.start(310, B).report(311, A, "timeout").done(350, B, "success");
    assert_eq!(stream.outcomes(), [1, 0, 1, 2]);
    assert_eq!(
        stream.names(),
        ["f", "init", "responseLatency", "extensionOverhead", "f", "init", "responseLatency"]
    );
}

#[test]
fn intervals_begin_with_what_they_measure_and_never_go_back() {
    let mut stream = Stream::new();
    stream.done(30, A, "success");
    assert_eq!(stream.intervals, [(10, 30)], "when it began");
    stream.report(60, A, "success");
    assert_eq!(stream.intervals[1..], [(30, 60)]);
    // An environment begins; the time between the two is nobody's.
    stream.init(1000, "init");
    assert_eq!(stream.intervals[2..], [(1000, 1100)]);
    // What is told late moves nothing.
    let mut late = Stream::new();
    late.start(110, A).done(150, A, "success").told(0, "initStart", r#"{"initializationType":"on-demand"}"#);
    late.report(200, A, "success");
    assert_eq!(late.intervals, [(109, 150), (150, 151), (151, 200)]);
    // What is measured and not written belongs to the interval before.
    let mut pending = Stream::new();
    pending.told(0, "initStart", r#"{"initializationType":"on-demand"}"#);
    let mut seen = Seen::default();
    for (ms, kind, record) in [
        (30, "start", format!(r#"{{"requestId":"{A}"}}"#)),
        (500, "initStart", r#"{"initializationType":"on-demand","phase":"invoke"}"#.to_owned()),
    ] {
        let raw = format!(r#"{{"time":"{}","type":"platform.{kind}","record":{record}}}"#, iso(ms));
        pending.observer.see(&Event::parse(raw.as_bytes()), &Stream::around(ms), &mut seen);
    }
    pending.keep(seen);
    assert_eq!(pending.intervals, [(0, 30)]);
}

/// Every order of `events`.
fn orders(events: &[usize]) -> Vec<Vec<usize>> {
    if events.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..events.len() {
        let mut rest = events.to_vec();
        let first = rest.remove(at);
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, first);
            order
        }));
    }
    all
}

#[test]
fn any_order_of_events_counts_the_same_and_makes_the_same_spans() {
    let init = r#"{"initializationType":"on-demand","phase":"init","status":"success","metrics":{"durationMs":100.5}}"#;
    let report = format!(
        r#"{{"requestId":"{A}","status":"success","metrics":{{"durationMs":25,"billedDurationMs":126,"initDurationMs":100.5}}}}"#
    );
    let tell = |stream: &mut Stream, event: usize| match event {
        0 => drop(stream.told(0, "initStart", r#"{"initializationType":"on-demand","phase":"init"}"#)),
        1 => drop(stream.told(101, "initReport", init)),
        2 => drop(stream.start(110, A)),
        3 => drop(stream.done(135, A, "success")),
        4 => drop(stream.told(140, "report", &report)),
        5 => drop(stream.start(1000, B)),
        6 => drop(stream.done(1025, B, "success")),
        _ => drop(stream.report(1030, B, "success")),
    };
    let mut count = 0;
    // One in 13 of the 40,320, of all kinds: all of them take a minute.
    for order in orders(&[0, 1, 2, 3, 4, 5, 6, 7]).into_iter().step_by(13) {
        let before = |first: usize, second: usize| {
            order.iter().position(|event| *event == first) < order.iter().position(|event| *event == second)
        };
        let mut stream = Stream::new();
        for event in &order {
            tell(&mut stream, *event);
        }
        stream.end(2000, Ending::Other);
        assert_eq!(stream.outcomes(), [2, 0, 0, 1], "{order:?}");
        assert!((stream.total("faas.init_duration") - 0.1005).abs() < 1e-9, "{order:?}");
        for (name, total) in [
            ("aws.lambda.billed_duration", 0.151),
            ("aws.lambda.produced_bytes", 4.0),
            ("aws.lambda.response_latency", 0.031),
            ("aws.lambda.extension_overhead", 0.005),
        ] {
            assert!((stream.total(name) - total).abs() < 1e-9, "{name} {order:?}");
        }
        let mut spans: Vec<_> =
            stream.spans.iter().map(|span| (span.name.to_string(), span.trace_id, span.span_id)).collect();
        spans.sort_unstable();
        let own: Vec<_> =
            spans.iter().filter(|(name, ..)| name != "init").map(|(name, ..)| name.as_str()).collect();
        assert_eq!(own, ["extensionOverhead", "f", "f", "responseLatency", "responseLatency"], "{order:?}");
        // What was written when the environment had said nothing cannot be taken back.
        if before(0, 3)
            && before(0, 4)
            && before(1, 3)
            && before(1, 4)
            && before(2, 5)
            && before(2, 6)
            && before(2, 7)
        {
            let root = stream.spans.iter().find(|span| {
                span.kind == SpanKind::Server
                    && Stream::attribute(span, "faas.invocation_id") == Some(Value::Str(A.into()))
            });
            assert_eq!(
                Stream::attribute(root.unwrap(), "faas.coldstart"),
                Some(Value::Bool(true)),
                "{order:?}"
            );
            let inits: Vec<_> = stream.spans.iter().filter(|span| &*span.name == "init").collect();
            assert_eq!(inits.len(), 1, "{order:?}");
            assert_eq!(
                inits[0].parent.map(|parent| parent.span_id),
                root.map(|root| root.span_id),
                "{order:?}"
            );
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn a_report_after_the_end_of_the_environment_completes_its_trace() {
    let mut stream = Stream::new();
    stream.start(0, A).done(30, A, "success").end(1000, Ending::Other).report(1001, A, "success");
    assert_eq!(stream.names(), ["f", "responseLatency", "extensionOverhead"]);
    assert_eq!(stream.spans[2].parent.map(|parent| parent.span_id), Some(stream.spans[0].span_id));
}

#[test]
fn an_invocation_that_was_cut_off_counts_once_the_next_is_over() {
    let mut stream = Stream::new();
    stream.start(0, A).init(5000, "invoke").start(5110, B);
    assert_eq!(stream.outcomes(), [0, 0, 0, 1]);
    stream.done(5150, B, "success");
    assert_eq!(stream.outcomes(), [1, 1, 0, 1]);
    // Its report comes with the next invocation, and knows better.
    let mut reported = Stream::new();
    reported.start(0, A).init(5000, "invoke").start(5110, B).report(5111, A, "timeout");
    reported.done(5150, B, "success");
    assert_eq!(reported.outcomes(), [1, 0, 1, 1]);

    // Its end may come late, though not after another one's.
    let mut lost = Stream::new();
    lost.start(0, A).start(1000, B).done(1030, B, "success");
    assert_eq!(lost.names(), ["f", "responseLatency"]);
    lost.start(2000, C).done(2030, C, "success");
    assert_eq!(lost.outcomes(), [2, 0, 0, 0], "nobody knows how the first one went");
    assert_eq!(lost.names(), ["f", "responseLatency", "f", "responseLatency", "f"]);
    let mut late = Stream::new();
    late.start(0, A).start(1000, B).done(1030, B, "success").done(1031, A, "success");
    assert_eq!(late.outcomes(), [2, 0, 0, 0]);
}

#[test]
fn a_kill_at_any_moment_changes_nothing() {
    let story = |stream: &mut Stream, at: usize| {
        let mut step = 0;
        let mut restart = |stream: &mut Stream| {
            if step == at {
                stream.restart();
            }
            step += 1;
        };
        restart(stream);
        stream.told(0, "initStart", r#"{"initializationType":"on-demand","phase":"init","instanceId":"i"}"#);
        restart(stream);
        stream.told(90, "initReport", r#"{"status":"error","errorType":"X","metrics":{"durationMs":90}}"#);
        restart(stream);
        let header = format!(
            r#"{{"requestId":"{A}","tenantId":"blue","functionArn":"arn:x","tracing":{{"spanId":"24cd7d670fa455f0","value":"Root={TRACE};Parent=35465b3a9e2f7c6a;Sampled=1"}}}}"#
        );
        stream.told(100, "start", &header);
        stream.observer.logged(A, Link { trace_id: [1; 16], span_id: [2; 8], trace_flags: 1 });
        restart(stream);
        stream.done(130, A, "success");
        restart(stream);
        stream.report(131, A, "success");
        restart(stream);
        stream.start(200, B);
        restart(stream);
        stream.init(900, "invoke");
        restart(stream);
        stream.end(1000, Ending::Other);
    };
    let mut undisturbed = Stream::new();
    story(&mut undisturbed, usize::MAX);
    assert_eq!(undisturbed.outcomes(), [1, 1, 0, 1]);
    assert_eq!(undisturbed.names(), ["f", "init", "responseLatency", "extensionOverhead", "f", "init"]);
    for at in 0..8 {
        let mut killed = Stream::new();
        story(&mut killed, at);
        assert_eq!(killed.points, undisturbed.points, "{at}");
        assert_eq!(killed.spans, undisturbed.spans, "{at}");
        assert_eq!(killed.observer, undisturbed.observer, "{at}");
    }
}

#[test]
fn a_lost_memory_makes_the_same_span_again() {
    let mut stream = Stream::new();
    stream.start(0, A).done(30, A, "success");
    let first = stream.root().clone();
    stream.observer = Observer::new(Rules::default());
    stream.report(31, A, "success");
    let again = stream.spans.iter().filter(|span| span.kind == SpanKind::Server).nth(1).unwrap();
    assert_eq!((again.trace_id, again.span_id), (first.trace_id, first.span_id));
}

#[test]
fn any_bytes_are_a_carry_that_says_little() {
    for bytes in [
        &b""[..],
        b"null",
        b"{",
        b"[]",
        br#"{"since":"x","open":[1,{}],"startup":[{"step":"dance"}],"over":[[1]]}"#,
    ] {
        assert_eq!(Observer::resume(Rules::default(), bytes), Observer::new(Rules::default()));
    }
    let carry = format!(r#"{{"open":[{{"request":"{A}","from":"the future"}}],"more":1}}"#);
    assert_eq!(Observer::resume(Rules::default(), carry.as_bytes()).open.len(), 1);
}

#[test]
fn ahead_of_demand_is_no_cold_start() {
    let mut stream = Stream::new();
    let record = r#"{"initializationType":"provisioned-concurrency","phase":"init","status":"success","metrics":{"durationMs":100}}"#;
    stream.told(0, "initStart", record).told(100, "initReport", record);
    assert_eq!(stream.names(), ["init"]);
    stream.start(3_600_000, A).done(3_600_030, A, "success");
    assert_eq!(stream.outcomes(), [1, 0, 0, 0]);
    assert_eq!(Stream::attribute(stream.root(), "faas.coldstart"), Some(Value::Bool(false)));
    // A reset within an invocation is one, whatever the environment began as.
    let again = record.replace(r#""phase":"init""#, r#""phase":"invoke""#);
    stream.told(3_700_000, "initStart", &again).start(3_700_200, B).done(3_700_230, B, "success");
    assert_eq!(stream.outcomes(), [2, 0, 0, 1]);
    // On demand, but long before anybody came.
    let mut early = Stream::new();
    early.init(0, "init").start(60_000, A).done(60_030, A, "success");
    assert_eq!(early.names(), ["f", "init", "responseLatency"]);
    assert_ne!(early.spans[1].trace_id, early.spans[0].trace_id);
}

#[test]
fn a_restore_is_part_of_the_first_invocation() {
    let mut stream = Stream::new();
    let init = r#"{"initializationType":"snap-start","phase":"init","status":"success","metrics":{"durationMs":100}}"#;
    stream.told(0, "initStart", init).told(100, "initReport", init);
    let hours = 2 * 3_600_000;
    stream.told(hours, "restoreStart", r#"{"instanceId":"i2"}"#);
    stream.told(hours + 50, "restoreRuntimeDone", r#"{"status":"success"}"#);
    stream.told(hours + 60, "restoreReport", r#"{"status":"success","metrics":{"durationMs":60}}"#);
    stream.start(hours + 70, A).done(hours + 100, A, "success");
    let record = format!(
        r#"{{"requestId":"{A}","status":"success","metrics":{{"durationMs":40,"billedDurationMs":40,"restoreDurationMs":60,"billedRestoreDurationMs":7}}}}"#
    );
    stream.told(hours + 101, "report", &record);
    assert_eq!(stream.names(), ["f", "init", "restore", "responseLatency"]);
    assert_eq!(stream.spans[1].parent, None, "that was hours ago, at publishing");
    assert_ne!(stream.spans[1].trace_id, stream.spans[0].trace_id);
    assert_eq!(stream.spans[2].parent.map(|parent| parent.span_id), Some(stream.spans[0].span_id));
    assert_eq!(stream.outcomes(), [1, 0, 0, 1]);
    assert_eq!(stream.total("aws.lambda.restore_duration"), 0.06);
    assert_eq!(stream.total("aws.lambda.billed_restore_duration"), 0.007);
}

#[test]
fn a_price_makes_a_cost() {
    let price = Price { gb_second: 0.000_016_666_7, request: 0.000_000_2 };
    let mut stream = Stream::with(Rules { price: Some(price), ..Rules::default() });
    stream.report(100, A, "success");
    let cost = stream.total("aws.lambda.estimated_cost");
    assert!((cost - (0.025 * 0.25 * 0.000_016_666_7 + 0.000_000_2)).abs() < 1e-15, "{cost}");
}

#[test]
fn what_is_open_is_bounded_in_number_and_time() {
    let mut stream = Stream::with(Rules { concurrent: true, ..Rules::default() });
    let id = |number: u64| format!("00000000-0000-4000-8000-{number:012x}");
    for number in 0..CONCURRENT_MAX as u64 + 10 {
        stream.start(number, &id(number));
    }
    assert_eq!((stream.observer.open.len(), stream.spans.len()), (CONCURRENT_MAX, 10));
    assert!(stream.observer.carry().len() < 64 << 10, "it goes to disk with each delivery");
    stream.start(17 * 60 * 1000, A);
    assert_eq!((stream.observer.open.len(), stream.spans.len()), (1, CONCURRENT_MAX + 10));
    assert_eq!(stream.outcomes(), [0; 4]);
    for number in 0..2 * CONCURRENT_MAX as u64 {
        stream.report(17 * 60 * 1000, &id(10_000 + number), "success");
    }
    assert_eq!(stream.observer.over.len(), CONCURRENT_MAX);
    assert!(stream.observer.carry().len() < 64 << 10);
    // None is counted twice that is told twice while all of them run.
    let before = stream.outcomes();
    stream.report(17 * 60 * 1000, &id(10_000 + CONCURRENT_MAX as u64), "success");
    assert_eq!(stream.outcomes(), before);

    let mut single = Stream::new();
    for number in 0..OPEN_MAX as u64 + 10 {
        single.start(number, &id(number));
    }
    assert_eq!(single.observer.open.len(), OPEN_MAX);
    for number in 0..2 * OVER_MAX as u64 {
        single.start(1000 + number, &id(1000 + number)).done(1050 + number, &id(1000 + number), "success");
        single.report(1060 + number, &id(1000 + number), "success");
    }
    assert_eq!(single.observer.over.len(), OVER_MAX);
    assert!(single.observer.carry().len() < 1 << 10);
}

#[test]
fn reports_that_come_a_hundred_invocations_late_tell_of_nothing_twice() {
    let id = |number: u64| format!("00000000-0000-4000-8000-{number:012}");
    let mut stream = Stream::new();
    for number in 0..1_000 {
        let at = 1_000 + number;
        stream.start(at, &id(number)).done(at + 1, &id(number), "success");
        if let Some(earlier) = number.checked_sub(100) {
            stream.report(at + 1, &id(earlier), "success");
        }
    }
    let roots = stream.spans.iter().filter(|span| span.kind == SpanKind::Server);
    assert_eq!((roots.count(), stream.outcomes()), (1_000, [1_000, 0, 0, 0]));
}

#[test]
fn an_event_from_the_future_came_when_it_was_received() {
    let mut stream = Stream::new();
    let raw = format!(
        r#"{{"time":"2099-01-01T00:00:00.000Z","type":"platform.start","record":{{"requestId":"{A}"}}}}"#
    );
    let mut seen = Seen::default();
    stream.observer.see(&Event::parse(raw.as_bytes()), &Stream::around(5), &mut seen);
    stream.done(30, A, "success");
    assert_eq!(stream.root().start_unix_nanos, T0 + 5 * MS);
}

#[test]
fn records_of_the_wrong_shape_make_nothing() {
    for record in ["null", "7", "[]", "{}", r#""text""#, r#"{"requestId":7,"metrics":[],"status":[]}"#] {
        let mut stream = Stream::new();
        for kind in ["start", "runtimeDone", "report", "initReport", "restoreReport", "fault", "novelty"] {
            stream.told(1, kind, record);
        }
        assert_eq!((stream.points.len(), stream.spans.len()), (0, 0), "{record}");
        assert!(stream.observer.open.is_empty());
    }
}
