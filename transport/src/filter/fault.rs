//! What goes wrong below MQTT, as one sentence for the operator.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::websocket::Ending;

/// What went wrong with TLS or WebSocket. All of it is the peer's doing, or between it and the operator.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The first byte is not one of TLS.
    NoTls,
    /// More would have to be held of a handshake, or of a message behind it, than may be.
    LongTls,
    /// TLS says so.
    Tls(Error),
    /// WebSocket says so.
    WebSocket(Ending),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Tls(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTls => f.write_str("it speaks no TLS"),
            Self::LongTls => f.write_str("a message of its handshake takes too many bytes"),
            Self::Tls(error) => tls(error, f),
            Self::WebSocket(ending) => ending.fmt(f),
        }
    }
}

fn tls(error: &Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            // Clients of old versions do not send it, and it is looked for first.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => f.write_str("it offers no version of TLS that is spoken here; TLS 1.0 and 1.1 are not"),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            f.write_str("it offers no cipher suite that is spoken here")
        }
        Error::NoCertificatesPresented => f.write_str("it has no certificate, and one is required"),
        Error::InvalidCertificate(CertificateError::Revoked) => f.write_str("its certificate is revoked"),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            f.write_str("no known authority has issued its certificate")
        }
        Error::InvalidCertificate(CertificateError::ExpiredRevocationListContext { .. }) => {
            f.write_str("the list of revoked certificates (crlfile) is too old to judge its certificate by")
        }
        Error::InvalidCertificate(why) => write!(f, "its certificate is refused: {why}"),
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            f.write_str("it does not know the authority of our certificate")
        }
        Error::AlertReceived(AlertDescription::BadCertificate | AlertDescription::CertificateUnknown) => {
            f.write_str("it does not accept our certificate")
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            f.write_str("it says that our certificate is expired")
        }
        Error::AlertReceived(alert) => write!(f, "it ended TLS with the alert {alert:?}"),
        Error::NoApplicationProtocol => f.write_str("it wants to speak another protocol (ALPN) than is spoken here"),
        error => write!(f, "{error}"),
    }
}
