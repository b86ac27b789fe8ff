//! `sol passwd`: adds, changes and deletes users, and turns `user:password` lines into hashes.
//!
//! The file is replaced as a whole: a new one is written beside it with mode 0600, synced and renamed over it, so that
//! a broker that reads it sees the old users or the new ones. What the old one let its group read, the new one does too. Lines that are not meant stay byte for byte.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::config::reason;
use crate::password_file::{self, check_user};
use crate::scram::{self, Keys};
use crate::signals;
use crate::stored::{Cost, PASSWORD_BYTES_MAX, Stored};

/// Exit code after an interrupt, as a shell has it.
const INTERRUPTED: i32 = 130;

/// What is kept of a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// Argon2id.
    Argon2id(Cost),
    /// SHA-512-crypt with 5000 rounds, as the old broker's tool wrote.
    Sha512Crypt,
    /// PBKDF2-HMAC-SHA512 after so many iterations, for a file that Mosquitto 2.0 reads, too.
    Pbkdf2(u32),
    /// One SHA-512, for a file that Mosquitto 1.6 reads, too.
    Sha512,
    /// The keys of SCRAM-SHA-256, after so many iterations, for SCRAM and plain passwords.
    Scram(u32),
}

impl Scheme {
    /// Hashes a password of `user` with a new salt.
    ///
    /// # Errors
    /// A sentence: the password is empty, too long or not allowed, the user's name is, or the system has no randomness.
    pub fn hash(self, user: &str, password: &[u8]) -> Result<String, String> {
        if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
            return Err(wrong_length());
        }
        match self {
            Self::Argon2id(cost) => Stored::argon2id(password, cost),
            Self::Sha512Crypt => Stored::sha512_crypt(password),
            Self::Pbkdf2(_) if password.ends_with(&[0]) => {
                Err("PBKDF2 does not see a NUL at the end of a password".to_owned())
            }
            Self::Pbkdf2(iterations) => Stored::pbkdf2(password, iterations),
            Self::Sha512 => Stored::sha512(password),
            Self::Scram(iterations) => scram_keys(user, password, iterations),
        }
    }
}

/// What to do with a password file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Adds a user or changes a password; holds user and hash.
    Set(String, String),
    /// Deletes a user.
    Delete(String),
    /// Hashes every password that stands in plain text.
    HashAll(Scheme),
}

/// Applies `change` to the file at `path`, which is created if it is absent or to be begun anew. Returns a sentence that
/// says what was done.
///
/// # Errors
/// A sentence that says why nothing was changed.
pub fn change_file(path: &Path, change: &Change, anew: bool) -> Result<String, String> {
    // A link stays a link: what it points to is replaced.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let before = match password_file::read(path) {
        _ if anew => Vec::new(),
        Ok((bytes, _)) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound && matches!(change, Change::Set(..)) => Vec::new(),
        Err(error) => return Err(format!("{} cannot be read: {}", path.display(), reason(&error))),
    };
    let (after, done) = apply(&before, change)?;
    replace_file(path, &after)?;
    Ok(done)
}

fn scram_keys(user: &str, password: &[u8], iterations: u32) -> Result<String, String> {
    if user.len() > scram::USER_BYTES_MAX {
        return Err(format!(
            "SCRAM takes user names of at most {} bytes",
            scram::USER_BYTES_MAX
        ));
    }
    // A client sends its name prepared, so another form of it would never be found.
    if scram::prepare(user).as_deref() != Some(user) {
        return Err(match scram::prepare(user) {
            Some(prepared) => format!("SCRAM writes this user name as `{prepared}`"),
            None => "this user name cannot be used with SCRAM".to_owned(),
        });
    }
    let prepared = std::str::from_utf8(password).ok().and_then(scram::prepare);
    let Some(prepared) = prepared else {
        return Err(
            "a password for SCRAM is text, without control characters and what Unicode 3.2 did not have".to_owned(),
        );
    };
    let mut salt = [0; scram::SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| format!("no randomness: {error}"))?;
    Ok(Keys::derive(prepared.as_bytes(), &salt, iterations).to_string())
}

