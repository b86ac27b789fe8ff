//! The keys that tokens are checked by, and the files that they are read from.

use std::fmt;
use std::path::Path;

use ring::hmac;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256};
use ring::signature::{RsaPublicKeyComponents, UnparsedPublicKey};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;

use super::{Algorithm, decoded};
use crate::config::{Diagnostic, reason};
use crate::password_file::{open_to_all, read};

/// Keys of one listener.
pub const KEYS_MAX: usize = 64;
/// A secret has as many bytes as its hash at least (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Bytes of an RSA modulus: 2048 to 8192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// What a file of keys is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeySource {
    /// The secret of HS256, as it stands but for a line's end behind it; else public keys of an algorithm in PEM.
    Of(Algorithm),
    /// A JSON Web Key Set: each key says what it is.
    Set,
}

impl KeySource {
    /// As directives say it.
    pub const ALL: [Self; 5] = [
        Self::Of(Algorithm::Hs256),
        Self::Of(Algorithm::Rs256),
        Self::Of(Algorithm::Es256),
        Self::Of(Algorithm::EdDsa),
        Self::Set,
    ];
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Of(algorithm) => algorithm.as_str(),
            Self::Set => "JWKS",
        })
    }
}

/// Checks what was signed by one algorithm with one key.
#[derive(Clone)]
pub struct Key {
    kid: Option<String>,
    material: Material,
}

#[derive(Clone)]
enum Material {
    Secret(hmac::Key),
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// An uncompressed point.
    P256([u8; 65]),
    Ed25519([u8; 32]),
}

/// Secrets are compared by what they sign: that is all that is kept of them.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let is_same = match (&self.material, &other.material) {
            (Material::Secret(one), Material::Secret(two)) => {
                let sign = |key| hmac::sign(key, b"the same key").as_ref().to_vec();
                sign(one) == sign(two)
            }
            (Material::Rsa(one), Material::Rsa(two)) => (&one.n, &one.e) == (&two.n, &two.e),
            (Material::P256(one), Material::P256(two)) => one == two,
            (Material::Ed25519(one), Material::Ed25519(two)) => one == two,
            _ => false,
        };
        is_same && self.kid == other.kid
    }
}

/// Says which key it is, and nothing of a secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

impl Key {
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    const fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Secret(_) => Algorithm::Hs256,
            Material::Rsa(_) => Algorithm::Rs256,
            Material::P256(_) => Algorithm::Es256,
            Material::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.algorithm() == algorithm
    }

    /// Whether this key has signed `signed`; a secret is compared in constant time.
    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
            Material::Rsa(key) => key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok(),
            Material::P256(point) => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
                key.verify(signed, signature).is_ok()
            }
            Material::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point)
                .verify(signed, signature)
                .is_ok(),
        }
    }

    const fn without_name(material: Material) -> Self {
        Self { kid: None, material }
    }
}

/// Reads the keys of a file. The warnings are about its mode, if others may read a secret or write any key, and about keys that
/// are left out.
///
/// # Errors
/// Why the file cannot be read, and as whom, or what is wrong with it.
pub fn load(source: KeySource, path: &Path) -> Result<(Vec<Key>, Vec<Diagnostic>), Diagnostic> {
    let (bytes, mode) = read(path).map_err(|error| {
        let uid = rustix::process::geteuid().as_raw();
        let text = format!("jwt_key_file cannot be read as uid {uid}: {}", reason(&error));
        Diagnostic::of_file(path, text)
    })?;
    let mut warnings = Vec::new();
    let keys = parse(source, &bytes, &mut warnings);
    let keys = keys.map_err(|text| Diagnostic::of_file(path, text))?;
    let mut warnings: Vec<_> = warnings
        .into_iter()
        .map(|text| Diagnostic::of_file(path, text))
        .collect();
    if keys.iter().any(|key| key.is_for(Algorithm::Hs256)) {
        warnings.extend(open_to_all(path, mode));
    }
    if mode & 0o022 != 0 {
        let text = format!(
            "others may write it, and whoever does signs logins: chmod go-w {}",
            path.display()
        );
        warnings.push(Diagnostic::of_file(path, text));
    }
    Ok((keys, warnings))
}

/// Reads keys. The warnings are about those that are left out.
///
/// # Errors
/// What is wrong with them.
pub fn parse(source: KeySource, bytes: &[u8], warnings: &mut Vec<String>) -> Result<Vec<Key>, String> {
    let keys = match source {
        KeySource::Of(Algorithm::Hs256) => vec![secret(bytes)?],
        KeySource::Of(algorithm) => public_keys(algorithm, bytes)?,
        KeySource::Set => key_set(bytes, warnings)?,
    };
    if keys.len() > KEYS_MAX {
        return Err(format!("more than {KEYS_MAX} keys"));
    }
    Ok(keys)
}

/// The file without a line's end behind it.
fn secret(bytes: &[u8]) -> Result<Key, String> {
    let secret = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.starts_with(b"-----BEGIN ") {
        return Err("a key in PEM is no secret: name its algorithm, RS256, ES256 or EdDSA".to_owned());
    }
    Ok(Key::without_name(secret_of(secret)?))
}

fn secret_of(secret: &[u8]) -> Result<Material, String> {
    if secret.len() < SECRET_BYTES_MIN {
        let text = format!(
            "a secret of HS256 has {SECRET_BYTES_MIN} bytes at least, and this one {}",
            secret.len()
        );
        return Err(text);
    }
    Ok(Material::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret)))
}

