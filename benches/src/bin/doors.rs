//! What a broker spends for clients behind TLS, WebSocket and passwords. `load/doors` starts brokers and runs this
//! against them; one line of JSON is the result.

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand, ValueEnum};
use sol_benches::doors::{Door, Handshakes, Visitor};
use sol_benches::packets::encoded;
use sol_benches::peers;
use sol_benches::process::Process;
use sol_codec::{
    Connect, Disconnect, Packet, PacketId, ProtocolVersion, ReasonCode, Subscribe, SubscribeProperties,
    SubscriptionOptions, Subscriptions, TopicFilter,
};

const VERSION: ProtocolVersion = ProtocolVersion::V311;
/// Before the broker's processor time is read first.
const WARM_UP: Duration = Duration::from_millis(500);

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Parser)]
#[command(about = "Loads a broker through one of its doors and says what it spent.")]
struct Arguments {
    /// The broker's process.
    #[arg(long)]
    pid: u32,
    /// Where the door is.
    #[arg(long)]
    addr: SocketAddr,
    #[arg(long, value_enum, default_value = "tcp")]
    door: Kind,
    /// Certificates to trust, a PEM file.
    #[arg(long, default_value = "ca.crt")]
    ca: String,
    /// 12 or 13.
    #[arg(long, default_value_t = 13)]
    tls: u8,
    #[command(subcommand)]
    work: Work,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Tcp,
    Tls,
    Ws,
    Wss,
}

#[derive(Clone, Subcommand)]
enum Work {
    /// Each pair sends itself `window` messages and waits for them all.
    Pairs {
        #[arg(long, default_value_t = 50)]
        pairs: u32,
        #[arg(long, default_value_t = 16)]
        window: usize,
        #[arg(long, default_value_t = 4)]
        secs: u64,
    },
    /// Somebody on the plain door sends `burst` messages at once to everybody on the door that is measured.
    Fanout {
        #[arg(long)]
        publish_addr: SocketAddr,
        #[arg(long, default_value_t = 100)]
        subscribers: u32,
        #[arg(long, default_value_t = 16)]
        burst: usize,
        #[arg(long, default_value_t = 4)]
        secs: u64,
    },
    /// One after the other comes, is let in and leaves.
    Visits {
        #[arg(long, default_value_t = 1000)]
        count: u32,
        /// Resume the TLS session of the visit before.
        #[arg(long)]
        resume: bool,
    },
    /// Stay, let in and silent.
    Idle {
        #[arg(long, default_value_t = 2000)]
        count: u32,
    },
    /// All come at once with User Name `u0`, `u1` … and Password `pw0`, `pw1` …, twice.
    Logins {
        #[arg(long, default_value_t = 10_000)]
        count: u32,
        /// How many User Names they share.
        #[arg(long, default_value_t = 100)]
        users: u32,
    },
}

impl Arguments {
    fn door(&self) -> Outcome<Door> {
        let resume = matches!(self.work, Work::Visits { resume: true, .. });
        let handshakes = if resume {
            Handshakes::Resumed(self.tls)
        } else {
            Handshakes::Full(self.tls)
        };
        let plain = Door::plain(self.addr);
        Ok(match self.door {
            Kind::Tcp => plain,
            Kind::Ws => plain.websocket(),
            Kind::Tls => plain.tls(&self.ca, handshakes)?,
            Kind::Wss => plain.tls(&self.ca, handshakes)?.websocket(),
        })
    }

    const fn process(&self) -> Process {
        Process(self.pid)
    }

    /// Goes round until the time is over; what the broker spent for how many rounds, without the warm-up.
    fn rounds(&self, secs: u64, mut round: impl FnMut() -> Outcome<()>) -> Outcome<(f64, u32)> {
        let warm = Instant::now() + WARM_UP;
        while Instant::now() < warm {
            round()?;
        }
        let (before, end) = (self.process().spent()?, Instant::now() + Duration::from_secs(secs));
        let mut rounds = 0;
        while Instant::now() < end {
            round()?;
            rounds += 1;
        }
        Ok((self.process().spent()? - before, rounds))
    }

    fn pairs(&self, pairs: u32, window: usize, secs: u64) -> Outcome<String> {
        let door = self.door()?;
        let mut both: Vec<(Visitor, Visitor, Vec<u8>, usize)> = Vec::new();
        for number in 0..pairs {
            let topic = format!("pairs/{number}");
            let subscriber = subscribed(&door, &format!("s{number}"), &topic)?;
            let publisher = let_in(&door, &format!("p{number}"))?;
            let packet = peers::publish(&topic);
            let wrapped = publisher.wrapped(&vec![&packet[..]; window]);
            both.push((publisher, subscriber, wrapped, window * packet.len()));
        }
        let (spent, rounds) = self.rounds(secs, || {
            for (publisher, _, wrapped, _) in &mut both {
                publisher.send(wrapped)?;
            }
            for (_, subscriber, _, due) in &mut both {
                subscriber.receive(*due)?;
            }
            Ok(())
        })?;
        let messages = f64::from(rounds) * f64::from(pairs) * window as f64;
        Ok(format!(
            r#""messages": {messages}, "cpu_us_per_msg": {:.4}"#,
            spent * 1e6 / messages
        ))
    }

