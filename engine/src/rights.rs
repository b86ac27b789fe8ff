//! The one gate for rights.
//!
//! It stands wherever a message passes between a Session and a topic: at [`Action`]'s seven places, and at no other. What was
//! sent once is sent again without it, until it is acknowledged [MQTT-4.4.0-1]. It
//! knows two things: that the broker's own topics are not for clients to write, and the [`Rules`] of the listener that a
//! Session's latest connection came in through.
//!
//! What is asked again and again is remembered with whom it was asked for, under the number of the rules that were in
//! force: by the publisher's latest topic ([`crate::last_route`]), by a Subscription of whose filter every topic may be
//! read, and for all others by the latest topic here. Other rules have another number, so that nothing has to be looked
//! for and forgotten when they come.

pub(crate) mod authors;
pub(crate) mod marks;
mod refusals;
pub(crate) mod rules;
mod template;
mod trie;

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use crate::config::EngineConfig;
use crate::ids::ListenerId;
use crate::session::Session;
use rules::{Owner, Part, Rules, Who};
use trie::Steps;

/// Nodes of rules that one SUBSCRIBE may look at. What is left then is granted, and judged message by message.
const SUBSCRIBE_STEPS: u32 = 65_536;
/// What is remembered of the latest topic at most.
const REMEMBERED: usize = 256;
/// Bytes of a topic that is remembered.
const TOPIC_BYTES_MAX: usize = 256;

/// What a Session is about to do with a topic, or have done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// PUBLISH to a Topic Name.
    Publish,
    /// SUBSCRIBE to a Topic Filter.
    Subscribe,
    /// Receive a live message.
    Deliver,
    /// Receive a retained message.
    Retained,
    /// Receive a message that waited in the queue.
    Replay,
    /// Have the Will published.
    Will,
    /// Receive a message as a member of a Shared Subscription.
    Share,
}

/// Whether `session` has the right to `action` on `topic` (a Topic Filter for [`Action::Subscribe`], which is denied only
/// where none of the topics that it matches can be read).
#[inline(always)]
pub(crate) fn may(rights: &mut Rights, session: &Session, action: Action, topic: &str) -> bool {
    if matches!(action, Action::Publish | Action::Will) && is_reserved(topic) {
        return false;
    }
    !rights.are_limited() || rights.allow(session, action, topic)
}

/// Topics that only the broker publishes to, and such that nobody could subscribe to.
fn is_reserved(topic: &str) -> bool {
    topic.starts_with('$')
        && ["$SYS", "$SOL", "$CONTROL", "$share"].contains(&topic.split('/').next().unwrap_or_default())
}

/// A number of rules in force: 0 while nobody's rights are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RulesNumber(u16);

impl RulesNumber {
    /// The last number. Nothing is remembered under it, since nothing could be told from what was.
    const LAST: Self = Self(u16::MAX >> 1);

    pub(crate) const fn get(self) -> u16 {
        self.0
    }
}

/// What a Session keeps of its rights: whose rules they are, of which listener, and when that was found out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    owner: Owner,
    listener: ListenerId,
    /// The number of the rules, and in the lowest bit whether they speak of this Session alone.
    found: u16,
}

// Every idle Session has one.
const _: () = assert!(size_of::<Standing>() == 8);

impl Standing {
    /// Of a Session whose latest connection came in here; to be found out when it is asked for.
    pub(crate) const fn at(listener: ListenerId) -> Self {
        Self {
            owner: Owner::NOBODY,
            listener,
            found: 0,
        }
    }

    pub(crate) const fn listener(self) -> ListenerId {
        self.listener
    }

    const fn is_personal(self) -> bool {
        self.found & 1 != 0
    }
}

/// The rules of all listeners, and what was found by them.
#[derive(Debug)]
pub(crate) struct Rights {
    by_listener: Vec<Option<Arc<Rules>>>,
    number: RulesNumber,
    /// The number given last.
    last: RulesNumber,
    steps: Steps,
    /// Sessions that have rules of their own.
    own: usize,
    /// The number under which rights were limited last while the listeners' rules were these; 0: they were not yet.
    resumed: RulesNumber,
    /// What is retained is asked for its author's right when it is replayed.
    checks_authors: bool,
    remembered: Option<Box<Remembered>>,
}

/// What rules say of one topic.
#[derive(Debug)]
struct Remembered {
    topic: String,
    /// Changes with the topic.
    epoch: u32,
    entries: [Entry; REMEMBERED],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    epoch: u32,
    key: Key,
    part: Part,
}

/// Whose rules, of which listener, and which: an owner's own, what patterns are to that owner, or, of everybody's, what they
/// are to one Session, by its origin.
type Key = (Owner, ListenerId, u64);

const BY_OWN: u64 = 0;
const BY_PATTERNS: u64 = 1;

