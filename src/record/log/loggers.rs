//! What is made of the lines of loggers in use, one test for each: as Lambda delivers them in the log format `JSON`, and
//! in `Text`, where they are strings. The rows of "Loggers" in `docs/signals.md`.

use serde_json::{Value as Json, json};

use super::super::reading::json_line;
use super::*;

/// Unix milliseconds: a little after what most of the lines below say.
const EVENT_MS: u64 = 1_715_817_570_000;
const REQUEST: &str = "8c181f94-0f1e-4cdb-a46b-a8dbe7918715";
const TRACE: &str = "6352a70e1e2c502e358361800241fd45";

/// What a line becomes.
#[derive(Debug, PartialEq)]
struct Became {
    body: Json,
    severity: (u8, String),
    /// Unix milliseconds; the event's own is 0.
    time: u64,
    request: Option<String>,
    trace: Option<String>,
    span: Option<String>,
    attributes: Json,
}

impl Became {
    /// A record with this body and severity, without anything else.
    fn new(body: impl Into<Json>, number: u8, word: &str) -> Self {
        let severity = (number, word.to_owned());
        let (request, trace, span) = (None, None, None);
        Self { body: body.into(), severity, time: 0, request, trace, span, attributes: json!({}) }
    }

    fn at(self, time: u64) -> Self {
        Self { time, ..self }
    }

    fn of_request(self) -> Self {
        Self { request: Some(REQUEST.to_owned()), ..self }
    }

    fn of_trace(self) -> Self {
        Self { trace: Some(TRACE.to_owned()), ..self }
    }

    fn with(self, attributes: Json) -> Self {
        Self { attributes, ..self }
    }
}

