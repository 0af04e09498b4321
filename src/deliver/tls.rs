//! TLS: rustls with ring, trusting Mozilla's certificate authorities as built in.
//!
//! The platform's own verifier would read and parse the system's certificates at the start, on the critical
//! path of a cold start, and Lambda's images do not all have them. No provider is installed for the process:
//! the configuration carries its own.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore, crypto};

/// What the web trusts.
pub(super) fn web_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// A client configuration that trusts `roots`. Clones of it share the cache of sessions, so that a new
/// connection to a known backend resumes one.
pub(super) fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // One request at a time per signal: HTTP/2 would bring frames, windows and a larger binary for nothing.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
