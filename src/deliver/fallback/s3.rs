//! One object per request body, in Amazon S3 or in what speaks like it.
//!
//! A key is made of what does not change when the same blocks are sent again, so that a repeated PUT overwrites itself:
//! `PREFIX/FUNCTION/YYYY/MM/DD/HH/SIGNAL-TIME-QUEUE-SEQUENCE-RECORD-HASH.PROTOCOL.EXT.gz`. The time is that of the first block's
//! arrival, the record the first of that block in the object. Sequence numbers grow with the stream within one queue, and have a fixed width, so that keys of one hour,
//! signal and queue sort in the order of the stream.

#[cfg(feature = "tool")]
mod reading;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::Parcel;
use crate::clock;
use crate::deliver::aws::civil::Civil;
use crate::deliver::aws::{Aws, AwsError, Unsigned, domain, encoded_path};
use crate::deliver::client::Client;
use crate::deliver::verdict::{Cause, Verdict};

/// Plain bytes per object, at most. At SHUTDOWN each PUT costs a round trip, so that few and large ones save more; but
/// a body is held in memory, one per signal, and functions of 128 MB are common.
pub const OBJECT_MAX_PLAIN_BYTES: u64 = 4 << 20;

#[cfg(feature = "tool")]
pub use reading::Listed;

const SERVICE: &str = "s3";
/// Where S3 is, if not at AWS (AWS SDKs and tools reference guide, "Service-specific endpoints").
pub const ENDPOINT_VARIABLE: &str = "AWS_ENDPOINT_URL_S3";

/// A bucket, and the right to write into it.
pub struct S3 {
    aws: Aws,
    client: Arc<Client>,
    /// Of the bucket, without a slash at its end.
    base: String,
    prefix: String,
    /// How long reading may take.
    #[cfg(feature = "tool")]
    read_max: Duration,
}

impl S3 {
    /// Objects in `bucket`, with keys that begin with `prefix`. A connection is waited for no longer than `timeout`; the
    /// authorities of `ca_file` are trusted as well.
    ///
    /// # Errors
    /// [`AwsError::NotAUrl`] if the region or the bucket make no host name.
    pub fn new(
        aws: Aws,
        bucket: &str,
        prefix: &str,
        timeout: Duration,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, AwsError> {
        let base = base_of(&aws, bucket);
        let url = Url::parse(&base).map_err(|_| AwsError::NotAUrl("AWS_REGION"))?;
        let client = Arc::new(Client::new(&[url], timeout).trusting(ca_file));
        Ok(Self {
            aws,
            client,
            base,
            prefix: prefix.to_owned(),
            #[cfg(feature = "tool")]
            read_max: reading::READ_MAX,
        })
    }

    pub(super) async fn send(&self, parcel: Parcel<'_>) -> Verdict {
        self.client.prepared().await;
        match self.request(&parcel, clock::unix_now()).await {
            Ok((url, headers)) => self.client.put(url, headers, parcel.body).await,
            Err(reason) => Verdict::Retry { cause: Cause::Unreachable(reason), after: None },
        }
    }

    pub(super) fn egress_bytes(&self) -> u64 {
        self.client.egress_bytes()
    }

    pub(super) fn renew(&self) {
        self.client.renew();
    }

    /// The PUT of `parcel` at `now`, or why it cannot be made.
    async fn request(&self, parcel: &Parcel<'_>, now: Duration) -> Result<(Url, HeaderMap), String> {
        let key = encoded_path(&self.key(parcel));
        let url = Url::parse(&format!("{}/{key}", self.base)).map_err(|error| error.to_string())?;
        let unsigned = Unsigned {
            service: SERVICE,
            region: &self.aws.region,
            method: "PUT",
            url: &url,
            headers: &[],
            body: &parcel.body,
        };
        let mut headers = self.aws.signed(&unsigned, now).await?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(parcel.content_type));
        if parcel.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok((url, headers))
    }

    fn key(&self, parcel: &Parcel<'_>) -> String {
        let at = Civil::of(parcel.received);
        let Civil { year, month, day, hour, .. } = at;
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let (prefix, function) = (&self.prefix, &self.aws.function);
        let (signal, time) = (parcel.signal.name(), at.to_millisecond());
        let queue = (parcel.queue_id >> 64) as u64;
        let hash: String = parcel.hash.chars().take(16).collect();
        let (protocol, extension) = (parcel.protocol.name(), extension(parcel.content_type));
        let gz = if parcel.gzip { ".gz" } else { "" };
        format!(
            "{prefix}{slash}{function}/{year:04}/{month:02}/{day:02}/{hour:02}/\
             {signal}-{time}-{queue:016x}-{:016x}-{:08x}-{hash}.{protocol}.{extension}{gz}",
            parcel.first, parcel.from_record
        )
    }
}

/// The URL of the bucket: a part of the host's name at AWS, the first part of the path elsewhere, and where a dot in the
/// name would not match the certificate (Amazon S3 user guide, "Virtual hosting of general purpose buckets").
fn base_of(aws: &Aws, bucket: &str) -> String {
    if let Some(endpoint) = &aws.endpoint {
        return format!("{}/{bucket}", endpoint.as_str().trim_end_matches('/'));
    }
    let region = &aws.region;
    let domain = domain(region);
    if bucket.contains('.') {
        format!("https://s3.{region}.{domain}/{bucket}")
    } else {
        format!("https://{bucket}.s3.{region}.{domain}")
    }
}

