//! An authority, and a certificate of it for this broker.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, Error, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// How long the certificate is valid, in days: the longest that every client believes.
pub(super) const DAYS: u32 = 825;
/// The same of its authority: clients have its file, so it should outlive them.
const AUTHORITY_DAYS: u32 = 20 * 365;
const DAY: Duration = Duration::from_secs(86_400);

/// Certificates and keys, each a PEM file.
pub(super) struct Pair {
    pub(super) authority: String,
    pub(super) authority_key: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

/// Makes an authority, and its certificate for these hosts.
///
/// # Errors
/// As rcgen has it: a host that is no name, or a system without randomness.
pub(super) fn issue(hosts: &[String]) -> Result<Pair, Error> {
    let mut params = CertificateParams::default();
    let known_by = hosts.first().map_or("localhost", String::as_str);
    name(&mut params, &format!("Sol's authority at {known_by}"), AUTHORITY_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;

    let mut params = CertificateParams::new(hosts)?;
    name(&mut params, "sol", DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    Ok(Pair {
        authority: authority.pem(),
        authority_key: authority.key().serialize_pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn name(params: &mut CertificateParams, common_name: &str, days: u32) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    // A client's clock may be behind this one.
    params.not_before = epoch + now.saturating_sub(DAY);
    params.not_after = epoch + now + DAY * days;
}

/// The hosts as OpenSSL writes them.
pub(super) fn subject_alt_names(hosts: &[String]) -> String {
    let one = |host: &String| match host.parse::<IpAddr>() {
        Ok(address) => format!("IP:{address}"),
        Err(_) => format!("DNS:{host}"),
    };
    hosts.iter().map(one).collect::<Vec<_>>().join(",")
}
