//! Metrics for Prometheus and a health check, over a small HTTP server.
//!
//! Each request has a thread and a second, and only so many may come at a time: a peer that connects and stays silent
//! delays the next by a second at most. The broker is asked for its counters only when somebody scrapes, so nothing on
//! the data path counts for it.

mod rows;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use sol_transport::Clock;

use self::rows::{
    AUTH, AUTH_NAME, COUNTERS, FULL, FULL_NAME, GAUGES, LOGINS_REFUSED, LOGINS_REFUSED_NAME, SHARD_COUNTERS,
    SHARD_GAUGES,
};
use crate::stats::Stats;

/// Longest request head, in bytes.
const REQUEST_BYTES_MAX: usize = 4096;
/// How long the peer may take to send its request.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(1);
/// How long the peer may take to accept its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Requests at a time; more wait to be accepted.
const REQUESTS_MAX: usize = 64;
/// Stack of the thread that answers, in bytes.
const STACK_BYTES: usize = 256 << 10;

/// Asks the broker for its counters; `None` if it does not answer, which makes it unhealthy.
pub type Ask = Box<dyn Fn() -> Option<Stats> + Send + Sync>;

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct MetricsServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    /// Listens at `address` and answers `/metrics` and `/healthz`.
    ///
    /// # Errors
    /// The address cannot be bound, or the system has no thread to give.
    pub fn start(address: SocketAddr, ask: Ask) -> io::Result<Self> {
        Self::serve(TcpListener::bind(address)?, ask)
    }

    /// Answers at a socket that is bound already.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn serve(listener: TcpListener, ask: Ask) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("sol-metrics".to_owned())
            .spawn(move || {
                let recorder = PrometheusBuilder::new().build_recorder();
                describe(&recorder);
                accept(&listener, &Arc::new((recorder, ask)), &seen);
            })?;
        Ok(Self {
            address,
            stopping,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the thread; one that cannot be woken is left to the end of the process.
        if TcpStream::connect_timeout(&self.address, WRITE_TIMEOUT).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Starts a thread for each request until `stopping`.
fn accept(listener: &TcpListener, service: &Arc<(PrometheusRecorder, Ask)>, stopping: &AtomicBool) {
    let (take, give_back) = bounded::<()>(REQUESTS_MAX);
    for stream in listener.incoming() {
        if stopping.load(Ordering::Acquire) {
            break;
        }
        let Ok(stream) = stream else {
            // Out of descriptors: accepting again at once would only spin.
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        // Waits while as many as may are being answered. Cannot fail: this thread holds the other end.
        let _ = take.send(());
        let (service, place) = (Arc::clone(service), Place(give_back.clone()));
        let thread = std::thread::Builder::new()
            .name("sol-scrape".to_owned())
            .stack_size(STACK_BYTES);
        // Without a thread the place is given back and the connection closed. A scraper that breaks off is its own affair.
        let _ = thread.spawn(move || {
            let _place = place;
            answer(stream, &service.0, &service.1)
        });
    }
}

/// One of the requests at a time; given back when dropped.
struct Place(Receiver<()>);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

fn answer(mut stream: TcpStream, recorder: &PrometheusRecorder, ask: &Ask) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let head = read_head(&mut stream)?;
    let (status, content_type, body) = respond(&head, recorder, ask);
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(response.as_bytes())?;
    if !head.starts_with("HEAD ") {
        stream.write_all(body.as_bytes())?;
    }
    Ok(())
}

/// Reads up to the blank line. Whatever stays unread is discarded with the connection.
fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut length) = ([0; REQUEST_BYTES_MAX], 0);
    let clock = Clock::start();
    // All reads share one time: a peer that sends a byte now and then gets no more of it.
    while length < REQUEST_BYTES_MAX {
        let elapsed = Duration::from_nanos(clock.now().mono.as_nanos());
        let left = REQUEST_TIME_MAX.saturating_sub(elapsed);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut head[length..])? {
            0 => break,
            read => length += read,
        }
        if head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&head[..length]).into_owned())
}

