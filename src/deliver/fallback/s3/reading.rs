//! Reading objects back, for those who replay them.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, Url};

use super::{S3, SERVICE};
use crate::clock;
use crate::deliver::aws::{Unsigned, encoded_path};
use crate::encode::Protocol;

/// A page of a listing has 1,000 keys of at most 1,024 bytes, and as much again around each (`ListObjectsV2`).
const PAGE_MAX_BYTES: usize = 8 << 20;
/// Far more than an object can have: a block larger than the bound of an object is one record of the function's.
const OBJECT_MAX_BYTES: usize = 256 << 20;
/// A page or an object that is not there after this is given up: 4 MiB in it are 70 kB per second.
pub(super) const READ_MAX: Duration = Duration::from_secs(60);
/// A page or an object is asked for so often.
const ATTEMPTS_MAX: u32 = 3;

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub bytes: u64,
}

impl S3 {
    /// Every object below the prefix, in the order of the keys.
    ///
    /// # Errors
    /// Why it cannot be listed, on one line.
    pub async fn list(&self) -> Result<Vec<Listed>, String> {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            // Names sorted, as the signature wants them.
            let token = next
                .take()
                .map_or_else(String::new, |token| format!("continuation-token={}&", encoded(&token)));
            let prefix = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
            let url = format!("{}/?{token}list-type=2&prefix={}", self.base, encoded(&prefix));
            let page = self.read(&url, PAGE_MAX_BYTES).await?;
            let page = String::from_utf8_lossy(&page);
            for item in page.split("<Contents>").skip(1) {
                let bytes = element(item, "Size").and_then(|size| size.parse().ok()).unwrap_or_default();
                found.extend(element(item, "Key").map(|key| Listed { key, bytes }));
            }
            next = element(&page, "NextContinuationToken");
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// What the object `key` holds.
    ///
    /// # Errors
    /// Why it cannot be read, on one line.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>, String> {
        self.read(&format!("{}/{}", self.base, encoded_path(key)), OBJECT_MAX_BYTES).await
    }

    async fn read(&self, url: &str, max_bytes: usize) -> Result<Vec<u8>, String> {
        for _ in 0..ATTEMPTS_MAX {
            tokio::select! {
                biased;
                read = self.read_once(url, max_bytes) => return read,
                () = clock::sleep(self.read_max) => self.renew(),
            }
        }
        Err("no answer in time".to_owned())
    }

    async fn read_once(&self, url: &str, max_bytes: usize) -> Result<Vec<u8>, String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        let region = &self.aws.region;
        let unsigned =
            Unsigned { service: SERVICE, region, method: "GET", url: &url, headers: &[], body: &[] };
        let headers = self.aws.signed(&unsigned, clock::unix_now()).await?;
        let (status, body) = self.client.exchange(Method::GET, url, headers, Bytes::new(), max_bytes).await?;
        if status == 200 {
            return Ok(body);
        }
        let body = String::from_utf8_lossy(&body);
        let code = element(&body, "Code").unwrap_or_default();
        Err(format!("status {status} {code}"))
    }
}

impl super::super::Parcel<'_> {
    /// The protocol in the key of an object; `None` if it does not say, as keys once did not.
    pub fn protocol_of(key: &str) -> Option<Protocol> {
        let name = key.strip_suffix(".gz").unwrap_or(key);
        // Where the protocol is missing the media type's extension alone follows the hash.
        let (name, _) = name.rsplit_once('.')?;
        let (name, protocol) = name.rsplit_once('.')?;
        let protocol = Protocol::ALL.into_iter().find(|known| known.name() == protocol);
        protocol.filter(|_| !name.ends_with('/'))
    }

    /// The time in the key of an object, since the Unix epoch.
    pub fn received_of(key: &str) -> Option<Duration> {
        let (_, name) = key.rsplit_once('/')?;
        let time = name.split('-').nth(1)?;
        let digits =
            |range: std::ops::Range<usize>| time.get(range).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        let (date, clock) = (digits(0..8)?, digits(9..18)?);
        let part = |text: &str, range: std::ops::Range<usize>| text.get(range).map(str::to_owned);
        let text = format!(
            "{}-{}-{}T{}:{}:{}.{}Z",
            part(date, 0..4)?,
            part(date, 4..6)?,
            part(date, 6..8)?,
            part(clock, 0..2)?,
            part(clock, 2..4)?,
            part(clock, 4..6)?,
            part(clock, 6..9)?
        );
        crate::record::time::rfc3339(&text).map(Duration::from_nanos)
    }
}

/// As a query wants it: a slash is no unreserved character there.
fn encoded(text: &str) -> String {
    encoded_path(text).replace('/', "%2F")
}

/// The text of the first element `name`.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let entities =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")];
    Some(entities.iter().fold(text.to_owned(), |text, (entity, is)| text.replace(entity, is)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::aws::Aws;
    use crate::deliver::fallback::Parcel;

    #[tokio::test]
    async fn a_bucket_that_does_not_answer_is_given_up() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let variable = |name: &str| {
            Some(if name.starts_with("AWS_ENDPOINT") { endpoint.clone() } else { "x".to_owned() })
        };
        let aws = Aws::from_variables(variable, super::super::ENDPOINT_VARIABLE).unwrap();
        let s3 = S3::new(aws, "bucket", "", Duration::from_secs(1), None).unwrap();
        let s3 = S3 { read_max: Duration::from_millis(20), ..s3 };
        assert_eq!(s3.list().await, Err("no answer in time".to_owned()));
        assert_eq!(s3.get("key").await, Err("no answer in time".to_owned()));
    }

    #[test]
    fn the_first_element_is_found_and_its_entities_are_read() {
        let xml = "<a><Key>x/&amp;lt;&apos;</Key><Key>y</Key></a>";
        assert_eq!(element(xml, "Key").as_deref(), Some("x/&lt;'"));
        assert_eq!(element(xml, "Size"), None);
    }

    #[test]
    fn a_key_tells_when_its_first_block_was_received() {
        let key =
            "p/f/2015/08/30/12/logs-20150830T123600007Z-feed000000000001-0000000700000005-00000000-00.pb.gz";
        assert_eq!(Parcel::received_of(key), Some(Duration::from_millis(1_440_938_160_007)));
        assert_eq!(Parcel::protocol_of(key), None, "an old key");
        for protocol in Protocol::ALL {
            for extension in ["pb", "json", "ndjson", "bin"] {
                let old = format!("p.a/f/x/logs-1-00.{extension}");
                let new = format!("p.a/f/x/logs-1-00.{}.{extension}", protocol.name());
                for gz in ["", ".gz"] {
                    assert_eq!(Parcel::protocol_of(&format!("{old}{gz}")), None);
                    assert_eq!(Parcel::protocol_of(&format!("{new}{gz}")), Some(protocol));
                }
            }
        }
        for strange in ["", "logs", "a/logs-2015", "a/logs-20150830T1236-x", "a/logs-2015083äT123600007Z-x"]
        {
            assert_eq!(Parcel::received_of(strange), None, "{strange}");
        }
    }
}
