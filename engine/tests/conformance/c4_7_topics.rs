//! Section 4.7: Topic Names and Topic Filters, end to end: live, retained and shared.

use sol_codec::ProtocolVersion;

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

/// Each pair, for a live message, which has the topic that it was published to; and as the one Subscription of another
/// client it changes nothing for the first.
///
/// Proves 5.0: MQTT-3.3.2-3, MQTT-4.7.1-2, MQTT-4.7.2-1, MQTT-4.7.3-4; 3.1.1: MQTT-3.3.2-3, MQTT-3.8.3-2,
/// MQTT-4.7.1-3, MQTT-4.7.2-1, MQTT-4.7.3-4.
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
///
/// Proves 5.0: MQTT-3.3.4-3, MQTT-3.3.4-4, MQTT-4.7.2-1.
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
///
/// Proves 5.0: MQTT-4.7.2-1; 3.1.1: MQTT-4.7.2-1.
#[test]
fn retained_messages_match() {
    for &(filter, topic, matches) in PAIRS.iter().filter(|pair| is_filter(pair.0)) {
        in_every_node(|node| {
            let publisher = node.connect(V5, "publisher");
            node.retain(publisher, topic, 0, 0, "x");
            for version in [V311, V5] {
                let client = node.connect(version, "client");
                node.subscribe(client, &[filter], 0);
                let mut expected = vec!["SUBACK #1 [00]".to_owned()];
                expected.extend(matches.then(|| format!("PUBLISH {topic} q0 retain \"x\"")));
                assert_eq!(node.take(client), expected, "{filter} {topic}");
            }
        });
    }
}

/// Each pair, for a Shared Subscription: the same rules (section 4.8.2).
///
/// Proves 5.0: MQTT-4.7.2-1.
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

/// Topics and filters of many levels and of up to 65,535 bytes work as short ones do; there are no longer ones.
///
/// Proves 5.0: MQTT-4.7.3-3; 3.1.1: MQTT-4.7.3-3.
#[test]
fn long_topics_match() {
    in_every_node(|node| {
        let deep = vec!["l"; 128].join("/");
        let long = "x".repeat(65_535);
        for version in [V311, V5] {
            let publisher = node.connect(version, "publisher");
            let client = node.connect(version, "client");
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
        }
    });
    let longer = "x".repeat(65_536);
    assert!(sol_codec::TopicName::new(&longer).is_err());
    assert!(!is_filter(&longer));
}

/// A PUBLISH, a SUBSCRIBE and an UNSUBSCRIBE with this topic or filter, as bytes.
fn packets_with(version: ProtocolVersion, text: &[u8]) -> [Vec<u8>; 3] {
    let none: &[u8] = if version == V5 { &[0] } else { &[] };
    let packet = |first: u8, parts: &[&[u8]]| {
        let rest = parts.concat();
        [&[first, rest.len() as u8], &rest[..]].concat()
    };
    let len = [0, text.len() as u8];
    [
        packet(0x30, &[&len, text, none]),
        packet(0x82, &[&[0, 1], none, &len, text, &[0]]),
        packet(0xa2, &[&[0, 2], none, &len, text]),
    ]
}

/// A wildcard in the Topic Name of a PUBLISH ends the connection and reaches nobody; in a filter it is welcome, and what
/// comes has no wildcard.
///
/// Proves 5.0: MQTT-3.3.2-2, MQTT-4.7.0-1; 3.1.1: MQTT-3.3.2-2, MQTT-4.7.1-1.
#[test]
fn topic_names_have_no_wildcards() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let subscriber = node.connect(version, "subscriber");
            node.subscribed(subscriber, &["#", "+/+", "a/+"], 0);
            for text in ["#", "+", "a/+", "a/#", "+/a", "a+"] {
                let client = node.connect(version, "client");
                let [publish, ..] = packets_with(version, text.as_bytes());
                node.refuses_bytes(client, &publish, 0x90);
            }
            node.expect(subscriber, &[]);
            let client = node.connect(version, "client");
            node.publish(client, "a/b", 0, 0, "");
            node.expect(subscriber, &[r#"PUBLISH a/b q0 """#]);
        }
    });
}

/// `#` stands alone in the last level, or the SUBSCRIBE or UNSUBSCRIBE ends the connection.
///
/// Proves 5.0: MQTT-4.7.1-1; 3.1.1: MQTT-4.7.1-2.
#[test]
fn a_hash_is_the_last_level() {
    in_every_node(|node| {
        for version in [V311, V5] {
            for text in ["a/#/b", "#/a", "a#", "a/b#", "#a", "##", "#/#", "#/"] {
                let [_, subscribe, unsubscribe] = packets_with(version, text.as_bytes());
                for packet in [subscribe, unsubscribe] {
                    let client = node.connect(version, "client");
                    node.refuses_bytes(client, &packet, 0x8f);
                }
            }
        }
    });
}

/// `+` stands alone in its level, or the SUBSCRIBE or UNSUBSCRIBE ends the connection.
///
/// Proves 5.0: MQTT-4.7.1-2; 3.1.1: MQTT-4.7.1-3.
#[test]
fn a_plus_fills_its_level() {
    in_every_node(|node| {
        for version in [V311, V5] {
            for text in ["a+", "+a", "a/b+/c", "++", "+#"] {
                let [_, subscribe, unsubscribe] = packets_with(version, text.as_bytes());
                for packet in [subscribe, unsubscribe] {
                    let client = node.connect(version, "client");
                    node.refuses_bytes(client, &packet, 0x8f);
                }
            }
        }
    });
}

/// An empty Topic Name or filter ends the connection; one character is enough.
///
/// Proves 5.0: MQTT-4.7.3-1; 3.1.1: MQTT-4.7.3-1.
#[test]
fn topics_have_a_character() {
    in_every_node(|node| {
        for version in [V311, V5] {
            for (packet, reason_code) in packets_with(version, b"").into_iter().zip([0x82, 0x8f, 0x8f]) {
                let client = node.connect(version, "client");
                node.refuses_bytes(client, &packet, reason_code);
            }
            let client = node.connect(version, "client");
            let [publish, subscribe, unsubscribe] = packets_with(version, b"/");
            node.send_bytes(client, &[subscribe, publish, unsubscribe].concat());
            node.expect(client, &["SUBACK #1 [00]", r#"PUBLISH / q0 """#, "UNSUBACK #2 [00]"]);
        }
    });
}

/// U+0000 in a Topic Name or filter ends the connection.
///
/// Proves 5.0: MQTT-4.7.3-2; 3.1.1: MQTT-4.7.3-2.
#[test]
fn topics_have_no_null_character() {
    in_every_node(|node| {
        for version in [V311, V5] {
            let subscriber = node.connect(version, "subscriber");
            node.subscribed(subscriber, &["#"], 0);
            for text in ["\0", "a\0", "a/\0/b"] {
                for packet in packets_with(version, text.as_bytes()) {
                    let client = node.connect(version, "client");
                    node.refuses_bytes(client, &packet, 0x81);
                }
            }
            node.expect(subscriber, &[]);
        }
    });
}
