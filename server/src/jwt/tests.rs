use std::process::Command;
use std::sync::LazyLock;

use base64ct::Base64;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair};
use serde_json::json;
use sol_engine::Rules;

use super::*;

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret that has 32 bytes, or more";

/// A pair that openssl has just made: the private key in PKCS #8, the public one in PEM.
struct Pair {
    private: Vec<u8>,
    public: String,
}

impl Pair {
    fn new(options: &[&str]) -> Self {
        let openssl = |arguments: &[&str]| {
            let output = Command::new("openssl").args(arguments).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            output.stdout
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key").display().to_string();
        openssl(&[&["genpkey", "-quiet", "-out", &path], options].concat());
        let pem = String::from_utf8(openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", &path])).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
        Self {
            private: Base64::decode_vec(&body).unwrap(),
            public: String::from_utf8(openssl(&["pkey", "-pubout", "-in", &path])).unwrap(),
        }
    }

    fn keys(&self, algorithm: Algorithm) -> Vec<Key> {
        parse(KeySource::Of(algorithm), self.public.as_bytes(), &mut Vec::new()).unwrap()
    }
}

static RSA: LazyLock<Pair> = LazyLock::new(|| Pair::new(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]));
static P256: LazyLock<Pair> = LazyLock::new(|| Pair::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]));
static ED25519: LazyLock<Pair> = LazyLock::new(|| Pair::new(&["-algorithm", "ED25519"]));

/// Signs as who has the private key would.
fn sign(algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    match algorithm {
        Algorithm::Hs256 => sign_by_secret(SECRET, message),
        Algorithm::Rs256 => {
            let key = RsaKeyPair::from_pkcs8(&RSA.private).unwrap();
            let mut signed = vec![0; key.public().modulus_len()];
            key.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signed)
                .unwrap();
            signed
        }
        Algorithm::Es256 => {
            let kind = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
            let key = EcdsaKeyPair::from_pkcs8(kind, &P256.private, &random).unwrap();
            key.sign(&random, message).unwrap().as_ref().to_vec()
        }
        Algorithm::EdDsa => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&ED25519.private).unwrap();
            key.sign(message).as_ref().to_vec()
        }
    }
}

fn sign_by_secret(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, message).as_ref().to_vec()
}

