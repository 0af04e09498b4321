//! Header values that are kept elsewhere: in AWS Secrets Manager or in the Parameter Store of Systems Manager.
//!
//! A reference is fetched when a request first needs it, which is after registration, and kept until the backend answers
//! 401 or 403: then it is fetched again, for it may have been rotated. While it cannot be had no request is made, and the
//! data waits. Values are never shown.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde_json::Value;
use tokio::sync::Mutex;

use super::answer;
use super::aws::{Aws, AwsError, Source, Unsigned, domain};
use super::client::{ANSWER_BODY_MAX_BYTES, Client, Outgoing};
use super::verdict::{Cause, Verdict};
use crate::clock::{self, Clock, Time};

/// How often a value is fetched again because the backend does not take it, at most. A key that was revoked costs a
/// look-up a minute; one that was rotated is noticed at the first 401.
const RENEWED_EVERY: Duration = Duration::from_secs(60);

/// So long a failure holds for every signal that waits for the same value. Retries have pauses of their own.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// The share of a request's time that fetching may take: it is given up before the request is, so that the reason is known.
const FETCH_SHARE: (u32, u32) = (1, 2);

/// What JSON protocols of AWS are worded in (Smithy, "AWS JSON 1.1 protocol").
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// What a reference must be.
const ACCEPTED: &str =
    "accepts `secretsmanager:ARN` or `ssm:/name`, and `#key` behind it for a member of a JSON object";

/// Where a value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Store {
    SecretsManager,
    ParameterStore,
}

/// What has to be known to ask a store.
struct Service {
    prefix: &'static str,
    name: &'static str,
    endpoint_variable: &'static str,
    target: &'static str,
}

impl Store {
    const ALL: [Self; 2] = [Self::SecretsManager, Self::ParameterStore];

    fn service(self) -> Service {
        match self {
            // AWS Secrets Manager API reference, "GetSecretValue".
            Self::SecretsManager => Service {
                prefix: "secretsmanager:",
                name: "secretsmanager",
                endpoint_variable: "AWS_ENDPOINT_URL_SECRETS_MANAGER",
                target: "secretsmanager.GetSecretValue",
            },
            // AWS Systems Manager API reference, "GetParameter".
            Self::ParameterStore => Service {
                prefix: "ssm:",
                name: "ssm",
                endpoint_variable: "AWS_ENDPOINT_URL_SSM",
                target: "AmazonSSM.GetParameter",
            },
        }
    }
}

/// The name of a value that is kept elsewhere: `secretsmanager:ARN-or-name` or `ssm:/name`, and `#key` behind it for one
/// member of a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    store: Store,
    id: String,
    key: Option<String>,
}

impl Reference {
    /// Reads a reference; `None` if `text` is none.
    ///
    /// # Errors
    /// If it names nothing.
    fn parse(text: &str) -> Option<Result<Self, &'static str>> {
        let (store, rest) = Store::ALL
            .into_iter()
            .find_map(|store| Some((store, text.strip_prefix(store.service().prefix)?)))?;
        let (id, key) = rest.split_once('#').map_or((rest, None), |(id, key)| (id, Some(key.to_owned())));
        let named = !id.is_empty() && key.as_deref() != Some("");
        Some(if named { Ok(Self { store, id: id.to_owned(), key }) } else { Err(ACCEPTED) })
    }

    /// The region that its ARN names.
    fn region(&self) -> Option<&str> {
        let mut parts = self.id.split(':');
        (parts.next()? == "arn").then_some(())?;
        parts.nth(2).filter(|region| !region.is_empty())
    }

    fn same_secret(&self, other: &Self) -> bool {
        (self.store, &self.id) == (other.store, &other.id)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_deref().map_or_else(String::new, |key| format!("#{key}"));
        write!(f, "{}{}{key}", self.store.service().prefix, self.id)
    }
}

/// A header whose value is kept elsewhere, or ends in what is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretHeader {
    name: HeaderName,
    /// What stands before it: `Bearer `.
    before: String,
    reference: Reference,
}