fn json_of(value: &Value<'_>) -> Json {
    match value {
        Value::Empty => Json::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Double(value) => (*value).into(),
        Value::Str(text) => text.as_ref().into(),
        Value::Array(items) => items.iter().map(json_of).collect(),
        Value::Map(fields) => Json::Object(fields.iter().map(|(n, v)| (n.to_string(), json_of(v))).collect()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// What a record becomes, given as it stands in the delivery.
fn became(record: &str) -> Became {
    became_at(record, EVENT_MS)
}

/// The same, of an event at this time.
fn became_at(record: &str, event_ms: u64) -> Became {
    let raw = format!(r#"{{"time":{event_ms},"type":"function","record":{record}}}"#);
    let event = Event::parse(raw.as_bytes());
    let line = json_line(&event);
    let reading = Reading::of(&event, line.as_deref());
    let record = LogRecord::from_reading(&event, reading, &Context::default(), 1, "uid");
    let own = |name: &str| [UID, INVOCATION_ID, TELEMETRY_TYPE].contains(&name);
    let request = record.attributes.iter().find(|(name, _)| name == INVOCATION_ID);
    Became {
        body: json_of(&record.body),
        severity: (record.severity.number, record.severity.text.to_string()),
        time: if record.time_unix_nanos == event_ms * 1_000_000 {
            0
        } else {
            record.time_unix_nanos / 1_000_000
        },
        request: request.and_then(|(_, id)| id.as_str()).map(str::to_owned),
        trace: record.trace_id.map(|id| hex(&id)),
        span: record.span_id.map(|id| hex(&id)),
        attributes: record
            .attributes
            .iter()
            .filter(|(name, _)| !own(name))
            .map(|(name, value)| (name.to_string(), json_of(value)))
            .collect(),
    }
}

/// Both log formats give the same.
#[track_caller]
fn reads(line: &str, expected: &Became) {
    let event_ms = if expected.time == 0 { EVENT_MS } else { expected.time + 1_000 };
    assert_eq!(became_at(line, event_ms), *expected, "as an object");
    assert_eq!(became_at(&Json::from(format!("{line}\n")).to_string(), event_ms), *expected, "as a line");
}

#[test]
fn lambdas_own_json_format() {
    reads(
        &format!(
            r#"{{"timestamp":"2024-05-15T23:59:20.159Z","level":"ERROR","requestId":"{REQUEST}","message":"no table","errorType":"ValueError","errorMessage":"no such table","stackTrace":["at load (a.js:1)","at main (a.js:2)"],"location":"/var/task/app.py:handler:7","tenantId":"blue"}}"#
        ),
        &Became::new("no table", 17, "ERROR").at(1_715_817_560_159).of_request().with(json!({
            "exception.type": "ValueError", "exception.message": "no such table",
            "exception.stacktrace": "at load (a.js:1)\nat main (a.js:2)",
            "location": "/var/task/app.py:handler:7", "tenantId": "blue"})),
    );
    // Python's frames have newlines of their own, so the list stays one.
    reads(
        r#"{"level":"ERROR","message":"no","stackTrace":["  File \"a.py\", line 1\n    f()\n"]}"#,
        &Became::new("no", 17, "ERROR").with(json!({"stackTrace": ["  File \"a.py\", line 1\n    f()\n"]})),
    );
}

#[test]
fn powertools_for_python() {
    reads(
        &format!(
            r#"{{"level":"INFO","location":"handler:10","message":"paid","timestamp":"2021-05-03 11:47:12,494+0000","service":"payment","cold_start":true,"function_name":"f","function_memory_size":128,"function_arn":"arn:f","function_request_id":"{REQUEST}","correlation_id":"7","xray_trace_id":"1-6352a70e-1e2c502e358361800241fd45"}}"#
        ),
        &Became::new("paid", 9, "INFO").at(1_620_042_432_494).of_request().of_trace().with(json!({
            "location": "handler:10", "service": "payment", "cold_start": true, "function_name": "f",
            "function_memory_size": 128, "function_arn": "arn:f", "correlation_id": "7"})),
    );
    reads(
        r#"{"level":"ERROR","message":{"order":7},"exception":"Traceback (most recent call last):\n  File \"a.py\"\nValueError: no","exception_name":"ValueError","stack_trace":{"type":"ValueError","frames":[]}}"#,
        &Became::new(json!({"order": 7}), 17, "ERROR").with(json!({
            "exception.stacktrace": "Traceback (most recent call last):\n  File \"a.py\"\nValueError: no",
            "exception.type": "ValueError", "stack_trace": {"type": "ValueError", "frames": []}})),
    );
}

#[test]
fn powertools_for_typescript() {
    reads(
        &format!(
            r#"{{"level":"ERROR","message":"lost","timestamp":"2024-05-15T23:59:20.159Z","service":"payment","cold_start":false,"function_request_id":"{REQUEST}","sampling_rate":0,"xray_trace_id":"1-6352a70e-1e2c502e358361800241fd45","error":{{"name":"TypeError","location":"/var/task/index.js:3","message":"x is no function","stack":"TypeError: x\n    at f (a.js:1:2)","cause":"y"}}}}"#
        ),
        &Became::new("lost", 17, "ERROR").at(1_715_817_560_159).of_request().of_trace().with(json!({
            "service": "payment", "cold_start": false, "sampling_rate": 0,
            "exception.type": "TypeError", "exception.message": "x is no function",
            "exception.stacktrace": "TypeError: x\n    at f (a.js:1:2)",
            "error": {"location": "/var/task/index.js:3", "cause": "y"}})),
    );
}

#[test]
fn powertools_for_java() {
    reads(
        &format!(
            r#"{{"level":"WARN","message":"late","cold_start":true,"function_request_id":"{REQUEST}","service":"payment","timestamp":"2024-05-15T23:59:20.159+0000","xray_trace_id":"1-6352a70e-1e2c502e358361800241fd45","error":{{"message":"no","name":"java.io.IOException","stack":"java.io.IOException: no\n\tat A.f(A.java:1)"}}}}"#
        ),
        &Became::new("late", 13, "WARN").at(1_715_817_560_159).of_request().of_trace().with(json!({
            "cold_start": true, "service": "payment", "exception.message": "no",
            "exception.type": "java.io.IOException",
            "exception.stacktrace": "java.io.IOException: no\n\tat A.f(A.java:1)"})),
    );
}

#[test]
fn powertools_for_dotnet() {
    for [request, trace, time, level, message] in [
        ["function_request_id", "xray_trace_id", "timestamp", "level", "message"],
        ["functionRequestId", "xrayTraceId", "timestamp", "level", "message"],
        ["FunctionRequestId", "XrayTraceId", "Timestamp", "Level", "Message"],
    ] {
        reads(
            &format!(
                r#"{{"{request}":"{REQUEST}","{trace}":"1-6352a70e-1e2c502e358361800241fd45","{time}":"2024-05-15T23:59:20.1590000Z","{level}":"Information","service":"s","name":"AWS.Lambda.Powertools.Logging.Logger","{message}":"paid","exception":{{"type":"System.Exception","source":"App","message":"no","stack_trace":"   at App.F()\n   at App.G()"}}}}"#
            ),
            &Became::new("paid", 9, "Information").at(1_715_817_560_159).of_request().of_trace().with(
                json!({
                "service": "s", "name": "AWS.Lambda.Powertools.Logging.Logger",
                "exception.type": "System.Exception", "exception.message": "no",
                "exception.stacktrace": "   at App.F()\n   at App.G()", "exception": {"source": "App"}}),
            ),
        );
    }
}

#[test]
fn pino_and_bunyan() {
    reads(
        r#"{"level":50,"time":1715817560159,"pid":8,"hostname":"h","awsRequestId":"8c181f94-0f1e-4cdb-a46b-a8dbe7918715","err":{"type":"Error","message":"no","stack":"Error: no\n    at f (a.js:1:2)","code":"E7"},"msg":"lost"}"#,
        &Became::new("lost", 17, "ERROR").at(1_715_817_560_159).of_request().with(json!({
            "level": 50, "pid": 8, "hostname": "h", "exception.type": "Error", "exception.message": "no",
            "exception.stacktrace": "Error: no\n    at f (a.js:1:2)", "err": {"code": "E7"}})),
    );
    reads(
        r#"{"name":"app","hostname":"h","pid":8,"level":30,"msg":"up","time":"2024-05-15T23:59:20.159Z","v":0}"#,
        &Became::new("up", 9, "INFO")
            .at(1_715_817_560_159)
            .with(json!({"name": "app", "hostname": "h", "pid": 8, "level": 30, "v": 0})),
    );
}

#[test]
fn winston() {
    reads(
        r#"{"level":"http","message":"GET /","timestamp":"2024-05-15T23:59:20.159Z","stack":"Error: no\n    at f (a.js:1:2)","service":"web"}"#,
        &Became::new("GET /", 5, "http")
            .at(1_715_817_560_159)
            .with(json!({"exception.stacktrace": "Error: no\n    at f (a.js:1:2)", "service": "web"})),
    );
}

#[test]
fn structlog() {
    reads(
        r#"{"event":"signed in","level":"info","timestamp":"2024-05-15T23:59:20.159000Z","logger":"app","user":7}"#,
        &Became::new("signed in", 9, "info").at(1_715_817_560_159).with(json!({"logger": "app", "user": 7})),
    );
    // Without a level it may be anything: what invoked the function, for one.
    let event = r#"{"event":"signed in","user":7}"#;
    assert_eq!(became(event), Became::new(json!({"event": "signed in", "user": 7}), 0, ""));
    assert_eq!(became(&Json::from(event).to_string()), Became::new(event, 0, ""));
}

#[test]
fn pythons_json_logger() {
    // The time of day has no zone, so it is not taken for one.
    reads(
        r#"{"asctime":"2024-05-15 23:59:20,159","levelname":"WARNING","name":"app","message":"late","exc_info":"Traceback (most recent call last):\n  x"}"#,
        &Became::new("late", 13, "WARNING").with(json!({
            "asctime": "2024-05-15 23:59:20,159", "name": "app",
            "exc_info": "Traceback (most recent call last):\n  x"})),
    );
}

#[test]
fn zap() {
    reads(
        r#"{"level":"error","ts":1715817560.159,"caller":"app/main.go:7","msg":"lost","error":"refused","stacktrace":"main.main\n\t/src/main.go:7"}"#,
        &Became::new("lost", 17, "error").at(1_715_817_560_159).with(json!({
            "caller": "app/main.go:7", "error": "refused", "stacktrace": "main.main\n\t/src/main.go:7"})),
    );
    // More digits than a time in microseconds has.
    reads(
        r#"{"level":"dpanic","ts":1715817560.1591234,"msg":"x"}"#,
        &Became::new("x", 21, "dpanic")
            .at(1_715_817_560_159)
            .with(serde_json::from_str(r#"{"ts":1715817560.1591234}"#).unwrap()),
    );
}

#[test]
fn zerolog_and_slog() {
    reads(
        r#"{"level":"debug","time":1715817560,"error":"refused","message":"again"}"#,
        &Became::new("again", 5, "debug").at(1_715_817_560_000).with(json!({"error": "refused"})),
    );
    reads(
        r#"{"time":"2024-05-15T23:59:20.159123456Z","level":"WARN","msg":"late","order":{"id":7}}"#,
        &Became::new("late", 13, "WARN").at(1_715_817_560_159).with(json!({"order": {"id": 7}})),
    );
}

#[test]
fn logbacks_logstash_encoder() {
    reads(
        &format!(
            r#"{{"@timestamp":"2024-05-16T01:59:20.159+02:00","@version":"1","message":"lost","logger_name":"c.e.App","thread_name":"main","level":"ERROR","level_value":40000,"stack_trace":"java.io.IOException: no\n\tat A.f(A.java:1)","AWSRequestId":"{REQUEST}"}}"#
        ),
        &Became::new("lost", 17, "ERROR").at(1_715_817_560_159).of_request().with(json!({
            "@version": "1", "logger_name": "c.e.App", "thread_name": "main", "level_value": 40000,
            "exception.stacktrace": "java.io.IOException: no\n\tat A.f(A.java:1)"})),
    );
}

#[test]
fn the_elastic_common_schema() {
    reads(
        &format!(
            r#"{{"@timestamp":"2024-05-15T23:59:20.159Z","log.level":"ERROR","message":"lost","trace.id":"{TRACE}","span.id":"35465b3a9e2f7c6a","error.type":"IOException","error.stack_trace":"x\n\tat y"}}"#
        ),
        &Became {
            span: Some("35465b3a9e2f7c6a".to_owned()),
            ..Became::new("lost", 17, "ERROR")
                .at(1_715_817_560_159)
                .of_trace()
                .with(json!({"error.type": "IOException", "exception.stacktrace": "x\n\tat y"}))
        },
    );
}

#[test]
fn serilogs_compact_format() {
    reads(
        r#"{"@t":"2024-05-15T23:59:20.1590000Z","@m":"Paid 7","@mt":"Paid {Order}","@l":"Warning","@x":"System.Exception: no\n   at A","Order":7}"#,
        &Became::new("Paid 7", 13, "Warning")
            .at(1_715_817_560_159)
            .with(json!({"@mt": "Paid {Order}", "@x": "System.Exception: no\n   at A", "Order": 7})),
    );
}

#[test]
fn rusts_tracing_subscriber() {
    reads(
        r#"{"timestamp":"2024-05-15T23:59:20.159000Z","level":"INFO","fields":{"message":"paid","order":7},"target":"app","span":{"name":"handle"},"spans":[{"name":"handle"}]}"#,
        &Became::new("paid", 9, "INFO").at(1_715_817_560_159).with(json!({
            "fields": {"order": 7}, "target": "app", "span": {"name": "handle"}, "spans": [{"name": "handle"}]})),
    );
    let span = json!({"name": "Lambda runtime invoke", "requestId": REQUEST,
        "xrayTraceId": "Root=1-6352a70e-1e2c502e358361800241fd45;Parent=35465b3a9e2f7c6a;Sampled=1"});
    reads(
        &format!(
            r#"{{"timestamp":"2024-05-15T23:59:20.159000Z","level":"INFO","fields":{{"message":"paid"}},"target":"app","span":{span}}}"#
        ),
        &Became::new("paid", 9, "INFO")
            .at(1_715_817_560_159)
            .of_request()
            .of_trace()
            .with(json!({"target": "app", "span": span})),
    );
}

#[test]
fn rusts_tracing_subscriber_lists_the_spans_around() {
    let spans = json!([{"name": "Lambda runtime invoke", "requestId": REQUEST,
        "xrayTraceId": "Root=1-6352a70e-1e2c502e358361800241fd45;Parent=35465b3a9e2f7c6a;Sampled=1"}, {"name": "pay"}]);
    reads(
        &format!(
            r#"{{"timestamp":"2024-05-15T23:59:20.159000Z","level":"INFO","fields":{{"message":"paid"}},"target":"app","span":{{"name":"pay"}},"spans":{spans}}}"#
        ),
        &Became::new("paid", 9, "INFO")
            .at(1_715_817_560_159)
            .of_request()
            .of_trace()
            .with(json!({"target": "app", "span": {"name": "pay"}, "spans": spans})),
    );
}

#[test]
fn the_diagnostic_contexts_of_logback_and_log4j() {
    let context = json!({"AWSRequestId": REQUEST, "trace_id": TRACE, "span_id": "35465b3a9e2f7c6a", "trace_flags": "01", "user": "7"});
    let traced = || Became {
        span: Some("35465b3a9e2f7c6a".to_owned()),
        ..Became::new("lost", 17, "ERROR").of_trace()
    };
    reads(
        &json!({"sequenceNumber": 0, "timestamp": 1_715_817_560_159_i64, "nanoseconds": 159_000_000, "level": "ERROR",
            "threadName": "main", "loggerName": "c.e.App", "mdc": context, "message": "lost"}).to_string(),
        &traced().at(1_715_817_560_159).of_request().with(json!({"sequenceNumber": 0, "nanoseconds": 159_000_000,
            "threadName": "main", "loggerName": "c.e.App", "mdc": context})),
    );
    reads(
        &json!({"instant": {"epochSecond": 1_715_817_560}, "level": "ERROR", "message": "lost", "contextMap": context})
            .to_string(),
        &traced().of_request().with(json!({"instant": {"epochSecond": 1_715_817_560}, "contextMap": context})),
    );
    // What the line says itself counts.
    reads(
        &json!({"message": "m", "requestId": REQUEST, "mdc": {"AWSRequestId": "79b5e81f-9cdd-4145-b1f6-7c50ef8a2a36"}}).to_string(),
        &Became::new("m", 0, "").of_request().with(json!({"mdc": {"AWSRequestId": "79b5e81f-9cdd-4145-b1f6-7c50ef8a2a36"}})),
    );
}

#[test]
fn opentelemetry_in_pythons_loggers() {
    reads(
        &json!({"levelname": "INFO", "message": "m", "otelTraceID": TRACE, "otelSpanID": "35465b3a9e2f7c6a", "otelServiceName": "s"})
            .to_string(),
        &Became { span: Some("35465b3a9e2f7c6a".to_owned()), ..Became::new("m", 9, "INFO").of_trace() }
            .with(json!({"otelServiceName": "s"})),
    );
    // Outside a span it writes zeros.
    let none = json!({"otelTraceID": "0", "otelSpanID": "0"});
    let mut line = none.clone();
    line["message"] = "m".into();
    reads(&line.to_string(), &Became::new("m", 0, "").with(none));
}

#[test]
fn a_time_that_is_not_near_the_events_is_of_something_else() {
    let minute = 60_000;
    for (ms, is_taken) in [
        (EVENT_MS - 15 * minute, true),
        (EVENT_MS + minute, true),
        (EVENT_MS - 17 * minute, false),
        (EVENT_MS + 2 * minute, false),
        (1_200_000_000_000, false),
        (1_900_000_000_000, false),
    ] {
        for name in ["time", "datetime", "timestamp", "ts"] {
            let expected = Became::new("due", 0, "");
            let expected = if is_taken { expected.at(ms) } else { expected.with(json!({name: ms})) };
            assert_eq!(became(&json!({"message": "due", name: ms}).to_string()), expected, "{name}");
        }
    }
    // One that is may stand behind one that is not.
    let line = json!({"message": "due", "timestamp": "2030-01-01T00:00:00Z", "ts": EVENT_MS - 1});
    assert_eq!(
        became(&line.to_string()),
        Became::new("due", 0, "").at(EVENT_MS - 1).with(json!({"timestamp": "2030-01-01T00:00:00Z"}))
    );
}

#[test]
fn traces_of_other_tools() {
    // A trace id of 64 bits, in decimal, is none of OpenTelemetry's.
    let ids = json!({"dd.trace_id": "5678901234567890123", "dd.span_id": "7", "dd": {"trace_id": "5678901234567890123"}});
    let mut line = ids.clone();
    line["message"] = "m".into();
    reads(&line.to_string(), &Became::new("m", 0, "").with(ids));
    let header = "Root=1-6352a70e-1e2c502e358361800241fd45;Parent=35465b3a9e2f7c6a;Sampled=1";
    reads(
        &json!({"message": "m", "X-Amzn-Trace-Id": header}).to_string(),
        &Became::new("m", 0, "").of_trace().with(json!({"X-Amzn-Trace-Id": header})),
    );
    reads(
        &json!({"message": "m", "traceparent": format!("00-{TRACE}-35465b3a9e2f7c6a-01")}).to_string(),
        &Became { span: Some("35465b3a9e2f7c6a".to_owned()), ..Became::new("m", 0, "").of_trace() },
    );
}

#[test]
fn an_exception_is_renamed_only_where_that_loses_nothing() {
    for fields in [
        json!({"error": "refused"}),
        json!({"error": {"code": 7}}),
        json!({"err": {"type": "E", "message": "no"}}),
        json!({"err": {"stack": 7, "message": "no"}}),
        json!({"exception": "one line"}),
        json!({"exception_name": "E"}),
        json!({"errorType": "E"}),
        json!({"stack_trace": "one line"}),
        json!({"stackTrace": []}),
        json!({"stackTrace": ["a", 7]}),
        json!({"exception.type": "E", "err": {"stack": "a\nb"}}),
        json!({"exception.escaped": true, "stack": "a\nb"}),
    ] {
        let mut line = fields.clone();
        line["message"] = "m".into();
        reads(&line.to_string(), &Became::new("m", 0, "").with(fields));
    }
    // Two of them: the second stays where it is.
    reads(
        r#"{"message":"m","err":{"stack":"a\nb","name":"A"},"error":{"stack":"c\nd","name":"C","message":"c"},"stack":"e\nf"}"#,
        &Became::new("m", 0, "").with(json!({
            "exception.stacktrace": "a\nb", "exception.type": "A", "exception.message": "c",
            "error": {"stack": "c\nd", "name": "C"}, "stack": "e\nf"})),
    );
}

#[test]
fn a_json_line_without_a_message_stays_text_and_is_understood() {
    let line = format!(r#"{{"level":"warn",  "time":1715817560159,"requestId":"{REQUEST}","n":1.50}}"#);
    let expected = Became::new(line.as_str(), 13, "warn").at(1_715_817_560_159).of_request();
    assert_eq!(became(&Json::from(format!("{line}\n")).to_string()), expected);
}
