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
    "ALL", "DEFAULT", "HIGH", "SECURE", "ECDHE", "EECDH", "ECDH", "kECDHE", "kEECDH",
];

/// Words of OpenSSL that mean a part of it, and what a part of the names begins with that are meant. There are none for what
/// else is in the names: `RSA` and `SHA256`, for one, mean how keys and authenticity were seen to before, which is not spoken.
const PARTS: &[(&str, &str)] = &[
    ("AES", "AES"),
    ("AESGCM", "AES"),
    ("AES128", "AES128"),
    ("AES256", "AES256"),
    ("CHACHA20", "CHACHA20"),
    ("ECDSA", "ECDSA"),
    ("aECDSA", "ECDSA"),
    ("aRSA", "RSA"),
];

/// Whether the suite of a name is meant by a word, or by several that are joined.
fn is_meant(name: &str, words: &str) -> bool {
    let is_part = |word: &str| {
        let mut parts = PARTS.iter().filter(|(known, _)| *known == word);
        parts.any(|(_, part)| name.split(['-', '_']).any(|own| own.starts_with(part)))
    };
    words
        .split('+')
        .all(|word| name.eq_ignore_ascii_case(word) || ALL.contains(&word) || is_part(word))
}

fn name_of(suite: &SupportedCipherSuite) -> &'static str {
    let known = NAMES.iter().find(|(_, known)| suite.suite() == *known);
    known.map_or("", |(name, _)| name)
}

/// Leaves of a version's suites those that are named, in that order. Gives the names that nothing is known by.
pub(super) fn choose(
    suites: &mut Vec<SupportedCipherSuite>,
    names: &str,
    version: TlsVersion,
) -> Result<Vec<String>, String> {
    let is_of_version = |suite: &SupportedCipherSuite| suite.tls13().is_some() == (version == TlsVersion::V1_3);
    let (own, others): (Vec<_>, Vec<_>) = suites.drain(..).partition(is_of_version);
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    let (mut banned, mut unknown): (Vec<&str>, _) = (Vec::new(), Vec::new());
    for word in names.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
        if let Some(word) = word.strip_prefix(['!', '-']) {
            chosen.retain(|suite| !is_meant(name_of(suite), word));
        } else if word.starts_with(['@', '+']) {
            // There is no other order to be sorted by.
        } else if !NAMES.iter().any(|(name, _)| is_meant(name, word)) {
            unknown.push(word.to_owned());
        } else {
            for suite in own.iter().filter(|suite| is_meant(name_of(suite), word)) {
                if !chosen.contains(suite) && !banned.iter().any(|word| is_meant(name_of(suite), word)) {
                    chosen.push(*suite);
                }
            }
        }
        // For good, whatever comes behind it.
        banned.extend(word.strip_prefix('!'));
    }
    if chosen.is_empty() {
        let known = NAMES
            .iter()
            .filter(|(name, _)| name.starts_with("TLS_") == (version == TlsVersion::V1_3));
        let known: Vec<_> = known.map(|(name, _)| *name).collect();
        return Err(format!(
            "none of these cipher suites is spoken; there are {}",
            known.join(", ")
        ));
    }
    *suites = others;
    suites.append(&mut chosen);
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
        assert_eq!(choose("ECDHE+AESGCM:AES256", TlsVersion::V1_2).unwrap().0.len(), 4);
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

    /// What is excluded is left out, and as OpenSSL reads it: behind `!` for good, and words for what is not spoken anyway
    /// exclude nothing, whatever a name looks like.
    #[test]
    fn suites_are_excluded() {
        let left = |names, version| {
            let mut suites = default_provider().cipher_suites;
            choose(&mut suites, names, version)?;
            suites.retain(|suite| suite.tls13().is_some() == (version == TlsVersion::V1_3));
            Ok::<_, String>(suites.iter().map(name_of).collect::<Vec<_>>())
        };
        for (names, expected) in [
            ("HIGH:!aNULL:!MD5:!SHA:!SHA1:!SHA256:!SHA384:!DES:!RSA:!kRSA:!GCM", 6),
            ("HIGH:!AES128", 4),
            ("!AES128:HIGH", 4),
            ("HIGH:-CHACHA20", 4),
            ("HIGH:!CHACHA20:ECDHE-RSA-CHACHA20-POLY1305", 4),
            ("HIGH:-CHACHA20:ECDHE-RSA-CHACHA20-POLY1305", 5),
            ("HIGH:!ECDHE-RSA-AES256-GCM-SHA384", 5),
            ("HIGH:!aRSA", 3),
            ("HIGH:!ECDSA:!AESGCM", 1),
            ("HIGH:!aRSA+AES128:@STRENGTH:+AES", 5),
        ] {
            let left = left(names, TlsVersion::V1_2).unwrap();
            assert_eq!(left.len(), expected, "{names}: {left:?}");
        }
        assert!(
            !left("ALL:!AES128", TlsVersion::V1_2)
                .unwrap()
                .contains(&"ECDHE-RSA-AES128-GCM-SHA256")
        );
        assert_eq!(
            left("ALL:!TLS_AES_128_GCM_SHA256:!CHACHA20", TlsVersion::V1_3).unwrap(),
            ["TLS_AES_256_GCM_SHA384"]
        );
        assert!(left("HIGH:!ECDHE", TlsVersion::V1_2).is_err());
    }
}
