//! Subscription to the Telemetry API.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use super::endpoint::RuntimeApi;
use super::error::LambdaError;
use super::http::{Answer, Call};
use super::register::IDENTIFIER;

/// The schema that is asked for: the only one on Managed Instances, and no different elsewhere from the one
/// before it.
const NEWEST_SCHEMA: &str = "2025-01-29";
/// What is tried if that is refused, the best first: `2022-12-13` delivers JSON records as JSON, `2022-07-01`
/// delivers them as strings.
const OLDER_SCHEMAS: [&str; 2] = ["2022-12-13", "2022-07-01"];
/// How many records Lambda gathers before it delivers. It allows 1,000 to 10,000. A batch that fills while the
/// last one is still on its way may be dropped by Lambda, so the most room is asked for; in ordinary times the
/// time below is reached first. Lambda's own default is documented as two different values, hence said.
const BUFFERING_MAX_ITEMS: u32 = 10_000;
/// How many bytes Lambda gathers before it delivers. It allows 262,144 to 1,048,576. A record longer than this
/// is cut into several deliveries none of which is JSON, so the most is asked for. A delivery can have twice
/// this size and its envelope, well within what the listener takes.
const BUFFERING_MAX_BYTES: u32 = 1_048_576;
/// How long Lambda gathers before it delivers. It allows 25 to 30,000. The least, because what is not delivered
/// when the environment freezes waits in Lambda's memory, where nothing keeps it.
const BUFFERING_TIMEOUT_MS: u32 = 25;
/// How long one subscription may take. It takes some 25 ms on a running Lambda. The call stands between
/// registration and the first `next`, so a hanging one would hold up the function's start.
const SUBSCRIBE_TIMEOUT_MS: u64 = 2_000;
const CALL: &str = "subscribe";

/// A stream of the Telemetry API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TelemetryType {
    /// What Lambda says about the environment and its invocations.
    Platform,
    /// What the function writes.
    Function,
    /// What extensions write, this one included.
    Extension,
}

/// How a subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Telemetry will be delivered.
    Active {
        /// The schema version agreed upon.
        schema: &'static str,
    },
    /// This Lambda has no Telemetry API (`Telemetry.NotSupported`: the local emulator in its ordinary mode,
    /// SAM). Not an error: the function runs, only without telemetry from Lambda.
    NotSupported,
}

// === impl TelemetryType ===

impl TelemetryType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Platform, Self::Function, Self::Extension];

    /// As the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Function => "function",
            Self::Extension => "extension",
        }
    }

    /// The type of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

// === impl RuntimeApi ===

impl RuntimeApi {
    /// Subscribes to `types` (`PUT /2022-07-01/telemetry`), to be delivered to `port` of this environment.
    ///
    /// To be called between registration and the first `next`, with the listener already bound. A refusal of the
    /// newest schema is answered with the next older one.
    ///
    /// # Errors
    /// [`LambdaError::Refused`] with the first refusal if every schema is refused; any other [`LambdaError`] if
    /// the call itself fails. After [`LambdaError::TimedOut`] or [`LambdaError::Http`] the subscription may
    /// stand all the same, so the listener should stay.
    pub async fn subscribe(
        &mut self,
        identifier: &str,
        types: &[TelemetryType],
        port: u16,
    ) -> Result<Subscription, LambdaError> {
        let first = self.subscribe_with(NEWEST_SCHEMA, identifier, types, port).await;
        if !refused(&first) {
            return first;
        }
        for schema in OLDER_SCHEMAS {
            let next = self.subscribe_with(schema, identifier, types, port).await;
            if !refused(&next) {
                return next;
            }
        }
        first
    }

    async fn subscribe_with(
        &mut self,
        schema: &'static str,
        identifier: &str,
        types: &[TelemetryType],
        port: u16,
    ) -> Result<Subscription, LambdaError> {
        let names: Vec<_> = types.iter().map(|kind| kind.name()).collect();
        let body = json!({
            "schemaVersion": schema,
            "types": names,
            "buffering": {
                "maxItems": BUFFERING_MAX_ITEMS,
                "maxBytes": BUFFERING_MAX_BYTES,
                "timeoutMs": BUFFERING_TIMEOUT_MS,
            },
            // No path: some senders ignore it, so the listener gives none a meaning.
            "destination": { "protocol": "HTTP", "URI": format!("http://sandbox.localdomain:{port}/") },
        });
        let call = Call {
            name: CALL,
            method: Method::PUT,
            path: "/2022-07-01/telemetry",
            headers: Vec::new(),
            body: body.to_string().into(),
        }
        .header(IDENTIFIER, identifier, "the extension's identifier")?
        .header("content-type", "application/json", "a content type")?;
        let answer = self.answer_within(Duration::from_millis(SUBSCRIBE_TIMEOUT_MS), &call).await?;
        match answer.status {
            StatusCode::OK => Ok(Subscription::Active { schema }),
            StatusCode::ACCEPTED => Ok(Subscription::NotSupported),
            _ => Err(answer.refusal(CALL)),
        }
    }

