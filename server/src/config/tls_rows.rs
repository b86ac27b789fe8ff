//! The directives that say how a listener is encrypted.

use super::Listener;
use super::directives::{Directive, Scope};
use super::draft::Draft;
use super::reader::{Fault, Reader, fault};
use super::show::{one, optional, path};
use super::tls::{Tls, TlsDraft, TlsVersion};
use std::path::PathBuf;

const NO_ENGINE: &str = "keys in hardware are not supported; the key stands in a file";

pub(crate) const CAFILE: Directive = file(
    "cafile",
    "The authorities that clients' certificates are checked against.",
    |draft, reader| set(draft, reader, |tls| &mut tls.cafile),
)
.shown_each(|listener| show(listener, |tls| tls.cafile.as_ref()));

pub(crate) const CERTFILE: Directive = file(
    "certfile",
    "The server's certificate, followed by those between it and its authority.",
    |draft, reader| set(draft, reader, |tls| &mut tls.certfile),
)
.shown_each(|listener| show(listener, |tls| Some(&tls.certfile)));

pub(crate) const KEYFILE: Directive = file("keyfile", "The server's private key.", |draft, reader| {
    set(draft, reader, |tls| &mut tls.keyfile)
})
.shown_each(|listener| show(listener, |tls| Some(&tls.keyfile)));

pub(crate) const ROWS: &[Directive] = &[
    file(
        "capath",
        "A directory of authorities that clients' certificates are checked against, a file each.",
        |draft, reader| set(draft, reader, |tls| &mut tls.capath),
    )
    .own()
    .shown_each(|listener| show(listener, |tls| tls.capath.as_ref())),
    file(
        "crlfile",
        "Certificates of clients that were revoked.",
        |draft, reader| set(draft, reader, |tls| &mut tls.crlfile),
    )
    .own()
    .shown_each(|listener| show(listener, |tls| tls.crlfile.as_ref())),
    Directive::new(
        "require_certificate",
        "true|false",
        "false",
        "Whether clients without a certificate are refused.",
        |draft, reader| {
            draft.part().tls.require_certificate = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .restart()
    .shown_each(|listener| optional(listener.tls.as_ref().map(|tls| tls.require_certificate))),
    Directive::new(
        "disable_client_cert_date_checks",
        "true|false",
        "false",
        "Whether the dates of a client's certificate are not looked at.",
        |draft, reader| {
            draft.part().tls.ignore_client_dates = reader.switch()?;
            Ok(())
        },
    )
    .own()
    .of(Scope::ListenerAbove)
    .restart()
    .shown_each(|listener| optional(listener.tls.as_ref().map(|tls| !tls.check_client_dates))),
    Directive::new(
        "tls_version",
        "tlsv1.2|tlsv1.3",
        "tlsv1.2",
        "The least version of TLS that is spoken.",
        |draft, reader| {
            draft.part().tls.version_min = Some(reader.with(least_version)?);
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .restart()
    .shown_each(|listener| optional(listener.tls.as_ref().map(|tls| format!("tlsv{}", tls.version_min)))),
    Directive::new(
        "ciphers",
        "NAME:NAME…",
        "the library's choice",
        "Cipher suites of TLS 1.2, by OpenSSL's names.",
        |draft, reader| {
            draft.part().tls.ciphers = Some(reader.rest()?.text.to_owned());
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .restart()
    .shown_each(|listener| optional(listener.tls.as_ref().and_then(|tls| tls.ciphers.as_ref()))),
    Directive::new(
        "ciphers_tls1.3",
        "NAME:NAME…",
        "the library's choice",
        "Cipher suites of TLS 1.3.",
        |draft, reader| {
            draft.part().tls.ciphers_tls13 = Some(reader.rest()?.text.to_owned());
            Ok(())
        },
    )
    .own()
    .of(Scope::Listener)
    .restart()
    .shown_each(|listener| optional(listener.tls.as_ref().and_then(|tls| tls.ciphers_tls13.as_ref()))),
    Directive::new(
        "dhparamfile",
        "PATH",
        "none",
        "Parameters of a key exchange that is not spoken any more.",
        |_, reader| reader.path().map(drop),
    )
    .own()
    .of(Scope::Listener)
    .without_effect("the key exchanges of today need no parameters"),
    Directive::new(
        "tls_keyform",
        "pem",
        "pem",
        "How the private key is kept.",
        |_, reader| {
            let token = reader.word()?;
            if token.text == "pem" {
                Ok(())
            } else {
                Err(fault(token, NO_ENGINE))
            }
        },
    )
    .own()
    .of(Scope::Listener),
];

const fn file(name: &'static str, help: &'static str, apply: super::directives::Apply) -> Directive {
    Directive::new(name, "PATH", "none", help, apply)
        .of(Scope::Listener)
        .restart()
}

fn set(
    draft: &mut Draft,
    reader: &mut Reader<'_>,
    field: fn(&mut TlsDraft) -> &mut Option<PathBuf>,
) -> Result<(), Fault> {
    let path = reader.path()?;
    *field(&mut draft.part().tls) = Some(path);
    Ok(())
}

fn show(listener: &Listener, field: fn(&Tls) -> Option<&PathBuf>) -> Vec<String> {
    path(listener.tls.as_ref().and_then(field).map(PathBuf::as_path))
}

fn least_version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "tlsv1.2" => Ok(TlsVersion::V1_2),
        "tlsv1.3" => Ok(TlsVersion::V1_3),
        "tlsv1" | "tlsv1.0" | "tlsv1.1" => Err(old_version(text)),
        _ => Err(format!("`{text}` is neither tlsv1.2 nor tlsv1.3")),
    }
}

/// Why a version is not spoken.
pub(crate) fn old_version(name: &str) -> String {
    format!("`{name}` is not spoken: it can be broken, and RFC 8996 forbids it; clients need TLS 1.2 or 1.3")
}

/// What a sol file's `tls_protocols` are, printed as it writes them.
pub(crate) fn protocols(tls: &Tls) -> Vec<String> {
    let spoken = [(TlsVersion::V1_2, "tlsv1_2"), (TlsVersion::V1_3, "tlsv1_3")];
    let names: Vec<_> = spoken
        .iter()
        .filter(|(version, _)| (tls.version_min..=tls.version_max).contains(version))
        .map(|(_, name)| *name)
        .collect();
    one(names.join(","))
}
