//! Who may read and write which topics, as data: what an ACL file says, compiled.
//!
//! A client's own rules come first: those of its User Name, or those for clients without one. What denies is looked at
//! before what allows; what neither speaks of is left to the patterns, which are for everybody and are looked at in the
//! same order. What nobody allows is denied.
//!
//! ```
//! use sol_engine::{Access, Rule, RuleSet, Rules};
//!
//! let mut set = RuleSet::default();
//! set.users.push((String::from("ann"), vec![Rule::new(Access::Read, "house/#")]));
//! set.patterns.push(Rule::new(Access::Write, "client/%c/state"));
//! let rules = Rules::new(set);
//! ```

use alloc::{borrow::Cow, boxed::Box, string::String, vec::Vec};

use super::trie::{Bits, Steps, Trie};

/// What one rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Messages may be received.
    Read,
    /// Messages may be published.
    Write,
    /// Both.
    ReadWrite,
    /// Neither, whatever other rules of the same kind allow.
    Deny,
    /// Messages may not be received, whatever other rules of the same kind allow.
    DenyRead,
    /// Messages may not be published, whatever other rules of the same kind allow.
    DenyWrite,
}

const READ: Bits = 1;
const WRITE: Bits = 2;
/// What a Topic Level of a filter takes, beside its text.
const LEVEL_BYTES: usize = 128;
/// What denies is so many bits above what it denies.
const DENY: u32 = 2;

impl Access {
    const fn bits(self) -> Bits {
        match self {
            Self::Read => READ,
            Self::Write => WRITE,
            Self::ReadWrite => READ | WRITE,
            Self::Deny => (READ | WRITE) << DENY,
            Self::DenyRead => READ << DENY,
            Self::DenyWrite => WRITE << DENY,
        }
    }
}

/// One line: what may be done, or not, with topics that match a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it says.
    pub access: Access,
    /// A valid Topic Filter. Of patterns, `%c` stands for the Client Identifier and `%u` for the User Name.
    pub filter: Box<str>,
}

impl Rule {
    /// A rule.
    #[must_use]
    pub fn new(access: Access, filter: &str) -> Self {
        Self {
            access,
            filter: filter.into(),
        }
    }
}

/// Rules as they are written, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// For clients without a User Name.
    pub anonymous: Vec<Rule>,
    /// For clients with this User Name; those of a name that is there twice add up.
    pub users: Vec<(String, Vec<Rule>)>,
    /// For all clients, behind their own.
    pub patterns: Vec<Rule>,
}

impl RuleSet {
    /// Roughly the memory that they take when they are compiled: a node for each level.
    fn bytes(&self) -> usize {
        let of_users = self.users.iter().flat_map(|(_, own)| own);
        let all = self.anonymous.iter().chain(of_users).chain(&self.patterns);
        let of_rule = |rule: &Rule| {
            let levels = rule.filter.split('/').count();
            levels.saturating_mul(LEVEL_BYTES).saturating_add(rule.filter.len())
        };
        all.map(of_rule).fold(size_of::<Rules>(), usize::saturating_add)
    }
}

/// Who a client is, as far as rules can speak of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) username: Option<&'a str>,
}

/// Whose own rules a client has; good for the [`Rules`] that gave it only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    /// Of the patterns, which nobody owns.
    pub(crate) const EVERYBODY: Self = Self(u32::MAX - 2);
    /// Of a User Name without rules of its own.
    pub(crate) const NOBODY: Self = Self(u32::MAX);
    /// Of clients without a User Name.
    pub(crate) const ANONYMOUS: Self = Self(u32::MAX - 1);
    /// Of a Session that has rules of its own.
    pub(crate) const ITSELF: Self = Self(u32::MAX - 3);

    pub(crate) const fn number(self) -> u32 {
        self.0
    }
}

/// What a client may do with one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ruling(Bits);

