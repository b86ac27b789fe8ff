//! Section 3.3: PUBLISH.

use crate::support::*;

/// A message reaches a subscriber on whatever shard, at the lower QoS [MQTT-3.8.4-8], and is acknowledged.
#[test]
fn a_message_reaches_its_subscriber() {
    in_every_node(|node| {
        let subscriber = node.connect(V5, "subscriber");
        let publisher = node.connect(V311, "publisher");
        node.subscribed(subscriber, &["a/+"], 1);
        node.publish(publisher, "a/b", 0, 0, "zero");
        node.publish(publisher, "a/b", 1, 7, "one");
        node.publish(publisher, "a/b", 2, 8, "two");
        node.expect(publisher, &["PUBACK #7", "PUBREC #8"]);
        node.pubrel(publisher, 8);
        node.expect(publisher, &["PUBCOMP #8"]);
        node.expect(
            subscriber,
            &[
                r#"PUBLISH a/b q0 "zero""#,
                r#"PUBLISH a/b q1 #1 "one""#,
                r#"PUBLISH a/b q1 #2 "two""#,
            ],
        );
    });
}

/// [MQTT-3.3.1-5, -8, -9]: a retained message is replayed with RETAIN 1; live ones come with RETAIN 0.
#[test]
fn retained_messages_are_replayed() {
    in_every_node(|node| {
        let publisher = node.connect(V5, "publisher");
        node.retain(publisher, "r/1", 0, 0, "one");
        node.retain(publisher, "r/2", 1, 3, "two");
        let subscriber = node.connect(V311, "subscriber");
        node.subscribe(subscriber, &["r/#"], 1);
        let mut got = node.take(subscriber);
        got[1..].sort();
        assert_eq!(
            got,
            [
                "SUBACK #1 [01]",
                r#"PUBLISH r/1 q0 retain "one""#,
                r#"PUBLISH r/2 q1 #1 retain "two""#
            ]
        );
        node.retain(publisher, "r/1", 0, 0, "three");
        node.expect(subscriber, &[r#"PUBLISH r/1 q0 "three""#]);
    });
}