impl SecretHeader {
    /// Reads the value of the header `name`, whose last word may be a reference. `None` if it holds none.
    ///
    /// # Errors
    /// If the reference names nothing.
    pub fn parse(name: &HeaderName, value: &str) -> Option<Result<Self, String>> {
        let at = value.rfind(' ').map_or(0, |space| space + 1);
        let (before, word) = value.split_at_checked(at)?;
        let header = |reference| Self { name: name.clone(), before: before.to_owned(), reference };
        Some(Reference::parse(word)?.map(header).map_err(str::to_owned))
    }

    /// Its value, made of what its store holds.
    fn value(&self, found: &Result<String, String>) -> Result<HeaderValue, String> {
        let value = member(found.as_ref().map_err(String::clone)?, self.reference.key.as_deref())?;
        let value = HeaderValue::from_str(&format!("{}{value}", self.before));
        let mut value = value.map_err(|_| "its value makes no header".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Its name.
    pub fn name(&self) -> &HeaderName {
        &self.name
    }
}

/// The headers of requests to one place. `Debug` shows no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Those that are known, values marked sensitive.
    pub fixed: HeaderMap,
    /// Those that are to be fetched.
    pub secret: Vec<SecretHeader>,
}

/// A value, or why it cannot be had.
struct Known {
    reference: Reference,
    found: Result<String, String>,
    at: Time,
    /// When it was last fetched because the backend did not take it.
    renewed: Option<Time>,
}

/// Fetches values and keeps them.
pub struct Vault {
    client: Arc<Client>,
    patience: Duration,
    variable: fn(&str) -> Option<String>,
    /// Who signs, once it is known.
    source: OnceLock<Result<Source, AwsError>>,
    /// Locked while one is fetched, so that nobody else does.
    kept: Mutex<Kept>,
}

/// What was fetched, and the clock that tells its age.
struct Kept {
    clock: Clock,
    known: Vec<Known>,
}

impl Vault {
    /// A vault for requests that may take `timeout` each. `variable` tells of Lambda's environment.
    pub fn new(timeout: Duration, ca_file: Option<PathBuf>, variable: fn(&str) -> Option<String>) -> Self {
        let patience = timeout / FETCH_SHARE.1 * FETCH_SHARE.0;
        Self {
            client: Arc::new(Client::of_any(patience).trusting(ca_file)),
            patience,
            variable,
            source: OnceLock::new(),
            kept: Mutex::new(Kept { clock: Clock::start(), known: Vec::new() }),
        }
    }

    /// Makes one attempt with the headers `wanted`, or none if they cannot be had. If the backend does not take the
    /// credentials and there are newer ones, it makes another.
    pub async fn send(&self, client: &Client, wanted: &Headers, outgoing: Outgoing<'_>) -> Verdict {
        if wanted.secret.is_empty() {
            return client.send(Outgoing { headers: &wanted.fixed, ..outgoing }).await;
        }
        let headers = match self.headers(wanted).await {
            Ok(headers) => headers,
            Err(reason) => return Verdict::Retry { cause: Cause::NoSecret(reason), after: None },
        };
        let verdict = client.send(Outgoing { headers: &headers, ..outgoing.clone() }).await;
        if !matches!(verdict, Verdict::Denied { status: 401 | 403 }) {
            return verdict;
        }
        match self.renewed(wanted).await {
            Some(newer) if newer != headers => client.send(Outgoing { headers: &newer, ..outgoing }).await,
            _ => verdict,
        }
    }

    /// The headers `wanted`, with the values of all references.
    ///
    /// # Errors
    /// The first reference that cannot be had, and why, on one line.
    pub async fn headers(&self, wanted: &Headers) -> Result<HeaderMap, String> {
        let mut headers = wanted.fixed.clone();
        let mut kept = self.kept.lock().await;
        for header in &wanted.secret {
            let value = self.value(&mut kept, header).await;
            let value = value.map_err(|reason| format!("{}: {reason}", header.reference))?;
            headers.insert(&header.name, value);
        }
        Ok(headers)
    }

