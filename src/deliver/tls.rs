//! TLS: rustls with ring, trusting Mozilla's certificate authorities as built in.
//!
//! The platform's own verifier would read and parse the system's certificates at the start, on the critical
//! path of a cold start, and Lambda's images do not all have them. No provider is installed for the process:
//! the configuration carries its own.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, crypto};

/// The longest file of certificates: several times what the whole web trusts, which is some 220 kB.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Why a file of certificates or of a key is not used. None of it is then.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("cannot be read ({0})")]
    Read(#[from] io::Error),
    /// Opening or reading anything else might not come back.
    #[error("is not a file")]
    NotAFile,
    #[error("is longer than {FILE_MAX_BYTES} bytes")]
    TooLong,
    #[error("the system has none where they usually are")]
    NoBundle,
    #[error("holds no certificate in PEM")]
    Empty,
    #[error("holds a certificate that is none ({0})")]
    Bad(String),
    #[error("holds no key in PEM ({0})")]
    NoKey(String),
}

/// A certificate to be shown, those between it and its authority, and its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What the web trusts.
pub(super) fn web_roots() -> RootCertStore {
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

/// Adds the certificates of a PEM file to what is trusted.
pub(super) fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), FileError> {
    let mut with = roots.clone();
    for certificate in certificates(&content(path)?)? {
        with.add(certificate).map_err(|error| FileError::Bad(error.to_string()))?;
    }
    *roots = with;
    Ok(())
}

/// Where Linux distributions keep the authorities they trust, in the order in which they are looked for: Amazon Linux and
/// Fedora, Debian, openSUSE, and Alpine (as the Go standard library looks for them, `crypto/x509/root_linux.go`).
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Adds what the system trusts.
pub(super) fn add_system(roots: &mut RootCertStore) -> Result<(), FileError> {
    add_first_bundle(roots, &SYSTEM_BUNDLES.map(Path::new))
}

/// Adds the certificates of the first file that can be read and holds any. What rustls does not take is left out: a system's
/// bundle may have certificates that are too old for it, and nobody here can mend that.
fn add_first_bundle(roots: &mut RootCertStore, paths: &[&Path]) -> Result<(), FileError> {
    let mut found = Err(FileError::NoBundle);
    for path in paths {
        let added = content(path).map(|pem| {
            let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
            roots.add_parsable_certificates(certificates).0
        });
        match added {
            Ok(1..) => return Ok(()),
            Ok(0) => found = Err(FileError::Empty),
            Err(FileError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found = Err(error),
        }
    }
    found
}

/// What to show to a backend that asks who we are, out of a file with certificates and one with a key.
pub(super) fn identity(certificate: &Path, key: &Path) -> Result<Identity, FileError> {
    let key =
        PrivateKeyDer::from_pem_slice(&content(key)?).map_err(|error| FileError::NoKey(error.to_string()))?;
    Ok((certificates(&content(certificate)?)?, key))
}

pub(super) fn content(path: &Path) -> Result<Vec<u8>, FileError> {
    // Before it is opened: opening a pipe waits for its other end.
    if !path.metadata()?.is_file() {
        return Err(FileError::NotAFile);
    }
    let mut pem = Vec::new();
    File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_end(&mut pem)?;
    if pem.len() as u64 > FILE_MAX_BYTES { Err(FileError::TooLong) } else { Ok(pem) }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        found.push(certificate.map_err(|error| FileError::Bad(error.to_string()))?);
    }
    if found.is_empty() { Err(FileError::Empty) } else { Ok(found) }
}

/// A client configuration that trusts `roots` and shows `identity`. Clones of it share the cache of sessions, so that a new
/// connection to a known backend resumes one.
///
/// # Errors
/// If the key is none that TLS knows, or not that of the certificate.
pub(super) fn client_config(
    roots: RootCertStore,
    identity: Option<Identity>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some((certificates, key)) => config.with_client_auth_cert(certificates, key)?,
        None => config.with_no_client_auth(),
    };
    // One request at a time per signal: HTTP/2 would bring frames, windows and a larger binary for nothing.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const AUTHORITY: &[u8] = include_bytes!("client/testdata/authority.pem");

    fn added(content: &[u8]) -> Result<usize, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let mut roots = RootCertStore::empty();
        let result = add_file(&mut roots, file.path()).map_err(|error| error.to_string());
        assert!(result.is_ok() || roots.is_empty(), "all of it or nothing");
        result.map(|()| roots.len())
    }

    #[test]
    fn the_certificates_of_a_file_are_added() {
        assert_eq!(added(AUTHORITY), Ok(1));
        let with_words = [b"# our own\n", AUTHORITY, b"\n", AUTHORITY].concat();
        assert_eq!(added(&with_words), Ok(2));
    }

    #[test]
    fn a_file_that_is_none_adds_nothing_and_says_why() {
        assert!(added(b"").unwrap_err().contains("no certificate"));
        assert!(added(b"words").unwrap_err().contains("no certificate"));
        assert!(added(&vec![b'x'; 2 << 20]).unwrap_err().contains("longer"));
        let damaged = String::from_utf8_lossy(AUTHORITY).replacen("MII", "AAA", 1);
        let half = [AUTHORITY, damaged.as_bytes()].concat();
        assert!(added(&half).unwrap_err().contains("that is none"));
        let cut = AUTHORITY.get(..AUTHORITY.len() / 2).unwrap_or_default();
        assert!(added(cut).is_err());
    }

    #[test]
    fn of_the_systems_bundles_the_first_counts_and_what_is_none_in_it_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let damaged = String::from_utf8_lossy(AUTHORITY).replacen("MII", "AAA", 1);
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("half"), [damaged.as_bytes(), AUTHORITY].concat()).unwrap();
        std::fs::write(path("two"), [AUTHORITY, AUTHORITY].concat()).unwrap();
        let added = |names: &[&str]| {
            let paths: Vec<_> = names.iter().map(|name| path(name)).collect();
            let mut roots = RootCertStore::empty();
            let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
            add_first_bundle(&mut roots, &paths).map(|()| roots.len()).map_err(|error| error.to_string())
        };
        assert_eq!(added(&["missing", "empty", "half", "two"]), Ok(1));
        assert_eq!(added(&["two", "half"]), Ok(2));
        assert!(added(&["missing", "empty"]).unwrap_err().contains("no certificate"));
        assert!(added(&["missing"]).unwrap_err().contains("the system has none"));
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let mut roots = RootCertStore::empty();
        for path in ["/", "/dev/zero", "/nonexistent"] {
            assert!(add_file(&mut roots, Path::new(path)).is_err(), "{path}");
        }
    }
}
