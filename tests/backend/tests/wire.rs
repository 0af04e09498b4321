//! Every behaviour of the backend, seen from the other end of a TCP connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "a client on the network keeps its own time")]

mod support;

use std::{
    io::ErrorKind,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
        metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use outlast_backend::{
    Answer, Backend, Behaviour, Condition, Decode, Door, Fate, Keep, Reset, Signal, Verdict,
};
use prost::Message;
use support::{Client, PATIENCE, attribute, gzip, head, logs, string};
use tokio::{io::AsyncWriteExt, net::TcpStream};

async fn backend() -> (Backend, Client) {
    let backend = Backend::start().await.unwrap();
    let client = Client::connect(backend.address()).await;
    (backend, client)
}

/// The verdicts so far.
fn verdicts(backend: &Backend) -> Vec<Verdict> {
    backend.received(|received| received.requests().iter().map(|request| request.verdict.clone()).collect())
}

async fn settled(backend: &Backend, verdict: Verdict) {
    let all_are = |verdicts: &[outlast_backend::Request]| {
        !verdicts.is_empty() && verdicts.iter().all(|request| request.verdict == verdict)
    };
    backend.wait_for(|received| all_are(received.requests()), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_healthy_backend_keeps_every_field_of_a_log_record() {
    let (backend, mut client) = backend().await;
    let plain = logs(&["one", "two"]);
    let reply = client.exchange(&gzip(&plain), Some("gzip")).await;
    assert_eq!(reply.status, 200);
    assert!(ExportLogsServiceResponse::decode(&*reply.body).unwrap().partial_success.is_none());

    let record = &backend.records()[1];
    assert_eq!((record.text.as_str(), record.uid.as_deref()), ("two", Some("uid-1")));
    assert_eq!(record.attribute("service.name").unwrap(), "shop");
    assert_eq!((record.severity_number, record.severity_text.as_str()), (9, "INFO"));
    assert_eq!(record.time_unix_nano, 1_700_000_000_000_000_001);
    assert_eq!(record.other_time_unix_nano, 1_700_000_001_000_000_000);
    assert_eq!((&*record.scope, record.span_id.as_str()), ("test", "cdcdcdcdcdcdcdcd"));

    let request = &backend.requests()[0];
    assert_eq!((request.verdict.clone(), request.kept, request.records), (Verdict::Accepted, true, 2));
    assert_eq!((request.encoding(), request.plain_bytes), ("gzip", plain.len()));
    assert_eq!(request.header("host"), Some("backend"));
}

#[tokio::test]
async fn structured_bodies_become_json() {
    let (backend, mut client) = backend().await;
    let body = AnyValue {
        value: Some(any_value::Value::KvlistValue(KeyValueList {
            values: vec![
                attribute("n", AnyValue { value: Some(any_value::Value::IntValue(7)) }),
                attribute("bytes", AnyValue { value: Some(any_value::Value::BytesValue(vec![1, 255])) }),
                attribute("nan", AnyValue { value: Some(any_value::Value::DoubleValue(f64::NAN)) }),
            ],
        })),
    };
    let log_records = vec![LogRecord { body: Some(body), ..LogRecord::default() }];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    client.exchange(&ExportLogsServiceRequest { resource_logs }.encode_to_vec(), None).await;
    let record = &backend.records()[0];
    assert_eq!(record.body, serde_json::json!({"n": 7, "bytes": "01ff", "nan": "NaN"}));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&record.text).unwrap(), record.body);
}

#[tokio::test]
async fn metrics_and_spans_are_taken_on_their_own_paths() {
    let (backend, mut client) = backend().await;
    let point = NumberDataPoint {
        value: Some(number_data_point::Value::AsDouble(1.5)),
        time_unix_nano: 5,
        attributes: vec![attribute("faas.name", string("f"))],
        ..NumberDataPoint::default()
    };
    let data = Some(metric::Data::Gauge(Gauge { data_points: vec![point.clone(), point] }));
    let metrics = vec![Metric { name: "faas.mem".to_owned(), data, ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    let body = ExportMetricsServiceRequest { resource_metrics }.encode_to_vec();
    client.send_to("/v1/metrics", &body, None).await;
    assert_eq!(client.reply().await.unwrap().status, 200);

    let span = Span { name: "invoke".to_owned(), end_time_unix_nano: 9, ..Span::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }];
    let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    client.send_to("/v1/traces", &gzip(&body), Some("gzip")).await;
    assert_eq!(client.reply().await.unwrap().status, 200);

    backend.received(|received| {
        assert_eq!((received.count(Signal::Metrics), received.count(Signal::Traces)), (2, 1));
        let [point, _, span] = received.records() else { panic!("{}", received.summary()) };
        assert_eq!((point.text.as_str(), &point.body["value"]), ("faas.mem", &serde_json::json!(1.5)));
        assert_eq!((span.text.as_str(), span.time_unix_nano), ("invoke", 9));
        assert!(received.texts().is_empty(), "texts are those of logs");
    });
}

#[tokio::test]
async fn a_chunked_body_is_read() {
    let (backend, mut client) = backend().await;
    let body = logs(&["chunked"]);
    let (first, second) = body.split_at(10);
    let mut request = b"POST /v1/logs HTTP/1.1\r\ncontent-type: application/x-protobuf\r\n\
        transfer-encoding: chunked\r\n\r\n"
        .to_vec();
    for chunk in [first, second, b""] {
        request.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    client.stream.write_all(&request).await.unwrap();
    assert_eq!(client.reply().await.unwrap().status, 200);
    assert_eq!(backend.texts(), ["chunked"]);
}

#[tokio::test]
async fn what_is_not_otlp_is_turned_away_with_its_defect() {
    let (backend, mut client) = backend().await;
    client.send_to("/v1/nonsense", b"", None).await;
    assert_eq!(client.reply().await.unwrap().status, 404);
    assert_eq!(client.exchange(&logs(&["x"]), Some("br")).await.status, 415);
    assert_eq!(client.exchange(b"not protobuf", None).await.status, 400);
    let mut two_members = gzip(&logs(&["x"]));
    two_members.extend(gzip(&[]));
    assert_eq!(client.exchange(&two_members, Some("gzip")).await.status, 400);
    assert_eq!(client.exchange(&logs(&["good"]), None).await.status, 200);

    assert_eq!(backend.texts(), ["good"]);
    let defects = backend.received(|received| received.defects().join("\n"));
    for part in ["no such path", "content encoding br", "not an OTLP logs request", "a second gzip member"] {
        assert!(defects.contains(part), "{part} in {defects}");
    }
}

#[tokio::test]
async fn queued_answers_come_once_each_and_then_the_default() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::status(500));
    backend.next(Behaviour::answer(Answer::new(503).retry_after_seconds(7)));
    let date = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    backend.next(Behaviour::answer(Answer::new(429).retry_after_date(date)));
    backend.next(Behaviour::answer(Answer::new(503).retry_after("soon").body("text/plain", "busy")));
    let body = logs(&["x"]);

    let reply = client.exchange(&body, None).await;
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("7")));
    let reply = client.exchange(&body, None).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("Sun, 09 Sep 2001 01:46:40 GMT")));
    let reply = client.exchange(&body, None).await;
    assert_eq!((reply.header("retry-after"), &*reply.body), (Some("soon"), &b"busy"[..]));
    assert_eq!(backend.queued(), 0);
    assert_eq!(client.exchange(&body, None).await.status, 500);
    backend.behave(Behaviour::healthy());
    assert_eq!(client.exchange(&body, None).await.status, 200);

    assert_eq!(backend.texts().len(), 1, "refused records are not kept");
    assert_eq!(backend.received(outlast_backend::Received::connections), 1);
    assert_eq!(verdicts(&backend)[..2], [Verdict::Status(503), Verdict::Status(429)]);
}

