//! Requests to AWS: what Lambda's environment says about it, and the signature that each request needs.

pub(super) mod civil;
mod credentials;
mod sigv4;

use std::time::Duration;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use civil::Civil;
pub(super) use credentials::{Credentials, Source};
use sigv4::{Signer, ToSign, sha256_hex};

pub(super) use sigv4::encoded_path;

const SHA256: &str = "x-amz-content-sha256";
const DATE: &str = "x-amz-date";
const TOKEN: &str = "x-amz-security-token";

/// What Lambda's environment says about AWS.
#[derive(Clone)]
pub struct Aws {
    source: Source,
    pub(super) region: String,
    /// Where the service is, if not at AWS.
    pub(super) endpoint: Option<Url>,
    pub(super) function: String,
}

/// Why AWS cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AwsError {
    /// A variable is not set.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// A variable is not what it should be.
    #[error("{0} is not an http:// or https:// URL without a query")]
    NotAUrl(&'static str),
    /// A variable names no place that may be asked for credentials.
    #[error("{0} is not a URL with https:// or of this machine")]
    NotAnEndpoint(&'static str),
}

/// A request that is to be signed.
pub(super) struct Unsigned<'a> {
    pub(super) service: &'a str,
    pub(super) region: &'a str,
    pub(super) method: &'a str,
    pub(super) url: &'a Url,
    /// Headers that the signature covers, names in lower case.
    pub(super) headers: &'a [(&'static str, &'a str)],
    pub(super) body: &'a [u8],
}

impl Aws {
    /// Reads the variables that Lambda sets, and `own_endpoint`, that of one service, and `AWS_ENDPOINT_URL` that the user
    /// may (AWS SDKs and tools reference guide, "Service-specific endpoints").
    ///
    /// # Errors
    /// [`AwsError`] names the variable.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
        own_endpoint: &'static str,
    ) -> Result<Self, AwsError> {
        Self::signing_with(Source::from_variables(&variable)?, variable, own_endpoint)
    }

    /// The same, with credentials from `source`.
    ///
    /// # Errors
    /// [`AwsError`] names the variable.
    pub(super) fn signing_with(
        source: Source,
        variable: impl Fn(&str) -> Option<String>,
        own_endpoint: &'static str,
    ) -> Result<Self, AwsError> {
        let set = |name| variable(name).filter(|value| !value.trim().is_empty());
        let endpoint = [own_endpoint, "AWS_ENDPOINT_URL"].into_iter().find_map(|name| {
            let value = set(name)?;
            Some(endpoint_of(value.trim()).ok_or(AwsError::NotAUrl(name)))
        });
        Ok(Self {
            source,
            region: set("AWS_REGION")
                .or_else(|| set("AWS_DEFAULT_REGION"))
                .ok_or(AwsError::Missing("AWS_REGION"))?,
            endpoint: endpoint.transpose()?,
            function: set("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|| "unknown".to_owned()),
        })
    }

    /// The headers of a request that is made `now`, its signature among them.
    ///
    /// # Errors
    /// Why there are no credentials for it, on one line.
    pub(super) async fn signed(&self, request: &Unsigned<'_>, now: Duration) -> Result<HeaderMap, String> {
        let credentials = self.source.credentials(now).await?;
        signed(&credentials, request, now).ok_or_else(|| "the credentials make no request".to_owned())
    }
}

/// The headers of a request. `None` if a credential holds what no header can.
fn signed(credentials: &Credentials, request: &Unsigned<'_>, now: Duration) -> Option<HeaderMap> {
    let now = Civil::of(now);
    let payload_hash = sha256_hex(request.body);
    let date = now.to_second().to_string();
    let host = host_of(request.url)?;
    let mut covered = vec![("host", host.as_str()), (SHA256, &payload_hash), (DATE, &date)];
    covered.extend(credentials.session_token.as_deref().map(|token| (TOKEN, token)));
    covered.extend_from_slice(request.headers);
    covered.sort_unstable();
    let signer = Signer {
        access_key_id: &credentials.access_key_id,
        secret_access_key: &credentials.secret_access_key,
        region: request.region,
        service: request.service,
    };
    let to_sign = ToSign {
        method: request.method,
        path: request.url.path(),
        query: request.url.query().unwrap_or_default(),
        headers: &covered,
        payload_hash: &payload_hash,
    };
    let authorization = signer.authorization(&to_sign, now);
    let mut headers = HeaderMap::new();
    let sent = covered.into_iter().filter(|(name, _)| *name != "host");
    for (name, value) in sent.chain([(AUTHORIZATION.as_str(), authorization.as_str())]) {
        let mut value = HeaderValue::from_str(value).ok()?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some(headers)
}

/// The domain that AWS's services in `region` are under.
pub(super) fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

fn endpoint_of(value: &str) -> Option<Url> {
    let url = Url::parse(value).ok()?;
    let usable =
        matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
    (usable && url.host_str().is_some_and(|host| !host.is_empty())).then_some(url)
}

/// The `host` header that goes with `url`.
pub(super) fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}
