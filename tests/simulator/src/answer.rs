//! An answer of the sandbox's HTTP API, before it becomes bytes.

use serde_json::json;

/// Status, headers and JSON body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
    error_type: Option<&'static str>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: String) -> Self {
        Self { status, headers: Vec::new(), body, error_type: None }
    }

    pub(crate) fn error(status: u16, error_type: &'static str, message: &str) -> Self {
        let body = json!({"errorMessage": message, "errorType": error_type}).to_string();
        Self { status, headers: Vec::new(), body, error_type: Some(error_type) }
    }

    /// 403, the status of nearly every refusal of the Extensions API.
    #[allow(clippy::needless_pass_by_value, reason = "every caller has just built the text")]
    pub(crate) fn refusal(error_type: &'static str, message: String) -> Self {
        Self::error(403, error_type, &message)
    }

    pub(crate) fn internal_error() -> Self {
        Self::error(500, "InternalServerError", "Internal Server Error")
    }

    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn error_type(&self) -> Option<&str> {
        self.error_type
    }
}