/// Asks for a password: twice and without echo on a terminal, else one line of standard input.
///
/// # Errors
/// A sentence: the two differ, the password is empty or too long, or the input ended.
pub fn ask_password() -> Result<Vec<u8>, String> {
    ask_for_password("Password: ")?.ok_or_else(wrong_length)
}

/// The same, where there may be none: `None` if the line is empty, or the input is at its end.
///
/// # Errors
/// As [`ask_password`].
pub(crate) fn ask_for_password(prompt: &str) -> Result<Option<Vec<u8>>, String> {
    let is_terminal = io::stdin().is_terminal();
    let first = if is_terminal { ask(prompt)? } else { read_line()? };
    if first.is_empty() {
        return Ok(None);
    }
    if is_terminal && ask("Once more: ")? != first {
        return Err("the two passwords differ".to_owned());
    }
    Ok(Some(first))
}

fn wrong_length() -> String {
    format!("a password has 1 to {PASSWORD_BYTES_MAX} bytes")
}

fn ask(prompt: &str) -> Result<Vec<u8>, String> {
    let mut terminal = io::stderr();
    let _ = terminal.write_all(prompt.as_bytes()).and_then(|()| terminal.flush());
    let before = tcgetattr(io::stdin()).map_err(|error| error.to_string())?;
    let echo = before.clone();
    let interrupted = signals::watch(move |_| {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &echo);
        let _ = io::stderr().write_all(b"\n");
        std::process::exit(INTERRUPTED);
    });
    let _interrupted = interrupted.map_err(|error| reason(&error))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Flush, &silent).map_err(|error| error.to_string())?;
    let line = read_line();
    let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &before);
    let _ = terminal.write_all(b"\n");
    line
}

fn read_line() -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let limit = PASSWORD_BYTES_MAX as u64 + 3;
    let input = io::stdin().lock();
    io::Read::take(input, limit)
        .read_until(b'\n', &mut line)
        .map_err(|error| reason(&error))?;
    while line.last().is_some_and(|byte| *byte == b'\n' || *byte == b'\r') {
        line.pop();
    }
    if line.len() > PASSWORD_BYTES_MAX {
        return Err(wrong_length());
    }
    Ok(line)
}

/// The text of the file after `change`, and what was done.
fn apply(before: &[u8], change: &Change) -> Result<(Vec<u8>, String), String> {
    match change {
        Change::Set(user, hash) => {
            check_user(user)?;
            let (after, count) = rewrite_user(before, user, Some(hash));
            Ok((
                after,
                format!("{user}: {}", if count == 0 { "added" } else { "changed" }),
            ))
        }
        Change::Delete(user) => match rewrite_user(before, user, None) {
            (_, 0) => Err(format!("there is no user {user}")),
            (after, _) => Ok((after, format!("{user}: deleted"))),
        },
        Change::HashAll(scheme) => hash_all(before, *scheme),
    }
}

/// Replaces or removes the lines of `user`; a new user comes last. Also counts the lines there were.
fn rewrite_user(before: &[u8], user: &str, hash: Option<&str>) -> (Vec<u8>, usize) {
    let (mut after, mut count) = (Vec::with_capacity(before.len() + 128), 0);
    let entry = hash.map(|hash| format!("{user}:{hash}\n"));
    for line in before.split_inclusive(|&byte| byte == b'\n') {
        if user_of(line) != Some(user.as_bytes()) {
            after.extend_from_slice(line);
            continue;
        }
        // A user that stands twice, which refuses the start, stands once afterwards.
        if count == 0 {
            after.extend_from_slice(entry.as_deref().unwrap_or_default().as_bytes());
        }
        count += 1;
    }
    if let Some(entry) = entry.filter(|_| count == 0) {
        if after.last().is_some_and(|byte| *byte != b'\n') {
            after.push(b'\n');
        }
        after.extend_from_slice(entry.as_bytes());
    }
    (after, count)
}

