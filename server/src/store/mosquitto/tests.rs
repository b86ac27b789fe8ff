use proptest::prelude::*;
use sol_codec::{PacketId, QoS};
use sol_engine::{Record, ReferenceState};

use super::chunks::{self, Database};
use super::convert::{Left, convert};

/// Writes a database as Mosquitto does.
struct Writer {
    bytes: Vec<u8>,
    version: u32,
}

impl Writer {
    fn new(version: u32) -> Self {
        let mut bytes = b"\0\xB5\0mosquitto db\0\0\0\0".to_vec();
        bytes.extend_from_slice(&version.to_be_bytes());
        let mut writer = Self { bytes, version };
        let mut configuration = 9_u64.to_le_bytes().to_vec();
        configuration.extend_from_slice(&[1, 8, 0, 0, 0, 0, 0, 0]);
        writer.chunk(1, &[&configuration]);
        writer
    }

    fn chunk(&mut self, kind: u32, parts: &[&[u8]]) -> &mut Self {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&(length as u32).to_be_bytes());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self
    }

    fn message(&mut self, id: u64, topic: &str, payload: &[u8], qos: u8, retain: bool) -> &mut Self {
        let lengths = [0, 3, 0, topic.len() as u16, 1883].map(u16::to_be_bytes).concat();
        self.chunk(
            2,
            &[
                &id.to_le_bytes(),
                &0_u64.to_le_bytes(),
                &(payload.len() as u32).to_be_bytes(),
                &lengths,
                &[qos, u8::from(retain)],
                b"pub",
                topic.as_bytes(),
                payload,
            ],
        )
    }

    fn client(&mut self, client_id: &str, username: &[u8]) -> &mut Self {
        let lengths = [0, client_id.len() as u16].map(u16::to_be_bytes).concat();
        let more = [1883, username.len() as u16, 0, 0].map(u16::to_be_bytes).concat();
        let (more, username): (&[u8], &[u8]) = if self.version == 5 {
            (&[], &[])
        } else {
            (&more, username)
        };
        self.chunk(
            6,
            &[
                &2_000_i64.to_le_bytes(),
                &500_u32.to_be_bytes(),
                &lengths,
                more,
                client_id.as_bytes(),
                username,
            ],
        )
    }

    /// `exchange` is QoS, state, flags and direction.
    fn owed(&mut self, message: u64, client_id: &str, packet_id: u16, exchange: [u8; 4]) -> &mut Self {
        let numbers = [packet_id, client_id.len() as u16].map(u16::to_be_bytes).concat();
        self.chunk(
            3,
            &[
                &message.to_le_bytes(),
                &numbers,
                &exchange,
                client_id.as_bytes(),
                &[2, 0x0B, 7],
            ],
        )
    }

    fn subscription(&mut self, client_id: &str, filter: &str, qos: u8, options: u8) -> &mut Self {
        let lengths = [client_id.len() as u16, filter.len() as u16]
            .map(u16::to_be_bytes)
            .concat();
        self.chunk(
            5,
            &[
                &7_u32.to_be_bytes(),
                &lengths,
                &[qos, options, 0, 0],
                client_id.as_bytes(),
                filter.as_bytes(),
            ],
        )
    }

    fn retained(&mut self, message: u64) -> &mut Self {
        self.chunk(4, &[&message.to_le_bytes()])
    }
}

fn example(version: u32) -> Vec<u8> {
    let mut writer = Writer::new(version);
    writer
        .message(5, "a/b", b"one", 1, true)
        .message(6, "a/c", b"two", 2, false)
        .message(8, "a/d", b"held", 2, true)
        .client("five", b"ann")
        .owed(5, "five", 1, [1, 3, 1, 1])
        .owed(6, "five", 2, [2, 9, 1, 1])
        .owed(6, "five", 3, [2, 11, 0, 1])
        .owed(5, "five", 0, [0, 11, 0, 1])
        .owed(5, "nobody", 0, [1, 11, 0, 1])
        .client("three", b"ann\0and the memory behind it")
        .owed(6, "three", 4, [2, 4, 0, 1])
        .owed(8, "three", 9, [2, 7, 0, 0])
        .client("four", b"ann")
        .subscription("five", "a/#", 2, 0x08)
        .subscription("three", "a/b", 1, 0)
        .subscription("nobody", "a/b", 1, 0)
        .retained(5);
    writer.bytes
}

fn records(database: &Database<'_>) -> (Vec<Record>, Left) {
    let mut records = Vec::new();
    let left = convert(database, [1, 2, 3, 4], |record| records.push(record));
    (records, left)
}

