use std::string::ToString;
use std::vec;

use alloc::{string::String, sync::Arc, vec::Vec};

use proptest::prelude::*;
use sol_codec::{TopicFilter, TopicName};

use super::Rights;
use super::naive;
use super::rules::{Access, Rule, RuleSet, Rules, Who};
use super::trie::Steps;
use crate::config::EngineConfig;

const MANY: u32 = 1 << 20;
/// Topic Levels that rules and filters have; topics have one more that none of them has.
const LEVELS: [&str; 5] = ["a", "b", "", "$a", "id"];

fn accesses() -> impl Strategy<Value = Access> {
    prop_oneof![
        4 => Just(Access::Read),
        2 => Just(Access::Write),
        3 => Just(Access::ReadWrite),
        2 => Just(Access::Deny),
        2 => Just(Access::DenyRead),
        1 => Just(Access::DenyWrite),
    ]
}

fn filters(extra: &'static [&'static str]) -> impl Strategy<Value = String> {
    let level = prop_oneof![
        4 => prop::sample::select(&LEVELS[..]),
        2 => Just("+"),
        1 => prop::sample::select(extra),
    ];
    (prop::collection::vec(level, 1..4), any::<bool>()).prop_filter_map(
        "an empty filter is none",
        |(mut levels, hash)| {
            if hash {
                levels.pop();
                levels.push("#");
            }
            Some(levels.join("/")).filter(|filter| !filter.is_empty())
        },
    )
}

fn rules(extra: &'static [&'static str], count: usize) -> impl Strategy<Value = Vec<Rule>> {
    let rule = (accesses(), filters(extra)).prop_map(|(access, filter)| Rule::new(access, &filter));
    prop::collection::vec(rule, 0..count)
}

fn sets() -> impl Strategy<Value = RuleSet> {
    let patterns = rules(&["%c", "%u", "x-%c", "%u$"], 4);
    let users = prop::collection::vec((prop::sample::select(&["u", "b", "u/b"][..]), rules(&["%c"], 5)), 0..3);
    (rules(&["%c"], 4), users, patterns).prop_map(|(anonymous, users, patterns)| RuleSet {
        anonymous,
        users: users
            .into_iter()
            .map(|(name, rules)| (name.to_string(), rules))
            .collect(),
        patterns,
    })
}

fn clients() -> impl Strategy<Value = (&'static str, Option<&'static str>)> {
    (
        prop::sample::select(&["id", "a", "+", "#", "a/b", "$a"][..]),
        prop::sample::select(&[None, Some("u"), Some("b"), Some("u/b"), Some("#"), Some("$a"), Some("")][..]),
    )
}

/// All topics of up to three levels, those among them that patterns make of this client's names.
fn topics(who: &Who<'_>) -> Vec<String> {
    let made = [
        std::format!("x-{}", who.client_id),
        std::format!("{}$", who.username.unwrap_or_default()),
    ];
    let levels = LEVELS.into_iter().chain(["fresh", "u", "%c"]);
    let levels: Vec<&str> = levels
        .chain(
            made.iter()
                .map(String::as_str)
                .filter(|made| !made.contains(['/', '+', '#'])),
        )
        .collect();
    let mut topics: Vec<String> = levels.iter().map(ToString::to_string).collect();
    for depth in [0, 1] {
        let longer: Vec<String> = topics
            .iter()
            .filter(|topic| topic.matches('/').count() == depth)
            .flat_map(|topic| levels.iter().map(move |level| std::format!("{topic}/{level}")))
            .collect();
        topics.extend(longer);
    }
    topics.retain(|topic| !topic.is_empty());
    topics
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// The compiled rules say of every topic what their list says.
    #[test]
    fn rulings_are_those_of_the_list(set in sets(), (client_id, username) in clients()) {
        let who = Who { client_id, username };
        let rules = Rules::new(set.clone());
        let owner = rules.owner(username, true);
        for topic in topics(&who) {
            let ruling = rules.ruling(owner, &who, &topic);
            prop_assert_eq!((ruling.may_read(), ruling.may_write()), naive::ruling(&set, &who, &topic), "{}", topic);
        }
    }

    /// Of a filter that counts as readable every topic is; one that is refused has none that is; and where one rule says it
    /// all, neither is missed.
    #[test]
    fn filters_are_judged_by_their_topics(set in sets(), (client_id, username) in clients(), filter in filters(&["fresh"])) {
        let who = Who { client_id, username };
        let rules = Rules::new(set.clone());
        let owner = rules.owner(username, true);
        let matching = TopicFilter::new(&filter).unwrap();
        let mut readable = topics(&who)
            .into_iter()
            .filter(|topic| matching.matches(TopicName::new(topic).unwrap()))
            .map(|topic| naive::ruling(&set, &who, &topic).0);
        let all = rules.may_read_all(owner, &who, &filter, &mut Steps(MANY));
        let some = rules.may_read_some(owner, &who, &filter, &mut Steps(MANY));
        prop_assert!(some || !all, "all and not some");
        if all {
            prop_assert!(readable.all(|may| may), "{} is not readable", filter);
        } else if !some {
            prop_assert!(!readable.any(|may| may), "{} is readable", filter);
        } else if filter.len() < 8
            && set.patterns.len() + set.anonymous.len() <= 1
            && set.users.is_empty()
            // The shortest that it matches is the empty topic, which there is not.
            && filter != "/#"
        {
            prop_assert!(readable.any(|may| may), "{} is granted and not readable", filter);
        }
    }

    /// Without steps nothing is taken for readable, and nothing is refused that might be.
    #[test]
    fn who_may_not_look_promises_nothing(set in sets(), (client_id, username) in clients(), filter in filters(&["fresh"])) {
        let who = Who { client_id, username };
        let rules = Rules::new(set);
        let owner = rules.owner(username, true);
        for steps in [0, 1, 3] {
            let all = rules.may_read_all(owner, &who, &filter, &mut Steps(steps));
            let some = rules.may_read_some(owner, &who, &filter, &mut Steps(steps));
            prop_assert!(!all || rules.may_read_all(owner, &who, &filter, &mut Steps(MANY)));
            prop_assert!(some || !rules.may_read_some(owner, &who, &filter, &mut Steps(MANY)));
        }
    }
}

