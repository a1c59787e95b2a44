//! TLS for browsers (rustls). The certificate and key are read from files and reloaded when these
//! change, so a renewal needs neither a restart nor a signal.

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio_rustls::TlsAcceptor;

/// The ALPN protocol name of HTTP/2 (RFC 9113 section 3.2).
pub const HTTP_2: &[u8] = b"h2";
/// How often the files' modification times are checked.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// The certificate chain and private key of two PEM files, as last loaded.
#[derive(Debug)]
pub struct Certificate {
    files: [PathBuf; 2],
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let explain =
        |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| explain(certificate, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| explain(key, &error))?;
    let provider: CryptoProvider = ring::default_provider();
    // Fails if the key does not match the certificate.
    CertifiedKey::from_der(chain, private, &provider).map_err(|error| explain(certificate, &error))
}

impl Certificate {
    /// Reads both files once; the error is a message that names the bad file.
    pub fn open(certificate: &Path, key: &Path) -> Result<Arc<Self>, String> {
        let current = RwLock::new(Arc::new(load(certificate, key)?));
        Ok(Arc::new(Self {
            files: [certificate.to_owned(), key.to_owned()],
            current,
        }))
    }

    /// An acceptor that always uses the current certificate and prefers HTTP/2 in ALPN.
    pub fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = [HTTP_2, b"http/1.1"].map(<[u8]>::to_vec).into();
        Arc::new(config).into()
    }

    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        self.files.each_ref().map(|file| {
            std::fs::metadata(file)
                .and_then(|found| found.modified())
                .ok()
        })
    }

    /// Reloads the files whenever they change; never returns. While they cannot be loaded or do not
    /// match, as in the middle of a renewal, the previous certificate stays in use.
    pub async fn watch(self: Arc<Self>) {
        let mut known = self.changed_at();
        let mut told = false;
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let now = self.changed_at();
            if now == known {
                continue;
            }
            let [certificate, key] = &self.files;
            match load(certificate, key) {
                Ok(loaded) => {
                    *self.current.write() = Arc::new(loaded);
                    tracing::info!(file = %certificate.display(), "certificate loaded anew");
                    (known, told) = (now, false);
                }
                // Retried at the next check, logged only once.
                Err(reason) if !told => {
                    tracing::error!(reason, "the new certificate is not used");
                    told = true;
                }
                Err(_) => {}
            }
        }
    }
}