fn respond(head: &str, recorder: &PrometheusRecorder, ask: &Ask) -> (&'static str, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    const UNAVAILABLE: &str = "503 Service Unavailable";
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let path = target.split('?').next().unwrap_or("");
    match (method, path) {
        ("GET" | "HEAD", "/metrics") => match ask() {
            Some(stats) => (
                "200 OK",
                "text/plain; version=0.0.4; charset=utf-8",
                render(recorder, &stats),
            ),
            None => (UNAVAILABLE, TEXT, "the broker does not answer\n".to_owned()),
        },
        ("GET" | "HEAD", "/healthz") => match ask() {
            Some(_) => ("200 OK", TEXT, "ok\n".to_owned()),
            None => (UNAVAILABLE, TEXT, "the broker does not answer\n".to_owned()),
        },
        ("GET" | "HEAD", _) => ("404 Not Found", TEXT, "there are /metrics and /healthz\n".to_owned()),
        _ => (
            "405 Method Not Allowed",
            TEXT,
            "only GET and HEAD are answered\n".to_owned(),
        ),
    }
}

/// The gauge whose labels say what runs.
const INFO: &str = "sol_info";

fn describe(recorder: &PrometheusRecorder) {
    metrics::with_local_recorder(recorder, || {
        for (name, sentence, _) in COUNTERS {
            metrics::describe_counter!(name, sentence);
        }
        for (name, sentence, _) in GAUGES {
            metrics::describe_gauge!(name, sentence);
        }
        for (name, sentence, _) in SHARD_COUNTERS {
            metrics::describe_counter!(name, sentence);
        }
        for (name, sentence, _) in SHARD_GAUGES {
            metrics::describe_gauge!(name, sentence);
        }
        metrics::describe_counter!(AUTH_NAME, "Logins that an authenticator has judged, by its outcome");
        metrics::describe_counter!(LOGINS_REFUSED_NAME, "Logins refused, by reason");
        metrics::describe_counter!(FULL_NAME, "Connections turned away, by the limit that was met");
        metrics::describe_gauge!(INFO, "What runs; always 1");
    });
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floating point numbers only")]
fn render(recorder: &PrometheusRecorder, stats: &Stats) -> String {
    metrics::with_local_recorder(recorder, || {
        for (name, _, value) in COUNTERS {
            counter!(name).absolute(value(stats));
        }
        for (name, _, value) in GAUGES {
            gauge!(name).set(value(stats) as f64);
        }
        for (by, outcome, value) in AUTH {
            counter!(AUTH_NAME, "by" => by, "outcome" => outcome).absolute(value(stats));
        }
        for (reason, value) in LOGINS_REFUSED {
            counter!(LOGINS_REFUSED_NAME, "reason" => reason).absolute(value(stats));
        }
        for (limit, value) in FULL {
            counter!(FULL_NAME, "limit" => limit).absolute(value(stats));
        }
        for (number, shard) in stats.shards.iter().enumerate() {
            for (name, _, value) in SHARD_COUNTERS {
                counter!(name, "shard" => number.to_string()).absolute(value(shard));
            }
            for (name, _, value) in SHARD_GAUGES {
                gauge!(name, "shard" => number.to_string()).set(value(shard) as f64);
            }
        }
        gauge!(
            INFO,
            "version" => env!("CARGO_PKG_VERSION"),
            "backend" => stats.backend,
            "shards" => stats.shards.len().to_string()
        )
        .set(1.0);
    });
    recorder.handle().render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::LoginStats;
    use crate::stats::ShardStats;

    fn start(stats: Option<Stats>) -> MetricsServer {
        MetricsServer::start("127.0.0.1:0".parse().unwrap(), Box::new(move || stats.clone())).unwrap()
    }

    fn ask(server: &MetricsServer, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A scrape finds every counter and gauge with its help, in the exporter's text form, and names the busy shard.
    #[test]
    fn scrape() {
        let stats = Stats {
            publish_received: 41,
            clients_connected: 3,
            backend: "epoll",
            logins: LoginStats {
                accepted: 5,
                wrong: 6,
                of_banned_address: 7,
                banned_users: 8,
                ..LoginStats::default()
            },
            shards: vec![
                ShardStats {
                    packets_received: 40,
                    adopted: 12,
                    ..ShardStats::default()
                },
                ShardStats {
                    packets_received: 1_000,
                    clients_connected: 3,
                    ..ShardStats::default()
                },
            ],
            ..Stats::default()
        };
        let server = start(Some(stats));
        let answer = ask(&server, "GET /metrics?x=1 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"),
            "{answer}"
        );
        for line in [
            "# TYPE sol_publish_received_total counter",
            "sol_publish_received_total 41",
            "# HELP sol_clients_connected Clients connected",
            "sol_clients_connected 3",
            "sol_shard_packets_received_total{shard=\"0\"} 40",
            "sol_shard_packets_received_total{shard=\"1\"} 1000",
            "sol_shard_clients_connected{shard=\"1\"} 3",
            "sol_logins_accepted_total 5",
            "sol_logins_refused_total{reason=\"wrong\"} 6",
            "sol_logins_refused_total{reason=\"banned_address\"} 7",
            "sol_logins_refused_total{reason=\"busy\"} 0",
            "sol_banned_users 8",
            "sol_shard_connections_adopted_total{shard=\"0\"} 12",
            concat!(
                "sol_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\",backend=\"epoll\",shards=\"2\"} 1"
            ),
        ] {
            assert!(answer.lines().any(|found| found == line), "{line} in {answer}");
        }
        for name in COUNTERS.iter().chain(&GAUGES).map(|(name, ..)| name) {
            assert!(answer.contains(&format!("\n{name} ")), "{name}");
        }
        assert_eq!(ask(&server, "GET /healthz HTTP/1.0\r\n\r\n").lines().last(), Some("ok"));
    }

    /// A broker that does not answer is unhealthy; what is not there, and what is no request, gets its status.
    #[test]
    fn other_answers() {
        let server = start(None);
        for (request, status) in [
            ("GET /metrics HTTP/1.1\r\n\r\n", "503"),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", "503"),
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("\r\n\r\n", "405"),
        ] {
            assert!(
                ask(&server, request).starts_with(&format!("HTTP/1.1 {status} ")),
                "{request}"
            );
        }
    }

    /// A taken port is an error for the caller to weigh, and a dropped server gives its port back.
    #[test]
    fn port_in_use() {
        let server = start(None);
        let address = server.address();
        let taken = MetricsServer::start(address, Box::new(|| None)).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(server);
        assert!(MetricsServer::start(address, Box::new(|| None)).is_ok());
    }

    /// An endless request is cut off and does not keep the next one waiting for ever.
    #[test]
    fn endless_request() {
        let server = start(Some(Stats::default()));
        let mut endless = TcpStream::connect(server.address()).unwrap();
        endless.write_all(&[b'a'; REQUEST_BYTES_MAX]).unwrap();
        assert!(ask(&server, "GET /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
    }

    /// Peers that connect and say nothing, or a byte now and then, hold nobody up for longer than their one second: with
    /// all places taken twice over the answer comes, and each of them is closed.
    #[test]
    fn silent_peers() {
        let server = start(Some(Stats::default()));
        let mut silent: Vec<_> = (0..2 * REQUESTS_MAX)
            .map(|_| TcpStream::connect(server.address()).unwrap())
            .collect();
        let clock = Clock::start();
        assert!(ask(&server, "GET /healthz HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
        assert!(Duration::from_nanos(clock.now().mono.as_nanos()) < 10 * REQUEST_TIME_MAX);
        for stream in &mut silent {
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        }
    }
}