fn read_write(rules: &Rules, client_id: &str, username: Option<&str>, topic: &str) -> (bool, bool) {
    let who = Who { client_id, username };
    let ruling = rules.ruling(rules.owner(username, true), &who, topic);
    (ruling.may_read(), ruling.may_write())
}

/// What the manual of mosquitto.conf says of an ACL file, line by line.
#[test]
fn the_manuals_examples() {
    let rules = Rules::new(RuleSet {
        anonymous: vec![Rule::new(Access::Read, "public/#")],
        users: vec![(
            "roger".to_string(),
            vec![
                Rule::new(Access::ReadWrite, "foo/#"),
                Rule::new(Access::Deny, "foo/bar"),
                Rule::new(Access::DenyWrite, "foo/plan"),
                Rule::new(Access::DenyRead, "foo/inbox"),
            ],
        )],
        patterns: vec![
            Rule::new(Access::Write, "sensor/%u/data"),
            Rule::new(Access::Write, "$SYS/broker/connection/%c/state"),
            Rule::new(Access::Deny, "foo/denied"),
        ],
    });
    let of = |username, topic| read_write(&rules, "id", username, topic);
    assert_eq!(of(None, "public/x"), (true, false));
    assert_eq!(
        of(Some("roger"), "public/x"),
        (false, false),
        "lines before the first user are for nobody who has a name"
    );
    assert_eq!(of(Some("roger"), "foo"), (true, true));
    assert_eq!(of(Some("roger"), "foo/bar"), (false, false));
    assert_eq!(of(Some("roger"), "foo/plan"), (true, false));
    assert_eq!(of(Some("roger"), "foo/inbox"), (false, true));
    assert_eq!(of(Some("roger"), "sensor/roger/data"), (false, true));
    assert_eq!(of(Some("roger"), "sensor/ann/data"), (false, false));
    assert_eq!(
        of(Some("ann"), "sensor/ann/data"),
        (false, true),
        "patterns are for users without lines, too"
    );
    assert_eq!(of(None, "sensor//data"), (false, false));
    assert_eq!(of(None, "$SYS/broker/connection/id/state"), (false, true));
    assert_eq!(
        of(Some("roger"), "foo/denied"),
        (true, true),
        "a user's own lines come before the patterns"
    );
}