    fn fan_out(&self, publish_addr: SocketAddr, subscribers: u32, burst: usize, secs: u64) -> Outcome<String> {
        let door = self.door()?;
        let mut receivers = Vec::new();
        for number in 0..subscribers {
            receivers.push(subscribed(&door, &format!("s{number}"), "news")?);
        }
        let mut publisher = let_in(&Door::plain(publish_addr), "publisher")?;
        let packet = peers::publish("news");
        let wrapped = publisher.wrapped(&vec![&packet[..]; burst]);
        let (spent, rounds) = self.rounds(secs, || {
            publisher.send(&wrapped)?;
            for receiver in &mut receivers {
                receiver.receive(burst * packet.len())?;
            }
            Ok(())
        })?;
        let sends = f64::from(rounds) * f64::from(subscribers);
        Ok(format!(
            r#""sends": {sends}, "cpu_us_per_send": {:.4}"#,
            spent * 1e6 / sends
        ))
    }

    fn visits(&self, count: u32) -> Outcome<String> {
        let door = self.door()?;
        let visit = || -> Outcome<bool> {
            let mut visitor = let_in(&door, "visitor")?;
            let resumed = visitor.was_resumed();
            let goodbye = visitor.wrapped(&[&encoded(
                &Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)),
                VERSION,
            )]);
            visitor.send(&goodbye)?;
            Ok(resumed)
        };
        for _ in 0..20 {
            visit()?;
        }
        let before = self.process().spent()?;
        let mut resumed = 0;
        for _ in 0..count {
            resumed += u32::from(visit()?);
        }
        let spent = (self.process().spent()? - before) * 1e6 / f64::from(count);
        Ok(format!(
            r#""visits": {count}, "resumed": {resumed}, "cpu_us_per_visit": {spent:.2}"#
        ))
    }

    fn idle(&self, count: u32) -> Outcome<String> {
        let door = self.door()?;
        // What the first ones cost is the broker's own growing up.
        let mut silent = Vec::new();
        for number in 0..count / 10 {
            silent.push(let_in(&door, &format!("early{number}"))?);
        }
        let before = self.process().resident()?;
        for number in 0..count {
            silent.push(let_in(&door, &format!("silent{number}"))?);
        }
        let grown = self.process().resident()?.saturating_sub(before);
        Ok(format!(
            r#""connections": {count}, "rss_bytes_per_conn": {}"#,
            grown / u64::from(count)
        ))
    }

    fn logins(&self, count: u32, users: u32) -> Outcome<String> {
        let door = self.door()?;
        let mut lines = Vec::new();
        for pass in ["first", "again"] {
            let (before, start) = (self.process().spent()?, Instant::now());
            let mut visitors = Vec::new();
            for number in 0..count {
                let user = number % users;
                let (name, password) = (format!("u{user}"), format!("pw{user}"));
                let id = format!("{pass}{number}");
                let connect = Connect {
                    username: Some(&name),
                    password: Some(password.as_bytes()),
                    ..Connect::new(VERSION, &id)
                };
                let mut visitor = door.enter()?;
                let connect = visitor.wrapped(&[&encoded(&Packet::Connect(connect), VERSION)]);
                visitor.send(&connect)?;
                visitors.push(visitor);
            }
            let (mut refused, mut lost) = (0, 0);
            for visitor in &mut visitors {
                match visitor.receive(4) {
                    Ok(return_code) => refused += u32::from(return_code != 0),
                    Err(_) => lost += 1,
                }
            }
            lines.push(format!(
                r#""{pass}_s": {:.2}, "{pass}_cpu_s": {:.2}, "{pass}_refused": {refused}, "{pass}_lost": {lost}"#,
                start.elapsed().as_secs_f64(),
                self.process().spent()? - before,
            ));
        }
        Ok(lines.join(", "))
    }

    fn work(&self) -> Outcome<String> {
        match self.work.clone() {
            Work::Pairs { pairs, window, secs } => self.pairs(pairs, window, secs),
            Work::Fanout {
                publish_addr,
                subscribers,
                burst,
                secs,
            } => self.fan_out(publish_addr, subscribers, burst, secs),
            Work::Visits { count, .. } => self.visits(count),
            Work::Idle { count } => self.idle(count),
            Work::Logins { count, users } => self.logins(count, users),
        }
    }
}

/// A client behind the door that was let in.
fn let_in(door: &Door, id: &str) -> Outcome<Visitor> {
    let mut visitor = door.enter()?;
    let connect = visitor.wrapped(&[&encoded(&Packet::Connect(Connect::new(VERSION, id)), VERSION)]);
    visitor.send(&connect)?;
    match visitor.receive(4)? {
        0 => Ok(visitor),
        refused => Err(format!("{id} is refused with return code {refused}").into()),
    }
}

/// One that subscribed at QoS 0.
fn subscribed(door: &Door, id: &str, filter: &str) -> Outcome<Visitor> {
    let mut visitor = let_in(door, id)?;
    let filters = [(TopicFilter::new(filter)?, SubscriptionOptions::default())];
    let subscribe = Packet::Subscribe(Subscribe {
        packet_id: PacketId::new(1).ok_or("1 is not 0")?,
        filters: Subscriptions::from_slice(&filters),
        properties: SubscribeProperties::default(),
    });
    let subscribe = visitor.wrapped(&[&encoded(&subscribe, VERSION)]);
    visitor.send(&subscribe)?;
    visitor.receive(5)?;
    Ok(visitor)
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
fn main() -> ExitCode {
    match Arguments::parse().work() {
        Ok(line) => {
            println!("{{{line}}}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("doors: {error}");
            ExitCode::FAILURE
        }
    }
}