fn hash_all(before: &[u8], scheme: Scheme) -> Result<(Vec<u8>, String), String> {
    let (mut after, mut hashed, mut kept) = (Vec::with_capacity(before.len() * 4), 0, 0);
    for (index, line) in before.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let text = line.trim_ascii_end();
        let Some(user) = user_of(text) else {
            if !text.trim_ascii().is_empty() && text.first() != Some(&b'#') {
                return Err(format!("line {}: a line is user:password or user:hash", index + 1));
            }
            after.extend_from_slice(line);
            continue;
        };
        let password = text.get(user.len() + 1..).unwrap_or_default();
        let at = |text| format!("line {}: {text}", index + 1);
        if is_hash(password).map_err(at)? {
            after.extend_from_slice(line);
            kept += 1;
            continue;
        }
        let name = String::from_utf8_lossy(user);
        let hash = scheme.hash(&name, password).map_err(at)?;
        after.extend_from_slice(user);
        after.extend_from_slice(format!(":{hash}\n").as_bytes());
        hashed += 1;
    }
    Ok((after, format!("{hashed} passwords hashed, {kept} hashes kept")))
}

/// Whether this is a hash: it stays as it is, of whatever kind.
///
/// # Errors
/// It begins like a hash, `$name$`, and is none: hashed as a password it would lock its user out for good. The sentence
/// does not repeat the text.
fn is_hash(password: &[u8]) -> Result<bool, String> {
    let begins_like_one = match password.split(|&byte| byte == b'$').collect::<Vec<_>>()[..] {
        [b"", name, _, ..] => !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-'),
        _ => false,
    };
    if !begins_like_one {
        return Ok(false);
    }
    let text = std::str::from_utf8(password).unwrap_or_default();
    if Stored::parse(text).is_ok() {
        return Ok(true);
    }
    Err("begins like a hash and is none; if it is a password, set it by `sol passwd FILE USER`".to_owned())
}

fn user_of(line: &[u8]) -> Option<&[u8]> {
    let end = line.iter().position(|&byte| byte == b':')?;
    (line.first() != Some(&b'#')).then(|| &line[..end])
}

/// Replaces a file as a whole. The file beside it is also the lock: a second `sol passwd` finds it and stops.
fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let name = path
        .file_name()
        .ok_or_else(|| format!("{} is not a file", path.display()))?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let beside = directory.join(format!(".{}.new", name.to_string_lossy()));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(|error| {
            let at_work = if error.kind() == io::ErrorKind::AlreadyExists {
                "; another `sol passwd` is at work, or one was killed and left it"
            } else {
                ""
            };
            format!("{} cannot be written: {}{at_work}", beside.display(), reason(&error))
        })?;
    let leftover = Leftover(Some(beside));
    write_over(&file, bytes, leftover, path)
        .map_err(|error| format!("{} is unchanged: {}", path.display(), reason(&error)))?;
    // The rename itself is made durable; a system that cannot sync directories has it in its cache.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

fn write_over(mut file: &File, bytes: &[u8], mut beside: Leftover, path: &Path) -> io::Result<()> {
    if let Ok(old) = path.metadata() {
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
            fchown(file, Some(old.uid()), Some(old.gid()))?;
        }
        // The broker often reads it as a member of its group.
        file.set_permissions(Permissions::from_mode(old.mode() & 0o640 | 0o600))?;
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    if let Some(beside) = &beside.0 {
        std::fs::rename(beside, path)?;
    }
    beside.0 = None;
    Ok(())
}

