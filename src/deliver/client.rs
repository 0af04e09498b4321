//! The HTTP client: built when it is first needed, with a pool of connections that can be forgotten as a whole.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url, redirect, retry};
use rustls::ClientConfig;

use super::acknowledge::{self, Acks};
use super::dialect::{self, End, Reply};
use super::lookup::Lookups;
use super::tls;
use super::verdict::{Cause, Verdict};
use crate::clock;
use crate::encode::Protocol;

/// Of an answer's body this much is read: a partial success or a status with its message is far smaller, and a
/// page of a proxy need not be kept.
pub const ANSWER_BODY_MAX_BYTES: usize = 64 << 10;

/// How long to wait for the body once the status is there, in milliseconds. The status decides, the body only
/// explains; a backend that hangs between the two must not make delivered data go again.
pub const ANSWER_BODY_WAIT_MAX_MS: u64 = 500;

/// The longest wait for a connection, in milliseconds. Enough for one lost SYN (sent again after 1 s) and a distant
/// handshake; more would hide an outage.
const CONNECT_MAX_MS: u64 = 3_000;

/// The share of a request's time that connecting may take, if that is shorter: it ends before the request is given up, so
/// that it is known that nothing was sent.
const CONNECT_SHARE: (u32, u32) = (3, 4);

/// Connections kept for the next request, per host: one request is in flight per signal.
const IDLE_CONNECTIONS_MAX: usize = 3;

/// How long an idle connection is kept, in seconds: less than the 60 s after which load balancers close theirs.
const IDLE_MAX_S: u64 = 50;

/// Stands for the system's own authorities where a file of them is named.
pub const SYSTEM: &str = "system";

/// Lets a backend drop a request that it has seen (IETF draft "The Idempotency-Key HTTP Header Field").
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// One request to be sent.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// Where to, complete.
    pub url: &'a Url,
    /// The user's headers. They yield to the ones below where both are set.
    pub headers: &'a HeaderMap,
    /// How the backend is spoken to, and with it how its answer is read.
    pub protocol: Protocol,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Whether the body is gzip.
    pub gzip: bool,
    /// The body, as it goes over the wire.
    pub body: Bytes,
    /// The same for every attempt to send the same data.
    pub idempotency_key: &'a str,
}

/// Sends requests to one backend. Cheap to make: everything that takes time happens at [`Client::prepared`], or
/// else at the first request.
pub struct Client {
    connect_timeout: Duration,
    roots: Roots,
    ca_file: Option<PathBuf>,
    /// Files of a certificate and of its key, shown to whoever asks.
    identity: Option<(PathBuf, PathBuf)>,
    /// Bytes of the bodies of requests that were begun.
    egress_bytes: AtomicU64,
    lookups: Lookups,
    pub(super) acks: Acks,
    /// Made once; holds the cache of TLS sessions across [`Client::renew`].
    tls: OnceLock<ClientConfig>,
    /// Locked while that is made, so that nobody else makes it too.
    preparing: tokio::sync::Mutex<()>,
    inner: Mutex<Pools>,
}

/// The pools of connections, made when they are first needed.
#[derive(Default)]
struct Pools {
    /// To this machine, which a proxy would look for on its own.
    here: Option<reqwest::Client>,
    /// To all others, by the proxies of the environment.
    elsewhere: Option<reqwest::Client>,
}

impl Pools {
    fn of(&mut self, is_here: bool) -> &mut Option<reqwest::Client> {
        if is_here { &mut self.here } else { &mut self.elsewhere }
    }
}

/// What is trusted at the other end.
#[derive(Clone)]
enum Roots {
    /// Nothing: plain HTTP, where TLS never happens and setting it up would be waste.
    Plain,
    /// Mozilla's list.
    Web,
    /// Certificates of a test.
    #[cfg(test)]
    Only(rustls::RootCertStore),
}

impl Client {
    /// A client for requests to `endpoints` (and their paths) that may take `timeout` each. Nothing is built yet.
    pub fn new(endpoints: &[Url], timeout: Duration) -> Self {
        let secure = endpoints.iter().any(|url| url.scheme() == "https");
        Self {
            connect_timeout: (timeout / CONNECT_SHARE.1 * CONNECT_SHARE.0)
                .min(Duration::from_millis(CONNECT_MAX_MS)),
            roots: if secure { Roots::Web } else { Roots::Plain },
            ca_file: None,
            identity: None,
            egress_bytes: AtomicU64::new(0),
            lookups: Lookups::new(),
            acks: Acks::default(),
            tls: OnceLock::new(),
            preparing: tokio::sync::Mutex::new(()),
            inner: Mutex::new(Pools::default()),
        }
    }

    /// A client for requests to any place.
    pub fn of_any(timeout: Duration) -> Self {
        Self { roots: Roots::Web, ..Self::new(&[], timeout) }
    }