#[tokio::test]
async fn a_behaviour_for_one_signal_leaves_the_others_alone() {
    let (backend, mut client) = backend().await;
    backend.next_of(Signal::Traces, Behaviour::status(503));
    assert_eq!(client.exchange(&logs(&["x"]), None).await.status, 200);
    client.send_to("/v1/traces", b"", None).await;
    assert_eq!(client.reply().await.unwrap().status, 503);
}

#[tokio::test]
async fn size_limits_count_wire_bytes_or_plain_bytes() {
    let (backend, mut client) = backend().await;
    let plain = logs(&["padding ".repeat(500).as_str()]);
    let wire = gzip(&plain);
    assert!(wire.len() < 1000 && plain.len() > 4000);
    backend.behave(Behaviour::too_large_above_wire(1000));
    assert_eq!(client.exchange(&wire, Some("gzip")).await.status, 200);
    assert_eq!(client.exchange(&plain, None).await.status, 413);
    backend.behave(Behaviour::too_large_above_plain(4000));
    assert_eq!(client.exchange(&wire, Some("gzip")).await.status, 413);
    assert_eq!(client.exchange(&logs(&["small"]), None).await.status, 200);
}

#[tokio::test]
async fn poison_refuses_the_whole_request() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::poisoned_by(|record| record.text == "poison"));
    assert_eq!(client.exchange(&gzip(&logs(&["a", "poison", "b"])), Some("gzip")).await.status, 400);
    assert_eq!(client.exchange(&logs(&["a", "b"]), None).await.status, 200);
    assert_eq!(backend.texts(), ["a", "b"]);
    assert!(backend.received(|received| received.defects().is_empty()));
}

