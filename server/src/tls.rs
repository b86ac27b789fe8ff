//! From certificate files to what the transport encrypts with. Everything that can be wrong with a file is said in one
//! sentence, with what to do about it, before anybody connects.

mod certificate;
mod ciphers;
mod dates;

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use sol_transport::NameOf;

use self::certificate::Certificate;
use crate::config::{CertificateName, Config, Diagnostic, Listener, Protocol, Tls, TlsVersion, reason};

/// No file of certificates is larger.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// How many tickets a client of TLS 1.3 is given: it resumes one Session at a time.
const TICKETS: usize = 1;

/// What a listener encrypts with, if it does, and what the operator should know of its files. Reads them.
///
/// # Errors
/// What is wrong with a file, and what to do about it.
pub fn load(listener: &Listener) -> Result<(Option<sol_transport::Tls>, Vec<Diagnostic>), Diagnostic> {
    let Some(tls) = &listener.tls else {
        return Ok((None, Vec::new()));
    };
    let mut warnings = Vec::new();
    let provider = Arc::new(provider(listener, tls, &mut warnings)?);
    let versions = versions(tls);
    let own = own_certificate(tls, &provider, &mut warnings)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| listener.place_of("tls_version").say(format!("TLS: {error}")))?;
    let verifier = client_verifier(listener, tls, &provider, &mut warnings)?;
    // Of one that resumes nobody would look at the certificate again.
    let may_resume = verifier.is_none() || !tls.check_client_dates;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![match listener.protocol {
        Protocol::Mqtt => b"mqtt".to_vec(),
        Protocol::WebSockets => b"http/1.1".to_vec(),
    }];
    // Tickets say all that is needed, to TLS 1.2 too, and expire.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    if may_resume {
        config.send_tls13_tickets = TICKETS;
        // New keys with every reading of the files: what was agreed on under other rules is not resumed.
        config.ticketer =
            Ticketer::new().map_err(|error| Diagnostic::of_file(&tls.keyfile, format!("TLS: {error}")))?;
    }
    let tls = sol_transport::Tls {
        config: Arc::new(config),
        name_of: listener.certificate_name.map(name_of),
    };
    Ok((Some(tls), warnings))
}

/// What each listener of the configuration encrypts with, in its order.
pub type Listeners = Vec<Option<sol_transport::Tls>>;

/// Reads the files of all listeners, at the start.
///
/// # Errors
/// As [`load`], for each listener.
pub(crate) fn load_all(config: &Config) -> Result<(Listeners, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (mut all, mut warnings, mut errors) = (Listeners::new(), Vec::new(), Vec::new());
    for listener in &config.listeners {
        match load(listener) {
            Ok((tls, told)) => {
                all.push(tls);
                warnings.extend(told);
            }
            Err(error) => errors.push(error),
        }
    }
    // Listeners share files.
    warnings.dedup();
    errors.dedup();
    if errors.is_empty() {
        Ok((all, warnings))
    } else {
        Err(errors)
    }
}

fn versions(tls: &Tls) -> Vec<&'static SupportedProtocolVersion> {
    [
        (TlsVersion::V1_2, &rustls::version::TLS12),
        (TlsVersion::V1_3, &rustls::version::TLS13),
    ]
    .into_iter()
    .filter(|(version, _)| (tls.version_min..=tls.version_max).contains(version))
    .map(|(_, spoken)| spoken)
    .collect()
}

/// The cipher suites that are spoken.
fn provider(listener: &Listener, tls: &Tls, warnings: &mut Vec<Diagnostic>) -> Result<CryptoProvider, Diagnostic> {
    let mut provider = default_provider();
    let chosen = [
        ("ciphers", &tls.ciphers, TlsVersion::V1_2),
        ("ciphers_tls1.3", &tls.ciphers_tls13, TlsVersion::V1_3),
    ];
    for (directive, names, version) in chosen {
        let Some(names) = names else { continue };
        let place = listener.place_of(directive);
        let unknown = ciphers::choose(&mut provider.cipher_suites, names, version).map_err(|text| place.say(text))?;
        warnings.extend(
            unknown
                .into_iter()
                .map(|name| place.say(format!("`{name}` is left out: no cipher suite of that name is spoken"))),
        );
    }
    Ok(provider)
}