    /// Trusts the certificate authorities of this PEM file as well, or those of the system if it is [`SYSTEM`]. If it cannot be read, one line says so.
    #[must_use]
    pub fn trusting(self, ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, ..self }
    }

    /// Shows this certificate to a backend that asks for one; its key is in the file `key`, or else in the same. If they cannot
    /// be used, one line says so.
    #[must_use]
    pub fn showing(self, certificate: Option<PathBuf>, key: Option<PathBuf>) -> Self {
        let identity = certificate.map(|certificate| (certificate.clone(), key.unwrap_or(certificate)));
        Self { identity, ..self }
    }

    /// Bytes of the bodies of all requests so far, whatever became of them.
    pub fn egress_bytes(&self) -> u64 {
        self.egress_bytes.load(Ordering::Relaxed)
    }

    /// Has TLS built, which reads files and takes milliseconds, on a thread that may be kept busy; once. Whoever is about to
    /// send waits for it here, and may give up.
    pub async fn prepared(self: &Arc<Self>) {
        if self.tls.get().is_some() {
            return;
        }
        let _alone = self.preparing.lock().await;
        if self.tls.get().is_none() {
            let client = Arc::clone(self);
            // Should it fail, the request says why.
            drop(tokio::task::spawn_blocking(move || drop(client.tls())).await);
        }
    }

    /// Forgets all connections, after a freeze or when one is in doubt. Requests in flight keep theirs; TLS
    /// sessions are kept for resumption.
    pub fn renew(&self) {
        *self.slot() = Pools::default();
    }

    /// Makes one attempt. There is no time-out for the whole: drop the future to give up, in which case the
    /// backend may or may not have the data.
    pub async fn send(&self, outgoing: Outgoing<'_>) -> Verdict {
        match acknowledge::address(&outgoing) {
            Some(address) => self.send_acknowledged(&address, outgoing).await,
            None => self.post(outgoing, None).await,
        }
    }

    /// The same, without waiting for an acknowledgement: `ack` becomes the id of the one that there will be.
    pub(super) async fn post(&self, outgoing: Outgoing<'_>, ack: Option<&mut Option<u64>>) -> Verdict {
        let client = match self.current(outgoing.url) {
            Ok(client) => client,
            Err(reason) => return unreachable(reason),
        };
        let Ok(key) = HeaderValue::from_str(outgoing.idempotency_key) else {
            return unreachable("the idempotency key is not a header value".to_owned());
        };
        self.egress_bytes.fetch_add(outgoing.body.len() as u64, Ordering::Relaxed);
        let mut headers = outgoing.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(outgoing.content_type));
        headers.insert(IDEMPOTENCY_KEY, key);
        if outgoing.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let request = client.post(outgoing.url.clone()).headers(headers).body(outgoing.body);
        attempt(request, outgoing.protocol, outgoing.gzip, ack).await
    }

    /// Makes one attempt to PUT `body` at `url`, with these headers and no others of ours. As [`Client::send`] in all
    /// other respects.
    pub async fn put(&self, url: Url, headers: HeaderMap, body: Bytes) -> Verdict {
        self.egress_bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        match self.current(&url) {
            Ok(client) => {
                attempt(client.put(url).headers(headers).body(body), Protocol::Otlp, false, None).await
            }
            Err(reason) => unreachable(reason),
        }
    }

    /// Makes one request to something that is no backend, and gives the status and the body of its answer.
    ///
    /// # Errors
    /// Why there is no whole answer of at most `max_bytes`, on one line.
    pub async fn exchange(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
        max_bytes: usize,
    ) -> Result<(u16, Vec<u8>), String> {
        let sent = self.current(&url)?.request(method, url).headers(headers).body(body).send().await;
        let mut response = sent.map_err(|error| reason(&error.without_url()))?;
        let mut answer = Vec::new();
        match read(&mut response, max_bytes, &mut answer).await {
            End::Whole => Ok((response.status().as_u16(), answer)),
            End::Cut | End::Broken => Err("its answer is cut off or too long".to_owned()),
        }
    }

    /// The client with the present pool for requests to `url`, built if there is none.
    fn current(&self, url: &Url) -> Result<reqwest::Client, String> {
        let is_here = is_loopback(url);
        if let Some(client) = self.slot().of(is_here) {
            return Ok(client.clone());
        }
        // Not under the lock: TLS may not be there yet, and whoever waits for a lock cannot give up.
        let client = self.build(is_here)?;
        Ok(self.slot().of(is_here).get_or_insert(client).clone())
    }

    fn build(&self, is_here: bool) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls()?)
            .dns_resolver(self.lookups.clone())
            .http1_only()
            .user_agent(USER_AGENT)
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(Duration::from_secs(IDLE_MAX_S))
            .redirect(redirect::Policy::none())
            .referer(false)
            .retry(retry::never());
        if is_here {
            builder = builder.no_proxy();
        }
        builder.build().map_err(|error| reason(&error))
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let mut roots = match &self.roots {
            Roots::Plain => rustls::RootCertStore::empty(),
            Roots::Web => tls::web_roots(),
            #[cfg(test)]
            Roots::Only(roots) => roots.clone(),
        };
        let add = |file: &PathBuf, roots: &mut _| {
            if file.as_os_str() == SYSTEM { tls::add_system(roots) } else { tls::add_file(roots, file) }
        };
        if let (Some(file), Roots::Web) = (&self.ca_file, &self.roots)
            && let Err(error) = add(file, &mut roots)
        {
            log::warn!(
                "OUTLAST_CA_FILE={}: {error}; only the built-in authorities are trusted",
                file.display()
            );
        }
        let config = self.with_identity(&roots).map_or_else(|| tls::client_config(roots, None), Ok);
        let config = config.map_err(|error| format!("TLS cannot be set up: {error}"))?;
        Ok(self.tls.get_or_init(|| config).clone())
    }

    /// A configuration that shows the certificate; `None` if there is none, or after a line that says why it cannot be shown.
    fn with_identity(&self, roots: &rustls::RootCertStore) -> Option<ClientConfig> {
        let (certificate, key) = self.identity.as_ref().filter(|_| !matches!(self.roots, Roots::Plain))?;
        let config =
            tls::identity(certificate, key).map_err(|error| error.to_string()).and_then(|identity| {
                tls::client_config(roots.clone(), Some(identity)).map_err(|error| error.to_string())
            });
        let told = |error: &String| {
            let file = certificate.display();
            log::warn!("OUTLAST_CLIENT_CERT_FILE={file}: {error}; no certificate is shown to the backend");
        };
        config.inspect_err(told).ok()
    }

    fn slot(&self) -> MutexGuard<'_, Pools> {
        // The lock only guards a value that is replaced as a whole: a panic elsewhere cannot have torn it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Client {
    /// Without the inner client, which shows the proxy with its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("connect_timeout", &self.connect_timeout).finish_non_exhaustive()
    }
}

