//! Registration with the Extensions API.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use super::endpoint::RuntimeApi;
use super::error::LambdaError;
use super::http::Call;

/// The header that carries the extension's identifier, both ways.
pub(super) const IDENTIFIER: &str = "lambda-extension-identifier";
const NAME: &str = "lambda-extension-name";
const ACCEPT_FEATURE: &str = "lambda-extension-accept-feature";
/// The optional feature that adds `accountId` to the answer.
const ACCOUNT_ID_FEATURE: &str = "accountId";
/// `AWS_LAMBDA_INITIALIZATION_TYPE` of an environment that takes several invocations at once.
const MANAGED_INSTANCES: &str = "lambda-managed-instances";
const CALL: &str = "register";

/// An event to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Each invocation. Lambda then also waits for the extension before it ends the invocation.
    Invoke,
    /// The end of the environment.
    Shutdown,
}

/// What Lambda said on registration. A field is empty if Lambda left it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Proves in every later call who is calling.
    pub identifier: String,
    /// The function's name.
    pub function_name: String,
    /// Its version, `$LATEST` included.
    pub function_version: String,
    /// Its handler, as configured.
    pub handler: String,
    /// The account the function runs in, where Lambda supports the feature.
    pub account_id: Option<String>,
}

// === impl EventKind ===

impl EventKind {
    /// The events to register for, given `AWS_LAMBDA_INITIALIZATION_TYPE`.
    ///
    /// On Lambda Managed Instances invocations overlap and nothing is frozen between them; INVOKE is refused
    /// there, and the refusal fails the environment's initialization.
    pub fn for_initialization(initialization_type: Option<&str>) -> &'static [Self] {
        if initialization_type == Some(MANAGED_INSTANCES) {
            &[Self::Shutdown]
        } else {
            &[Self::Invoke, Self::Shutdown]
        }
    }

    /// As the API writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invoke => "INVOKE",
            Self::Shutdown => "SHUTDOWN",
        }
    }
}

// === impl RuntimeApi ===

