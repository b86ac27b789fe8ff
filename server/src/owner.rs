//! Users and groups of the system by their names, from the files that list them.
//!
//! A directory service behind the C library is not asked: who is known there alone is named by number.

use std::path::Path;

/// The most bytes of such a file.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// User and group, by number, of `USER`, `USER:GROUP` or `:GROUP`, each a name or a number.
///
/// # Errors
/// A sentence about a name that there is not.
pub(crate) fn resolve(text: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let of = |name: &str, file: &str, what: &str| match name {
        "" => Ok(None),
        name => id(name, Path::new(file))
            .map(Some)
            .ok_or_else(|| format!("there is no {what} `{name}` in {file}")),
    };
    Ok((of(user, "/etc/passwd", "user")?, of(group, "/etc/group", "group")?))
}

fn id(name: &str, file: &Path) -> Option<u32> {
    use std::io::Read;
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    let mut text = Vec::new();
    let file = std::fs::File::open(file).ok()?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| {
        let mut fields = line.split(':');
        let known = fields.next()?;
        // Behind the password, in both files.
        (known == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are looked up, numbers are taken, and who is not there is named.
    #[test]
    fn names_and_numbers() {
        assert_eq!(resolve("root:root"), Ok((Some(0), Some(0))));
        assert_eq!(resolve("1234"), Ok((Some(1234), None)));
        assert_eq!(resolve(":7"), Ok((None, Some(7))));
        assert_eq!(
            resolve("no-such-user").unwrap_err(),
            "there is no user `no-such-user` in /etc/passwd"
        );
        assert_eq!(
            resolve(":no-such-group").unwrap_err(),
            "there is no group `no-such-group` in /etc/group"
        );
    }
}
