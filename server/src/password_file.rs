//! The password file: lines of `user:hash`; a line that begins with `#` is a comment. What hashes there are is said in
//! [`crate::stored`].

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sol_engine::{ChangedUser, UserChange};

use crate::config::{Diagnostic, reason};
use crate::scram::{self, Keys, ScramKind};
use crate::stored::{Kind, Scratch, Stored};

/// Longest user name, in bytes: what an MQTT string holds.
pub const USER_BYTES_MAX: usize = 65_535;
/// Largest password file, in bytes: some hundred thousand users.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// Users and their hashes.
///
/// Who is not in the file has a stand-in: an entry that no password has, of a kind that entries of the file have, as often
/// as they have it. Which one is a matter of the name and a secret of the caller's alone. So for a file of several kinds,
/// too, a name without a user costs what some user costs, and always the same.
#[derive(Clone, Debug)]
pub struct Users {
    entries: HashMap<Box<str>, Stored>,
    /// A stand-in of each kind.
    kinds: Kinds<Stored>,
    scram_kinds: Kinds<ScramKind>,
}

/// Nobody.
impl Default for Users {
    fn default() -> Self {
        Self::none()
    }
}

impl Users {
    /// Nobody.
    pub fn none() -> Self {
        Self::new(HashMap::new())
    }

    /// Reads a password file. The warnings are about its mode.
    ///
    /// # Errors
    /// Every malformed or repeated line, or why the file cannot be read, and as whom.
    pub fn load(path: &Path) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let (bytes, mode) = read(path).map_err(|error| {
            let uid = rustix::process::geteuid().as_raw();
            let text = format!("password_file cannot be read as uid {uid}: {}", reason(&error));
            vec![Diagnostic::of_file(path, text)]
        })?;
        let users = Self::parse(path, &bytes)?;
        Ok((users, open_to_all(path, mode).into_iter().collect()))
    }

    /// Reads users from text; `path` is only for messages.
    ///
    /// # Errors
    /// Every malformed or repeated line.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Vec<Diagnostic>> {
        let mut lines: HashMap<Box<str>, (usize, Stored)> = HashMap::new();
        let mut faults = Vec::new();
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            let number = index + 1;
            match parse_line(line) {
                Ok(None) => {}
                Ok(Some((user, stored))) => match lines.get(user) {
                    Some((before, _)) => {
                        let text = format!("this user stands on line {before} already");
                        faults.push(Diagnostic::at(path, number, 1, text));
                    }
                    None => {
                        lines.insert(user.into(), (number, stored));
                    }
                },
                Err((column, text)) => faults.push(Diagnostic::at(path, number, column, text)),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self::new(
            lines.into_iter().map(|(user, (_, stored))| (user, stored)).collect(),
        ))
    }

    fn new(entries: HashMap<Box<str>, Stored>) -> Self {
        let kinds = Kinds::of(entries.values().map(Stored::kind), Kind::USUAL).map(Stored::stand_in);
        let usual = ScramKind {
            iterations: scram::ITERATIONS_DEFAULT,
            salt_bytes: scram::SALT_BYTES,
        };
        let scram_kinds = Kinds::of(entries.values().filter_map(Stored::scram).map(Keys::kind), usual);
        Self {
            entries,
            kinds,
            scram_kinds,
        }
    }

    /// Who is another in `next`: changed, gone or new.
    pub fn changes_to(&self, next: &Self) -> Vec<ChangedUser> {
        let of = |user: &str, change| ChangedUser {
            username: user.into(),
            change,
        };
        let before = self.entries.iter().filter_map(|(user, stored)| match next.get(user) {
            Some(new) if new == stored => None,
            Some(_) => Some(of(user, UserChange::Changed)),
            None => Some(of(user, UserChange::Gone)),
        });
        let added = next.entries.keys().filter(|user| self.get(user).is_none());
        before.chain(added.map(|user| of(user, UserChange::Added))).collect()
    }

    /// The number of users.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no user.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is stored for `user`.
    pub fn get(&self, user: &str) -> Option<&Stored> {
        self.entries.get(user)
    }

    /// The keys of `user` for SCRAM, if the file has them.
    pub fn scram(&self, user: &str) -> Option<&Keys> {
        self.get(user)?.scram()
    }

    /// What SCRAM asks of somebody who has no keys for it; the same for the same `pick`.
    pub fn scram_kind(&self, user: &str, pick: Pick) -> ScramKind {
        let stand_in = self.get(user).is_none().then(|| self.kinds.pick(pick.kind));
        match stand_in.and_then(Stored::scram) {
            // What the plain password would cost, too.
            Some(keys) => keys.kind(),
            None => *self.scram_kinds.pick(pick.scram_kind),
        }
    }

    /// Checks a password; takes milliseconds. For a user who does not exist it takes as long as for some user, who is
    /// chosen by `pick`.
    pub fn verify(&self, user: &str, password: &[u8], pick: Pick, scratch: &mut Scratch) -> bool {
        match self.get(user) {
            Some(stored) => stored.matches(password, scratch),
            None => {
                self.kinds.pick(pick.kind).matches(password, scratch);
                false
            }
        }
    }
}

