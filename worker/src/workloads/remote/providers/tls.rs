//! Who is believed to be a provider: whoever has a certificate that this host's roots vouch for,
//! or those of the description's `ca_file`. All are read at set-up, before the seal.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use shiftboss_provider::description::Provider;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

/// The largest file of certificates that is read, bytes: that of a whole host has about 220,000.
const BYTES_MAX: u64 = 4 << 20;

/// Roots that vouch for providers.
#[derive(Debug)]
pub(in crate::workloads::remote) struct Tls {
    host: RootCertStore,
    /// Those of providers that have their own, by the provider's name.
    own: BTreeMap<String, RootCertStore>,
}

impl Tls {
    /// The roots of this host. Those that cannot be read vouch for nobody; the others still do.
    pub(super) fn of_host() -> Self {
        let mut host = RootCertStore::empty();
        host.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Self { host, own: BTreeMap::new() }
    }

    /// Reads the certificates that a description names.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(super) fn read(&mut self, provider: &Provider) -> Result<(), String> {
        let Some(path) = &provider.ca_file else { return Ok(()) };
        let told = |why: &str| format!("cannot take certificates from its ca_file {path}: {why}");
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| told(&error.to_string()))?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(told(&format!("it has more than {BYTES_MAX} bytes")));
        }
        let mut roots = self.host.clone();
        let mut added = 0;
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let certificate =
                certificate.map_err(|error| told(&format!("it is no PEM: {error}")))?;
            roots.add(certificate).map_err(|error| told(&error.to_string()))?;
            added += 1;
        }
        if added == 0 {
            return Err(told("there is none in it"));
        }
        self.own.insert(provider.name.clone(), roots);
        Ok(())
    }

    /// How TLS is spoken with this provider.
    ///
    /// # Errors
    /// A sentence: what the library refuses.
    pub(in crate::workloads::remote) fn of(
        &self,
        provider: &Provider,
    ) -> Result<ClientConfig, String> {
        let told = |error: &dyn std::fmt::Display| format!("cannot set up TLS: {error}");
        let roots = self.own.get(&provider.name).unwrap_or(&self.host).clone();
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .map_err(|error| told(&error))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// What a person can do about a certificate that was refused.
pub(in crate::workloads::remote) fn advice(
    error: &(dyn std::error::Error + 'static),
) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = cause.downcast_ref() {
            return Some(
                "nothing was sent: neither this host's roots nor the description's `ca_file` vouch \
                 for who answered",
            );
        }
        // An I/O error shows what it holds as itself, not as its source.
        let inner = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiftboss_provider::load::load;

    fn provider(ca_file: &str) -> Provider {
        let text = format!(
            "name = \"mine\"\nbase = \"https://a.b\"\nca_file = {ca_file:?}\n[submit]\n\
             url = \"{{base}}/x\""
        );
        load("mine.toml", "mine", &text).expect("it is right")
    }

    #[test]
    fn a_file_without_certificates_is_refused_and_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ca.pem");
        let path = path.to_str().expect("text");
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (text, told) in [
            (None, "No such file"),
            (Some(""), "there is none in it"),
            (Some("no PEM"), "there is none in it"),
            (Some(cut), "it is no PEM"),
            (Some(none), "certificate"),
        ] {
            if let Some(text) = text {
                std::fs::write(path, text).expect("written");
            }
            let why = Tls::of_host().read(&provider(path)).expect_err(told);
            assert!(why.contains(told) && why.contains(path), "{why}");
        }
        let why = Tls::of_host().read(&provider("/dev/zero")).expect_err("it never ends");
        assert!(why.contains("more than 4194304 bytes"), "{why}");
    }
}