impl Rights {
    pub(crate) fn new(config: &EngineConfig) -> Self {
        let mut rights = Self {
            by_listener: Vec::new(),
            number: RulesNumber::default(),
            last: RulesNumber::default(),
            steps: Steps(0),
            own: 0,
            resumed: RulesNumber::default(),
            checks_authors: false,
            remembered: None,
        };
        rights.set(config);
        rights
    }

    /// Other rules are in force, or the same. Returns whether they are others.
    pub(crate) fn set(&mut self, config: &EngineConfig) -> bool {
        self.checks_authors = config.check_retain_source;
        if self.by_listener == config.rights {
            return false;
        }
        self.by_listener.clone_from(&config.rights);
        self.remembered = None;
        self.number = RulesNumber::default();
        self.resumed = RulesNumber::default();
        self.limit();
        true
    }

    /// A Session that had rules of its own, or had none, has some now, or none. Returns whether that limits anybody's rights
    /// where nobody's were, or the other way round.
    pub(crate) fn change_own_rules(&mut self, had: bool, has: bool) -> bool {
        self.own += usize::from(has);
        self.own -= usize::from(had);
        had != has && self.limit()
    }

    /// Sessions that have rules of their own.
    pub(crate) const fn with_own_rules(&self) -> usize {
        self.own
    }

    /// Looks whether anybody's rights are limited. Returns whether that is news.
    fn limit(&mut self) -> bool {
        let are_limited = self.own > 0 || self.by_listener.iter().any(Option::is_some);
        if are_limited == self.are_limited() {
            return false;
        }
        if !are_limited {
            self.number = RulesNumber::default();
            return true;
        }
        // What was found under the last number is true still: it was by the same rules, and whoever's own rules became others
        // was looked at anew. Numbers are few, and a client that comes and goes must not use them up.
        if self.resumed == RulesNumber::default() {
            self.last = RulesNumber(self.last.0.saturating_add(1).min(RulesNumber::LAST.0));
            self.resumed = self.last;
        }
        self.number = self.resumed;
        true
    }

    /// Whether there are rules at all.
    #[inline]
    pub(crate) const fn are_limited(&self) -> bool {
        self.number.0 != 0
    }

    /// The number of the rules in force.
    #[inline]
    pub(crate) const fn number(&self) -> RulesNumber {
        self.number
    }

    /// The number to remember something under, which [`holds`](Self::holds) as long as these rules do.
    pub(crate) fn mark(&self) -> RulesNumber {
        if self.number == RulesNumber::LAST {
            RulesNumber::default()
        } else {
            self.number
        }
    }

    /// Whether what was remembered under this number is true.
    #[inline]
    pub(crate) const fn holds(&self, mark: u16) -> bool {
        mark == self.number.0
    }

    /// A SUBSCRIBE begins, or another piece of work of the like.
    pub(crate) const fn begin(&mut self) {
        self.steps = Steps(SUBSCRIBE_STEPS);
    }

    /// Forgets who somebody was.
    pub(crate) fn forget_clients(&mut self) {
        if let Some(remembered) = &mut self.remembered {
            remembered.topic.clear();
        }
    }

    #[cold]
    #[inline(never)]
    fn allow(&mut self, session: &Session, action: Action, topic: &str) -> bool {
        let standing = self.standing(session);
        if matches!(action, Action::Deliver | Action::Replay | Action::Share) {
            return match self.remembered_reading(standing, topic) {
                Some(may_read) => may_read,
                None => self.find_reading(session, standing, topic),
            };
        }
        let Some(rules) = self.rules(session, standing) else {
            return true;
        };
        let who = who(session, standing);
        if action == Action::Subscribe {
            let mut steps = self.steps;
            let allowed = rules.may_read_some(standing.owner, &who, topic, &mut steps);
            self.steps = steps;
            return allowed;
        }
        let ruling = rules.ruling(standing.owner, &who, topic);
        if action == Action::Retained {
            ruling.may_read()
        } else {
            ruling.may_write()
        }
    }

    /// Whether a Session may read every topic that a filter matches; `false` may be wrong.
    pub(crate) fn may_read_all(&mut self, session: &Session, filter: &str) -> bool {
        let standing = self.standing(session);
        let Some(rules) = self.rules(session, standing) else {
            return true;
        };
        let mut steps = self.steps;
        let all = rules.may_read_all(standing.owner, &who(session, standing), filter, &mut steps);
        self.steps = steps;
        all
    }

    /// A Session's rules: its own, else its listener's.
    fn rules<'a>(&'a self, session: &'a Session, standing: Standing) -> Option<&'a Rules> {
        let of_listener = || self.by_listener.get(usize::from(standing.listener.0))?.as_deref();
        session.own_rules().or_else(of_listener)
    }

