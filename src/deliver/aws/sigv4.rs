//! AWS Signature Version 4, for one request whose headers and body are known.
//!
//! After the AWS IAM user guide, "Create a signed AWS API request": canonical request, string to sign, signing key,
//! signature. ring is in the tree for TLS and brings the hash and the HMAC.

use ring::{digest, hmac};

use super::civil::Civil;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Whose signature it is, and where it counts.
pub(super) struct Signer<'a> {
    pub(super) access_key_id: &'a str,
    pub(super) secret_access_key: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// What is signed.
pub(super) struct ToSign<'a> {
    pub(super) method: &'a str,
    /// Percent-encoded as it goes over the wire; S3 does not encode it again.
    pub(super) path: &'a str,
    /// Names and values encoded, sorted by name.
    pub(super) query: &'a str,
    /// Names in lower case, sorted; values without white space at their ends.
    pub(super) headers: &'a [(&'a str, &'a str)],
    /// [`sha256_hex`] of the body.
    pub(super) payload_hash: &'a str,
}

impl Signer<'_> {
    /// The value of the `authorization` header for a request made at `at`, which its `x-amz-date` repeats.
    pub(super) fn authorization(&self, request: &ToSign<'_>, at: Civil) -> String {
        let scope = format!("{}/{}/{}/aws4_request", at.date(), self.region, self.service);
        let names: Vec<&str> = request.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let canonical = canonical(request, &names);
        let to_sign =
            format!("{ALGORITHM}\n{}\n{scope}\n{}", at.to_second(), sha256_hex(canonical.as_bytes()));
        let signature = hex(hmac(&self.key(at), to_sign.as_bytes()).as_ref());
        let credential = self.access_key_id;
        format!("{ALGORITHM} Credential={credential}/{scope}, SignedHeaders={names}, Signature={signature}")
    }

    fn key(&self, at: Civil) -> Vec<u8> {
        let secret = format!("AWS4{}", self.secret_access_key);
        let parts = [at.date().as_str(), self.region, self.service, "aws4_request"].map(str::to_owned);
        let mut key = secret.into_bytes();
        for part in parts {
            key = hmac(&key, part.as_bytes()).as_ref().to_vec();
        }
        key
    }
}

fn canonical(request: &ToSign<'_>, names: &str) -> String {
    let ToSign { method, path, query, headers, payload_hash } = request;
    let headers: String = headers.iter().flat_map(|(name, value)| [name, ":", value, "\n"]).collect();
    format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{payload_hash}")
}

fn hmac(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

/// SHA-256 of `bytes` in lower-case hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().copied().flat_map(digits).collect()
}

/// The two hexadecimal digits of `byte`.
fn digits(byte: u8) -> impl Iterator<Item = char> {
    [byte >> 4, byte & 15].into_iter().filter_map(|digit| char::from_digit(digit.into(), 16))
}

/// `text` with everything but unreserved characters and `/` percent-encoded, as a canonical path wants it.
pub(in crate::deliver) fn encoded_path(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/') {
            path.push(char::from(byte));
        } else {
            path.push('%');
            path.extend(digits(byte).map(|digit| digit.to_ascii_uppercase()));
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn signature(authorization: &str) -> &str {
        authorization.rsplit_once("Signature=").unwrap().1
    }

    /// The credentials and the moment of AWS's signature test suite.
    fn suite() -> (Signer<'static>, Civil) {
        let signer = Signer {
            access_key_id: "AKIDEXAMPLE",
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service: "service",
        };
        (signer, Civil::of(Duration::from_secs(1_440_938_160)))
    }

    #[test]
    fn requests_of_awss_test_suite_get_their_signatures() {
        let (signer, at) = suite();
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        let empty = sha256_hex(b"");
        // get-vanilla, post-vanilla, get-vanilla-query-order-key-case
        for (method, query, expected) in [
            ("GET", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
            ("POST", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
            (
                "GET",
                "Param1=value1&Param2=value2",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
        ] {
            let request = ToSign { method, path: "/", query, headers: &headers, payload_hash: &empty };
            let authorization = signer.authorization(&request, at);
            assert_eq!(signature(&authorization), expected, "{method} {query}");
            let credential = "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request";
            assert!(authorization.contains(credential), "{authorization}");
            assert!(authorization.contains("SignedHeaders=host;x-amz-date,"), "{authorization}");
        }
    }

    /// Amazon S3 API reference, "Signature calculations for the authorization header", examples GET and PUT object.
    #[test]
    fn the_examples_of_the_s3_reference_get_their_signatures() {
        let signer = Signer {
            access_key_id: "AKIAIOSFODNN7EXAMPLE",
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            service: "s3",
        };
        let at = Civil::of(Duration::from_secs(1_369_353_600));
        let body = sha256_hex(b"Welcome to Amazon S3.");
        let path = encoded_path("/test$file.text");
        let headers = [
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", body.as_str()),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let put = ToSign { method: "PUT", path: &path, query: "", headers: &headers, payload_hash: &body };
        assert_eq!(
            signature(&signer.authorization(&put, at)),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
        let empty = sha256_hex(b"");
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", empty.as_str()),
            ("x-amz-date", "20130524T000000Z"),
        ];
        let get =
            ToSign { method: "GET", path: "/test.txt", query: "", headers: &headers, payload_hash: &empty };
        assert_eq!(
            signature(&signer.authorization(&get, at)),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn only_unreserved_characters_and_slashes_stay_as_they_are() {
        assert_eq!(encoded_path("/a b/ü~._-'(+)*"), "/a%20b/%C3%BC~._-%27%28%2B%29%2A");
    }
}