/// What files of a media type usually end in.
fn extension(content_type: &str) -> &'static str {
    match content_type {
        "application/x-protobuf" => "pb",
        "application/json" => "json",
        "application/x-ndjson" => "ndjson",
        _ => "bin",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Signal;
    use crate::deliver::aws::host_of;
    use bytes::Bytes;
    use std::collections::HashMap;

    const LAMBDA: [(&str, &str); 5] = [
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_SESSION_TOKEN", "opaque"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_LAMBDA_FUNCTION_NAME", "check-out"),
    ];

    fn aws(more: &[(&'static str, &'static str)]) -> Result<Aws, AwsError> {
        let mut variables = HashMap::from(LAMBDA);
        variables.extend(more.iter().copied());
        Aws::from_variables(|name| variables.get(name).map(|value| (*value).to_owned()), ENDPOINT_VARIABLE)
    }

    fn s3(bucket: &str, prefix: &str, more: &[(&'static str, &'static str)]) -> S3 {
        S3::new(aws(more).unwrap(), bucket, prefix, Duration::from_secs(1), None).unwrap()
    }

    fn parcel() -> Parcel<'static> {
        Parcel {
            protocol: crate::encode::Protocol::Otlp,
            signal: Signal::Logs,
            content_type: "application/x-protobuf",
            gzip: true,
            body: Bytes::from_static(b"gzip"),
            hash: "00112233445566778899aabbccddeeff",
            records: 3,
            first: 7 << 32 | 5,
            from_record: 0,
            received: Duration::from_millis(1_440_938_160_007),
            queue_id: 0xfeed_0000_0000_0001_u128 << 64,
        }
    }

    const REST: &str = "check-out/2015/08/30/12/logs-20150830T123600007Z-feed000000000001-0000000700000005-00000000-0011223344556677.otlp.pb.gz";

    #[tokio::test]
    async fn a_key_is_made_of_what_stays_the_same_when_the_same_blocks_go_again() {
        assert_eq!(s3("bucket", "", &[]).key(&parcel()), REST);
        assert_eq!(s3("bucket", "a/b", &[]).key(&parcel()), format!("a/b/{REST}"));
        let s3 = s3("bucket", "", &[]);
        let at = async |now| s3.request(&parcel(), Duration::from_secs(now)).await.unwrap().0;
        assert_eq!(at(1_440_938_161).await, at(1_540_938_161).await, "whenever they go");
    }

    #[test]
    fn keys_of_one_queue_and_hour_sort_in_the_order_of_the_stream() {
        let s3 = s3("bucket", "p", &[]);
        let of = |first: u64, millis: u64| {
            s3.key(&Parcel { first, received: Duration::from_millis(1_440_938_160_007 + millis), ..parcel() })
        };
        let part = |from_record| {
            s3.key(&Parcel { from_record, hash: &format!("{:032x}", 99 - from_record), ..parcel() })
        };
        assert!(part(0) < part(9) && part(9) < part(10), "parts of one block, too");
        assert!(of(5, 0) < of(6, 0) && of(6, 0) < of(1 << 32, 0) && of(1 << 32, 0) < of(16 << 32, 1));
    }

    #[test]
    fn the_bucket_is_in_the_host_at_aws_and_in_the_path_elsewhere_or_if_it_has_dots() {
        for (bucket, more, base) in [
            ("bucket", &[][..], "https://bucket.s3.eu-west-1.amazonaws.com"),
            ("my.bucket", &[], "https://s3.eu-west-1.amazonaws.com/my.bucket"),
            ("bucket", &[("AWS_REGION", "cn-north-1")], "https://bucket.s3.cn-north-1.amazonaws.com.cn"),
            ("bucket", &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")], "http://127.0.0.1:9000/bucket"),
            (
                "bucket",
                &[("AWS_ENDPOINT_URL", "http://all"), ("AWS_ENDPOINT_URL_S3", "https://s3only/x")],
                "https://s3only/x/bucket",
            ),
        ] {
            assert_eq!(s3(bucket, "", more).base, base);
        }
    }

    #[tokio::test]
    async fn a_request_is_signed_for_the_host_and_path_it_goes_to() {
        let (url, headers) = s3("bucket", "ä b", &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")])
            .request(&parcel(), Duration::from_secs(1_440_938_160))
            .await
            .unwrap();
        assert_eq!(url.as_str(), format!("http://127.0.0.1:9000/bucket/%C3%A4%20b/{REST}"));
        assert_eq!(host_of(&url).unwrap(), "127.0.0.1:9000");
        let of = |name: &str| headers[name].to_str().unwrap();
        assert_eq!((of("content-type"), of("content-encoding")), ("application/x-protobuf", "gzip"));
        assert_eq!(of("x-amz-date"), "20150830T123600Z");
        assert_eq!(of("x-amz-security-token"), "opaque");
        assert_eq!(of("x-amz-content-sha256").len(), 64);
        let authorization = of("authorization");
        assert!(
            authorization
                .contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"),
            "{authorization}"
        );
        assert!(authorization.contains("/20150830/eu-west-1/s3/aws4_request"), "{authorization}");
        assert!(!format!("{headers:?}").contains("opaque"), "sensitive");
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_without_its_value() {
        assert_eq!(
            aws(&[("AWS_SECRET_ACCESS_KEY", " ")]).err(),
            Some(AwsError::Missing("AWS_SECRET_ACCESS_KEY"))
        );
        assert_eq!(aws(&[("AWS_REGION", "")]).err(), Some(AwsError::Missing("AWS_REGION")));
        for wrong in ["ftp://x", "nonsense", "http://x/?q"] {
            assert_eq!(
                aws(&[("AWS_ENDPOINT_URL", wrong)]).err(),
                Some(AwsError::NotAUrl("AWS_ENDPOINT_URL"))
            );
        }
        assert!(
            S3::new(aws(&[("AWS_REGION", "not a region")]).unwrap(), "b", "", Duration::ZERO, None).is_err()
        );
    }
}