#[tokio::test]
async fn conditions_chain() {
    let (backend, mut client) = backend().await;
    backend.behave(
        Behaviour::no_gzip()
            .otherwise(Behaviour::status(503).when(Condition::RecordsAbove(1)))
            .otherwise(Behaviour::status(500).when(Condition::ReusedConnection)),
    );
    let one = logs(&["one"]);
    assert_eq!(client.exchange(&one, None).await.status, 200);
    assert_eq!(client.exchange(&gzip(&one), Some("gzip")).await.status, 415);
    assert_eq!(client.exchange(&logs(&["1", "2"]), None).await.status, 503);
    assert_eq!(client.exchange(&one, None).await.status, 500);
}

#[tokio::test]
async fn a_partial_success_says_so_and_keeps_the_rest() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::partial(2, "two too old"));
    let reply = client.exchange(&logs(&["a", "b", "c"]), None).await;
    let answer = ExportLogsServiceResponse::decode(&*reply.body).unwrap().partial_success.unwrap();
    assert_eq!((answer.rejected_log_records, answer.error_message.as_str()), (2, "two too old"));
    assert_eq!(backend.texts(), ["a"]);
    assert_eq!(verdicts(&backend), [Verdict::Partial { rejected: 2 }]);
}

#[tokio::test]
async fn a_hung_request_is_read_and_never_answered() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::hang());
    client.send(&logs(&["lost"]), None).await;
    settled(&backend, Verdict::Hung).await;
    assert_eq!(backend.open_connections(), 1);
    assert_eq!(backend.cut_idle().await, 0, "a connection with a request under way is not idle");
    assert_eq!(backend.cut_all().await, 1);
    assert_eq!(client.ends().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(verdicts(&backend), [Verdict::Hung]);
    assert!(backend.texts().is_empty());
}

#[tokio::test]
async fn a_hung_request_can_have_been_kept() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::Hang(Fate::Kept));
    client.send(&logs(&["kept"]), None).await;
    settled(&backend, Verdict::Hung).await;
    drop(client);
    backend.wait_for(|_| backend.open_connections() == 0, PATIENCE).await.unwrap();
    assert_eq!(backend.texts(), ["kept"]);
}

#[tokio::test]
async fn a_reset_before_the_body_leaves_it_unread() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::Reset(Reset::BeforeBody));
    client.stream.write_all(head("/v1/logs", 1000, None).as_bytes()).await.unwrap();
    assert_eq!(client.ends().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(verdicts(&backend), [Verdict::Reset]);
    assert_eq!(backend.requests()[0].wire_bytes, 0);
}

#[tokio::test]
async fn a_reset_in_the_middle_comes_after_as_many_bytes_as_it_says() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::Reset(Reset::AfterBytes(50)));
    client.stream.write_all(head("/v1/logs", 1000, None).as_bytes()).await.unwrap();
    client.stream.write_all(&[0; 49]).await.unwrap();
    backend.wait_for(|received| received.requests().len() == 1, PATIENCE).await.unwrap();
    assert_eq!(verdicts(&backend), [Verdict::Pending]);
    client.stream.write_all(&[0; 1]).await.unwrap();
    assert_eq!(client.ends().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_after_the_body_leaves_its_fate_unknown() {
    for (fate, kept) in [(Fate::Kept, 1), (Fate::Lost, 0)] {
        let (backend, mut client) = backend().await;
        backend.behave(Behaviour::Reset(Reset::AfterBody(fate)));
        client.send(&logs(&["x"]), None).await;
        assert_eq!(client.ends().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!((verdicts(&backend), backend.texts().len()), (vec![Verdict::Reset], kept));
    }
}

#[tokio::test]
async fn an_early_answer_comes_before_the_body() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::AnswerEarly(Answer::new(413)));
    client.stream.write_all(head("/v1/logs", 1000, None).as_bytes()).await.unwrap();
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.header("connection")), (413, Some("close")));
    client.stream.write_all(&[0; 1000]).await.unwrap();
    assert_eq!(client.ends().await.unwrap(), 0, "FIN, not RST: the rest of the body was read");
    assert_eq!(verdicts(&backend), [Verdict::Status(413)]);
}

