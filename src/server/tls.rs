//! Encryption, and optionally a proof of who the client is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::Invalid;

/// TLS of one server; off unless a certificate is named. Files are PEM and read at start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct Config {
    /// The server's certificate, followed by those between it and the root.
    pub cert_file: Option<PathBuf>,
    /// Its private key.
    pub key_file: Option<PathBuf>,
    /// Clients must show a certificate that one of these signed.
    pub client_ca_file: Option<PathBuf>,
}

impl Config {
    /// Checks that what belongs together comes together. `section` is the key of this section.
    ///
    /// # Errors
    /// The key that is missing.
    pub fn validate(&self, section: &str) -> Result<(), Invalid> {
        let missing = match self {
            Config { cert_file: None, key_file: None, client_ca_file: None } => return Ok(()),
            Config { cert_file: Some(_), key_file: Some(_), .. } => return Ok(()),
            Config { cert_file: None, .. } => "cert_file",
            Config { key_file: None, .. } => "key_file",
        };
        let problem = "TLS needs both cert_file and key_file".to_owned();
        Err(Invalid { key: format!("{section}.{missing}"), problem })
    }
}

/// Reads the files. `None` if TLS is off.
pub(super) fn acceptor(config: &Config, section: &str, protocols: &[&[u8]]) -> Result<Option<TlsAcceptor>, Invalid> {
    let (Some(cert), Some(key)) = (&config.cert_file, &config.key_file) else { return Ok(None) };
    let invalid = |field: &str, path: &Path, error: &dyn std::fmt::Display| Invalid {
        key: format!("{section}.{field}"),
        problem: format!("{}: {error}", path.display()),
    };
    let chain = certificates(cert).map_err(|error| invalid("cert_file", cert, &error))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| invalid("key_file", key, &error))?;

    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring supports the default versions");
    let builder = match &config.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let invalid = |error: &dyn std::fmt::Display| invalid("client_ca_file", path, error);
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path).map_err(|error| invalid(&error))? {
                roots.add(certificate).map_err(|error| invalid(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| invalid(&error))?)
        }
    };
    let mut server = builder.with_single_cert(chain, secret).map_err(|error| invalid("cert_file", cert, &error))?;
    server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if chain.is_empty() => Err("there is no certificate in it".to_owned()),
        other => other.map_err(|error| error.to_string()),
    }
}
