//! URLs of the backend, shown without what may be secret in them.

use std::fmt;

use reqwest::Url;

use crate::Signal;
use crate::encode::Protocol;

/// Path segments longer than this are not shown: some vendors put an access token into the path, and no
/// ordinary segment (`v1`, `logs`, `collector`, a tenant's name) is as long.
const SHOWN_SEGMENT_MAX_CHARS: usize = 24;

/// What stands for the parts that are not shown.
const HIDDEN: &str = "…";

/// An `http` or `https` URL with a host. `Debug` and `Display` hide user information, query and long path
/// segments.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Reads a URL; `None` unless it is an absolute `http` or `https` one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut url = Url::parse(text).ok()?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return None;
        }
        url.set_fragment(None);
        Some(Self(url))
    }

    /// The URL itself, secrets included.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The URL that `signal` is posted to: the path is what the protocol makes of this one's; the query stays, unless the
    /// protocol needs one of its own and none of its name is given.
    pub fn signal_url(&self, protocol: Protocol, signal: Signal) -> Url {
        let mut url = self.0.clone();
        let wire = protocol.wire();
        let path = wire.path(signal, url.path().trim_end_matches('/'));
        url.set_path(&path);
        if let Some(host) = wire.host(signal, url.host_str().unwrap_or_default()) {
            // It differs from one that is a host in its first labels only.
            url.set_host(Some(&host)).unwrap_or_default();
        }
        if let Some((name, value)) = wire.query().and_then(|query| query.split_once('='))
            && !url.query_pairs().any(|(given, _)| given == name)
        {
            let given = url.query().filter(|query| !query.is_empty()).map(|query| format!("{query}&"));
            let query = format!("{}{name}={value}", given.unwrap_or_default());
            url.set_query(Some(&query));
        }
        url
    }

    /// The base this URL was probably meant to be, if it already ends in the path of a signal.
    pub(super) fn without_signal_path(&self) -> Option<Self> {
        let path = self.0.path().trim_end_matches('/');
        let base =
            Signal::ALL.iter().find_map(|signal| path.strip_suffix(signal.name())?.strip_suffix("/v1/"))?;
        let mut url = self.0.clone();
        url.set_path(base);
        Some(Self(url))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact(self.0.as_str()))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// `text`, which was meant as a URL, with everything hidden that may be a secret. Works on text rather than on
/// a parsed URL, because a value that does not parse has to be shown as well.
pub(super) fn redact(text: &str) -> String {
    let (scheme, rest) = match text.split_once("://") {
        None => ("", text),
        Some(("http", rest)) => ("http://", rest),
        Some(("https", rest)) => ("https://", rest),
        Some((other, rest)) if other.chars().all(|c| c.is_ascii_alphanumeric()) => ("…://", rest),
        Some(_) => return HIDDEN.to_owned(),
    };
    let (before_at, shown) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
    if before_at.is_some_and(|user| user.contains(['/', '?', '#'])) {
        // Either a password holds such a character or a query holds an `@`: too unclear to show any of it.
        return format!("{scheme}{HIDDEN}");
    }
    let (path, query) = shown.split_once(['?', '#']).map_or((shown, ""), |(path, _)| (path, "?…"));
    let mut segments = path.split('/');
    let mut out = scheme.to_owned();
    if before_at.is_some() {
        out.push_str("…@");
    }
    out.push_str(segments.next().unwrap_or_default());
    for segment in segments {
        out.push('/');
        out.push_str(if segment.chars().count() > SHOWN_SEGMENT_MAX_CHARS { HIDDEN } else { segment });
    }
    out.push_str(query);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn logs_url(text: &str) -> String {
        Endpoint::parse(text).unwrap().signal_url(Protocol::Otlp, Signal::Logs).to_string()
    }

    #[test]
    fn the_path_of_the_signal_is_appended_to_the_base() {
        assert_eq!(logs_url("http://c:4318"), "http://c:4318/v1/logs");
        assert_eq!(logs_url("http://c:4318/"), "http://c:4318/v1/logs");
        assert_eq!(logs_url("https://c/my/collector"), "https://c/my/collector/v1/logs");
        assert_eq!(logs_url("https://c/x/?key=1#f"), "https://c/x/v1/logs?key=1");
        let traces = Endpoint::parse("http://c").unwrap().signal_url(Protocol::Otlp, Signal::Traces);
        assert_eq!(traces.as_str(), "http://c/v1/traces");
    }

    #[test]
    fn only_absolute_http_urls_with_a_host_are_endpoints() {
        for text in
            ["collector:4318", "localhost", "/v1/logs", "ftp://c", "unix:/tmp/s", "http://", "http:///x"]
        {
            assert!(Endpoint::parse(text).is_none_or(|e| e.url().host_str() == Some("x")), "{text}");
        }
        assert!(Endpoint::parse("http://").is_none());
        assert!(Endpoint::parse("HTTPS://Backend.example").is_some());
        // Beyond ASCII a name has to be written as DNS has it: the tables that translate would be in every function.
        assert!(Endpoint::parse("https://bücher.example").is_none());
        assert_eq!(logs_url("https://xn--bcher-kva.example"), "https://xn--bcher-kva.example/v1/logs");
    }

    #[test]
    fn a_base_that_names_the_signal_already_is_recognised() {
        let base =
            |text: &str| Endpoint::parse(text).unwrap().without_signal_path().map(|e| e.url().to_string());
        assert_eq!(base("http://c/v1/logs").as_deref(), Some("http://c/"));
        assert_eq!(base("http://c/x/v1/traces/").as_deref(), Some("http://c/x"));
        assert_eq!(base("http://c/logs"), None);
        assert_eq!(base("http://c/myv1/logs"), None);
    }

    #[test]
    fn secrets_in_a_url_are_not_shown() {
        for (text, shown) in [
            ("https://user:pass@host:4318/v1?api_key=1", "https://…@host:4318/v1?…"),
            ("https://host/receiver/ZaVnC4dhaV26Z2L0RkX9aK3sQ/x", "https://host/receiver/…/x"),
            ("user:pass@host", "…@host"),
            ("https://user:pa/ss@host", "https://…"),
            ("https://user:pa?ss@host", "https://…"),
            ("https://host/?mail=a@b.secret", "https://…"),
            ("http://collector:4318", "http://collector:4318"),
            ("host/path#token", "host/path?…"),
        ] {
            assert_eq!(redact(text), shown, "{text}");
        }
        let endpoint = Endpoint::parse("https://u:hunter2@h/x?k=hunter2").unwrap();
        assert!(!format!("{endpoint} {endpoint:?}").contains("hunter2"));
    }

    proptest! {
        #[test]
        fn no_password_or_query_is_ever_shown(scheme in "(https?://)?", junk in "[a-z/?#@:%]{0,8}", tail in "[a-z/?#@:]{0,8}") {
            let with_password = format!("{scheme}u{junk}SECRET{tail}@host/x");
            prop_assert!(!redact(&with_password).contains("SECRET"), "{}", redact(&with_password));
            let with_query = format!("{scheme}host/x?{junk}SECRET{tail}");
            prop_assert!(!redact(&with_query).contains("SECRET"), "{}", redact(&with_query));
        }
    }
}
