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

/// A user and its own group, by number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ids {
    /// The user.
    pub user: u32,
    /// Its group.
    pub group: u32,
}

/// A user of the system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) ids: Ids,
    /// The other groups that it is a member of, by number.
    pub(crate) groups: Vec<u32>,
}

/// The user of a name or number; `None`: there is none of that name. A number that the file does not list is a user of that
/// number, in the group of that number, and in no other.
pub(crate) fn account(name: &str) -> Option<Account> {
    let listed = find_account(name, &read(Path::new("/etc/passwd")), &read(Path::new("/etc/group")));
    listed.or_else(|| unlisted_account(name))
}

fn unlisted_account(number: &str) -> Option<Account> {
    // The largest number stands for nobody at all in system calls.
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let id = number.parse().ok().filter(|id| is_number && *id != u32::MAX)?;
    Some(Account {
        name: number.to_owned(),
        ids: Ids { user: id, group: id },
        groups: Vec::new(),
    })
}

fn find_account(name: &str, users: &str, groups: &str) -> Option<Account> {
    let (name, ids) = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let known = fields.next()?;
        let user = fields.nth(1)?;
        let group = fields.next()?.parse().ok()?;
        let ids = Ids {
            user: user.parse().ok()?,
            group,
        };
        (known == name || user == name).then(|| (known.to_owned(), ids))
    })?;
    let member_of = groups.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let group = fields.next()?.parse().ok()?;
        let mut members = fields.next()?.split(',');
        (group != ids.group && members.any(|member| member == name)).then_some(group)
    });
    let groups = member_of.collect();
    Some(Account { name, ids, groups })
}

fn read(file: &Path) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    // Who cannot be looked up is not there.
    let _ = std::fs::File::open(file).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

fn id(name: &str, file: &Path) -> Option<u32> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    read(file).lines().find_map(|line| {
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

    /// A user is found by name and by number, with the groups that list it, its own not among them.
    #[test]
    fn accounts() {
        let users = "root:x:0:0::/:/bin/sh\nbroken\nsol:x:990:980:MQTT:/:/bin/false\n";
        let groups = "root:x:0:\nsol:x:980:sol\nssl-cert:x:110:web,sol\ntls:x:111:sola\n";
        let sol = Account {
            name: "sol".to_owned(),
            ids: Ids { user: 990, group: 980 },
            groups: vec![110],
        };
        assert_eq!(find_account("sol", users, groups).as_ref(), Some(&sol));
        assert_eq!(find_account("990", users, groups), Some(sol));
        assert_eq!(find_account("980", users, groups), None);
        assert_eq!(find_account("", users, groups), None);
    }

    /// A number that no file lists is a user all the same, in the group of its number alone: containers have such.
    #[test]
    fn a_number_that_is_not_listed() {
        let found = account("2147480001").unwrap();
        assert_eq!((found.ids.user, found.ids.group), (2_147_480_001, 2_147_480_001));
        assert_eq!((&*found.name, found.groups), ("2147480001", vec![]));
        for none in ["no-such-user", "-1", "+5", "4294967295", "4294967296", ""] {
            assert_eq!(account(none), None, "{none}");
        }
    }
}
