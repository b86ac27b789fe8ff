use proptest::prelude::*;
use sol_codec::{PacketId, QoS};

use super::*;
use crate::store::records;

/// Every record is the same after it was a line; what a line says more, or less than it must, is refused in words, never a
/// panic.
#[test]
fn records_are_lines_and_lines_are_records() {
    let about = records::about();
    proptest!(|(record in records::record(), cut in any::<prop::sample::Index>(), flip in any::<(prop::sample::Index, u8)>())| {
        let mut line = String::new();
        write(&record, &about, &mut line);
        prop_assert_eq!(read(&line, &about), Ok(record), "{}", line);
        let more = line.replacen('{', "{\"colour\":1,", 1);
        prop_assert_eq!(read(&more, &about), Err("`colour` is not known, or has no place here".to_owned()));
        let mut bytes = line.into_bytes();
        let at = flip.0.index(bytes.len());
        bytes[at] ^= flip.1;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let _ = read(text, &about);
            let _ = read_head(text);
        }
        let cut = String::from_utf8_lossy(&bytes[..cut.index(bytes.len())]).into_owned();
        prop_assert!(read(&cut, &about).is_err());
    });
}

/// The format is what it was: a file that was written once can be read for ever.
#[test]
fn version_1_stays_as_it_is() {
    let about = records::about();
    assert_eq!(
        head(&about),
        r#"{"format":"sol-store","version":1,"seeds":["0000000000000001","0000000000000002","0000000000000003","ffffffffffffffff"],"listeners":["0.0.0.0:1883","web"]}"#
    );
    assert_eq!(read_head(&head(&about)), Ok(about.clone()));
    let mut message = Message::new("a/b", b"\xff\0", true);
    message.qos = QoS::AtLeastOnce;
    let id = |count: u64| RecordId(1 << RecordId::COUNT_BITS | count);
    let all: [(Record, &str); 4] = [
        (
            Record::Body(id(7), std::rc::Rc::new(message)),
            r#"{"record":"message","id":"1-7","topic":"a/b","qos":1,"retain":true,"origin":"0000000000000000","payload":"/wA="}"#,
        ),
        (
            Record::Subscription(
                id(8),
                Box::new(SubscriptionRecord {
                    session: id(1),
                    filter: "$share/g/a/#".to_owned(),
                    options: 0x2E,
                    subscription_id: SubscriptionId::new(9),
                }),
            ),
            r#"{"record":"subscription","id":"1-8","session":"1-1","filter":"$share/g/a/#","qos":2,"no_local":true,"retain_as_published":true,"retain_handling":2,"subscription_identifier":9}"#,
        ),
        (
            Record::Reference(
                id(9),
                Reference {
                    session: id(1),
                    body: Some(id(7)),
                    qos: QoS::AtLeastOnce,
                    retain: false,
                    subscription_ids: SubscriptionId::new(9).into_iter().collect(),
                    share: Some(Box::new(("g".to_owned(), "a/#".to_owned()))),
                    state: ReferenceState::Sent(PacketId::new(u16::MAX).unwrap()),
                },
            ),
            r#"{"record":"reference","id":"1-9","session":"1-1","message":"1-7","qos":1,"state":"sent","packet_id":65535,"share":"$share/g/a/#","subscription_identifiers":[9]}"#,
        ),
        (
            Record::Retained {
                id: id(10),
                body: id(7),
                author: Some(Box::new(Author {
                    username: Some("ann".into()),
                    vouched: true,
                    client_id: None,
                    listener: ListenerId(1),
                })),
            },
            r#"{"record":"retained","id":"1-10","message":"1-7","author":{"listener":"web","username":"ann","vouched":true}}"#,
        ),
    ];
    for (record, text) in all {
        let mut line = String::new();
        write(&record, &about, &mut line);
        assert_eq!(line, text);
        assert_eq!(read(&line, &about), Ok(record));
    }
}

/// What the broker could not use is refused, and named.
#[test]
fn what_a_broker_cannot_use_is_refused() {
    let about = records::about();
    for (line, text) in [
        ("[1]", "it is no object"),
        ("{", "it is not JSON, from column 1"),
        (r#"{"record":"dream","id":"0-1"}"#, "there is no record `dream`"),
        (r#"{"record":"message"}"#, "`id` is missing"),
        (
            r#"{"record":"message","id":"0-0"}"#,
            "`id` must be an identifier such as 0-17",
        ),
        (
            r#"{"record":"message","id":"0-1","topic":"a/#"}"#,
            "`topic` is no Topic Name: ",
        ),
        (
            r#"{"record":"message","id":"0-1","topic":"a","payload":"?"}"#,
            "`payload` must be Base64",
        ),
        (
            r#"{"record":"message","id":"0-1","topic":"a","properties":"AQ=="}"#,
            "`properties` are not those",
        ),
        (
            r#"{"record":"message","id":"0-1","topic":"a","qos":3}"#,
            "`qos` must be 0, 1 or 2",
        ),
        (
            r#"{"record":"subscription","id":"0-1","session":"0-2","filter":"a/#/b","qos":0}"#,
            "`filter` is no Topic Filter: ",
        ),
        (
            r#"{"record":"subscription","id":"0-1","session":"0-2","filter":"a","qos":0,"replays_retained":true}"#,
            "`replays_retained` has no place at QoS 0",
        ),
        (
            r#"{"record":"subscription","id":"0-1","session":"0-2","filter":"$share/g/a","qos":1,"replays_retained":true}"#,
            "`replays_retained` has no place at QoS 0",
        ),
        (
            r#"{"record":"reference","id":"0-1","session":"0-2","qos":1,"state":"queued"}"#,
            "`message` is missing",
        ),
        (
            r#"{"record":"reference","id":"0-1","session":"0-2","qos":1,"state":"released","packet_id":1}"#,
            "what is released has QoS 2",
        ),
        (
            r#"{"record":"session","id":"0-1","client_id":"c","session_expiry_interval":1,"listener":"gone"}"#,
            "`listener` must be one of `listeners`, or a number",
        ),
    ] {
        let error = read(line, &about).unwrap_err();
        assert!(error.starts_with(text), "{line}: {error}");
    }
    assert!(read_head("{}").unwrap_err().contains("`format` is missing"));
    let later = r#"{"format":"sol-store","version":2}"#;
    assert!(read_head(later).unwrap_err().contains("a later version"));
}
