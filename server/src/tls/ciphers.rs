//! Cipher suites by OpenSSL's names.

use rustls::{CipherSuite, SupportedCipherSuite};

use crate::config::TlsVersion;

/// OpenSSL's names of what is spoken: those of TLS 1.3 are the standard's own.
const NAMES: &[(&str, CipherSuite)] = &[
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

/// Words of OpenSSL that mean all that is spoken here, which is only what is strong.
const ALL: &[&str] = &[
    "ALL",
    "DEFAULT",
    "HIGH",
    "SECURE",
    "ECDHE",
    "ECDH",
    "AESGCM",
    "ECDHE+AESGCM",
];

/// Leaves of a version's suites those that are named, in that order. Gives the names that nothing is known by.
pub(super) fn choose(
    suites: &mut Vec<SupportedCipherSuite>,
    names: &str,
    version: TlsVersion,
) -> Result<Vec<String>, String> {
    let is_of_version = |suite: &SupportedCipherSuite| suite.tls13().is_some() == (version == TlsVersion::V1_3);
    let (own, mut chosen): (Vec<_>, Vec<_>) = suites.drain(..).partition(is_of_version);
    let (mut unknown, others) = (Vec::new(), chosen.len());
    for name in names.split([':', ',', ' ']).filter(|name| !name.is_empty()) {
        // What is weak is not spoken anyway, and neither is there another order to be sorted by.
        if name.starts_with(['!', '-', '@']) {
            continue;
        }
        let known = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let is_meant = |suite: &&SupportedCipherSuite| known.is_none_or(|(_, known)| suite.suite() == *known);
        if known.is_none() && !ALL.contains(&name) {
            unknown.push(name.to_owned());
            continue;
        }
        for suite in own.iter().filter(is_meant) {
            if !chosen.contains(suite) {
                chosen.push(*suite);
            }
        }
    }
    if chosen.len() == others {
        let known = NAMES
            .iter()
            .filter(|(name, _)| name.starts_with("TLS_") == (version == TlsVersion::V1_3));
        let known: Vec<_> = known.map(|(name, _)| *name).collect();
        return Err(format!(
            "none of these cipher suites is spoken; there are {}",
            known.join(", ")
        ));
    }
    *suites = chosen;
    Ok(unknown)
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring::default_provider;

    use super::*;

    /// Names keep their order, words mean all, what is unknown is named, and nothing at all is refused.
    #[test]
    fn suites_by_name() {
        let choose = |names, version| {
            let mut suites = default_provider().cipher_suites;
            let unknown = choose(&mut suites, names, version)?;
            let of_version = suites
                .iter()
                .filter(|suite| suite.tls13().is_some() == (version == TlsVersion::V1_3))
                .map(|suite| suite.suite());
            Ok::<_, String>((of_version.collect::<Vec<_>>(), unknown))
        };
        let rsa = "ECDHE-RSA-AES128-GCM-SHA256:DES-CBC3-SHA:ECDHE-ECDSA-AES256-GCM-SHA384:!aNULL";
        let (suites, unknown) = choose(rsa, TlsVersion::V1_2).unwrap();
        assert_eq!(
            suites,
            [
                CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
            ]
        );
        assert_eq!(unknown, ["DES-CBC3-SHA"]);
        assert_eq!(choose("HIGH:!RC4", TlsVersion::V1_2).unwrap().0.len(), 6);
        assert_eq!(choose("TLS_AES_128_GCM_SHA256", TlsVersion::V1_3).unwrap().0.len(), 1);
        assert!(
            choose("RC4-MD5", TlsVersion::V1_2)
                .unwrap_err()
                .contains("ECDHE-RSA-AES256-GCM-SHA384")
        );
        assert!(NAMES.iter().all(|(_, suite)| {
            default_provider()
                .cipher_suites
                .iter()
                .any(|known| known.suite() == *suite)
        }));
    }
}
