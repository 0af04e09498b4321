//! Where the Runtime API is.

use hyper::Uri;

use super::error::LambdaError;
use super::http::Client;

/// The port of an address that names none: that of plain HTTP.
const DEFAULT_PORT: u16 = 80;

/// The APIs at `AWS_LAMBDA_RUNTIME_API`, and the one connection to them.
#[derive(Debug)]
pub struct RuntimeApi {
    pub(super) client: Client,
}

/// Host, port and path prefix of the APIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// `host:port` as the `Host` header wants it.
    pub(super) authority: String,
    /// Put before every path; empty, or starts with a slash and does not end with one.
    pub(super) prefix: String,
}

impl RuntimeApi {
    /// Understands the value of `AWS_LAMBDA_RUNTIME_API`. Does no I/O.
    ///
    /// Lambda sets `host:port`. Local tools also set a URL whose path goes before that of every call
    /// (`http://127.0.0.1:9000/.rt`, as `cargo lambda watch` does).
    ///
    /// # Errors
    /// [`LambdaError::Address`] if no host can be made out, or the scheme is not `http`.
    pub fn from_env_value(value: &str) -> Result<Self, LambdaError> {
        Ok(Self { client: Client::new(Endpoint::parse(value)?) })
    }
}

impl Endpoint {
    fn parse(value: &str) -> Result<Self, LambdaError> {
        let fail = |reason: &str| LambdaError::Address { value: value.to_owned(), reason: reason.to_owned() };
        let trimmed = value.trim();
        let url = if trimmed.contains("://") { trimmed.to_owned() } else { format!("http://{trimmed}") };
        let uri: Uri = url.parse().map_err(|error: hyper::http::uri::InvalidUri| fail(&error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(fail("only plain http is possible"));
        }
        let host = uri.host().unwrap_or_default();
        if host.is_empty() {
            return Err(fail("the host is missing"));
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let port = match authority.rsplit_once(host).map_or("", |(_, rest)| rest).strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| fail("the port is not a number up to 65535"))?,
            None => DEFAULT_PORT,
        };
        Ok(Self {
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port,
            authority: format!("{host}:{port}"),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: &str) -> (String, u16, String) {
        let endpoint = Endpoint::parse(value).unwrap();
        (endpoint.host, endpoint.port, endpoint.prefix)
    }

    #[test]
    fn the_form_that_lambda_sets_is_understood() {
        assert_eq!(parts("127.0.0.1:9001"), ("127.0.0.1".into(), 9001, String::new()));
        assert_eq!(parts("169.254.100.1:9001"), ("169.254.100.1".into(), 9001, String::new()));
    }

    #[test]
    fn a_url_with_a_path_is_understood_with_or_without_its_scheme() {
        let expected = ("127.0.0.1".to_owned(), 9000, "/.rt".to_owned());
        assert_eq!(parts("http://127.0.0.1:9000/.rt"), expected);
        assert_eq!(parts("http://127.0.0.1:9000/.rt/"), expected);
        assert_eq!(parts("127.0.0.1:9000/.rt"), expected);
        assert_eq!(parts(" http://127.0.0.1:9000/.rt\n"), expected);
    }

    #[test]
    fn names_ports_left_out_and_ipv6_are_understood() {
        assert_eq!(parts("localhost"), ("localhost".into(), 80, String::new()));
        assert_eq!(parts("http://rapid/"), ("rapid".into(), 80, String::new()));
        assert_eq!(parts("[::1]:9001"), ("::1".into(), 9001, String::new()));
        assert_eq!(Endpoint::parse("[::1]:9001").unwrap().authority, "[::1]:9001");
    }

    #[test]
    fn what_names_no_plain_http_host_is_refused_with_the_value_in_the_text() {
        for value in ["", " ", "http://", ":9001", "https://host:1", "host:", "host:99999", "a b", "host:x"] {
            let error = RuntimeApi::from_env_value(value).map(|_| ()).unwrap_err();
            assert!(matches!(error, LambdaError::Address { .. }), "{value:?}: {error}");
            assert!(error.to_string().contains(&format!("{value:?}")), "{error}");
        }
    }
}
