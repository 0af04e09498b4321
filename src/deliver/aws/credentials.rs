//! Who signs: the keys that Lambda sets as variables, or, with `SnapStart`, those that an endpoint on the machine gives.
//!
//! A snapshot must not hold keys, for it outlives them and is cloned. So with `SnapStart` Lambda sets none, and names an
//! endpoint instead (AWS SDKs and tools reference guide, "Container credential provider"). It is asked when a request is to
//! be signed and never before, and what it gives is kept until shortly before it expires.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::AwsError;
use crate::clock;
use crate::deliver::client::{ANSWER_BODY_MAX_BYTES, Client};
use crate::deliver::tls;
use crate::record::time::rfc3339;

const ENDPOINT: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
const TOKEN: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN";
const TOKEN_FILE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";

/// The endpoint is on the machine: what takes longer than this is not there.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Keys are renewed so long before they expire: a request that is signed with them has to arrive in time.
const MARGIN: Duration = Duration::from_secs(60);

/// Keys that do not say when they expire are kept for so long.
const UNDATED_KEPT: Duration = Duration::from_secs(300);

/// Addresses beside the machine's own that may be asked without TLS: those of ECS and EKS (same source).
const PLAIN_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// What a request is signed with.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::deliver) struct Credentials {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Where they come from.
#[derive(Clone)]
pub(in crate::deliver) enum Source {
    Variables(Credentials),
    Endpoint(Arc<Endpoint>),
}

/// An endpoint, and what it gave last.
pub(in crate::deliver) struct Endpoint {
    url: Url,
    token: Option<Token>,
    client: Arc<Client>,
    /// Locked while it is asked, so that nobody else does.
    kept: Mutex<Option<Kept>>,
}

enum Token {
    Value(String),
    File(PathBuf),
}

struct Kept {
    credentials: Credentials,
    /// Since the Unix epoch.
    expires: Duration,
}

/// What the endpoint answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl Source {
    /// Reads the variables that Lambda sets. The endpoint is not asked yet.
    ///
    /// # Errors
    /// [`AwsError`] names the variable.
    pub(in crate::deliver) fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, AwsError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let required = |name| set(name).ok_or(AwsError::Missing(name));
        if set("AWS_ACCESS_KEY_ID").is_none()
            && let Some(value) = set(ENDPOINT)
        {
            let url = Url::parse(value.trim())
                .ok()
                .filter(may_be_asked)
                .ok_or(AwsError::NotAnEndpoint(ENDPOINT))?;
            let file = set(TOKEN_FILE).map(|path| Token::File(PathBuf::from(path)));
            let token = file.or_else(|| set(TOKEN).map(Token::Value));
            let client = Arc::new(Client::new(std::slice::from_ref(&url), ANSWER_MAX));
            return Ok(Self::Endpoint(Arc::new(Endpoint { url, token, client, kept: Mutex::new(None) })));
        }
        Ok(Self::Variables(Credentials {
            access_key_id: required("AWS_ACCESS_KEY_ID")?,
            secret_access_key: required("AWS_SECRET_ACCESS_KEY")?,
            session_token: set("AWS_SESSION_TOKEN"),
        }))
    }

    /// What to sign a request with at `now`, time since the Unix epoch.
    ///
    /// # Errors
    /// Why the endpoint gives nothing, on one line.
    pub(in crate::deliver) async fn credentials(&self, now: Duration) -> Result<Credentials, String> {
        match self {
            Self::Variables(credentials) => Ok(credentials.clone()),
            Self::Endpoint(endpoint) => endpoint.credentials(now).await,
        }
    }
}

impl Endpoint {
    async fn credentials(&self, now: Duration) -> Result<Credentials, String> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| now.saturating_add(MARGIN) < kept.expires) {
            return Ok(kept.credentials.clone());
        }
        let found = tokio::select! {
            biased;
            found = self.ask(now) => found,
            () = clock::sleep(ANSWER_MAX) => Err("no answer in time".to_owned()),
        };
        match (found, kept.as_ref()) {
            (Ok(found), _) => Ok(kept.insert(found).credentials.clone()),
            (Err(_), Some(old)) if now < old.expires => Ok(old.credentials.clone()),
            (Err(reason), _) => Err(format!("{ENDPOINT}: {reason}")),
        }
    }

    async fn ask(&self, now: Duration) -> Result<Kept, String> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            let token = match token {
                Token::Value(value) => value.clone(),
                Token::File(path) => token_in(path.clone()).await?,
            };
            let mut value =
                HeaderValue::from_str(token.trim()).map_err(|_| "the token makes no header".to_owned())?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        self.client.prepared().await;
        // Whatever connection there was may have been frozen since.
        self.client.renew();
        let (status, body) = self
            .client
            .exchange(Method::GET, self.url.clone(), headers, Bytes::new(), ANSWER_BODY_MAX_BYTES)
            .await?;
        if status != 200 {
            return Err(format!("status {status}"));
        }
        // The error would show what it met.
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|_| "its answer holds no keys".to_owned())?;
        let dated = answer.expiration.as_deref().and_then(rfc3339).map(Duration::from_nanos);
        Ok(Kept {
            credentials: Credentials {
                access_key_id: answer.access_key_id,
                secret_access_key: answer.secret_access_key,
                session_token: answer.token.filter(|token| !token.is_empty()),
            },
            expires: dated.unwrap_or_else(|| now.saturating_add(UNDATED_KEPT)),
        })
    }
}