/// The server's certificate with its key.
fn own_certificate(
    tls: &Tls,
    provider: &CryptoProvider,
    warnings: &mut Vec<Diagnostic>,
) -> Result<CertifiedKey, Diagnostic> {
    let chain = certificates(&tls.certfile, "certificate")?;
    let key = private_key(&tls.keyfile, warnings)?;
    if let Some(own) = chain.first().and_then(|own| Certificate::parse(own)) {
        let now = now();
        if own.not_after < now.as_secs() {
            warnings.push(Diagnostic::of_file(
                &tls.certfile,
                "the certificate is expired, and clients will refuse it; renew it, and send SIGHUP",
            ));
        } else if own.not_before > now.as_secs() {
            let text =
                "the certificate is not valid yet, and clients will refuse it; look at the clock of this machine";
            warnings.push(Diagnostic::of_file(&tls.certfile, text));
        }
    }
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| Diagnostic::of_file(&tls.keyfile, format!("the key cannot be used: {error}")))?;
    let own = CertifiedKey::new(chain, key);
    match own.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(own),
        Err(rustls::Error::InconsistentKeys(_)) => Err(Diagnostic::of_file(
            &tls.keyfile,
            format!(
                "the key is not that of the certificate in {}; the server's own certificate has to be the first there",
                tls.certfile.display()
            ),
        )),
        Err(error) => Err(Diagnostic::of_file(
            &tls.certfile,
            format!("the certificate cannot be used: {error}"),
        )),
    }
}

fn private_key(path: &Path, warnings: &mut Vec<Diagnostic>) -> Result<PrivateKeyDer<'static>, Diagnostic> {
    let bytes = read(path)?;
    if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0) {
        let text = format!(
            "open to every user of this machine; run: chmod o-rwx '{}'",
            path.display()
        );
        warnings.push(Diagnostic::of_file(path, text));
    }
    if bytes.windows(9).any(|word| word == b"ENCRYPTED") {
        let text = "the key is encrypted, and there is nobody to ask for its passphrase; write it without one: \
                    openssl pkey -in KEY -out NEWKEY";
        return Err(Diagnostic::of_file(path, text));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        PemError::NoItemsFound => Diagnostic::of_file(path, "there is no private key in it, as PEM writes one"),
        error => Diagnostic::of_file(path, format!("no PEM file: {error}")),
    })
}

/// The certificates of a PEM file, at least one.
fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| Diagnostic::of_file(path, format!("no PEM file: {error}")))?;
    if found.is_empty() {
        let text = format!("there is no {what} in it, as PEM writes one");
        return Err(Diagnostic::of_file(path, text));
    }
    Ok(found)
}