/// A file to be removed unless it was renamed.
pub(crate) struct Leftover(pub(crate) Option<PathBuf>);

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::password_file::{Pick, Users};
    use crate::stored::Scratch;

    const CHEAP: Scheme = Scheme::Argon2id(Cost::LEAST);

    /// Whether this is the user's password.
    fn is_right(users: &Users, user: &str, password: &[u8]) -> bool {
        let pick = Pick { kind: 0, scram_kind: 0 };
        users.verify(user, password, pick, &mut Scratch::default())
    }

    fn matches(hash: &str, password: &[u8]) -> bool {
        Stored::parse(hash).unwrap().matches(password, &mut Scratch::default())
    }

    /// A new hash of each kind has the form that others read and write, and is read back; two of one password differ, and
    /// none is made of an empty or too long one.
    #[test]
    fn hashes_of_each_kind() {
        let usual = Scheme::Argon2id(Cost::USUAL);
        for (scheme, beginning, lengths) in [
            (usual, "$argon2id$v=19$m=47104,t=1,p=1$", &[22, 43]),
            (CHEAP, "$argon2id$v=19$m=8,t=1,p=1$", &[22, 43]),
            (Scheme::Sha512Crypt, "$6$", &[16, 86]),
            (Scheme::Pbkdf2(101), "$7$101$", &[16, 88]),
            (Scheme::Sha512, "$6$", &[16, 88]),
        ] {
            let hash = |password: &[u8]| scheme.hash("ann", password);
            let (first, second) = (hash(b"secret").unwrap(), hash(b"secret").unwrap());
            assert_ne!(first, second);
            let rest = first.strip_prefix(beginning).unwrap_or_else(|| panic!("{first}"));
            assert_eq!(rest.split('$').map(str::len).collect::<Vec<_>>(), lengths, "{first}");
            assert!(matches(&first, b"secret") && !matches(&first, b"secre"));
            assert!(hash(b"").is_err() && hash(&[b'a'; 513]).is_err());
        }
        assert!(Scheme::Pbkdf2(101).hash("ann", b"secret\0").is_err());
    }

    /// Keys for SCRAM are read back, and two of one password differ; what SCRAM cannot use is refused with what to do.
    #[test]
    fn keys_for_scram() {
        let hash = |user: &str, password: &[u8]| Scheme::Scram(4_096).hash(user, password);
        let (first, second) = (hash("ann", b"secret").unwrap(), hash("ann", b"secret").unwrap());
        assert_ne!(first, second);
        assert!(first.starts_with("$scram-sha-256$4096$"));
        assert!(matches(&first, b"secret"));
        let composed = hash("ann", "u\u{308}".as_bytes()).unwrap();
        assert!(matches(&composed, "\u{FC}".as_bytes()));
        for (user, password) in [
            ("ann", &b""[..]),
            ("ann", &[b'a'; 513]),
            ("ann", b"\xFF"),
            ("ann", b"a\x07"),
            ("a\u{AD}nn", b"secret"),
            (&"x".repeat(scram::USER_BYTES_MAX + 1), b"secret"),
        ] {
            assert!(hash(user, password).is_err(), "{user:?} {password:?}");
        }
        assert_eq!(
            hash("\u{FF41}", b"secret"),
            Err("SCRAM writes this user name as `a`".to_owned())
        );
        let before = format!("ann:{first}\nbob:plain\n");
        let (after, done) = apply(before.as_bytes(), &Change::HashAll(Scheme::Scram(4_096))).unwrap();
        assert_eq!(done, "1 passwords hashed, 1 hashes kept");
        let users = Users::parse("p".as_ref(), &after).unwrap();
        assert!(is_right(&users, "ann", b"secret") && users.scram("bob").is_some());
    }

    /// Adding, changing and deleting touch the lines of that user alone, byte for byte.
    #[test]
    fn other_lines_stay() {
        let set = |before: &str, user: &str| {
            let change = Change::Set(user.to_owned(), "H".to_owned());
            apply(before.as_bytes(), &change).map(|(after, done)| (String::from_utf8(after).unwrap(), done))
        };
        assert_eq!(set("", "ann"), Ok(("ann:H\n".to_owned(), "ann: added".to_owned())));
        let before = "# team\r\n\nann:1\nbob:2\nann:3\nlast:4";
        assert_eq!(
            set(before, "ann"),
            Ok(("# team\r\n\nann:H\nbob:2\nlast:4".to_owned(), "ann: changed".to_owned()))
        );
        assert_eq!(
            set(before, "an"),
            Ok((format!("{before}\nan:H\n"), "an: added".to_owned()))
        );
        assert!(set("", "a:b").is_err() && set("", "").is_err() && set("", "#a").is_err() && set("", "a\nb").is_err());
        let delete = |user: &str| apply(before.as_bytes(), &Change::Delete(user.to_owned()));
        assert_eq!(delete("bob").unwrap().0, b"# team\r\n\nann:1\nann:3\nlast:4");
        assert_eq!(delete("eve"), Err("there is no user eve".to_owned()));
    }

    /// As the old tool: every plain password becomes a hash, hashes stay, a second run changes nothing.
    #[test]
    fn hashing_a_whole_file() {
        let mosquitto = format!("m:$6$c2FsdHNhbHRzYWx0${}==", "A".repeat(86));
        let before = format!("# team\nann:secret\n\nbob:p:a$$\n{mosquitto}\nend:$6x");
        let (after, done) = apply(before.as_bytes(), &Change::HashAll(CHEAP)).unwrap();
        assert_eq!(done, "3 passwords hashed, 1 hashes kept");
        let text = String::from_utf8(after.clone()).unwrap();
        assert!(text.starts_with("# team\nann:$argon2id$") && text.contains(&mosquitto));
        let users = Users::parse("p".as_ref(), &after).unwrap();
        assert!(
            is_right(&users, "ann", b"secret") && is_right(&users, "bob", b"p:a$$") && is_right(&users, "end", b"$6x")
        );
        assert_eq!(
            apply(&after, &Change::HashAll(CHEAP)).unwrap(),
            (after, "0 passwords hashed, 4 hashes kept".to_owned())
        );
        assert_eq!(
            apply(b"ann:a\nbob\n", &Change::HashAll(CHEAP)),
            Err("line 2: a line is user:password or user:hash".to_owned())
        );
        assert!(apply(b"ann:\n", &Change::HashAll(CHEAP)).is_err());
    }

    /// What begins like a hash and is none was cut short or comes from elsewhere: it is named by its line, never hashed as a
    /// password, and nothing of it is repeated. A `$` alone makes no hash.
    #[test]
    fn a_broken_hash_is_no_password() {
        let scram = Scheme::Scram(4_096).hash("ann", b"secret").unwrap();
        let crypt = Scheme::Sha512Crypt.hash("ann", b"secret").unwrap();
        for broken in [
            &scram[..scram.len() - 1],
            &scram.replace("$4096$", "$4095$"),
            "$scram-sha-256$",
            &crypt[..crypt.len() - 1],
            &format!("{crypt}$"),
            "$5$salt",
            "$6$",
            "$6$\u{FC}$x",
            "$1$abcdefgh$0123456789012345678901",
            "$2b$12$abcdefghijklmnopqrstuv",
            "$7$101$a$b",
            "$y$j9T$salt$hash",
            "$argon2id$x",
        ] {
            let before = format!("bob:plain\nann:{broken}\n");
            for scheme in [CHEAP, Scheme::Scram(4_096)] {
                assert_eq!(
                    apply(before.as_bytes(), &Change::HashAll(scheme)).map(|(_, done)| done),
                    Err(
                        "line 2: begins like a hash and is none; if it is a password, set it by `sol passwd FILE USER`"
                            .to_owned()
                    ),
                    "{broken}"
                );
            }
        }
        for password in ["$", "$$", "$$x", "$ecret", "$a b$c", "a$6$b"] {
            let (after, _) = apply(format!("ann:{password}\n").as_bytes(), &Change::HashAll(CHEAP)).unwrap();
            let users = Users::parse("p".as_ref(), &after).unwrap();
            assert!(is_right(&users, "ann", password.as_bytes()), "{password}");
        }
    }

    /// The file is replaced as a whole, through a link, and nothing stays beside it. A new one is for its owner alone; of
    /// an old one's mode its group keeps reading, and nothing else is kept.
    #[test]
    fn replaces_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("passwd"), dir.path().join("link"));
        let set = |user: &str| Change::Set(user.to_owned(), "H".to_owned());
        assert_eq!(change_file(&path, &set("ann"), false), Ok("ann: added".to_owned()));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o664)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        change_file(&link, &set("bob"), false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ann:H\nbob:H\n");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        change_file(&path, &set("new"), true).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new:H\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    /// What cannot be done changes nothing: an absent file, a failed change, a second run at the same time.
    #[test]
    fn failures_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd");
        assert!(
            change_file(&path, &Change::HashAll(CHEAP), false)
                .unwrap_err()
                .contains("cannot be read")
        );
        std::fs::write(&path, "ann:H\n").unwrap();
        assert!(change_file(&path, &Change::Delete("eve".to_owned()), false).is_err());
        std::fs::write(dir.path().join(".passwd.new"), "").unwrap();
        let refused = change_file(&path, &Change::Delete("ann".to_owned()), false).unwrap_err();
        assert!(refused.contains("another `sol passwd` is at work"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ann:H\n");
    }
}