#[tokio::test]
async fn a_delayed_answer_is_given_up_when_the_sender_leaves() {
    let (backend, mut client) = backend().await;
    backend.next(Behaviour::healthy().after(Duration::from_secs(1_000)));
    client.send(&logs(&["left"]), None).await;
    backend.wait_for(|received| received.requests().len() == 1, PATIENCE).await.unwrap();
    drop(client);
    settled(&backend, Verdict::Abandoned).await;

    backend.next(Behaviour::healthy().after(Duration::from_millis(1)));
    let mut client = Client::connect(backend.address()).await;
    assert_eq!(client.exchange(&logs(&["stayed"]), None).await.status, 200);
    assert_eq!(backend.texts(), ["stayed"]);
}

#[tokio::test]
async fn a_held_answer_waits_for_its_release() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::healthy().held());
    client.send(&logs(&["held"]), None).await;
    backend.wait_for(|received| received.requests().len() == 1, PATIENCE).await.unwrap();
    assert!(backend.texts().is_empty());
    backend.release();
    assert_eq!(client.reply().await.unwrap().status, 200);
    assert_eq!(backend.texts(), ["held"]);
}

#[tokio::test]
async fn a_trickled_answer_arrives_in_pieces() {
    let (backend, mut client) = backend().await;
    backend.behave(Behaviour::status(503).trickled(Duration::from_micros(100)));
    client.send(&logs(&["x"]), None).await;
    let mut first = [0; 1000];
    let read = tokio::io::AsyncReadExt::read(&mut client.stream, &mut first).await.unwrap();
    assert!(read < 20, "{read} bytes at once");
    settled(&backend, Verdict::Status(503)).await;
    assert!(first.starts_with(b"HTTP/1.1 503"[..read.min(12)].as_ref()));
}

