//! Section 4.7: Topic Names and Topic Filters, end to end: live, retained and shared.

use crate::support::*;

/// Filter, topic, and whether they match.
const PAIRS: &[(&str, &str, bool)] = &[
    ("foo", "foo", true),
    ("foo", "foo/", false),
    ("foo/", "foo", false),
    ("foo/", "foo/", true),
    ("foo", "Foo", false),
    ("foo", "/foo", false),
    ("/foo", "/foo", true),
    ("/", "/", true),
    ("//", "//", true),
    ("//", "/", false),
    ("+", "foo", true),
    ("+", "foo/bar", false),
    ("+", "/foo", false),
    ("+/+", "/foo", true),
    ("/+", "/foo", true),
    ("+/+", "/", true),
    ("+/", "foo/", true),
    ("+/", "foo", false),
    ("+/+/+", "a//b", true),
    ("a/+/b", "a//b", true),
    ("a/+/b", "a/x/y/b", false),
    ("a/+", "a", false),
    ("a/+", "a/", true),
    ("#", "foo", true),
    ("#", "foo/bar/", true),
    ("#", "/", true),
    ("a/#", "a", true),
    ("a/#", "a/", true),
    ("a/#", "a/b/c", true),
    ("a/#", "ab", false),
    ("a/#", "a-b", false),
    ("a/+/#", "a", false),
    ("a/+/#", "a/b", true),
    ("a/+/#", "a/b/c/d", true),
    ("/#", "/", true),
    ("/#", "a", false),
    ("+/#", "a", true),
    ("sport/tennis/player1/#", "sport/tennis/player1", true),
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
    ("sport/+", "sport", false),
    ("#", "$x", false),
    ("+", "$x", false),
    ("+/y", "$x/y", false),
    ("#", "a/$x", true),
    ("a/+", "a/$x", true),
    ("$x/#", "$x", true),
    ("$x/+", "$x/y", true),
    ("$x/y", "$x/y", true),
    ("$+", "$x", false),
    ("höhe/+", "höhe/m", true),
    ("h\u{f6}he", "ho\u{308}he", false),
    ("a b", "a b", true),
    ("a b", "a  b", false),
];

fn is_filter(filter: &str) -> bool {
    sol_codec::TopicFilter::new(filter).is_ok()
}

/// [MQTT-4.7.1-2, 4.7.1-3, 4.7.2-1, 4.7.3-4]: each pair, for a live message; and as the one Subscription of another
/// client it changes nothing for the first.
#[test]
fn live_messages_match() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for &(filter, topic, matches) in PAIRS.iter().filter(|pair| is_filter(pair.0)) {
            for version in [V311, V5] {
                let client = node.connect(version, "client");
                node.subscribed(client, &[filter], 0);
                node.publish(publisher, topic, 0, 0, "x");
                let expected: Vec<String> = matches
                    .then(|| format!("PUBLISH {topic} q0 \"x\""))
                    .into_iter()
                    .collect();
                assert_eq!(node.take(client), expected, "{filter} {topic}");
                node.unsubscribe(client, &[filter]);
                node.publish(publisher, topic, 0, 0, "x");
                node.expect(client, &["UNSUBACK #2 [00]"]);
            }
        }
    });
}

/// The same, with all filters subscribed at once: one copy where any matches, with the identifiers of those that do.
#[test]
fn all_filters_at_once_match() {
    in_every_node(|node| {
        let client = node.connect(V5, "client");
        let filters: std::collections::BTreeSet<_> = PAIRS
            .iter()
            .map(|pair| pair.0)
            .filter(|filter| is_filter(filter))
            .collect();
        let filters: Vec<_> = filters.into_iter().collect();
        for (n, filter) in filters.iter().enumerate() {
            node.subscribe_with(client, &[filter], Some(n as u32 + 1), options(0));
        }
        node.take(client);
        let publisher = node.connect(V5, "publisher");
        let topics: std::collections::BTreeSet<_> = PAIRS.iter().map(|pair| pair.1).collect();
        for topic in topics {
            let name = sol_codec::TopicName::new(topic).unwrap();
            let ids: Vec<_> = (1..)
                .zip(&filters)
                .filter(|(_, filter)| sol_codec::TopicFilter::new(filter).unwrap().matches(name))
                .map(|(n, _)| n)
                .collect();
            node.publish(publisher, topic, 0, 0, "x");
            let expected: Vec<String> = (!ids.is_empty())
                .then(|| format!("PUBLISH {topic} q0 ids{ids:?} \"x\""))
                .into_iter()
                .collect();
            assert_eq!(node.take(client), expected);
        }
    });
}

/// Each pair, for a retained message.
#[test]
fn retained_messages_match() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for &(filter, topic, matches) in PAIRS.iter().filter(|pair| is_filter(pair.0)) {
            node.retain(publisher, topic, 0, 0, "x");
            let client = node.connect(V311, "client");
            node.subscribe(client, &[filter], 0);
            let mut expected = vec!["SUBACK #1 [00]".to_owned()];
            expected.extend(matches.then(|| format!("PUBLISH {topic} q0 retain \"x\"")));
            assert_eq!(node.take(client), expected, "{filter} {topic}");
            node.retain(publisher, topic, 0, 0, "");
        }
    });
}

/// Each pair, for a Shared Subscription: the same rules (section 4.8.2).
#[test]
fn shared_subscriptions_match() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        for &(filter, topic, matches) in PAIRS.iter().filter(|pair| is_filter(pair.0)) {
            let client = node.connect(V5, "client");
            let shared = format!("$share/name/{filter}");
            node.subscribed(client, &[&shared], 0);
            node.publish(publisher, topic, 0, 0, "x");
            let expected: Vec<String> = matches
                .then(|| format!("PUBLISH {topic} q0 \"x\""))
                .into_iter()
                .collect();
            assert_eq!(node.take(client), expected, "{filter} {topic}");
            node.unsubscribe(client, &[&shared]);
            node.expect(client, &["UNSUBACK #2 [00]"]);
        }
    });
}

/// Topics and filters of many levels and of many bytes work as short ones do.
#[test]
fn long_topics_match() {
    in_every_node(|node| {
        let deep = vec!["l"; 128].join("/");
        let long = "x".repeat(65_535);
        let publisher = node.connect(V5, "publisher");
        let client = node.connect(V5, "client");
        node.subscribed(client, &[&deep, &long, &vec!["+"; 128].join("/")], 0);
        node.publish(publisher, &deep, 0, 0, "deep");
        node.publish(publisher, &long, 0, 0, "long");
        let got = node.take(client);
        assert_eq!(
            got,
            [
                format!("PUBLISH {deep} q0 \"deep\""),
                format!("PUBLISH {long} q0 \"long\"")
            ]
        );
    });
}
