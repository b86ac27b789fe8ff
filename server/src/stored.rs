//! What a password file keeps of a password, and how a password is checked against it.
//!
//! | begins with | is | written by |
//! |---|---|---|
//! | `$argon2id$v=19$` | Argon2id, in PHC's form | `sol passwd`, Mosquitto 2.1 |
//! | `$7$` | PBKDF2-HMAC-SHA512 | Mosquitto 2.0 |
//! | `$6$`, 88 characters with `==` behind | one SHA-512 of password and salt | Mosquitto 1.6 |
//! | `$6$`, 86 characters of `./0-9A-Za-z` behind | SHA-512-crypt | the old broker's tool, crypt(3) |
//! | `$5$` | SHA-256-crypt | crypt(3) |
//! | `$scram-sha-256$` | the keys of SCRAM-SHA-256 | `sol passwd --scram` |
//!
//! The two that begin with `$6$` are told apart by their last field: Mosquitto's has 88 characters of which the last two are
//! `=`, crypt(3)'s has 86 and never a `=`. So no text is both, and what is neither is refused.
//!
//! What a check may cost has a limit for each of them, because whoever asks for it has not logged in yet. A hash that
//! cannot be checked refuses its file: its user could never log in.

use std::fmt;

use base64ct::{Base64, Encoding};

use self::argon2id::Argon2id;
pub use self::argon2id::{Cost, MEMORY_KIB_MAX, Scratch, WORK_KIB_MAX};
use self::crypt::Crypt;
pub use self::crypt::ROUNDS_MAX;
pub use self::mosquitto::{PBKDF2_ITERATIONS_DEFAULT, PBKDF2_ITERATIONS_MAX};
use self::mosquitto::{Pbkdf2, Sha512Once};
use crate::scram::{self, Keys, ScramKind};

mod argon2id;
mod crypt;
mod mosquitto;

/// Longest password, in bytes: a limit of crypt(3), and of what one login may cost.
pub const PASSWORD_BYTES_MAX: usize = 512;

/// What is kept of a password: it can be checked, and nothing else.
#[derive(Clone, Eq, PartialEq)]
pub struct Stored {
    text: Box<str>,
    /// Of SCRAM alone, which asks for more than whether a password is right.
    keys: Option<Box<Keys>>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored")
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

/// What a check costs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// SHA-256-crypt with so many rounds.
    Sha256Crypt(u32),
    /// SHA-512-crypt with so many rounds.
    Sha512Crypt(u32),
    /// One SHA-512.
    Sha512,
    /// PBKDF2-HMAC-SHA512 with so many iterations.
    Pbkdf2(u32),
    /// Argon2id.
    Argon2id(Cost),
    /// SCRAM-SHA-256; the length of its salt is what it shows.
    Scram(ScramKind),
}

/// A text, read as far as a check needs it.
enum Read<'a> {
    Crypt(Crypt<'a>),
    Sha512(Sha512Once),
    Pbkdf2(Pbkdf2),
    Argon2id(Argon2id),
    Scram(Keys),
}

impl<'a> Read<'a> {
    fn text(text: &'a str) -> Result<Self, String> {
        let fields: Vec<_> = text.split('$').collect();
        match fields[..] {
            ["", "6", _, digest] if mosquitto::is_sha512(digest) => Sha512Once::read(&fields[2..]).map(Self::Sha512),
            ["", id @ ("5" | "6"), ..] => Crypt::read(text, id, &fields[2..]).map(Self::Crypt),
            ["", "7", ref rest @ ..] => Pbkdf2::read(rest).map(Self::Pbkdf2),
            ["", "argon2id", ref rest @ ..] => Argon2id::read(rest).map(Self::Argon2id),
            ["", "scram-sha-256", ref rest @ ..] => Keys::parse(rest).map(Self::Scram),
            [
                "",
                "1" | "2a" | "2b" | "2y" | "y" | "gy" | "7y" | "md5" | "sha1" | "argon2i" | "argon2d",
                ..,
            ] => Err("only $argon2id$, $7$, $6$ and $5$ hashes, and keys of SCRAM-SHA-256, are supported".to_owned()),
            _ => Err("not a hash; `sol passwd -U FILE` turns `user:password` lines into hashes".to_owned()),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Crypt(crypt) => crypt.kind(),
            Self::Sha512(_) => Kind::Sha512,
            Self::Pbkdf2(hash) => Kind::Pbkdf2(hash.iterations()),
            Self::Argon2id(hash) => Kind::Argon2id(hash.cost()),
            Self::Scram(keys) => Kind::Scram(keys.kind()),
        }
    }

