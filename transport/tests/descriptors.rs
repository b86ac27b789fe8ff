//! Out of descriptors: the listener rests, who is inside is served, and it goes on by itself.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failure fails the test, and a process tells another what it sees"
)]

#[macro_use]
mod support;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use sol_codec::ProtocolVersion;

use self::support::{Broker, Client};

on_each_backend! {
    a_broker_with_few_descriptors
    a_broker_with_many_clients
    the_last_descriptor_is_no_error_while_nobody_else_waits
    five_thousand_connections_leave_no_descriptor_behind
    out_of_descriptors_the_listener_rests_and_those_inside_are_served
    out_of_descriptors_those_who_say_nothing_make_room
}

const ROLE: &str = "SOL_TEST_FEW_DESCRIPTORS";
/// The last word of the process with many clients.
const CHURNED: &str = "every descriptor came back";

/// A process with a broker in it and few descriptors.
struct Starved {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Starved {
    fn start() -> (Self, SocketAddr) {
        let mut child = Command::new("sh")
            .arg("-c")
            .arg("ulimit -n 48 && exec \"$0\" --exact --nocapture \"$1::a_broker_with_few_descriptors\"")
            .arg(std::env::current_exe().unwrap())
            .arg(support::module())
            .env(ROLE, "broker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut starved = Self { child, lines };
        let address = starved.value("address").parse().unwrap();
        (starved, address)
    }

    /// The value of the next line that begins with `name`.
    fn value(&mut self, name: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(
                self.lines.read_line(&mut line).unwrap() > 0,
                "the broker's process ended early"
            );
            if let Some((_, value)) = line.split_once(&format!("{name}=")) {
                return value.trim().to_owned();
            }
        }
    }

    /// Has it take all descriptors but one.
    fn leave_one(&mut self) {
        writeln!(self.child.stdin.as_ref().unwrap(), "take").unwrap();
        assert_ne!(self.value("taken"), "0");
    }

    /// How often it has paused a listener so far.
    fn pauses(&mut self) -> String {
        writeln!(self.child.stdin.as_ref().unwrap(), "tell").unwrap();
        self.value("so far")
    }

    /// Lets it report and end.
    fn finish(mut self) -> (u64, u64) {
        drop(self.child.stdin.take());
        let pauses = self.value("pauses").parse().unwrap();
        let turns = self.value("turns").parse().unwrap();
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success());
        (pauses, turns)
    }
}

/// The other process's part; on its own it does nothing.
fn a_broker_with_few_descriptors() {
    if std::env::var_os(ROLE).is_none_or(|role| role != "broker") {
        return;
    }
    // Many would take so many descriptors for themselves that no clients come in.
    support::keep_shards();
    let broker = Broker::start(1, |config, _| {
        config.listeners[0].defer_accept = false;
        config.accept_pause = Duration::from_millis(20);
    });
    println!("address={}", broker.address);
    std::io::stdout().flush().unwrap();
    // Until the other process lets go.
    let mut taken = Vec::new();
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "take" => {
                taken.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
                taken.pop();
                println!("taken={}", taken.len());
            }
            _ => println!("so far={}", broker.counters().accept_pauses),
        }
        std::io::stdout().flush().unwrap();
    }
    drop(taken);
    let counters = broker.counters();
    println!("pauses={}\nturns={}", counters.accept_pauses, counters.turns);
    broker.stop();
}

fn out_of_descriptors_the_listener_rests_and_those_inside_are_served() {
    let (starved, address) = Starved::start();
    let version = ProtocolVersion::V311;
    let mut inside = Client::connect(address, version, "inside");
    // More than it has descriptors for; the system completes their handshakes and they wait.
    let crowd: Vec<Client> = (0..60)
        .map(|n| {
            let mut client = Client::open(address, version);
            client.send(&support::connect(version, &format!("crowd{n}")));
            client
        })
        .collect();
    for _ in 0..50 {
        inside.ping();
    }
    // Those who were accepted leave, and those who waited come in.
    let mut served = 0;
    for mut client in crowd {
        client.expect_connack();
        served += 1;
    }
    assert_eq!(served, 60);
    inside.ping();
    drop(inside);
    let (pauses, turns) = starved.finish();
    assert!(pauses > 0, "the descriptors never ran out");
    assert!(turns < 5_000, "{turns} turns: it span");
}