/// Keys go over the network in the open only within the machine, or to where AWS has them so.
fn may_be_asked(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => !host.is_empty(),
        "http" => is_here || PLAIN_HOSTS.contains(&bare),
        _ => false,
    }
}

/// The token in a file, which is replaced now and then.
async fn token_in(path: PathBuf) -> Result<String, String> {
    let read = move || tls::content(Path::new(&path)).map_err(|error| error.to_string());
    let bytes = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
    let bytes = bytes.map_err(|error| format!("{TOKEN_FILE}: {error}"))?;
    String::from_utf8(bytes).map_err(|_| "the token is not text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_backend::keystore::{Keystore, Mood};

    const EPOCH: Duration = Duration::from_secs(1_440_938_160);

    fn source(variables: &[(&str, &str)]) -> Result<Source, AwsError> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Source::from_variables(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    fn answer(id: &str) -> Mood {
        Mood::Answers(
            200,
            format!(
                r#"{{"AccessKeyId":"{id}","SecretAccessKey":"hunter2","Token":"opaque","Expiration":"2015-08-30T13:36:00Z"}}"#
            ),
        )
    }

    #[tokio::test]
    async fn an_endpoint_is_asked_at_the_first_use_and_again_when_its_keys_expire() {
        let store = Keystore::start().await.unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from-a-file\n").unwrap();
        for (name, value, token) in
            [(TOKEN, "given", "given"), (TOKEN_FILE, file.path().to_str().unwrap(), "from-a-file")]
        {
            let before = store.asked().len();
            let source = source(&[(ENDPOINT, &store.url()), (name, value)]).unwrap();
            assert_eq!(store.asked().len(), before, "nothing is asked for before it is needed");
            store.behave(answer("first"));
            let first = source.credentials(EPOCH).await.unwrap();
            assert_eq!(
                (first.access_key_id.as_str(), first.session_token.as_deref()),
                ("first", Some("opaque"))
            );
            store.behave(answer("second"));
            assert_eq!(
                source.credentials(EPOCH + Duration::from_secs(3_500)).await,
                Ok(first.clone()),
                "kept"
            );
            assert_eq!(store.asked().len(), before + 1);
            assert_eq!(store.asked()[before].header("authorization"), Some(token));
            // Nearly expired, and the endpoint is away for a moment.
            store.behave(Mood::Answers(500, String::new()));
            assert_eq!(source.credentials(EPOCH + Duration::from_secs(3_550)).await, Ok(first));
            let expired = EPOCH + Duration::from_secs(3_601);
            assert!(source.credentials(expired).await.unwrap_err().contains("status 500"));
            store.behave(answer("second"));
            assert_eq!(source.credentials(expired).await.unwrap().access_key_id, "second");
        }
    }

    #[tokio::test]
    async fn what_the_endpoint_says_is_not_shown() {
        let store = Keystore::start().await.unwrap();
        store.behave(Mood::Answers(200, r#"{"AccessKeyId":["hunter2"]}"#.to_owned()));
        let source = source(&[(ENDPOINT, &store.url())]).unwrap();
        let reason = source.credentials(EPOCH).await.unwrap_err();
        assert!(reason.contains("holds no keys") && !reason.contains("hunter2"), "{reason}");
    }

    #[test]
    fn variables_come_first_and_plain_http_stays_on_the_machine() {
        let keys =
            [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), (ENDPOINT, "http://localhost:1/x")];
        assert!(matches!(source(&keys), Ok(Source::Variables(_))));
        assert!(matches!(source(&[]), Err(AwsError::Missing("AWS_ACCESS_KEY_ID"))));
        for (url, fine) in [
            ("http://localhost:9001/2021/credentials", true),
            ("http://127.0.0.1:9001/", true),
            ("http://[::1]:9001/", true),
            ("http://169.254.170.2/", true),
            ("http://[fd00:ec2::23]/", true),
            ("https://host.example/", true),
            ("http://host.example/", false),
            ("file:///x", false),
            ("nonsense", false),
        ] {
            assert_eq!(source(&[(ENDPOINT, url)]).is_ok(), fine, "{url}");
        }
    }
}