    fn matches(&self, password: &[u8], scratch: &mut Scratch) -> bool {
        match self {
            Self::Crypt(crypt) => crypt.matches(password),
            Self::Sha512(hash) => hash.matches(password),
            Self::Pbkdf2(hash) => hash.matches(password),
            Self::Argon2id(hash) => hash.matches(password, scratch),
            Self::Scram(keys) => keys.matches(password),
        }
    }
}

impl Stored {
    /// Reads a hash.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it; it never repeats the text, which may be a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys = match Read::text(text)? {
            Read::Scram(keys) => Some(Box::new(keys)),
            _ => None,
        };
        let text = text.into();
        Ok(Self { text, keys })
    }

    /// The text of the hash.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The keys of SCRAM, if that is what is kept.
    pub(crate) fn scram(&self) -> Option<&Keys> {
        self.keys.as_deref()
    }

    /// What a check costs.
    pub fn kind(&self) -> Kind {
        // What was read once is read again.
        Read::text(&self.text).map_or(Kind::USUAL, |read| read.kind())
    }

    /// Whether `password` is the one that was hashed; compared in constant time, and as bytes, whole. An empty password
    /// never is, and one that is too long costs as much as any other. Takes from microseconds to tenths of a second.
    pub fn matches(&self, password: &[u8], scratch: &mut Scratch) -> bool {
        let allowed = !password.is_empty() && password.len() <= PASSWORD_BYTES_MAX;
        let checked = if allowed { password } else { b"x" };
        let same = Read::text(&self.text).is_ok_and(|read| read.matches(checked, scratch));
        same && allowed
    }

    /// A hash that no password has, and that costs what one of `kind` does.
    pub(crate) fn stand_in(kind: Kind) -> Self {
        let zeros = |count: usize| Base64::encode_string(&vec![0; count]);
        let text = match kind {
            Kind::Sha256Crypt(rounds) => crypt::stand_in("5", rounds),
            Kind::Sha512Crypt(rounds) => crypt::stand_in("6", rounds),
            Kind::Sha512 => format!("$6${}${}", zeros(12), zeros(64)),
            Kind::Pbkdf2(iterations) => format!("$7${iterations}${}${}", zeros(12), zeros(64)),
            Kind::Argon2id(cost) => argon2id::format(cost, &[0; 16], &[0; 32]),
            Kind::Scram(ScramKind { iterations, salt_bytes }) => {
                let key = zeros(32);
                format!("{}{iterations}${}${key}${key}", scram::PREFIX, zeros(salt_bytes))
            }
        };
        // Each of them is read, as a test shows.
        Self::parse(&text).unwrap_or_else(|_| Self {
            text: text.into(),
            keys: None,
        })
    }

    /// Hashes a password with Argon2id.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub(crate) fn argon2id(password: &[u8], cost: Cost) -> Result<String, String> {
        argon2id::hash(password, cost, &random()?)
    }

    /// Hashes a password as crypt(3) does with `$6$` and 5000 rounds.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub(crate) fn sha512_crypt(password: &[u8]) -> Result<String, String> {
        crypt::hash(password, &random::<12>()?)
    }

    /// Hashes a password as Mosquitto 2.0 does with `-H sha512-pbkdf2`.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub(crate) fn pbkdf2(password: &[u8], iterations: u32) -> Result<String, String> {
        Ok(Pbkdf2::hash(password, &random::<12>()?, iterations))
    }

    /// Hashes a password as Mosquitto does with `-H sha512`.
    ///
    /// # Errors
    /// The system has no randomness to give.
    pub(crate) fn sha512(password: &[u8]) -> Result<String, String> {
        Ok(Sha512Once::hash(password, &random::<12>()?))
    }
}

impl Kind {
    /// What `sol passwd` writes.
    pub const USUAL: Self = Self::Argon2id(Cost::USUAL);
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("no randomness: {error}"))?;
    Ok(bytes)
}

