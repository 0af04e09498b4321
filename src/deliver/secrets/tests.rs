use super::*;
use outlast_backend::keystore::{Keystore, Mood};
use outlast_backend::{Backend, Behaviour, Request};
use reqwest::header::AUTHORIZATION;
use std::sync::OnceLock;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The store, and what is asked of it: tests share the environment, so each answer is told by the secret's name.
static STORE: OnceLock<String> = OnceLock::new();

fn variable(name: &str) -> Option<String> {
    Some(match name {
        "AWS_ACCESS_KEY_ID" => "AKIDEXAMPLE".to_owned(),
        "AWS_SECRET_ACCESS_KEY" => "hunter2".to_owned(),
        "AWS_SESSION_TOKEN" => "opaque".to_owned(),
        "AWS_REGION" => "eu-west-1".to_owned(),
        "AWS_ENDPOINT_URL_SSM" | "AWS_ENDPOINT_URL_SECRETS_MANAGER" => STORE.get()?.clone(),
        _ => return None,
    })
}

fn header(value: &str) -> Option<Result<SecretHeader, String>> {
    SecretHeader::parse(&AUTHORIZATION, value)
}

fn wanted(value: &str) -> Headers {
    Headers { fixed: HeaderMap::new(), secret: vec![header(value).unwrap().unwrap()] }
}

fn attempt(url: &Url) -> Outgoing<'_> {
    static NONE: OnceLock<HeaderMap> = OnceLock::new();
    Outgoing {
        url,
        headers: NONE.get_or_init(HeaderMap::new),
        protocol: crate::encode::Protocol::Otlp,
        content_type: "application/x-protobuf",
        gzip: false,
        body: Bytes::new(),
        idempotency_key: "key",
    }
}

fn keys_at(requests: &[Request]) -> Vec<&str> {
    requests.iter().filter_map(|request| request.header("authorization")).collect()
}

/// A store, a backend, and a vault: all that a request needs, one test at a time.
struct World {
    store: Keystore,
    backend: Backend,
    client: Client,
    url: Url,
    vault: Vault,
}

impl World {
    async fn new(store: Keystore) -> Self {
        let backend = Backend::start().await.unwrap();
        let url: Url = format!("{}/v1/logs", backend.url()).parse().unwrap();
        let client = Client::new(std::slice::from_ref(&url), TIMEOUT);
        Self { store, backend, client, url, vault: Vault::new(TIMEOUT, None, variable) }
    }

    async fn send(&self, wanted: &Headers) -> Verdict {
        self.vault.send(&self.client, wanted, attempt(&self.url)).await
    }

