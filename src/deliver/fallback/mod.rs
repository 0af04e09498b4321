//! Where telemetry goes that the backend does not take: a bucket of S3, a second backend, or stdout.
//!
//! What it gets is what the backend would have got, a body joined from stored blocks. As towards the backend one call
//! is one attempt that comes back with a [`Verdict`]; when and what is decided elsewhere. Nothing is set up before the
//! first attempt: most environments never need one.

mod s3;
mod stdout;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Url;
use reqwest::header::HeaderMap;

use super::client::{Client, Outgoing};
use super::secrets::{Headers, Vault};
use super::verdict::Verdict;
use crate::encode::Protocol;
use crate::{PerSignal, Signal};

#[cfg(feature = "tool")]
pub use s3::Listed;
pub use s3::{ENDPOINT_VARIABLE, OBJECT_MAX_PLAIN_BYTES, S3};
pub use stdout::{SHUTDOWN_MAX_BYTES, STDOUT_BYTES_PER_SECOND_MAX, Stdout, is_echo};

/// A request body and what its name is made of.
#[derive(Clone, Debug)]
pub struct Parcel<'a> {
    /// The signal of the records.
    pub signal: Signal,
    /// How the body is worded.
    pub protocol: Protocol,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Whether the body is gzip.
    pub gzip: bool,
    /// The body.
    pub body: Bytes,
    /// Hash of the body in hexadecimal.
    pub hash: &'a str,
    /// Records in it.
    pub records: u64,
    /// Sequence number of the first block in it.
    pub first: u64,
    /// The first record of that block that is in it.
    pub from_record: u32,
    /// When that was received, as time since the Unix epoch.
    pub received: Duration,
    /// The queue it comes from.
    pub queue_id: u128,
}

/// A second place for telemetry.
pub enum Fallback {
    /// Objects in a bucket.
    S3(S3),
    /// Lines on stdout.
    Stdout(Stdout),
    /// A second backend.
    Http(Http),
}

/// A second backend, of the same wire format as the first.
pub struct Http {
    client: Arc<Client>,
    urls: PerSignal<Url>,
    headers: Headers,
    vault: Arc<Vault>,
}

impl Http {
    /// A backend that takes each signal at its URL, with `headers` and none of the first backend's. A connection is
    /// waited for no longer than `timeout`; the authorities of `ca_file` are trusted as well.
    pub fn new(
        urls: PerSignal<Url>,
        headers: Headers,
        vault: Arc<Vault>,
        timeout: Duration,
        ca_file: Option<PathBuf>,
    ) -> Self {
        let all: Vec<Url> = urls.iter().map(|(_, url)| url.clone()).collect();
        Self { client: Arc::new(Client::new(&all, timeout).trusting(ca_file)), urls, headers, vault }
    }

    async fn send(&self, parcel: Parcel<'_>) -> Verdict {
        self.client.prepared().await;
        let outgoing = Outgoing {
            url: self.urls.get(parcel.signal),
            headers: &HeaderMap::new(),
            protocol: parcel.protocol,
            content_type: parcel.content_type,
            gzip: parcel.gzip,
            body: parcel.body,
            idempotency_key: parcel.hash,
        };
        self.vault.send(&self.client, &self.headers, outgoing).await
    }
}

impl Fallback {
    /// Makes one attempt. There is no time-out for the whole: drop the future to give up, in which case the fallback
    /// may or may not have the data.
    pub async fn send(&self, parcel: Parcel<'_>) -> Verdict {
        match self {
            Self::S3(s3) => s3.send(parcel).await,
            Self::Stdout(stdout) => stdout.send(&parcel).await,
            Self::Http(http) => http.send(parcel).await,
        }
    }

    /// What a body of so many bytes becomes on its way, in bytes.
    pub fn wire_bytes(&self, body_bytes: usize) -> u64 {
        match self {
            Self::Stdout(_) => stdout::lines_bytes(body_bytes),
            Self::S3(_) | Self::Http(_) => body_bytes as u64,
        }
    }

    /// Bytes of the bodies of all requests so far. What goes to stdout is not sent by us.
    pub fn egress_bytes(&self) -> u64 {
        match self {
            Self::S3(s3) => s3.egress_bytes(),
            Self::Http(http) => http.client.egress_bytes(),
            Self::Stdout(_) => 0,
        }
    }

    /// Forgets all connections; see [`Client::renew`].
    pub fn renew(&self) {
        match self {
            Self::S3(s3) => s3.renew(),
            Self::Http(http) => http.client.renew(),
            Self::Stdout(_) => {}
        }
    }
}

impl fmt::Debug for Fallback {
    /// Without credentials and headers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3(_) => "Fallback::S3",
            Self::Stdout(_) => "Fallback::Stdout",
            Self::Http(_) => "Fallback::Http",
        })
    }
}