    /// The same, fetched anew; `None` if that was done not long ago, or if it fails.
    async fn renewed(&self, wanted: &Headers) -> Option<HeaderMap> {
        {
            let mut kept = self.kept.lock().await;
            let now = kept.clock.now();
            for entry in &mut kept.known {
                let is_meant =
                    wanted.secret.iter().any(|header| header.reference.same_secret(&entry.reference));
                if !is_meant || entry.renewed.is_some_and(|last| now < last.saturating_add(RENEWED_EVERY)) {
                    continue;
                }
                entry.renewed = Some(now);
                // If it cannot be had now, the old one is as good as any.
                if let Ok(found) = self.fetched(&entry.reference).await {
                    entry.found = Ok(found);
                }
            }
        }
        self.headers(wanted).await.ok()
    }

    async fn value(&self, kept: &mut Kept, header: &SecretHeader) -> Result<HeaderValue, String> {
        let reference = &header.reference;
        let place = kept.known.iter().position(|entry| entry.reference.same_secret(reference));
        let now = kept.clock.now();
        if let Some(entry) = place.and_then(|place| kept.known.get(place)) {
            let value = header.value(&entry.found);
            if value.is_ok() || now < entry.at.saturating_add(FAILURE_HOLDS) {
                return value;
            }
        }
        let found = self.fetched(reference).await;
        let value = header.value(&found);
        if let Some(place) = place {
            kept.known.swap_remove(place);
        }
        let (at, reference) = (kept.clock.now(), reference.clone());
        kept.known.push(Known { reference, found, at, renewed: None });
        value
    }

    /// Asks the store.
    async fn fetched(&self, reference: &Reference) -> Result<String, String> {
        // Whatever connection there was may have been frozen since.
        self.client.renew();
        tokio::select! {
            biased;
            found = self.ask(reference) => found,
            () = clock::sleep(self.patience) => Err("no answer in time".to_owned()),
        }
    }

    async fn ask(&self, reference: &Reference) -> Result<String, String> {
        self.client.prepared().await;
        let service = reference.store.service();
        let source = self.source.get_or_init(|| Source::from_variables(self.variable)).clone();
        let aws =
            source.and_then(|source| Aws::signing_with(source, self.variable, service.endpoint_variable));
        let aws = aws.map_err(|error| error.to_string())?;
        let region = reference.region().unwrap_or(&aws.region);
        let at_aws = || Url::parse(&format!("https://{}.{region}.{}/", service.name, domain(region))).ok();
        let url = aws.endpoint.clone().or_else(at_aws).ok_or("its region makes no host name")?;
        let id = Value::from(reference.id.as_str());
        let body = Bytes::from(match reference.store {
            Store::SecretsManager => format!(r#"{{"SecretId":{id}}}"#),
            Store::ParameterStore => format!(r#"{{"Name":{id},"WithDecryption":true}}"#),
        });
        let covered = [("content-type", CONTENT_TYPE), ("x-amz-target", service.target)];
        let request = Unsigned {
            service: service.name,
            region,
            method: "POST",
            url: &url,
            headers: &covered,
            body: &body,
        };
        let headers = aws.signed(&request, clock::unix_now()).await?;
        let (status, answer) =
            self.client.exchange(Method::POST, url, headers, body, ANSWER_BODY_MAX_BYTES).await?;
        let json: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let text = |pointer: &str| json.pointer(pointer).and_then(Value::as_str);
        if status != 200 {
            let kind = text("/__type").and_then(|kind| kind.rsplit('#').next()).unwrap_or_default();
            let words = text("/Message").map_or_else(|| answer::refusal(&answer), str::to_owned);
            let told = answer::one_line(format!("{status} {kind} {words}").as_bytes());
            return Err(told.unwrap_or_default());
        }
        let value = text("/SecretString").or_else(|| text("/Parameter/Value"));
        value.map(|value| value.trim().to_owned()).ok_or_else(|| "it has no text".to_owned())
    }
}

/// The member `key` of the JSON object that a secret is, or the whole of it.
fn member(text: &str, key: Option<&str>) -> Result<String, String> {
    let Some(key) = key else { return Ok(text.to_owned()) };
    let object: Value = serde_json::from_str(text).map_err(|_| "it is not JSON".to_owned())?;
    match object.get(key) {
        Some(Value::String(value)) => Ok(value.clone()),
        Some(Value::Number(value)) => Ok(value.to_string()),
        _ => Err("it has no such member".to_owned()),
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
