//! All Sessions of a shard, by slot and by Client Identifier.

use ahash::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::Session;
use crate::ids::SessionKey;

/// A Session that may be gone when somebody comes back to it: slot and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SessionRef {
    pub(crate) key: SessionKey,
    pub(crate) generation: u32,
}

/// The Sessions.
#[derive(Debug)]
pub(crate) struct Sessions {
    slab: Slab<Session>,
    by_client_id: HashTable<u32>,
    hasher: RandomState,
    generations: u32,
}

impl Sessions {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self {
            slab: Slab::new(),
            by_client_id: HashTable::new(),
            hasher,
            generations: 0,
        }
    }

    pub(crate) fn find(&self, client_id: &str) -> Option<SessionKey> {
        let hash = self.hasher.hash_one(client_id);
        self.by_client_id
            .find(hash, |&key| {
                self.slab.get(key as usize).is_some_and(|s| *s.client_id == *client_id)
            })
            .map(|&key| SessionKey(key))
    }

    /// Adds a Session under a Client Identifier that has none.
    pub(crate) fn insert(&mut self, mut session: Session) -> SessionKey {
        self.generations = self.generations.wrapping_add(1);
        session.generation = self.generations;
        let hash = self.hasher.hash_one(&*session.client_id);
        // A shard has far fewer than 2^32 Sessions: each takes more than a hundred bytes.
        let key = self.slab.insert(session) as u32;
        let Self {
            slab,
            by_client_id,
            hasher,
            ..
        } = self;
        by_client_id.insert_unique(hash, key, |&key| {
            slab.get(key as usize)
                .map_or(0, |session| hasher.hash_one(&*session.client_id))
        });
        SessionKey(key)
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Session> {
        let session = self.slab.try_remove(key.0 as usize)?;
        let hash = self.hasher.hash_one(&*session.client_id);
        if let Ok(entry) = self.by_client_id.find_entry(hash, |&other| other == key.0) {
            entry.remove();
        }
        Some(session)
    }

    #[inline]
    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.slab.get(key.0 as usize)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.slab.get_mut(key.0 as usize)
    }

    /// The key of a Session if it is still that Session.
    pub(crate) fn resolve(&self, session: SessionRef) -> Option<SessionKey> {
        (self.get(session.key)?.generation == session.generation).then_some(session.key)
    }

    pub(crate) fn reference(&self, key: SessionKey) -> SessionRef {
        SessionRef {
            key,
            generation: self.get(key).map_or(0, |session| session.generation),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionKey, &Session)> {
        self.slab.iter().map(|(key, session)| (SessionKey(key as u32), session))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Session> {
        self.slab.iter_mut().map(|(_, session)| session)
    }

    /// Every Session's key is below this.
    pub(crate) fn slots(&self) -> u32 {
        self.slab.capacity() as u32
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }
}
