//! How a listener is encrypted: files and choices, none of them read or judged here.

use std::fmt;
use std::path::PathBuf;

/// How a listener is encrypted. The line of each file is [`super::Listener::place_of`] its directive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// The server's certificate, with those between it and its authority.
    pub certfile: PathBuf,
    /// Its private key.
    pub keyfile: PathBuf,
    /// The authorities that clients' certificates are checked against.
    pub cafile: Option<PathBuf>,
    /// A directory of such authorities, a file each.
    pub capath: Option<PathBuf>,
    /// Certificates of clients that were revoked.
    pub crlfile: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub require_certificate: bool,
    /// Whether the dates of a client's certificate count.
    pub check_client_dates: bool,
    /// The least version.
    pub version_min: TlsVersion,
    /// The highest version.
    pub version_max: TlsVersion,
    /// Cipher suites of TLS 1.2, by OpenSSL's names; the library's choice where there are none.
    pub ciphers: Option<String>,
    /// Cipher suites of TLS 1.3.
    pub ciphers_tls13: Option<String>,
}

/// A version of TLS that is spoken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        })
    }
}

/// What the lines of a listener say of its encryption, before it is known whether it has any.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct TlsDraft {
    pub(crate) certfile: Option<PathBuf>,
    pub(crate) keyfile: Option<PathBuf>,
    pub(crate) cafile: Option<PathBuf>,
    pub(crate) capath: Option<PathBuf>,
    pub(crate) crlfile: Option<PathBuf>,
    pub(crate) require_certificate: bool,
    pub(crate) ignore_client_dates: bool,
    pub(crate) version_min: Option<TlsVersion>,
    pub(crate) version_max: Option<TlsVersion>,
    pub(crate) ciphers: Option<String>,
    pub(crate) ciphers_tls13: Option<String>,
}

impl TlsDraft {
    /// The encryption that the lines mean; or the directive that is at fault, and why. Whoever writes any of them expects
    /// a listener that nobody can listen in on, so none goes without the others.
    pub(crate) fn settle(self) -> Result<Option<Tls>, (&'static str, &'static str)> {
        let (certfile, keyfile) = match (self.certfile, self.keyfile) {
            (Some(certfile), Some(keyfile)) => (certfile, keyfile),
            (Some(_), None) => return Err(("certfile", "needs the key of the certificate beside it: keyfile")),
            (None, Some(_)) => return Err(("keyfile", "needs the certificate of the key beside it: certfile")),
            (None, None) => {
                let alone = [
                    ("cafile", self.cafile.is_some()),
                    ("capath", self.capath.is_some()),
                    ("crlfile", self.crlfile.is_some()),
                    ("require_certificate", self.require_certificate),
                    ("disable_client_cert_date_checks", self.ignore_client_dates),
                    ("tls_version", self.version_min.is_some()),
                    ("ciphers", self.ciphers.is_some()),
                    ("ciphers_tls1.3", self.ciphers_tls13.is_some()),
                ];
                return match alone.into_iter().find(|(_, given)| *given) {
                    Some((directive, _)) => Err((
                        directive,
                        "gives no TLS without certfile and keyfile, the server's own certificate and its key",
                    )),
                    None => Ok(None),
                };
            }
        };
        let authorities = self.cafile.is_some() || self.capath.is_some();
        if self.require_certificate && !authorities {
            let text = "needs authorities that clients are checked against: cafile or capath";
            return Err(("require_certificate", text));
        }
        if self.crlfile.is_some() && !authorities {
            let text = "needs the authorities whose certificates it revokes: cafile or capath";
            return Err(("crlfile", text));
        }
        Ok(Some(Tls {
            certfile,
            keyfile,
            cafile: self.cafile,
            capath: self.capath,
            crlfile: self.crlfile,
            require_certificate: self.require_certificate,
            check_client_dates: !self.ignore_client_dates,
            version_min: self.version_min.unwrap_or(TlsVersion::V1_2),
            version_max: self.version_max.unwrap_or(TlsVersion::V1_3),
            ciphers: self.ciphers,
            ciphers_tls13: self.ciphers_tls13,
        }))
    }
}
