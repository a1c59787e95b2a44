//! Whose certificates the portal accepts on connections that it makes: those of Mozilla's list of
//! authorities, compiled in, and of the authorities in `ca_file`. The certificates of the machine
//! are not asked, so that each node of a portal decides alike.

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{fs, path::Path, sync::Arc};

/// The authorities that are trusted.
#[derive(Clone, Debug)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    /// What `ca_file` contains, for clients that read PEM themselves.
    more: Option<Arc<[u8]>>,
}

impl Default for Trust {
    /// Mozilla's authorities.
    fn default() -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
        Self {
            roots: Arc::new(RootCertStore { roots }),
            more: None,
        }
    }
}

impl Trust {
    /// Mozilla's authorities and those of a file (PEM). The error says what is wrong with the file.
    pub fn with_file(file: &Path) -> Result<Self, String> {
        let shown = file.display();
        let text = fs::read(file).map_err(|error| format!("{shown}: {error}"))?;
        let found = authorities(&text).ok_or_else(|| {
            format!("{shown} must contain certificates in PEM form, and only such as can be read")
        })?;
        let mut all = Self::default();
        Arc::make_mut(&mut all.roots).roots.extend(found.roots);
        all.more = Some(text.into());
        Ok(all)
    }

    /// For TLS connections to servers that have a certificate of one of these authorities.
    pub fn client_config(&self) -> ClientConfig {
        client_config(Arc::clone(&self.roots))
    }

    /// The authorities of `ca_file`, as PEM.
    pub fn more(&self) -> Option<&[u8]> {
        self.more.as_deref()
    }
}

/// For TLS connections to servers that have a certificate of one of these authorities.
pub fn client_config(roots: Arc<RootCertStore>) -> ClientConfig {
    ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// The authorities of a text (PEM); `None` if it has none, or one that cannot be read.
pub fn authorities(text: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        roots.add(certificate.ok()?).ok()?;
    }
    (!roots.is_empty()).then_some(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> String {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
        made.unwrap().cert.pem()
    }

    #[test]
    fn a_file_adds_to_the_public_authorities() {
        let file = std::env::temp_dir().join(crate::vault::random::label());
        fs::write(&file, [certificate(), certificate()].concat()).unwrap();
        let (public, both) = (Trust::default(), Trust::with_file(&file).unwrap());
        assert_eq!(both.roots.len(), public.roots.len() + 2);
        assert!(public.more().is_none() && both.more().is_some());
        fs::remove_file(&file).unwrap();
        assert!(Trust::with_file(&file).is_err());
    }

    #[test]
    fn a_text_without_authorities_or_with_a_damaged_one_is_refused() {
        let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in [String::new(), "a key".into(), certificate() + damaged] {
            assert!(authorities(text.as_bytes()).is_none(), "{text}");
        }
    }
}
