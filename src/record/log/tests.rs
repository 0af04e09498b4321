use super::*;

const ID: &str = "4b142fc3-17b8-4cdb-a46b-a8dbe7918715";
const OTHER_ID: &str = "8c181f94-0f1e-4cdb-a46b-a8dbe7918715";
const TIME: u64 = 1_791_444_627_768_000_000;
const OBSERVED: u64 = TIME + 5_000_000;
const CONTEXT: Context<'static> = Context { request_id: Some(ID) };

fn log(raw: &[u8]) -> LogRecord<'_> {
    LogRecord::from_event(&Event::parse(raw), &CONTEXT, OBSERVED, "uid-1")
}

fn logged(kind: &str, record: &str) -> LogRecord<'static> {
    log(format!(r#"{{"time":"2026-10-08T07:30:27.768Z","type":"{kind}","record":{record}}}"#)
        .leak()
        .as_bytes())
}

fn string(text: &str) -> Value<'_> {
    Value::Str(text.into())
}

fn attribute<'r>(record: &'r LogRecord<'_>, name: &str) -> Option<&'r Value<'r>> {
    record.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The attributes after our own.
fn rest<'r, 'a>(record: &'r LogRecord<'a>) -> &'r [Field<'a>] {
    let own = [UID, INVOCATION_ID, TELEMETRY_TYPE];
    let count = record.attributes.iter().take_while(|(name, _)| own.contains(&name.as_ref())).count();
    &record.attributes[count..]
}

