//! The two events an extension is woken for.
//!
//! Parsing asks for as little as possible. An event that was received must be acted upon even if a field of
//! it is new, missing or of another type, because the alternative is to hold the function up. The content type
//! is not looked at: Lambda's own emulator sends SHUTDOWN without one.

use std::fmt;

use serde_json::{Map, Value};

/// An answer to `GET /event/next` (Lambda Extensions API, "Next").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LambdaEvent {
    /// The function is being invoked, at this moment and alongside the extension.
    Invoke {
        /// The invocation's id; empty if Lambda sent none.
        request_id: String,
        /// When the function times out, in milliseconds since the Unix epoch.
        deadline_unix_ms: Option<u64>,
        /// The function's ARN as it was invoked, alias or version included; empty if Lambda sent none.
        invoked_function_arn: String,
        /// The X-Ray trace header (`Root=…;Parent=…;Sampled=…`), where the invocation has one.
        trace_header: Option<String>,
    },
    /// The environment is about to end; this is the last event.
    Shutdown {
        /// Why.
        reason: ShutdownReason,
        /// When the process is killed, in milliseconds since the Unix epoch.
        deadline_unix_ms: Option<u64>,
    },
    /// An event this version does not know, by its `eventType`: there is nothing to do but ask for the next.
    Unknown(String),
}

/// Why the environment ends. Documented in lower case and seen in upper case, so case does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShutdownReason {
    /// It is not needed any more.
    Spindown,
    /// The function timed out.
    Timeout,
    /// The runtime or an extension crashed, or memory ran out.
    Failure,
    /// Anything else; empty if Lambda gave no reason.
    Other(String),
}

// === impl LambdaEvent ===

impl LambdaEvent {
    /// Reads an event; `None` if `body` is not a JSON object.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
        let kind = text(&fields, "eventType");
        Some(if kind.eq_ignore_ascii_case("INVOKE") {
            Self::Invoke {
                request_id: text(&fields, "requestId"),
                deadline_unix_ms: millis(&fields, "deadlineMs"),
                invoked_function_arn: text(&fields, "invokedFunctionArn"),
                trace_header: fields
                    .get("tracing")
                    .and_then(|tracing| tracing.get("value"))
                    .and_then(Value::as_str)
                    .filter(|value| !value.is_empty())
                    .map(str::to_owned),
            }
        } else if kind.eq_ignore_ascii_case("SHUTDOWN") {
            Self::Shutdown {
                reason: ShutdownReason::parse(&text(&fields, "shutdownReason")),
                deadline_unix_ms: millis(&fields, "deadlineMs"),
            }
        } else {
            Self::Unknown(kind)
        })
    }

    /// When what the event announces ends, in milliseconds since the Unix epoch; `None` if Lambda did not say.
    pub fn deadline_unix_ms(&self) -> Option<u64> {
        match self {
            Self::Invoke { deadline_unix_ms, .. } | Self::Shutdown { deadline_unix_ms, .. } => {
                *deadline_unix_ms
            }
            Self::Unknown(_) => None,
        }
    }
}

