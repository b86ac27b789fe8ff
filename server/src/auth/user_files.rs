//! The users of each listener, and what is remembered of their logins.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sol_engine::{ChangedUser, UserChange};
use subtle::ConstantTimeEq;

use super::chain::{Chains, Step};
use crate::password_file::Users;

/// A keyed hash of an entry and the password that is right for it.
pub(super) type Tag = [u8; 32];

/// The users of one password file, and the passwords of theirs that were right before.
#[derive(Debug, Default)]
pub(super) struct UserFile {
    pub(super) users: Users,
    remembered: Mutex<HashMap<Box<str>, Tag>>,
}

impl UserFile {
    fn new(users: Users) -> Self {
        Self {
            users,
            remembered: Mutex::default(),
        }
    }

    /// Whether this tag is remembered of a user.
    pub(super) fn knows(&self, user: &str, tag: &Tag) -> bool {
        self.remembered().get(user).is_some_and(|known| known.ct_eq(tag).into())
    }

    /// Remembers one tag a user, and only for users of the file: the map is bounded by it.
    pub(super) fn remember(&self, user: &str, tag: Tag) {
        self.remembered().insert(user.into(), tag);
    }

    /// What is remembered of entries that are the same in both files stays so: a file that is read again makes nobody hash
    /// his password again.
    fn take_over(&self, before: &Self) {
        let known = before.remembered();
        let same = known.iter().filter(|(user, _)| {
            before
                .users
                .get(user)
                .is_some_and(|entry| self.users.get(user) == Some(entry))
        });
        let same: Vec<_> = same.map(|(user, tag)| (user.clone(), *tag)).collect();
        drop(known);
        self.remembered().extend(same);
    }

    pub(super) fn remembered(&self) -> MutexGuard<'_, HashMap<Box<str>, Tag>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which users each listener asks: a file each, or one for several.
#[derive(Debug, Default)]
pub struct UserFiles {
    /// By the place of the listener in the configuration.
    of_listener: Vec<Option<Arc<UserFile>>>,
    /// Whoever is asked at a listener without a file.
    nobody: UserFile,
    chains: Chains,
}

/// One file for the only listener.
impl From<Users> for UserFiles {
    fn from(users: Users) -> Self {
        Self::new(vec![users], &[Some(0)])
    }
}

impl UserFiles {
    /// `of_listener` says, by the place of the listener in the configuration, which of `files` it asks.
    pub fn new(files: Vec<Users>, of_listener: &[Option<usize>]) -> Self {
        let files: Vec<_> = files.into_iter().map(|users| Arc::new(UserFile::new(users))).collect();
        let file = |index: &Option<usize>| index.and_then(|index| files.get(index)).map(Arc::clone);
        Self {
            of_listener: of_listener.iter().map(file).collect(),
            nobody: UserFile::default(),
            chains: Chains::default(),
        }
    }

    /// The same users, asked in these chains.
    #[must_use]
    pub fn with_chains(self, chains: Chains) -> Self {
        Self { chains, ..self }
    }

    /// Whom a listener asks, one after the other.
    pub(super) fn chain_at(&self, listener: usize) -> &[Step] {
        self.chains.at(listener)
    }

    /// Whether a listener asks its password file.
    pub(super) fn asks_passwords_at(&self, listener: usize) -> bool {
        self.chain_at(listener)
            .iter()
            .any(|step| matches!(step, Step::Passwords))
    }

    /// Whether a listener asks for tokens.
    pub(super) fn asks_tokens_at(&self, listener: usize) -> bool {
        self.chain_at(listener)
            .iter()
            .any(|step| matches!(step, Step::Tokens(..)))
    }

    /// Whether a token is all that a login by one is asked about first: no hook is.
    pub(super) fn asks_tokens_first_at(&self, listener: usize) -> bool {
        let mut asked = self.chain_at(listener).iter();
        let first = asked.find(|step| !matches!(step, Step::Passwords));
        matches!(first, Some(Step::Tokens(..)))
    }

    /// The users that may log in at a listener: nobody where it does not ask its password file, though it may have had one.
    pub(super) fn asked_at(&self, listener: usize) -> &UserFile {
        if self.asks_passwords_at(listener) {
            self.at(listener)
        } else {
            &self.nobody
        }
    }

    /// The listeners where a token or a hook let somebody in before who may not come in by it now.
    pub(super) fn lost_grants(&self, before: &Self) -> Vec<usize> {
        let listeners = 0..before.chains.len();
        let is_good = |listener: usize, step: &Step| step.is_good_by_one_of(self.chain_at(listener));
        let lost = |listener: &usize| !before.chain_at(*listener).iter().all(|step| is_good(*listener, step));
        listeners.filter(lost).collect()
    }

    /// How many users a listener has to ask.
    pub fn count_at(&self, listener: usize) -> usize {
        self.at(listener).users.len()
    }

    /// The listeners with a file that has no users.
    pub(crate) fn without_users(&self) -> impl Iterator<Item = usize> {
        let files = self.of_listener.iter().enumerate();
        files.filter_map(|(listener, file)| {
            file.as_ref()
                .is_some_and(|file| file.users.is_empty())
                .then_some(listener)
        })
    }

    /// The users that a listener asks.
    pub(super) fn at(&self, listener: usize) -> &UserFile {
        let file = self.of_listener.get(listener).and_then(Option::as_deref);
        file.unwrap_or(&self.nobody)
    }