impl RuntimeApi {
    /// Registers the extension (`POST /2020-01-01/extension/register`) under `name`, for `events`.
    ///
    /// # Errors
    /// Any of [`LambdaError`]. The call is made once: a registration whose answer was lost stands, and a second
    /// one would be refused.
    pub async fn register(&mut self, name: &str, events: &[EventKind]) -> Result<Registration, LambdaError> {
        let names: Vec<_> = events.iter().map(|event| event.name()).collect();
        let call = Call {
            name: CALL,
            method: Method::POST,
            path: "/2020-01-01/extension/register",
            headers: Vec::new(),
            body: json!({ "events": names }).to_string().into(),
        }
        .header(NAME, name, "the extension's name")?
        .header(ACCEPT_FEATURE, ACCOUNT_ID_FEATURE, "a feature's name")?
        .header("content-type", "application/json", "a content type")?;
        let answer = self.client.call(&call).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.refusal(CALL));
        }
        let identifier = answer
            .headers
            .get(IDENTIFIER)
            .and_then(|value| value.to_str().ok())
            .filter(|value| !value.is_empty())
            .ok_or(LambdaError::NoIdentifier)?;
        // The identifier is all that is needed to go on, so a body that cannot be read is no reason to fail.
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let field = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        Ok(Registration {
            identifier: identifier.to_owned(),
            function_name: field("functionName").unwrap_or_default(),
            function_version: field("functionVersion").unwrap_or_default(),
            handler: field("handler").unwrap_or_default(),
            account_id: field("accountId").filter(|id| !id.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, Server, answer};
    use super::*;

    fn registered() -> String {
        let body = r#"{"functionName":"f","functionVersion":"$LATEST","handler":"h.main","accountId":"123456789012","x":1}"#;
        answer("200 OK\r\nLAMBDA-Extension-identifier: abc-1", body)
    }

    async fn register(script: Script) -> (Result<Registration, LambdaError>, Vec<String>) {
        let server = Server::start(vec![script]).await;
        let mut api = RuntimeApi::from_env_value(&server.address()).unwrap();
        let result = api.register("outlast", EventKind::for_initialization(None)).await;
        (result, server.finish().await)
    }

    #[tokio::test]
    async fn registering_sends_name_feature_and_events_and_reads_the_answer() {
        let (result, requests) = register(Script::answers([registered()])).await;
        assert_eq!(
            result.unwrap(),
            Registration {
                identifier: "abc-1".into(),
                function_name: "f".into(),
                function_version: "$LATEST".into(),
                handler: "h.main".into(),
                account_id: Some("123456789012".into()),
            }
        );
        let request = &requests[0];
        assert!(request.starts_with("POST /2020-01-01/extension/register HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("lambda-extension-name: outlast\r\n"), "{request}");
        assert!(request.contains("lambda-extension-accept-feature: accountId\r\n"), "{request}");
        assert!(request.contains("host: 127.0.0.1:"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"events\":[\"INVOKE\",\"SHUTDOWN\"]}"), "{request}");
    }

    #[tokio::test]
    async fn an_answer_in_pieces_of_one_byte_is_put_together() {
        let (result, _) = register(Script::answers([registered()]).in_pieces_of(1)).await;
        assert_eq!(result.unwrap().identifier, "abc-1");
    }

    #[tokio::test]
    async fn a_chunked_answer_without_known_fields_still_registers() {
        let (result, _) = register(Script::answers([
            "HTTP/1.1 200 OK\r\nlambda-extension-identifier: z\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\n5\r\na\":1}\r\n0\r\n\r\n",
        ]))
        .await;
        let registration = result.unwrap();
        assert_eq!(registration.identifier, "z");
        assert_eq!((registration.function_name.as_str(), registration.account_id), ("", None));
    }

    #[tokio::test]
    async fn a_refusal_names_status_type_and_message() {
        let (result, _) = register(Script::answers([answer(
            "403 Forbidden",
            r#"{"errorType":"Extension.InvalidExtensionName","errorMessage":"empty"}"#,
        )]))
        .await;
        assert_eq!(
            result.unwrap_err().to_string(),
            "register: status 403 Extension.InvalidExtensionName: empty"
        );
    }

    #[tokio::test]
    async fn an_answer_without_an_identifier_is_an_error() {
        let (result, _) = register(Script::answers([answer("200 OK", "{}")])).await;
        assert!(matches!(result, Err(LambdaError::NoIdentifier)));
    }

    #[tokio::test]
    async fn an_endless_answer_is_given_up() {
        let answer = answer("200 OK\r\nlambda-extension-identifier: z", &"x".repeat(2 * 1024 * 1024));
        let (result, _) = register(Script::answers([answer])).await;
        assert!(matches!(result, Err(LambdaError::Body { .. })));
    }

    #[tokio::test]
    async fn a_name_that_no_header_can_carry_is_an_error_before_anything_is_sent() {
        let mut api = RuntimeApi::from_env_value("127.0.0.1:1").unwrap();
        let result = api.register("a\nb", &[]).await;
        assert!(matches!(result, Err(LambdaError::Header { .. })));
    }

    #[tokio::test]
    async fn the_prefix_of_the_address_goes_before_the_path() {
        let server = Server::start(vec![Script::answers([registered()])]).await;
        let mut api = RuntimeApi::from_env_value(&format!("http://{}/.rt", server.address())).unwrap();
        api.register("outlast", &[EventKind::Shutdown]).await.unwrap();
        let requests = server.finish().await;
        assert!(requests[0].starts_with("POST /.rt/2020-01-01/extension/register "), "{}", requests[0]);
    }

    #[test]
    fn managed_instances_get_shutdown_only() {
        assert_eq!(EventKind::for_initialization(Some("lambda-managed-instances")), [EventKind::Shutdown]);
        for other in [None, Some("on-demand"), Some("provisioned-concurrency"), Some("snap-start")] {
            assert_eq!(EventKind::for_initialization(other), [EventKind::Invoke, EventKind::Shutdown]);
        }
    }
}