    async fn answer_within(&mut self, limit: Duration, call: &Call) -> Result<Answer, LambdaError> {
        timeout(limit, self.client.call(call))
            .await
            .unwrap_or(Err(LambdaError::TimedOut { call: call.name, limit }))
    }
}

/// Whether Lambda found fault with the request, rather than failed to act on it.
fn refused(result: &Result<Subscription, LambdaError>) -> bool {
    matches!(result, Err(LambdaError::Refused { status: 400..=499, .. }))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::testing::{Script, Server, answer};
    use super::*;

    fn ok() -> String {
        answer("200 OK", "\"OK\"")
    }

    fn invalid() -> String {
        answer("400 Bad Request", r#"{"errorType":"ValidationError","errorMessage":"schemaVersion"}"#)
    }

    async fn subscribe(script: Script) -> (Result<Subscription, LambdaError>, Vec<String>) {
        let server = Server::start(vec![script]).await;
        let mut api = RuntimeApi::from_env_value(&server.address()).unwrap();
        let types = [TelemetryType::Platform, TelemetryType::Function];
        let result = api.subscribe("id-1", &types, 4711).await;
        (result, server.finish().await)
    }

    fn document(request: &str) -> Value {
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    #[tokio::test]
    async fn subscribing_says_every_buffering_value_and_where_to_deliver() {
        let (result, requests) = subscribe(Script::answers([ok()])).await;
        assert_eq!(result.unwrap(), Subscription::Active { schema: "2025-01-29" });
        assert!(requests[0].starts_with("PUT /2022-07-01/telemetry HTTP/1.1\r\n"), "{}", requests[0]);
        assert!(requests[0].contains("lambda-extension-identifier: id-1\r\n"), "{}", requests[0]);
        assert_eq!(
            document(&requests[0]),
            json!({
                "schemaVersion": "2025-01-29",
                "types": ["platform", "function"],
                "buffering": {"maxItems": 10_000, "maxBytes": 1_048_576, "timeoutMs": 25},
                "destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:4711/"},
            })
        );
    }

    #[tokio::test]
    async fn a_refused_schema_is_followed_by_the_next_older_one_on_the_same_connection() {
        let (result, requests) = subscribe(Script::answers([invalid(), invalid(), ok()])).await;
        assert_eq!(result.unwrap(), Subscription::Active { schema: "2022-07-01" });
        let schemas: Vec<_> =
            requests.iter().map(|request| document(request)["schemaVersion"].clone()).collect();
        assert_eq!(schemas, ["2025-01-29", "2022-12-13", "2022-07-01"]);
    }

    #[tokio::test]
    async fn refusal_of_every_schema_reports_the_first() {
        let other = answer("403 Forbidden", "other");
        let (result, requests) = subscribe(Script::answers([invalid(), other.clone(), other])).await;
        assert_eq!(result.unwrap_err().to_string(), "subscribe: status 400 ValidationError: schemaVersion");
        assert_eq!(requests.len(), 3);
    }

    #[tokio::test]
    async fn not_supported_is_no_error() {
        let (result, requests) = subscribe(Script::answers([answer(
            "202 Accepted",
            r#"{"errorType":"Telemetry.NotSupported","errorMessage":"Telemetry API is not supported"}"#,
        )]))
        .await;
        assert_eq!(result.unwrap(), Subscription::NotSupported);
        assert_eq!(requests.len(), 1);
    }

    #[tokio::test]
    async fn a_failure_of_lambda_is_not_taken_for_a_refusal_of_the_schema() {
        let (result, requests) =
            subscribe(Script::answers(["HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"]))
                .await;
        assert!(matches!(&result, Err(LambdaError::Refused { status: 500, .. })));
        assert!(!result.unwrap_err().may_have_succeeded());
        assert_eq!(requests.len(), 1);
    }

    #[tokio::test]
    async fn a_call_without_an_answer_is_given_up() {
        let server = Server::start(vec![Script::hangs()]).await;
        let mut api = RuntimeApi::from_env_value(&server.address()).unwrap();
        let call = Call {
            name: CALL,
            method: Method::PUT,
            path: "/",
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        };
        let result = api.answer_within(Duration::from_millis(20), &call).await;
        assert!(matches!(&result, Err(LambdaError::TimedOut { call: CALL, .. })));
        assert!(result.unwrap_err().may_have_succeeded());
        // The connection went with the call: the server sees it close.
        assert_eq!(server.finish().await.len(), 1);
    }

    #[test]
    fn types_are_found_by_their_names() {
        for kind in TelemetryType::ALL {
            assert_eq!(TelemetryType::from_name(kind.name()), Some(kind));
        }
        assert_eq!(TelemetryType::from_name("Platform"), None);
    }
}