    /// Takes the place of `before`: a listener that has no file any more keeps the one it had, though nobody asks it now, and
    /// what was remembered of entries that stay is remembered still. Says who is another than before, at any listener.
    pub(super) fn succeed(&mut self, before: &Self) -> Vec<ChangedUser> {
        for (listener, file) in before.of_listener.iter().enumerate() {
            match self.of_listener.get_mut(listener) {
                Some(none @ None) => none.clone_from(file),
                Some(Some(_)) => {}
                None => self.of_listener.push(file.clone()),
            }
        }
        for file in self.distinct() {
            for old in before.distinct().filter(|old| !std::ptr::eq(*old, file)) {
                file.take_over(old);
            }
        }
        self.changes_from(before)
    }

    /// A user of one name may be another at each listener, and his connections do not say at which they came in: whoever is
    /// another at one of them is treated as another at all. Gone is who is in no file any more.
    fn changes_from(&self, before: &Self) -> Vec<ChangedUser> {
        let mut changes = BTreeMap::<Box<str>, bool>::new();
        let mut compared = Vec::new();
        for listener in 0..self.of_listener.len() {
            let (old, new) = (before.at(listener), self.at(listener));
            let pair = (std::ptr::from_ref(old), std::ptr::from_ref(new));
            if pair.0 == pair.1 || compared.contains(&pair) {
                continue;
            }
            compared.push(pair);
            for ChangedUser { username, change } in old.users.changes_to(&new.users) {
                *changes.entry(username).or_default() |= change != UserChange::Added;
            }
        }
        let changes = changes.into_iter().filter_map(|(username, lost)| {
            let change = match (before.has(&username), self.has(&username), lost) {
                (_, false, _) => UserChange::Gone,
                (false, true, _) => UserChange::Added,
                (true, true, true) => UserChange::Changed,
                (true, true, false) => return None,
            };
            Some(ChangedUser { username, change })
        });
        changes.collect()
    }

    fn has(&self, user: &str) -> bool {
        self.distinct().any(|file| file.users.get(user).is_some())
    }

    /// Every file once.
    fn distinct(&self) -> impl Iterator<Item = &UserFile> {
        let files = self.of_listener.iter().enumerate();
        files.filter_map(|(index, file)| {
            let file = file.as_ref()?;
            let before = self.of_listener[..index].iter().flatten();
            let is_first = !before.into_iter().any(|other| Arc::ptr_eq(other, file));
            is_first.then_some(&**file)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passwd::Scheme;

    fn users(entries: &[(&str, &str)]) -> Users {
        let lines = entries.iter().map(|(user, hash)| format!("{user}:{hash}\n"));
        Users::parse("p".as_ref(), lines.collect::<String>().as_bytes()).unwrap()
    }

    fn hash(password: &str) -> String {
        Scheme::Sha512.hash("u", password.as_bytes()).unwrap()
    }

    /// Each listener asks its own file; one without a file, or that is not known, asks nobody.
    #[test]
    fn each_listener_has_its_users() {
        let (a, b) = (hash("a"), hash("b"));
        let files = vec![users(&[("ann", &a), ("bob", &b)]), users(&[("ann", &b)])];
        let files = UserFiles::new(files, &[Some(0), Some(1), None, Some(0)]);
        let entry = |listener: usize, user: &str| {
            let stored = files.at(listener).users.get(user);
            stored.map(|stored| stored.as_str().to_owned())
        };
        assert_eq!(entry(0, "ann"), Some(a.clone()));
        assert_eq!(entry(1, "ann"), Some(b));
        assert_eq!(entry(3, "ann"), Some(a));
        assert_eq!((entry(1, "bob"), entry(2, "ann"), entry(9, "ann")), (None, None, None));
        assert_eq!((files.count_at(0), files.count_at(1), files.count_at(2)), (2, 1, 0));
        assert_eq!(UserFiles::default().count_at(0), 0);
    }

    /// Who is another at one listener is another; who is new at a second one is not; who is in no file any more is gone. A
    /// listener that loses its file changes nobody. What was remembered stays for entries that stay.
    #[test]
    fn successors() {
        let (a, b, c) = (hash("a"), hash("b"), hash("c"));
        let before = vec![users(&[("ann", &a), ("bob", &b), ("eve", &a)]), users(&[("ann", &a)])];
        let before = UserFiles::new(before, &[Some(0), Some(1), Some(0)]);
        before.at(0).remember("ann", [1; 32]);
        before.at(0).remember("bob", [2; 32]);
        let after = vec![
            users(&[("ann", &a), ("bob", &c)]),
            users(&[("ann", &c), ("bob", &b), ("new", &a)]),
        ];
        let mut after = UserFiles::new(after, &[Some(0), Some(1), None]);
        let changed = |name: &str, change| ChangedUser {
            username: name.into(),
            change,
        };
        assert_eq!(
            after.succeed(&before),
            [
                changed("ann", UserChange::Changed),
                changed("bob", UserChange::Changed),
                changed("eve", UserChange::Changed),
                changed("new", UserChange::Added)
            ],
            "eve is still in the file of the listener that has no other now"
        );
        assert!(after.at(2).users.get("eve").is_some());
        assert!(after.at(0).knows("ann", &[1; 32]) && !after.at(0).knows("bob", &[2; 32]));
        let mut last = UserFiles::new(vec![users(&[("ann", &a)])], &[Some(0), Some(0), Some(0)]);
        assert_eq!(
            last.succeed(&after),
            [
                changed("ann", UserChange::Changed),
                changed("bob", UserChange::Gone),
                changed("eve", UserChange::Gone),
                changed("new", UserChange::Gone)
            ]
        );
        assert!(last.at(1).knows("ann", &[1; 32]));
    }
}