impl Ruling {
    pub(crate) const fn may_read(self) -> bool {
        self.0 & READ != 0
    }

    pub(crate) const fn may_write(self) -> bool {
        self.0 & WRITE != 0
    }
}

/// What rules that are looked at together say of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    allowed: Bits,
    denied: Bits,
}

impl Part {
    pub(crate) const NOTHING: Self = Self { allowed: 0, denied: 0 };

    /// Whether reading is settled by it.
    pub(crate) const fn settles_reading(self) -> bool {
        (self.allowed | self.denied) & READ != 0
    }

    pub(crate) const fn allows_reading(self) -> bool {
        self.allowed & READ != 0
    }

    /// Of a ruling, which leaves nothing open.
    const fn of(ruling: Ruling) -> Self {
        Self {
            allowed: ruling.0,
            denied: (READ | WRITE) & !ruling.0,
        }
    }

    /// The ruling: what it leaves open is up to the next part.
    pub(crate) fn or(self, next: impl FnOnce() -> Self) -> Ruling {
        if self.allowed | self.denied == READ | WRITE {
            Ruling(self.allowed)
        } else {
            Ruling(self.allowed | next().allowed & !self.denied)
        }
    }
}

/// Who may read and write which topics. Immutable: a change is another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    anonymous: Own,
    /// By name, in order.
    users: Vec<(Box<str>, Own)>,
    patterns: Own,
    names: Names,
    /// A User Name that nobody has confirmed is none.
    names_need_proof: bool,
    /// Roughly the memory that they take.
    bytes: usize,
}

/// Rules that are looked at together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Own {
    filters: Trie,
    /// Of every topic, whatever it begins with.
    everywhere: Bits,
    /// Filters that name no level are not for Subscriptions.
    refuses_catch_all: bool,
}

/// How patterns speak of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Names {
    has_patterns: bool,
    client_id: Use,
    username: Use,
}

/// How patterns use one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Use {
    anywhere: bool,
    in_front: bool,
}

impl Rules {
    /// Compiles rules.
    #[must_use]
    pub fn new(set: RuleSet) -> Self {
        let bytes = set.bytes();
        let mut sorted = set.users;
        sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut users: Vec<(Box<str>, Vec<Rule>)> = Vec::new();
        for (name, rules) in sorted {
            match users.last_mut() {
                Some((last, known)) if **last == *name => known.extend(rules),
                _ => users.push((name.into_boxed_str(), rules)),
            }
        }
        Self {
            anonymous: Own::new(set.anonymous, false),
            users: users
                .into_iter()
                .map(|(name, rules)| (name, Own::new(rules, false)))
                .collect(),
            names: Names::of(&set.patterns),
            patterns: Own::new(set.patterns, true),
            names_need_proof: false,
            bytes,
        }
    }

    /// What a client is bound by that may do everything.
    #[must_use]
    pub fn for_everything() -> Self {
        let mut rules = Self::new(RuleSet::default());
        rules.patterns.everywhere = READ | WRITE;
        rules
    }

    /// What a client is bound by that may read everything, and write nothing.
    pub(crate) fn for_reading() -> Self {
        let mut rules = Self::new(RuleSet::default());
        rules.patterns.everywhere = READ;
        rules
    }

    /// Roughly the memory that they take, in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What holds on a listener that is open to the network and has no rules of its own: a client whose User Name nobody
    /// has confirmed neither reads what the broker says of itself, nor subscribes to everything there is at once.
    #[must_use]
    pub fn for_open_listener() -> Self {
        let closed = ["$SYS/#", "$SOL/#", "$CONTROL/#"].map(|filter| Rule::new(Access::Deny, filter));
        let mut rules = Self::new(RuleSet {
            anonymous: Vec::from(closed),
            ..RuleSet::default()
        });
        rules.anonymous.refuses_catch_all = true;
        rules.patterns.everywhere = READ | WRITE;
        rules.names_need_proof()
    }

