//! A judge of clients' certificates to whom their dates do not matter: a device whose clock has stopped comes in.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::Signed;
use super::certificate::Certificate;

/// Judges as if it were a time at which the client's certificate is valid: the one nearest to now.
#[derive(Debug)]
pub(super) struct AnyDate(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for AnyDate {
    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let seconds = Certificate::parse(own).map_or(now.as_secs(), |own| {
            now.as_secs().min(own.not_after).max(own.not_before)
        });
        let then = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.0.verify_client_cert(own, intermediates, then)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn verify_tls12_signature(&self, message: &[u8], own: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        self.0.verify_tls12_signature(message, own, dss)
    }

    fn verify_tls13_signature(&self, message: &[u8], own: &CertificateDer<'_>, dss: &DigitallySignedStruct) -> Signed {
        self.0.verify_tls13_signature(message, own, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