#[test]
fn a_line_is_its_text_without_the_newline() {
    let record = logged("function", r#""A basic message to STDOUT\n""#);
    assert_eq!(record.body, string("A basic message to STDOUT"));
    assert_eq!((record.time_unix_nanos, record.observed_unix_nanos), (TIME, OBSERVED));
    assert_eq!(record.severity, Severity::UNKNOWN);
    assert_eq!(record.event_name, None);
    assert_eq!(
        record.attributes,
        [
            (UID.into(), string("uid-1")),
            (INVOCATION_ID.into(), string(ID)),
            (TELEMETRY_TYPE.into(), string("function")),
        ]
    );
    for (json, body) in
        [(r#""a\r\n""#, "a"), (r#""a\n\n""#, "a\n"), (r#""\n""#, ""), (r#""""#, ""), (r#""a\r""#, "a\r")]
    {
        assert_eq!(logged("extension", json).body, string(body));
    }
}

#[test]
fn a_line_that_names_its_request_and_level_is_believed() {
    let line = format!(r#""2026-10-08T07:30:27.767Z\t{OTHER_ID}\tWARN\tlow\n""#);
    let record = logged("function", &line);
    assert_eq!(record.severity, Severity { number: 13, text: "WARN".into() });
    assert_eq!(attribute(&record, INVOCATION_ID), Some(&string(OTHER_ID)));
    assert_eq!(record.body, string(&format!("2026-10-08T07:30:27.767Z\t{OTHER_ID}\tWARN\tlow")));
}

#[test]
fn json_text_inside_a_line_stays_text() {
    let record = logged("function", r#""{\"level\":\"info\",\"msg\":\"x\"}\n""#);
    assert_eq!(record.body, string(r#"{"level":"info","msg":"x"}"#));
    assert_eq!(record.severity, Severity::UNKNOWN);
}

#[test]
fn an_objects_well_known_fields_go_to_their_places() {
    let record = logged(
        "function",
        &format!(
            r#"{{"timestamp":"2026-10-08T07:30:27.700Z","level":"ERROR","requestId":"{OTHER_ID}","message":"no\n",
            "traceId":"6352a70e1e2c502e358361800241fd45","spanId":"35465b3a9e2f7c6a","traceFlags":"01",
            "order":{{"id":[1,2.5,null]}},"tenantId":"blue"}}"#
        ),
    );
    assert_eq!(record.body, string("no"));
    assert_eq!(record.time_unix_nanos, TIME - 68_000_000);
    assert_eq!(record.severity, Severity { number: 17, text: "ERROR".into() });
    assert_eq!(attribute(&record, INVOCATION_ID), Some(&string(OTHER_ID)));
    assert_eq!(record.trace_id.map(u128::from_be_bytes), Some(0x6352_a70e_1e2c_502e_3583_6180_0241_fd45));
    assert_eq!(record.span_id.map(u64::from_be_bytes), Some(0x3546_5b3a_9e2f_7c6a));
    assert_eq!(record.trace_flags, 1);
    let id = Value::Array(vec![Value::Int(1), Value::Double(2.5), Value::Empty]);
    assert_eq!(
        rest(&record),
        [("order".into(), Value::Map(vec![("id".into(), id)])), ("tenantId".into(), string("blue"))]
    );
}

#[test]
fn a_field_that_cannot_be_read_as_what_it_should_be_stays_an_attribute() {
    let fields = r#""timestamp":"yesterday","level":"so-so","requestId":"http-7","traceId":"xyz","spanId":7,"traceFlags":"zz""#;
    let record = logged("function", &format!(r#"{{"message":"m",{fields}}}"#));
    assert_eq!(record.time_unix_nanos, TIME);
    assert_eq!(record.severity, Severity::UNKNOWN);
    assert_eq!((record.trace_id, record.span_id, record.trace_flags), (None, None, 0));
    assert_eq!(attribute(&record, INVOCATION_ID), Some(&string(ID)));
    let expected = format!("{{{fields}}}");
    let Some(Value::Map(expected)) = Value::parse(expected.as_bytes()) else { panic!("an object") };
    assert_eq!(rest(&record), expected);
}

#[test]
fn the_second_name_for_a_thing_counts_only_if_the_first_does_not() {
    let record = logged(
        "function",
        r#"{"msg":"b","message":"a","time":1791444627000,"timestamp":"?","severity":"warn","level":"info"}"#,
    );
    assert_eq!(record.body, string("a"));
    assert_eq!(record.time_unix_nanos, 1_791_444_627_000_000_000);
    assert_eq!(record.severity.text, "info");
    let names: Vec<_> = rest(&record).iter().map(|(name, _)| name.as_ref()).collect();
    assert_eq!(names, ["msg", "timestamp", "severity"]);
    let record = logged("function", r#"{"message":null,"msg":{"a":1}}"#);
    assert_eq!(record.body, Value::Map(vec![("a".into(), Value::Int(1))]));
    assert_eq!(rest(&record), [("message".into(), Value::Empty)]);
}

#[test]
fn an_object_without_a_message_is_its_own_body() {
    let object = r#"{"time":"2026-10-08T07:30:27.700Z","level":"warn","data":{"n":0.019234}}"#;
    let record = logged("function", object);
    assert_eq!(Some(record.body.clone()), Value::parse(object.as_bytes()));
    assert_eq!((record.time_unix_nanos, record.severity.number), (TIME - 68_000_000, 13));
    assert_eq!(rest(&record), []);
}

#[test]
fn pino_levels_are_read_and_other_numbers_are_not() {
    let record = logged("function", r#"{"level":50,"time":1791444627700,"pid":8,"hostname":"h","msg":"m"}"#);
    assert_eq!(record.severity, Severity { number: 17, text: "ERROR".into() });
    assert_eq!(attribute(&record, "level"), Some(&Value::Int(50)));
    assert_eq!(logged("function", r#"{"level":30,"message":"from Python"}"#).severity, Severity::UNKNOWN);
}

#[test]
fn our_attributes_keep_their_names_and_the_records_keep_their_values() {
    let record = logged("function", r#"{"message":"m","log.record.uid":"theirs","faas.invocation_id":7}"#);
    assert_eq!(attribute(&record, UID), Some(&string("uid-1")));
    assert_eq!(attribute(&record, INVOCATION_ID), Some(&string(ID)));
    assert_eq!(attribute(&record, "log.record.uid.2"), Some(&string("theirs")));
    assert_eq!(attribute(&record, "faas.invocation_id.2"), Some(&Value::Int(7)));
}

#[test]
fn envelope_fields_nobody_knows_become_attributes() {
    let record = log(br#"{"time":"12:00","type":"function","record":{"message":"m","seq":1},"seq":{"n":2}}"#);
    assert_eq!(record.time_unix_nanos, OBSERVED);
    assert_eq!(
        rest(&record),
        [
            ("seq".into(), Value::Int(1)),
            ("time".into(), string("12:00")),
            ("seq.2".into(), Value::Map(vec![("n".into(), Value::Int(2))])),
        ]
    );
}

#[test]
fn a_platform_event_is_named_by_its_type_and_keeps_its_record() {
    let json = format!(
        r#"{{"requestId":"{OTHER_ID}","status":"success","tracing":{{"spanId":"24cd7d670fa455f0","type":"X-Amzn-Trace-Id","value":"Root=1-6352a70e-1e2c502e358361800241fd45;Parent=35465b3a9e2f7c6a;Sampled=1"}}}}"#
    );
    let record = logged("platform.runtimeDone", &json);
    assert_eq!(record.event_name.as_deref(), Some("platform.runtimeDone"));
    assert_eq!(Some(record.body.clone()), Value::parse(json.as_bytes()));
    assert_eq!(record.severity.text, "INFO");
    assert_eq!(attribute(&record, INVOCATION_ID), Some(&string(OTHER_ID)));
    assert_eq!(attribute(&record, TELEMETRY_TYPE), Some(&string("platform.runtimeDone")));
    assert_eq!(record.trace_id.map(u128::from_be_bytes), Some(0x6352_a70e_1e2c_502e_3583_6180_0241_fd45));
    assert_eq!(record.span_id.map(u64::from_be_bytes), Some(0x24cd_7d67_0fa4_55f0));
    assert_eq!(record.trace_flags, 1);
}

#[test]
fn platform_events_are_as_grave_as_their_outcome() {
    for (kind, json, text) in [
        ("platform.runtimeDone", r#"{"status":"success"}"#, "INFO"),
        ("platform.runtimeDone", r#"{"status":"timeout"}"#, "ERROR"),
        ("platform.restoreReport", r#"{"status":"failure"}"#, "ERROR"),
        ("platform.report", r#"{"status":"error"}"#, "ERROR"),
        ("platform.report", r#""REPORT RequestId: x\tStatus: timeout""#, "ERROR"),
        ("platform.extension", r#"{"errorType":"Extension.FooBar"}"#, "ERROR"),
        ("platform.fault", r#""RequestId: x Process exited""#, "ERROR"),
        ("platform.logsDropped", r#"{"droppedRecords":1}"#, "WARN"),
        ("platform.novelty", r#"{"status":"cosmic"}"#, "INFO"),
        ("novelty", "[1]", "INFO"),
    ] {
        assert_eq!(logged(kind, json).severity.text, text, "{kind} {json}");
    }
}

#[test]
fn a_platform_event_without_a_request_does_not_borrow_the_running_one() {
    assert_eq!(attribute(&logged("platform.initReport", "{}"), INVOCATION_ID), None);
    assert_eq!(attribute(&logged("extension", "\"x\""), INVOCATION_ID), Some(&string(ID)));
}

#[test]
fn what_cannot_be_read_is_kept_as_text_and_marked() {
    let record = log(b"{\"type\":\"function\",\"record\":{\"a\":\xff}}");
    assert_eq!(record.body, string("{\"a\":\u{fffd}}"));
    assert_eq!(attribute(&record, UNPARSED), Some(&Value::Bool(true)));
    assert_eq!(attribute(&record, TELEMETRY_TYPE), Some(&string("function")));
    let odd = log(b"[1]");
    assert_eq!((odd.body.clone(), odd.time_unix_nanos), (string("[1]"), OBSERVED));
    assert_eq!(attribute(&odd, UNPARSED), Some(&Value::Bool(true)));
    assert_eq!(attribute(&odd, TELEMETRY_TYPE), None);
}

#[test]
fn half_a_record_is_kept_as_text_and_marked() {
    let raw = br#"{"time":"2026-10-08T07:30:27.768Z","type":"function","record":{"message":"AA"#;
    let record = LogRecord::from_event(&Event::cut(raw), &Context::default(), OBSERVED, "uid-1");
    assert_eq!(record.body, string(std::str::from_utf8(raw).unwrap()));
    assert_eq!(record.time_unix_nanos, TIME);
    assert_eq!(rest(&record), [(CUT.into(), Value::Bool(true))]);
    assert_eq!(attribute(&record, UNPARSED), None);
}

#[test]
fn text_without_escapes_is_not_copied() {
    let raw =
        br#"{"time":"2026-10-08T07:30:27.768Z","type":"function","record":{"message":"plain","k":"v"}}"#;
    let record = log(raw);
    let inside = |text: &str| raw.as_ptr_range().contains(&text.as_ptr());
    assert!(record.body.as_str().is_some_and(inside));
    assert!(attribute(&record, "k").and_then(Value::as_str).is_some_and(inside));
}