/// Who judges the certificates of clients; `None`: they are not asked for any.
fn client_verifier(
    listener: &Listener,
    tls: &Tls,
    provider: &Arc<CryptoProvider>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Diagnostic> {
    // A file that is named and cannot be used is refused, used or not.
    let (roots, path) = authorities(tls)?;
    let revoked = revoked(tls)?;
    if !tls.require_certificate && listener.certificate_name.is_none() {
        return Ok(None);
    }
    let of_path = |text: String| Diagnostic::of_file(&path, text);
    if roots.is_empty() {
        return Err(of_path(
            "there is no authority in it that a client could come from".to_owned(),
        ));
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(crlfile) = &tls.crlfile {
        if revoked.iter().any(|list| is_out_of_date(list)) {
            let text = "the list of revoked certificates is out of date, and clients will be refused; fetch a new one, and send \
                        SIGHUP";
            warnings.push(Diagnostic::of_file(crlfile, text));
        }
        builder = builder
            .with_crls(revoked)
            .only_check_end_entity_revocation()
            .enforce_revocation_expiration();
    }
    if !tls.require_certificate {
        // Whoever has none is told so by MQTT.
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder
        .build()
        .map_err(|error| of_path(format!("clients' certificates cannot be checked: {error}")))?;
    Ok(Some(if tls.check_client_dates {
        verifier
    } else {
        Arc::new(dates::AnyDate(verifier))
    }))
}

/// The lists of revoked certificates.
fn revoked(tls: &Tls) -> Result<Vec<CertificateRevocationListDer<'static>>, Diagnostic> {
    let Some(crlfile) = &tls.crlfile else {
        return Ok(Vec::new());
    };
    let bytes = read(crlfile)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let lists = lists.map_err(|error| Diagnostic::of_file(crlfile, format!("no PEM file: {error}")))?;
    if lists.is_empty() {
        let text = "there is no list of revoked certificates in it, as PEM writes one";
        return Err(Diagnostic::of_file(crlfile, text));
    }
    Ok(lists)
}

fn is_out_of_date(list: &CertificateRevocationListDer<'_>) -> bool {
    certificate::next_update(list).is_some_and(|next_update| next_update < now().as_secs())
}

/// The authorities that clients may come from, and where they stand.
fn authorities(tls: &Tls) -> Result<(RootCertStore, PathBuf), Diagnostic> {
    let mut roots = RootCertStore::empty();
    let mut add = |path: &Path, all: Vec<CertificateDer<'static>>| {
        all.into_iter().try_for_each(|authority| {
            roots
                .add(authority)
                .map_err(|error| Diagnostic::of_file(path, format!("a certificate cannot be used: {error}")))
        })
    };
    if let Some(cafile) = &tls.cafile {
        add(cafile, certificates(cafile, "certificate of an authority")?)?;
    }
    if let Some(capath) = &tls.capath {
        let entries = fs::read_dir(capath).map_err(|error| cannot_read(capath, &error))?;
        for entry in entries {
            let path = entry.map_err(|error| cannot_read(capath, &error))?.path();
            if let Some(found) = certificates_of_entry(&path)? {
                add(&path, found)?;
            }
        }
    }
    let path = tls.cafile.clone().or_else(|| tls.capath.clone());
    Ok((roots, path.unwrap_or_else(|| tls.certfile.clone())))
}

/// The certificates of an entry of a directory; `None`: it is something else, as a list of revoked certificates or a link to
/// what is gone. One that cannot be looked at may be an authority, and to go on without would refuse its clients.
fn certificates_of_entry(path: &Path) -> Result<Option<Vec<CertificateDer<'static>>>, Diagnostic> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot_read(path, &error)),
    }
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    Ok(found.ok())
}

fn read(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| cannot_read(path, &error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Diagnostic::of_file(
            path,
            "larger than 4 MiB, so it is no file of certificates",
        ));
    }
    Ok(bytes)
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Diagnostic {
    Diagnostic::of_file(path, format!("cannot be read: {}", reason(error)))
}

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The Common Name of a client's certificate, if it has shown one that has one.
pub(crate) fn common_name(chain: &[CertificateDer<'_>]) -> Option<Box<str>> {
    Some(Certificate::parse(chain.first()?)?.common_name()?.into())
}

/// Who a client is by its certificate.
fn name_of(name: CertificateName) -> Arc<NameOf> {
    Arc::new(move |chain| {
        let own = chain.first().ok_or("it has no certificate to say who it is")?;
        let certificate = Certificate::parse(own).ok_or("its certificate cannot be read")?;
        match name {
            CertificateName::CommonName => certificate
                .common_name()
                .ok_or_else(|| "its certificate has no Common Name to be its User Name".to_owned()),
            CertificateName::Subject => Ok(certificate.subject()),
        }
    })
}

/// What a verifier says of a signature.
type Signed = Result<HandshakeSignatureValid, rustls::Error>;

#[cfg(test)]
mod tests;