/// Whether a proxy from the environment could not reach `url`, which is on this machine.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

async fn attempt(
    request: RequestBuilder,
    protocol: Protocol,
    gzip: bool,
    ack: Option<&mut Option<u64>>,
) -> Verdict {
    match request.send().await {
        Ok(response) => judge(response, protocol, gzip, ack).await,
        Err(error) => Verdict::Retry { cause: cause(&error.without_url()), after: None },
    }
}

fn unreachable(reason: String) -> Verdict {
    Verdict::Retry { cause: Cause::Unreachable(reason), after: None }
}

async fn judge(
    mut response: Response,
    protocol: Protocol,
    gzip: bool,
    ack: Option<&mut Option<u64>>,
) -> Verdict {
    let status = response.status().as_u16();
    let ack = ack.filter(|_| response.status().is_success());
    let for_ack = ack.is_some().then_some(ANSWER_BODY_MAX_BYTES);
    let deciding_bytes = dialect::deciding_bytes(protocol, status).or(for_ack);
    let mut body = Vec::new();
    let read = read(&mut response, deciding_bytes.unwrap_or(ANSWER_BODY_MAX_BYTES), &mut body);
    let end = if deciding_bytes.is_some() {
        // As long as the request itself may take.
        read.await
    } else {
        tokio::time::timeout(Duration::from_millis(ANSWER_BODY_WAIT_MAX_MS), read)
            .await
            .unwrap_or(End::Broken)
    };
    if end == End::Broken {
        log::debug!("status {status} came without the rest of its body");
    }
    if let Some(ack) = ack {
        *ack = acknowledge::id(&body);
        if end == End::Broken && ack.is_none() {
            return Verdict::Retry { cause: Cause::Broken, after: None };
        }
    }
    let (headers, now_unix) = (response.headers(), clock::unix_now());
    dialect::judge(protocol, &Reply { status, headers, body: &body, end, gzip, now_unix })
}

/// Reads at most `max_bytes` of an answer's body.
async fn read(response: &mut Response, max_bytes: usize, body: &mut Vec<u8>) -> End {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = max_bytes.saturating_sub(body.len());
                body.extend(chunk.iter().take(room));
                if room < chunk.len() {
                    return End::Cut;
                }
            }
            Ok(None) => return End::Whole,
            Err(_) => return End::Broken,
        }
    }
}

/// What an error says about the fate of the request.
///
/// hyper calls a request canceled if, and only if, it never left the process (it hands it back); one that meets
/// a pooled connection which is already known to be closed is even sent again by the pool, on a fresh one.
fn cause(error: &reqwest::Error) -> Cause {
    let canceled =
        chain(error).filter_map(|error| error.downcast_ref::<hyper::Error>()).any(hyper::Error::is_canceled);
    if error.is_connect() || error.is_builder() || canceled {
        return Cause::Unreachable(reason(error));
    }
    log::debug!("connection lost: {}", reason(error));
    Cause::Broken
}

/// The innermost reason, which is the telling one ("Connection refused"), with DNS and TLS named. The outer ones
/// only say that a request failed.
fn reason(error: &reqwest::Error) -> String {
    let innermost = chain(error).last().map(ToString::to_string).unwrap_or_default();
    if error.is_dns() {
        format!("name lookup failed: {innermost}")
    } else if error.is_timeout() {
        "no connection in time".to_owned()
    } else {
        innermost
    }
}

/// The error and what caused it, outermost first. An I/O error may wrap another one without having it as its
/// source (TLS handshakes do), so that is looked into as well.
fn chain<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let first: &'a (dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        wrapped.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

#[cfg(test)]
mod tests;