    /// The same rules for a listener where a client may bring a User Name that nobody confirms: such a name counts as none.
    #[must_use]
    pub const fn names_need_proof(mut self) -> Self {
        self.names_need_proof = true;
        self
    }

    /// Whose own rules a client has by its User Name, which somebody has confirmed or not.
    pub(crate) fn owner(&self, username: Option<&str>, vouched: bool) -> Owner {
        match username {
            Some(name) if vouched || !self.names_need_proof => self
                .users
                .binary_search_by(|(known, _)| (**known).cmp(name))
                .map_or(Owner::NOBODY, |at| Owner(u32::try_from(at).unwrap_or(u32::MAX))),
            _ => Owner::ANONYMOUS,
        }
    }

    /// Whether what a client may do depends on more than its owner.
    pub(crate) fn is_personal(&self, owner: Owner, who: &Who<'_>) -> bool {
        let by_name = self.names.username.anywhere && owner == Owner::NOBODY;
        self.names.client_id.anywhere || by_name || self.refuses_patterns(who)
    }

    /// What a client may do with a topic.
    pub(crate) fn ruling(&self, owner: Owner, who: &Who<'_>, topic: &str) -> Ruling {
        self.own_part(owner, topic).or(|| self.pattern_part(who, topic))
    }

    /// What all rules together say of a topic to a client.
    pub(crate) fn whole_part(&self, owner: Owner, who: &Who<'_>, topic: &str) -> Part {
        Part::of(self.ruling(owner, who, topic))
    }

    /// What a client's own rules say of a topic.
    pub(crate) fn own_part(&self, owner: Owner, topic: &str) -> Part {
        // These name nobody.
        let who = Who {
            client_id: "",
            username: None,
        };
        self.own(owner).map_or(Part::NOTHING, |own| own.of_topic(topic, &who))
    }

    /// What the patterns say of a topic to a client.
    pub(crate) fn pattern_part(&self, who: &Who<'_>, topic: &str) -> Part {
        if self.refuses_patterns(who) {
            Part::NOTHING
        } else {
            self.patterns.of_topic(topic, who)
        }
    }

    /// Whether a client may read every topic that a filter matches. `false` may be wrong.
    pub(crate) fn may_read_all(&self, owner: Owner, who: &Who<'_>, filter: &str, steps: &mut Steps) -> bool {
        let levels = levels(filter);
        if let Some(own) = self.own(owner) {
            if own.denies_some(&levels, who, steps) {
                return false;
            }
            if own.allows_all(&levels, who) {
                return true;
            }
        }
        !self.refuses_patterns(who)
            && self.patterns.allows_all(&levels, who)
            && !self.patterns.denies_some(&levels, who, steps)
    }

