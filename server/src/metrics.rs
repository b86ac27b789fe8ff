//! Metrics for Prometheus and a health check, over a small HTTP server.
//!
//! One thread answers one request at a time, with a limit on its size and on its time; it asks for the counters only
//! when somebody scrapes, so nothing on the data path counts for it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::stats::Stats;

/// Longest request head, in bytes.
const REQUEST_BYTES_MAX: usize = 4096;
/// How long one read may take, and how many there may be: together the longest that one peer holds the thread.
const READ_TIMEOUT: Duration = Duration::from_millis(500);
const READS_MAX: usize = 8;
/// How long the peer may take to accept its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the broker for its counters; `None` if it does not answer, which makes it unhealthy.
pub type Ask = Box<dyn Fn() -> Option<Stats> + Send>;

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
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stopping = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopping);
        let thread = std::thread::Builder::new()
            .name("sol-metrics".to_owned())
            .spawn(move || {
                let recorder = PrometheusBuilder::new().build_recorder();
                describe(&recorder);
                for stream in listener.incoming() {
                    if seen.load(Ordering::Acquire) {
                        break;
                    }
                    match stream {
                        // A scraper that breaks off is its own affair.
                        Ok(stream) => drop(answer(stream, &recorder, &ask)),
                        // Out of descriptors: accepting again at once would only spin.
                        Err(_) => std::thread::sleep(Duration::from_millis(100)),
                    }
                }
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
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let (mut head, mut length) = ([0; REQUEST_BYTES_MAX], 0);
    // The number of reads is bounded too: a peer that sends a byte at a time must not hold the thread.
    for _ in 0..READS_MAX {
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

/// Name, sentence and value of a metric.
type Row = (&'static str, &'static str, fn(&Stats) -> u64);

/// What only grows.
const COUNTERS: [Row; 15] = [
    ("sol_sockets_opened_total", "Network Connections accepted", |s| {
        s.sockets_opened
    }),
    ("sol_connects_received_total", "CONNECT packets received", |s| {
        s.connects_received
    }),
    ("sol_packets_received_total", "MQTT Control Packets received", |s| {
        s.packets_received
    }),
    ("sol_packets_sent_total", "MQTT Control Packets sent", |s| {
        s.packets_sent
    }),
    ("sol_bytes_received_total", "Bytes received", |s| s.bytes_received),
    ("sol_bytes_sent_total", "Bytes sent", |s| s.bytes_sent),
    ("sol_publish_received_total", "PUBLISH packets received", |s| {
        s.publish_received
    }),
    ("sol_publish_sent_total", "PUBLISH packets sent", |s| s.publish_sent),
    (
        "sol_publish_dropped_total",
        "Messages that did not reach a client",
        |s| s.publish_dropped,
    ),
    ("sol_publish_bytes_received_total", "Payload bytes received", |s| {
        s.publish_bytes_received
    }),
    ("sol_publish_bytes_sent_total", "Payload bytes sent", |s| {
        s.publish_bytes_sent
    }),
    ("sol_clients_expired_total", "Sessions ended by their expiry", |s| {
        s.clients_expired
    }),
    ("sol_connects_refused_total", "CONNECT packets refused", |s| {
        s.connects_refused
    }),
    (
        "sol_protocol_errors_total",
        "Connections closed for a broken protocol",
        |s| s.protocol_errors,
    ),
    ("sol_uptime_seconds_total", "Seconds since the start", |s| {
        s.uptime.as_secs()
    }),
];

/// What rises and falls.
const GAUGES: [Row; 9] = [
    ("sol_clients_connected", "Clients connected", |s| s.clients_connected),
    ("sol_clients_disconnected", "Sessions that wait for their client", |s| {
        s.clients_disconnected
    }),
    ("sol_clients_maximum", "The most clients at any moment", |s| {
        s.clients_maximum
    }),
    (
        "sol_messages_stored",
        "Messages retained, queued and on their way",
        |s| s.messages_stored,
    ),
    ("sol_messages_retained", "Retained messages", |s| s.messages_retained),
    ("sol_subscriptions", "Subscriptions", |s| s.subscriptions),
    ("sol_shared_subscriptions", "Shared Subscriptions", |s| {
        s.shared_subscriptions
    }),
    ("sol_memory_bytes", "Bytes charged against max_memory", |s| {
        s.memory_bytes
    }),
    ("sol_memory_bytes_maximum", "The most bytes ever charged", |s| {
        s.memory_bytes_maximum
    }),
];

fn describe(recorder: &PrometheusRecorder) {
    metrics::with_local_recorder(recorder, || {
        for (name, sentence, _) in COUNTERS {
            metrics::describe_counter!(name, sentence);
        }
        for (name, sentence, _) in GAUGES {
            metrics::describe_gauge!(name, sentence);
        }
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
    });
    recorder.handle().render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(stats: Option<Stats>) -> MetricsServer {
        MetricsServer::start("127.0.0.1:0".parse().unwrap(), Box::new(move || stats)).unwrap()
    }

    fn ask(server: &MetricsServer, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A scrape finds every counter and gauge with its help, in the exporter's text form.
    #[test]
    fn scrape() {
        let stats = Stats {
            publish_received: 41,
            clients_connected: 3,
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
}
