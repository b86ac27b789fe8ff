//! The binary when it fails: what the log says, and how the process ends. Needs the feature `mutants`: a PUBLISH to a
//! topic of that name asks for a fault.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, and says where")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use sol_codec::{Connect, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode, TopicName};

/// Long enough for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// By convention of sysexits.h: an internal error of the software.
const EXIT_SOFTWARE: i32 = 70;

/// A broker of its own process, killed if the test fails before it has ended.
struct Broker {
    process: Child,
    log: Receiver<String>,
    port: u16,
}

impl Broker {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_sol"))
            .args(["-p", "0", "--metrics", "off", "-c", "/dev/null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = channel();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut broker = Self { process, log, port: 0 };
        let line = broker.wait_for("listening on ");
        let address = line.split("listening on ").nth(1).unwrap();
        let address = address.split_whitespace().next().unwrap();
        broker.port = address.rsplit(':').next().unwrap().parse().unwrap();
        broker
    }

    /// The next line of the log that holds a text.
    fn wait_for(&self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(PATIENCE).unwrap();
            if line.contains(text) {
                return line;
            }
        }
    }

    /// A client that was let in.
    fn connect(&self, client_id: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        Connect::new(ProtocolVersion::V5, client_id).encode(ProtocolVersion::V5, &mut bytes);
        stream.write_all(&bytes).unwrap();
        let mut header = [0; 2];
        stream.read_exact(&mut header).unwrap();
        assert_eq!(header[0], 0x20);
        let mut body = vec![0; usize::from(header[1])];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(body[1], ReasonCode::Success.value());
        stream
    }

    /// Publishes at QoS 1 and gives all that comes until the connection ends.
    fn publish(&self, client_id: &str, topic: &str) -> Vec<u8> {
        let mut stream = self.connect(client_id);
        let mut bytes = Vec::new();
        Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: Some(TopicName::new(topic).unwrap()),
            packet_id: PacketId::new(1),
            properties: PublishProperties::default(),
            payload: b"",
        }
        .encode(ProtocolVersion::V5, &mut bytes);
        stream.write_all(&bytes).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    }

    /// How the process ended by itself, which it must within our patience.
    fn exit_code(mut self) -> Option<i32> {
        // The log ends when the process does.
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(late) => panic!("{late}"),
            }
        }
        self.process.wait().unwrap().code()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A fault that leaves the engine in contradiction with itself ends the process with exit code 70, so that a supervisor
/// starts it anew, and the log says which fault and which contradiction.
#[test]
fn a_contradiction_ends_the_process() {
    let broker = Broker::start();
    assert_eq!(broker.publish("guilty", "panic/unsound"), []);
    broker.wait_for("a fault of the broker itself: planted with the gauges wrong; the gauge of Subscriptions is wrong");
    assert_eq!(broker.exit_code(), Some(EXIT_SOFTWARE));
}

/// A first fault is survived and logged with the peer that caused it, who hears 0x83; a second within a minute ends the
/// process with exit code 70 and without an answer.
#[test]
fn a_second_fault_within_a_minute_ends_the_process() {
    let broker = Broker::start();
    let answer = broker.publish("first", "panic/before");
    assert_eq!(answer.first(), Some(&0xe0));
    assert_eq!(answer.get(2), Some(&ReasonCode::ImplementationSpecificError.value()));
    let line = broker.wait_for("a fault of the broker, survived: planted before an update");
    assert!(line.contains("127.0.0.1:"), "{line}");
    assert_eq!(broker.publish("second", "panic/before"), []);
    broker.wait_for("a fault of the broker itself: planted before an update; the second within a minute");
    assert_eq!(broker.exit_code(), Some(EXIT_SOFTWARE));
}