/// Reads a whole number without sign or spaces.
fn digits(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What made it, of which password.
    const VECTORS: &[(&str, &[u8], &str)] = &[
        (
            "mosquitto_passwd 2.0.11",
            b"secret",
            "$7$101$zCxdutuYEzuCHf2X$HfA6IMiuHc6savfYpvXjh0jsxe/q5V+yVG9Ca4z2joHvZVo//bpCtZO7hKBSL6rjqGjtTC3HdfVdlYY/rpq4tA==",
        ),
        (
            "mosquitto_passwd 2.0.11",
            "Grüße, $Welt:x".as_bytes(),
            "$7$101$NtbEUwUqvY/sL8rD$zfR54lX+PM5dqvC1K0wp+cuPwxZK0qq/yMphbJqKzQmFAMonq0g79vY7BRVIU8ZOR/EFGigpaQivyKfoShFPUg==",
        ),
        (
            "Python's hashlib.pbkdf2_hmac, with a salt of 64 bytes as Mosquitto 2.1 has",
            b"secret",
            "$7$1000$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==$j5aX3DstWRgO5cjjfvKvsf7Z/KK812T4wGDMih+DCHQg8P7++fmj4sZcMp1smkEafZL0QZ29tE5ezahL/nyffw==",
        ),
        (
            "mosquitto_passwd 2.0.11 -H sha512",
            b"secret",
            "$6$jW5BrQlps0RgsGp6$8c/ASSuZOhZRIkqufCU9RzNrClMvy4FFld2ivhhaOuaa+vduzTN5bPvwVY25xlGebdFFNdHZ+3MaeogpB32JUA==",
        ),
        (
            "openssl passwd -6",
            b"Hello world!",
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        ),
        (
            "openssl passwd -6, the rounds given as part of the salt",
            b"Hello world!",
            "$6$rounds=10000$saltstringsaltst$\
             OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.",
        ),
        (
            "openssl passwd -5",
            b"Hello world!",
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
        ),
        (
            "the reference implementation of Argon2, by its tool: -id -k 47104 -t 1 -p 1",
            b"secret",
            "$argon2id$v=19$m=47104,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$xS/iYo2u93W8yEuyWnJuV/a8EHFHlSC/1i98kLMPF3Q",
        ),
        (
            "the same: -id -k 4096 -t 3 -p 1",
            b"secret",
            "$argon2id$v=19$m=4096,t=3,p=1$c29tZXNhbHRzb21lc2FsdA$zPWqisMAxK7MeeFoPn4hFRR4SMmT7ZmHsPAtoLcEHR4",
        ),
        (
            "the same: -id -k 64 -t 3 -p 4 -l 64",
            b"Hello world!",
            "$argon2id$v=19$m=64,t=3,p=4$c29tZXNhbHQ$\
             OBs2JsOLyheN95WHiS+SsnW1SoXt7cz07fDIUObgt8PgRaXP3vNoZQexHn2jY8hgSxIbLdlnm0Mu1O9epASFRQ",
        ),
        (
            "the keys of the example in RFC 7677",
            b"pencil",
            "$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$\
             WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
        ),
    ];

    /// What others have written is checked as they meant it; nothing near the password is the password, and one that is
    /// longer than a login may cost is none.
    #[test]
    fn vectors() {
        let mut scratch = Scratch::default();
        for (made_by, password, text) in VECTORS {
            let stored = Stored::parse(text).unwrap_or_else(|error| panic!("{made_by}: {error}"));
            assert_eq!(stored.as_str(), *text);
            assert!(stored.matches(password, &mut scratch), "{made_by}");
            let near = [
                &password[1..],
                &password[..password.len() - 1],
                &[*password, b"\0"].concat(),
                &[*password, b" "].concat(),
                &password.to_ascii_uppercase(),
                b"",
                b"\0",
                &[b'a'; PASSWORD_BYTES_MAX + 1],
                &[b'a'; 60_000],
            ];
            for wrong in near {
                assert!(!stored.matches(wrong, &mut scratch), "{made_by}: {wrong:?}");
            }
        }
    }

    /// A stand-in is read as what it stands in for, costs what that costs, and is nobody's.
    #[test]
    fn stand_ins() {
        let mut scratch = Scratch::default();
        for (made_by, password, text) in VECTORS {
            let kind = Stored::parse(text).unwrap().kind();
            let stand_in = Stored::stand_in(kind);
            assert_eq!(Stored::parse(stand_in.as_str()).as_ref(), Ok(&stand_in), "{made_by}");
            assert_eq!(stand_in.kind(), kind, "{made_by}");
            assert!(!stand_in.matches(password, &mut scratch));
        }
        assert_eq!(Stored::stand_in(Kind::USUAL).kind(), Kind::USUAL);
    }

    /// A digest of crypt(3) that sets bits beyond its last is no password's, and is refused: its user could never log in. Of
    /// the vectors' last characters every one that such a digest may end in is taken.
    #[test]
    fn digests_of_crypt_are_canonical() {
        let alphabet = || ('.'..='9').chain('A'..='Z').chain('a'..='z');
        for (id, bits) in [("$6$", 2), ("$5$", 4)] {
            let is_crypt = |text: &str| matches!(Read::text(text), Ok(Read::Crypt(_)));
            for (_, _, text) in VECTORS
                .iter()
                .filter(|(_, _, text)| text.starts_with(id) && is_crypt(text))
            {
                let taken: String = alphabet()
                    .filter(|end| Stored::parse(&format!("{}{end}", &text[..text.len() - 1])).is_ok())
                    .collect();
                let canonical: String = alphabet().take(1 << bits).collect();
                assert_eq!(taken, canonical, "{text}");
            }
        }
    }

    /// No text is a hash both of crypt(3) and of Mosquitto: whatever a character more, less or other makes of one of them,
    /// it is never the other's, and what is neither is refused.
    #[test]
    fn hashes_that_begin_alike_are_told_apart() {
        let both = |text: &str| {
            let fields: Vec<_> = text.split('$').collect();
            let of_mosquitto = matches!(fields[..], ["", "6", _, _]) && Sha512Once::read(&fields[2..]).is_ok();
            let of_crypt = matches!(fields[..], ["", "6", ..]) && Crypt::read(text, "6", &fields[2..]).is_ok();
            (of_mosquitto, of_crypt)
        };
        let (mut mosquitto, mut crypt) = (0, 0);
        for (_, _, text) in VECTORS.iter().filter(|(_, _, text)| text.starts_with("$6$")) {
            for at in 0..=text.len() {
                let (before, rest) = text.split_at(at);
                let after = rest.get(1..).unwrap_or_default();
                for put in ["", "=", "==", "$", "/", "+", ".", "a", "aa", "!"] {
                    for changed in [format!("{before}{put}{rest}"), format!("{before}{put}{after}")] {
                        let (of_mosquitto, of_crypt) = both(&changed);
                        assert!(!(of_mosquitto && of_crypt), "{changed}");
                        let found = Stored::parse(&changed).map(|stored| stored.kind());
                        assert_eq!(matches!(found, Ok(Kind::Sha512)), of_mosquitto, "{changed}");
                        assert_eq!(matches!(found, Ok(Kind::Sha512Crypt(_))), of_crypt, "{changed}");
                        mosquitto += usize::from(of_mosquitto);
                        crypt += usize::from(of_crypt);
                    }
                }
            }
        }
        assert!(mosquitto > 100 && crypt > 100, "{mosquitto} {crypt}");
    }

    /// What would cost more than a login may is refused, be it rounds, iterations, memory or passes; so is what says twice
    /// or not at all what it costs.
    #[test]
    fn costs_have_limits() {
        let (salt, digest) = ("c2FsdHNhbHRzYWx0", "A".repeat(43));
        let argon2id = |cost: &str| Stored::parse(&format!("$argon2id$v=19${cost}${salt}${digest}")).is_ok();
        for good in ["m=8,t=1,p=1", "m=65536,t=4,p=4", "m=19456,t=2,p=1", "m=128,t=2048,p=16"] {
            assert!(argon2id(good), "{good}");
        }
        for bad in [
            "m=65537,t=1,p=1",
            "m=4294967295,t=1,p=1",
            "m=65536,t=5,p=1",
            "m=65536,t=4294967295,p=1",
            "m=8,t=0,p=1",
            "m=8,t=1,p=0",
            "m=7,t=1,p=1",
            "m=8,t=1,p=2",
            "m=136,t=1,p=17",
            "m=+8,t=1,p=1",
            "m=8,t=1",
            "m=8,t=1,p=1,p=1",
            "t=1,m=8,p=1",
            "m=8,t=1,p=1,keyid=x",
            "",
        ] {
            assert!(!argon2id(bad), "{bad}");
        }
        let others = |iterations: &str, rounds: &str| {
            let long = "A".repeat(86);
            let pbkdf2 = format!("$7${iterations}${salt}${long}==");
            let crypt = format!("$6$rounds={rounds}$salt${}.", &long[1..]);
            [pbkdf2, crypt].map(|text| Stored::parse(&text).is_ok())
        };
        assert_eq!(others("1", "1000"), [true; 2]);
        assert_eq!(others("1000000", "1000000"), [true; 2]);
        assert_eq!(others("0", "999"), [false; 2]);
        assert_eq!(others("1000001", "1000001"), [false; 2]);
        assert_eq!(others("+101", "+5000"), [false; 2]);
        for version in ["v=16", "v=20", "v=", ""] {
            let text = format!("$argon2id${version}$m=8,t=1,p=1${salt}${digest}");
            assert!(Stored::parse(&text).is_err(), "{version}");
        }
    }

    /// Memory that was kept from a check of more memory serves one of less, and the other way round.
    #[test]
    fn memory_is_used_again() {
        let of = |memory: &str| {
            VECTORS
                .iter()
                .find(|(_, _, text)| text.contains(memory))
                .map(|(_, password, text)| (password, Stored::parse(text).unwrap()))
                .unwrap()
        };
        let mut scratch = Scratch::default();
        for memory in ["m=4096", "m=64", "m=47104", "m=64", "m=4096"] {
            let (password, stored) = of(memory);
            assert!(stored.matches(password, &mut scratch), "{memory}");
        }
        assert_eq!(format!("{scratch:?}"), "Scratch { kib: 47104 }");
        scratch.clear();
        assert_eq!(format!("{scratch:?}"), "Scratch { kib: 0 }");
    }
}
