//! A TLS door: certificates made on the spot, good ones and wrong ones.

use std::{sync::Arc, time::SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
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

    /// A server's certificate by this authority.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn server(&self, flaw: Flaw) -> Result<Identity, TlsError> {
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
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(Identity(Arc::new(config)))
    }
}
