//! Where telemetry goes that the backend does not take.

use std::fmt;

use super::kind::{Flaw, shown};
use super::{Config, Endpoint, endpoint, headers};

/// What the setting accepts, for problems and the page of settings.
pub(super) const ACCEPTED: &str =
    "`s3://BUCKET` or `s3://BUCKET/PREFIX`, an `http://` or `https://` base URL, or `stdout`";

/// Lengths of the name of a bucket (Amazon S3 user guide, "General purpose bucket naming rules").
const BUCKET_CHARS: std::ops::RangeInclusive<usize> = 3..=63;

/// A key of S3 has at most 1,024 bytes ("Naming Amazon S3 objects"), of which what follows the prefix takes some 200, and
/// percent-encoding makes three bytes of one.
const PREFIX_MAX_BYTES: usize = 512;

/// A second place for telemetry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Objects in a bucket of Amazon S3, or of something that speaks like it.
    S3 {
        /// Name of the bucket.
        bucket: String,
        /// What keys begin with; no slash at either end.
        prefix: String,
    },
    /// Lines on stdout, which Lambda sends to CloudWatch Logs.
    Stdout,
    /// A second backend, by its base URL.
    Http(Endpoint),
}

impl Fallback {
    /// Reads a value; `None` if it is none of the forms.
    pub fn parse(value: &str) -> Option<Self> {
        if value.eq_ignore_ascii_case("stdout") {
            return Some(Self::Stdout);
        }
        let Some(place) = value.strip_prefix("s3://") else {
            return Endpoint::parse(value).map(Self::Http);
        };
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = prefix.trim_matches('/');
        (is_bucket(bucket) && is_prefix(prefix))
            .then(|| Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for Fallback {
    /// Without what may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Stdout => f.write_str("stdout"),
            Self::Http(endpoint) => endpoint.fmt(f),
        }
    }
}

fn is_bucket(name: &str) -> bool {
    let is_end = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    BUCKET_CHARS.contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
        && is_end(name.as_bytes().first())
        && is_end(name.as_bytes().last())
        && !name.contains("..")
}

/// Not what the parser of URLs would take for steps up or down.
fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= PREFIX_MAX_BYTES
        && !prefix.chars().any(char::is_control)
        && (prefix.is_empty() || prefix.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

pub(super) fn fallback(config: &mut Config, value: &str) -> Vec<Flaw> {
    config.fallback = Fallback::parse(value).map(|place| match place {
        // As for the endpoint: where paths are appended, one that names a signal is meant as the base.
        Fallback::Http(given) if config.protocol.is_otlp() => {
            Fallback::Http(given.without_signal_path().unwrap_or(given))
        }
        place => place,
    });
    if config.fallback.is_some() {
        return Vec::new();
    }
    let value = if value.starts_with("s3://") { value.to_owned() } else { endpoint::redact(value) };
    vec![Flaw {
        value: Some(shown(&value)),
        accepted: format!("accepts {ACCEPTED}"),
        consequence: Some("there is no fallback".to_owned()),
    }]
}

pub(super) fn fallback_headers(config: &mut Config, value: &str) -> Vec<Flaw> {
    let (headers, flaws) = headers::parse(value);
    config.fallback_headers = headers;
    flaws
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_of(value: &str) -> Option<String> {
        Fallback::parse(value).map(|fallback| fallback.to_string())
    }

    #[test]
    fn each_form_is_read() {
        assert_eq!(shown_of("s3://my-bucket").as_deref(), Some("s3://my-bucket"));
        assert_eq!(shown_of("s3://my.bucket/a/b/").as_deref(), Some("s3://my.bucket/a/b"));
        assert_eq!(shown_of("STDOUT").as_deref(), Some("stdout"));
        assert_eq!(shown_of("https://u:secret@host/x").as_deref(), Some("https://…@host/x"));
    }

    #[test]
    fn the_path_of_a_signal_is_taken_off_where_the_protocol_has_such_paths() {
        for (protocol, url) in [
            ("otlp", "http://host/x/v1/logs"),
            ("otlp-json", "http://host/x/v1/logs"),
            ("ndjson", "http://host/x/v1/logs"),
            ("loki", "http://host/x/v1/logs"),
            ("elasticsearch", "http://host/x/v1/logs/_bulk"),
        ] {
            let variables = [
                ("OUTLAST_ENDPOINT", "http://c"),
                ("OUTLAST_PROTOCOL", protocol),
                ("OUTLAST_FALLBACK", "http://host/x/v1/logs"),
            ];
            let config = super::super::load(variables).config;
            let Some(Fallback::Http(base)) = &config.fallback else { panic!("no URL") };
            let mut got = base.signal_url(config.protocol, crate::Signal::Logs);
            got.set_query(None);
            assert_eq!(got.as_str(), url, "{protocol}");
        }
    }

    #[test]
    fn what_is_no_bucket_no_prefix_and_no_url_is_refused() {
        for wrong in [
            "s3://",
            "s3://ab",
            "s3://Bucket",
            "s3://a..b",
            "s3://-bucket",
            "s3://bucket-",
            "s3://my_bucket",
            "s3://bucket/a/../b",
            "s3://bucket/a//b",
            "s3://bucket/.",
            "file:///tmp",
            "stderr",
            "sqs:queue",
        ] {
            assert_eq!(shown_of(wrong), None, "{wrong}");
        }
        assert_eq!(shown_of(&format!("s3://{}", "b".repeat(64))), None);
        assert_eq!(shown_of(&format!("s3://bucket/{}", "p".repeat(513))), None);
    }

    #[test]
    fn a_wrong_value_is_told_in_one_line_without_secrets_and_leaves_no_fallback() {
        let variables = [("OUTLAST_ENDPOINT", "http://c"), ("OUTLAST_FALLBACK", "ftp://u:hunter2@host")];
        let loaded = super::super::load(variables);
        assert_eq!(loaded.config.fallback, None);
        assert_eq!(loaded.problems.len(), 1);
        let line = loaded.problems[0].to_string();
        assert!(line.contains("OUTLAST_FALLBACK") && line.contains("there is no fallback"), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}