fn out_of_descriptors_those_who_say_nothing_make_room() {
    // Or silent peers would keep everybody out for as long as they may be silent, and come back then.
    let (starved, address) = Starved::start();
    let version = ProtocolVersion::V311;
    let mut inside: Vec<Client> = (0..30)
        .map(|n| Client::connect(address, version, &format!("inside{n}")))
        .collect();
    // They are fewer than may be unauthenticated, and with those inside they take all descriptors.
    let silent: Vec<Client> = (0..11)
        .map(|_| {
            let mut client = Client::open(address, version);
            client.send(&[0x10]);
            client
        })
        .collect();
    for n in 0..5 {
        inside.push(Client::connect(address, version, &format!("late{n}")));
    }
    for client in &mut inside {
        client.ping();
    }
    drop((inside, silent));
    let (pauses, turns) = starved.finish();
    assert!(pauses > 0, "the descriptors never ran out");
    assert!(turns < 5_000, "{turns} turns: it span");
}

/// A system takes a descriptor before it looks whether anybody is to be accepted, so it fails with the last one gone even
/// if nobody is: then nothing is wrong, nobody has to make room, and whoever comes later is accepted when there is room.
fn the_last_descriptor_is_no_error_while_nobody_else_waits() {
    let (mut starved, address) = Starved::start();
    let version = ProtocolVersion::V311;
    let mut silent = Client::open(address, version);
    let bytes = support::connect(version, "silent");
    let (first, rest) = bytes.split_at(1);
    silent.send(first);
    // Accepted after that one.
    let mut inside = Client::connect(address, version, "inside");
    starved.leave_one();
    let mut last = Client::connect(address, version, "last");
    for _ in 0..50 {
        last.ping();
        inside.ping();
    }
    assert_eq!(starved.pauses(), "0");
    silent.send(rest);
    silent.expect_connack();
    drop(inside);
    Client::connect(address, version, "later").ping();
    drop((last, silent));
    let (_, turns) = starved.finish();
    assert!(turns < 5_000, "{turns} turns: it span");
}

/// Descriptors of this process.
#[cfg(target_os = "linux")]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[cfg(not(target_os = "linux"))]
fn descriptors() -> usize {
    std::fs::read_dir("/dev/fd").unwrap().count()
}

/// The other process's part, which has it for itself, so that its descriptors are the broker's and its clients'.
fn a_broker_with_many_clients() {
    if std::env::var_os(ROLE).is_none_or(|role| role != "churn") {
        return;
    }
    let version = ProtocolVersion::V5;
    let broker = Broker::start(2, |config, _| config.listeners[0].defer_accept = false);
    Client::connect(broker.address, version, "first").ping();
    broker.wait_until("nobody is there", |counters| counters.connections == 0);
    let idle = descriptors();
    for round in 0..50 {
        let mut clients: Vec<Client> = (0..100)
            .map(|n| {
                let mut client = Client::open(broker.address, version);
                // Some never say a word, and some go in the middle of one.
                match n % 10 {
                    0 => {}
                    1 => client.send(&support::connect(version, "half")[..5]),
                    _ => client.send(&support::connect(version, &format!("client {n}"))),
                }
                client
            })
            .collect();
        for (n, client) in clients.iter_mut().enumerate().filter(|(n, _)| n % 10 > 1) {
            match (n + round) % 4 {
                // Closed by the broker, closed in order, closed with a reset, and closed in silence.
                0 => client.send(&[0x36, 4, 0, 1, b'a', 0]),
                1 => client.send(&support::disconnect(version)),
                2 => client.send(&support::publish(version, "t", &[0; 10_000])),
                _ => client.expect_connack(),
            }
        }
    }
    broker.wait_until("everybody is gone", |counters| counters.connections == 0);
    assert_eq!(descriptors(), idle);
    broker.stop();
    println!("\n{CHURNED}");
}

/// However 5,000 connections end, by whom and at what moment, every descriptor comes back.
fn five_thousand_connections_leave_no_descriptor_behind() {
    let test = format!("{}::a_broker_with_many_clients", support::module());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &test])
        .env(ROLE, "churn")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    // Where no test has that name, all of them pass too.
    assert!(text.lines().any(|line| line == CHURNED), "{text}");
}