/// A name with a wildcard or a level in it widens no pattern, and one that is like the broker's own neither.
#[test]
fn names_do_not_widen_patterns() {
    let rules = Rules::new(RuleSet {
        patterns: vec![
            Rule::new(Access::ReadWrite, "home/%c/#"),
            Rule::new(Access::ReadWrite, "%u/#"),
            Rule::new(Access::Read, "public/#"),
            Rule::new(Access::Deny, "home/%c/locked"),
        ],
        ..RuleSet::default()
    });
    for client_id in ["+", "#", "a/b", "a+", "#a"] {
        for topic in ["home/x/y", "home/a/b/y", "home/+/y", "home/#", "public/x"] {
            assert_eq!(
                read_write(&rules, client_id, Some("u"), topic),
                (false, false),
                "{client_id} {topic}"
            );
        }
    }
    for username in ["+", "#", "u/v", "$SYS", "$SYS/broker"] {
        for topic in ["u/v/x", "x", "$SYS/broker/x", "public/x"] {
            assert_eq!(
                read_write(&rules, "id", Some(username), topic),
                (false, false),
                "{username} {topic}"
            );
        }
    }
    assert_eq!(read_write(&rules, "$SYS", Some("u"), "home/$SYS/x"), (true, true));
    assert_eq!(read_write(&rules, "id", Some("u"), "home/id/x"), (true, true));
    assert_eq!(read_write(&rules, "id", Some("u"), "home/id/locked"), (false, false));
}

/// What means something to a pattern, or to an expression, is text in a name.
#[test]
fn names_are_text() {
    let rules = Rules::new(RuleSet {
        users: vec![("[a-z]".to_string(), vec![Rule::new(Access::Read, "own")])],
        patterns: vec![Rule::new(Access::Read, "name/%u/x"), Rule::new(Access::Read, "id/%c/x")],
        ..RuleSet::default()
    });
    for name in [".*", "[a-z]", "-", "%u", "%c", "%", "*", "?", "\\", " "] {
        for (before, client_id, username) in [("name", "id", Some(name)), ("id", name, None)] {
            let topic = std::format!("{before}/{name}/x");
            assert_eq!(
                read_write(&rules, client_id, username, &topic),
                (true, false),
                "{topic}"
            );
        }
        for topic in ["name/a/x", "name/id/x", "name//x", "id/a/x", "id//x"] {
            assert_eq!(
                read_write(&rules, name, Some(name), topic),
                (false, false),
                "{name} {topic}"
            );
        }
        let owns = read_write(&rules, "id", Some(name), "own").0;
        assert_eq!(owns, name == "[a-z]", "{name}");
    }
    assert_eq!(read_write(&rules, "id", Some("a"), "own"), (false, false));
}

/// On an open listener nobody reads what the broker says of itself, or all at once, who has not proven a name.
#[test]
fn an_open_listener_is_not_all_open() {
    let rules = Rules::for_open_listener();
    let of = |username, vouched, filter: &str| {
        let owner = rules.owner(username, vouched);
        let who = Who {
            client_id: "id",
            username,
        };
        rules.may_read_some(owner, &who, filter, &mut Steps(MANY))
    };
    for filter in ["#", "+/#", "+/+/#", "$SYS/#", "$SOL/x", "$SYS/+/x", "$CONTROL/#"] {
        assert!(
            !of(None, false, filter) && !of(Some("claimed"), false, filter),
            "{filter}"
        );
        assert!(of(Some("proven"), true, filter), "{filter}");
    }
    for filter in ["+", "+/+", "a/#", "$other/#", "+/a/#", "a"] {
        assert!(of(None, false, filter), "{filter}");
        let who = Who {
            client_id: "id",
            username: None,
        };
        assert!(
            rules.may_read_all(rules.owner(None, false), &who, filter, &mut Steps(MANY)),
            "{filter}"
        );
    }
    assert_eq!(read_write(&rules, "id", None, "a/b"), (true, true));
    assert_eq!(read_write(&rules, "id", None, "$SYS/broker/uptime"), (false, false));
}

/// Rights are limited as long as there is a Session with rules of its own, and not longer; under the same number, of which there
/// are not many; and under another when the listeners' rules are others.
#[test]
fn rules_of_its_own_end_with_a_session() {
    let mut config = EngineConfig::default();
    let mut rights = Rights::new(&config);
    assert!(!rights.are_limited());
    assert!(rights.change_own_rules(false, true) && rights.are_limited());
    let number = rights.number();
    for _ in 0..2 * usize::from(u16::MAX) {
        assert!(!rights.change_own_rules(false, true), "a second one is no news");
        assert!(!rights.change_own_rules(true, true), "nor is one in place of another");
        assert!(!rights.change_own_rules(true, false) && rights.are_limited());
        assert!(rights.change_own_rules(true, false) && !rights.are_limited());
        assert!(rights.change_own_rules(false, true));
        assert_eq!(rights.number(), number);
    }
    config.rights = vec![Some(Arc::new(Rules::new(RuleSet::default())))];
    assert!(rights.set(&config) && rights.number() != number);
    assert!(
        !rights.change_own_rules(true, false) && rights.are_limited(),
        "the listener has some"
    );
    config.rights = Vec::new();
    assert!(rights.set(&config) && !rights.are_limited());
    assert!(rights.change_own_rules(false, true) && rights.number() != number);
}
