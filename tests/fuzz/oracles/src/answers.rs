//! What peers answer: a backend to a request, Lambda to `next`. Words are cut to a line, counts are those that another
//! decoder reads, and no body is a panic.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use outlast::deliver::{MESSAGE_MAX_CHARS, Verdict, verdict};
use outlast::lambda::LambdaEvent;
use outlast::lambda::fuzzing::parse_event;
use prost::Message;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// Checks one answer. Its first byte says whose it is.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // The end of the input is no finding.
    let checked = match input.arbitrary::<u8>().unwrap_or_default() % 4 {
        0 => raw(&mut input),
        1 => partial_success(&mut input),
        2 => json(&mut input),
        _ => {
            event(crate::rest(&mut input));
            Ok(())
        }
    };
    checked.unwrap_or_default();
}

fn judge(status: u16, body: &[u8]) -> Verdict {
    let verdict = verdict(status, &HeaderMap::new(), body, true, Duration::ZERO);
    let words = match &verdict {
        Verdict::Delivered { message, .. } => message.as_deref().unwrap_or_default(),
        Verdict::Refused { message, .. } => message,
        _ => "",
    };
    assert!(words.chars().count() <= MESSAGE_MAX_CHARS);
    assert!(
        !words.chars().any(char::is_control) && words.trim() == words && !words.contains("  "),
        "{words:?}"
    );
    verdict
}

/// Arbitrary bodies under arbitrary statuses.
fn raw(input: &mut Unstructured<'_>) -> Result<()> {
    let status = input.int_in_range(100..=999)?;
    let body = crate::rest(input);
    let judged = judge(status, body);
    assert_eq!(matches!(judged, Verdict::Delivered { .. }), (200..300).contains(&status));
    // Only what is about the content is ever given up.
    assert!(!matches!(judged, Verdict::Refused { .. }) || (400..500).contains(&status));
    if let (Ok(message), Verdict::Delivered { rejected, message: words }) =
        (ExportLogsServiceResponse::decode(body), judge(200, body))
        && message.encode_to_vec() == body
        && !body.trim_ascii_start().starts_with(b"{")
    {
        agrees(&message, rejected, words.as_deref());
    }
    Ok(())
}

fn agrees(message: &ExportLogsServiceResponse, rejected: u64, words: Option<&str>) {
    let said = message.partial_success.clone().unwrap_or_default();
    assert_eq!(rejected, u64::try_from(said.rejected_log_records).unwrap_or(0));
    same_words(&said.error_message, words.unwrap_or_default());
}

/// Whether `words` are those of `said`, in one line and cut.
fn same_words(said: &str, words: &str) {
    let split = |c: char| c.is_whitespace() || c.is_control();
    let line = said.split(split).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(MESSAGE_MAX_CHARS).collect();
    assert_eq!(cut.trim_end(), words);
}

/// An answer as another's encoder writes it.
fn partial_success(input: &mut Unstructured<'_>) -> Result<()> {
    let (rejected_log_records, error_message): (i64, &str) = input.arbitrary()?;
    let partial = ExportLogsPartialSuccess { rejected_log_records, error_message: error_message.to_owned() };
    let answer = ExportLogsServiceResponse { partial_success: Some(partial) };
    let Verdict::Delivered { rejected, message } = judge(200, &answer.encode_to_vec()) else {
        panic!("200 is delivered")
    };
    agrees(&answer, rejected, message.as_deref());
    Ok(())
}

/// Answers in JSON: of OTLP, and of everybody else.
fn json(input: &mut Unstructured<'_>) -> Result<()> {
    let (rejected, words, as_text): (u64, &str, bool) = input.arbitrary()?;
    let count = if as_text { Value::from(rejected.to_string()) } else { rejected.into() };
    let body =
        serde_json::json!({ "partialSuccess": { "rejectedLogRecords": count, "errorMessage": words } });
    let Verdict::Delivered { rejected: found, message } = judge(200, body.to_string().as_bytes()) else {
        panic!("200 is delivered")
    };
    assert_eq!(found, rejected);
    same_words(words, message.as_deref().unwrap_or_default());
    for body in
        [serde_json::json!({ "message": words }), serde_json::json!({ "error": { "message": words } })]
    {
        let body = body.to_string();
        let Verdict::Refused { message, .. } = judge(400, body.as_bytes()) else { panic!("400 is refused") };
        if words.chars().any(|c| !c.is_whitespace() && !c.is_control()) {
            same_words(words, &message);
        }
    }
    judge(400, crate::rest(input));
    Ok(())
}

/// An event: read if it is an object, with the fields that another reader finds.
fn event(body: &[u8]) {
    let object = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
    let found = parse_event(body);
    assert_eq!(found.is_some(), object.is_some());
    let (Some(found), Some(object)) = (found, object) else { return };
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    if let Some(deadline) = object["deadlineMs"].as_u64()
        && !matches!(found, LambdaEvent::Unknown(_))
    {
        assert_eq!(found.deadline_unix_ms(), Some(deadline));
    }
    match found {
        LambdaEvent::Invoke { request_id, invoked_function_arn, trace_header, .. } => {
            assert!(text("eventType").eq_ignore_ascii_case("invoke"));
            assert_eq!(
                (&*request_id, &*invoked_function_arn),
                (text("requestId"), text("invokedFunctionArn"))
            );
            assert_eq!(
                trace_header.unwrap_or_default(),
                object["tracing"]["value"].as_str().unwrap_or_default()
            );
        }
        LambdaEvent::Shutdown { reason, .. } => {
            assert!(text("eventType").eq_ignore_ascii_case("shutdown"));
            let said = text("shutdownReason");
            let shown = reason.to_string();
            assert!(shown.eq_ignore_ascii_case(said) || said.is_empty() && shown == "unknown");
        }
        LambdaEvent::Unknown(kind) => assert_eq!(kind, text("eventType")),
    }
}