/// Which stand-in a name has: random, and always the same for it.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    /// Among all kinds of entries.
    pub kind: u64,
    /// Among the kinds of keys for SCRAM.
    pub scram_kind: u64,
}

/// The different kinds that entries are of, in a fixed order, each with the number of entries up to its last.
#[derive(Clone, Debug)]
struct Kinds<T>(Vec<(u64, T)>);

impl<T> Kinds<T> {
    /// Sorts kinds out; `usual` if there is none.
    fn of(all: impl Iterator<Item = T>, usual: T) -> Self
    where
        T: Ord,
    {
        let mut counts = BTreeMap::<T, u64>::new();
        for one in all {
            *counts.entry(one).or_default() += 1;
        }
        if counts.is_empty() {
            counts.insert(usual, 1);
        }
        let mut sum = 0;
        let summed = counts.into_iter().map(|(one, count)| {
            sum += count;
            (sum, one)
        });
        Self(summed.collect())
    }

    fn map<U>(self, change: impl Fn(T) -> U) -> Kinds<U> {
        Kinds(self.0.into_iter().map(|(sum, one)| (sum, change(one))).collect())
    }

    /// One of them, as often as entries are of its kind.
    fn pick(&self, random: u64) -> &T {
        let total = self.0.last().map_or(1, |(sum, _)| *sum);
        let at = self.0.partition_point(|(sum, _)| *sum <= random % total);
        &self.0[at].1
    }
}

/// Reads a line: user and hash, `None` for a blank line or a comment.
fn parse_line(line: &[u8]) -> Result<Option<(&str, Stored)>, (usize, String)> {
    let Ok(text) = std::str::from_utf8(line) else {
        return Err((1, "not UTF-8 text".to_owned()));
    };
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.trim().is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let Some((user, hash)) = text.split_once(':') else {
        return Err((1, "a line is user:hash".to_owned()));
    };
    check_user(user).map_err(|text| (1, text))?;
    let stored = Stored::parse(hash).map_err(|text| (user.chars().count() + 2, text))?;
    Ok(Some((user, stored)))
}

/// Whether `user` can stand in a password file.
///
/// # Errors
/// A sentence that says why not.
pub fn check_user(user: &str) -> Result<(), String> {
    if user.is_empty() || user.len() > USER_BYTES_MAX {
        return Err(format!("a user name has 1 to {USER_BYTES_MAX} bytes"));
    }
    if user.starts_with('#') || user.contains(':') || user.chars().any(char::is_control) {
        return Err("a user name has no `:`, no control character and no `#` in front".to_owned());
    }
    Ok(())
}

/// What is to be said of a file that every user of the machine may read, or write.
pub(crate) fn open_to_all(path: &Path, mode: u32) -> Option<Diagnostic> {
    let text = || {
        format!(
            "open to every user of this machine; run: chmod o-rwx '{}'",
            path.display()
        )
    };
    (mode & 0o007 != 0).then(|| Diagnostic::of_file(path, text()))
}