fn public_keys(algorithm: Algorithm, bytes: &[u8]) -> Result<Vec<Key>, String> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("PRIVATE KEY-----") {
        return Err(
            "there is a private key in it: only who signs should have that, here belongs its public key".to_owned(),
        );
    }
    let mut keys = Vec::new();
    for found in SubjectPublicKeyInfoDer::pem_slice_iter(bytes) {
        let found = found.map_err(|_| "it is broken PEM".to_owned())?;
        let material = of_info(&found).ok_or("its key is neither RSA (2048 to 8192 bits), nor P-256, nor Ed25519")?;
        let key = Key::without_name(material);
        if !key.is_for(algorithm) {
            let (is, wanted) = (key.algorithm().as_str(), algorithm.as_str());
            return Err(format!("its key is one for {is}, not for {wanted}"));
        }
        keys.push(key);
    }
    if keys.is_empty() {
        return Err("there is no public key in PEM in it (-----BEGIN PUBLIC KEY-----)".to_owned());
    }
    Ok(keys)
}

/// The key in a SubjectPublicKeyInfo (RFC 5280, section 4.1).
fn of_info(info: &[u8]) -> Option<Material> {
    const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];
    const ELLIPTIC: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
    const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
    const ED25519_ID: &[u8] = &[0x2B, 0x65, 0x70];
    let mut outer = Der(info);
    let mut info = Der(outer.take(Der::SEQUENCE)?);
    let mut kind = Der(info.take(Der::SEQUENCE)?);
    // No bits of the last byte are unused.
    let bits = info.take(Der::BIT_STRING)?.strip_prefix(&[0])?;
    match kind.take(Der::OBJECT)? {
        RSA => {
            let mut both = Der(Der(bits).take(Der::SEQUENCE)?);
            rsa(both.take(Der::INTEGER)?, both.take(Der::INTEGER)?)
        }
        ELLIPTIC if kind.take(Der::OBJECT)? == P256 => p256(bits),
        ED25519_ID => Some(Material::Ed25519(bits.try_into().ok()?)),
        _ => None,
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Material> {
    let trim = |number: &[u8]| number.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
    let (n, e) = (trim(modulus), trim(exponent));
    let is_long = MODULUS_BYTES.contains(&n.len()) && (n.len() > *MODULUS_BYTES.start() || n[0] >= 0x80);
    (is_long && !e.is_empty()).then_some(Material::Rsa(RsaPublicKeyComponents { n, e }))
}

fn p256(point: &[u8]) -> Option<Material> {
    let point: [u8; 65] = point.try_into().ok()?;
    (point[0] == 4).then_some(Material::P256(point))
}

/// Reads a JSON Web Key Set (RFC 7517). Keys of other kinds, and for encryption, are left out.
fn key_set(bytes: &[u8], warnings: &mut Vec<String>) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
    let found = set.get("keys").and_then(Value::as_array);
    let found = found.ok_or("not a JSON Web Key Set: there is no array `keys`")?;
    let mut keys = Vec::new();
    for (nth, key) in found.iter().enumerate() {
        match of_set(key) {
            Ok(Some(key)) => keys.push(key),
            Ok(None) => warnings.push(format!("key {} is of no use here, and left out", nth + 1)),
            Err(text) => return Err(format!("key {}: {text}", nth + 1)),
        }
    }
    if keys.is_empty() {
        return Err("there is no key for HS256, RS256, ES256 or EdDSA in it".to_owned());
    }
    Ok(keys)
}

/// One key of a set; `None` if it is for something else.
fn of_set(key: &Value) -> Result<Option<Key>, String> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let bytes = |name: &str| text(name).and_then(decoded);
    if key.get("d").is_some() {
        return Err("it is a private key: only who signs should have that".to_owned());
    }
    if text("use").is_some_and(|usage| usage != "sig") {
        return Ok(None);
    }
    let material = match (text("kty"), text("crv")) {
        (Some("oct"), _) => Some(secret_of(&bytes("k").ok_or("its k is not Base64url")?)?),
        (Some("RSA"), _) => bytes("n").zip(bytes("e")).and_then(|(n, e)| rsa(&n, &e)),
        (Some("EC"), Some("P-256")) => bytes("x")
            .zip(bytes("y"))
            .and_then(|(x, y)| p256(&[&[4], &x[..], &y[..]].concat())),
        (Some("OKP"), Some("Ed25519")) => bytes("x").and_then(|x| Some(Material::Ed25519(x.try_into().ok()?))),
        (Some(_), _) => return Ok(None),
        (None, _) => return Err("it has no kty".to_owned()),
    };
    let key = Key {
        kid: text("kid").map(str::to_owned),
        material: material.ok_or("its numbers are missing, or not those of such a key")?,
    };
    let is_it = text("alg").is_none_or(|name| name == key.algorithm().as_str());
    Ok(is_it.then_some(key))
}

/// Reads DER (X.690), as much of it as a public key has.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    const INTEGER: u8 = 0x02;
    const BIT_STRING: u8 = 0x03;
    const OBJECT: u8 = 0x06;
    const SEQUENCE: u8 = 0x30;

    /// The content of the next element, if it is of this kind.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let rest = self.0.strip_prefix(&[tag])?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7F => (usize::from(first), rest),
            0x81 | 0x82 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
                (length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}
