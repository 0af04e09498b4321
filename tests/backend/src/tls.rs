//! A TLS door: certificates made on the spot, good ones and wrong ones.

use std::{sync::Arc, time::SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use time::{Duration, OffsetDateTime};

/// What a certificate could not be made for.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate.
    #[error("no certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The server.
    #[error("no TLS server: {0}")]
    Server(#[from] rustls::Error),
    /// Whom it lets in.
    #[error("no TLS server for clients with certificates: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// A certificate authority of its own.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing: it is for `localhost` and 127.0.0.1.
    None,
    /// It is for another host.
    OtherHost,
    /// It was good until yesterday.
    Expired,
    /// It will be good from tomorrow on.
    NotYet,
}

/// What a TLS server shows of itself; see [`Builder::tls`](crate::Builder::tls).
#[derive(Debug, Clone)]
pub struct Identity(pub(crate) Arc<ServerConfig>);

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// [`TlsError::Certificate`].
    pub fn new() -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Authorities of one name would pass for one another until their signatures are checked.
        params.distinguished_name.push(DnType::CommonName, format!("authority {:016x}", fastrand::u64(..)));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its certificate in PEM, for those who are to trust it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate of somebody who is no server, and its key, both in PEM.
    ///
    /// # Errors
    /// [`TlsError::Certificate`].
    pub fn client(&self) -> Result<(String, String), TlsError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a client");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok((certificate, key.serialize_pem()))
    }

    /// A server's certificate by this authority.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn server(&self, flaw: Flaw) -> Result<Identity, TlsError> {
        self.server_for(flaw, None)
    }

    /// The same, of a server that takes nobody without a certificate by `clients`.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn server_asking(&self, clients: &Self) -> Result<Identity, TlsError> {
        self.server_for(Flaw::None, Some(clients))
    }

    fn server_for(&self, flaw: Flaw, clients: Option<&Self>) -> Result<Identity, TlsError> {
        let hosts =
            if flaw == Flaw::OtherHost { ["other.example", "127.0.0.2"] } else { ["localhost", "127.0.0.1"] };
        let mut params = CertificateParams::new(hosts.map(str::to_owned))?;
        let now = OffsetDateTime::from(SystemTime::now());
        (params.not_before, params.not_after) = match flaw {
            Flaw::None | Flaw::OtherHost => (now - Duration::days(1), now + Duration::days(1)),
            Flaw::Expired => (now - Duration::days(2), now - Duration::days(1)),
            Flaw::NotYet => (now + Duration::days(1), now + Duration::days(2)),
        };
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(authority.pem.as_bytes()).flatten() {
                    roots.add(certificate)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let config = config.with_single_cert(vec![certificate], key)?;
        Ok(Identity(Arc::new(config)))
    }
}
