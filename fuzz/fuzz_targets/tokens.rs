//! Tokens and the keys that they are checked by: nothing that is read panics, nobody comes in by what nobody has signed, and what
//! is granted is what a genuine token says.
//!
//! Input: a byte, and what it says: 0 to 4 a file of keys, of the kinds in their order; 5 a token; any other a token's claims,
//! which are signed here.
#![no_main]

use std::sync::LazyLock;

use base64ct::{Base64UrlUnpadded, Encoding};
use libfuzzer_sys::fuzz_target;
use ring::hmac;
use sol_server::jwt::{Fault, KEYS_MAX, KeySource, Tokens, is_token, parse};

const SECRET: &[u8] = b"a secret that has 32 bytes, or more";
/// Milliseconds since the Unix epoch.
const NOW: u64 = 1_800_000_000_000;
const YEAR: u64 = 366 * 24 * 3_600 * 1_000;

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| Tokens {
    keys: parse(KeySource::ALL[0], SECRET, &mut Vec::new()).unwrap(),
    username_claim: "sub".to_owned(),
    audience: Some("broker".to_owned()),
    issuer: None,
});

fuzz_target!(|input: &[u8]| {
    let Some((&first, said)) = input.split_first() else {
        return;
    };
    match KeySource::ALL.get(usize::from(first)) {
        Some(source) => keys(*source, said),
        None if first == 5 => token(said),
        None => claims(said),
    }
});

fn keys(source: KeySource, file: &[u8]) {
    let mut warnings = Vec::new();
    let Ok(keys) = parse(source, file, &mut warnings) else {
        return;
    };
    assert!((1..=KEYS_MAX).contains(&keys.len()));
    assert_eq!(
        parse(source, file, &mut Vec::new()).as_ref(),
        Ok(&keys),
        "the same file, the same keys"
    );
    assert!(source == KeySource::Set || warnings.is_empty());
    let text = String::from_utf8_lossy(file);
    let is_public = !matches!(source, KeySource::Of(algorithm) if algorithm.as_str() == "HS256");
    assert!(
        !is_public || !text.contains("PRIVATE KEY-----") || source == KeySource::Set,
        "a private key is taken"
    );
    let tokens = Tokens { keys, ..TOKENS.clone() };
    let judged = tokens.judge(b"eyJhbGciOiJIUzI1NiJ9.e30.c2ln", NOW);
    assert!(matches!(judged, Some(Err(Fault::Forged(_)))), "{judged:?}");
}

fn token(password: &[u8]) {
    let judged = TOKENS.judge(password, NOW);
    assert_eq!(judged.is_some(), is_token(password));
    if matches!(judged, None | Some(Err(Fault::Forged(_)))) {
        return;
    }
    // It is genuine: no byte of it can be another.
    for at in 0..password.len() {
        let mut other = password.to_vec();
        other[at] ^= 0x01;
        let judged = TOKENS.judge(&other, NOW);
        assert!(
            matches!(judged, None | Some(Err(Fault::Forged(_)))),
            "byte {at}: {judged:?}"
        );
    }
}

fn claims(claims: &[u8]) {
    if claims.len() > 8 << 10 {
        return;
    }
    let encode = Base64UrlUnpadded::encode_string;
    let signed = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    let token = format!("{signed}.{}", encode(signature.as_ref()));
    match TOKENS.judge(token.as_bytes(), NOW) {
        None | Some(Err(Fault::Forged(_))) => panic!("a genuine token is taken for another"),
        Some(Err(_)) => {}
        Some(Ok(grant)) => {
            let until = grant.expires_at.as_millis();
            assert!(until > NOW && until <= NOW + YEAR, "{until}");
            let user = grant.username.expect("a user");
            assert!((1..=65_535).contains(&user.len()) && !user.contains('\0'), "{user:?}");
            let text = String::from_utf8_lossy(claims);
            assert!(text.contains("exp") || text.contains("\\u"), "it never expires");
        }
    }
}
