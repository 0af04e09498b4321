//! Request headers as `k=v,k2=v2`.
//!
//! The format is that of `OTEL_EXPORTER_OTLP_HEADERS` (OpenTelemetry protocol exporter specification,
//! "Specifying headers via environment variables"): W3C Baggage without properties. Values are
//! percent-encoded, so a comma is `%2C` and a percent sign `%25`. A value that is not valid percent-encoding is
//! taken as it is written, because keys with a bare `%` in them exist and nothing else can be meant.

use reqwest::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, TRANSFER_ENCODING,
};

use super::kind::Flaw;
use crate::deliver::{Headers, SecretHeader};

/// What the setting accepts, for problems and the page of settings.
pub(super) const ACCEPTED: &str = "`name=value` pairs separated by commas, values percent-encoded";

/// Headers that describe the body, which only the client knows.
const RESERVED: [HeaderName; 5] =
    [CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING];

/// One header, of either kind.
enum Pair {
    Fixed(HeaderName, HeaderValue),
    Secret(SecretHeader),
}

/// Reads the pairs. What is wrong with one pair does not take the others along; of a name given twice the last
/// counts. A flaw names the place of the pair, never its text.
pub(super) fn parse(text: &str) -> (Headers, Vec<Flaw>) {
    let mut headers = Headers::default();
    let mut flaws = Vec::new();
    let pairs = text.split(',').map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty());
    for (place, pair) in pairs {
        match parse_pair(pair) {
            Ok(Pair::Fixed(name, value)) => {
                headers.secret.retain(|header| *header.name() != name);
                headers.fixed.insert(name, value);
            }
            Ok(Pair::Secret(header)) => {
                headers.secret.retain(|other| other.name() != header.name());
                headers.fixed.remove(header.name());
                headers.secret.push(header);
            }
            Err(accepted) => flaws.push(Flaw {
                value: None,
                accepted: format!("pair {}: {accepted}", place + 1),
                consequence: Some("this header is not sent".to_owned()),
            }),
        }
    }
    (headers, flaws)
}

fn parse_pair(pair: &str) -> Result<Pair, String> {
    let refused = || format!("accepts {ACCEPTED}");
    let (name, value) = pair.split_once('=').ok_or_else(refused)?;
    let name: HeaderName = name.trim().parse().map_err(|_| refused())?;
    if RESERVED.contains(&name) {
        return Err(format!("`{name}` is set by the extension itself"));
    }
    let value = percent_decoded(value.trim());
    if let Some(secret) = SecretHeader::parse(&name, &value) {
        return secret.map(Pair::Secret);
    }
    let mut value = HeaderValue::from_str(&value).map_err(|_| refused())?;
    value.set_sensitive(true);
    Ok(Pair::Fixed(name, value))
}

/// `text` with `%XX` replaced by the byte; `text` itself if an escape is malformed or the result is not UTF-8.
pub(super) fn percent_decoded(text: &str) -> String {
    strictly_decoded(text).unwrap_or_else(|| text.to_owned())
}

/// `text` with `%XX` replaced by the byte; `None` if an escape is malformed or the result is not UTF-8.
pub(super) fn strictly_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (escape, rest) = part.split_at_checked(2)?;
        if !escape.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(escape, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let (headers, flaws) = parse(text);
        assert!(flaws.is_empty(), "{text}: {flaws:?}");
        headers
            .fixed
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    }

    fn one(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn pairs_are_trimmed_decoded_and_split_at_the_first_equals_sign() {
        assert_eq!(pairs("api-key=abc"), one("api-key", "abc"));
        assert_eq!(pairs(" Authorization = Basic%20dTpw%3D "), one("authorization", "Basic dTpw="));
        assert_eq!(pairs("authorization=Basic dTpw=="), one("authorization", "Basic dTpw=="));
        assert_eq!(pairs("a=1%2C2,"), one("a", "1,2"));
        assert_eq!(pairs("a=1,b=2"), [one("a", "1"), one("b", "2")].concat());
        assert_eq!(pairs("a=1,A=2"), one("a", "2"));
        assert_eq!(pairs("a=1+1"), one("a", "1+1"));
    }

    #[test]
    fn a_value_that_is_not_percent_encoding_is_taken_as_written() {
        assert_eq!(pairs("key=50%"), one("key", "50%"));
        assert_eq!(pairs("key=a%zzb"), one("key", "a%zzb"));
        assert_eq!(pairs("key=a%+1b"), one("key", "a%+1b"));
        assert_eq!(pairs("key=%ff"), one("key", "%ff"));
    }

    #[test]
    fn a_wrong_pair_leaves_its_neighbours_alone_and_is_not_shown() {
        for wrong in [
            "hunter2",
            "na me=hunter2",
            "=hunter2",
            "x=hunter2%0d%0aEvil: 1",
            "content-type=hunter2",
            "x=hunter2 ssm:",
            "x=secretsmanager:#hunter2",
            "x=ssm:/hunter2#",
        ] {
            let (headers, flaws) = parse(&format!("a=1,{wrong},b=2"));
            assert_eq!((headers.fixed.len(), headers.secret.len()), (2, 0), "{wrong}");
            assert_eq!(flaws.len(), 1, "{wrong}");
            assert!(!format!("{flaws:?}").contains("hunter2"), "{flaws:?}");
            assert!(flaws[0].accepted.starts_with("pair 2: "), "{flaws:?}");
        }
    }

    #[test]
    fn values_are_hidden_in_debug_output() {
        let (headers, _) = parse("api-key=hunter2");
        assert!(!format!("{headers:?}").contains("hunter2"));
    }

    #[test]
    fn a_value_may_be_kept_elsewhere() {
        let (headers, flaws) = parse(
            "a=1,b=Bearer%20ssm:/x/y#k,c=secretsmanager:arn:aws:secretsmanager:eu-west-1:1:secret:n,a=ssm:z",
        );
        assert!(flaws.is_empty(), "{flaws:?}");
        assert!(headers.fixed.is_empty(), "of a name given twice the last counts");
        let names: Vec<&str> = headers.secret.iter().map(|header| header.name().as_str()).collect();
        assert_eq!(names, ["b", "c", "a"]);
        assert_eq!(parse("a=ssm:/x,A=1").0.secret, []);
        // Merely mentioned.
        assert_eq!(pairs("a=about%20ssm:/x%20and"), one("a", "about ssm:/x and"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = parse(&text);
        }
    }
}
