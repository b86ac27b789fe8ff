//! Who published what is retained, for whoever asks later whether he still may.
//!
//! One entry serves all messages of a client, and of all clients of a user where rules do not tell them apart; a retained
//! message has its number. What came while nobody's rights were limited, or from the broker, has none and is not asked for.

use alloc::boxed::Box;

use ahash::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::rules::{Owner, Who};
use super::{Rights, who};
use crate::ids::ListenerId;
use crate::session::Session;

/// Bytes charged for an entry beyond its names.
const AUTHOR_BYTES: usize = 128;

/// Whose rights a retained message was published by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Author {
    /// User Name.
    pub username: Option<Box<str>>,
    /// An authenticator had confirmed that name.
    pub vouched: bool,
    /// Where the rules spoke of this client alone.
    pub client_id: Option<Box<str>>,
    /// The listener that it came in through.
    pub listener: ListenerId,
}

/// The number of an entry, 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AuthorId(u32);

impl AuthorId {
    pub(crate) const NONE: Self = Self(0);
}

/// The authors of one shard's retained messages.
#[derive(Debug)]
pub(crate) struct Authors {
    entries: Slab<Entry>,
    by_author: HashTable<u32>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Entry {
    author: Author,
    /// Retained messages.
    messages: u32,
}

impl Author {
    fn charge(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
        AUTHOR_BYTES + text(&self.username) + text(&self.client_id)
    }
}

impl Rights {
    /// Who a Session is to whoever asks later; `None`: nobody will.
    pub(crate) fn author(&self, session: &Session) -> Option<Box<Author>> {
        // What a login allowed by rules of its own stays allowed: nobody has these when it is over.
        if !self.are_limited() || !self.checks_authors || session.own_rules().is_some() {
            return None;
        }
        let standing = self.standing(session);
        let rules = self.rules(session, standing)?;
        let is_personal = rules.is_personal(standing.owner, &who(session, standing));
        Some(Box::new(Author {
            username: session.username().map(Into::into),
            vouched: session.user.as_deref().is_some_and(|user| user.vouched),
            client_id: is_personal.then(|| session.client_id.clone()),
            listener: standing.listener,
        }))
    }

    /// Whether an author may still write a topic.
    fn may_still_write(&self, author: &Author, topic: &str) -> bool {
        let Some(rules) = self
            .by_listener
            .get(usize::from(author.listener.0))
            .and_then(Option::as_deref)
        else {
            return true;
        };
        let owner = rules.owner(author.username.as_deref(), author.vouched);
        let who = Who {
            client_id: author.client_id.as_deref().unwrap_or_default(),
            username: author.username.as_deref().filter(|_| owner != Owner::ANONYMOUS),
        };
        // Rules that tell clients apart and came later cannot be asked about a client that nobody noted.
        let is_unknown = author.client_id.is_none() && rules.is_personal(owner, &who);
        is_unknown || rules.ruling(owner, &who, topic).may_write()
    }
}

impl Authors {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self {
            entries: Slab::new(),
            by_author: HashTable::new(),
            hasher,
        }
    }

    /// One more message of this author is retained. Returns its number, and the bytes to charge.
    pub(crate) fn keep(&mut self, author: Author) -> (AuthorId, usize) {
        let Self {
            entries,
            by_author,
            hasher,
        } = self;
        let hash = hasher.hash_one(&author);
        let is_it = |&at: &u32| entries.get(at as usize).is_some_and(|entry| entry.author == author);
        if let Some(&at) = by_author.find(hash, is_it)
            && let Some(entry) = entries.get_mut(at as usize)
        {
            entry.messages += 1;
            return (AuthorId(at + 1), 0);
        }
        let charge = author.charge();
        let at = entries.insert(Entry { author, messages: 1 }) as u32;
        by_author.insert_unique(hash, at, |&at| {
            entries
                .get(at as usize)
                .map_or(0, |entry| hasher.hash_one(&entry.author))
        });
        (AuthorId(at + 1), charge)
    }

    /// One message less is retained. Returns the bytes to refund.
    pub(crate) fn release(&mut self, id: AuthorId) -> usize {
        let Some(at) = id.0.checked_sub(1) else { return 0 };
        let Some(entry) = self.entries.get_mut(at as usize) else {
            return 0;
        };
        entry.messages -= 1;
        if entry.messages > 0 {
            return 0;
        }
        let entry = self.entries.remove(at as usize);
        let hash = self.hasher.hash_one(&entry.author);
        if let Ok(found) = self.by_author.find_entry(hash, |&other| other == at) {
            found.remove();
        }
        entry.author.charge()
    }

    /// Whether what is retained may go to new Subscriptions: its author has not lost the right to its topic.
    pub(crate) fn still_may(&self, rights: &Rights, id: AuthorId, topic: &str) -> bool {
        let entry = id.0.checked_sub(1).and_then(|at| self.entries.get(at as usize));
        entry.is_none_or(|entry| !rights.checks_authors || rights.may_still_write(&entry.author, topic))
    }
}