/// A string field; empty if it is missing or not a string.
fn text(fields: &Map<String, Value>, name: &str) -> String {
    fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A field of milliseconds, also where it is written with a fraction or as a string.
fn millis(fields: &Map<String, Value>, name: &str) -> Option<u64> {
    let value = fields.get(name)?;
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    // A float holds milliseconds exactly until the year 287396.
    #[allow(clippy::cast_sign_loss)]
    let floored = number.filter(|number| *number > 0.0).map(|number| number as u64);
    value.as_u64().or(floored)
}

// === impl ShutdownReason ===

impl ShutdownReason {
    fn parse(reason: &str) -> Self {
        match reason.to_ascii_lowercase().as_str() {
            "spindown" => Self::Spindown,
            "timeout" => Self::Timeout,
            "failure" => Self::Failure,
            _ => Self::Other(reason.to_owned()),
        }
    }
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spindown => "spindown",
            Self::Timeout => "timeout",
            Self::Failure => "failure",
            Self::Other(reason) if reason.is_empty() => "unknown",
            Self::Other(reason) => reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> LambdaEvent {
        LambdaEvent::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn an_invoke_event_is_read_in_full() {
        let event = parse(
            r#"{"eventType":"INVOKE","deadlineMs":1775516174092,"requestId":"3da1f2dc-3222-475e-9205-e2e6c6318895",
            "invokedFunctionArn":"arn:aws:lambda:us-east-1:123456789012:function:f",
            "tracing":{"type":"X-Amzn-Trace-Id","value":"Root=1-a;Parent=b;Sampled=1"}}"#,
        );
        assert_eq!(
            event,
            LambdaEvent::Invoke {
                request_id: "3da1f2dc-3222-475e-9205-e2e6c6318895".into(),
                deadline_unix_ms: Some(1_775_516_174_092),
                invoked_function_arn: "arn:aws:lambda:us-east-1:123456789012:function:f".into(),
                trace_header: Some("Root=1-a;Parent=b;Sampled=1".into()),
            }
        );
        assert_eq!(event.deadline_unix_ms(), Some(1_775_516_174_092));
    }

    #[test]
    fn a_shutdown_event_is_read_whatever_the_case_of_its_reason() {
        for (reason, expected) in [
            ("spindown", ShutdownReason::Spindown),
            ("TIMEOUT", ShutdownReason::Timeout),
            ("Failure", ShutdownReason::Failure),
            ("SandboxRebooted", ShutdownReason::Other("SandboxRebooted".into())),
        ] {
            let body = format!(r#"{{"eventType":"SHUTDOWN","deadlineMs":5,"shutdownReason":"{reason}"}}"#);
            assert_eq!(parse(&body), LambdaEvent::Shutdown { reason: expected, deadline_unix_ms: Some(5) });
        }
    }

    #[test]
    fn fields_that_are_missing_or_of_another_type_do_not_lose_the_event() {
        let empty = LambdaEvent::Invoke {
            request_id: String::new(),
            deadline_unix_ms: None,
            invoked_function_arn: String::new(),
            trace_header: None,
        };
        assert_eq!(parse(r#"{"eventType":"INVOKE"}"#), empty);
        assert_eq!(
            parse(
                r#"{"eventType":"invoke","requestId":7,"deadlineMs":"soon","tracing":null,"invokedFunctionArn":[]}"#
            ),
            empty
        );
        assert_eq!(
            parse(r#"{"eventType":"SHUTDOWN"}"#),
            LambdaEvent::Shutdown { reason: ShutdownReason::Other(String::new()), deadline_unix_ms: None }
        );
    }

    #[test]
    fn a_deadline_is_read_from_any_number_but_a_negative_one() {
        for (deadline, expected) in [
            ("1775516174092", Some(1_775_516_174_092)),
            ("1775516174092.9", Some(1_775_516_174_092)),
            ("\"1775516174092\"", Some(1_775_516_174_092)),
            ("1.775516174092e12", Some(1_775_516_174_092)),
            ("-1", None),
            ("null", None),
            ("\"NaN\"", None),
        ] {
            let body = format!(r#"{{"eventType":"SHUTDOWN","deadlineMs":{deadline}}}"#);
            assert_eq!(parse(&body).deadline_unix_ms(), expected, "{deadline}");
        }
    }

    #[test]
    fn an_unknown_event_keeps_its_name() {
        assert_eq!(parse(r#"{"eventType":"RESTORE","x":1}"#), LambdaEvent::Unknown("RESTORE".into()));
        assert_eq!(parse("{}"), LambdaEvent::Unknown(String::new()));
        assert_eq!(parse("{}").deadline_unix_ms(), None);
    }

    #[test]
    fn what_is_not_an_object_is_not_an_event() {
        for body in ["", "null", "[]", "\"INVOKE\"", "{", "INVOKE"] {
            assert_eq!(LambdaEvent::parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn reasons_print_as_lambda_writes_them() {
        assert_eq!(ShutdownReason::Spindown.to_string(), "spindown");
        assert_eq!(ShutdownReason::Other(String::new()).to_string(), "unknown");
        assert_eq!(ShutdownReason::Other("odd".into()).to_string(), "odd");
    }
}