    /// Whether there may be a topic that a filter matches and a client may read; `true` may be wrong.
    pub(crate) fn may_read_some(&self, owner: Owner, who: &Who<'_>, filter: &str, steps: &mut Steps) -> bool {
        let levels = levels(filter);
        let own = self.own(owner);
        if own.is_some_and(|own| own.refuses_catch_all && names_no_level(&levels)) {
            return false;
        }
        let is_denied = |levels: &[Cow<'_, str>]| own.is_some_and(|own| own.denies_all(levels, who));
        if own.is_some_and(|own| own.allows_some(&levels, who, steps, is_denied)) {
            return true;
        }
        let is_denied = |levels: &[Cow<'_, str>]| is_denied(levels) || self.patterns.denies_all(levels, who);
        !self.refuses_patterns(who) && self.patterns.allows_some(&levels, who, steps, is_denied)
    }

    fn own(&self, owner: Owner) -> Option<&Own> {
        match owner {
            Owner::ANONYMOUS | Owner::ITSELF => Some(&self.anonymous),
            Owner(at) => self.users.get(at as usize).map(|(_, own)| own),
        }
    }

    /// Whether a client has a name that must not get into a pattern: with a wildcard or another level in it, or one that
    /// makes the topic one of the broker's, it would be more than a name.
    fn refuses_patterns(&self, who: &Who<'_>) -> bool {
        let is_no_name = |name: &str, by: Use| {
            name.bytes().any(|byte| match byte {
                b'+' | b'#' => true,
                b'/' => by.anywhere,
                _ => false,
            }) || by.in_front && name.starts_with('$')
        };
        self.names.has_patterns
            && (is_no_name(who.client_id, self.names.client_id)
                || who.username.is_some_and(|name| is_no_name(name, self.names.username)))
    }
}

impl Own {
    fn new(mut rules: Vec<Rule>, templates: bool) -> Self {
        // In the order of their levels each is the last child when it comes.
        rules.sort_by(|a, b| a.filter.split('/').cmp(b.filter.split('/')));
        let mut filters = Trie::default();
        for rule in rules {
            filters.add(&rule.filter, rule.access.bits(), templates);
        }
        Self {
            filters,
            ..Self::default()
        }
    }

    fn of_topic(&self, topic: &str, who: &Who<'_>) -> Part {
        let bits = self.filters.of_topic(topic, who) | self.everywhere;
        let denied = bits >> DENY;
        Part {
            allowed: bits & (READ | WRITE) & !denied,
            denied,
        }
    }

    /// Whether one rule allows to read all that a filter matches.
    fn allows_all(&self, levels: &[Cow<'_, str>], who: &Who<'_>) -> bool {
        (self.everywhere | self.filters.covering(levels, who)) & READ != 0
    }

    /// Whether one rule denies to read all that a filter matches.
    fn denies_all(&self, levels: &[Cow<'_, str>], who: &Who<'_>) -> bool {
        const DENY_READ: Bits = READ << DENY;
        self.filters.bits() & DENY_READ != 0 && self.filters.covering(levels, who) & DENY_READ != 0
    }

    /// Whether a rule denies to read something that a filter matches.
    fn denies_some(&self, levels: &[Cow<'_, str>], who: &Who<'_>, steps: &mut Steps) -> bool {
        self.filters.has_in_common(levels, READ << DENY, who, steps, |_| true)
    }

    /// Whether a rule allows to read something that a filter matches and that is not denied as a whole.
    fn allows_some(
        &self,
        levels: &[Cow<'_, str>],
        who: &Who<'_>,
        steps: &mut Steps,
        is_denied: impl Fn(&[Cow<'_, str>]) -> bool,
    ) -> bool {
        if self.everywhere & READ != 0 && !is_denied(levels) {
            return true;
        }
        self.filters
            .has_in_common(levels, READ, who, steps, |common| !is_denied(common))
    }
}

impl Names {
    fn of(patterns: &[Rule]) -> Self {
        let mut names = Self {
            has_patterns: !patterns.is_empty(),
            ..Self::default()
        };
        for rule in patterns {
            for (at, level) in rule.filter.split('/').enumerate() {
                let Some(template) = super::template::Template::of(level) else {
                    continue;
                };
                let in_front = at == 0 && template.begins_with_client();
                names.client_id.note(template.names_client_id(), in_front);
                names.username.note(template.names_user(), in_front);
            }
        }
        names
    }
}

impl Use {
    const fn note(&mut self, is_used: bool, in_front: bool) {
        self.anywhere |= is_used;
        self.in_front |= is_used && in_front;
    }
}

fn levels(filter: &str) -> Vec<Cow<'_, str>> {
    filter.split('/').map(Cow::Borrowed).collect()
}

/// Whether a filter matches topics of every depth, whatever their levels are: `#`, `+/#` and so on.
fn names_no_level(levels: &[Cow<'_, str>]) -> bool {
    levels.last().is_some_and(|level| level == "#") && levels.iter().all(|level| level == "#" || level == "+")
}