/// Sessions, Subscriptions, messages on their way and retained ones come along from formats 5 and 6, each exchange where it
/// stood; what cannot be is counted.
#[test]
fn formats_5_and_6_are_read() {
    for version in [5, 6] {
        let bytes = example(version);
        let (database, fault) = chunks::read(&bytes).unwrap();
        assert!(fault.is_none(), "{fault:?}");
        let (records, left) = records(&database);
        assert_eq!((left.qos_0, left.strays, left.names), (1, 2, u64::from(version == 6)));
        let packet = |id| PacketId::new(id).unwrap();
        let mut states = Vec::new();
        let (mut sessions, mut retained, mut inbound) = (Vec::new(), 0, 0);
        for record in &records {
            match record {
                Record::Session(_, session) => {
                    assert_eq!(session.disconnected_at.unwrap().as_millis(), 1_500_000);
                    sessions.push((session.client_id.as_str(), session.username.as_deref(), session.vouched));
                }
                Record::Reference(_, reference) => states.push((reference.state, reference.qos)),
                Record::Retained { .. } => retained += 1,
                Record::Inbound { packet_id, .. } => {
                    assert_eq!(*packet_id, packet(9));
                    inbound += 1;
                }
                _ => {}
            }
        }
        let ann = (version == 6).then_some("ann");
        // "four" may have no name at all: nobody is to be kept from its Session for this one.
        assert_eq!(
            sessions,
            [
                ("five", ann, version == 6),
                ("three", None, false),
                ("four", ann, false)
            ]
        );
        // What is on its way, and the held message, which "five" has subscribed to.
        assert_eq!(
            states,
            [
                (ReferenceState::Released(packet(2)), QoS::ExactlyOnce),
                (ReferenceState::Sent(packet(1)), QoS::AtLeastOnce),
                (ReferenceState::Queued, QoS::ExactlyOnce),
                (ReferenceState::Queued, QoS::ExactlyOnce),
                (ReferenceState::Queued, QoS::ExactlyOnce),
            ]
        );
        assert_eq!((retained, inbound), (2, 1));
    }
}

/// A file that is none, or of a format that nobody knows, is told as that.
#[test]
fn other_files_are_told_apart() {
    let told = |bytes: &[u8]| chunks::read(bytes).unwrap_err();
    assert!(told(b"hello").contains("no database of Mosquitto's"));
    assert!(told(&[0; 100]).contains("nothing in it but zeros"));
    assert!(told(&Writer::new(4).bytes).contains("it has format 4"));
    assert!(told(&Writer::new(6).bytes[..20]).contains("within its header"));
}

/// A machine with the other byte order has written the same database.
#[test]
fn the_other_byte_order_is_read_too() {
    let mut bytes = Writer::new(6).bytes;
    let begin = bytes.len() - 16;
    bytes[begin..begin + 8].reverse();
    let mut writer = Writer { bytes, version: 6 };
    writer.retained(5_u64.swap_bytes());
    let (database, fault) = chunks::read(&writer.bytes).unwrap();
    assert!(fault.is_none());
    assert_eq!(database.retained, [5]);
}

/// A cut is told with its offset, unless it is between two chunks; what stands before it is read as it was.
#[test]
fn every_cut_is_told() {
    let bytes = example(6);
    let whole = records(&chunks::read(&bytes).unwrap().0).0.len();
    for length in 23..bytes.len() {
        let (database, fault) = chunks::read(&bytes[..length]).unwrap();
        if let Some(fault) = &fault {
            assert!(fault.offset < length);
            let (_, none) = chunks::read(&bytes[..fault.offset]).unwrap();
            assert!(none.is_none());
        }
        assert!(records(&database).0.len() <= whole);
    }
}

proptest! {
    /// No bytes, and no damage to a database, are ever a panic; and the records that come of them belong together.
    #[test]
    fn damage_is_never_a_panic(
        version in 5..=6_u32,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut bytes = example(version);
        for (at, flip) in flips {
            let at = 23 + at.index(bytes.len() - 23);
            bytes[at] ^= flip;
        }
        bytes.extend_from_slice(&noise);
        let (database, _) = chunks::read(&bytes).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let mut fill = crate::store::fill::Fill::new(directory.path(), &crate::store::records::about()).unwrap();
        let mut result = Ok(());
        convert(&database, [1, 2, 3, 4], |record| {
            if result.is_ok() {
                result = fill.put(&record);
            }
        });
        prop_assert!(result.is_ok(), "{:?}", result);
    }
}