#[tokio::test]
async fn flakiness_repeats_itself_for_a_seed() {
    let mut runs = Vec::new();
    for seed in [5, 5, 6] {
        let (backend, mut client) = backend().await;
        backend.behave(Behaviour::status(503).flaky(0.5, seed));
        let mut statuses = Vec::new();
        for _ in 0..40 {
            statuses.push(client.exchange(&logs(&["x"]), None).await.status);
        }
        assert!(statuses.contains(&200) && statuses.contains(&503));
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    assert_ne!(runs[0], runs[2]);
}

#[tokio::test]
async fn redirects_and_garbage_are_sent_as_scripted() {
    let (backend, mut client) = backend().await;
    backend.next(Behaviour::redirect(307, "http://elsewhere/v1/logs"));
    backend.next(Behaviour::garbage("<html>captive portal</html>"));
    let reply = client.exchange(&logs(&["x"]), None).await;
    assert_eq!((reply.status, reply.header("location")), (307, Some("http://elsewhere/v1/logs")));
    let reply = client.exchange(&logs(&["y"]), None).await;
    assert_eq!((reply.status, &*reply.body), (200, &b"<html>captive portal</html>"[..]));
    assert_eq!(backend.texts(), ["y"]);
}

#[tokio::test]
async fn a_refused_port_comes_back_as_the_same_port() {
    let (backend, mut client) = backend().await;
    client.exchange(&logs(&["before"]), None).await;
    backend.set_door(Door::Refused).await.unwrap();
    assert_eq!(client.ends().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    for _ in 0..3 {
        let error = TcpStream::connect(backend.address()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    backend.behave(Behaviour::status(503));
    backend.recover().await.unwrap();
    let mut client = Client::connect(backend.address()).await;
    assert_eq!(client.exchange(&logs(&["after"]), None).await.status, 200);
    assert_eq!(backend.texts(), ["before", "after"]);
}

#[tokio::test]
async fn connections_that_are_not_accepted_wait_for_the_door_to_open() {
    let (backend, mut old) = backend().await;
    old.exchange(&logs(&["old"]), None).await;
    backend.set_door(Door::Unaccepted).await.unwrap();
    let mut waiting = Client::connect(backend.address()).await;
    waiting.send(&logs(&["waiting"]), None).await;
    old.exchange(&logs(&["still"]), None).await;
    assert_eq!(backend.texts(), ["old", "still"]);
    backend.set_door(Door::Open).await.unwrap();
    assert_eq!(waiting.reply().await.unwrap().status, 200);
    assert_eq!(backend.texts(), ["old", "still", "waiting"]);
}

#[tokio::test]
async fn an_unreachable_port_lets_no_connection_complete() {
    let (backend, client) = backend().await;
    drop(client);
    backend.set_door(Door::Unreachable).await.unwrap();
    let stuck = tokio::spawn(TcpStream::connect(backend.address()));
    // The kernel tries again after a second; until then nothing can complete on loopback but at once.
    let mut stuck = Box::pin(tokio::time::timeout(Duration::from_millis(100), stuck));
    assert!(stuck.as_mut().await.is_err(), "the connection completed");
    backend.set_door(Door::Open).await.unwrap();
    let mut client = Client::connect(backend.address()).await;
    assert_eq!(client.exchange(&logs(&["x"]), None).await.status, 200);
}

#[tokio::test]
async fn idle_connections_are_cut_and_busy_ones_are_not() {
    let (backend, mut idle) = backend().await;
    idle.exchange(&logs(&["idle"]), None).await;
    backend.behave(Behaviour::healthy().held());
    let mut busy = Client::connect(backend.address()).await;
    busy.send(&logs(&["busy"]), None).await;
    backend.wait_for(|received| received.requests().len() == 2, PATIENCE).await.unwrap();
    // The answer may have been read before the connection was listed as idle again.
    let mut cut = backend.cut_idle().await;
    while cut == 0 {
        tokio::task::yield_now().await;
        cut = backend.cut_idle().await;
    }
    assert_eq!(cut, 1);
    assert_eq!(idle.ends().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    backend.release();
    assert_eq!(busy.reply().await.unwrap().status, 200);
}

#[tokio::test]
async fn a_sender_that_stops_in_the_middle_is_seen_as_such() {
    let (backend, mut client) = backend().await;
    client.stream.write_all(head("/v1/logs", 1000, None).as_bytes()).await.unwrap();
    client.stream.write_all(&[0; 10]).await.unwrap();
    drop(client);
    settled(&backend, Verdict::Abandoned).await;
}

#[tokio::test]
async fn a_wait_that_fails_says_what_had_arrived() {
    let (backend, mut client) = backend().await;
    client.exchange(&logs(&["x"]), None).await;
    let error = backend.wait_for(|received| received.count(Signal::Logs) == 2, Duration::ZERO).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("1 logs") && text.contains("Accepted 1"), "{text}");
}

#[tokio::test]
async fn bodies_can_be_decoded_after_their_answer_in_order() {
    let backend = Backend::builder().decode(Decode::AfterAnswer).keep(Keep::Texts).start().unwrap();
    let mut client = Client::connect(backend.address()).await;
    let lines: Vec<String> = (0..3000).map(|n| format!("line {n} {}", "x".repeat(50))).collect();
    for chunk in lines.chunks(500) {
        let texts: Vec<&str> = chunk.iter().map(String::as_str).collect();
        assert_eq!(client.exchange(&gzip(&logs(&texts)), Some("gzip")).await.status, 200);
    }
    assert_eq!(client.exchange(b"nonsense", None).await.status, 200, "nothing was looked at yet");
    backend.wait_for(|received| received.undecoded() == 0, PATIENCE).await.unwrap();
    assert_eq!(backend.texts(), lines);
    backend.received(|received| {
        assert!(received.missing(&lines).is_empty());
        assert!(received.misordered(&lines).is_empty());
        assert!(received.records()[0].attributes.is_empty(), "only texts are kept");
        assert_eq!(received.defects().len(), 1);
    });
}

#[tokio::test]
async fn counts_alone_take_no_memory_for_records() {
    let backend = Backend::builder().keep(Keep::Counts).start().unwrap();
    let mut client = Client::connect(backend.address()).await;
    client.exchange(&logs(&["a", "b"]), None).await;
    assert!(backend.records().is_empty());
    assert_eq!(backend.received(|received| received.count(Signal::Logs)), 2);
}

#[tokio::test]
async fn dropping_the_last_handle_ends_its_connections() {
    let (backend, mut client) = backend().await;
    client.exchange(&logs(&["x"]), None).await;
    let address = backend.address();
    let other = backend.clone();
    drop(backend);
    client.exchange(&logs(&["still there"]), None).await;
    drop(other);
    assert!(matches!(client.ends().await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).await.is_err());
}
