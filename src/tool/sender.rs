//! One destination, and the patience of a replay with it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use xxhash_rust::xxh3::xxh3_128;

use crate::config::Config;
use crate::deliver::{Client, Outgoing, Vault, Verdict};
use crate::encode::{Protocol, WireFormat};
use crate::{Signal, clock};

/// Failures in a row after which a replay ends; it goes on where it was when it is run again.
const FAILURES_MAX: u32 = 12;

/// After so many 500 in a row to one request it may be its content: smaller ones are tried.
const SERVER_ERRORS_MAX: u32 = 3;

/// After so many records in a row that are answered 500 it is the destination, and not they.
const SUSPECTS_MAX: u32 = 16;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// Taken; so many of its records were not.
    Taken(u64),
    /// Too large.
    TooLarge,
    /// Refused for good, in the destination's words.
    Refused(String),
    /// Answered 500 again and again.
    Breaks,
    /// Not as gzip.
    NoGzip,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) requests: u64,
    pub(super) records: u64,
    pub(super) refused: u64,
    pub(super) skipped: u64,
}

pub(super) struct Sender {
    config: Config,
    client: Client,
    vault: Vault,
    wire: Box<dyn WireFormat>,
    pub(super) gzip: bool,
    bytes_per_second: Option<u64>,
    pub(super) totals: Totals,
    /// What the destination has no place for, and how many.
    left_out: BTreeMap<String, u64>,
    /// Records that were answered 500 since the last request that was taken.
    suspects: u32,
    /// Something was taken.
    took: bool,
}

impl Sender {
    /// Stands for where it goes, without saying it: an address may have a password in it.
    pub(super) fn destination(&self) -> u64 {
        let urls = Signal::ALL.map(|signal| self.config.signal_url(signal).map(|url| url.to_string()));
        xxhash_rust::xxh3::xxh3_64(format!("{urls:?}").as_bytes())
    }

    pub(super) fn new(config: &Config, bytes_per_second: Option<u64>) -> Self {
        let urls: Vec<_> = Signal::ALL.into_iter().filter_map(|signal| config.signal_url(signal)).collect();
        let client = Client::new(&urls, config.timeout)
            .trusting(config.ca_file.clone())
            .showing(config.client_cert_file.clone(), config.client_key_file.clone());
        Self {
            client,
            vault: Vault::new(config.timeout, config.ca_file.clone(), |name| std::env::var(name).ok()),
            wire: config.protocol.wire(),
            gzip: config.gzip,
            bytes_per_second: bytes_per_second.or(config.rate_limit),
            config: config.clone(),
            totals: Totals::default(),
            left_out: BTreeMap::new(),
            suspects: 0,
            took: false,
        }
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.config.protocol
    }

    /// A record of `source` is not sent.
    ///
    /// # Errors
    /// If the destination seems to be at fault.
    pub(super) fn gives_up(&mut self, source: &str, judged: &Judged) -> Result<(), String> {
        if *judged == Judged::Breaks {
            self.suspects += 1;
            if self.suspects >= SUSPECTS_MAX {
                return Err(
                    "the destination answers 500 to everything; run this again later to go on".to_owned()
                );
            }
        }
        eprintln!("a record of {source} is refused: {judged:?}");
        self.totals.refused += 1;
        Ok(())
    }

    /// The destination has no place for so many of these.
    pub(super) fn leaves_out(&mut self, what: String, count: u64) {
        if count > 0 {
            *self.left_out.entry(what).or_default() += count;
            self.totals.skipped += count;
        }
    }

    /// Says what the destination has no place for.
    pub(super) fn tell_left_out(&self) {
        for (what, count) in &self.left_out {
            eprintln!("{count} {what} left out: {} has no place for them", self.protocol().name());
        }
    }

    /// Whether what was left out was so for good: something else was taken after each 500.
    pub(super) fn is_trusted(&self) -> bool {
        self.suspects == 0
    }

    /// Whether the destination takes anything at all.
    ///
    /// # Errors
    /// If not: then what it answers 500 to is not known to be at fault.
    pub(super) fn takes_anything(&self) -> Result<(), String> {
        self.took.then_some(()).ok_or_else(|| "the destination answers 500; run this again later".to_owned())
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.config.batch_max_bytes as u64
    }

    /// Bytes of all requests so far.
    pub(super) fn egress_bytes(&self) -> u64 {
        self.client.egress_bytes()
    }

    /// Sends `body` until the destination says something about it.
    ///
    /// # Errors
    /// If it is away for long, or if its answers speak of the settings.
    pub(super) async fn send(&mut self, signal: Signal, body: Vec<u8>, gzip: bool) -> Result<Judged, String> {
        let Some(url) = self.config.signal_url(signal) else {
            return Err(format!("there is no endpoint for {signal}: set OUTLAST_ENDPOINT"));
        };
        let key = format!("{:032x}", xxh3_128(&body));
        let body = Bytes::from(body);
        let headers = self.config.signal_headers(signal);
        let mut pause = self.config.retry_initial;
        let mut server_errors = 0;
        for _ in 0..FAILURES_MAX {
            let outgoing = Outgoing {
                url: &url,
                headers: &HeaderMap::new(),
                protocol: self.config.protocol,
                content_type: self.wire.content_type(),
                gzip,
                body: body.clone(),
                idempotency_key: &key,
            };
            let verdict = tokio::select! {
                biased;
                verdict = self.vault.send(&self.client, headers, outgoing) => Some(verdict),
                () = clock::sleep(self.config.timeout) => None,
            };
            self.totals.requests += 1;
            self.pace(body.len()).await;
            let (told, after) = match verdict {
                Some(Verdict::Delivered { rejected, .. } | Verdict::Sifted { rejected, .. }) => {
                    (self.suspects, self.took) = (0, true);
                    return Ok(Judged::Taken(rejected));
                }
                Some(Verdict::TooLarge) => return Ok(Judged::TooLarge),
                Some(Verdict::GzipRefused) => return Ok(Judged::NoGzip),
                Some(Verdict::Refused { status, message }) => {
                    return Ok(Judged::Refused(format!("{status} {message}")));
                }
                Some(Verdict::Denied { status }) => {
                    return Err(format!(
                        "{url} answers {status}: endpoint, path or credentials are wrong",
                        url = shown(&url)
                    ));
                }
                Some(Verdict::Retry { cause, after }) => (cause.to_string(), after),
                Some(Verdict::ServerError { after }) => {
                    server_errors += 1;
                    if server_errors >= SERVER_ERRORS_MAX {
                        return Ok(Judged::Breaks);
                    }
                    ("status 500".to_owned(), after)
                }
                None => ("no answer in time".to_owned(), None),
            };
            let wait = after.unwrap_or_else(|| pause.mul_f64(fastrand::f64()));
            eprintln!("{}: {told}; trying again in {} ms", shown(&url), wait.as_millis());
            clock::sleep(wait).await;
            pause = pause.saturating_mul(2).min(self.config.retry_max);
        }
        Err(format!("{} does not take anything; run this again later to go on", shown(&url)))
    }

    /// Waits for as long as so many bytes take.
    async fn pace(&self, bytes: usize) {
        if let Some(rate) = self.bytes_per_second {
            let millis = (bytes as u64).saturating_mul(1_000) / rate.max(1);
            clock::sleep(Duration::from_millis(millis)).await;
        }
    }
}

/// Without what may be secret.
fn shown(url: &reqwest::Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}