    /// A Session's standing by the rules in force.
    #[inline]
    fn standing(&self, session: &Session) -> Standing {
        let known = session.standing.get();
        if known.found >> 1 == self.number.0 && self.number != RulesNumber::LAST {
            known
        } else {
            self.find_standing(session, known)
        }
    }

    fn find_standing(&self, session: &Session, known: Standing) -> Standing {
        let mut standing = Standing::at(known.listener);
        if session.own_rules().is_some() {
            standing.owner = Owner::ITSELF;
            standing.found = self.number.0 << 1 | 1;
            session.standing.set(standing);
        } else if let Some(rules) = self.rules(session, standing) {
            let vouched = session.user.as_deref().is_some_and(|user| user.vouched);
            standing.owner = rules.owner(session.username(), vouched);
            let is_personal = rules.is_personal(standing.owner, &who(session, standing));
            standing.found = self.number.0 << 1 | u16::from(is_personal);
            session.standing.set(standing);
        } else {
            // That it has none is worth remembering, too.
            standing.found = self.number.0 << 1;
            session.standing.set(standing);
        }
        standing
    }

    /// Whether a topic may be read, if that was found for somebody else whose own rules say it.
    #[inline]
    fn remembered_reading(&self, standing: Standing, topic: &str) -> Option<bool> {
        let remembered = self.remembered.as_deref()?;
        let key = (standing.owner, standing.listener, BY_OWN);
        let entry = remembered.entries.get(place(key))?;
        let is_it = entry.epoch == remembered.epoch && entry.key == key && entry.part.settles_reading();
        (is_it && remembered.topic == topic).then(|| entry.part.allows_reading())
    }

    /// Whether a topic may be read; what was found is remembered.
    fn find_reading(&mut self, session: &Session, standing: Standing, topic: &str) -> bool {
        let Self {
            by_listener,
            remembered,
            ..
        } = self;
        let its_key = (Owner::EVERYBODY, standing.listener, session.origin.0);
        if let Some(rules) = session.own_rules() {
            let remembered = remembered.get_or_insert_with(Remembered::new);
            remembered.turn_to(topic);
            let whole = || rules.whole_part(standing.owner, &who(session, standing), topic);
            return remembered.part(its_key, whole).allows_reading();
        }
        let Some(rules) = by_listener
            .get(usize::from(standing.listener.0))
            .and_then(Option::as_deref)
        else {
            return true;
        };
        let remembered = remembered.get_or_insert_with(Remembered::new);
        remembered.turn_to(topic);
        let own = remembered.part((standing.owner, standing.listener, BY_OWN), || {
            rules.own_part(standing.owner, topic)
        });
        if own.settles_reading() {
            return own.allows_reading();
        }
        // Who shares an owner shares its name; all else that patterns may ask for is this Session's alone.
        let key = if standing.is_personal() {
            its_key
        } else {
            (standing.owner, standing.listener, BY_PATTERNS)
        };
        let patterns = remembered.part(key, || rules.pattern_part(&who(session, standing), topic));
        patterns.allows_reading()
    }
}

/// Where a key is remembered.
fn place((owner, listener, origin): Key) -> usize {
    (owner.number() as usize ^ usize::from(listener.0) ^ origin as usize) % REMEMBERED
}

/// Who a client is to its rules: a name that counts as none is none.
fn who(session: &Session, standing: Standing) -> Who<'_> {
    Who {
        client_id: &session.client_id,
        username: session.username().filter(|_| standing.owner != Owner::ANONYMOUS),
    }
}

impl Remembered {
    #[cold]
    fn new() -> Box<Self> {
        let never = Entry {
            epoch: 0,
            key: (Owner::EVERYBODY, ListenerId(0), 0),
            part: Part::NOTHING,
        };
        Box::new(Self {
            topic: String::new(),
            epoch: 0,
            entries: [never; REMEMBERED],
        })
    }

    /// What follows is of this topic.
    fn turn_to(&mut self, topic: &str) {
        if self.topic == topic && !self.topic.is_empty() {
            return;
        }
        self.topic.clear();
        if topic.len() <= TOPIC_BYTES_MAX {
            self.topic.push_str(topic);
        }
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            *self = Self {
                topic: core::mem::take(&mut self.topic),
                epoch: 1,
                ..*Self::new()
            };
        }
    }

    /// What was found for a key, or is now.
    fn part(&mut self, key: Key, find: impl FnOnce() -> Part) -> Part {
        let Some(entry) = self.entries.get_mut(place(key)) else {
            return find();
        };
        if (entry.epoch, entry.key) != (self.epoch, key) {
            *entry = Entry {
                epoch: self.epoch,
                key,
                part: find(),
            };
        }
        entry.part
    }
}