/// Reads a password file whole, with its mode.
pub(crate) fn read(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok((bytes, metadata.permissions().mode()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl passwd -6` and `-5`, the rounds given as part of the salt.
    const HELLO: &str =
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1";
    const HELLO_ROUNDS: &str = "$6$rounds=10000$saltstringsaltst$\
         OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v.";
    const HELLO_256: &str = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5";

    /// The keys of "pencil", of the example in RFC 7677.
    const SCRAM: &str = "$scram-sha-256$4096$W22ZaJ0SNY7soEsUEjb6gQ==$\
         WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=$wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    const ANY: Pick = Pick { kind: 0, scram_kind: 0 };

    fn verify(users: &Users, user: &str, password: &[u8]) -> bool {
        users.verify(user, password, ANY, &mut Scratch::default())
    }

    fn parse(text: &str) -> Result<Users, Vec<String>> {
        Users::parse("p".as_ref(), text.as_bytes()).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    /// Blank lines, comments, carriage returns and a missing last line feed are no users and no fault; the old broker
    /// read past its buffers on two of them.
    #[test]
    fn blank_lines() {
        let users = parse(&format!("\n# team\na:{HELLO}\r\n  \nb:{HELLO}")).unwrap();
        assert_eq!(users.len(), 2);
        assert!(parse("").unwrap().is_empty());
    }

    /// A line that cannot be a user refuses the file, with its place, and the text of a password is never repeated.
    #[test]
    fn malformed_lines() {
        let salt = "c2FsdHNhbHRzYWx0";
        let lines = [
            "user".to_owned(),
            ":x".to_owned(),
            format!("a:{HELLO}"),
            format!("a:{HELLO}"),
            "b:secret".to_owned(),
            "c:".to_owned(),
            "d:$6$salt$short".to_owned(),
            format!("e:$6$rounds=1$salt${}", "a".repeat(86)),
            format!("e:$6$rounds=999999999$salt${}", "a".repeat(86)),
            "f:$1$a$b".to_owned(),
            "g:$argon2id$v=19$x".to_owned(),
            format!("h:$6${salt}${}=", "A".repeat(87)),
            "i:$7$101$a$b".to_owned(),
            format!("i:$7$1000001${salt}${}==", "A".repeat(86)),
            format!("i:$7$101${salt}${}", "A".repeat(86)),
            format!("j:$6$sa!t${}", "a".repeat(86)),
            format!("k:$argon2id$v=19$m=65537,t=1,p=1${salt}${}", "A".repeat(43)),
            format!("k:$argon2id$v=19$m=65536,t=5,p=1${salt}${}", "A".repeat(43)),
        ];
        let not_a_hash = "not a hash; `sol passwd -U FILE` turns `user:password` lines into hashes";
        let no_digest = "the digest must be 86 of the characters ./0-9A-Za-z, or Mosquitto's 64 bytes in Base64";
        assert_eq!(
            parse(&lines.join("\n")).unwrap_err(),
            [
                "p:1:1: a line is user:hash".to_owned(),
                "p:2:1: a user name has 1 to 65535 bytes".to_owned(),
                "p:4:1: this user stands on line 3 already".to_owned(),
                format!("p:5:3: {not_a_hash}"),
                format!("p:6:3: {not_a_hash}"),
                format!("p:7:3: {no_digest}"),
                "p:8:3: rounds must be from 1000 to 1000000".to_owned(),
                "p:9:3: rounds must be from 1000 to 1000000".to_owned(),
                "p:10:3: only $argon2id$, $7$, $6$ and $5$ hashes, and keys of SCRAM-SHA-256, are supported".to_owned(),
                "p:11:3: a hash of Argon2id is $argon2id$v=19$m=memory,t=passes,p=lanes$salt$digest".to_owned(),
                format!("p:12:3: {no_digest}"),
                "p:13:3: the salt must be 8 to 64 bytes in Base64".to_owned(),
                "p:14:3: iterations must be from 1 to 1000000".to_owned(),
                "p:15:3: the digest must be 64 bytes in Base64".to_owned(),
                "p:16:3: the salt must be 1 to 16 of the characters ./0-9A-Za-z".to_owned(),
                "p:17:3: m must be from 8 for each p to 65536 (KiB)".to_owned(),
                "p:18:3: t must be at least 1, and m times t at most 262144 (KiB)".to_owned(),
            ]
        );
    }

    /// In a file of several kinds each kind stands in for unknown users as often as entries are of it, whatever order the
    /// file has; what SCRAM asks of them, and of users without keys for it, is what it asks of some user.
    #[test]
    fn stand_ins_are_of_the_kinds_of_the_file() {
        let other = format!(
            "$scram-sha-256$5000$c2FsdHNhbHQ=${}",
            SCRAM.splitn(5, '$').nth(4).unwrap()
        );
        let lines = [
            format!("a:{HELLO_ROUNDS}\n"),
            format!("b:{HELLO_256}\n"),
            format!("c:{SCRAM}\n"),
            format!("d:{SCRAM}\n"),
            format!("e:{other}\n"),
        ];
        let (users, reversed) = (parse(&lines.concat()).unwrap(), {
            let lines: String = lines.iter().rev().cloned().collect();
            parse(&lines).unwrap()
        });
        let mut seen = BTreeMap::<_, usize>::new();
        for random in 0..10 {
            let stand_in = users.kinds.pick(random);
            assert_eq!(stand_in, reversed.kinds.pick(random));
            *seen.entry(stand_in.kind()).or_default() += 1;
            let pick = |scram_kind| Pick {
                kind: random,
                scram_kind,
            };
            for scram_kind in 0..3 {
                let asked = users.scram_kind("nobody", pick(scram_kind));
                let without_keys = users.scram_kind("a", pick(scram_kind));
                let known = |user: &str| users.scram(user).unwrap().kind();
                assert_eq!(without_keys, if scram_kind < 2 { known("c") } else { known("e") });
                assert_eq!(asked, stand_in.scram().map_or(without_keys, Keys::kind));
            }
            assert!(!users.verify("nobody", b"pencil", pick(0), &mut Scratch::default()));
        }
        let scram = |iterations, salt_bytes| Kind::Scram(ScramKind { iterations, salt_bytes });
        let expected = [
            (Kind::Sha256Crypt(5_000), 2),
            (Kind::Sha512Crypt(10_000), 2),
            (scram(4_096, 16), 4),
            (scram(5_000, 8), 2),
        ];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    }

    /// Where there is nobody, or nobody with keys for SCRAM, the stand-in is of the kind that `sol passwd` writes.
    #[test]
    fn stand_ins_without_an_example() {
        for text in [String::new(), format!("a:{HELLO_256}")] {
            let kind = parse(&text).unwrap().scram_kind("nobody", ANY);
            assert_eq!(
                (kind.iterations, kind.salt_bytes),
                (scram::ITERATIONS_DEFAULT, scram::SALT_BYTES)
            );
        }
        assert_eq!(parse("").unwrap().kinds.pick(7).kind(), Kind::USUAL);
    }

    /// Keys for SCRAM serve the plain password too; nothing near it does.
    #[test]
    fn scram_keys() {
        let users = parse(&format!("u:{SCRAM}\nv:{HELLO}")).unwrap();
        assert!(verify(&users, "u", b"pencil") && users.scram("u").is_some());
        for wrong in [&b"pencil\0"[..], b"Pencil", b"", &[b'a'; 513]] {
            assert!(!verify(&users, "u", wrong));
        }
        assert!(users.scram("v").is_none() && users.scram("w").is_none());
        assert_eq!(users.get("u").unwrap().as_str(), SCRAM);
        let many = SCRAM.replace("4096", "4294967295");
        assert_eq!(
            parse(&format!("u:{SCRAM}\nv:{many}\nw:$scram-sha-256$4096$x\n")).unwrap_err(),
            [
                "p:2:3: iterations must be from 4096 to 1000000",
                "p:3:3: a SCRAM entry is $scram-sha-256$iterations$salt$StoredKey$ServerKey",
            ]
        );
    }

    /// A file that is not there or is open to all is named, with what to do.
    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        let text = Users::load(&path).unwrap_err()[0].to_string();
        assert!(
            text.contains("cannot be read as uid ") && text.ends_with(": No such file or directory"),
            "{text}"
        );
        std::fs::write(&path, format!("a:{HELLO}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        let (users, warnings) = Users::load(&path).unwrap();
        assert_eq!((users.len(), warnings.len()), (1, 1));
        assert!(warnings[0].to_string().contains("chmod o-rwx"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert_eq!(Users::load(&path).unwrap().1, []);
    }
}