fn base64(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// A token, signed by whatever `sign` does.
fn signed_by(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!(
        "{}.{}",
        base64(header.to_string().as_bytes()),
        base64(claims.to_string().as_bytes())
    );
    let signature = base64(&sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn token(algorithm: Algorithm, claims: &Value) -> String {
    let header = json!({"alg": algorithm.as_str(), "typ": "JWT"});
    signed_by(&header, claims, |message| sign(algorithm, message))
}

fn claims() -> Value {
    json!({"sub": "ann", "exp": NOW + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn keys_of(algorithm: Algorithm) -> Vec<Key> {
    match algorithm {
        Algorithm::Hs256 => parse(KeySource::Of(algorithm), SECRET, &mut Vec::new()).unwrap(),
        Algorithm::Rs256 => RSA.keys(algorithm),
        Algorithm::Es256 => P256.keys(algorithm),
        Algorithm::EdDsa => ED25519.keys(algorithm),
    }
}

fn tokens(keys: Vec<Key>) -> Tokens {
    Tokens {
        keys,
        username_claim: "sub".to_owned(),
        audience: None,
        issuer: None,
    }
}

fn judge(tokens: &Tokens, token: &str) -> Result<Grant, Fault> {
    tokens.judge(token.as_bytes(), NOW * 1_000).expect("a token")
}

/// A token that names its key is tried with that one, however many there are; one that names none of many is refused before any
/// is tried: a forged one would cost as much as all of them.
#[test]
fn many_keys() {
    let set = |count: usize, named: bool| {
        let keys: Vec<_> = (0..count)
            .map(|n| {
                let secret = if n + 1 == count {
                    SECRET.to_vec()
                } else {
                    vec![b'a' + n as u8; 32]
                };
                let mut key = json!({"kty": "oct", "k": base64(&secret)});
                if named {
                    key["kid"] = n.to_string().into();
                }
                key
            })
            .collect();
        tokens(
            parse(
                KeySource::Set,
                json!({ "keys": keys }).to_string().as_bytes(),
                &mut Vec::new(),
            )
            .unwrap(),
        )
    };
    let by = |kid: Option<&str>| {
        let mut header = json!({"alg": "HS256"});
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        signed_by(&header, &claims(), |message| sign(Algorithm::Hs256, message))
    };
    let unnamed = by(None);
    assert!(judge(&set(KEYS_TRIED_MAX, true), &unnamed).is_ok());
    assert!(judge(&set(KEYS_TRIED_MAX + 1, true), &by(Some("8"))).is_ok());
    for named in [true, false] {
        assert_eq!(set(KEYS_TRIED_MAX, named).crowds(), []);
        let crowd = set(KEYS_TRIED_MAX + 1, named);
        assert!(matches!(judge(&crowd, &unnamed), Err(Fault::Untried(_))), "{named}");
        assert_eq!(crowd.crowds(), [(Algorithm::Hs256, !named)]);
    }
}

/// A key with a name is found among as many without one as are tried. Every algorithm with too many is told of, and those of
/// one name are too many as those without one are.
#[test]
fn crowds_of_keys() {
    let key = |secret: &[u8], kid: Option<&str>| {
        let mut key = json!({"kty": "oct", "k": base64(secret)});
        if let Some(kid) = kid {
            key["kid"] = kid.into();
        }
        let set = json!({ "keys": [key] }).to_string();
        parse(KeySource::Set, set.as_bytes(), &mut Vec::new()).unwrap()
    };
    let several = |kid| (0..KEYS_TRIED_MAX as u8).flat_map(move |n| key(&[b'a' + n; 32], kid));
    let mixed = tokens(several(None).chain(key(SECRET, Some("named"))).collect());
    let header = json!({"alg": "HS256", "kid": "named"});
    let named = signed_by(&header, &claims(), |message| sign(Algorithm::Hs256, message));
    assert!(judge(&mixed, &named).is_ok());
    assert_eq!(mixed.crowds(), [(Algorithm::Hs256, false)]);
    let same = several(Some("named")).chain(key(SECRET, Some("named")));
    let rsa = (0..=KEYS_TRIED_MAX).flat_map(|_| RSA.keys(Algorithm::Rs256));
    let both = tokens(same.chain(rsa).collect());
    assert!(matches!(judge(&both, &named), Err(Fault::Untried(_))));
    assert_eq!(both.crowds(), [(Algorithm::Hs256, true), (Algorithm::Rs256, true)]);
}

/// Each algorithm's key lets its own tokens in, as whom they say and until when, and no other's; every change of a single
/// byte is found.
#[test]
fn signatures() {
    for algorithm in Algorithm::ALL {
        let tokens = tokens(keys_of(algorithm));
        let good = token(algorithm, &claims());
        let grant = Grant {
            username: Some("ann".to_owned()),
            rules: None,
            expires_at: UnixMillis::from_millis((NOW + 60) * 1_000),
        };
        assert_eq!(judge(&tokens, &good), Ok(grant), "{algorithm:?}");
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            let fault = Fault::Forged("there is no key of its alg and kid");
            assert_eq!(judge(&tokens, &token(other, &claims())), Err(fault));
        }
        for at in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let judged = tokens.judge(&bytes, NOW * 1_000);
            assert!(!matches!(judged, Some(Ok(_))), "{algorithm:?} at {at}");
        }
    }
}

/// A token does not choose how it is checked: not by no algorithm, nor with a public key for a secret, nor by keys of its own.
#[test]
fn a_token_does_not_choose_its_check() {
    let all: Vec<_> = Algorithm::ALL.into_iter().flat_map(keys_of).collect();
    let all = tokens(all);
    let nothing = |_: &[u8]| Vec::new();
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS384", "HS512", "PS256", "RS512", "ES384", "hs256",
    ] {
        let header = json!({ "alg": alg });
        for forged in [
            signed_by(&header, &claims(), nothing),
            signed_by(&header, &claims(), |message| sign(Algorithm::Hs256, message)),
        ] {
            let fault = Fault::Forged("its alg is none of those that are known");
            assert_eq!(judge(&all, &forged), Err(fault), "{alg}");
        }
    }
    // What anybody knows of a public key, taken for a secret.
    let public = &RSA.public;
    let body: String = public.lines().filter(|line| !line.starts_with("---")).collect();
    let der = Base64::decode_vec(&body).unwrap();
    let header = json!({"alg": "HS256"});
    for secret in [
        public.as_bytes(),
        public.trim_end().as_bytes(),
        body.as_bytes(),
        &der,
        b"",
    ] {
        let forged = signed_by(&header, &claims(), |message| sign_by_secret(secret, message));
        for tokens in [&all, &tokens(keys_of(Algorithm::Rs256))] {
            assert!(matches!(judge(tokens, &forged), Err(Fault::Forged(_))));
        }
    }
    // Keys that the token brings along, or says to find somewhere.
    let key = json!({"kty": "oct", "k": base64(b"mine, and long enough to be a key")});
    let mine = |message: &[u8]| sign_by_secret(b"mine, and long enough to be a key", message);
    let header =
        json!({"alg": "HS256", "jwk": key, "jku": "https://mallory.example/keys", "x5u": "https://mallory.example"});
    assert_eq!(
        judge(&all, &signed_by(&header, &claims(), mine)),
        Err(Fault::Forged("no key has signed it"))
    );
    let header = json!({"alg": "HS256", "crit": ["b64"], "b64": false});
    let genuine = |message: &[u8]| sign(Algorithm::Hs256, message);
    assert!(matches!(
        judge(&all, &signed_by(&header, &claims(), genuine)),
        Err(Fault::Forged(_))
    ));
    let header = json!({"alg": ["HS256"]});
    assert!(matches!(
        judge(&all, &signed_by(&header, &claims(), genuine)),
        Err(Fault::Forged(_))
    ));
    // A signature of zeros, the one of CVE-2022-21449, and others that are none.
    for signature in [vec![0; 64], vec![0; 256], vec![], vec![0xFF; 64], vec![1]] {
        for algorithm in Algorithm::ALL {
            let header = json!({"alg": algorithm.as_str()});
            let forged = signed_by(&header, &claims(), |_| signature.clone());
            assert_eq!(judge(&all, &forged), Err(Fault::Forged("no key has signed it")));
        }
    }
}

/// A genuine token lets in from its `nbf`, give or take a minute, to its `exp`, or for a year; without an end, or with times that are none,
/// never.
#[test]
fn times() {
    let tokens = tokens(keys_of(Algorithm::Hs256));
    let judged = |claims: &Value| judge(&tokens, &token(Algorithm::Hs256, claims));
    let until = |grant: Result<Grant, Fault>| grant.unwrap().expires_at.as_millis();
    for (exp, expected) in [
        (json!(NOW + 1), (NOW + 1) * 1_000),
        (json!(NOW as f64 + 0.5), NOW * 1_000 + 500),
        (json!(1e300), NOW * 1_000 + LOGIN_MILLIS_MAX),
    ] {
        assert_eq!(until(judged(&with("exp", exp))), expected);
    }
    for exp in [json!(NOW), json!(NOW - 1), json!(0)] {
        assert_eq!(judged(&with("exp", exp)), Err(Fault::Untimely("it has expired")));
    }
    for exp in [
        json!(-1),
        json!("2100000000"),
        json!(null),
        json!([NOW + 60]),
        json!(true),
    ] {
        assert!(matches!(judged(&with("exp", exp)), Err(Fault::Unfit(_))));
    }
    let endless = judged(&json!({"sub": "ann"}));
    assert_eq!(endless, Err(Fault::Unfit("it never expires: there is no exp")));
    assert!(judged(&with("nbf", json!(NOW + 60))).is_ok());
    assert_eq!(
        judged(&with("nbf", json!(NOW + 61))),
        Err(Fault::Untimely("it is not valid yet"))
    );
    assert!(matches!(judged(&with("nbf", json!("soon"))), Err(Fault::Unfit(_))));
}

/// `aud` and `iss` have to be those that were asked for; a token that is for somebody is for nobody who has no name.
#[test]
fn audience_and_issuer() {
    let judged = |audience: Option<&str>, issuer: Option<&str>, claims: &Value| {
        let tokens = Tokens {
            audience: audience.map(str::to_owned),
            issuer: issuer.map(str::to_owned),
            ..tokens(keys_of(Algorithm::Hs256))
        };
        judge(&tokens, &token(Algorithm::Hs256, claims)).is_ok()
    };
    for (ours, aud, good) in [
        (Some("sol"), json!("sol"), true),
        (Some("sol"), json!(["x", "sol"]), true),
        (Some("sol"), json!("solar"), false),
        (Some("sol"), json!(["x"]), false),
        (Some("sol"), json!({"sol": 1}), false),
        (Some("sol"), json!(null), false),
        (None, json!("sol"), false),
        (None, json!(""), false),
    ] {
        assert_eq!(judged(ours, None, &with("aud", aud.clone())), good, "{ours:?} {aud}");
    }
    assert!(!judged(Some("sol"), None, &claims()));
    for (iss, good) in [(json!("me"), true), (json!("you"), false), (json!(["me"]), false)] {
        assert_eq!(judged(None, Some("me"), &with("iss", iss)), good);
    }
    assert!(!judged(None, Some("me"), &claims()));
}

/// The User Name is a claim's text and nothing else; what the token allows is its client's alone, and a claim that is not
/// understood lets nobody in.
#[test]
fn users_and_rules() {
    let tokens = tokens(keys_of(Algorithm::Hs256));
    let judged = |claims: &Value| judge(&tokens, &token(Algorithm::Hs256, claims));
    for sub in [
        json!(""),
        json!(1),
        json!(null),
        json!(["ann"]),
        json!("a\0b"),
        json!("x".repeat(70_000)),
    ] {
        let claims = with("sub", sub);
        // The longest is no token at all.
        let judged = tokens.judge(token(Algorithm::Hs256, &claims).as_bytes(), NOW * 1_000);
        assert!(!matches!(judged, Some(Ok(_))));
    }
    let granted = judged(&with("acl", json!({"sub": ["of/${clientid}/#"]})))
        .unwrap()
        .rules;
    let wanted: Rules = acl_json::rules(&json!({"sub": ["of/%c/#"]})).unwrap();
    assert_eq!(granted.as_deref(), Some(&wanted));
    for acl in [
        json!(null),
        json!("#"),
        json!({"publish": ["#"]}),
        json!([{"permission": "allow"}]),
    ] {
        assert!(matches!(judged(&with("acl", acl)), Err(Fault::Unfit(_))));
    }
    let other = Tokens {
        username_claim: "name".to_owned(),
        ..tokens
    };
    let named = judge(&other, &token(Algorithm::Hs256, &with("name", json!("bob"))));
    assert_eq!(named.unwrap().username.as_deref(), Some("bob"));
}

/// A password that is no token is left to others: it takes three parts, and a header with an `alg`.
#[test]
fn what_is_no_token() {
    let tokens = tokens(keys_of(Algorithm::Hs256));
    let good = token(Algorithm::Hs256, &claims());
    let (front, signature) = good.rsplit_once('.').unwrap();
    let long = format!("{front}{}.{signature}", "A".repeat(TOKEN_BYTES_MAX));
    let nested = format!("{}.{}.", base64("[".repeat(5_000).as_bytes()), base64(b"{}"));
    let texts = [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "secret",
        front,
        &format!("{good}.x"),
        &format!("{good}.x.y"),
        &long,
        &nested,
        &format!("{}.{}.", base64(b"{}"), base64(b"{}")),
        &format!("{}.{}.", base64(b"[\"alg\"]"), base64(b"{}")),
        &format!(" {good}"),
    ];
    for text in texts {
        assert!(tokens.judge(text.as_bytes(), NOW * 1_000).is_none(), "{text:.80}");
    }
    assert!(tokens.judge(&[0xFF; 100], NOW * 1_000).is_none());
    // Of the right form, and wrong inside.
    let header = base64(br#"{"alg":"HS256"}"#);
    for claims in [
        "",
        "!",
        &base64(b"[]"),
        &base64(b"{"),
        &base64(&[0xFF, 0xFE]),
        &base64("[".repeat(5_000).as_bytes()),
    ] {
        let signed = format!("{header}.{claims}");
        let made = format!("{signed}.{}", base64(&sign(Algorithm::Hs256, signed.as_bytes())));
        assert_eq!(
            judge(&tokens, &made),
            Err(Fault::Unfit("its claims are no JSON object"))
        );
    }
    for signature in ["!", "A", &format!("{signature}="), &format!("{signature}A")] {
        assert!(matches!(
            judge(&tokens, &format!("{front}.{signature}")),
            Err(Fault::Forged(_))
        ));
    }
}

/// A key set's keys are told apart by name: a token that names one is checked by that one alone; a wrong name is refused;
/// without one any key of its algorithm will do.
#[test]
fn key_names() {
    let (old, new) = (
        b"the old secret, which is long enough",
        b"the new secret, which is long enough",
    );
    let set = json!({"keys": [
        {"kty": "oct", "kid": "old", "k": base64(old)},
        {"kty": "oct", "kid": "new", "k": base64(new), "alg": "HS256", "use": "sig"},
        {"kty": "EC", "crv": "P-521", "x": "", "y": ""},
        {"kty": "RSA", "use": "enc", "n": "AQ", "e": "AQAB"},
        {"kty": "oct", "alg": "A128KW", "k": base64(old)},
    ]});
    let mut warnings = Vec::new();
    let keys = parse(KeySource::Set, set.to_string().as_bytes(), &mut warnings).unwrap();
    assert_eq!((keys.len(), warnings.len()), (2, 3), "{warnings:?}");
    let tokens = tokens(keys);
    for (kid, secret, good) in [
        (json!("old"), old, true),
        (json!("new"), new, true),
        (json!("old"), new, false),
        (json!("../../dev/null"), old, false),
        (json!(""), old, false),
        (json!(1), old, false),
        (json!(null), old, false),
    ] {
        let header = json!({"alg": "HS256", "kid": kid});
        let made = signed_by(&header, &claims(), |message| sign_by_secret(secret, message));
        assert_eq!(judge(&tokens, &made).is_ok(), good, "{kid}");
    }
    for secret in [old, new] {
        let made = signed_by(&json!({"alg": "HS256"}), &claims(), |message| {
            sign_by_secret(secret, message)
        });
        assert!(judge(&tokens, &made).is_ok());
    }
}

/// A set has the public keys of every algorithm; each is for its own.
#[test]
fn key_sets() {
    let rsa = RsaKeyPair::from_pkcs8(&RSA.private).unwrap();
    let rsa: signature::RsaPublicKeyComponents<Vec<u8>> = rsa.public().into();
    let (keys, texts) = (keys_of(Algorithm::Es256), keys_of(Algorithm::EdDsa));
    let point = format!("{:?}", (keys, texts));
    assert!(!point.contains("[4, "), "a key shows nothing but what it is");
    let p256 = EcdsaKeyPair::from_pkcs8(
        &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        &P256.private,
        &SystemRandom::new(),
    );
    let p256 = signature::KeyPair::public_key(&p256.unwrap()).as_ref().to_vec();
    let ed25519 = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&ED25519.private).unwrap();
    let ed25519 = signature::KeyPair::public_key(&ed25519).as_ref().to_vec();
    let set = json!({"keys": [
        {"kty": "RSA", "n": base64(&rsa.n), "e": base64(&rsa.e), "alg": "RS256"},
        {"kty": "EC", "crv": "P-256", "x": base64(&p256[1..33]), "y": base64(&p256[33..])},
        {"kty": "OKP", "crv": "Ed25519", "x": base64(&ed25519), "kid": "ed"},
    ]});
    let tokens = tokens(parse(KeySource::Set, set.to_string().as_bytes(), &mut Vec::new()).unwrap());
    for algorithm in [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        assert!(judge(&tokens, &token(algorithm, &claims())).is_ok(), "{algorithm:?}");
    }
    assert!(judge(&tokens, &token(Algorithm::Hs256, &claims())).is_err());
}

/// A file that is not what its directive says is refused with a sentence that says what to do.
#[test]
fn faulty_files() {
    let short = Pair::new(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
    let p384 = Pair::new(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]);
    let set = |keys: Value| json!({ "keys": keys }).to_string();
    for (source, text, part) in [
        ("HS256", "too short\n", "has 32 bytes at least, and this one 9"),
        ("HS256", "", "and this one 0"),
        ("HS256", &*RSA.public, "no secret"),
        ("RS256", "", "there is no public key in PEM"),
        ("RS256", "nonsense", "there is no public key in PEM"),
        ("RS256", &*P256.public, "its key is one for ES256, not for RS256"),
        ("EdDSA", &*RSA.public, "its key is one for RS256, not for EdDSA"),
        ("RS256", &*short.public, "neither RSA"),
        ("ES256", &*p384.public, "neither RSA"),
        ("RS256", "-----BEGIN PRIVATE KEY-----\n", "private key"),
        (
            "RS256",
            "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n",
            "broken PEM",
        ),
        (
            "RS256",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "neither RSA",
        ),
        ("JWKS", "", "not JSON"),
        ("JWKS", "[]", "no array `keys`"),
        ("JWKS", &*set(json!([])), "there is no key"),
        ("JWKS", &*set(json!([{"kid": "x"}])), "key 1: it has no kty"),
        (
            "JWKS",
            &*set(json!([{"kty": "oct", "k": "AAAA"}])),
            "key 1: a secret of HS256",
        ),
        (
            "JWKS",
            &*set(json!([{"kty": "OKP", "crv": "Ed25519", "x": "AA"}])),
            "key 1: its numbers",
        ),
        (
            "JWKS",
            &*set(json!([{"kty": "OKP", "crv": "Ed25519", "x": "AA", "d": "AA"}])),
            "private key",
        ),
    ] {
        let source = KeySource::ALL
            .into_iter()
            .find(|known| known.to_string() == source)
            .unwrap();
        let fault = parse(source, text.as_bytes(), &mut Vec::new()).map(|_| ()).unwrap_err();
        assert!(fault.contains(part), "{source} {text:.40}: {fault}");
    }
}

/// A secret that others may read is warned about, a public key is not; a file that is not there says as whom it was sought.
#[test]
fn modes_of_files() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let load = |source, text: &[u8], mode| {
        let path = folder.path().join("key");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        load(source, &path).unwrap().1.len()
    };
    assert_eq!(load(KeySource::Of(Algorithm::Hs256), SECRET, 0o644), 1);
    assert_eq!(load(KeySource::Of(Algorithm::Hs256), SECRET, 0o600), 0);
    assert_eq!(load(KeySource::Of(Algorithm::Rs256), RSA.public.as_bytes(), 0o644), 0);
    let gone = super::load(KeySource::Set, "/nonexistent/keys".as_ref()).unwrap_err();
    assert!(
        gone.to_string().contains("jwt_key_file cannot be read as uid"),
        "{gone}"
    );
}
