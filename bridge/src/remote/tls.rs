//! Whom to trust at the other end of a connection, and in words why it was not trusted.

use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::addresses::Refused;
use super::{Identity, Invalid};

/// What was wrong with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The host's address may not be connected to.
    Address(String),
    /// The two sides do not trust or understand each other.
    Tls(String),
    /// The other side hung up, and did not say why.
    HungUp(String),
}

/// The configuration of connections: the authorities that `authorities` names, else the public ones.
pub(super) fn trust(authorities: Option<&[u8]>, identity: Option<&Identity>) -> Result<ClientConfig, Invalid> {
    let roots = match authorities {
        Some(pem) => own_roots(pem)?,
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
    };
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Invalid(format!("TLS cannot be used: {error}")))?
        .with_root_certificates(roots);
    let Some(Identity { certificate, key }) = identity else { return Ok(config.with_no_client_auth()) };
    let wrong = |what: String| Invalid(format!("the Secret of spec.remote.tls.clientCertificateRef {what}"));
    let chain = certificates(certificate).map_err(|error| wrong(format!("holds no certificate in PEM: {error}")))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| wrong("holds no private key in PEM (PKCS #8, PKCS #1 or SEC 1)".to_owned()))?;
    config.with_client_auth_cert(chain, key).map_err(|error| wrong(format!("cannot be used: {error}")))
}

fn own_roots(pem: &[u8]) -> Result<RootCertStore, Invalid> {
    let wrong = |error: String| {
        Invalid(format!(
            "what spec.remote.tls.caCertificateRef names holds no certificates of authorities in PEM: {error}"
        ))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).map_err(wrong)? {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("there is no BEGIN CERTIFICATE".to_owned()) } else { Ok(found) }
}

/// How troubles with one host are told.
#[derive(Clone)]
pub(super) struct Words {
    host: Arc<str>,
    has_own_authorities: bool,
}

impl Words {
    pub(super) fn new(host: &str, has_own_authorities: bool) -> Self {
        Self { host: host.into(), has_own_authorities }
    }

    /// What `error` comes from, if that is an address or TLS.
    pub(super) fn explain(&self, error: &(dyn std::error::Error + 'static)) -> Option<Trouble> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref::<Refused>() {
                return Some(Trouble::Address(refused.to_string()));
            }
            if let Some(error) = error.downcast_ref::<rustls::Error>() {
                return Some(Trouble::Tls(self.tls(error)));
            }
            let system = error.downcast_ref::<io::Error>();
            if system.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
                return Some(Trouble::HungUp(format!(
                    "{} hung up without an answer, as some servers do when they want a client certificate or another one \
                     (spec.remote.tls.clientCertificateRef)",
                    self.host
                )));
            }
            // What an error of the system wraps is not among its sources, only what that one comes from.
            next = match system.and_then(io::Error::get_ref) {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    fn tls(&self, error: &rustls::Error) -> String {
        let host = &self.host;
        match error {
            rustls::Error::InvalidCertificate(wrong) => format!("{}; nothing was sent", self.certificate(wrong)),
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
                format!(
                    "{host} wants a client certificate: name the Secret of one in spec.remote.tls.clientCertificateRef"
                )
            }
            rustls::Error::AlertReceived(
                alert @ (AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::DecryptError
                | AlertDescription::AccessDenied),
            ) => format!(
                "{host} did not accept the client certificate ({alert:?}): renew the one that \
                 spec.remote.tls.clientCertificateRef names, or name another"
            ),
            rustls::Error::InvalidMessage(_) => {
                format!("{host} does not speak TLS on this port ({error}): is it a URL of http, or another port?")
            }
            other => format!("TLS with {host} failed: {other}"),
        }
    }

    fn certificate(&self, wrong: &CertificateError) -> String {
        let host = &self.host;
        match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of {host} has expired: it has to be renewed there")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the certificate of {host} is not valid yet: is a clock wrong?")
            }
            CertificateError::NotValidForName => format!("the certificate of {host} is for another name"),
            CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                format!("the certificate of {host} names no host: it has to have the name of the URL")
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                format!(
                    "the certificate of {host} is for another name ({}): write the URL with that one",
                    presented.join(", ")
                )
            }
            // An authority of that name with another key is another authority.
            CertificateError::UnknownIssuer | CertificateError::BadSignature if self.has_own_authorities => format!(
                "the certificate of {host} was signed by no authority that spec.remote.tls.caCertificateRef names"
            ),
            CertificateError::UnknownIssuer => format!(
                "the certificate of {host} was signed by no public authority: name its own one in \
                 spec.remote.tls.caCertificateRef"
            ),
            other => format!("the certificate of {host} is not valid: {other}"),
        }
    }
}