    fn keys(&self) -> Vec<String> {
        keys_at(&self.backend.requests()).into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn a_reference_is_the_whole_value_or_its_last_word() {
    let read = |value| header(value).map(|found| found.map(|h| (h.before, h.reference.to_string())));
    let found = |before: &str, reference: &str| Some(Ok((before.to_owned(), reference.to_owned())));
    assert_eq!(read("ssm:/a/b"), found("", "ssm:/a/b"));
    assert_eq!(read("Bearer ssm:name#k"), found("Bearer ", "ssm:name#k"));
    assert_eq!(read("secretsmanager:name"), found("", "secretsmanager:name"));
    for none in ["", "plain", "xssm:/a", "ssm:/a b", "SSM:/a"] {
        assert_eq!(read(none), None, "{none}");
    }
    for nothing in ["ssm:", "ssm:#k", "secretsmanager:x#"] {
        assert!(read(nothing).is_some_and(|found| found.is_err()), "{nothing}");
    }
}

#[test]
fn the_region_is_that_of_the_arn() {
    let region = |text| {
        Reference::parse(text).and_then(Result::ok).and_then(|found| found.region().map(str::to_owned))
    };
    assert_eq!(
        region("secretsmanager:arn:aws:secretsmanager:us-east-2:1:secret:n"),
        Some("us-east-2".to_owned())
    );
    assert_eq!(region("ssm:arn:aws:ssm:eu-west-3:1:parameter/x"), Some("eu-west-3".to_owned()));
    assert_eq!(region("ssm:/arn"), None);
    assert_eq!(region("secretsmanager:arn:aws"), None);
}

#[test]
fn a_member_of_an_object_is_text_or_a_number() {
    let of = |text: &str| member(text, Some("k"));
    assert_eq!(of(r#"{"k":"v"}"#), Ok("v".to_owned()));
    assert_eq!(of(r#"{"k":7}"#), Ok("7".to_owned()));
    for wrong in ["hunter2", r#"{"x":"hunter2"}"#, r#"{"k":{"x":"hunter2"}}"#] {
        assert!(of(wrong).is_err_and(|reason| !reason.contains("hunter2")), "{wrong}");
    }
}

/// One test, for the store's address is in what stands for the environment.
#[tokio::test]
async fn values_are_fetched_signed_kept_and_renewed() {
    let store = Keystore::start().await.unwrap();
    STORE.set(store.url()).unwrap();
    let world = World::new(store).await;
    let bearer = wanted("Bearer ssm:/key");

    // It cannot be had: no request is made, the reason is told without line breaks, and holds for a moment.
    world.store.behave(Mood::denied());
    let reason = "ssm:/key: 400 AccessDeniedException User x is not authorized".to_owned();
    let locked = Verdict::Retry { cause: Cause::NoSecret(reason), after: None };
    assert_eq!(world.send(&bearer).await, locked);
    assert_eq!(world.send(&bearer).await, locked);
    assert_eq!((world.store.asked().len(), world.backend.requests().len()), (1, 0));

    // It can: it is asked for once, whoever needs it.
    let vault = Vault::new(TIMEOUT, None, variable);
    let world = World { vault, ..world };
    world.store.behave(Mood::parameter("first\n"));
    let all = [world.send(&bearer), world.send(&bearer), world.send(&bearer)];
    let [a, b, c] = all;
    let (a, b, c) = tokio::join!(a, b, c);
    for verdict in [a, b, c] {
        assert!(matches!(verdict, Verdict::Delivered { .. }), "{verdict:?}");
    }
    assert_eq!(world.keys(), ["Bearer first"; 3]);
    let asked = world.store.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].header("x-amz-target"), Some("AmazonSSM.GetParameter"));
    let signature = asked[1].header("authorization").unwrap();
    let signed =
        "SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;x-amz-security-token;x-amz-target";
    assert!(signature.contains("/eu-west-1/ssm/aws4_request") && signature.contains(signed), "{signature}");

    // It was rotated: the backend's 401 leads to the new one, and nobody notices.
    world.store.behave(Mood::parameter("second"));
    world.backend.next(Behaviour::status(401));
    assert!(matches!(world.send(&bearer).await, Verdict::Delivered { .. }));
    assert_eq!(world.keys().last().map(String::as_str), Some("Bearer second"));
    assert_eq!(world.store.asked().len(), 3);

    // A backend that takes no credentials at all costs one look-up a minute.
    world.backend.behave(Behaviour::status(403));
    for _ in 0..3 {
        assert_eq!(world.send(&bearer).await, Verdict::Denied { status: 403 });
    }
    assert_eq!(world.store.asked().len(), 3);

    // Members of one secret are one secret.
    world.store.behave(Mood::secret(r#"{"user":"u","key":"k"}"#));
    let mut both = wanted("secretsmanager:n#user");
    both.secret.push(
        SecretHeader::parse(&HeaderName::from_static("x-key"), "secretsmanager:n#key").unwrap().unwrap(),
    );
    let headers = world.vault.headers(&both).await.unwrap();
    assert_eq!(
        (&headers["authorization"], &headers["x-key"]),
        (&"u".parse().unwrap(), &"k".parse().unwrap())
    );
    assert!(headers.values().all(HeaderValue::is_sensitive));
    let asked = world.store.asked();
    assert_eq!(asked.len(), 4);
    assert_eq!(asked[3].header("x-amz-target"), Some("secretsmanager.GetSecretValue"));
}

#[tokio::test]
async fn without_credentials_the_variable_is_named() {
    let vault = Vault::new(TIMEOUT, None, |_| None);
    let reason = vault.headers(&wanted("ssm:/x")).await.unwrap_err();
    assert_eq!(reason, "ssm:/x: AWS_ACCESS_KEY_ID is not set");
}
